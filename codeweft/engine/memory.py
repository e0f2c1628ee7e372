"""How many tokens a stated amount of memory holds, beside the weights and what a pass needs while it runs.

In:  a model, a budget in bytes, the longest pass.  Out: blocks for the cache, or what is missing in words.

Unusual: everything is taken at the start. A request that would not fit is refused when it is submitted, never met by
an allocation that fails in the middle of a text.
"""

from dataclasses import dataclass

import torch

from codeweft.base.errors import UserError
from codeweft.base.sizes import shown
from codeweft.model.attention import PART
from codeweft.model.cache import BLOCK, block_bytes
from codeweft.model.config import ModelConfig
from codeweft.model.transformer import Transformer

PROGRAM = 400 << 20  # bytes of the interpreter with torch, tokenizer and buffers of the threads
PIECE = 256 << 20  # bytes of weights that are dequantised at once, at most
SMALLEST = 256  # tokens; an engine that holds fewer is of no use


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the memory goes, in bytes, and what the cache holds."""

    weights: int
    working: int
    blocks: int
    block_bytes: int

    @property
    def tokens(self) -> int:
        """Tokens that the cache holds, of all requests together; also the longest request."""
        return self.blocks * BLOCK

    @property
    def total(self) -> int:
        """All of it."""
        return PROGRAM + self.weights + self.working + (self.blocks + 1) * self.block_bytes


def weight_bytes(model: Transformer) -> int:
    """Memory of all weights, mapped ones included."""
    seen = {each.data_ptr(): each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers())}
    return sum(seen.values())


def working_bytes(config: ModelConfig, dtype: torch.dtype, prompt_tokens: int, rows: int) -> int:
    """What a pass over `prompt_tokens` tokens needs at its widest point, from above.

    The widest of: the feed-forward layers' inner values, the expanded keys and values of attention; and the logits
    of all rows, with what sampling makes of them.
    """
    size = dtype.itemsize
    experts = (config.num_experts_per_tok or 0) + (config.n_shared_experts or 0)
    inner = max(config.intermediate_size, experts * (3 * config.moe_intermediate_size + 2 * config.hidden_size))
    forward = prompt_tokens * (inner + 6 * config.hidden_size) * size
    heads, width = config.num_attention_heads, max(config.qk_head_dim, config.v_head_dim)
    keys = PART + prompt_tokens
    attention = heads * (keys * (3 * width + config.v_head_dim) + 6 * prompt_tokens * width) * size
    logits = rows * config.vocab_size * (2 * 4 + 3 * 8)
    return max(forward, attention) + logits + PIECE


def plan(model: Transformer, budget: int, dtype: torch.dtype, prompt_tokens: int, rows: int) -> Plan:
    """Divide `budget` bytes; UserError saying what it takes where it is too small."""
    config, weights = model.config, weight_bytes(model)
    working, each = working_bytes(config, dtype, prompt_tokens, rows), block_bytes(config, dtype)
    least = Plan(weights, working, min(SMALLEST, config.max_position_embeddings) // BLOCK, each)
    blocks = (budget - PROGRAM - weights - working) // each - 1
    if blocks < least.blocks:
        raise UserError(
            f"{shown(budget)} do not hold this model: its weights take {shown(weights)}, a pass {shown(working)}.",
            f"Give at least {shown(least.total + (1 << 20))}, or a model quantised to fewer bits.",
        )
    return Plan(weights, working, min(blocks, rows * -(-config.max_position_embeddings // BLOCK)), each)
