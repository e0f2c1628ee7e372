"""The small configuration of several benchmarks, and a tokenizer with which all answers are as long.

In:  nothing.  Out: arguments of `ModelConfig`; a stand-in around a tokenizer.
"""

from typing import Any

VOCABULARY = 8192
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 1024, "moe_intermediate_size": 128,
    "num_hidden_layers": 6, "num_attention_heads": 4, "n_shared_experts": 2, "n_routed_experts": 16,
    "num_experts_per_tok": 4, "first_k_dense_replace": 1, "kv_lora_rank": 64, "q_lora_rank": None,
    "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "max_position_embeddings": 2048,
}  # fmt: skip


class Endless:
    """A tokenizer whose end token ends nothing: all sides draw as many tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.end = -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)
