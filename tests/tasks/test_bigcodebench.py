"""BigCodeBench-Hard: what can be judged here is, what cannot is told apart from a wrong answer."""

from collections import Counter
from pathlib import Path

import pytest
from tasks.judging import ROOM, loaded, verdicts

from codeweft.base.records import Problem
from codeweft.tasks import bigcodebench
from codeweft.tasks.registry import find

NAME = "bigcodebench-hard"


@pytest.fixture(scope="module")
def problems(shared_data: Path) -> list[Problem]:
    return loaded(NAME, shared_data / "eval")


def continued(problem: Problem) -> str:
    return problem.reference.removeprefix(problem.prompt)


def judged(problems: list[Problem]) -> list[Problem]:
    """Those that this machine can judge."""
    return [problem for problem in problems if bigcodebench.grade(problem, "base", "").submission is not None]


def test_a_task_that_needs_a_network_has_no_score(problems: list[Problem]):
    wanting = {problem.id for problem in problems if problem.id in bigcodebench.NEED_NETWORK}
    assert wanting == set(bigcodebench.NEED_NETWORK)
    for problem in problems:
        if problem.id in wanting:
            answer = bigcodebench.grade(problem, "chat", problem.reference)
            assert (answer.score, answer.submission) == (None, None)
            assert answer.detail.startswith("needs ")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, problems: list[Problem]):
    [problem] = [each for each in problems if each.id == "BigCodeBench/82"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name.startswith("flask") else name)
    detail = bigcodebench.grade(problem, "chat", "").detail
    assert detail == "needs flask, flask_login, flask_wtf, not installed here"  # wtforms and werkzeug are taken to be


def test_chat_models_are_asked_the_instruction_and_base_models_the_prompt(problems: list[Problem]):
    task, problem = find(NAME), problems[0]
    [message] = task.ask(problem, "chat", ROOM).messages
    assert message["content"].endswith(problem.facts["instruct"].strip() + "\n")
    assert task.ask(problem, "base", ROOM).text == problem.prompt


@pytest.mark.slow
def test_every_canonical_solution_that_can_be_judged_passes_in_both_styles(problems: list[Problem]):
    chosen = judged(problems)
    for style in ("base", "chat"):
        answers = [
            (each, continued(each) if style == "base" else f"```python\n{each.reference}\n```") for each in chosen
        ]
        found = verdicts(NAME, style, answers)
        assert {each.id: v.detail for each, v in zip(chosen, found, strict=True) if v.status != "ok"} == {}


@pytest.mark.slow
def test_no_empty_answer_passes(problems: list[Problem]):
    chosen = judged(problems)
    found = verdicts(NAME, "chat", [(each, "") for each in chosen])
    assert "ok" not in Counter(verdict.status for verdict in found)
