"""Scores of texts and the 95 % intervals around rates and ratios.

In:  outcomes per hole or per document.  Out: numbers in [0, 1] and (low, high) pairs.

Unusual: documents and files are the unit of chance, not tokens or holes, because those of one file resemble each other.
"""

import math

import numpy as np

from codeweft.base.errors import UserError
from codeweft.base.seeds import generator

NORMAL_95 = 1.959963984540054
RESAMPLES = 2000


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


def edit_similarity(guess: str, truth: str) -> float:
    """1 - Levenshtein distance over the longer length, after strip; 1 for equal lines.

    >>> edit_similarity("return x", "return y")
    0.875
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise UserError("Edit similarity needs rapidfuzz.", "Install it: pip install 'codeweft[eval]'.") from error
    return Levenshtein.normalized_similarity(guess.strip(), truth.strip())
