"""Each limit of a box ends or holds what goes beyond it, says which one it was, and leaves the next run alone."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sandbox.opened import SMALL, Opened, opened

from codeweft.sandbox.config import MIB, Limits, Program, SandboxConfig

SHORT = replace(SMALL, wall_seconds=1.0)


def slow(value: str) -> Any:
    """A case for the slow tests."""
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def box() -> Iterator[Opened]:
    with opened() as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import os\nfor _ in range(3): os.fork()\nwhile True: pass",
        slow("import threading\nfor _ in range(3): threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()"),
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "import os\nwhile True:\n    if os.fork() == 0: os._exit(sum(range(10 ** 5)) & 1)\n    os.wait()",
        slow("import time\nwhile True: time.sleep(1e-9)"),
        slow("int('9' * 4000) ** 10 ** 6"),
    ],
)
def test_processor_time_is_limited_for_all_processes_together(box: Opened, code: str):
    ran = box.python(code, replace(SMALL, cpu_seconds=0.3))
    assert ran.status == "time_limit"
    assert "0.3 s of processor time" in ran.detail
    assert 0.25 < ran.cpu_seconds < 0.9


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        "import os\nos.fork()\nos.pause() if hasattr(os, 'pause') else os.read(os.pipe()[0], 1)",
    ],
)
def test_the_clock_is_limited_too(box: Opened, code: str):
    ran = box.python(code, SHORT)
    assert (ran.status, ran.detail) == ("time_limit", "It had not ended after 1 s.")
    assert 0.9 < ran.wall_seconds < 3.5
    assert ran.cpu_seconds < 0.5


MEMORY = {
    "one array": "x = bytearray(200 << 20)",
    "many small objects": "x = []\nwhile True: x.append([0] * 100)",
    "touched pages": "import mmap, time\nx = mmap.mmap(-1, 200 << 20, flags=mmap.MAP_PRIVATE)\n"
    "for place in range(0, len(x), 4096): x[place] = 1\ntime.sleep(1)",
    "files in the box": "import time\nfor n in range(60):\n"
    "    open(f'/box/{n}', 'wb').write(bytes(4 << 20))\ntime.sleep(5)",
    "many children": "import os, time\nfor _ in range(12):\n    if os.fork() == 0:\n        x = bytearray(20 << 20)\n"
    "        time.sleep(20)\ntime.sleep(20)",
    "a list of text": "x = ['y' * 10 ** 6 + str(n) for n in range(1000)]",
}


QUICK = ("one array", "files in the box", "many children")


@pytest.mark.parametrize("what", [what if what in QUICK else slow(what) for what in MEMORY])
def test_memory_is_limited_for_all_processes_and_files_together(box: Opened, what: str):
    ran = box.python(MEMORY[what], replace(SMALL, cpu_seconds=5.0, disk_mib=512, file_mib=64))
    assert ran.status == "memory_limit", (ran.detail, ran.stderr)
    assert ran.detail
    assert ran.peak_bytes < 400 * MIB


def test_memory_that_is_allowed_can_be_used_and_is_told(box: Opened):
    ran = box.python("x = bytearray(90 << 20)\nprint(len(x))")
    assert (ran.status, ran.stdout) == ("ok", b"94371840\n")
    assert 90 * MIB < ran.peak_bytes < 128 * MIB


@pytest.mark.parametrize(("stream", "limit"), [("stdout", SMALL.stdout_bytes), ("stderr", SMALL.stderr_bytes)])
def test_output_may_be_as_long_as_allowed_and_no_byte_longer(box: Opened, stream: str, limit: int):
    code = "import sys; sys.{}.write('x' * {})"
    ran = box.python(code.format(stream, limit))
    assert (ran.status, len(getattr(ran, stream))) == ("ok", limit)
    ran = box.python(code.format(stream, limit + 1))
    assert (ran.status, len(getattr(ran, stream))) == ("output_limit", limit)
    assert ran.detail == "It wrote more than may be written."


def test_output_without_end_ends(box: Opened):
    ran = box.python("while True: print('x' * 1000)", replace(SMALL, cpu_seconds=10.0))
    assert (ran.status, len(ran.stdout)) == ("output_limit", SMALL.stdout_bytes)


def test_processes_and_threads_are_limited(box: Opened):
    code = (
        "import os, threading, time\nheld = 0\ntry:\n    while held < 200:\n"
        "        if {}: time.sleep(60)\n        held += 1\nexcept (OSError, RuntimeError):\n    pass\n"
        "print(held, flush=True)\nos._exit(0)"
    )
    roomy = replace(SMALL, memory_mib=512)  # the stacks of threads count as memory
    for start in ("os.fork() == 0", "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"):
        held = int(box.says(code.format(start), limits=roomy))
        assert SMALL.tasks - 4 <= held <= SMALL.tasks + 2


def test_files_are_limited_in_size_number_and_open_ones(box: Opened):
    large = "try:\n    open('x', 'wb').write(bytes({} << 20))\nexcept OSError as error:\n    print(error.errno)"
    assert box.says(large.format(7)) == ""
    assert box.says(large.format(9)) == "27\n"  # EFBIG: one file
    full = "import os\ntry:\n    for n in range(4): open(f'{n}', 'wb').write(bytes(6 << 20))\nexcept OSError as error:"
    assert box.says(full + "\n    print(error.errno)") == "28\n"  # ENOSPC: all files
    many = (
        "try:\n    for n in range(1000): open(f'{n}', 'w')\nexcept OSError as error:\n    print(error.errno, n > 200)"
    )
    assert box.says(many) == "28 True\n"
    held = "x = []\ntry:\n    while True: x.append(open('/dev/null'))\nexcept OSError as error:"
    held += "\n    print(error.errno, len(x))"
    number, count = map(int, box.says(held).split())
    assert number == 24  # EMFILE
    assert SMALL.open_files - 8 < count < SMALL.open_files
    shared = (
        "try:\n    open('/dev/shm/x', 'wb').write(bytes(5 << 20))\nexcept OSError as error:\n    print(error.errno)"
    )
    assert box.says(shared) == "28\n"


def test_limits_hold_for_compiled_programs_and_their_compilation(box: Opened):
    def compiled(code: str, limits: Limits = SMALL, **fields: Limits) -> tuple[str, str]:
        ran = box.run(Program("c", code, limits=limits, **fields))
        if ran.status == "unsupported":
            pytest.skip("toolchain: no C compiler")
        return ran.status, f"signal {-ran.exit_code}" if (ran.exit_code or 0) < 0 else ran.compiled.status

    assert (
        compiled("int main(void) { for (volatile int i = 0;; i++); }", replace(SMALL, cpu_seconds=0.2))[0]
        == "time_limit"
    )
    hog = (
        "#include <stdlib.h>\n#include <string.h>\nint main(void) {\n  for (;;) memset(malloc(1 << 20), 1, 1 << 20); }"
    )
    endless = (
        "int f(int n) { volatile char x[4096]; x[0] = n; return f(n + 1) + x[0]; }\nint main(void) { return f(0); }"
    )
    assert compiled(endless) == ("runtime_error", "signal 11")
    assert compiled(hog)[0] in ("memory_limit", "runtime_error")  # malloc gives NULL, or the watchdog was first
    assert compiled('#include <stdio.h>\nint main(void) { for (;;) puts("x"); }')[0] == "output_limit"
    short = Limits(cpu_seconds=0.05, memory_mib=512, disk_mib=64)
    deep = (
        "#define A(x) x + x + x + x\n#define B(x) A(A(A(A(x))))\nint main(void) { volatile int i = B(B(1)); return i; }"
    )
    assert compiled(deep, compile_limits=short) == ("compile_error", "time_limit")
    wordy = replace(short, cpu_seconds=20, stderr_bytes=1000)
    assert compiled("".join(f"x{n} y;\n" for n in range(500)), compile_limits=wordy) == (
        "compile_error",
        "output_limit",
    )


def test_nothing_of_one_run_is_left_in_the_next(box: Opened):
    look = "import os\nprint([sorted(os.listdir(f)) for f in ('/box', '/tmp', '/dev/shm')], os.getpid())"
    before = box.says(look)
    box.python(
        "import os\nfor f in ('/box', '/tmp', '/dev/shm'):\n    open(f + '/left', 'w')\nos.fork()\nos.kill(1, 9)"
    )
    assert box.says(look) == before
    assert box.state()["deaths"] == 0


@pytest.mark.parametrize("name", ["cpu_seconds", "memory_mib", "tasks", "stdout_bytes", "open_files"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 2**40])
def test_limits_that_cannot_hold_are_refused(name: str, value: float):
    with pytest.raises(ValueError, match=f"{name} = .* must be at least"):
        Limits(**{name: value})


@pytest.mark.parametrize(
    "settings", [{"cells": -1}, {"waiting": 0}, {"cache": -1}, {"tier": "remote"}, {"url": "http://x"}]
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object]):
    with pytest.raises(ValueError, match=r"must be at least|goes with"):
        SandboxConfig(**settings)
