"""Read the commit of a git repository, every object checked against its name: the only file that knows dulwich.

In:  a checkout or a bare repository.  Out: HEAD's revision, the regular files of its tree, their bytes.

Unusual: dulwich takes the first half of an object that was cut off for the whole, and its parsers raise whatever they
stumble over; so each object is digested, and whatever goes wrong is one InputError that names repository and place.
"""

import atexit
import hashlib
import stat
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dulwich.objects import Blob, Commit, ShaFile, Tag, Tree
from dulwich.repo import Repo

from codeweft.base.errors import InputError

TYPES = {each.type_num: each.type_name for each in (Commit, Tree, Blob, Tag)}


@dataclass(frozen=True, slots=True)
class File:
    """A regular file of a commit; `blob` is the name of the object that holds it."""

    path: str
    size: int
    blob: str
    revision: str


def is_git(folder: Path) -> bool:
    """Whether the folder is a git repository: a checkout, or a bare one."""
    try:
        bare = (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()
        return bare or (folder / ".git").exists()
    except PermissionError:  # whoever goes on to read the folder is told
        return False


def revision(folder: Path) -> bytes:
    """The name of the commit that HEAD stands for; InputError where there is none."""
    with _told(folder, "HEAD"), Repo(str(folder)) as repo:
        return repo.head()


def files(folder: Path, passed_over: Counter[str]) -> Iterator[File]:
    """The regular files of HEAD's tree, sorted by path, folder by folder; InputError where an object is damaged."""
    head = revision(folder)
    with _told(folder, "HEAD"):
        commit = ShaFile.from_raw_string(Commit.type_num, _object(str(folder), head))
        assert isinstance(commit, Commit)
        waiting = [("", stat.S_IFDIR, commit.tree)]
    while waiting:
        path, mode, name = waiting.pop()
        if stat.S_ISDIR(mode):
            with _told(folder, path or "the top of its tree"):
                tree = ShaFile.from_raw_string(Tree.type_num, _object(str(folder), name))
                assert isinstance(tree, Tree)
                items = [(each.path, each.mode, each.sha) for each in tree.iteritems(name_order=True)]
            above = f"{path}/" if path else ""
            waiting += [(above + item.decode("utf-8", "replace"), kind, inner) for item, kind, inner in items[::-1]]
        elif stat.S_ISREG(mode):
            yield File(path, len(read(str(folder), name.decode(), path)), name.decode(), head.decode())
        else:
            passed_over["symbolic link" if stat.S_ISLNK(mode) else "submodule"] += 1


def read(folder: str, name: str, path: str) -> bytes:
    """The bytes of a blob by its name; `path` is what to call it when it is missing or damaged (InputError)."""
    with _told(folder, path):
        return _object(folder, name.encode())


_open: dict[str, Repo] = {}  # the repository that was asked last: entries come one repository after the other


def _repository(folder: str) -> Repo:
    if folder not in _open:
        _close()
        _open[folder] = Repo(folder)
    return _open[folder]


@atexit.register
def _close() -> None:
    while _open:
        with suppress(BufferError):  # a pack stays mapped where reading it broke off
            _open.popitem()[1].close()


def _object(folder: str, name: bytes) -> bytes:
    number, data = _repository(folder).object_store.get_raw(name)  # ty: ignore[invalid-argument-type]
    digest = hashlib.sha256 if len(name) == 64 else hashlib.sha1
    if digest(TYPES[number] + b" %d\0" % len(data) + data).hexdigest() != name.decode():
        raise ValueError(f"the bytes of object {name.decode()} do not match its name")
    return data


@contextmanager
def _told(folder: Path | str, at: str) -> Generator[None, None, None]:
    try:
        yield
    except Exception as error:  # dulwich meets damage with whatever its parsers raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"The git repository {folder} has no commit, or objects are missing or damaged (at {at}: {reason}).",
            "Commit first, mend it (`git fsck` names the objects), or copy its files to a folder without .git.",
        ) from error
