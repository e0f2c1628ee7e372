"""What a policy answers to problems, and what the tests say: the data that reward models are made of.

In:  prompts, a policy's engine, the sandbox.  Out: rows of `Feedback`, kept in portions as they come.
Source: DeepSeek-Coder-V2 §3.5.2: preferences from compiler and tests, which are noisy where tests are few.

Unusual: each answer is judged twice, by the tests that its prompt shows and by the hidden ones. The first is what is
learned from, the second what the learning is measured by. An answer's seed follows from its problem and its number, so
other problems change nothing but roundings.
"""

import math
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from codeweft.base.artifacts import atomic
from codeweft.base.processes import Together
from codeweft.base.progress import bar
from codeweft.base.records import Feedback, Problem, Sample, Verdict, schema
from codeweft.base.seeds import derive
from codeweft.rl.judging import Judge, Outcome
from codeweft.rl.preferences import Judged
from codeweft.rl.prompts import Prompt, tested
from codeweft.rl.rollout import Drawn, Sampler, Wanted

PORTION = 64  # prompts that are answered, judged and kept at once


def collect(
    prompts: Sequence[Prompt],
    answers: int,
    seed: int,
    name: str,
    sampler: Sampler,
    judge: Judge,
    staging: Path,
    together: Together | None = None,
) -> list[Feedback]:
    """`answers` judged answers to each prompt; finished portions are taken from `staging` where they are.

    Of processes that work together, each sees to its share of the portions and then reads all.
    """
    together = together or Together()
    paths = {first: staging / f"feedback-{name}-{first:06d}.parquet" for first in range(0, len(prompts), PORTION)}
    mine = together.share(list(paths))
    asked = sum(len(prompts[first : first + PORTION]) for first in mine)
    with bar(f"answers, {name}", asked * answers, "answers") as shown:
        for first in mine:
            path = paths[first]
            portion = prompts[first : first + PORTION]
            if not path.exists():
                wanted = [
                    Wanted(prompt, derive(seed, "feedback", prompt.problem.id, number) % 2**31)
                    for prompt in portion
                    for number in range(answers)
                ]
                # what was read for an earlier portion must not change a rounding: a resumed run has not read it
                sampler.refresh()
                with atomic(path) as file:
                    pq.write_table(table_of(_collected(wanted, sampler, judge)), file, compression="zstd")
            shown.advance(len(portion) * answers)
    together.wait()
    return [row for path in paths.values() for row in read_feedback(path)]


def _collected(wanted: Sequence[Wanted], sampler: Sampler, judge: Judge) -> list[Feedback]:
    drawn: dict[int, Drawn] = {}
    verdicts: dict[int, tuple[Future[Outcome], Future[Outcome]]] = {}

    def ended(number: int, answer: Drawn) -> None:
        problem = wanted[number].prompt.problem
        drawn[number] = answer
        visible = judge.judge(problem, answer.text, "visible")
        # without tests of its own a problem has one verdict, which is not asked for twice
        verdicts[number] = visible, judge.judge(problem, answer.text, "hidden") if tested(problem) else visible

    sampler.draw(wanted, ended)
    rows = []
    for number, asked in enumerate(wanted):
        answer, (visible, hidden) = drawn[number], (each.result().verdict for each in verdicts[number])
        rows.append(
            Feedback(
                asked.prompt.problem.id, asked.seed, answer.text, answer.tokens, math.fsum(answer.logprobs),
                answer.finish, visible.status, visible.passed, visible.total, hidden.status, hidden.passed,
                hidden.total, visible.tier, visible.mode,
            )
        )  # fmt: skip
    return rows


def table_of(rows: Sequence[Feedback]) -> pa.Table:
    """Rows as a table."""
    columns = {name: [getattr(row, name) for row in rows] for name in Feedback.__dataclass_fields__}
    return pa.Table.from_pydict(columns, schema(Feedback))


def read_feedback(path: Path) -> list[Feedback]:
    """The rows of a file that `table_of` made."""
    return [Feedback(**row | {"tokens": tuple(row["tokens"])}) for row in pq.read_table(path).to_pylist()]


def judged_by(rows: Sequence[Feedback], which: Literal["visible", "hidden"]) -> list[Judged]:
    """Answers with the verdict of the visible or the hidden tests."""
    found = []
    for row in rows:
        status, passed, total = (getattr(row, name) for name in (which, f"{which}_passed", f"{which}_total"))
        sample = Sample(row.problem, "", row.seed, row.text, row.tokens, row.logprob, row.finish)
        found.append(Judged(sample, Verdict(status, passed, total, 0.0, 0, row.tier, row.mode)))
    return found


def measurable(problem: Problem) -> bool:
    """Whether something that its prompt does not show can tell a better answer from a worse one."""
    return bool(problem.tests_hidden) or not tested(problem)
