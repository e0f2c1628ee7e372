"""How many tokens of each kind, which copies of documents give them, and in which order: arithmetic only.

In:  wanted shares, a total, and the lengths in tokens of the documents' copies, pass after pass.
Out: targets, chosen copies whose tokens meet them, and an order that keeps the shares everywhere in the stream.
Source: DeepSeek-Coder-V2 §2: 60 % code, 10 % mathematics, 30 % natural language, which takes about three passes over
the code (1,170B tokens for 3.6T).

Unusual: documents stay whole. What a greedy choice leaves open is closed by exchanging one document for another.

Shapes: N copies of a kind in the order they are offered.
"""

from collections.abc import Mapping, Sequence

import numpy as np

EXCHANGES = 8  # how often a document is added or exchanged to come closer to a target


def targets(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Tokens of each kind.

    >>> targets({"code": 0.6, "math": 0.1, "text": 0.3}, 1000)
    {'code': 600, 'math': 100, 'text': 300}
    """
    return {kind: round(share * total) for kind, share in shares.items()}


def affordable_total(available: Mapping[str, int], shares: Mapping[str, float], total: int) -> int:
    """The largest total, at most the one asked for, whose shares the available tokens of every kind can fill.

    >>> affordable_total({"code": 500, "text": 60}, {"code": 0.8, "text": 0.2}, 1000)
    300
    """
    # one thousandth of a token forgives the rounding of a share that is met exactly
    return min([total, *(int((available[kind] + 0.001) / share) for kind, share in shares.items())])


def choose(length_N: np.ndarray, pass_N: np.ndarray, target: int, tolerance: int) -> np.ndarray:
    """Places of copies, ascending, whose lengths add up to `target` as nearly as whole documents allow.

    Copies are taken in order as long as they fit, so that a pass is used up before the next one begins; only in the
    last pass are copies left out, added or exchanged, and only while the sum is further off than `tolerance`. Later
    passes are called upon where that does not suffice.
    """
    if not len(length_N):
        return np.zeros(0, np.int64)
    usable_N = np.where(length_N <= target, length_N, 0)
    last = pass_N[min(int(np.searchsorted(np.cumsum(usable_N), target)), len(length_N) - 1)]
    within = int(np.searchsorted(pass_N, last, side="right"))
    taken_N = np.zeros(len(length_N), dtype=bool)
    taken_N[:within] = _first_fit(length_N[:within], target)
    for end in (within, len(length_N)):
        _come_closer(taken_N[:end], length_N[:end], pass_N[:end], target, tolerance)
    return np.flatnonzero(taken_N)


def _come_closer(taken_N: np.ndarray, length_N: np.ndarray, pass_N: np.ndarray, target: int, tolerance: int) -> None:
    """Add and exchange copies in place, the best one first, as long as the sum comes closer to the target."""
    for _ in range(EXCHANGES):
        gap = target - int(length_N[taken_N].sum())
        if abs(gap) <= tolerance or taken_N.all():
            return
        removed, added = _best_exchange(length_N, taken_N, pass_N, gap)
        gained = int(length_N[added]) - (int(length_N[removed]) if removed >= 0 else 0)
        if abs(gap - gained) >= abs(gap):
            return
        taken_N[added] = True
        if removed >= 0:
            taken_N[removed] = False


def _first_fit(length_N: np.ndarray, target: int) -> np.ndarray:
    fitting = int(np.searchsorted(np.cumsum(length_N), target, side="right"))
    taken_N = np.zeros(len(length_N), dtype=bool)
    taken_N[:fitting] = True
    gap = target - int(length_N[:fitting].sum())
    for place in range(fitting, len(length_N)):
        if length_N[place] <= gap:
            taken_N[place] = True
            gap -= int(length_N[place])
    return taken_N


def _best_exchange(length_N: np.ndarray, taken_N: np.ndarray, pass_N: np.ndarray, gap: int) -> tuple[int, int]:
    """(removed, added) places that change the sum by the amount nearest to `gap`; removed is -1 for adding alone."""
    outside = np.flatnonzero(~taken_N)
    last = pass_N[taken_N].max(initial=0)
    inside = np.flatnonzero(taken_N & (pass_N == last))
    lengths = np.concatenate(([0], length_N[inside]))
    order = np.argsort(lengths, kind="stable")
    wanted = length_N[outside] - gap
    right = np.searchsorted(lengths[order], wanted).clip(0, len(order) - 1)
    left = (right - 1).clip(0)
    right_off = np.abs(lengths[order[right]] - wanted)
    left_off = np.abs(lengths[order[left]] - wanted)
    nearest = np.where(left_off <= right_off, left, right)
    best = int(np.argmin(np.minimum(left_off, right_off)))
    removed = int(order[nearest[best]])
    return (int(inside[removed - 1]) if removed else -1), int(outside[best])


def interleave(lengths: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Merge kinds so that each is used up evenly: (kind number, place within the kind) of every copy, in stream order.

    The middle of a copy, as a fraction of its kind's tokens, decides; within a kind the order stays.

    >>> interleave([np.array([2, 2, 2, 2]), np.array([3, 3])])[0].tolist()
    [0, 1, 0, 0, 1, 0]
    """
    numbers, places, keys = [], [], []
    for number, length_N in enumerate(lengths):
        if len(length_N):
            numbers.append(np.full(len(length_N), number))
            places.append(np.arange(len(length_N)))
            keys.append((np.cumsum(length_N) - length_N / 2) / length_N.sum())
    if not keys:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.argsort(np.concatenate(keys), kind="stable")
    return np.concatenate(numbers)[order], np.concatenate(places)[order]


def shard_starts(lengths: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Fill shards one after the other: (shard, start) of each document. One longer than `limit` gets its own shard.

    >>> [part.tolist() for part in shard_starts(np.array([4, 4, 9, 1]), 8)]
    [[0, 0, 1, 2], [0, 4, 0, 0]]
    """
    shard_N, start_N = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    shard = start = 0
    for place, length in enumerate(lengths.tolist()):
        if start and start + length > limit:
            shard, start = shard + 1, 0
        shard_N[place], start_N[place] = shard, start
        start += length
    return shard_N, start_N
