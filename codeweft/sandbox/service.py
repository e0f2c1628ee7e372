"""The sandbox over HTTP: SandboxFusion's `POST /run_code`, and `POST /judge` for many submissions at once.

In:  an open Sandbox, a token.  Out: `POST /run_code`, `POST /judge`, `GET /v1/info`, `GET /health`.

Unusual: nothing but /health is answered without the token, so that no page of a browser can reach it by a name of its
own. Clients that can only be given a URL carry the token as its password (http://any:TOKEN@host:8014). Whoever closes
the connection cancels what was asked on it. fastapi and uvicorn are imported when a service starts: the room has to
import without them.
"""

import asyncio
import base64
import hmac
import json
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from codeweft.base.errors import UserError
from codeweft.base.progress import say
from codeweft.sandbox import toolchains
from codeweft.sandbox.client import Sandbox, open_sandbox
from codeweft.sandbox.config import SandboxConfig
from codeweft.sandbox.shape import Json, WireError
from codeweft.sandbox.wire import (
    FUSION_REQUEST,
    FUSION_RESPONSE,
    JUDGE_REQUEST,
    JUDGE_RESPONSE,
    program_from_fusion,
    ran_to_fusion,
    verdict_to_json,
)

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")
TOKEN = "CODEWEFT_SANDBOX_TOKEN"
BODY_SECONDS = 60.0  # that a client may take to send a body
SHUTDOWN_SECONDS = 10  # that running programs get after an interrupt
KEEP_ALIVE_SECONDS = 75  # that an idle connection stays; longer than clients and load balancers keep one
LONGEST_MESSAGE = 1000  # characters of an error
CLIENT_GONE = 499  # nobody reads it; the usual number in logs
ERROR_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": {"type": "string"}, "field": {"type": ["string", "null"]}},
            "required": ["message", "field"],
        }
    },
    "required": ["error"],
}


@dataclass(frozen=True)
class ServiceConfig:
    """Where the service listens and what it refuses."""

    host: str = "127.0.0.1"
    port: int = 8014  # 0 takes any free one
    token: str = ""
    max_body_bytes: int = 64 << 20


class Refusal(Exception):
    """A request that is answered with an error: status, message, field, headers."""

    def __init__(self, status: int, message: str, field: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.field = status, message, field
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Front:
    """What every endpoint does around its own work: read the body, let in, notice who leaves."""

    def __init__(self, sandbox: Sandbox, most: int, max_body_bytes: int) -> None:
        self.sandbox, self.most, self.max_body_bytes = sandbox, most, max_body_bytes
        self.open = 0  # submissions and programs that run or wait

    @property
    def lost(self) -> str:
        """Why the sandbox answers nothing any more; empty while it does."""
        return getattr(self.sandbox, "lost", "")  # one on another machine cannot be lost, only out of reach

    async def body(self, http: "Request") -> Any:
        """The decoded JSON of a request. What is longer than allowed is read to its end and not kept.

        A connection that is closed while bytes arrive is reset, and the client would never read why.
        """
        pieces, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for piece in http.stream():
                    size += len(piece)
                    if size <= self.max_body_bytes:
                        pieces.append(piece)
        except TimeoutError:
            if size <= self.max_body_bytes:
                message = f"The body did not arrive within {BODY_SECONDS:.0f} s."
                raise Refusal(408, message, Connection="close") from None
        if size > self.max_body_bytes:
            raise Refusal(413, f"The body is longer than {self.max_body_bytes} bytes.", Connection="close")
        return await asyncio.to_thread(_decoded, b"".join(pieces))

    async def work(self, http: "Request", count: int, job: Callable[[], Awaitable[T]]) -> T:
        """Do a job of so many submissions, unless there are too many; it is cancelled when the client leaves."""
        with self._place(count):
            working = asyncio.ensure_future(job())
            watching = asyncio.ensure_future(_departure(http))
            watching.add_done_callback(lambda _: working.cancel())
            try:
                return await working
            except asyncio.CancelledError:
                if watching.done():
                    raise Refusal(CLIENT_GONE, "The client left.") from None
                raise
            except UserError as error:
                if self.lost:
                    raise Refusal(503, str(error)) from error
                raise
            finally:
                watching.cancel()

    @contextmanager
    def _place(self, count: int) -> Generator[None]:
        if count > self.most:
            raise Refusal(400, f"{count} submissions are too many; at most {self.most} in one request.", "submissions")
        if self.open + count > self.most:
            raise Refusal(429, f"{self.open} submissions run or wait; try again shortly.", Retry_After="1")
        self.open += count
        try:
            yield
        finally:
            self.open -= count


async def _departure(http: "Request") -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _decoded(body: bytes) -> Any:
    def refuse(word: str) -> None:
        raise WireError("", f"the body is not JSON: {word} is no number of JSON")

    try:
        return json.loads(body, parse_constant=refuse)
    except RecursionError as error:
        raise WireError("", "the body is nested too deep") from error
    except ValueError as error:
        raise WireError("", f"the body is not JSON: {error}") from error


class Door:
    """ASGI middleware that lets nobody in without the token, but to /health."""

    def __init__(self, app: Any, token: str) -> None:
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Look at the Authorization header, go on or refuse."""
        if scope["type"] == "http" and scope["path"] != "/health":
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(_token_in(given), self.token):
                refusal = Refusal(401, "The token is missing or wrong.", WWW_Authenticate="Bearer")
                await _refused(refusal)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _token_in(header: bytes) -> bytes:
    """The token of an Authorization header: a bearer's, or the password of a URL's `name:password@`.

    >>> _token_in(b"Bearer abc"), _token_in(b"Basic " + base64.b64encode(b"any:abc"))
    (b'abc', b'abc')
    """
    scheme, _, given = header.partition(b" ")
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(given, validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return given.strip() if scheme.lower() == b"bearer" else b""


def create_app(sandbox: Sandbox, config: SandboxConfig, service: ServiceConfig) -> "FastAPI":
    """The application around an open sandbox."""
    from fastapi import Depends, FastAPI
    from fastapi.security import HTTPBearer
    from starlette.requests import Request
    from starlette.responses import Response

    assert service.token, "a service without a token would run anybody's programs"
    front = Front(sandbox, config.waiting, service.max_body_bytes)
    app = FastAPI(title="codeweft sandbox", version=version("codeweft"), docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False
    app.add_middleware(Door, token=service.token)
    _install_error_answers(app)
    locked = [Depends(HTTPBearer(auto_error=False))]  # for the published schema; the door has looked already

    @app.post("/run_code", dependencies=locked, **_published(FUSION_RESPONSE.schema, _runnable()))
    async def run_code(http: Request) -> Response:
        program = program_from_fusion(await front.body(http), lambda language: _toolchain(language, "language").limits)
        return _answer(ran_to_fusion(await front.work(http, 1, lambda: sandbox.run(program))))

    @app.post("/judge", dependencies=locked, **_published(JUDGE_RESPONSE.schema, JUDGE_REQUEST.schema))
    async def judge(http: Request) -> Response:
        body = await front.body(http)
        submissions = (await asyncio.to_thread(JUDGE_REQUEST.read, body, ""))["submissions"]
        for index, submission in enumerate(submissions):
            _toolchain(submission.language, f"submissions[{index}].language")
        verdicts = await front.work(http, len(submissions), lambda: sandbox.judge_all(submissions))
        return _answer({"verdicts": [verdict_to_json(verdict) for verdict in verdicts]})

    @app.get("/v1/info", dependencies=locked, **_published({"type": "object"}))
    async def info() -> Response:
        languages = await asyncio.to_thread(toolchains.as_table)
        return _answer(
            {
                "service": "codeweft",
                "version": app.version,
                "tier": sandbox.tier,
                "facts": sandbox.facts,
                "open": front.open,
                "most": front.most,
                "max_body_bytes": front.max_body_bytes,
                "languages": [{"language": name, "version": found, "install": hint} for name, found, hint in languages],
            }
        )

    @app.get("/health", **_published({"type": "object"}))
    async def health() -> Response:
        return _answer({"status": front.lost or "ok", "open": front.open}, 503 if front.lost else 200)

    return app


def _toolchain(language: str, place: str) -> toolchains.Toolchain:
    try:
        return toolchains.find(language)
    except UserError as error:
        raise WireError(place, str(error)) from error


def _runnable() -> Json:
    """The schema of `POST /run_code` with the names of the languages; capital letters in them are taken too."""
    known = toolchains.all_toolchains().values()
    names = sorted({name for toolchain in known for name in (toolchain.name, *toolchain.aliases)})
    schema = FUSION_REQUEST.schema
    return schema | {"properties": schema["properties"] | {"language": {"type": "string", "enum": names}}}


def _published(answer: Json, body: Json | None = None) -> dict[str, Any]:
    """What OpenAPI says of an endpoint; the body is read and checked by wire.py."""
    told = {200: answer} | dict.fromkeys((400, 401, 408, 413, 429, 503) if body else (401, 503), ERROR_SCHEMA)
    words = {200: "Done", 400: "A field is wrong", 401: "No token", 408: "A body too slow", 413: "A body too long"}
    words |= {429: "Too much is waiting", 503: "The sandbox has ended"}
    responses = {
        status: {"description": words[status], "content": {"application/json": {"schema": schema}}}
        for status, schema in told.items()
    }
    extra = {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}} if body else None
    return {"response_model": None, "responses": responses, "openapi_extra": extra}


def _answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Response":
    from starlette.responses import Response

    # in ASCII: what a program printed may be no text that UTF-8 can hold
    return Response(json.dumps(content), status, headers, "application/json")


def _refused(refusal: Refusal) -> "Response":
    message = refusal.message if len(refusal.message) <= LONGEST_MESSAGE else f"{refusal.message[:LONGEST_MESSAGE]} …"
    return _answer({"error": {"message": message, "field": refusal.field}}, refusal.status, refusal.headers)


def _install_error_answers(app: "FastAPI") -> None:
    """Every error as `{"error": {"message", "field"}}`; what is not foreseen is 500 and a traceback in the output."""
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    def refusal_for(error: Exception) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, ClientDisconnect):
            return Refusal(CLIENT_GONE, "The client left.")
        if isinstance(error, UserError):
            return Refusal(400, str(error), getattr(error, "field", None))
        if isinstance(error, HTTPException):
            told = {
                404: "There is only /run_code, /judge, /v1/info and /health here.",
                405: "Another method is wanted.",
            }
            refusal = Refusal(error.status_code, told.get(error.status_code, f"{error.detail}."))
            refusal.headers = dict(error.headers or {})
            return refusal
        return Refusal(500, f"The service made a mistake: {type(error).__name__}; see its output.")

    async def answer(_: "Request", error: Exception) -> "Response":
        return _refused(refusal_for(error))

    for kind in (Refusal, ClientDisconnect, UserError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


# --- running it ----------------------------------------------------------------------------------------------------


def serve(config: SandboxConfig, service: ServiceConfig) -> int:
    """`codeweft sandbox serve`: answer until SIGTERM (returns 0) or Ctrl-C (KeyboardInterrupt)."""
    made = not (service.token or os.environ.get(TOKEN))
    service = replace(service, token=service.token or os.environ.get(TOKEN) or secrets.token_urlsafe(24))
    with _listening(service) as listening:
        interrupted = asyncio.run(_serve(config, service, listening, made))
    say("the sandbox has ended.")
    if interrupted:
        raise KeyboardInterrupt
    return 0


async def _serve(config: SandboxConfig, service: ServiceConfig, listening: socket.socket, made: bool) -> bool:
    import uvicorn

    class Server(uvicorn.Server):
        """Uvicorn without its own signals, which would end the sandbox in the middle of its closing."""

        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    async with open_sandbox(config) as sandbox:
        app = create_app(sandbox, config, service)
        settings = uvicorn.Config(
            app,
            ws="none",
            log_level="error",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        server, caught = Server(settings), []

        def end(received: signal.Signals) -> None:
            server.force_exit = bool(caught)
            server.should_exit = True
            caught.append(received)

        for each in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(each, end, each)
        _announce(sandbox, service, listening.getsockname()[1], made)
        await server.serve(sockets=[listening])
    return signal.SIGINT in caught


@contextmanager
def _listening(service: ServiceConfig) -> Generator[socket.socket]:
    """A listening socket; UserError when the address or the port cannot be had."""
    if not 0 <= service.port <= 65535:
        raise UserError(f"--port {service.port} is not a port.", "Ports go from 0 (any free one) to 65535.")
    family = socket.AF_INET6 if ":" in service.host else socket.AF_INET
    try:
        listening = socket.create_server((service.host, service.port), family=family, backlog=1024)
    except OSError as error:
        place = f"{service.host} port {service.port}"
        raise UserError(f"Cannot listen on {place}: {error.strerror}.", "Choose others: --host, --port.") from error
    with listening:
        yield listening


def _announce(sandbox: Sandbox, service: ServiceConfig, port: int, made: bool) -> None:
    host = f"[{service.host}]" if ":" in service.host else service.host
    url = f"http://{host}:{port}"
    say(f"the sandbox listens on {url} (tier {sandbox.tier}).")
    if made:
        say(f"its token, made for this start and told only here: {service.token}")
    if service.host not in ("127.0.0.1", "::1", "localhost"):
        say("whoever has the token can run programs, and nothing is encrypted: keep it in a private network.")
    body = '{"language": "python", "code": "print(6 * 7)"}'
    say(f"try: curl {url}/run_code -H \"Authorization: Bearer ${TOKEN}\" -d '{body}'")
