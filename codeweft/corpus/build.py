"""The stage corpus: raw sources to unique, filtered documents with a split, and a reason for everything dropped.

In:  the sources in [corpus].  Out: corpus/documents/part-*.parquet, corpus/dropped/part-*.parquet, corpus/funnel.json,
corpus/ngrams.npy.
Source: DeepSeek-Coder-V2 §2 and DeepSeek-Coder §2.1 (filter rules, near-deduplication).

The steps: list -> limit -> read, decode, name the language, ask the rules -> exact duplicates -> near-duplicates ->
held-out split by repository -> write -> index of the word n-grams that are trained on. Unusual: files are read while
they are still being listed (unless a limit has to know all sizes first: then the list waits on disk), and text passes
through in parts and never as a whole through this process; only ids, sizes and signatures do. The result does not
depend on the number of workers.
"""

import shutil
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codeweft.base.errors import InputError, UserError
from codeweft.base.progress import bar, say
from codeweft.base.records import Document, Dropped, Kind, schema
from codeweft.base.runs import Run
from codeweft.base.seeds import derive
from codeweft.base.workers import worker_processes
from codeweft.corpus import near_duplicates
from codeweft.corpus.config import CorpusConfig
from codeweft.corpus.entries import Entry, EntryFile
from codeweft.corpus.funnel import Fate, funnel
from codeweft.corpus.reading import read_part, too_large
from codeweft.corpus.selection import HeldOut, hold_out, under_limit
from codeweft.corpus.sources import KINDS, inputs, list_sources
from codeweft.source import ngrams

__all__ = ["inputs", "run"]
STAGING_FOLDER = "staging"
LISTING_FOLDER = "listing.partial"
PART_FILES = 10_000  # files in one part, however small they are
PARTS_FOR_PROCESSES = 16  # a part is indexed sooner (0.2 s) than a process is started


def run(config: CorpusConfig, run: Run) -> dict[str, float | list[float]]:
    """Build the corpus; the headline is the share of bytes kept and the number of documents.

    InputError where a source is missing or holds nothing, or where the rules leave nothing of a kind.
    """
    listing = list_sources(config, run.seed)
    limits: dict[str, Any] = {}
    staged = _read(_into_parts(_under_limits(listing.entries, config, run, limits), config), config, run)
    fates = _read_fates(staged)
    _mark_exact_duplicates(fates)
    if config.near_duplicates:
        _mark_near_duplicates(fates, staged, config, run.seed)
    _require_some(fates)
    held = _split(fates, config, run.seed)
    _write(staged, fates, run)
    counts = funnel(list(fates.values()))
    counts |= {
        "limits": limits,
        "passed_over": dict(sorted(listing.passed_over.items())),
        "held_out_by_document": held.by_document,
    }
    run.write("funnel.json", counts)
    run.counts |= {"input": counts["input"], "kept": counts["kept"], "splits": counts["splits"]}
    if config.ngrams:
        run.counts["ngrams"] = _write_ngrams(run)
    shutil.rmtree(run.folder / STAGING_FOLDER)
    shutil.rmtree(run.folder / LISTING_FOLDER, ignore_errors=True)
    return {"kept_fraction": counts["kept"]["share"], "documents": counts["kept"]["documents"]}


def _under_limits(
    entries: Iterable[Entry], config: CorpusConfig, run: Run, limits: dict[str, Any]
) -> Iterator[Entry]:  # fmt: skip
    """The entries that are read; what a limit leaves out is said, and told in `limits`."""

    def cost(entry: Entry) -> int:
        return 0 if too_large(entry, config) else entry.size

    for kind, stream in groupby(entries, attrgetter("kind")):
        if not config.limit(kind):
            yield from stream
            continue
        offered = EntryFile(run.folder / LISTING_FOLDER / f"{kind}.jsonl", stream)
        choice = under_limit(offered, config.limit(kind), run.seed, cost)
        if choice is None:
            yield from offered
            continue
        limits[kind] = {"offered": _extent(offered), "read": _extent(choice.select(offered))}
        _say_limit(kind, config.limit(kind), limits[kind])
        yield from choice.select(offered)


def _say_limit(kind: Kind, limit: int, extents: Mapping[str, Mapping[str, int]]) -> None:
    read, whole = extents["read"], extents["offered"]
    say(
        f"corpus: {kind}_megabytes = {limit / 1e6:g} lets in {read['bytes'] / 1e6:.1f} of "
        f"{whole['bytes'] / 1e6:.1f} MB ({read['repositories']} of {whole['repositories']} repositories)."
    )


def _extent(entries: Iterable[Entry]) -> dict[str, int]:
    documents = size = 0
    repositories: set[str] = set()
    for entry in entries:
        documents, size = documents + 1, size + entry.size
        repositories.add(entry.repository)
    return {"documents": documents, "bytes": size, "repositories": len(repositories)}


def _into_parts(entries: Iterable[Entry], config: CorpusConfig) -> Iterator[list[Entry]]:
    """Entries in their order, cut where a part reaches `part_megabytes` or PART_FILES."""
    part: list[Entry] = []
    size = 0
    for entry in entries:
        if size >= config.part_megabytes * 1e6 or len(part) == PART_FILES:
            yield part
            part, size = [], 0
        part.append(entry)
        size += entry.size
    if part:
        yield part


def _read(parts: Iterator[list[Entry]], config: CorpusConfig, run: Run) -> list[Path]:
    """Write one staging file a part, in worker processes where there are several; returns them in order."""
    staged: list[Path] = []

    def numbered(parts: Iterable[list[Entry]]) -> Iterator[tuple[list[Entry], Path]]:
        for entries in parts:
            staged.append(run.folder / STAGING_FOLDER / f"part-{len(staged):05d}.parquet")
            yield entries, staged[-1]

    with bar("corpus: reading", None, "files") as shown:
        if run.workers <= 1:
            for entries, path in numbered(parts):
                shown.advance(read_part(entries, path, config))
        else:
            for done in _in_processes(numbered(parts), config, run.workers):
                shown.advance(done)
    if not staged:
        raise InputError("Every file is larger than the limits let in.", "Raise --corpus.code_megabytes.")
    return staged


def _in_processes(work: Iterable[tuple[list[Entry], Path]], config: CorpusConfig, workers: int) -> Iterator[int]:
    """The number of files in each part that was read; the list of entries is never far ahead of the readers."""
    waiting: deque[Future[int]] = deque()
    try:
        with worker_processes(workers) as pool:
            for entries, path in work:
                waiting.append(pool.submit(read_part, entries, path, config))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "A process that reads files was killed, most likely for want of memory.",
            "Use fewer of them (--run.workers=1), or lower corpus.file_megabytes; finished parts are kept.",
        ) from error


def _read_fates(staged: Sequence[Path]) -> dict[str, Fate]:
    names = ["id", "kind", "language", "source", "repository", "bytes", "stars", "text_digest", "reason", "detail"]
    repeated = ("kind", "language", "source", "repository", "reason")
    fates: dict[str, Fate] = {}
    rows = 0
    for path in staged:
        for row in pq.read_table(path, columns=names).to_pylist():
            # one string for the many documents that share it
            row |= {name: intern(row[name]) for name in repeated}
            fates[row["id"]] = Fate(**row)
            rows += 1
    assert len(fates) == rows, "two documents have one id"
    return fates


def _mark_exact_duplicates(fates: Mapping[str, Fate]) -> None:
    first: dict[str, str] = {}
    groups: dict[object, list[str]] = {}
    for fate in fates.values():
        if fate.reason:
            continue
        if fate.text_digest in first:
            groups.setdefault(fate.text_digest, [first[fate.text_digest]]).append(fate.id)
        else:
            first[fate.text_digest] = fate.id
    _mark(fates, groups, "exact_duplicate")


def _mark_near_duplicates(
    fates: Mapping[str, Fate], staged: Sequence[Path], config: CorpusConfig, seed: int
) -> None:  # fmt: skip
    hash_seed = derive(seed, "corpus", "minhash") % 2**31
    unique = [fate.id for fate in fates.values() if not fate.reason]
    ids, signatures_NP = near_duplicates.signatures(staged, unique, config.permutations, config.ngram, hash_seed)
    if not ids:
        return
    label_N = near_duplicates.clusters(signatures_NP, config.similarity)
    clusters: dict[object, list[str]] = defaultdict(list)
    for place in np.flatnonzero(np.bincount(label_N)[label_N] > 1).tolist():
        clusters[label_N[place]].append(ids[place])
    _mark(fates, clusters, "near_duplicate")


def _mark(fates: Mapping[str, Fate], groups: Mapping[object, Sequence[str]], reason: str) -> None:
    stars = {name: fates[name].stars for ids in groups.values() for name in ids}
    sizes = {name: fates[name].bytes for name in stars}
    for name, keeper in near_duplicates.superseded(groups, stars, sizes).items():
        fates[name].reason, fates[name].detail = reason, keeper


def _require_some(fates: Mapping[str, Fate]) -> None:
    """InputError, naming the rule that dropped most, if nothing of a kind is left."""
    for kind in KINDS:
        members = [fate for fate in fates.values() if fate.kind == kind]
        if members and all(fate.reason for fate in members):
            dropped: dict[str, int] = defaultdict(int)
            for fate in members:
                dropped[fate.reason] += 1
            rule = max(sorted(dropped), key=lambda name: dropped[name])
            raise InputError(
                f"Nothing is left of {kind} after filtering: of {len(members)} files the rule `{rule}` dropped "
                f"{dropped[rule]}.",
                "Give a source with other files, or change that rule's setting under [corpus].",
            )


def _split(fates: Mapping[str, Fate], config: CorpusConfig, seed: int) -> HeldOut:
    sizes: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    kept = [fate for fate in fates.values() if not fate.reason]
    for fate in kept:
        sizes[fate.kind, fate.repository][fate.id] = fate.bytes
    held = hold_out(sizes, config.held_out_fraction, seed)
    for kind in held.by_document:
        say(f"corpus: {kind} comes from too few repositories to hold one out; single files are held out instead.")
    for fate in kept:
        if fate.repository in held.repositories or fate.id in held.documents:
            fate.split = "held-out"
    return held


def _write(staged: Sequence[Path], fates: Mapping[str, Fate], run: Run) -> None:
    """Turn each staging part into a part of documents and a part of dropped ones."""
    for path in staged:
        table = pq.read_table(path)
        here = [fates[name] for name in table["id"].to_pylist()]
        for column in ("split", "reason", "detail"):
            values = pa.array([getattr(fate, column) for fate in here], pa.string())
            table = table.set_column(table.schema.get_field_index(column), column, values)
        kept = pa.array([not fate.reason for fate in here], pa.bool_())
        dropped = pa.array([bool(fate.reason) for fate in here], pa.bool_())
        for folder, record, mask in (("documents", Document, kept), ("dropped", Dropped, dropped)):
            part = table.filter(mask).select(schema(record).names).cast(schema(record))
            # a first part is always there, so that readers find the folder and its schema
            if part.num_rows or path == staged[0]:
                run.write(f"{folder}/{path.name}", part)


def _write_ngrams(run: Run) -> int:
    """Index the word n-grams of the training documents; returns how many there are."""
    parts = [run.folder / name for name in run.outputs if name.startswith("documents/")]
    runs = [run.folder / STAGING_FOLDER / "ngrams" / f"{part.stem}.npy" for part in parts]
    with bar("corpus: n-grams", len(parts), "parts") as shown:
        if run.workers <= 1 or len(parts) < PARTS_FOR_PROCESSES:
            for part, target in zip(parts, runs, strict=True):
                ngrams.write_run(part, target)
                shown.advance()
        else:
            with worker_processes(run.workers) as pool:
                for _ in pool.map(ngrams.write_run, parts, runs):
                    shown.advance()
    with run.open(ngrams.INDEX) as file:
        return ngrams.write_index(runs, file)
