"""Landlock holds what it is asked for, tried by forked children against real files, sockets and processes."""

import ctypes
import errno
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from codeweft.sandbox import landlock, seccomp

LIBC = ctypes.CDLL(None, use_errno=True)
VERSION = LIBC.syscall(ctypes.c_long(444), None, ctypes.c_size_t(0), ctypes.c_uint(1))
RIGHTS = 0xFFFF  # on files, of the newest version
needs_scope = pytest.mark.skipif(VERSION < 6, reason="toolchain: this kernel's Landlock has no scopes")
needs_tcp = pytest.mark.skipif(VERSION < 4, reason="toolchain: this kernel's Landlock knows no TCP")
needs_files = pytest.mark.skipif(VERSION < 3, reason="toolchain: this kernel's Landlock cannot refuse truncation")


def in_child(action: Callable[[], Any]) -> Any:
    """What an action returns in a forked child, or the error it ended with."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.write(writing, json.dumps(action()).encode())
        except OSError as error:
            os.write(writing, json.dumps(str(error)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def told(action: Callable[[], Any]) -> str:
    """An action's error by name, or ok."""
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


@dataclass(frozen=True)
class Places:
    """Three folders with a file each."""

    readable: Path
    writable: Path
    outside: Path

    def restrict(self, **options: bool) -> None:
        """What the tests below confine themselves to: the interpreter and shell stay readable."""
        system = [
            place for place in ("/usr", "/lib", "/lib64", "/bin", "/etc", sys.base_prefix) if Path(place).exists()
        ]
        ruleset = landlock.make_ruleset([str(self.readable), *system], [str(self.writable)], **options)
        landlock.restrict(ruleset)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(tmp_path / "readable", tmp_path / "writable", tmp_path / "outside")
    for folder in (made.readable, made.writable, made.outside):
        (folder / "sub").mkdir(parents=True)
        (folder / "file").write_text("content")
        shutil.copy("/bin/true", folder / "program")
    return made


def file_calls(folder: Path) -> dict[str, Callable[[], Any]]:
    """Ways to read a folder's content and to change it; the last ones undo what the first made."""
    return {
        "read": (folder / "file").read_text,
        "list": lambda: os.listdir(folder),  # noqa: PTH208
        "execute": lambda: subprocess.run([folder / "program"], check=True),
        "append": lambda: (folder / "file").open("a").close(),
        "overwrite": lambda: (folder / "file").write_text("changed"),
        "truncate": lambda: os.truncate(folder / "file", 1),
        "make": lambda: (folder / "made").touch(),
        "make folder": lambda: (folder / "folder").mkdir(),
        "make link": lambda: (folder / "link").symlink_to("/etc"),
        "make pipe": lambda: os.mkfifo(folder / "pipe"),
        "make socket": lambda: socket.socket(socket.AF_UNIX).bind(os.path.relpath(folder / "socket")),
        "rename": lambda: (folder / "file").rename(folder / "renamed"),
        "move to another folder": lambda: (folder / "program").rename(folder / "sub" / "program"),
        "remove": lambda: (folder / "sub" / "program").unlink() or (folder / "renamed").unlink(),
        "remove folder": lambda: (folder / "folder").rmdir(),
    }


def answers_in(places: Places, folder: Path, restricted: bool = True) -> dict[str, str]:
    def action() -> dict[str, str]:
        os.chdir(folder)
        if restricted:
            places.restrict()
        return {name: told(call) for name, call in file_calls(folder).items()}

    return in_child(action)


READS = ("read", "list", "execute")


@needs_files
def test_a_writable_folder_can_be_used_in_full(places: Places):
    assert set(answers_in(places, places.writable).values()) == {"ok"}


@needs_files
def test_a_readable_folder_can_be_read_and_executed_only(places: Places):
    answers = answers_in(places, places.readable)
    assert {name for name, answer in answers.items() if answer == "ok"} == set(READS)
    assert {answer for name, answer in answers.items() if name not in READS} <= {"EACCES", "ENOENT"}
    assert (places.readable / "file").read_text() == "content"
    assert sorted(entry.name for entry in places.readable.iterdir()) == ["file", "program", "sub"]


@needs_files
def test_nothing_else_can_be_read_or_changed(places: Places):
    answers = answers_in(places, places.outside)
    assert set(answers.values()) <= {"EACCES", "ENOENT"}
    assert (places.outside / "file").read_text() == "content"
    assert sorted(entry.name for entry in places.outside.iterdir()) == ["file", "program", "sub"]


def test_the_same_calls_succeed_without_a_ruleset(places: Places):
    """Otherwise the two tests above would prove nothing."""
    assert set(answers_in(places, places.outside, restricted=False).values()) == {"ok"}


@needs_files
def test_no_detour_leads_outside(places: Places):
    link, outside = places.writable / "link", places.outside / "file"
    link.symlink_to(outside)

    def action() -> list[str]:
        places.restrict()
        return [
            told(link.read_text),
            told(lambda: link.write_text("x")),
            told((places.writable / ".." / "outside" / "file").read_text),
            told(Path(f"/proc/self/root{outside}").read_text),
            told(lambda: (places.writable / "hard").hardlink_to(outside)),
            told(lambda: outside.rename(places.writable / "stolen")),
            told(lambda: (places.writable / "file").rename(places.outside / "left")),
        ]

    answers = in_child(action)
    assert answers[:4] == ["EACCES"] * 4
    assert set(answers[4:]) <= {"EACCES", "EXDEV"}
    assert outside.read_text() == "content"


@needs_files
def test_a_rule_can_be_about_one_file(places: Places):
    def action() -> list[str]:
        file, beside = places.outside / "file", places.outside / "program"
        landlock.restrict(landlock.make_ruleset([str(beside)], ["/dev/null", str(file)]))
        return [
            told(lambda: Path("/dev/null").write_text("x")),
            told(lambda: file.write_text("x")),
            told(beside.read_bytes),
            told(lambda: beside.write_text("x")),
            told(lambda: os.listdir(places.outside)),  # noqa: PTH208
        ]

    assert in_child(action) == ["ok", "ok", "ok", "EACCES", "EACCES"]


@needs_files
def test_children_and_new_programs_inherit_it_and_cannot_widen_it(places: Places):
    def action() -> list[str]:
        places.restrict()
        told(lambda: landlock.restrict(landlock.make_ruleset(["/"], ["/usr"])))
        shell = subprocess.run(["sh", "-c", 'cat "$0"', places.outside / "file"], capture_output=True, check=False)
        return [shell.stdout.decode(), told((places.outside / "file").read_text), told(Path("/usr/made").touch)]

    assert in_child(action) == ["", "EACCES", "EACCES"]


@pytest.mark.skipif(VERSION < 1, reason="toolchain: this kernel has no Landlock")
def test_a_path_that_is_not_there_is_named_and_leaves_no_descriptor(tmp_path: Path):
    landlock.make_scope()  # what the first call finds out about the kernel needs no descriptor later either
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with pytest.raises(FileNotFoundError) as caught:
        landlock.make_ruleset(["/usr", str(tmp_path / "absent")], [])
    assert caught.value.filename == str(tmp_path / "absent")
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208


@needs_tcp
@pytest.mark.parametrize("network", [False, True])
def test_tcp_is_refused_unless_the_network_is_allowed(network: bool):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def action() -> list[str]:
            landlock.restrict(landlock.make_ruleset([], [], network=network))
            return [
                told(lambda: socket.socket().connect(server.getsockname())),
                told(lambda: socket.socket().bind(("127.0.0.1", 0))),
            ]

        assert in_child(action) == (["ok", "ok"] if network else ["EACCES", "EACCES"])


def reach_outside(restrict: Callable[[], None]) -> dict[str, str]:
    """What a restricted child can reach of a process beside it."""
    sleeper = subprocess.Popen(["sleep", "60"])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("")
        server.listen()

        def action() -> dict[str, str]:
            restrict()
            pair = socket.socketpair()
            own = os.fork()
            if own == 0:
                time.sleep(10)
                os._exit(0)
            answers = {
                "signal outside": told(lambda: os.kill(sleeper.pid, signal.SIGCONT)),
                "signal own child": told(lambda: os.kill(own, signal.SIGKILL)),
                "signal itself": told(lambda: os.kill(os.getpid(), 0)),
                "abstract socket": told(lambda: socket.socket(socket.AF_UNIX).connect(server.getsockname())),
                "socket pair": told(lambda: pair[0].send(b"x")),
                "file": told(Path("/etc/passwd").read_text),
            }
            os.waitpid(own, 0)
            return answers

        try:
            return in_child(action)
        finally:
            sleeper.kill()
            sleeper.wait()


WITHIN = {"signal own child": "ok", "signal itself": "ok", "socket pair": "ok"}
OUTSIDE = {"signal outside": "EPERM", "abstract socket": "EPERM"}


@needs_scope
def test_a_scope_keeps_signals_and_abstract_sockets_in_and_files_free():
    def restrict() -> None:
        ruleset = landlock.make_scope()
        assert ruleset is not None
        landlock.restrict(ruleset)

    assert reach_outside(restrict) == WITHIN | OUTSIDE | {"file": "ok"}


@needs_scope
@pytest.mark.parametrize("scope", [True, False])
def test_a_ruleset_scopes_unless_told_otherwise(scope: bool):
    answers = reach_outside(lambda: landlock.restrict(landlock.make_ruleset([], [], scope=scope)))
    assert answers == WITHIN | (OUTSIDE if scope else dict.fromkeys(OUTSIDE, "ok")) | {"file": "EACCES"}


def test_restricting_gives_up_new_privileges_and_names_what_failed():
    def action() -> list[str]:
        return [told(lambda: landlock.restrict(-1)), Path("/proc/self/status").read_text()]

    answer, status = in_child(action)
    assert answer in ("EBADF", "ENOSYS", "EOPNOTSUPP")
    assert "NoNewPrivs:\t1" in status
    assert "landlock_restrict_self" in in_child(lambda: landlock.restrict(-1))


def test_what_is_missing_is_what_this_kernels_version_lacks():
    """True of the kernels of kernel.org. One that claims more than it has may fail here, and is right to."""
    expected = {
        "filesystem": VERSION < 3,  # before, files outside could be truncated
        "tcp": VERSION < 4,
        "signals": VERSION < 6,
        "abstract sockets": VERSION < 6,
    }
    assert landlock.missing() == [name for name, lacking in expected.items() if lacking]


@needs_scope
@pytest.mark.parametrize(
    ("known", "missing"),
    [
        ((RIGHTS, 3, 0), ["signals", "abstract sockets"]),
        ((RIGHTS, 3, 1), ["signals"]),
        ((RIGHTS, 3, 2), ["abstract sockets"]),
        ((RIGHTS, 1, 3), ["tcp"]),
        ((RIGHTS, 2, 3), ["tcp"]),
        ((RIGHTS, 0, 0), ["tcp", "signals", "abstract sockets"]),
        ((RIGHTS & ~(1 << 14), 3, 3), ["filesystem"]),  # no truncation
        ((RIGHTS & ~(1 << 5), 3, 3), ["filesystem"]),  # no removal
    ],
)
def test_a_kernel_that_holds_less_is_found_out(
    known: tuple[int, int, int], missing: list[str], monkeypatch: pytest.MonkeyPatch
):
    """As on a kernel whose rulesets silently lack the right."""
    monkeypatch.setattr(landlock, "_known", lambda: known)
    assert landlock.missing() == missing


def test_a_kernel_without_landlock_is_said_and_not_passed_over():
    """A filter makes the calls answer as an older kernel would."""
    without = [(0x20, 0, 0, 0), (0x35, 0, 2, 444), (0x25, 1, 0, 446), (0x06, 0, 0, 0x00050000 | errno.ENOSYS)]
    program = b"".join(struct.pack("=HBBI", *step) for step in [*without, (0x06, 0, 0, 0x7FFF0000)])

    def action() -> list[Any]:
        landlock._known.cache_clear()
        seccomp.install(program)
        return [landlock.missing(), landlock.make_scope(), told(lambda: landlock.make_ruleset(["/"], []))]

    assert in_child(action) == [["filesystem", "tcp", "signals", "abstract sockets"], None, "ENOSYS"]


@needs_files
def test_trying_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def held() -> tuple[int, str]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        return len(os.listdir("/proc/self/fd")), children  # noqa: PTH208

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = held()
    landlock.missing()
    assert held() == before
    assert list(tmp_path.iterdir()) == []
