"""Several benchmarks on one model, into one folder; what is there already and did not change is taken as it is.

In:  a model folder or URL, the settings, a folder.  Out: results.json, samples.jsonl, exports/TASK/…, timing.json.

Unusual: every problem of every task is read before the first answer is asked for, so that a malformed line is told at
once. Times stand in a file of their own, because results.json is equal for equal answers.
"""

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from codeweft.base.artifacts import atomic, digest_of, read_json, write_json
from codeweft.base.config import nearest
from codeweft.base.errors import ConfigError, InputError, UserError
from codeweft.base.progress import say
from codeweft.base.records import Problem
from codeweft.engine.remote import RemoteConfig, RemoteModel
from codeweft.evaluate.benchmarks import Clock, Plan, evaluate, load, plan
from codeweft.evaluate.config import EvaluateConfig
from codeweft.evaluate.contamination import contaminated_problems
from codeweft.evaluate.local_models import open_local
from codeweft.evaluate.models import AnswersModel, Model, UrlModel
from codeweft.evaluate.opinions import JUDGED, judge_answers
from codeweft.evaluate.tally import entry
from codeweft.sandbox.client import open_sandbox
from codeweft.sandbox.config import SandboxConfig
from codeweft.source.ngrams import INDEX
from codeweft.tasks.download import Fetched
from codeweft.tasks.registry import find_all
from codeweft.tasks.task import Exported

RESULTS, SAMPLES, TIMING, EXPORTS = "results.json", "samples.jsonl", "timing.json", "exports"
Entries = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Request:
    """What is to be measured: a model folder or URL, the settings, where it goes, and the index of the corpus."""

    model: str
    config: EvaluateConfig
    folder: Path
    staging: Path
    seed: int
    sandbox: SandboxConfig
    ngrams: Path | None = None
    url_model: str = ""
    concurrency: int = 8


@dataclass(frozen=True)
class Measured:
    """The entries of results.json, the lines of samples.jsonl, and the seconds of each task."""

    entries: Entries
    samples: list[dict[str, Any]]
    timing: dict[str, dict[str, float]]


def measure(request: Request) -> Measured:
    """Carry out a request; its files are written by `write`."""
    config = request.config
    if not config.tasks:
        raise ConfigError("No benchmark was named.", "Give --tasks; `codeweft tasks` lists them.")
    tasks, files = find_all(config.tasks), Fetched(config.options.data, config.options.download)
    model = open_model(request)
    plans = [plan(task, model, files, config, request.seed) for task in tasks]
    earlier = _earlier(request.folder)
    fingerprints = {each.task.name: _fingerprint(each, model, request) for each in plans}
    fresh = [
        each for each in plans if earlier.entries.get(each.task.name, {}).get("made_of") != fingerprints[each.task.name]
    ]
    for each in plans:
        if each not in fresh:
            say(f"{each.task.title}: nothing changed, the figures of before are taken.")
    found = asyncio.run(_evaluate(fresh, model, request)) if fresh else {}
    entries: Entries = dict(earlier.entries)
    samples = [sample for sample in earlier.samples if sample["task"] not in found]
    timing = dict(earlier.timing)
    for name, (each, of_task, clock) in found.items():
        entries[name] = of_plan(each, of_task, request) | {"model": model.name, "made_of": fingerprints[name]}
        samples += of_task
        timing[name] = {key: round(value, 3) for key, value in asdict(clock).items()}
        _export(each, of_task, model, request.folder / EXPORTS / name)
    return Measured(entries, samples, timing)


def open_model(request: Request) -> Model:
    """The model that is asked: a URL, a file of answers, or a model folder."""
    if request.model.startswith(("http://", "https://")):
        remote = RemoteModel(RemoteConfig(request.model, request.url_model, concurrency=request.concurrency))
        return UrlModel(remote)
    path = Path(request.model)
    return AnswersModel(path) if path.is_file() else open_local(path, request.config)


async def _evaluate(
    plans: Sequence[Plan], model: Model, request: Request
) -> dict[str, tuple[Plan, list[dict[str, Any]], Clock]]:
    async with open_sandbox(request.sandbox) as sandbox:
        if sandbox.tier not in ("namespaces", "remote"):
            say(f"answers are judged behind the weaker wall {sandbox.tier}.")
        return await evaluate(plans, model, sandbox, request.staging, request.config)


def of_plan(plan: Plan, samples: Sequence[Mapping[str, Any]], request: Request) -> dict[str, Any]:
    """One entry of results.json."""
    contaminated = None
    if request.ngrams is not None and samples:
        contaminated = contaminated_problems(plan.problems, request.ngrams)
    return entry(plan, samples, contaminated, request.config.pass_at, request.config.options.votes)


def _fingerprint(plan: Plan, model: Model, request: Request) -> str:
    index = str(request.ngrams and (request.ngrams, request.ngrams.stat().st_mtime_ns))
    told = [plan.settings(model, request.config.options), request.config.pass_at, request.config.options.votes, index]
    return digest_of(json.loads(json.dumps(told)))


def _earlier(folder: Path) -> Measured:
    """What an earlier measurement left in the folder."""
    if not (folder / RESULTS).exists():
        return Measured({}, [], {})
    lines = (folder / SAMPLES).read_text("utf-8").split("\n") if (folder / SAMPLES).exists() else []
    try:
        samples = [json.loads(line) for line in lines if line]
    except json.JSONDecodeError as error:
        raise InputError(f"{folder / SAMPLES} is damaged: {error}.", "Delete it and measure again.") from error
    timing = read_json(folder / TIMING) if (folder / TIMING).exists() else {}
    return Measured(read_json(folder / RESULTS), samples, timing)


def write(request: Request, measured: Measured) -> None:
    """Write the files of the folder, each whole or not at all; what was kept on the way is not needed any more."""
    write_json(request.folder / RESULTS, measured.entries)
    with atomic(request.folder / SAMPLES) as file:
        file.write(lines_of(measured.samples).encode())
    write_json(request.folder / TIMING, measured.timing)
    shutil.rmtree(request.staging, ignore_errors=True)


def lines_of(samples: Sequence[Mapping[str, Any]]) -> str:
    """Samples as JSON lines."""
    return "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)


def _export(plan: Plan, samples: Sequence[Mapping[str, Any]], model: Model, folder: Path) -> None:
    """The answers in the task's official format."""
    if plan.task.export is None or not samples:
        return
    problems: dict[str, Problem] = {problem.id: problem for problem in plan.problems}
    given = [Exported(problems[s["problem"]], (*s["earlier"], s["text"]), s["extracted"], model.name) for s in samples]
    for name, content in plan.task.export(given).items():
        with atomic(folder / name) as file:
            file.write(content.encode())
    say(f"{plan.task.title}: the answers are in {folder}.")


def index_of(place: Path | None) -> Path | None:
    """The n-gram index of a corpus, given as a file or as its run folder; InputError where there is none."""
    if place is None or place.is_file():
        return place
    found = place / "corpus" / INDEX
    if not found.exists():
        raise InputError(f"{place} has no {Path('corpus') / INDEX}.", "Name a run whose corpus stage wrote one.")
    return found


def index_of_run(run_folder: Path) -> Path | None:
    """The index that the run's own corpus wrote, where it did."""
    found = run_folder / "corpus" / INDEX
    return found if found.exists() else None


def discard(request: Request) -> None:
    """Forget the wanted tasks, finished or not."""
    shutil.rmtree(request.staging, ignore_errors=True)
    earlier = _earlier(request.folder)
    kept = {name: entry for name, entry in earlier.entries.items() if name not in request.config.tasks}
    samples = [sample for sample in earlier.samples if sample["task"] in kept]
    write(request, Measured(kept, samples, {name: time for name, time in earlier.timing.items() if name in kept}))


def judge_open_ended(request: Request, measured: Measured, url: str, model: str, baseline: Path | None) -> None:
    """Let a model judge the answers that this program cannot score; their entries get the judged score."""
    files = Fetched(request.config.options.data, request.config.options.download)
    wanted = [task for task in find_all(request.config.tasks) if task.name in JUDGED]
    if not wanted:
        raise ConfigError(
            f"--judge: none of {', '.join(request.config.tasks)} is judged by a model.", nearest("", JUDGED)
        )

    async def work() -> None:
        async with RemoteModel(RemoteConfig(url, model, concurrency=request.concurrency)) as judge:
            for task in wanted:
                answers = [sample for sample in measured.samples if sample["task"] == task.name]
                problems = load(task, files, request.config.options)
                found = await judge_answers(task.name, answers, problems, judge, request.folder / "opinions", baseline)
                measured.entries[task.name] |= found

    asyncio.run(work())


# --- looking at one sample again -------------------------------------------------------------------------------------


def replay(request: Request, name: str) -> dict[str, Any]:
    """Ask and judge one stored sample again; what was stored, what came now, and whether they are equal.

    InputError for a sample that is not there; UserError for one of another model.
    """
    earlier = _earlier(request.folder)
    stored = next((sample for sample in earlier.samples if sample.get("id") == name), None)
    if stored is None:
        near = [
            sample["id"] for sample in earlier.samples if sample.get("task") == name.split("/")[0] and "id" in sample
        ]
        raise InputError(
            f"{request.folder / SAMPLES} has no sample {name}.",
            f"They are named like {near[0]}." if near else "Look for its id there.",
        )
    model = open_model(request)
    entry_of = earlier.entries[stored["task"]]
    files = Fetched(request.config.options.data, request.config.options.download)
    [task] = find_all([stored["task"]])
    again = plan(task, model, files, request.config, request.seed)
    if _fingerprint(again, model, request) != entry_of["made_of"]:
        raise UserError(
            f"{name} was made with another model or with other settings.", "Give those that the evaluation was given."
        )
    again = replace(again, problems=tuple(each for each in again.problems if each.id == stored["problem"]))
    aside = replace(request, staging=request.staging / "replay")
    [(_, samples, _)] = asyncio.run(_evaluate([again], model, aside)).values()
    shutil.rmtree(request.staging / "replay", ignore_errors=True)
    now = next(sample for sample in samples if sample["sample"] == stored["sample"])
    same = {key: stored[key] == now[key] for key in ("prompt_digest", "text", "score")}
    return {"stored": stored, "now": now, "same": same}
