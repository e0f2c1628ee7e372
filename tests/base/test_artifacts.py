"""Files are whole or absent; manifests say what changed."""

import errno
import hashlib
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeweft import cli
from codeweft.base.artifacts import Manifest, atomic, atomic_folder, differences, digest_file, read_json, read_manifest
from codeweft.base.errors import BusyError, InputError
from codeweft.base.metrics import Metrics
from codeweft.base.runs import Run, held, name_owner, prepare

PRINT = {"stage": "corpus", "version": 1, "seed": 1, "config": {"rate": 0.5}, "inputs": {}}


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic(path) as file:
            file.write(b"new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.fixture
def small_disk() -> Iterator[int]:
    """No file grows beyond the bytes given: as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield 100_000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("what", ["bytes", "table", "json"])
def test_a_full_disk_keeps_the_old_file_and_names_it(tmp_path: Path, small_disk: int, what: str):
    run = Run("corpus", tmp_path, 1, {})
    run.write("out", b"old")
    random = np.random.default_rng(0).bytes(2 * small_disk)
    value: Any = {"bytes": random, "table": pa.table({"a": list(random)}), "json": {"a": "x" * 2 * small_disk}}[what]
    with pytest.raises(OSError, match="File too large") as caught:
        run.write("out", value)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "out")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out", b"old")]


def test_a_full_disk_is_told_by_the_command_line_with_the_file_and_the_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def full(_: list[str]) -> int:
        with atomic(tmp_path / "later" / "a.bin") as file:
            file.write(b"x")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cli, "dispatch", full)
    assert cli.main(["tokens"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"codeweft: {tmp_path / 'later' / 'a.bin'} could not be written: No space left on device (")
    assert "MB are free there). Make room; the same command goes on from the last finished part." in told
    free = float(told.split(" (")[1].split(" MB")[0].replace(",", ""))
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free / 1e6, rel=0.2)
    assert len(told.splitlines()) == 1


def test_metrics_on_a_full_disk_name_their_file(tmp_path: Path, small_disk: int):
    metrics = Metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b" " * small_disk)
    with pytest.raises(OSError, match="File too large") as caught:
        metrics.log(1, loss=1.0)
    assert caught.value.filename == str(tmp_path / "metrics.jsonl")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path):
    def fail() -> None:
        with atomic_folder(tmp_path / "a") as partial:
            (partial / "file").write_text("half")
            assert not (tmp_path / "a").exists()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert not list(tmp_path.iterdir())
    with atomic_folder(tmp_path / "a") as partial:
        (partial / "file").write_text("whole")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/file"]


def test_the_digest_made_while_writing_is_that_of_the_file(tmp_path: Path):
    with atomic(tmp_path / "a") as file:
        file.write(b"one")
        file.write(b"two")
    expected = "blake2b:" + hashlib.blake2b(b"onetwo", digest_size=16).hexdigest()
    assert file.digest == expected == digest_file(tmp_path / "a")


def test_a_parquet_table_written_through_a_run_reads_back(tmp_path: Path):
    run = Run("corpus", tmp_path, 1, {})
    table = pa.table({"a": list(range(1000))})
    run.write("documents/part.parquet", table)
    assert pq.read_table(tmp_path / "documents/part.parquet").equals(table)
    assert run.outputs["documents/part.parquet"] == digest_file(tmp_path / "documents/part.parquet")


def test_a_damaged_json_file_is_told_with_its_name(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"stage": ')
    with pytest.raises(InputError, match=r"manifest.json is damaged.*run its stage again"):
        read_json(tmp_path / "manifest.json")


def finish(folder: Path, fingerprint: dict) -> None:
    Manifest(**fingerprint, outputs={}).write(folder)


def test_a_stage_is_skipped_only_when_nothing_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "corpus"
    assert prepare(folder, PRINT, restart=False) == (False, False)
    (folder / "part").write_text("x")
    assert prepare(folder, PRINT, restart=False) == (False, True)
    assert (folder / "part").exists(), "a cut-off stage keeps what it had"
    finish(folder, PRINT)
    assert prepare(folder, PRINT, restart=False) == (True, False)
    assert prepare(folder, PRINT | {"config": {"rate": 0.6}}, restart=False) == (False, False)
    assert not (folder / "part").exists(), "a stale stage starts from an empty folder"
    assert "config.rate changed from 0.5 to 0.6" in capsys.readouterr().err


def test_what_a_killed_writer_left_in_half_is_removed_and_nothing_else(tmp_path: Path):
    folder = tmp_path / "corpus"
    prepare(folder, PRINT)
    (folder / "staging").mkdir()
    (folder / ".folder.partial-7").mkdir()
    for name in ("staging/.part-1.partial-77", ".folder.partial-7/inside", "staging/part-1", ".hidden", "a.partial-1"):
        (folder / name).write_text("x")
    assert prepare(folder, PRINT) == (False, True)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {"started.json", "staging/part-1", ".hidden", "a.partial-1"}
    (tmp_path / ".recipe.toml.partial-3").write_text("x")
    (tmp_path / "thesis").write_text("x")
    with held(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {"corpus", "thesis", ".lock"}


def test_a_folder_that_no_stage_wrote_is_never_cleared(tmp_path: Path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="no stage wrote"):
        prepare(folder, PRINT, restart=True)
    assert (folder / "thesis.txt").read_text() == "precious"


def test_a_manifest_reads_back(tmp_path: Path):
    manifest = Manifest("corpus", 1, {}, {}, {"a": "blake2b:0"}, 3, headline={"documents": 4})
    manifest.write(tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert read_manifest(tmp_path / "elsewhere") is None


def test_a_second_holder_of_a_run_folder_is_told_the_owner(tmp_path: Path):
    with held(tmp_path) as lock:
        with pytest.raises(BusyError, match=rf"process {os.getpid()} on .*\(codeweft"), held(tmp_path):
            pass
        name_owner(lock, "pretrain", 4711)
        with pytest.raises(BusyError, match=r"with process 4711 \(stage pretrain\)"), held(tmp_path):
            pass


def test_metrics_drop_the_rows_that_a_resumed_run_writes_again(tmp_path: Path):
    metrics = Metrics(tmp_path)
    for step in (1, 2, 3):
        metrics.log(step, loss=float(step))
    metrics.truncate(2)
    assert [line.split(",")[0] for line in metrics.path.read_text().splitlines()] == ['{"step": 1', '{"step": 2']
    metrics.close()
    assert list((tmp_path / "tensorboard").iterdir()), "the same rows went to an event file"


def test_differences_are_sentences():
    assert differences({"a": 1, "b": 2}, {"a": 1, "c": 3}) == ["b changed from 2 to null", "c changed from null to 3"]
