"""How good a reward model is: what it prefers on held-out problems, beside what would be preferred without it.

In:  judged answers and their scores.  Out: accuracies with intervals, AUC, calibration; None where nothing can be told.

Unusual: only matched pairs count: two answers to one problem that both parse and run, of which one passes more hidden
tests. Answers that either kind of tests could not judge are left out, so that all figures are about the same pairs.

Shapes: N answers or pairs, K problems, U different scores, S resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from codeweft.base.errors import ModelError
from codeweft.base.intervals import RESAMPLES, clustered_interval
from codeweft.base.records import Feedback
from codeweft.base.seeds import generator
from codeweft.rl.config import PreferenceConfig
from codeweft.rl.feedback import judged_by
from codeweft.rl.preferences import (
    NOT_JUDGED,
    Judged,
    auc,
    calibration,
    length_scores,
    logprob_scores,
    pair_calibration,
    select_pairs,
    wins,
)

DIGITS = 6
# of pairs; what each prefers is said in `measure`
ACCURACIES = ("pair_accuracy", "visible_test_accuracy", "length_accuracy", "logprob_accuracy")
HEADLINE = ("pair_accuracy", "auc", *ACCURACIES[1:], "calibration_error")


def measure(score_N: np.ndarray, rows: Sequence[Feedback], config: PreferenceConfig, seed: int) -> dict[str, Any]:
    """What the scores of these answers are worth by hidden tests.

    Of matched pairs, the share whose better answer has the higher score (`pair_accuracy`), passes the larger share of
    visible tests (`visible_test_accuracy`), is longer (`length_accuracy`), is likelier by the policy, a token
    (`logprob_accuracy`); ties count half. `auc` is over all judged answers. Intervals resample problems. ModelError
    for scores that are no numbers.
    """
    if infinite := int((~np.isfinite(score_N)).sum()):
        raise ModelError(
            f"The reward model gives {infinite:,} of {len(score_N):,} answers a score that is not finite.",
            "Lower reward.pace.learning_rate.",
        )
    hidden, visible = judged_by(rows, "hidden"), judged_by(rows, "visible")
    told = [number for number in range(len(rows)) if _told(hidden[number]) and _told(visible[number])]
    hidden, visible, score_N = [hidden[each] for each in told], [visible[each] for each in told], score_N[told]
    matched = replace(config, matched=True, chosen_passes_all=False, least_gap=0.0)
    chosen = select_pairs(hidden, matched, seed)
    found: dict[str, Any] = {
        "answers": len(told),
        "not_judged": len(rows) - len(told),
        "pairs": len(chosen.places),
        "left_out": chosen.left_out,
    }
    found |= dict.fromkeys(HEADLINE)
    found |= _of_answers(score_N, hidden, config, seed)
    if not chosen.places:
        return found
    better, worse = (np.array(side) for side in zip(*chosen.places, strict=True))
    owners = [hidden[place].sample.problem for place in better]
    passed_N = np.array([each.fraction for each in visible])
    values = (score_N, passed_N, length_scores(hidden), logprob_scores(hidden))
    for name, value_N in zip(ACCURACIES, values, strict=True):
        won_N = wins(value_N[better], value_N[worse])
        found[name] = round(float(won_N.mean()), DIGITS)
        found[f"{name}_ci95"] = _rounded(clustered_interval(won_N, owners, seed))
    calibrated = pair_calibration(score_N[better], score_N[worse])
    return found | {"calibration_error": round(calibrated.error, DIGITS), "calibration": asdict(calibrated)}


def _told(answer: Judged) -> bool:
    return answer.verdict.status not in NOT_JUDGED and answer.verdict.total > 0


def _of_answers(score_N: np.ndarray, hidden: Sequence[Judged], config: PreferenceConfig, seed: int) -> dict[str, Any]:
    """What can be said of single answers; of a point-wise model also whether it knows the share of tests passed."""
    found: dict[str, Any] = {}
    right_N = np.array([each.verdict.status == "ok" for each in hidden], dtype=bool)
    if right_N.any() and not right_N.all():
        found["auc"] = round(auc(score_N, right_N), DIGITS)
        owners = [each.sample.problem for each in hidden]
        found["auc_ci95"] = _rounded(auc_interval(score_N, right_N, owners, seed))
    if config.loss == "pointwise" and len(hidden):
        share_N = np.array([each.fraction for each in hidden])
        probability_N = 0.5 * (1 + np.tanh(0.5 * score_N.astype(np.float64)))  # the sigmoid, without overflow
        found["share_calibration"] = asdict(calibration(probability_N, share_N))
    return found


def auc_interval(score_N: np.ndarray, right_N: np.ndarray, owners: Sequence[str], seed: int) -> tuple[float, float]:
    """Percentile bootstrap of the AUC, resampling the problems that answers belong to, each with all of its answers.

    Draws whose answers are all right or all wrong have no AUC and do not count; (NaN, NaN) where no draw has one.
    """
    names, owner_N = np.unique(np.array(owners), return_inverse=True)
    values, kind_N = np.unique(score_N, return_inverse=True)
    random, found = generator(seed, "bootstrap", "auc"), []
    for _ in range(RESAMPLES):
        times_N = np.bincount(random.integers(0, len(names), len(names)), minlength=len(names))[owner_N]
        right_U = np.bincount(kind_N, times_N * right_N, minlength=len(values))
        wrong_U = np.bincount(kind_N, times_N * ~right_N, minlength=len(values))
        both = right_U.sum() * wrong_U.sum()
        if both:
            found.append(float(right_U @ (wrong_U.cumsum() - wrong_U / 2)) / both)  # wrong ones below, ties half
    if not found:
        return math.nan, math.nan
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(bound, DIGITS) for bound in interval]
