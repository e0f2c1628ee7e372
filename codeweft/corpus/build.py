"""The stage corpus: raw sources to unique, filtered documents with a split, and a reason for everything dropped.

In:  the sources in [corpus].  Out: corpus/documents/part-*.parquet, corpus/dropped/part-*.parquet, corpus/funnel.json.
Source: DeepSeek-Coder-V2 §2 and DeepSeek-Coder §2.1 (filter rules, near-deduplication).

The steps: list -> limit -> read, decode, name the language, ask the rules -> exact duplicates -> near-duplicates ->
held-out split by repository -> write. Unusual: text passes through in parts and never as a whole through this process;
only ids, sizes and signatures do. The result does not depend on the number of workers.
"""

import multiprocessing
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codeweft.base.errors import InputError
from codeweft.base.progress import bar, say
from codeweft.base.records import Document, Dropped, schema
from codeweft.base.runs import Run
from codeweft.base.seeds import derive
from codeweft.corpus import near_duplicates
from codeweft.corpus.config import CorpusConfig
from codeweft.corpus.entries import Entry
from codeweft.corpus.funnel import Fate, funnel
from codeweft.corpus.reading import read_part
from codeweft.corpus.selection import HeldOut, hold_out, under_limit
from codeweft.corpus.sources import KINDS, inputs, list_sources

__all__ = ["inputs", "run"]
STAGING_FOLDER = "staging"


def run(config: CorpusConfig, run: Run) -> dict[str, float | list[float]]:
    """Build the corpus; the headline is the share of bytes kept and the number of documents.

    InputError where a source is missing or holds nothing, or where the rules leave nothing of a kind.
    """
    listing = list_sources(config, run.seed)
    entries, limits = _apply_limits(listing.entries, config, run.seed)
    staged = _read(_into_parts(entries, config), config, run)
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
    shutil.rmtree(run.folder / STAGING_FOLDER)
    return {"kept_fraction": counts["kept"]["share"], "documents": counts["kept"]["documents"]}


def _apply_limits(entries: list[Entry], config: CorpusConfig, seed: int) -> tuple[list[Entry], dict[str, Any]]:
    chosen, limits = [], {}
    for kind in KINDS:
        offered = [entry for entry in entries if entry.kind == kind]
        taken = under_limit(offered, config.limit(kind), seed)
        if len(taken) < len(offered):
            limits[kind] = {"offered": _extent(offered), "read": _extent(taken)}
            read, whole = limits[kind]["read"], limits[kind]["offered"]
            say(
                f"corpus: {kind}_megabytes = {config.limit(kind) / 1e6:g} lets in {read['bytes'] / 1e6:.1f} of "
                f"{whole['bytes'] / 1e6:.1f} MB ({read['repositories']} of {whole['repositories']} repositories)."
            )
        chosen += taken
    if not chosen:
        raise InputError("Every file is larger than the limits let in.", "Raise --corpus.code_megabytes.")
    return chosen, limits


def _extent(entries: Sequence[Entry]) -> dict[str, int]:
    return {
        "documents": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "repositories": len({entry.repository for entry in entries}),
    }


def _into_parts(entries: Sequence[Entry], config: CorpusConfig) -> list[list[Entry]]:
    """Entries in their order, cut where a part reaches `part_megabytes`."""
    parts: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if size >= config.part_megabytes * 1e6:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += entry.size
    return parts


def _read(parts: list[list[Entry]], config: CorpusConfig, run: Run) -> list[Path]:
    """Write one staging file a part, in worker processes where there are several; returns them in order."""
    folder = run.folder / STAGING_FOLDER
    paths = [folder / f"part-{number:05d}.parquet" for number in range(len(parts))]
    with bar("corpus: reading", sum(map(len, parts)), "files") as shown:
        if min(run.workers, len(parts)) <= 1:
            for entries, path in zip(parts, paths, strict=True):
                shown.advance(read_part(entries, path, config))
            return paths
        # spawn: a forked child would inherit Arrow's threads in whatever state they are
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(run.workers, len(parts)), mp_context=context) as pool:
            tasks = [pool.submit(read_part, *work, config) for work in zip(parts, paths, strict=True)]
            for task in as_completed(tasks):
                shown.advance(task.result())
    return paths


def _read_fates(staged: Sequence[Path]) -> dict[str, Fate]:
    names = ["id", "kind", "language", "source", "repository", "bytes", "stars", "text_digest", "reason", "detail"]
    fates: dict[str, Fate] = {}
    rows = 0
    for path in staged:
        for row in pq.read_table(path, columns=names).to_pylist():
            fates[row["id"]] = Fate(**row)
            rows += 1
    assert len(fates) == rows, "two documents have one id"
    return fates


def _mark_exact_duplicates(fates: Mapping[str, Fate]) -> None:
    by_text: dict[object, list[str]] = defaultdict(list)
    for fate in fates.values():
        if not fate.reason:
            by_text[fate.text_digest].append(fate.id)
    _mark(fates, by_text, "exact_duplicate")


def _mark_near_duplicates(
    fates: Mapping[str, Fate], staged: Sequence[Path], config: CorpusConfig, seed: int
) -> None:  # fmt: skip
    hash_seed = derive(seed, "corpus", "minhash") % 2**31
    ids, signatures_NP = near_duplicates.signatures(staged, config.permutations, config.ngram, hash_seed)
    unique = [place for place, name in enumerate(ids) if not fates[name].reason]
    if not unique:
        return
    labels = near_duplicates.clusters(signatures_NP[unique], config.similarity)
    clusters: dict[object, list[str]] = defaultdict(list)
    for place, label in zip(unique, labels.tolist(), strict=True):
        clusters[label].append(ids[place])
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
