"""Routing and expert computation against slow, obvious loops."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeweft.model.moe import (
    MLP,
    Experts,
    MixtureOfExperts,
    choose_greedy,
    choose_group_limited,
    gate_values,
    grouped_mm_applies,
)


def fill(module: nn.Module, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return module


def slow_experts(experts: Experts, hidden: Tensor, chosen: Tensor, gate: Tensor) -> Tensor:
    """Token by token, expert by expert, in float64."""
    inner = experts.down_proj.shape[-1]
    rows = []
    for token, picks, weights in zip(hidden.double(), chosen, gate.double(), strict=True):
        total = torch.zeros_like(token)
        for pick, weight in zip(picks, weights, strict=True):
            both = experts.gate_up_proj[pick].double() @ token
            total = total + weight * (experts.down_proj[pick].double() @ (F.silu(both[:inner]) * both[inner:]))
        rows.append(total)
    return torch.stack(rows)


def test_greedy_choice_takes_the_likeliest_experts():
    scores = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    top, chosen = choose_greedy(scores, 2)
    assert sorted(chosen[0].tolist()) == [1, 3]
    torch.testing.assert_close(top, scores.gather(1, chosen))


def test_group_limited_choice_never_leaves_the_groups_with_the_best_expert():
    """Against a plain Python reading of DeepSeek-V2 §2.2.2, on 200 random rows."""
    scores = torch.randn(200, 12, generator=torch.Generator().manual_seed(0)).softmax(-1)
    _, chosen = choose_group_limited(scores, 3, groups=4, kept=2)
    for row, picks in zip(scores.tolist(), chosen.tolist(), strict=True):
        groups = sorted(range(4), key=lambda g: -max(row[3 * g : 3 * g + 3]))[:2]
        allowed = [expert for expert in range(12) if expert // 3 in groups]
        assert sorted(picks) == sorted(sorted(allowed, key=lambda e: -row[e])[:3])


def test_group_limited_choice_differs_from_the_greedy_one_where_the_best_are_scattered():
    scores = torch.tensor([[0.3, 0.01, 0.02, 0.24, 0.0, 0.0, 0.0, 0.2, 0.23]])
    assert sorted(choose_group_limited(scores, 3, groups=3, kept=1)[1][0].tolist()) == [0, 1, 2]
    assert sorted(choose_greedy(scores, 3)[1][0].tolist()) == [0, 3, 8]


def test_normed_gate_values_sum_to_one_and_ignore_the_scaling_factor(small: Callable):
    top = torch.tensor([[0.2, 0.3], [0.1, 0.1]])
    normed = gate_values(top, small(norm_topk_prob=True, routed_scaling_factor=16.0))
    torch.testing.assert_close(normed, torch.tensor([[0.4, 0.6], [0.5, 0.5]]))
    torch.testing.assert_close(gate_values(top, small(routed_scaling_factor=16.0)), top * 16)


@pytest.mark.parametrize("compute", ["compute_grouped", "compute_one_by_one"])
@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_experts_equal_a_token_by_token_loop_with_their_gradients(
    compute: str, tokens: int, small: Callable, monkeypatch: pytest.MonkeyPatch
):
    experts = fill(Experts(small()))
    monkeypatch.setattr("codeweft.model.moe.grouped_mm_applies", lambda _: compute == "compute_grouped")
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(tokens, 32, generator=generator, requires_grad=True)
    scores = torch.randn(tokens, 8, generator=generator)
    scores[:, 5] = -9  # one expert stays empty
    gate, chosen = scores.softmax(-1).topk(3)
    gate = gate.detach().requires_grad_()
    sources = (hidden, gate, *experts.parameters())
    results = []
    for output in (experts(hidden, chosen, gate), slow_experts(experts, hidden, chosen, gate)):
        weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        results.append((output, *torch.autograd.grad((output * weight).sum(), sources)))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast.double(), slow.double(), atol=1e-4, rtol=1e-4)


def test_grouped_product_is_left_alone_where_rows_are_no_whole_16_bytes(small: Callable):
    """The library refuses such bf16 strides; the loop gives the result instead."""
    assert grouped_mm_applies(Experts(small()).bfloat16())
    odd = fill(Experts(small(moe_intermediate_size=11)).bfloat16())
    assert not grouped_mm_applies(odd)
    hidden = torch.randn(9, 32, dtype=torch.bfloat16)
    gate, chosen = torch.rand(9, 8).softmax(-1).topk(3)
    expected = slow_experts(odd, hidden, chosen, gate)
    torch.testing.assert_close(odd(hidden, chosen, gate).double(), expected, atol=0.05, rtol=0.05)


def test_no_token_is_dropped_when_all_choose_the_same_expert(small: Callable):
    layer = fill(MixtureOfExperts(small(num_experts_per_tok=1, n_shared_experts=None)))
    with torch.no_grad():
        layer.gate.weight.zero_()
        layer.gate.weight[3] = 1.0
    hidden = torch.rand(1, 50, 32)
    output, routing = layer(hidden)
    assert (routing.chosen_BTK == 3).all()
    expected = slow_experts(layer.experts, hidden[0], routing.chosen_BTK[0], routing.scores_BTE[0, :, 3:4])
    torch.testing.assert_close(output[0].double(), expected, atol=1e-4, rtol=1e-4)


def test_shared_experts_are_added_for_every_token_ungated(small: Callable):
    layer = fill(MixtureOfExperts(small()))
    hidden = torch.randn(2, 7, 32)
    both = layer(hidden)[0]
    shared, layer.shared_experts = layer.shared_experts, None
    assert isinstance(shared, MLP)
    assert shared.gate_proj.weight.shape == (2 * 24, 32)
    torch.testing.assert_close(both, layer(hidden)[0] + shared(hidden))


def test_router_stays_in_fp32_inside_a_bfloat16_model(small: Callable):
    layer = fill(MixtureOfExperts(small())).bfloat16()
    hidden = torch.randn(1, 30, 32, dtype=torch.bfloat16)
    scores = layer(hidden)[1].scores_BTE
    assert scores.dtype == torch.float32
    exact = (hidden.double() @ layer.gate.weight.double().T).softmax(-1)
    torch.testing.assert_close(scores.double(), exact, atol=1e-6, rtol=1e-4)
