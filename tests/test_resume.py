"""A run that is killed and started again ends with the bytes of one that was left alone."""

import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from codeweft.base.artifacts import read_manifest

MINIATURE = Path(__file__).parent / "miniature.toml"
COMPARED = ("corpus", "tokenizer", "tokens", "pretrain")


def start(source: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "codeweft", "run", str(MINIATURE), "--source", str(source), "--out", str(out)]
    return subprocess.Popen(
        [*command, "--to", "pretrain", "--run.workers=1"], stderr=subprocess.DEVNULL, start_new_session=True
    )


@pytest.mark.slow
def test_killing_the_whole_run_at_random_moments_changes_no_byte(tmp_path: Path):
    library = Path(sysconfig.get_paths()["stdlib"])
    for package in ("json", "email", "http", "logging", "unittest", "xml", "concurrent", "importlib"):
        shutil.copytree(library / package, tmp_path / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    assert start(tmp_path / "code", tmp_path / "whole").wait(timeout=300) == 0
    chance = random.Random(4)
    killed = 0
    for _ in range(30):
        process = start(tmp_path / "code", tmp_path / "cut")
        try:
            code = process.wait(timeout=chance.uniform(1.0, 9.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the session holds the run and its stage, nothing else
            process.wait()
            killed += 1
            continue
        assert code == 0
        break
    assert killed >= 2
    for stage in COMPARED:
        whole, cut = (read_manifest(tmp_path / run / stage) for run in ("whole", "cut"))
        assert whole is not None
        assert cut is not None
        assert whole.outputs == cut.outputs, stage


def test_an_interrupted_run_ends_cleanly_and_goes_on(tmp_path: Path):
    (tmp_path / "code").mkdir()
    library = Path(sysconfig.get_paths()["stdlib"])
    shutil.copytree(library / "email", tmp_path / "code" / "email")
    command = [sys.executable, "-m", "codeweft", "run", str(MINIATURE), "--source", str(tmp_path / "code")]
    command += ["--out", str(tmp_path / "run"), "--to", "corpus"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for _ in range(500):
        if (tmp_path / "run" / "corpus" / "started.json").exists():
            break
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)  # what Ctrl-C does: the run and its stage alike
    _, shown = run.communicate(timeout=60)
    assert run.returncode == 130, shown
    assert "the same command goes on from here" in shown
    assert "Traceback" not in shown
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert "corpus was cut off; going on from there" in finished.stderr


def test_a_stage_that_the_system_kills_is_told(tmp_path: Path):
    (tmp_path / "code" / "a").mkdir(parents=True)
    library = Path(sysconfig.get_paths()["stdlib"])
    shutil.copytree(library / "email", tmp_path / "code" / "a" / "email")
    command = [sys.executable, "-m", "codeweft", "run", str(MINIATURE), "--source", str(tmp_path / "code")]
    run = subprocess.Popen([*command, "--out", str(tmp_path / "run")], stderr=subprocess.PIPE, text=True)
    child = None
    for _ in range(200):
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        if children:
            child = int(children[0])
            break
        time.sleep(0.02)
    assert child is not None
    os.kill(child, signal.SIGKILL)
    _, shown = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "The stage corpus was killed" in shown
    assert "goes on from where it was" in shown
