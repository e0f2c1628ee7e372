"""The tier landlock end to end, as root and as an unprivileged user: what it holds, and that nothing stays behind."""

import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox.opened import alive, below, settled
from sandbox.unprivileged import NOBODY, Driven, driven

from codeweft.sandbox import landlock
from codeweft.sandbox.wall import SLOT_USER

pytestmark = pytest.mark.skipif(bool(landlock.missing()), reason="toolchain: this kernel's Landlock lacks something")


def slow(*values: str) -> Any:
    """A case for the slow tests."""
    return pytest.param(*values, marks=pytest.mark.slow)


LIMITS: dict[str, Any] = {"cpu_seconds": 2.0, "wall_seconds": 20.0, "memory_mib": 128, "tasks": 40}
ROOT = pytest.param(
    None, id="root", marks=[pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="toolchain: not root")]
)
USERS = [ROOT, pytest.param(NOBODY if os.geteuid() == 0 else None, id="nobody")]


@pytest.fixture(scope="module", params=USERS)
def box(request: pytest.FixtureRequest) -> Iterator[Driven]:
    with driven(request.param, tier="landlock", cache=0) as other:
        assert "refused" not in other.facts, other.facts
        yield other


def test_runs_and_verdicts_say_the_tier(box: Driven):
    assert box.facts["tier"] == "landlock"
    ran = box.python("import sys\nprint(input(), sys.argv, __name__)\nsys.exit(3)", stdin="in", arguments=["a"])
    assert (ran["status"], ran["exit_code"], ran["tier"]) == ("runtime_error", 3, "landlock")
    assert ran["stdout"] == "in ['main.py', 'a'] __main__\n"


def test_every_way_of_judging_works(box: Driven):
    double = "def f(x):\n    return x * 2"
    right, wrong = {"kind": "call", "args": [2], "expected": 4}, {"kind": "call", "args": [2], "expected": 5}
    verdict = box.judge(double, right, wrong, limits=LIMITS)
    assert verdict == {
        "status": "wrong", "passed": 1, "total": 2, "tier": "landlock", "mode": "split",
        "detail": "Test 2: the value is another one.",
    }  # fmt: skip
    mutating = {"kind": "assert", "code": "l = [1]\nf(l)\nassert l == [1, 2]"}
    assert box.judge("def f(x): x.append(2)", mutating)["status"] == "ok"
    assert box.judge("def f(x): x.append(3)", mutating)["status"] == "wrong"
    assert box.judge(double, {"kind": "assert", "code": "assert f(2) == 4"}, mode="compat")["status"] == "ok"
    lines = {"kind": "stdio", "stdin": "2", "expected": "4"}, {"kind": "stdio", "stdin": "3", "expected": "6"}
    assert box.judge("print(int(input()) * 2)", *lines)["status"] == "ok"
    assert box.judge("import os; os._exit(0)", right)["status"] == "incomplete"


def test_compiled_programs_run(box: Driven):
    code = '#include <stdio.h>\nint main(void) { int a; scanf("%d", &a); printf("%d\\n", a * 2); return 0; }'
    ran = box.ask({"run": {"language": "c", "code": code, "stdin": "21"}})
    if ran["status"] == "unsupported":
        pytest.skip("toolchain: no C compiler")
    assert (ran["status"], ran["stdout"]) == ("ok", "42\n")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        slow("while True: pass", "time_limit"),
        ("import os\nfor _ in range(3): os.fork()\nwhile True: pass", "time_limit"),
        ("import time; time.sleep(60)", "time_limit"),
        slow("x = bytearray(300 << 20)", "memory_limit"),
        ("import os, time\nfor _ in range(9):\n    if os.fork() == 0:\n        x = bytearray(20 << 20)\n"
         "        time.sleep(20)\ntime.sleep(20)", "memory_limit"),
        ("import threading, os, time\ndef f():\n    if os.fork() == 0:\n        while True: pass\n    time.sleep(20)\n"
         "threading.Thread(target=f).start()", "time_limit"),
        ("print('x' * 10 ** 7)", "output_limit"),
    ],
)  # fmt: skip
def test_limits_hold(box: Driven, code: str, status: str):
    limits = LIMITS | {"cpu_seconds": 0.5, "wall_seconds": 0.8 if "sleep(60)" in code else 20.0}
    ran = box.python(code, limits=limits)
    assert ran["status"] == status, ran
    assert ran["cpu_seconds"] < 1.2


TRY = """
import json, os, socket, sys
told = {}
def attempt(name, action):
    try:
        action()
        told[name] = "done"
    except OSError as error:
        told[name] = error.errno
def shared(kind, address):
    with socket.socket(kind) as one:
        one.connect(address)
"""


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A file anybody may write, a process of the same user, listening sockets."""
    with (
        tempfile.TemporaryDirectory(prefix="outside-") as name,
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as bound,
    ):
        Path(name).chmod(0o777)
        file = Path(name, "file")
        file.write_text("canary")
        file.chmod(0o666)
        abstract.bind(f"\0{name}")
        bound.bind(f"{name}/socket")
        Path(name, "socket").chmod(0o777)
        for one in (abstract, bound):
            one.listen()
        yield {"folder": name, "file": str(file), "port": listening.getsockname()[1], "abstract": f"\0{name}"}
        assert file.read_text() == "canary"
        assert sorted(path.name for path in Path(name).iterdir()) == ["file", "socket"]


def test_nothing_outside_can_be_read_written_reached_or_ended(box: Driven, outside: dict[str, Any]):
    code = TRY + (
        f"places, own, supervisor = {outside!r}, os.getcwd(), {box.facts['supervisor']}\n"
        "attempt('own', lambda: open(own + '/new', 'w').write('x'))\n"
        "attempt('read', lambda: open(places['file']).read())\n"
        "attempt('write', lambda: open(places['file'], 'w'))\n"
        "attempt('append', lambda: open(places['file'], 'a'))\n"
        "attempt('truncate', lambda: os.truncate(places['file'], 0))\n"
        "attempt('make', lambda: open(places['folder'] + '/new', 'w'))\n"
        "attempt('remove', lambda: os.unlink(places['file']))\n"
        "attempt('list', lambda: os.listdir(places['folder']))\n"
        "attempt('link', lambda: os.link(places['file'], own + '/link') or open(own + '/link').read())\n"
        "attempt('symlink', lambda: os.symlink(places['file'], own + '/sym') or open(own + '/sym').read())\n"
        "attempt('tmp', lambda: os.listdir('/tmp'))\n"
        "attempt('etc', lambda: open('/etc/passwd').read())\n"
        "attempt('shm', lambda: open('/dev/shm/x', 'w'))\n"
        "attempt('tcp', lambda: socket.create_connection(('127.0.0.1', places['port']), 2))\n"
        "attempt('udp', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))\n"
        "attempt('abstract', lambda: shared(socket.AF_UNIX, places['abstract']))\n"
        "attempt('socket file', lambda: shared(socket.AF_UNIX, places['folder'] + '/socket'))\n"
        "attempt('supervisor', lambda: os.kill(supervisor, 0))\n"
        "attempt('cell', lambda: os.kill(os.getppid(), 0))\n"
        "attempt('environment', lambda: open(f'/proc/{supervisor}/environ').read())\n"
        "attempt('memory', lambda: open(f'/proc/{os.getppid()}/mem', 'rb').read(1))\n"
        "os.kill(-1, 9)\n"  # which tells of success where nothing could be killed
        "print(json.dumps(told))"
    )
    told = json.loads(box.says(code, limits=LIMITS))
    assert told.pop("own") == "done"
    assert not [name for name, seen in told.items() if seen == "done"], told


def test_the_tasks_of_a_program_are_limited_whatever_else_its_user_runs(box: Driven):
    user = (NOBODY if box.facts["user"] else SLOT_USER) if os.geteuid() == 0 else os.getuid()
    fields = {"user": user} if os.geteuid() == 0 else {}
    others = [subprocess.Popen(["sleep", "60"], **fields) for _ in range(60)]
    try:
        code = "import os, time\nheld = 0\ntry:\n    while held < 200:\n        if os.fork() == 0: time.sleep(60)\n"
        code += "        held += 1\nexcept OSError:\n    pass\nprint(held)"
        assert 30 <= int(box.says(code, limits=LIMITS)) <= 60
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_a_run_finds_nothing_of_another(box: Driven):
    look = (
        "import os\nprint(os.getcwd())\nprint(os.listdir(), os.environ['HOME'] == os.environ['TMPDIR'] == os.getcwd())"
    )
    first = box.says(look + "\nopen('left', 'w')\nos.makedirs('a/b')\nos.chmod('a', 0)")
    second = box.says(look)
    assert first.splitlines()[1] == second.splitlines()[1] == "['main.py'] True"
    place = first.splitlines()[0]
    assert place != second.splitlines()[0]
    assert settled(lambda: not Path(place).exists())


def test_hashes_have_the_same_order_in_every_run(box: Driven):
    with driven(None if os.geteuid() != 0 else NOBODY, tier="landlock") as other:
        assert other.says("print(hash('a'))") == box.says("print(hash('a'))")


MARKED = "import ctypes, os, threading, time\nctypes.CDLL(None).prctl(15, b'{}', 0, 0, 0)\n"
STAYING = {
    "child": "if os.fork() == 0:\n    time.sleep(99)",
    "daemon": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(99)\n    os._exit(0)",
    "of a thread": "def f():\n    if os.fork() == 0:\n        time.sleep(99)\n    time.sleep(99)\n"
    "threading.Thread(target=f, daemon=True).start()\ntime.sleep(0.3)",
    "itself": "time.sleep(99)",
    "deaf": "import signal\nfor n in set(range(1, 32)) - {9, 19}:\n    signal.signal(n, signal.SIG_IGN)\n"
    "os.fork()\ntime.sleep(99)",
    "growing": "end = time.time() + 9\nwhile time.time() < end:\n    try:\n"
    "        if os.fork() == 0:\n            os.setsid()\n            time.sleep(0.01)\n"
    "    except OSError:\n        time.sleep(0.01)",
}


def marked(mark: str) -> list[int]:
    """Processes with a name."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "comm").read_text().strip() == mark and alive(int(folder.name)):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("what", STAYING)
@pytest.mark.parametrize("given_up", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["ended", "given up"])
def test_what_a_program_leaves_behind_is_ended(box: Driven, what: str, given_up: bool):
    mark = f"m{secrets.token_hex(6)}"
    fields: dict[str, Any] = {"limits": LIMITS | {"wall_seconds": 30.0 if given_up else 1.0}}
    ran = box.python(MARKED.format(mark) + STAYING[what], **fields, **({"deadline": 1.0} if given_up else {}))
    assert ran["status"] in ("ok", "time_limit", "harness_error")
    assert settled(lambda: not marked(mark)), what
    assert box.says("print(1)") == "1\n"


@pytest.mark.parametrize("victim", ["supervisor", *(slow(name) for name in ("cell", "client"))])
def test_whoever_dies_above_takes_the_program_along(victim: str):
    mark = f"m{secrets.token_hex(6)}"
    with driven(NOBODY if os.geteuid() == 0 else None, tier="landlock") as box:
        supervisor = box.facts["supervisor"]
        assert box.process.stdin is not None
        run = {"language": "python", "code": MARKED.format(mark) + "os.fork()\ntime.sleep(99)"}
        box.process.stdin.write(json.dumps({"run": run | {"limits": {"wall_seconds": 99.0}}}) + "\n")
        box.process.stdin.flush()
        assert settled(lambda: len(marked(mark)) == 2)
        processes = [supervisor, *below(supervisor)]
        cell = next(number for number, words in below(supervisor).items() if "codeweft.sandbox.cell" in words)
        os.kill({"cell": cell, "supervisor": supervisor, "client": box.process.pid}[victim], signal.SIGKILL)
        if victim == "cell":
            time.sleep(0.2)
            box.process.kill()
        assert settled(lambda: not marked(mark))
        assert settled(lambda: not any(map(alive, processes)))
        box.process.kill()
