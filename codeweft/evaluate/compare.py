"""Two evaluations side by side: which of their differences are more than chance.

In:  two run or evaluation folders with results.json and samples.jsonl.  Out: facts for each benchmark in both; words.

Unusual: scores are made anew from the samples of those problems that both have scored, and must first give what each
folder's results.json says. Other protocols are no comparison, so they are refused and named. Several benchmarks are
several chances to be fooled, so p-values are adjusted for their number (Holm 1979).
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codeweft.base.artifacts import read_json
from codeweft.base.errors import InputError
from codeweft.base.intervals import bootstrap_mean, mean_interval, mean_of, rate_interval, ratio_interval
from codeweft.evaluate.score import holm, permutation_test
from codeweft.tasks.registry import MODULES, find

RESULTS, SAMPLES = "results.json", "samples.jsonl"
SEED = 1
LEVEL = 0.05
TOLERANCE = 1e-4  # between a score of results.json and the one its samples give
PROTOCOL = ("protocol", "metric", "style", "samples_each", "judge", "baseline")  # what must be equal in both
# measured on a run's own held-out files: the task of the sample, its key
MEASURED = {"fim_exact_match": ("infilling", "exact_match"), "fim_edit_similarity": ("infilling", "edit_similarity")}
NO_MODEL = ("fim_exact_match_copy", "fim_line_elsewhere", "bits_per_byte_5gram")  # baselines


@dataclass
class Outcome:
    """One problem: the scores of its samples, its group in a mean over groups, the file it comes from."""

    group: str
    file: str
    scores: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a folder says: entries by benchmark, and outcomes by benchmark and problem."""

    folder: Path
    entries: dict[str, dict[str, Any]]
    outcomes: dict[str, dict[str, Outcome]]


# --- reading ----------------------------------------------------------------------------------------------------------


def read(folder: Path) -> Evaluation:
    """The evaluation in a folder or in its subfolder evaluate; InputError where there is none or it is damaged."""
    found = next((each for each in (folder, folder / "evaluate") if (each / RESULTS).is_file()), None)
    if found is None:
        raise InputError(
            f"{folder} holds no {RESULTS}.",
            "Name a run whose stage evaluate is finished, or the --out folder of codeweft evaluate.",
        )
    entries = read_json(found / RESULTS)
    by_sample: dict[
        str, list[tuple[str, str]]
    ] = {}  # the task of a sample, then benchmarks with the key of their score
    for name in entries:
        task, key = MEASURED.get(name, (name, "score"))
        by_sample.setdefault(task, []).append((name, key))
    average = {name: average_of(name) for name in entries}
    outcomes: dict[str, dict[str, Outcome]] = {name: {} for name in entries}
    for sample in _samples(found / SAMPLES):
        for name, key in by_sample.get(sample["task"], ()):
            problem, score = sample["problem"], sample.get(key)
            if score is not None:
                file = problem.rsplit(":", 1)[0] if name in MEASURED else problem
                group = str(sample[average[name]]) if average[name] else ""
                outcomes[name].setdefault(problem, Outcome(group, file)).scores.append(float(score))
    evaluation = Evaluation(found, entries, outcomes)
    for name in entries:
        _check_score(evaluation, name)
    return evaluation


def average_of(name: str) -> str:
    """The field of a sample over whose values a benchmark's score is averaged; empty where it is over problems."""
    return find(name).average if name in MODULES else ""


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                sample = json.loads(line)
                known = isinstance(sample["task"], str) and isinstance(sample["problem"], str)
            except (json.JSONDecodeError, KeyError, TypeError):
                known = False
            if not known:
                raise InputError(f"{path}, line {number}: no sample.", "Evaluate again.")
            yield sample


def _check_score(evaluation: Evaluation, name: str) -> None:
    """InputError where samples give another score than results.json says: they do not belong together."""
    stated, outcomes = evaluation.entries[name].get("score"), evaluation.outcomes[name]
    if stated is None or not outcomes:
        return
    scores, groups = _arrays(list(outcomes.values()))
    made = mean_of(scores, groups)
    if abs(made - stated) > TOLERANCE:
        raise InputError(
            f"{evaluation.folder}: {RESULTS} says {stated} for {name}, {SAMPLES} gives {made:.6f}.",
            "Evaluate again: the two files are not of one evaluation.",
        )


def _arrays(outcomes: Sequence[Outcome]) -> tuple[np.ndarray, np.ndarray | None]:
    """The score of each problem, and the groups where the benchmark's score is a mean over groups."""
    scores = np.array([np.mean(each.scores) for each in outcomes])
    groups = np.array([each.group for each in outcomes])
    return scores, groups if groups.any() else None


# --- comparing --------------------------------------------------------------------------------------------------------


def compare(a: Path, b: Path, any_protocol: bool = False) -> dict[str, Any]:
    """What two evaluations have in common; InputError for other protocols, unless `any_protocol`, or for nothing.

    Of each benchmark: `n` problems that both scored, both scores, `difference` (B - A) with a paired 95 % interval,
    `p` of a paired permutation test, `p_holm`, and a `verdict` at the level 0.05 of the latter.
    """
    left, right = read(a), read(b)
    shared = [name for name in left.entries if name in right.entries and name not in NO_MODEL]
    if not shared:
        raise InputError(
            f"{left.folder} and {right.folder} have no benchmark in common.", "Evaluate both on the same --tasks."
        )
    differing = {name: _protocol_differences(left.entries[name], right.entries[name]) for name in shared}
    if not any_protocol:
        _require_one_protocol(differing)
    tasks: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for name in shared:
        reason = _incomparable(name, left, right)
        if reason:
            left_out[name] = reason
        else:
            tasks[name] = _compared(name, left, right) | {"protocols_differ": differing[name]}
    for found, p in zip(tasks.values(), holm([found["p"] for found in tasks.values()]), strict=True):
        found["p_holm"] = p
        found["verdict"] = _verdict(found)
    return {
        "a": _described(left),
        "b": _described(right),
        "tasks": tasks,
        "left_out": left_out,
        "only_a": [name for name in left.entries if name not in right.entries],
        "only_b": [name for name in right.entries if name not in left.entries],
        "correction": f"Holm over {len(tasks)}",
        "level": LEVEL,
    }


def _described(evaluation: Evaluation) -> dict[str, Any]:
    models = sorted({str(entry["model"]) for entry in evaluation.entries.values() if "model" in entry})
    return {"folder": str(evaluation.folder), "models": models}


def _protocol_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The clauses in which two protocols differ, as "A: …; B: …"."""
    found = []
    for key in PROTOCOL:
        left, right = str(a.get(key, "")), str(b.get(key, ""))
        if left != right:
            ours, theirs = (_clauses(text) for text in (left, right))
            only_a = ", ".join(clause for clause in ours if clause not in theirs) or "nothing"
            only_b = ", ".join(clause for clause in theirs if clause not in ours) or "nothing"
            found.append(f"A: {only_a}; B: {only_b}" if key == "protocol" else f"{key}: A {left}, B {right}")
    return found


def _clauses(text: str) -> list[str]:
    """A protocol cut where its clauses end.

    >>> _clauses("164 problems. Asked in the style base; greedy; p 0.95.")
    ['164 problems', 'Asked in the style base', 'greedy', 'p 0.95']
    """
    return [clause for clause in re.split(r"[.;]\s+|\.$", text) if clause]


def _require_one_protocol(differing: Mapping[str, Sequence[str]]) -> None:
    for name, found in differing.items():
        if found:
            more = sum(bool(each) for each in differing.values()) - 1
            others = f" ({more} more benchmarks differ, too)" if more else ""
            raise InputError(
                f"{name} was measured in two ways. {'. '.join(found)}{others}.",
                "Measure both alike, or compare all the same: --any-protocol.",
            )


def _incomparable(name: str, left: Evaluation, right: Evaluation) -> str:
    """Why a benchmark that both have cannot be compared; empty where it can."""
    for label, each in (("A", left), ("B", right)):
        if each.entries[name].get("score") is None:
            return f"{label} has no score. {each.entries[name].get('reason', '')}".strip()
    if not left.outcomes[name] or not right.outcomes[name]:
        scores = [each.entries[name]["score"] for each in (left, right)]
        return f"A {scores[0]:.4f}, B {scores[1]:.4f}, untested: no scores of single problems are kept."
    if not left.outcomes[name].keys() & right.outcomes[name].keys():
        return "A and B scored none of the same problems."
    return ""


def _compared(name: str, left: Evaluation, right: Evaluation) -> dict[str, Any]:
    """Both scores on the problems that both scored, and their difference."""
    ours, theirs = left.outcomes[name], right.outcomes[name]
    problems = [problem for problem in ours if problem in theirs]
    pair = [[outcomes[problem] for problem in problems] for outcomes in (ours, theirs)]
    (score_a, groups), (score_b, _) = (_arrays(each) for each in pair)
    difference, files = score_b - score_a, [each.file for each in pair[0]]
    if len(set(files)) < len(files):
        file_P = np.unique(files, return_inverse=True)[1]
        scores = [_file_interval(score, file_P) for score in (score_a, score_b)]
        size_F = np.bincount(file_P).astype(float)
        interval = ratio_interval(np.bincount(file_P, difference), size_F, SEED)
        p = permutation_test(np.zeros(len(size_F)), np.bincount(file_P, difference), SEED)
    else:
        scores = [mean_interval(score, SEED, groups) for score in (score_a, score_b)]
        interval = bootstrap_mean(difference, SEED, groups)
        p = permutation_test(score_a, score_b, SEED, groups)
    entries = [
        {"score": mean_of(score, groups), "ci95": list(between)}
        for score, between in zip((score_a, score_b), scores, strict=True)
    ]
    return {
        "n": len(problems),
        "only_a": len(ours) - len(problems),
        "only_b": len(theirs) - len(problems),
        "a": entries[0],
        "b": entries[1],
        "difference": mean_of(difference, groups),
        "ci95": list(interval),
        "unequal": int((difference != 0).sum()),
        "p": p,
    }


def _file_interval(scores: np.ndarray, file_P: np.ndarray) -> tuple[float, float]:
    """The interval of a mean over problems that come from files in groups."""
    if np.isin(scores, (0.0, 1.0)).all():
        return rate_interval(scores, file_P)
    return ratio_interval(np.bincount(file_P, scores), np.bincount(file_P).astype(float), SEED)


def _verdict(found: Mapping[str, Any]) -> str:
    if not found["unequal"]:
        return "equal on every problem"
    if found["p_holm"] >= LEVEL:
        return "no difference shown"
    return "B higher" if found["difference"] > 0 else "A higher"


# --- telling ----------------------------------------------------------------------------------------------------------


def words(found: Mapping[str, Any]) -> str:
    """A comparison as a table of at most 100 columns, and below it what has to be said."""
    lines = [f"{label.upper()}: {_name(found[label])}" for label in ("a", "b")]
    lines += ["", f"{'benchmark':<22} {'problems':>8} {'A':>6} {'B':>6} {'B - A':>6}  {'95 %':<14} {'p':>7}  verdict"]
    for name, task in found["tasks"].items():
        a, b, difference = (100 * value for value in (task["a"]["score"], task["b"]["score"], task["difference"]))
        low, high = (100 * bound for bound in task["ci95"])
        lines.append(
            f"{name:<22} {task['n']:>8,} {a:>6.1f} {b:>6.1f} {difference:>+6.1f}  {f'{low:+.1f} to {high:+.1f}':<14} "
            f"{_p(task['p_holm']):>7}  {task['verdict']}"
        )
        for label in ("a", "b"):
            if task[f"only_{label}"]:
                lines.append(f"    {task[f'only_{label}']:,} problems are scored in {label.upper()} alone: left out.")
        lines += _wrapped([f"Two protocols. {each}" for each in task["protocols_differ"]], "    ")
    lines.append("")
    if found["tasks"]:
        lines += _wrapped(
            [
                "Scores in percent, on the problems that both have scored; 95 %: paired bootstrap over problems (over "
                "files where problems share them); p: paired permutation test over the same, adjusted for "
                f"{len(found['tasks'])} benchmarks (Holm). A difference counts where p is below {found['level']:g}."
            ]
        )
    lines += _wrapped([f"Not compared: {name}. {reason}" for name, reason in found["left_out"].items()])
    for label in ("a", "b"):
        if found[f"only_{label}"]:
            lines += _wrapped([f"In {label.upper()} alone: {', '.join(found[f'only_{label}'])}."])
    return "\n".join(lines)


def _name(described: Mapping[str, Any]) -> str:
    models = f" ({', '.join(described['models'])})" if described["models"] else ""
    return described["folder"] + models


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _wrapped(paragraphs: Sequence[str], indent: str = "") -> list[str]:
    form = textwrap.TextWrapper(100, initial_indent=indent, subsequent_indent=indent)
    return [line for text in paragraphs for line in form.wrap(text)]
