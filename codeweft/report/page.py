"""Stage report: the whole run on one page that needs no network.

In:  the run folder.  Out: runs/NAME/report.html, one self-contained file.

Unusual: the page is written beside the stage folders, where a person looks for it; the stage folder holds the manifest
only, with the page's digest among its outputs.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from codeweft.base.artifacts import atomic
from codeweft.base.progress import duration, quantity
from codeweft.base.runs import Run, machine
from codeweft.report import plots
from codeweft.report.collect import RunFacts, collect, expert_load, series
from codeweft.report.config import ReportConfig

PAGE = "report.html"
TEMPLATE = Path(__file__).with_name("page.html.jinja")
TITLES = {
    "bits_per_byte": "Held-out bits per byte",
    "bits_per_byte_5gram": "5-gram, same tokens",
    "fim_exact_match": "Infilled lines exactly right",
    "fim_exact_match_copy": "Most similar line copied",
    "fim_line_elsewhere": "Line stands elsewhere in the file (ceiling of copying)",
    "fim_edit_similarity": "Edit similarity of infilled lines",
    "katas_pass@1": "Exercises solved, known families",
    "katas_unseen_families": "Exercises solved, unseen families",
    "katas_nearest": "Answer of the most similar training exercise",
}
TILES = ("bits_per_byte", "fim_exact_match", "katas_pass@1")
KINDS = ("code", "math", "text")


def run(config: ReportConfig, run: Run) -> dict[str, Any]:
    """Write the page; headline: its size in bytes."""
    page = render(collect(run.folder.parent), config).encode()
    with atomic(run.folder.parent / PAGE) as file:
        file.write(page)
    run.outputs[f"../{PAGE}"] = file.digest
    return {"bytes": len(page)}


def render(facts: RunFacts, config: ReportConfig) -> str:
    """The page as HTML; everything from files is escaped, only our own SVG is not."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "size": size, "percent": percent, "duration": duration}
    environment.filters |= {"quantity": quantity, "value": value_text, "named": title_of}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        facts=facts,
        tiles=tiles(facts),
        funnel=funnel_rows(facts.funnel),
        idle_rules=idle_rules(facts.funnel),
        languages=language_rows(facts.funnel, config.languages),
        mixture=mixture_rows(facts.mixture),
        training=[training_section(name, rows, facts) for name, rows in facts.metrics.items()],
        scores=score_rows(facts.results),
        score_figures=score_figures(facts.results),
        by_language=language_table(facts.results),
        samples=chosen_samples(facts.samples, config),
        right=sum(bool(sample.get("exact_match")) for sample in facts.samples),
        costs=costs(facts),
        machine=machine(),
    )


def tiles(facts: RunFacts) -> list[dict[str, str]]:
    """The figures that stand on top of the page, each with what it must beat."""
    found = []
    for name in TILES:
        task = facts.results.get(name)
        if task is None or task["score"] is None:
            continue
        beside = facts.results.get((task.get("beside") or [""])[0])
        notes = [f"{title_of(task['beside'][0])}: {value_text(beside['score'], beside)}"] if beside else []
        if (before := before_alignment(facts, name)) is not None:
            notes.insert(0, f"after pretrain: {value_text(before, task)}")
        found.append({"label": title_of(name), "value": value_text(task["score"], task), "note": "; ".join(notes)})
    pretrain = facts.manifests.get("pretrain")
    if pretrain is not None and "tokens_seen" in pretrain.counts:
        counts = pretrain.counts
        note = (
            f"{quantity(counts['parameters'])} parameters, {quantity(counts['activated_parameters'])} used by a token"
        )
        found.append({"label": "Training tokens", "value": quantity(counts["tokens_seen"]), "note": note})
    if facts.manifests:
        seconds = sum(manifest.seconds for manifest in facts.manifests.values())
        memory = max(manifest.peak_rss_bytes for manifest in facts.manifests.values())
        found.append({"label": "Time", "value": duration(seconds), "note": f"peak memory {size(memory)}"})
    return found


def before_alignment(facts: RunFacts, name: str) -> float | None:
    """What the pretrained model scored, where the evaluated one is another: sft trades plain text for answers."""
    evaluated, base = facts.manifests.get("evaluate"), facts.manifests.get("pretrain")
    if evaluated is None or base is None or evaluated.counts.get("model", "pretrain") == "pretrain":
        return None
    return base.headline.get(name)


def funnel_rows(funnel: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The steps that dropped something, in order, then what was kept; the shares of documents add up to 1."""
    if funnel is None:
        return []
    rows: list[dict[str, Any]] = [
        {
            "name": step["name"],
            "documents_in": step["documents_in"],
            "documents": step["documents_dropped"],
            "bytes": step["bytes_dropped"],
        }
        for step in funnel["steps"]
        if step["documents_dropped"]
    ]
    kept = funnel["kept"]
    rows.append({"name": "kept", "documents_in": None, "documents": kept["documents"], "bytes": kept["bytes"]})
    return with_shares(rows, "documents")


def idle_rules(funnel: Mapping[str, Any] | None) -> list[str]:
    """The steps that dropped nothing."""
    return [step["name"] for step in (funnel or {}).get("steps", []) if not step["documents_dropped"]]


def language_rows(funnel: Mapping[str, Any] | None, shown: int) -> list[dict[str, Any]]:
    """Kept documents by language and kind, largest first, the rest of each kind summed up as "other"."""
    rows: list[dict[str, Any]] = [
        {
            "language": row["language"] or "unknown",
            "kind": row["kind"],
            "documents": row["documents_kept"],
            "bytes": row["bytes_kept"],
        }
        for row in (funnel or {}).get("languages", [])
        if row["documents_kept"]
    ]
    rows.sort(key=lambda row: (-row["bytes"], row["language"]))
    joined = rows[:shown]
    for kind in KINDS:
        rest = [row for row in rows[shown:] if row["kind"] == kind]
        if rest:
            sums = {key: sum(row[key] for row in rest) for key in ("documents", "bytes")}
            joined.append({"language": f"{len(rest)} other", "kind": kind, **sums})
    return with_shares(joined, "bytes")


def with_shares(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The rows with `share`, their part of the column's sum; shares add up to 1."""
    total = sum(row[key] for row in rows) or 1
    return [row | {"share": row[key] / total} for row in rows]


def mixture_rows(mixture: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The training stream by kind, each kind's sources under it."""
    rows = []
    for kind, figures in (mixture or {}).get("kinds", {}).items():
        sources = [row for row in (mixture or {}).get("sources", []) if row["kind"] == kind]
        only = f": {sources[0]['source']}" if len(sources) == 1 else ""
        rows.append({"name": kind + only, "kind": kind, "below": False, **figures})
        rows += [{"name": row["source"], "below": True, **row} for row in sources if not only]
    return rows


def training_section(name: str, rows: list[dict[str, Any]], facts: RunFacts) -> dict[str, Any]:
    """The figures of one training stage, and its load balance in words."""
    reference = facts.results.get("bits_per_byte_5gram", {}).get("bits_per_token") if name == "pretrain" else None
    nats = reference * math.log(2) if reference else None
    unit = "loss" if name in ("reward", "grpo") else "nats per token"
    curves = plots.loss_curves(series(rows, "loss"), series(rows, "validation_loss"), nats, f"{name}-loss", unit)
    small = [
        ("learning_rate", "Learning rate", "rate", False),
        ("tokens_per_second", "Throughput", "tokens/s", True),
        ("gradient_norm", "Gradient norm", "norm", True),
        ("balance_loss", "Balance loss", "loss", True),
        ("reward", "Reward", "reward", True),
        ("passed", "Answers that pass their tests", "share", True),
        ("silent_groups", "Groups that teach nothing", "share", True),
        ("length", "Length of answers", "tokens", True),
        ("entropy", "Entropy", "nats", True),
        ("kl", "Divergence from the reference", "nats", True),
    ]
    figures = [
        {"caption": title, "svg": Markup(plots.small_series(points, f"{name}-{key}", title, unit, smooth))}
        for key, title, unit, smooth in small
        if (points := series(rows, key))[0]
    ]
    load = expert_load(rows)
    section = {"name": name, "loss": Markup(curves), "figures": figures, "load": None}
    if load:
        fullest = {layer: max(loads) for layer, loads in load[-1][1].items()}
        worst = max(fullest, key=lambda layer: fullest[layer])
        section["load"] = {
            "map": Markup(plots.load_map(load[-1][1], f"{name}-load")),
            "curve": Markup(plots.load_balance(load, f"{name}-balance")),
            "step": load[-1][0],
            "layer": worst + 1,
            "fullest": fullest[worst],
            "idle": sum(value < 0.1 for loads in load[-1][1].values() for value in loads),
            "experts": sum(map(len, load[-1][1].values())),
        }
    return section


def score_rows(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a task, a task's baselines under it."""
    below = {name for task in results.values() for name in task.get("beside", [])}
    rows = []
    for name in [name for name in results if name not in below]:
        rows.append({"name": name, "task": results[name], "baseline": False})
        for other in results[name].get("beside", []):
            if other in results:
                rows.append({"name": other, "task": results[other], "baseline": True})
    return rows


def score_figures(results: Mapping[str, Mapping[str, Any]]) -> list[Markup]:
    """A figure for each task that has baselines: points with intervals."""
    figures = []
    for name, task in results.items():
        if not task.get("beside"):
            continue
        scale = 100 if task.get("unit") == "share" else 1
        rows = []
        for other in (name, *task["beside"]):
            entry = results.get(other, {})
            if entry.get("score") is not None:
                low, high = entry["ci95"]
                rows.append((title_of(other), entry["score"] * scale, (low * scale, high * scale), other == name))
        if rows:
            what = "problems" if "metric" in task else "lines"
            unit = f"% of {what}" if scale == 100 else str(task.get("unit", ""))
            figures.append(Markup(plots.intervals(rows, f"score-{name}", title_of(name), unit)))
    return figures


def language_table(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Scores by language: the tasks as columns, one row a language, most measured first."""
    names = [name for name, task in results.items() if task.get("per_language")]
    languages: dict[str, dict[str, Any]] = {}
    for name in names:
        for language, part in results[name]["per_language"].items():
            languages.setdefault(language, {})[name] = part
    order = sorted(languages, key=lambda language: (-max(part["n"] for part in languages[language].values()), language))
    return {
        "tasks": [(name, results[name]) for name in names],
        "rows": [(language, languages[language]) for language in order],
    }


def chosen_samples(samples: list[dict[str, Any]], config: ReportConfig) -> list[dict[str, Any]]:
    """The first right and the first wrong infilled lines, in the order they were drawn, not the best looking ones."""
    filled = [sample for sample in samples if sample.get("task") == "infilling" and "exact_match" in sample]
    right = [sample for sample in filled if sample["exact_match"]][: config.samples_right]
    wrong = [sample for sample in filled if not sample["exact_match"]][: config.samples_wrong]
    return [
        sample
        | {
            "before": "\n".join(sample["prefix"].removesuffix("\n").split("\n")[-6:]),
            "after": "\n".join(sample["suffix"].removeprefix("\n").split("\n")[:3]),
        }
        for sample in right + wrong
    ]


def costs(facts: RunFacts) -> list[dict[str, Any]]:
    """Seconds, CPU seconds, memory and device of each stage, and all together."""
    rows: list[dict[str, Any]] = [
        {
            "stage": name,
            "seconds": manifest.seconds,
            "cpu": manifest.cpu_seconds,
            "memory": manifest.peak_rss_bytes,
            "device": manifest.device or "cpu",
        }
        for name, manifest in facts.manifests.items()
    ]
    if rows:
        sums = {key: sum(row[key] for row in rows) for key in ("seconds", "cpu")}
        rows.append({"stage": "together", **sums, "memory": max(row["memory"] for row in rows), "device": ""})
    return rows


def title_of(name: str) -> str:
    """A task's name as a person reads it."""
    return TITLES.get(name, name.replace("_", " "))


def value_text(value: float | None, task: Mapping[str, Any]) -> str:
    """A score in the task's unit.

    >>> value_text(0.125, {"unit": "share"}), value_text(1.5, {"unit": "bits per byte"})
    ('12.5 %', '1.500')
    """
    if value is None:
        return "not measured"
    return percent(value) if task.get("unit") == "share" else f"{value:.3f}"


def percent(share: float) -> str:
    """A share as a percentage.

    >>> percent(0.0312)
    '3.1 %'
    """
    return f"{100 * share:.1f} %"


def size(count: float) -> str:
    """Bytes in the unit that fits.

    >>> size(1536), size(3 * 2**30)
    ('1.5 KiB', '3.0 GiB')
    """
    for unit, length in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 2**length:
            return f"{count / 2**length:.1f} {unit}"
    return f"{count:.0f} B"


def number(value: Any) -> str:
    """A value of a table: thousands marked, four digits of a fraction, text as it is.

    >>> number(1234567), number(0.123456), number("code")
    ('1,234,567', '0.1235', 'code')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
