"""Guesses the next tokens by looking up where the last ones stood before: code repeats itself.

In:  a sequence's tokens, and what was answered lately.  Out: a few tokens to try beside the next one.
Source: prompt look-up (n-gram) speculation; the acceptance rule is exact by construction, see below.

Unusual: no rejection sampling is needed. The noise of a draw belongs to its seed and position (sampling.py), so the
token at each position is a function of the logits there; a guess is right when it is the token that is drawn anyway,
and the text is the same with and without guessing, greedy or sampled. A wrong guess costs time: how many tokens are
tried follows from how many were right the last times, and after wrong ones a sequence rests for a while.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

LENGTHS = (4, 3)  # tokens that must stand before, the longest first
RECENT_TOKENS = 1 << 16  # of sequences that ended that are looked through, at least half of them
FIRST = 3  # tokens that a sequence's first guess tries
LONGEST_REST = 64  # steps
BETWEEN = -1  # stands between two texts, as no token does


class Index:
    """Where each run of tokens of a growing text was last followed by something."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.after: dict[tuple[int, ...], int] = {}

    def extend(self, tokens: Sequence[int]) -> None:
        """Read on."""
        for token in tokens:
            for length in LENGTHS:
                if len(self.tokens) >= length:
                    self.after[tuple(self.tokens[-length:])] = len(self.tokens)
            self.tokens.append(token)

    def following(self, last: Sequence[int], length: int, most: int) -> list[int]:
        """What followed the last `length` tokens of a text when they were last seen here.

        >>> index = Index()
        >>> index.extend([1, 2, 3, 4, 5])
        >>> index.following([9, 1, 2, 3], 3, 2), index.following([2, 3, 9], 3, 2)
        ([4, 5], [])
        """
        place = self.after.get(tuple(last[-length:]))
        return [] if place is None else self.tokens[place : place + most]


@dataclass(slots=True)
class Record:
    """How guessing for one sequence went."""

    index: Index = field(default_factory=Index)
    size: int = FIRST
    rest: int = 1  # steps to wait after the next wrong guess
    waiting: int = 0


class Guesser:
    """Guesses for the sequences of an engine, at most `most` tokens each; 0 turns it off."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.records: dict[int, Record] = {}
        self.recent, self.older = Index(), Index()  # what was said by sequences that ended
        self.tried = self.right = 0  # tokens

    def guess(self, sequence: int, known: Sequence[int], most: int) -> tuple[int, ...]:
        """At most `most` tokens that may follow `known`; nothing where these tokens were not seen before."""
        if not self.most:
            return ()
        record = self.records.setdefault(sequence, Record())
        record.index.extend(known[len(record.index.tokens) :])
        most = min(most, self.most, record.size)
        if record.waiting or most < 1:
            record.waiting = max(0, record.waiting - 1)
            return ()
        for length in LENGTHS:
            for index in (record.index, self.recent, self.older):
                found = index.following(known, length, most)
                if found:
                    return tuple(found[: found.index(BETWEEN)] if BETWEEN in found else found)
        return ()

    def learn(self, sequence: int, tried: int, right: int) -> None:
        """Of `tried` guessed tokens the first `right` were drawn: try more next time, or fewer, or rest."""
        record = self.records[sequence]
        self.tried += tried
        self.right += right
        if right:
            record.size = min(self.most, 2 * record.size) if right == tried else right + 1
            record.waiting, record.rest = 0, 1
        else:
            record.size, record.waiting = max(1, record.size // 2), record.rest
            record.rest = min(LONGEST_REST, 2 * record.rest)

    def end(self, sequence: int) -> None:
        """Keep what a sequence said for those that come."""
        record = self.records.pop(sequence, None)
        if record is not None:
            self.recent.extend([*record.index.tokens, BETWEEN])
            if len(self.recent.tokens) > RECENT_TOKENS // 2:
                self.recent, self.older = Index(), self.recent
