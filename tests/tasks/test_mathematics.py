"""Mathematics: the official references are right, other numbers wrong, and bad files are named by line."""

import json
from pathlib import Path

import pytest

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.registry import find
from codeweft.tasks.task import Room

ROOM = Room(4096, len)


def loaded(name: str, folder: Path, options: TaskOptions | None = None) -> list[Problem]:
    return list(find(name).load(Folder(folder), options or TaskOptions()))


@pytest.mark.parametrize(("name", "count"), [("gsm8k", 1319), ("svamp", 1000)])
def test_official_answers_are_right_and_others_wrong(shared_data: Path, name: str, count: int):
    task, problems = find(name), loaded(name, shared_data / "eval")
    assert len({problem.id for problem in problems}) == count
    for problem in problems:
        assert task.grade(problem, "chat", f"So it is \\boxed{{{problem.reference}}}.").score == 1
        assert task.grade(problem, "base", f"thus {problem.reference}. The answer is {problem.reference}.").score == 1
        assert task.grade(problem, "chat", f"\\boxed{{{problem.reference}1}}").score == 0
        assert task.grade(problem, "chat", "").score == 0


def test_the_worked_answers_of_gsm8k_are_graded_right(shared_data: Path):
    """The last line of an official solution is `#### N`, which must be found in the whole solution."""
    lines = (shared_data / "eval" / "gsm8k" / "test.jsonl").read_text().splitlines()
    task, problems = find("gsm8k"), loaded("gsm8k", shared_data / "eval")
    for line, problem in zip(lines, problems, strict=True):
        assert task.grade(problem, "base", json.loads(line)["answer"]).score == 1


def test_a_base_model_gets_eight_shots_of_the_training_file(shared_data: Path):
    problem = loaded("gsm8k", shared_data / "eval")[0]
    ask = find("gsm8k").ask(problem, "base", ROOM)
    assert ask.text.count("Q: ") == 9
    assert ask.text.count("The answer is") == 8
    assert "<<" not in ask.text
    assert ask.text.endswith(f"Q: {problem.prompt}\nA: Let's think step by step.")
    bare = loaded("gsm8k", shared_data / "eval", TaskOptions(shots=0))[0]
    assert find("gsm8k").ask(bare, "base", ROOM).text.count("Q: ") == 1


def test_the_chat_prompt_is_the_papers(shared_data: Path):
    problem = loaded("gsm8k", shared_data / "eval")[0]
    [message] = find("gsm8k").ask(problem, "chat", ROOM).messages
    wanted = "\nPlease reason step by step, and put your final answer within \\boxed{}."
    assert message["content"] == problem.prompt + wanted
    chinese = Problem("1", "aime", prompt="小明有三个苹果，又买了两个，一共有几个？", facts={"shots": ""})
    assert find("aime").ask(chinese, "chat", ROOM).messages[0]["content"].endswith("放置于\\boxed{}中。")


def test_math_reads_folders_and_lines_and_its_own_shots_are_right(tmp_path: Path):
    record = {
        "problem": "What is $1+1$?", "solution": "It is $\\boxed{2}$.", "level": "Level 1", "type": "Prealgebra",
    }  # fmt: skip
    (tmp_path / "MATH" / "test" / "prealgebra").mkdir(parents=True)
    (tmp_path / "MATH" / "test" / "prealgebra" / "7.json").write_text(json.dumps(record, indent=2))
    [problem] = loaded("math", tmp_path)
    assert (problem.id, problem.family, problem.difficulty, problem.reference) == (
        "prealgebra/7", "Prealgebra", "1", "2",
    )  # fmt: skip
    shots = find("math").ask(problem, "base", ROOM).text.split("\n\nProblem:")[:4]
    assert len(shots) == 4
    for shot in shots:  # each worked example's final answer is what its solution comes to
        assert (
            find("math")
            .grade(
                Problem("", "math", reference=shot.rsplit("The final answer is $", 1)[1].split("$. I hope")[0]),
                "base",
                shot,
            )
            .score
        )
    (tmp_path / "math").mkdir()
    (tmp_path / "math" / "test.jsonl").write_text(json.dumps(record | {"unique_id": "a"}) + "\n")
    assert loaded("math", tmp_path)[0].id == "a"


@pytest.mark.parametrize(
    "record",
    [{"problem": "1+1?", "answer": "2"}, {"question": "1+1?", "final_answer": 2}, {"Problem": "1+1?", "Answer": "$2$"}],
)
def test_own_files_may_spell_their_fields_in_the_usual_ways(tmp_path: Path, record: dict[str, str]):
    (tmp_path / "aime.jsonl").write_text(json.dumps(record) + "\n")
    [problem] = loaded("aime", tmp_path)
    assert find("aime").grade(problem, "chat", "\\boxed{2}").score == 1
    assert find("aime").grade(problem, "chat", "\\boxed{3}").score == 0


@pytest.mark.parametrize(
    ("name", "file", "content", "words"),
    [
        ("gsm8k", "gsm8k/test.jsonl", '{"question": "q", "answer": "no mark"}\n', "line 1: the answer has no ####"),
        ("gsm8k", "gsm8k/test.jsonl", '{"question": "q"}\n', "line 1: the field answer is missing"),
        ("gsm8k", "gsm8k/test.jsonl", '{"question": "q", "answer": "#### 1"}\n{oops\n', "line 2: no JSON"),
        ("gsm8k", "gsm8k/test.jsonl", "3\n", "line 1: not a JSON object"),
        ("svamp", "SVAMP.json", '[{"ID": "1", "Body": "b", "Question": "q", "Answer": "x"}]', "entry 1: Answer is no"),
        ("math", "math/test.jsonl", '{"problem": "p", "solution": "no box"}\n', "line 1: there is neither"),
        ("aime", "aime.jsonl", '{"answer": 3}\n', "line 1: the field problem is missing"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, name: str, file: str, content: str, words: str):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    (tmp_path / "gsm8k").mkdir(exist_ok=True)
    (tmp_path / "gsm8k" / "train.jsonl").write_text("")
    with pytest.raises(InputError, match=words):
        loaded(name, tmp_path)


def test_a_file_that_is_not_there_is_asked_for(tmp_path: Path):
    with pytest.raises(InputError, match=r"docs/evaluation\.md.*--eval-data"):
        loaded("aime", tmp_path)
