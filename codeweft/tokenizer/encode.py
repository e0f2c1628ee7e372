"""Encodes copies of documents in parallel, plain or cut for infilling, into a folder of finished pieces.

In:  a catalogue and the copies wanted, each a document and a pass.  Out: an array of copies: where each one's tokens
stand in which piece, how many they are, whether and how it was cut.
Source: DeepSeek-Coder-V2 §3.1 (infilling at document level with rate 0.5).

Unusual: every chance is drawn from the document's id and the pass, and results are kept in the order of the work, so
neither the number of processes nor the cutting into files changes a token. Plain copies of a document share tokens.
A piece is named after what was to be encoded, written whole, and not encoded again by a stage that was cut off.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from codeweft.base.artifacts import atomic, digest_file, digest_of, read_json, write_json
from codeweft.base.errors import UserError
from codeweft.base.progress import say
from codeweft.base.seeds import generator
from codeweft.base.workers import worker_processes
from codeweft.tokenizer.catalogue import Catalogue, Group
from codeweft.tokenizer.fim import Cut, cut, infill_document, plain_document, segments
from codeweft.tokenizer.load import Tokenizer, load_tokenizer

Item = TypeVar("Item")
Result = TypeVar("Result")
Planned = tuple[int, tuple[int, ...], tuple[Cut, ...]]  # document, its epochs with these cuts, no cuts if plain

# One row a copy. `document` is its number in the catalogue, `piece` that of the piece with its tokens, in which `start`
# counts; `coarser` tells that the language has no grammar, so that it was cut at lines instead of syntax nodes.
COPY = np.dtype(
    [
        *[("document", "i8"), ("epoch", "i4"), ("piece", "i4"), ("start", "i8"), ("length", "i8")],
        *[("fim", "?"), ("coarser", "?")],
    ]
)
GROUP_BYTES = 2_000_000  # text in one piece of work, unless a single document is larger
MAPPED_PIECES = 256  # kept open at once: a process may open a thousand files or so


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
            copies += [(number, epoch, 0, start, len(tokens), bool(found), coarser) for epoch in epochs]
            documents.append(np.array(tokens, dtype=self.dtype))
            start += len(tokens)
        return np.array(copies, dtype=COPY), np.concatenate(documents)


@cache
def _loaded(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


class Pieces:
    """The finished pieces of a folder: each a file of tokens, one of COPY rows and, written last, their digests."""

    def __init__(self, folder: Path, dtype: np.dtype) -> None:
        self.folder, self.dtype = folder, dtype
        self.names: list[str] = []
        self._mapped = lru_cache(MAPPED_PIECES)(self._map)

    def take_up(self, name: str) -> np.ndarray:
        """The COPY rows of a finished piece, which becomes readable by its number."""
        copies = np.load(self.folder / f"{name}.npy")
        copies["piece"] = len(self.names)
        self.names.append(name)
        return copies

    def tokens(self, copy: np.void) -> np.ndarray:
        """The tokens of a copy that was taken up."""
        return self._mapped(int(copy["piece"]))[copy["start"] : copy["start"] + copy["length"]]

    def _map(self, piece: int) -> np.ndarray:
        return np.memmap(self.folder / f"{self.names[piece]}.tokens", self.dtype, mode="r")


@dataclass(frozen=True, slots=True)
class Piece:
    """What a process does: encode some work and write it as the piece `name` of a folder, unless it is there whole."""

    encoder: Encoder
    folder: Path
    name: str
    work: Work

    def write(self) -> str:
        """Write the piece's files; returns its name."""
        if not self._finished():
            copies, tokens = self.encoder.encode(self.work)
            with atomic(self.folder / f"{self.name}.tokens") as of_tokens:
                of_tokens.write(tokens.tobytes())
            with atomic(self.folder / f"{self.name}.npy") as of_copies:
                np.save(cast(Any, of_copies), copies)
            digests = {"tokens": of_tokens.digest, "npy": of_copies.digest}
            write_json(self.folder / f"{self.name}.json", digests)
        return self.name

    def _finished(self) -> bool:
        if not (self.folder / f"{self.name}.json").exists():
            return False
        for kind, digest in read_json(self.folder / f"{self.name}.json").items():
            path = self.folder / f"{self.name}.{kind}"
            if not path.is_file() or digest_file(path) != digest:
                say(f"tokens: {path} is damaged; its documents are encoded again.")
                return False
        return True


def encode_copies(
    catalogue: Catalogue, wanted: np.ndarray, encoder: Encoder, pieces: Pieces, submit: "Mapper"
) -> np.ndarray:
    """Encode the wanted copies (COPY rows with document and epoch) and return them, complete, in the same order."""
    divided = list(_divided(catalogue, wanted))
    # a piece's documents, their passes and how they are cut say what it holds: inputs and settings are the stage's own
    work = [
        Piece(encoder, pieces.folder, _name(numbers, each.epochs, encoder.fim_rate), each) for each, numbers in divided
    ]
    done = blank_copies(len(wanted))
    filled = 0
    for (_, numbers), name in zip(divided, submit(Piece.write, work), strict=True):
        copies = pieces.take_up(name)
        copies["document"] = numbers[copies["document"]]
        done[filled : filled + len(copies)] = copies
        filled += len(copies)
    assert filled == len(wanted)
    order = np.empty(len(wanted), np.int64)
    order[np.lexsort((wanted["epoch"], wanted["document"]))] = np.lexsort((done["epoch"], done["document"]))
    return done[order]


def _name(numbers: np.ndarray, epochs: tuple[tuple[int, ...], ...], fim_rate: float) -> str:
    return "piece-" + digest_of([numbers.tolist(), epochs, fim_rate]).removeprefix("blake2b:")


def _divided(catalogue: Catalogue, wanted: np.ndarray) -> Iterator[tuple[Work, np.ndarray]]:
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
    with worker_processes(workers) as pool:

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
                    "Use fewer of them (--run.workers=1); finished pieces are kept.",
                ) from error

        yield mapped
