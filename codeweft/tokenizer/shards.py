"""Reads token shards: files of little-endian integers, and the index that says which document stands where.

In:  a folder with `train-00000.bin`, `held-out-00000.bin`, ..., `index.parquet` and `mixture.json`.
Out: memory-mapped streams, windows that cross files, and documents with their index entries.

Unusual: files are mapped, never read whole; a file whose size differs from the index is refused at once.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from codeweft.base.artifacts import read_json
from codeweft.base.errors import InputError
from codeweft.base.records import TokenEntry, schema

INDEX = "index.parquet"
MIXTURE = "mixture.json"
DTYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
AGAIN = "Run the stage tokens again (--restart)."


def token_dtype(vocabulary: int) -> np.dtype:
    """The narrowest integer type that holds every id.

    >>> token_dtype(65536).name, token_dtype(100_005).name
    ('uint16', 'uint32')
    """
    return DTYPES["uint16" if vocabulary <= 1 << 16 else "uint32"]


class TokenShards:
    """The token streams of one folder. InputError when a file is missing, damaged or of another size than indexed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mixture = read_json(folder / MIXTURE)
        if not isinstance(mixture, dict) or mixture.get("dtype") not in DTYPES:
            raise InputError(f"{folder / MIXTURE} names no integer type.", AGAIN)
        self.dtype = DTYPES[mixture["dtype"]]
        self.index = _read_index(folder / INDEX)
        self._streams = {split: self._open(split) for split in ("train", "held-out")}
        self._starts = {
            split: np.concatenate(([0], np.cumsum([len(part) for part in parts], dtype=np.int64)))
            for split, parts in self._streams.items()
        }

    def stream(self, split: str) -> list[np.memmap]:
        """The files of a split in order, each as one array of ids."""
        return self._streams[split]

    def total(self, split: str) -> int:
        """How many tokens a split has."""
        return int(self._starts[split][-1])

    def window(self, split: str, start: int, length: int) -> np.ndarray:
        """Tokens start ... start+length-1 of the stream as int64; files are joined where the window crosses them."""
        assert 0 <= start <= start + length <= self.total(split), (split, start, length)
        starts, parts = self._starts[split], self._streams[split]
        number = int(np.searchsorted(starts, start, side="right")) - 1
        window = np.empty(length, np.int64)
        filled = 0
        while filled < length:
            inside = start + filled - int(starts[number])
            piece = parts[number][inside : inside + length - filled]
            window[filled : filled + len(piece)] = piece
            filled += len(piece)
            number += 1
        return window

    def documents(self, split: str) -> Iterator[tuple[TokenEntry, np.ndarray]]:
        """Every document of a split in stream order: its entry, and its tokens in the files' own type."""
        files = dict(zip(self._names(split), self._streams[split], strict=True))
        for batch in self._entries[split].to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                yield TokenEntry(**row), files[row["shard"]][row["start"] : row["start"] + row["length"]]

    def infilling(
        self, sentinel: int, begin: int, longest: int, tokens: int, random: np.random.Generator
    ) -> list[np.ndarray]:
        """Documents (or segments) of the training stream that were cut for infilling, drawn until `tokens` are there.

        Those of more than `longest` tokens are passed over: their middle stands at their end. Each begins with `begin`.
        """
        entries = self._entries["train"].filter(pc.field("fim"))
        files = dict(zip(self._names("train"), self._streams["train"], strict=True))
        found: list[np.ndarray] = []
        missing = tokens
        for place in random.permutation(len(entries)).tolist():
            if missing <= 0:
                break
            (row,) = entries.slice(place, 1).to_pylist()
            document = np.asarray(files[row["shard"]][row["start"] : row["start"] + row["length"]], np.int64)
            for part in np.split(document, np.flatnonzero(document == begin)[1:]):
                if len(part) <= longest and sentinel in part:
                    found.append(part)
                    missing -= len(part)
        return found

    @cached_property
    def _entries(self) -> dict[str, pa.Table]:
        return {split: self.index.filter(pc.field("split") == split) for split in ("train", "held-out")}

    def _names(self, split: str) -> list[str]:
        return sorted(self._entries[split]["shard"].unique().to_pylist())

    def _open(self, split: str) -> list[np.memmap]:
        lengths = self._entries[split].group_by("shard").aggregate([("length", "sum")])
        tokens = dict(zip(lengths["shard"].to_pylist(), lengths["length_sum"].to_pylist(), strict=True))
        parts = []
        for name in self._names(split):
            path, expected = self.folder / name, tokens[name] * self.dtype.itemsize
            size = path.stat().st_size if path.is_file() else None
            if size is None:
                raise InputError(f"{path} is missing.", AGAIN)
            if size != expected:
                raise InputError(f"{path} has {size:,} bytes, but its index tells of {expected:,}.", AGAIN)
            parts.append(np.memmap(path, dtype=self.dtype, mode="r"))
        return parts


def _read_index(path: Path) -> pa.Table:
    wanted: Any = schema(TokenEntry)
    if not path.is_file():
        raise InputError(f"{path} is missing.", "Run the stage tokens first.")
    try:
        index = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}.", AGAIN) from error
    if index.schema.names != wanted.names:
        raise InputError(f"{path} has other columns than the index of token shards.", AGAIN)
    return index
