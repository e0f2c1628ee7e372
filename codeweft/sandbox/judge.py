"""Runs programs and judges answers: what goes into a box, what comes out, and what that means.

In:  a Program or a Submission, and a pool of cells.  Out: what happened; a verdict by tests.

Unusual: expected values never enter a box. `stdio` and `call` tests are compared here; the tests of `assert` run in a
second box, where the answer is only a stand-in. `compat`, which runs tests beside the answer, is labelled and must be
asked for. A run that ends within a quarter of its limit is repeated with four times as much, so that a busy machine
decides nothing.
"""

import asyncio
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Protocol

from codeweft.base.errors import UserError
from codeweft.sandbox import toolchains
from codeweft.sandbox.cells import Box, CellDied, Report, Step
from codeweft.sandbox.config import Limits, Tier
from codeweft.sandbox.conversations import TESTER, Calls, Relay, Together
from codeweft.sandbox.harness import DOES_NOT_COMPILE
from codeweft.sandbox.outcomes import Outcome, detail_of, printable, same_output, status_of

# shares of the limit of processor time: what is near it, what is let run, what a repeat gets
NEAR, SLACK, AGAIN = 0.8, 1.25, 4.0
AT_WORK = 0.1  # what a program has used that the clock ended, if it was not asleep
TICKS = 0.02  # seconds by which the account of a program that was ended for its time may fall short of that time


def near_limit(status: str, seconds: float, limits: Limits) -> bool:
    """Whether another machine, or this one when it is idle, might have given another verdict.

    Those are runs that ended close to the limit, and those that the clock ended although they were at work.
    """
    lowest = {"ok": NEAR, "time_limit": AT_WORK}.get(status)
    highest = SLACK * limits.cpu_seconds
    if status == "time_limit":
        highest -= TICKS  # or an endless program would now and then be run again with four times as much
    return lowest is not None and lowest * limits.cpu_seconds <= seconds < highest


class Boxes(Protocol):
    """Where boxes come from; `tester` gives one for trusted tests."""

    tier: Tier

    def outside(self, word: str) -> str:
        """A word of a recipe as it is where boxes run."""
        ...

    def prepare(self, installed: toolchains.Installed) -> None:
        """Begin what makes later compilations quicker, without waiting for it."""
        ...

    async def open(self, limits: Limits, tester: bool = False) -> Box:
        """A fresh box."""
        ...

    def give_back(self, box: Box) -> None:
        """End a box; its cell is free for the next."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A program ready to run in a box: its first step's files, and how to start it."""

    files: dict[str, bytes]
    kind: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    limits: Limits


def file_bytes(text: str) -> bytes:
    """Source text as the bytes of a file; a lone surrogate becomes a question mark."""
    return text.encode(errors="replace")


class Judging:
    """One request, with the box it holds."""

    def __init__(self, boxes: Boxes) -> None:
        self.boxes = boxes
        self.held: list[Box] = []

    async def open(self, limits: Limits, tester: bool = False) -> Box:
        """A box that `close` gives back."""
        box = await self.boxes.open(limits, tester)
        self.held.append(box)
        return box

    def close(self) -> None:
        """End all boxes."""
        while self.held:
            self.boxes.give_back(self.held.pop())

    # --- programs --------------------------------------------------------------------------------------------------

    async def run(self, program: dict[str, Any]) -> dict[str, Any]:
        """Compile where needed and run once; the fields of a `Ran`."""
        _refuse_unusable(program)
        toolchain = toolchains.find(program["language"])
        installed = toolchains.detect(toolchain)
        limits = _limits(program["limits"])
        if installed.missing:
            return self._ran("unsupported", None, f"{toolchain.label} is not installed: {installed.hint}.")
        recipe = toolchains.commands(installed, program["code"], limits)
        self.boxes.prepare(installed)
        compiling = _limits(program["compile_limits"]) or recipe.compile_limits
        box = await self.open(_roomier(recipe.limits, compiling) if recipe.compile else recipe.limits)
        ready, compiled = await self._prepare(box, toolchain.name, recipe, program, compiling)
        if compiled is not None and compiled["status"] != "ok":
            return self._ran("compile_error", None, compiled["detail"]) | {"compiled": compiled}
        argv = (*ready.argv, *program["arguments"])
        step = Step(ready.kind, argv, ready.files, ready.limits, ready.environment)
        report = await box.run(step, program["stdin"])
        return self._of_report(report, ready.limits) | {"compiled": compiled}

    async def _prepare(
        self, box: Box, language: str, recipe: toolchains.Recipe, program: dict[str, Any], compiling: Limits
    ) -> tuple[Prepared, dict[str, Any] | None]:
        """Write and compile; what is left to do, and the compilation's fields where there was one."""
        files = {name: file_bytes(text) for name, text in recipe.files.items()}
        files |= program["files"] | {recipe.file: file_bytes(program["code"])}
        if language == "python":
            return Prepared(files, "python", (recipe.file,), recipe.environment, recipe.limits), None
        compiled = None
        for argv in recipe.compile:
            words = tuple(map(self.boxes.outside, argv))
            step = Step("exec", words, files, compiling, recipe.environment)
            compiled = self._of_report(await box.run(step), compiling)
            files = {}
            if compiled["status"] != "ok":
                break
        run = tuple(map(self.boxes.outside, recipe.run))
        return Prepared(files, "exec", run, recipe.environment, recipe.limits), compiled

    def _of_report(self, report: Report, limits: Limits) -> dict[str, Any]:
        status = status_of(report, limits)
        if report.exit_code == DOES_NOT_COMPILE and status == "runtime_error" and b"Error" in report.stderr:
            status, report = "compile_error", replace(report, exit_code=1)
        return self._ran(status, report, "" if status == "ok" else detail_of(report, limits), report.exit_code)

    def failed(self, reason: str) -> dict[str, Any]:
        """The fields of a run that the harness could not make."""
        return self._ran("harness_error", None, reason)

    def _ran(self, status: str, report: Report | None, detail: str = "", code: int | None = None) -> dict[str, Any]:
        report = report or Report(None, "", b"", b"", 0.0, 0.0, 0)
        return {
            "status": status, "exit_code": code, "stdout": report.stdout, "stderr": report.stderr,
            "cpu_seconds": report.cpu_seconds, "wall_seconds": report.wall_seconds, "peak_bytes": report.peak_bytes,
            "tier": self.boxes.tier, "detail": detail, "compiled": None,
        }  # fmt: skip

    # --- answers ---------------------------------------------------------------------------------------------------

    async def judge(self, submission: dict[str, Any]) -> Outcome:
        """The verdict on a submission."""
        tests = submission["tests"]
        toolchain = toolchains.find(submission["language"])
        installed = toolchains.detect(toolchain)
        if installed.missing:
            missing = f"{toolchain.label} is not installed: {installed.hint}."
            return Outcome("unsupported", 0, len(tests), detail=missing)
        mode = submission["mode"] or ("stdio" if tests and tests[0]["kind"] == "stdio" else "split")
        kinds = {test["kind"] for test in tests}
        if refusal := _refusal(mode, kinds, toolchain.name, submission):
            return Outcome("refused", 0, len(tests), detail=refusal)
        limits = _limits(submission["limits"]) or toolchain.suited_to(submission["code"]).limits
        if mode == "stdio":
            return await self._stdio(submission, installed, limits)
        if mode == "compat" and toolchain.name != "python":
            return await self._closed_program(submission, installed, limits)
        way = {"compat": self._together, "call": self._calls, "assert": self._asserts}
        chosen = way["compat" if mode == "compat" else next(iter(kinds))]
        return await self._twice_if_near(lambda allowed: chosen(submission, allowed, limits), limits)

    async def _twice_if_near(self, attempt: Any, limits: Limits) -> Outcome:
        """An attempt with some slack; again with much more where the first ended near the limit."""
        outcome = await attempt(_scaled(limits, SLACK))
        self.close()
        seconds = outcome.cpu_seconds
        if near_limit(outcome.status, seconds, limits):
            again = await attempt(_scaled(limits, AGAIN))
            self.close()
            seconds, outcome = min(seconds, again.cpu_seconds), again
        if outcome.status == "ok" and seconds > limits.cpu_seconds:
            detail = f"It used {seconds:.2f} s of processor time."
            return replace(outcome, status="time_limit", passed=min(outcome.passed, outcome.total - 1), detail=detail)
        return outcome

    async def _stdio(self, submission: dict[str, Any], installed: toolchains.Installed, limits: Limits) -> Outcome:
        tests = submission["tests"]
        box, ready, failure = await self._compiled(submission, installed, submission["code"], limits)
        if failure is not None:
            return failure
        passed, cpu, peak = 0, 0.0, 0
        first: Outcome | None = None
        for number, test in enumerate(tests):
            files = ready.files if number == 0 else {}
            report = await self._timed(box, ready, files, test["stdin"].encode(errors="replace"), limits)
            cpu, peak = cpu + report.cpu_seconds, max(peak, report.peak_bytes)
            said = self._of_report(report, limits)
            status, detail = said["status"], said["detail"]
            if status == "ok" and report.cpu_seconds > limits.cpu_seconds:
                status, detail = "time_limit", f"It used {report.cpu_seconds:.2f} s of processor time."
            if status == "ok" and not same_output(report.stdout, test["expected"] or ""):
                status, detail = "wrong", "The output is another one."
            passed += status == "ok"
            if status != "ok" and first is None:
                first = Outcome(status, 0, len(tests), detail=f"Test {number + 1}: {detail}")
            if first is not None and (submission["stop_early"] or box.killed):
                break
        first = first or Outcome("ok", 0, len(tests))
        return replace(first, passed=passed, cpu_seconds=cpu, peak_bytes=peak)

    async def _timed(self, box: Box, ready: Prepared, files: dict[str, bytes], stdin: bytes, limits: Limits) -> Report:
        """One run with some slack; repeated with much more, in a clean box, where it ended near its limit."""
        step = Step(
            ready.kind, ready.argv, files, _scaled(limits, SLACK), ready.environment, fresh=not files, freeze=True
        )
        report = await box.run(step, stdin)
        if box.killed or not near_limit(status_of(report, step.limits), report.cpu_seconds, limits):
            return report
        again = await box.run(replace(step, files={}, limits=_scaled(limits, AGAIN), fresh=True), stdin)
        return again if again.cpu_seconds < report.cpu_seconds or report.why else report

    async def _compiled(
        self, submission: dict[str, Any], installed: toolchains.Installed, code: str, limits: Limits
    ) -> tuple[Box, Prepared, Outcome | None]:
        recipe = toolchains.commands(installed, code, limits)
        self.boxes.prepare(installed)
        box = await self.open(_roomier(limits, recipe.compile_limits) if recipe.compile else limits)
        program = {"code": code, "files": submission.get("files", {})}
        ready, compiled = await self._prepare(box, installed.toolchain.name, recipe, program, recipe.compile_limits)
        total = len(submission["tests"])
        if compiled is not None and compiled["status"] != "ok":
            lines = compiled["stderr"].decode(errors="replace") or compiled["stdout"].decode(errors="replace")
            said = next((line for line in lines.splitlines() if "error" in line.lower()), compiled["detail"])
            used = {"cpu_seconds": compiled["cpu_seconds"], "peak_bytes": compiled["peak_bytes"]}
            return box, ready, Outcome("compile_error", 0, total, **used, detail=printable(said))
        return box, ready, None

    # --- split -----------------------------------------------------------------------------------------------------
    # `limits` are those of this attempt, `told` those that were asked for

    async def _calls(self, submission: dict[str, Any], limits: Limits, told: Limits) -> Outcome:
        conversation = Calls(submission)
        box = await self.open(limits)
        files = {"main.py": file_bytes(submission["code"])}
        step = Step("python", ("main.py", submission["entry_point"]), files, limits, harness="inputs")
        inputs = submission["tests"].inputs
        report = await box.run(step, talk=lambda talk: conversation.hold(talk, box), inputs=inputs)
        return conversation.outcome(report, told)

    async def _together(self, submission: dict[str, Any], limits: Limits, told: Limits) -> Outcome:
        conversation = Together(submission, secrets.token_hex(16))
        box = await self.open(limits)
        tests = json.dumps([test["code"] for test in submission["tests"]]).encode()
        code = submission["setup"] + "\n" + submission["code"]
        files = {"main.py": file_bytes(code), "tests.json": tests}
        argv = ("main.py", "tests.json", conversation.token, submission["entry_point"])
        step = Step("python", argv, files, limits, harness="together")
        report = await box.run(step, talk=lambda talk: conversation.hold(talk, box))
        return conversation.outcome(report, told)

    async def _asserts(self, submission: dict[str, Any], limits: Limits, told: Limits) -> Outcome:
        relay = Relay(submission)
        box, tester = await self.open(limits), await self.open(TESTER, tester=True)
        files = {"main.py": file_bytes(submission["code"])}
        step = Step("python", ("main.py",), files, limits, harness="calls")
        tests = json.dumps([test["code"] for test in submission["tests"]]).encode()
        test_files = {"setup.py": file_bytes(submission["setup"]), "tests.json": tests}
        argv = ("setup.py", "tests.json", submission["entry_point"])
        patient = replace(TESTER, wall_seconds=limits.wall * 2 + 10)
        test_step = Step("python", argv, test_files, patient, harness="tests")
        answering = asyncio.ensure_future(box.run(step, talk=lambda talk: relay.answer_side(talk, box)))
        answering.add_done_callback(lambda _: relay.unanswered())
        try:
            report_of_tests = await tester.run(test_step, talk=lambda talk: relay.test_side(talk, tester))
            relay.finished.set()
            report = await answering
        finally:
            answering.cancel()
            with suppress(asyncio.CancelledError, CellDied):
                await answering
        return relay.outcome(report, told, report_of_tests)

    async def _closed_program(
        self, submission: dict[str, Any], installed: toolchains.Installed, limits: Limits
    ) -> Outcome:
        """Another language's assertions in the answer's own program, which has to echo a token after the last."""
        total = len(submission["tests"])
        parts = [submission["setup"], submission["code"], *(test["code"] for test in submission["tests"])]
        try:
            code = toolchains.with_closing(installed.toolchain, "\n".join(part for part in parts if part))
        except ValueError as error:
            return Outcome("refused", 0, total, detail=str(error))
        box, ready, failure = await self._compiled(submission, installed, code, limits)
        if failure is not None:
            return failure
        token = secrets.token_hex(16)
        report = await self._timed(box, ready, ready.files, token.encode() + b"\n", limits)
        said = self._of_report(report, limits)
        status, detail = said["status"], said["detail"]
        if status == "ok" and report.stdout.decode(errors="replace").strip().splitlines()[-1:] != [token]:
            status, detail = "incomplete", "It ended before its last assertion."
        used = {"cpu_seconds": report.cpu_seconds, "peak_bytes": report.peak_bytes}
        return Outcome(status, total if status == "ok" else 0, total, **used, detail=detail)


def _refuse_unusable(program: dict[str, Any]) -> None:
    """UserError for names of files and for arguments that cannot be."""
    for name in program["files"]:
        place = PurePosixPath(name)
        inside = place.parts and not place.is_absolute() and ".." not in place.parts and not name.endswith("/")
        if not inside or not _usable(name):
            raise UserError(f"{name!r} is not a path below the program's folder.", "Name files by relative paths.")
    for word in program["arguments"]:
        if not _usable(word):
            raise UserError(f"{word!r} cannot be an argument of a program.", "Leave out NUL and halves of surrogates.")


def _usable(word: str) -> bool:
    return "\0" not in word and word == word.encode(errors="replace").decode()


def _limits(values: dict[str, Any] | None) -> Limits | None:
    return Limits(**values) if values else None


def _roomier(one: Limits, other: Limits) -> Limits:
    return replace(one, disk_mib=max(one.disk_mib, other.disk_mib), inodes=max(one.inodes, other.inodes))


def _scaled(limits: Limits, factor: float) -> Limits:
    return replace(limits, cpu_seconds=limits.cpu_seconds * factor, wall_seconds=limits.wall * factor)


def _refusal(mode: str, kinds: set[str], language: str, submission: dict[str, Any]) -> str:
    """Why a submission cannot be judged this way, or nothing."""
    if not kinds:
        return "There are no tests."
    if len(kinds) > 1:
        return f"Tests of one submission are of one kind, not {' and '.join(sorted(kinds))}."
    kind = next(iter(kinds))
    if (mode == "stdio") != (kind == "stdio"):
        return f"The mode {mode} is not for tests of the kind {kind}."
    if mode == "split" and language != "python":
        return "Only Python's functions can be called from outside: use stdio tests, or the mode compat."
    if kind == "stdio" and any(test["expected"] is None for test in submission["tests"]):
        return "A stdio test has no expected output."
    if mode == "compat" and kind != "assert":
        return "The mode compat is for tests of the kind assert."
    if mode == "split" and not submission["entry_point"]:
        return "Without an entry_point there is no function to call."
    return ""
