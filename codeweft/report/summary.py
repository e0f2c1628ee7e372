"""The last words of a run: the headline table, one real infilled completion, and what to do next.

In:  a finished run folder.  Out: text for the terminal.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from codeweft.base.artifacts import Manifest, read_manifest
from codeweft.base.progress import duration
from codeweft.report.collect import LANGUAGE_MODELS, ORDER

CONTEXT_LINES = 4  # shown before the hole


def closing_words(run_folder: Path) -> str:
    """Headlines of every stage, a sample, the report's path and the command that serves the model."""
    manifests = [m for m in (read_manifest(folder) for folder in sorted(run_folder.iterdir())) if m is not None]
    order = (*ORDER, "report")
    manifests.sort(key=lambda manifest: order.index(manifest.stage) if manifest.stage in order else len(order))
    parts = ["", headline_table(manifests)]
    samples = run_folder / "evaluate" / "samples.jsonl"
    if samples.exists():
        parts.append(shown_sample([json.loads(line) for line in samples.read_text("utf-8").splitlines()]))
    models = [folder for name in LANGUAGE_MODELS if (folder := run_folder / name / "model").is_dir()]
    parts.append(f"Report:  {run_folder / 'report.html'}")
    if models:
        parts.append(f"Serve:   {program()} serve --model {models[0]}")
    return "\n".join(parts)


def program() -> str:
    """How this shell can start the program again: its name where it is on the path, else its file."""
    if shutil.which("codeweft"):
        return "codeweft"
    beside = Path(sys.executable).with_name("codeweft")
    return str(beside) if beside.exists() else f"{sys.executable} -m codeweft"


def headline_table(manifests: list[Manifest]) -> str:
    """One line a figure: stage, name, value with its interval; then time and memory of each stage."""
    lines = [f"{'stage':<10} {'figure':<29} value"]
    for manifest in manifests:
        for name in manifest.headline:
            if not name.endswith("_ci95"):
                lines.append(f"{manifest.stage:<10} {name:<29} {figure(name, manifest.headline)}")
    lines.append("")
    lines.append("stage      wall         CPU          peak memory")
    for manifest in manifests:
        memory = f"{manifest.peak_rss_bytes / 2**30:.2f} GiB"
        lines.append(
            f"{manifest.stage:<10} {duration(manifest.seconds):<12} {duration(manifest.cpu_seconds):<12} {memory}"
        )
    wall = duration(sum(manifest.seconds for manifest in manifests))
    cpu = duration(sum(manifest.cpu_seconds for manifest in manifests))
    lines.append(f"{'together':<10} {wall:<12} {cpu}")
    return "\n".join(lines) + "\n"


def headline_line(headline: dict[str, Any]) -> str:
    """The headline as part of a sentence, intervals behind their figures.

    >>> headline_line({"score": 0.25, "score_ci95": [0.2, 0.3], "documents": 1000})
    'score 0.25 (95 %: 0.2 to 0.3), documents 1,000'
    """
    names = [name for name in headline if not name.endswith("_ci95")]
    return ", ".join(f"{name} {figure(name, headline)}" for name in names)


def figure(name: str, headline: dict[str, Any]) -> str:
    """One figure with its interval, as a person reads it."""
    value = headline[name]
    if value is None:
        return "not measured"
    shown = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    interval = headline.get(f"{name}_ci95")
    return shown + (f" (95 %: {interval[0]:.4g} to {interval[1]:.4g})" if interval else "")


def shown_sample(samples: list[dict[str, Any]]) -> str:
    """One infilled line in its surroundings: the first the model got right, or the first of all when it got none."""
    holes = [sample for sample in samples if sample.get("task") == "infilling" and "text" in sample]
    if not holes:
        return "The model was not trained to infill, so there is no completion to show (tokens.fim_rate = 0).\n"
    right = [sample for sample in holes if sample["exact_match"]]
    sample = (right or holes)[0]
    before = sample["prefix"].splitlines()[-CONTEXT_LINES:]
    after = sample["suffix"].lstrip("\n").splitlines()[:2]
    lines = [f"Infilled by the model ({len(right)} of {len(holes)} held-out lines exactly right), {sample['path']}:"]
    lines += [f"    {line}" for line in before]
    lines.append(f"  > {sample['text']}")
    lines += [f"    {line}" for line in after]
    lines.append("    exactly the missing line" if right else f"    the missing line was: {sample['truth'].strip()}")
    return "\n".join(lines) + "\n"
