"""One file (or row, or generated text) that a source offers, before it is read; and many of them, in a file.

In:  what a source's listing found.  Out: `Entry`, its stable id; `Listing`; `EntryFile`.

Unusual: an id never depends on where a checkout lies on the machine: it is made of the source's name, the path inside
the source and the bytes. Entries come as a stream: a source may hold more of them than fit into memory.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from codeweft.base.artifacts import naming
from codeweft.base.records import Kind

Reader = Literal["file", "blob", "row", "topic", "description", "module_docstring", "docstrings", "worksheet"]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a document comes from; `size` is in bytes, an estimate where the text has yet to be computed.

    `location` is for the reader alone: a path, a repository and blob, a file and offset, a family and number.
    `language` is set where the source knows it; otherwise name and content tell it.
    """

    kind: Kind
    source: str
    repository: str
    path: str
    size: int
    reader: Reader
    location: str
    revision: str = ""
    language: str = ""

    @property
    def full_path(self) -> str:
        """Repository and path in one."""
        return f"{self.repository}/{self.path}"


@dataclass
class Listing:
    """What the sources offer, and what was passed over without being a document ("symbolic link": 3).

    `entries` may be a stream that can be read once; the counts are complete when it has come to its end.
    """

    entries: Iterable[Entry] = ()
    passed_over: Counter[str] = field(default_factory=Counter)


class EntryFile:
    """Entries kept in a file, so that they can be gone through several times without being held in memory."""

    def __init__(self, path: Path, entries: Iterable[Entry]) -> None:
        self.path = path
        names = [each.name for each in fields(Entry)]
        path.parent.mkdir(parents=True, exist_ok=True)
        with naming(path), path.open("w", encoding="utf-8") as file:
            for entry in entries:
                # escapes keep the half surrogates that stand for odd bytes in file names
                file.write(json.dumps([getattr(entry, name) for name in names]) + "\n")

    def __iter__(self) -> Iterator[Entry]:
        """The entries in their order, from the first."""
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                yield Entry(*json.loads(line))


def document_id(entry: Entry, data: bytes) -> str:
    """BLAKE2b-128 of source, path (with the repository) and bytes, in hexadecimal."""
    hashing = hashlib.blake2b(digest_size=16)
    for part in (entry.source.encode(), entry.full_path.encode(), data):
        hashing.update(len(part).to_bytes(8, "little"))
        hashing.update(part)
    return hashing.hexdigest()
