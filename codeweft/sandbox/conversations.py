"""What the supervisor and a harness say to each other while a box runs, and the verdict that follows.

In:  frames of a harness, hostile ones included.  Out: passed tests, the first failure.

Unusual: expected values are compared here, outside; a frame can only say what a call gave, never that it was right.
Whatever does not come in the expected form is `bad_output`.
"""

import asyncio
import json
from typing import Any

from codeweft.sandbox import plain
from codeweft.sandbox.cells import Box, CellDied, Report
from codeweft.sandbox.config import Limits
from codeweft.sandbox.harness import frame
from codeweft.sandbox.outcomes import TOLD, WHY, Outcome, detail_of, printable, status_of
from codeweft.sandbox.streams import Talk
from codeweft.sandbox.tests_sent import TestSet

TESTER = Limits(cpu_seconds=30, wall_seconds=600, memory_mib=1024)  # of trusted tests


class Conversation:
    """What a harness said so far. Whatever does not come in the expected form is `bad_output`."""

    def __init__(self, submission: dict[str, Any]) -> None:
        self.tests: TestSet = submission["tests"]
        self.stop_early = submission["stop_early"]
        self.tolerance = submission["tolerance"]
        self.passed = self.seen = 0
        self.status, self.detail = "", ""

    def fail(self, status: str, detail: str) -> None:
        """Note the first failure."""
        if not self.status:
            self.status, self.detail = status, printable(detail)

    def loaded(self, body: bytes | None) -> bool:
        """Whether the first frame says that the code was loaded."""
        said = parsed(body)
        if said is None:
            return False  # the report knows why there is no frame
        if said.get("ready") is True:
            return True
        for kind, status in (("uncompilable", "compile_error"), ("raised", "runtime_error")):
            if kind in said:
                self.fail(status, "On loading: " + exception_words(said[kind]))
                return False
        self.fail("bad_output", "The first frame says nothing known.")
        return False

    def outcome(self, report: Report, limits: Limits) -> Outcome:
        """The verdict, once the box has reported."""
        total = len(self.tests)
        status, detail = self.status, self.detail
        if report.why == "output" and self.passed < total:
            # told before what a test said: whether that came first is a matter of the machine's load
            status, detail = WHY["output"], f"Test {min(self.seen + 1, total)}: {detail_of(report, limits)}"
        elif not status and self.seen < total:
            ending = status_of(report, limits)
            if ending in ("ok", "runtime_error") and (report.exit_code or 0) >= 0:
                status = "incomplete"
                detail = f"It ended (exit code {report.exit_code}) in test {self.seen + 1}."
            else:
                status, detail = ending, f"Test {self.seen + 1}: {detail_of(report, limits)}"
        return Outcome(status or "ok", self.passed, total, report.cpu_seconds, report.peak_bytes, detail)


def parsed(body: bytes | None) -> dict[str, Any] | None:
    """A frame as a table of values; an empty one where it is none; None where there is no frame."""
    if body is None:
        return None
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def exception_words(described: Any) -> str:
    """`Name: message` of what a harness says of an exception."""
    if isinstance(described, list) and len(described) == 2:
        return printable(f"{described[0]}: {described[1]}")
    return "an exception"


def failure_words(described: Any) -> str:
    """What a test raised; the message of an assertion is left out, since it may tell what was expected."""
    words = exception_words(described)
    return "an assertion does not hold." if words.startswith("AssertionError") else words


class Calls(Conversation):
    """`call` tests: the harness has all inputs; one value after the other comes out and is compared here."""

    async def hold(self, talk: Talk, box: Box) -> None:
        """Listen and compare until the tests or the box end."""
        if not self.loaded(await talk.receive()):
            return
        for number, (test, right) in enumerate(zip(self.tests, self.tests.right, strict=True)):
            body = await talk.receive()
            if body is None:
                if talk.over:
                    self.fail("output_limit", f"Test {number + 1}: the value is too long.")
                    box.stop("done")
                return
            self.seen += 1
            if body == right:
                self.passed += 1
                continue
            self._compare(number, test, parsed(body) or {})
            if self.status and self.stop_early:
                box.stop("done")
                return

    def _compare(self, number: int, test: dict[str, Any], said: dict[str, Any]) -> None:
        place = f"Test {number + 1}: "
        if "raised" in said:
            self.fail("runtime_error", place + exception_words(said["raised"]))
        elif "not_plain" in said:
            self.fail("bad_output", place + str(said["not_plain"]))
        elif not isinstance(said.get("value"), str):
            self.fail("bad_output", place + "what came back is no value.")
        else:
            try:
                value = plain.loads(said["value"])
            except plain.PlainError as error:
                self.fail("bad_output", place + str(error))
                return
            expected, near = plain.loads(test["expected"]), test.get("allclose", 0.0)
            if plain.equal(value, expected, self.tolerance) or (near and plain.allclose(value, expected, near)):
                self.passed += 1
            else:
                self.fail("wrong", place + "the value is another one.")


class Together(Conversation):
    """Tests that run beside the answer: each that passed shows the token."""

    def __init__(self, submission: dict[str, Any], token: str) -> None:
        super().__init__(submission)
        self.token = token

    async def hold(self, talk: Talk, box: Box) -> None:
        """Listen until the tests or the box end."""
        if self.loaded(await talk.receive()):
            for number in range(len(self.tests)):
                said = parsed(await talk.receive())
                if said is None:
                    break
                self.seen += 1
                if said.get("token") == self.token and said.get("test") == number:
                    self.passed += 1
                elif said.get("ok") is False:
                    self.fail("wrong", f"Test {number + 1}: {failure_words(said.get('error'))}")
                else:
                    self.fail("bad_output", f"Test {number + 1}: the token is missing.")
                if self.status and self.stop_early:
                    box.stop("done")
                    break
        talk.hang_up()


class Relay(Conversation):
    """`assert` tests: carries calls from the tests' box to the answer's, and values back."""

    def __init__(self, submission: dict[str, Any]) -> None:
        super().__init__(submission)
        self.name = submission["entry_point"]
        self.finished = asyncio.Event()
        self.answering: asyncio.Future[Talk | None] = asyncio.get_running_loop().create_future()
        self.gone = False

    async def answer_side(self, talk: Talk, box: Box) -> None:
        """Hold the answer's box open until the tests are through."""
        ready = self.loaded(await talk.receive())
        if not self.answering.done():
            self.answering.set_result(talk if ready else None)
        if ready:
            await self.finished.wait()
        talk.hang_up()
        if self.status and not self.gone:
            box.stop("done")

    def unanswered(self) -> None:
        """The answer's box has ended, perhaps before it said anything: the tests need not wait for it."""
        if not self.answering.done():
            self.answering.set_result(None)

    async def test_side(self, talk: Talk, tester: Box) -> None:
        """Listen to the tests; ask the answer for them."""
        answering = await self.answering
        while answering is not None and (said := parsed(await talk.receive())) is not None:
            if "call" in said:
                if not await self._carry(said, talk, answering):
                    break
            elif "broken" in said:
                self.fail("refused", "The tests' set-up does not run: " + exception_words(said["broken"]))
                break
            else:
                self._count(said)
                if self.seen == len(self.tests) or (self.status and self.stop_early):
                    break
        talk.hang_up()
        tester.stop("done")
        self.finished.set()

    async def _carry(self, said: dict[str, Any], talk: Talk, answering: Talk) -> bool:
        """One call to the answer and its value back; False when the answer's box is gone or says nothing usable."""
        await answering.send(frame({"name": said["call"], "args": said["args"]}))
        body = await answering.receive()
        if body is None:
            self.gone = True
            if answering.over:
                self.fail("output_limit", f"Test {self.seen + 1}: the value is too long.")
            return False
        try:
            await talk.send(frame(checked(parsed(body) or {})))
        except plain.PlainError as error:
            self.fail("bad_output", f"Test {self.seen + 1}: {error}")
            return False
        return True

    def _count(self, said: dict[str, Any]) -> None:
        self.seen += 1
        place = f"Test {self.seen}: "
        if said.get("ok") is True:
            self.passed += 1
        elif "unusable" in said:
            self.fail("refused", place + str(said["unusable"]))
        elif "not_plain" in said:
            self.fail("bad_output", place + str(said["not_plain"]))
        elif said.get("candidate"):
            self.fail("runtime_error", place + exception_words(said["error"]))
        else:
            self.fail("wrong", place + failure_words(said["error"]))

    def outcome(self, report: Report, limits: Limits, of_tests: Report | None = None) -> Outcome:
        """The verdict; tests that used up their own limits are a fault of the harness, told as such."""
        if of_tests is not None and not self.status and not self.gone and of_tests.why in WHY:
            raise CellDied(f"The tests ended by themselves: {detail_of(of_tests, TESTER)}")
        return super().outcome(report, limits)


def checked(said: dict[str, Any]) -> dict[str, Any]:
    """An answer's frame with nothing in it but plain data; PlainError for what is not."""
    if isinstance(raised := said.get("raised"), list) and [type(part) for part in raised] == [str, str]:
        return {"raised": [part[:TOLD] for part in raised]}
    if isinstance(said.get("not_plain"), str):
        return {"not_plain": said["not_plain"][:TOLD]}
    if not isinstance(said.get("value"), str):
        raise plain.PlainError("What came back is no value.")
    answer = {"value": plain.dumps(plain.loads(said["value"]))}
    if isinstance(said.get("args"), str):
        changed = plain.loads(said["args"])
        if type(changed) is not tuple or [type(part) for part in changed] != [tuple, dict]:
            raise plain.PlainError("The arguments that came back are none.")
        answer["args"] = plain.dumps(changed)
    return answer
