"""Fill in the middle: where a document is cut, and in which order its parts and the sentinels stand.

In:  a text, or its parts.  Out: a cut, or the ids of a document or a prompt. The only file that knows the order.
Source: DeepSeek-Coder-V2 §3.1: prefix, suffix, middle; rate 0.5; document by document, before packing.

Unusual: the paper names no granularity. Cuts fall between any two characters by default (Bavarian et al. 2022), at line
starts or around syntax nodes as options. Each part is tokenized by itself, as an editor's request will be. A prompt
that is too long loses whole lines, farthest from the hole first.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

import numpy as np

from codeweft.source.syntax import node_spans

SENTINELS = 4  # tokens of a prompt without text: begin and the three of infilling
PREFIX_SHARE = 0.75  # of the room for text, where both sides have more than fits
CHARACTERS_PER_TOKEN = 128  # more text than this per token of room is not even encoded


class InfillTokenizer(Protocol):
    """What is asked of a tokenizer: the sentinels' ids and plain encoding."""

    @property
    def begin(self) -> int:
        """Id that opens a document."""
        ...

    @property
    def end(self) -> int:
        """Id that closes a document."""
        ...

    @property
    def fim_begin(self) -> int:
        """Id before the prefix."""
        ...

    @property
    def fim_hole(self) -> int:
        """Id between prefix and suffix."""
        ...

    @property
    def fim_end(self) -> int:
        """Id after the suffix; the middle follows."""
        ...

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts."""
        ...


@dataclass(frozen=True, slots=True)
class Cut:
    """A text in three parts; `granularity` is the one that was used, which may be coarser than the one asked for."""

    prefix: str
    middle: str
    suffix: str
    granularity: str


def cut_at_characters(text: str, random: np.random.Generator) -> tuple[int, int]:
    """Two positions, each uniform over all borders between characters, both ends included, in order."""
    start, end = sorted(random.integers(0, len(text) + 1, 2).tolist())
    return start, end


def cut_at_lines(text: str, random: np.random.Generator) -> tuple[int, int]:
    """Two different line starts (or the text's end), uniform over all pairs: the middle is at least one whole line.

    A line ends at "\\n"; an empty text has one border and is cut there.
    """
    borders = sorted({0, len(text), *(match.end() for match in re.finditer("\n", text))})
    if len(borders) == 1:
        return 0, 0
    start, end = sorted(random.choice(len(borders), 2, replace=False).tolist())
    return borders[start], borders[end]


def cut_at_node(text: str, spans: Sequence[tuple[int, int]], random: np.random.Generator) -> tuple[int, int]:
    """One syntax node: uniform over those that hold a character drawn uniformly, so large nodes come as often as small.

    spans: (start, end) in characters, at least one. Where no node holds the character, any node may be drawn.
    """
    spans_N2 = np.asarray(spans)
    place = random.integers(0, len(text))
    holding = np.flatnonzero((spans_N2[:, 0] <= place) & (place < spans_N2[:, 1]))
    start, end = spans_N2[random.choice(holding if len(holding) else len(spans_N2))].tolist()
    return start, end


def cut(text: str, language: str, granularity: str, random: np.random.Generator) -> Cut:
    """Cut a text at "characters", "lines" or "syntax"; a language without a grammar is cut at lines."""
    spans = node_spans(text, language) if granularity == "syntax" else None
    if spans:
        start, end = cut_at_node(text, spans, random)
    elif granularity == "characters":
        start, end = cut_at_characters(text, random)
    else:
        granularity = "lines"
        start, end = cut_at_lines(text, random)
    return Cut(text[:start], text[start:end], text[end:], granularity)


def segments(text: str, length: int) -> list[str]:
    r"""The text in runs of whole lines of at most `length` characters; a longer line is a segment by itself.

    >>> segments("ab\ncd\nef\n", 6)
    ['ab\ncd\n', 'ef\n']
    """
    found: list[str] = []
    for line in text.splitlines(keepends=True):
        if found and len(found[-1]) + len(line) <= length:
            found[-1] += line
        else:
            found.append(line)
    return found or [text]


def plain_document(tokenizer: InfillTokenizer, ids: Sequence[int]) -> list[int]:
    """A document that is not cut: begin, ids, end."""
    return [tokenizer.begin, *ids, tokenizer.end]


def infill_document(
    tokenizer: InfillTokenizer, prefix: Sequence[int], middle: Sequence[int], suffix: Sequence[int]
) -> list[int]:
    """A document cut for infilling: the prompt that an editor would send, then the middle, then end."""
    return [*_prompt(tokenizer, prefix, suffix), *middle, tokenizer.end]


def infill_prompt(tokenizer: InfillTokenizer, prefix: str, suffix: str) -> list[int]:
    """Ids after which a model trained to infill writes the middle and then the end token."""
    return _prompt(tokenizer, tokenizer.encode(prefix), tokenizer.encode(suffix))


def fitting_prompt(tokenizer: InfillTokenizer, prefix: str, suffix: str, length: int) -> tuple[int, ...]:
    """The infilling prompt of at most `length` tokens (at least 4), with the text nearest to the hole.

    Texts that fit stay as they are. Of others, whole lines are kept, nearest first: three quarters of the room are the
    prefix's, and what one side leaves free the other may take. Of a line that alone is too long, the nearest part is
    kept.
    """
    assert length >= SENTINELS, "no prompt is shorter than its sentinels"
    if len(prefix) + len(suffix) <= length * CHARACTERS_PER_TOKEN:
        prompt = infill_prompt(tokenizer, prefix, suffix)
        if len(prompt) <= length:
            return tuple(prompt)
    room = length - SENTINELS
    while True:
        _, used = _nearest(tokenizer, suffix, int(room * (1 - PREFIX_SHARE)), at_start=True)
        before, used = _nearest(tokenizer, prefix, room - used, at_start=False)
        after, _ = _nearest(tokenizer, suffix, room - used, at_start=True)
        prompt = infill_prompt(tokenizer, before, after)
        if len(prompt) <= length:
            return tuple(prompt)
        # lines that are joined can need other tokens than lines alone, and a few more of them
        room = max(room - (len(prompt) - length), 0)


def plain_prompt(tokenizer: InfillTokenizer, prefix: str, length: int) -> tuple[int, ...]:
    """The begin token and the end of `prefix`, at most `length` tokens: what a model reads that only goes on."""
    before, _ = _nearest(tokenizer, prefix, length - 1, at_start=False)
    ids = tokenizer.encode_batch([before])[0]
    return (tokenizer.begin, *ids[-(length - 1) :])


def _nearest(tokenizer: InfillTokenizer, text: str, room: int, *, at_start: bool) -> tuple[str, int]:
    """The most whole lines at the start or end of `text` that fit, else a part of the nearest; and their tokens."""
    lines = text.splitlines(keepends=True)
    lines = lines[:room] if at_start else lines[::-1][:room]  # a line has at least one token
    bounded = list(takewhile(lambda line: len(line) <= room * CHARACTERS_PER_TOKEN, lines))
    kept, used = [], 0
    for line, ids in zip(bounded, tokenizer.encode_batch(bounded), strict=True):
        if used + len(ids) > room:
            break
        kept.append(line)
        used += len(ids)
    if lines and not kept:
        return _part(tokenizer, lines[0], room, at_start=at_start)
    return "".join(kept if at_start else kept[::-1]), used


def _part(tokenizer: InfillTokenizer, line: str, room: int, *, at_start: bool) -> tuple[str, int]:
    """The longest start or end of a line that fits, and its tokens."""

    def part(size: int) -> str:
        return line[:size] if at_start else line[len(line) - size :]

    def tokens(size: int) -> int:
        return len(tokenizer.encode(part(size)))

    reach = min(len(line), room * CHARACTERS_PER_TOKEN)
    size = bisect_right(range(reach + 1), room, key=tokens) - 1
    return part(size), tokens(size)


def _prompt(tokenizer: InfillTokenizer, prefix: Sequence[int], suffix: Sequence[int]) -> list[int]:
    return [tokenizer.begin, tokenizer.fim_begin, *prefix, tokenizer.fim_hole, *suffix, tokenizer.fim_end]
