"""What can be asked of the sandbox: limits, a program to run, code to judge, and how the sandbox itself is set up.

In:  the `[sandbox]` section, or a caller.  Out: frozen dataclasses; no torch, no Arrow.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from codeweft.base.records import Status, Test

Tier = Literal["namespaces", "landlock", "remote", "unsafe"]
Mode = Literal["stdio", "split", "compat"]
MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one process tree may use. CPU time is the main limit: the wall clock of a busy machine says little."""

    cpu_seconds: float = 4.0  # processor seconds of the whole process tree
    wall_seconds: float = 0.0  # seconds by the clock (0: twice the processor seconds and two more)
    memory_mib: int = 512  # private memory of all processes and their files in memory together
    tasks: int = 64  # processes and threads
    disk_mib: int = 64  # each of /box and /tmp
    shared_mib: int = 16  # /dev/shm
    inodes: int = 4096  # files and folders in each of the three
    file_mib: int = 64  # one file
    open_files: int = 256  # of one process
    stack_mib: int = 8  # of one thread
    stdout_bytes: int = MIB  # more of it ends the run
    stderr_bytes: int = MIB // 16  # more of it ends the run

    def __post_init__(self) -> None:
        """Refuse what cannot hold."""
        for name, value in vars(self).items():
            lowest = 0 if name == "wall_seconds" else 1e-3 if name == "cpu_seconds" else 1
            if not lowest <= value < 2**40:
                raise ValueError(f"{name} = {value} must be at least {lowest}.")

    @property
    def wall(self) -> float:
        """Seconds by the clock after which a run is ended."""
        return self.wall_seconds or 2 * self.cpu_seconds + 2


COMPILING = Limits(
    cpu_seconds=20, wall_seconds=60, memory_mib=2048, tasks=128, disk_mib=256, file_mib=256, open_files=1024,
    stack_mib=64, stdout_bytes=MIB // 16,
)  # fmt: skip


@dataclass(frozen=True)
class SandboxConfig:
    """How programs are walled off, and how many run at once."""

    tier: Tier = "namespaces"  # the wall; anything but namespaces is weaker and never taken without being asked for
    cells: int = 0  # warm cells, each running one program at a time (0: one a core)
    waiting: int = 1024  # submissions that may wait for a cell before the next caller has to
    cache: int = 4096  # verdicts kept, found again by code, tests and limits
    packages: bool = True  # whether Python programs may import the packages of this environment
    url: str = ""  # tier remote: where the service listens
    token: str = ""  # tier remote: its token; $CODEWEFT_SANDBOX_TOKEN, where this is empty, keeps it out of recipes

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, lowest in (("cells", 0), ("waiting", 1), ("cache", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least {lowest}.")
        if (self.tier == "remote") != bool(self.url):
            raise ValueError("tier = remote goes with a url, and a url with tier = remote.")


@dataclass(frozen=True)
class Program:
    """A program to run once. `files` are further files beside it, by relative path."""

    language: str
    code: str
    stdin: bytes = b""
    arguments: tuple[str, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    limits: Limits | None = None  # None: the language's
    compile_limits: Limits | None = None  # None: the language's


@dataclass(frozen=True)
class Ran:
    """What one run (or one compilation) did; `exit_code` is minus the signal where one ended it."""

    status: "Status"
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    tier: Tier
    detail: str = ""
    compiled: "Ran | None" = None  # the compilation before it, where there was one


@dataclass(frozen=True)
class Submission:
    """Code to judge by tests.

    `setup` is trusted code that the tests need beside the answer (helpers, imports); `entry_point` the function that
    `call` and `assert` tests call. `tolerance` is the largest absolute difference of two numbers that count as equal.
    `allclose` has a tolerance for each of the `call` tests, or is empty: a value that is not equal passes as well if it
    is of the expected type and its numbers differ by no more than that and a ten millionth (0: it must be equal).
    """

    language: str
    code: str
    tests: "tuple[Test, ...]"
    entry_point: str = ""
    setup: str = ""
    mode: Mode | None = None  # None: stdio for stdio tests, split for the others; compat must be asked for
    limits: Limits | None = None  # of each run; None: the language's
    tolerance: float = 0.0
    stop_early: bool = True  # whether the first failed test ends the judging
    allclose: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse tolerances that are not one for each of the values that are compared."""
        if self.allclose and [test.kind for test in self.tests] != ["call"] * len(self.allclose):
            raise ValueError(f"There are {len(self.allclose)} tolerances in allclose: each needs a call test.")
