"""RepoBench: its prompt against a hand-written text, the cut as a property, and which items are asked."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.registry import find
from codeweft.tasks.repobench import predicted, prompt
from codeweft.tasks.task import Room

PYTHON, JAVA = find("repobench-python"), find("repobench-java")
ITEM: dict[str, Any] = {
    "repo_name": "owner/name",
    "file_path": "pkg/main.py",
    "context": [
        {"identifier": "f", "path": "pkg/a.py", "snippet": "def f():\n    return 1\n\n\n"},
        {"identifier": "B", "path": "pkg/b.py", "snippet": "class B:\n    pass"},
    ],
    "import_statement": "from pkg.a import f\nfrom pkg.b import B",
    "cropped_code": "def g():\n    b = B()",
    "all_code": "",
    "next_line": "    return f() + 1",
    "gold_snippet_index": 0,
    "created_at": "2023-12-05 10:00:00+00:00",
    "level": "2k",
}
EXPECTED = """# Repo Name: owner/name
# Path: pkg/a.py
def f():
    return 1

# Path: pkg/b.py
class B:
    pass

# Path: pkg/main.py
from pkg.a import f
from pkg.b import B
def g():
    b = B()
"""


def words(text: str) -> int:
    return len(text.split())


def folder_with(root: Path, **splits: list[dict[str, Any]]) -> Path:
    folder = root / "repobench-python"
    folder.mkdir()
    for setting in ("cross_file_first", "cross_file_random", "in_file"):
        lines = [json.dumps(item) for item in splits.get(setting, [])]
        (folder / f"{setting}.jsonl").write_text("\n".join(lines))
    return root


def loaded(root: Path, **options: Any) -> list[Problem]:
    return list(PYTHON.load(Folder(root), TaskOptions(**options)))


def test_the_prompt_is_the_hand_written_one():
    assert prompt(ITEM, "#", 15_800, words) == EXPECTED
    slashes = EXPECTED.replace("# ", "// ").encode()
    assert prompt(ITEM, "//", 15_800, words).encode() == slashes


def test_a_cut_prompt_loses_lines_of_the_snippets_from_the_end():
    whole, own = words(EXPECTED), words(EXPECTED[EXPECTED.index("# Path: pkg/main.py") :])
    kept = EXPECTED.replace("    pass\n\n", "\n")
    assert prompt(ITEM, "#", whole, words) == EXPECTED
    assert prompt(ITEM, "#", whole - 1, words) == kept
    assert prompt(ITEM, "#", own, words) == EXPECTED[EXPECTED.index("# Path: pkg/main.py") :]
    assert prompt(ITEM, "#", own - 1, words) == EXPECTED[EXPECTED.index("from pkg.a") :]
    assert prompt(ITEM, "#", 6, words) == "def g():\n    b = B()\n"


LINES = st.lists(st.sampled_from(["x = 1", "", "", "    call(a, b)", "# note"]), max_size=12).map("\n".join)


@settings(max_examples=100)
@given(
    snippets=st.lists(LINES, max_size=5), code=LINES, tokens=st.integers(1, 120), by=st.sampled_from([words, len]),
)  # fmt: skip
def test_cut_prompts_never_exceed_the_budget_and_keep_the_files_own_code(
    snippets: list[str], code: str, tokens: int, by: Any
):
    context = [{"path": f"{number}.py", "snippet": snippet} for number, snippet in enumerate(snippets)]
    item = ITEM | {"context": context, "cropped_code": code}
    found = prompt(item, "#", tokens, by)
    own = prompt(item | {"context": []}, "#", 10**9, by).partition("\n")[2]
    assert by(found) <= tokens
    assert "\n\n\n\n" not in found
    assert own.endswith(found) if by(own) > tokens else found.endswith(own)
    whole = prompt(item, "#", 10**9, by)
    assert by(whole) > tokens or found == whole


def test_the_smaller_of_room_and_setting_decides(tmp_path: Path):
    root = folder_with(tmp_path, in_file=[ITEM | {"cropped_code": "x = 1\n" * 200}])
    [problem] = loaded(root, repository_prompt=100)
    for room, most in ((1000, 100), (64, 64)):
        ask = PYTHON.ask(problem, "base", Room(room, words))
        assert most - 3 <= words(ask.text) <= most
        assert ask.max_tokens == 64
        assert ask.stop == ()
        assert not ask.stop_line


def test_items_of_december_and_of_the_wanted_levels_are_asked(tmp_path: Path):
    dates = [
        "2023-11-30 23:59:59+00:00", "2023-12-01 00:00:00+00:00", "2023-12-30T23:59:59Z", "2023-12-31 00:00:00+00:00",
        "2023-12-31 00:00:01+00:00", "2024-01-01", "", None,
    ]  # fmt: skip
    items = [ITEM | {"created_at": date} for date in dates]
    levels = [ITEM | {"level": level} for level in ("2k", "24k", "16k")]
    root = folder_with(tmp_path, cross_file_first=items, in_file=levels)
    problems = loaded(root)
    assert [(each.id, each.family, each.difficulty) for each in problems] == [
        *((f"cross_file_first/{number}", "2k", "cross_file_first") for number in (1, 2, 3, 6, 7)),
        ("in_file/0", "2k", "in_file"),
        ("in_file/2", "16k", "in_file"),
    ]
    assert [each.id for each in loaded(root, repository_levels=("24k",))] == ["in_file/1"]
    assert PYTHON.average == "family"


def test_the_official_parquet_layout_is_read(tmp_path: Path):
    folder = tmp_path / "repobench_python_v1.1" / "data"
    folder.mkdir(parents=True)
    stamped = ITEM | {"created_at": datetime(2023, 12, 2, 3, 4)}
    for setting, item in (("cross_file_first", ITEM), ("cross_file_random", stamped), ("in_file", ITEM)):
        pq.write_table(pa.Table.from_pylist([item, item]), folder / f"{setting}-00000-of-00001-0a1b.parquet")
    assert len(loaded(tmp_path)) == 6


@pytest.mark.parametrize(
    ("change", "words_of_error"),
    [
        ({"context": "none"}, "cross_file_first.jsonl, line 2: context is not a list"),
        ({"context": [{"path": "a"}]}, "line 2: context is not a list"),
        ({"next_line": None}, "line 2: next_line is not a text"),
        ({"created_at": "yesterday"}, "line 2: created_at is no date"),
    ],
)
def test_a_malformed_item_is_told_with_its_line(tmp_path: Path, change: dict[str, Any], words_of_error: str):
    root = folder_with(tmp_path, cross_file_first=[ITEM, ITEM | change])
    with pytest.raises(InputError, match=words_of_error):
        loaded(root)


def test_a_missing_split_and_an_unknown_level_are_told(tmp_path: Path):
    root = folder_with(tmp_path, in_file=[ITEM])
    with pytest.raises(InputError, match="no level 3k"):
        loaded(root, repository_levels=("3k",))
    (root / "repobench-python" / "in_file.jsonl").unlink()
    with pytest.raises(InputError, match=r"no file in_file-\*\.parquet"):
        loaded(root)


@pytest.mark.parametrize(
    ("language", "text", "line"),
    [
        ("python", "\n\n  # a\n\tx = 1  \ny", "\tx = 1"),
        ("python", '"""One line."""\nx', "x"),
        ("python", "'''\nmany\n'''\nx", "x"),
        ("python", '"""\nx = 1\n', '"""'),
        ("python", "# only", "# only"),
        ("python", "", ""),
        ("java", "// a\n/* b */\n/**\n * c\n */\n  f();\r\n", "  f();"),
        ("java", "# not Java's\nf();", "# not Java's"),
    ],
)
def test_the_first_line_that_is_no_comment_is_the_prediction(language: str, text: str, line: str):
    assert predicted(text, language) == line


def test_white_space_between_words_does_not_count_and_words_do():
    problem = Problem("x", "repobench-java", language="java", reference="    return a + b;")
    for text, score in (("return  a +\tb;", 1), ("// so\nreturn a + b;\n}", 1), ("return a+b;", 0), ("", 0)):
        assert JAVA.grade(problem, "base", text).score == score
    assert JAVA.grade(problem, "base", "return a + c;").metrics["edit_similarity"] == pytest.approx(12 / 13)
