"""One forward pass: the new tokens of several sequences in, logits at the positions that are looked at out.

In:  a model, its cache, feeds.  Out: logits in the order of the feeds.

Unusual: few tokens go through one native call where it applies (kernels/decoding.py), many through torch's layers,
which pad rows on the right. A padded position writes behind its row's end, or into the spare block, and is overwritten
before anything attends to it.

Shapes: B rows, T tokens of the longest row, D model, W vocabulary, N positions that are looked at.
"""

import torch
from torch import Tensor

from codeweft.base.progress import say
from codeweft.engine.kernels import decoding
from codeweft.engine.scheduler import Feed
from codeweft.model.cache import LatentCache
from codeweft.model.transformer import Transformer

DRAWN = 16  # tokens of a feed up to which it is a draw with its guess, not a prompt
MANY = 256  # tokens of draws that go through native passes, one after the other; more are torch's


class Passes:
    """Runs a model over feeds."""

    def __init__(self, model: Transformer, cache: LatentCache) -> None:
        self.model, self.cache = model, cache
        self.device = cache.entries.device
        reason = decoding.why_not(model)
        self.native = decoding.NativeDecoder(model, cache) if reason is None else None
        if reason is not None and self.device.type == "cpu":
            say(f"engine: no native passes, because {reason}.")

    def logits(self, feeds: list[Feed]) -> Tensor:
        """Logits [N, W]: of each feed its last `wanted` positions."""
        total, longest = sum(len(feed.tokens) for feed in feeds), max(len(feed.tokens) for feed in feeds)
        if self.native is None or (total > decoding.MOST_TOKENS and not (longest <= DRAWN and total <= MANY)):
            return self.by_torch(feeds)
        if total <= decoding.MOST_TOKENS:
            return self.by_native(feeds)
        half = len(feeds) // 2
        return torch.cat([self.logits(feeds[:half]), self.logits(feeds[half:])])

    def refresh(self) -> None:
        """The weights were changed: in place, or by others in their place."""
        if self.native is not None:
            self.native.refresh()

    def by_native(self, feeds: list[Feed]) -> Tensor:
        """All tokens in one native call."""
        assert self.native is not None
        tokens: list[int] = []
        rows: list[int] = []
        places: list[int] = []
        wanted: list[int] = []
        for row, feed in enumerate(feeds):
            count = len(feed.tokens)
            tokens += feed.tokens
            rows += [row] * count
            places += range(feed.start, feed.start + count)
            wanted += range(len(tokens) - feed.wanted, len(tokens))
        width = max(len(feed.sequence.table) for feed in feeds)
        tables = [[*feed.sequence.table, *[self.cache.spare] * (width - len(feed.sequence.table))] for feed in feeds]
        given = (torch.tensor(each, dtype=torch.int32) for each in (tokens, tables, rows, places, wanted))
        return self.native.step(*given)

    def by_torch(self, feeds: list[Feed]) -> Tensor:
        """In padded rows, by the layers of codeweft.model."""
        starts, lengths = [feed.start for feed in feeds], [len(feed.tokens) for feed in feeds]
        longest = max(lengths)
        padded = [[*feed.tokens, *[0] * (longest - len(feed.tokens))] for feed in feeds]
        tables_BP = self.cache.tables([feed.sequence.table for feed in feeds], max(starts) + longest)
        window = self.cache.window(tables_BP, torch.tensor(starts, device=self.device), longest)
        tokens_BT = torch.tensor(padded, device=self.device)
        hidden_BTD = self.model(tokens_BT, window=window, return_hidden=True).hidden_BTD
        row_N = [row for row, feed in enumerate(feeds) for _ in range(feed.wanted)]
        place_N = [
            place for feed, end in zip(feeds, lengths, strict=True) for place in range(end - feed.wanted, end)
        ]  # fmt: skip
        return self.model.head(hidden_BTD[row_N, place_N])
