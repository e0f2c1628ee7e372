"""Cuts the training stream into sequences of equal length and deals them out in an order drawn by seed.

In:  token shards (already shuffled and mixed by document) and a position counted in sequences.
Out: micro-batches of inputs and targets; past the end the stream begins again, in another order.

Unusual: there is no sampler state. What a position holds follows from the seed alone, so a resumed run reads the same
tokens. A plan for N sequences reads exactly the first N of the stream, so "the tokens seen" are a prefix of it.
A document is longer than a sequence more often than not: without the second shuffle a batch would be one file.
Shapes: B batch, T tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from codeweft.base.errors import InputError
from codeweft.base.seeds import generator
from codeweft.tokenizer.shards import TokenShards


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences ready for a forward pass; `documents_BT` is given when attention stays inside documents.

    `weights_BT` is given when tokens count differently. Over the batches of one step (or one validation) its mean is 1,
    so that the means over batches of equal shape add up to the weighted mean over all of them.
    """

    tokens_BT: Tensor  # int64
    targets_BT: Tensor  # int64, the next token of each
    documents_BT: Tensor | None = None  # int64, number of the document within its sequence
    weights_BT: Tensor | None = None  # float32, what each target counts in the loss; 0: it is not trained on


MORE = {"train": "tokens.total", "held-out": "tokens.held_out_tokens"}  # what makes a split's stream longer
BLOCK = 1 << 20  # sequences that are shuffled together; bounds the memory of an order to 8 MiB


@dataclass(frozen=True, slots=True)
class Order:
    """How positions map to sequences: `planned` positions in all, shuffled by `seed`; None keeps the stream's order."""

    planned: int
    seed: int | None = None

    def sequence(self, position: int, available: int) -> int:
        """The number of the sequence, of `available`, at a position."""
        epoch, place = divmod(position, available)
        if self.seed is None:
            return place
        block = place // BLOCK
        size = min(BLOCK, available - block * BLOCK, max(self.planned - epoch * available - block * BLOCK, 1))
        return block * BLOCK + int(_permutation(self.seed, epoch, block, size)[place - block * BLOCK])


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, block: int, size: int) -> np.ndarray:
    return generator(seed, "order", epoch, block).permutation(size)


class StreamBatches:
    """Sequences of one split, addressed by position in an order."""

    def __init__(
        self, shards: TokenShards, split: str, sequence: int, begin: int, isolated: bool, order: Order
    ) -> None:
        self.shards, self.split, self.sequence, self.begin, self.isolated = shards, split, sequence, begin, isolated
        self.order = order
        self.sequences = (shards.total(split) - 1) // sequence
        if self.sequences < 1:
            raise InputError(
                f"The {split} tokens ({shards.total(split)}) are fewer than one sequence of {sequence}.",
                f"Shorten pretrain.schedule.sequence, or raise {MORE[split]}, with more sources where they run out.",
            )

    def read(self, first: int, count: int, device: torch.device) -> Batch:
        """The sequences at positions first … first+count-1."""
        numbers = [self.order.sequence(position, self.sequences) for position in range(first, first + count)]
        rows = [self.shards.window(self.split, number * self.sequence, self.sequence + 1) for number in numbers]
        window_BT = torch.from_numpy(np.stack(rows).astype(np.int64))
        tokens_BT = window_BT[:, :-1]
        documents_BT = (tokens_BT == self.begin).cumsum(1).to(device) if self.isolated else None
        return Batch(tokens_BT.contiguous().to(device), window_BT[:, 1:].contiguous().to(device), documents_BT)

    def micro_batches(self, first: int, count: int, size: int, device: torch.device) -> Iterator[Batch]:
        """The `count` sequences from position `first` on, `size` at a time; the last may be smaller."""
        for start in range(first, first + count, size):
            yield self.read(start, min(size, first + count - start), device)
