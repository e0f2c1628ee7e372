"""What a language model must beat: an n-gram model of the same tokens, and copying a line of the same file.

In:  the tokens that the model was trained on; the lines of a file with a hole.  Out: log-probabilities; a line.
Source: Kneser & Ney 1995; Chen & Goodman 1998 (TR-10-98), interpolated modified Kneser-Ney with three discounts.

Unusual: there is no hash table. An n-gram's number is its place in a sorted array of keys, and a key is
(number of its first n-1 tokens) x vocabulary + last token, so that any order fits into 64 bits. Counting sorts one
range of prefixes at a time; at its peak it holds about 40 bytes a training token.

Shapes: N tokens of the stream, U distinct n-grams of one length, P distinct prefixes.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

PART = 1 << 22  # positions sorted at once
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # where the counts are too few to estimate them


@dataclass(frozen=True, slots=True)
class Grams:
    """The distinct n-grams of one length: sorted keys, how often each occurs, and the number of its last n-1 tokens."""

    key_U: np.ndarray  # int64
    count_U: np.ndarray  # int32
    suffix_U: np.ndarray  # int32


@dataclass(frozen=True, slots=True)
class Level:
    """What scoring needs of one length: p(w | h) = share(hw) + backoff(h) · p(w | h without its first token)."""

    key_U: np.ndarray  # int64, sorted
    share_U: np.ndarray  # float32
    backoff_P: np.ndarray  # float32, one a prefix of n-1 tokens; 1 where nothing ever followed it


class KneserNey:
    """Interpolated modified Kneser-Ney over token ids; documents are what begins with the token `begin`."""

    def __init__(self, vocabulary: int, begin: int, levels: list[Level]) -> None:
        self.vocabulary, self.begin, self.levels = vocabulary, begin, levels

    @classmethod
    def fit(cls, chunks: Iterable[np.ndarray], vocabulary: int, begin: int, order: int = 5) -> "KneserNey":
        """Count the stream made of `chunks` (integer arrays in order); no n-gram reaches across a `begin`."""
        token_N = np.concatenate(list(chunks))
        assert token_N.size, "there is no training token"
        assert int(token_N.max()) < vocabulary, "the stream holds ids beyond the vocabulary"
        count_V = sum(np.bincount(part, minlength=vocabulary) for part in _parts(token_N))
        everything = np.arange(vocabulary)
        lower = Grams(everything, np.asarray(count_V, np.int32), np.zeros(0, np.int32))
        rank_N = token_N.astype(np.int32)
        levels: list[Level] = []
        prefixes = 1
        for length in range(2, order + 1):
            grams, rank_N = _extend(lower, rank_N, token_N, vocabulary, begin)
            adjusted_U = _continuation_counts(lower, grams)
            if length == 2:
                adjusted_U[begin] = 0  # never predicted: it only opens documents
            levels.append(_level(lower.key_U, adjusted_U, prefixes, vocabulary))
            prefixes, lower = len(lower.key_U), grams
        del rank_N
        if order == 1:
            lower.count_U[begin] = 0
        levels.append(_level(lower.key_U, lower.count_U, prefixes, vocabulary))
        return cls(vocabulary, begin, levels)

    def log2_probability(self, tokens: np.ndarray) -> np.ndarray:
        """log2 p of each token given those before it in its document; 0 for `begin`, which is context only.

        tokens: one document or several in a row, each starting with `begin`.  Returns float64 of equal length.
        """
        token_N = tokens.astype(np.int64)
        starts_N = token_N == self.begin
        first = self.levels[0]
        probability_N = first.share_U[token_N].astype(np.float64) + float(first.backoff_P[0]) / self.vocabulary
        rank_N = token_N
        for level in self.levels[1:]:
            prefix_N = _shifted(rank_N, starts_N)
            rank_N = _find(level.key_U, prefix_N * self.vocabulary + token_N, prefix_N >= 0)
            share_N = np.where(rank_N >= 0, _take(level.share_U, rank_N), 0.0)
            backoff_N = np.where(prefix_N >= 0, _take(level.backoff_P, prefix_N), 1.0)
            probability_N = share_N + backoff_N * probability_N
        probability_N[starts_N] = 1.0
        return np.log2(probability_N)


def discounts(adjusted_U: np.ndarray) -> tuple[float, float, float]:
    """D1, D2 and D3+ from the counts of counts n1…n4 (Chen & Goodman 1998).

    Y = n1 / (n1 + 2 n2), D1 = 1 - 2 Y n2 / n1, D2 = 2 - 3 Y n3 / n2, D3+ = 3 - 4 Y n4 / n3.
    Where one of n1…n4 is zero or a discount leaves [0, k], all three are 0.5, 1 and 1.5.
    """
    n = [int((adjusted_U == times).sum()) for times in (1, 2, 3, 4)]
    if min(n) == 0:
        return FALLBACK_DISCOUNTS
    share = n[0] / (n[0] + 2 * n[1])
    found = tuple(k - (k + 1) * share * n[k] / n[k - 1] for k in (1, 2, 3))
    fits = all(0 <= discount <= k for k, discount in enumerate(found, start=1))
    return (found[0], found[1], found[2]) if fits else FALLBACK_DISCOUNTS


def _parts(array_N: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(array_N), PART):
        yield array_N[start : start + PART]


def _shifted(rank_N: np.ndarray, starts_N: np.ndarray) -> np.ndarray:
    """The number of the n-gram that ends one token earlier; -1 where that lies in another document or is unknown."""
    prefix_N = np.empty_like(rank_N)
    prefix_N[0] = -1
    prefix_N[1:] = rank_N[:-1]
    prefix_N[starts_N] = -1
    return prefix_N


def _extend(
    lower: Grams, rank_N: np.ndarray, token_N: np.ndarray, vocabulary: int, begin: int
) -> tuple[Grams, np.ndarray]:
    """From (n-1)-grams to n-grams: `rank_N` numbers the (n-1)-gram that ends at each position, -1 for none."""
    prefix_N = _shifted(rank_N, token_N == begin)
    longer_N = np.full(len(token_N), -1, np.int32)
    keys, counts, suffixes, done = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], 0
    for low, high in _prefix_ranges(lower.count_U):
        position = np.flatnonzero((prefix_N >= low) & (prefix_N < high))
        if not len(position):
            continue
        key = prefix_N[position].astype(np.int64) * vocabulary + token_N[position]
        order = np.argsort(key)
        key, position = key[order], position[order]
        new = np.concatenate(([True], key[1:] != key[:-1]))
        first = np.flatnonzero(new)
        longer_N[position] = done - 1 + np.cumsum(new)
        keys.append(key[first])
        counts.append(np.diff(first, append=len(key)).astype(np.int32))
        suffixes.append(rank_N[position[first]])
        done += len(first)
    return Grams(np.concatenate(keys), np.concatenate(counts), np.concatenate(suffixes)), longer_N


def _prefix_ranges(count_U: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of prefix numbers that hold about PART positions each (one frequent prefix may hold more)."""
    reached_U = np.cumsum(count_U, dtype=np.int64)
    wanted = np.arange(PART, int(reached_U[-1]) if len(reached_U) else 0, PART)
    edges = sorted({0, *np.searchsorted(reached_U, wanted).tolist(), len(count_U)})
    return list(pairwise(edges))


def _continuation_counts(lower: Grams, longer: Grams) -> np.ndarray:
    """How many different tokens stand before each n-gram; its own count where none can, at a document's beginning."""
    found_U = np.bincount(longer.suffix_U, minlength=len(lower.key_U)).astype(np.int32)
    return np.where(found_U > 0, found_U, lower.count_U)


def _level(key_U: np.ndarray, adjusted_U: np.ndarray, prefixes: int, vocabulary: int) -> Level:
    """Discounted shares and the mass they leave to the shorter context, which is what the discounts took."""
    prefix_U = key_U // vocabulary
    discount_U = np.array([0.0, *discounts(adjusted_U)])[np.minimum(adjusted_U, 3)]
    total_P = np.bincount(prefix_U, weights=adjusted_U, minlength=prefixes)
    taken_P = np.bincount(prefix_U, weights=discount_U, minlength=prefixes)
    share_U = ((adjusted_U - discount_U) / total_P[prefix_U]).astype(np.float32)
    backoff_P = np.divide(taken_P, total_P, out=np.ones(prefixes), where=total_P > 0).astype(np.float32)
    return Level(key_U, share_U, backoff_P)


def _find(key_U: np.ndarray, wanted_N: np.ndarray, valid_N: np.ndarray) -> np.ndarray:
    """The place of each wanted key, -1 where it is absent or not valid."""
    if not len(key_U):
        return np.full(len(wanted_N), -1)
    place_N = np.minimum(np.searchsorted(key_U, wanted_N), len(key_U) - 1)
    return np.where(valid_N & (key_U[place_N] == wanted_N), place_N, -1)


def _take(values: np.ndarray, index_N: np.ndarray) -> np.ndarray:
    """values[index], with any value where the index is -1."""
    return values[np.maximum(index_N, 0)] if len(values) else np.zeros(len(index_N))


REACH = 3  # lines on each side that make a line's neighbourhood
WORD = re.compile(r"\w+|[^\w\s]")


def copied_line(lines: Sequence[str], hole: int, minimum: int = 8) -> str:
    """The line of the same file whose neighbourhood is most similar to that of line `hole`, which is never looked at.

    Blank lines are left out first. similarity(j) = sum over d = ±1, ±2, ±3 of Jaccard(words(hole + d), words(j + d))
    / |d|, where words are identifiers, numbers and single signs; a neighbour that lies outside the file or is the hole
    itself counts 0. Candidates j are the other lines with at least `minimum` characters that are not white space.
    Ties go to the nearer line, then to the earlier one. Returns the line without the white space around it, "" where
    there is no candidate.

    >>> copied_line(["if a == 1:", "    print('one')", "stop()", "if a == 2:", "?", "stop()"], hole=4)
    "print('one')"
    """
    kept = [number for number, line in enumerate(lines) if line.strip() or number == hole]
    centre = kept.index(hole)
    candidates = np.array(
        [place for place, number in enumerate(kept) if place != centre and solid(lines[number]) >= minimum], dtype=int
    )
    if not len(candidates):
        return ""
    words = [set() if number == hole else set(WORD.findall(lines[number])) for number in kept]
    size_L = np.array([len(found) for found in words])
    postings: dict[str, list[int]] = {}
    for place, found in enumerate(words):
        for word in found:
            postings.setdefault(word, []).append(place)
    score_L = np.zeros(len(kept))
    for distance in (d for d in range(-REACH, REACH + 1) if d and 0 <= centre + d < len(kept)):
        shared_L = np.zeros(len(kept))
        for word in words[centre + distance]:
            shared_L[postings[word]] += 1
        union_L = size_L[centre + distance] + size_L - shared_L
        similar_L = np.divide(shared_L, union_L, out=np.zeros(len(kept)), where=union_L > 0) / abs(distance)
        place_L = np.arange(len(kept)) + distance
        inside_L = (place_L >= 0) & (place_L < len(kept))
        score_L[inside_L] += similar_L[place_L[inside_L]]
    best = min(candidates.tolist(), key=lambda place: (-round(score_L[place], 9), abs(place - centre), place))
    return lines[kept[best]].strip()


def occurs_elsewhere(lines: Sequence[str], hole: int) -> bool:
    """Whether the missing line stands, apart from indentation, in another place of its file: the ceiling of copying."""
    truth = lines[hole].strip()
    return any(line.strip() == truth for number, line in enumerate(lines) if number != hole)


def solid(line: str) -> int:
    """The number of characters that are not white space."""
    return len("".join(line.split()))
