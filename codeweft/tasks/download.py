"""Official files from where they are published: looked for first, fetched when that was allowed, checked always.

In:  a `Data` description.  Out: a path on this disk.

Unusual: a download that was cut off goes on where it was. A file with another digest than stated is never used.
"""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from codeweft.base.artifacts import naming
from codeweft.base.errors import InputError
from codeweft.base.progress import Bar, bar, say
from codeweft.tasks.files import Folder
from codeweft.tasks.task import Data

PIECE = 1 << 20
TIMEOUT = 60.0  # seconds without a byte


def cache_folder() -> Path:
    """Where fetched files are kept: $XDG_CACHE_HOME/codeweft/eval, else ~/.cache/codeweft/eval."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codeweft" / "eval"


@dataclass(frozen=True, slots=True)
class Fetched:
    """Files of a person's folder, of the cache, and, where `allowed`, of the web."""

    folder: Path | None
    allowed: bool = False

    def path(self, data: Data) -> Path:
        """The file; InputError where it is nowhere, or is another one than stated."""
        try:
            return Folder(self.folder).path(data)
        except InputError:
            kept = cache_folder() / data.names[0]
            if kept.exists():
                return kept
            if not self.allowed or not data.url:
                raise
        fetch(data, kept)
        return kept


def fetch(data: Data, target: Path) -> None:
    """Download a file to `target`; InputError when the server cannot be reached or sends another file."""
    partial = target.with_name(f"{target.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    say(f"fetching {data.names[0]} ({data.licence or 'licence not stated'}) from {data.url}")
    try:
        _continue(data.url, partial, target.name)
    except urllib.error.HTTPError as error:
        raise InputError(f"{data.url} answers {error.code} {error.reason}.", _by_hand(data)) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"{data.url} cannot be reached: {reason}.", _by_hand(data)) from error
    found = _sha256(partial)
    if not data.sha256:
        say(f"{data.names[0]} has no stated digest to be checked against; its SHA-256 is {found}.")
    elif found != data.sha256:
        partial.unlink()
        raise InputError(
            f"{data.url} sent a file with the SHA-256 {found}, not {data.sha256}.",
            "It was changed there. " + _by_hand(data),
        )
    partial.replace(target)


def _by_hand(data: Data) -> str:
    return f"Put the file into a folder as {data.names[0]} and name the folder: --eval-data DIR."


def _continue(url: str, partial: Path, label: str) -> None:
    """Append what is missing of a file; a server that knows no ranges sends it from its beginning."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing
            return
        raise
    with response, naming(partial):
        going_on = response.status == 206
        expected = int(response.headers.get("Content-Length") or 0)
        before = have if going_on else 0
        with partial.open("ab" if going_on else "wb") as file, bar(label, before + expected or None, "bytes") as shown:
            shown.advance(before)
            got = _copy(response, file, shown)
    if expected and got < expected:
        raise ConnectionError(f"it ended after {before + got:,} of {before + expected:,} bytes")


def _copy(response: http.client.HTTPResponse, file: BinaryIO, shown: Bar) -> int:
    got = 0
    while piece := response.read1(PIECE):
        file.write(piece)
        got += len(piece)
        shown.advance(len(piece))
    return got


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
