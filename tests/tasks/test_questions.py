"""Short answers: made-up files in each official layout are read, asked, graded, and their mistakes named."""

import json
from pathlib import Path

import pytest

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.questions import normal
from codeweft.tasks.registry import find
from codeweft.tasks.task import Room

ROOM = Room(4096, len)


def loaded(name: str, folder: Path, **options: int) -> list[Problem]:
    return list(find(name).load(Folder(folder), TaskOptions(**options)))


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_bbh_shows_three_thoughts_and_reads_the_last_answer(tmp_path: Path):
    write(tmp_path / "bbh" / "snarks.json", {"examples": [{"input": "Which is (A) or (B)?", "target": "(B)"}]})
    shots = "".join(f"Q: q{n}\nA: Let's think step by step.\nSo the answer is (A).\n\n" for n in range(5))
    write(tmp_path / "cot-prompts" / "snarks.txt", f"A notice\n-----\nFind the sarcasm.\n\n{shots}")
    [problem] = loaded("bbh", tmp_path)
    ask = find("bbh").ask(problem, "base", ROOM)
    assert ask.text.startswith("Find the sarcasm.\n\nQ: q0\n")
    assert ask.text.count("Q: ") == 4
    assert "notice" not in ask.text
    grades = [find("bbh").grade(problem, "base", text).score for text in (
        "A is plain. So the answer is (B).", "So the answer is B", "the answer is (A). No, the answer is (B).",
        "So the answer is (A).", "", "I do not know",
    )]  # fmt: skip
    assert grades == [1, 1, 1, 0, 0, 0]


def test_bbh_asks_for_its_prompts_or_goes_without(tmp_path: Path):
    write(tmp_path / "bbh" / "snarks.json", {"examples": [{"input": "i", "target": "t"}]})
    with pytest.raises(InputError, match=r"options\.shots=0"):
        loaded("bbh", tmp_path)
    assert loaded("bbh", tmp_path, shots=0)[0].facts["shots"] == ""


@pytest.mark.parametrize("name", ["triviaqa", "natural-questions"])
def test_open_questions_accept_any_alias_after_normalisation(tmp_path: Path, name: str):
    for part in ("dev", "train"):
        entry = {"Question": f"Who, {part}?", "Answer": {"Value": "The Beatles", "Aliases": ["Beatles (band)"]}}
        write(tmp_path / "triviaqa" / f"web-{part}.json", {"Data": [entry]})
        line = {"question": f"Who, {part}?", "answer": ["The Beatles", "Beatles (band)"]}
        write(tmp_path / "natural-questions" / f"NQ-open.{part}.jsonl", json.dumps(line) + "\n")
    [problem] = loaded(name, tmp_path)
    task = find(name)
    wanted = "Question: Who, train?\nAnswer: The Beatles\n\nQuestion: Who, dev?\nAnswer:"
    assert task.ask(problem, "base", ROOM).text == wanted
    right = (" the Beatles!", "BEATLES", "Beatles band", "Answer: The Beatles")
    wrong = ("Beatle", "The Beatles and others", "", "the")
    assert [task.grade(problem, "base", text).score for text in right + wrong] == [1] * 4 + [0] * 4


def test_cluewsc_reads_yes_and_no_in_chinese(tmp_path: Path):
    record = {"text": "小明看见小红，她笑了。", "target": {"span1_text": "小红", "span2_text": "她"}, "label": "true"}
    write(tmp_path / "cluewsc" / "train.json", json.dumps(record) + "\n")
    write(tmp_path / "cluewsc" / "dev.json", json.dumps(record) + "\n" + json.dumps(record | {"label": "false"}) + "\n")
    yes, no = loaded("cluewsc", tmp_path)
    task = find("cluewsc")
    assert task.ask(yes, "base", ROOM).text.count("指的是") == 2
    assert [task.grade(yes, "base", text).score for text in ("是", "是的", "不是", "否", "")] == [1, 1, 0, 0, 0]
    assert [task.grade(no, "likelihood", number).score for number in "01"] == [0, 1]


def test_normalisation_drops_case_articles_and_signs():
    assert normal("An  apple, a day!") == "apple day"
    assert normal("the") == ""


@pytest.mark.parametrize(
    ("name", "file", "content", "words"),
    [
        ("bbh", "bbh/x.json", {"examples": [{"input": "i"}]}, "example 1: input or target"),
        ("bbh", "bbh/x.json", {"instances": []}, "field examples is missing"),
        ("triviaqa", "triviaqa/web-dev.json", {"Data": [{"Question": "q"}]}, "entry 1: Question or Answer"),
        ("natural-questions", "NQ-open.dev.jsonl", '{"question": "q", "answer": "a"}', "line 1: answer"),
        ("cluewsc", "cluewsc/dev.json", '{"text": "t", "target": {}, "label": "true"}', "line 1: target has no two"),
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, name: str, file: str, content: object, words: str):
    write(tmp_path / file, content)
    with pytest.raises(InputError, match=words):
        loaded(name, tmp_path, shots=0)
