"""Small random models for the tests of this room."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from codeweft.model.config import ModelConfig
from codeweft.model.kernels import fused, native
from codeweft.model.transformer import Transformer

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 56,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "kv_lora_rank": 20,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 10,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}


@pytest.fixture(scope="session")
def small() -> Callable[..., ModelConfig]:
    """A tiny configuration, with changes."""
    return lambda **changes: ModelConfig(**{**SMALL, **changes})


@pytest.fixture(scope="session")
def random_model() -> Callable[..., Transformer]:
    """A model with weights drawn by seed, wide enough that every part matters to the logits."""

    def build(config: ModelConfig, seed: int = 0, std: float = 0.2) -> Transformer:
        model = Transformer(config)
        generator = torch.Generator().manual_seed(seed)
        model.init_weights(std, generator)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.uniform_(0.5, 1.5, generator=generator)
        return model.eval()

    return build


@pytest.fixture(params=["torch alone", "kernels"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways that training goes on a processor: with torch's operations alone, and with the fused kernels."""
    if request.param == "torch alone":
        monkeypatch.setattr(fused, "applies", lambda x: False)
    elif not native.available():
        pytest.skip("toolchain: no C++ compiler")
    return request.param


@pytest.fixture
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients without the kernels."""
    monkeypatch.setattr(fused, "applies", lambda x: False)
