"""Contests: made-up problems of LiveCodeBench's schema, with answers that are right, wrong, slow and broken.

The truth comes from outside: the problems are so small that their answers are known, and hidden tests are packed by
Python's own pickle in another process, as the published files are.
"""

import base64
import json
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sandbox.opened import Opened, opened

from codeweft.base.errors import ConfigError, InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.contests import TASKS, pickled_text, unpacked
from codeweft.tasks.files import Folder
from codeweft.tasks.task import Room, Style

LIVECODEBENCH, CONTESTS = TASKS
ROOM = Room(8192, len)
PICKLE = "import pickle, sys; sys.stdout.buffer.write(pickle.dumps(sys.stdin.read(), protocol=int(sys.argv[1])))"


def pickled(text: str, protocol: int = 4) -> bytes:
    ran = subprocess.run(
        [sys.executable, "-c", PICKLE, str(protocol)], input=text.encode(), capture_output=True, check=True
    )
    return ran.stdout


def packed(tests: list[dict[str, str]]) -> str:
    return base64.b64encode(zlib.compress(pickled(json.dumps(tests)))).decode()


def listed(kind: str, *pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"input": given, "output": output, "testtype": kind} for given, output in pairs]


def record(name: str, tests: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
    """A problem whose first test is public."""
    found = {
        "question_title": name.title(), "question_content": f"Find the {name}.", "platform": "atcoder",
        "question_id": name, "contest_id": "abc", "contest_date": "2024-01-06T00:00:00", "starter_code": "",
        "difficulty": "easy", "public_test_cases": json.dumps(tests[:1]), "private_test_cases": packed(tests[1:]),
        "metadata": "{}",
    }  # fmt: skip
    return found | fields


def method(name: str, function: str, arguments: str, *pairs: tuple[str, str], **fields: Any) -> dict[str, Any]:
    starter = f"class Solution:\n    def {function}(self, {arguments}):\n        "
    metadata = json.dumps({"func_name": function})
    known = {"platform": "leetcode", "starter_code": starter, "metadata": metadata, "difficulty": "medium"}
    return record(name, listed("functional", *pairs), **known | fields)


RECORDS = [
    record("sum", listed("stdin", ("1 2\n", "3\n"), ("-5 5\n", "0\n"), ("1000000000000 1\n", "1000000000001\n"))),
    record("lines", listed("stdin", ("2\na\nb\n", "b\na\n"), ("1\nz\n", "z\n"))),
    record("largest", listed("stdin", ("3\n1 9 4\n", "9\n"), ("1\n-1\n", "-1\n")), contest_date="2023-12-01T00:00"),
    record("early", listed("stdin", ("1\n", "1\n"), ("2\n", "2\n")), contest_date="2023-11-30T23:59:00"),
    record("late", listed("stdin", ("1\n", "1\n"), ("2\n", "2\n")), contest_date="2024-06-01T00:00:00"),
    record("last", listed("stdin", ("1\n", "1\n"), ("2\n", "2\n")), contest_date="2024-05-31T00:00:00"),
    record("depth", listed("stdin", ("3\n", "3\n"), ("20000\n", "20000\n")), difficulty="hard"),
    record("plain", listed("stdin", ("7\n", "49\n"), ("0\n", "0\n")), difficulty="hard",
           private_test_cases=json.dumps(listed("stdin", ("0\n", "0\n")))),
    method("twice", "twice", "nums: List[int]", ("[1, 2]", "[2, 4]"), ("[]", "[]"), ("[-3]", "[-6]")),
    method("pair", "findPair", "nums: List[int], target: int", ("[1, 4, 5]\n9", "[1, 2]"), ("[2, 2]\n4", "[0, 1]")),
    method("word", "isWord", "text: str, words: List[str]", ('"ab"\n["ab", "c"]', "true"), ('"x"\n[]', "false")),
    method("half", "half", "number: float", ("3.0", "1.5"), ("1.0", "0.5")),
    method("calls", "count", "number: int", ("3", "3"), ("2", "2"), ("1", "1")),
]  # fmt: skip
READ = "n = int(input())\n"
RIGHT = {
    "sum": "a, b = map(int, input().split())\nprint(a + b)",
    "lines": "import sys\nlines = sys.stdin.read().split()[1:]\nprint('\\n'.join(reversed(lines)))",
    "largest": "def main():\n    input()\n    print(max(map(int, input().split())))\n\n"
    "if __name__ == '__main__':\n    main()",
    "last": "print(input())",
    "depth": f"{READ}def down(k):\n    return 0 if k == 0 else 1 + down(k - 1)\nprint(down(n))",
    "plain": f"{READ}print(int(pow(n, 2)))\nexit()",
    "twice": "class Solution:\n    def twice(self, nums: List[int]):\n        return [2 * n for n in nums]",
    "pair": "class Solution:\n    def findPair(self, nums, target):\n"
    "        for i, j in combinations(range(len(nums)), 2):\n"
    "            if nums[i] + nums[j] == target:\n                return i, j",
    "word": "class Solution:\n    def isWord(self, text, words):\n        return text in words",
    "half": "def half(number):\n    return number / 2",
    "calls": "class Solution:\n    def __init__(self):\n        self.calls = 0\n\n    def count(self, number):\n"
    "        self.calls += 1\n        return number if self.calls == 1 else 'an object of an earlier call'",
}  # fmt: skip
WRONG = [
    ("sum", "a, b = map(int, input().split())\nprint(a - b)", "wrong"),
    ("sum", "print(3)", "wrong"),  # the public test alone
    ("sum", "a, b = map(int, input().split()\nprint(a + b)", "compile_error"),
    ("lines", "raise SystemExit(1)", "runtime_error"),
    ("lines", "", "wrong"),
    ("largest", "while True: pass", "time_limit"),
    ("depth", "print([0] * (1 << 40))", "memory_limit"),
    ("twice", "class Solution:\n    def twice(self, nums):\n        return nums", "wrong"),
    ("twice", "class Solution:\n    def thrice(self, nums):\n        return nums", "runtime_error"),
    ("twice", "class Solution:\n    def twice(self, nums):\n        while True: pass", "time_limit"),
    ("pair", "class Solution:\n    def findPair(self, nums, target):\n        raise KeyError(target)", "runtime_error"),
    ("word", "import os\nclass Solution:\n    def isWord(self, text, words):\n        os._exit(0)", "incomplete"),
    ("word", "class Solution:\n    def isWord(self, text, words):\n        return 'true'", "wrong"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two files of LiveCodeBench and one of other contests."""
    folder = tmp_path_factory.mktemp("eval")
    (folder / "livecodebench").mkdir()
    for name, part in (("test.jsonl", RECORDS[:6]), ("test2.jsonl", RECORDS[6:])):
        (folder / "livecodebench" / name).write_text("".join(json.dumps(each) + "\n" for each in part))
    (folder / "contests.jsonl").write_text("".join(json.dumps(each) + "\n" for each in RECORDS))
    return folder


@pytest.fixture(scope="module")
def problems(folder: Path) -> dict[str, Problem]:
    return {each.id: each for each in LIVECODEBENCH.load(Folder(folder), TaskOptions(since="2000-01-01"))}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Opened]:
    with opened(cells=0) as sandbox:
        yield sandbox


def judged(sandbox: Opened, answers: Iterable[tuple[Problem, Style, str]]) -> list[tuple[str, str, str]]:
    """Problem, status and mode."""
    asked = list(answers)
    submissions = [answer.submission for answer in (LIVECODEBENCH.grade(*each) for each in asked) if answer.submission]
    found = sandbox.do(sandbox.sandbox.judge_all(submissions))
    return [(problem.id, each.status, each.mode) for (problem, _, _), each in zip(asked, found, strict=True)]


def fenced(code: str) -> str:
    return f"I add them up.\n\n```python\n{code}\n```\n\nThis takes linear time."


# --- which problems ------------------------------------------------------------------------------------------------


def asked(folder: Path, **options: Any) -> list[str]:
    return [each.id for each in LIVECODEBENCH.load(Folder(folder), TaskOptions(**options))]


def test_the_papers_window_holds_where_no_day_is_given(folder: Path):
    every = [each["question_id"] for each in RECORDS]
    assert asked(folder) == [name for name in every if name not in ("early", "late")]
    assert asked(folder, since="2000-01-01") == every


def test_the_first_day_is_within_and_the_last_is_not(folder: Path):
    assert asked(folder, since="2023-11-30", until="2023-12-01") == ["early"]
    assert asked(folder, since="2024-05-31") == ["late", "last"]


def test_difficulties_choose_and_an_unknown_one_is_named(folder: Path):
    assert asked(folder, difficulties=("hard",)) == ["depth", "plain"]
    with pytest.raises(ConfigError, match=r"no problem of livecodebench is mediun\. Did you mean medium\?"):
        asked(folder, difficulties=("easy", "mediun"))


def test_a_day_that_is_none_and_a_window_without_problems_are_refused(folder: Path):
    with pytest.raises(ConfigError, match="since = June"):
        asked(folder, since="June")
    with pytest.raises(ConfigError, match="no problem is from 2030-01-01 to now"):
        asked(folder, since="2030-01-01")


def test_other_contests_have_no_window_of_their_own(folder: Path):
    assert len(list(CONTESTS.load(Folder(folder), TaskOptions()))) == len(RECORDS)


# --- hidden tests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("text", ["", "[1]", "äß€ \U0001f600 \\n \n'\"", "long " * 50_000])
def test_a_pickled_text_is_read_as_pickle_wrote_it(protocol: int, text: str):
    assert pickled_text(pickled(text, protocol)) == text


HOSTILE = [
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    b"\x80\x04]\x94(\x8c\x01a\x8c\x01be.",
    b"\x80\x04N.",
]


@pytest.mark.parametrize("content", HOSTILE)
def test_a_pickle_of_anything_else_is_refused(content: bytes):
    with pytest.raises(ValueError, match="pickle"):
        pickled_text(content)
    with pytest.raises(ValueError, match="pickle"):
        unpacked(base64.b64encode(zlib.compress(content)).decode())


def test_packed_tests_are_those_that_were_packed():
    tests = listed("stdin", ("1\n", "2\n"), ("ü\n", "\U0001f600\n"))
    assert unpacked(packed(tests)) == unpacked(json.dumps(tests)) == tests


DAMAGED = [
    ({"private_test_cases": "AAAA"}, "neither a JSON list nor packed"),
    ({"private_test_cases": packed(listed("stdin", ("1", "1")))[:-12]}, "neither|ends too soon"),
    ({"public_test_cases": '[{"input": "1"}]'}, "without the texts input and output"),
    ({"public_test_cases": json.dumps(listed("socket", ("1", "1")))}, "the testtype 'socket'"),
    ({"metadata": '{"func_name": "f"}'}, "do not fit the func_name"),
    ({"contest_date": "soon"}, "contest_date is no date"),
    ({"difficulty": 3}, "difficulty is no text"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGED)
def test_a_damaged_problem_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], message: str):
    lines = [json.dumps(each) for each in (RECORDS[0], RECORDS[1] | change)]
    (tmp_path / "livecodebench.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=rf"livecodebench.jsonl, line 2.*({message})"):
        list(LIVECODEBENCH.load(Folder(tmp_path), TaskOptions()))


def test_a_problem_that_is_in_two_files_is_named(tmp_path: Path):
    (tmp_path / "livecodebench").mkdir()
    for name in ("test.jsonl", "test2.jsonl"):
        (tmp_path / "livecodebench" / name).write_text(json.dumps(RECORDS[0]) + "\n")
    with pytest.raises(InputError, match=r"test2.jsonl, line 1: the problem sum is there twice"):
        list(LIVECODEBENCH.load(Folder(tmp_path), TaskOptions()))


# --- asking --------------------------------------------------------------------------------------------------------


def test_a_chat_model_is_told_to_read_input_or_to_fill_in_the_starter_code(problems: dict[str, Problem]):
    system, user = LIVECODEBENCH.ask(problems["sum"], "chat", ROOM).messages
    assert system["content"].startswith("You are an expert Python programmer. You will be given a question")
    assert user["content"].startswith(
        "### Question:\nFind the sum.\n\n### Format: Read the inputs from stdin solve the"
    )
    assert user["content"].endswith("\n```python\n# YOUR CODE HERE\n```\n\n### Answer: (use the provided format with "
                                    "backticks)\n\n")  # fmt: skip
    _, user = LIVECODEBENCH.ask(problems["twice"], "chat", ROOM).messages
    assert "### Format: You will use the following starter code" in user["content"]
    assert "```python\nclass Solution:\n    def twice(self, nums: List[int]):\n        \n```" in user["content"]


def test_a_base_model_sees_one_example_of_the_same_kind(problems: dict[str, Problem]):
    for name, has_starter in (("sum", False), ("twice", True)):
        ask = LIVECODEBENCH.ask(problems[name], "base", ROOM)
        assert ask.text.count("### Question\n") == ask.text.count("### Answer\n") == 2
        assert ask.text.count("### Starter Code\n") == 2 * has_starter
        assert ask.text.endswith("### Answer\n\n")
        assert ask.stop == ("###",)


def test_no_hidden_test_is_in_a_question(problems: dict[str, Problem]):
    text = LIVECODEBENCH.ask(problems["sum"], "chat", ROOM).messages[1]["content"]
    assert "1000000000001" not in text
    assert "1000000000001" not in json.dumps([each.expected for each in problems["sum"].tests_visible])


def test_the_examples_shown_to_base_models_solve_their_questions(sandbox: Opened, problems: dict[str, Problem]):
    """Cut out of the prompt and run on the samples that their questions state."""
    shown = LIVECODEBENCH.ask(problems["sum"], "base", ROOM).text.split("### Answer\n\n")[1].split("\n\n### ")[0]
    assert sandbox.python(shown, stdin=b"4\n3 1 4 4\n").stdout == b"2\n"
    shown = LIVECODEBENCH.ask(problems["twice"], "base", ROOM).text.split("### Answer\n\n")[1].split("\n\n### ")[0]
    called = f"from typing import List\n{shown}\nprint(Solution().countMultiples([3, 4, 6], 3))"
    assert sandbox.says(called) == "2\n"


# --- grading -------------------------------------------------------------------------------------------------------


def test_right_answers_pass_from_outside_their_program(problems: dict[str, Problem], sandbox: Opened):
    answers = [(problems[name], "chat", fenced(code)) for name, code in RIGHT.items()]
    answers += [(problems[name], "base", f"{code}\n\n### Question\nNext") for name, code in RIGHT.items()]
    modes = {name: "split" if problems[name].entry_point else "stdio" for name in RIGHT}
    assert judged(sandbox, answers) == 2 * [(name, "ok", mode) for name, mode in modes.items()]


def test_wrong_slow_and_broken_answers_fail(problems: dict[str, Problem], sandbox: Opened):
    hurried = {name: replace(each, limits={"cpu_seconds": 0.3, "memory_mib": 256}) for name, each in problems.items()}
    found = judged(sandbox, [(hurried[name], "chat", fenced(code)) for name, code, _ in WRONG])
    assert [(name, status) for name, status, _ in found] == [(name, status) for name, _, status in WRONG]


def test_every_hidden_test_counts(problems: dict[str, Problem]):
    counts = {
        name: len(LIVECODEBENCH.grade(problem, "chat", "").submission.tests) for name, problem in problems.items()
    }
    assert counts == {
        each["question_id"]: 3 if each["question_id"] in ("sum", "twice", "calls") else 2 for each in RECORDS
    }


def test_an_output_may_be_as_long_as_the_expected_one(tmp_path: Path, sandbox: Opened):
    """Two million characters, twice the sandbox's usual limit."""
    tests = listed("stdin", ("1\n", "1\n"), ("1000000\n", "1\n" * 1_000_000))
    (tmp_path / "livecodebench.jsonl").write_text(json.dumps(record("long", tests)))
    (problem,) = LIVECODEBENCH.load(Folder(tmp_path), TaskOptions())
    answer = "print('1\\n' * int(input()), end='')"
    assert judged(sandbox, [(problem, "chat", fenced(answer))]) == [("long", "ok", "stdio")]
