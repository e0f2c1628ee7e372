"""Shards are read as one stream, and a folder that is not what its index says is refused."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codeweft.base.errors import InputError
from codeweft.base.records import TokenEntry, schema
from codeweft.tokenizer.shards import TokenShards

LENGTHS = {"train-00000.bin": (5, 3), "train-00001.bin": (7,), "train-00002.bin": (1, 1), "held-out-00000.bin": (4,)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training files of counting tokens beyond 16 bits, and one held-out file."""
    entries, token = [], 70_000
    for shard, lengths in LENGTHS.items():
        np.arange(token, token + sum(lengths)).astype("<u4").tofile(tmp_path / shard)
        token += sum(lengths)
        for place, length in enumerate(lengths):
            split = shard.rsplit("-", 1)[0]
            row = {"document": f"{shard} {place}", "shard": shard, "start": sum(lengths[:place]), "length": length}
            rest = {"bytes": 9, "kind": "code", "language": "C", "repository": "r", "split": split}
            entries.append(row | rest | {"epoch": 0, "fim": False})
    pq.write_table(pa.Table.from_pylist(entries, schema(TokenEntry)), tmp_path / "index.parquet")
    (tmp_path / "mixture.json").write_text(json.dumps({"dtype": "uint32"}))
    return tmp_path


@given(st.integers(0, 17), st.integers(0, 17))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_windows_cross_files_as_if_there_were_none(folder: Path, first: int, second: int):
    start, end = sorted((first, second))
    window = TokenShards(folder).window("train", start, end - start)
    assert window.dtype == np.int64
    assert window.tolist() == list(range(70_000 + start, 70_000 + end))


def test_streams_and_documents_come_in_order(folder: Path):
    shards = TokenShards(folder)
    assert (shards.total("train"), shards.total("held-out"), shards.dtype.name) == (17, 4, "uint32")
    assert np.concatenate(shards.stream("train")).tolist() == list(range(70_000, 70_017))
    pairs = list(shards.documents("train"))
    assert np.concatenate([tokens for _, tokens in pairs]).tolist() == list(range(70_000, 70_017))
    assert [entry.document for entry, _ in pairs][:3] == ["train-00000.bin 0", "train-00000.bin 1", "train-00001.bin 0"]


def test_a_file_of_another_size_than_indexed_is_refused(folder: Path):
    path = folder / "train-00001.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"train-00001\.bin has 26 bytes, but its index tells of 28") as caught:
        TokenShards(folder)
    assert "Run the stage tokens again" in caught.value.next_step


@pytest.mark.parametrize("name", ["held-out-00000.bin", "index.parquet", "mixture.json"])
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is missing"):
        TokenShards(folder)


def test_a_damaged_index_or_mixture_is_named(folder: Path):
    index = (folder / "index.parquet").read_bytes()
    (folder / "index.parquet").write_bytes(index[: len(index) // 2])
    with pytest.raises(InputError, match=r"index\.parquet is damaged"):
        TokenShards(folder)
    pq.write_table(pa.table({"shard": ["a"]}), folder / "index.parquet")
    with pytest.raises(InputError, match="other columns"):
        TokenShards(folder)
    (folder / "mixture.json").write_text('{"dtype": "float16"}')
    with pytest.raises(InputError, match="no integer type"):
        TokenShards(folder)
