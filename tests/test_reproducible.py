"""The same seed gives the same bytes, whatever the number of workers and the order in which a disk lists files."""

import os
import random
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny_code import MINIATURE, REPOSITORIES, make_recipe, make_source

from codeweft.base.artifacts import read_manifest
from codeweft.cli import main

STAGES = ("corpus", "tokenizer", "tokens", "pretrain")
PACKAGES = ("json", "email", "http", "logging", "unittest", "xml", "concurrent", "importlib")


def copied(folder: Path, order: random.Random | None = None) -> Path:
    """Packages of the standard library, their files written in the given order."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [path for package in PACKAGES for path in sorted((library / package).rglob("*.py"))]
    if order is not None:
        order.shuffle(files)
    for path in files:
        target = folder / path.relative_to(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder


def made(folder: Path, sources: list[Path], *stages: str) -> dict[str, dict[str, str]]:
    """Runs stages in this process; the digest of every output by stage."""
    recipe = make_recipe(folder.with_suffix(".toml"), *sources)
    for stage in stages:
        assert main([stage, "--run", str(folder), "--recipe", str(recipe), "--corpus.part_megabytes=0.005"]) == 0
    return outputs(folder, stages)


def outputs(folder: Path, stages: tuple[str, ...]) -> dict[str, dict[str, str]]:
    found = {}
    for stage in stages:
        manifest = read_manifest(folder / stage)
        assert manifest is not None
        assert manifest.outputs
        found[stage] = manifest.outputs
    return found


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("first")
    return folder, made(folder / "run", [make_source(folder / "code")], *STAGES)


def test_the_order_of_files_on_disk_changes_no_byte_of_any_stage(
    first: tuple[Path, dict[str, dict[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    theirs = os.scandir

    @contextmanager
    def shuffled(path: Any) -> Iterator[Any]:
        with theirs(path) as found:
            children = list(found)
        random.Random(5).shuffle(children)
        yield iter(children)

    source = make_source(tmp_path / "code", order=3)
    with monkeypatch.context() as patched:
        patched.setattr("codeweft.corpus.sources.os.scandir", shuffled)
        assert made(tmp_path / "run", [source], *STAGES) == first[1]


def documents(run: Path) -> set[tuple[str, str, str]]:
    columns = ["id", "split", "text"]
    return {tuple(row.values()) for row in pq.read_table(run / "corpus" / "documents", columns=columns).to_pylist()}


def test_sources_in_another_order_give_the_same_documents_and_the_same_tokens(tmp_path: Path):
    code = make_source(tmp_path / "code")
    one, two = ([code / name for name in names] for names in (REPOSITORIES, REPOSITORIES[::-1]))
    forward = made(tmp_path / "one", one, "corpus", "tokenizer", "tokens")
    backward = made(tmp_path / "two", two, "corpus", "tokenizer", "tokens")
    assert documents(tmp_path / "one") == documents(tmp_path / "two")
    for stage in ("tokenizer", "tokens"):
        assert forward[stage] == backward[stage]


def test_another_seed_gives_other_bytes(first: tuple[Path, dict[str, dict[str, str]]], tmp_path: Path):
    copy = Path(shutil.copytree(first[0] / "run", tmp_path / "run"))
    assert main(["tokens", "--run", str(copy), "--run.seed=2"]) == 0
    assert outputs(copy, ("tokens",))["tokens"]["train-00000.bin"] != first[1]["tokens"]["train-00000.bin"]


CODE_ALONE = (
    *("--corpus.math=", "--corpus.text=", "--tokens.math_share=0", "--tokens.text_share=0"),
    *("--tokens.held_out_tokens=20_000", "--measure.bits_tokens=2000", "--measure.infilling_samples=2"),
)


def run(folder: Path, recipe: str, *words: str) -> dict[str, dict[str, str]]:
    command = [sys.executable, "-m", "codeweft", "run", recipe, "--out", str(folder), "--to", "pretrain", *words]
    # as a person runs it: as many threads as the machine has
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    subprocess.run(command, check=True, timeout=600, env=environment, stderr=subprocess.DEVNULL)
    return outputs(folder, STAGES)


@pytest.mark.slow
def test_two_workers_and_another_order_of_files_end_with_the_same_model(tmp_path: Path):
    one, two = copied(tmp_path / "1" / "code"), copied(tmp_path / "2" / "code", random.Random(8))
    small = ["--corpus.part_megabytes=0.1", "--tokenizer.vocabulary=600", "--tokens.total=40_000", *CODE_ALONE]
    first = run(tmp_path / "1" / "run", str(MINIATURE), "--source", str(one), "--run.workers=1", *small)
    second = run(tmp_path / "2" / "run", str(MINIATURE), "--source", str(two), "--run.workers=2", *small)
    assert first == second


@pytest.mark.slow
def test_the_toy_cut_short_ends_twice_with_the_same_model(tmp_path: Path):
    """The toy's model and steps as they are, on less text and with few of the steps."""
    short = ["--corpus.code_megabytes=2", "--tokenizer.vocabulary=600", "--tokens.total=60_000", *CODE_ALONE]
    short += ["--pretrain.schedule.steps=20"]
    assert run(tmp_path / "one", "toy", *short) == run(tmp_path / "two", "toy", *short)
