"""Reads what a run folder holds, as far as the run has come.

In:  runs/NAME with the folders of any stages.  Out: a `RunFacts`; a file that is not there is None or empty.

Unusual: nothing is measured here. Every number of the page stands in one of the run's small files.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeweft.base.artifacts import RECIPE, Manifest, read_json, read_manifest
from codeweft.base.errors import InputError

LANGUAGE_MODELS = ("grpo", "sft", "longcontext", "pretrain")  # stages that leave one, newest first
ORDER = ("corpus", "problems", "tokenizer", "tokens", "pretrain", "longcontext", "sft", "reward", "grpo", "evaluate")
EXPECTED = (
    "corpus",
    "problems",
    "tokenizer",
    "tokens",
    "pretrain",
    "sft",
    "reward",
    "grpo",
    "evaluate",
)  # named as not run where they are missing


@dataclass(frozen=True)
class RunFacts:
    """Everything the page tells; stages are in the order of the way of the data."""

    name: str
    recipe: str
    manifests: dict[str, Manifest]
    missing: list[str]
    funnel: dict[str, Any] | None
    mixture: dict[str, Any] | None
    metrics: dict[str, list[dict[str, Any]]]  # rows of each stage that trained
    results: dict[str, dict[str, Any]]
    samples: list[dict[str, Any]]


def place(stage: str) -> int:
    """Where a stage stands on the way of the data; one that is not known comes last."""
    return ORDER.index(stage) if stage in ORDER else len(ORDER)


def collect(run_folder: Path) -> RunFacts:
    """Read the run folder; InputError names a file that is damaged."""
    folders = [path for path in run_folder.iterdir() if path.is_dir() and path.name != "report"]
    found = {path.name: manifest for path in folders if (manifest := read_manifest(path)) is not None}
    names = sorted(found, key=lambda name: (place(name), name))
    recipe = run_folder / RECIPE
    paths = sorted(run_folder.glob("*/metrics.jsonl"), key=lambda path: (place(path.parent.name), path))
    metrics = {path.parent.name: read_rows(path) for path in paths}
    return RunFacts(
        name=run_folder.resolve().name,
        recipe=recipe.read_text("utf-8") if recipe.exists() else "",
        manifests={name: found[name] for name in names},
        missing=[name for name in EXPECTED if name not in found],
        funnel=_optional(run_folder / "corpus" / "funnel.json"),
        mixture=_optional(run_folder / "tokens" / "mixture.json"),
        metrics={name: rows for name, rows in metrics.items() if any("loss" in row for row in rows)},
        results=_optional(run_folder / "evaluate" / "results.json") or {},
        samples=read_rows(run_folder / "evaluate" / "samples.jsonl"),
    )


def _optional(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file, none where there is no file; a last line that was cut off is left out."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines) - 1:  # without its line end: a writer was stopped in the middle of it
                break
            raise InputError(f"{path}, line {number + 1} is damaged: {error}.", "Run its stage again.") from error
    return rows


def series(rows: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one metric, where it was recorded.

    >>> series([{"step": 1, "loss": 3.0}, {"step": 2}], "loss")
    ([1], [3.0])
    """
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def expert_load(rows: list[dict[str, Any]]) -> list[tuple[int, dict[int, list[float]]]]:
    """For each recorded step: layer -> load of its experts, 1 being an even share.

    >>> expert_load([{"step": 5, "expert_load/layer_0/expert_0": 0.75, "expert_load/layer_0/expert_1": 0.25}])
    [(5, {0: [1.5, 0.5]})]
    """
    found = []
    for row in rows:
        layers: dict[int, dict[int, float]] = {}
        for key, value in row.items():
            if key.startswith("expert_load/"):
                layer, expert = (int(part.rsplit("_", 1)[1]) for part in key.split("/")[1:])
                layers.setdefault(layer, {})[expert] = value
        if layers:
            found.append((row["step"], {layer: _relative(shares) for layer, shares in sorted(layers.items())}))
    return found


def _relative(shares: Mapping[int, float]) -> list[float]:
    total = sum(shares.values()) or 1.0
    return [shares[expert] * len(shares) / total for expert in sorted(shares)]
