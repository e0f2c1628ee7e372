"""Worker processes end with the process that started them, whichever way it ends, and say nothing of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeweft.base.workers import worker_processes

SCRIPT = """
import sys, time
from pathlib import Path
from codeweft.base.workers import worker_processes

def work(folder):
    import os
    Path(folder, f"worker-{os.getpid()}").touch()
    time.sleep(60)

if __name__ == "__main__":
    try:
        with worker_processes(2) as pool:
            for task in [pool.submit(work, sys.argv[1]) for _ in range(50)]:
                task.result()
    except KeyboardInterrupt:
        sys.exit(130)
"""


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def script(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose two workers are at work; each has left a file with its number."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(path), str(tmp_path)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("worker-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, -15)])
def test_no_worker_outlives_a_signal_and_none_shows_a_traceback(
    script: subprocess.Popen[str], tmp_path: Path, number: int, code: int
):
    workers = [int(path.name.split("-")[1]) for path in tmp_path.glob("worker-*")]
    assert len(workers) == 2
    assert all(map(running, workers))
    if number == signal.SIGINT:
        os.killpg(script.pid, number)  # as a terminal does
    else:
        script.send_signal(number)
    _, shown = script.communicate(timeout=60)
    assert script.returncode == code
    assert "Traceback" not in shown, shown
    until = time.monotonic() + 30
    while any(map(running, workers)):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_an_error_in_the_block_does_not_wait_for_what_was_submitted():
    began = time.monotonic()

    def fail() -> None:
        with worker_processes(1) as pool:
            for _ in range(10):
                pool.submit(time.sleep, 20)
            pool.submit(abs, -1)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert time.monotonic() - began < 15


def test_an_interrupt_does_nothing_to_a_worker():
    with worker_processes(1) as pool:
        worker = pool.submit(os.getpid).result()
        time.sleep(0.2)  # until it waits for work
        os.kill(worker, signal.SIGINT)
        time.sleep(0.2)
        assert [pool.submit(os.getpid).result() for _ in range(3)] == [worker] * 3


def test_what_workers_return_and_raise_arrives():
    with worker_processes(1) as pool:
        assert pool.submit(pow, 2, 5).result() == 32
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
