"""A warm interpreter behind the wall: it forks a box for every program and never sees one itself.

In:  over one descriptor, requests for a box: its sizes, and the socket that its pid 1 shall talk on.
Out: a pidfd of each box, by which the supervisor can end all that is in it.

Unusual: everything costly is done once, before the first program: the user namespace, the imports, the filter. A box
is then a fork into fresh pid, mount and ipc namespaces, about two milliseconds. Standard library alone.
"""

import _signal  # ty: ignore[import-not-found]  # the module signal turns every number into an enumeration and back
import fcntl
import gc
import importlib
import json
import os
import signal
import site
import socket
import sys
from collections.abc import Callable
from typing import Any

from codeweft.sandbox import box, kernel, landlock, seccomp

HIGH = 200  # descriptors from here on are the cell's own
# What programs import most: read once here, so that no program waits for it.
USUAL = (
    "abc", "argparse", "array", "ast", "atexit", "base64", "bisect", "calendar", "cmath", "collections",
    "collections.abc", "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "encodings.idna",
    "enum", "fractions", "functools", "hashlib", "heapq", "inspect", "io", "itertools", "json", "linecache", "locale",
    "math", "numbers", "operator", "pathlib", "pprint", "queue", "random", "re", "shutil", "statistics", "string",
    "struct", "tempfile", "textwrap", "threading", "time", "timeit", "traceback", "types", "typing", "unicodedata",
    "unittest", "uuid", "warnings", "weakref", "zlib",
)  # fmt: skip


def main() -> None:
    """Enter the namespaces, warm up, then answer until the supervisor is gone."""
    facts = json.loads(sys.argv[1])
    channel = socket.socket(fileno=facts["channel"])
    namespaces = facts["tier"] == "namespaces"
    if namespaces:
        _enter(channel)
    else:
        kernel.die_with_parent()
    for name in USUAL:
        importlib.import_module(name)
    site.setquit()  # exit and quit, without which many a program does not end well, and help
    site.sethelper()
    user = facts["user"] if facts.get("user") is not None else os.geteuid()
    confinement = box.Confinement(_behind_a_wall() if namespaces else _without_walls(facts), namespaces, user)
    sys.path[:] = [place for place in sys.path if place != facts["code"]]
    sys.path += facts["packages"]
    sys.argv = [""]
    os.environ.clear()
    os.environ.update(box.ENVIRONMENT)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if namespaces else -1
    signal.signal(signal.SIGCHLD, _reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    gc.disable()  # until a program runs: a collection would copy every page it looks at
    channel.send(b"ready")
    while request := _receive(channel):
        _open_box(channel, *request, own, confinement)


def _enter(channel: socket.socket) -> None:
    """A user namespace of the cell's own, in which it may mount and make pid namespaces; then be pid 1 in it."""
    kernel.own_user_namespace(kernel.NEWNS | kernel.NEWIPC | kernel.NEWPID | kernel.NEWNET)
    child = os.fork()
    if child:
        channel.close()
        _, status = os.waitpid(child, 0)
        os._exit(min(abs(os.waitstatus_to_exitcode(status)), 255))
    kernel.die_with_parent()
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    # the outer /proc tells of other processes; boxes mount their own over this one
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.hide_memory()
    kernel.forget_bounding_capabilities()
    kernel.no_new_privileges()


def _behind_a_wall() -> Callable[[str], None]:
    """A function that confines the process calling it, with everything it needs made beforehand."""
    filtering = seccomp.Filter(seccomp.assemble(os.uname().machine))
    scope = landlock.make_scope()
    if scope is not None:  # out of the way of the descriptors that a program is given
        scope = fcntl.fcntl(scope, fcntl.F_DUPFD_CLOEXEC, HIGH)

    def confine(_: str) -> None:
        if scope is not None:
            landlock.restrict(scope)
        kernel.drop_capabilities()
        filtering.install()

    return confine


def _without_walls(facts: dict[str, Any]) -> Callable[[str], None]:
    """The same for the tiers landlock and unsafe, where a box is only a folder."""
    # Landlock does not keep programs from sockets that are files
    filtering = seccomp.Filter(seccomp.assemble(os.uname().machine, local_sockets=False))

    def confine(folder: str) -> None:
        if facts["user"] is not None:
            os.setgroups([])
            os.setresgid(*[facts["user"]] * 3)
            os.setresuid(*[facts["user"]] * 3)
        if facts["tier"] == "unsafe":
            kernel.no_new_privileges()
            return
        landlock.restrict(landlock.make_ruleset(facts["readable"], [folder]))
        filtering.install()

    return confine


def _reap(*_: object) -> None:
    """Wait for boxes that have ended, so that what they used counts as this cell's."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _receive(channel: socket.socket) -> tuple[dict[str, Any], socket.socket] | None:
    message, descriptors, _, _ = socket.recv_fds(channel, 4096, 1)
    if not message:
        return None
    return json.loads(message), socket.socket(fileno=descriptors[0])


def _open_box(
    channel: socket.socket, shape: dict[str, Any], control: socket.socket, own: int, confinement: box.Confinement
) -> None:
    """Fork a box and hand its pidfd over; what cannot be is told in words."""
    try:
        if confinement.namespaces:
            kernel.unshare(kernel.NEWPID, "a box's own process numbers")
        child = kernel.fork()
    except OSError as error:
        channel.send(f"{error.filename}: {error.strerror}".encode())
        control.close()
        return
    if child == 0:
        _inside(channel, shape, control, confinement)
    if confinement.namespaces:
        kernel.setns(own, kernel.NEWPID, "back to the cell's process numbers")
    control.close()
    try:
        pidfd = os.pidfd_open(child)
    except OSError as error:
        channel.send(f"pidfd: {error.strerror}".encode())
        return
    socket.send_fds(channel, [b"open"], [pidfd])
    os.close(pidfd)


def _inside(
    channel: socket.socket, shape: dict[str, Any], control: socket.socket, confinement: box.Confinement
) -> None:
    """The box's pid 1; never returns."""
    code = 1
    try:
        channel.close()
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        box.live(control, shape, confinement)
        code = 0
    except OSError as error:
        control.send(f"failed {error.filename}: {error.strerror}".encode())
    finally:
        os._exit(code)
