"""Rotary embedding on interleaved pairs, with YaRN's stretched frequencies.

In:  positions, and queries or keys whose last axis is the rotary part.  Out: the same, rotated by position.
Source: DeepSeek-V2 §2.1.3 (decoupled RoPE), §3.1.4 and DeepSeek-Coder-V2 §3.4 (YaRN).
Unusual: pairs are (0,1),(2,3),…, as the checkpoints store them, so cached keys differ by a permutation from
implementations that rotate halves. YaRN applies at every length, and its temperature acts on the softmax scale.

Shapes: B batch, T tokens, H heads, R rotary width, P rotary pairs (R/2).
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from codeweft.model.config import ModelConfig, RopeScaling


class Rotation(NamedTuple):
    """Cosine and sine of each token's angles, fp32."""

    cosine_BTP: Tensor
    sine_BTP: Tensor


def mscale(factor: float, weight: float) -> float:
    """YaRN's growth of the attention temperature: sqrt(t) = 0.1 * weight * ln(factor) + 1 (DeepSeek-V2 §3.1.4).

    >>> round(mscale(40, 0.707), 7), round(mscale(40, 1.0), 7), mscale(1, 1.0)
    (1.2608038, 1.3688879, 1.0)
    """
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def softmax_scale(config: ModelConfig) -> float:
    """What scores are multiplied by: 1/sqrt(d_h + d_h^R) (DeepSeek-V2 eq. 18), times YaRN's squared mscale (§3.1.4)."""
    scale = config.qk_head_dim**-0.5
    yarn = config.rope_scaling
    if yarn is not None and yarn.mscale_all_dim:
        scale *= mscale(yarn.factor, yarn.mscale_all_dim) ** 2
    return scale


def rotation_scale(yarn: RopeScaling | None) -> float:
    """What cosine and sine are multiplied by: 1 whenever mscale equals mscale_all_dim, as in every checkpoint."""
    return 1.0 if yarn is None else mscale(yarn.factor, yarn.mscale) / mscale(yarn.factor, yarn.mscale_all_dim)


def yarn_range(yarn: RopeScaling, width: int, theta: float) -> tuple[int, int]:
    """First and last pair of YaRN's ramp: faster pairs keep their frequency, slower ones are divided by the factor.

    >>> yarn_range(RopeScaling(), 64, 10000.0)
    (10, 23)
    """

    def pair_that_turns(times: float) -> float:
        window = yarn.original_max_position_embeddings
        return width * math.log(window / (times * 2 * math.pi)) / (2 * math.log(theta))

    return max(math.floor(pair_that_turns(yarn.beta_fast)), 0), min(
        math.ceil(pair_that_turns(yarn.beta_slow)), width - 1
    )


def frequencies(config: ModelConfig) -> Tensor:
    """Radians per position of each pair, fp32 [P]: theta^(-2i/R), interpolated by YaRN (DeepSeek-V2 §3.1.4)."""
    width, yarn = config.qk_rope_head_dim, config.rope_scaling
    plain_P = 1.0 / config.rope_theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    if yarn is None:
        return plain_P
    low, high = yarn_range(yarn, width, config.rope_theta)
    ramp_P = (torch.arange(width // 2, dtype=torch.float32) - low) / (high - low if high != low else 0.001)
    ramp_P = ramp_P.clamp(0, 1)
    return plain_P / yarn.factor * ramp_P + plain_P * (1 - ramp_P)


@lru_cache(maxsize=16)
def _frequencies_on(config: ModelConfig, device: torch.device) -> Tensor:
    """Kept outside the module: a buffer would be cast to bf16 together with the weights."""
    with torch.inference_mode(False), torch.device("cpu"):
        return frequencies(config).to(device)


def rotation(config: ModelConfig, positions_BT: Tensor) -> Rotation:
    """The angles of these positions; B may be 1 where all rows share them."""
    angle_BTP = positions_BT.float()[..., None] * _frequencies_on(config, positions_BT.device)
    scale = rotation_scale(config.rope_scaling)
    if scale == 1.0:
        return Rotation(angle_BTP.cos(), angle_BTP.sin())
    return Rotation(angle_BTP.cos() * scale, angle_BTP.sin() * scale)


def rotate_pairs(x_BTHR: Tensor, turn: Rotation) -> Tensor:
    """Rotate each pair (x[2i], x[2i+1]) by its token's angle (DeepSeek-V2 eq. 14, 15); fp32 inside.

    >>> quarter = Rotation(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    >>> rotate_pairs(torch.tensor([[[[1.0, 0.0]]]]), quarter).tolist()
    [[[[0.0, 1.0]]]]
    """
    cosine, sine = turn.cosine_BTP[:, :, None], turn.sine_BTP[:, :, None]
    even, odd = x_BTHR.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    return turned.flatten(-2).to(x_BTHR.dtype)
