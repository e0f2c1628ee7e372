"""Count what became of every document and byte: the funnel that the report shows.

In:  one fate a document.  Out: a JSON value whose steps add up to the whole input, in documents and in bytes.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from codeweft.corpus.rules import RULES

READING = ("unreadable", "size", "binary", "encoding", "language")
DUPLICATES = ("exact_duplicate", "near_duplicate")
STEPS = (*READING, *(rule.name for rule in RULES), *DUPLICATES)


@dataclass(slots=True)
class Fate:
    """What the later steps need of a document: everything but its text. `reason` is empty for what is kept."""

    id: str
    kind: str
    language: str
    source: str
    repository: str
    bytes: int
    stars: int | None
    text_digest: str
    reason: str
    detail: str
    split: str = "train"


def funnel(fates: Sequence[Fate]) -> dict[str, Any]:
    """The counts: `input`, `steps` in order, `kept`, `languages`, `splits`, `sources`; shares are of input bytes."""
    whole = _sum(fates)
    remaining = dict(whole)
    dropped = _grouped(fates, lambda fate: fate.reason)
    steps = []
    for name in STEPS:
        lost = _sum(dropped.pop(name, []))
        left = {key: remaining[key] - lost[key] for key in remaining}
        steps.append(
            {
                "name": name,
                "documents_in": remaining["documents"],
                "bytes_in": remaining["bytes"],
                "documents_dropped": lost["documents"],
                "bytes_dropped": lost["bytes"],
                "documents_out": left["documents"],
                "bytes_out": left["bytes"],
                "share_dropped": _share(lost["bytes"], whole["bytes"]),
            }
        )
        remaining = left
    kept = dropped.pop("", [])
    assert not dropped, f"no step is called {sorted(dropped)}"
    assert _sum(kept) == remaining, "the steps do not add up to the input"
    return {
        "input": whole,
        "steps": steps,
        "kept": remaining | {"share": _share(remaining["bytes"], whole["bytes"])},
        "languages": _languages(fates),
        "splits": _splits(kept),
        "sources": _sources(fates),
    }


def _sum(fates: Iterable[Fate]) -> dict[str, int]:
    sizes = [fate.bytes for fate in fates]
    return {"documents": len(sizes), "bytes": sum(sizes)}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _grouped(fates: Iterable[Fate], key: Any) -> dict[Any, list[Fate]]:
    groups: dict[Any, list[Fate]] = defaultdict(list)
    for fate in fates:
        groups[key(fate)].append(fate)
    return groups


def _languages(fates: Sequence[Fate]) -> list[dict[str, Any]]:
    """One row a kind and language, most kept bytes first; an empty language stands for files of unknown language."""
    rows = []
    for (kind, language), members in _grouped(fates, lambda fate: (fate.kind, fate.language)).items():
        kept = _sum(fate for fate in members if not fate.reason)
        whole = _sum(members)
        rows.append(
            {
                "kind": kind,
                "language": language,
                "documents_in": whole["documents"],
                "bytes_in": whole["bytes"],
                "documents_kept": kept["documents"],
                "bytes_kept": kept["bytes"],
            }
        )
    return sorted(rows, key=lambda row: (-row["bytes_kept"], -row["bytes_in"], row["kind"], row["language"]))


def _splits(kept: Sequence[Fate]) -> dict[str, dict[str, dict[str, int]]]:
    """Kind -> split -> documents, bytes, repositories."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    for (kind, split), members in sorted(_grouped(kept, lambda fate: (fate.kind, fate.split)).items()):
        repositories = len({fate.repository for fate in members})
        table.setdefault(kind, {})[split] = _sum(members) | {"repositories": repositories}
    return table


def _sources(fates: Sequence[Fate]) -> list[dict[str, Any]]:
    rows = []
    for (kind, source), members in sorted(_grouped(fates, lambda fate: (fate.kind, fate.source)).items()):
        kept = _sum(fate for fate in members if not fate.reason)
        rows.append(
            {
                "kind": kind,
                "source": source,
                "repositories": len({fate.repository for fate in members}),
                **{f"{key}_in": value for key, value in _sum(members).items()},
                **{f"{key}_kept": value for key, value in kept.items()},
            }
        )
    return rows
