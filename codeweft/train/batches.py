"""Cuts the training stream into sequences of equal length, in the order of the stream.

In:  token shards (already shuffled and mixed by the tokens stage) and a position counted in sequences.
Out: micro-batches of inputs and targets; past the end the stream begins again.

Unusual: there is no sampler state. Position is a function of the step, so a resumed run reads the same tokens.
Shapes: B batch, T tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from codeweft.base.errors import InputError
from codeweft.tokenizer.shards import TokenShards


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences ready for a forward pass; `documents_BT` is given when attention stays inside documents."""

    tokens_BT: Tensor  # int64
    targets_BT: Tensor  # int64, the next token of each
    documents_BT: Tensor | None = None  # int64, number of the document within its sequence


class StreamBatches:
    """Sequences of one split, addressed by number."""

    def __init__(self, shards: TokenShards, split: str, sequence: int, begin: int, isolated: bool) -> None:
        self.shards, self.split, self.sequence, self.begin, self.isolated = shards, split, sequence, begin, isolated
        self.sequences = (shards.total(split) - 1) // sequence
        if self.sequences < 1:
            raise InputError(
                f"The {split} tokens ({shards.total(split)}) are fewer than one sequence of {sequence}.",
                "Give more sources, or a shorter pretrain.schedule.sequence.",
            )

    def read(self, first: int, count: int, device: torch.device) -> Batch:
        """Sequences first … first+count-1, wrapping at the end of the stream."""
        rows = [
            self.shards.window(self.split, (number % self.sequences) * self.sequence, self.sequence + 1)
            for number in range(first, first + count)
        ]
        window_BT = torch.from_numpy(np.stack(rows).astype(np.int64))
        tokens_BT = window_BT[:, :-1]
        documents_BT = (tokens_BT == self.begin).cumsum(1).to(device) if self.isolated else None
        return Batch(tokens_BT.contiguous().to(device), window_BT[:, 1:].contiguous().to(device), documents_BT)

    def micro_batches(self, first: int, count: int, size: int, device: torch.device) -> Iterator[Batch]:
        """The `count` sequences from `first` on, `size` at a time; the last may be smaller."""
        for start in range(first, first + count, size):
            yield self.read(start, min(size, first + count - start), device)
