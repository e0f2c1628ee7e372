"""HumanEval and HumanEval+: 164 Python functions to complete.

In:  HumanEval.jsonl.gz as OpenAI publishes it, HumanEvalPlus.jsonl.gz as EvalPlus does.  Out: both tasks.
Source: Chen et al. 2021; Liu et al. 2023; the chat prompt is DeepSeek-Coder-V2 Table 3's, footnote 4.

Unusual: the paper's prompt opens a fence and does not close it; that is kept, and so is the space before it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from codeweft.base.records import Problem, Test
from codeweft.sandbox.config import Submission
from codeweft.tasks import evalplus
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.extraction import completed, python_code, until
from codeweft.tasks.files import read_records
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # Chen et al. 2021 §3.1
CHAT = (
    "Please complete the python function below. The final complete version of your function must be returned within a "
    "code block. Here is the unfinished function:\n ```python\n{prompt}\n\n"
)
FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
HUMAN_EVAL = Data(
    ("human-eval/HumanEval.jsonl.gz", "HumanEval.jsonl.gz", "HumanEval.jsonl"),
    "https://raw.githubusercontent.com/openai/human-eval/6d43fb980f9fee3c892a914eda09951f772ad10d/data/HumanEval.jsonl.gz",
    "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
    "MIT",
)
HUMAN_EVAL_PLUS = Data(
    ("human-eval-plus/HumanEvalPlus.jsonl.gz", "HumanEvalPlus.jsonl.gz", "HumanEvalPlus.jsonl"),
    "https://raw.githubusercontent.com/evalplus/humanevalplus_release/200defce9e3429d28ca215b6dd061c0f7f31c18b"
    "/HumanEvalPlus.jsonl.gz",
    "272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101",
    "Apache-2.0",
)
ANY_ROOT = "find_zero"  # HumanEval/32: its inverse is asked for, and every root will do


def load_human_eval(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """The problems as published, each with one program of assertions."""
    for _, record in read_records(files.path(HUMAN_EVAL), FIELDS):
        test = f"{record['test']}\ncheck({record['entry_point']})"
        yield _problem("human-eval", record, (Test("assert", code=test),))


def load_plus(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """The problems with all base and plus inputs; what is expected is what the canonical solution gives."""
    records = [record for _, record in read_records(files.path(HUMAN_EVAL_PLUS), (*FIELDS, *evalplus.FIELDS))]
    yield from plus_problems(records[: options.limit or None])


def plus_problems(records: Sequence[dict[str, Any]]) -> Iterator[Problem]:
    """Records of HumanEval+ as problems; their canonical solutions run where nobody has run them before."""
    others = [record for record in records if record["entry_point"] != ANY_ROOT]
    of_record = evalplus.expected([evalplus.asked(record, record["prompt"]) for record in others])
    found = dict(zip([record["task_id"] for record in others], of_record, strict=True))
    for record in records:
        expected = found.get(record["task_id"]) or _any_root(record)
        yield _problem("human-eval-plus", record, expected.tests, expected.limits, expected.facts)


def _any_root(record: dict[str, Any]) -> evalplus.Expected:
    code = "assert abs(poly(*{0!r}, candidate(*{0!r}))) <= {1!r}"
    inputs = record["base_input"] + record["plus_input"]
    tests = tuple(Test("assert", code=code.format(given, record["atol"])) for given in inputs)
    return evalplus.Expected(tests, facts={"adapter": evalplus.adapter(ANY_ROOT), "setup": record["prompt"]})


def _problem(
    task: str,
    record: dict[str, Any],
    tests: tuple[Test, ...],
    limits: dict[str, float] | None = None,
    facts: dict[str, Any] | None = None,
) -> Problem:
    return Problem(
        record["task_id"], task, language="python", prompt=record["prompt"], entry_point=record["entry_point"],
        tests_hidden=tests, reference=record["prompt"] + record["canonical_solution"], limits=limits or {},
        facts=facts or {},
    )  # fmt: skip


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """Base: the prompt as it stands; chat: the paper's sentences around it."""
    if style == "chat":
        content = CHAT.format(prompt=problem.prompt)
        return Ask(messages=({"role": "user", "content": content},), max_tokens=1024)
    return Ask(problem.prompt, stop=STOPS, max_tokens=512)


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """The program that the answer and the prompt make, judged with the tests on the other side of the wall."""
    if style == "chat":
        code = completed(problem.prompt, problem.entry_point, python_code(text, problem.entry_point))
    else:
        code = problem.prompt + until(text, STOPS)
    if problem.facts:
        return Answer(code, submission=evalplus.submission(problem, code))
    # the tests of three problems call helpers of the prompt
    submission = Submission("python", code, problem.tests_hidden, problem.entry_point, problem.prompt)
    return Answer(code, submission=submission)


ASKED = (
    "Chat: the paper's prompt, one answer, the block with the function; base: the prompt itself, stopped at the next "
    "definition. Judged in split mode: expected values never meet the answer."
)
TASKS = (
    Task(
        "human-eval", "HumanEval", "code generation", ("chat", "base"), (HUMAN_EVAL,),
        f"164 problems with their own assertions. {ASKED}", load_human_eval, ask, grade,
        columns=("human-eval", "human-eval.python"),
    ),
    Task(
        "human-eval-plus", "HumanEval+", "code generation", ("chat", "base"), (HUMAN_EVAL_PLUS,),
        f"164 problems with the base and plus inputs of EvalPlus, compared as EvalPlus 0.3.1 does. {ASKED}",
        load_plus, ask, grade,
    ),
)  # fmt: skip
