"""A small random model and a small learned tokenizer, as a model folder, for the tests of several rooms."""

import inspect
import json
from pathlib import Path
from typing import Any

import torch

from codeweft.engine import engine, request, stopping
from codeweft.model.config import ModelConfig
from codeweft.model.folder import save_folder
from codeweft.model.transformer import Transformer
from codeweft.tokenizer.load import FILES, Tokenizer, load_tokenizer
from codeweft.tokenizer.train import CONFIG, train

WINDOW = 192
# the smallest shape that still has a dense layer, experts and two heads
SMALLEST: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
}


def make_tokenizer(folder: Path, vocabulary: int = 420) -> Tokenizer:
    """Learn a vocabulary from our own sources, which hold few characters beyond ASCII: those stay split in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [inspect.getsource(module) for module in (engine, request, stopping)]
    train(iter(texts), vocabulary, longest_token=64).save(str(folder / FILES[0]))
    (folder / FILES[1]).write_text(json.dumps(CONFIG), encoding="utf-8")
    return load_tokenizer(folder)


def make_model(tokenizer: Tokenizer, **changes: Any) -> Transformer:
    """A model with one dense layer and two of experts, random enough that no two logits tie."""
    settings: dict[str, Any] = {
        "vocab_size": tokenizer.size + 12,  # padded, as published models are
        "hidden_size": 48,
        "intermediate_size": 64,
        "moe_intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "kv_lora_rank": 24,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "max_position_embeddings": WINDOW,
        "bos_token_id": tokenizer.begin,
        "eos_token_id": tokenizer.end,
        "fim_rate": 0.5,
    }
    model = Transformer(ModelConfig(**settings | changes))
    model.init_weights(std=0.3, generator=torch.Generator().manual_seed(7))
    return model.eval()


def make_folder(folder: Path, **changes: Any) -> Path:
    """A model folder in float32, tokenizer included."""
    tokenizer = make_tokenizer(folder)
    save_folder(make_model(tokenizer, **changes), folder, stage="pretrain", dtype=torch.float32)
    return folder
