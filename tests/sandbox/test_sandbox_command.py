"""`codeweft sandbox` as a person meets it: quick help, clear refusals, a verdict in a line, the right exit code."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from codeweft import doctor
from codeweft.base import records
from codeweft.base.errors import UserError
from codeweft.cli import main, sandbox_commands
from codeweft.sandbox import command, probe, toolchains, wall
from codeweft.sandbox.client import open_sandbox
from codeweft.sandbox.config import Program, Ran, SandboxConfig, Submission

GOOD = Ran("ok", 0, b"42\n", b"", 0.0121, 0.034, 10 << 20, "namespaces")


@pytest.fixture(scope="module")
def walled() -> None:
    """Skips where the wall cannot be had."""

    async def start() -> None:
        async with open_sandbox(SandboxConfig(cells=1)):
            pass

    try:
        asyncio.run(start())
    except UserError as error:
        pytest.skip(f"toolchain: {error}")


# --- parsing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_alone_it_lists_its_commands(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["sandbox", *words]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in sandbox_commands())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["sandbox", "rnu"], 2, "There is no command sandbox rnu. Did you mean run?"),
        (["sandbox", "run"], 2, "the following arguments are required: file"),
        (["sandbox", "run", "a.py", "--memroy", "1"], 2, "--memroy is not understood. Did you mean --memory?"),
        (["sandbox", "run", "a.py", "--memory", "much"], 2, "invalid int value"),
        (["sandbox", "run", "a.py", "--memory", "0"], 1, "memory_mib = 0 must be at least 1"),
        (["sandbox", "run", "a.py", "--cpu-seconds", "nan"], 1, "cpu_seconds = nan"),
        (["sandbox", "run", "a.py", "--language", "pyhton"], 1, "Did you mean python?"),
        (["sandbox", "run", "a.py", "--sandbox.cell=1"], 1, "[sandbox] cell: no such setting. Did you mean cells?"),
        (["sandbox", "run", "a.py", "--sandbox.tier=none"], 1, "'none' is not a choice"),
        (["sandbox", "run", "a.py", "--sandbox.tier=unsafe"], 1, "CODEWEFT_SANDBOX_UNSAFE=yes"),
        (["sandbox", "run", "a.py", "--sandbox.tier=remote"], 1, "goes with a url"),
        (["sandbox", "run", "a.py", "--stdin", "none.txt"], 1, "none.txt"),
        (["sandbox", "run", "none.py"], 1, "none.py"),
        (["sandbox", "run", "folder.py"], 1, "folder.py is a folder"),
        (["sandbox", "run", "latin.py"], 1, "latin.py is not UTF-8"),
        (["sandbox", "run", "a.unknown"], 1, "tells no language. Say it: --language python"),
        (["sandbox", "serve", "--port", "70000"], 1, "--port 70000 is not a port"),
        (["sandbox", "serve", "--host", "no such host"], 1, "Cannot listen on no such host"),
        (["sandbox", "serve", "--body-mib", "0"], 1, "Give at least 1"),
    ],
)
def test_a_mistake_is_one_clear_sentence(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CODEWEFT_SANDBOX_UNSAFE", raising=False)
    Path("a.py").write_text("print(1)")
    Path("a.unknown").write_text("")
    Path("latin.py").write_bytes(b"print('\xe9')")
    Path("folder.py").mkdir()
    assert main(words) == code
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert len(shown.splitlines()) <= 2


def test_a_files_name_tells_its_language():
    told = {"a.py": "python", "a.CPP": "cpp", "x.cc": "cpp", "b.rs": "rust", "c.js": "javascript", "d.r": "r"}
    assert {name: command.language_of(Path(name)) for name in told} == told


def test_every_tested_language_is_told_by_the_name_of_its_own_source_file():
    for toolchain in toolchains.all_toolchains().values():
        if toolchain.tested:
            assert command.language_of(Path(toolchain.file.replace("{main}", "main"))) == toolchain.name


# --- what is shown -------------------------------------------------------------------------------------------------


def test_a_run_is_told_with_its_verdict_first_and_its_output_under_it():
    assert command.told(GOOD).splitlines() == [
        "ok, exit code 0 (0.012 s of processor, 0.034 s by the clock, 10.0 MiB, tier namespaces)",
        "--- stdout",
        "42",
    ]
    failed = replace(GOOD, status="runtime_error", exit_code=-11, stdout=b"", stderr=b"oh", detail="It ended.")
    lines = command.told(replace(failed, compiled=GOOD)).splitlines()
    assert lines[0].startswith("compiled: ok, exit code 0 (")
    assert lines[1].startswith("runtime_error, signal 11 (")
    assert lines[1].endswith(": It ended.")
    assert lines[2:] == ["--- stderr", "oh"]


def test_a_program_cannot_write_to_the_terminal_as_we_do():
    """Escape sequences, carriage returns, right-to-left overrides and broken text are spelt out."""
    hostile = "\x1b[2Jok\rfail\x00\x7f\u202e\u009b31m\r\n\tdone".encode() + b"\xff"
    shown = command.told(replace(GOOD, stdout=hostile))
    assert "\\x1b[2Jok\\rfail\\x00\\x7f\\u202e\\x9b31m\n\tdone\ufffd" in shown
    assert all(sign.isprintable() or sign in "\n\t" for sign in shown)


def test_a_run_as_json_has_every_field():
    facts = json.loads(json.dumps(command.ran_to_json(replace(GOOD, compiled=GOOD))))
    assert set(facts) == set(Ran.__dataclass_fields__)
    assert (facts["stdout"], facts["compiled"]["peak_bytes"]) == ("42\n", 10 << 20)


@pytest.mark.parametrize("tier", ["namespaces", "refused"])
def test_probe_prints_steps_tier_and_languages(
    tier: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    steps = [probe.Step("bubblewrap", True, "0.8.0"), probe.Step("cell", tier != "refused", "Operation not permitted")]
    monkeypatch.setattr(probe, "probe", lambda config: steps)
    monkeypatch.setattr(toolchains, "as_table", lambda: [("Python", "3.11.7", ""), ("D", "missing", "apt install ldc")])
    code = int(tier == "refused")
    assert main(["sandbox", "probe"]) == code
    shown = capsys.readouterr().out
    assert re.search(r"^ok +bubblewrap +0\.8\.0$", shown, re.MULTILINE)
    assert re.search(rf"^{'failed' if code else 'ok'} +cell +Operation not permitted$", shown, re.MULTILINE)
    assert f"tier: {tier}\n" in shown
    assert re.search(r"^missing +D +apt install ldc$", shown, re.MULTILINE)
    assert main(["sandbox", "probe", "--json"]) == code
    facts = json.loads(capsys.readouterr().out)
    assert (facts["asked"], facts["tier"]) == ("namespaces", tier)
    assert facts["steps"][0] == {"name": "bubblewrap", "ok": True, "detail": "0.8.0"}
    assert facts["languages"][1] == {"language": "D", "version": "missing", "install": "apt install ldc"}


def test_doctor_tells_of_the_wall_without_needing_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wall, "bubblewrap", lambda: None)
    finding = doctor._sandbox()  # all of examine() would import torch
    assert not finding["ok"]
    assert finding["optional"]
    assert "install bubblewrap" in finding["detail"]


# --- behind the real wall ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("walled")
def test_probe_reaches_the_tier_that_is_asked_for(capsys: pytest.CaptureFixture[str]):
    assert main(["sandbox", "probe", "--json"]) == 0, capsys.readouterr().out
    assert json.loads(capsys.readouterr().out)["tier"] == "namespaces"


@pytest.mark.usefixtures("walled")
@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("print(sum(map(int, input().split())))", "ok", 0),
        ("import sys; sys.exit(3)", "runtime_error", 1),
        ("while True: pass", "time_limit", 1),
        ("x = bytearray(99 << 20)", "memory_limit", 1),
    ],
)
def test_run_says_how_a_program_ended(
    code: str, status: str, expected: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "a.py").write_text(code)
    (tmp_path / "in.txt").write_text("20 22")
    words = ["sandbox", "run", str(tmp_path / "a.py"), "--stdin", str(tmp_path / "in.txt"), "--json"]
    assert main([*words, "--cpu-seconds", "0.5", "--memory", "64"]) == expected
    facts = json.loads(capsys.readouterr().out)
    assert (facts["status"], facts["tier"]) == (status, "namespaces")
    if status == "ok":
        assert facts["stdout"] == "42\n"


@contextmanager
def serving(*words: str, token: str = "") -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """`codeweft sandbox serve` as a process, its URL and its token."""
    start = [sys.executable, "-m", "codeweft", "sandbox", "serve", "--port", "0", "--sandbox.cells=1", *words]
    environment = {"CODEWEFT_SANDBOX_TOKEN": token} if token else {}
    process = subprocess.Popen(start, stderr=subprocess.PIPE, text=True, env=environment | {"PATH": "/usr/bin:/bin"})
    try:
        assert process.stderr is not None
        lines = []
        while not lines or "try: curl" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        url = re.search(r"http://127\.0\.0\.1:\d+", lines[0])
        made = re.search(r"told only here: (\S+)", "".join(lines))
        assert url
        assert bool(made) != bool(token)
        yield process, url[0], token or (made[1] if made else "")
    finally:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("walled")
def test_the_service_runs_and_judges_behind_the_real_wall_and_ends_cleanly():
    with serving() as (process, url, token):
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
            program: dict[str, Any] = {"language": "python", "code": "print(sum(map(int, input().split())))"}
            ran = http.post("/run_code", json=program | {"stdin": "20 22"}).json()
            assert (ran["status"], ran["run_result"]["stdout"]) == ("Success", "42\n")
            test = {"kind": "call", "args": [["l", ["i", "14"], ["i", "16"]]], "expected": ["u", ["i", "2a"]]}
            asked = {"language": "python", "code": "def f(x): return (sum(x),)", "entry_point": "f"}
            right = asked | {"tests": [test | {"typed": True}]}
            wrong = asked | {"tests": [test | {"expected": ["l", ["i", "2a"]], "typed": True}]}
            verdicts = http.post("/judge", json={"submissions": [right, wrong]}).json()["verdicts"]
            assert [verdict["status"] for verdict in verdicts] == ["ok", "wrong"]
            assert verdicts[0]["tier"] == "namespaces"
            with pytest.raises(httpx.ReadTimeout):
                http.post("/run_code", json=program | {"code": "import time; time.sleep(30)"}, timeout=0.5)
            began = time.monotonic()
            assert http.post("/run_code", json=program | {"stdin": "1 2"}).json()["status"] == "Success"
            assert time.monotonic() - began < 15, "the only cell still ran what nobody waited for"
        assert asyncio.run(from_afar(url, token)) == ("ok", "wrong", "remote", b"42\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


async def from_afar(url: str, token: str) -> tuple[str, str, str, bytes]:
    """Two statuses, the tier and an output, through our own client of a service."""
    right = records.Test("call", args=((1, 2), {3}), expected={b"sum": 6})
    wrong = replace(right, expected={"sum": 6})
    code = "def f(one, other): return {b'sum': sum(one) + sum(other)}"
    asked = [Submission("python", code, (test,), entry_point="f") for test in (right, wrong)]
    async with open_sandbox(SandboxConfig(tier="remote", url=url, token=token)) as sandbox:
        verdicts = await sandbox.judge_all(asked)
        ran = await sandbox.run(Program("python", "print(input())", stdin=b"42"))
        return verdicts[0].status, verdicts[1].status, verdicts[0].tier, ran.stdout


@pytest.mark.usefixtures("walled")
def test_an_interrupt_ends_the_service_with_130_and_one_line():
    with serving(token="given") as (process, url, _):
        assert httpx.get(f"{url}/v1/info", auth=("any", "given"), trust_env=False, timeout=30).status_code == 200
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[1]
        assert process.returncode == 130
        assert rest == "codeweft: the sandbox has ended.\ncodeweft: interrupted.\n"


def test_a_taken_port_is_told_before_anything_starts(capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["sandbox", "serve", "--port", str(port)]) == 1
    assert f"127.0.0.1 port {port}: Address already in use" in capsys.readouterr().err
