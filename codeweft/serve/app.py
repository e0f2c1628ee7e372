"""The HTTP server: OpenAI's completion endpoint with `suffix`, on loopback names, for any number of clients.

In:  an engine or a model folder, and ServeConfig.  Out: `POST /v1/completions`, `GET /v1/models`, `GET /health`.

Unusual: whoever closes the connection cancels what was asked on it. No CORS headers: pages of other origins cannot
read an answer. A prompt that does not fit is an error, never cut.
"""

import asyncio
import json
import secrets
import signal
import socket
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from codeweft.base.errors import UserError
from codeweft.base.progress import say
from codeweft.base.seeds import derive
from codeweft.base.sizes import bytes_of
from codeweft.engine.engine import Engine
from codeweft.engine.request import Completion, Finish, Piece, Request, join
from codeweft.serve.completion import require_fim
from codeweft.serve.config import ServeConfig
from codeweft.serve.connection import Connection, connection_limits
from codeweft.serve.guard import LOOPBACK, Guard
from codeweft.serve.schema import (
    Choice,
    CompletionRequest,
    CompletionResponse,
    Usage,
    error_response,
    explain,
)
from codeweft.serve.worker import Answers, Worker, WorkerStopped
from codeweft.tokenizer.fim import infill_prompt

MOST_COMPLETIONS = 128  # of one HTTP request: prompts times n
READERS = 4  # requests whose prompts are cut in tokens at the same time: a long one takes memory
WAITING_CONNECTIONS = 1024  # that the system queues before they are accepted
KEEP_ALIVE_SECONDS = 75  # that an idle connection stays; longer than clients keep one, so that none is closed in use
SHUTDOWN_SECONDS = 3.0  # that running completions get after an interrupt; what is left then is told and ended
FAREWELL_SECONDS = 1.0  # that clients get then to read it, or to finish a request they had begun to send
CLIENT_GONE = 499  # nobody reads it; the usual number in logs


def create_app(engine: Engine, config: ServeConfig) -> FastAPI:
    """The application around one engine; its thread runs from startup to shutdown."""
    worker = Worker(engine)
    name = config.name or "codeweft"

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        worker.start()
        yield
        await run_in_threadpool(worker.stop)

    app = FastAPI(
        title="codeweft", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.worker = worker
    app.add_middleware(Guard, allowed_hosts=config.allowed_hosts, max_body_bytes=config.max_body_bytes)
    _install_error_answers(app)
    started = int(time.time())
    reading = asyncio.Semaphore(READERS)

    @app.post("/v1/completions", response_model=None, responses={200: {"model": CompletionResponse}})
    async def completions(body: CompletionRequest, http: HttpRequest) -> Response:
        async with reading:
            requests = await run_in_threadpool(engine_requests, engine, body, config)
        if worker.open + len(requests) > config.queue:
            message = f"{worker.open} completions are running or waiting; try again shortly."
            return error_response(503, message, code="queue_full", headers={"Retry-After": "1"})
        head = CompletionResponse(id=f"cmpl-{secrets.token_hex(12)}", created=int(time.time()), model=name, choices=[])
        prompt_tokens = sum(len(request.prompt) for request in requests[:: body.count])
        answers = worker.submit(requests)  # nothing is awaited since the queue was looked at
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            usage = prompt_tokens if with_usage else None
            return EventStream(stream(answers, head, usage, bool(body.return_token_ids)), answers)
        try:
            return await _unless_gone(http, whole(answers, head, prompt_tokens, bool(body.return_token_ids)))
        finally:
            answers.close()

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        model = {"id": name, "object": "model", "created": started, "owned_by": "codeweft"}
        return {"object": "list", "data": [model]}

    @app.get("/health")
    async def health() -> JSONResponse:
        status = "ok" if worker.alive else "the engine has stopped; see the server's output and start it again"
        facts = {"status": status, "open": worker.open, **engine.guesses}
        return JSONResponse(facts, 200 if worker.alive else 503)

    return app


def engine_requests(engine: Engine, body: CompletionRequest, config: ServeConfig) -> list[Request]:
    """One engine request for each completion asked, prompt by prompt; UserError when one cannot be run.

    The first completion of each prompt draws with the given seed, the others with seeds derived from it.
    """
    prompts = body.prompts
    if len(prompts) * body.count > MOST_COMPLETIONS:
        raise UserError(
            f"{len(prompts)} prompts times n = {body.count}.", f"At most {MOST_COMPLETIONS} in one request."
        )
    if len(prompts) * body.count > config.queue:
        raise UserError(
            f"{len(prompts)} prompts times n = {body.count}.", f"This server runs at most {config.queue} together."
        )
    if body.suffix:
        require_fim(engine, config.assume_fim, "start the server with --serve.assume_fim=true")
    seed = secrets.randbits(63) if body.seed is None else body.seed
    requests = []
    for prompt in prompts:
        ids = _prompt_ids(engine, prompt, body.suffix)
        for choice in range(body.count):
            request = Request(
                ids,
                max_tokens=16 if body.max_tokens is None else body.max_tokens,
                temperature=1.0 if body.temperature is None else body.temperature,
                top_p=1.0 if body.top_p is None else body.top_p,
                stop=body.stops,
                stop_line=bool(body.stop_line),
                stop_indent=body.stop_indent,
                stop_bracket=bool(body.stop_bracket),
                max_ms=body.max_ms,
                seed=derive(seed, "choice", choice) if choice else seed,
            )
            engine.check(request)
            requests.append(request)
    return requests


def _prompt_ids(engine: Engine, prompt: str | list[int], suffix: str | None) -> tuple[int, ...]:
    if not isinstance(prompt, str):
        return tuple(prompt)
    engine.check_text(prompt, suffix or "")
    return tuple(infill_prompt(engine.tokenizer, prompt, suffix)) if suffix else engine.prompt(prompt)


async def whole(answers: Answers, head: CompletionResponse, prompt_tokens: int, with_ids: bool) -> Response:
    """All completions in one answer, with the ids of their tokens where asked."""
    pieces: list[list[Piece]] = [[] for _ in answers.tickets]
    async for index, piece in answers:
        pieces[index].append(piece)
    done = [join(each) for each in pieces]
    head.choices = [_choice(index, completion, with_ids) for index, completion in enumerate(done)]
    head.usage = _usage(prompt_tokens, sum(len(completion.tokens) for completion in done))
    return JSONResponse(head.model_dump())


def _choice(index: int, completion: Completion, with_ids: bool) -> Choice:
    ids = list(completion.tokens) if with_ids else None
    return Choice(text=completion.text, index=index, finish_reason=_reason(completion.finish), token_ids=ids)


def _reason(finish: Finish | None) -> str | None:
    """A deadline is `length` to clients, as any text is that was cut: they know no other word."""
    return "length" if finish == "deadline" else finish


def _usage(prompt_tokens: int, drawn: int) -> Usage:
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=drawn, total_tokens=prompt_tokens + drawn)


async def stream(
    answers: Answers, head: CompletionResponse, prompt_tokens: int | None, with_ids: bool
) -> AsyncGenerator[str]:
    """Server-sent events: a chunk for each piece that shows text or ends, the usage where asked, `[DONE]`.

    With ids, a chunk tells the tokens drawn since the last one: those whose text is held back come with a later one.
    """
    drawn = 0
    untold: list[list[int]] = [[] for _ in answers.tickets]
    fields = head.model_dump(exclude={"usage"} if prompt_tokens is None else None)
    try:
        async for index, piece in answers:
            drawn += len(piece.tokens)
            untold[index] += piece.tokens
            if piece.text or piece.finish:
                choice = Choice(text=piece.text, index=index, finish_reason=_reason(piece.finish))
                choice.token_ids, untold[index] = untold[index] if with_ids else None, []
                yield _event(fields | {"choices": [choice.model_dump()]})
    except WorkerStopped as error:
        yield _event({"error": {"message": str(error), "type": "server_error", "param": None, "code": None}})
        return
    if prompt_tokens is not None:
        yield _event(fields | {"usage": _usage(prompt_tokens, drawn).model_dump()})
    yield "data: [DONE]\n\n"


def _event(content: dict[str, object]) -> str:
    return f"data: {json.dumps(content)}\n\n"  # in ASCII: some clients end a line at U+2028 or U+0085 too


class EventStream(StreamingResponse):
    """A stream whose requests are cancelled as soon as the client is gone."""

    def __init__(self, events: AsyncGenerator[str], answers: Answers) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self.events, self.answers = events, answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end or the disconnection."""
        try:
            async with aclosing(self.events):
                await super().__call__(scope, receive, send)
        finally:
            self.answers.close()


async def _unless_gone(http: HttpRequest, answer: Coroutine[None, None, Response]) -> Response:
    """The answer, or nothing when the client closes the connection first; its requests are cancelled then."""
    work = asyncio.create_task(answer)
    gone = asyncio.create_task(_disconnection(http))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else Response(status_code=CLIENT_GONE)
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnection(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _install_error_answers(app: FastAPI) -> None:
    """Every error in OpenAI's form; what is not foreseen here is 500 and a traceback in the server's output."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: HttpRequest, error: RequestValidationError) -> JSONResponse:
        message, field = explain(error.errors())
        return error_response(400, message, param=field)

    @app.exception_handler(UserError)
    async def refused(_: HttpRequest, error: UserError) -> JSONResponse:
        return error_response(400, str(error))

    @app.exception_handler(HTTPException)
    async def http_error(http: HttpRequest, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        told = {
            404: f"There is no {http.url.path} here, only /v1/completions, /v1/models and /health.",
            405: f"{http.url.path} does not take {http.method}.",
        }
        return error_response(error.status_code, told.get(error.status_code, f"{error.detail}."), headers=headers)

    @app.exception_handler(WorkerStopped)
    async def stopped(_: HttpRequest, error: WorkerStopped) -> JSONResponse:
        return error_response(503, f"{error} See the server's output and start it again.")

    @app.exception_handler(Exception)
    async def unforeseen(_: HttpRequest, error: Exception) -> JSONResponse:
        return error_response(500, f"The server made a mistake: {type(error).__name__}; see its output.")


class Server(uvicorn.Server):
    """Uvicorn, ending in good order: first no new connections, then no new tokens, then no server."""

    def __init__(self, app: FastAPI) -> None:
        Connection.most, at_once = connection_limits()
        # Its warnings tell what clients do wrong, and they are told themselves; its errors are ours.
        config = uvicorn.Config(
            app,
            http=Connection,
            backlog=at_once,
            ws="none",
            log_level="error",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=30,
        )
        super().__init__(config)
        self.worker: Worker = app.state.worker
        self.ending: asyncio.AbstractEventLoop | None = None  # the loop, once the end has begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, with more room for those who knock than are let in at one turn."""
        await super().startup(sockets)
        for listening in sockets or []:
            listening.listen(WAITING_CONNECTIONS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give running completions their seconds; stop the engine, which answers all who wait; leave who lingers."""
        self.ending = loop = asyncio.get_running_loop()
        last_call = loop.call_later(SHUTDOWN_SECONDS, self.worker.ask_to_stop)
        farewell = loop.call_later(SHUTDOWN_SECONDS + FAREWELL_SECONDS, self._hang_up)
        await super().shutdown(sockets)
        last_call.cancel()
        farewell.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in good order at the first signal, without the seconds for others at a second one."""
        if not self.should_exit:
            super().handle_exit(sig, frame)
        elif self.ending is not None:
            self.ending.call_soon_threadsafe(self.worker.ask_to_stop)
            self.ending.call_soon_threadsafe(self._hang_up)

    def _hang_up(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def run(config: ServeConfig, model_folder: Path) -> int:
    """`codeweft serve`: answer until SIGTERM (returns 0) or Ctrl-C (KeyboardInterrupt); both end cleanly."""
    model_folder = Path(model_folder)
    listening = listen(config)
    with listening:
        memory = bytes_of(config.memory) if config.memory else None
        engine = Engine.load(
            model_folder, rows=config.rows, max_length=config.max_length, memory=memory, guess=config.guess
        )
        config = replace(config, name=config.name or model_name(model_folder))
        server = Server(create_app(engine, config))

        def end(*_: object) -> None:
            server.should_exit = True

        before = signal.signal(signal.SIGTERM, end)  # uvicorn puts its own in place and raises the signal again after
        try:
            _announce(config, engine, listening.getsockname()[1])
            server.run(sockets=[listening])
        finally:
            signal.signal(signal.SIGTERM, before)
    say("the server has ended.")
    return 0


def listen(config: ServeConfig) -> socket.socket:
    """A listening socket; UserError when the address or the port cannot be had."""
    place = f"{config.host}:{config.port}"
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        # With its protocol named, asyncio turns Nagle's delay off: 40 ms less for each answer on a kept connection.
        listening = socket.socket(*found[:3])
    except socket.gaierror as error:
        raise UserError(f"{config.host} is not an address of this machine.", "Try --host 127.0.0.1.") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(found[4])
        listening.listen(WAITING_CONNECTIONS)
    except OSError as error:
        listening.close()
        raise UserError(
            f"Cannot listen on {place}: {error.strerror}.",
            "Stop what listens there or choose another port, such as --port 8013; 0 takes any free one.",
        ) from error
    return listening


def model_name(folder: Path) -> str:
    """The id shown to clients: the folder's name, or run and stage for `runs/NAME/STAGE/model`.

    >>> model_name(Path("runs/toy/pretrain/model"))
    'toy-pretrain'
    """
    folder = folder.absolute()
    return f"{folder.parts[-3]}-{folder.parts[-2]}" if folder.name == "model" and len(folder.parts) > 3 else folder.name


def _announce(config: ServeConfig, engine: Engine, port: int) -> None:
    host = f"[{config.host}]" if ":" in config.host else config.host
    url = f"http://{host}:{port}"
    say(f"{config.name} listens on {url} ({engine.about}). Try:")
    body = '{"prompt": "def add(a, b):\\n    return", "max_tokens": 16, "temperature": 0}'
    say(f"curl {url}/v1/completions -H 'Content-Type: application/json' -d '{body}'")
    if host.lower() not in LOOPBACK and not config.allowed_hosts:
        say(
            "only requests that name localhost are answered; allow this machine's name with --serve.allowed_hosts=NAME."
        )
