"""Infilling benchmarks: SantaCoder's whole file, and items of OpenAI's schema made from HumanEval."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.sandbox.client import judge_all
from codeweft.sandbox.config import SandboxConfig
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.infilling import edit_similarity
from codeweft.tasks.registry import find
from codeweft.tasks.task import Room

LINES, HOLES = find("fim-single-line"), find("human-eval-infilling")
WIDE = Room(1 << 30, len)


def loaded(task_name: str, folder: Path) -> list[Problem]:
    return list(find(task_name).load(Folder(folder), TaskOptions()))


@pytest.fixture(scope="module")
def items(shared_data: Path) -> list[Problem]:
    return loaded("fim-single-line", shared_data / "eval")


# --- single lines ----------------------------------------------------------------------------------------------------


def test_the_file_has_the_items_of_three_languages_under_names_that_differ(items: list[Problem]):
    languages = [item.language for item in items]
    assert {name: languages.count(name) for name in set(languages)} == {
        "python": 1043,
        "java": 1780,
        "javascript": 1969,
    }
    assert len({item.id for item in items}) == 4792


def test_every_reference_scores_1_however_the_line_is_begun_and_ended(items: list[Problem]):
    for before, after in (("", ""), ("\n", "\nmore"), ("\r\n \n", " \r\n}"), ("\t", "  ")):
        answers = [LINES.grade(item, "infill", before + item.reference + after) for item in items]
        assert all(answer.score == 1 and answer.metrics["edit_similarity"] == 1 for answer in answers)


def test_an_empty_answer_and_what_stands_beside_the_hole_score_0_unless_the_line_is_repeated(items: list[Problem]):
    for item in items:
        assert LINES.grade(item, "infill", "").score == 0
        for beside in (item.prompt.split("\n")[-1], item.facts["suffix"].split("\n")[0]):
            expected = float(bool(beside.strip()) and beside.strip() == item.reference.strip())
            assert LINES.grade(item, "infill", beside).score == expected


def test_sides_are_asked_as_they_are_stored(items: list[Problem]):
    for item in items[::50]:
        ask = LINES.ask(item, "infill", WIDE)
        assert (ask.text, ask.suffix, ask.stop_line) == (item.prompt, item.facts["suffix"], True)
        assert LINES.ask(item, "base", WIDE).text == item.prompt
        assert LINES.ask(item, "base", WIDE).suffix == ""


@given(
    prefix=st.text("ab\n", max_size=60), suffix=st.text("ab\n", max_size=60), tokens=st.integers(20, 140),
)  # fmt: skip
def test_sides_that_do_not_fit_keep_the_lines_beside_the_hole(prefix: str, suffix: str, tokens: int):
    item = Problem("x", "fim-single-line", prompt=prefix, facts={"suffix": suffix})
    ask = LINES.ask(item, "infill", Room(tokens, len))
    assert len(ask.text) + len(ask.suffix) <= tokens - 8
    assert prefix.endswith(ask.text)
    assert suffix.startswith(ask.suffix)
    if len(prefix) + len(suffix) <= tokens - 8:
        assert (ask.text, ask.suffix) == (prefix, suffix)
    short = LINES.ask(item, "base", Room(tokens, len)).text
    assert prefix.endswith(short)
    # one more line would not fit
    assert len(short) <= tokens
    assert short == prefix or len(prefix[: len(prefix) - len(short) - 1].rpartition("\n")[2]) + 1 + len(short) > tokens


@given(one=st.text("ab c", max_size=12), other=st.text("ab c", max_size=12))
def test_edit_similarity_is_that_of_the_plain_table_of_distances(one: str, other: str):
    a, b = one.strip(), other.strip()
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, against in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != against))
    assert edit_similarity(one, other) == pytest.approx(1 - row[-1] / max(len(a), len(b), 1))


def test_a_malformed_item_is_told_with_its_line(tmp_path: Path):
    good = {"name": "n", "language": "py", "prompt": "a", "suffix": "b", "canonical_solution": "c"}
    for bad, words in (({"suffix": None}, "line 2: suffix is not a text"), ({"name": 3}, "line 2: name is not a text")):
        lines = [json.dumps(good), json.dumps(good | bad)]
        (tmp_path / "fim_singleline.jsonl").write_text("\n".join(lines))
        with pytest.raises(InputError, match=words):
            loaded("fim-single-line", tmp_path)


# --- HumanEval's holes -----------------------------------------------------------------------------------------------


def made_of_human_eval(shared_data: Path, every: int) -> list[dict[str, str]]:
    """Items of OpenAI's schema: one line, two lines, and a span inside a line of canonical solutions."""
    content = gzip.decompress((shared_data / "eval/human-eval/HumanEval.jsonl.gz").read_bytes()).decode()
    made = []
    for number, line in enumerate(content.strip().split("\n")):
        record = json.loads(line)
        if number % every and number not in (32, 38, 50):  # the tests of those three call what the prompt defines
            continue
        parts = record["canonical_solution"].splitlines(keepends=True)
        middle = max(range(len(parts)), key=lambda place, parts=parts: len(parts[place].strip()))
        begin = sum(map(len, parts[:middle]))
        one, two = len(parts[middle]), sum(map(len, parts[middle : middle + 2]))
        spans = {
            f"SingleLineInfilling/{record['task_id']}/L{middle}": (begin, begin + one),
            f"MultiLineInfilling/{record['task_id']}/L{middle}_L{middle + 1}": (begin, begin + two),
            f"RandomSpanInfilling/{record['task_id']}/1": (begin + one // 3, begin + one // 3 * 2),
        }
        for name, (start, end) in spans.items():
            whole = record["canonical_solution"]
            sides = {"prompt": record["prompt"] + whole[:start], "suffix": whole[end:]}
            kept = {key: record[key] for key in ("entry_point", "test")}
            made.append({"task_id": name, "canonical_solution": whole[start:end]} | sides | kept)
    return made


def written(folder: Path, made: list[dict[str, str]]) -> Path:
    for suite in ("SingleLineInfilling", "MultiLineInfilling", "RandomSpanInfilling"):
        lines = [json.dumps(item) for item in made if item["task_id"].startswith(suite)]
        (folder / f"HumanEval-{suite}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


def passes_officially(item: dict[str, str], text: str) -> bool:
    """OpenAI's check program in a process of its own: sides, answer, tests, one call."""
    call = f"check({item['entry_point']})"
    program = f"{item['prompt']}{text}{item['suffix']}\n{item['test']}\n{call}"
    try:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.mark.parametrize("every", [80, pytest.param(4, marks=pytest.mark.slow)])
def test_filled_holes_get_the_verdict_of_the_official_check_program(shared_data: Path, tmp_path: Path, every: int):
    made = made_of_human_eval(shared_data, every)
    problems = {each.id: each for each in loaded("human-eval-infilling", written(tmp_path, made))}
    assert {each.family: each.language for each in problems.values()} == {
        "SingleLineInfilling": "python", "MultiLineInfilling": "python", "RandomSpanInfilling": "python",
    }  # fmt: skip
    texts = [(item, item["canonical_solution"]) for item in made] + [(item, "") for item in made]
    answers = [HOLES.grade(problems[item["task_id"]], "infill", text) for item, text in texts]
    verdicts = judge_all(SandboxConfig(), [each.submission for each in answers if each.submission is not None])
    assert {verdict.mode for verdict in verdicts} == {"split"}
    passed = [verdict.status == "ok" for verdict in verdicts]
    assert all(passed[: len(made)])
    assert passed[len(made) :] == [passes_officially(item, "") for item in made]
    assert sum(passed[len(made) :]) < len(made) / 10


def test_a_suite_that_is_not_there_is_told_and_none_at_all_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    item = {
        "task_id": "RandomSpanInfilling/test/0",
        "prompt": "def return1():\n",
        "suffix": "1",
        "canonical_solution": "    return ",
    }
    item |= {"test": "def check(candidate):\n    assert candidate() == 1", "entry_point": "return1"}
    with pytest.raises(InputError, match="HumanEval-SingleLineInfilling"):
        loaded("human-eval-infilling", tmp_path)
    (tmp_path / "HumanEval-RandomSpan.jsonl").write_text(json.dumps(item))
    [problem] = loaded("human-eval-infilling", tmp_path)
    assert capsys.readouterr().err.count("without one of its suites") == 2
    submission = HOLES.grade(problem, "infill", "    return ").submission
    assert submission is not None
    assert submission.code == "def return1():\n    return 1"
