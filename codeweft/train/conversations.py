"""Turns conversations into sequences of training: rendered by the chat template, masked, packed.

In:  conversations, a tokenizer with its chat template, a sequence length.
Out: samples (ids and which of them the assistant wrote), and rows in which several stand side by side.
Source: DeepSeek-Coder-V2 §3.5.1. That the loss counts the assistant's tokens alone is not in the paper; DeepSeek's
published fine-tuning scripts mask the prompt so.

Unusual: which tokens are the assistant's is found by rendering the conversation up to before and after each answer
with the template itself, so any template a checkpoint carries is masked without being understood.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from codeweft.base.records import Conversation
from codeweft.tokenizer.chat import encode_chat
from codeweft.tokenizer.load import Tokenizer


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation (or infilling document) as ids; `trained[i]` tells whether token i is one to learn to write."""

    tokens: tuple[int, ...]
    trained: tuple[bool, ...]
    source: str = ""


def rendered(tokenizer: Tokenizer, talk: Conversation) -> Sample | None:
    """The whole conversation, its answers marked with the token that ends each; None where the template shows none.

    An answer begins where the text that asks for it ends. Where a token spans that border, it counts as the answer's.
    """
    messages = list(talk.messages)
    whole = encode_chat(tokenizer, messages, generate=False)
    trained = np.zeros(len(whole), bool)
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = encode_chat(tokenizer, messages[:number], generate=True)
        answered = (
            whole if number == len(messages) - 1 else encode_chat(tokenizer, messages[: number + 1], generate=False)
        )
        trained[shared_length(asked, whole) : shared_length(answered, whole)] = True
    if not trained.any():
        return None
    return Sample(tuple(whole), tuple(trained.tolist()), talk.source)


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences have in common from the start.

    >>> shared_length([1, 2, 3], [1, 2, 4, 5])
    2
    """
    shortest = min(len(one), len(other))
    unequal = np.flatnonzero(np.asarray(one[:shortest]) != np.asarray(other[:shortest]))
    return int(unequal[0]) if len(unequal) else shortest


@dataclass(slots=True)
class Rendering:
    """Samples of at most a length, and how many conversations had to be cut or left out."""

    samples: list[Sample] = field(default_factory=list)
    cut: int = 0  # lost their last turns
    dropped: int = 0  # too long even with one answer, or by choice
    unanswered: int = 0  # the template shows no answer of theirs


def render_all(
    tokenizer: Tokenizer, talks: Iterable[Conversation], longest: int, too_long: Literal["cut", "drop"]
) -> Rendering:
    """Every conversation as a sample of at most `longest` tokens.

    A longer one loses whole turns from its end until it fits and ends with an answer (`cut`), or is left out (`drop`).
    """
    found = Rendering()
    for talk in talks:
        sample = rendered(tokenizer, talk)
        if sample is None:
            found.unanswered += 1
            continue
        if len(sample.tokens) <= longest:
            found.samples.append(sample)
            continue
        shorter = shortened(tokenizer, talk, longest) if too_long == "cut" else None
        if shorter is None:
            found.dropped += 1
        else:
            found.cut += 1
            found.samples.append(shorter)
    return found


def shortened(tokenizer: Tokenizer, talk: Conversation, longest: int) -> Sample | None:
    """The longest opening of a conversation that ends with an answer and fits; None where not even the first does."""
    ends = [number + 1 for number, each in enumerate(talk.messages) if each["role"] == "assistant"]
    for end in reversed(ends[:-1]):
        sample = rendered(tokenizer, Conversation(talk.id, talk.messages[:end], talk.source))
        if sample is not None and len(sample.tokens) <= longest:
            return sample
    return None


@dataclass(frozen=True, slots=True)
class Row:
    """Inputs and targets of one sequence, [T] each: samples side by side, then padding.

    `documents` numbers the samples (padding is one of its own); `weights` is 1 where the target is to be learned.
    """

    tokens: np.ndarray
    targets: np.ndarray
    documents: np.ndarray
    weights: np.ndarray


def pack(samples: Sequence[Sample], length: int) -> list[list[int]]:
    """Numbers of samples by row, so that the tokens of a row fit into `length`: best fit, longest first.

    >>> pack([Sample((0,) * n, (True,) * n) for n in (3, 6, 2, 5)], 8)
    [[1, 2], [3, 0]]
    """
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, row), least room first
    for number in sorted(range(len(samples)), key=lambda number: -len(samples[number].tokens)):
        size = len(samples[number].tokens)
        assert size <= length, "samples are cut before they are packed"
        place = bisect_left(rooms, (size, -1))
        room, row = rooms.pop(place) if place < len(rooms) else (length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(number)
        insort(rooms, (room - size, row))
    return rows


def row_of(samples: Sequence[Sample], length: int, padding: int) -> Row:
    """One packed sequence. The last token of a sample has no target of its own sample, so it is not trained on."""
    tokens, targets = np.full(length, padding, np.int64), np.full(length, padding, np.int64)
    documents, weights = np.full(length, len(samples), np.int64), np.zeros(length, np.float32)
    start = 0
    for number, sample in enumerate(samples):
        size = len(sample.tokens)
        here = slice(start, start + size)
        tokens[here], documents[here] = sample.tokens, number
        targets[start : start + size - 1] = sample.tokens[1:]
        weights[start : start + size - 1] = sample.trained[1:]
        start += size
    return Row(tokens, targets, documents, weights)
