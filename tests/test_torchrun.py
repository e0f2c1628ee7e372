"""Stages under torchrun: the losses of one process, and work that is cut off anywhere ends everywhere and goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_code import make_recipe, make_source

from codeweft.base.artifacts import read_manifest
from codeweft.cli import main

SETTINGS = {
    "pretrain": [
        *("--pretrain.schedule.steps=6", "--pretrain.schedule.batch=6", "--pretrain.precision=float32"),
        *("--pretrain.validate_every=2", "--measure.katas=2"),
    ],
    "sft": ["--sft.schedule.steps=4", "--sft.schedule.micro_batch=1", "--sft.precision=float32", "--measure.katas=2"],
}
LONG = [*SETTINGS["pretrain"], "--pretrain.schedule.steps=90", "--pretrain.checkpoint_every=5"]
OWN = "codeweft: "  # how lines of ours begin; torchrun tells of ended processes in its own words
started: list[subprocess.Popen[str]] = []
pytestmark = pytest.mark.slow


def torchrun(*words: object) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*launcher, "-m", "codeweft", "--", *map(str, words)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    started.append(process)
    return process


@pytest.fixture(scope="module", autouse=True)
def nothing_runs_on() -> Iterator[None]:
    yield
    for process in started:
        if process.poll() is None:
            process.terminate()


def members(process: subprocess.Popen[str]) -> dict[str, int]:
    """The processes that torchrun started, by rank."""
    found = {}
    for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        given = dict(each.split("=", 1) for each in Path(f"/proc/{number}/environ").read_text().split("\0") if each)
        found[given.get("RANK", "")] = int(number)
    return found


def own(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if line.startswith(OWN)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its tokens."""
    folder = tmp_path_factory.mktemp("prepared")
    recipe = make_recipe(folder / "run.toml", make_source(folder / "code"))
    for stage in ("corpus", "problems", "tokenizer", "tokens"):
        assert main([stage, "--run", str(folder / "run"), "--recipe", str(recipe)]) == 0, stage
    return folder / "run"


def rows(folder: Path) -> list[dict[str, Any]]:
    clock = {"time", "seconds", "tokens_per_second"}
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name not in clock} for row in found]


def test_pretraining_and_fine_tuning_in_two_processes_record_the_losses_of_one(prepared: Path, tmp_path: Path):
    one = Path(shutil.copytree(prepared, tmp_path / "one"))
    assert main(["pretrain", "--run", str(one), *SETTINGS["pretrain"]]) == 0
    for stage in ("pretrain", "sft"):
        two = Path(shutil.copytree(one, tmp_path / f"two-{stage}", ignore=shutil.ignore_patterns(stage)))
        if stage == "sft":
            assert main(["sft", "--run", str(one), *SETTINGS["sft"]]) == 0
        process = torchrun(stage, "--run", two, *SETTINGS[stage])
        _, shown = process.communicate(timeout=600)
        assert process.returncode == 0, shown[-2000:]
        assert shown.count(f"{stage}: done in") == 1
        found, expected = rows(two / stage), rows(one / stage)
        assert len(found) == len(expected)
        for row, same in zip(found, expected, strict=True):
            assert row == pytest.approx(same, rel=1e-4, abs=1e-6)
        manifest, of_one = read_manifest(two / stage), read_manifest(one / stage)
        assert manifest is not None
        assert of_one is not None
        assert manifest.counts["processes"] == 2
        assert manifest.outputs.keys() == of_one.outputs.keys()
        # how many processes made it is no reason to make it anew
        assert main([stage, "--run", str(two), *SETTINGS[stage]]) == 0
        assert read_manifest(two / stage) == manifest


def test_a_killed_or_interrupted_process_ends_all_and_the_same_command_goes_on(prepared: Path, tmp_path: Path):
    whole, cut = (Path(shutil.copytree(prepared, tmp_path / name)) for name in ("whole", "cut"))
    finished = torchrun("pretrain", "--run", whole, *LONG)
    _, shown = finished.communicate(timeout=600)
    assert finished.returncode == 0, shown[-2000:]
    step = 0
    for rank, number in (("1", signal.SIGKILL), ("0", signal.SIGKILL), ("", signal.SIGINT)):
        process = torchrun("pretrain", "--run", cut, *LONG)
        until, step = time.monotonic() + 300, step + 15
        while not any(int(path.name[-8:]) >= step for path in (cut / "pretrain").glob("checkpoints/step-*")):
            assert time.monotonic() < until
            assert process.poll() is None, process.communicate()[1][-2000:]
            time.sleep(0.002)
        ranks = members(process)
        os.kill(ranks[rank] if rank else process.pid, number)
        _, shown = process.communicate(timeout=60)
        assert process.returncode
        for left in ranks.values():
            assert not Path(f"/proc/{left}").exists()
        if rank != "0":  # who was killed says nothing
            assert len([line for line in own(shown) if "the same command goes on" in line]) == 1, shown
        assert not (cut / "pretrain" / "manifest.json").exists()
    process = torchrun("pretrain", "--run", cut, *LONG)
    _, shown = process.communicate(timeout=600)
    assert process.returncode == 0, shown[-2000:]
    assert "going on from step" in shown
    manifests = [read_manifest(folder / "pretrain") for folder in (whole, cut)]
    assert all(manifests)
    assert len({str(manifest and manifest.outputs) for manifest in manifests}) == 1
    assert rows(cut / "pretrain") == rows(whole / "pretrain")


def test_a_mistake_that_all_processes_meet_is_told_once(prepared: Path, tmp_path: Path):
    folder = Path(shutil.copytree(prepared, tmp_path / "run"))
    for wrong in (
        "--pretrain.schedule.sequence=4096",
        "--pretrain.schedule.sequence=2000",
    ):  # before joining, and after
        process = torchrun("pretrain", "--run", folder, wrong)
        _, shown = process.communicate(timeout=120)
        assert process.returncode == 1
        lines = [line for line in own(shown) if "sequence" in line]
        assert len(lines) == 1, shown
        assert 'File "' not in shown.split("torch/distributed")[0]
