"""Files that are whole or absent: atomic writes with a digest made while writing, JSON, and manifests.

In:  bytes, JSON values, Arrow tables.  Out: files that appear under their name only when complete, and their digests.

A digest is "blake2b:" and 32 hexadecimal digits of BLAKE2b-128 over the file's bytes.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from codeweft.base.errors import InputError

MANIFEST = "manifest.json"  # written last: its presence means that a stage is finished
RECIPE = "recipe.toml"  # the resolved recipe of a run folder
PARTIAL = re.compile(r"\..+\.partial-\d+")  # a file or folder that is being written, or that a killed process left


class DigestingFile:
    """A binary file, open for writing, that digests what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.hash = hashlib.blake2b(digest_size=16)
        self.bytes = 0
        self.closed = False
        self.mode = "wb"

    def write(self, data: bytes | memoryview) -> int:
        """Write and digest; returns the number of bytes taken."""
        self.hash.update(data)
        self.bytes += memoryview(data).nbytes
        return self.file.write(data)

    def tell(self) -> int:
        """The bytes written so far."""
        return self.bytes

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        self.file.flush()

    def writable(self) -> bool:
        """Always true; asked by Arrow."""
        return True

    def readable(self) -> bool:
        """Always false; asked by Arrow."""
        return False

    def seekable(self) -> bool:
        """Always false: a digest follows the bytes in order."""
        return False

    def close(self) -> None:
        """Nothing: the writer that opened the file closes it."""

    @property
    def digest(self) -> str:
        """The digest of all bytes written so far."""
        return "blake2b:" + self.hash.hexdigest()


@contextmanager
def atomic(path: Path) -> Generator[DigestingFile, None, None]:
    """Write beside `path`, sync, then rename over it; an error leaves the old file as it was and names `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        with naming(path), partial.open("wb") as file:
            digesting = DigestingFile(cast(BinaryIO, file))
            yield digesting
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Generator[Path, None, None]:
    """A folder to write into that takes the name `path` when the block ends; an error leaves no folder.

    What is written must be synced by the writer. The folder `path` must not be there yet.
    """
    partial = _partial(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with naming(path):
            yield partial
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def discard_folder(path: Path) -> None:
    """Remove a folder, if it is there, so that it is never seen in half."""
    if path.exists():
        leaving = _partial(path.with_name(f"{path.name}.leaving"))
        path.rename(leaving)
        shutil.rmtree(leaving)


@contextmanager
def naming(path: Path) -> Generator[None, None, None]:
    """Let the system's errors in the block name `path` where they name no file, as those of writing do."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _partial(path: Path) -> Path:
    # the leading dot keeps readers of whole folders from taking an unfinished file for a finished one
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


def remove_partials(found: Iterable[Path]) -> None:
    """Remove those paths that a killed writer left unfinished; the caller knows that nobody is writing."""
    for path in list(found):
        if PARTIAL.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def digest_bytes(data: bytes) -> str:
    """The digest of a byte string."""
    return "blake2b:" + hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_file(path: Path) -> str:
    """The digest of a file, read in pieces of 4 MiB."""
    hashing = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            hashing.update(piece)
    return "blake2b:" + hashing.hexdigest()


def digest_of(value: Any) -> str:
    """The digest of a JSON value, independent of key order."""
    return digest_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


def write_json(path: Path, value: Any) -> str:
    """Write indented JSON atomically; returns the digest."""
    with atomic(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
    return file.digest


def read_json(path: Path) -> Any:
    """Read a JSON file; InputError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing.", "Run the stage that writes it.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged: {error}.", "Delete it and run its stage again.") from error


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished stage did (docs/contracts.md, 5); `inputs` and `outputs` map names to digests."""

    stage: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    seed: int
    counts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_bytes: int = 0
    device: str = ""
    headline: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What downstream stages record as their input: the digest of all outputs."""
        return digest_of(self.outputs)

    def write(self, folder: Path) -> None:
        """Write `manifest.json`; its presence means that the stage is finished."""
        write_json(folder / MANIFEST, asdict(self))


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished stage; None where there is none."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return Manifest(**read_json(path))
    except TypeError as error:
        raise InputError(f"{path} is not a manifest of this version.", "Delete it and run its stage again.") from error


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys whose values differ, as sentences, nested keys dotted.

    >>> differences({"a": {"b": 1}}, {"a": {"b": 2}})
    ['a.b changed from 1 to 2']
    """
    found = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} changed from {_short(old)} to {_short(new)}")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
