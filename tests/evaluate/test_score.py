"""Intervals against scipy and against what they promise."""

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein
from scipy.stats import binomtest

from codeweft.base.intervals import design_effect, rate_interval, ratio_interval, wilson_interval
from codeweft.tasks.infilling import edit_similarity


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (117, 1000)])
def test_wilson_equals_scipy(successes: int, trials: int):
    theirs = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((theirs.low, theirs.high))


def test_the_bootstrap_covers_the_true_ratio_about_95_times_in_100():
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        size = random.integers(50, 500, 120).astype(float)
        bits = size * random.normal(2.0, 0.5, 120)
        low, high = ratio_interval(bits, size, seed=trial)
        hits += low <= 2.0 <= high
    assert 88 <= hits <= 100


def test_the_bootstrap_depends_on_the_seed_alone():
    bits, size = np.arange(1.0, 30.0), np.arange(30.0, 1.0, -1.0)
    assert ratio_interval(bits, size, 4) == ratio_interval(bits, size, 4) != ratio_interval(bits, size, 5)


def test_outcomes_that_agree_within_files_widen_the_interval():
    files = np.repeat(np.arange(50), 4)
    agreeing = np.repeat(np.arange(50) % 2, 4).astype(float)
    assert design_effect(agreeing, files) == pytest.approx(4, rel=0.05)
    apart = rate_interval(agreeing, np.arange(200))
    together = rate_interval(agreeing, files)
    assert together[0] < apart[0] < 0.5 < apart[1] < together[1]


def test_no_success_still_has_an_upper_bound():
    low, high = rate_interval(np.zeros(100), np.repeat(np.arange(25), 4))
    assert low == pytest.approx(0, abs=1e-12)
    assert 0.02 < high < 0.05


def test_edit_similarity_counts_edits_of_the_stripped_lines():
    assert edit_similarity("  return a+b", "return a-b") == pytest.approx(1 - Levenshtein.distance("+", "-") / 10)
    assert edit_similarity("", "abc") == 0
