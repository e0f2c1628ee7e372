"""Refuse the system calls by which a program could leave its box, reach a network or hide memory: a seccomp denylist.

In:  the machine's name and what this box may do.  Out: a classic BPF program, and the call that installs it for good.
Unusual: assembled here, without libseccomp, so that nothing has to be installed. A number is looked up by halving, so
an ordinary call costs about ten instructions. Calls newer than the table do not exist for the program (ENOSYS, as on an
older kernel), which covers x32 numbers too. Runs inside the box: standard library only.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

# name: (x86_64, aarch64), None where that machine never had the call.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # looked at more closely: see _checks
    "socket": (41, 198), "socketpair": (53, 199), "clone": (56, 220), "ioctl": (16, 29), "mmap": (9, 222),
    "setsockopt": (54, 208), "prlimit64": (302, 261),
    # absent, so that libraries take the older call instead
    "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "move_mount": (429, 429), "open_tree": (428, 428), "mount_setattr": (442, 442), "open_tree_attr": (467, 467),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    # wide doors into the kernel
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    # the machine's own state
    "create_module": (174, None), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "query_module": (178, None), "get_kernel_syms": (177, None), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "syslog": (103, 116), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "iopl": (172, None),
    "ioperm": (173, None),
    # memory that no limit of a process counts (vmsplice keeps a huge page in a pipe after it was unmapped)
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "vmsplice": (278, 75),
}  # fmt: skip
NEWEST = 469  # file_setattr, of Linux 6.17; the machines have shared their numbers since 424
ABSENT = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_create", "memfd_secret")
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the table, AUDIT_ARCH_*

LOAD, AND, RETURN = 0x20, 0x54, 0x06  # of a 32-bit word of seccomp_data, with a constant, a constant
EQUAL, ABOVE, AT_LEAST, ANY_BIT = 0x15, 0x25, 0x35, 0x45  # jumps on comparing with a constant
NUMBER_AT, MACHINE_AT, ARGUMENTS_AT = 0, 4, 16  # offsets in seccomp_data; an argument's low word comes first
ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
NEW_NAMESPACE = 0x7E020000  # every CLONE_NEW* flag that clone takes (CLONE_NEWTIME is for unshare and clone3 only)
SHARED_ANONYMOUS = 0x21  # MAP_SHARED | MAP_ANONYMOUS
TERMINAL_INPUT, CONSOLE = 0x5412, 0x541C  # TIOCSTI, TIOCLINUX: type into the terminal that started us
SOCKET_LEVEL, SEND_BUFFER = 1, 7  # SOL_SOCKET, SO_SNDBUF
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


@dataclass(frozen=True)
class _Step:
    """One instruction. `yes` and `no` name the labels to jump to; an empty one is the next instruction."""

    code: int
    value: int
    yes: str = ""
    no: str = ""
    label: str = ""


def assemble(machine: str, network: bool = False, shared_memory: bool = False, local_sockets: bool = True) -> bytes:
    """Pack the denylist as an array of `struct sock_filter`.

    `network` allows internet sockets beside local ones. `shared_memory` allows memfd_create and shared anonymous
    mappings, for when a memory cgroup counts them. Without `local_sockets` only socketpair makes local sockets: for
    boxes that see socket files of the host. Raises ValueError for a machine there is no table for.

    >>> len(assemble("x86_64")) % 8
    0
    """
    if machine not in MACHINES:
        raise ValueError(f"no seccomp filter for {machine}: there are tables for {' and '.join(MACHINES)} only.")
    column, audit = MACHINES[machine]
    families = [AF_UNIX] * local_sockets + [AF_INET, AF_INET6] * network
    checks = _checks(families)
    if shared_memory:
        del checks["mmap"]
    goals: dict[int, str] = {}
    for name, numbers in NUMBERS.items():
        number = numbers[column]
        if number is None or (shared_memory and name in ("mmap", "memfd_create")):
            continue
        goals[number] = name if name in checks else "ENOSYS" if name in ABSENT else "EPERM"
    steps = [
        _Step(LOAD, MACHINE_AT),
        _Step(EQUAL, audit, no="kill"),
        _Step(LOAD, NUMBER_AT),
        _Step(ABOVE, NEWEST, yes="ENOSYS"),
        *_search(sorted(goals.items())),
    ]
    for name, check in checks.items():
        steps += [replace(check[0], label=name), *check[1:]]
    steps += [_Step(RETURN, ALLOW, label="allow"), _Step(RETURN, KILL, label="kill")]
    steps.append(_Step(RETURN, FAIL, label="ignore"))  # error 0: the call succeeds without having been made
    for name in ("EPERM", "ENOSYS", "ENOMEM", "EAFNOSUPPORT"):
        steps.append(_Step(RETURN, FAIL | getattr(errno, name), label=name))
    return _pack(steps)


def _search(goals: list[tuple[int, str]], label: str = "") -> list[_Step]:
    """Find the loaded number among sorted ones, by halving while there are more than four; others are allowed."""
    if len(goals) <= 4:
        steps = [_Step(EQUAL, number, yes=goal) for number, goal in goals]
        steps[0] = replace(steps[0], label=label)
        steps[-1] = replace(steps[-1], no="allow")
        return steps
    middle = len(goals) // 2
    pivot = goals[middle][0]
    upper = f"from {pivot}"
    return [_Step(AT_LEAST, pivot, yes=upper, label=label), *_search(goals[:middle]), *_search(goals[middle:], upper)]


def _checks(families: Sequence[int]) -> dict[str, list[_Step]]:
    """Steps that decide by an argument. All of these are 32 bits to the kernel too, so their low words suffice."""
    return {
        "socket": _only(families),
        "socketpair": _only([AF_UNIX]),
        "clone": [_argument(0), _Step(ANY_BIT, NEW_NAMESPACE, yes="EPERM", no="allow")],
        "ioctl": [
            _argument(1),
            _Step(EQUAL, TERMINAL_INPUT, yes="EPERM"),
            _Step(EQUAL, CONSOLE, yes="EPERM", no="allow"),
        ],
        # its own limits only: pid 1 of the box has the same user, and needs its own
        "prlimit64": [_argument(0), _Step(EQUAL, 0, yes="allow", no="EPERM")],
        "mmap": [
            _argument(3),
            _Step(AND, SHARED_ANONYMOUS),
            _Step(EQUAL, SHARED_ANONYMOUS, yes="ENOMEM", no="allow"),
        ],
        # what waits in a socket is nobody's memory: two gigabytes in 256 sockets where the buffers may be enlarged
        "setsockopt": [
            _argument(1),
            _Step(EQUAL, SOCKET_LEVEL, no="allow"),
            _argument(2),
            _Step(EQUAL, SEND_BUFFER, yes="ignore", no="allow"),
        ],
    }


def _only(families: Sequence[int]) -> list[_Step]:
    """Allow these address families."""
    steps = [_Step(EQUAL, family, yes="allow") for family in families]
    return [_argument(0), *steps, _Step(RETURN, FAIL | errno.EAFNOSUPPORT)]


def _argument(index: int) -> _Step:
    return _Step(LOAD, ARGUMENTS_AT + 8 * index)


def _pack(steps: Sequence[_Step]) -> bytes:
    """Turn labels into distances, which must be ahead and fit in a byte."""
    places = {step.label: place for place, step in enumerate(steps) if step.label}
    packed = bytearray()
    for place, step in enumerate(steps):
        ahead = [places[goal] - place - 1 if goal else 0 for goal in (step.yes, step.no)]
        packed += struct.pack("=HBBI", step.code, *ahead, step.value)
    return bytes(packed)


class _Program(ctypes.Structure):
    """`struct sock_fprog`: the number of instructions and where they are."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)


class Filter:
    """A program laid out for the kernel. Made before a fork, it leaves the child two system calls and no more."""

    def __init__(self, program: bytes) -> None:
        self._structure = _Program(len(program) // 8, program)
        self._address = ctypes.addressof(self._structure)

    def install(self) -> None:
        """Give up new privileges and filter this thread's system calls, and those of its children, for good.

        Raises OSError with the step that failed as its filename.
        """
        if _prctl(PR_SET_NO_NEW_PRIVS, 1, None, 0, 0):
            raise _failure("giving up new privileges (prctl PR_SET_NO_NEW_PRIVS)")
        if _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, self._address, 0, 0):
            raise _failure("installing the seccomp filter (prctl PR_SET_SECCOMP)")


def install(program: bytes) -> None:
    """Install a program once, where there is nothing to prepare."""
    Filter(program).install()


def _failure(step: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), step)
