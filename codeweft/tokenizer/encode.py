"""Encodes copies of documents in parallel, plain or cut for infilling, into one file of tokens.

In:  a catalogue and the copies wanted, each a document and a pass.  Out: an array of copies: where each one's tokens
stand in the file, how many they are, whether and how it was cut.
Source: DeepSeek-Coder-V2 §3.1 (infilling at document level with rate 0.5).

Unusual: every chance is drawn from the document's id and the pass, and results are kept in the order of the work, so
neither the number of processes nor the cutting into files changes a token. Plain copies of a document share tokens.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from codeweft.base.errors import UserError
from codeweft.base.seeds import generator
from codeweft.tokenizer.catalogue import Catalogue, Group
from codeweft.tokenizer.fim import Cut, cut, infill_document, plain_document, segments
from codeweft.tokenizer.load import Tokenizer, load_tokenizer

Item = TypeVar("Item")
Result = TypeVar("Result")
Planned = tuple[int, tuple[int, ...], tuple[Cut, ...]]  # document, its epochs with these cuts, no cuts if plain

# One row a copy. `document` is its number in the catalogue, `start` counts tokens in the file, `coarser` tells that
# the document's language has no grammar, so that it was cut at lines instead of syntax nodes.
COPY = np.dtype(
    [("document", "i8"), ("epoch", "i4"), ("start", "i8"), ("length", "i8"), ("fim", "?"), ("coarser", "?")]
)
GROUP_BYTES = 2_000_000  # text in one piece of work, unless a single document is larger


def blank_copies(number: int) -> np.ndarray[Any, Any]:
    """COPY rows to fill in."""
    return np.zeros(number, COPY)


@dataclass(frozen=True, slots=True)
class Work:
    """Rows to read, and the passes of each in which a copy is wanted; the result has the same order."""

    group: Group
    epochs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Encoder:
    """How documents are encoded; small enough to be sent along with every piece of work."""

    tokenizer: Path
    seed: int
    fim_rate: float
    fim_cut: str
    fim_kinds: tuple[str, ...]
    fim_segment: int
    dtype: np.dtype

    def encode(self, work: Work) -> tuple[np.ndarray, np.ndarray]:
        """(copies, tokens): COPY rows with starts in `tokens`; their documents are numbered within the work."""
        tokenizer = _loaded(self.tokenizer)
        rows = work.group.read(("id", "kind", "language", "text"))
        parts: list[str] = []  # texts to encode: a plain document, or three parts of each segment of a cut one
        plan: list[Planned] = []
        for number, (row, epochs) in enumerate(zip(rows, work.epochs, strict=True)):
            cuts = {epoch: self._cut(row, epoch) for epoch in epochs}
            plain = tuple(epoch for epoch, found in cuts.items() if not found)
            if plain:
                plan.append((number, plain, ()))
                parts.append(row["text"])
            for epoch, found in cuts.items():
                if found:
                    plan.append((number, (epoch,), found))
                    parts += [part for each in found for part in (each.prefix, each.middle, each.suffix)]
        return self._laid_out(tokenizer, plan, iter(tokenizer.encode_batch(parts)))

    def _cut(self, row: dict[str, str], epoch: int) -> tuple[Cut, ...]:
        if row["kind"] not in self.fim_kinds or not self.fim_rate:
            return ()
        random = generator(self.seed, "tokens", "fim", row["id"], epoch)
        if random.random() >= self.fim_rate:
            return ()
        texts = segments(row["text"], self.fim_segment) if self.fim_segment else [row["text"]]
        return tuple(cut(text, row["language"], self.fim_cut, random) for text in texts)

    def _laid_out(
        self, tokenizer: Tokenizer, plan: list[Planned], ids: Iterator[list[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        copies, documents, start = [], [], 0
        for number, epochs, found in plan:
            tokens = [] if found else plain_document(tokenizer, next(ids))
            for _ in found:
                tokens += infill_document(tokenizer, next(ids), next(ids), next(ids))
            coarser = any(each.granularity != self.fim_cut for each in found)
            copies += [(number, epoch, start, len(tokens), bool(found), coarser) for epoch in epochs]
            documents.append(np.array(tokens, dtype=self.dtype))
            start += len(tokens)
        return np.array(copies, dtype=COPY), np.concatenate(documents)


@cache
def _loaded(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


class TokenFile:
    """A file that tokens are appended to and later read from by position; removed when the block ends."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.path, self.dtype, self.length = path, dtype, 0
        self._file = path.open("wb")

    def append(self, tokens: np.ndarray) -> int:
        """Write tokens behind the others; returns where they start."""
        start = self.length
        self._file.write(tokens.tobytes())
        self.length += len(tokens)
        return start

    def mapped(self) -> np.ndarray:
        """Everything written so far."""
        self._file.flush()
        return np.memmap(self.path, self.dtype, mode="r") if self.length else np.zeros(0, self.dtype)

    def __enter__(self) -> "TokenFile":
        """The file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close and remove."""
        self._file.close()
        self.path.unlink()


def encode_copies(
    catalogue: Catalogue, wanted: np.ndarray, encoder: Encoder, file: TokenFile, submit: "Mapper"
) -> np.ndarray:
    """Encode the wanted copies (COPY rows with document and epoch) and return them, complete, in the same order."""
    pieces = list(_pieces(catalogue, wanted))
    done = blank_copies(len(wanted))
    filled = 0
    for (_, numbers), (copies, tokens) in zip(
        pieces, submit(encoder.encode, [work for work, _ in pieces]), strict=True
    ):
        copies["start"] += file.append(tokens)
        copies["document"] = numbers[copies["document"]]
        done[filled : filled + len(copies)] = copies
        filled += len(copies)
    assert filled == len(wanted)
    order = np.empty(len(wanted), np.int64)
    order[np.lexsort((wanted["epoch"], wanted["document"]))] = np.lexsort((done["epoch"], done["document"]))
    return done[order]


def _pieces(catalogue: Catalogue, wanted: np.ndarray) -> Iterator[tuple[Work, np.ndarray]]:
    epochs: dict[int, list[int]] = {}
    for document, epoch in zip(wanted["document"].tolist(), wanted["epoch"].tolist(), strict=True):
        epochs.setdefault(document, []).append(epoch)
    for group, numbers in catalogue.groups(np.array(sorted(epochs))):
        size = np.cumsum(catalogue.bytes_N[numbers] * [len(epochs[number]) for number in numbers.tolist()])
        for part in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(size // GROUP_BYTES)) + 1):
            rows = Group(group.path, group.row_group, tuple(group.rows[place] for place in part.tolist()))
            yield Work(rows, tuple(tuple(epochs[number]) for number in numbers[part].tolist())), numbers[part]


Mapper = Callable[[Callable[[Item], Result], Iterable[Item]], Iterator[Result]]


@contextmanager
def processes(workers: int) -> Generator[Mapper, None, None]:
    """An ordered map over `workers` processes that holds at most two unread results each; one worker: no process."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_single_threaded) as pool:

        def mapped(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
            waiting: list[Future[Result]] = []
            try:
                for item in items:
                    waiting.append(pool.submit(function, item))
                    if len(waiting) > 2 * workers:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            except BrokenProcessPool as error:
                raise UserError(
                    "A process that encodes text was killed, most likely for want of memory.",
                    "Use fewer of them: --run.workers=1.",
                ) from error

        yield mapped


def _single_threaded() -> None:
    # one process a core already: threads inside would only get in each other's way
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
