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
# places in /proc/PID/stat behind the name
OWN_TIME, WAITED_TIME, START_TIME, START_OF_STACK = slice(11, 13), slice(13, 15), 19, 25
PRIVATE = ("RssAnon:", "VmSwap:", "VmPTE:")
SOCKET_BUFFER = 208 << 10  # bytes that one socket may hold back (net.core.wmem_default)


class Watch:
    """What the kernel does not limit by itself: memory and processor seconds of all processes together."""

    def __init__(self, step: dict[str, Any]) -> None:
        self.cpu, self.memory = step["limits"]["cpu_seconds"], step["limits"]["memory_mib"] << 20
        self.own: tuple[str, int] | None = None  # what tells forks of the warm interpreter, and their first memory
        self.peak = 0
        self.seen: dict[tuple[str, str], tuple[float, float]] = {}  # seconds of its own, of children it waited for
        self.waited = self.owed = self.lost = 0.0

    def look(self, before: float) -> str:
        """What is used up, or nothing."""
        if self.own is None:
            self.own = _stat("self")[START_OF_STACK], _private_bytes("self")
        memory, seconds = 0, {}
        for process in processes_here():
            try:
                fields = _stat(process)
                # a fork of pid 1 has what pid 1 had, until it starts another program and gets a stack of its own
                inherited = self.own[1] if fields[START_OF_STACK] == self.own[0] else 0
                memory += max(_private_bytes(process) - inherited, 0)
                own, waited = (sum(map(int, fields[place])) / TICK for place in (OWN_TIME, WAITED_TIME))
                seconds[process, fields[START_TIME]] = own, waited
            except (OSError, IndexError, ValueError):
                continue  # it ended meanwhile
        self.peak = max(self.peak, memory + _scratch_bytes() + (_socket_bytes() if os.getpid() == 1 else 0))
        if self.peak > self.memory:
            return "memory"
        return "cpu" if self._used(seconds, used_by_children() - before) > self.cpu else ""

    def _used(self, seconds: dict[tuple[str, str], tuple[float, float]], reaped: float) -> float:
        """Processor seconds in all, with those that nobody tells any more.

        The time of a child that nobody waits for (SIGCHLD ignored) is gone when it ends. So what was last seen of each
        process that is gone is owed, until as much appears in the account of those that wait. What is owed counts from
        the next look on: a process may end between two lines of /proc.
        """
        waited = reaped + sum(own_and_waited[1] for own_and_waited in seconds.values())
        gone = [self.seen[process] for process in self.seen if process not in seconds]
        appeared = waited - self.waited + sum(own_and_waited[1] for own_and_waited in gone)
        newly_owed = sum(map(sum, gone))
        self.owed = max(self.owed + newly_owed - max(appeared, 0.0), 0.0)
        self.seen, self.waited = seconds, waited
        self.lost = max(self.owed - newly_owed, 0.0)
        return reaped + sum(map(sum, seconds.values())) + self.lost

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
        for thread in _threads(number):  # each has its own children
            try:
                children = list(map(int, _text(f"/proc/{number}/task/{thread}/children").split()))
            except OSError:
                continue
            found += children
            waiting += children
    return found


def _threads(process: int | str) -> list[str]:
    try:
        return os.listdir(f"/proc/{process}/task")  # noqa: PTH208
    except OSError:
        return []


def tasks_of(user: int) -> int:
    """Processes and threads of a user on the whole machine."""
    total = 0
    for name in os.listdir("/proc"):  # noqa: PTH208
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:  # noqa: PTH116
                total += len(_threads(name))
        except OSError:
            continue
    return total


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
    lines = _private_lines(f"/proc/{process}/status")
    if not lines and process != "self":  # its first thread has ended, and others go on
        threads = os.listdir(f"/proc/{process}/task")  # noqa: PTH208
        lines = next(filter(None, (_private_lines(f"/proc/{process}/task/{thread}/status") for thread in threads)), [])
    return sum(int(line.split()[1]) << 10 for line in lines)


def _private_lines(path: str) -> list[str]:
    return [line for line in _text(path).splitlines() if line.startswith(PRIVATE)]


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
        return content.decode(errors="replace")
    finally:
        os.close(descriptor)


def _stat(process: str) -> list[str]:
    """The fields of /proc/PROCESS/stat behind the name, which may hold anything."""
    return _text(f"/proc/{process}/stat").rpartition(")")[2].split()


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
