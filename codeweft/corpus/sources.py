"""List what the configured sources offer: folders, git repositories, JSON lines, and the built-in ones.

In:  the spellings in [corpus] code, math and text.  Out: a stream of entries in a fixed order; a digest a source.

The rule for a path: a git repository, or a folder that holds files directly, is one repository of that name; a folder
that holds only folders is a folder of repositories, one each. Of a git repository HEAD's tree is read and its revision
recorded, never the working files. Unusual: symbolic links are not followed and pipes, sockets and devices not opened;
hidden files and folders are passed over (in a git repository only those that are not committed). Of a tree of any size
only the names in the folders on the way down are held.
"""

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from codeweft.base.artifacts import digest_bytes, digest_of
from codeweft.base.config import nearest
from codeweft.base.errors import InputError
from codeweft.base.records import Kind
from codeweft.corpus import builtin, git
from codeweft.corpus.config import CorpusConfig
from codeweft.corpus.entries import Entry, Listing
from codeweft.source.languages import by_alias

KINDS: tuple[Kind, ...] = ("code", "math", "text")
BUILTIN = "builtin:"
PIECE_BYTES = 1 << 20  # in which a line that is too long to be read is passed over


def list_sources(config: CorpusConfig, seed: int) -> Listing:
    """Every entry of every source as a stream, by kind, then in the order given.

    InputError, when the stream comes to it, for a source that is not there, cannot be read or holds nothing.
    """
    listing = Listing()
    listing.entries = _entries(config, seed, listing.passed_over)
    return listing


def _entries(config: CorpusConfig, seed: int, passed_over: Counter[str]) -> Iterator[Entry]:
    for kind, spelling, name in _named(config):
        found = False
        if spelling.startswith(BUILTIN):
            entries = _builtin(spelling)(kind, seed)
        else:
            entries = _list_path(Path(spelling), kind, name, round(config.file_megabytes * 1e6), passed_over)
        for entry in entries:
            found = True
            yield entry
        if not found:
            raise InputError(f"{spelling} holds no files.", "Give a folder with source files, or leave it out.")


def inputs(config: CorpusConfig) -> dict[str, str]:
    """A digest a source from paths, sizes and times (folders), revisions (git) or versions (built in)."""
    return {f"{kind}:{spelling}": _digest(spelling) for kind, spelling, _ in _named(config)}


def _named(config: CorpusConfig) -> Iterator[tuple[Kind, str, str]]:
    """Each source with its kind and a name that no other source has; the folder it lies in plays no part."""
    seen: Counter[str] = Counter()
    for kind in KINDS:
        for spelling in getattr(config, kind):
            name = spelling if spelling.startswith(BUILTIN) else _text(Path(os.path.realpath(spelling)).name) or "root"
            seen[name] += 1
            yield kind, spelling, name if seen[name] == 1 else f"{name}-{seen[name]}"


def _builtin(spelling: str) -> builtin.Builtin:
    name = spelling.removeprefix(BUILTIN)
    if name not in builtin.BUILTINS:
        raise InputError(f"There is no source {spelling}.", nearest(name, builtin.BUILTINS))
    return builtin.BUILTINS[name]


def _list_path(path: Path, kind: Kind, name: str, longest: int, passed_over: Counter[str]) -> Iterator[Entry]:
    if stat.S_ISREG(_status(path).st_mode):
        if path.suffix != ".jsonl":
            raise InputError(f"{path} is a file.", "Give its folder, or a .jsonl file whose rows have a `text`.")
        yield from _list_rows(path, kind, name, longest)
        return
    for repository, folder in _repositories(path, name):
        if git.is_git(folder):
            yield from _list_git(folder, kind, name, repository, passed_over)
        else:
            yield from _list_folder(folder, kind, name, repository, passed_over)


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise InputError(
            f"The source {path} cannot be used: {error.strerror}.", "Give a folder, a git repository or a .jsonl file."
        ) from error


def _repositories(path: Path, name: str) -> list[tuple[str, Path]]:
    children = [] if git.is_git(path) else [child for child in _children(path) if not child.startswith(".")]
    looks = (_look(f"{path}/{child}") for child in children)
    if children and all(status is None or stat.S_ISDIR(status.st_mode) for status in looks):
        return [(f"{name}/{_text(child)}", path / child) for child in children]
    return [(name, path)]


def _children(folder: Path | str) -> list[str]:
    """The names in a folder, in the order of their bytes."""
    try:
        with os.scandir(folder) as found:
            return sorted((child.name for child in found), key=os.fsencode)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path | str, error: OSError) -> InputError:
    return InputError(f"The folder {folder} cannot be read: {error.strerror}.", "Make it readable, or leave it out.")


def _look(path: str) -> os.stat_result | None:
    """What a path is, links not followed; None for what was removed since its folder was read."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(Path(path).parent, error) from error


def _text(name: str) -> str:
    """A file name as text; bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


def _walk(folder: Path, passed_over: Counter[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Regular files below `folder` and what they are, sorted by path, depth first, however deep."""
    waiting = [(str(folder), iter(_children(folder)))]
    while waiting:
        above, names = waiting[-1]
        name = next(names, None)
        if name is None:
            waiting.pop()
            continue
        path = f"{above}/{name}"
        status = _look(path)
        if status is None:
            passed_over["removed meanwhile"] += 1
        elif stat.S_ISLNK(status.st_mode):
            passed_over["symbolic link"] += 1
        elif name.startswith("."):
            passed_over["hidden"] += 1
        elif stat.S_ISDIR(status.st_mode):
            waiting.append((path, iter(_children(path))))
        elif stat.S_ISREG(status.st_mode):
            yield path, status
        else:
            passed_over["pipe, socket or device"] += 1


def _list_folder(
    folder: Path, kind: Kind, source: str, repository: str, passed_over: Counter[str]
) -> Iterator[Entry]:  # fmt: skip
    for path, status in _walk(folder, passed_over):
        yield Entry(kind, source, repository, _text(os.path.relpath(path, folder)), status.st_size, "file", path)


def _list_git(
    folder: Path, kind: Kind, source: str, repository: str, passed_over: Counter[str]
) -> Iterator[Entry]:  # fmt: skip
    for file in git.files(folder, passed_over):
        location = f"{folder}\0{file.blob}"
        yield Entry(kind, source, repository, file.path, file.size, "blob", location, file.revision)


def _list_rows(path: Path, kind: Kind, source: str, longest: int) -> Iterator[Entry]:
    """One entry a line; of a line beyond `longest` bytes only the length is taken, for it will be dropped unread."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(longest + 1), b""), 1):
            size = len(line) if len(line) <= longest else len(line) + _rest_of_line(line, file)
            location = f"{path}\0{offset}\0{size}"
            offset += size
            if size > longest:
                yield Entry(kind, source, source, f"line {number}", size, "row", location)
            elif line.strip():
                row = read_row(line, f"{path} line {number}")
                repository = _clean(row.get("repository")) or source
                name = f"{_clean(row['path'])}#{number}" if row.get("path") else f"line {number}"
                language = by_alias(str(row.get("language") or "")) or ""
                yield Entry(kind, source, repository, name, size, "row", location, language=language)


def _rest_of_line(line: bytes, file: BinaryIO) -> int:
    rest = 0
    while line and not line.endswith(b"\n"):
        line = file.readline(PIECE_BYTES)
        rest += len(line)
    return rest


def _clean(value: object) -> str:
    """A JSON value as text that UTF-8 can hold: JSON can spell half a surrogate pair."""
    return str(value or "").encode("utf-8", "replace").decode()


def read_row(line: bytes, place: str) -> dict[str, object]:
    """One JSON row with a string `text`; InputError naming the place otherwise."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place} is not JSON: {error}.", "Mend or remove that line.") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise InputError(f"{place} has no string `text`.", "Every line must be an object with a `text`.")
    return row


def _digest(spelling: str) -> str:
    if spelling.startswith(BUILTIN):
        _builtin(spelling)
        return builtin.digest()
    path = Path(spelling)
    status = _status(path)
    if stat.S_ISREG(status.st_mode):
        return digest_of([status.st_size, status.st_mtime_ns])
    hashing = hashlib.blake2b(digest_size=16)
    for repository, folder in _repositories(path, ""):
        hashing.update(repository.encode())
        if git.is_git(folder):
            hashing.update(git.revision(folder))
            continue
        for place, found in _walk(folder, Counter()):
            hashing.update(os.fsencode(f"{place}\0{found.st_size}\0{found.st_mtime_ns}\n"))
    return digest_bytes(hashing.digest())
