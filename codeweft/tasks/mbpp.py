"""MBPP and MBPP+: small Python problems stated in a sentence and three assertions.

In:  mbpp.jsonl (974 problems), MbppPlus.jsonl.gz (378 with more inputs).  Out: both tasks.
Source: Austin et al. 2021 (3 shots: problems 2, 3, 4; test problems 11 to 510); Liu et al. 2023; DeepSeek-Coder's
prompt for base models.

Unusual: four problems hand their functions objects that are no plain data (own classes, types). Their tests cannot stay
outside, so they run beside the answer in the mode compat, and the verdict says so.
"""

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from codeweft.base.errors import InputError
from codeweft.base.records import Problem, Test
from codeweft.sandbox.config import Submission
from codeweft.tasks import evalplus
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.extraction import parsed, python_code, until, without_main
from codeweft.tasks.files import read_records
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task, limits_of

Record = dict[str, Any]
MBPP = Data(
    ("mbpp/mbpp.jsonl", "mbpp.jsonl"),
    "https://raw.githubusercontent.com/deepseek-ai/DeepSeek-Coder/2f9fd85927c669dae3c0fbb2d607274023af243e"
    "/Evaluation/MBPP/data/mbpp.jsonl",
    "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
    "CC BY 4.0",
)
MBPP_PLUS = Data(
    ("mbpp-plus/MbppPlus.jsonl.gz", "MbppPlus.jsonl.gz", "MbppPlus.jsonl"),
    "https://raw.githubusercontent.com/evalplus/mbppplus_release/dadf43da556a00f7bacd71cb154f2932757d9144"
    "/MbppPlus.jsonl.gz",
    "af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63",
    "Apache-2.0",
)
SHOTS, TEST = (2, 3, 4), range(11, 511)
NOT_PLAIN = {367: "its own class", 533: "types as arguments", 601: "its own class", 927: "its own class"}
FIELDS = ("task_id", "text", "code", "test_list", "test_setup_code")
STOPS = ("[DONE]",)
STOPS_PLUS = ("\n```", "\nassert", '\n"""', "\nprint(", "\nif __name__", "\ndef main(")  # EvalPlus's, and a fence
# MBPP/123 alone takes four seconds; the clock of a machine that does other things as well says nothing.
PATIENT = {"cpu_seconds": 20.0, "wall_seconds": 600.0}


def load_mbpp(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """The 500 test problems, one test an assertion; each holds the shots of base models."""
    path = files.path(MBPP)
    records = {record["task_id"]: (place, record) for place, record in read_records(path, FIELDS)}
    missing = [number for number in (*SHOTS, *TEST) if number not in records]
    if missing:
        raise InputError(f"{path} has no problem {missing[0]}.", "Give the full file of 974 problems.")
    count = len(SHOTS) if options.shots < 0 else options.shots
    shots = "".join(shot(records[number][1]) for number in SHOTS[:count])
    for number in TEST:
        yield problem_of(*records[number], shots)


def problem_of(place: str, record: Record, shots: str = "") -> Problem:
    """One record as a problem; InputError where its tests call no function of its code."""
    number, setup = record["task_id"], record["test_setup_code"]
    facts: dict[str, Any] = {"shots": shots, "shown": record["test_list"]}
    if number in NOT_PLAIN:
        facts["mode"] = "compat"
        tests, name = tuple(Test("assert", code=f"{setup}\n{test}") for test in record["test_list"]), ""
    else:
        # The tests' own names of modules (596 asks sys) come from the imports of the canonical solution.
        nodes = parsed(record["code"]).body
        imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        facts["setup"] = "\n".join([*imports, setup])
        tests, name = tuple(Test("assert", code=test) for test in record["test_list"]), called(place, record)
    return Problem(
        f"MBPP/{number}", "mbpp", language="python", prompt=record["text"], entry_point=name, tests_hidden=tests,
        reference=record["code"], limits=PATIENT, facts=facts,
    )  # fmt: skip


def called(place: str, record: Record) -> str:
    """The one function of the solution that the tests call."""
    defined = {node.name for node in parsed(record["code"]).body if isinstance(node, ast.FunctionDef)}
    nodes = [node for test in record["test_list"] for node in ast.walk(parsed(test))]
    named = defined & {node.id for node in nodes if isinstance(node, ast.Name)}
    if len(named) != 1:
        raise InputError(f"{place}: the tests call {len(named)} functions of the code.", "Fetch the file again.")
    return named.pop()


def shot(record: Record) -> str:
    """A problem with its solution, as base models are shown it; the file's lines end as on Windows."""
    code = record["code"].replace("\r", "").replace("\t", "    ")
    return f"{question(record['text'], record['test_list'])}\n{code}\n[DONE]\n"


def question(text: str, tests: list[str]) -> str:
    """A problem as base models are asked it."""
    shown = "\n".join(tests)
    return (
        f"You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n"
        f"{shown}\n[BEGIN]"
    )


def ask_mbpp(problem: Problem, style: Style, room: Room) -> Ask:
    """The statement with its three tests; base models see three solved ones before."""
    asked = question(problem.prompt, problem.facts["shown"])
    if style == "chat":
        content = asked.removesuffix("[BEGIN]") + "\nReturn the code within a code block."
        return Ask(messages=({"role": "user", "content": content},), max_tokens=1024)
    return Ask(problem.facts["shots"] + asked, stop=STOPS, max_tokens=512)


def grade_mbpp(problem: Problem, style: Style, text: str) -> Answer:
    """The code of the answer, with the official assertions."""
    code = python_code(text, problem.entry_point) if style == "chat" else until(text, STOPS).strip()
    code = without_main(code)
    mode = "compat" if problem.facts.get("mode") == "compat" else None
    submission = Submission(
        "python", code, problem.tests_hidden, problem.entry_point, problem.facts.get("setup", ""), mode,
        limits_of(problem),
    )  # fmt: skip
    return Answer(code, submission=submission)


# --- MBPP+ ---------------------------------------------------------------------------------------------------------


def load_plus(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """The problems with all base and plus inputs, read as the types they stand for."""
    fields = ("task_id", "prompt", "entry_point", "canonical_solution", *evalplus.FIELDS)
    yield from plus_problems([r for _, r in read_records(files.path(MBPP_PLUS), fields)][: options.limit or None])


def plus_problems(published: Sequence[Record]) -> Iterator[Problem]:
    """Records of MBPP+ as problems; their canonical solutions run where nobody has run them before."""
    records: list[Record] = [{**record, **dict(evalplus.pairs(record))} for record in published]
    found = evalplus.expected([evalplus.asked(record, "") for record in records])
    for record, expected in zip(records, found, strict=True):
        yield Problem(
            record["task_id"], "mbpp-plus", language="python", prompt=record["prompt"],
            entry_point=record["entry_point"], tests_hidden=expected.tests, reference=record["canonical_solution"],
            limits=expected.limits, facts=expected.facts,
        )  # fmt: skip


def ask_plus(problem: Problem, style: Style, room: Room) -> Ask:
    """The file's statement: a docstring with one assertion; base models go on after it."""
    if style == "chat":
        content = f"{evalplus.INSTRUCTION}\n```python\n{problem.prompt.strip()}\n```\n"
        return Ask(messages=({"role": "user", "content": content},), max_tokens=1024)
    return Ask(f"{problem.prompt.strip()}\n", stop=STOPS_PLUS, max_tokens=512)


def grade_plus(problem: Problem, style: Style, text: str) -> Answer:
    """The code of the answer, with all inputs."""
    code = without_main(python_code(text, problem.entry_point) if style == "chat" else until(text, STOPS_PLUS))
    return Answer(code, submission=evalplus.submission(problem, code))


TASKS = (
    Task(
        "mbpp", "MBPP", "code generation", ("chat", "base"), (MBPP,),
        "The 500 test problems (11 to 510) with their three assertions, which are shown. Base: 3 shots (2, 3, 4), "
        "stopped at [DONE]; chat: zero-shot. Judged in split mode, four problems in compat.",
        load_mbpp, ask_mbpp, grade_mbpp, columns=("mbpp",),
    ),
    Task(
        "mbpp-plus", "MBPP+", "code generation", ("chat", "base"), (MBPP_PLUS,),
        "378 problems (v0.2.0) with EvalPlus's base and plus inputs, compared as EvalPlus 0.3.1 does. Zero-shot from "
        "the file's docstring; chat: EvalPlus's instruction before it. Judged in split mode.",
        load_plus, ask_plus, grade_plus, columns=("mbpp-plus",),
    ),
)  # fmt: skip
