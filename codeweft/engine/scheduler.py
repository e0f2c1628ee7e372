"""Who runs in the next step: requests wait in order, take a row of the cache, and leave it when they end.

In:  submitted requests.  Out: the sequences of the next forward pass: newcomers' prompts, or one token for the others.

Continuous batching: a row that becomes free is given away at the next step, while the others go on.
"""

from collections import deque
from dataclasses import dataclass, field

from codeweft.engine.request import Piece, Request
from codeweft.engine.stopping import Text


@dataclass(eq=False, slots=True)
class Sequence:
    """A request on its way: its row of the cache (None while it waits), its text, what it has drawn."""

    id: int
    request: Request
    text: Text
    row: int | None = None
    drawn: list[int] = field(default_factory=list)

    @property
    def pending(self) -> tuple[int, ...]:
        """The tokens that the cache has not seen: the whole prompt, later the last token drawn."""
        return (self.drawn[-1],) if self.drawn else self.request.prompt

    def accept(self, token: int, logprob: float) -> Piece:
        """Take a drawn token; the piece it makes."""
        self.drawn.append(token)
        text, finish = self.text.push(token)
        return Piece(self.id, text, (token,), (logprob,), finish)


class Scheduler:
    """Gives rows of the cache to sequences, first come first served."""

    def __init__(self, rows: int, prompt_tokens: int) -> None:
        """prompt_tokens: the most tokens, padding included, that one pass over prompts may hold (one prompt may)."""
        self.prompt_tokens = prompt_tokens
        self.free = list(range(rows))[::-1]
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.reading = False  # whether the pass before read prompts

    def submit(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the queue."""
        self.waiting.append(sequence)

    def admit(self) -> list[Sequence]:
        """Give free rows to those who wait longest; returns who got one."""
        admitted = []
        while self.free and self.waiting:
            sequence = self.waiting.popleft()
            sequence.row = self.free.pop()
            self.running.append(sequence)
            admitted.append(sequence)
        return admitted

    def batch(self) -> list[Sequence]:
        """The next pass: prompts of like length that are not read yet, or every sequence whose prompt is read.

        Where both are there they take turns: a stream of newcomers must not stop those who run.
        """
        unread = [sequence for sequence in self.running if not sequence.drawn]
        read = [sequence for sequence in self.running if sequence.drawn]
        self.reading = bool(unread) and not (self.reading and read)
        return self._alike(unread) if self.reading else read

    def _alike(self, unread: list[Sequence]) -> list[Sequence]:
        """The oldest prompt and those within half and twice its length, while the padded batch stays small enough."""
        first = len(unread[0].request.prompt)
        chosen, longest = [unread[0]], first
        for sequence in unread[1:]:
            length = len(sequence.request.prompt)
            widest = max(longest, length)
            if first <= 2 * length and length <= 2 * first and widest * (len(chosen) + 1) <= self.prompt_tokens:
                chosen.append(sequence)
                longest = widest
        return chosen

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is; its row is free for the next step."""
        if sequence.row is None:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        self.free.append(sequence.row)
        sequence.row = None
