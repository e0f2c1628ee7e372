"""An open sandbox for plain test functions: its own event loop, and the questions that most tests ask.

In:  a configuration.  Out: runs and verdicts; a skip where this machine has no wall.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from codeweft.base.errors import UserError
from codeweft.base.records import Test, Verdict
from codeweft.sandbox.client import LocalSandbox
from codeweft.sandbox.config import Limits, Program, Ran, SandboxConfig, Submission
from codeweft.sandbox.watch import descendants

T = TypeVar("T")
SMALL = Limits(
    cpu_seconds=1.0, wall_seconds=20.0, memory_mib=128, tasks=32, disk_mib=16, shared_mib=4, inodes=256, file_mib=8,
    open_files=64, stdout_bytes=65536, stderr_bytes=16384,
)  # fmt: skip


class Opened:
    """A sandbox and the loop it lives in."""

    def __init__(self, runner: asyncio.Runner, sandbox: LocalSandbox) -> None:
        self.runner, self.sandbox = runner, sandbox

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the sandbox's loop."""
        return self.runner.run(coroutine)

    def run(self, program: Program) -> Ran:
        return self.do(self.sandbox.run(program))

    def python(self, code: str, limits: Limits = SMALL, **fields: Any) -> Ran:
        return self.run(Program("python", code, limits=limits, **fields))

    def says(self, code: str, **fields: Any) -> str:
        """What a Python program prints that ends well."""
        ran = self.python(code, **fields)
        assert ran.status == "ok", (ran.status, ran.detail, ran.stderr.decode(errors="replace"))
        return ran.stdout.decode()

    def judge(self, code: str, *tests: Test, **fields: Any) -> Verdict:
        """The verdict on Python code with the entry point `f`."""
        submission = Submission("python", code, tests, **{"entry_point": "f", "limits": SMALL} | fields)
        return self.do(self.sandbox.judge(submission))

    def state(self) -> dict[str, Any]:
        return self.do(self.sandbox.state())

    @property
    def supervisor(self) -> int:
        """The supervisor's process."""
        assert self.sandbox.process is not None
        return self.sandbox.process.pid


@contextmanager
def opened(**settings: Any) -> Generator[Opened]:
    """A sandbox for as long as the block lasts."""
    with asyncio.Runner() as runner:
        sandbox = runner.run(_made(SandboxConfig(**{"cells": 1} | settings)))
        try:
            runner.run(sandbox.start())
        except UserError as error:
            pytest.skip(f"toolchain: {error}")
        try:
            yield Opened(runner, sandbox)
        finally:
            runner.run(sandbox.close())


async def _made(config: SandboxConfig) -> LocalSandbox:
    return LocalSandbox(config)


def call(*arguments: Any, expected: Any = None) -> Test:
    """A test that calls the entry point."""
    return Test("call", args=arguments, expected=expected)


def check(code: str) -> Test:
    """A test that asserts."""
    return Test("assert", code=code)


def stdio(stdin: str, expected: str) -> Test:
    """A test by input and output."""
    return Test("stdio", stdin=stdin, expected=expected)


def below(process: int) -> dict[int, str]:
    """All processes below one, with the words that started each; children before grandchildren."""
    found: dict[int, str] = {}
    for child in descendants(process):
        with suppress(OSError):  # it has ended since
            found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def alive(process: int) -> bool:
    """Whether a process runs; what has ended and is not waited for yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def parent(process: int) -> int:
    """The process that started one; 0 where that has ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def settled(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()
