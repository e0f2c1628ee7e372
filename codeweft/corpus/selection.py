"""Choose which repositories are read under a limit, and which are held out: pure functions of names and sizes.

In:  sizes by repository, a limit or a fraction, a seed.  Out: what is to be read; the names held out.

Unusual: both choices go through the repositories in an order drawn by hash, so that adding one repository hardly
changes what becomes of the others, and neither depends on the order in which a file system lists.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from codeweft.base.seeds import derive
from codeweft.corpus.entries import Entry

LARGE = 0.25  # of the limit: larger repositories are taken last
OVERSHOOT = 2.0  # a repository is held out only while the kind's held-out bytes stay under this multiple of the target


@dataclass(frozen=True)
class Choice:
    """What is read under a limit: whole repositories, and of one more some files."""

    whole: set[str]
    partial: str  # the repository that is read in part
    files_N: np.ndarray  # for each of its files, in the order of the entries, whether it is read

    def select(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Those of the entries, which are the ones that were chosen from, that are read, in their order."""
        read = iter(self.files_N.tolist())
        for entry in entries:
            if entry.repository in self.whole or (entry.repository == self.partial and next(read)):
                yield entry


def under_limit(
    entries: Iterable[Entry], limit: int, seed: int, cost: Callable[[Entry], int] = lambda entry: entry.size
) -> Choice | None:  # fmt: skip
    """Choose whole repositories in hash order, each that still fits; None where everything does. Goes through twice.

    Repositories above a quarter of the limit come last, so that one of them does not make up the corpus. What remains
    is filled with files, in hash order, of the first repository that did not fit: only that one is read in part.
    cost: the bytes of the limit that an entry takes up.
    """
    sizes: dict[str, int] = defaultdict(int)
    for entry in entries:
        sizes[entry.repository] += cost(entry)
    if sum(sizes.values()) <= limit:
        return None
    taken: set[str] = set()
    used = 0
    left_out = []
    for name in sorted(_by_hash(sizes, seed, "limit"), key=lambda name: sizes[name] > LARGE * limit):
        if used + sizes[name] <= limit:
            taken.add(name)
            used += sizes[name]
        else:
            left_out.append(name)
    places: list[tuple[int, str]] = []
    costs: list[int] = []
    for entry in entries:
        if entry.repository == left_out[0]:
            places.append((derive(seed, "corpus", "limit", "files", entry.full_path), entry.full_path))
            costs.append(cost(entry))
    files_N = np.zeros(len(costs), dtype=bool)
    for place in sorted(range(len(costs)), key=places.__getitem__):
        if used + costs[place] <= limit:
            files_N[place] = True
            used += costs[place]
    return Choice(taken, left_out[0], files_N)


def _by_hash(names: Mapping[str, object], seed: int, *stream: str) -> list[str]:
    return sorted(names, key=lambda name: (derive(seed, "corpus", *stream, name), name))


@dataclass
class HeldOut:
    """Repositories that are held out whole and, for kinds that have a single one, documents."""

    repositories: set[str] = field(default_factory=set)
    documents: set[str] = field(default_factory=set)
    by_document: list[str] = field(default_factory=list)


def hold_out(sizes: Mapping[tuple[str, str], Mapping[str, int]], fraction: float, seed: int) -> HeldOut:
    """Decide what is held out.

    sizes: (kind, repository) -> id -> bytes. A repository is held out in every kind or in none. Each kind gets at least
    its fraction of bytes if repositories allow it without overshooting, at least one repository in any case and never
    all; a kind of one repository is split by document and named in `by_document`.
    """
    held = HeldOut()
    if not fraction:
        return held
    kinds: dict[str, dict[str, int]] = defaultdict(dict)
    for (kind, repository), documents in sizes.items():
        kinds[kind][repository] = sum(documents.values())
    target = {kind: fraction * sum(repositories.values()) for kind, repositories in kinds.items()}
    reached = dict.fromkeys(kinds, 0)

    def take(name: str) -> None:
        held.repositories.add(name)
        for kind in kinds:
            reached[kind] += kinds[kind].get(name, 0)

    for name in _by_hash({name: None for kind in kinds for name in kinds[kind]}, seed, "held-out"):
        member = [kind for kind in kinds if name in kinds[kind]]
        wanted = any(reached[kind] < target[kind] for kind in member)
        if wanted and all(reached[kind] + kinds[kind][name] <= OVERSHOOT * target[kind] for kind in member):
            take(name)
    for kind in sorted(kinds):
        if reached[kind]:
            continue
        spare = [name for name in kinds[kind] if _leaves_some(name, kinds, held.repositories)]
        if spare:
            take(min(spare, key=lambda name: (kinds[kind][name], name)))
        else:
            held.by_document.append(kind)
            held.documents |= _some_documents(kind, sizes, fraction, seed)
    return held


def _leaves_some(name: str, kinds: Mapping[str, Mapping[str, int]], held: set[str]) -> bool:
    """Whether every kind keeps a repository to train on when `name` is held out too."""
    return all(set(repositories) - held - {name} for repositories in kinds.values() if name in repositories)


def _some_documents(
    kind: str, sizes: Mapping[tuple[str, str], Mapping[str, int]], fraction: float, seed: int
) -> set[str]:
    documents = {name: size for (of, _), inner in sizes.items() if of == kind for name, size in inner.items()}
    chosen: set[str] = set()
    total, held = sum(documents.values()), 0
    for name in _by_hash(documents, seed, "held-out", "documents")[: max(len(documents) - 1, 0)]:
        if held >= fraction * total:
            break
        if not chosen or held + documents[name] <= OVERSHOOT * fraction * total:
            chosen.add(name)
            held += documents[name]
    return chosen
