"""What a report means: the status of a run, in a word of the verdicts and in words for people.

In:  a report of a box.  Out: a status, a detail that is safe to print, and whether an output is the expected one.
"""

from dataclasses import dataclass

from codeweft.sandbox.cells import Report
from codeweft.sandbox.config import Limits

WHY = {"cpu": "time_limit", "wall": "time_limit", "memory": "memory_limit", "output": "output_limit"}
SIGXCPU = 24
MEMORY_WORDS = (
    b"MemoryError", b"std::bad_alloc", b"OutOfMemoryError", b"heap out of memory", b"memory allocation of",
    b"Allowed memory size", b"annot allocate memory", b"out of memory",
)  # fmt: skip
TOLD = 300  # characters of a detail


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict without its tier."""

    status: str
    passed: int
    total: int
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    detail: str = ""


def status_of(report: Report, limits: Limits) -> str:
    """The status that a report means for a program that was to end by itself with exit code 0."""
    if report.why in WHY:
        return WHY[report.why]
    if report.exit_code == -SIGXCPU or report.cpu_seconds > limits.cpu_seconds:
        return "time_limit"  # the latter also of one that ended between two looks of the watchdog
    if report.exit_code == 0:
        return "ok"
    if any(word in report.stderr for word in MEMORY_WORDS):
        return "memory_limit"
    return "runtime_error"


def detail_of(report: Report, limits: Limits) -> str:
    """In words, what ended a program."""
    words = {
        "cpu": f"It used more than {limits.cpu_seconds:g} s of processor time.",
        "wall": f"It had not ended after {limits.wall:g} s.",
        "memory": f"It needed more than {limits.memory_mib} MiB.",
        "output": "It wrote more than may be written.",
    }
    if report.why in words:
        return words[report.why]
    if report.cpu_seconds > limits.cpu_seconds:
        return words["cpu"]
    last = report.stderr.decode(errors="replace").strip().splitlines()[-1:]
    code = report.exit_code or 0
    ending = f"signal {-code}" if code < 0 else f"exit code {code}"
    return printable(f"It ended with {ending}" + (f": {last[0]}" if last else "."))


def printable(text: str) -> str:
    """Text of a program for logs and terminals: short, one line, no control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text[: TOLD * 2]).strip()[:TOLD]


def same_output(output: bytes, expected: str) -> bool:
    """Whether lines agree, white space at their ends and empty lines at the end aside.

    >>> same_output(b"1 \\n2\\n\\n", "1\\n2")
    True
    """
    lines = [
        [line.rstrip() for line in text.replace("\r\n", "\n").rstrip().split("\n")]
        for text in (output.decode(errors="replace"), expected)
    ]
    return lines[0] == lines[1]
