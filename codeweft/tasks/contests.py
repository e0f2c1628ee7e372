"""Contest problems: a program that reads its input, or a method of a class, judged by tests the model never sees.

In:  JSON lines of LiveCodeBench's schema.  Out: the tasks livecodebench and contests (USACO's and others' problems).
Source: DeepSeek-Coder-V2 Table 4 for the window of dates; LiveCodeBench for prompts, stop string, number of samples.

Unusual: LiveCodeBench packs hidden tests as a pickled string, compressed, in base64. Unpickling runs whatever a file
says, so that the few opcodes that such a string needs are read one by one and all others refused. Tests are checked
while loading but kept packed until they are needed: those of one contest season are gigabytes.
"""

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Literal

from codeweft.base.config import nearest
from codeweft.base.errors import ConfigError, InputError
from codeweft.base.records import Problem, Test
from codeweft.sandbox.config import MIB, Limits, Submission
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.extraction import chat_code, until
from codeweft.tasks.files import Record, read_records
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task

WINDOW = ("2023-12-01", "2024-06-01")  # of the paper: 226 problems
FIELDS = (
    "question_title", "question_content", "platform", "question_id", "contest_id", "contest_date", "starter_code",
    "difficulty", "public_test_cases", "private_test_cases", "metadata",
)  # fmt: skip
TEXTS = ("question_content", "question_id", "contest_date", "difficulty", "public_test_cases", "private_test_cases")
SECONDS = 6.0  # a test, as LiveCodeBench
FUNCTIONAL_SECONDS = 20.0  # at most, of all calls of one answer together: one that hangs would use up the sum
MEMORY_MIB = 1024
MOST_BYTES = 1 << 30  # of one problem's unpacked tests
# A pickled string is these and nothing else.
TEXT_OPCODES = frozenset(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"))
OTHER_OPCODES = frozenset(("PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"))

SYSTEM = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will generate a "
    "correct Python program that matches the specification and passes all tests. You will NOT return anything except "
    "for the program."
)
WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters."
)
WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows."
)
STOP = "###"
TOKENS = 2000  # as LiveCodeBench
# Our own examples for base models: LiveCodeBench's are texts of contest sites.
SHOTS = {
    "stdin": (
        "A shop has n jars in a row, and jar i holds a_i sweets. Mia takes a jar only if it holds more sweets than "
        "every jar before it. How many jars does she take?\n\nInput\n\nThe first line holds n (1 <= n <= 1000). The "
        "second line holds a_1, ..., a_n (0 <= a_i <= 10^9).\n\nOutput\n\nPrint one number.\n\n"
        "Sample Input\n\n4\n3 1 4 4\n\nSample Output\n\n2",
        "",
        "n = int(input())\nmost, taken = -1, 0\nfor sweets in map(int, input().split()):\n    if sweets > most:\n"
        "        most = sweets\n        taken += 1\nprint(taken)",
    ),
    "functional": (
        "You are given a list of integers nums and an integer k. Return how many of the numbers are multiples of k.\n\n"
        "Example 1:\n\nInput: nums = [3,4,6], k = 3\nOutput: 2\n\nConstraints:\n\n1 <= nums.length <= 100\n"
        "1 <= nums[i], k <= 1000",
        "class Solution:\n    def countMultiples(self, nums: List[int], k: int) -> int:\n        ",
        "class Solution:\n    def countMultiples(self, nums: List[int], k: int) -> int:\n"
        "        return sum(number % k == 0 for number in nums)",
    ),
}
# What LiveCodeBench puts before each program.
EVERYTHING_OF = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
PREAMBLE = (
    "".join(f"from {name} import *\n" for name in EVERYTHING_OF)
    + "".join(f"import {name}\n" for name in EVERYTHING_OF if name not in ("builtins", "typing"))
    + "sys.setrecursionlimit(50000)\n"
)
# A call from outside: a fresh object each time; a tuple counts as the list that JSON can say.
ADAPTER = """


def judged_from_outside(*arguments):
    found = Solution().{name} if "Solution" in globals() else {name}
    value = found(*arguments)
    return list(value) if isinstance(value, tuple) else value
"""

Kind = Literal["stdin", "functional"]


def pickled_text(content: bytes) -> str:
    """The one string that a pickle holds, read without unpickling; ValueError for a pickle of anything else.

    >>> pickled_text(b"\\x80\\x04\\x95\\x06\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x8c\\x02hi\\x94.")
    'hi'
    """
    found: list[str] = []
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in TEXT_OPCODES:
            found.append(str(argument))
        elif opcode.name not in OTHER_OPCODES:
            raise ValueError(f"a pickle that is no plain text has the opcode {opcode.name}")
    if len(found) != 1:
        raise ValueError(f"a pickle of {len(found)} texts instead of one")
    return found[0]


def unpacked(text: str) -> list[dict[str, Any]]:
    """Tests as the file holds them: a JSON list, or one pickled, compressed and in base64. ValueError where neither."""
    if not text.lstrip().startswith("["):
        try:
            compressed = base64.b64decode(text, validate=True)
            reader = zlib.decompressobj()
            content = reader.decompress(compressed, MOST_BYTES)
        except (binascii.Error, zlib.error) as error:
            raise ValueError(f"neither a JSON list nor packed ({error})") from error
        if not reader.eof:
            raise ValueError("packed data that ends too soon or is far too long")
        text = pickled_text(content)
    tests = json.loads(text)
    if not isinstance(tests, list):
        raise ValueError("no list")
    for test in tests:
        if not isinstance(test, dict) or not all(isinstance(test.get(name), str) for name in ("input", "output")):
            raise ValueError("a test without the texts input and output")
        if test.get("testtype") not in ("stdin", "functional"):
            raise ValueError(f"the testtype {test.get('testtype')!r}")
    return tests


def as_test(test: dict[str, Any]) -> Test:
    """One test: what is read and printed, or arguments and a result, one JSON value a line. ValueError for no JSON.

    >>> as_test({"input": "[1, 2]\\n3", "output": "true", "testtype": "functional"}).args
    ([1, 2], 3)
    """
    if test["testtype"] == "stdin":
        return Test("stdio", stdin=test["input"], expected=test["output"])
    arguments = tuple(json.loads(line) for line in test["input"].strip("\n").split("\n"))
    return Test("call", args=arguments, expected=json.loads(test["output"]))


# --- loading -------------------------------------------------------------------------------------------------------


def load(files: Files, options: TaskOptions, data: Data, task: str) -> Iterator[Problem]:
    """Problems of the window and the difficulties; ConfigError where there is none of these."""
    since, until_day = _window(options, task)
    difficulties, known, seen, asked = set(options.difficulties), set[str](), set[str](), 0
    for place, record in _records(files.path(data)):
        for name in TEXTS:
            if not isinstance(record[name], str):
                raise InputError(f"{place}: the field {name} is no text.", "Mend that line or fetch the file again.")
        if record["question_id"] in seen:
            raise InputError(f"{place}: the problem {record['question_id']} is there twice.", "Leave one file out.")
        seen.add(record["question_id"])
        known.add(record["difficulty"])
        if (difficulties and record["difficulty"] not in difficulties) or not _is_within(
            place, record, since, until_day
        ):
            continue
        asked += 1
        yield _problem(place, record, task)
    for difficulty in sorted(difficulties - known):
        raise ConfigError(f"difficulties: no problem of {task} is {difficulty}.", nearest(difficulty, known))
    if not asked:
        raise ConfigError(
            f"{task}: no problem is from {since or 'the beginning'} to {until_day or 'now'}.", "Set since and until."
        )


def _records(path: Path) -> Iterator[tuple[str, Record]]:
    paths = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"{path} holds no .jsonl file.", "Put the benchmark's files there.")
    for each in paths:
        yield from read_records(each, FIELDS)


def _window(options: TaskOptions, task: str) -> tuple[date | None, date | None]:
    """The first day, and the first that is not asked any more; the paper's where neither is given."""
    since, before = options.since, options.until
    if task == "livecodebench" and not since and not before:
        since, before = WINDOW
    return _day("since", since), _day("until", before)


def _day(name: str, text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise ConfigError(f"{name} = {text}: no day.", "Write it as 2024-06-01.") from error


def _is_within(place: str, record: Record, since: date | None, before: date | None) -> bool:
    try:
        day = date.fromisoformat(record["contest_date"][:10])
    except ValueError as error:
        message = f"{place}: the field contest_date is no date."
        raise InputError(message, "Mend that line or fetch the file again.") from error
    return (since is None or day >= since) and (before is None or day < before)


def _problem(place: str, record: Record, task: str) -> Problem:
    try:
        visible, hidden = unpacked(record["public_test_cases"]), unpacked(record["private_test_cases"])
        metadata = json.loads(record["metadata"]) if isinstance(record["metadata"], str) else record["metadata"]
        tests = tuple(map(as_test, visible))
        for test in hidden:
            as_test(test)
    except ValueError as error:  # also what json raises
        raise InputError(f"{place}: tests or metadata cannot be read: {error}.", "Fetch the file again.") from error
    name = str((metadata or {}).get("func_name") or "")
    kinds = {test["testtype"] for test in (*visible, *hidden)}
    if kinds != {"functional" if name else "stdin"} or (name and not name.isidentifier()):
        raise InputError(f"{place}: the tests do not fit the func_name of the metadata.", "Fetch the file again.")
    return Problem(
        record["question_id"], task, family=str(record["platform"]), language="python", difficulty=record["difficulty"],
        prompt=record["question_content"], entry_point=name, tests_visible=tests,
        limits={"cpu_seconds": SECONDS, "memory_mib": MEMORY_MIB},
        facts={
            "title": record["question_title"], "contest": record["contest_id"], "date": record["contest_date"],
            "starter": record["starter_code"] or "", "public": record["public_test_cases"],
            "private": record["private_test_cases"],
        },
    )  # fmt: skip


# --- asking and grading --------------------------------------------------------------------------------------------


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """The question with or without starter code; for base models after one solved example."""
    starter = problem.facts["starter"]
    if style == "base":
        shot = SHOTS["functional" if starter else "stdin"]
        text = _example(*shot) + _example(problem.prompt, starter, "")
        return Ask(text, stop=(STOP,), max_tokens=TOKENS)
    form, code = (WITH_STARTER, starter) if starter else (WITHOUT_STARTER, "# YOUR CODE HERE")
    content = f"### Question:\n{problem.prompt}\n\n### Format: {form}\n```python\n{code}\n```\n\n"
    content += "### Answer: (use the provided format with backticks)\n\n"
    return Ask(
        messages=({"role": "system", "content": SYSTEM}, {"role": "user", "content": content}), max_tokens=TOKENS
    )


def _example(question: str, starter: str, answer: str) -> str:
    code = f"### Starter Code\n{starter}\n\n" if starter else ""
    return f"### Question\n{question}\n\n{code}### Answer\n\n" + (f"{answer}\n\n" if answer else "")


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """The program for its tests: on its input, or by calls of its method from outside."""
    code = until(text, (STOP,)) if style == "base" and "```" not in text else chat_code(text.replace("\r\n", "\n"))
    tests = tuple(as_test(test) for name in ("public", "private") for test in unpacked(problem.facts[name]))
    program = PREAMBLE + code
    if problem.entry_point:
        program += ADAPTER.format(name=problem.entry_point)
    entry_point = "judged_from_outside" if problem.entry_point else ""
    return Answer(code, submission=Submission("python", program, tests, entry_point, limits=_limits(problem, tests)))


def _limits(problem: Problem, tests: Sequence[Test]) -> Limits:
    """The problem's, which hold for each input; calls share one run and, up to a bound, the sum of theirs."""
    chosen: dict[str, Any] = dict(problem.limits)
    if problem.entry_point:
        chosen["cpu_seconds"] = min(problem.limits["cpu_seconds"] * len(tests), FUNCTIONAL_SECONDS)
    longest = max((len(test.expected) for test in tests if isinstance(test.expected, str)), default=0)
    return Limits(**chosen, stdout_bytes=max(MIB, 2 * longest))


LIVECODEBENCH = Data(
    ("livecodebench", "code_generation_lite", "livecodebench.jsonl"),
    note="put the files test.jsonl, test2.jsonl, ... of the data set livecodebench/code_generation_lite (Hugging Face) "
    "into a folder livecodebench",
    licence="problem texts belong to their contest sites; the data set's page names its terms",
)
CONTESTS = Data(
    ("contests", "contests.jsonl", "usaco.jsonl"),
    note="it is made of USACO's or other contests' problems in LiveCodeBench's schema, one JSON object a line",
    licence="that of the contest",
)

TASKS = (
    Task(
        name="livecodebench",
        title="LiveCodeBench, December 2023 to May 2024",
        group="code generation",
        styles=("chat", "base"),
        data=(LIVECODEBENCH,),
        protocol="0-shot chat with LiveCodeBench's generic question (base: one example of ours), temperature 0.2, mean "
        "of 10 samples, 2,000 tokens, first code block, public and private tests, 6 s of processor time a test (20 s "
        "for all calls of a method together)",
        load=partial(load, data=LIVECODEBENCH, task="livecodebench"),
        ask=ask,
        grade=grade,
        samples=10,
        temperature=0.2,
        columns=("livecodebench.easy", "livecodebench.medium", "livecodebench.hard", "livecodebench"),
    ),
    Task(
        name="contests",
        title="USACO and other contests",
        group="code generation",
        styles=("chat", "base"),
        data=(CONTESTS,),
        protocol="as livecodebench, but greedy, one sample, and all problems of the file",
        load=partial(load, data=CONTESTS, task="contests"),
        ask=ask,
        grade=grade,
        columns=("contests",),
    ),
)
