"""Losses against their definitions, measures against scipy and slow counting, and which answers are ever compared."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from codeweft.base.records import Sample, Verdict
from codeweft.rl.config import PreferenceConfig
from codeweft.rl.preferences import (
    Judged,
    as_pairs,
    auc,
    calibration,
    length_scores,
    logprob_scores,
    pair_accuracy,
    pair_calibration,
    pairwise_loss,
    pointwise_loss,
    select_pairs,
)


def answer(text: str, passed: int, **changes: Any) -> Judged:
    """An answer that passed so many of four tests, a token a letter."""
    sample = Sample("p", "", 0, text, tuple(range(len(text))), -1.0, "stop")
    verdict = Verdict("ok" if passed == 4 else "wrong", passed, 4, 0.1, 1, "plain", "split")
    in_sample = {name: value for name, value in changes.items() if name in ("problem", "logprob")}
    in_verdict = {name: value for name, value in changes.items() if name not in in_sample}
    return Judged(replace(sample, **in_sample), replace(verdict, **in_verdict))


# --- losses ----------------------------------------------------------------------------------------------------------


def test_the_pairwise_loss_is_minus_the_log_of_the_chance_that_the_better_wins():
    chosen, rejected = torch.tensor([1.0, 0.0, -2.0]), torch.tensor([0.0, 0.0, 3.0])
    chances = [math.exp(c) / (math.exp(c) + math.exp(r)) for c, r in zip(chosen, rejected, strict=True)]
    assert float(pairwise_loss(chosen, rejected)) == pytest.approx(-sum(map(math.log, chances)) / 3)
    assert float(pairwise_loss(chosen + 5, rejected + 5)) == pytest.approx(float(pairwise_loss(chosen, rejected)))
    assert float(pairwise_loss(torch.zeros(4), torch.zeros(4))) == pytest.approx(math.log(2))


def test_centring_adds_the_mean_square_of_the_pairs_sums():
    chosen, rejected = torch.tensor([1.0, 3.0]), torch.tensor([1.0, -1.0])
    added = float(pairwise_loss(chosen, rejected, centre=0.1) - pairwise_loss(chosen, rejected))
    assert added == pytest.approx(0.1 * (4 + 4) / 2)


def test_losses_stay_finite_for_scores_far_apart_in_half_precision():
    far = torch.tensor([-300.0], dtype=torch.bfloat16, requires_grad=True)
    loss = pairwise_loss(far, -far.detach())
    loss.backward()
    assert float(loss.detach()) == 600.0
    assert float(far.grad) == -1.0


def test_the_pointwise_loss_is_least_at_the_share_that_passed():
    share = torch.tensor([0.25, 0.5, 0.9], dtype=torch.float64)
    score = (share / (1 - share)).log().requires_grad_()
    loss = pointwise_loss(score, share)
    loss.backward()
    torch.testing.assert_close(score.grad, torch.zeros(3, dtype=torch.float64))
    assert float(loss.detach()) == pytest.approx(float(torch.distributions.Bernoulli(share).entropy().mean()))


def test_gradients_of_the_losses_equal_finite_differences():
    score = torch.linspace(-0.9, 0.8, 6, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda s: pairwise_loss(s[:3], s[3:], 0.2), score)
    torch.autograd.gradcheck(lambda s: pointwise_loss(s, torch.linspace(0, 1, 6)), score)


# --- measures --------------------------------------------------------------------------------------------------------


scores = st.lists(st.integers(0, 6), min_size=2, max_size=30)


@given(scores, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_auc_equals_scipys_mann_whitney_statistic_and_slow_counting(values: list[int], random: Any):
    score = np.array(values, dtype=float)
    right = np.array([random.random() < 0.5 for _ in values])
    if right.all() or not right.any():
        assert math.isnan(auc(score, right))
        return
    statistic = stats.mannwhitneyu(score[right], score[~right]).statistic
    assert auc(score, right) == pytest.approx(statistic / (right.sum() * (~right).sum()))
    wins = [pair_accuracy(np.array([one]), np.array([two])) for one in score[right] for two in score[~right]]
    assert auc(score, right) == pytest.approx(np.mean(wins))


def test_pair_accuracy_counts_equal_scores_half():
    assert pair_accuracy(np.array([1.0, 0.0, 5.0, 2.0]), np.array([0.0, 1.0, 5.0, 1.0])) == 0.625


def test_the_calibration_error_by_hand():
    """Bins of a half: 0.2 and 0.4 with one right of two (0.3 against 0.5); 0.5 and 1.0, both right (0.75 against 1)."""
    found = calibration(np.array([0.2, 0.4, 0.5, 1.0]), np.array([1, 0, 1, 1]), bins=2)
    assert found.error == pytest.approx(0.5 * 0.2 + 0.5 * 0.25)
    assert [(row.low, row.high, row.count) for row in found.bins] == [(0.0, 0.5, 2), (0.5, 1.0, 2)]


def test_calibration_of_outcomes_drawn_by_their_probabilities_is_good_and_of_bold_ones_is_not():
    random = np.random.default_rng(3)
    probability = random.random(40_000)
    outcome = random.random(40_000) < probability
    assert calibration(probability, outcome).error < 0.01
    bold = np.where(probability > 0.5, 0.99, 0.01)
    assert calibration(bold, outcome).error > 0.2


def test_pair_calibration_does_not_depend_on_which_answer_is_called_better():
    """Scores whose gaps are the true log-odds: drawn so, the model is calibrated though it is often wrong."""
    random = np.random.default_rng(4)
    gap = random.normal(0, 1.5, 40_000)
    first_wins = random.random(40_000) < 1 / (1 + np.exp(-gap))
    chosen, rejected = np.where(first_wins, gap, 0.0), np.where(first_wins, 0.0, gap)
    assert pair_calibration(chosen, rejected).error < 0.01
    assert pair_calibration(4 * chosen, 4 * rejected).error > 0.1
    assert pair_calibration(np.zeros(3), np.zeros(3)).error == 0.0


# --- pairs -----------------------------------------------------------------------------------------------------------

ALL = PreferenceConfig(per_problem=1000, chosen_passes_all=False)


def test_every_pair_is_of_one_problem_and_its_first_answer_passes_more_tests():
    answers = [answer(f"{p}{n}", n % 5, problem=p) for p in "abc" for n in range(10)]
    places = select_pairs(answers, ALL, seed=1).places
    for better, worse in places:
        assert answers[better].sample.problem == answers[worse].sample.problem
        assert answers[better].verdict.passed > answers[worse].verdict.passed
    assert len(places) == len(set(places)) == 3 * (45 - 5)  # of ten answers, five pairs pass equally many


def test_by_default_the_better_answer_passes_every_test():
    answers = [answer("a", 4), answer("bb", 2), answer("c", 1)]
    assert select_pairs(answers, PreferenceConfig(), seed=1).places == [(0, 1), (0, 2)]
    assert select_pairs(answers, replace(ALL, least_gap=0.5), seed=1).places == [(0, 1), (0, 2)]
    assert (1, 2) in select_pairs(answers, ALL, seed=1).places


@pytest.mark.parametrize("status", ["runtime_error", "compile_error", "time_limit", "memory_limit", "incomplete"])
def test_broken_programs_are_compared_only_where_pairs_need_not_match(status: Any):
    answers = [answer("a", 4), answer("b", 0, status=status)]
    selection = select_pairs(answers, ALL, seed=1)
    assert selection.places == []
    assert selection.left_out == {"does not run": 1, "problem without a pair": 1}
    assert select_pairs(answers, replace(ALL, matched=False), seed=1).places == [(0, 1)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "harness_error"}, "not judged"),
        ({"status": "refused"}, "not judged"),
        ({"status": "unsupported"}, "not judged"),
        ({"total": 0, "passed": 0}, "not judged"),
        ({"mode": "compat"}, "compat"),
    ],
)
def test_what_proves_nothing_is_never_compared(changes: dict[str, Any], reason: str):
    config = replace(ALL, matched=False)
    passed = changes.pop("passed", 0)
    selection = select_pairs([answer("a", 4), answer("b", passed, **changes)], config, seed=1)
    assert selection.places == []
    assert selection.left_out[reason] == 1


def test_equal_texts_count_once_and_unequal_numbers_of_tests_are_not_compared():
    answers = [answer("a", 4), answer("a", 4), answer("b", 1), answer("c", 1, total=7)]
    selection = select_pairs(answers, ALL, seed=1)
    assert selection.places == [(0, 2)]
    assert selection.left_out == {"same text": 1}


def test_pairs_of_a_problem_are_limited_drawn_by_seed_and_independent_of_other_problems():
    config = replace(ALL, per_problem=5)
    answers = [answer(f"a{n}", n % 5, problem="a") for n in range(12)]
    others = [answer(f"b{n}", n % 5, problem="b") for n in range(12)]
    drawn = select_pairs(answers, config, seed=1).places
    assert len(drawn) == len(set(drawn)) == 5
    both = select_pairs(answers + others, config, seed=1).places
    assert both[:5] == drawn
    assert [(better - 12, worse - 12) for better, worse in both[5:]] != drawn
    assert select_pairs(answers, config, seed=2).places != drawn


def test_rows_hold_texts_and_counts_of_both_sides():
    answers = [answer("good", 4), answer("bad", 1)]
    (row,) = as_pairs(answers, [(0, 1)], visible_only=True)
    assert (row.problem, row.chosen, row.rejected, row.chosen_passed, row.rejected_passed, row.total) == (
        *("p", "good", "bad", 4, 1, 4),
    )
    assert row.visible_only


def test_baselines_choose_by_length_and_by_the_policys_own_opinion():
    """Log-probabilities -4 and -3 over 4 and 2 tokens: the second is likelier by its sum, the first by its mean."""
    answers = [answer("long", 4, logprob=-4.0), answer("no", 1, logprob=-3.0), answer("xx", 4, logprob=-9.0)]

    def accuracy(score: np.ndarray, *places: tuple[int, int]) -> float:
        better, worse = np.array(places).T
        return pair_accuracy(score[better], score[worse])

    assert accuracy(length_scores(answers), (0, 1)) == 1.0
    assert accuracy(length_scores(answers), (0, 1), (2, 1)) == 0.75
    assert accuracy(logprob_scores(answers), (0, 1)) == 1.0
    assert accuracy(logprob_scores(answers, per_token=False), (0, 1)) == 0.0


def test_settings_that_select_nothing_are_refused():
    with pytest.raises(ValueError, match="per_problem"):
        PreferenceConfig(per_problem=0)
    with pytest.raises(ValueError, match="least_gap"):
        PreferenceConfig(least_gap=1.0)
    with pytest.raises(ValueError, match="centre"):
        PreferenceConfig(centre=-1.0)
