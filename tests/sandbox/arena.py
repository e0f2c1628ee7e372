"""Run hostile programs in a sandbox and say what they broke: verdict, survivors, canaries, the next run.

In:  an open sandbox and entries of hostile.py.  Out: a list of faults, empty where everything held.

Unusual: started as a script, it answers numbers of programs on stdin with one line of JSON each. That is how the tests
run the same programs as an unprivileged user, from places that such a user can read.
"""

import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sandbox.hostile import PREAMBLE, PROGRAMS, Hostile

from codeweft.sandbox.client import Sandbox, open_sandbox
from codeweft.sandbox.config import Program, Ran, SandboxConfig
from codeweft.sandbox.wall import SLOT_USER

SECRET = f"canary-{secrets.token_hex(8)}"
os.environ["CODEWEFT_CANARY"] = SECRET  # before any sandbox starts, so that it would be inherited

# What the next program finds; the same after every hostile program.
INSPECTION = """
import builtins, gc, json, os, resource, signal, socket, sys, threading
print(json.dumps({
    "files": {folder: sorted(os.listdir(folder)) for folder in ("/box", "/tmp", "/dev/shm")},
    "modes": [os.stat(folder).st_mode for folder in ("/box", "/tmp", "/dev/shm")],
    "processes": [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())],
    "modules": sorted(sys.modules),
    "foreign": sorted(name for name, module in sys.modules.items() if type(module) is not type(sys)),
    "builtins": sorted(f"{name} {type(value).__name__}" for name, value in vars(builtins).items()),
    "environment": sorted(os.environ.items()),
    "places": [os.getcwd(), *sys.path],
    "finders": [str(type(finder)) for finder in sys.meta_path],
    "descriptors": [name for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)],
    "handlers": [str(signal.getsignal(number)) for number in signal.valid_signals()],
    "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
    "timer": signal.getitimer(signal.ITIMER_REAL),
    "limits": [resource.getrlimit(kind) for kind in range(16)],
    "scheduling": [os.nice(0), len(os.sched_getaffinity(0)), os.sched_getscheduler(0), os.getpriority(0, 1)],
    "masks": [os.umask(0o22), sys.getrecursionlimit(), sum([1] * 7), threading.active_count(), gc.isenabled()],
    "tracing": [str(sys.gettrace()), str(sys.getprofile())],
    "system v": [len(open(f"/proc/sysvipc/{kind}").readlines()) for kind in ("shm", "sem", "msg")],
    "sockets": "left-over" in open("/proc/net/unix").read(),
    "input": sys.stdin.read(),
}))
"""


class Canaries:
    """Things outside the box that no program may touch, and the names by which programs are told of them."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="canary-")
        Path(self.folder.name).chmod(0o777)
        self.file = Path(self.folder.name, "file")
        self.file.write_text(SECRET)
        self.file.chmod(0o666)
        user = SLOT_USER if os.geteuid() == 0 else None
        self.process = subprocess.Popen(["sleep", "3600"], user=user, start_new_session=True)
        self.abstract = f"canary-{secrets.token_hex(4)}"
        self.sockets = [self._bound(kind, f"\0{self.abstract}") for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
        stream = self._bound(socket.SOCK_STREAM, ("127.0.0.1", 0))
        self.port = stream.getsockname()[1]
        self.sockets += [stream, self._bound(socket.SOCK_DGRAM, ("127.0.0.1", self.port))]

    @staticmethod
    def _bound(kind: int, address: Any) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, kind)
        listening.bind(address)
        listening.setblocking(False)
        if kind == socket.SOCK_STREAM:
            listening.listen()
        return listening

    def tell(self, code: str, mark: str) -> str:
        """A program's text with the canaries' names in it."""
        names = {
            "@MARK@": mark, "@FILE@": str(self.file), "@PID@": str(self.process.pid), "@PORT@": str(self.port),
            "@ABSTRACT@": self.abstract, "@HOST@": socket.gethostname(),
        }  # fmt: skip
        for name, value in names.items():
            code = code.replace(name, value)
        return code

    def faults(self) -> list[str]:
        """What was touched."""
        found = []
        if [path.name for path in Path(self.folder.name).iterdir()] != ["file"] or self.file.read_text() != SECRET:
            found.append("the canary's file was changed")
        if self.process.poll() is not None:
            found.append("the canary's process was ended")
        for one in self.sockets:
            try:
                _ = one.accept() if one.type == socket.SOCK_STREAM else one.recv(1)
            except BlockingIOError:
                continue
            found.append(f"somebody talked to the canary's socket {one.getsockname()}")
        return found

    def close(self) -> None:
        """End the canaries."""
        self.process.kill()
        self.process.wait()
        for one in self.sockets:
            one.close()
        self.folder.cleanup()


class Arena:
    """One sandbox, its canaries, and what a program finds in it before anything hostile has run."""

    def __init__(self, sandbox: Sandbox, canaries: Canaries) -> None:
        self.sandbox, self.canaries = sandbox, canaries
        self.clean: dict[str, Any] = {}
        self.processes: set[int] = set()

    async def prepare(self) -> None:
        """Look at a clean box."""
        self.clean = await self._inspect()
        assert not self.clean["files"]["/tmp"], self.clean["files"]
        assert not self.clean["files"]["/dev/shm"], self.clean["files"]
        assert not self.clean["processes"], self.clean["processes"]
        await asyncio.sleep(0.5)  # until the box that was looked at is gone
        self.processes = walled()

    async def _inspect(self) -> dict[str, Any]:
        ran = await self.sandbox.run(Program("python", INSPECTION))
        assert ran.status == "ok", (ran.status, ran.detail, ran.stderr)
        return json.loads(ran.stdout)

    async def examine(self, hostile: Hostile) -> list[str]:
        """Run one program and say what was wrong; ["unsupported: ..."] where its toolchain is missing."""
        found = []
        for _ in range(hostile.repeats):
            mark = str(secrets.randbelow(10**9) + 10**9)
            code = self.canaries.tell((PREAMBLE if hostile.language == "python" else "") + hostile.code, mark)
            began = time.monotonic()
            ran = await self.sandbox.run(Program(hostile.language, code, hostile.stdin, limits=hostile.limits))
            if ran.status == "unsupported":
                return [f"unsupported: {ran.detail}"]
            found += faults_of(hostile, ran, time.monotonic() - began)
            found += [f"survivor: {name}" for name in survivors(mark)]
            found += self.canaries.faults()
            found += await self._next_run()
            if found:
                break
        return found

    async def _next_run(self) -> list[str]:
        seen = await self._inspect()
        found = [
            f"the next run finds {name} = {seen[name]} instead of {value}"
            for name, value in self.clean.items()
            if seen[name] != value
        ]
        processes = settled(walled, self.processes)
        if processes != self.processes:
            found.append(f"more processes {[described(process) for process in processes - self.processes]}")
            found.append(f"and fewer {self.processes - processes}")
        return found


def faults_of(hostile: Hostile, ran: Ran, seconds: float) -> list[str]:
    """What is wrong with what a run reported."""
    compiled = ran.compiled
    output = ran.stdout + ran.stderr + (compiled.stdout + compiled.stderr if compiled else b"")
    text = output.decode(errors="replace")
    limits, found = hostile.limits, []
    if ran.status not in hostile.statuses:
        found.append(f"status {ran.status} ({ran.detail}), exit code {ran.exit_code}: {text[-600:]}")
    if ran.status != "ok" and not ran.detail:
        found.append("the verdict says nothing")
    if hostile.because not in ran.detail:
        found.append(f"detail {ran.detail!r} instead of {hostile.because!r}")
    if any(not letter.isprintable() for letter in ran.detail):
        found.append(f"control characters in {ran.detail!r}")
    if ran.tier != "namespaces":
        found.append(f"tier {ran.tier}")
    found += [line for line in text.splitlines() if line.startswith("LEAK")][:5]
    if SECRET in text:
        found.append("the secret came out")
    if hostile.says and not re.search(hostile.says, ran.stdout.decode(errors="replace"), re.DOTALL):
        found.append(f"said {text[:600]!r} instead of {hostile.says!r}")
    if hostile.exit_code not in (None, ran.exit_code):
        found.append(f"exit code {ran.exit_code} instead of {hostile.exit_code}")
    if len(ran.stdout) > limits.stdout_bytes or len(ran.stderr) > limits.stderr_bytes:
        found.append(f"{len(ran.stdout)} and {len(ran.stderr)} bytes of output")
    if ran.peak_bytes > 2.5 * (limits.memory_mib << 20):
        found.append(f"{ran.peak_bytes >> 20} MiB of {limits.memory_mib}")
    if ran.wall_seconds > limits.wall + 2 or (compiled is None and seconds > limits.wall + 4):
        found.append(f"{ran.wall_seconds:.1f} s, {seconds:.1f} s seen from here, of {limits.wall}")
    return found


def settled(measure: Any, wanted: Any, seconds: float = 3.0) -> Any:
    """What `measure` says, asked again for a while as long as it is not `wanted`."""
    end = time.monotonic() + seconds
    while (value := measure()) != wanted and time.monotonic() < end:
        time.sleep(0.02)
    return value


def described(process: int) -> str:
    """A process in words."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return f"{process} {words[:60]} {Path(f'/proc/{process}/stat').read_bytes()[:60]!r}"
    except OSError:
        return str(process)


def survivors(mark: str) -> list[str]:
    """Processes anywhere on the machine that carry a program's mark, after a moment to end."""

    def named() -> list[str]:
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if not folder.name.isdigit():
                    continue
                name, words = (folder / "comm").read_bytes(), (folder / "cmdline").read_bytes()
                if mark.encode() in name + words:
                    found.append(f"{folder.name} {name!r}")
            except OSError:
                continue
        return found

    return settled(named, [])


def descendants(parent: int) -> list[int]:
    """All processes below one."""
    below: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit():
                fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                below.setdefault(int(fields[1]), []).append(int(folder.name))
        except OSError:
            continue
    found, waiting = [], [parent]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def walled() -> set[int]:
    """Processes below this one in a pid namespace of their own; the supervisor's own compilers are in none."""
    found = set()
    for process in descendants(os.getpid()):
        try:
            lines = Path(f"/proc/{process}/status").read_bytes().splitlines()
        except OSError:
            continue
        if any(line.startswith(b"NSpid:") and len(line.split()) > 2 for line in lines):
            found.add(process)
    return found


async def answer() -> None:
    """Examine the programs whose numbers come on stdin, one a line."""
    programs = {hostile.number: hostile for hostile in PROGRAMS}
    canaries = Canaries()
    try:
        async with open_sandbox(SandboxConfig(cells=1, cache=0)) as sandbox:
            arena = Arena(sandbox, canaries)
            await arena.prepare()
            print(json.dumps({"uid": os.getuid(), "tier": sandbox.tier}), flush=True)  # noqa: T201
            for line in sys.stdin:
                print(json.dumps(await arena.examine(programs[int(line)])), flush=True)  # noqa: T201
    finally:
        canaries.close()


if __name__ == "__main__":
    asyncio.run(answer())
