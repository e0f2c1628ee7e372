"""The sandbox of another machine: our own service, or a SandboxFusion, behind the same interface as the one here.

In:  Programs and Submissions, a URL and a token.  Out: what they did; verdicts with the tier `remote`.

Unusual: a service without `/judge` still judges stdio tests, one `/run_code` a test, compared here. Whether a foreign
service holds its programs is not known here, which is why its tier has a name of its own.
"""

import asyncio
import http.client
import json
import os
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from codeweft.base.errors import UserError
from codeweft.base.records import Verdict
from codeweft.sandbox import wire
from codeweft.sandbox.client import all_of, mode_of
from codeweft.sandbox.config import Program, Ran, SandboxConfig, Submission
from codeweft.sandbox.outcomes import same_output
from codeweft.sandbox.plain import PlainError

TRIES, FIRST_PAUSE = 6, 0.5  # of a request that finds no room or no connection; seconds, doubling
MOST_CONNECTIONS = 128  # at once
PATIENCE = 900.0  # seconds that one request may take
TOKEN = "CODEWEFT_SANDBOX_TOKEN"
BUSY = (429, 502, 503)


class RemoteSandbox:
    """A service that judges for us."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config, self.tier = config, config.tier
        try:
            self.place = urlsplit(config.url if "://" in config.url else f"http://{config.url}")
            usable = self.place.scheme in ("http", "https") and self.place.hostname and self.place.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise UserError(f"{config.url} is no address of a service.", "Give one like http://sandbox.example:8014.")
        self.threads = ThreadPoolExecutor(min(config.waiting, MOST_CONNECTIONS))
        self.facts: dict[str, Any] = {"tier": config.tier, "url": config.url}
        self.room = asyncio.Semaphore(config.waiting)
        self.token = config.token or os.environ.get(TOKEN, "")
        self.lost = ""
        self.foreign = False  # known to have no /judge

    def close(self) -> None:
        """Ask no more."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, program: Program, deadline: float | None = None) -> Ran:
        """Run a program once."""
        try:
            async with asyncio.timeout(deadline):
                status, answer = await self._post("/run_code", wire.program_to_fusion(program))
        except TimeoutError:
            return Ran("harness_error", None, b"", b"", 0.0, 0.0, 0, self.tier, f"Not done within {deadline:g} s.")
        if status != 200:
            raise UserError(f"{self.config.url} refused a program: {_words(status, answer)}.", "Mend that, then retry.")
        return replace(wire.ran_from_fusion(answer), tier=self.tier)

    async def judge(self, submission: Submission, deadline: float | None = None) -> Verdict:
        """The verdict on an answer; a late one is `harness_error`."""
        try:
            async with asyncio.timeout(deadline):
                return await self._judged(submission)
        except TimeoutError:
            late = f"Not done within {deadline:g} s."
            mode = mode_of(submission)
            return Verdict("harness_error", 0, len(submission.tests), 0.0, 0, self.tier, mode, late)

    async def _judged(self, submission: Submission) -> Verdict:
        if not self.foreign:
            try:
                body = {"submissions": [wire.submission_to_json(submission)]}
            except PlainError as error:
                raise UserError(f"A test cannot be sent: {error}", "Make it an assert test.") from error
            status, answer = await self._post("/judge", body)
            if status == 200:
                verdicts = wire.JUDGE_RESPONSE.read(answer, "")["verdicts"]
                if len(verdicts) != 1:
                    raise UserError(f"{self.config.url} answered one submission with {len(verdicts)} verdicts.")
                return replace(verdicts[0], tier=self.tier)
            if status != 404:
                reason = f"{self.config.url} refused a submission: {_words(status, answer)}."
                raise UserError(reason, "Mend that, then retry.")
            self.foreign = True
        return await self._judged_here(submission)

    async def judge_all(self, submissions: Sequence[Submission]) -> list[Verdict]:
        """Verdicts in the order of the submissions."""
        return await all_of(map(self.judge, submissions))

    async def _judged_here(self, submission: Submission) -> Verdict:
        """Stdio tests by runs alone."""
        total = len(submission.tests)
        if not submission.tests or any(test.kind != "stdio" for test in submission.tests):
            words = f"{self.config.url} has no /judge, and without it only stdio tests can be judged."
            return Verdict("refused", 0, total, 0.0, 0, self.tier, submission.mode or "split", words)
        passed, seconds, peak, first, detail = 0, 0.0, 0, "ok", ""
        for number, test in enumerate(submission.tests):
            program = Program(submission.language, submission.code, test.stdin.encode(), limits=submission.limits)
            ran = await self.run(program)
            seconds, peak = seconds + ran.cpu_seconds, max(peak, ran.peak_bytes)
            status = ran.status
            if status == "ok" and not same_output(ran.stdout, test.expected or ""):
                status = "wrong"
            passed += status == "ok"
            if status != "ok" and first == "ok":
                first, detail = status, f"Test {number + 1}: {ran.detail or 'the output is another one.'}"
                if submission.stop_early:
                    break
        return Verdict(first, passed, total, seconds, peak, self.tier, "stdio", detail)

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and JSON of an answer; again after a pause where there was no room; UserError where nobody answers."""
        data, reason = json.dumps(body).encode(), ""
        async with self.room:
            for attempt in range(TRIES):
                try:
                    status, text = await self._exchanged(path, data)
                except (OSError, http.client.HTTPException) as error:
                    reason = str(error) or type(error).__name__
                else:
                    if status not in BUSY:
                        return status, _parsed(text)
                    reason = _words(status, _parsed(text))
                await asyncio.sleep(FIRST_PAUSE * 2**attempt if attempt + 1 < TRIES else 0)
        raise UserError(f"{self.config.url} does not answer: {reason}.", "See that the service runs and has room.")

    async def _exchanged(self, path: str, data: bytes) -> tuple[int, bytes]:
        """Status and body; whoever gives up hangs up, which ends what was asked."""
        connection = self._connection()
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads, self._sent, connection, path, data)
        except asyncio.CancelledError:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            raise

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self.place.hostname or "", self.place.port
        if self.place.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=PATIENCE)

    def _sent(self, connection: http.client.HTTPConnection, path: str, data: bytes) -> tuple[int, bytes]:
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
            connection.request("POST", self.place.path.rstrip("/") + path, data, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def _words(status: int, answer: Any) -> str:
    """What a refusal says, in the service's form or in FastAPI's."""
    if isinstance(answer, dict):
        error = answer.get("error", answer.get("detail"))
        message = error.get("message") if isinstance(error, dict) else error
        if message:
            return f"{status}, {str(message)[:300].rstrip('.')}"
    return str(status)
