"""One file (or row, or generated text) that a source offers, before it is read.

In:  what a source's listing found.  Out: `Entry`, its stable id, and its place among the others.

Unusual: an id never depends on where a checkout lies on the machine: it is made of the source's name, the path inside
the source and the bytes.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

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
    """Everything that the sources offer, and what was passed over without being a document ("symbolic link": 3)."""

    entries: list[Entry] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def document_id(entry: Entry, data: bytes) -> str:
    """BLAKE2b-128 of source, path (with the repository) and bytes, in hexadecimal."""
    hashing = hashlib.blake2b(digest_size=16)
    for part in (entry.source.encode(), entry.full_path.encode(), data):
        hashing.update(len(part).to_bytes(8, "little"))
        hashing.update(part)
    return hashing.hexdigest()
