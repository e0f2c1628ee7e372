"""Find exact and near-duplicates: equal text, and MinHash signatures that agree in enough places.

In:  parts (Parquet with id, text, reason) and facts about the documents.  Out: for each duplicate the id that is kept.
Source: near-deduplication by MinHash (DeepSeek-Coder §2.3); its settings are unpublished, so the defaults follow
StarCoder: shingles of 5 words, Jaccard similarity 0.7, bands that minimise the area of both errors.

Unusual: daft computes signatures (on one machine or on a Ray cluster), the driver does the rest, band by band, holding
4 bytes x permutations a document. Candidates are checked against their whole signatures before they count. Words are
Unicode words, so that text in any script has some; a script without spaces gives long words and so finds less.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")  # daft would report its use over the network
os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
os.environ.setdefault("DAFT_SHOW_QUERY_ID", "0")
import daft
from daft import col
from daft import functions as F

# A false candidate costs a comparison, since all are checked, but a miss stays: with 128 values and 0.7 this makes
# candidates of 92 % of the pairs exactly at the threshold, where equal weights would of 44 %.
MISSED_WEIGHT = 0.9
ROWS = 1 << 16  # signatures that are moved at a time
BUCKET_PAIRS = 256  # buckets up to this size are compared pair by pair, larger ones against leaders


def signatures(
    parts: Sequence[Path], wanted: Iterable[str], permutations: int, ngram: int, seed: int
) -> tuple[list[str], np.ndarray]:
    """Ids, sorted, and their MinHash signatures (uint32 [documents, permutations]) of the wanted rows in `parts`.

    Documents with fewer than `ngram` words are left out: they have no shingle.
    """
    names = sorted(wanted)
    place_of = {name: place for place, name in enumerate(names)}
    found_N = np.zeros(len(names), dtype=bool)
    signatures_NP = np.empty((len(names), permutations), np.uint32)
    for batch in _computed(parts, permutations, ngram, seed):
        places = np.array([place_of.get(name, -1) for name in batch["id"].to_pylist()], dtype=np.int64)
        values = batch["signature"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        signatures_NP[places[places >= 0]] = values.reshape(-1, permutations)[places >= 0]
        found_N[places[places >= 0]] = True
    present = np.flatnonzero(found_N)
    for start in range(0, len(present), ROWS):  # moved up in place: a copy would double the largest array there is
        here = present[start : start + ROWS]
        signatures_NP[start : start + len(here)] = signatures_NP[here]
    return [names[place] for place in present.tolist()], signatures_NP[: len(present)]


def _computed(parts: Sequence[Path], permutations: int, ngram: int, seed: int) -> Iterator[pa.Table]:
    """Tables of id and signature, in no particular order."""
    rows = daft.read_parquet([str(part) for part in parts]).where("reason = ''")
    words = F.regexp_replace(F.regexp_replace(col("text"), r"\W+", " "), r"^ | $", "")
    rows = rows.select("id", words.alias("words"))
    rows = rows.select("id", "words", F.regexp_count(col("words"), " ").alias("spaces")).where(f"spaces >= {ngram - 1}")
    minhash = F.minhash(
        col("words"), num_hashes=permutations, ngram_size=ngram, seed=seed, hash_function="xxhash3_64"
    )  # fmt: skip
    for batch in rows.select("id", minhash.alias("signature")).to_arrow_iter():
        yield pa.Table.from_batches([batch])


def choose_bands(permutations: int, threshold: float, missed_weight: float = 0.5) -> tuple[int, int]:
    """Bands and rows a band, bands x rows <= permutations, with the least weighted area of false positives and misses.

    A pair of similarity s becomes a candidate with probability 1 - (1 - s^rows)^bands.
    missed_weight: what a miss counts; a false positive counts the rest to 1. StarCoder: one half.

    >>> choose_bands(256, 0.7)
    (25, 10)
    """
    grid = np.linspace(0, 1, 2001)
    best, choice = np.inf, (1, 1)
    for rows in range(1, permutations + 1):
        for bands in range(1, permutations // rows + 1):
            missed = (1 - grid**rows) ** bands
            area = np.where(grid < threshold, (1 - missed_weight) * (1 - missed), missed_weight * missed).mean()
            if area < best:
                best, choice = area, (bands, rows)
    return choice


def clusters(signatures_NP: np.ndarray, threshold: float) -> np.ndarray:
    """A cluster number for each of N signatures of P permutations; equal numbers: near-duplicates.

    Clusters are connected components over pairs that share a band and agree in at least `threshold` of all places.
    """
    count, permutations = signatures_NP.shape
    bands, rows = choose_bands(permutations, threshold, MISSED_WEIGHT)
    edges: set[tuple[int, int]] = set()
    for band in range(bands):
        keys = np.ascontiguousarray(signatures_NP[:, band * rows : (band + 1) * rows])
        _, bucket = np.unique(keys.view(f"V{rows * keys.itemsize}").ravel(), return_inverse=True)
        order = np.argsort(bucket, kind="stable")
        starts = np.flatnonzero(np.diff(bucket[order], prepend=-1))
        lengths = np.diff(starts, append=count)
        shared = lengths > 1
        for start, length in zip(starts[shared].tolist(), lengths[shared].tolist(), strict=True):
            edges.update(_alike(order[start : start + length], signatures_NP, threshold))
    pairs = np.array(sorted(edges), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _alike(members: np.ndarray, signatures_NP: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Pairs of a bucket whose signatures agree enough; in a big bucket only pairs with a leader.

    A leader is the first member that no earlier leader is alike to, which keeps a bucket of thousands of copies linear.
    """
    found = []
    remaining = np.sort(members)
    by_leaders = len(members) > BUCKET_PAIRS
    while len(remaining) > 1:
        leader, others = remaining[0], remaining[1:]
        alike = (signatures_NP[others] == signatures_NP[leader]).mean(axis=1) >= threshold
        found += [(int(leader), int(other)) for other in others[alike]]
        remaining = others[~alike] if by_leaders else others
    return found


def best(ids: Sequence[str], stars: Mapping[str, int | None], sizes: Mapping[str, int]) -> str:
    """The member of a cluster to keep: most stars, then longest, then smallest id."""
    return min(ids, key=lambda name: (-(stars[name] or 0), -sizes[name], name))


def superseded(
    groups: Mapping[object, Sequence[str]], stars: Mapping[str, int | None], sizes: Mapping[str, int]
) -> dict[str, str]:
    """For every member of a group but its best, the id of the best."""
    kept = {}
    for ids in groups.values():
        if len(ids) > 1:
            keeper = best(ids, stars, sizes)
            kept |= {name: keeper for name in ids if name != keeper}
    return kept
