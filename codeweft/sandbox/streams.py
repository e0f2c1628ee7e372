"""What goes into a box and comes out while a step runs: sealed bytes, capped output, frames to and from a harness.

In:  descriptors, of which the other end is hostile.  Out: bytes, never more than asked for.

Unusual: nothing here waits for the end of a pipe; a program may leave one open for ever, or fill it without end.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress

CHUNK = 1 << 16
SEALS = 0x2 | 0x4 | 0x8  # F_SEAL_SHRINK, GROW, WRITE
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.008  # seconds in which frames may gather


def in_memory(content: bytes) -> int:
    """A read-only descriptor of bytes that nobody can change any more, not even through /proc/self/fd."""
    writable = os.memfd_create("step", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.truncate(writable, len(content))
        view = memoryview(content)
        while view:
            view = view[os.write(writable, view) :]
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, SEALS)
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)


async def readable(descriptor: int, seconds: float) -> bool:
    """Wait until a descriptor has something to read; False when it has not after so many seconds."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def arrived() -> None:
        if not ready.done():
            ready.set_result(True)

    loop.add_reader(descriptor, arrived)
    timer = loop.call_later(seconds, lambda: ready.done() or ready.set_result(False))
    try:
        return await ready
    finally:
        timer.cancel()
        loop.remove_reader(descriptor)


class Drain:
    """Reads a pipe as bytes come; beyond `most`, calls `overflow` once and drops the rest."""

    def __init__(self, descriptor: int, most: int, overflow: Callable[[], None]) -> None:
        self.descriptor, self.most, self.overflow = descriptor, most, overflow
        self.pieces: list[bytes] = []
        self.size, self.over = 0, False
        os.set_blocking(descriptor, False)
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(descriptor, self.read)

    def read(self) -> bool:
        """Take what is there; False where nothing is, or nothing will be."""
        try:
            piece = os.read(self.descriptor, CHUNK)
        except BlockingIOError:
            return False
        if not piece:
            self.loop.remove_reader(self.descriptor)
            return False
        room = self.most - self.size
        self.size += len(piece)
        if room > 0:
            self.pieces.append(piece[:room])
        if self.size > self.most and not self.over:
            self.over = True
            self.overflow()
        return True

    def finish(self) -> bytes:
        """What came in all, the remainder included; the writers have ended."""
        while self.read():
            pass
        self.close()
        return b"".join(self.pieces)

    def close(self) -> None:
        """Stop reading."""
        if self.descriptor >= 0:
            self.loop.remove_reader(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1


class Talk:
    """Frames to and from a harness. Frames that come are hostile: at most `most` bytes each.

    Where nothing is `asked` over it (-1), nobody waits for an answer, and frames that come are let gather for some
    milliseconds: to wake up for each of them would cost more than most calls.
    """

    def __init__(self, asked: int, answered: int, most: int) -> None:
        self.asked, self.answered, self.most = asked, answered, most
        self.buffer, self.over, self.open = bytearray(), False, True
        self.room: asyncio.Future[None] | None = None  # what a sender waits for
        self.gathering, self.ended = asked < 0, asyncio.Event()
        self.pause, self.gathered = 0.0, 0
        if asked >= 0:
            os.set_blocking(asked, False)
        os.set_blocking(answered, False)

    async def send(self, data: bytes) -> None:
        """Write frames; what nobody reads any more is dropped."""
        view, loop = memoryview(data), asyncio.get_running_loop()
        while view and self.asked >= 0:
            try:
                view = view[os.write(self.asked, view) :]
            except BlockingIOError:
                self.room = room = loop.create_future()
                loop.add_writer(self.asked, lambda room=room: room.done() or room.set_result(None))
                try:
                    await room
                finally:
                    if self.asked >= 0:
                        loop.remove_writer(self.asked)
            except BrokenPipeError:
                return

    async def receive(self) -> bytes | None:
        """The body of the next frame; None at the end, or when a frame is too long (`over`)."""
        while True:
            if len(self.buffer) >= 4:
                size = int.from_bytes(self.buffer[:4], "big")
                if size > self.most:
                    self.over = True
                    return None
                if len(self.buffer) >= 4 + size:
                    body = bytes(self.buffer[4 : 4 + size])
                    del self.buffer[: 4 + size]
                    return body
            if not self.open:
                return None
            try:
                piece = os.read(self.answered, CHUNK)
            except BlockingIOError:
                await readable(self.answered, 3600)
                if self.gathering:
                    await self._let_gather()
                continue
            if not piece:
                return None
            self.buffer += piece
            self.gathered += len(piece)

    async def _let_gather(self) -> None:
        """Pause until the end at most; longer each time, but not so long that a full pipe would stop the harness."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.pause):
                await self.ended.wait()
        longer = self.gathered < CHUNK // 2
        self.pause = min(max(self.pause * (2 if longer else 0.5), SHORTEST_PAUSE), LONGEST_PAUSE)
        self.gathered = 0

    def hang_up(self) -> None:
        """Let the harness see the end of what it is asked; whoever waits for it or to write to it need not."""
        self.ended.set()
        if self.asked >= 0:
            asyncio.get_running_loop().remove_writer(self.asked)
            os.close(self.asked)
            self.asked = -1
        if self.room is not None and not self.room.done():
            self.room.set_result(None)

    def close(self) -> None:
        """Give the descriptors back."""
        if self.open:
            self.open = False
            loop = asyncio.get_running_loop()
            self.hang_up()
            loop.remove_reader(self.answered)
            os.close(self.answered)
