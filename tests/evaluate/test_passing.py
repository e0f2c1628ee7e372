"""pass@k, votes, bootstrap and permutation tests against exact fractions, enumeration, scipy and simulation."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest, false_discovery_control
from scipy.stats import permutation_test as scipy_permutation

from codeweft.base.intervals import bootstrap_mean, mean_of
from codeweft.evaluate.score import PERMUTATIONS, holm, majority, pass_at_k, permutation_test


def test_pass_at_k_equals_the_closed_formula_in_exact_fractions():
    """Chen et al. 2021, eq. 1: 1 - C(n-c, k) / C(n, k), for every c and k of several n, 200 among them."""
    for samples in (1, 2, 7, 20):
        for right, k in itertools.product(range(samples + 1), range(1, samples + 1)):
            exact = 1 - Fraction(math.comb(samples - right, k), math.comb(samples, k))
            assert pass_at_k(samples, right, k) == pytest.approx(float(exact), abs=1e-12)
    for right, k in itertools.product(range(0, 201, 7), (1, 10, 100, 200)):
        exact = 1 - Fraction(math.comb(200 - right, k), math.comb(200, k))
        assert pass_at_k(200, right, k) == pytest.approx(float(exact), abs=1e-12)


def test_pass_at_k_of_ten_thousand_samples_does_not_overflow():
    exact = 1 - Fraction(math.comb(9990, 100), math.comb(10_000, 100))
    assert pass_at_k(10_000, 10, 100) == pytest.approx(float(exact), rel=1e-10)


def test_pass_at_1_is_the_mean_of_the_samples():
    assert all(pass_at_k(n, c, 1) == c / n for n in range(1, 60) for c in range(n + 1))


def test_pass_at_k_is_unbiased():
    """Averaged over all outcomes of n independent samples it is 1 - (1 - p)^k, whatever n is."""
    p, k = Fraction(3, 10), 3
    for n in (3, 5, 12):
        chance = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
        expected = sum(float(weight) * pass_at_k(n, c, k) for c, weight in enumerate(chance))
        assert expected == pytest.approx(float(1 - (1 - p) ** k))


def enumerated(votes: list[str], right: list[bool], k: int) -> Fraction:
    """maj@k by trying every choice of k samples."""
    choices = list(itertools.combinations(range(len(votes)), k))
    total = Fraction(0)
    for chosen in choices:
        counts = Counter(votes[place] for place in chosen if votes[place])
        top = [vote for vote, count in counts.items() if count == max(counts.values())]
        total += Fraction(sum(any(votes[p] == vote and right[p] for p in chosen) for vote in top), max(len(top), 1))
    return total / len(choices)


def test_majority_equals_trying_every_choice_of_samples():
    random = np.random.default_rng(3)
    for _ in range(60):
        size = int(random.integers(1, 10))
        votes = [str(vote) if vote else "" for vote in random.integers(0, 5, size)]
        correct = set(random.choice(["1", "2", "3", "4"], int(random.integers(1, 3))).tolist())
        right = [vote in correct for vote in votes]
        for k in range(1, size + 1):
            assert majority(votes, right, k) == pytest.approx(float(enumerated(votes, right, k)), abs=1e-12)


def test_a_vote_of_all_samples_is_just_the_vote():
    assert majority(["7"] * 30 + ["8"] * 34, [True] * 30 + [False] * 34, 64) == 0
    assert majority(["7"] * 34 + ["8"] * 30, [True] * 34 + [False] * 30, 64) == 1
    assert majority(["7", "8", "9", ""], [True, False, False, False], 4) == pytest.approx(1 / 3)


def test_samples_without_an_answer_never_win():
    assert majority([""] * 9 + ["7"], [False] * 9 + [True], 10) == 1
    assert majority([""] * 10, [False] * 10, 10) == 0


def test_majority_of_1200_samples_does_not_overflow():
    votes = ["1"] * 700 + ["2"] * 500
    assert 0.5 < majority(votes, [vote == "1" for vote in votes], 3) < 0.7


def test_the_interval_of_a_mean_covers_it_about_95_times_in_100():
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        low, high = bootstrap_mean((random.random(150) < 0.3).astype(float), seed=trial)
        hits += low <= 0.3 <= high
    assert 88 <= hits <= 100


def test_the_interval_of_a_macro_average_covers_it_and_is_not_that_of_the_plain_mean():
    random = np.random.default_rng(1)
    groups = np.repeat(["python", "java"], [300, 40])
    truth, hits = (0.8 + 0.2) / 2, 0
    for trial in range(100):
        scores = (random.random(340) < np.where(groups == "python", 0.8, 0.2)).astype(float)
        low, high = bootstrap_mean(scores, trial, groups)
        hits += low <= truth <= high
        assert high < scores.mean()
    assert 88 <= hits <= 100


def test_a_large_set_is_resampled_in_pieces_with_the_spread_of_the_normal_law():
    scores = np.tile([0.0, 1.0], 7000)
    low, high = bootstrap_mean(scores, seed=2)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(14_000), rel=0.1)


def test_macro_averages_weigh_languages_alike():
    assert mean_of(np.array([1.0, 1.0, 1.0, 0.0]), np.array(["a", "a", "a", "b"])) == 0.5


def test_the_permutation_test_of_few_problems_equals_scipys_exact_one():
    random = np.random.default_rng(5)
    for _ in range(10):
        a, b = random.random(9), random.random(9)
        theirs = scipy_permutation((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf)
        assert permutation_test(a, b, seed=1) == pytest.approx(theirs.pvalue)


def test_the_permutation_test_of_right_and_wrong_is_the_sign_test():
    """With scores of 0 and 1 flipping signs is tossing a coin for each discordant pair (McNemar's exact test)."""
    a, b = np.array([1.0] * 9 + [0.0] * 3 + [1.0] * 50), np.array([0.0] * 9 + [1.0] * 3 + [1.0] * 50)
    assert permutation_test(a, b, seed=1) == pytest.approx(binomtest(9, 12).pvalue)


def test_drawn_permutations_come_near_the_exact_p_and_never_give_zero():
    a, b = np.array([1.0] * 40 + [0.0] * 22), np.array([0.0] * 40 + [1.0] * 22)
    exact = binomtest(40, 62).pvalue
    drawn = permutation_test(a, b, seed=1)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / PERMUTATIONS))
    assert permutation_test(np.ones(100), np.zeros(100), seed=1) == 1 / (PERMUTATIONS + 1)


def test_equal_models_are_found_different_about_5_times_in_100():
    random = np.random.default_rng(8)
    found = sum(
        permutation_test(*(random.random((2, 30)) < 0.5).astype(float), seed=trial) < 0.05 for trial in range(200)
    )
    assert found <= 18  # the test is discrete, so it errs on the careful side


def test_groups_decide_which_difference_is_tested():
    """B is better on one problem of a large language and worse on both of a small one: the macro average falls."""
    groups = np.repeat(["python", "java"], [40, 2])
    a, b = np.zeros(42), np.zeros(42)
    b[:12], a[40:] = 1.0, 1.0
    assert permutation_test(a, b, 1) < 0.05 < permutation_test(a, b, 1, groups)


def test_holm_never_rejects_more_than_unadjusted_and_keeps_the_order():
    p = [0.001, 0.2, 0.012, 0.04, 0.013]
    adjusted = holm(p)
    assert adjusted == pytest.approx([0.005, 0.2, 0.048, 0.08, 0.048])
    # Benjamini and Hochberg's correction is never stricter
    assert (np.array(adjusted) >= false_discovery_control(p) - 1e-12).all()
    assert holm([]) == []
