"""The recipe `small`, with and without infilling in its data: bits per byte beside a 5-gram, infilling beside copying.

In:  the code mix of the folder of shared data, where it is (CODEWEFT_SHARED, else ../shared); else built-in sources.
Out: runs/small, runs/small-plain; benchmarks/results/small.json and, from it alone, docs/results/small.md.

`collect NOTE` writes the results of runs that were made by hand, with a sentence on how; `page` writes the page anew.

Both runs read the same documents with the same settings; the plain one has `tokens.fim_rate` 0. It gets the text before
the hole alone, which is all that a model without infilling can use; holes, judging and copying are the same.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from codeweft.base.artifacts import read_json, read_manifest
from codeweft.base.runs import machine

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "small.json"
PAGE = ROOT / "docs" / "results" / "small.md"
RUNS = {"with infilling": ROOT / "runs" / "small", "without infilling": ROOT / "runs" / "small-plain"}
PLAIN = ["--tokens.fim_rate=0", "--measure.infilling_context=before", "--evaluate.infilling_context=before"]
TASKS = ("bits_per_byte", "bits_per_byte_5gram", "fim_exact_match", "fim_exact_match_copy", "fim_line_elsewhere")


def sources() -> tuple[str, list[str]]:
    """What the corpus is made of, in words and as arguments; archives are unpacked beside the runs."""
    shared = Path(os.environ.get("CODEWEFT_SHARED", ROOT.parent / "shared")) / "corpus"
    if not shared.is_dir():
        return "built-in sources of this machine", []
    folder = ROOT / "runs" / "small-sources"
    unpacked = folder / "code"
    if not unpacked.is_dir():
        partial = folder / "unpacking"
        partial.mkdir(parents=True, exist_ok=True)
        archive = str(shared / "code-300mb.tar.zst")
        subprocess.run(["tar", "-I", "zstd -d --long=27", "-xf", archive, "-C", str(partial)], check=True)
        partial.rename(unpacked)
    arguments = ["--source", str(unpacked)]
    for kind, name in (("text", "natural"), ("math", "math")):
        lines = folder / f"{name}.jsonl"
        subprocess.run(["zstd", "-dqf", "--long=27", str(shared / f"{name}.jsonl.zst"), "-o", str(lines)], check=True)
        arguments.append(f"--corpus.{kind}={json.dumps([str(lines)])}")
    return "the 300 MB code mix, and the mathematics and prose beside it", arguments


def collected(run: Path) -> dict[str, Any]:
    """A finished run's scores, and what each of its stages used."""
    tasks = read_json(run / "evaluate" / "results.json")
    used = {}
    for stage in ("corpus", "tokenizer", "tokens", "pretrain", "evaluate"):
        manifest = read_manifest(run / stage)
        assert manifest is not None, f"{run / stage} is not finished"
        used[stage] = {
            "seconds": round(manifest.seconds, 1),
            "cpu_seconds": round(manifest.cpu_seconds, 1),
            "peak_gib": round(manifest.peak_rss_bytes / 2**30, 2),
            "headline": manifest.headline,
            "counts": manifest.counts,
            "device": manifest.device,
        }
    return {"tasks": {name: tasks[name] for name in TASKS}, "stages": used}


def main() -> None:
    """Run both, then collect."""
    about, arguments = sources()
    for name, run in RUNS.items():
        extra = PLAIN if name == "without infilling" else []
        program = [sys.executable, "-m", "codeweft"]
        base = ["run", "small", *arguments, "--out", str(run), "--to", "pretrain"]
        subprocess.run([*program, *base, *extra], check=True)
        of_base = ["--run", str(run), "--evaluate.model=pretrain", "--evaluate.katas=0"]
        subprocess.run([*program, "evaluate", *of_base, *extra], check=True)
    collect(about)


def collect(about: str, note: str = "") -> None:
    """Write the results of those of the two runs that are finished, with a note on how they were made."""
    table: dict[str, Any] = {"sources": about, "machine": machine() | {"torch": torch.__version__}, "note": note}
    table["runs"] = {name: collected(run) for name, run in RUNS.items() if read_manifest(run / "evaluate")}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(table, indent=1) + "\n")
    write_page(table)


def score(task: dict[str, Any]) -> str:
    """A figure with its interval, shares in percent."""
    if task.get("score") is None:
        return "none"
    low, high = task["ci95"]
    if task.get("unit", "share") == "share":
        return f"{task['score']:.1%} ({low:.1%} to {high:.1%})"
    return f"{task['score']:.3f} ({low:.3f} to {high:.3f})"


def write_page(table: dict[str, Any]) -> None:
    """The results as docs/results/small.md, from the JSON alone."""
    runs, facts = table["runs"], ", ".join(f"{key} {value}" for key, value in table["machine"].items())
    lines = ["# The recipe `small`", "", f"Sources: {table['sources']}.", f"Machine: {facts}."]
    lines += ["Made by `benchmarks/small.py`, which says what is compared; do not edit. Intervals are 95 %.", ""]
    lines += ["| | " + " | ".join(runs) + " |", "|---" * (1 + len(runs)) + "|"]
    labels = {
        "bits_per_byte": "bits per byte",
        "bits_per_byte_5gram": "bits per byte of a 5-gram of the same tokens",
        "fim_exact_match": "missing lines found",
        "fim_exact_match_copy": "missing lines found by copying",
        "fim_line_elsewhere": "missing lines that stand elsewhere in their file",
    }
    for task, label in labels.items():
        lines.append(f"| {label} | " + " | ".join(score(run["tasks"][task]) for run in runs.values()) + " |")
    ratios = [
        run["tasks"]["bits_per_byte"]["score"] / run["tasks"]["bits_per_byte_5gram"]["score"] for run in runs.values()
    ]
    lines += ["| bits per byte over the 5-gram's | " + " | ".join(f"{ratio:.3f}" for ratio in ratios) + " |", ""]
    lines += ["## Missing lines by language", "", "| language | lines | " + " | ".join(runs) + " | copying |"]
    lines += ["|---" * (3 + len(runs)) + "|"]
    copying = next(iter(runs.values()))["tasks"]["fim_exact_match_copy"]["per_language"]
    for language in sorted(copying, key=lambda name: -copying[name]["n"]):
        found = [run["tasks"]["fim_exact_match"]["per_language"].get(language, {}) for run in runs.values()]
        cells = " | ".join(score(each) for each in (*found, copying[language]))
        lines.append(f"| {language} | {copying[language]['n']} | {cells} |")
    lines += ["", "## What it took", "", "| stage | " + " | ".join(runs) + " |", "|---" * (1 + len(runs)) + "|"]
    for stage in next(iter(runs.values()))["stages"]:
        used = [run["stages"][stage] for run in runs.values()]
        cells = [
            f"{each['seconds']:.0f} s, {each['cpu_seconds']:.0f} CPU s, {each['peak_gib']:.2f} GiB" for each in used
        ]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    totals = [sum(each["seconds"] for each in run["stages"].values()) / 60 for run in runs.values()]
    used = [sum(each["cpu_seconds"] for each in run["stages"].values()) / 60 for run in runs.values()]
    cells = " | ".join(
        f"{minutes:.1f} min, {processor:.1f} processor min" for minutes, processor in zip(totals, used, strict=True)
    )
    lines += [f"| together | {cells} |", ""]
    lines += [table["note"], ""] if table.get("note") else []
    protocol = next(iter(runs.values()))["tasks"]
    lines += [f"- {labels[name]}: {protocol[name]['protocol']}." for name in labels if "protocol" in protocol[name]]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        write_page(json.loads(RESULTS.read_text()))
    elif sys.argv[1:2] == ["collect"]:
        collect(sources()[0], " ".join(sys.argv[2:]))
    else:
        main()
