"""One forward pass: the new tokens of several sequences in, logits at the positions that are looked at out.

In:  a model, its cache, feeds.  Out: logits in the order of the feeds.

Unusual: torch's way pads rows on the right. A padded position writes behind its row's end, or into the spare block,
and is overwritten before anything attends to it.

Shapes: B rows, T tokens of the longest row, D model, W vocabulary, N positions that are looked at.
"""

import torch
from torch import Tensor

from codeweft.engine.scheduler import Feed
from codeweft.model.cache import LatentCache
from codeweft.model.transformer import Transformer


class Passes:
    """Runs a model over feeds."""

    def __init__(self, model: Transformer, cache: LatentCache) -> None:
        self.model, self.cache = model, cache
        self.device = cache.entries.device

    def logits(self, feeds: list[Feed]) -> Tensor:
        """Logits [N, W]: of each feed its last `wanted` positions."""
        return self.by_torch(feeds)

    def refresh(self) -> None:
        """The weights were changed in place."""

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
