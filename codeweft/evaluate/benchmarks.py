"""A model on a benchmark: asks, grades, judges, keeps every turn, and says what it is worth.

In:  a task, a model, a sandbox and a folder.  Out: one entry of results.json and one line of samples.jsonl a sample.

Unusual: answers are judged while the next ones are written. A turn is kept as soon as its verdict is there; after a
kill, only what is missing is asked again.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codeweft.base.artifacts import digest_of
from codeweft.base.errors import ConfigError, InputError
from codeweft.base.progress import Bar, bar, say
from codeweft.base.records import Problem, Verdict
from codeweft.base.seeds import derive
from codeweft.evaluate.config import EvaluateConfig
from codeweft.evaluate.journal import Journal, Key, Turned
from codeweft.evaluate.models import AnswersModel, Drawing, Model, Said, Wanted
from codeweft.sandbox.client import Sandbox
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.task import Answer, Ask, Files, Style, Task, Turn, first_turn_only

VERSION = 1  # raised whenever the same answers would be asked, kept or graded otherwise
TURNS = 8  # most turns of one sample
PREFERRED: dict[str, tuple[Style, ...]] = {
    "base": ("infill", "likelihood", "base"),
    "chat": ("infill", "chat", "likelihood", "base"),
    "unknown": ("infill",),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How one task is asked: the style that was settled on, and what has to be said about it."""

    task: Task
    problems: tuple[Problem, ...]
    drawing: Drawing
    samples: int
    seed: int
    warning: str = ""  # printed, and kept beside the score
    reason: str = ""  # why there is no score

    def settings(self, model: Model, options: TaskOptions) -> dict[str, Any]:
        """What decides the answers and their grades."""
        return {
            "version": VERSION,
            "task": self.task.name,
            "protocol": self.task.protocol,
            "problems": digest_of([repr(problem) for problem in self.problems]),
            "model": model.digest,
            "drawing": asdict(self.drawing),
            "samples": self.samples,
            "seed": self.seed,
            "shots": options.shots,
        }


# --- before anything is asked ----------------------------------------------------------------------------------------


def plan(task: Task, model: Model, files: Files, config: EvaluateConfig, seed: int) -> Plan:
    """Load the problems and settle how they are asked; InputError for a malformed or doubled one."""
    problems = load(task, files, config.options)
    style, warning, reason = settle(task, model, config)
    drawing = Drawing(
        style,
        task.temperature if config.temperature < 0 else config.temperature,
        config.top_p,
        config.max_tokens,
        bool(task.facts.get("normalise")),
    )
    samples = 1 if style == "likelihood" else config.samples or max(task.samples, config.options.votes)
    if isinstance(model, AnswersModel):
        samples = config.samples or model.samples
    if samples > 1 and drawing.temperature == 0 and model.kind != "unknown":
        warning = f"{warning} {samples} samples at temperature 0 are {samples} times the same.".strip()
    return Plan(task, problems, drawing, samples, seed, warning, reason)


def load(task: Task, files: Files, options: TaskOptions) -> tuple[Problem, ...]:
    """The problems of a task, as many as are wanted; InputError for none, or for two of one name."""
    found: dict[str, Problem] = {}
    for problem in task.load(files, options):
        if problem.id in found:
            raise InputError(f"{task.title} has two problems named {problem.id}.", "Mend its file, or fetch it again.")
        found[problem.id] = problem
        if options.limit and len(found) == options.limit:
            break
    if not found:
        raise InputError(f"{task.title} has no problem that is wanted.", "Look at its file and at the options.")
    return tuple(found.values())


def settle(task: Task, model: Model, config: EvaluateConfig) -> tuple[Style, str, str]:
    """The style of asking, a warning, and why it cannot be scored; ConfigError for a style that the task has not."""
    if config.style != "auto":
        if config.style not in task.styles:
            raise ConfigError(
                f"{task.title} cannot be asked in the style {config.style}.", f"It has {', '.join(task.styles)}."
            )
        return config.style, mismatch(config.style, model), model.unable(config.style)
    order = [style for style in PREFERRED[model.kind] if style in task.styles]
    if "infill" in task.styles:
        return "infill", "", model.unable("infill")
    if model.kind == "unknown" and len(task.styles) == 1:
        order = list(task.styles)
    if model.kind == "unknown" and not order:
        raise ConfigError(
            f"{model.name} does not say whether it is a base or a chat model, and {task.title} asks them differently.",
            "Say it: --style base or --style chat.",
        )
    if not order:
        return task.styles[0], "", f"{task.title} is asked in a chat, and this is a base model."
    return order[0], mismatch(order[0], model), model.unable(order[0])


def mismatch(style: Style, model: Model) -> str:
    """What has to be said where a model is asked as another kind than it is."""
    if style == "chat" and model.kind == "base":
        return "A chat template is used on a base model: the score says little."
    if style == "base" and model.kind == "chat":
        return "A chat model is asked without its chat template: the score says little."
    return ""


# --- asking and judging ----------------------------------------------------------------------------------------------


def told(verdict: Verdict) -> dict[str, Any]:
    """A verdict without what another run would measure otherwise, so that equal answers leave equal files."""
    return {name: value for name, value in asdict(verdict).items() if name not in ("cpu_seconds", "peak_bytes")}


@dataclass
class Clock:
    """Where the time went, in seconds by the clock; answers are written and judged at the same time."""

    whole: float = 0.0
    judging: float = 0.0  # summed over answers, which are judged side by side
    last_said: float = 0.0  # from the beginning to the last answer
    after: float = 0.0  # from the last answer to the last verdict


class Evaluation:
    """One task on one model; `samples()` gives what came of it."""

    def __init__(self, plan: Plan, model: Model, sandbox: Sandbox, journal: Journal) -> None:
        self.plan, self.model, self.sandbox, self.journal = plan, model, sandbox, journal
        self.problems = {problem.id: problem for problem in plan.problems}
        self.keys = [(problem.id, sample) for problem in plan.problems for sample in range(plan.samples)]
        self.grading = ThreadPoolExecutor(1, "grading")  # graders may take seconds; the answers must not wait for them
        self.asks: dict[Key, Ask] = {}
        self.turns: dict[tuple[str, int], list[Turn]] = {key: [] for key in self.keys}
        self.clock = Clock()

    async def finish(self) -> list[dict[str, Any]]:
        """Ask whatever is missing; all samples, in the problems' order."""
        began = time.monotonic()
        open_keys = self.keys
        for turn in range(TURNS):
            label = self.plan.task.title + (f", turn {turn + 1}" if turn else "")
            with bar(label, len(open_keys), "samples") as shown:
                open_keys = await self._round(open_keys, turn, shown)
            if not open_keys:
                break
        self.grading.shutdown()
        self.clock.whole = time.monotonic() - began
        return [self._sample(key) for key in self.keys]

    async def _round(self, keys: Sequence[tuple[str, int]], turn: int, shown: Bar) -> list[tuple[str, int]]:
        """One turn of every sample that has one; those that have another after it."""
        wanted, done = [], set()
        for number, (problem, sample) in enumerate(keys):
            ask = self.asks.get((problem, sample, turn)) or self._first_ask(problem)
            self.asks[problem, sample, turn] = ask
            seed = derive(self.plan.seed, self.plan.task.name, problem, sample, turn)
            wanted.append(Wanted(number, ask, seed, problem, sample))
            if (problem, sample, turn) in self.journal.turns:
                done.add(number)
        shown.advance(len(done))
        began, judging = time.monotonic(), set()
        try:
            if len(done) < len(wanted):
                async for said in self.model.say(wanted, frozenset(done), self.plan.drawing):
                    problem, sample = keys[said.number]
                    self.clock.last_said = time.monotonic() - began
                    judging.add(asyncio.ensure_future(self._take(problem, sample, turn, said, shown)))
                    for task in [task for task in judging if task.done()]:
                        judging.discard(task)
                        task.result()  # an error of the judge ends the evaluation now, not at its end
        except Exception:
            await asyncio.gather(*judging, return_exceptions=True)  # what was answered is judged and kept
            raise
        await asyncio.gather(*judging)
        self.clock.after = time.monotonic() - began - self.clock.last_said
        return [key for key in keys if self._goes_on(key, turn)]

    def _first_ask(self, problem: str) -> Ask:
        return self.plan.task.ask(self.problems[problem], self.plan.drawing.style, self.model.room)

    def _goes_on(self, key: tuple[str, int], turn: int) -> bool:
        """Whether a sample has another turn; its finished turn is read back from what was kept."""
        kept = self.journal.turns[(*key, turn)]
        verdict = Verdict(cpu_seconds=0.0, peak_bytes=0, **kept["verdict"]) if kept["verdict"] else None
        answer = Answer(kept["extracted"], kept["score"], None, kept["vote"], kept["metrics"], kept["detail"])
        self.turns[key].append(Turn(self.asks[(*key, turn)], kept["text"], answer, verdict))
        following = self.plan.task.follow(self.problems[key[0]], tuple(self.turns[key]))
        if following is None or turn + 1 == TURNS:
            return False
        self.asks[(*key, turn + 1)] = following
        return True

    async def _take(self, problem: str, sample: int, turn: int, said: Said, shown: Bar) -> None:
        """Grade, judge and keep what was said."""
        task, began = self.plan.task, time.monotonic()
        if said.finish == "refused":
            answer = Answer("", None, None, detail=said.text)
        else:
            asked = self.problems[problem]
            answer = await asyncio.get_running_loop().run_in_executor(
                self.grading, task.grade, asked, self.plan.drawing.style, said.text
            )
        verdict, score, detail = None, answer.score, answer.detail
        if answer.submission is not None:
            verdict = await self.sandbox.judge(answer.submission)
            if verdict.status == "harness_error":  # once more: a cell may have died of another program's deeds
                verdict = await self.sandbox.judge(answer.submission)
            score = None if verdict.status in ("harness_error", "unsupported") else float(verdict.status == "ok")
            detail = verdict.detail or detail
        self.clock.judging += time.monotonic() - began
        self.journal.append(
            {
                "problem": problem, "sample": sample, "turn": turn,
                "text": "" if said.finish == "refused" else said.text,
                "tokens": list(said.tokens), "logprob": said.logprob, "finish": said.finish,
                "prompt_digest": said.prompt_digest, "choices": list(said.choices), "extracted": answer.extracted,
                "score": score, "vote": answer.vote, "metrics": dict(answer.metrics),
                "verdict": told(verdict) if verdict else None, "detail": detail,
            }
        )  # fmt: skip
        shown.advance()

    def _sample(self, key: tuple[str, int]) -> dict[str, Any]:
        """The line of samples.jsonl: its last turn, and the texts of those before."""
        problem, plan = self.problems[key[0]], self.plan
        kept: list[Turned] = [self.journal.turns[(*key, turn)] for turn in range(len(self.turns[key]))]
        last = {name: value for name, value in kept[-1].items() if name not in ("problem", "sample", "turn")}
        seed = derive(plan.seed, plan.task.name, problem.id, key[1], len(kept) - 1)
        if plan.task.follow is not first_turn_only:  # how it would have stood after one try
            last["metrics"] |= {"pass_first": float(last["score"] == 1 and len(kept) == 1)}
            if "well_formed" in last["metrics"]:  # one answer of no form spoils the sample, as Aider counts
                last["metrics"]["well_formed"] = min(each["metrics"]["well_formed"] for each in kept)
        return {
            "id": f"{plan.task.name}/{problem.id}#{key[1]}",
            "task": plan.task.name, "problem": problem.id, "sample": key[1],
            "language": problem.language, "family": problem.family, "difficulty": problem.difficulty,
            "style": plan.drawing.style, "temperature": plan.drawing.temperature, "top_p": plan.drawing.top_p,
            "seed": seed, **last, "earlier": [each["text"] for each in kept[:-1]],
        }  # fmt: skip


async def evaluate(
    plans: Iterable[Plan], model: Model, sandbox: Sandbox, folder: Path, config: EvaluateConfig
) -> dict[str, tuple[Plan, list[dict[str, Any]], Clock]]:
    """Every plan that can be carried out, one after the other; by task its samples and where the time went."""
    found = {}
    for each in plans:
        for words in filter(None, (each.warning, each.reason)):
            say(f"{each.task.title}: {words}")
        if each.reason:
            found[each.task.name] = (each, [], Clock())
            continue
        journal = Journal(folder / f"{each.task.name}.jsonl", each.settings(model, config.options))
        if journal.turns:
            say(f"{each.task.title}: going on from {len(journal.turns):,} answers.")
        try:
            evaluation = Evaluation(each, model, sandbox, journal)
            found[each.task.name] = (each, await evaluation.finish(), evaluation.clock)
        finally:
            journal.close()
    return found
