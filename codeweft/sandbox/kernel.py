"""The Linux calls that Python 3.11 does not have: namespaces, mounts, capabilities, pidfds.

In:  plain arguments.  Out: what the kernel answers; an OSError that names the step where it refuses.
Unusual: standard library alone, because it runs inside the box as well, where nothing else is.
"""

import ctypes
import os
import struct
from pathlib import Path

NEWNS = 0x00020000
NEWCGROUP = 0x02000000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}.get(os.uname().machine, -1)
SYS_CLOSE_RANGE = 436  # on every machine
CAPABILITY_VERSION_3 = 0x20080522
HIGHEST_CAPABILITY = 63

# PyDLL keeps the interpreter's lock: these calls are short, and some stand between fork and exec
_libc = ctypes.PyDLL(None, use_errno=True)


def _checked(result: int, step: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), step)
    return result


def unshare(flags: int, step: str = "unshare") -> None:
    """Move into fresh namespaces; with NEWPID, the children do."""
    _checked(_libc.unshare(flags), step)


def setns(descriptor: int, flags: int, step: str = "setns") -> None:
    """Join the namespace behind a descriptor; with NEWPID, the children do."""
    _checked(_libc.setns(descriptor, flags), step)


def fork() -> int:
    """fork(2), without what Python does after one: in a process with a single thread nothing has to be mended.

    Those handlers (threading's alone) take a third of a millisecond, and a box forks twice.
    """
    return _checked(_libc.fork(), "fork")


def close_from(first: int) -> None:
    """Close every descriptor from `first` on, in one call: some builds of Python close 65,000 numbers one by one."""
    arguments = (SYS_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(2**32 - 1), ctypes.c_uint(0))
    _checked(_libc.syscall(*arguments), "close descriptors")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    encoded = (source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None)
    _checked(_libc.mount(*encoded), f"mount {target}")


def unmount(target: str) -> None:
    """Take a mount away, lazily: what still uses it keeps it."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def bind(source: str, target: str) -> None:
    """Make `source` appear at `target` as well, with what is mounted below."""
    mount(source, target, flags=MS_BIND | MS_REC)


def control(option: int, value: int, step: str = "prctl") -> None:
    """prctl(2) with one argument."""
    _checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), step)


def die_with_parent(signal_number: int = 9) -> None:
    """Let the kernel end this process when the one that started it ends."""
    control(PR_SET_PDEATHSIG, signal_number, "die with parent")


def hide_memory() -> None:
    """Keep other processes of the same user from reading or tracing this one."""
    control(PR_SET_DUMPABLE, 0, "hide memory")


def no_new_privileges() -> None:
    """No program started from here gains anything by being set-uid."""
    control(PR_SET_NO_NEW_PRIVS, 1, "no new privileges")


def adopt_orphans() -> None:
    """Become the parent of all descendants whose parents end."""
    control(PR_SET_CHILD_SUBREAPER, 1, "child subreaper")


def forget_bounding_capabilities() -> None:
    """Empty the bounding set: no exec gives any of them back. Needs CAP_SETPCAP."""
    for capability in range(HIGHEST_CAPABILITY + 1):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            return  # the first one that this kernel does not know


_NO_CAPABILITIES = ctypes.create_string_buffer(struct.pack("<6I", 0, 0, 0, 0, 0, 0))
_CAPABILITY_HEADER = ctypes.create_string_buffer(struct.pack("<Ii", CAPABILITY_VERSION_3, 0))


def drop_capabilities() -> None:
    """Give up every capability, in all three sets, for good."""
    _checked(_libc.syscall(SYS_CAPSET, _CAPABILITY_HEADER, _NO_CAPABILITIES), "drop capabilities")


def own_user_namespace(flags: int) -> None:
    """Unshare a user namespace and `flags`, mapping this user and group to themselves and no other."""
    user, group = os.geteuid(), os.getegid()
    unshare(NEWUSER | flags, "unshare a user namespace")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(text)
