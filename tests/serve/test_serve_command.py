"""The server as a program: it says where it listens, refuses a taken port, and ends cleanly."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tiny_server import post, read_answer

from codeweft.base.config import settings
from codeweft.base.errors import ModelError, UserError
from codeweft.cli import main
from codeweft.serve.app import listen, model_name, run
from codeweft.serve.config import CompleteConfig, ServeConfig

PROGRAM = "import sys; from codeweft.cli import main; sys.exit(main(sys.argv[1:]))"
SLOW = """
import time
from codeweft.serve import app
from codeweft.engine.engine import Engine
step = Engine.step
Engine.step = lambda self: (time.sleep(0.1), step(self))[1]
app.SHUTDOWN_SECONDS = app.FAREWELL_SECONDS = 0.3
"""


@contextmanager
def program(folder: Path, before: str = "") -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """`codeweft serve` as a process of its own, with its URL and the two lines that it begins with."""
    command = [sys.executable, "-c", before + PROGRAM, "serve", "--model", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = process.stderr.readline() + process.stderr.readline()
        match = re.search(r"listens on (http://127\.0\.0\.1:\d+)", lines)
        assert match, lines
        yield process, match[1], lines
    finally:
        process.kill()
        process.wait()


def ending(process: subprocess.Popen[str]) -> tuple[int, float, str]:
    """Exit status, seconds until then, and what was still told."""
    started = time.monotonic()
    rest = process.communicate(timeout=30)[1]
    return process.returncode, time.monotonic() - started, rest


def test_the_program_says_where_it_listens_and_a_signal_ends_it_even_at_once(folder: Path):
    with program(folder) as (process, url, lines):
        assert f"curl {url}/v1/completions" in lines
        process.send_signal(signal.SIGTERM)
        status, _, rest = ending(process)
        assert (status, rest) == (0, "codeweft: the server has ended.\n")


@pytest.mark.parametrize(("sent", "expected"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_while_answers_run_tells_everybody_and_ends_with_its_status(
    folder: Path, sent: signal.Signals, expected: int
):
    """A stream, an answer in one piece, a head and a body that never end: told or left, and the server ends."""
    with program(folder, SLOW) as (process, url, _), ExitStack() as stack:
        body = {"prompt": "x", "max_tokens": 150, "n": 8, "stream": True}
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        for begun in (b"POST /v1/comp", post(b"{", "Content-Length: 99")):
            stack.enter_context(socket.create_connection(address)).sendall(begun)
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=30) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            pool = stack.enter_context(ThreadPoolExecutor(1))
            whole = pool.submit(httpx.post, f"{url}/v1/completions", json=body | {"stream": False}, timeout=30)
            time.sleep(0.5)  # the other request is on its way too
            process.send_signal(sent)
            last = [line for line in lines if line][-1]
        assert "text_completion" in first
        assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
        assert whole.result().status_code == 503
        status, seconds, rest = ending(process)
        assert (status, rest.count("\n")) == (expected, 1), rest
        assert seconds < 20  # the body alone would be waited for 30


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once_and_as_clean(folder: Path):
    patient = SLOW.replace("SHUTDOWN_SECONDS = app.FAREWELL_SECONDS = 0.3", "SHUTDOWN_SECONDS = 60")
    with program(folder, patient) as (process, url, _):
        body = {"prompt": "x", "max_tokens": 150, "stream": True, "n": 4}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=30) as answer:
            lines = answer.iter_lines()  # kept: a generator that is thrown away closes the connection
            assert "text_completion" in next(lines)
            process.send_signal(signal.SIGINT)
            time.sleep(0.6)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            status, seconds, rest = ending(process)
        assert (status, rest) == (130, "codeweft: interrupted.\n")
        assert seconds < 20  # and not 60


def test_the_command_tells_a_taken_port_in_two_lines_and_exit_1(folder: Path, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--model", str(folder), "--port", str(port)]) == 1
    told = capsys.readouterr().err
    assert f"127.0.0.1:{port}: Address already in use" in told
    assert told.count("\n") <= 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="toolchain: no limit of files here")
def test_more_clients_than_the_system_gives_files_do_not_end_the_service(folder: Path):
    """With 60 files and 100 clients that say nothing: told 503, and served when those are cut off."""
    few = """
import resource
from codeweft.serve import connection
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
connection.HEAD_SECONDS = 3.0
"""
    with program(folder, few) as (process, url, _), ExitStack() as stack:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        for _ in range(100):
            stack.enter_context(socket.create_connection(address))
        with socket.create_connection(address) as refused:
            assert read_answer(refused.makefile("rb"))[0] == 503
        time.sleep(6)
        assert httpx.get(f"{url}/health", timeout=30).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert ending(process)[2] == "codeweft: the server has ended.\n"


def test_a_taken_port_is_told_before_any_model_is_read():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"127.0.0.1:{port}: Address already in use.*choose another port"):
            run(ServeConfig(port=port), Path("nowhere"))


def test_a_missing_model_is_told_and_the_port_is_free_again():
    with pytest.raises(ModelError, match="nowhere"):
        run(ServeConfig(port=0), Path("nowhere"))


def test_an_address_of_nobody_is_told():
    with pytest.raises(UserError, match="not an address"):
        listen(ServeConfig(host="no such host"))


def test_the_model_is_named_after_its_run_and_stage_or_its_folder():
    assert model_name(Path("runs/toy/pretrain/model")) == "toy-pretrain"
    assert model_name(Path("/models/DeepSeek-Coder-V2-Lite-Base")) == "DeepSeek-Coder-V2-Lite-Base"


@pytest.mark.parametrize("cls", [ServeConfig, CompleteConfig])
def test_every_setting_says_what_it_is_for(cls: type):
    assert all(setting.purpose for setting in settings(cls, "serve"))


@pytest.mark.parametrize("wrong", [{"port": 70000}, {"rows": 0}, {"queue": 0}, {"max_body_bytes": 0}, {"guess": -1}])
def test_impossible_settings_are_refused_by_name(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ServeConfig(**wrong)
