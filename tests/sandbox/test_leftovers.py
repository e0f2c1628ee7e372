"""What a sandbox leaves behind when it is closed, when its client is killed, and what of its client it ever shows."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sandbox.opened import SMALL, Opened, alive, below, call, check, opened, settled

from codeweft.sandbox.config import Program, Ran, Submission

PATIENT = replace(SMALL, cpu_seconds=5.0, wall_seconds=60.0)
SLEEPER = Program("python", "import time; time.sleep(50)", limits=PATIENT)
QUICK = Submission("python", "def f(x): return x", (call(1, expected=1),), "f", limits=SMALL)


def leftovers(folder: Path) -> tuple[list[str], str, int]:
    """What is in a folder for temporary files, mounts, and descriptors of this process."""
    mounts = Path("/proc/self/mountinfo").read_text()
    return [path.name for path in folder.iterdir()], mounts, len(list(Path("/proc/self/fd").iterdir()))


def test_closing_leaves_no_process_folder_mount_or_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = leftovers(tmp_path)
    with opened(cells=2) as box:
        processes = [box.supervisor, *below(box.supervisor)]
        assert len(leftovers(tmp_path)[0]) == 1
        box.do(box.sandbox.judge_all([QUICK, replace(QUICK, tests=(check("assert f(1) == 1"),))]))
        box.python(
            "import os\nfor _ in range(5): os.fork()\nimport time; time.sleep(60)", replace(SMALL, wall_seconds=0.3)
        )
    assert settled(lambda: not any(map(alive, processes)))
    assert leftovers(tmp_path) == before


def test_a_supervisor_that_was_killed_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with opened() as box:
        os.kill(box.supervisor, signal.SIGKILL)
    assert not list(tmp_path.iterdir())


def test_closing_in_the_middle_of_a_run_ends_it():
    with opened() as box:
        task = box.do(started(box))
        processes = [box.supervisor, *below(box.supervisor)]
    assert settled(lambda: not any(map(alive, processes)))
    assert task.done() or task.cancelled()


async def started(box: Opened) -> asyncio.Task[Ran]:
    task = asyncio.ensure_future(box.sandbox.run(SLEEPER))
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.sleep(0.3)
    return task


CLIENT = """
import asyncio, sys, time
from codeweft.sandbox.client import open_sandbox
from codeweft.sandbox.config import Limits, Program, SandboxConfig
async def main():
    async with open_sandbox(SandboxConfig(cells=1)) as sandbox:
        program = Program("python", "import time; time.sleep(99)", limits=Limits(wall_seconds=99))
        running = asyncio.ensure_future(sandbox.run(program))
        await asyncio.sleep(0.3)
        print("ready", flush=True)
        await asyncio.sleep(99)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_client_that_is_killed_leaves_neither_supervisor_nor_cell(number: signal.Signals, tmp_path: Path):
    command, environment = [sys.executable, "-c", CLIENT], {**os.environ, "TMPDIR": str(tmp_path)}
    quiet: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **quiet) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        processes = list(below(client.pid))
        assert len(processes) > 4
        client.send_signal(number)
        client.wait(20)
    assert settled(lambda: not any(map(alive, processes)))
    assert settled(lambda: not list(tmp_path.iterdir()))


def test_two_sandboxes_at_once_do_not_know_each_other():
    with opened() as one, opened() as other:
        look = "import os, sys\nprint([name for name in os.listdir('/proc') if name.isdigit()], os.getuid())"
        assert one.says(look) == other.says(look)
        os.kill(one.supervisor, signal.SIGKILL)
        assert other.says("print(1)") == "1\n"


def test_a_crowded_process_with_secrets_can_open_a_sandbox(monkeypatch: pytest.MonkeyPatch):
    """Many descriptors and a large environment stay outside."""
    secret = "a secret of the parent"
    monkeypatch.setenv("CODEWEFT_SECRET", secret)
    monkeypatch.setenv("LARGE", "x" * 100_000)
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(800)]
    for descriptor in held:
        os.set_inheritable(descriptor, True)
    try:
        with opened() as box:
            look = (
                "import os\nfor who in ('self', '1', str(os.getppid())):\n    try:\n"
                "        print(open(f'/proc/{who}/environ').read())\n"
                "    except OSError as error:\n        print(error.errno)\n"
                "print(sorted(os.environ), sorted(os.listdir('/proc/self/fd')))"
            )
            seen = box.says(look)
            environments = [environment_of(process) for process in (box.supervisor, *below(box.supervisor))]
            shell = box.run(Program("bash", "env; cat /proc/self/environ; ls /proc/self/fd", limits=PATIENT))
    finally:
        for descriptor in held:
            os.close(descriptor)
    assert secret not in seen
    assert "['0', '1', '2', '3']" in seen  # the last is the listing itself
    assert not any(secret.encode() in environment for environment in environments)
    assert secret.encode() not in shell.stdout


def environment_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/environ").read_bytes()
    except OSError:  # a box that has just ended
        return b""
