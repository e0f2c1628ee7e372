"""The balance losses against loops written from the paper's sums."""

import pytest
import torch
from torch import Tensor

from codeweft.model.balance import communication_balance, device_balance, expert_balance, expert_load, mean_scores

Routing = tuple[Tensor, Tensor]
B, T, E, K, D, M = 3, 11, 12, 3, 4, 2


@pytest.fixture
def routing() -> Routing:
    scores = torch.randn(B, T, E, generator=torch.Generator().manual_seed(4), dtype=torch.float64).softmax(-1)
    return scores, scores.topk(K).indices


def slow_f(chosen: Tensor, i: int) -> float:
    return E / (K * T) * sum(i in picks for picks in chosen.tolist())


def slow_p(scores: Tensor, i: int) -> float:
    return sum(float(row[i]) for row in scores) / T


def test_load_and_mean_score_equal_equations_24_and_25(routing: Routing):
    scores, chosen = routing
    for b in range(B):
        assert expert_load(chosen, E)[b].tolist() == pytest.approx([slow_f(chosen[b], i) for i in range(E)])
        assert mean_scores(scores)[b].tolist() == pytest.approx([slow_p(scores[b], i) for i in range(E)])


def test_expert_balance_equals_equation_23(routing: Routing):
    scores, chosen = routing
    slow = [sum(slow_f(c, i) * slow_p(s, i) for i in range(E)) for s, c in zip(scores, chosen, strict=True)]
    assert float(expert_balance(scores, chosen)) == pytest.approx(sum(slow) / B)


def test_device_balance_equals_equations_26_to_28(routing: Routing):
    scores, chosen = routing
    slow = 0.0
    for s, c in zip(scores, chosen, strict=True):
        for device in range(D):
            members = range(device * E // D, (device + 1) * E // D)
            slow += sum(slow_f(c, j) for j in members) / len(members) * sum(slow_p(s, j) for j in members)
    assert float(device_balance(scores, chosen, D)) == pytest.approx(slow / B)


def test_communication_balance_equals_equations_29_to_31(routing: Routing):
    scores, chosen = routing
    slow = 0.0
    for s, c in zip(scores, chosen, strict=True):
        for device in range(D):
            members = range(device * E // D, (device + 1) * E // D)
            sent = sum(any(pick in members for pick in picks) for picks in c.tolist())
            slow += D / (M * T) * sent * sum(slow_p(s, j) for j in members)
    assert float(communication_balance(scores, chosen, D, M)) == pytest.approx(slow / B)


def test_descending_the_expert_loss_moves_probability_away_from_crowded_experts():
    logits = torch.zeros(1, 6, 4, requires_grad=True)
    chosen = torch.tensor([[[0], [0], [0], [0], [1], [2]]])
    expert_balance(logits.softmax(-1), chosen).backward()
    assert logits.grad is not None
    pull = logits.grad.sum(dim=(0, 1))
    assert pull[0] > 0 > pull[3]


def test_all_three_are_one_when_choices_and_scores_are_even():
    scores, chosen = torch.full((1, 12, 12), 1 / 12), torch.arange(12).view(1, 12, 1)
    for loss in (expert_balance(scores, chosen), device_balance(scores, chosen, 4)):
        assert float(loss) == pytest.approx(1)
    assert float(communication_balance(scores, chosen, 4, 1)) == pytest.approx(1)
