"""Work that is killed, interrupted or out of room, and started again, ends with the bytes of work left alone."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codeweft.base.artifacts import read_json, read_manifest
from codeweft.stages import BY_NAME
from codeweft.train.checkpoint import Checkpoints

MINIATURE = Path(__file__).parent / "miniature.toml"
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
# several parts, pieces, checkpoints and portions, so that there is something to take up
SETTINGS = (
    "--corpus.part_megabytes=0.3", "--corpus.text_megabytes=0.3", "--measure.batch=2", "--evaluate.batch=2",
    "--measure.infilling_samples=40", "--evaluate.infilling_samples=44",
)  # fmt: skip
EVERY = 10  # pretrain.checkpoint_every in miniature.toml
# what a stage leaves when its first part, or checkpoint, is finished
FIRST_PART = {
    "corpus": "corpus/staging/part-*.parquet",
    "problems": "problems/started.json",
    "tokenizer": "tokenizer/started.json",
    "tokens": "tokens/staging/piece-*.json",
    "pretrain": "pretrain/checkpoints/step-*",
    "sft": "sft/checkpoints/step-*",
    "reward": "reward/staging/feedback-*.parquet",
    "grpo": "grpo/rollouts/*.parquet",
    "evaluate": "measured/grpo-*/infilling-*.json",
    "report": "report/started.json",
}
started: list[subprocess.Popen[str]] = []
BESIDE_OUTPUTS = {"manifest.json", "started.json", "metrics.jsonl", "checkpoints", "tensorboard"}


def command(source: Path, out: Path, *words: str) -> list[str]:
    recipe = [str(MINIATURE), "--source", str(source), "--out", str(out)]
    return [sys.executable, "-m", "codeweft", "run", *recipe, *SETTINGS, *words]


def start(words: list[str], before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """A run in a session of its own, which holds the run, its stage and their workers, nothing else."""
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=before)
    started.append(process)
    return process


@pytest.fixture(scope="module", autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """What a failed test has left running ends with the tests."""
    yield
    for process in started:
        if process.poll() is None:
            end(process, signal.SIGKILL)


def wait_for(process: subprocess.Popen[str], found: Callable[[], object]) -> None:
    """Wait until something is there; the process must still be running then."""
    until = time.monotonic() + 300
    while not found():
        assert time.monotonic() < until, "it never came"
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.002)


def end(process: subprocess.Popen[str], number: int) -> str:
    """Send a signal to all of a run; returns what it said."""
    os.killpg(process.pid, number)
    return process.communicate(timeout=120)[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in one process, left alone; its source beside it."""
    folder = tmp_path_factory.mktemp("whole")
    for package in ("json", "email", "http", "logging", "unittest", "xml", "concurrent", "importlib"):
        shutil.copytree(LIBRARY / package, folder / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    finished = start(command(folder / "code", folder / "run", "--run.workers=1"))
    _, shown = finished.communicate(timeout=1200)
    assert finished.returncode == 0, shown[-2000:]
    return folder / "run"


def up_to(whole: Path, stage: str, folder: Path) -> Path:
    """A copy of the run in which `stage` and what follows has not run."""
    names = list(BY_NAME)
    later = [*names[names.index(stage) :], "report.html", ".lock"]
    shutil.copytree(whole, folder, ignore=lambda at, found: later if Path(at) == whole else [])
    if names.index(stage) <= names.index("pretrain"):
        shutil.rmtree(folder / "measured")
    else:  # its own figures are measured again
        for path in (folder / "measured").iterdir():
            found = read_json(path)
            of_evaluate = (
                isinstance(found, dict) and found.get("key", {}).get("settings", {}).get("infilling_samples") == 44
            )
            if path.name.startswith(("katas", *(f"{name}-" for name in later))) or of_evaluate:
                path.unlink()
    return folder


def same_as(whole: Path, cut: Path, stage: str) -> None:
    """The stage's outputs have the same bytes, and nothing is left of the cuts."""
    before, after = read_manifest(whole / stage), read_manifest(cut / stage)
    assert before is not None
    assert after is not None
    assert after.outputs == before.outputs
    measured = {name for name in before.headline if not name.endswith(("per_second", "per_step"))}
    assert {name: after.headline[name] for name in measured} == {name: before.headline[name] for name in measured}
    allowed = BESIDE_OUTPUTS | {name.split("/")[0] for name in after.outputs}
    assert {path.name for path in (cut / stage).iterdir()} <= allowed
    assert not [path for path in cut.rglob("*") if ".partial" in path.name or path.name == "account.json"]
    assert all(path.suffix == ".json" for path in cut.glob("measured/*"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(BY_NAME))
def test_killing_a_stage_at_random_moments_changes_no_byte(whole: Path, tmp_path: Path, stage: str):
    cut = up_to(whole, stage, tmp_path / "run")
    workers = 1 if stage == "report" else 2  # the report shows the recipe; no other stage may tell the difference
    words = command(whole.parent / "code", cut, "--from", stage, "--to", stage, f"--run.workers={workers}")
    first = start(words)
    wait_for(first, lambda: list(cut.glob(FIRST_PART[stage])))
    end(first, signal.SIGKILL)
    chance = random.Random(stage)
    used = 0.0
    for attempt in range(20):
        if (cut / stage / "account.json").exists():
            assert read_json(cut / stage / "account.json")["seconds"] >= used
            used = read_json(cut / stage / "account.json")["seconds"]
        process = start(words)
        try:
            # longer and longer, so that it ends
            _, shown = process.communicate(timeout=chance.uniform(1.0, 4.0) if attempt < 3 else 600)
        except subprocess.TimeoutExpired:
            end(process, signal.SIGKILL)
            continue
        assert process.returncode == 0, shown
        break
    same_as(whole, cut, stage)
    assert read_manifest(cut / stage).seconds > used


def rows(run_folder: Path) -> list[dict[str, float]]:
    path = run_folder / "pretrain" / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def newest(run_folder: Path) -> int:
    found = Checkpoints(run_folder / "pretrain", keep=2).all()
    return int(found[-1].name.removeprefix("step-")) if found else 0


@pytest.mark.slow
def test_training_that_is_killed_repeats_less_than_an_interval_and_no_step_is_told_twice(whole: Path, tmp_path: Path):
    cut = up_to(whole, "pretrain", tmp_path / "run")
    words = command(whole.parent / "code", cut, "--from", "pretrain", "--to", "pretrain")
    for checkpoint in (0, EVERY, 2 * EVERY):
        process = start(words)
        wait_for(process, lambda wanted=checkpoint: len(rows(cut)) >= wanted + 3 and newest(cut) == wanted)
        end(process, signal.SIGKILL)
        assert newest(cut) == checkpoint
        assert 3 <= len(rows(cut)) - checkpoint < EVERY
    # killed once more in the measuring that follows: no step is taken again
    process = start(words)
    wait_for(process, lambda: list(cut.glob("measured/pretrain-*/infilling-*.json")))
    end(process, signal.SIGKILL)
    told = rows(cut)
    portions = {path: path.stat().st_mtime_ns for path in cut.glob("measured/pretrain-*/*.json")}
    process = start(words)
    wait_for(process, lambda: len(list(cut.glob("measured/pretrain-*/infilling-*.json"))) > 1)
    assert {path: path.stat().st_mtime_ns for path in portions} == portions
    _, shown = process.communicate(timeout=600)
    assert process.returncode == 0, shown
    assert "going on from what is measured already" in shown
    assert rows(cut) == told
    assert [row["step"] for row in told] == [row["step"] for row in rows(whole)] == list(range(1, len(told) + 1))
    assert [row["loss"] for row in told] == [row["loss"] for row in rows(whole)]
    same_as(whole, cut, "pretrain")


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(BY_NAME))
def test_ctrl_c_ends_each_stage_cleanly(whole: Path, tmp_path: Path, stage: str):
    cut = up_to(whole, stage, tmp_path / "run")
    words = command(whole.parent / "code", cut, "--from", stage, "--to", stage, "--run.workers=2")
    process = start(words)
    wait_for(process, lambda: list(cut.glob(FIRST_PART[stage])))
    began = time.monotonic()
    shown = end(process, signal.SIGINT)  # what the terminal does: the run, its stage and their workers alike
    assert process.returncode == 130, shown
    assert time.monotonic() - began < 60  # and not when all that was submitted is done
    assert "the same command goes on from here" in shown
    assert "Traceback" not in shown


@pytest.mark.slow
def test_a_second_process_is_told_who_works_there_and_the_first_goes_on(whole: Path, tmp_path: Path):
    cut = up_to(whole, "pretrain", tmp_path / "run")
    first = start(command(whole.parent / "code", cut, "--from", "pretrain", "--to", "pretrain"))
    wait_for(first, lambda: newest(cut))
    for words in (["run", str(cut)], ["tokens", "--run", str(cut)]):
        second = subprocess.run([sys.executable, "-m", "codeweft", *words], capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert f"{cut} is in use by process {first.pid} on " in second.stderr
        assert f"codeweft run {MINIATURE}" in second.stderr
        assert "(stage pretrain)" in second.stderr
    _, shown = first.communicate(timeout=600)
    assert first.returncode == 0, shown
    same_as(whole, cut, "pretrain")


@pytest.mark.slow
def test_a_full_disk_is_told_and_costs_nothing_but_the_last_interval(whole: Path, tmp_path: Path):
    cut = up_to(whole, "pretrain", tmp_path / "run")
    words = command(whole.parent / "code", cut, "--from", "pretrain", "--to", "pretrain")
    process = start(words)
    wait_for(process, lambda: newest(cut) == EVERY)
    end(process, signal.SIGKILL)
    # no file may grow beyond this: the next checkpoint fails in the middle, as on a full disk
    room = (cut / "pretrain" / "checkpoints" / "step-00000010" / "state.safetensors").stat().st_size // 2
    process = start(words, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)))
    _, shown = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "Traceback" not in shown
    told = shown.splitlines()[-1]
    assert f"{cut}/pretrain/checkpoints/step-00000020" in told
    assert "could not be written: File too large" in told
    assert "MB are free there" in told
    assert "the same command goes on" in told
    tensors, facts = Checkpoints(cut / "pretrain", keep=2).newest()
    assert facts["step"] == EVERY
    assert tensors
    process = start(words)
    _, shown = process.communicate(timeout=600)
    assert process.returncode == 0, shown
    assert "going on from step 10" in shown
    same_as(whole, cut, "pretrain")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["corpus", "tokens"])
def test_a_disk_that_is_full_in_a_worker_process_is_told_too(whole: Path, tmp_path: Path, stage: str):
    cut = up_to(whole, stage, tmp_path / "run")
    words = command(whole.parent / "code", cut, "--from", stage, "--to", stage, "--run.workers=2")
    process = start(words, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
    _, shown = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "Traceback" not in shown
    assert f"{cut}/{stage}/" in shown
    assert "could not be written: File too large" in shown
    process = start(words)
    _, shown = process.communicate(timeout=600)
    assert process.returncode == 0, shown
    same_as(whole, cut, stage)


def test_an_interrupted_run_ends_cleanly_and_goes_on(tmp_path: Path):
    shutil.copytree(LIBRARY / "email", tmp_path / "code" / "email")
    words = [*command(tmp_path / "code", tmp_path / "run", "--to", "corpus")]
    run = start(words)
    wait_for(run, (tmp_path / "run" / "corpus" / "started.json").exists)
    shown = end(run, signal.SIGINT)  # what Ctrl-C does: the run and its stage alike
    assert run.returncode == 130, shown
    assert "the same command goes on from here" in shown
    assert "Traceback" not in shown
    finished = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert "corpus was cut off; going on from there" in finished.stderr


def test_a_stage_that_the_system_kills_is_told(tmp_path: Path):
    shutil.copytree(LIBRARY / "email", tmp_path / "code" / "a" / "email")
    run = start(command(tmp_path / "code", tmp_path / "run", "--to", "corpus"))
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    wait_for(run, children.read_text)
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    _, shown = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "The stage corpus was killed" in shown
    assert "goes on from where it was" in shown
