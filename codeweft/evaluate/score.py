"""Scores of problems from their samples, and whether a difference of two models is more than chance.

In:  outcomes per sample or problem.  Out: numbers in [0, 1], p-values.
Source: pass@k by Chen et al. 2021 (arXiv 2107.03374, eq. 1).

Unusual: pass@k and maj@k are counted over all ways to draw, not estimated by drawing.
"""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from codeweft.base.seeds import generator

DRAWN_AT_ONCE = 1 << 22  # numbers that a permutation test holds
PERMUTATIONS = 10_000  # sign patterns that are drawn, and the most that are all tried


# --- samples of one problem ------------------------------------------------------------------------------------------


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that k samples, drawn without return from those there are, hold a right one (Chen et al. 2021, eq. 1).

    1 - C(n-c, k) / C(n, k), as a product of numbers below 1, so that no factorial overflows.

    >>> pass_at_k(200, 3, 1), round(pass_at_k(200, 3, 100), 4)
    (0.015, 0.8769)
    """
    assert 0 <= right <= samples, f"{right} of {samples} samples are right"
    assert 1 <= k <= samples, f"pass@{k} of {samples} samples"
    if samples - right < k:
        return 1.0
    if k == 1:
        return right / samples  # what the product comes to, without its rounding
    return float(1 - np.prod(1 - k / np.arange(samples - right + 1, samples + 1)))


def majority(votes: Sequence[str], right: Sequence[bool], k: int) -> float:
    """maj@k: the chance that the most frequent answer among k samples, drawn without return, is right.

    With as many samples as votes that is just the vote. Answers that come equally often share the chance. An empty vote
    is a sample without an answer: it is drawn like any other but never wins.

    >>> majority(["4", "4", "5"], [True, True, False], 3), majority(["4", "5"], [True, False], 2)
    (1.0, 0.5)
    >>> majority(["4", "4", "5"], [True, True, False], 1) == 2 / 3
    True
    """
    assert len(votes) == len(right), "one verdict a vote"
    assert 1 <= k <= len(votes), f"maj@{k} of {len(votes)} samples"
    counts = Counter(vote for vote in votes if vote)
    empty = len(votes) - counts.total()
    # a grader may find two samples of one vote unequal; the vote is then as right as its samples are on average
    share = {vote: np.mean([ok for name, ok in zip(votes, right, strict=True) if name == vote]) for vote in counts}
    chance = 0.0
    for vote, worth in share.items():
        if worth:
            others = [count for name, count in counts.items() if name != vote]
            chance += float(worth) * _wins(counts[vote], others, empty, k)
    return chance


def _wins(count: int, others: Sequence[int], empty: int, k: int) -> float:
    """The chance that the answer given `count` times is the most frequent of k drawn ones; a tie counts its share."""
    ways = Fraction(0)
    for times in range(1, min(count, k) + 1):
        # in how many ways the others fill `drawn` places without any of them coming more often, by the number of ties
        table = {(0, 0): 1}
        for other in others:
            grown: Counter[tuple[int, int]] = Counter()
            for (drawn, ties), found in table.items():
                for taken in range(min(other, times, k - times - drawn) + 1):
                    grown[drawn + taken, ties + (taken == times)] += found * math.comb(other, taken)
            table = dict(grown)
        filled = sum(
            Fraction(found * math.comb(empty, k - times - drawn), ties + 1) for (drawn, ties), found in table.items()
        )
        ways += math.comb(count, times) * filled
    return float(ways / math.comb(sum(others) + count + empty, k))


# --- two models on the same problems ---------------------------------------------------------------------------------


def permutation_test(a: np.ndarray, b: np.ndarray, seed: int, groups: np.ndarray | None = None) -> float:
    """The p-value of the paired permutation test: how often means lie as far apart if the labels A and B mean nothing.

    a, b: one score a problem, in the same order. Signs of the differences are flipped: in all ways where there are at
    most 10,000, else in 10,000 drawn ones, and then the p-value is (b + 1) / (m + 1), never 0.
    groups: as in `bootstrap_mean`; the tested difference is then that of the means over groups.

    >>> permutation_test(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0.0, 0.0, 0.0, 0.0]), seed=1)
    0.25
    """
    difference_P = a - b
    if groups is not None:
        sizes = Counter(groups.tolist())
        difference_P = difference_P / np.array([sizes[group] for group in groups.tolist()])
    difference_D = difference_P[difference_P != 0]  # what is equal stays equal under any sign
    count = len(difference_D)
    if count == 0:
        return 1.0
    # sums that are equal on paper may differ in their last bits
    observed = abs(difference_D.sum()) - 1e-9 * np.abs(difference_D).sum()
    if 2**count <= PERMUTATIONS:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float(np.mean(np.abs(signs @ difference_D) >= observed))
    random, beyond = generator(seed, "permutation"), 0
    rows = max(1, DRAWN_AT_ONCE // count)
    for first in range(0, PERMUTATIONS, rows):
        size = (min(rows, PERMUTATIONS - first), count)
        signs = 1 - 2 * random.integers(0, 2, size, dtype=np.int8)
        beyond += int((np.abs(signs @ difference_D) >= observed).sum())
    return (beyond + 1) / (PERMUTATIONS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being several (Holm 1979), in the order given.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = largest
    return adjusted
