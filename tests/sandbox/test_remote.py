"""A sandbox on another machine gives the verdicts that one here gives: our own service, or one that only runs code."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import uvicorn
from sandbox.opened import SMALL, call, check, stdio

from codeweft.base.errors import UserError
from codeweft.base.records import Verdict
from codeweft.sandbox import remote
from codeweft.sandbox.client import LocalSandbox, Sandbox, judge_all, open_sandbox
from codeweft.sandbox.config import Program, SandboxConfig, Submission
from codeweft.sandbox.service import ServiceConfig, create_app

TOKEN = "a token of this test"
ROOMY = replace(SMALL, cpu_seconds=5.0, memory_mib=256)
QUICK = Submission("python", "def f(x): return x * 2", (call(2, expected=4),), "f", limits=ROOMY)


@asynccontextmanager
async def both(**settings: Any) -> AsyncIterator[tuple[Sandbox, Sandbox]]:
    """A sandbox here, and the same one behind the real service, as a client of another machine sees it."""
    config = SandboxConfig(cells=1, cache=0)
    here = LocalSandbox(config)
    try:
        await here.start()
    except UserError as error:
        pytest.skip(f"toolchain: {error}")
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(here, config, ServiceConfig(token=TOKEN))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    server.capture_signals = lambda: _nothing()  # type: ignore[method-assign]
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        there = SandboxConfig(**{"tier": "remote", "url": url, "token": TOKEN} | settings)
        async with open_sandbox(there) as away:
            yield here, away
    finally:
        server.should_exit = True
        await serving
        listening.close()
        await here.close()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def measured(verdict: Verdict) -> Verdict:
    """A verdict without what differs between two runs."""
    return replace(verdict, cpu_seconds=0.0, peak_bytes=0, tier="")


def test_the_service_gives_the_verdicts_and_outputs_of_the_sandbox_behind_it():
    submissions = [
        QUICK,
        replace(QUICK, tests=(call(2, expected=4), call(3, expected=7), call([1], expected=[1, 1])), stop_early=False),
        replace(QUICK, tests=(check("assert f(2) == helper()"),), setup="def helper():\n    return 4"),
        replace(QUICK, tests=(check("assert f(2) == 5"),), mode="compat"),
        replace(QUICK, code="print(int(input()) / 3)", tests=(stdio("1", "0.3333333333333333"),)),
        replace(QUICK, code="def f(x): return 0.1 + 0.2", tests=(call(1, expected=0.3),), tolerance=1e-9),
        replace(
            QUICK, code="def f(x): return {x: (1, None, b'b')}", tests=(call((1,), expected={(1,): (1, None, b"b")}),)
        ),
        replace(QUICK, code="def f(", tests=(call(1, expected=1),)),
        replace(QUICK, mode="stdio"),
    ]
    programs = [
        Program("python", "import sys\nprint(input(), sys.argv[1:], open('a/b').read())\nsys.exit(3)", b"\xc3\xa9",
                ("x", "y z"), {"a/b": b"file"}, ROOMY),
        Program("python", "while True: pass", limits=replace(ROOMY, cpu_seconds=0.3)),
        Program("python", "def f("),
    ]  # fmt: skip

    async def compare() -> None:
        async with both() as (here, away):
            assert away.tier == "remote"
            wanted, got = await here.judge_all(submissions), await away.judge_all(submissions)
            assert list(map(measured, got)) == list(map(measured, wanted))
            assert {verdict.tier for verdict in got} == {"remote"}
            assert [verdict.status for verdict in wanted] == [
                "ok", "wrong", "ok", "wrong", "ok", "ok", "ok", "compile_error", "refused",
            ]  # fmt: skip
            for program in programs:
                ran, same = await here.run(program), await away.run(program)
                assert (same.status, same.stdout, same.stderr) == (ran.status, ran.stdout, ran.stderr)
                assert same.tier == "remote"

    asyncio.run(compare())


def test_what_the_service_refuses_is_told_in_its_words():
    async def refuse() -> None:
        async with both() as (_, away):
            with pytest.raises(UserError, match=r"pythn.*Did you mean python\?"):
                await away.judge(replace(QUICK, language="pythn"))
            with pytest.raises(UserError, match=r"pythn.*Did you mean python\?"):
                await away.run(Program("pythn", ""))
            sleeper = replace(
                QUICK, code="import time\ndef f(x): time.sleep(60)", limits=replace(ROOMY, wall_seconds=90.0)
            )
            began = time.monotonic()
            assert (await away.judge(sleeper, deadline=0.5)).status == "harness_error"
            assert (await away.judge(QUICK)).status == "ok"  # its cell is free again
            assert time.monotonic() - began < 30
        async with both(token="another") as (_, away):
            with pytest.raises(UserError, match="token is missing or wrong"):
                await away.judge(QUICK)

    asyncio.run(refuse())


# --- services played by this test ----------------------------------------------------------------------------------


@contextmanager
def played(answer: Callable[[str, dict[str, Any]], tuple[int, Any]]) -> Iterator[str]:
    """A service that answers as a function says; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = answer(self.path, body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def doubling(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """A SandboxFusion with /run_code alone, whose programs double what they read."""
    if path != "/run_code":
        return 404, {"detail": "Not Found"}
    if body["code"] == "broken":
        return 200, {"status": "SandboxError", "message": "no room", "compile_result": None, "run_result": None}
    done = {"status": "Finished", "execution_time": 0.1, "return_code": 0, "stdout": body["stdin"] * 2, "stderr": ""}
    if body["code"] == "slow":
        done |= {"status": "TimeLimitExceeded", "return_code": None}
    return 200, {"status": "Success", "message": "", "compile_result": None, "run_result": done, "files": {}}


def test_a_service_that_only_runs_code_still_judges_by_input_and_output():
    with played(doubling) as url:
        tests = (stdio("a", "aa"), stdio("b", "b"), stdio("c", "cc"))
        base = Submission("python", "", tests)
        cases = {
            ("ok", 1, 1): replace(base, tests=tests[:1]),
            ("wrong", 1, 3): base,
            ("wrong", 2, 3): replace(base, stop_early=False),
            ("time_limit", 0, 3): replace(base, code="slow"),
            ("harness_error", 0, 3): replace(base, code="broken"),
            ("refused", 0, 1): QUICK,
        }
        verdicts = judge_all(SandboxConfig(tier="remote", url=url), list(cases.values()))
    assert [(verdict.status, verdict.passed, verdict.total) for verdict in verdicts] == list(cases)
    assert verdicts[1].detail == "Test 2: the output is another one."
    assert "only stdio tests" in verdicts[-1].detail
    assert {verdict.tier for verdict in verdicts} == {"remote"}


async def judged(url: str) -> Verdict:
    async with open_sandbox(SandboxConfig(tier="remote", url=url)) as sandbox:
        return await sandbox.judge(Submission("python", "", (stdio("a", "aa"),)))


def test_a_service_without_room_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    busy = [429, 503, 502]

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (busy.pop(), {}) if busy else doubling(path, body)

    with played(answer) as url:
        assert asyncio.run(judged(url)).status == "ok"
        assert not busy
    with (
        played(lambda *_: (429, {"error": {"message": "8 run or wait"}})) as url,
        pytest.raises(UserError, match=r"does not answer: 429, 8 run or wait\. See that the service"),
    ):
        asyncio.run(judged(url))
    with pytest.raises(UserError, match=r"does not answer: .*Connection refused"):
        asyncio.run(judged(url))


@pytest.mark.parametrize(
    "content",
    [b"", b"no json", b"[]", b"5", b"null", b'{"status": "Success"}', b'{"run_result": 5}', b"\xff", b"[" * 9999],
)
def test_an_answer_that_is_none_is_an_error_of_the_service_and_no_traceback(content: bytes):
    def answer(path: str, _: dict[str, Any]) -> tuple[int, Any]:
        return (404, {}) if path == "/judge" else (200, content)

    for service in (answer, lambda *_: (200, content)):
        with played(service) as url:
            try:
                assert asyncio.run(judged(url)).status == "harness_error"
            except UserError:
                continue


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://:80", "http://[", "http://x:port", "http://x:99999"])
def test_an_address_that_is_none_is_refused(url: str):
    with pytest.raises(UserError, match="is no address of a service"):
        asyncio.run(judged(url))
