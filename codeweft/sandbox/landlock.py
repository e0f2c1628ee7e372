"""Restrict a process for good to some files, no TCP, and no signals or abstract sockets to the outside: Landlock.

In:  the paths that stay readable or writable.  Out: a ruleset's descriptor, made once and applied in each new child.
Unusual: the kernel's version number of Landlock is never asked for, since some kernels claim more than they have. Each
right is offered alone to learn whether the kernel knows it; what it does not know is left out without an error, so ask
`missing()`, which tries what really holds, before relying on any. Not held by Landlock: UDP, connecting to a socket
file, and file mode, times and attributes. Runs inside the box: standard library only.
"""

import ctypes
import errno
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every machine
PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIRECTORY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHARACTER_DEVICE, MAKE_BLOCK_DEVICE = 1 << 6, 1 << 11
TRUNCATE, DEVICE_CONTROL = 1 << 14, 1 << 15
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE  # those that make sense on what is not a folder
READING = EXECUTE | READ_FILE | READ_DIRECTORY
ALL_RIGHTS = (1 << 16) - 1
WRITING = ALL_RIGHTS & ~(MAKE_CHARACTER_DEVICE | MAKE_BLOCK_DEVICE | DEVICE_CONTROL)  # includes reading
TCP_RIGHTS = 0b11  # bind, connect
ABSTRACT_SOCKETS, SIGNALS = 0b01, 0b10

_libc = ctypes.CDLL(None, use_errno=True)
_syscall, _prctl = _libc.syscall, _libc.prctl
_syscall.restype = ctypes.c_long
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def make_ruleset(readable: Sequence[str], writable: Sequence[str], scope: bool = True, network: bool = False) -> int:
    """Make a ruleset's descriptor: only these paths and what is beneath them, and no TCP unless `network`.

    Readable files may also be executed; writable ones may be read, executed and removed. With `scope`, signals and
    abstract sockets reach only what was restricted by the same call of `restrict` or below it. Raises OSError, with
    the step or path as its filename, where the kernel has no Landlock or a path cannot be opened.
    """
    files, tcp, scopes = _known()
    ruleset = _create(files, 0 if network else tcp, scopes if scope else 0)
    try:
        for paths, rights in ((readable, READING), (writable, WRITING)):
            for path in paths:
                _allow(ruleset, path, rights & files)
    except OSError:
        os.close(ruleset)
        raise
    return ruleset


def make_scope() -> int | None:
    """Make a ruleset that restricts signals and abstract sockets only; None where the kernel can do neither."""
    _, _, scopes = _known()
    return _create(0, 0, scopes) if scopes else None


def restrict(ruleset: int) -> None:
    """Give up new privileges and restrict this thread and its future children to the ruleset, for good."""
    if _prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _failure("giving up new privileges (prctl PR_SET_NO_NEW_PRIVS)")
    if _syscall(ctypes.c_long(RESTRICT_SELF), ctypes.c_long(ruleset), ctypes.c_long(0)):
        raise _failure("restricting the process (landlock_restrict_self)")


def missing() -> list[str]:
    """Name what this kernel does not hold, tried in forked children: filesystem, tcp, signals, abstract sockets.

    Forks, so call it before there are threads.
    """
    probes = {
        "filesystem": _holds_files,
        "tcp": _holds_tcp,
        "signals": _holds_signals,
        "abstract sockets": _holds_abstract_sockets,
    }
    return [name for name, probe in probes.items() if not probe()]


@lru_cache(maxsize=1)
def _known() -> tuple[int, int, int]:
    """Find the rights on files, on TCP and the scopes that this kernel accepts."""
    return (
        sum(bit for bit in _bits(ALL_RIGHTS) if _accepts(bit, 0, 0)),
        sum(bit for bit in _bits(TCP_RIGHTS) if _accepts(0, bit, 0)),
        sum(bit for bit in _bits(ABSTRACT_SOCKETS | SIGNALS) if _accepts(0, 0, bit)),
    )


def _bits(mask: int) -> list[int]:
    return [1 << place for place in range(mask.bit_length()) if mask >> place & 1]


def _accepts(files: int, tcp: int, scopes: int) -> bool:
    try:
        os.close(_create(files, tcp, scopes))
    except OSError:
        return False
    return True


def _create(files: int, tcp: int, scopes: int) -> int:
    """Make an empty ruleset. Older kernels take the longer structure as long as what they do not know is zero."""
    attributes = struct.pack("=QQQ", files, tcp, scopes)
    ruleset = _syscall(ctypes.c_long(CREATE_RULESET), attributes, ctypes.c_size_t(len(attributes)), ctypes.c_ulong(0))
    if ruleset < 0:
        raise _failure("making a ruleset (landlock_create_ruleset)")
    return ruleset


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Grant rights beneath a path, those for folders only where it is one."""
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= FILE_RIGHTS
        rule = struct.pack("=Qi", rights, beneath)
        numbers = (ctypes.c_long(ADD_RULE), ctypes.c_long(ruleset), ctypes.c_long(PATH_BENEATH))
        if _syscall(*numbers, rule, ctypes.c_ulong(0)):
            raise _failure(f"allowing {path} (landlock_add_rule)")
    finally:
        os.close(beneath)


def _failure(step: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), step)


def _holds(check: Callable[[], bool]) -> bool:
    """Whether a check comes out true in a forked child; false as well where it fails or is killed."""
    child = os.fork()
    if child == 0:
        held = False
        try:
            held = check()
        finally:
            os._exit(0 if held else 1)  # nothing of the parent's may run in the child, not even after an error
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _refused(code: int, action: Callable[[], object]) -> bool:
    """Whether the action fails with just this error."""
    try:
        action()
    except OSError as error:
        return error.errno == code
    return False


def _holds_files() -> bool:
    """Inside a granted folder files can be made and read, outside nothing can be read, cut off, made or removed."""
    with tempfile.TemporaryDirectory(prefix="codeweft-") as folder:
        inside, outside = Path(folder, "inside"), Path(folder, "outside")
        inside.mkdir()
        outside.write_text("outside")

        def check() -> bool:
            restrict(make_ruleset([], [str(inside)]))
            made = inside / "made"
            made.write_text("inside")
            denied = (
                outside.read_text,
                lambda: outside.write_text(""),
                lambda: os.truncate(outside, 0),
                outside.unlink,
                lambda: Path(folder, "made").touch(),
                lambda: os.listdir(folder),  # noqa: PTH208
            )
            return made.read_text() == "inside" and all(_refused(errno.EACCES, action) for action in denied)

        return _holds(check)


def _holds_tcp() -> bool:
    """Neither listening nor connecting. The error alone tells: without Landlock no TCP call fails with it."""

    def check() -> bool:
        restrict(make_ruleset([], []))
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server, socket.socket() as client:
            return _refused(errno.EACCES, lambda: server.bind(("127.0.0.1", 0))) and _refused(
                errno.EACCES, lambda: client.connect(("127.0.0.1", 9))
            )

    return _holds(check)


def _holds_signals() -> bool:
    """The parent cannot be signalled, the process itself can."""
    parent = os.getpid()

    def check() -> bool:
        os.kill(parent, 0)
        _restrict_scope()
        os.kill(os.getpid(), 0)
        return _refused(errno.EPERM, lambda: os.kill(parent, 0))

    return _holds(check)


def _holds_abstract_sockets() -> bool:
    """The parent's abstract socket cannot be connected to."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("")  # the kernel picks a free abstract name
        server.listen()
        address = server.getsockname()

        def check() -> bool:
            with socket.socket(socket.AF_UNIX) as before, socket.socket(socket.AF_UNIX) as after:
                before.connect(address)
                _restrict_scope()
                return _refused(errno.EPERM, lambda: after.connect(address))

        return _holds(check)


def _restrict_scope() -> None:
    ruleset = make_scope()
    if ruleset is not None:
        restrict(ruleset)
