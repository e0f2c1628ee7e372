"""The outside of cells and boxes: start a cell behind its wall, open a box in it, run steps, hear how they ended.

In:  steps and the bytes they read.  Out: reports with all output, cut where it is too long; `CellDied` where a cell or
a box's pid 1 is gone although nobody here ended it.

Unusual: a step has ended when pid 1 says so, not when its pipes close; whoever is to be stopped is stopped by the pidfd
of pid 1, with which the kernel ends everything in the box.
"""

import asyncio
import json
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeweft.sandbox import wall
from codeweft.sandbox.box import IN_MEMORY, INLINE
from codeweft.sandbox.config import Limits, Tier
from codeweft.sandbox.streams import CHUNK, Drain, Talk, in_memory, readable

START_SECONDS = 30.0  # for an interpreter to start and warm up on a busy machine
OPEN_SECONDS = 20.0  # for a fork
END_MILLISECONDS = 2000  # for pid 1 to end everything where the kernel does not
GRACE = 2.0  # seconds beyond the wall limit in which pid 1 may still report


class CellDied(Exception):
    """A cell or a box ended without having been told to; says which step failed where that is known."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do in a box. `kind`: write files, exec argv, or be Python in the warm interpreter."""

    kind: str
    argv: tuple[str, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    environment: dict[str, str] = field(default_factory=dict)
    harness: str = "script"
    fresh: bool = False  # whether the scratch folders are emptied before
    freeze: bool = False  # whether /box is read-only from now on

    def packed(self) -> bytes:
        """The step as box.py reads it. From here inwards only: what comes out of a box is never unmarshalled."""
        return marshal.dumps(
            {
                "kind": self.kind, "argv": self.argv, "harness": self.harness, "environment": self.environment,
                "limits": vars(self.limits), "fresh": self.fresh, "freeze": self.freeze, "folder": "",
                "wall": self.limits.wall, "files": self.files,
            }
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """How a step ended. `why` is what was used up (cpu, wall, memory, output), why it was stopped, or `ended`."""

    exit_code: int | None
    why: str
    stdout: bytes
    stderr: bytes
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


class Box:
    """One namespace set with a pid 1 that takes steps; `close` ends everything in it."""

    def __init__(self, control: socket.socket, pidfd: int, cell: "Cell", folder: str) -> None:
        self.control, self.pidfd, self.cell, self.folder = control, pidfd, cell, folder
        self.stopped = ""  # why the running step was told to end
        self.killed = False
        self.patience = 0.0  # seconds after which pid 1 is not waited for any longer

    def stop(self, why: str) -> None:
        """Have pid 1 end the running step; the report will name the reason."""
        if not self.stopped:
            self.stopped = why
            try:
                self.control.send(b"stop")
            except OSError:
                self.kill()

    def kill(self) -> None:
        """End everything in the box, pid 1 included."""
        self.killed = True
        self._signal()

    def _signal(self) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def close(self) -> None:
        """Leave nothing behind."""
        if self.pidfd >= 0:
            self.control.close()
            if self.folder:  # without a pid namespace, only pid 1 itself can end what is below it
                ending = select.poll()
                ending.register(self.pidfd, select.POLLIN)
                ending.poll(END_MILLISECONDS)
            self._signal()
            os.close(self.pidfd)
            self.pidfd = -1

    async def write(self, files: dict[str, bytes]) -> None:
        """Put files into /box."""
        self._send(Step("write", files=files), [])
        answer = await self._answer(OPEN_SECONDS)
        if answer != ["written"]:
            raise CellDied(" ".join(answer or ["A box did not take its files."]))

    async def run(
        self,
        step: Step,
        stdin: bytes = b"",
        talk: Callable[["Talk"], Awaitable[None]] | None = None,
        inputs: bytes | None = None,
    ) -> Report:
        """Run a step to its end; `talk` converses with a harness meanwhile; one that has its `inputs` is only heard."""
        limits, began, self.stopped = step.limits, time.monotonic(), ""
        stdout_read, stdout_write = os.pipe2(os.O_CLOEXEC)
        stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
        streams = [in_memory(stdin) if stdin else os.open(os.devnull, os.O_RDONLY), stdout_write, stderr_write]
        talking: Talk | None = None
        if talk is not None:
            asked_read, asked_write = os.pipe2(os.O_CLOEXEC) if inputs is None else (in_memory(inputs), -1)
            answered_read, answered_write = os.pipe2(os.O_CLOEXEC)
            streams += [asked_read, answered_write]
            talking = Talk(asked_write, answered_read, limits.stdout_bytes)
        out = Drain(stdout_read, limits.stdout_bytes, lambda: self.stop("output"))
        err = Drain(stderr_read, limits.stderr_bytes, lambda: self.stop("output"))
        conversation = None
        try:
            self._send(step, streams)
            if talk is not None and talking is not None:
                conversation = asyncio.ensure_future(talk(talking))
                conversation.add_done_callback(lambda _: talking.close())
            self.patience = limits.wall + GRACE
            answer = await self._answer(self.patience)
            if answer is None:
                self.kill()
            if conversation is not None and talking is not None:
                talking.hang_up()
                await conversation
            return self._report(answer, out, err, time.monotonic() - began)
        finally:
            if conversation is not None and not conversation.done():
                conversation.cancel()
            if talking is not None:
                talking.close()
            out.close()
            err.close()

    def _report(self, answer: list[str] | None, out: Drain, err: Drain, seconds: float) -> Report:
        stdout, stderr = out.finish(), err.finish()  # what is still in the pipes may be too much
        if answer is None:
            if seconds < self.patience:
                raise CellDied("A box ended without a report.")
            return Report(None, "wall", stdout, stderr, 0.0, seconds, 0)
        if answer[0] != "done":
            raise CellDied(" ".join(answer[1:]) or "A box reported nothing known.")
        _, code, cpu, _, peak, why = answer
        why = "output" if out.over or err.over else self.stopped if why == "stopped" else why
        return Report(int(code), why, stdout, stderr, float(cpu), seconds, int(peak))

    def _send(self, step: Step, streams: list[int]) -> None:
        message = step.packed()
        if len(message) > INLINE:
            streams.insert(0, in_memory(message))
            message = IN_MEMORY
        try:
            socket.send_fds(self.control, [message], streams)
        except OSError as error:
            if not self.killed:
                raise CellDied("A box was gone before its step.") from error
        finally:
            for descriptor in streams:
                os.close(descriptor)

    async def _answer(self, seconds: float) -> list[str] | None:
        """Pid 1's report in words; None when it did not come in time, or pid 1 is gone."""
        if not await readable(self.control.fileno(), seconds):
            return None
        try:
            message = self.control.recv(CHUNK)
        except OSError:
            message = b""
        return message.decode().split(" ") if message else None


class Cell:
    """One warm interpreter behind its wall; `number` decides which user it runs as."""

    def __init__(self, tier: Tier, number: int, setting: "Setting") -> None:
        self.tier, self.number, self.setting = tier, number, setting
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket | None = None
        self.turn = asyncio.Lock()
        self.broken = False

    async def start(self) -> None:
        """Start the interpreter; CellDied with what it said where it does not come up."""
        self.broken = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = self.setting.command(self.number, theirs.fileno())
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                env={"PYTHONHASHSEED": "0"},  # the same program does the same in every run
                cwd="/", start_new_session=True, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        self.channel = ours
        ours.setblocking(False)
        if not await readable(ours.fileno(), START_SECONDS) or not _received(ours):
            raise CellDied(f"A cell did not start: {self._last_words()}")

    def _last_words(self) -> str:
        assert self.process is not None
        assert self.process.stderr is not None
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
        words = self.process.stderr.read().decode(errors="replace").strip().splitlines()
        return words[-1] if words else f"it ended with {self.process.poll()}"

    @property
    def alive(self) -> bool:
        """Whether the interpreter still runs and answers."""
        return not self.broken and self.process is not None and self.process.poll() is None

    async def open_box(self, limits: Limits, folder: str = "") -> Box:
        """A fresh box whose files may take as much room as `limits` says."""
        shape = {"disk_mib": limits.disk_mib, "shared_mib": limits.shared_mib, "inodes": limits.inodes}
        request = json.dumps(shape | ({"folder": folder} if folder else {})).encode()
        opening = asyncio.ensure_future(self._opened(request, folder))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # the cell will answer all the same, and what it says must not be taken for its next answer
            opening.add_done_callback(_close_unwanted)
            raise

    async def _opened(self, request: bytes, folder: str) -> Box:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            async with self.turn:
                with theirs:
                    message, descriptors = await self._asked(request, theirs)
            if not descriptors:
                raise CellDied(message.decode(errors="replace"))
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        return Box(ours, descriptors[0], self, folder)

    async def _asked(self, request: bytes, theirs: socket.socket) -> tuple[bytes, list[int]]:
        """The cell's answer; a cell that gives none is broken."""
        reason = "A cell is closed."
        if self.channel is not None:
            try:
                socket.send_fds(self.channel, [request], [theirs.fileno()])
                theirs.close()
                if await readable(self.channel.fileno(), OPEN_SECONDS):
                    message, descriptors, _, _ = socket.recv_fds(self.channel, CHUNK, 1)
                    if message:
                        return message, descriptors
                    reason = "A cell is gone."
                else:
                    reason = "A cell did not answer."
            except OSError as error:
                reason = f"A cell is gone: {error.strerror}."
        self.broken = True
        raise CellDied(reason)

    def close(self) -> None:
        """End the cell and everything in it."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stderr is not None:
                self.process.stderr.close()


def _close_unwanted(opening: "asyncio.Future[Box]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _received(channel: socket.socket) -> bool:
    try:
        return channel.recv(64) == b"ready"
    except OSError:
        return False


@dataclass(frozen=True)
class Setting:
    """What all cells of a sandbox have in common; `folder` is the sandbox's own, gone when it ends."""

    tier: Tier
    folder: Path
    binds: dict[str, str]
    packages: tuple[str, ...]
    bubblewrap: str = ""

    def outside(self, word: str) -> str:
        """A word of a recipe where there is no wall: places inside become those outside."""
        if self.tier == "namespaces":
            return word
        for outside, inside in (*self.binds.items(), (sys.base_prefix, wall.PYTHON)):
            word = word.replace(inside, outside)
        return word

    def command(self, number: int, channel: int) -> list[str]:
        """The words that start cell `number`, which is to talk on the descriptor `channel`."""
        code = str(Path(__file__).parents[2])
        words = ["-P", "-s", "-S", "-B", "-X", "utf8", "-c"]
        script = "import sys; sys.path.insert(0, {!r}); from codeweft.sandbox.cell import main; main()"
        facts: dict[str, Any] = {"tier": self.tier, "channel": channel, "code": code, "packages": list(self.packages)}
        user = wall.SLOT_USER + number if os.geteuid() == 0 else None
        if self.tier != "namespaces":
            facts |= {"readable": [*readable_places(), *self.binds, *self.packages], "user": user}
            executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
            return [executable, *words, script.format(code), json.dumps(facts)]
        executable, binds, environment = wall.interpreter()
        accounts = self.folder / f"etc-{number}"
        accounts.mkdir(exist_ok=True)
        binds |= self.binds | wall.write_accounts(accounts, os.geteuid() if user is None else user)
        binds[str(Path(__file__).parent)] = f"{wall.CODE}/codeweft/sandbox"
        for place in self.packages:
            binds[place] = wall.PACKAGES
        facts |= {"code": wall.CODE, "packages": [wall.PACKAGES] if self.packages else []}
        behind = wall.Wall(self.bubblewrap, user, binds, environment)
        return wall.command(behind, [executable, *words, script.format(wall.CODE), json.dumps(facts)])


def readable_places() -> list[str]:
    """What a program may read in the tier landlock: the system's programs, this interpreter, what /proc says."""
    places = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", sys.base_prefix, "/proc"]
    places += [f"/dev/{name}" for name in wall.DEVICES]
    return [place for place in places if Path(place).exists()]
