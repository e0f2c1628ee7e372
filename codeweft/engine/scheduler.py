"""Who runs in the next step, and where in the latent cache: requests wait in order, get blocks, and give them back.

In:  submitted requests, blocks of the cache.  Out: the tokens of the next forward pass.

Continuous batching: a place that becomes free is given away at the next step, while the others go on. Long prompts are
read in pieces, in turn with those who draw. A prompt whose beginning another one is reading waits until it can share
it. Where blocks run out, the youngest request gives up its own and starts again later from the tokens it has.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from codeweft.engine.blocks import ROOT, BlockPool, Digest, digests
from codeweft.engine.request import Piece, Request
from codeweft.engine.stopping import Text
from codeweft.model.cache import BLOCK

LONGEST_TOGETHER = 4096  # tokens, those read before included, up to which prompts are read beside others


@dataclass(eq=False, slots=True)
class Sequence:
    """A request on its way: its tokens so far, how many of them its blocks hold, its text."""

    id: int
    request: Request
    text: Text
    deadline: float = float("inf")  # on the monotonic clock
    known: list[int] = field(default_factory=list)  # the prompt, then what was drawn
    read: int = 0
    table: list[int] = field(default_factory=list)
    chain: list[Digest] = field(default_factory=list)  # of the full blocks of `known`

    def __post_init__(self) -> None:
        self.known = list(self.request.prompt)
        self.chain = digests(self.known)

    @property
    def drawn(self) -> int:
        """Tokens drawn so far."""
        return len(self.known) - len(self.request.prompt)

    @property
    def pending(self) -> int:
        """Tokens that the cache has not seen; one, the last, where all that is left is to draw."""
        return len(self.known) - self.read

    def accept(self, tokens: tuple[int, ...], logprobs: tuple[float, ...]) -> Piece:
        """Take drawn tokens up to the one that ends the text; the piece they make."""
        shown, finish = "", None
        for count, token in enumerate(tokens, 1):
            self.known.append(token)
            text, finish = self.text.push(token)
            shown += text
            if finish is not None:
                return Piece(self.id, shown, tokens[:count], logprobs[:count], finish)
        return Piece(self.id, shown, tokens, logprobs, finish)


@dataclass(frozen=True, slots=True)
class Feed:
    """What one pass reads of a sequence: tokens behind its first `start`, of which the last `wanted` are looked at."""

    sequence: Sequence
    start: int
    tokens: tuple[int, ...]
    wanted: int


class Scheduler:
    """Gives places and blocks to sequences, first come first served."""

    def __init__(self, rows: int, prompt_tokens: int, pool: BlockPool, copy: Callable[[int, int], None]) -> None:
        """rows: most sequences that run at once. prompt_tokens: most tokens, padding included, that one pass over
        prompts may hold. copy: copies what a block holds into another.
        """
        self.rows, self.prompt_tokens = rows, prompt_tokens
        self.pool, self.copy = pool, copy
        self.share = True  # whether prompts that begin alike share blocks
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.reading = False  # whether the pass before read prompts
        self.evictions = 0

    def submit(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the queue."""
        self.waiting.append(sequence)

    def next(self, guess: Callable[[Sequence], tuple[int, ...]]) -> list[Feed]:
        """The next pass: pieces of prompts of like length, or one token and a guess of each that has read its own.

        Where both are there they take turns: a stream of newcomers must not stop those who run.
        """
        self._admit()
        unread = [sequence for sequence in self.running if sequence.pending > 1]
        ready = [sequence for sequence in self.running if sequence.pending == 1]
        self.reading = bool(unread) and not (self.reading and ready)
        return self._pieces(unread) if self.reading else self._draws(ready, guess)

    def advance(self, sequence: Sequence, read: int) -> None:
        """Count tokens as read; blocks that became full can be found by others from now on."""
        before, sequence.read = sequence.read, read
        if not self.share:
            return
        if len(sequence.chain) < read // BLOCK:
            sequence.chain += digests(sequence.known[: read // BLOCK * BLOCK], sequence.chain)
        for place in range(before // BLOCK, read // BLOCK):
            earlier = sequence.chain[place - 1] if place else ROOT
            tokens = tuple(sequence.known[place * BLOCK : (place + 1) * BLOCK])
            self.pool.publish(sequence.table[place], sequence.chain[place], earlier, tokens)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is; its place and blocks are free for the next step."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._leave(sequence)
        else:
            self.waiting.remove(sequence)

    def evict(self, sequence: Sequence) -> None:
        """Take blocks and place from a sequence that runs; it waits in front of all others, with its tokens."""
        self.running.remove(sequence)
        self._leave(sequence)
        sequence.chain = digests(sequence.known)
        self.waiting.appendleft(sequence)

    def _admit(self) -> None:
        if len(self.running) == self.rows or not self.waiting:
            return
        unread = [sequence for sequence in self.running if sequence.pending > 1]
        for sequence in list(self.waiting):
            if len(self.running) == self.rows:
                return
            if self.share and self._is_being_read(sequence, unread):
                continue
            if not self._begin(sequence):
                return
            self.waiting.remove(sequence)
            self.running.append(sequence)
            unread += [sequence] if sequence.pending > 1 else []

    def _is_being_read(self, sequence: Sequence, unread: list[Sequence]) -> bool:
        """Whether somebody who runs reads more of this prompt than is known already."""
        known = len(self.pool.match(self._usable(sequence)))
        next_block = sequence.chain[known : known + 1]
        return any(
            other.known == sequence.known or (next_block and other.chain[known : known + 1] == next_block)
            for other in unread
        )

    def _usable(self, sequence: Sequence) -> list[Digest]:
        """The blocks it could find read; its last token is always fed, because something is to be drawn from it."""
        return sequence.chain[: (len(sequence.known) - 1) // BLOCK]

    def _begin(self, sequence: Sequence) -> bool:
        """Give blocks for all tokens so far, found ones first; False where there are too few."""
        found = self.pool.match(self._usable(sequence)) if self.share else []
        needed = -(-len(sequence.known) // BLOCK) - len(found)
        self.pool.share(found)
        # one block more for each that runs: else the next step would take it from the newcomer again
        if self.running and self.pool.available < needed + len(self.running):
            self.pool.give_back(found)
            return False
        begin = len(found) * BLOCK
        before = sequence.chain[len(found) - 1] if found else ROOT
        like, same = self.pool.partly(before, sequence.known[begin:-1]) if self.share else (-1, 0)
        kept = [like] if same and self.pool.available > needed else []
        self.pool.share(kept)  # it must not be taken for the new ones
        sequence.table = found + [self.pool.take() for _ in range(needed)]
        if kept:
            self.copy(like, sequence.table[len(found)])
        self.pool.give_back(kept)
        sequence.read = begin + (same if kept else 0)
        return True

    def _leave(self, sequence: Sequence) -> None:
        self.pool.give_back(sequence.table)
        sequence.table, sequence.read = [], 0

    def _pieces(self, unread: list[Sequence]) -> list[Feed]:
        """A piece of the oldest prompt, beside it those within half and twice its length that fit the pass."""
        first = unread[0]
        length = min(first.pending, self.prompt_tokens)
        chosen, longest = [first], length
        together = first.read + length <= LONGEST_TOGETHER
        for sequence in unread[1:]:
            count = sequence.pending
            widest = max(longest, count)
            fits = widest * (len(chosen) + 1) <= self.prompt_tokens and sequence.read + count <= LONGEST_TOGETHER
            if together and fits and length <= 2 * count and count <= 2 * length:
                chosen.append(sequence)
                longest = widest
        return [self._feed(sequence, min(sequence.pending, self.prompt_tokens)) for sequence in chosen]

    def _feed(self, sequence: Sequence, count: int, guess: tuple[int, ...] = ()) -> Feed:
        end = sequence.read + count
        tokens = (*sequence.known[sequence.read : end], *guess)
        wanted = 1 + len(guess) if end == len(sequence.known) else 0
        return Feed(sequence, sequence.read, tokens, wanted)

    def _draws(self, ready: list[Sequence], guess: Callable[[Sequence], tuple[int, ...]]) -> list[Feed]:
        feeds = []
        for sequence in ready:
            if sequence not in self.running:  # it lost its blocks to one before it
                continue
            guessed = guess(sequence)
            if not self._room(sequence, 1 + len(guessed)):
                guessed = ()
                while not self._room(sequence, 1) and self._evict_youngest() is not sequence:
                    pass
            if sequence in self.running:
                feeds.append(self._feed(sequence, 1, guessed))
        return [feed for feed in feeds if feed.sequence in self.running]

    def _room(self, sequence: Sequence, tokens: int) -> bool:
        """Whether its blocks hold so many more tokens; takes what is missing."""
        missing = -(-(sequence.read + tokens) // BLOCK) - len(sequence.table)
        if missing > self.pool.available:
            return False
        sequence.table += [self.pool.take() for _ in range(missing)]
        return True

    def _evict_youngest(self) -> Sequence:
        youngest = max(self.running, key=lambda sequence: sequence.id)
        self.evict(youngest)
        self.evictions += 1
        return youngest
