"""4 and 8 bits: the numbers are llama.cpp's, products are those of the plain matrix, and so is the whole model."""

from collections.abc import Callable
from typing import Any

import gguf
import pytest
import torch
from torch.nn import functional as F

from codeweft.base.errors import ModelError
from codeweft.model import quantize as module
from codeweft.model.config import ModelConfig
from codeweft.model.folder import disk_tensors, empty_model
from codeweft.model.kernels import products
from codeweft.model.moe import Experts
from codeweft.model.quantize import (
    Quantization,
    QuantizedExperts,
    QuantizedLinear,
    dequantize,
    multiply,
    quantize,
    quantize_structure,
    quantized_parts,
)
from codeweft.model.quantized_folder import disk_name, structure, units
from codeweft.model.transformer import Transformer

KINDS = {4: gguf.GGMLQuantizationType.Q4_0, 8: gguf.GGMLQuantizationType.Q8_0}
WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "v_head_dim": 16}
SHAPES: dict[str, dict[str, Any]] = {
    "lite_like": WIDE,
    "compressed_queries": {**WIDE, "q_lora_rank": 32},
    "groups": {**WIDE, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2},
    "tied_head": {**WIDE, "tie_word_embeddings": True},
    "experts_of_other_width": {**WIDE, "moe_intermediate_size": 24},
    "no_matrix_fits": {"hidden_size": 36},
    "dense": {**WIDE, "first_k_dense_replace": 3},
}


@pytest.fixture
def torch_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products by torch alone, in float32."""
    monkeypatch.setattr(products, "available", lambda: False)
    monkeypatch.setattr(module, "product_type", lambda device: torch.float32)


def matrix(rows: int = 24, columns: int = 160) -> torch.Tensor:
    """Ordinary values, and all that is special: zeros, equal magnitudes of both signs, halves, tiny ones."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))
    weight[0] = 0
    weight[1] = torch.tensor([2.0, -2.0]).repeat(columns // 2)
    weight[2] = torch.tensor([-2.0, 2.0]).repeat(columns // 2)
    weight[3] = torch.arange(columns) % 32 - 15.5
    weight[4, ::32], weight[4, 1::32] = 127.0, 0.5
    weight[5] *= 1e-7
    return weight


def as_blocks(packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """As llama.cpp lays a row out: of each group its scale, then its integers."""
    bytes_of_groups = packed.view(torch.uint8).unflatten(-1, (scale.shape[-1], -1))
    return torch.cat((scale[..., None].view(torch.uint8), bytes_of_groups), dim=-1).flatten(-2)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_values_and_scales_are_bit_for_bit_those_of_the_gguf_package(bits: int, dtype: torch.dtype):
    weight = matrix().to(dtype)
    theirs = gguf.quantize(weight.float().numpy(), KINDS[bits])
    assert torch.equal(as_blocks(*quantize(weight, bits)), torch.from_numpy(theirs))


@pytest.mark.parametrize("bits", [4, 8])
def test_plain_values_are_those_of_the_gguf_package(bits: int):
    packed, scale = quantize(matrix(), bits)
    theirs = gguf.dequantize(as_blocks(packed, scale).numpy(), KINDS[bits])
    assert torch.equal(dequantize(packed, scale, bits, torch.float32), torch.from_numpy(theirs))


def test_a_stack_is_quantised_matrix_by_matrix():
    stack = torch.stack([matrix(), 3 * matrix()])
    packed, scale = quantize(stack, 4)
    assert torch.equal(packed[1], quantize(stack[1], 4)[0])
    assert torch.equal(scale[1], quantize(stack[1], 4)[1])


@pytest.mark.parametrize("bits", [4, 8])
def test_no_value_moves_by_more_than_a_step(bits: int):
    """Half a step at 8 bits; a whole one at 4, where the largest of the other sign is cut off at 7."""
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    packed, scale = quantize(weight, bits)
    step = scale.float().abs().repeat_interleave(32, dim=-1)
    moved = (dequantize(packed, scale, bits, torch.float32) - weight).abs() / step
    assert moved.max() < (0.57 if bits == 8 else 1.02)  # the scale itself was rounded to float16


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("count", [1, 5, 200])
def test_a_product_in_pieces_is_the_product(
    bits: int, count: int, torch_product: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "PIECE", 7 * 160 * 4)  # seven rows: the last piece is a short one
    packed, scale = quantize(matrix(), bits)
    x = torch.randn(count, 160, generator=torch.Generator().manual_seed(4))
    expected = F.linear(x, dequantize(packed, scale, bits, torch.float32))
    torch.testing.assert_close(multiply(x, packed, scale, bits), expected, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("count", [1, 3, 200])
def test_the_native_product_is_torchs_to_the_rounding_of_its_vectors(bits: int, count: int):
    """Vectors are taken in 8 bits (few) or bfloat16 (many): an error of a hundredth of what the sum is made of."""
    if not products.available():
        pytest.skip("toolchain: no C++ compiler")
    packed, scale = quantize(torch.randn(48, 320, generator=torch.Generator().manual_seed(5)), bits)
    x = torch.randn(count, 320, generator=torch.Generator().manual_seed(6))
    expected = F.linear(x, dequantize(packed, scale, bits, torch.float32))
    error = (multiply(x, packed, scale, bits) - expected).square().mean().sqrt()
    assert error < 0.012 * expected.std()
    assert multiply(x.bfloat16(), packed, scale, bits).dtype == torch.bfloat16


def quantised_and_dequantised(model: Transformer, how: Quantization) -> tuple[Transformer, Transformer]:
    """The quantised model, and a plain one whose weights are what the quantised ones stand for."""
    published = dict(disk_tensors(model))
    small = structure(model.config, how)
    names = {disk_name(name): name for name in small.state_dict()}
    state = {}
    for unit in units(small):
        values = torch.cat(
            [piece.contiguous().view(torch.uint8).flatten() for piece in unit.pieces(published.__getitem__)]
        )
        for name, planned in unit.tensors.items():
            mine, values = values.tensor_split([planned.bytes])
            state[names[name]] = mine.clone().view(planned.dtype).view(planned.shape)
    small.load_state_dict(state, assign=True, strict=False)
    if model.config.tie_word_embeddings:
        small.lm_head.weight = small.model.embed_tokens.weight
    plain = empty_model(model.config, torch.bfloat16)
    for name, tensor in small.state_dict().items():
        if not name.endswith(("packed", "scale")):
            plain.get_parameter(name).data.copy_(tensor)
    plain.float(), small.float()  # packed integers stay, scales become float32
    for name, part in quantized_parts(small):
        if isinstance(part, QuantizedLinear):
            plain.get_parameter(f"{name}.weight").data.copy_(
                dequantize(part.packed, part.scale, part.bits, torch.float32)
            )
        else:
            assert isinstance(part, QuantizedExperts)
            for kind in ("gate_up", "down"):
                values = (getattr(part, f"{kind}_packed"), getattr(part, f"{kind}_scale"))
                plain.get_parameter(f"{name}.{kind}_proj").data.copy_(dequantize(*values, part.bits, torch.float32))
    return small, plain


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_model_computes_what_the_plain_model_of_the_same_values_computes(
    shape: str, bits: int, small: Callable, random_model: Callable, torch_product: None
):
    model = random_model(small(**SHAPES[shape]))
    quantised, plain = quantised_and_dequantised(model, Quantization(bits, 8))
    tokens = torch.randint(0, model.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = plain(tokens).logits_BTW
        torch.testing.assert_close(quantised(tokens).logits_BTW, expected, atol=2e-4, rtol=0)
    assert expected.std() > 0.1
    # with gradients wanted of others, the fused training kernels must not look for weights that are not there
    torch.testing.assert_close(quantised(tokens).logits_BTW, expected, atol=2e-4, rtol=0)


def test_what_is_quantised_is_every_matrix_but_router_embedding_and_the_absorbed_one(small: Callable):
    config: ModelConfig = small(**SHAPES["compressed_queries"])
    model = structure(config, Quantization(4, 8))
    names = {name for name, _ in quantized_parts(model)}
    attention = {f"self_attn.{name}" for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj")}
    dense = {f"mlp.{name}_proj" for name in ("gate", "up", "down")}
    shared = {f"mlp.shared_experts.{name}_proj" for name in ("gate", "up", "down")} | {"mlp.experts"}
    expected = {f"model.layers.{layer}.{name}" for layer in range(3) for name in attention}
    expected |= {f"model.layers.0.{name}" for name in dense}
    expected |= {f"model.layers.{layer}.{name}" for layer in (1, 2) for name in shared}
    assert names == expected | {"lm_head"}
    assert model.get_submodule("lm_head").bits == 8
    left = {name for name, _ in model.named_parameters() if "norm" not in name}
    assert left == {"model.embed_tokens.weight"} | {
        f"model.layers.{layer}.{name}" for layer in range(3) for name in ("self_attn.kv_b_proj.weight",)
    } | {f"model.layers.{layer}.mlp.gate.weight" for layer in (1, 2)}  # fmt: skip


def test_a_structure_has_no_memory_and_no_gradient():
    """The 236B model in a blink."""
    config = ModelConfig(hidden_size=5120, num_hidden_layers=60, n_routed_experts=160, moe_intermediate_size=1536)
    model = structure(config, Quantization())
    assert all(each.is_meta for each in model.state_dict().values())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_experts_whose_rows_are_no_whole_groups_stay_plain(small: Callable):
    model = structure(small(**SHAPES["experts_of_other_width"]), Quantization())
    assert isinstance(model.model.layers[1].mlp.experts, Experts)


def test_a_head_of_16_bits_stays_plain(small: Callable):
    model = quantize_structure(empty_model(small(**WIDE), torch.bfloat16, "meta"), Quantization(4, 16))
    assert model.lm_head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"bits": 3, "head_bits": 4, "group": 32}, "bits is 3"),
        ({"bits": 4, "head_bits": 2, "group": 32}, "head_bits is 2"),
        ({"bits": 4, "head_bits": 4, "group": 64}, "group is 64"),
        ({"bits": 4}, "quantization is damaged"),
        (7, "quantization is damaged"),
    ],
)
def test_a_configuration_that_cannot_be_is_told(section: Any, words: str, small: Callable):
    content = small().to_json() | {"codeweft": {"quantization": section}}
    with pytest.raises(ModelError, match=words):
        Quantization.of(ModelConfig.from_json(content))
