"""What the engine is asked and what it answers.

In:  prompt token ids and the rules of drawing and stopping.  Out: pieces while it runs, a completion at the end.

Unusual: `tokens` of an answer are all tokens that were drawn, the end token and a stop string's tokens included, so
that `logprob` is exactly their sum; `text` is what is left to show.
"""

import math
from dataclasses import dataclass
from typing import Literal

from codeweft.base.errors import UserError

Finish = Literal["stop", "length", "deadline", "cancelled"]


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and how to go on from it; temperature 0 takes the most probable token each time.

    Rules that end the text: `stop` strings, before their first occurrence; `stop_tokens`; `stop_line`, at the end of
    the first line that holds more than white space; `stop_indent`, before the first later line that holds something
    and begins with fewer white-space characters; `stop_bracket`, before a closing bracket that the text did not open.
    `max_ms` milliseconds after it was submitted a request ends with the text so far. UserError says which field
    cannot be.
    """

    prompt: tuple[int, ...]
    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    stop_line: bool = False
    seed: int = 0
    stop_tokens: tuple[int, ...] = ()
    stop_indent: int | None = None
    stop_bracket: bool = False
    max_ms: float | None = None

    def __post_init__(self) -> None:
        if not self.prompt:
            raise UserError("The prompt is empty.", "Give at least the begin token.")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens is {self.max_tokens}.", "Ask for at least one token.")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature is {self.temperature}.", "Give 0 (greedy) or a positive number.")
        if not 0 <= self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}.", "Give a probability between 0 and 1.")
        if "" in self.stop:
            raise UserError("A stop string is empty.", "Leave it out: it would end every text at once.")
        if self.stop_indent is not None and self.stop_indent < 1:
            raise UserError(f"stop_indent is {self.stop_indent}.", "Give at least 1 column, or leave it out.")
        if self.stop_indent is not None and self.stop_line:
            raise UserError("stop_line and stop_indent exclude each other.", "One line has no later line: give one.")
        if self.max_ms is not None and not self.max_ms > 0:
            raise UserError(f"max_ms is {self.max_ms}.", "Give a positive number of milliseconds, or leave it out.")


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step added to a request: text that is safe to show, the tokens drawn, and the finish at its end.

    Text may lag behind tokens: half a character or the beginning of a stop string is held back. `logprobs` are
    natural logarithms, one a token, under temperature 1 and the whole vocabulary.
    """

    request: int
    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished request; `logprob` is the sum over `tokens` under temperature 1."""

    text: str
    tokens: tuple[int, ...]
    logprob: float
    finish: Finish


def join(pieces: list[Piece]) -> Completion:
    """Put the pieces of one finished request together."""
    finish = pieces[-1].finish
    assert finish is not None, "the request is still running"
    return Completion(
        text="".join(piece.text for piece in pieces),
        tokens=tuple(token for piece in pieces for token in piece.tokens),
        logprob=math.fsum(logprob for piece in pieces for logprob in piece.logprobs),
        finish=finish,
    )
