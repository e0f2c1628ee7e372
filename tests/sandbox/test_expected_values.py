"""No expected value is ever where the answer could find it: not in its memory, its files, its descriptors."""

import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sandbox.opened import SMALL, Opened, call, check, opened, stdio

from codeweft.base import records

# Finds what looks like a marker in everything this process can read, and gives it back (or prints it).
SEARCH = r"""
import gc, os, re, sys
PATTERN = re.compile(b"mar" + b"ker-[0-9a-f]{16}")
def found_in(data, found):
    found.update(match.decode() for match in PATTERN.findall(data))
def files():
    yield from (f"/proc/{who}/{what}" for who in ("self", "1", os.getppid())
                for what in ("environ", "cmdline", "comm", "maps", "mountinfo", "status", "auxv", "stat"))
    for folder in ("/box", "/tmp", "/dev/shm", "/etc", "/opt/cell", "/proc/1/cwd", "/proc/self/task", "/proc/net"):
        for place, _, names in os.walk(folder):
            yield from (os.path.join(place, name) for name in names if name not in ("kmsg", "mem"))
def search():
    found = set()
    for thing in gc.get_objects():
        try:
            found_in(repr(thing).encode(errors="replace")[:1 << 16], found)
        except Exception:
            pass
    frame = sys._getframe()
    while frame:
        found_in(repr(frame.f_locals).encode(errors="replace"), found)
        frame = frame.f_back
    for path in files():
        try:
            number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                found_in(os.read(number, 1 << 20), found)
            finally:
                os.close(number)
        except OSError:
            pass
    for number in range(3, 512):
        try:
            os.set_blocking(number, False)
            found_in(os.pread(number, 1 << 20, 0) if os.lseek(number, 0, 1) >= 0 else b"", found)
        except OSError:
            pass
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps.read().splitlines():
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            if "r" in line.split()[1] and "[v" not in line:
                try:
                    memory.seek(start)
                    found_in(memory.read(end - start), found)
                except (OSError, ValueError, OverflowError):
                    pass
    return sorted(found)
def f(*ignored):
    return search()
if __name__ == "__main__":
    print(*search())
"""
ROOMY = replace(SMALL, cpu_seconds=20.0, wall_seconds=120.0, memory_mib=512)


@pytest.fixture(scope="module")
def box() -> Iterator[Opened]:
    with opened(cache=0) as sandbox:
        yield sandbox


def given(marker: str, shown: str) -> dict[str, tuple[records.Test, ...]]:
    """Tests that pass only for who finds the marker; `shown` is what they give away."""
    return {
        "call": (call(shown, expected=[marker]), call(expected=[marker])),
        "assert": (check(f"assert f({shown!r}) == [{marker!r}]"), check(f"hidden = {marker!r}")),
        "stdio": (stdio(shown, marker), stdio("", marker)),
    }


@pytest.mark.parametrize("kind", ["call", "assert", "stdio"])
def test_expected_values_never_enter_the_answers_box(box: Opened, kind: str):
    marker = f"marker-{secrets.token_hex(8)}"
    tests = given(marker, "")[kind]
    verdict = box.judge(SEARCH, *tests, limits=ROOMY, setup=f"also = {marker!r}", stop_early=False)
    assert (verdict.status, verdict.passed) == ("wrong", kind == "assert"), verdict
    other = f"marker-{secrets.token_hex(8)}"  # nor are those of the judgement before
    assert box.judge(SEARCH, *given(other, "")[kind], limits=ROOMY).status == "wrong"


@pytest.mark.parametrize("kind", ["call", "assert", "stdio"])
def test_the_search_finds_what_is_there(box: Opened, kind: str):
    """The other way round: given the marker as an input, the same search finds it."""
    marker = f"marker-{secrets.token_hex(8)}"
    verdict = box.judge(SEARCH, given(marker, marker)[kind][0], limits=ROOMY)
    assert verdict.status == "ok", verdict


def test_compat_keeps_no_secret_and_is_labelled(box: Opened):
    """Why that mode is never a reward."""
    marker = f"marker-{secrets.token_hex(8)}"
    verdict = box.judge(SEARCH, check(f"assert f() == [{marker!r}]"), limits=ROOMY, mode="compat")
    assert (verdict.status, verdict.mode) == ("ok", "compat")
