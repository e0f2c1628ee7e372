"""Official files: looked for before they are fetched, checked after, continued where they were cut off."""

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from codeweft.base.errors import InputError
from codeweft.tasks.download import Fetched, cache_folder
from codeweft.tasks.task import Data

CONTENT = bytes(range(256)) * 4000
SUM = hashlib.sha256(CONTENT).hexdigest()


class Library:
    """A server of one file; `cut` ends the next answer early, `ranges` says whether it knows them."""

    def __init__(self) -> None:
        self.cut, self.ranges, self.asked = 0, True, []
        library = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range", "")
                library.asked.append(asked)
                if self.path != "/file":
                    self.send_error(404)
                    return
                start = int(re.findall(r"\d+", asked)[0]) if asked and library.ranges else 0
                body = CONTENT[start:]
                if start >= len(CONTENT):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                sent, library.cut = (body[: library.cut] if library.cut else body), 0
                self.wfile.write(sent)
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/file"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library = Library()
    yield library
    library.server.shutdown()
    library.server.server_close()


def data(library: Library, sha256: str = SUM) -> Data:
    return Data(("set/file.bin", "file.bin"), library.url, sha256, "MIT")


def test_a_file_of_the_persons_folder_is_taken_first(library: Library, tmp_path: Path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "file.bin").write_bytes(b"own")
    assert Fetched(tmp_path / "own", allowed=True).path(data(library)).read_bytes() == b"own"
    assert library.asked == []


def test_nothing_is_fetched_unless_that_is_allowed(library: Library, tmp_path: Path):
    with pytest.raises(InputError, match=r"set/file\.bin.*--eval-data DIR"):
        Fetched(tmp_path).path(data(library))
    assert library.asked == []


def test_a_file_is_fetched_once_and_kept(library: Library):
    for _ in range(2):
        path = Fetched(None, allowed=True).path(data(library))
        assert path == cache_folder() / "set" / "file.bin"
        assert path.read_bytes() == CONTENT
    assert library.asked == [""]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_off_goes_on(library: Library, ranges: bool):
    library.cut, library.ranges = 300_000, ranges
    with pytest.raises(InputError, match=r"cannot be reached: .*300,000 of 1,024,000 bytes|IncompleteRead"):
        Fetched(None, allowed=True).path(data(library))
    assert not (cache_folder() / "set" / "file.bin").exists()
    assert Fetched(None, allowed=True).path(data(library)).read_bytes() == CONTENT
    assert library.asked == ["", "bytes=300000-"]


def test_a_file_that_was_whole_but_not_renamed_is_not_fetched_again(library: Library):
    partial = cache_folder() / "set" / "file.bin.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT)
    assert Fetched(None, allowed=True).path(data(library)).read_bytes() == CONTENT


def test_another_file_than_stated_is_never_used(library: Library):
    wrong = "0" * 64
    with pytest.raises(InputError, match=f"{SUM}, not {wrong}"):
        Fetched(None, allowed=True).path(data(library, wrong))
    assert not list(cache_folder().rglob("*.bin*"))


def test_a_file_without_a_stated_digest_is_said_to_be_unchecked(library: Library, capsys: pytest.CaptureFixture[str]):
    Fetched(None, allowed=True).path(data(library, ""))
    assert f"no stated digest to be checked against; its SHA-256 is {SUM}" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_told_in_a_sentence(library: Library):
    gone = Data(("a.bin",), "http://127.0.0.1:9/file", SUM)
    with pytest.raises(InputError, match=r"cannot be reached.*Put the file into a folder as a\.bin"):
        Fetched(None, allowed=True).path(gone)
    missing = Data(("a.bin",), library.url + "s", SUM)
    with pytest.raises(InputError, match="answers 404"):
        Fetched(None, allowed=True).path(missing)
