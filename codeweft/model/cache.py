"""The cache of decoding: one latent and one rotary key per token and layer, nothing per head, in blocks of 16 tokens.

In:  each row's table of blocks and where it ends, and the new tokens' latents.  Out: latents so far, and visibility.
Source: DeepSeek-V2 §2.1.4, Table 1: (d_c + d_h^R) elements per token and layer.
Unusual: a sequence's tokens need not lie together. Its table names the blocks that hold them, sixteen tokens each, and
several tables may name the same block: that is how prompts which begin alike share memory and work. The cache does
not know who owns a block (engine/blocks.py does). Latents are cached after their norm, keys after their rotation.

Shapes: L layers, B batch, T new tokens, S tokens readable, P blocks of a table, C latent, R rotary key, X = C + R.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from codeweft.model.config import ModelConfig

BLOCK = 16  # tokens


class LatentCache:
    """`entries` [L, blocks + 1, BLOCK, X]: of each token its latent, then its rotary key.

    The last block, number `spare`, belongs to nobody: tables are filled up with it, and padding is written there.
    """

    def __init__(
        self, config: ModelConfig, blocks: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        self.latent_width = config.kv_lora_rank
        shape = (config.num_hidden_layers, blocks + 1, BLOCK, config.kv_lora_rank + config.qk_rope_head_dim)
        # Zeros, not garbage: a masked key still meets its weight 0, and 0 * NaN is NaN.
        self.entries = torch.zeros(shape, dtype=dtype, device=device)
        self.blocks = self.spare = blocks

    @property
    def bytes(self) -> int:
        """Memory of the cached values."""
        return self.entries.numel() * self.entries.element_size()

    def tables(self, tables: "list[list[int]]", tokens: int) -> Tensor:
        """Lists of blocks as one tensor, int64 [B, P], filled up with the spare block to hold `tokens` tokens."""
        width = max(-(-tokens // BLOCK), *map(len, tables))
        filled = [[*table, *[self.spare] * (width - len(table))] for table in tables]
        return torch.tensor(filled, dtype=torch.int64, device=self.entries.device)

    def window(self, tables_BP: Tensor, start_B: Tensor, tokens: int) -> "CacheWindow":
        """What a pass of `tokens` new tokens a row may write and read; row b holds `start_B[b]` tokens before it.

        A row with fewer new tokens is padded on the right: its padding is written behind its end, where the next
        tokens overwrite it before anything attends to it, or into the spare block.
        """
        longest = int(start_B.max())  # the one point of a pass where the device is waited for
        assert longest + tokens <= tables_BP.shape[1] * BLOCK, "the tables are too short for the new tokens"
        positions_BT = start_B[:, None] + torch.arange(tokens, device=start_B.device)
        return CacheWindow(self, tables_BP, positions_BT, longest)

    def copy(self, source: int, target: int) -> None:
        """Copy a block, in every layer."""
        self.entries[:, target] = self.entries[:, source]


def block_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Memory of one block in all layers."""
    width = config.kv_lora_rank + config.qk_rope_head_dim
    return config.num_hidden_layers * BLOCK * width * dtype.itemsize


@dataclass(frozen=True, slots=True)
class CacheWindow:
    """One forward pass's view of the cache; the same for every layer."""

    cache: LatentCache
    tables_BP: Tensor
    positions_BT: Tensor
    longest_before: int  # tokens in the fullest of the rows

    @property
    def is_fresh(self) -> bool:
        """No row holds anything yet: the new tokens are all there is to attend to."""
        return self.longest_before == 0

    @property
    def is_single(self) -> bool:
        """One row, on a CPU: its new tokens see all that stands before them, so that no mask is needed."""
        return len(self.positions_BT) == 1 and self.positions_BT.device.type == "cpu"

    @property
    def readable(self) -> int:
        """S: key positions that any of the new tokens can attend to."""
        return self.longest_before + self.positions_BT.shape[1]

    def visible_BTS(self) -> Tensor:
        """True where a key position is not after the token's own."""
        key_S = torch.arange(self.readable, device=self.positions_BT.device)
        return key_S <= self.positions_BT[..., None]

    def write(self, layer: int, latent_BTC: Tensor, key_rope_BTR: Tensor) -> None:
        """Put the new tokens at their positions."""
        block_BT = self.tables_BP.gather(1, self.positions_BT // BLOCK)
        new_BTX = torch.cat((latent_BTC, key_rope_BTR), dim=-1)
        self.cache.entries[layer, block_BT, self.positions_BT % BLOCK] = new_BTX.to(self.cache.entries.dtype)

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """Latents [B, S, C] and rotary keys [B, S, R] of the rows, up to the longest needed length."""
        needed_BP = self.tables_BP[:, : -(-self.readable // BLOCK)]
        rows_BSX = self.cache.entries[layer].index_select(0, needed_BP.flatten()).view(len(needed_BP), -1, self.width)
        latent_BSC, key_rope_BSR = rows_BSX[:, : self.readable].tensor_split([self.cache.latent_width], dim=-1)
        return latent_BSC, key_rope_BSR

    @property
    def width(self) -> int:
        """X: values of a token in a layer."""
        return self.cache.entries.shape[-1]
