"""The builder: hand-written repositories whose items are known, and real ones whose items keep what they promise."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from codeweft.base.errors import ConfigError, InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.registry import find
from codeweft.tasks.repobench import LEVELS
from codeweft.tasks.repobench_builder import build
from codeweft.tasks.task import Room

MAIN = '''"""Doc with tool(1) in it."""
import os
from pkg import tool as t, Box
from pkg import deep

def run(x):
    """t(x)"""
    y = x + 1  # t(x)
    z = t(y)
    w = t(z)
    return deep.dive(w)
'''
FILES = {
    "pkg/__init__.py": "from .tools import tool\nfrom .boxes import *\n",
    "pkg/tools.py": "def other(): pass\n\n\n@cached\ndef tool(x):\n    return x\n",
    "pkg/boxes.py": "class Box:\n    size = 1\n",
    "pkg/deep.py": "def dive(x):\n    return x\n",
    "main.py": MAIN,
    "setup.py": "",
    ".hidden/main.py": MAIN,
}
JAVA = {
    "src/a/Main.java": "package a;\n\nimport a.b.*;\nimport static a.c.Help.help;\nimport java.util.List;\n\n"
    "class Main {\n    int f(List<Part> p) {\n        return help(1);\n    }\n    int g() { return 2; }\n}\n",
    "src/a/b/Part.java": "package a.b;\n\n/** A part. */\n@Deprecated\npublic class Part {\n    int n;\n}\n",
    "src/a/b/Unused.java": "package a.b;\nclass Unused {}\n",
    "src/a/c/Help.java": "package a.c;\nclass Help {\n    static int help(int x) {\n        return x;\n    }\n}\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def records(folder: Path, language: str, setting: str) -> list[dict[str, Any]]:
    lines = (folder / f"repobench-{language}" / f"{setting}.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def loaded(folder: Path, language: str) -> list[Problem]:
    options = TaskOptions(repository_levels=tuple(LEVELS))
    return list(find(f"repobench-{language}").load(Folder(folder), options))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_python_repository_gives_the_items_that_were_written_into_it(tmp_path: Path, end: str):
    files = {name: text.replace("\n", end) for name, text in FILES.items()}
    write(tmp_path / "sources/repo", files)
    found = build(tmp_path / "sources/repo", tmp_path / "out", per_setting=9, seed=1)
    assert found == {"python/cross_file_first": 2, "python/cross_file_random": 1, "python/in_file": 1}
    first = {each["next_line"]: each for each in records(tmp_path / "out", "python", "cross_file_first")}
    assert set(first) == {"    z = t(y)", "    return deep.dive(w)"}
    item = first["    return deep.dive(w)"]
    assert item["import_statement"] == "import os\nfrom pkg import tool as t, Box\nfrom pkg import deep"
    assert item["cropped_code"] == '"""Doc with tool(1) in it."""\n\ndef run(x):\n    """t(x)"""\n' + "\n".join(
        ["    y = x + 1  # t(x)", "    z = t(y)", "    w = t(z)"]
    )
    assert item["context"] == [
        {"identifier": "tool", "path": "pkg/tools.py", "snippet": "@cached\ndef tool(x):\n    return x"},
        {"identifier": "dive", "path": "pkg/deep.py", "snippet": "def dive(x):\n    return x"},
    ]
    assert (item["gold_snippet_index"], item["level"], item["repo_name"]) == (1, "2k", "repo")
    [later] = records(tmp_path / "out", "python", "cross_file_random")
    assert (later["next_line"], later["gold_snippet_index"]) == ("    w = t(z)", 0)
    own = records(tmp_path / "out", "python", "in_file")
    assert {each["next_line"] for each in own} == {"    y = x + 1  # t(x)"}
    assert all(each["gold_snippet_index"] == -1 for each in own)


def test_a_java_repository_gives_the_items_that_were_written_into_it(tmp_path: Path):
    write(tmp_path / "sources/repo", JAVA)
    found = build(tmp_path / "sources", tmp_path / "out", per_setting=9, seed=1)
    assert found == {"java/cross_file_first": 2, "java/cross_file_random": 0, "java/in_file": 2}
    first = records(tmp_path / "out", "java", "cross_file_first")
    assert {each["next_line"].strip() for each in first} == {"int f(List<Part> p) {", "return help(1);"}
    assert [each["identifier"] for each in first[0]["context"]] == ["Part", "help"]
    assert first[0]["context"][0]["snippet"] == "@Deprecated\npublic class Part {\n    int n;\n}"
    assert first[0]["context"][1]["snippet"].strip().startswith("static int help(int x) {")
    assert len(loaded(tmp_path / "out", "java")) == 4


def test_a_package_that_is_the_source_itself_is_imported_by_its_own_name(tmp_path: Path):
    write(tmp_path / "pkg", {"__init__.py": "", "a.py": "A = 1\n", "b.py": "x = 0\nfrom pkg.a import A\ny = A\n"})
    assert build(tmp_path / "pkg", tmp_path / "out", per_setting=9, seed=1)["python/cross_file_first"] == 1
    [item] = records(tmp_path / "out", "python", "cross_file_first")
    assert (item["file_path"], item["next_line"], item["context"][0]["snippet"]) == ("pkg/b.py", "y = A", "A = 1")


def test_files_that_import_each_other_or_are_broken_do_no_harm(tmp_path: Path):
    files = {
        "r/a.py": "x = 0\nfrom b import f\nf()\n",
        "r/b.py": "y = 0\nfrom a import f\nf()\n",
        "r/c.py": "from d import g\n\ndef h(:\n    return g(1\n",
        "r/d.py": "def g(x:\n    return [\n",
    }
    write(tmp_path, files)
    (tmp_path / "r/latin.py").write_bytes(b"# \xe9\nfrom d import g\n")
    found = build(tmp_path, tmp_path / "out", per_setting=9, seed=1)
    assert found["python/cross_file_first"] == 1
    assert records(tmp_path / "out", "python", "cross_file_first")[0]["next_line"] == "    return g(1"


def test_a_folder_without_such_files_is_an_error(tmp_path: Path):
    write(tmp_path / "r", {"a.py": "import os\nprint(os)\n", "b.txt": "import a"})
    with pytest.raises(InputError, match="no Python or Java file that uses"):
        build(tmp_path, tmp_path / "out", per_setting=3, seed=1)
    with pytest.raises(InputError, match="is not a folder"):
        build(tmp_path / "none", tmp_path / "out", per_setting=3, seed=1)
    with pytest.raises(ConfigError, match="per_setting"):
        build(tmp_path, tmp_path / "out", per_setting=0, seed=1)
    assert not (tmp_path / "out").exists()


def holds(folder: Path, language: str) -> int:
    """Check every item of a built set against what the format promises; how many there are."""
    task, seen = find(f"repobench-{language}"), 0
    for setting in ("cross_file_first", "cross_file_random", "in_file"):
        for each in records(folder, language, setting):
            line, gold = each["next_line"], each["gold_snippet_index"]
            assert line in each["all_code"].split("\n")
            assert line.strip()
            assert each["cropped_code"].strip()
            assert (gold >= 0) == (setting != "in_file")
            assert each["context"]
            if gold >= 0:
                assert each["context"][gold]["path"] != each["file_path"]
                assert each["context"][gold]["identifier"] in each["context"][gold]["snippet"]
            seen += 1
    problems = loaded(folder, language)
    assert len(problems) == seen
    for problem in problems:
        assert task.grade(problem, "base", problem.reference).score == 1, problem
        assert task.grade(problem, "base", "").score == 0
        ask = task.ask(problem, "base", Room(3000, lambda text: len(text) // 4))
        assert len(ask.text) // 4 <= 3000
        last = next((each for each in reversed(problem.facts["cropped_code"].split("\n")) if each.strip()), "")
        assert last in ask.text
    return seen


def test_this_package_gives_items_that_hold_and_the_same_ones_again(tmp_path: Path):
    package = Path(__file__).parents[2] / "codeweft" / "evaluate"
    source = tmp_path / "repo" / "codeweft" / "evaluate"
    write(source.parent, {"__init__.py": ""})
    write(source, {file.name: file.read_text("utf-8") for file in package.glob("*.py")})
    write(
        source.parent / "base", {file.name: file.read_text("utf-8") for file in (package.parent / "base").glob("*.py")}
    )
    for out, seed in (("one", 1), ("two", 1), ("three", 2)):
        build(tmp_path / "repo", tmp_path / out, per_setting=5, seed=seed)
    assert holds(tmp_path / "one", "python") == 15
    one, two, three = (
        [records(tmp_path / out, "python", setting) for setting in ("cross_file_first", "cross_file_random", "in_file")]
        for out in ("one", "two", "three")
    )
    assert one == two
    assert one != three


@pytest.mark.slow
def test_real_repositories_of_both_languages_give_items_that_hold(shared_data: Path, tmp_path: Path):
    wanted = ("dh-python/", "python3-werkzeug/", "python3-scrapy/", "libcommons-lang3-java/", "commons-math3/")
    packed = pa.input_stream(str(shared_data / "corpus/code-300mb.tar.zst"), compression="zstd")
    with packed, tarfile.open(fileobj=packed, mode="r|") as archive:
        for member in archive:
            if member.name.removeprefix("./").startswith(wanted) and member.isfile():
                archive.extract(member, tmp_path / "sources", filter="data")
    found = build(tmp_path / "sources", tmp_path / "out", per_setting=40, seed=1)
    assert len(found) == 6
    assert set(found.values()) == {40}
    assert holds(tmp_path / "out", "python") == 120
    assert holds(tmp_path / "out", "java") == 120
