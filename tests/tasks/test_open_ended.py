"""Open-ended sets: what is asked, how a conversation goes on, and files that the official programs would read."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tasks.judging import ROOM, loaded

from codeweft.base.errors import InputError
from codeweft.tasks.registry import find
from codeweft.tasks.task import Exported, Turn

RECORDS: dict[str, list[dict[str, Any]]] = {
    "arena-hard": [
        {"question_id": "ab12", "category": "arena-hard-v0.1", "cluster": "Sorting", "turns": [{"content": "Sort!"}]},
        {"question_id": "cd34", "category": "arena-hard-v0.1", "turns": [{"content": "Count!"}]},
    ],
    "alpaca-eval": [
        {"instruction": "Greet.", "dataset": "helpful_base", "output": "Hello.", "generator": "gpt4_turbo"},
        {"instruction": "Rhyme.", "dataset": "koala"},
    ],
    "mt-bench": [
        {"question_id": 81, "category": "writing", "turns": ["Write.", "Shorten."]},
        {"question_id": 101, "category": "math", "turns": ["1+1?", "Doubled?"], "reference": ["2", "4"]},
    ],
    "align-bench": [
        {"question_id": 1, "category": "数学计算", "subcategory": "初等数学", "question": "一加一?", "reference": "二"},
    ],
}  # fmt: skip
FILES = {
    "arena-hard": "arena-hard/question.jsonl", "alpaca-eval": "alpaca-eval/alpaca_eval.json",
    "mt-bench": "mt-bench/question.jsonl", "align-bench": "align-bench/data_release.jsonl",
}  # fmt: skip


GREET, RHYME = (hashlib.blake2b(f'"{text}"'.encode(), digest_size=16).hexdigest()[:16] for text in ("Greet.", "Rhyme."))


def write(folder: Path, name: str, records: list[dict[str, Any]] | None = None) -> None:
    made = RECORDS[name] if records is None else records
    lines = "".join(json.dumps(record) + "\n" for record in made)
    path = folder / FILES[name]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(made) if name == "alpaca-eval" else lines)


def exported(folder: Path, name: str, texts: dict[str, list[tuple[str, ...]]]) -> dict[str, str]:
    write(folder, name)
    samples = [
        Exported(problem, answer, answer[-1], "org/tiny at http://host/v1")
        for problem in loaded(name, folder)
        for answer in texts.get(problem.id, [])
    ]
    export = find(name).export
    assert export is not None
    return export(samples)


@pytest.mark.parametrize("name", RECORDS)
def test_a_request_is_asked_as_it_stands_and_never_shows_a_reference(name: str, tmp_path: Path):
    write(tmp_path, name)
    found = loaded(name, tmp_path)
    first = RECORDS[name][0]
    request = first.get("instruction") or first.get("question") or first["turns"][0]
    request = request["content"] if isinstance(request, dict) else request
    assert find(name).ask(found[0], "chat", ROOM).messages == ({"role": "user", "content": request},)
    assert len(found) == len(RECORDS[name])
    assert all(not problem.tests_hidden for problem in found)


def test_problems_keep_their_names_and_kinds(tmp_path: Path):
    for name in RECORDS:
        write(tmp_path, name)
    found = {name: [(p.id, p.family) for p in loaded(name, tmp_path)] for name in RECORDS}
    assert found == {
        "arena-hard": [("ab12", "Sorting"), ("cd34", "")],
        "alpaca-eval": [(GREET, "helpful_base"), (RHYME, "koala")],
        "mt-bench": [("81", "writing"), ("101", "math")],
        "align-bench": [("1", "数学计算")],
    }


@pytest.mark.parametrize("name", RECORDS)
def test_an_answer_has_no_score_and_nothing_to_run(name: str, tmp_path: Path):
    write(tmp_path, name)
    answer = find(name).grade(loaded(name, tmp_path)[0], "chat", "  An answer.\n")
    assert (answer.score, answer.submission, answer.extracted) == (None, None, "  An answer.\n")


def test_the_second_turn_follows_the_first_answer(tmp_path: Path):
    write(tmp_path, "mt-bench")
    task, problem = find("mt-bench"), loaded("mt-bench", tmp_path)[0]
    first = Turn(task.ask(problem, "chat", ROOM), "A poem.", task.grade(problem, "chat", "A poem."))
    second = task.follow(problem, [first])
    assert second is not None
    assert [(m["role"], m["content"]) for m in second.messages] == [
        ("user", "Write."), ("assistant", "A poem."), ("user", "Shorten."),
    ]  # fmt: skip
    assert task.follow(problem, [first, Turn(second, "Poem.", task.grade(problem, "chat", "Poem."))]) is None


def test_references_beside_the_questions_come_before_those_in_them(tmp_path: Path):
    write(tmp_path, "mt-bench")
    assert [p.facts["references"] for p in loaded("mt-bench", tmp_path)] == [[], ["2", "4"]]
    folder = tmp_path / "mt-bench" / "reference_answer"
    folder.mkdir()
    line = {"question_id": 101, "choices": [{"index": 0, "turns": ["two", "four"]}]}
    (folder / "gpt-4.jsonl").write_text(json.dumps(line) + "\n")
    assert [p.facts["references"] for p in loaded("mt-bench", tmp_path)] == [[], ["two", "four"]]


def test_an_instruction_that_comes_twice_is_two_problems(tmp_path: Path):
    write(tmp_path, "alpaca-eval", [RECORDS["alpaca-eval"][0]] * 2)
    assert [p.id for p in loaded("alpaca-eval", tmp_path)] == [GREET, f"{GREET}-2"]


def test_mt_bench_answers_are_lines_that_fastchat_reads(tmp_path: Path):
    """FastChat takes answer["choices"][0]["turns"][n] of the file that is named like the model."""
    files = exported(tmp_path, "mt-bench", {"81": [("a", "b"), ("c", "d")], "101": [("2", "4")]})
    assert list(files) == ["org-tiny-at-http-host-v1.jsonl"]
    lines = [json.loads(line) for line in files.popitem()[1].splitlines()]
    assert [line["question_id"] for line in lines] == [81, 101]
    assert [choice["turns"] for choice in lines[0]["choices"]] == [["a", "b"], ["c", "d"]]
    assert {"answer_id", "model_id", "tstamp"} <= lines[0].keys()
    assert lines[0]["answer_id"] != lines[1]["answer_id"]


def test_arena_hard_answers_are_turns_with_a_content(tmp_path: Path):
    [content] = exported(tmp_path, "arena-hard", {"ab12": [("sorted",)]}).values()
    [line] = [json.loads(line) for line in content.splitlines()]
    assert (line["question_id"], line["choices"]) == ("ab12", [{"index": 0, "turns": [{"content": "sorted"}]}])


def test_alpaca_outputs_are_the_models_and_never_the_baselines(tmp_path: Path):
    [content] = exported(tmp_path, "alpaca-eval", {GREET: [("Hi.",)], RHYME: [("Time, dime.",)]}).values()
    name = "org/tiny at http://host/v1"
    assert json.loads(content) == [
        {"instruction": "Greet.", "output": "Hi.", "generator": name, "dataset": "helpful_base"},
        {"instruction": "Rhyme.", "output": "Time, dime.", "generator": name, "dataset": "koala"},
    ]


def test_align_bench_answers_keep_the_questions_record(tmp_path: Path):
    [content] = exported(tmp_path, "align-bench", {"1": [("二",)]}).values()
    line = json.loads(content)
    assert RECORDS["align-bench"][0].items() <= line.items()
    assert line["answer"] == "二"
    assert line["answer_id"] == f"1_{line['model_id']}"


def test_equal_answers_are_equal_files(tmp_path: Path):
    texts: dict[str, list[tuple[str, ...]]] = {"81": [("a", "b")]}
    assert exported(tmp_path, "mt-bench", texts) == exported(tmp_path, "mt-bench", texts)
    assert exported(tmp_path, "mt-bench", texts) != exported(tmp_path, "mt-bench", {"81": [("a", "c")]})


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("arena-hard", {"question_id": "a", "turns": []}),
        ("arena-hard", {"question_id": "a", "turns": [{"content": "One."}, {"content": "Two."}]}),
        ("mt-bench", {"question_id": 1, "category": "math", "turns": ["One.", 2]}),
        ("mt-bench", {"question_id": 1, "category": "math", "turns": ["One."], "reference": "text"}),
        ("alpaca-eval", {"instruction": "  "}),
        ("align-bench", {"question_id": 1, "category": "x", "question": "一?"}),
    ],
)
def test_a_malformed_record_is_told_with_its_place(name: str, record: dict[str, Any], tmp_path: Path):
    write(tmp_path, name, [RECORDS[name][0], record])
    with pytest.raises(InputError, match=r"(line|entry) 2: "):
        loaded(name, tmp_path)
