"""Preferences from tests: which answers are compared, what a reward model learns from them, and how good it is.

In:  judged answers; scores of a reward model.  Out: pairs, losses, measures.
Source: DeepSeek-V2 §4.2 (point-wise or pair-wise, no formula), DeepSeek-Coder-V2 §3.5.2 (tests say what is better);
Bradley and Terry 1952.

Unusual: an answer that does not parse or does not finish is not compared with one that runs. Such pairs are many and
easy: a reward model that sees them learns to find broken programs, and its accuracy says little about right ones.

Shapes: N pairs or answers.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from codeweft.base.records import Pair, Sample, Verdict
from codeweft.base.seeds import generator
from codeweft.rl.config import PreferenceConfig

# --- losses ----------------------------------------------------------------------------------------------------------


def pairwise_loss(chosen_N: Tensor, rejected_N: Tensor, centre: float = 0.0) -> Tensor:
    """Mean of -log sigmoid(chosen - rejected), float32: Bradley-Terry's likelihood that the better answer wins.

    It leaves open where scores lie; `centre` adds centre * mean((chosen + rejected)²), which holds them around 0
    (Eisenstein et al. 2023, and TRL).
    """
    chosen_N, rejected_N = _wide(chosen_N), _wide(rejected_N)
    loss = -F.logsigmoid(chosen_N - rejected_N).mean()
    return loss + centre * (chosen_N + rejected_N).square().mean() if centre else loss


def pointwise_loss(score_N: Tensor, fraction_N: Tensor) -> Tensor:
    """Mean cross-entropy of sigmoid(score) against the share of tests passed, float32; least where they are equal."""
    return F.binary_cross_entropy_with_logits(_wide(score_N), fraction_N.to(_wide(score_N).dtype))


def _wide(x_N: Tensor) -> Tensor:
    return x_N if x_N.dtype == torch.float64 else x_N.float()


# --- which answers are compared --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer and what the tests said of it."""

    sample: Sample
    verdict: Verdict

    @property
    def fraction(self) -> float:
        """The share of tests passed."""
        return self.verdict.passed / self.verdict.total


NOT_JUDGED = ("harness_error", "refused", "unsupported")  # says nothing about the answer
RUNS = ("ok", "wrong")  # it parsed, and the first test that it failed, if any, failed by its value


@dataclass(frozen=True, slots=True)
class Selection:
    """Places of the better and the worse answer of each pair, and how many answers or problems gave none, and why."""

    places: list[tuple[int, int]]
    left_out: dict[str, int]


def select_pairs(answers: Sequence[Judged], config: PreferenceConfig, seed: int) -> Selection:
    """Choose pairs of answers to one problem of which one passes more tests, at most `per_problem` of each problem.

    Usable are answers judged by tests of their own process (mode compat is never a reward); with `matched` those that
    parsed and did not break at the first test they failed. Of answers of one text the first counts. Both answers must
    have met equally many tests; judge without stop_early, or `passed` ends at the first failure. Where there are
    more pairs than wanted, they are drawn by seed and problem, so other problems change nothing.
    """
    left_out: dict[str, int] = defaultdict(int)
    by_problem: dict[str, list[int]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    for place, answer in enumerate(answers):
        reason = unusable(answer.verdict, config)
        if not reason and (answer.sample.problem, answer.sample.text) in seen:
            reason = "same text"
        if reason:
            left_out[reason] += 1
            continue
        seen.add((answer.sample.problem, answer.sample.text))
        by_problem[answer.sample.problem].append(place)
    places: list[tuple[int, int]] = []
    for problem, members in by_problem.items():
        possible = [pair for one, two in combinations(members, 2) if (pair := _ordered(answers, one, two, config))]
        if not possible:
            left_out["problem without a pair"] += 1
        if len(possible) > config.per_problem:
            drawn = generator(seed, "pairs", problem).choice(len(possible), config.per_problem, replace=False)
            possible = [possible[number] for number in sorted(drawn)]
        places += possible
    return Selection(places, dict(left_out))


def unusable(verdict: Verdict, config: PreferenceConfig) -> str:
    """Why nothing is learned from an answer with this verdict, in a word or two; empty where something is."""
    if verdict.status in NOT_JUDGED or verdict.total < 1:
        return "not judged"
    if verdict.mode == "compat":
        return "compat"
    return "does not run" if config.matched and verdict.status not in RUNS else ""


def _ordered(answers: Sequence[Judged], one: int, two: int, config: PreferenceConfig) -> tuple[int, int] | None:
    """The two places, the better answer's first; None where they are no pair."""
    if answers[one].verdict.total != answers[two].verdict.total:
        return None
    better, worse = (one, two) if answers[one].verdict.passed > answers[two].verdict.passed else (two, one)
    gap = answers[better].fraction - answers[worse].fraction
    whole = answers[better].verdict.passed == answers[better].verdict.total
    return (better, worse) if gap > 0 and gap >= config.least_gap and (whole or not config.chosen_passes_all) else None


def as_pairs(answers: Sequence[Judged], places: Sequence[tuple[int, int]], *, visible_only: bool) -> list[Pair]:
    """The rows of `pairs.parquet`; `visible_only` says that the hidden tests took no part in the verdicts."""
    rows = ((answers[better], answers[worse]) for better, worse in places)
    return [
        Pair(
            better.sample.problem, better.sample.text, worse.sample.text,
            better.verdict.passed, worse.verdict.passed, better.verdict.total, visible_only,
        )
        for better, worse in rows
    ]  # fmt: skip


# --- how good scores are ---------------------------------------------------------------------------------------------


def pair_accuracy(chosen_N: np.ndarray, rejected_N: np.ndarray) -> float:
    """The share of pairs whose better answer has the higher score; equal scores count half.

    >>> pair_accuracy(np.array([2.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0]))
    0.5
    """
    assert len(chosen_N), "no pairs"
    return float(wins(chosen_N, rejected_N).mean())


def wins(chosen_N: np.ndarray, rejected_N: np.ndarray) -> np.ndarray:
    """1 for each pair whose better answer has the higher score, 0.5 where scores are equal, 0 where it is the other."""
    return (chosen_N > rejected_N) + 0.5 * (chosen_N == rejected_N)


def auc(score_N: np.ndarray, right_N: np.ndarray) -> float:
    """Area under the ROC curve: how often a right answer scores above a wrong one, over all problems; ties count half.

    NaN where all answers are right or all wrong.

    >>> auc(np.array([0.1, 0.9, 0.9, 0.2]), np.array([False, True, False, False]))
    0.8333333333333334
    """
    right_N = right_N.astype(bool)
    right, wrong = int(right_N.sum()), int((~right_N).sum())
    if not right or not wrong:
        return math.nan
    _, kind_N, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    rank_N = (np.cumsum(counts) - (counts - 1) / 2)[kind_N]  # equal scores share their mean rank
    return float((rank_N[right_N].sum() - right * (right + 1) / 2) / (right * wrong))


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram; `low` belongs to it, `high` to the next, but 1 to the last."""

    low: float
    high: float
    count: int
    predicted: float  # mean probability
    observed: float  # mean outcome


@dataclass(frozen=True, slots=True)
class Calibration:
    """The expected calibration error and the bins that it was taken over; bins without answers are left out."""

    error: float
    bins: list[Bin]


def calibration(probability_N: np.ndarray, outcome_N: np.ndarray, bins: int = 10, start: float = 0.0) -> Calibration:
    """Expected calibration error over `bins` bins of equal width from `start` to 1 (Guo et al. 2017).

    The error is the mean over answers of |mean probability - mean outcome| of their bin. Outcomes may be shares.
    """
    assert len(probability_N), "no answers"
    assert (probability_N >= start).all(), "a probability lies outside the bins"
    assert (probability_N <= 1).all(), "a probability lies outside the bins"
    edges = np.linspace(start, 1, bins + 1)
    bin_N = np.searchsorted(edges, probability_N, side="right") - 1
    bin_N = np.minimum(bin_N, bins - 1)  # 1 itself
    rows = []
    for number in range(bins):
        inside = bin_N == number
        if inside.any():
            means = float(probability_N[inside].mean()), float(outcome_N[inside].mean())
            rows.append(Bin(float(edges[number]), float(edges[number + 1]), int(inside.sum()), *means))
    error = sum(row.count * abs(row.predicted - row.observed) for row in rows) / len(probability_N)
    return Calibration(error, rows)


def pair_calibration(chosen_N: np.ndarray, rejected_N: np.ndarray, bins: int = 5) -> Calibration:
    """Calibration of Bradley-Terry's probability for the answer with the higher score, which lies in 0.5 to 1.

    Its outcome is 1 where that answer is the better one, 0.5 for equal scores. (Of the probability for the better
    answer itself the outcome would always be 1, and every model would look too modest.)
    """
    gap_N = np.abs(chosen_N - rejected_N).astype(np.float64)
    outcome_N = wins(chosen_N, rejected_N)
    return calibration(1 / (1 + np.exp(-gap_N)), outcome_N, bins, start=0.5)


# --- what a reward model must beat -----------------------------------------------------------------------------------


def length_scores(answers: Sequence[Judged]) -> np.ndarray:
    """Tokens of each answer: "the longer one is better". 1 minus its pair accuracy is that of the shorter one.

    A reward model has learned more than length where it beats the larger of the two.
    """
    return np.array([float(len(each.sample.tokens)) for each in answers])


def logprob_scores(answers: Sequence[Judged], *, per_token: bool = True) -> np.ndarray:
    """How likely the policy finds each answer, by mean or by sum over its tokens."""
    return np.array([each.sample.logprob / (len(each.sample.tokens) or 1 if per_token else 1) for each in answers])
