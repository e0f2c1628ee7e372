"""Problems as prompts that a policy answers, and what is to be run or compared to judge an answer.

In:  problems of any benchmark that can be asked in chat, a tokenizer.  Out: prompts; answers ready for the judge.
Source: DeepSeek-Coder-V2 §3.5.2: code prompts with test cases, mathematics with its ground truth.

Unusual: an answer can be judged by the tests that its prompt shows (few: the paper's noisy compiler signal) or by all
that the problem has. A problem that could never be judged is found before anything is drawn.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from codeweft.base.errors import InputError, ModelError
from codeweft.base.progress import say
from codeweft.base.records import Problem, Test
from codeweft.model.folder import read_config
from codeweft.tasks.registry import find
from codeweft.tasks.task import Answer, Room
from codeweft.tokenizer.chat import encode_chat
from codeweft.tokenizer.load import Tokenizer

Tests = Literal["visible", "hidden", "all"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem and the ids that ask it, up to where the answer begins."""

    problem: Problem
    tokens: tuple[int, ...]


def room_for_prompts(stage: str, folder: Path, sequence: int, max_tokens: int) -> int:
    """Tokens that a prompt may have, so that it stands with its answer in `sequence` tokens and in the model's window.

    ModelError where answers leave none.
    """
    longest = min(sequence, read_config(folder).max_position_embeddings)
    if max_tokens >= longest:
        raise ModelError(
            f"{stage}.max_tokens = {max_tokens} leaves no room for a prompt in {longest} tokens.",
            f"Lower it, or raise {stage}.pace.sequence as far as the model goes.",
        )
    return longest - max_tokens


def prompts_of(
    problems: Iterable[Problem], tokenizer: Tokenizer, longest: int, tests: Tests, what: str
) -> list[Prompt]:
    """The problems that can be asked in at most `longest` tokens and judged by `tests`; how many cannot is said.

    InputError where none can. `what` names the stage in what is said.
    """
    kept: list[Prompt] = []
    left_out: Counter[str] = Counter()
    too_long = f"are longer than {longest:,} tokens"
    room = Room(longest, lambda text: len(tokenizer.encode(text)))
    for problem in problems:
        task = find(problem.task)
        if reason := unsuitable(problem, tests):
            left_out[reason] += 1
        elif len(ids := encode_chat(tokenizer, task.ask(problem, "chat", room).messages)) > longest:
            left_out[too_long] += 1
        else:
            kept.append(Prompt(problem, tuple(ids)))
    for reason, count in sorted(left_out.items()):
        say(f"{what}: {count:,} problems {reason} and are left out.")
    if not kept:
        raise InputError(
            f"{what}: there are no problems to answer.",
            "Raise pace.sequence, or lower max_tokens."
            if left_out[too_long]
            else "Raise problems.katas, or name files in problems.problems.",
        )
    return kept


def unsuitable(problem: Problem, tests: Tests) -> str:
    """Why answers to a problem cannot be had or judged by these tests or a known result; empty where they can.

    >>> unsuitable(Problem("a", "katas", entry_point="f", language="python"), "all")
    'have neither tests nor a known result'
    """
    if "chat" not in find(problem.task).styles:
        return "cannot be asked in chat"
    if tested(problem) and not tests_of(problem, tests):
        return f"have no {tests} tests"
    answer, nothing = graded(problem, "", tests), "have neither tests nor a known result"
    if answer.submission is None:
        known = tested(problem) or problem.reference or any(problem.facts.values())
        return "" if known and answer.score is not None else nothing
    if answer.submission.mode == "compat":
        return "have tests that run beside the answer (mode compat), which prove little,"
    return "" if answer.submission.tests else nothing


def tested(problem: Problem) -> bool:
    """Whether a problem brings tests, visible or hidden; else one verdict, by whatever its task knows, is all."""
    return bool(problem.tests_visible or problem.tests_hidden)


def tests_of(problem: Problem, tests: Tests) -> tuple[Test, ...]:
    """The tests that are meant; empty where the problem has none of them."""
    return {
        "visible": problem.tests_visible,
        "hidden": problem.tests_hidden,
        "all": (*problem.tests_visible, *problem.tests_hidden),
    }[tests]


def graded(problem: Problem, text: str, tests: Tests) -> Answer:
    """What a text is worth, or what the sandbox has to run to find out, by these tests of the problem."""
    # all as hidden ones: some tasks judge by both kinds
    asked = replace(problem, tests_visible=(), tests_hidden=tests_of(problem, tests))
    return find(problem.task).grade(asked, "chat", text)


def with_few_tests(problems: Sequence[Problem], count: int) -> list[Problem]:
    """The problems with their first `count` visible tests (0: all), for signals that are meant to be noisy."""
    if not count:
        return list(problems)
    return [replace(problem, tests_visible=problem.tests_visible[:count]) for problem in problems]
