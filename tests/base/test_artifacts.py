"""Files are whole or absent; manifests say what changed."""

import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeweft.base.artifacts import Manifest, atomic, differences, digest_file, read_json, read_manifest
from codeweft.base.errors import BusyError, InputError
from codeweft.base.runs import Meter, Metrics, Run, held, prepare

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
    with held(tmp_path), pytest.raises(BusyError, match=f"process {os.getpid()}"), held(tmp_path):
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


def test_a_meter_counts_cpu_time():
    meter = Meter()
    sum(range(2_000_000))
    assert 0 < meter.read()["cpu_seconds"] < 60
