"""GRPO's formulas against the papers written out, numbers worked by hand, and what must hold for any input."""

import math
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from codeweft.rl.config import ObjectiveConfig
from codeweft.rl.grpo import (
    clipped_surrogate,
    combined_reward,
    entropy,
    gradient_coefficients,
    group_advantages,
    importance_ratios,
    is_clipped,
    kl_estimate,
    policy_loss,
    process_advantages,
    silent_groups,
    token_logprobs,
    token_weights,
)

NAN = float("nan")
EXACT = ObjectiveConfig(std_epsilon=0.0)
LENGTHS = (5, 2, 7, 1)
FORMS: dict[str, dict[str, Any]] = {
    "DeepSeekMath": {},
    "DeepSeek-V2": {"level": "sequence"},
    "GSPO": {"level": "sequence-mean"},
    "DAPO": {"average": "token", "clip_high": 0.28},
    "Dr. GRPO": {"average": "length", "longest": 16, "beta": 0.0},
    "k1": {"kl_estimator": "k1"},
    "k2": {"kl_estimator": "k2"},
}


# --- advantages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correction", [0, 1])
def test_an_advantage_is_the_distance_from_the_mean_in_standard_deviations(correction: Any):
    rewards = [[1.0, 0.0, 0.5, 0.25], [-3.0, 2.0, 2.0, 7.0]]
    got = group_advantages(torch.tensor(rewards), ObjectiveConfig(std_epsilon=0.0, std_correction=correction))
    for row, group in zip(got.tolist(), rewards, strict=True):
        deviation = statistics.stdev(group) if correction else statistics.pstdev(group)
        assert row == pytest.approx([(r - statistics.mean(group)) / deviation for r in group])
    assert got.dtype == torch.float32


def test_small_differences_of_large_rewards_keep_their_digits():
    rewards = [4096.0, 4096.0 + 1 / 1024, 4096.0 + 1 / 512, 4096.0 + 1 / 1024, 4096.0]  # exact in float32
    expected = [(r - statistics.mean(rewards)) / statistics.stdev(rewards) for r in rewards]
    assert group_advantages(torch.tensor([rewards]), EXACT)[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_epsilon_is_added_to_the_deviation_and_may_be_left_out_with_it():
    reward = torch.tensor([[0.0, 2.0]])  # mean 1, deviation sqrt 2
    assert group_advantages(reward, ObjectiveConfig(std_epsilon=1.0))[0, 1] == pytest.approx(1 / (1 + math.sqrt(2)))
    assert group_advantages(reward, ObjectiveConfig(normalise_std=False)).tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7.7, 1e30])
@pytest.mark.parametrize("size", [1, 3, 7, 64])
def test_a_group_of_equal_rewards_or_of_one_teaches_nothing(value: float, size: int):
    """Rounding of the mean would leave advantages of about 1 if it were divided by its own size."""
    assert group_advantages(torch.full((2, size), value), EXACT).tolist() == [[0.0] * size] * 2
    assert silent_groups(torch.full((2, size), value)).all()


def test_answers_without_a_reward_are_left_out_of_their_group():
    got = group_advantages(torch.tensor([[1.0, NAN, 0.0, NAN], [NAN, 2.0, NAN, NAN], [NAN] * 4]), EXACT)
    half = math.sqrt(0.5)
    assert got[0].tolist() == pytest.approx([half, 0.0, -half, 0.0])
    assert got[1:].tolist() == [[0.0] * 4] * 2


def test_an_infinite_reward_is_refused():
    with pytest.raises(AssertionError, match="infinite"):
        group_advantages(torch.tensor([[1.0, math.inf]]), EXACT)


rewards_of_a_group = st.lists(st.integers(-1000, 1000).map(lambda n: n / 8), min_size=2, max_size=12)


@given(rewards_of_a_group, st.integers(-500, 500), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_shifting_or_stretching_all_rewards_of_a_group_changes_nothing(group: list[float], shift: int, factor: int):
    reward = torch.tensor([group], dtype=torch.float64)
    advantage = group_advantages(reward, EXACT)
    torch.testing.assert_close(group_advantages(reward * factor + shift, EXACT), advantage, atol=1e-9, rtol=0)
    assert float(advantage.sum()) == pytest.approx(0, abs=1e-9)
    assert bool(silent_groups(reward)) == (len(set(group)) == 1)


def test_a_steps_reward_reaches_its_tokens_and_all_before():
    """Two answers of two and one steps; the three rewards 1, 0, 2 have mean 1 and deviation 1: 0, -1, 1."""
    reward = torch.tensor([[[1.0, 0.0], [2.0, NAN]]])
    end = torch.tensor([[[1, 3], [2, 0]]])
    got = process_advantages(reward, end, 5, EXACT)
    assert got.tolist() == [[[-1.0, -1.0, -1.0, -1.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]]]


def test_process_supervision_with_one_step_an_answer_is_outcome_supervision():
    reward = torch.randn(3, 4)
    end = torch.full((3, 4, 1), 6)
    outcome = group_advantages(reward, ObjectiveConfig())
    got = process_advantages(reward[..., None], end, 7, ObjectiveConfig())
    assert torch.equal(got, outcome[..., None].expand(3, 4, 7))


def test_rewards_of_several_kinds_are_summed_with_their_factors():
    got = combined_reward(torch.tensor([[1.0, 2.0], [10.0, 20.0], [0.0, 1.0]]), torch.tensor([2.0, 0.5, -1.0]))
    assert got.tolist() == [7.0, 13.0]


# --- log-probabilities -----------------------------------------------------------------------------------------------


def test_logprobs_and_entropy_are_those_of_torchs_categorical_distribution():
    logits, tokens = torch.randn(2, 5, 11) * 3, torch.randint(0, 11, (2, 5))
    reference = torch.distributions.Categorical(logits=logits / 0.7)
    torch.testing.assert_close(token_logprobs(logits, tokens, 0.7), reference.log_prob(tokens))
    torch.testing.assert_close(entropy(logits, 0.7), reference.entropy())


def test_excluded_tokens_add_nothing_to_the_entropy():
    assert float(entropy(torch.tensor([[[0.0, 0.0, -math.inf]]]))) == pytest.approx(math.log(2))


# --- the objective ---------------------------------------------------------------------------------------------------


def batch(seed: int = 0, spread: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities under policy, sampling policy and reference; advantages [N, 1]; a mask of answers' lengths."""
    random = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    old = -torch.rand(shape, generator=random, dtype=torch.float64) * 3
    policy = old + spread * torch.randn(shape, generator=random, dtype=torch.float64)
    reference = old + spread * torch.randn(shape, generator=random, dtype=torch.float64)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return policy, old, reference, torch.randn(len(LENGTHS), 1, generator=random, dtype=torch.float64), mask


def literal_objective(
    policy: Tensor, old: Tensor, reference: Tensor, advantage: Tensor, config: ObjectiveConfig
) -> Any:
    """The objectives as sums over answers and tokens, a number at a time, from the papers' text."""

    def divergence(p: Tensor, r: Tensor) -> Tensor:
        quotient = torch.exp(r) / torch.exp(p)
        return {
            "k1": -torch.log(quotient),
            "k2": torch.log(quotient) ** 2 / 2,
            "k3": quotient - torch.log(quotient) - 1,
        }[config.kl_estimator]

    def gain(ratio: Tensor, a: Tensor) -> Tensor:
        low, high = 1 - config.clip, 1 + (config.clip_high or config.clip)
        clipped = low if ratio.item() < low else high if ratio.item() > high else ratio
        return ratio * a if (ratio * a).item() <= float(torch.as_tensor(clipped * a).detach()) else clipped * a

    total: Any = 0.0
    for i, length in enumerate(LENGTHS):
        p, o, r, a = policy[i, :length], old[i, :length], reference[i, :length], advantage[i, 0]
        if config.level == "sequence":
            whole = torch.exp(p.sum()) / torch.exp(o.sum())
            total = total + (gain(whole, a) - config.beta * divergence(p.sum(), r.sum())) / len(LENGTHS)
            continue
        for t in range(length):
            ratio = torch.exp(p[t]) / torch.exp(o[t])
            if config.level == "sequence-mean":
                ratio = (torch.exp(p.sum()) / torch.exp(o.sum())) ** (1 / length)
            term = gain(ratio, a) - config.beta * divergence(p[t], r[t])
            share = {"answer": len(LENGTHS) * length, "token": sum(LENGTHS), "length": len(LENGTHS) * config.longest}
            total = total + term / share[config.average]
    return total


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_equal_the_papers_written_out(form: str, seed: int):
    policy, old, reference, advantage, mask = batch(seed)
    config = ObjectiveConfig(**FORMS[form])
    ours, literal = policy.clone().requires_grad_(), policy.clone().requires_grad_()
    loss = policy_loss(ours, old, reference, advantage, token_weights(mask, config).double(), config)
    loss.total.backward()
    expected = -literal_objective(literal, old, reference, advantage, config)
    expected.backward()
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-6)  # the weights are float32
    torch.testing.assert_close(ours.grad, literal.grad, rtol=1e-6, atol=1e-9)
    assert ours.grad is not None
    assert not ours.grad[~mask].any()


@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_finite_differences(form: str):
    policy, old, reference, advantage, mask = batch(spread=0.05)  # no ratio is at an edge of the range
    config = ObjectiveConfig(**FORMS[form])
    weights = token_weights(mask, config).double()
    torch.autograd.gradcheck(
        lambda p: policy_loss(p, old, reference, advantage, weights, config).total, policy.requires_grad_()
    )


@pytest.mark.parametrize("form", FORMS)
def test_portions_of_a_step_add_up_to_the_step(form: str):
    policy, old, reference, advantage, mask = batch()
    config = ObjectiveConfig(**FORMS[form])
    weights = token_weights(mask, config)
    whole = policy_loss(policy, old, reference, advantage, weights, config)
    parts = [policy_loss(policy[i], old[i], reference[i], advantage[i], weights[i], config) for i in ([0], [1, 2], [3])]
    for name in ("total", "surrogate", "kl", "clipped", "tokens"):
        assert float(sum(getattr(part, name) for part in parts)) == pytest.approx(float(getattr(whole, name)))


def test_with_one_update_a_rollout_the_gradient_is_the_papers_coefficient():
    """The policy is the one that sampled: d loss / d log pi = -weight (A + beta (ref / pi - 1))."""
    policy, _, reference, advantage, mask = batch()
    config = ObjectiveConfig(beta=0.3)
    weights = token_weights(mask, config).double()
    leaf = policy.clone().requires_grad_()
    policy_loss(leaf, policy, reference, advantage, weights, config).total.backward()
    coefficient = gradient_coefficients(policy, reference, advantage, 0.3)
    torch.testing.assert_close(leaf.grad, -weights * coefficient)


def test_what_stands_at_masked_places_changes_neither_loss_nor_gradient():
    policy, old, reference, advantage, mask = batch()
    config = ObjectiveConfig()
    weights, results = token_weights(mask, config), []
    for rubbish in (0.0, NAN, -math.inf):
        given = [torch.where(mask, each, rubbish) for each in (policy, old, reference)]
        leaf = given[0].requires_grad_()
        loss = policy_loss(leaf, given[1], given[2], advantage, weights, config)
        loss.total.backward()
        results.append((loss.total.item(), loss.kl.item(), leaf.grad))
    assert results[0][:2] == results[1][:2] == results[2][:2]
    assert torch.equal(results[0][2], results[1][2])
    assert torch.equal(results[0][2], results[2][2])


def test_a_step_in_which_nothing_can_be_judged_has_no_loss_and_no_gradient():
    policy, old, reference, advantage, mask = batch()
    config = ObjectiveConfig()
    leaf = policy.requires_grad_()
    policy_loss(leaf, old, reference, advantage, token_weights(mask & False, config), config).total.backward()
    assert leaf.grad is not None
    assert not leaf.grad.any()


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("ratio", [0.5, 0.79, 0.81, 1.0, 1.27, 1.29, 2.0])
def test_the_clip_takes_the_gradient_outside_the_range_and_nowhere_else(advantage: float, ratio: float):
    config = ObjectiveConfig(clip=0.2, clip_high=0.28)
    leaf = torch.tensor([[ratio]], dtype=torch.float64, requires_grad=True)
    gain = clipped_surrogate(leaf, torch.tensor([[advantage]]), config)
    gain.backward()
    outside = ratio > 1.28 if advantage > 0 else ratio < 0.8
    assert float(leaf.grad) == (0.0 if outside else advantage)
    assert bool(is_clipped(leaf, torch.tensor([[advantage]]), config)) == outside
    assert float(gain.detach()) <= ratio * advantage  # a lower bound of the unclipped objective


def test_clipped_tokens_are_counted_without_the_masked_ones():
    old = torch.zeros(1, 4)
    policy = torch.tensor([[1.5, 1.1, 0.5, 3.0]]).log()
    config = ObjectiveConfig()
    weights = token_weights(torch.tensor([[True, True, True, False]]), config)
    loss = policy_loss(policy, old, old, torch.ones(1, 1), weights, config)
    assert (int(loss.clipped), int(loss.tokens)) == (1, 3)
    config = ObjectiveConfig(level="sequence-mean")  # one ratio above the range, which stands for three tokens
    loss = policy_loss(torch.ones(1, 4), old, old, torch.ones(1, 1), weights, config)
    assert (int(loss.clipped), int(loss.tokens)) == (3, 3)


def test_without_a_divergence_no_reference_is_needed():
    policy, old, reference, advantage, mask = batch()
    config = ObjectiveConfig(beta=0.0)
    weights = token_weights(mask, config)
    alone = policy_loss(policy, old, None, advantage, weights, config)
    beside = policy_loss(policy, old, reference, advantage, weights, config)
    assert torch.equal(alone.total, beside.total)
    assert float(alone.kl) == 0 < float(beside.kl)
    with pytest.raises(AssertionError, match="reference"):
        policy_loss(policy, old, None, advantage, weights, ObjectiveConfig())


def test_ratios_of_a_policy_with_itself_are_one_at_every_level():
    policy, _, _, _, mask = batch()
    for level, shape in (("token", policy.shape), ("sequence", (4, 1)), ("sequence-mean", (4, 1))):
        config: Any = ObjectiveConfig(level=level)  # ty: ignore[invalid-argument-type]
        assert torch.equal(importance_ratios(policy, policy, mask, config), torch.ones(shape, dtype=torch.float64))


# --- divergence ------------------------------------------------------------------------------------------------------


@given(st.floats(-20, 0), st.floats(-20, 0))
@settings(max_examples=200, deadline=None)
def test_the_papers_estimate_is_never_negative_and_zero_for_equal_policies_only(policy: float, reference: float):
    for dtype in (torch.float32, torch.float64):
        p, r = torch.tensor(policy, dtype=dtype), torch.tensor(reference, dtype=dtype)
        assert float(kl_estimate(p, r)) >= 0
        assert float(kl_estimate(p, p)) == 0
    if abs(policy - reference) > 1e-3:
        assert float(kl_estimate(p, r)) > 0


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_estimates_mean_over_the_policy_is_the_divergence(estimator: str):
    """Exactly, by summing over a whole distribution instead of sampling from it; k2's mean is another number."""
    policy, reference = torch.randn(2, 50, dtype=torch.float64).log_softmax(-1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=policy), torch.distributions.Categorical(logits=reference)
    )
    mean = (policy.exp() * kl_estimate(policy, reference, estimator)).sum()
    assert float(mean) == pytest.approx(float(expected))
    assert float((policy.exp() * kl_estimate(policy, reference, "k2")).sum()) != pytest.approx(float(expected))


def test_the_estimate_keeps_its_digits_where_the_policies_are_close():
    policy, reference = torch.tensor(-1.0), torch.tensor(-1.0 + 2.0**-12)
    assert float(kl_estimate(policy, reference)) == pytest.approx(2.0**-25, rel=1e-3)
    assert float((reference - policy).exp() - (reference - policy) - 1) != pytest.approx(2.0**-25, rel=1e-3)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"group": 0}, "group = 0"),
        ({"clip": 1.0}, "between 0 and 1"),
        ({"beta": -0.1}, "beta"),
        ({"beta": NAN}, "beta"),
        ({"level": "sequence", "average": "token"}, "one term an answer"),
        ({"level": "sequence", "supervision": "process"}, "advantage for every token"),
    ],
)
def test_combinations_that_no_formula_describes_are_refused(wrong: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        ObjectiveConfig(**wrong)
