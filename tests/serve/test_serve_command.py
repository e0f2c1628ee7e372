"""The server as a program: it says where it listens, refuses a taken port, and ends cleanly."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from codeweft.base.config import settings
from codeweft.base.errors import ModelError, UserError
from codeweft.serve.app import listen, model_name, run
from codeweft.serve.config import CompleteConfig, ServeConfig

PROGRAM = """
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from codeweft.serve.app import run
from codeweft.serve.config import ServeConfig
sys.exit(run(ServeConfig(port=0), Path(sys.argv[1])))
"""


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_program_serves_until_a_signal_and_ends_with_its_status(folder: Path, sent: signal.Signals, status: int):
    program = PROGRAM if sent == signal.SIGTERM else PROGRAM.replace("sys.exit(", "\ntry: (").rstrip()
    if sent == signal.SIGINT:
        program += "\nexcept KeyboardInterrupt: sys.exit(130)\n"  # what the command line does
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        first, curl = process.stderr.readline(), process.stderr.readline()
        match = re.search(r"listens on (http://127\.0\.0\.1:\d+)", first)
        assert match, first
        assert f"curl {match[1]}/v1/completions" in curl
        assert httpx.get(f"{match[1]}/health", timeout=30).json()["status"] == "ok"
        process.send_signal(sent)
        _, rest = process.communicate(timeout=30)
        assert process.returncode == status, rest
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.wait()


SLOW = """
import time
from codeweft.serve import app
from codeweft.engine.engine import Engine
step = Engine.step
Engine.step = lambda self: (time.sleep(0.1), step(self))[1]
app.SHUTDOWN_SECONDS = 0.3
"""


def test_running_completions_are_told_when_the_server_ends(folder: Path):
    command = [sys.executable, "-c", SLOW + PROGRAM, str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = re.findall(r"http://[\d.:]+", process.stderr.readline())[0] + "/v1/completions"
        body = {"prompt": "x", "max_tokens": 150, "n": 8, "stream": True}
        with httpx.stream("POST", url, json=body, timeout=30) as answer, ThreadPoolExecutor(1) as pool:
            whole = pool.submit(httpx.post, url, json=body | {"stream": False}, timeout=30)
            lines = answer.iter_lines()
            first = next(lines)
            time.sleep(0.5)  # the other request is on its way too
            process.send_signal(signal.SIGTERM)
            last = [line for line in lines if line][-1]
        assert "text_completion" in first
        assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
        assert whole.result().status_code == 503
        rest = process.communicate(timeout=30)[1]
        assert process.returncode == 0
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.wait()


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


@pytest.mark.parametrize("wrong", [{"port": 70000}, {"rows": 0}, {"queue": 0}, {"max_body_bytes": 0}])
def test_impossible_settings_are_refused_by_name(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ServeConfig(**wrong)
