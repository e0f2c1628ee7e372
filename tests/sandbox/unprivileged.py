"""A sandbox in another process, as a user without privileges or in a weaker tier, driven line by line.

In:  settings, then requests as lines of JSON.  Out: runs and verdicts as lines of JSON; a skip where it cannot be had.

Unusual: started as a script, this file is the other process. Root cannot simply become somebody else: the interpreter
may lie where nobody else can enter, so it, its packages and a copy of the code are bound to where everybody can.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOBODY = 65534
# Root's part, in a mount namespace of its own: bind folders, then become the user.
REACHABLE = """
set -e
while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done
shift
exec "$@"
"""


class Driven:
    """The other process: ask it, get the answer."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.facts: dict[str, Any] = {}

    def ask(self, request: dict[str, Any] | None) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if request is not None:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait(5)}"
        return json.loads(line)

    def python(self, code: str, **fields: Any) -> dict[str, Any]:
        return self.ask({"run": {"language": "python", "code": code} | fields})

    def says(self, code: str, **fields: Any) -> str:
        ran = self.python(code, **fields)
        assert ran["status"] == "ok", ran
        return ran["stdout"]

    def judge(self, code: str, *tests: dict[str, Any], **fields: Any) -> dict[str, Any]:
        return self.ask({"judge": {"language": "python", "code": code, "entry_point": "f", "tests": tests} | fields})


@contextmanager
def driven(
    user: int | None, more: dict[str, str] | None = None, command: list[str] | None = None, **settings: Any
) -> Iterator[Driven]:
    """A sandbox with these settings as this user (None: as whoever runs the tests), or another command."""
    with tempfile.TemporaryDirectory(prefix="driven-") as name:
        argv, environment = elsewhere(Path(name), user)
        words = command or ["-m", "sandbox.unprivileged", json.dumps({"cells": 1} | settings)]
        process = subprocess.Popen(
            [*argv, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment | (more or {}), cwd=name,
        )  # fmt: skip
        try:
            other = Driven(process)
            if command is None:
                other.facts = other.ask(None)
            yield other
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(20)


def elsewhere(
    folder: Path, user: int | None, files: tuple[str, ...] = ("unprivileged.py",)
) -> tuple[list[str], dict[str, str]]:
    """The words that start this Python as a user, and its environment, with all it reads below a folder.

    `files` are those of this folder of tests that it may import, as `sandbox.NAME`.
    """
    import pytest

    import codeweft

    if os.geteuid() != 0 and user is not None:
        pytest.skip("toolchain: only root can become another user, and the other tests run without privileges already")
    folder.chmod(0o755)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(codeweft.__file__).parent, folder / "codeweft", ignore=ignored)
    (folder / "sandbox").mkdir()
    for file in files:
        shutil.copy(Path(__file__).with_name(file), folder / "sandbox")
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    (folder / "scratch").mkdir()
    (folder / "scratch").chmod(0o777)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder / "scratch"), "TMPDIR": str(folder / "scratch"),
        "PYTHONPATH": f"{folder}:{folder / 'packages'}", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8",
    }  # fmt: skip
    executable, prefix = Path(sys.executable).resolve(), Path(sys.base_prefix).resolve()
    if os.geteuid() != 0:
        (folder / "packages").symlink_to(sysconfig.get_path("purelib"))
        return [str(executable)], environment
    for tool in ("unshare", "setpriv", "mount"):
        if shutil.which(tool) is None:
            pytest.skip(f"toolchain: {tool} is not installed")
    places = {"packages": sysconfig.get_path("purelib")} | ({} if prefix == Path("/usr") else {"python": str(prefix)})
    for name in places:
        (folder / name).mkdir()
    if "python" in places:
        executable = folder / "python" / executable.relative_to(prefix)
    pairs = [word for name, place in places.items() for word in (place, str(folder / name))]
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", REACHABLE, "sh", *pairs, "--"]
    if user is not None:
        argv += ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--no-new-privs"]
    return [*argv, str(executable)], environment


# --- the other process ---------------------------------------------------------------------------------------------


async def answer(settings: dict[str, Any]) -> None:
    """Open the sandbox, say how that went, then answer."""
    from codeweft.base.errors import UserError
    from codeweft.sandbox.client import open_sandbox
    from codeweft.sandbox.config import SandboxConfig

    try:
        async with open_sandbox(SandboxConfig(**settings)) as sandbox:
            tell({"user": os.getuid(), "tier": sandbox.tier, "supervisor": getattr(sandbox, "process").pid})  # noqa: B009
            loop = asyncio.get_running_loop()
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                tell(await done(sandbox, json.loads(line)))
    except UserError as error:
        tell({"refused": str(error)})


async def done(sandbox: Any, request: dict[str, Any]) -> dict[str, Any]:
    """What a request asks for."""
    from codeweft.base.records import Test
    from codeweft.sandbox.config import Limits, Program, Submission

    [(kind, fields)] = request.items()
    deadline = fields.pop("deadline", None)
    if "limits" in fields:
        fields["limits"] = Limits(**fields["limits"])
    if kind == "judge":
        fields["tests"] = tuple(
            Test(**test | ({"args": tuple(test["args"])} if "args" in test else {})) for test in fields["tests"]
        )
        verdict = await sandbox.judge(Submission(**fields), deadline=deadline)
        return {name: getattr(verdict, name) for name in ("status", "passed", "total", "tier", "mode", "detail")}
    fields["stdin"] = fields.get("stdin", "").encode()
    ran = await sandbox.run(Program(**fields), deadline=deadline)
    told = {name: getattr(ran, name) for name in ("status", "exit_code", "tier", "detail", "cpu_seconds", "peak_bytes")}
    return told | {"stdout": ran.stdout.decode(errors="replace"), "stderr": ran.stderr.decode(errors="replace")}


def tell(fact: dict[str, Any]) -> None:
    print(json.dumps(fact), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(answer(json.loads(sys.argv[1])))
