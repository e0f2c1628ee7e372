"""One connection: uvicorn's HTTP/1.1, with an end to waiting for a client that sends or reads too slowly.

In:  bytes of a client.  Out: ASGI requests, or 400, 408 and 503 in OpenAI's error form where no request comes of them.

Unusual: uvicorn waits without limit for the rest of a head, for the rest of a body that was answered early, and for a
client that does not read. Each such client would hold a connection of which there are only so many.
"""

import asyncio
import sys
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from codeweft.serve.schema import error_response

if sys.platform != "win32":
    import resource

HEAD_SECONDS = 10.0  # for a request's line and headers, and for the rest of a body that is answered already
READ_SECONDS = 30.0  # that a client may leave what was sent to it unread
ENOUGH_FILES = 4096  # that the process asks the system for; connections are files


def connection_limits() -> tuple[int, int]:
    """How many connections to hold, and how many to accept in one turn, so that the system never refuses a file.

    When it does, asyncio of Python 3.11 tries again as often as it may accept, with a traceback each time. A turn's
    connections are four turns old before those that are too many are closed. Asks the system for more files first.
    """
    if sys.platform == "win32":
        files = ENOUGH_FILES
    else:
        files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY and files < ENOUGH_FILES:
            files = ENOUGH_FILES if most == resource.RLIM_INFINITY else min(most, ENOUGH_FILES)
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
        files = ENOUGH_FILES if files == resource.RLIM_INFINITY else files
    return max(files // 2, 1), max(files // 16, 1)


class Connection(H11Protocol):
    """A connection that ends where its client keeps it waiting, or where there are too many."""

    most = ENOUGH_FILES  # connections of this process at the same time

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.until_head: asyncio.TimerHandle | None = None
        self.until_read: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._refuse(503, f"{self.most} connections are open; try again shortly.", {"Retry-After": "1"})
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._unset_keepalive_if_required()  # uvicorn forgets it where the connection was reset
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; those that leave the request incomplete do not start its time anew."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        else:
            self._await_head()

    def on_response_complete(self) -> None:
        """Give the client its time to read the end of the answer."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._await_reading()

    def pause_writing(self) -> None:
        """Give the client its time to read, now that much is waiting for it."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        super().resume_writing()
        self._stop_reading_time()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request (called by uvicorn) and close."""
        self._refuse(400, f"{msg} Send HTTP/1.1 with a head of at most 64 KiB.")

    def _refuse(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = error_response(status, message, headers={"Connection": "close", **(headers or {})})
            reason = HTTPStatus(status).phrase.encode()
            head = h11.Response(status_code=status, headers=answer.raw_headers, reason=reason)
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        if self.until_head is None and not self.transport.is_closing():
            self.until_head = self.loop.call_later(HEAD_SECONDS, self._no_head)

    def _no_head(self) -> None:
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(408, f"The request's head did not arrive within {HEAD_SECONDS:.0f} s.")
        else:
            self.transport.abort()

    def _await_reading(self) -> None:
        self._stop_reading_time()
        self.until_read = self.loop.call_later(READ_SECONDS, self._not_read)

    def _not_read(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _stop_reading_time(self) -> None:
        if self.until_read is not None:
            self.until_read.cancel()
            self.until_read = None

    def _stop_waiting(self) -> None:
        self._stop_reading_time()
        if self.until_head is not None:
            self.until_head.cancel()
            self.until_head = None
