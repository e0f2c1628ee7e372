"""95 % intervals around means and rates whose values come in clusters.

In:  outcomes per hole, sample, problem or document, and what they belong to.  Out: (low, high) pairs.
Source: Wilson 1927; Kish 1965; the percentile bootstrap.

Unusual: documents, files and problems are the unit of chance, not tokens, holes or samples, because those of one unit
resemble each other.

Shapes: N values, K clusters, S resamples.
"""

import math
from collections.abc import Sequence

import numpy as np

from codeweft.base.seeds import generator

NORMAL_95 = 1.959963984540054
RESAMPLES = 2000
DRAWN_AT_ONCE = 1 << 22  # numbers that a bootstrap holds


def ratio_interval(numerator_D: np.ndarray, denominator_D: np.ndarray, seed: int) -> tuple[float, float]:
    """Percentile bootstrap of sum(numerator) / sum(denominator), resampling documents D.

    >>> ratio_interval(np.array([2.0, 4.0]), np.array([1.0, 2.0]), seed=0)
    (2.0, 2.0)
    """
    random = generator(seed, "bootstrap")
    size = len(numerator_D)
    ratios = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = random.integers(0, size, size)
        ratios[number] = numerator_D[drawn].sum() / denominator_D[drawn].sum()
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_mean(values: np.ndarray, seed: int, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Percentile bootstrap of a mean, resampling problems; of the plain mean over groups, where there are groups.

    Each group is resampled by itself, so a group of one problem adds no uncertainty; equal values give no width at all.

    >>> bootstrap_mean(np.array([1.0, 1.0, 0.0]), seed=0, groups=np.array(["python", "python", "java"]))
    (0.5, 0.5)
    """
    random = generator(seed, "bootstrap", "mean")
    total_R = np.zeros(RESAMPLES)
    parts = grouped(values, groups)
    for part in parts:
        rows = max(1, DRAWN_AT_ONCE // len(part))
        for first in range(0, RESAMPLES, rows):
            count = min(rows, RESAMPLES - first)
            drawn = random.integers(0, len(part), (count, len(part)))
            total_R[first : first + count] += part[drawn].mean(axis=1)
    low, high = np.quantile(total_R / len(parts), [0.025, 0.975])
    return float(low), float(high)


def grouped(values: np.ndarray, groups: np.ndarray | None) -> list[np.ndarray]:
    """The values of each group, groups in the order in which they come; all of them where there are no groups."""
    if groups is None:
        return [values]
    return [values[groups == group] for group in dict.fromkeys(groups.tolist())]


def mean_of(values: np.ndarray, groups: np.ndarray | None = None) -> float:
    """The mean; over the means of groups, where there are groups.

    >>> mean_of(np.array([1.0, 1.0, 0.0]), np.array(["python", "python", "java"]))
    0.5
    """
    return float(np.mean([part.mean() for part in grouped(values, groups)]))


def mean_interval(values: np.ndarray, seed: int, groups: np.ndarray | None = None) -> tuple[float, float]:
    """`bootstrap_mean`, but Wilson's interval where all values are one value in [0, 1], which resampling cannot widen.

    >>> [round(bound, 3) for bound in mean_interval(np.zeros(10), seed=0)]
    [0.0, 0.278]
    """
    if (values == values[0]).all() and 0 <= values[0] <= 1:
        return wilson_interval(float(values.sum()), len(values))
    return bootstrap_mean(values, seed, groups)


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927) of a proportion; stays inside [0, 1] and is not empty at 0 or 1.

    >>> [round(bound, 4) for bound in wilson_interval(0, 10)]
    [0.0, 0.2775]
    """
    if trials == 0:
        return 0.0, 1.0
    share, square = successes / trials, NORMAL_95**2
    centre = share + square / (2 * trials)
    spread = NORMAL_95 * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    scale = 1 + square / trials
    return max((centre - spread) / scale, 0.0), min((centre + spread) / scale, 1.0)


def design_effect(outcomes: np.ndarray, groups: np.ndarray) -> float:
    """How many times larger the variance of the mean is because outcomes come in groups (Kish 1965); at least 1.

    outcomes: 0 or 1, one a hole; groups: the number of the hole's file.

    >>> float(design_effect(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1])))
    4.0
    """
    share, count = outcomes.mean(), len(np.unique(groups))
    if share in (0.0, 1.0) or count < 2:
        return 1.0
    error_G = np.bincount(groups, weights=outcomes - share)
    clustered = float((error_G**2).sum()) * count / (count - 1) / len(outcomes) ** 2
    return max(1.0, clustered / (share * (1 - share) / len(outcomes)))


def rate_interval(outcomes: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Wilson's interval with as many trials as the grouped outcomes are worth."""
    effect = design_effect(outcomes, groups)
    return wilson_interval(float(outcomes.sum()) / effect, len(outcomes) / effect)


def clustered_interval(value_N: np.ndarray, owners: Sequence[str], seed: int) -> tuple[float, float]:
    """Percentile bootstrap of a mean, resampling the clusters that values belong to, each with all of its values.

    Wilson's interval with one trial a cluster where all values are one value in [0, 1], which resampling cannot widen.

    >>> low, high = clustered_interval(np.ones(50), ["a"] * 25 + ["b"] * 25, seed=0)
    >>> round(low, 3), high
    (0.342, 1.0)
    """
    names, owner_N = np.unique(np.array(owners), return_inverse=True)
    if (value_N == value_N[0]).all() and 0 <= value_N[0] <= 1:
        return wilson_interval(float(value_N[0]) * len(names), len(names))
    return ratio_interval(np.bincount(owner_N, value_N), np.bincount(owner_N), seed)
