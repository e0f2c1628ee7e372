"""The cache of decoding: one latent and one rotary key per token and layer, nothing per head.

In:  which rows a batch uses, and the new tokens' latents.  Out: the rows' latents so far, positions and visibility.
Source: DeepSeek-V2 §2.1.4, Table 1: (d_c + d_h^R) elements per token and layer.
Unusual: rows are independent sequences of different length; a batch may use any of them. Writing does not advance:
the caller says afterwards how many of the new tokens were real, so that prompts of different length can be padded on
the right and later tokens overwrite the padding. The latent is cached after its norm, the key after its rotation.

Shapes: L layers, B batch, T new tokens, S tokens readable, C latent, R rotary key.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from codeweft.model.config import ModelConfig


class LatentCache:
    """`latent` [L, rows, max_length, C], `key_rope` [L, rows, max_length, R] and `lengths` int64 [rows]."""

    def __init__(
        self, config: ModelConfig, rows: int, max_length: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        shape = (config.num_hidden_layers, rows, max_length)
        # Zeros, not garbage: a masked key still meets its weight 0, and 0 * NaN is NaN.
        self.latent = torch.zeros(*shape, config.kv_lora_rank, dtype=dtype, device=device)
        self.key_rope = torch.zeros(*shape, config.qk_rope_head_dim, dtype=dtype, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.rows, self.max_length = rows, max_length

    @property
    def bytes(self) -> int:
        """Memory of the cached values."""
        return sum(each.numel() * each.element_size() for each in (self.latent, self.key_rope))

    def advance(self, rows_B: Tensor | None, count_B: Tensor | int) -> None:
        """Count the first `count_B` tokens of the last forward pass as read; rows must not repeat."""
        if rows_B is None:
            self.lengths += count_B
        else:
            self.lengths[rows_B] += count_B
        assert int(self.lengths.max()) <= self.max_length, "more tokens than the cache can hold"

    def reset(self, rows_B: Tensor | None = None) -> None:
        """Forget these rows (default: all); what stands in them is never read again."""
        if rows_B is None:
            self.lengths.zero_()
        else:
            self.lengths[rows_B] = 0

    def window(self, rows_B: Tensor | None, batch: int, tokens: int) -> "CacheWindow":
        """What one forward pass of `tokens` new tokens in each of `batch` rows may write and read."""
        rows = torch.arange(self.rows, device=self.lengths.device) if rows_B is None else rows_B
        assert len(rows) == batch, f"{batch} rows of tokens for {len(rows)} rows of the cache"
        start_B = self.lengths[rows]
        longest = int(start_B.max())  # the one point of a pass where the device is waited for
        positions_BT = start_B[:, None] + torch.arange(tokens, device=start_B.device)
        return CacheWindow(self, rows_B, rows, positions_BT, longest)


@dataclass(frozen=True, slots=True)
class CacheWindow:
    """One forward pass's view of the cache; the same for every layer."""

    cache: LatentCache
    chosen_B: Tensor | None  # as the caller gave it; None reads all rows without copying
    rows_B: Tensor
    positions_BT: Tensor
    longest_before: int  # tokens in the fullest of the rows

    @property
    def is_fresh(self) -> bool:
        """No row holds anything yet: the new tokens are all there is to attend to."""
        return self.longest_before == 0

    @property
    def readable(self) -> int:
        """S: key positions that any of the new tokens can attend to."""
        return min(self.longest_before + self.positions_BT.shape[1], self.cache.max_length)

    def visible_BTS(self) -> Tensor:
        """True where a key position is not after the token's own."""
        key_S = torch.arange(self.readable, device=self.positions_BT.device)
        return key_S <= self.positions_BT[..., None]

    def write(self, layer: int, latent_BTC: Tensor, key_rope_BTR: Tensor) -> None:
        """Put the new tokens at their positions; padding beyond the end of the cache is left out."""
        row_BT, position_BT = self.rows_B[:, None].expand_as(self.positions_BT), self.positions_BT
        if self.longest_before + position_BT.shape[1] > self.cache.max_length:
            fits_BT = position_BT < self.cache.max_length
            row_BT, position_BT = row_BT[fits_BT], position_BT[fits_BT]
            latent_BTC, key_rope_BTR = latent_BTC[fits_BT], key_rope_BTR[fits_BT]
        self.cache.latent[layer, row_BT, position_BT] = latent_BTC.to(self.cache.latent.dtype)
        self.cache.key_rope[layer, row_BT, position_BT] = key_rope_BTR.to(self.cache.key_rope.dtype)

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """Latents [B, S, C] and rotary keys [B, S, R] of the rows, up to the longest needed length."""
        latent_BSC = self.cache.latent[layer, :, : self.readable]
        key_rope_BSR = self.cache.key_rope[layer, :, : self.readable]
        if self.chosen_B is None:
            return latent_BSC, key_rope_BSR
        return latent_BSC.index_select(0, self.chosen_B), key_rope_BSR.index_select(0, self.chosen_B)
