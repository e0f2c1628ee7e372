"""Official benchmark files: found below a folder, read with the place of every mistake.

In:  a folder, a `Data` description.  Out: a path; records, each with the place that an error names.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeweft.base.errors import InputError
from codeweft.tasks.task import Data

Record = dict[str, Any]
ROWS = 256  # of a Parquet file that are in memory at once


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder that a person named, each file under one of its usual names."""

    folder: Path | None

    def path(self, data: Data) -> Path:
        """The file; InputError says under which names it was looked for and where it can be had."""
        if self.folder is not None:
            for name in data.names:
                if (self.folder / name).exists():
                    return self.folder / name
        where = f"{self.folder} has none of" if self.folder else "No folder of benchmark files was named, to look for"
        source = f"it comes from {data.url}" if data.url else data.note
        fetch = ", or fetch it with --download" if data.url else ""
        raise InputError(f"{where} {', '.join(data.names)}; {source}.", f"Name its folder: --eval-data DIR{fetch}.")


def read_records(path: Path, required: Sequence[str] = ()) -> Iterator[tuple[str, Record]]:
    """(place, record) of a file of JSON lines, a JSON list, or Parquet, gzip included; `place` is "FILE, line N".

    InputError names the place of what is no JSON object or lacks a required field.
    """
    for place, record in _of_parquet(path) if path.suffix == ".parquet" else _of_json(path):
        if not isinstance(record, dict):
            raise InputError(f"{place}: not a JSON object.", "Mend that line or fetch the file again.")
        for name in required:
            if name not in record:
                raise InputError(f"{place}: the field {name} is missing.", "Mend that line or fetch the file again.")
        yield place, record


def _of_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", record
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}.", "Fetch the file again.") from error


def _of_json(path: Path) -> Iterator[tuple[str, Any]]:
    """Lines as they are read: some published files have more than a gigabyte. A list has to be read whole."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            first = next((line for line in file if line.strip()), b"")
            file.seek(0)
            if first.lstrip().startswith(b"[") or not _is_json(first):
                yield from _of_text(path, file.read().decode())
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}, line {number}", _of_line(path, number, line.decode())
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Fetch the file again.") from error


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _of_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        message = f"{path}, line {number}: no JSON ({error.msg})."
        raise InputError(message, "Mend that line or fetch the file again.") from error


def _of_text(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """A list, or one record over several lines; anything else is told by its first line."""
    if text.lstrip().startswith("["):
        try:
            listed = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {error.lineno}: {error.msg}.", "Mend it or fetch the file again."
            ) from error
        yield from ((f"{path}, entry {number + 1}", record) for number, record in enumerate(listed))
    elif (whole := _one_record(text)) is not None:
        yield f"{path}, line 1", whole
    else:
        for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 may stand inside a JSON string
            if line.strip():
                yield f"{path}, line {number}", _of_line(path, number, line)


def _one_record(text: str) -> Any:
    """The one record of a file that holds a single one over several lines."""
    try:
        record, end = json.JSONDecoder().raw_decode(text.lstrip())
    except json.JSONDecodeError:
        return None
    return record if not text.lstrip()[end:].strip() else None
