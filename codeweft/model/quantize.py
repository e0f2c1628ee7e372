"""Weights in 4 or 8 bits: the numbers, the modules that multiply by them, and which parts of a model they replace.

In:  matrices; or a Transformer without memory and a `Quantization`.  Out: packed integers and scales; the same model
with quantised parts.
Source: none in the papers; the value sets are exactly Q4_0 and Q8_0 of llama.cpp, so that an export repacks them.
Unusual: groups of 32 values along a row share one float16 scale, and there is no zero point. Router, norms, `kv_b_proj`
(which attention absorbs) and the embedding stay as they are, and so does a matrix whose rows are no whole groups.
With few vectors the C++ of kernels/products multiplies, which takes the vectors in 8 bits too; with many, or where it
cannot be built, the matrix is made plain a piece at a time and torch multiplies. Nothing here has a gradient.

Shapes: M vectors, N rows, K columns, G groups of a row, E experts, F expert hidden, D model, A assignments.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeweft.base.errors import ModelError
from codeweft.model.attention import Linear
from codeweft.model.config import ModelConfig
from codeweft.model.device import choose_precision
from codeweft.model.kernels import products
from codeweft.model.moe import MLP, MixtureOfExperts
from codeweft.model.transformer import Block, Transformer

GROUP = 32  # columns that share a scale
PLAIN = 16  # bits of what is left in bfloat16
ALMOST_HALF = torch.tensor(0.49999997)  # added before cutting off, it rounds halves away from zero and nothing else up
PACKED_TYPES = {4: torch.uint8, 8: torch.int8}
# Measured at 2816 x 2048 in processor time of one AVX-512 core, native against plain and bfloat16: at 4 bits 3.7 and
# 4.6 ms for 32 vectors, 5.8 and 6.4 for 64, 10.5 and 8.1 for 96; at 8 bits 2.0 and 2.4 for 16, 4.3 and 3.2 for 32.
FEW = {4: 64, 8: 24}  # vectors, by bits, up to which the native product is the quicker way
PIECE = 8 << 20  # bytes of a matrix that are plain at once; for larger ones memory is fetched anew each time
PROJECTIONS = ("q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj")


@dataclass(frozen=True, slots=True)
class Quantization:
    """What `config.json` says under `codeweft.quantization`."""

    bits: int = 4
    head_bits: int = 4  # of lm_head; 16 leaves it as it is
    group: int = GROUP

    def __post_init__(self) -> None:
        for name, value, known in (
            ("bits", self.bits, (4, 8)),
            ("head_bits", self.head_bits, (4, 8, PLAIN)),
            ("group", self.group, (GROUP,)),
        ):
            if value not in known:
                words = " or ".join(map(str, known))
                raise ModelError(f"codeweft.quantization.{name} is {value!r}.", f"It must be {words}.")

    @staticmethod
    def of(config: ModelConfig) -> "Quantization | None":
        """What a folder's config.json says; None for weights that are not quantised."""
        section = (json.loads(config.source or "{}").get("codeweft") or {}).get("quantization")
        if section is None:
            return None
        names = ("bits", "head_bits", "group")
        if not isinstance(section, dict) or sorted(section) != sorted(names):
            raise ModelError("config.json: codeweft.quantization is damaged.", f"It needs {', '.join(names)}.")
        return Quantization(**section)


def quantize(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Packed integers [..., K * bits / 8] and float16 scales [..., K / 32] of a matrix, or of a stack of them.

    4 bits: scale = (the value of greatest magnitude) / -8, values q - 8 with q in 0 to 15, element i of a group in the
    low half of byte i, element i + 16 in its high half. 8 bits: scale = (greatest magnitude) / 127, q in -127 to 127.

    >>> packed, scale = quantize(torch.tensor([[-8.0] + [7.0] * 31]), 4)
    >>> scale.item(), packed[0, 0].item(), packed[0, 1].item()
    (1.0, 240, 255)
    """
    groups = weight.float().unflatten(-1, (-1, GROUP))
    if bits == 4:
        at_most = groups.abs().argmax(dim=-1, keepdim=True)  # the first of equals, as llama.cpp takes it
        step = groups.gather(-1, at_most) / -8
    else:
        step = groups.abs().amax(dim=-1, keepdim=True) / 127
    scaled = groups * torch.where(step == 0, step, 1 / step)
    if bits == 4:
        low, high = scaled.add_(8.5).clamp_(max=15).to(torch.uint8).chunk(2, dim=-1)
        packed = low | high << 4
    else:
        packed = scaled.add_(torch.copysign(ALMOST_HALF, scaled)).to(torch.int8)
    return packed.flatten(-2), step.squeeze(-1).to(torch.float16)


def dequantize(packed: Tensor, scale: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """The plain matrix, or stack of them: scale times integer, rounded to `dtype`."""
    if bits == 4:
        pairs = packed.unflatten(-1, (-1, GROUP // 2))
        q = torch.cat((pairs & 15, pairs >> 4), dim=-1).float() - 8
    else:
        q = packed.unflatten(-1, (-1, GROUP)).float()
    return (q * scale.float()[..., None]).flatten(-2).to(dtype)


@cache
def product_type(device: torch.device) -> torch.dtype:
    """What many vectors are multiplied in: bfloat16 where the device has instructions for it."""
    return choose_precision("auto", device)


def multiply(x_MK: Tensor, packed: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Vectors times the transposed matrix, [M, N] in the type of x."""
    native = x_MK.device.type == "cpu" and products.available()
    if native and len(x_MK) <= FEW[bits]:
        return products.multiply(x_MK, packed, scale, bits).to(x_MK.dtype)
    dtype = product_type(x_MK.device)
    plain = products.dequantize if native else dequantize
    given_MK, rows = x_MK.to(dtype), max(PIECE // (x_MK.shape[-1] * dtype.itemsize), 1)
    parts = [
        F.linear(given_MK, plain(*part, bits, dtype)).to(x_MK.dtype)
        for part in zip(packed.split(rows), scale.split(rows), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


class QuantizedLinear(nn.Module):
    """A projection without bias: `packed` [N, K * bits / 8] and `scale` [N, K / 32]."""

    packed: Tensor
    scale: Tensor

    def __init__(self, inputs: int, outputs: int, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("packed", torch.empty(outputs, inputs * bits // 8, dtype=PACKED_TYPES[bits]))
        self.register_buffer("scale", torch.empty(outputs, inputs // GROUP, dtype=torch.float16))

    def forward(self, x: Tensor) -> Tensor:
        """Project the last axis."""
        y_MN = multiply(x.flatten(0, -2), self.packed, self.scale, self.bits)
        return y_MN.view(*x.shape[:-1], len(self.packed))  # not -1: there may be no vector


class QuantizedMLP(nn.Module):
    """SwiGLU with quantised projections; as `moe.MLP`, but it never trains."""

    def __init__(self, plain: MLP, bits: int) -> None:
        super().__init__()
        self.gate_proj = quantized(plain.gate_proj, bits)
        self.up_proj = quantized(plain.up_proj, bits)
        self.down_proj = quantized(plain.down_proj, bits)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Apply to the last axis."""
        return self.down_proj(F.silu(self.gate_proj(hidden_BTD)) * self.up_proj(hidden_BTD))


class QuantizedExperts(nn.Module):
    """All routed experts of a layer, stacked: gate rows first, then up rows, as in `moe.Experts`."""

    gate_up_packed: Tensor
    gate_up_scale: Tensor
    down_packed: Tensor
    down_scale: Tensor

    def __init__(self, experts: int, hidden: int, inner: int, bits: int) -> None:
        super().__init__()
        self.bits = bits
        for name, rows, columns in (("gate_up", 2 * inner, hidden), ("down", hidden, inner)):
            packed = torch.empty(experts, rows, columns * bits // 8, dtype=PACKED_TYPES[bits])
            self.register_buffer(f"{name}_packed", packed)
            self.register_buffer(f"{name}_scale", torch.empty(experts, rows, columns // GROUP, dtype=torch.float16))

    def forward(self, hidden_MD: Tensor, chosen_MK: Tensor, gate_MK: Tensor) -> Tensor:
        """Sum over the chosen experts of gate value times expert (DeepSeek-V2 eq. 20), every token to its experts."""
        flat_A = chosen_MK.flatten()
        order_A = flat_A.argsort(stable=True)
        counts = flat_A.bincount(minlength=len(self.gate_up_packed)).tolist()
        rows_AD = hidden_MD[order_A // chosen_MK.shape[1]]
        output_AD = torch.empty_like(rows_AD)
        begin = 0
        for expert, count in enumerate(counts):
            rows = slice(begin, begin + count)
            if count:
                output_AD[order_A[rows]] = self.compute(expert, rows_AD[rows])
            begin += count
        output_MKD = output_AD.unflatten(0, chosen_MK.shape)
        return (gate_MK.to(output_MKD.dtype)[:, None] @ output_MKD).squeeze(1)

    def compute(self, expert: int, rows_XD: Tensor) -> Tensor:
        """One expert's output for its rows."""
        gate_up = multiply(rows_XD, self.gate_up_packed[expert], self.gate_up_scale[expert], self.bits)
        gate, up = gate_up.chunk(2, dim=-1)
        return multiply(F.silu(gate) * up, self.down_packed[expert], self.down_scale[expert], self.bits)


def quantized(plain: Linear, bits: int) -> nn.Module:
    """The quantised projection of the same size, unfilled, on the same device; the plain one where rows do not fit."""
    if plain.in_features % GROUP or bits == PLAIN:
        return plain
    with plain.weight.device:
        return QuantizedLinear(plain.in_features, plain.out_features, bits)


def quantize_structure(model: Transformer, how: Quantization) -> Transformer:
    """Put unfilled quantised modules into a model, best one on the meta device; nothing of it has a gradient any more.

    A tied head stays plain: it is the embedding.
    """
    for block in model.model.layers:
        assert isinstance(block, Block)
        for name in PROJECTIONS:
            if hasattr(block.self_attn, name):
                block.self_attn.register_module(name, quantized(getattr(block.self_attn, name), how.bits))
        if isinstance(block.mlp, MLP):
            block.register_module("mlp", QuantizedMLP(block.mlp, how.bits))
        else:
            _quantize_mixture(block.mlp, model.config, how.bits)
    if not model.config.tie_word_embeddings:
        model.register_module("lm_head", quantized(model.lm_head, how.head_bits))
    return model.eval().requires_grad_(False)


def _quantize_mixture(mixture: MixtureOfExperts, config: ModelConfig, bits: int) -> None:
    if mixture.shared_experts is not None:
        mixture.register_module("shared_experts", QuantizedMLP(mixture.shared_experts, bits))
    experts, hidden, inner = config.n_routed_experts or 0, config.hidden_size, config.moe_intermediate_size
    if hidden % GROUP == 0 and inner % GROUP == 0:
        with mixture.gate.weight.device:
            mixture.register_module("experts", QuantizedExperts(experts, hidden, inner, bits))


def quantized_parts(model: Transformer) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a model that hold quantised weights, by name."""
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear | QuantizedExperts):
            yield name, module
