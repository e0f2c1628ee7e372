"""HumanEval, MBPP, their plus versions and BigCodeBench: the authors' solutions pass, and nothing that should not."""

import ast
import gzip
import json
from pathlib import Path

import pytest
from tasks.judging import ROOM, loaded, statuses, verdicts

from codeweft.base.errors import InputError, UserError
from codeweft.base.records import Problem
from codeweft.tasks import evalplus
from codeweft.tasks.registry import find

SETS = ("human-eval", "human-eval-plus", "mbpp", "mbpp-plus")
COUNTS = {"human-eval": 164, "human-eval-plus": 164, "mbpp": 500, "mbpp-plus": 378, "bigcodebench-hard": 148}


@pytest.fixture(scope="module")
def sets(shared_data: Path) -> dict[str, list[Problem]]:
    return {name: loaded(name, shared_data / "eval") for name in ("human-eval", "mbpp", "bigcodebench-hard")}


def some(problems: list[Problem], count: int = 5) -> list[Problem]:
    return problems[:: len(problems) // count]


def continued(problem: Problem) -> str:
    """The canonical solution as a base model would go on."""
    return problem.reference.removeprefix(problem.prompt) if problem.task.startswith("human") else problem.reference


def fenced(problem: Problem) -> str:
    return f"Here is my solution.\n\n```python\n{problem.reference}\n```\nIt does what was asked."


def unreturned(problem: Problem) -> str:
    """The reference with every returned value replaced by one that nothing asks for."""
    tree = ast.parse(problem.reference)
    for node in ast.walk(tree):
        if isinstance(node, ast.Return):
            node.value = ast.Constant("wrong")
    return f"```python\n{ast.unparse(tree)}\n```"


@pytest.mark.parametrize("name", ["human-eval", "mbpp"])
def test_canonical_solutions_pass_as_continuations_and_as_chat_answers(sets: dict[str, list[Problem]], name: str):
    assert len(sets[name]) == COUNTS[name]
    chosen = some(sets[name])
    assert set(statuses(name, "base", [(problem, continued(problem)) for problem in chosen])) == {"ok"}
    assert set(statuses(name, "chat", [(problem, fenced(problem)) for problem in chosen])) == {"ok"}


@pytest.mark.parametrize("name", ["human-eval", "mbpp"])
def test_empty_copied_and_wrong_answers_fail(sets: dict[str, list[Problem]], name: str):
    chosen = some(sets[name])
    for style in ("base", "chat"):
        assert "ok" not in statuses(name, style, [(problem, "") for problem in chosen])
        assert "ok" not in statuses(name, style, [(problem, problem.prompt) for problem in chosen])
    assert "ok" not in statuses(name, "chat", [(problem, unreturned(problem)) for problem in chosen])


def test_helpers_of_a_prompt_are_there_for_its_tests(sets: dict[str, list[Problem]]):
    problems = [sets["human-eval"][number] for number in (32, 38, 50)]
    assert set(statuses("human-eval", "chat", [(problem, fenced(problem)) for problem in problems])) == {"ok"}


def test_the_papers_prompt_is_kept_to_the_letter(sets: dict[str, list[Problem]]):
    problem = sets["human-eval"][0]
    [message] = find("human-eval").ask(problem, "chat", ROOM).messages
    assert message["content"] == (
        "Please complete the python function below. The final complete version of your function must be returned "
        f"within a code block. Here is the unfinished function:\n ```python\n{problem.prompt}\n\n"
    )


def test_mbpp_shows_its_three_problems_first(sets: dict[str, list[Problem]]):
    ask = find("mbpp").ask(sets["mbpp"][0], "base", ROOM)
    assert ask.text.count("[BEGIN]") == 4
    assert ask.text.count("[DONE]") == 3
    assert "similar elements" in ask.text.split("[DONE]")[0]
    assert ask.text.endswith("[BEGIN]")
    assert "\r" not in ask.text
    assert ask.stop == ("[DONE]",)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_every_canonical_solution_passes(shared_data: Path, name: str):
    problems = loaded(name, shared_data / "eval")
    assert len(problems) == COUNTS[name]
    found = verdicts(name, "chat", [(problem, fenced(problem)) for problem in problems])
    assert {problem.id: v.detail for problem, v in zip(problems, found, strict=True) if v.status != "ok"} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_no_empty_copied_or_wrong_answer_passes(shared_data: Path, name: str):
    problems = loaded(name, shared_data / "eval")
    for answers in (
        [(problem, "") for problem in problems],
        [(problem, f"```python\n{problem.prompt}\n```") for problem in problems],
        [(problem, unreturned(problem)) for problem in problems],
    ):
        found = statuses(name, "chat", answers)
        assert [problem.id for (problem, _), status in zip(answers, found, strict=True) if status == "ok"] == []


# --- EvalPlus ------------------------------------------------------------------------------------------------------


def small(shared_data: Path, folder: Path, name: str, chosen: tuple[str, ...]) -> Path:
    """A folder with a few records of an EvalPlus file, their inputs cut short."""
    source = {"human-eval-plus": "HumanEvalPlus", "mbpp-plus": "MbppPlus"}[name]
    lines = gzip.decompress((shared_data / "eval" / name / f"{source}.jsonl.gz").read_bytes()).decode().splitlines()
    records = [json.loads(line) for line in lines]
    kept = [r | {"plus_input": r["plus_input"][:20]} for r in records if r["task_id"] in chosen]
    folder.mkdir(exist_ok=True)
    (folder / f"{source}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))
    return folder


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("human-eval-plus", ("HumanEval/0", "HumanEval/2", "HumanEval/32", "HumanEval/130")),
        ("mbpp-plus", ("Mbpp/2", "Mbpp/63", "Mbpp/113", "Mbpp/252", "Mbpp/722")),
    ],
)
def test_plus_problems_are_judged_by_what_their_canonical_solution_returns(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, chosen: tuple[str, ...]
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = small(shared_data, tmp_path / "data", name, chosen)
    problems = loaded(name, folder)
    assert [problem.id for problem in problems] == list(chosen)
    assert set(statuses(name, "chat", [(problem, fenced(problem)) for problem in problems])) == {"ok"}
    assert "ok" not in statuses(name, "chat", [(problem, unreturned(problem)) for problem in problems])
    kept = list(evalplus.cache_folder().iterdir())
    assert len(kept) == len([each for each in chosen if each != "HumanEval/32"])
    monkeypatch.setattr(evalplus, "open_sandbox", None)  # what was kept is taken, nothing runs again
    assert [problem.tests_hidden for problem in loaded(name, folder)] == [problem.tests_hidden for problem in problems]


def test_a_hostile_canonical_solution_does_not_run_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record = {
        "task_id": "Mbpp/9999", "prompt": '"""p"""', "entry_point": "f", "base_input": [[1]], "plus_input": [],
        "atol": 0,
        "canonical_solution": f"open({str(tmp_path / 'seen')!r}, 'w').write('x')\ndef f(x):\n    return x\n",
    }  # fmt: skip
    (tmp_path / "MbppPlus.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(UserError, match="canonical solution of f does not run"):
        loaded("mbpp-plus", tmp_path)
    assert not (tmp_path / "seen").exists()


# --- BigCodeBench --------------------------------------------------------------------------------------------------


def test_tasks_without_their_libraries_are_told_apart_from_failures(sets: dict[str, list[Problem]]):
    task = find("bigcodebench-hard")
    answers = {problem.id: task.grade(problem, "base", continued(problem)) for problem in sets["bigcodebench-hard"]}
    assert len(answers) == COUNTS["bigcodebench-hard"]
    for answer in answers.values():
        assert (answer.submission is None) == answer.detail.startswith("needs ")
        assert answer.score is None
    assert any(answer.submission for answer in answers.values())


def runnable(problems: list[Problem]) -> list[Problem]:
    task = find("bigcodebench-hard")
    return [problem for problem in problems if task.grade(problem, "base", "").submission is not None]


def test_a_unit_test_passes_the_canonical_solution_and_fails_an_empty_one(sets: dict[str, list[Problem]]):
    chosen = runnable(sets["bigcodebench-hard"])[:2]
    solved = [(problem, problem.reference.removeprefix(problem.prompt)) for problem in chosen]
    found = verdicts("bigcodebench-hard", "base", solved)
    assert [(verdict.status, verdict.mode) for verdict in found] == [("ok", "compat")] * len(chosen)
    assert "ok" not in statuses("bigcodebench-hard", "base", [(problem, "    pass\n") for problem in chosen])


@pytest.mark.parametrize(
    ("name", "file", "line", "words"),
    [
        ("human-eval", "HumanEval.jsonl", {"task_id": "a", "prompt": "p"}, "line 1: the field entry_point"),
        ("mbpp", "mbpp.jsonl", {"task_id": 1, "text": "t"}, "line 1: the field code"),
        ("mbpp-plus", "MbppPlus.jsonl", {"task_id": "Mbpp/1"}, "line 1: the field prompt"),
        ("bigcodebench-hard", "bigcodebench_hard.json", {"x": {"task_id": "x"}}, "the field complete_prompt"),
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, name: str, file: str, line: dict[str, object], words: str):
    (tmp_path / file).write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=words):
        loaded(name, tmp_path)
