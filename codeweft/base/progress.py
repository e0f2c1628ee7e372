"""What a person sees while work goes on: lines on standard error, and bars with a rate and an estimate.

In:  a label, a total and steps.  Out: a bar on a terminal, a line every ten seconds elsewhere.
"""

import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")

LINE_SECONDS = 10.0  # between two lines where there is no terminal
quiet = False  # in all processes but the first of those that train together


def hush() -> None:
    """Show nothing from here on: another process speaks."""
    global quiet
    quiet = True


def say(text: str) -> None:
    """Print one line to standard error, above any bar."""
    if not quiet:
        print(f"codeweft: {text}", file=sys.stderr, flush=True)  # noqa: T201


def duration(seconds: float) -> str:
    """Seconds as people write them.

    >>> duration(3725), duration(75), duration(2.345)
    ('1 h 2 min', '1 min 15 s', '2.3 s')
    """
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{seconds:.1f} s"


def quantity(number: float) -> str:
    """A count with a suffix where it is long.

    >>> quantity(950), quantity(12_345), quantity(3_400_000)
    ('950', '12.3k', '3.4M')
    """
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if suffix == 'k' else size):.1f}{suffix}"
    return f"{number:.0f}" if number == int(number) or number >= 100 else f"{number:.1f}"


class Bar:
    """Counts work done towards a total; `advance` may carry a fact to show, such as the loss."""

    def __init__(self, label: str, total: float | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.fact = 0.0, ""
        self.started = time.monotonic()
        self.spoke = self.started

    def advance(self, amount: float = 1, fact: str = "") -> None:
        """Record `amount` more units of work."""
        self.done += amount
        self.fact = fact or self.fact
        now = time.monotonic()
        if now - self.spoke >= LINE_SECONDS:
            self.spoke = now
            say(self.line(now))

    def line(self, now: float) -> str:
        """The state as one line: done, rate, estimate, fact."""
        rate = self.done / max(now - self.started, 1e-9)
        parts = [f"{self.label} {quantity(self.done)}"]
        if self.total:
            parts[0] += f" of {quantity(self.total)}"
        parts[0] += f" {self.unit}"
        parts.append(f"{quantity(rate)} {self.unit}/s")
        if self.total and rate:
            parts.append(f"{duration(max(self.total - self.done, 0) / rate)} left")
        return ", ".join(parts + ([self.fact] if self.fact else []))


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{quantity(task.speed or 0)} {task.fields['unit']}/s {task.fields['fact']}")


class _TerminalBar(Bar):
    def __init__(self, label: str, total: float | None, unit: str, progress: Progress) -> None:
        super().__init__(label, total, unit)
        self.progress = progress
        self.task = progress.add_task(label, total=total, unit=unit, fact="")

    def advance(self, amount: float = 1, fact: str = "") -> None:
        self.done += amount
        self.fact = fact or self.fact
        self.progress.update(self.task, advance=amount, fact=self.fact)


@contextmanager
def bar(label: str, total: float | None = None, unit: str = "items") -> Generator[Bar, None, None]:
    """Show progress while the block runs; the bar disappears at its end, the stage's own line remains."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield Bar(label, total, unit)
        return
    share = (TextColumn("{task.percentage:>3.0f} %"),) if total else ()  # of an unknown whole there is no share
    columns = (TextColumn("{task.description}"), BarColumn(), *share)
    with Progress(*columns, _RateColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:
        yield _TerminalBar(label, total, unit, progress)


def track(items: Iterable[Item], label: str, total: float | None = None, unit: str = "items") -> Iterator[Item]:
    """Iterate over `items` under a bar."""
    with bar(label, total, unit) as shown:
        for item in items:
            yield item
            shown.advance()
