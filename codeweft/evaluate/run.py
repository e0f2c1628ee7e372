"""Stage evaluate: scores of a model with intervals, beside baselines on the same documents, holes and problems.

In:  corpus/, problems/, tokenizer/, tokens/ and a training stage's model folder.  Out: results.json, samples.jsonl.
"""

from typing import Any

import numpy as np

from codeweft.base.artifacts import digest_of, read_manifest
from codeweft.base.intervals import ratio_interval
from codeweft.base.runs import Run
from codeweft.evaluate import katas, suite
from codeweft.evaluate.config import EvaluateConfig
from codeweft.evaluate.local_models import model_digests
from codeweft.evaluate.measure import headline_of, measured
from codeweft.tasks.infilling import edit_similarity


def run(config: EvaluateConfig, run: Run) -> dict[str, Any]:
    """Measure, write results.json (an entry a task) and samples.jsonl (a line a sample); headline: the main scores."""
    run_folder = run.folder.parent
    manifest = read_manifest(run.read(run.model_stage))
    assert manifest is not None, "what a stage reads is finished"
    found = measured(run_folder, run.model_stage, run.seed, manifest.counts["tokens_seen"], config)
    tasks = {name: dict(task) for name, task in found.tasks.items()}
    samples = [with_similarity(sample) for sample in found.samples]
    if tasks["fim_exact_match"]["score"] is not None:
        tasks["fim_edit_similarity"] = similarity_task(samples, tasks["fim_exact_match"]["protocol"], run.seed)
    if config.katas:
        found_katas = katas.measured(run_folder, run.model_stage, run.seed, config, run.sections["sandbox"])
        tasks, samples = tasks | found_katas[0], samples + found_katas[1]
    if config.tasks:
        asked = suite.measure(benchmarks_of(config, run))
        tasks, samples = tasks | asked.entries, samples + asked.samples
        run.write(suite.TIMING, asked.timing)
    run.write(suite.RESULTS, tasks)
    run.write(suite.SAMPLES, suite.lines_of(samples))
    run.counts |= {"model": run.model_stage, "model_digest": digest_of(model_digests(run_folder / run.model_stage))}
    return headline_of(tasks)


def benchmarks_of(config: EvaluateConfig, run: Run) -> suite.Request:
    """What the settings ask of the run's model; the corpus tells which problems it may have seen."""
    run_folder = run.folder.parent
    index = suite.index_of(config.ngrams) or suite.index_of_run(run_folder)
    model = str(run_folder / run.model_stage / "model")
    return suite.Request(model, config, run.folder, run.staging, run.seed, run.sections["sandbox"], index)


def with_similarity(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample with the edit similarity of what was generated to the missing line."""
    if sample["task"] != "infilling" or "text" not in sample:
        return sample
    return sample | {"edit_similarity": round(edit_similarity(sample["text"], sample["truth"]), 4)}


def similarity_task(samples: list[dict[str, Any]], protocol: str, seed: int) -> dict[str, Any]:
    """Mean edit similarity over all holes; the interval resamples files."""
    holes = [sample for sample in samples if "edit_similarity" in sample]

    def part(chosen: list[dict[str, Any]]) -> dict[str, Any]:
        by_file: dict[str, list[float]] = {}
        for sample in chosen:
            by_file.setdefault(sample["problem"].rsplit(":", 1)[0], []).append(sample["edit_similarity"])
        totals, counts = np.array([[sum(values), len(values)] for values in by_file.values()]).T
        low, high = ratio_interval(totals, counts, seed)
        score = round(float(totals.sum() / counts.sum()), 6)
        return {"n": len(chosen), "score": score, "ci95": [round(low, 6), round(high, 6)]}

    languages = sorted({sample["language"] for sample in holes})
    return {
        **part(holes),
        "unit": "share",
        "better": "higher",
        "protocol": f"1 - Levenshtein distance / longer length; {protocol}",
        "per_language": {name: part([s for s in holes if s["language"] == name]) for name in languages},
    }
