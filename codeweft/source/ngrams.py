"""Word n-grams of texts as 64-bit hashes, and the sorted index of them that says what a corpus holds.

In:  texts; parts of documents (Parquet with text and split).  Out: hashes; `ngrams.npy`, sorted unique little-endian
uint64, to be mapped into memory.
Source: the 10-gram rule of DeepSeek-Coder §2.4 and DeepSeekMath §2.1. What a gram is they do not say; here it is a
word: a run of letters, digits and underscores of the lower-cased text, and each ideograph or kana by itself, since
their scripts put no spaces between words.

Unusual: a text becomes an array of code points and is never cut into words: a word is hashed as a polynomial of its
code points modulo 2^64, an n-gram as one of its words' mixed hashes. Sorted runs, one a part, are merged by ranges of
the hash, so memory does not grow with the corpus. Nothing depends on the machine; characters that a newer Unicode has
added are no letters to an older Python. The index takes 8 bytes a distinct n-gram: two thirds of the text or more.

Shapes: P code points, W words, G n-grams.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
import pyarrow.parquet as pq

from codeweft.base.artifacts import atomic
from codeweft.base.errors import InputError

INDEX = "ngrams.npy"  # its name in the corpus's folder
WORDS = 10  # in an n-gram of the index
SHORTEST = 3  # words of a text that is looked for as a whole where it has fewer than WORDS
HASH = np.dtype("<u8")
BATCH = 1 << 21  # characters that are hashed at once (about 60 bytes of memory each)
PIECE = 1 << 22  # hashes that are merged at once
FAN_IN = 128  # runs that are open at once

# odd, drawn once at random; other numbers would give other indexes
POINT_BASE, WORD_BASE = np.uint64(0x9D1F5C3B7E24A68F), np.uint64(0xC2B2AE3D27D4EB4F)
LETTERS, ALONE = 1, 2  # kinds of code points: part of a word, a word of its own
SCRIPTS_WITHOUT_SPACES = ((0x3041, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


class Writable(Protocol):
    """What an index can be written to."""

    def write(self, data: bytes) -> int:
        """Take all of `data`."""
        ...


# --- from texts to hashes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spans:
    """Where the words of some texts are: in the code points of all texts, and in which text each is."""

    points_P: np.ndarray
    start_W: np.ndarray
    length_W: np.ndarray
    text_W: np.ndarray


def words(text: str) -> list[str]:
    """The words of a text, as n-grams see them.

    >>> words("Return x_1+2, not 素数!")
    ['return', 'x_1', '2', 'not', '素', '数']
    """
    spans = _spans([text])
    lowered = text.lower()
    return [lowered[at : at + size] for at, size in zip(spans.start_W.tolist(), spans.length_W.tolist(), strict=True)]


def hashed(texts: Sequence[str], size: int = WORDS) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all n-grams of `size` words in their order, and the number of the text that each stands in.

    The n-gram number i of a single text begins at its word number i.

    >>> left, right = hashed(["One two three"], size=2)[0], hashed(["two  THREE!", "one"], size=2)[0]
    >>> bool(left[1] == right[0]), len(right)
    (True, 1)
    """
    spans = _spans(texts)
    word_W = _word_hashes(spans)
    count = max(0, len(word_W) - size + 1)
    gram_G = np.zeros(count, np.uint64)
    for place in range(size):
        gram_G *= WORD_BASE
        gram_G += word_W[place : place + count]
    first_G, last_G = spans.text_W[:count], spans.text_W[size - 1 : size - 1 + count]
    whole = first_G == last_G  # what begins in one text and ends in the next is no n-gram
    return _mixed(gram_G[whole]), first_G[whole]


def _spans(texts: Sequence[str]) -> Spans:
    lowered = [text.lower() for text in texts]
    points_P = np.frombuffer("\n".join(lowered).encode("utf-32-le", "surrogatepass"), "<u4")
    kind_P = _kinds()[points_P]
    inside_P = kind_P > 0
    # a word begins where none goes on: a letter goes on after a letter only
    begins_P = inside_P.copy()
    begins_P[1:] &= (kind_P[1:] != LETTERS) | (kind_P[:-1] != LETTERS)
    start_W = np.flatnonzero(begins_P)
    place_of_letter = np.flatnonzero(inside_P)
    number = np.searchsorted(place_of_letter, start_W)
    length_W = np.diff(number, append=len(place_of_letter))
    ends = np.cumsum([len(text) + 1 for text in lowered])
    return Spans(points_P, start_W, length_W, np.searchsorted(ends, start_W, side="right"))


def _word_hashes(spans: Spans) -> np.ndarray:
    if not len(spans.start_W):
        return np.empty(0, np.uint64)
    first_W = np.cumsum(spans.length_W) - spans.length_W  # of each word among the letters of all words
    offset = np.arange(spans.length_W.sum()) - np.repeat(first_W, spans.length_W)
    letters = spans.points_P[offset + np.repeat(spans.start_W, spans.length_W)].astype(np.uint64)
    powers = np.full(int(spans.length_W.max()), POINT_BASE, np.uint64)
    np.multiply.accumulate(powers, out=powers)
    return _mixed(np.add.reduceat(letters * powers[offset], first_W))


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """The last steps of splitmix64 (Steele, Lea, Flood 2014): each bit that goes in changes half of what comes out."""
    hashes = hashes ^ (hashes >> np.uint64(30))
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    return hashes


@cache
def _kinds() -> np.ndarray:
    kind = np.zeros(0x110000, np.uint8)
    every = "".join(map(chr, range(0x110000)))
    for found in re.finditer(r"\w+", every):
        kind[found.start() : found.end()] = LETTERS
    for first, last in SCRIPTS_WITHOUT_SPACES:
        kind[first : last + 1] *= ALONE
    return kind


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts in their order, in lists of at least BATCH characters, the last one excepted.

    >>> [len(batch) for batch in batches(["x" * BATCH, "y", "z"])]
    [1, 2]
    """
    batch: list[str] = []
    length = 0
    for text in texts:
        batch.append(text)
        length += len(text)
        if length >= BATCH:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def train_texts(part: Path) -> Iterator[list[str]]:
    """The texts of the documents in a part that a model is trained on, in batches."""
    yield from batches(pq.read_table(part, columns=["text"], filters=[("split", "=", "train")])["text"].to_pylist())


# --- the index --------------------------------------------------------------------------------------------------------


def write_run(part: Path, target: Path) -> None:
    """Write the sorted n-grams of a part's training documents; what is there already is left as it is."""
    if target.exists():
        return
    found = [_distinct([hashed(texts)[0]]) for texts in train_texts(part)]
    with atomic(target) as file:
        _save([_distinct(found)], file)


def write_index(runs: Sequence[Path], file: Writable) -> int:
    """Merge runs into one index, which does not depend on how n-grams were spread over them; returns their number.

    Intermediate runs go beside the first one.
    """
    level = 0
    while len(runs) > FAN_IN:
        merged = []
        for first in range(0, len(runs), FAN_IN):
            merged.append(runs[0].with_name(f"merged-{level}-{len(merged):05d}.npy"))
            with atomic(merged[-1]) as intermediate:
                _write_merged(runs[first : first + FAN_IN], intermediate)
        runs, level = merged, level + 1
    return _write_merged(runs, file)


def _write_merged(runs: Sequence[Path], file: Writable) -> int:
    opened = [_load(path) for path in runs]
    # merged twice, once to count: the length stands before the hashes, and the file is digested while it is written
    count = sum(len(piece) for piece in _merged(opened))
    _header(count, file)
    for piece in _merged(opened):
        file.write(piece.tobytes())
    return count


def _merged(runs: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The distinct hashes of sorted runs, sorted, in pieces of about PIECE: hashes lie evenly over their range."""
    pieces = 1 + sum(len(run) for run in runs) // PIECE
    bounds = np.array([(number << 64) // pieces for number in range(1, pieces)], HASH)
    cuts = [[0, *np.searchsorted(run, bounds).tolist(), len(run)] for run in runs]
    for number in range(pieces):
        yield _distinct([run[cut[number] : cut[number + 1]] for run, cut in zip(runs, cuts, strict=True)])


def _distinct(found: Sequence[np.ndarray]) -> np.ndarray:
    ordered = np.sort(np.concatenate([np.empty(0, HASH), *found]))  # np.unique takes several times as long
    return ordered[np.diff(ordered, prepend=~ordered[:1]) != 0]


def _save(pieces: Sequence[np.ndarray], file: Writable) -> None:
    _header(sum(len(piece) for piece in pieces), file)
    for piece in pieces:
        file.write(piece.tobytes())


def _header(count: int, file: Writable) -> None:
    described = {"descr": HASH.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(cast(BinaryIO, file), described)


def _load(path: Path) -> np.ndarray:
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no index of n-grams: {error}.", "Run the stage corpus again.") from error
    if found.dtype != HASH or found.ndim != 1:
        raise InputError(f"{path} is no index of n-grams but holds {found.dtype}.", "Name a corpus's ngrams.npy.")
    return found


@dataclass(frozen=True, slots=True)
class Index:
    """The n-grams of a corpus, looked up where they lie on disk."""

    hashes: np.ndarray

    def __len__(self) -> int:
        """How many distinct n-grams the corpus has."""
        return len(self.hashes)

    def holds(self, hash_G: np.ndarray) -> np.ndarray:
        """Which of these n-grams the corpus has."""
        if not len(self.hashes):
            return np.zeros(len(hash_G), dtype=bool)
        wanted, back = np.unique(hash_G, return_inverse=True)  # in order, so that a page is read once
        place = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        return (self.hashes[place] == wanted)[back]


def open_index(path: Path) -> Index:
    """The index in a file; InputError where it is missing or something else."""
    return Index(_load(path))
