"""What happens after the clone: pid 1 of a box starts programs one after the other, watches them and reports.

In:  steps over a socket that only pid 1 holds: what to write into /box, what to run, within which limits, on which
     descriptors.  Out: one report a step: how it ended, processor seconds, the most memory it had.

Unusual: pid 1 is a fork of the warm interpreter and never runs anything of the program itself; the program runs in its
child, which has descriptors 0 to 2 (and two more to a harness) and nothing else. Standard library alone: this runs
inside the wall, where nothing else is.
"""

import _signal  # ty: ignore[import-not-found]  # the module signal turns every number into an enumeration and back
import marshal
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeweft.sandbox import harness, kernel
from codeweft.sandbox.watch import Watch, end_descendants, tasks_of, used_by_children

LOOK = 0.015  # seconds between two looks of the watchdog
INLINE = 60_000  # bytes of a step that fit into its message; a longer one is behind a descriptor
IN_MEMORY = b"in memory"
MOST_DESCRIPTORS = 8  # that come with one step
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Confinement:
    """What the zygote prepared once for every program: how to confine the calling process for good."""

    confine: Callable[[str], None]  # is given the box's folder
    namespaces: bool
    user: int = 0  # as whom programs run where there are no namespaces


def live(control: socket.socket, shape: dict[str, int], confinement: Confinement) -> None:
    """Be pid 1 of a fresh box until the other end of `control` closes."""
    if confinement.namespaces:
        kernel.unshare(kernel.NEWNS | kernel.NEWIPC, "a box's own mounts")
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount("proc", "/proc", "proc", flags | kernel.MS_NOEXEC)
        for folder, mebibytes in (("/box", shape["disk_mib"]), *_scratch(shape)):
            _fresh(folder, mebibytes, shape["inodes"])
    else:
        kernel.adopt_orphans()
    kernel.hide_memory()
    keeper = _Keeper(control, shape, confinement)
    while keeper.next_step():
        pass


def _scratch(shape: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return ("/tmp", shape["disk_mib"]), ("/dev/shm", shape["shared_mib"])


def _fresh(folder: str, mebibytes: int, inodes: int) -> None:
    options = f"size={mebibytes}m,nr_inodes={inodes},mode=0777"
    kernel.mount("tmpfs", folder, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)


class _Keeper:
    """Pid 1's side of the conversation."""

    def __init__(self, control: socket.socket, shape: dict[str, int], confinement: Confinement) -> None:
        self.control, self.shape, self.confinement = control, shape, confinement
        self.frozen = False
        self.folder = str(shape.get("folder", "/box"))

    def next_step(self) -> bool:
        """Receive a step, do it, report; False at the end."""
        message, streams, _, _ = socket.recv_fds(self.control, INLINE + 64, MOST_DESCRIPTORS)
        if message == b"stop":
            return True  # it came after the end of the step that it meant
        if not message:
            return False
        step = marshal.loads(read_all(streams.pop(0)) if message == IN_MEMORY else message)
        try:
            self._write(step["files"])
            report = self._watched(step, streams) if step["kind"] != "write" else "written"
        except OSError as error:
            report = f"failed {error.filename or 'step'}: {error.strerror}"
        for descriptor in streams:
            os.close(descriptor)
        self.control.send(report.encode())
        return True

    def _write(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            path = f"{self.folder}/{name}"
            if "/" in name:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            while content:
                content = content[os.write(descriptor, content) :]
            os.close(descriptor)

    def _prepare(self, step: dict[str, Any]) -> None:
        """Between programs: what an earlier one left in the scratch folders goes, and /box is read-only if asked."""
        if not self.confinement.namespaces:
            return
        if step["fresh"]:
            for folder, mebibytes in _scratch(self.shape):
                kernel.unmount(folder)
                _fresh(folder, mebibytes, self.shape["inodes"])
        if step["freeze"] and not self.frozen:
            flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
            kernel.mount("", "/box", flags=flags)
            self.frozen = True

    def _watched(self, step: dict[str, Any], streams: list[int]) -> str:
        self._prepare(step)
        before = used_by_children()
        began = time.monotonic()
        child = kernel.fork()
        if child == 0:
            become(step, streams, self.confinement, self.folder)
        watch = Watch(step)
        pidfd = os.pidfd_open(child)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self.control, select.POLLIN)
        why = ""
        while not why:
            ready = [descriptor for descriptor, _ in poll.poll(LOOK * 1000)]
            if pidfd in ready:
                break
            if ready:  # told to stop, or nobody is there any more: the next step will tell which
                why = "stopped"
            elif time.monotonic() - began > step["wall"]:
                why = "wall"
            else:
                why = watch.look(before)
        watch.count_files()
        self._end_all(child)
        os.close(pidfd)
        _, status, usage = os.wait4(child, 0)
        self._reap_rest()
        cpu, wall = used_by_children() - before + watch.lost, time.monotonic() - began
        code, peak = os.waitstatus_to_exitcode(status), max(watch.peak, usage.ru_maxrss * 1024)
        return f"done {code} {cpu} {wall} {peak} {why or 'ended'}"

    def _end_all(self, child: int) -> None:
        if self.confinement.namespaces:
            try:
                os.kill(-1, signal.SIGKILL)
            except ProcessLookupError:
                return  # nobody but this process is left
        else:
            end_descendants(child)

    def _reap_rest(self) -> None:
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def read_all(descriptor: int) -> bytes:
    """Everything behind a descriptor, which is closed here."""
    size = os.fstat(descriptor).st_size
    content = b""
    while len(content) < size:
        content += os.pread(descriptor, size - len(content), len(content))
    os.close(descriptor)
    return content


# --- the program's own process -------------------------------------------------------------------------------------


def become(step: dict[str, Any], streams: list[int], confinement: Confinement, folder: str) -> None:
    """Turn this fresh fork into the program of a step; never returns."""
    code = 126
    try:
        os.setsid()
        for place, descriptor in enumerate(streams):
            # above the places that are given out, so that none is overwritten before it is moved
            os.dup2(descriptor, 100 + place)
        for place in range(len(streams)):
            os.dup2(100 + place, place, inheritable=True)
        os.chdir(step["folder"] or folder)
        foreign = step["kind"] == "exec"
        _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL if foreign else _signal.SIG_IGN)
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL if foreign else _signal.default_int_handler)
        set_limits(step["limits"], 0 if confinement.namespaces else tasks_of(confinement.user))
        confinement.confine(folder)
        if not confinement.namespaces:  # and not before: becoming another user forgets it
            kernel.die_with_parent()
        kernel.close_from(len(streams))  # last: confining needs a descriptor
        environment = step["environment"]
        if not confinement.namespaces:
            environment = environment | {"HOME": folder, "TMPDIR": folder}
        if foreign:
            os.execve(step["argv"][0], step["argv"], ENVIRONMENT | environment)
        kernel.control(kernel.PR_SET_DUMPABLE, 1, "dumpable again")
        for name, value in environment.items():
            if ENVIRONMENT.get(name) != value:  # the cell itself runs with the usual ones
                os.environ[name] = value
        code = harness.run(step["argv"], step["harness"], folder)
    except MemoryError:
        code = 1
        os.write(2, b"MemoryError\n")
    except OSError as error:
        code = 127
        os.write(2, f"{error.filename or step['argv'][0]}: {error.strerror}\n".encode())
    finally:
        os._exit(code)


def set_limits(limits: dict[str, Any], others: int) -> None:
    """What the kernel enforces by itself. Address space is left alone: it kills node and java, not memory hogs.

    `others` are tasks that the user has already: without a user namespace the kernel counts them all.
    """
    mebibyte = 1 << 20
    seconds = int(limits["cpu_seconds"]) + 1
    pairs = {
        resource.RLIMIT_CPU: (seconds, seconds + 1),
        resource.RLIMIT_DATA: limits["memory_mib"] * mebibyte,
        resource.RLIMIT_NPROC: limits["tasks"] + 2 + others,  # the zygote and pid 1 count as well
        resource.RLIMIT_FSIZE: limits["file_mib"] * mebibyte,
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_STACK: limits["stack_mib"] * mebibyte,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, value in pairs.items():
        wanted = value if isinstance(value, tuple) else (value, value)
        _, hardest = resource.getrlimit(kind)
        if hardest != resource.RLIM_INFINITY:
            wanted = (min(wanted[0], hardest), min(wanted[1], hardest))
        resource.setrlimit(kind, wanted)
