"""Model folders with random weights, of any size: to measure speed and memory where the published weights are not.

In:  a configuration, how it is quantised if at all, a seed.  Out: a model folder that loads like any other.
Source: DeepSeek-V2 §3.1.2 for the distribution: every matrix from N(0, std²), norms 1.
Unusual: written a matrix at a time, so the 236B model needs disk alone. Each tensor has a seed of its own, made from
its name: folders of one seed differ by what quantisation changes and by nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from codeweft.base.artifacts import digest_of
from codeweft.base.seeds import derive
from codeweft.model.config import ModelConfig, RopeScaling
from codeweft.model.folder import disk_tensors, empty_model
from codeweft.model.quantize import Quantization
from codeweft.model.quantized_folder import plain_unit, quantized_config, structure, units
from codeweft.model.streamed import write_folder
from codeweft.model.transformer import INIT_STD

# DeepSeek-Coder-V2-Lite and DeepSeek-Coder-V2 as published
LITE = ModelConfig(
    max_position_embeddings=163840,
    rope_scaling=RopeScaling(mscale=0.707, mscale_all_dim=0.707),
)
FULL = ModelConfig(
    hidden_size=5120,
    intermediate_size=12288,
    moe_intermediate_size=1536,
    num_hidden_layers=60,
    num_attention_heads=128,
    n_routed_experts=160,
    q_lora_rank=1536,
    topk_method="group_limited_greedy",
    n_group=8,
    topk_group=3,
    routed_scaling_factor=16.0,
    max_position_embeddings=163840,
    rope_scaling=RopeScaling(mscale=1.0, mscale_all_dim=1.0),
)
SHAPES = {"lite": LITE, "full": FULL}


def write_random(
    folder: Path, config: ModelConfig, how: Quantization | None, seed: int, std: float = INIT_STD,
    extras: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Write a folder of random weights; bfloat16 where `how` is None. Cut off, the same call goes on."""
    config = replace(config, torch_dtype="bfloat16")
    model = empty_model(config, torch.bfloat16, "meta")
    published = dict(disk_tensors(model))
    origin = {
        "random": {"seed": seed, "std": std, "config": digest_of(config.to_json())},
        "quantization": None if how is None else asdict(how),
    }
    parts = [plain_unit(name, tensor) for name, tensor in published.items()]
    if how is not None:
        parts, config = units(structure(config, how)), quantized_config(config, how)
    write_folder(folder, config, parts, _drawing(published, seed, std), origin, extras)


def _drawing(published: dict[str, Tensor], seed: int, std: float) -> Callable[[str], Tensor]:
    def read(name: str) -> Tensor:
        shape = published[name].shape
        if len(shape) == 1:
            return torch.ones(shape)
        generator = torch.Generator().manual_seed(derive(seed, "random weights", name))
        return torch.empty(shape).normal_(0.0, std, generator=generator)

    return read
