"""Predictions for other harnesses: patches that git applies, methods that javac would take, files in their layouts."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.predictions import method_name, unified_diff
from codeweft.tasks.registry import find
from codeweft.tasks.task import Exported, Room

SWE, DEFECTS = find("swe-bench-lite"), find("defects4j")
ROOM = Room(4096, len)
ISSUE = {
    "instance_id": "psf__requests-1", "repo": "psf/requests", "base_commit": "abc123", "problem_statement": "It fails.",
    "hints_text": "SECRET HINT", "patch": "SECRET PATCH", "test_patch": "SECRET TEST",
}  # fmt: skip
METHOD = """    public int sum(List<Integer> values) {
        int total = 1; // not }
        for (int value : values) { total += value; }
        return total;
    }"""
BUG = {
    "project": "Chart", "bug_id": 7, "file": "source/org/Sum.java", "method": METHOD, "start_line": 10, "end_line": 14,
    "failing_test": "org.SumTest::testEmpty", "failing_message": "expected:<0> but was:<1>",
}  # fmt: skip


def issues(folder: Path, *records: dict[str, Any]) -> list[Problem]:
    (folder / "swe-bench-lite.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records or (ISSUE,)))
    return list(SWE.load(Folder(folder), TaskOptions()))


def bug(folder: Path, **changes: Any) -> Problem:
    (folder / "defects4j.jsonl").write_text(json.dumps(BUG | changes) + "\n")
    [problem] = DEFECTS.load(Folder(folder), TaskOptions())
    return problem


# --- SWE-bench ---


def test_an_issue_is_asked_without_hints_patch_or_tests(tmp_path: Path):
    [problem] = issues(tmp_path)
    [message] = SWE.ask(problem, "chat", ROOM).messages
    assert "psf/requests at commit abc123" in message["content"]
    assert "<issue>\nIt fails.\n</issue>" in message["content"]
    assert "SECRET" not in message["content"]


def test_parquet_and_json_lines_give_the_same_problems(tmp_path: Path):
    from_lines = issues(tmp_path)
    (tmp_path / "swe-bench-lite.jsonl").unlink()
    pq.write_table(pa.Table.from_pylist([ISSUE]), tmp_path / "swe-bench-lite.parquet")
    assert list(SWE.load(Folder(tmp_path), TaskOptions())) == from_lines


def test_retrieved_code_is_cut_to_what_fits_and_no_further(tmp_path: Path):
    code = "".join(f"line {number}\n" for number in range(1000))
    [problem] = issues(tmp_path, ISSUE | {"text": f"Read this.\n<code>\n{code}</code>\nSolve the issue."})
    roomy = SWE.ask(problem, "chat", Room(20_000, len)).messages[0]["content"]
    assert code in roomy
    tight = SWE.ask(problem, "chat", Room(1000, len)).messages[0]["content"]
    assert 990 <= len(tight) <= 1000
    assert tight.startswith("Read this.\n<code>\nline 0\nline 1\n")
    assert "</code>\nSolve the issue.\n" in tight


OLD = "import os\n\n\ndef one():\n    return 2\n\n\ndef two():\n    return 2\n\n\ndef three():\n    return 2\n"
NEW = OLD.replace("one():\n    return 2", "one():\n    return 1").replace(
    "three():\n    return 2", "three():\n    return 3"
)
HEAD = "--- a/src/it.py\n+++ b/src/it.py\n"
FIRST = "@@ -2,5 +2,5 @@\n \n \n def one():\n-    return 2\n+    return 1\n \n"
LAST = "@@ -10,4 +10,4 @@ def two():\n \n \n def three():\n-    return 2\n+    return 3\n"
PATCHES = (
    f"```diff\n{HEAD}{FIRST}{LAST}```",
    f"Two.\n\n```patch\ndiff --git a/src/it.py b/src/it.py\nindex 123..456 100644\n{HEAD}{FIRST}{LAST}```\nDone.",
    f"<patch>\n{HEAD}{FIRST}{LAST}</patch>",
    f"<patch>\n```diff\n{HEAD}{FIRST}{LAST}```\n</patch>\nIt works.",
    f"{HEAD}{FIRST}{LAST}",
    f"The patch:\n\n{HEAD}{FIRST}{LAST}\nThis mends both.",
    # counts that are wrong, and empty lines that lost their space, as models write them
    f"```diff\n{HEAD}{FIRST.replace('2,5', '2,9')}{LAST.replace('10,4 +10,4', '10,7 +10,8')}```",
    f"```diff\n{HEAD}{FIRST}\n{LAST}\n\n```".replace("\n \n", "\n\n"),
    f"```diff\n{HEAD}{FIRST}```\nand\n```diff\n{HEAD}{LAST}```\nThen run:\n```sh\npytest\n```",
    f"```diff\n{HEAD}{FIRST}{LAST}",  # cut off behind its last hunk
    f"```diff\n{HEAD}{FIRST}{LAST}```".replace("\n", "\r\n"),
)


def applied(patch: str, folder: Path) -> str:
    """What git makes of the file."""
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "it.py").write_text(OLD)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "apply", "-"], input=patch.encode(), cwd=folder, check=True)
    return (folder / "src" / "it.py").read_text()


@pytest.mark.parametrize("number", range(len(PATCHES)))
def test_git_applies_the_patch_that_is_found(tmp_path: Path, number: int):
    if shutil.which("git") is None:
        pytest.skip("toolchain: git")
    patch, failure = unified_diff(PATCHES[number])
    assert failure == ""
    assert applied(patch, tmp_path / "checkout") == NEW


def test_a_new_file_is_kept_as_one(tmp_path: Path):
    if shutil.which("git") is None:
        pytest.skip("toolchain: git")
    patch, _ = unified_diff(
        "```diff\ndiff --git a/new.py b/new.py\nnew file mode 100644\n--- /dev/null\n+++ b/new.py\n"
        "@@ -0,0 +1,9 @@\n+x = 1\n```"
    )
    applied(patch, tmp_path / "checkout")
    assert (tmp_path / "checkout" / "new.py").read_text() == "x = 1\n"


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "no unified diff"),
        ("I would change `one`.", "no unified diff"),
        ("```python\ndef one():\n    return 1\n```", "no unified diff"),
        (f"```diff\n{HEAD}```", "a diff without a hunk"),
        (f"```diff\n{HEAD}@@ ... @@\n-a\n+b\n```", "a hunk without line numbers"),
        (f"```diff\n{HEAD}@@ -1,1 +1,1 @@\n a\n```", "a hunk that changes nothing"),
        (f"```diff\n{HEAD}@@ -1,2 +1,2 @@\n-    a\n+    b\ndef two():\n```", "a hunk with a line that is neither"),
    ],
)
def test_a_malformed_patch_is_told_and_exported_empty(tmp_path: Path, text: str, failure: str):
    [problem] = issues(tmp_path)
    answer = SWE.grade(problem, "chat", text)
    assert answer.detail.startswith(failure)
    assert (answer.extracted, answer.score, answer.submission) == ("", None, None)
    assert answer.metrics == {"well_formed": 0}


def test_predictions_have_the_three_official_fields(tmp_path: Path):
    one, two = issues(tmp_path, ISSUE, ISSUE | {"instance_id": "psf__requests-2"})
    good = SWE.grade(one, "chat", PATCHES[0])
    bad = SWE.grade(two, "chat", "no")
    assert (good.score, good.submission, good.detail) == (None, None, "")
    samples = [
        Exported(problem, (text,), text, "org/model")
        for problem, text in ((one, good.extracted), (one, "second"), (two, bad.extracted))
    ]
    assert SWE.export is not None
    files = SWE.export(samples)
    lines = [json.loads(line) for line in files["predictions.jsonl"].splitlines()]
    assert lines == [
        {"instance_id": "psf__requests-1", "model_name_or_path": "org/model", "model_patch": good.extracted},
        {"instance_id": "psf__requests-2", "model_name_or_path": "org/model", "model_patch": ""},
    ]
    assert json.loads(files["predictions-2.jsonl"])["model_patch"] == "second"
    assert json.loads(files["summary.json"]) == {"predictions": 3, "empty": 1, "model": "org/model"}


# --- Defects4J ---


def test_a_bug_is_asked_with_its_failing_test(tmp_path: Path):
    problem = bug(tmp_path)
    chat = DEFECTS.ask(problem, "chat", ROOM).messages[0]["content"]
    assert "The test org.SumTest::testEmpty fails with: expected:<0> but was:<1>.\n\n```java\n" + METHOD in chat
    base = DEFECTS.ask(problem, "base", ROOM)
    assert base.text == f"// Buggy method\n{METHOD}\n\n// Fixed method\n"
    assert (problem.id, problem.family, problem.entry_point) == ("Chart-7", "Chart", "sum")


FIXED = METHOD.replace("total = 1", "total = 0")
ANSWERS = (
    f"```java\n{FIXED}\n```",
    f"The total begins at 1. Fixed:\n\n```\n{FIXED}\n```\nNow it begins at 0.",
    f"```java\nclass Sum {{\n    private int other;\n\n{FIXED}\n\n    int more() {{ return 1; }}\n}}\n```",
    f"```java\nint all() {{\n    if (sum(values)) {{ return 1; }}\n    return sum(new A() {{ }});\n}}\n{FIXED}\n```",
    f"```java\n{FIXED}\n```\nor\n```java\nint sum(int a) {{ return a; }}\n```",
    FIXED,
)


@pytest.mark.parametrize("text", ANSWERS)
def test_the_fixed_method_is_found_whole(tmp_path: Path, text: str):
    assert DEFECTS.grade(bug(tmp_path), "chat", text).extracted == FIXED + "\n"


def test_a_continuation_is_cut_behind_the_method(tmp_path: Path):
    found = DEFECTS.grade(bug(tmp_path), "base", f"{FIXED}\n\n    public int next() {{\n    }}\n")
    assert found.extracted == FIXED + "\n"
    assert found.score is None


def test_comments_and_annotations_stay_with_their_method(tmp_path: Path):
    method = "    /**\n     * Sums; and\n     * returns {it};\n     */\n    @Override // as told;\n" + FIXED
    found = DEFECTS.grade(bug(tmp_path), "chat", f"```java\nclass A {{\n    int a;\n{method}\n}}\n```")
    assert found.extracted == method + "\n"


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("It is fine.", "no method of that name"),
        (f"```java\n{FIXED.replace('sum', 'total')}\n```", "no method of that name"),
        (f"```java\n{FIXED[:-1]}\n```", "a method without an end"),
    ],
)
def test_an_answer_without_the_method_is_told(tmp_path: Path, text: str, detail: str):
    found = DEFECTS.grade(bug(tmp_path), "chat", text)
    assert (found.extracted, found.detail, found.metrics) == ("", detail, {"well_formed": 0})


def test_names_of_methods_are_read_behind_annotations_and_comments():
    assert method_name("/** see a(b) */ @Test(timeout = 1)\nprotected Foo(int a) { super(a); }") == "Foo"
    assert method_name('@Named("x(y)") <T extends A<T>> Map<T, int[]> map( // z(\n T t) {}') == "map"
    assert method_name("int field = 1;") == ""


def test_each_fixed_method_is_a_file_of_the_index(tmp_path: Path):
    problem = bug(tmp_path)
    samples = [Exported(problem, (FIXED,), FIXED, "m"), Exported(problem, ("",), "", "m")]
    assert DEFECTS.export is not None
    files = DEFECTS.export(samples)
    assert files["methods/Chart-7.java"] == FIXED
    assert files["methods/Chart-7.2.java"] == ""
    place = {"project": "Chart", "bug_id": 7, "file": "source/org/Sum.java", "start_line": 10, "end_line": 14}
    assert json.loads(files["index.json"]) == [
        place | {"sample": 0, "method": "methods/Chart-7.java", "empty": False},
        place | {"sample": 1, "method": "methods/Chart-7.2.java", "empty": True},
    ]
    assert json.loads(files["summary.json"]) == {"predictions": 2, "empty": 1, "model": "m"}


def test_malformed_records_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="field base_commit is missing"):
        issues(tmp_path, {key: value for key, value in ISSUE.items() if key != "base_commit"})
    with pytest.raises(InputError, match="line 1: one of instance_id"):
        issues(tmp_path, ISSUE | {"problem_statement": None})
    with pytest.raises(InputError, match="line 1: the method is no Java method"):
        bug(tmp_path, method="int field = 1;")
    with pytest.raises(InputError, match="at Hugging Face"):
        list(SWE.load(Folder(tmp_path / "none"), TaskOptions()))
