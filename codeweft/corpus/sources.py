"""List what the configured sources offer: folders, git repositories, JSON lines, and the built-in ones.

In:  the spellings in [corpus] code, math and text.  Out: a Listing of entries in a fixed order; a digest a source.

The rule for a path: a git repository, or a folder that holds files directly, is one repository of that name; a folder
that holds only folders is a folder of repositories, one each. Of a git repository HEAD's tree is read and its revision
recorded, never the working files. Unusual: symbolic links are not followed and pipes, sockets and devices not opened;
hidden files and folders are passed over (in a git repository only those that are not committed).
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dulwich.errors import NotGitRepository
from dulwich.object_store import iter_tree_contents
from dulwich.repo import Repo

from codeweft.base.artifacts import digest_bytes, digest_of
from codeweft.base.config import nearest
from codeweft.base.errors import InputError
from codeweft.base.records import Kind
from codeweft.corpus import builtin
from codeweft.corpus.config import CorpusConfig
from codeweft.corpus.entries import Entry, Listing
from codeweft.source.languages import by_alias

KINDS: tuple[Kind, ...] = ("code", "math", "text")
BUILTIN = "builtin:"


def list_sources(config: CorpusConfig, seed: int) -> Listing:
    """Every entry of every source, by kind, then in the order given; InputError for a source that is not there."""
    listing = Listing()
    for kind, spelling, name in _named(config):
        before = len(listing.entries)
        if spelling.startswith(BUILTIN):
            listing.entries += _builtin(spelling)(kind, seed)
        else:
            _list_path(Path(spelling), kind, name, listing)
        if len(listing.entries) == before:
            raise InputError(f"{spelling} holds no files.", "Give a folder with source files, or leave it out.")
    return listing


def inputs(config: CorpusConfig) -> dict[str, str]:
    """A digest a source from paths, sizes and times (folders), revisions (git) or versions (built in)."""
    return {f"{kind}:{spelling}": _digest(spelling) for kind, spelling, _ in _named(config)}


def _named(config: CorpusConfig) -> Iterator[tuple[Kind, str, str]]:
    """Each source with its kind and a name that no other source has; the folder it lies in plays no part."""
    seen: Counter[str] = Counter()
    for kind in KINDS:
        for spelling in getattr(config, kind):
            name = spelling if spelling.startswith(BUILTIN) else Path(spelling).resolve().name or "root"
            seen[name] += 1
            yield kind, spelling, name if seen[name] == 1 else f"{name}-{seen[name]}"


def _builtin(spelling: str) -> builtin.Builtin:
    name = spelling.removeprefix(BUILTIN)
    if name not in builtin.BUILTINS:
        raise InputError(f"There is no source {spelling}.", nearest(name, builtin.BUILTINS))
    return builtin.BUILTINS[name]


def _list_path(path: Path, kind: Kind, name: str, listing: Listing) -> None:
    if not path.exists():
        raise InputError(f"The source {path} does not exist.", "Give a folder, a git repository or a .jsonl file.")
    if path.is_file():
        if path.suffix != ".jsonl":
            raise InputError(f"{path} is a file.", "Give its folder, or a .jsonl file whose rows have a `text`.")
        listing.entries += _list_rows(path, kind, name)
        return
    for repository, folder in _repositories(path, name):
        if is_git(folder):
            listing.entries += _list_git(folder, kind, name, repository)
        else:
            listing.entries += _list_folder(folder, kind, name, repository, listing.passed_over)


def is_git(folder: Path) -> bool:
    """Whether the folder is a git repository: a checkout, or a bare one."""
    bare = (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()
    return bare or (folder / ".git").exists()


def _repositories(path: Path, name: str) -> list[tuple[str, Path]]:
    if is_git(path):
        return [(name, path)]
    children = [child for child in _scan(path) if not child.name.startswith(".")]
    if not children or any(not child.is_dir(follow_symlinks=False) for child in children):
        return [(name, path)]
    return [(f"{name}/{_text(child.name)}", Path(child.path)) for child in children]


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda child: os.fsencode(child.name))
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be read: {error.strerror}.", "Make it readable, or leave it out."
        ) from error


def _text(name: str) -> str:
    """A file name as text; bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


def _walk(folder: Path, passed_over: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """Regular files below `folder`, sorted by path, depth first."""
    for child in _scan(folder):
        if child.is_symlink():
            passed_over["symbolic link"] += 1
        elif child.name.startswith("."):
            passed_over["hidden"] += 1
        elif child.is_dir(follow_symlinks=False):
            yield from _walk(Path(child.path), passed_over)
        elif child.is_file(follow_symlinks=False):
            yield child
        else:
            passed_over["pipe, socket or device"] += 1


def _list_folder(
    folder: Path, kind: Kind, source: str, repository: str, passed_over: Counter[str]
) -> Iterator[Entry]:  # fmt: skip
    for child in _walk(folder, passed_over):
        path = _text(os.path.relpath(child.path, folder))
        yield Entry(kind, source, repository, path, child.stat().st_size, "file", child.path)


def _list_git(folder: Path, kind: Kind, source: str, repository: str) -> Iterator[Entry]:
    try:
        with Repo(str(folder)) as repo:
            revision = repo.head()
            tree = repo[revision].tree  # ty: ignore[missing-attribute]
            for item in iter_tree_contents(repo.object_store, tree):
                assert item.path is not None
                assert item.sha is not None
                if item.mode is None or item.mode & 0o170000 != 0o100000:  # symbolic links and submodules
                    continue
                size = len(repo.object_store.get_raw(item.sha)[1])
                path, blob = item.path.decode("utf-8", "replace"), item.sha.decode()
                yield Entry(kind, source, repository, path, size, "blob", f"{folder}\0{blob}", revision.decode())
    except (NotGitRepository, KeyError, OSError, AssertionError) as error:
        raise InputError(
            f"The git repository {folder} has no commit, or objects are missing ({type(error).__name__}: {error}).",
            "Commit first, run `git fsck` there, or copy its files to a folder without .git.",
        ) from error


def _list_rows(path: Path, kind: Kind, source: str) -> Iterator[Entry]:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                row = read_row(line, f"{path} line {number}")
                repository = str(row.get("repository") or source)
                name = f"{row['path']}#{number}" if row.get("path") else f"line {number}"
                language = by_alias(str(row.get("language") or "")) or ""
                location = f"{path}\0{offset}\0{len(line)}"
                yield Entry(kind, source, repository, name, len(line), "row", location, language=language)
            offset += len(line)


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
    if not path.exists():
        raise InputError(f"The source {path} does not exist.", "Give a folder, a git repository or a .jsonl file.")
    if path.is_file():
        status = path.stat()
        return digest_of([status.st_size, status.st_mtime_ns])
    hashing = hashlib.blake2b(digest_size=16)
    for repository, folder in _repositories(path, ""):
        hashing.update(repository.encode())
        if is_git(folder):
            hashing.update(_revision(folder))
            continue
        for child in _walk(folder, Counter()):
            status = child.stat()
            hashing.update(os.fsencode(f"{child.path}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return digest_bytes(hashing.digest())


def _revision(folder: Path) -> bytes:
    try:
        with Repo(str(folder)) as repo:
            return repo.head()
    except (NotGitRepository, KeyError, OSError) as error:
        raise InputError(f"The git repository {folder} has no commit to read.", "Commit first.") from error
