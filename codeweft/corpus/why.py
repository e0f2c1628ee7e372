"""Say what became of a source file: kept or dropped, by which rule and which number.

In:  a run folder and an id, a path, or the end of a path.  Out: one dictionary a matching document, and its sentence.
"""

import difflib
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codeweft.base.errors import InputError

FACTS = ["id", "kind", "language", "source", "repository", "path", "bytes", "split"]
VERDICT = ["reason", "detail"]
SHORTEST_ID = 8  # characters of an id that suffice to ask for it


def explain(run_folder: Path, what: str) -> list[dict[str, Any]]:
    """The fate of every document that `what` names, sorted by path.

    what: an id or its first 8 characters or more; a path as on disk; repository and path; or the end of either.
    Each fate holds id, kind, language, source, repository, path, bytes, split, kept, reason, detail and, for a
    duplicate, kept_path: the path of the document that was kept. InputError names near paths when nothing matches.
    """
    fates = _fates(run_folder)
    wanted = what.strip().replace("\\", "/").removeprefix("./")
    found = [fate for fate in fates if _matches(fate, wanted)]
    if not found:
        raise InputError(f"No document of {run_folder} is called {what}.", _nearest(fates, wanted))
    paths = {fate["id"]: _full(fate) for fate in fates}
    for fate in found:
        fate["kept_path"] = paths.get(fate["detail"]) if fate["reason"].endswith("duplicate") else None
    return sorted(found, key=lambda fate: (_full(fate), fate["id"]))


def sentence(fate: dict[str, Any]) -> str:
    """One fate as a line for the terminal."""
    name = f"{_full(fate)} ({fate['language'] or 'unknown language'}, {fate['bytes']} bytes)"
    if fate["kept"]:
        return f"{name}: kept as {fate['kind']}, split {fate['split']}, id {fate['id']}"
    if fate["kept_path"]:
        return f"{name}: dropped, {fate['reason'].replace('_', ' ')} of {fate['kept_path']} ({fate['detail']})"
    detail = f" = {fate['detail']}" if fate["detail"] else ""
    return f"{name}: dropped by the rule {fate['reason']}{detail}"


def _fates(run_folder: Path) -> list[dict[str, Any]]:
    corpus = run_folder / "corpus"
    fates: list[dict[str, Any]] = []
    for folder, columns in (("documents", FACTS), ("dropped", FACTS + VERDICT)):
        for path in sorted((corpus / folder).glob("part-*.parquet")):
            try:
                rows = pq.read_table(path, columns=columns).to_pylist()
            except (pa.ArrowInvalid, OSError) as error:
                raise InputError(
                    f"{path} is damaged: {error}.", "Run the stage corpus again with --restart."
                ) from error
            fates += [{"reason": "", "detail": "", **row, "kept": folder == "documents"} for row in rows]
    if not fates:
        raise InputError(f"{run_folder} has no corpus.", f"Run `codeweft corpus --run {run_folder}` first.")
    return fates


def _full(fate: dict[str, Any]) -> str:
    return f"{fate['repository']}/{fate['path']}"


def _matches(fate: dict[str, Any], wanted: str) -> bool:
    if len(wanted) >= SHORTEST_ID and fate["id"].startswith(wanted):
        return True
    full = "/" + _full(fate)
    return full.endswith("/" + wanted.lstrip("/")) or ("/" + wanted).endswith(full)


def _nearest(fates: list[dict[str, Any]], wanted: str) -> str:
    name = PurePosixPath(wanted).name
    same = [_full(fate) for fate in fates if PurePosixPath(fate["path"]).name == name]
    if not same:
        names = {PurePosixPath(fate["path"]).name: _full(fate) for fate in fates}
        same = [names[close] for close in difflib.get_close_matches(name, names, n=3, cutoff=0.5)]
    return f"Did you mean {', '.join(sorted(same)[:3])}?" if same else "Give the end of a path, or an id."
