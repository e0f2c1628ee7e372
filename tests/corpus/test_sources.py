"""Listing and reading sources: what counts as a repository, what is never followed, and ids that travel."""

import inspect
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from dulwich import porcelain

from codeweft.base.errors import InputError
from codeweft.corpus.config import CorpusConfig
from codeweft.corpus.entries import Entry, Listing, document_id
from codeweft.corpus.reading import READERS, examine
from codeweft.corpus.sources import inputs, list_sources


def code(*paths: Path) -> CorpusConfig:
    return CorpusConfig(code=tuple(map(str, paths)), math=(), text=())


def listed(*paths: Path) -> Listing:
    listing = list_sources(code(*paths), 1)
    return Listing(list(listing.entries), listing.passed_over)


def names(listing: Listing) -> list[str]:
    return [entry.full_path for entry in listing.entries]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def ids(listing: Listing) -> list[str]:
    return [document_id(entry, READERS[entry.reader](entry) or b"") for entry in listing.entries]


def test_a_folder_with_files_is_one_repository_and_a_folder_of_folders_is_many(tmp_path: Path):
    one = write(tmp_path / "one", setup_dot_py="x = 1", src__a_dot_py="y = 2")
    many = write(tmp_path / "many", first__a_dot_py="x = 1", second__b_dot_py="y = 2")
    assert names(listed(one)) == ["one/setup.py", "one/src/a.py"]
    assert names(listed(many)) == ["many/first/a.py", "many/second/b.py"]
    assert {entry.repository for entry in listed(many).entries} == {"many/first", "many/second"}


def test_two_checkouts_in_different_folders_give_the_same_ids(tmp_path: Path):
    first = write(tmp_path / "here" / "project", a_dot_py="x = 1", b__c_dot_py="y = 2")
    second = tmp_path / "elsewhere" / "deeper" / "project"
    shutil.copytree(first, second)
    assert ids(listed(first)) == ids(listed(second))
    assert len(set(ids(listed(first, second)))) == 4  # both at once: told apart by name


def test_links_are_not_followed_and_pipes_not_opened(tmp_path: Path):
    outside = write(tmp_path / "outside", secret_dot_py="x = 1")
    project = write(tmp_path / "project", a_dot_py="y = 2")
    (project / "loop").symlink_to(project)
    (project / "out").symlink_to(outside)
    (project / "file.py").symlink_to(outside / "secret.py")
    os.mkfifo(project / "pipe.py")
    write(project, _dot_hidden__b_dot_py="z = 3")
    listing = listed(project)
    assert names(listing) == ["project/a.py"]
    assert listing.passed_over == {"symbolic link": 3, "pipe, socket or device": 1, "hidden": 1}
    assert inputs(code(project))  # the digest opens no pipe either


def test_a_tree_deeper_than_the_stack_is_walked(tmp_path: Path):
    folder = tmp_path.joinpath(*["d"] * 400)
    folder.mkdir(parents=True)
    (folder / "deep.py").write_text("x = 1")
    (tmp_path / "top.py").write_text("y = 2")
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(len(inspect.stack()) + 150)
        found = names(listed(tmp_path))
    finally:
        sys.setrecursionlimit(limit)
    assert [name.rsplit("/", 1)[1] for name in found] == ["deep.py", "top.py"]


def test_links_and_submodules_of_a_git_repository_are_counted(tmp_path: Path):
    folder = write(tmp_path / "project", a_dot_py="x = 1")
    (folder / "link.py").symlink_to("a.py")
    git(folder)
    listing = listed(folder)
    assert names(listing) == ["project/a.py"]
    assert listing.passed_over == {"symbolic link": 1}


def git(folder: Path) -> str:
    if not (folder / ".git").exists():
        porcelain.init(str(folder)).close()
    porcelain.add(str(folder), [str(path) for path in sorted(folder.rglob("*.py"))])
    commit = porcelain.commit(str(folder), message=b"first", author=b"A <a@b.c>", committer=b"A <a@b.c>")
    return commit.decode()


def test_of_a_git_repository_the_commit_is_read_not_the_working_files(tmp_path: Path):
    folder = write(tmp_path / "project", a_dot_py="committed = 1", sub__b_dot_py="deep = 1")
    revision = git(folder)
    write(folder, a_dot_py="changed = 2", c_dot_py="new = 3")
    listing = listed(folder)
    assert names(listing) == ["project/a.py", "project/sub/b.py"]
    assert {entry.revision for entry in listing.entries} == {revision}
    assert [READERS[entry.reader](entry) for entry in listing.entries] == [b"committed = 1", b"deep = 1"]


def test_a_bare_clone_reads_like_its_checkout(tmp_path: Path):
    folder = write(tmp_path / "project", a_dot_py="committed = 1")
    git(folder)
    bare = tmp_path / "bare" / "project"
    bare.parent.mkdir()
    porcelain.clone(str(folder), str(bare), bare=True).close()
    assert ids(listed(bare)) == ids(listed(folder))


def test_the_digest_of_a_source_follows_its_files_and_of_git_its_commit(tmp_path: Path):
    folder = write(tmp_path / "plain", a_dot_py="x = 1")
    before = inputs(code(folder))
    assert before == inputs(code(folder))
    write(folder, a_dot_py="x = 12")
    assert before != inputs(code(folder))
    repository = write(tmp_path / "repository", a_dot_py="x = 1")
    git(repository)
    committed = inputs(code(repository))
    write(repository, a_dot_py="x = 12")
    assert committed == inputs(code(repository))
    git(repository)
    assert committed != inputs(code(repository))


def test_rows_of_json_lines_are_documents(tmp_path: Path):
    rows = [
        {"text": "x = 'é'\n", "path": "a.py", "repository": "r1"},
        {"text": "value = 2\n", "language": "python", "repository": "r2"},
        {"text": "unknown"},
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    config = code(path)
    found = [examine(entry, config) for entry in list_sources(config, 1).entries]
    facts = [(row["text"], row["language"], row["repository"], row["reason"]) for row in found if row]
    assert facts == [
        ("x = 'é'\n", "Python", "r1", ""),
        ("value = 2\n", "Python", "r2", ""),
        ("unknown", "", "data.jsonl", "language"),
    ]


def reason(tmp_path: Path, data: bytes, name: str = "a.py") -> tuple[str, str, str]:
    path = tmp_path / name
    path.write_bytes(data)
    entry = Entry("code", "s", "r", name, len(data), "file", str(path))
    row = examine(entry, CorpusConfig(file_megabytes=0.01))
    assert row is not None
    return row["reason"], row["detail"], row["text"]


def test_what_cannot_be_read_as_text_is_dropped_with_the_place_that_broke_it(tmp_path: Path):
    assert reason(tmp_path, b"caf\xe9 = 1\n") == ("encoding", "3", "")
    assert reason(tmp_path, b"x = 1\n\0\n") == ("binary", "6", "")
    assert reason(tmp_path, b"x = 1\n" * 2000) == ("size", "12000", "")
    assert reason(tmp_path, b"hello", "a.unheard") == ("language", ".unheard", "hello")


def test_marks_of_encoding_are_understood_and_removed(tmp_path: Path):
    assert reason(tmp_path, "café = 1\n".encode("utf-8-sig")) == ("", "", "café = 1\n")
    assert reason(tmp_path, "café = 1\n".encode("utf-16")) == ("", "", "café = 1\n")


def test_a_file_that_vanished_after_listing_is_told_and_not_fatal(tmp_path: Path):
    row = examine(Entry("code", "s", "r", "a.py", 5, "file", str(tmp_path / "a.py")), CorpusConfig())
    assert row is not None
    assert (row["reason"], row["bytes"]) == ("unreadable", 5)


@pytest.mark.parametrize("prepare", ["missing", "empty", "file", "git without a commit", "builtin", "row"])
def test_a_source_that_cannot_be_used_is_one_clear_error(tmp_path: Path, prepare: str):
    source = tmp_path / "source"
    if prepare == "empty":
        source.mkdir()
    elif prepare == "file":
        source.write_text("x = 1")
    elif prepare == "git without a commit":
        source.mkdir()
        porcelain.init(str(source)).close()
    elif prepare == "row":
        source = tmp_path / "rows.jsonl"
        source.write_text('{"text": "a"}\n{"txt": "b"}\n')
    spelling = "builtin:pyton" if prepare == "builtin" else str(source)
    with pytest.raises(InputError) as caught:
        list(list_sources(CorpusConfig(code=(spelling,), math=(), text=()), 1).entries)
    assert caught.value.next_step
    assert spelling in str(caught.value)
    if prepare == "builtin":
        assert "Did you mean python?" in str(caught.value)
