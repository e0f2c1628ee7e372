"""Native passes give what the layers of codeweft.model give, and a token's numbers are its own."""

import random
from collections.abc import Iterator
from typing import Any

import kernel_targets
import pytest
import torch
from torch import Tensor

from codeweft.engine.kernels.decoding import MOST_TOKENS, NativeDecoder, why_not
from codeweft.model.cache import BLOCK, LatentCache
from codeweft.model.config import ModelConfig, RopeScaling
from codeweft.model.kernels import native
from codeweft.model.quantize import (
    Quantization,
    QuantizedLinear,
    dequantize,
    quantize,
    quantize_structure,
    quantized_parts,
)
from codeweft.model.transformer import Transformer

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="toolchain: no C++ compiler")


@pytest.fixture(scope="module", params=kernel_targets.parameters(), autouse=True)
def target(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs with the kernels of each target."""
    yield from kernel_targets.built_for(request.param)


SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 70,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "kv_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 20,
    "max_position_embeddings": 2048,
}
YARN = RopeScaling(factor=4.0, original_max_position_embeddings=16, mscale=0.707, mscale_all_dim=0.707)
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "low_rank_queries_and_yarn": {"q_lora_rank": 9, "rope_scaling": YARN},
    "tied_head": {"tie_word_embeddings": True},
    "groups_of_experts": {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2},
    "normed_gates": {"norm_topk_prob": True, "routed_scaling_factor": 3.0},
    "no_shared_experts": {"n_shared_experts": None},
    "one_head": {"num_attention_heads": 1},
    "nine_heads_odd_widths": {"num_attention_heads": 9, "kv_lora_rank": 33, "v_head_dim": 7, "qk_nope_head_dim": 5},
    "only_dense": {"first_k_dense_replace": 3},
}
TABLES = torch.tensor([list(range(50)), [*range(50, 60), *[60] * 40]], dtype=torch.int32)
LENGTHS = (700, 150)  # the first crosses the place where keys are divided among threads


def make(dtype: torch.dtype = torch.float32, **changes: Any) -> Transformer:
    model = Transformer(ModelConfig(**SMALL | changes))
    model.init_weights(0.3, torch.Generator().manual_seed(1))
    return model.to(dtype).eval()


def decoder(model: Transformer, dtype: torch.dtype = torch.float32) -> NativeDecoder:
    assert why_not(model) is None
    return NativeDecoder(model, LatentCache(model.config, 60, dtype))


def int32(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def read_in_random_passes(native_decoder: NativeDecoder, tokens: Tensor, seed: int = 0) -> list[Tensor]:
    """Logits [T, W] of both texts, read in passes of 1 to 20 tokens of either or both."""
    chance, at = random.Random(seed), [0, 0]
    found: list[list[Tensor]] = [[], []]
    while at[0] < LENGTHS[0] or at[1] < LENGTHS[1]:
        ids, rows, places = [], [], []
        for row in (0, 1):
            count = min(chance.randint(0, 20), LENGTHS[row] - at[row])
            ids += tokens[row, at[row] : at[row] + count].tolist()
            rows += [row] * count
            places += range(at[row], at[row] + count)
            at[row] += count
        if ids:
            wanted = int32(list(range(len(ids))))
            logits = native_decoder.step(int32(ids), TABLES, int32(rows), int32(places), wanted)
            for row, line in zip(rows, logits, strict=True):
                found[row].append(line)
    return [torch.stack(lines) for lines in found]


def texts() -> Tensor:
    return torch.randint(0, 97, (2, LENGTHS[0]), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_logits_are_those_of_the_full_forward_pass(case: str):
    model, tokens = make(**CASES[case]), texts()
    full = model(tokens).logits_BTW
    for row, logits in enumerate(read_in_random_passes(decoder(model), tokens)):
        torch.testing.assert_close(logits, full[row, : LENGTHS[row]], atol=2e-3, rtol=1e-3)
        assert float((logits - full[row, : LENGTHS[row]]).abs().mean()) < 2e-5


@torch.inference_mode()
def test_bfloat16_weights_lose_nothing_more_than_they_have_lost():
    """Activations stay float32, so the numbers are those of a float32 model with the rounded weights."""
    model, tokens = make(torch.bfloat16), texts()
    logits = read_in_random_passes(decoder(model), tokens)
    full = model.float()(tokens).logits_BTW
    for row in (0, 1):
        torch.testing.assert_close(logits[row], full[row, : LENGTHS[row]], atol=2e-3, rtol=1e-3)


@torch.inference_mode()
def test_a_cache_in_bfloat16_is_close():
    model, tokens = make(), texts()
    exact, close = (
        read_in_random_passes(decoder(model, dtype), tokens)[1] for dtype in (torch.float32, torch.bfloat16)
    )
    assert float((exact - close).abs().median()) < 0.05
    assert not torch.equal(exact, close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_token_s_logits_are_the_same_bits_in_any_company(dtype: torch.dtype):
    model, tokens = make(dtype), texts()
    first, second = (read_in_random_passes(decoder(model, dtype), tokens, seed) for seed in (0, 1))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@torch.inference_mode()
def test_threads_change_no_bit():
    model, tokens, threads = make(), texts(), torch.get_num_threads()
    try:
        found = []
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(read_in_random_passes(decoder(model), tokens)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


@torch.inference_mode()
def test_a_pass_may_be_full_and_may_want_nothing():
    model, tokens = make(), texts()
    native_decoder = decoder(model)
    ids, rows = int32(tokens[0, :MOST_TOKENS].tolist()), int32([0] * MOST_TOKENS)
    places = int32(list(range(MOST_TOKENS)))
    assert native_decoder.step(ids, TABLES, rows, places, int32([])).shape == (0, 97)
    logits = native_decoder.step(ids[:1], TABLES, rows[:1], int32([MOST_TOKENS]), int32([0]))
    text = torch.cat((tokens[:1, :MOST_TOKENS], tokens[:1, :1]), dim=1)
    torch.testing.assert_close(logits[0], model(text).logits_BTW[0, -1], atol=2e-3, rtol=1e-3)
    assert BLOCK * TABLES.shape[1] > MOST_TOKENS


@torch.inference_mode()
def test_weights_changed_in_place_are_used_at_once_and_replaced_ones_after_a_refresh():
    model, tokens = make(), texts()[:, :1]
    native_decoder = decoder(model)

    def logits() -> Tensor:
        return native_decoder.step(int32([int(tokens[0, 0])]), TABLES, int32([0]), int32([0]), int32([0]))

    before = logits()
    model.lm_head.weight.mul_(2)
    torch.testing.assert_close(logits(), 2 * before)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight * 2, requires_grad=False)
    native_decoder.refresh()
    torch.testing.assert_close(logits(), 4 * before)


def test_without_kernels_the_reason_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "available", lambda *_: False)
    assert why_not(make()) == "it cannot be built here"
    assert why_not(make(torch.float16)) == "weights are torch.float16"
    with torch.device("meta"):
        assert why_not(Transformer(ModelConfig(**SMALL))) == "the model is on meta"


@pytest.mark.parametrize(("bits", "head_bits"), [(4, 4), (8, 8), (4, 16)])
@torch.inference_mode()
def test_quantised_weights_give_what_their_plain_values_give_but_for_the_rounding_of_vectors(bits: int, head_bits: int):
    """Both sides read the same quantised values; ours multiplies 8-bit vectors, the other side plain ones."""
    changes = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "v_head_dim": 16}
    model = make(torch.bfloat16, **changes)
    small = quantize_structure(make(torch.bfloat16, **changes), Quantization(bits, head_bits))
    for (name, part), plain in zip(quantized_parts(small), matching(model, small), strict=True):
        fill(part, plain)
        assert name
    tokens = texts()
    logits = read_in_random_passes(decoder(small), tokens)
    full = model.float()(tokens).logits_BTW
    for row in (0, 1):
        expected = full[row, : LENGTHS[row]]
        assert float((logits[row] - expected).abs().median()) < 0.1 * float(expected.std())
        assert float((logits[row].argmax(-1) == expected.argmax(-1)).float().mean()) > 0.8


def matching(model: Transformer, small: Transformer) -> list[Any]:
    """The plain module in the place of each quantised one."""
    return [model.get_submodule(name) for name, _ in quantized_parts(small)]


def fill(part: Any, plain: Any) -> None:
    """Quantise a plain module's weights into its place, and give it back their values."""
    names = {"": "weight"} if isinstance(part, QuantizedLinear) else {"gate_up_": "gate_up_proj", "down_": "down_proj"}
    for prefix, weight_name in names.items():
        weight = getattr(plain, weight_name)
        packed, scale = quantize(weight, part.bits)
        getattr(part, f"{prefix}packed").copy_(packed)
        getattr(part, f"{prefix}scale").copy_(scale)
        weight.copy_(dequantize(packed, scale, part.bits, torch.bfloat16))
