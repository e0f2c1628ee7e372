"""The outside of cells and boxes, piece by piece, against other ends that this test plays itself."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from codeweft.sandbox import cells
from codeweft.sandbox.cells import Box, Cell, CellDied, Setting
from codeweft.sandbox.config import Limits
from codeweft.sandbox.conversations import Calls, Together, checked
from codeweft.sandbox.plain import PlainError, dumps
from codeweft.sandbox.streams import Drain, Talk, in_memory
from codeweft.sandbox.tests_sent import TestSet


def test_what_a_box_reads_cannot_be_changed_by_it():
    descriptor = in_memory(b"content")
    try:
        assert os.read(descriptor, 100) == b"content"
        for change in (lambda: os.write(descriptor, b"x"), lambda: os.truncate(descriptor, 0)):
            with pytest.raises(OSError, match=r"Bad file|Invalid|not permitted"):
                change()
        with pytest.raises(PermissionError), Path(f"/proc/self/fd/{descriptor}").open("r+b", buffering=0) as again:
            again.write(b"x")
    finally:
        os.close(descriptor)


# --- opening boxes -------------------------------------------------------------------------------------------------


class Played:
    """A cell whose interpreter is this test."""

    def __init__(self) -> None:
        self.cell = Cell("namespaces", 0, Setting("namespaces", Path(), {}, ()))
        self.cell.channel, self.inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.cell.channel.setblocking(False)
        self.cell.process = subprocess.Popen(["sleep", "60"])
        self.started: list[subprocess.Popen[bytes]] = []

    def open(self) -> asyncio.Task[Box]:
        return asyncio.ensure_future(self.cell.open_box(Limits()))

    def answer(self) -> int:
        """Take one request and answer it with a new process, whose number is returned."""
        message, descriptors, _, _ = socket.recv_fds(self.inside, 4096, 1)
        assert "disk_mib" in json.loads(message)
        os.close(descriptors[0])
        self.started.append(subprocess.Popen(["sleep", "60"]))
        pidfd = os.pidfd_open(self.started[-1].pid)
        socket.send_fds(self.inside, [b"open"], [pidfd])
        os.close(pidfd)
        return self.started[-1].pid

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        self.inside.close()
        self.cell.close()


@pytest.fixture
def played() -> Any:
    made = Played()
    yield made
    made.close()


def ends(process: subprocess.Popen[bytes]) -> bool:
    try:
        return process.wait(5) == -signal.SIGKILL
    except subprocess.TimeoutExpired:
        return False


def test_the_answer_to_a_cancelled_opening_is_not_taken_for_the_next_one(played: Played):
    async def cancel_one() -> None:
        first = played.open()
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = played.open()
        await asyncio.sleep(0.01)
        unwanted, wanted = played.answer(), None
        await asyncio.sleep(0.01)
        wanted = played.answer()
        box = await second
        numbers = Path(f"/proc/self/fdinfo/{box.pidfd}").read_text()
        assert f"Pid:\t{wanted}\n" in numbers
        assert str(unwanted) not in numbers
        box.close()

    asyncio.run(cancel_one())
    assert all(map(ends, played.started))  # the unwanted one as well


def test_a_cell_that_does_not_answer_is_broken(played: Played, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cells, "OPEN_SECONDS", 0.1)
    assert played.cell.alive
    with pytest.raises(CellDied, match="did not answer"):
        asyncio.run(played.cell.open_box(Limits()))
    assert not played.cell.alive


def test_a_cell_that_is_gone_is_broken(played: Played):
    played.inside.close()
    with pytest.raises(CellDied, match="gone"):
        asyncio.run(played.cell.open_box(Limits()))
    assert not played.cell.alive


def test_a_cell_that_cannot_open_a_box_says_why_and_lives_on(played: Played):
    async def refuse() -> None:
        opening = played.open()
        await asyncio.sleep(0.01)
        played.inside.recv(4096)
        played.inside.send(b"fork: Resource temporarily unavailable")
        with pytest.raises(CellDied, match="fork: Resource temporarily unavailable"):
            await opening

    asyncio.run(refuse())
    assert played.cell.alive


# --- pipes ---------------------------------------------------------------------------------------------------------


def talk() -> tuple[Talk, int, int]:
    asked_read, asked_write = os.pipe()
    answered_read, answered_write = os.pipe()
    return Talk(asked_write, answered_read, 100), asked_read, answered_write


def test_whoever_writes_to_a_harness_that_does_not_read_is_let_go_when_it_ends():
    async def write_much() -> None:
        ours, asked, answered = talk()
        sending = asyncio.ensure_future(ours.send(bytes(1 << 20)))
        await asyncio.sleep(0.02)
        assert not sending.done()
        ours.hang_up()
        async with asyncio.timeout(2):
            await sending
            await ours.send(b"dropped")
        ours.close()
        os.close(asked)
        os.close(answered)

    asyncio.run(write_much())


def test_frames_come_whole_however_they_are_cut_and_too_long_ones_not_at_all():
    async def read() -> None:
        ours, asked, answered = talk()
        data = b"\0\0\0\2ab" + b"\0\0\0\0" + b"\0\0\0\144" + b"x" * 100
        pieces = [data[place : place + 7] for place in range(0, len(data), 7)]

        async def write() -> None:
            for piece in pieces:
                os.write(answered, piece)
                await asyncio.sleep(0.001)

        writing = asyncio.ensure_future(write())
        assert [await ours.receive() for _ in range(3)] == [b"ab", b"", b"x" * 100]
        await writing
        os.write(answered, b"\0\0\0\145" + b"x" * 101)
        assert await ours.receive() is None
        assert ours.over
        ours.close()
        os.close(asked)
        os.close(answered)

    asyncio.run(read())


def test_frames_that_nobody_waits_for_gather_and_all_are_there_at_the_end():
    async def read() -> None:
        answered_read, answered_write = os.pipe()
        ours, looks = Talk(-1, answered_read, 100), 0
        pause = ours._let_gather

        async def counted() -> None:
            nonlocal looks
            looks += 1
            await pause()

        ours._let_gather = counted  # ty: ignore[invalid-assignment]

        async def write() -> None:
            for number in range(200):
                os.write(answered_write, b"\0\0\0\1%c" % number)
                await asyncio.sleep(0.0005)
            ours.hang_up()
            os.close(answered_write)

        writing = asyncio.ensure_future(write())
        bodies = []
        while (body := await ours.receive()) is not None:
            bodies.append(body)
        await writing
        assert bodies == [bytes([number]) for number in range(200)]
        assert looks < 100
        ours.close()

    asyncio.run(read())


def test_a_pause_ends_with_the_conversation():
    async def read() -> None:
        answered_read, answered_write = os.pipe()
        ours = Talk(-1, answered_read, 100)
        ours.pause = 60.0
        receiving = asyncio.ensure_future(ours.receive())
        await asyncio.sleep(0)
        os.write(answered_write, b"\0\0\0\1x")
        await asyncio.sleep(0.05)
        assert not receiving.done()
        ours.hang_up()
        async with asyncio.timeout(2):
            assert await receiving == b"x"
        ours.close()
        os.close(answered_write)

    asyncio.run(read())


@pytest.mark.parametrize(("size", "over"), [(100, False), (101, True), (10**6, True)])
def test_output_beyond_its_limit_is_dropped_and_told_once(size: int, over: bool):
    async def read() -> None:
        reading, writing = os.pipe()
        told: list[None] = []
        drain = Drain(reading, 100, lambda: told.append(None))
        os.set_blocking(writing, False)
        left = bytes(size)
        while left:
            try:
                left = left[os.write(writing, left) :]
            except BlockingIOError:
                await asyncio.sleep(0.001)
        os.close(writing)
        assert drain.finish() == bytes(min(size, 100))
        assert len(told) == int(over)

    asyncio.run(read())


# --- what hostile frames say ---------------------------------------------------------------------------------------

DEEP: Any = json.loads("[" * 700 + "]" * 700)
FRAMES: list[Any] = [
    {}, [], None, 5, "x", {"value": 5}, {"value": None}, {"value": []}, {"value": "x"}, {"value": dumps(1)},
    {"raised": 5}, {"raised": []}, {"raised": [1, 2]}, {"raised": [DEEP, DEEP]}, {"raised": DEEP}, {"not_plain": 5},
    {"not_plain": DEEP}, {"not_plain": None}, {"ready": True}, {"value": dumps(5), "raised": ["E", "x"]}, DEEP,
    {"raised": ["\x1b[31m\n" * 100, "\0" * 10000]}, {"token": "x", "test": 0}, {"ok": True, "test": 0, "token": DEEP},
    {"ok": False, "error": DEEP}, {"uncompilable": DEEP},
]  # fmt: skip

REQUEST: dict[str, Any] = {
    "tests": TestSet([{"kind": "call", "args": dumps(()), "expected": dumps(7)}]), "stop_early": True, "tolerance": 0.0,
    "entry_point": "f",
}  # fmt: skip


@pytest.mark.parametrize("said", FRAMES, ids=range(len(FRAMES)))
def test_no_frame_passes_a_test_it_does_not_answer_or_breaks_the_judge(said: Any):
    body = json.dumps(said).encode()
    for conversation in (Calls(REQUEST), Together(REQUEST, "token")):
        for bodies in ((body,), (b'{"ready":true}', body)):
            said_so: Any = Said(*bodies)
            asyncio.run(conversation.hold(said_so, said_so))
            assert conversation.passed == 0
            assert conversation.detail.isprintable()
            assert len(conversation.detail) <= 400
    try:
        answer = checked(said if isinstance(said, dict) else {})
    except PlainError:
        return
    assert len(json.dumps(answer)) < 4000


class Said:
    """The other end of a conversation, with all it says known beforehand."""

    over = False

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = [*bodies]

    async def receive(self) -> bytes | None:
        return self.bodies.pop(0) if self.bodies else None

    async def send(self, _: bytes) -> None: ...

    def hang_up(self) -> None: ...

    def stop(self, _: str) -> None: ...


def readable(depth: int) -> bool:
    try:
        json.loads("[" * depth + "]" * depth)
    except RecursionError:
        return False
    return True


@pytest.mark.parametrize("name", ["not_plain", "raised", "uncompilable", "value", "error"])
def test_nesting_that_can_be_read_but_not_printed_breaks_nothing(name: str):
    """The reader's stack and the printer's are nearly the same; every depth around their end is tried."""

    async def try_all() -> None:
        deepest = next(depth for depth in range(1000, 0, -1) if readable(depth))
        for depth in range(deepest - 20, deepest + 5):
            nested = b"[" * depth + b"]" * depth
            body = b'{"%s":[%s,%s],"ok":false}' % (name.encode(), nested, nested)
            for conversation in (Calls(REQUEST), Together(REQUEST, "token")):
                said: Any = Said(b'{"ready":true}', body)
                await conversation.hold(said, said)
                await conversation.hold(Said(body), said)  # ty: ignore[invalid-argument-type]
                assert conversation.passed == 0

    asyncio.run(try_all())
