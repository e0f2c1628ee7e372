"""Multiple choice: made-up files in each official layout are read, asked, graded, and their mistakes named."""

import json
from pathlib import Path

import pytest

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.choices import letters_in
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.registry import find
from codeweft.tasks.task import Room

ROOM = Room(4096, len)
ROWS = [("What is 1+1?", "1", "2", "3", "4", "B"), ('What, said "he", is\n2+2?', "1", "2", "3", "4", "D")]


def loaded(name: str, folder: Path, **options: int) -> list[Problem]:
    return list(find(name).load(Folder(folder), TaskOptions(**options)))


def quoted(row: tuple[str, ...]) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' for cell in row)


def write_mmlu(folder: Path) -> None:
    for split in ("dev", "test"):
        (folder / "mmlu" / split).mkdir(parents=True)
        text = "\n".join(quoted(row) for row in ROWS) + "\n"
        (folder / "mmlu" / split / f"abstract_algebra_{split}.csv").write_text(text)


def test_mmlu_is_read_by_subject_with_shots_of_dev(tmp_path: Path):
    write_mmlu(tmp_path)
    problems = loaded("mmlu", tmp_path)
    assert [(p.id, p.family, p.reference) for p in problems] == [
        ("abstract_algebra/0", "abstract_algebra", "B"), ("abstract_algebra/1", "abstract_algebra", "D"),
    ]  # fmt: skip
    ask = find("mmlu").ask(problems[0], "likelihood", ROOM)
    assert ask.choices == (" A", " B", " C", " D")
    assert ask.text == (
        "What is 1+1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\n"
        'What, said "he", is\n2+2?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: D\n\n'
        "What is 1+1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    )
    assert loaded("mmlu", tmp_path, shots=0)[0].facts["shots"] == ""


@pytest.mark.parametrize(("style", "text"), [("likelihood", "1"), ("base", " B"), ("chat", "It is 2.\nAnswer: B")])
def test_the_right_choice_scores_in_every_style(tmp_path: Path, style: str, text: str):
    write_mmlu(tmp_path)
    right, other = loaded("mmlu", tmp_path)
    assert find("mmlu").grade(right, style, text).score == 1
    assert find("mmlu").grade(other, style, text).score == 0


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Answer: B", "B"), ("**Answer:** (B)", "B"), ("The answer is B.", "B"), ("answer: b is wrong. Answer: C", "C"),
        ("I weigh A against B.\nB", "B"), ("B", "B"), ("(D)", "D"), ("B. 2", "B"), ("$\\boxed{C}$", "C"),
        ("答案：A", "A"), ("答案是B。", "B"), ("所以选 C", "C"), ("Answer: A, C", "AC"), ("答案：BD", "BD"),
        ("Answer: Apples", ""), ("none of these", ""), ("", ""), ("Answer: E", ""), ("A good question, but I pass", ""),
    ],
)  # fmt: skip
def test_the_letter_that_was_said_is_found(text: str, letters: str):
    assert letters_in(text, 4) == letters


def test_arc_scores_whole_answers_a_byte_after_shots_of_its_training_file(tmp_path: Path):
    (tmp_path / "ARC-Easy").mkdir()
    for part in ("Train", "Test"):
        record = {
            "id": f"{part}_1", "answerKey": "2",
            "question": {
                "stem": "Which is hot?", "choices": [{"text": "ice", "label": "1"}, {"text": "fire", "label": "2"}],
            },
        }  # fmt: skip
        (tmp_path / "ARC-Easy" / f"ARC-Easy-{part}.jsonl").write_text(json.dumps(record) + "\n")
    [problem] = loaded("arc-easy", tmp_path)
    task = find("arc-easy")
    ask = task.ask(problem, "likelihood", ROOM)
    assert task.facts["normalise"]
    assert ask.text == "Question: Which is hot?\nAnswer: fire\n\nQuestion: Which is hot?\nAnswer:"
    assert ask.choices == (" ice", " fire")
    assert [task.grade(problem, "likelihood", number).score for number in "01"] == [0, 1]
    assert task.grade(problem, "base", " Fire.").score == 1
    assert task.grade(problem, "chat", "Answer: B").score == 1


def test_chinese_examinations_are_asked_in_chinese(tmp_path: Path):
    for split in ("dev", "val"):
        (tmp_path / "ceval" / split).mkdir(parents=True)
        explained = (",explanation", ",两个") if split == "dev" else ("", "")
        text = f"id,question,A,B,C,D,answer{explained[0]}\n0,一加一等于几？,一,二,三,四,B{explained[1]}\n"
        (tmp_path / "ceval" / split / f"law_{split}.csv").write_text(text)
    for split in ("dev", "test"):
        (tmp_path / "cmmlu" / split).mkdir(parents=True)
        rows = ",Question,A,B,C,D,Answer\n0,一加一等于几？,一,二,三,四,B\n"
        (tmp_path / "cmmlu" / split / "anatomy.csv").write_text(rows)
    for name in ("c-eval", "cmmlu"):
        [problem] = loaded(name, tmp_path)
        assert find(name).ask(problem, "likelihood", ROOM).text.endswith("D. 四\n答案：")
        assert "答案：X" in find(name).ask(problem, "chat", ROOM).messages[0]["content"]
        assert find(name).grade(problem, "chat", "答案：B").score == 1


def test_agieval_takes_several_letters_and_answers_in_words(tmp_path: Path):
    (tmp_path / "agieval").mkdir()
    one = {"passage": "P", "question": "Q?", "options": ["(A)x", "(B)y", "(C)z"], "label": "B", "answer": None}
    several = one | {"label": ["A", "C"]}
    words = {"passage": None, "question": "1/2+1/2?", "options": None, "label": None, "answer": "1"}
    lines = [json.dumps(record) for record in (one, several, words)]
    (tmp_path / "agieval" / "sat-math.jsonl").write_text("\n".join(lines) + "\n")
    first, second, third = loaded("agieval", tmp_path)
    task = find("agieval")
    assert task.ask(first, "base", ROOM).text == "P\n\nQ?\nA. x\nB. y\nC. z\nAnswer:"
    assert task.grade(first, "chat", "Answer: B").score == 1
    assert [task.grade(second, "chat", text).score for text in ("Answer: A, C", "Answer: A")] == [1, 0]
    assert [task.grade(third, "chat", text).score for text in ("\\boxed{\\frac{2}{2}}", "\\boxed{2}")] == [1, 0]
    assert "boxed" in task.ask(third, "chat", ROOM).messages[0]["content"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('"q","1","2","3","4","E"\n', "line 1: the answer is 'E'"),
        ('"q","1","2","3","B"\n', "line 1: 5 columns instead of 6"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, row: str, words: str):
    write_mmlu(tmp_path)
    (tmp_path / "mmlu" / "test" / "abstract_algebra_test.csv").write_text(row)
    with pytest.raises(InputError, match=words):
        loaded("mmlu", tmp_path)


def test_a_question_without_its_right_choice_is_named(tmp_path: Path):
    (tmp_path / "ARC-Easy").mkdir()
    record = {"id": "1", "answerKey": "Z", "question": {"stem": "s", "choices": [{"text": "a", "label": "A"}]}}
    (tmp_path / "ARC-Easy" / "ARC-Easy-Test.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match="line 1: the question has no"):
        loaded("arc-easy", tmp_path, shots=0)
