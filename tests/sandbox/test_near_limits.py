"""A run that ends near its limit is judged again with more room, so that a busy machine decides nothing."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from sandbox.opened import SMALL, Opened, call, check, opened, stdio

from codeweft.base import records
from codeweft.sandbox import plain
from codeweft.sandbox.cells import CellDied, Report, Step
from codeweft.sandbox.client import as_request
from codeweft.sandbox.config import Limits, Submission
from codeweft.sandbox.judge import AGAIN, SLACK, Judging
from codeweft.sandbox.outcomes import Outcome
from codeweft.sandbox.tests_sent import TestSet, as_tables

SECOND = Limits(cpu_seconds=1.0, wall_seconds=4.0)


def spent(seconds: float, why: str = "", stdout: bytes = b"yes") -> Report:
    return Report(None if why else 0, why, stdout, b"", seconds, seconds, 1 << 20)


@dataclass
class Scripted:
    """Boxes whose runs are known beforehand; `frames` are what a harness says in each."""

    reports: list[Report | Exception]
    frames: list[dict[str, Any]] = field(default_factory=list)
    tier: str = "namespaces"
    killed: bool = False
    steps: list[Step] = field(default_factory=list)

    def outside(self, word: str) -> str:
        return word

    async def open(self, limits: Limits, tester: bool = False) -> Any:
        return self

    def give_back(self, box: Any) -> None:
        pass

    def prepare(self, installed: Any) -> None:
        pass

    def stop(self, why: str) -> None:
        pass

    async def run(self, step: Step, stdin: bytes = b"", talk: Any = None, inputs: bytes | None = None) -> Report:
        self.steps.append(step)
        report = self.reports.pop(0)
        if isinstance(report, Exception):
            raise report
        if talk is not None:
            bodies = [json.dumps(frame).encode() for frame in self.frames]

            async def receive() -> bytes | None:
                return bodies.pop(0) if bodies else None

            async def send(_: bytes) -> None:
                pass

            await talk(SimpleNamespace(receive=receive, send=send, hang_up=lambda: None, over=False))
        return report

    def judge(self, *tests: records.Test) -> Outcome:
        return asyncio.run(Judging(self).judge(judged(Submission("python", "", tests, "f", limits=SECOND))))


def judged(submission: Submission) -> dict[str, Any]:
    """A submission as the judge has it."""
    return as_request(submission) | {"tests": TestSet(as_tables(submission))}


@pytest.mark.parametrize(
    ("reports", "status", "seconds"),
    [
        ([spent(0.5)], "ok", 0.5),
        ([spent(0.79)], "ok", 0.79),
        ([spent(0.9), spent(0.7)], "ok", 0.7),
        ([spent(0.9), spent(1.3)], "ok", 0.9),
        ([spent(1.1), spent(0.7)], "ok", 0.7),
        ([spent(1.2), spent(1.1)], "time_limit", 1.1),
        ([spent(1.1), spent(1.2)], "time_limit", 1.1),
        ([spent(1.2, "cpu"), spent(0.9)], "ok", 0.9),
        ([spent(1.2, "cpu"), spent(3.9)], "time_limit", 3.9),
        ([spent(1.2, "cpu"), spent(4.1, "cpu")], "time_limit", 4.1),
        ([spent(1.26, "cpu")], "time_limit", 1.26),
        ([spent(1.24, "cpu")], "time_limit", 1.24),
        ([spent(0.9, "wall"), spent(0.9)], "ok", 0.9),
        ([spent(0.09, "wall")], "time_limit", 0.09),
        ([spent(0.2, "wall"), spent(0.5)], "ok", 0.5),
        ([spent(0.9, "memory")], "memory_limit", 0.9),
        ([spent(0.9, "output")], "output_limit", 0.9),
        ([spent(0.9, stdout=b"no"), spent(0.8, stdout=b"no")], "wrong", 0.8),
    ],
)
def test_a_program_near_its_limit_is_run_again(reports: list[Report], status: str, seconds: float):
    scripted = Scripted([*reports])
    outcome = scripted.judge(stdio("", "yes"))
    assert (outcome.status, outcome.cpu_seconds, outcome.passed) == (status, seconds, int(status == "ok"))
    assert not scripted.reports
    allowed = [step.limits for step in scripted.steps]
    assert [limits.cpu_seconds for limits in allowed] == [SLACK, AGAIN][: len(reports)]
    assert [limits.wall for limits in allowed] == [4 * SLACK, 4 * AGAIN][: len(reports)]
    assert all(step.freeze for step in scripted.steps)
    assert [step.fresh for step in scripted.steps] == [False, True][: len(reports)]
    if status == "time_limit":
        assert "5 s" not in outcome.detail.replace("4.1", "")  # of the limits that were asked for


FRAMES = [{"ready": True}, {"value": plain.dumps(1)}, {"value": plain.dumps(2)}]


@pytest.mark.parametrize(
    ("seconds", "status"),
    [
        ([0.5], "ok"),
        ([0.9, 0.7], "ok"),
        ([0.9, 1.5], "ok"),
        ([1.1, 0.9], "ok"),
        ([1.1, 1.1], "time_limit"),
        ([1.2, 3.0], "time_limit"),
    ],
)
def test_functions_near_their_limit_are_called_again(seconds: list[float], status: str):
    scripted = Scripted([spent(each) for each in seconds], FRAMES)
    outcome = scripted.judge(call(expected=1), call(expected=2))
    assert outcome.status == status
    assert outcome.cpu_seconds == seconds[-1]
    assert outcome.passed == 2 if status == "ok" else outcome.passed < 2
    assert [step.limits.cpu_seconds for step in scripted.steps] == [SLACK, AGAIN][: len(seconds)]
    assert not scripted.reports


def test_a_wrong_answer_near_the_limit_is_wrong_at_once():
    scripted = Scripted([spent(0.9)], FRAMES)
    assert scripted.judge(call(expected=1), call(expected=3)).status == "wrong"


def test_an_answers_box_that_is_gone_before_it_began_does_not_hang_the_tests():
    scripted = Scripted([CellDied("gone"), spent(0.1)], [])

    async def impatient() -> None:
        submission = Submission("python", "", (check("assert f() == 1"),), "f", limits=SECOND)
        async with asyncio.timeout(5):
            await Judging(scripted).judge(judged(submission))

    with pytest.raises(CellDied, match="gone"):
        asyncio.run(impatient())


def test_a_testers_box_that_is_gone_is_told_as_such():
    scripted = Scripted([spent(0.1), CellDied("gone")], [{"ready": True}])
    with pytest.raises(CellDied, match="gone"):
        scripted.judge(check("assert f() == 1"))


# --- for real ------------------------------------------------------------------------------------------------------

BURN = "import time\ndef f():\n    while time.process_time() < {}: pass\n    return 1\n"
BURN += "if __name__ == '__main__':\n    print(f())"
TIGHT = replace(SMALL, cpu_seconds=0.3)
EITHER = [pytest.param(stdio("", "1"), id="stdio"), pytest.param(call(expected=1), id="call", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def box() -> Iterator[Opened]:
    with opened(cache=0) as sandbox:
        yield sandbox


@pytest.mark.parametrize("test", EITHER)
def test_a_program_that_uses_nearly_all_its_time_is_right(box: Opened, test: records.Test):
    verdict = box.judge(BURN.format(0.27), test, limits=TIGHT)
    assert verdict.status == "ok", verdict
    assert 0.25 < verdict.cpu_seconds <= 0.3


@pytest.mark.parametrize("test", EITHER)
def test_a_program_that_uses_a_little_more_is_too_slow_though_it_ends(box: Opened, test: records.Test):
    verdict = box.judge(BURN.format(0.33), test, limits=TIGHT)
    assert (verdict.status, verdict.passed) == ("time_limit", 0), verdict
    assert 0.3 < verdict.cpu_seconds < 0.6


def test_a_sleeper_is_stopped_by_the_clock_and_not_run_again(box: Opened):
    before = box.state()["boxes"]
    limits = replace(SMALL, wall_seconds=0.5)
    verdict = box.judge("import time; time.sleep(60)", stdio("", ""), limits=limits)
    assert (verdict.status, verdict.detail) == ("time_limit", "Test 1: It had not ended after 0.5 s.")
    assert box.state()["boxes"] == before + 1


def test_requests_are_plain_dictionaries():
    """What the scripted boxes were given is what a client sends."""
    request = judged(Submission("python", "", (call(1, expected=2),), "f", limits=SECOND))
    assert request["limits"] == asdict(SECOND)
    assert plain.loads(plain.dumps(request)) == request
