"""Read one part of the entries, decode each, tell its language, ask the rules, and write the result as Parquet.

In:  entries.  Out: `staging/part-NNNNN.parquet`, one row an entry: a Dropped row, whose reason is empty for a document
that passed, and the digest of its text.

Unusual: this is what worker processes run; a part is written atomically, so a finished one is never read again, unless
it was damaged since.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from codeweft.base.artifacts import atomic
from codeweft.base.progress import say
from codeweft.base.records import Dropped, schema
from codeweft.corpus import builtin, git, rules, sources, worksheets
from codeweft.corpus.config import CorpusConfig
from codeweft.corpus.entries import Entry, document_id
from codeweft.source import languages

STAGING = schema(Dropped).append(pa.field("text_digest", pa.string()))
BINARY_BYTES = 8192  # a zero byte among the first of a file makes it binary, as git judges
TEXT_ENDINGS = (".txt", ".text")
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_part(entries: list[Entry], path: Path, config: CorpusConfig) -> int:
    """Write the staging part of these entries unless it exists; returns how many entries were looked at."""
    if not _finished(path):
        rows = [row for row in (examine(entry, config) for entry in entries) if row is not None]
        with atomic(path) as file:
            pq.write_table(
                pa.Table.from_pylist(rows, STAGING), cast(Any, file), compression="zstd", compression_level=1
            )
    return len(entries)


def _finished(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        say(f"corpus: {path} is damaged ({str(error).splitlines()[0]}); its files are read again.")
        return False
    return True


def too_large(entry: Entry, config: CorpusConfig) -> bool:
    """Whether the entry is dropped unread for its size."""
    return entry.size > config.file_megabytes * 1e6


def examine(entry: Entry, config: CorpusConfig) -> dict[str, Any] | None:
    """One staging row; None where a computed source turns out to have nothing (a file without docstrings)."""
    if too_large(entry, config):
        return _row(entry, b"", entry.size, reason="size", detail=str(entry.size))
    try:
        data = READERS[entry.reader](entry)
    except OSError as error:  # removed or locked since it was listed
        return _row(entry, b"", entry.size, reason="unreadable", detail=error.strerror or type(error).__name__)
    if data is None:
        return None
    wide = data.startswith(UTF16_MARKS)
    zero = -1 if wide else data.find(b"\0", 0, BINARY_BYTES)
    if zero >= 0:
        return _row(entry, data, len(data), reason="binary", detail=str(zero))
    try:
        text = decode(data)
    except UnicodeDecodeError as error:
        return _row(entry, data, len(data), reason="encoding", detail=str(error.start))
    zero = text.find("\0", 0, BINARY_BYTES) if wide else -1  # UTF-32 begins like UTF-16
    if zero >= 0:
        return _row(entry, data, len(data), reason="binary", detail=str(2 * zero + 2))
    name = entry.path.rsplit("#", 1)[0] if entry.reader == "row" else entry.path
    language = entry.language or languages.detect(name, data[: languages.HEAD_BYTES]) or _plain(entry)
    if not language:
        return _row(entry, data, reason="language", detail=Path(entry.path).suffix, text=text)
    reason, detail = rules.broken(text, entry.kind, language, config) or ("", "")
    return _row(entry, data, reason=reason, detail=detail, text=text, language=language)


def decode(data: bytes) -> str:
    """Bytes as text: UTF-8 with or without a mark, UTF-16 with one; UnicodeDecodeError otherwise.

    >>> decode("\\ufeffé".encode("utf-8")), decode("é".encode("utf-16"))
    ('é', 'é')
    """
    return data.decode("utf-16" if data.startswith(UTF16_MARKS) else "utf-8-sig")


def _plain(entry: Entry) -> str:
    """Plain text counts as a language for prose and mathematics, not for code."""
    plain = entry.path.lower().endswith(TEXT_ENDINGS) or entry.reader == "row" or "." not in Path(entry.path).name
    return "Text" if entry.kind != "code" and plain else ""


def _row(
    entry: Entry, data: bytes, size: int = 0, *, reason: str, detail: str, text: str = "", language: str = ""
) -> dict[str, Any]:
    """`size` stands for the length of a text that could not be made."""
    encoded = text.encode()
    return {
        "id": document_id(entry, data),
        "text": text,
        "kind": entry.kind,
        "language": language or entry.language,
        "source": entry.source,
        "repository": entry.repository,
        "path": entry.path,
        "bytes": size or len(encoded),
        "split": "train",
        "revision": entry.revision,
        "url": "",
        "licence": "",
        "members": [],
        "attributes": [],
        "reason": reason,
        "detail": detail,
        "text_digest": hashlib.blake2b(encoded, digest_size=16).hexdigest(),
    }


def _file(entry: Entry) -> bytes:
    return Path(entry.location).read_bytes()


def _blob(entry: Entry) -> bytes:
    folder, name = entry.location.split("\0")
    return git.read(folder, name, entry.path)


def _json_row(entry: Entry) -> bytes:
    path, offset, length = entry.location.split("\0")
    with Path(path).open("rb") as file:
        file.seek(int(offset))
        row = sources.read_row(file.read(int(length)), f"{path} at byte {offset}")
    return str(row["text"]).encode("utf-8", "replace")


def _worksheet(entry: Entry) -> bytes:
    family, number, seed = entry.location.split("\0")
    return worksheets.worksheet(family, int(number), int(seed)).encode()


READERS: dict[str, Callable[[Entry], bytes | None]] = {
    "file": _file,
    "blob": _blob,
    "row": _json_row,
    "topic": lambda entry: builtin.topic(entry.location),
    "description": lambda entry: builtin.description(entry.location),
    "module_docstring": lambda entry: builtin.module_docstring(_file(entry)[: builtin.HEAD_BYTES]),
    "docstrings": lambda entry: builtin.docstrings(_file(entry)),
    "worksheet": _worksheet,
}
