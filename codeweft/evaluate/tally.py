"""From samples to scores: pass@k, accuracy, votes, intervals; for all, by group, and for problems that are clean.

In:  the samples of one task.  Out: its entry in results.json.

Unusual: problems are the unit of chance, not samples. Where all problems have one score, resampling them would show no
uncertainty at all, so Wilson's interval takes its place.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from codeweft.base.intervals import mean_interval, mean_of
from codeweft.evaluate.benchmarks import Plan
from codeweft.evaluate.score import majority, pass_at_k

Sample = Mapping[str, Any]
GROUPS = {"per_language": "language", "per_family": "family", "per_difficulty": "difficulty"}
DIGITS = 6


def entry(
    plan: Plan, samples: Sequence[Sample], contaminated: Collection[str] | None, pass_at: Sequence[int], votes: int
) -> dict[str, Any]:
    """One task of results.json; a task without any scored sample has the score None and the reason."""
    task, scored = plan.task, [sample for sample in samples if sample["score"] is not None]
    said = {
        "title": task.title, "metric": task.metric, "unit": "share", "better": "higher", "style": plan.drawing.style,
        "protocol": protocol(plan), "samples_each": plan.samples, "average": task.average,
    }  # fmt: skip
    if plan.warning:
        said["warning"] = plan.warning
    left_out = unscored(samples)
    if left_out:
        said["unscored"] = left_out
    if not scored:
        reason = plan.reason or f"No answer could be scored: {', '.join(left_out) or 'there is none'}."
        if samples and task.export is not None:
            reason = "Its answers are exported; this program gives them no score."
        return {"n": 0, "score": None, "ci95": None, **said, "reason": reason, "per_language": {}}
    average, seed = task.average, plan.seed
    found = {**figures(scored, average, seed), **said}
    if task.metric == "pass@1":
        found["pass@1"] = found["score"]
        for k in pass_at:
            if 1 < k <= plan.samples:
                value, interval = mean(scored, lambda scores, k=k: passing(scores, k), average, seed)
                found[f"pass@{k}"], found[f"pass@{k}_ci95"] = value, interval
    if votes > 1:
        found[f"maj@{votes}"], found[f"maj@{votes}_ci95"] = voted(scored, votes, average, seed)
    found["metrics"] = metrics(scored, seed)
    for name, key in GROUPS.items():
        values = list(dict.fromkeys(str(sample[key]) for sample in scored))
        if values != [""]:
            found[name] = {value: figures([s for s in scored if str(s[key]) == value], "", seed) for value in values}
    found.setdefault("per_language", {})
    if contaminated is not None:
        clean = [sample for sample in scored if sample["problem"] not in contaminated]
        found["contaminated"] = len({sample["problem"] for sample in scored}) - len({s["problem"] for s in clean})
        found["clean"] = figures(clean, average, seed) if clean else {"n": 0, "score": None, "ci95": None}
    return found


def protocol(plan: Plan) -> str:
    """How the score came about, in words; equal words mean that scores may be compared."""
    drawing = plan.drawing
    if drawing.style == "likelihood":
        drawn = "the likeliest choice" + (" a byte" if drawing.normalise else "")
    elif drawing.temperature:
        drawn = f"{plan.samples} samples at temperature {drawing.temperature:g}, top_p {drawing.top_p:g}"
    else:
        drawn = "greedy" if plan.samples == 1 else f"{plan.samples} greedy samples"
    longest = f"; at most {drawing.max_tokens} tokens an answer" if drawing.max_tokens else ""
    return f"{plan.task.protocol} Asked in the style {drawing.style}; {drawn}{longest}."


def unscored(samples: Sequence[Sample]) -> dict[str, int]:
    """How many samples have no score, by the reason."""
    found: dict[str, int] = {}
    for sample in samples:
        if sample["score"] is None:
            status = (sample["verdict"] or {}).get("status")
            reason = status or ("does not fit the model" if sample["finish"] == "refused" else sample["detail"])
            found[reason or "not scored here"] = found.get(reason or "not scored here", 0) + 1
    return found


def figures(samples: Sequence[Sample], average: str, seed: int) -> dict[str, Any]:
    """How many problems, their mean score and its interval."""
    score, interval = mean(samples, lambda scores: float(np.mean(scores)), average, seed)
    return {"n": len({sample["problem"] for sample in samples}), "score": score, "ci95": interval}


def mean(
    samples: Sequence[Sample], of_problem: Callable[[list[float]], float], average: str, seed: int
) -> tuple[float, list[float]]:
    """The mean over problems of a figure of each problem's scores; over groups first where `average` names them."""
    by_problem: dict[str, list[float]] = {}
    group_of: dict[str, str] = {}
    for sample in samples:
        by_problem.setdefault(sample["problem"], []).append(sample["score"])
        group_of[sample["problem"]] = str(sample[average]) if average else ""
    return interval_of([of_problem(scores) for scores in by_problem.values()], list(group_of.values()), seed)


def interval_of(values: Sequence[float], groups: Sequence[str], seed: int) -> tuple[float, list[float]]:
    """The mean of some values, first in their groups, and its 95 % interval."""
    value_P = np.array(values, dtype=float)
    group_P = np.array(groups) if any(groups) else None
    low, high = mean_interval(value_P, seed, group_P)
    return round(mean_of(value_P, group_P), DIGITS), [round(low, DIGITS), round(high, DIGITS)]


def passing(scores: Sequence[float], k: int) -> float:
    """pass@k of one problem's samples."""
    right = sum(score == 1 for score in scores)
    return pass_at_k(len(scores), right, min(k, len(scores)))


def voted(samples: Sequence[Sample], votes: int, average: str, seed: int) -> tuple[float, list[float]]:
    """maj@k: how often the most frequent answer of k is right."""
    by_problem: dict[str, list[Sample]] = {}
    for sample in samples:
        by_problem.setdefault(sample["problem"], []).append(sample)
    values = [
        majority([sample["vote"] for sample in each], [sample["score"] == 1 for sample in each], votes)
        for each in by_problem.values()
    ]
    groups = [str(each[0][average]) if average else "" for each in by_problem.values()]
    return interval_of(values, groups, seed)


def metrics(samples: Sequence[Sample], seed: int) -> dict[str, Any]:
    """The mean of each further number of the samples, with its interval."""
    names = dict.fromkeys(name for sample in samples for name in sample["metrics"])
    found = {}
    for name in names:
        by_problem: dict[str, list[float]] = {}
        for sample in samples:
            if name in sample["metrics"]:
                by_problem.setdefault(sample["problem"], []).append(sample["metrics"][name])
        values = [float(np.mean(each)) for each in by_problem.values()]
        score, interval = interval_of(values, [""] * len(values), seed)
        found[name] = {"n": len(values), "score": score, "ci95": interval}
    return found
