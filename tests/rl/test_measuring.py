"""Figures of a reward model by hand, and intervals against slow bootstraps."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from codeweft.base.errors import ModelError
from codeweft.base.intervals import clustered_interval, wilson_interval
from codeweft.base.records import Feedback
from codeweft.rl.config import PreferenceConfig
from codeweft.rl.measuring import HEADLINE, auc_interval, measure
from codeweft.rl.preferences import auc

CONFIG = PreferenceConfig()


def row(problem: str, text: str, passed: int, **changes: Any) -> Feedback:
    """An answer that passes so many of four hidden tests, and the one visible test if it passes any."""
    status = "ok" if passed == 4 else "wrong"
    seen = "ok" if passed else "wrong"
    made = Feedback(
        problem, 0, text, tuple(range(len(text))), -float(len(text)), "stop", seen, int(passed > 0), 1, status, passed,
        4, "namespaces", "split",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def test_the_figures_by_hand():
    """Problem a: 4 > 2 > 0 of 4 tests; b: 4 > 1; c: equal; d: one alone parses. Four pairs."""
    rows = [
        row("a", "xx", 4), row("a", "yyy", 2), row("a", "z", 0),
        row("b", "x", 4), row("b", "y", 1, logprob=-3.0),
        row("c", "x", 3), row("c", "y", 3),
        row("d", "x", 4), row("d", "y", 0, hidden="compile_error", visible="compile_error"),
    ]  # fmt: skip
    score = np.array([3.0, 2.0, 2.5, 1.0, 1.0, 0.0, 0.0, 2.2, -9.0])
    found = measure(score, rows, CONFIG, 1)
    assert found["pairs"] == 4
    assert found["left_out"] == {"does not run": 1, "problem without a pair": 2}
    # a: 3 > 2, 3 > 2.5, 2 < 2.5; b: equal
    assert found["pair_accuracy"] == (1 + 1 + 0 + 0.5) / 4
    # visible: both of a pass, then twice the better alone; b: both pass
    assert found["visible_test_accuracy"] == (0.5 + 1 + 1 + 0.5) / 4
    assert found["length_accuracy"] == (0 + 1 + 1 + 0.5) / 4
    # log-probabilities are -1 a token but for one of b
    assert found["logprob_accuracy"] == (0.5 + 0.5 + 0.5 + 1) / 4
    right = [3.0, 1.0, 2.2]
    wrong = [2.0, 2.5, 1.0, 0.0, 0.0, -9.0]
    assert found["auc"] == pytest.approx(np.mean([(r > w) + 0.5 * (r == w) for r in right for w in wrong]), abs=1e-6)
    assert "share_calibration" not in found
    assert set(HEADLINE) <= set(found)


def test_answers_that_either_kind_of_tests_could_not_judge_count_nowhere():
    rows = [row("a", "x", 4), row("a", "y", 0), row("a", "z", 1, visible="harness_error"),
            row("a", "w", 4, hidden="harness_error", hidden_passed=0), row("a", "v", 2, visible="refused")]  # fmt: skip
    score = np.array([1.0, 0.0, 9.0, -9.0, 9.0])
    found = measure(score, rows, CONFIG, 1)
    assert (found["answers"], found["not_judged"], found["pairs"]) == (2, 3, 1)
    assert (found["pair_accuracy"], found["auc"]) == (1.0, 1.0)


def test_where_nothing_can_be_told_there_is_no_figure():
    for rows in ([row("a", "x", 4), row("b", "y", 0)], [row("a", "x", 4)], []):
        found = measure(np.zeros(len(rows)), rows, CONFIG, 1)
        assert (found["pairs"], found["pair_accuracy"], found["visible_test_accuracy"]) == (0, None, None)
        assert "pair_accuracy_ci95" not in found
    assert found["auc"] is None


def test_a_score_that_is_no_number_is_an_error_and_not_a_lost_pair():
    rows = [row("a", "x", 4), row("a", "y", 0)]
    for value in (np.nan, np.inf):
        with pytest.raises(ModelError, match="1 of 2 answers a score that is not finite"):
            measure(np.array([value, 0.0]), rows, CONFIG, 1)


def test_a_pointwise_model_whose_scores_are_the_log_odds_is_calibrated_and_a_bold_one_is_not():
    rows = [row(f"p{n}", "x", n % 3 + 1) for n in range(300)]
    share = np.array([each.hidden_passed / 4 for each in rows])
    odds, config = np.log(share / (1 - share)), PreferenceConfig(loss="pointwise")
    assert measure(odds, rows, config, 1)["share_calibration"]["error"] < 1e-6
    assert measure(9 * odds - 4000, rows, config, 1)["share_calibration"]["error"] > 0.3


def clusters() -> tuple[np.ndarray, list[str]]:
    random = np.random.default_rng(3)
    owners = [f"p{n}" for n in range(25) for _ in range(random.integers(1, 8))]
    level = dict(zip(dict.fromkeys(owners), random.random(25), strict=True))
    return np.array([float(random.random() < level[owner]) for owner in owners]), owners


def slowly(values: list[Any], owners: list[str], statistic: Any) -> np.ndarray:
    """Percentiles over resampled problems, each brought with a copy of all that belongs to it."""
    random = np.random.default_rng(9)
    by_owner = {name: [v for v, o in zip(values, owners, strict=True) if o == name] for name in dict.fromkeys(owners)}
    names, found = list(by_owner), []
    for _ in range(3000):
        drawn = [value for name in random.choice(names, len(names)) for value in by_owner[name]]
        found.append(statistic(drawn))
    return np.nanquantile(found, [0.025, 0.975])


def test_the_interval_of_an_accuracy_equals_a_slow_bootstrap_over_problems():
    values, owners = clusters()
    low, high = clustered_interval(values, owners, 1)
    assert [low, high] == pytest.approx(slowly(values.tolist(), owners, np.mean), abs=0.02)
    # answers of one problem resemble each other: as many pairs of their own problems would tell more
    apart = clustered_interval(values, [str(n) for n in range(len(values))], 1)
    assert high - low > 1.2 * (apart[1] - apart[0])


def test_the_interval_of_the_auc_equals_a_slow_bootstrap_over_problems():
    values, owners = clusters()
    random = np.random.default_rng(4)
    score = np.round(values + random.normal(0, 1.2, len(values)), 1)  # with ties
    right = values.astype(bool)
    drawn = list(zip(score, right, strict=True))
    expected = slowly(drawn, owners, lambda rows: auc(*map(np.array, zip(*rows, strict=True))))
    assert auc_interval(score, right, owners, 1) == pytest.approx(expected, abs=0.02)


def test_a_clean_sweep_is_as_sure_as_there_are_problems():
    assert clustered_interval(np.ones(40), ["a"] * 20 + ["b"] * 20, 1) == wilson_interval(2, 2)
