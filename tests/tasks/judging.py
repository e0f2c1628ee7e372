"""What the tests of tasks share: load a task's problems, judge answers for real."""

from collections.abc import Sequence
from pathlib import Path

from codeweft.base.records import Problem, Verdict
from codeweft.sandbox.client import judge_all
from codeweft.sandbox.config import SandboxConfig
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.registry import find
from codeweft.tasks.task import Room, Style

ROOM = Room(1 << 16, lambda text: len(text) // 3 + 1)


def loaded(name: str, folder: Path, options: TaskOptions | None = None) -> list[Problem]:
    """All problems of a task."""
    return list(find(name).load(Folder(folder), options or TaskOptions()))


def verdicts(name: str, style: Style, answers: Sequence[tuple[Problem, str]]) -> list[Verdict]:
    """The verdicts on some answers; all of them must be for the sandbox to judge."""
    submissions = [find(name).grade(problem, style, text).submission for problem, text in answers]
    assert all(submissions), "an answer is not for the sandbox"
    return judge_all(SandboxConfig(), [each for each in submissions if each is not None])


def statuses(name: str, style: Style, answers: Sequence[tuple[Problem, str]]) -> list[str]:
    """How each answer fared."""
    return [verdict.status for verdict in verdicts(name, style, answers)]
