"""The judge: what a verdict is worth, what is tried again, who is asked, and that nothing stays behind."""

import asyncio
import dataclasses
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tiny_judge import problem

from codeweft.base.errors import UserError
from codeweft.base.records import Problem, Test, Verdict
from codeweft.rl import judging
from codeweft.rl.judging import Judge, Outcome
from codeweft.sandbox.config import SandboxConfig, Submission

VISIBLE = tuple(Test("call", args=(n,), expected=n + 1) for n in range(2))
HIDDEN = tuple(Test("call", args=(n,), expected=n + 1) for n in (5, 6, -7, 8))
KATA = dataclasses.replace(problem("kata"), tests_visible=VISIBLE, tests_hidden=HIDDEN)
SUM = Problem("sum", "gsm8k", prompt="What is 2 and 3?", reference="5", facts={"shots": ""})
RIGHT = "```python\ndef f(n):\n    return n + 1\n```"


class ScriptedSandbox:
    """Gives one scripted status after the other; None waits for ever."""

    tier = "namespaces"

    def __init__(self, *statuses: Any) -> None:
        self.statuses, self.asked, self.closed = list(statuses), [], False

    async def judge(self, submission: Submission, deadline: float | None = None) -> Verdict:
        self.asked.append(submission)
        status = self.statuses.pop(0)
        if status is None:
            await asyncio.Event().wait()
        if isinstance(status, Exception):
            raise status
        passed, total = (len(submission.tests) if status == "ok" else 1), len(submission.tests)
        return Verdict(status, passed, total, 0.0, 0, "namespaces", "split")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedSandbox]:
    """Puts a scripted sandbox in the place of the real one."""

    def placed(*statuses: Any, opening: Callable[[], Any] | None = None) -> ScriptedSandbox:
        sandbox = ScriptedSandbox(*statuses)

        @asynccontextmanager
        async def opened(_: SandboxConfig) -> AsyncIterator[ScriptedSandbox]:
            try:
                if opening is not None:
                    await opening()
                yield sandbox
            finally:
                sandbox.closed = True

        monkeypatch.setattr(judging, "open_sandbox", opened)
        return sandbox

    return placed


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "judge"]


def told(outcome: Outcome) -> tuple[str, float]:
    return outcome.verdict.status, outcome.share


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_harness_error_is_tried_again(failures: int, script: Callable[..., ScriptedSandbox]):
    sandbox = script(*["harness_error"] * failures, "wrong")
    with Judge(SandboxConfig(), "reward") as judge:
        assert told(judge.judge(KATA, RIGHT, "visible").result()) == ("wrong", 0.5)
    assert len(sandbox.asked) == failures + 1
    assert sandbox.closed


def test_an_answer_that_never_gets_a_verdict_has_no_reward(script: Callable[..., ScriptedSandbox]):
    sandbox = script(*["harness_error"] * 3, "ok")
    with Judge(SandboxConfig(), "reward") as judge:
        outcome = judge.judge(KATA, RIGHT, "visible").result()
        assert outcome.verdict.status == "harness_error"
        assert math.isnan(outcome.share)
        assert math.isnan(outcome.passed)
    assert len(sandbox.asked) == 3


@pytest.mark.parametrize("status", ["refused", "unsupported"])
def test_what_says_nothing_of_the_answer_is_no_reward(status: str, script: Callable[..., ScriptedSandbox]):
    script(status)
    with Judge(SandboxConfig(), "reward") as judge:
        assert math.isnan(judge.judge(KATA, RIGHT, "hidden").result().share)


@pytest.mark.parametrize(("shares", "early"), [(True, False), (False, True)])
def test_all_tests_run_where_the_share_counts(shares: bool, early: bool, script: Callable[..., ScriptedSandbox]):
    sandbox = script("wrong")
    with Judge(SandboxConfig(), "grpo", shares=shares) as judge:
        assert judge.judge(KATA, RIGHT, "all").result().passed == 0.0
    [asked] = sandbox.asked
    assert asked.stop_early == early
    assert asked.tests == VISIBLE + HIDDEN


@pytest.mark.parametrize(("text", "right"), [("so it is $\\boxed{5.0}$", 1.0), ("The answer is 6.", 0.0), ("", 0.0)])
def test_mathematics_is_compared_with_its_result_and_nothing_runs(
    text: str, right: float, script: Callable[..., ScriptedSandbox]
):
    sandbox = script()
    with Judge(SandboxConfig(), "reward") as judge:
        outcome = judge.judge(SUM, text, "visible").result()
    assert told(outcome) == ("ok" if right else "wrong", right)
    assert (outcome.passed, outcome.verdict.total) == (right, 1)
    assert not sandbox.asked


def test_without_tests_of_a_kind_nothing_runs_and_nobody_can_tell(script: Callable[..., ScriptedSandbox]):
    sandbox = script()
    with Judge(SandboxConfig(), "reward") as judge:
        outcome = judge.judge(dataclasses.replace(KATA, tests_hidden=()), RIGHT, "hidden").result()
    assert (outcome.verdict.status, outcome.verdict.total) == ("refused", 0)
    assert math.isnan(outcome.share)
    assert not sandbox.asked


def test_a_weaker_tier_is_refused_unless_it_is_allowed(script: Callable[..., ScriptedSandbox]):
    script("ok")
    config = SandboxConfig(tier="landlock")
    with pytest.raises(UserError, match="the sandbox's tier is landlock") as caught, Judge(config, "grpo"):
        pass
    assert "--grpo.allow_weak_sandbox=true" in caught.value.next_step
    with Judge(config, "grpo", allow_weak=True) as judge:
        assert judge.judge(KATA, RIGHT, "visible").result().passed == 1


def test_a_sandbox_that_cannot_be_opened_says_why(script: Callable[..., ScriptedSandbox]):
    async def refuse() -> None:
        raise UserError("No namespaces here.", "Use another machine.")

    sandbox = script(opening=refuse)
    with pytest.raises(UserError, match="No namespaces here"), Judge(SandboxConfig(), "reward"):
        pass
    assert sandbox.closed


def test_a_sandbox_that_never_opens_is_given_up(
    script: Callable[..., ScriptedSandbox], monkeypatch: pytest.MonkeyPatch
):
    sandbox = script(opening=lambda: asyncio.Event().wait())
    monkeypatch.setattr(judging, "PATIENCE", 0.1)
    with pytest.raises(UserError, match=r"did not open within 0\.1 s"), Judge(SandboxConfig(), "reward"):
        pass
    assert sandbox.closed


def test_an_interrupt_ends_what_is_being_judged_and_closes_the_sandbox(script: Callable[..., ScriptedSandbox]):
    sandbox = script(None, None)
    pending = []

    def interrupted() -> None:
        with Judge(SandboxConfig(), "reward") as judge:
            pending.extend(judge.judge(KATA, RIGHT, kind) for kind in ("visible", "hidden"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sandbox.closed
    for each in pending:
        with pytest.raises(CancelledError):
            each.result(5)


def test_a_sandbox_that_is_lost_reaches_whoever_waits(script: Callable[..., ScriptedSandbox]):
    sandbox = script(UserError("The sandbox's supervisor has ended.", "Open the sandbox again."))
    with pytest.raises(UserError, match="has ended"), Judge(SandboxConfig(), "reward") as judge:
        judge.judge(KATA, RIGHT, "visible").result()
    assert sandbox.closed


def test_the_real_sandbox_judges_by_the_tests_that_are_meant():
    """Right for all; for the visible tests alone; a share of the hidden ones; no program; one that ends itself."""
    texts = {
        RIGHT: (("ok", 1.0), ("ok", 1.0)),
        "```python\ndef f(n):\n    return n + 1 if n < 5 else 0\n```": (("ok", 1.0), ("wrong", 0.25)),
        "```python\ndef f(n):\n    return abs(n) + 1\n```": (("ok", 1.0), ("wrong", 0.75)),
        "```python\ndef f(n:\n```": (("compile_error", 0.0), ("compile_error", 0.0)),
        "```python\nimport os\n\ndef f(n):\n    os._exit(0)\n```": (("incomplete", 0.0), ("incomplete", 0.0)),
    }
    with Judge(SandboxConfig(cells=1), "reward") as judge:
        asked = [(judge.judge(KATA, text, "visible"), judge.judge(KATA, text, "hidden")) for text in texts]
        found = [tuple(told(each.result(60)) for each in both) for both in asked]
        assert judge.judge(KATA, RIGHT, "visible").result().verdict.tier == "namespaces"
        assert found == list(texts.values())
        under_way = judge.judge(KATA, "```python\ndef f(n):\n    while True:\n        pass\n```", "visible")
        judge.sandbox.process.kill()  # the supervisor, with all cells
        with pytest.raises(UserError, match="supervisor has ended"):
            under_way.result(60)
