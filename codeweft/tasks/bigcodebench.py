"""BigCodeBench-Hard: 148 tasks that call libraries, judged by unit tests.

In:  bigcodebench_hard.json.  Out: the task.
Source: Zhuo et al. 2024.

Unusual: its tests replace parts of libraries while the answer runs, so they can only run beside it: mode compat, which
the verdict names. A task whose libraries are not installed here, or that needs a network, has no score; it is counted,
not failed.
"""

import ast
import importlib.util
from collections.abc import Iterator
from typing import Any

from codeweft.base.errors import InputError
from codeweft.base.records import Problem, Test
from codeweft.sandbox.config import Limits, Submission
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.evalplus import INSTRUCTION
from codeweft.tasks.extraction import completed, parsed, python_code, until, without_main
from codeweft.tasks.files import read_records
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task

DATA = Data(
    ("bigcodebench-hard/bigcodebench_hard.json", "bigcodebench_hard.json", "bigcodebench-hard.jsonl"),
    "https://raw.githubusercontent.com/QwenLM/Qwen2.5-Coder/d5ead97fea36bca3744e1a4c49e882f6fa2f406a"
    "/qwencoder-eval/instruct/BigCodeBench/data/bigcodebench_hard.json",
    "5e7a87ff1085eafb13b2d570277bcb53dba68201717b4fc987a3f2b86a23869c",
    "Apache-2.0",
)
FIELDS = ("task_id", "complete_prompt", "instruct_prompt", "canonical_solution", "code_prompt", "test", "entry_point")
STOPS = ("\nclass ", "\ndef ", "\nimport ", "\nfrom ", "\nassert ", "\nif __name__", "\nprint(")
# Their tests open connections, so that not even the authors' solutions pass in a box.
NEED_NETWORK = {
    "BigCodeBench/147": "connects to each address of a network",
    "BigCodeBench/1006": "fetches an archive from a page",
    "BigCodeBench/1012": "fetches an archive from a page",
    "BigCodeBench/1040": "answers on a port",
}
LIMITS = Limits(cpu_seconds=60, wall_seconds=240, memory_mib=4096, disk_mib=256, tasks=128)
RUN = """
import unittest as _unittest

_result = _unittest.TestResult()
_unittest.defaultTestLoader.loadTestsFromTestCase(TestCases).run(_result)
assert _result.testsRun and _result.wasSuccessful(), (_result.failures + _result.errors)[:1]
"""


def load(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """The tasks, as a table by id or as a list."""
    path = files.path(DATA)
    for place, record in read_records(path):
        table = record.values() if "task_id" not in record else [record]
        for entry in table:
            missing = [name for name in FIELDS if not isinstance(entry, dict) or name not in entry]
            if missing:
                raise InputError(f"{place}: the field {missing[0]} is missing.", "Fetch the file again.")
            yield Problem(
                entry["task_id"], "bigcodebench-hard", language="python", prompt=entry["complete_prompt"],
                entry_point=entry["entry_point"], tests_hidden=(Test("assert", code=entry["test"] + RUN),),
                reference=entry["complete_prompt"] + entry["canonical_solution"],
                facts={
                    "instruct": entry["instruct_prompt"], "code": entry["code_prompt"], "libraries": libraries(entry),
                },
            )  # fmt: skip


def libraries(entry: dict[str, Any]) -> list[str]:
    """The top-level modules that a task's tests and prompt import."""
    found: set[str] = set()
    for code in (f"{entry['code_prompt']}\n    pass\n", entry["test"], entry["complete_prompt"] + "\n    pass\n"):
        try:
            nodes = list(ast.walk(parsed(code)))
        except SyntaxError:
            continue  # the prompts are not all whole programs; the tests are
        for node in nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return sorted(found)


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """The official prompts: to complete for base models, to be instructed by for chat models."""
    if style == "chat":
        content = f"{INSTRUCTION}\n{problem.facts['instruct'].strip()}\n"
        return Ask(messages=({"role": "user", "content": content},), max_tokens=1280)
    return Ask(problem.prompt, stop=STOPS, max_tokens=1280)


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """The program with its unit tests beside it, where its libraries are here."""
    if style == "chat":
        code = completed(problem.facts["code"], problem.entry_point, python_code(text, problem.entry_point))
    else:
        code = problem.prompt + without_main(until(text, STOPS))
    missing = [name for name in problem.facts["libraries"] if importlib.util.find_spec(name) is None]
    if missing:
        return Answer(code, detail=f"needs {', '.join(missing)}, not installed here")
    if problem.id in NEED_NETWORK:
        return Answer(code, detail=f"needs a network: {NEED_NETWORK[problem.id]}")
    submission = Submission("python", code, problem.tests_hidden, problem.entry_point, mode="compat", limits=LIMITS)
    return Answer(code, submission=submission)


TASKS = (
    Task(
        "bigcodebench-hard", "BigCodeBench-Hard", "code generation", ("chat", "base"), (DATA,),
        "148 tasks with their unit tests, which run beside the answer (mode compat). Base: the prompt to complete; "
        "chat: the official instruction. Tasks whose libraries are not installed, and four that need a network, have "
        "no score and are counted.",
        load, ask, grade,
    ),
)  # fmt: skip
