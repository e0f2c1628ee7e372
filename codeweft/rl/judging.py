"""Judges answers in the sandbox while others are still being written.

In:  answers, one at a time.  Out: for each a verdict that is waited for when it is needed.

Unusual: the sandbox lives in a thread with an event loop of its own, so the thread that drives the model never waits
for it; what an answer's code or result is, is found in a third thread, since comparing two formulas may take seconds.
A harness error is the judge's fault, not the answer's: it is tried again, and an answer that never gets a verdict has
no reward instead of a bad one.
"""

import asyncio
import math
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from codeweft.base.errors import UserError
from codeweft.base.progress import say
from codeweft.base.records import Problem, Status, Verdict
from codeweft.rl.preferences import NOT_JUDGED
from codeweft.rl.prompts import Tests, graded, tested, tests_of
from codeweft.sandbox.client import Sandbox, open_sandbox
from codeweft.sandbox.config import SandboxConfig, Submission

TRIES = 3  # of an answer whose judging failed
STRONG = ("namespaces", "remote")  # tiers behind which answers of a policy in training may run unasked
PATIENCE = 120.0  # seconds for the sandbox to open, and to close


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict, and the reward in [0, 1] by tests: the share passed, or a grade; NaN where nobody could tell."""

    verdict: Verdict
    share: float

    @property
    def passed(self) -> float:
        """1 where all tests passed, 0 where not, NaN where nobody could tell (the paper's 0-1 feedback)."""
        return self.share if math.isnan(self.share) else float(self.share >= 1)


class Judge:
    """A sandbox in the background, open for as long as the block lasts.

    UserError where its tier is weaker than a training policy should meet and `allow_weak` is not set.
    """

    def __init__(self, config: SandboxConfig, what: str, *, allow_weak: bool = False, shares: bool = True) -> None:
        """what: the stage, for what is said. shares: run all tests of an answer, not only up to the first it fails."""
        self.config, self.what, self.allow_weak, self.shares = config, what, allow_weak, shares
        self.sandbox: Sandbox | None = None

    def __enter__(self) -> "Judge":
        if self.config.tier not in STRONG and not self.allow_weak:
            raise UserError(
                f"{self.what} runs what a model in training writes, and the sandbox's tier is {self.config.tier}.",
                f"Use the tier {STRONG[0]}, or allow a weaker one: --{self.what}.allow_weak_sandbox=true.",
            )
        self.context = open_sandbox(self.config)
        self.loop = asyncio.new_event_loop()
        self.grading = ThreadPoolExecutor(1, "grading")
        self.thread = threading.Thread(target=self.loop.run_forever, name="judge", daemon=True)
        self.thread.start()
        try:
            self._wait(self._open())
        except TimeoutError as error:
            self._stop()
            raise UserError(
                f"{self.what}: the sandbox did not open within {PATIENCE:g} s.", "Look at `codeweft sandbox probe`."
            ) from error
        except BaseException:
            self._stop()
            raise
        assert self.sandbox is not None, "it was opened"
        say(f"{self.what}: answers run behind the tier {self.sandbox.tier}.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def judge(self, problem: Problem, text: str, tests: Tests) -> "Future[Outcome]":
        """The outcome of an answer by these tests of its problem, as soon as it is there.

        A problem that has tests, but none of these, has an outcome nobody could tell.
        """
        return asyncio.run_coroutine_threadsafe(self._judged(problem, text, tests), self.loop)

    async def _judged(self, problem: Problem, text: str, tests: Tests) -> Outcome:
        assert self.sandbox is not None, "the judge is used inside its block"
        if tested(problem) and not tests_of(problem, tests):
            nothing = Verdict("refused", 0, 0, 0.0, 0, self.sandbox.tier, detail=f"There are no {tests} tests.")
            return outcome_of(nothing)
        answer = await self.loop.run_in_executor(self.grading, graded, problem, text, tests)
        if answer.submission is None:
            assert answer.score is not None, "problems that nothing can judge are not asked"
            status: Status = "ok" if answer.score >= 1 else "wrong"
            right = int(answer.score >= 1)
            return Outcome(Verdict(status, right, 1, 0.0, 0, "compared", detail=answer.detail), answer.score)
        return outcome_of(await self._run(replace(answer.submission, stop_early=not self.shares), self.sandbox))

    async def _run(self, submission: Submission, sandbox: Sandbox) -> Verdict:
        for _ in range(TRIES - 1):
            verdict = await sandbox.judge(submission)
            if verdict.status != "harness_error":
                return verdict
        return await sandbox.judge(submission)

    # --- opening and closing ------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        self.sandbox = await self.context.__aenter__()

    async def _close(self) -> None:
        """End what is still being opened or judged, then the sandbox."""
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        if self.sandbox is not None:
            await self.context.__aexit__(None, None, None)

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def _stop(self) -> None:
        try:
            self._wait(self._close())
        finally:
            self.grading.shutdown(wait=False, cancel_futures=True)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()


def outcome_of(verdict: Verdict) -> Outcome:
    """The share of tests passed; NaN where the verdict says nothing of the answer, and for mode compat.

    >>> outcome_of(Verdict("wrong", 1, 4, 0.1, 0, "namespaces")).share
    0.25
    """
    unknown = verdict.status in NOT_JUDGED or verdict.mode == "compat" or not verdict.total
    return Outcome(verdict, math.nan if unknown else verdict.passed / verdict.total)
