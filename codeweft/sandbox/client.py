"""How the rest of the program uses the sandbox: run a program, judge answers, here or on another machine.

In:  Programs and Submissions.  Out: what they did; verdicts, with the tier they were found in.

Unusual: callers wait while as many submissions as may wait already do; a verdict is kept and found again by code,
tests and limits, and tests that the supervisor has are not sent again. A `harness_error` is never kept, and never a
score.
"""

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from codeweft.base.errors import UserError
from codeweft.base.progress import bar
from codeweft.base.records import Verdict
from codeweft.sandbox import supervisor
from codeweft.sandbox.config import Limits, Program, Ran, SandboxConfig, Submission, Tier
from codeweft.sandbox.tests_sent import KEPT, Bounded, Encoded, Encoder

T = TypeVar("T")
PASSED_ON = (
    *("PATH", "HOME", "TMPDIR", "LANG", "XDG_CACHE_HOME"),
    *("RUSTUP_HOME", "CARGO_HOME", "RUSTUP_TOOLCHAIN"),
)
UNSAFE = "CODEWEFT_SANDBOX_UNSAFE"  # must say yes for the tier unsafe
CALIBRATED = 4.0  # a limit is at least so many times what the reference needs
ENDED = "The sandbox's supervisor has ended."
END_SECONDS = 10.0  # for a supervisor to leave in good order


class Sandbox(Protocol):
    """A place where untrusted code runs."""

    tier: Tier
    facts: dict[str, Any]
    lost: str  # why it cannot be used any more, or nothing

    async def run(self, program: Program, deadline: float | None = None) -> Ran:
        """Run a program once."""
        ...

    async def judge(self, submission: Submission, deadline: float | None = None) -> Verdict:
        """The verdict on an answer; a deadline in seconds turns a late one into `harness_error`."""
        ...

    async def judge_all(self, submissions: Sequence[Submission]) -> list[Verdict]:
        """Verdicts in the order of the submissions."""
        ...


class LocalSandbox:
    """Cells on this machine, behind a supervisor process."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config, self.tier = config, config.tier
        self.facts: dict[str, Any] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.room = asyncio.Semaphore(config.waiting)
        self.kept: OrderedDict[str, Verdict] = OrderedDict()
        self.encoder = Encoder()
        self.sent: Bounded[str, bool] = Bounded(KEPT)  # digests of the tests that the supervisor has
        self.number = 0
        self.lost = ""
        self.folder = ""  # the supervisor's, to be removed where it cannot do so any more

    async def start(self) -> None:
        """Start the supervisor; UserError with its reason where the tier cannot be had."""
        check_tier(self.config.tier)
        ours, theirs = socket.socketpair()
        with theirs:
            # nothing of the caller's environment but where things are: it may hold secrets
            environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
            environment["PYTHONPATH"] = str(Path(__file__).parents[2])
            command = [sys.executable, "-P", "-m", "codeweft.sandbox.supervisor", str(theirs.fileno())]
            self.process = subprocess.Popen(
                command, env=environment, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.reader, self.writer = await asyncio.open_connection(sock=ours, limit=1 << 30)
        supervisor.send(self.writer, {"config": asdict(self.config)})
        greeting = await supervisor.receive(self.reader)
        if greeting is None or "refused" in greeting:
            message, next_step = (greeting or {}).get("refused", ["The sandbox's supervisor did not start.", ""])
            await self.close()
            raise UserError(message, next_step)
        self.facts = {"tier": self.tier, "kernel": os.uname().release, **greeting["ready"]}
        self.folder = greeting["folder"]
        self.listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while (answer := await supervisor.receive(self.reader)) is not None:
            waiting = self.waiting.pop(answer["id"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
        self._lose(ENDED)

    def _lose(self, reason: str) -> None:
        """Let everybody who waits know that there will be no answer."""
        self.lost = self.lost or reason
        for waiting in self.waiting.values():
            if not waiting.done():
                waiting.set_exception(UserError(self.lost, "Open the sandbox again."))
        self.waiting.clear()

    async def close(self) -> None:
        """End the supervisor and with it all cells."""
        if hasattr(self, "writer"):
            self.writer.close()
        if hasattr(self, "listening"):
            self.listening.cancel()
        self._lose("The sandbox is closed.")
        if self.process is not None:
            try:
                await asyncio.to_thread(self.process.wait, END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.folder:
            supervisor.remove(Path(self.folder))

    async def _ask(self, request: dict[str, Any], tests: Encoded | None = None) -> dict[str, Any]:
        """The supervisor's answer, once there is room for a question; the time spent waiting for it counts."""
        deadline, began = request.get("deadline"), time.monotonic()
        try:
            async with asyncio.timeout(deadline):
                await self.room.acquire()
        except TimeoutError:
            return {"outcome": supervisor.late(request["tests"])}
        try:
            if deadline is not None:
                request = request | {"deadline": max(deadline - (time.monotonic() - began), 0.0)}
            answer = await self._answered(request, tests)
        finally:
            self.room.release()
        if "error" in answer:
            raise UserError(*answer["error"])
        if "fault" in answer:
            raise RuntimeError(f"The sandbox's supervisor made a mistake:\n{answer['fault']}")
        return answer

    async def _answered(self, request: dict[str, Any], tests: Encoded | None) -> dict[str, Any]:
        if self.lost:
            raise UserError(self.lost, "Open the sandbox again.")
        self.number += 1
        number = self.number
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.waiting[number] = answered
        try:
            if tests is not None:
                self._send_tests(tests)
            supervisor.send(self.writer, {"id": number} | request)
            await self.writer.drain()
            return await answered
        except asyncio.CancelledError:
            supervisor.send(self.writer, {"id": number, "do": "cancel"})
            raise
        except ConnectionError as error:
            raise UserError(ENDED, "Open the sandbox again.") from error
        finally:
            self.waiting.pop(number, None)

    def _send_tests(self, tests: Encoded) -> None:
        """Let the supervisor have tests that it has not; for them it forgets others that were not used for long."""
        if self.sent.find(tests.digest) is None:
            supervisor.send(self.writer, {"do": "keep", "digest": tests.digest, "text": tests.text})
            for digest in self.sent.put(tests.digest, True, len(tests.text)):
                supervisor.send(self.writer, {"do": "forget", "digest": digest})

    async def run(self, program: Program, deadline: float | None = None) -> Ran:
        """Run a program once."""
        answer = await self._ask({"do": "run", "what": asdict(program), "tests": 0, "deadline": deadline})
        if "outcome" in answer:
            return Ran("harness_error", None, b"", b"", 0, 0, 0, self.tier, answer["outcome"]["detail"])
        return made_ran(answer["ran"])

    async def judge(self, submission: Submission, deadline: float | None = None) -> Verdict:
        """The verdict on an answer; from memory where the same was judged before."""
        tests = self.encoder.encoded(submission)
        what = as_request(submission) | {"tests": tests.digest}
        key = hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=16).hexdigest()
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        request = {"do": "judge", "what": what, "tests": len(submission.tests), "deadline": deadline}
        answer = await self._ask(request, tests)
        verdict = Verdict(tier=self.tier, mode=mode_of(submission), **answer["outcome"])
        if verdict.status != "harness_error" and self.config.cache:
            self.kept[key] = verdict
            if len(self.kept) > self.config.cache:
                self.kept.popitem(last=False)
        return verdict

    async def judge_all(self, submissions: Sequence[Submission]) -> list[Verdict]:
        """Verdicts in the order of the submissions."""
        return await all_of(map(self.judge, submissions))

    async def state(self) -> dict[str, Any]:
        """What the supervisor counts: boxes opened, cells that died, cells."""
        return (await self._ask({"do": "state"}))["state"]


def as_request(submission: Submission) -> dict[str, Any]:
    """A submission as the supervisor reads it, without its tests."""
    fields = asdict(replace(submission, tests=(), allclose=()))
    del fields["allclose"]  # each stands in its test
    return fields


def mode_of(submission: Submission) -> str:
    """The mode a submission is judged in."""
    stdio = bool(submission.tests) and submission.tests[0].kind == "stdio"
    return submission.mode or ("stdio" if stdio else "split")


def made_ran(fields: dict[str, Any]) -> Ran:
    """A `Ran` from its fields."""
    compiled = fields.pop("compiled")
    return Ran(**fields, compiled=made_ran(compiled) if compiled else None)


def check_tier(tier: Tier) -> None:
    """UserError unless the tier unsafe was confirmed, and not by root."""
    if tier != "unsafe":
        return
    if os.environ.get(UNSAFE) != "yes":
        raise UserError(
            "The tier unsafe has no wall at all: programs can do whatever you can.",
            f"If you mean it, set {UNSAFE}=yes.",
        )
    if os.geteuid() == 0:
        raise UserError("The tier unsafe is refused to root.", "Run as a user who owns nothing of value.")


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order; the first error ends the rest."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def open_sandbox(config: SandboxConfig) -> AsyncGenerator[Sandbox]:
    """A sandbox for as long as the block lasts; UserError where the tier cannot be had: it is never lowered."""
    if config.tier == "remote":
        from codeweft.sandbox.remote import RemoteSandbox

        away = RemoteSandbox(config)
        try:
            yield away
        finally:
            away.close()
        return
    sandbox = LocalSandbox(config)
    try:
        await sandbox.start()
        yield sandbox
    finally:
        await sandbox.close()


def judge_all(config: SandboxConfig, submissions: Sequence[Submission]) -> list[Verdict]:
    """Verdicts from synchronous code, under a progress bar."""

    async def work() -> list[Verdict]:
        async with open_sandbox(config) as sandbox:
            with bar("judging", len(submissions), "answers") as shown:

                async def one(submission: Submission) -> Verdict:
                    verdict = await sandbox.judge(submission)
                    shown.advance()
                    return verdict

                return await all_of(map(one, submissions))

    return asyncio.run(work())


async def calibrated(sandbox: Sandbox, reference: Submission, limits: Limits) -> Limits:
    """Limits by what the reference solution needs on this machine: at least `limits`, at most ten times.

    UserError where the reference does not pass its own tests even so.
    """
    roomy = replace(limits, cpu_seconds=limits.cpu_seconds * 10)
    verdict = await sandbox.judge(replace(reference, limits=roomy))
    if verdict.status != "ok":
        reason = f"The reference solution does not pass: {verdict.status}. {verdict.detail}"
        raise UserError(reason, "Mend the problem.")
    seconds = min(max(limits.cpu_seconds, CALIBRATED * verdict.cpu_seconds), roomy.cpu_seconds)
    return replace(limits, cpu_seconds=seconds)
