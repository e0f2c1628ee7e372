"""Which of the processes that torchrun started this one is, and what they ask of each other; alone, it asks itself.

In:  torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK).  Out: `Together`, the interface that training works with.

Unusual: this is the whole of a process that works alone, so that training with one process never meets
torch.distributed; several have `codeweft.train.distributed`.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

from codeweft.base.errors import ConfigError, UserError

Item = TypeVar("Item")

LAST_WORD_SECONDS = 10.0  # that the others give the first process to say what went wrong, and torchrun to end them


class ProcessLost(UserError):
    """Another process of those that train together has ended; this has been said where it was noticed."""


def started() -> int:
    """How many processes torchrun started; 1 without it."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """This one's number among them, from 0."""
    return _number("RANK", 0) if started() > 1 else 0


def leads() -> bool:
    """Whether this process is the one that writes and speaks."""
    return rank() == 0


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or int(text) < default:
        raise ConfigError(f"{name} is {text}, which is no number of processes.", f"Unset {name}, or use torchrun.")
    return int(text)


def wait_to_speak() -> None:
    """Let the first process speak before this one does: most often all met the same error, and it says it for all.

    torchrun ends the others when it has; what only this one met, it says after the wait.
    """
    with suppress(ConfigError, KeyboardInterrupt):
        if not leads():
            time.sleep(LAST_WORD_SECONDS)


class Together:
    """The processes that work on one stage; this class is a process alone. The first, of rank 0, writes and speaks.

    All but `share` is to be called by every process, in the same order.
    """

    rank = 0
    size = 1

    @property
    def leads(self) -> bool:
        """Whether this is the first."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of the items that are this process's to work on: dealt out one by one."""
        return items[self.rank :: self.size]

    def joined(self, part: Sequence[Item]) -> list[Item]:
        """What came of all items, in their order, from what came of each process's share."""
        parts = self.every(list(part))
        return [parts[number % self.size][number // self.size] for number in range(sum(map(len, parts)))]

    def every(self, value: Item) -> list[Item]:
        """The values of all processes, by rank."""
        return [value]

    def first(self, value: Item) -> Item:
        """The value of the first process."""
        return value

    def sum_(self, tensors: Sequence[Any]) -> None:
        """Replace tensors by their sums over all processes."""

    def wait(self) -> None:
        """Go on when all have come here."""
