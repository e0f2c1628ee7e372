"""Every hostile program is contained and named, nothing of it survives, and the next program finds a clean box.

The programs run one after the other in one sandbox, as whoever runs the tests and, where that is root, once more as a
user without privileges in a process of its own. Before anything dangerous runs, small programs show that the wall is
there; without it nothing else is tried.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sandbox import unprivileged
from sandbox.arena import Arena, Canaries, descendants, settled, survivors
from sandbox.hostile import CLOCK, PREAMBLE, PROGRAMS, SMALL, STOPPED, Hostile
from sandbox.unprivileged import NOBODY

from codeweft.base import records
from codeweft.sandbox.client import Sandbox, open_sandbox
from codeweft.sandbox.config import Program, SandboxConfig, Submission
from codeweft.sandbox.wall import SLOT_USER

FIRST = (1, 3, 6, 20, 26)  # programs that show the wall, harmless without it


@pytest.fixture(autouse=True)
def one_at_a_time() -> Iterator[None]:
    """Bombs of two test processes would spoil each other's clocks."""
    with Path(tempfile.gettempdir(), "codeweft-hostile-tests.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Here:
    """An arena in this process, driven from outside its event loop."""

    def __init__(self, runner: asyncio.Runner, arena: Arena) -> None:
        self.runner, self.arena = runner, arena

    def examine(self, hostile: Hostile) -> list[str]:
        return self.runner.run(self.arena.examine(hostile))


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    canaries = Canaries()
    with asyncio.Runner() as runner:
        opening = open_sandbox(SandboxConfig(cells=1, cache=0))
        sandbox = runner.run(opening.__aenter__())
        try:
            arena = Arena(sandbox, canaries)
            runner.run(arena.prepare())
            show_the_wall(Here(runner, arena))
            yield Here(runner, arena)
        finally:
            runner.run(opening.__aexit__(None, None, None))
            canaries.close()


def show_the_wall(arena: Any) -> None:
    for hostile in PROGRAMS:
        if hostile.number in FIRST:
            faults = arena.examine(replace(hostile, repeats=1))
            assert not faults, f"Nothing else is tried, because {hostile.name} was not contained: {faults}"


def held(faults: list[str]) -> None:
    if faults and faults[0].startswith("unsupported"):
        pytest.skip(f"toolchain: {faults[0]}")
    assert not faults


def named(programs: Any) -> dict[str, Any]:
    return {"argvalues": programs, "ids": [f"{hostile.number}-{hostile.name}" for hostile in programs]}


def test_the_corpus_is_as_large_as_was_promised():
    numbers = [hostile.number for hostile in PROGRAMS]
    assert len(set(numbers)) == len(numbers)
    assert set(range(1, 63)) <= set(numbers)
    assert sum(number > 100 for number in numbers) >= 20


@pytest.mark.parametrize("hostile", **named(PROGRAMS))
def test_a_hostile_program_is_contained(here: Here, hostile: Hostile):
    held(here.examine(hostile))


# --- as a user without privileges ------------------------------------------------------------------------------------


class Elsewhere:
    """An arena in a process of another user: arena.py as a script, asked by number."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.greeting = json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the arena of another user ended with {self.process.wait()}"
        return line

    def examine(self, hostile: Hostile) -> list[str]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{hostile.number}\n")
        self.process.stdin.flush()
        return json.loads(self._line())


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    # not below the tests' own folder, which only root may enter
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        argv, environment = unprivileged.elsewhere(Path(folder), NOBODY, ("arena.py", "hostile.py"))
        process = subprocess.Popen(
            [*argv, "-m", "sandbox.arena"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, cwd=folder,
        )  # fmt: skip
        try:
            arena = Elsewhere(process)
            assert arena.greeting["uid"] == NOBODY
            show_the_wall(arena)
            yield arena
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=20)


# programs that do nothing but burn the clock are the same for every user: those wait for the slow tests
BURNING = [hostile for hostile in PROGRAMS if hostile in CLOCK or hostile.statuses == STOPPED]
BRIEF = [replace(hostile, repeats=1) for hostile in PROGRAMS if hostile not in BURNING]


@pytest.mark.parametrize("hostile", **named(BRIEF))
def test_a_hostile_program_is_contained_for_an_unprivileged_user(elsewhere: Elsewhere, hostile: Hostile):
    held(elsewhere.examine(hostile))


@pytest.mark.slow
@pytest.mark.parametrize("hostile", **named(BURNING))
def test_a_program_that_burns_the_clock_is_contained_for_an_unprivileged_user(elsewhere: Elsewhere, hostile: Hostile):
    held(elsewhere.examine(hostile))


# --- many runs, and two at once --------------------------------------------------------------------------------------


def traces(folder: Path, others: set[int]) -> dict[str, Any]:
    """What runs could leave behind on this machine; `folder` is where temporary files go.

    others: processes of sandboxes that other tests opened, which may still be settling.
    """
    mine = [process for process in (os.getpid(), *descendants(os.getpid())) if process not in others]
    processes = {process: held_by(process) for process in mine}
    return {
        "descriptors and mounts of processes": processes,
        "mounts of the machine": Path("/proc/1/mountinfo").read_text().count("\n") if os.geteuid() == 0 else 0,
        "cgroups": own_cgroups(),
        "files": sorted(str(path) for path in folder.rglob("*")),
        "files of the cells' users": [
            str(path) for place in ("/tmp", "/dev/shm", "/var/tmp") for path in Path(place).iterdir() if of_a_cell(path)
        ],
    }


def own_cgroups() -> list[str]:
    """Groups below this process's own, and any with our name; others of the machine come and go."""
    places = [line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    below = tuple(f"{place}/" for place in places if place != "/")
    found = [str(path) for path in Path("/sys/fs/cgroup").glob("**/")]
    return [path for path in found if "codeweft" in path or any(place in f"{path}/" for place in below)]


def held_by(process: int) -> tuple[int, int]:
    """Descriptors and mounts of a process; nothing where it ends just now."""
    folder = Path(f"/proc/{process}")
    try:
        return sum(1 for _ in (folder / "fd").iterdir()), (folder / "mountinfo").read_text().count("\n")
    except OSError:
        return 0, 0


def of_a_cell(path: Path) -> bool:
    try:
        return SLOT_USER <= path.stat().st_uid < SLOT_USER + 100
    except OSError:
        return False


async def leaves_nothing(rounds: int, folder: Path) -> None:
    others = set(descendants(os.getpid()))
    async with open_sandbox(SandboxConfig(cells=2, cache=0)) as sandbox:
        await twenty(sandbox)
        before: dict[str, Any] = {}
        while before != (before := traces(folder, others)):  # until the last boxes are gone
            await asyncio.sleep(0.5)
        for _ in range(rounds // 20):
            await twenty(sandbox)
        after = settled(lambda: traces(folder, others), before)
        assert after == before
    assert settled(lambda: set(descendants(os.getpid())) - others, set()) == set()
    assert list(folder.iterdir()) == []


async def twenty(sandbox: Sandbox) -> None:
    """Programs and judgements of different ends, all at once."""
    call, asserted = (
        records.Test("call", args=(20, 22), expected=42),
        records.Test("assert", code="assert candidate(1, 2) == 3"),
    )
    stdio = records.Test("stdio", stdin="20 22", expected="42")
    right = Submission("python", "def add(a, b): return a + b", (call,), "add")
    daemon = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\nopen('/tmp/x', 'w').write('left')"
    )
    programs = ["print(42)", daemon, "raise ValueError", "import os; os._exit(3)"] * 4
    runs = [sandbox.run(Program("python", code, limits=SMALL)) for code in programs]
    answers = [right, replace(right, tests=(asserted,)), replace(right, code="def add(*_): return 1")]
    answers.append(replace(right, code="print(sum(map(int, input().split())))", tests=(stdio,), entry_point=""))
    results = await asyncio.gather(*runs, *map(sandbox.judge, answers))
    expected = ["ok", "ok", "runtime_error", "runtime_error"] * 4 + ["ok", "ok", "wrong", "ok"]
    assert [result.status for result in results] == expected


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sandbox keeps its files in this test, and nobody else."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_300_runs_leave_nothing_behind(scratch: Path):
    asyncio.run(leaves_nothing(300, scratch))


@pytest.mark.slow
def test_10000_runs_leave_nothing_behind(scratch: Path):
    asyncio.run(leaves_nothing(10_000, scratch))


BOMBS = [hostile for hostile in PROGRAMS if hostile.number in (101, 6, 11)]


@pytest.mark.parametrize("bomb", **named(BOMBS))
def test_another_program_works_beside_a_bomb(here: Here, bomb: Hostile):
    """`here` is asked for because it has shown that the wall holds."""
    asyncio.run(beside(bomb))


async def beside(bomb: Hostile) -> None:
    mark = str(10**9 + bomb.number)
    code = (PREAMBLE + bomb.code).replace("@MARK@", mark)
    async with open_sandbox(SandboxConfig(cells=2, cache=0)) as sandbox:
        others = set(descendants(os.getpid()))
        exploding = asyncio.create_task(sandbox.run(Program("python", code, limits=bomb.limits)))
        most, heaviest, answers = 0, 0, 0
        while not exploding.done():
            ran = await sandbox.run(Program("python", "print(sum(map(int, input().split())))", stdin=b"20 22"))
            assert (ran.status, ran.stdout) == ("ok", b"42\n"), ran
            answers += 1
            new = set(descendants(os.getpid())) - others
            most, heaviest = max(most, len(new)), max(heaviest, sum(map(private_mib, new)))
        assert (await exploding).status in bomb.statuses
        assert answers >= 1
        assert most <= bomb.limits.tasks + 6  # its pid 1, and the program beside it with its own
        assert heaviest < 2.5 * bomb.limits.memory_mib + 20 * most  # beside what a fork of the interpreter shares
    assert survivors(mark) == []


def private_mib(process: int) -> int:
    try:
        _, resident, shared = Path(f"/proc/{process}/statm").read_text().split()[:3]
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") >> 20


# --- what one program may not learn of another -----------------------------------------------------------------------


def test_nothing_of_an_earlier_program_is_in_a_later_ones_memory(here: Here):
    secret = secrets.token_hex(8)
    digest = hashlib.blake2b(secret.encode()).hexdigest()
    # the searcher knows only a digest, so that it does not find itself
    search = """
import hashlib, re
for line in open("/proc/self/maps"):
    first, last = (int(number, 16) for number in line.split()[0].split("-"))
    if line.split()[1][0] == "r" and "[v" not in line and last - first < 1 << 27:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            try:
                memory.seek(first)
                for found in re.finditer(rb"needle-([0-9a-f]{16})", memory.read(last - first)):
                    if hashlib.blake2b(found[1]).hexdigest() == "DIGEST":
                        print("LEAK:", line)
            except OSError:
                continue
print("searched")
"""
    sandbox, runner = here.arena.sandbox, here.runner
    text = f"needle-{secret}"
    before = Program("python", f"text = {text!r}; print(input())", text.encode(), (text,), {"helper": text.encode()})
    assert runner.run(sandbox.run(before)).stdout == text.encode() + b"\n"
    # it finds what is there
    seeking = search.replace("DIGEST", digest)
    assert b"LEAK" in runner.run(sandbox.run(Program("python", seeking, arguments=(text,)))).stdout
    ran = runner.run(sandbox.run(Program("python", seeking)))
    assert (ran.status, ran.stdout) == ("ok", b"searched\n"), ran


# --- what of the harness itself can die ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["call", "assert"])
def test_a_part_that_dies_is_started_again_and_never_scored(kind: str):
    """Each process below the supervisor is killed once in the middle of a verdict on a right answer."""
    code = "import time\ntime.sleep(0.4)\ndef add(a, b):\n    time.sleep(0.2)\n    return a + b\n"
    tests = {
        "call": records.Test("call", args=(1, 2), expected=3),
        "assert": records.Test("assert", code="assert candidate(1, 2) == 3"),
    }
    asyncio.run(killing(Submission("python", code, (tests[kind],) * 2, "add", limits=replace(SMALL, wall_seconds=5))))


def children_of(process: int) -> list[int]:
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


async def killing(submission: Submission) -> None:
    faults, others = [], set(descendants(os.getpid()))
    async with open_sandbox(SandboxConfig(cells=1, cache=0)) as sandbox:
        (supervisor,) = {child for child in children_of(os.getpid()) if child not in others}
        place = 0
        while True:
            judging = asyncio.create_task(sandbox.judge(submission))
            await asyncio.sleep(0.25)
            victims = descendants(supervisor)
            if place >= len(victims):
                await judging
                break
            candidate = not children_of(victims[place])
            began = time.monotonic()
            os.kill(victims[place], 9)
            try:
                verdict = await asyncio.wait_for(judging, 20)
            except TimeoutError:
                faults.append(f"no verdict after process {place} of {len(victims)} was killed")
                break
            # who kills the answer's own process kills the answer
            expected = ("ok", "runtime_error", "incomplete") if candidate else ("ok", "harness_error")
            if verdict.status not in expected:
                faults.append(f"{verdict} after process {place} was killed ({time.monotonic() - began:.1f} s)")
            place += 1
            after = await sandbox.judge(submission)
            if after.status != "ok":
                faults.append(f"{after} in the verdict after process {place - 1} was killed")
    assert not faults
