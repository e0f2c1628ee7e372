"""What is refused before a request is read: foreign host names and bodies that are too long.

In:  an ASGI request.  Out: the same request with its body in memory, or 403, 408 and 413 in OpenAI's error form;
nothing for a client that leaves before its body is here.

Unusual: a page in a browser can point its own name at 127.0.0.1 (DNS rebinding) and would then be allowed to read
our answers; its requests still carry its own name in `Host`, so only loopback names and configured ones pass.
"""

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from codeweft.serve.schema import error_response

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
BODY_SECONDS = 30.0  # a client that takes longer to send its body is cut off
LINGER_SECONDS = 5.0  # that the rest of a refused body is read and dropped


def host_name(header: str) -> str:
    """The name in a Host header, without its port, in small letters.

    >>> host_name("LocalHost:8012"), host_name("[::1]:8012"), host_name("[::1]")
    ('localhost', '[::1]', '[::1]')
    """
    name, separator, port = header.rpartition(":")
    if separator and port.isdigit() and (":" not in name or name.endswith("]")):
        header = name
    return header.strip().lower()


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, allowed_hosts: tuple[str, ...], max_body_bytes: int) -> None:
        self.app = app
        self.names = {*LOOPBACK, *(name.lower() for name in allowed_hosts)}
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the host, read the body up to the limit, go on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = host_name(headers.get(b"host", ""))
        if host not in self.names and "*" not in self.names:
            message = f"The host {host[:80] or '(none)'} is not allowed; add it with --serve.allowed_hosts."
            await error_response(403, message, code="host_not_allowed")(scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await self._body(headers, receive)
        except _ClientGone:
            return
        except TimeoutError:
            message = f"The body did not arrive within {BODY_SECONDS:.0f} s."
            await error_response(408, message, headers={"Connection": "close"})(scope, receive, send)
            return
        if body is None:
            message = f"The body is longer than {self.max_body_bytes} bytes."
            refusal = error_response(413, message, code="body_too_long", headers={"Connection": "close"})
            await refusal(scope, receive, _lingering(receive, send))
            return
        await self.app(scope, _replay(body, receive), send)

    async def _body(self, headers: dict[bytes, str], receive: Receive) -> bytes | None:
        """The body, or None as soon as it is known to be too long; _ClientGone when its end will never come."""
        declared = headers.get(b"content-length", "0")
        if declared.isdigit() and int(declared[:20]) > self.max_body_bytes:
            return None
        pieces, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self.max_body_bytes:
                return None
            more = message.get("more_body", False)
        return b"".join(pieces)


class _ClientGone(Exception):
    """The connection ended within the body."""


def _lingering(receive: Receive, send: Send) -> Send:
    """A `send` that drops the rest of the request's body between the answer and its end.

    A connection that is closed while bytes arrive is reset, and the client, still sending, may never read the answer.
    """

    async def linger(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while (await receive()).get("more_body", False):
                        pass
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return linger


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body in one message and then whatever comes from the connection."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
