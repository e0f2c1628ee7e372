"""Make, once a machine, what speeds later compilations up: C++'s header, Go's packages, javac's own classes.

In:  a toolchain's `prepare` table.  Out: a folder "ready" in the user's cache that everybody may read.

Unusual: the folder around it is bound into the box while still empty, so that a cell need not wait for it, nor start
anew; programs compile without it too, only slower, which is why no failure here is an error.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

READY = "ready"  # what was made, once it is complete
PATIENCE = 600.0  # seconds one command may take
Argv = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Preparation:
    """Commands that make things in {prepared} from `files`; `environment` is theirs and the later compilations'.

    The first one has to succeed; the others may fail where something they prepare is not installed.
    """

    commands: tuple[Argv, ...]
    files: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)


def filled(argv: Argv, words: dict[str, Argv], values: dict[str, str]) -> Argv:
    """An argv with its braces filled; a program alone in its place may become several words.

    >>> filled(("{tsc}", "-o", "{file}.js"), {"tsc": ("node", "tsc.js")}, {"file": "main"})
    ('node', 'tsc.js', '-o', 'main.js')
    """
    result: list[str] = []
    for word in argv:
        name = word[1:-1]
        if name in words and word == f"{{{name}}}":
            result += words[name]
        else:
            result.append(re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), word))
    return tuple(result)


def filled_values(environment: dict[str, str], values: dict[str, str]) -> dict[str, str]:
    """An environment with its braces filled."""
    return dict(zip(environment, filled(tuple(environment.values()), {}, values), strict=True))


def folder_for(name: str, preparation: Preparation, words: dict[str, Argv]) -> Path | None:
    """The folder around "ready", made if need be: other programs or commands have another one.

    None where none can be made.
    """
    programs = [Path(argv[-1]).resolve() for argv in words.values()]
    about = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in programs]
    key = repr((about, preparation.commands, preparation.files, preparation.environment))
    cache = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME", "") + "/.cache"
    folder = Path(cache, "codeweft", "toolchains", f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) or (folder / READY).exists() else None
    except OSError:  # a home that cannot be written
        return None


def make(preparation: Preparation, folder: Path, words: dict[str, Argv], environment: dict[str, str]) -> None:
    """Make "ready" in the folder, unless it is there or another process is at it."""
    if (folder / READY).exists():
        return
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if (folder / READY).exists():
            return
        for left in folder.iterdir():  # by a process that was ended
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder) as work, tempfile.TemporaryDirectory() as sources:
            made = Path(work, READY)
            made.mkdir()
            for name, text in preparation.files.items():
                Path(sources, name).write_text(text, encoding="utf-8")
            values = {"prepared": str(made)}
            environment = {**os.environ, **environment, **filled_values(preparation.environment, values)}
            argvs = [filled(argv, words, values) for argv in preparation.commands]
            if not _succeeds(argvs[0], sources, environment):
                return
            for argv in argvs[1:]:
                _succeeds(argv, sources, environment)
            for path in (made, *made.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            made.replace(folder / READY)


def _succeeds(argv: Argv, folder: str, environment: dict[str, str]) -> bool:
    quiet = subprocess.DEVNULL
    try:
        ran = subprocess.run(
            argv, cwd=folder, env=environment, timeout=PATIENCE, check=False, stdin=quiet, stdout=quiet, stderr=quiet
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ran.returncode == 0
