"""Files of records: every form that is published, the place of every mistake, and no more in memory than a line."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeweft.base.errors import InputError
from codeweft.tasks.files import read_records

RECORDS: list[dict[str, Any]] = [{"id": number, "text": f"line\u2028{number}"} for number in range(600)]


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "list", "indented list", "parquet"])
def test_every_form_gives_the_records_in_order(tmp_path: Path, form: str):
    path = {
        "jsonl": lambda: written(tmp_path / "a.jsonl", b"\n" + lines(RECORDS)),
        "jsonl.gz": lambda: written(tmp_path / "a.jsonl.gz", gzip.compress(lines(RECORDS))),
        "list": lambda: written(tmp_path / "a.json", json.dumps(RECORDS).encode()),
        "indented list": lambda: written(tmp_path / "a.json", json.dumps(RECORDS, indent=1).encode()),
        "parquet": lambda: tmp_path / "a.parquet",
    }[form]()
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(RECORDS), path)
    assert [record for _, record in read_records(path, ("id",))] == RECORDS


def test_one_record_over_several_lines_is_one(tmp_path: Path):
    path = written(tmp_path / "a.json", json.dumps(RECORDS[0], indent=2).encode())
    assert [record for _, record in read_records(path)] == RECORDS[:1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lines(RECORDS[:2]) + b'{"id": 3, "te\n', "line 3: no JSON"),
        (b'{"id": 1\n{"id": 2}\n', "line 1: no JSON"),
        (lines(RECORDS[:2]) + b"[1]\n", "line 3: not a JSON object"),
        (lines(RECORDS[:2]) + b'{"text": 1}\n', "line 3: the field id is missing"),
        (b'[{"id": 1},\n {"id"]', "line 2"),
        (lines(RECORDS[:1]) + b'{"id": "\xff"}\n', "cannot be read"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, content: bytes, told: str):
    with pytest.raises(InputError, match=told):
        list(read_records(written(tmp_path / "a.jsonl", content), ("id",)))


def test_half_a_compressed_file_and_half_a_parquet_file_are_told(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        list(read_records(written(tmp_path / "a.jsonl.gz", gzip.compress(lines(RECORDS))[:-400])))
    with pytest.raises(InputError, match="as Parquet"):
        list(read_records(written(tmp_path / "a.parquet", b"PAR1 and no more")))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_long_file_is_never_whole_in_memory(tmp_path: Path, name: str):
    content = lines([{"id": number, "text": "x" * 100_000} for number in range(300)])
    path = written(tmp_path / name, gzip.compress(content, 1) if name.endswith("gz") else content)
    tracemalloc.start()
    assert sum(1 for _ in read_records(path)) == 300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000 < len(content)
