"""What a stage used is counted over all of its processes: those that were killed, and its workers."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codeweft.base import runs
from codeweft.base.artifacts import Manifest, read_json
from codeweft.base.runs import ACCOUNT, STAGING, Meter, settle

BUSY = """
import sys, time
from pathlib import Path
from codeweft.base import runs
runs.ACCOUNT_SECONDS = 0.05
with runs.Meter(Path(sys.argv[1])):
    held = bytearray(150_000_000)
    while True:
        sum(range(100_000))
"""


def test_a_meter_counts_cpu_time(tmp_path: Path):
    with Meter(tmp_path) as meter:
        before = time.process_time()
        sum(range(2_000_000))
        used = time.process_time() - before
    read = meter.read()
    assert used <= read["cpu_seconds"] < used + 30
    assert read["seconds"] > 0


def test_what_processes_used_that_trained_together_is_counted_once_and_not_left_behind(tmp_path: Path):
    with Meter(tmp_path) as first:
        with Meter(tmp_path, rank=1):
            sum(range(2_000_000))
        with Meter(tmp_path, rank=2):
            pass
    others = [read_json(tmp_path / f"account-{rank}.json") for rank in (1, 2)]
    alone = first.read()
    first.add_others()
    together = first.read()
    used = sum(account["cpu_seconds"] for account in others)
    assert used > 0
    assert together["cpu_seconds"] - alone["cpu_seconds"] == pytest.approx(used, abs=0.05)
    # a process of rank 1 that goes on begins with its own account, not with that of the first
    assert Meter(tmp_path, rank=1).read()["cpu_seconds"] >= others[0]["cpu_seconds"]
    settle(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_used_is_counted_by_the_one_that_goes_on(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(tmp_path)])
    until = time.monotonic() + 30
    while not (tmp_path / ACCOUNT).exists() or read_json(tmp_path / ACCOUNT)["cpu_seconds"] < 0.3:
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    account = read_json(tmp_path / ACCOUNT)
    read = Meter(tmp_path).read()
    assert account["cpu_seconds"] <= read["cpu_seconds"] < account["cpu_seconds"] + 5
    assert account["seconds"] <= read["seconds"] < account["seconds"] + 5
    assert read["peak_rss_bytes"] >= account["peak_rss_bytes"] > 150_000_000
    settle(tmp_path)
    assert Meter(tmp_path).read()["seconds"] < 1


def test_a_child_is_counted_while_it_runs(tmp_path: Path):
    meter, before = Meter(tmp_path), time.process_time()
    spin = "held = bytearray(300_000_000)\nwhile True: sum(range(100_000))"
    child = subprocess.Popen([sys.executable, "-c", spin])

    def counted() -> bool:
        read = meter.read()
        own = time.process_time() - before
        return read["cpu_seconds"] > own + 0.3 and read["peak_rss_bytes"] > 300_000_000

    try:
        until = time.monotonic() + 30
        while not counted():
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()


def test_measuring_a_finished_stage_again_adds_to_what_it_took(tmp_path: Path):
    Manifest("pretrain", 1, {}, {}, {}, 1, seconds=100.0, cpu_seconds=190.0, peak_rss_bytes=1 << 40).write(tmp_path)
    read = Meter(tmp_path).read()
    assert 100 <= read["seconds"] < 105
    assert 190 <= read["cpu_seconds"] < 195
    assert read["peak_rss_bytes"] == 1 << 40


def test_an_account_that_cannot_be_written_does_not_disturb_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_json", full)
    with Meter(tmp_path) as meter:
        pass
    assert meter.read()["seconds"] >= 0


def test_a_finished_stage_keeps_neither_parts_nor_account(tmp_path: Path):
    (tmp_path / STAGING).mkdir()
    (tmp_path / STAGING / "piece.npy").write_bytes(b"x")
    (tmp_path / ACCOUNT).write_text("{}")
    settle(tmp_path)
    assert not list(tmp_path.iterdir())
