"""The katas of a run on a model: families it may know, families it never saw, and the nearest training problem.

In:  problems/{train,held-out}.jsonl and a model folder.  Out: entries of results.json, and samples.
Source: the headline figures katas_pass@1 and katas_unseen_families (docs/contracts.md, 5).

Unusual: every figure stands beside what copying the training problem that reads most alike would score. A base model
is asked twice, without and with solved exercises before the question, and the better of both is its figure.
"""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from codeweft.base.artifacts import digest_of, read_json, write_json
from codeweft.base.errors import InputError
from codeweft.base.intervals import mean_interval
from codeweft.base.progress import say
from codeweft.base.records import Problem, Verdict
from codeweft.base.runs import upstream
from codeweft.evaluate.benchmarks import Plan, evaluate, settle
from codeweft.evaluate.config import EvaluateConfig, MeasureConfig
from codeweft.evaluate.local_models import LocalModel, model_digests
from codeweft.evaluate.models import Drawing
from codeweft.evaluate.nearest import answered, nearest
from codeweft.evaluate.tally import DIGITS, entry
from codeweft.sandbox.client import Sandbox, open_sandbox
from codeweft.sandbox.config import SandboxConfig
from codeweft.tasks.katas.task import submission
from codeweft.tasks.problem_files import read_problems
from codeweft.tasks.registry import find

KNOWN, UNSEEN, NEAREST = "katas_pass@1", "katas_unseen_families", "katas_nearest"
SHOTS = 3  # solved exercises before a base model's question, where it gets any
VERSION = 2  # raised whenever the same model would get other figures


@dataclass(frozen=True)
class Katas:
    """What is asked: the first so many held-out katas of known families, and as many of the others as there are."""

    known: tuple[Problem, ...]
    unseen: tuple[Problem, ...]
    training: tuple[Problem, ...]


def measured(
    run_folder: Path, stage: str, seed: int, settings: MeasureConfig, sandbox: SandboxConfig
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The entries and samples of a training stage's model, measured now or found in `measured/`."""
    problems = upstream(run_folder, ("problems",), "measuring")["problems"].digest
    asked = EvaluateConfig(
        batch=settings.katas_batch,
        max_tokens=settings.katas_tokens,
        precision=settings.precision,
        device=settings.device,
    )
    how = [settings.katas, settings.katas_tokens, settings.katas_batch, settings.precision, seed, VERSION]
    key = digest_of([stage, problems, model_digests(run_folder / stage), how]).removeprefix("blake2b:")[:16]
    path = run_folder / "measured" / f"katas-{stage}-{key}.json"
    if not path.exists():
        for other in (run_folder / "measured").glob(f"katas-{stage}-*/"):
            if other != path.with_suffix(""):
                shutil.rmtree(other)
        katas = read(run_folder / "problems", settings.katas)
        model = LocalModel(run_folder / stage / "model", asked)
        entries, samples = measure(katas, model, asked, seed, path.with_suffix(""), sandbox)
        write_json(path, {"entries": entries, "samples": samples})
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    found = read_json(path)
    return found["entries"], found["samples"]


def read(folder: Path, count: int) -> Katas:
    """The katas of a finished stage problems; InputError where it holds none that are held out."""
    held_out = [problem for problem in read_problems(folder / "held-out.jsonl") if problem.task == "katas"]
    known = [problem for problem in held_out if not problem.facts["unseen_family"]]
    unseen = [problem for problem in held_out if problem.facts["unseen_family"]]
    training = [problem for problem in read_problems(folder / "train.jsonl") if problem.task == "katas"]
    if not known or not training:
        raise InputError(f"{folder} holds no katas to measure with.", "Draw some: --problems.katas_held_out=1000.")
    if len(known) < count:
        say(f"katas: {len(known)} instead of {count}; the stage problems drew no more held-out ones.")
    return Katas(tuple(known[:count]), tuple(unseen[:count]), tuple(training))


def measure(
    katas: Katas, model: LocalModel, settings: EvaluateConfig, seed: int, parts: Path, sandbox: SandboxConfig
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Greedy answers to both kinds, and the nearest training problem's answers to the known ones."""
    return asyncio.run(_measure(katas, model, settings, seed, parts, sandbox))


async def _measure(
    katas: Katas, model: LocalModel, settings: EvaluateConfig, seed: int, parts: Path, sandbox: SandboxConfig
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    task, entries, samples = find("katas"), {}, []
    style, warning, reason = settle(task, model, settings)
    async with open_sandbox(sandbox) as opened:
        for name, problems in ((KNOWN, katas.known), (UNSEEN, katas.unseen)):
            if not problems:
                continue
            title = f"katas, {'unseen' if name == UNSEEN else 'known'} families"
            drawing, asked = Drawing(style, max_tokens=settings.max_tokens), []
            for shots in (0, SHOTS) if style == "base" else (0,):
                protocol = f"{task.protocol}; here after {shots} solved exercises" if style == "base" else task.protocol
                named = replace(task, name=name, title=title, protocol=protocol)
                given = tuple(replace(each, facts=each.facts | {"shots": shots}) for each in problems)
                plan = Plan(named, given, drawing, 1, seed, warning, reason)
                [(_, found, _)] = (await evaluate([plan], model, opened, parts / f"shots-{shots}", settings)).values()
                asked.append((entry(plan, found, None, (1,), 0), found))
            entries[name], found = max(asked, key=lambda each: each[0]["score"] or 0.0)
            samples += found
        entries[NEAREST] = await copied(katas, opened, seed)
    entries[KNOWN]["beside"] = [NEAREST]
    return entries, samples


async def copied(katas: Katas, sandbox: Sandbox, seed: int) -> dict[str, Any]:
    """pass@1 of answering each known kata with the reference of the training kata that reads most alike."""
    like = nearest(katas.known, katas.training)
    answers = [answered(problem, other) for problem, other in zip(katas.known, like, strict=True)]
    submissions = [
        submission(problem, answer, problem.tests_hidden) for problem, answer in zip(katas.known, answers, strict=True)
    ]
    return _share(katas.known, await sandbox.judge_all(submissions), seed)


def _share(problems: Sequence[Problem], verdicts: Sequence[Verdict], seed: int) -> dict[str, Any]:
    right = np.array([float(verdict.status == "ok") for verdict in verdicts])
    low, high = mean_interval(right, seed)
    return {
        "title": "katas, nearest training problem", "metric": "pass@1", "unit": "share", "better": "higher",
        "n": len(problems), "score": round(float(right.mean()), DIGITS),
        "ci95": [round(low, DIGITS), round(high, DIGITS)],
        "protocol": "the reference of the training kata whose statement is nearest by BM25, judged by the hidden tests",
        "per_language": {},
    }  # fmt: skip
