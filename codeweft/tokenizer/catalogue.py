"""What documents the corpus has and where each one stands, with the texts left on disk.

In:  corpus/documents/*.parquet.  Out: a `Catalogue` of small columns; texts of chosen documents, file by file.

Unusual: documents are numbered by their ids' order, so nothing depends on how the corpus was cut into files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codeweft.base.errors import InputError

COLUMNS = ("id", "kind", "split", "language", "source", "repository", "bytes")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged: {str(error).splitlines()[0]}.", "Run the stage corpus again (--restart).")


@dataclass(frozen=True, slots=True)
class Group:
    """Some rows of one row group of one file: the unit in which texts are read."""

    path: Path
    row_group: int
    rows: tuple[int, ...]

    def read(self, columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """The rows' values, in the order of `rows`; InputError where the file is damaged."""
        try:
            table = pq.ParquetFile(self.path).read_row_group(self.row_group, columns=list(columns))
            return table.take(pa.array(self.rows)).to_pylist()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _damaged(self.path, error) from error


@dataclass(frozen=True)
class Catalogue:
    """Documents by number; `columns` has no texts; the last three arrays say where each text is."""

    columns: pa.Table
    paths: list[Path]
    file_N: np.ndarray
    row_group_N: np.ndarray
    row_N: np.ndarray

    @property
    def bytes_N(self) -> np.ndarray:
        """UTF-8 bytes of each document."""
        return self.columns["bytes"].to_numpy()

    def numbers(self, kind: str, split: str) -> np.ndarray:
        """The numbers of the documents of a kind and split, ascending."""
        return np.flatnonzero(self.having("kind", kind) & self.having("split", split))

    def having(self, column: str, value: str) -> np.ndarray:
        """For every document, whether its column has this value."""
        encoded: Any = self.columns[column].combine_chunks().dictionary_encode()
        values = encoded.dictionary.to_pylist()
        return encoded.indices.to_numpy() == (values.index(value) if value in values else -1)

    def groups(self, numbers: np.ndarray) -> Iterator[tuple[Group, np.ndarray]]:
        """The documents grouped by where they stand: a group to read, and the documents' numbers in its order."""
        order = numbers[np.lexsort((self.row_N[numbers], self.row_group_N[numbers], self.file_N[numbers]))]
        place = self.file_N[order] * (1 << 32) + self.row_group_N[order]
        for part in np.split(order, np.flatnonzero(np.diff(place)) + 1):
            if len(part):
                first = int(part[0])
                path, row_group = self.paths[self.file_N[first]], int(self.row_group_N[first])
                yield Group(path, row_group, tuple(self.row_N[part].tolist())), part


def read_catalogue(corpus: Path) -> Catalogue:
    """Read the small columns of all documents; InputError when there are none or a file is damaged."""
    paths = sorted((corpus / "documents").glob("*.parquet"))
    tables, files, groups, rows = [], [], [], []
    for number, path in enumerate(paths):
        try:
            tables.append(pq.read_table(path, columns=list(COLUMNS)))
            metadata = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
        for group in range(metadata.num_row_groups):
            length = metadata.row_group(group).num_rows
            files.append(np.full(length, number))
            groups.append(np.full(length, group))
            rows.append(np.arange(length))
    if not sum(map(len, tables)):
        raise InputError(
            f"There are no documents in {corpus / 'documents'}.", "Run the stage corpus with more sources."
        )
    columns = pa.concat_tables(tables)
    columns = columns.append_column("place", pa.array(np.arange(len(columns)))).sort_by("id")
    order = columns["place"].to_numpy()
    where = [np.concatenate(parts)[order] for parts in (files, groups, rows)]
    return Catalogue(columns, paths, *where)
