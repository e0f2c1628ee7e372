"""Tasks, a model and a sandbox that do what a test tells them, for the tests of evaluation."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from codeweft.base.records import Problem, Test, Verdict
from codeweft.evaluate.models import Drawing, Said, Wanted
from codeweft.sandbox.config import Submission
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task, Turn


class NoFiles:
    """Files for tasks that need none."""

    def path(self, data: Data) -> Any:
        raise AssertionError("no file is needed")


def problems(count: int) -> list[Problem]:
    """`add_K(n)` returns n + K; families and languages alternate."""
    return [
        Problem(
            id=f"add/{number}", task="adding", family="even" if number % 2 == 0 else "odd", language="python",
            prompt=f"def add_{number}(n):\n", entry_point=f"add_{number}",
            tests_hidden=tuple(Test("call", args=(n,), expected=n + number) for n in (0, 5)),
            reference=f"def add_{number}(n):\n    return n + {number}\n",
        )
        for number in range(count)
    ]  # fmt: skip


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    if style == "chat":
        return Ask(messages=({"role": "user", "content": problem.prompt},), max_tokens=40)
    return Ask(problem.prompt, choices=(" yes", " no") if style == "likelihood" else (), max_tokens=40)


def judged(problem: Problem, style: Style, text: str) -> Answer:
    """The text is the body of the function."""
    code = problem.prompt + text
    return Answer(code, submission=Submission("python", code, problem.tests_hidden, problem.entry_point))


def compared(problem: Problem, style: Style, text: str) -> Answer:
    """The text is right when it says the problem's name."""
    return Answer(text, float(text == problem.id), vote=text, metrics={"length": float(len(text))})


def task(grade: Callable[[Problem, Style, str], Answer] = judged, count: int = 6, **changes: Any) -> Task:
    def load(files: Files, options: TaskOptions) -> Iterator[Problem]:
        yield from problems(count)

    styles: tuple[Style, ...] = ("base", "chat", "infill", "likelihood")
    made = Task("adding", "Adding", "code generation", styles, (), "Made up.", load, ask, grade)
    return replace(made, **changes)


def right(problem: Problem) -> str:
    """The body that passes."""
    return f"    return n + {problem.id.split('/')[1]}\n"


@dataclass
class ScriptedModel:
    """Says `texts[problem index]` (by the order in which asks come) and counts how often it was asked."""

    text: Callable[[Wanted], str]
    name: str = "scripted"
    digest: str = "scripted"
    kind: Any = "base"
    room: Room = field(default_factory=lambda: Room(1000, len))
    asked: list[int] = field(default_factory=list)
    stop_after: int | None = None
    wait: Callable[[int], Any] | None = None

    def unable(self, style: Style) -> str:
        return ""

    async def say(self, wanted: Sequence[Wanted], done: frozenset[int], drawing: Drawing) -> AsyncIterator[Said]:
        for each in wanted:
            if each.number in done:
                continue
            if self.stop_after is not None and len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            if self.wait is not None:
                await self.wait(len(self.asked))
            self.asked.append(each.number)
            yield Said(each.number, self.text(each), (1, 2), -0.5, "stop", "digest")
            await asyncio.sleep(0)


@dataclass
class ScriptedSandbox:
    """Passes code whose function returns the right sum, without running it; statuses may be scripted."""

    statuses: list[str] = field(default_factory=list)
    judged: int = 0
    tier: Any = "namespaces"
    facts: dict[str, Any] = field(default_factory=dict)
    lost: str = ""
    on_judge: Callable[[], None] = lambda: None

    async def judge(self, submission: Submission, deadline: float | None = None) -> Verdict:
        self.judged += 1
        number = submission.entry_point.removeprefix("add_")
        status = self.statuses.pop(0) if self.statuses else ""
        status = status or ("ok" if f"return n + {number}\n" in submission.code else "wrong")
        self.on_judge()
        return Verdict(status, int(status == "ok") * 2, 2, 0.01, 1000, "namespaces", "split", "")  # ty: ignore[invalid-argument-type]

    async def run(self, program: Any, deadline: float | None = None) -> Any:
        raise AssertionError("nothing is run here")

    async def judge_all(self, submissions: Sequence[Submission]) -> list[Verdict]:
        return [await self.judge(each) for each in submissions]


def two_tries(problem: Problem, turns: Sequence[Turn]) -> Ask | None:
    """A second turn after a failure."""
    if len(turns) == 2 or (turns[-1].verdict and turns[-1].verdict.status == "ok"):
        return None
    return Ask(problem.prompt + "# again\n", max_tokens=40)
