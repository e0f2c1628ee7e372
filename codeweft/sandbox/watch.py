"""What pid 1 of a box watches while a program runs: memory, files and processor seconds of all its processes together.

In:  a step's limits, /proc.  Out: what is used up; the most memory there was.

Unusual: the kernel limits each process; twenty with 100 MB each pass. A memory cgroup would count them all, but few
machines let an ordinary user make one, so pid 1 looks. Standard library alone: this runs inside the wall.
"""

import os
import resource
import signal
from typing import Any

TICK = os.sysconf("SC_CLK_TCK")
PRIVATE = ("RssAnon:", "VmSwap:", "VmPTE:")
SOCKET_BUFFER = 208 << 10  # bytes that one socket may hold back (net.core.wmem_default)


class Watch:
    """What the kernel does not limit by itself: memory and processor seconds of all processes together."""

    def __init__(self, step: dict[str, Any]) -> None:
        self.cpu, self.memory = step["limits"]["cpu_seconds"], step["limits"]["memory_mib"] << 20
        self.warm = step["kind"] == "python"
        self.inherited: int | None = None  # private memory that a fork of the warm interpreter has from the start
        self.peak = 0

    def look(self, before: float) -> str:
        """What is used up, or nothing."""
        if self.inherited is None:
            self.inherited = _private_bytes("self") if self.warm else 0
        memory, cpu = 0, 0.0
        for process in processes_here():
            try:
                memory += max(_private_bytes(process) - self.inherited, 0)
                cpu += _seconds(process)
            except (OSError, IndexError, ValueError):
                continue  # it ended meanwhile
        self.peak = max(self.peak, memory + _scratch_bytes() + (_socket_bytes() if os.getpid() == 1 else 0))
        if self.peak > self.memory:
            return "memory"
        return "cpu" if cpu + used_by_children() - before > self.cpu else ""

    def count_files(self) -> None:
        """Files in memory count until the end; a quick program may never have been looked at."""
        self.peak = max(self.peak, _scratch_bytes())


def processes_here() -> list[str]:
    """Numbers of the processes below this one: all others of the namespace, or all descendants."""
    if os.getpid() == 1:
        return [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]  # noqa: PTH208
    return [str(number) for number in descendants(os.getpid())]


def descendants(parent: int) -> list[int]:
    """All processes below `parent`, children before grandchildren."""
    found, waiting = [], [parent]
    while waiting:
        number = waiting.pop()
        try:
            for thread in os.listdir(f"/proc/{number}/task"):  # noqa: PTH208 (each thread has its own children)
                children = list(map(int, _text(f"/proc/{number}/task/{thread}/children").split()))
                found += children
                waiting += children
        except OSError:
            continue
    return found


def end_descendants(child: int) -> None:
    """Where there is no namespace to end: stop everything below this process, then kill it, until nothing is left."""
    while below := descendants(os.getpid()):
        # not before the child has ended: until then it may have started another process after it was looked at
        if below == [child] and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        for number in below:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for number in below:
            if number != child:
                try:
                    os.waitpid(number, 0)
                except ChildProcessError:
                    continue


def _private_bytes(process: str) -> int:
    """Memory of a process that nothing outside it shares: its pages, those swapped out, and the tables of its pages."""
    lines = _text(f"/proc/{process}/status").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(PRIVATE))


def _socket_bytes() -> int:
    """What may wait in local sockets, which no limit of a process counts."""
    try:
        return max(_text("/proc/net/unix").count("\n") - 1, 0) * SOCKET_BUFFER
    except OSError:
        return 0


def _text(path: str) -> str:
    """A file of /proc. No file object: whatever a fork touches for the first time costs a copied page."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while piece := os.read(descriptor, 1 << 16):
            content += piece
        return content.decode()
    finally:
        os.close(descriptor)


def _seconds(process: str) -> float:
    fields = _text(f"/proc/{process}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def _scratch_bytes() -> int:
    if os.getpid() != 1:
        return 0
    total = 0
    for folder in ("/box", "/tmp", "/dev/shm"):
        state = os.statvfs(folder)
        total += (state.f_blocks - state.f_bfree) * state.f_frsize
    return total


def used_by_children() -> float:
    """Processor seconds of the children that have been waited for, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
