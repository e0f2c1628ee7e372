"""Draws groups of answers to prompts and finds out what they are worth.

In:  prompts, a sampler, a judge, perhaps a reward model.  Out: groups with rewards and advantages; rows to keep.
Source: DeepSeekMath §4.1.1 (G answers a prompt, rewards relative to their group), DeepSeek-Coder-V2 §3.5.2.

Unusual: an answer is judged as soon as it is written, while others are being written; rewards are taken in the order
of the prompts all the same. Whatever drew the answers, a text's seed follows from the step, its place and its number.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import torch

from codeweft.base.artifacts import digest_of
from codeweft.base.records import Rollout
from codeweft.base.seeds import derive
from codeweft.engine.engine import Engine
from codeweft.engine.request import Piece, Request, join
from codeweft.rl.config import ObjectiveConfig
from codeweft.rl.grpo import combined_reward, group_advantages, silent_groups
from codeweft.rl.judging import Judge, Outcome
from codeweft.rl.prompts import Prompt, Tests

COMMON = 3  # causes that are told
STATUS_WORDS = {
    "ok": "passed",
    "wrong": "were wrong",
    "runtime_error": "broke while they ran",
    "compile_error": "failed to compile",
    "time_limit": "ran out of time",
    "memory_limit": "ran out of memory",
    "output_limit": "wrote too much",
    "incomplete": "ended before their tests did",
    "bad_output": "wrote what is no answer",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One answer that is to be drawn."""

    prompt: Prompt
    seed: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """One answer: its tokens with the end token, their log-probabilities at temperature 1, and how it ended.

    `logprobs` is empty where the sampler does not tell them.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: str


class Sampler(Protocol):
    """What draws answers."""

    def draw(self, wanted: Sequence[Wanted], ended: Callable[[int, Drawn], None]) -> None:
        """Draw all that is wanted; `ended(number, answer)` is called for each as soon as it is there."""
        ...

    def refresh(self) -> None:
        """The policy's weights have changed."""
        ...


class EngineSampler:
    """Our engine in this process, over the very weights that are being trained. A group's prompt is read once."""

    def __init__(self, engine: Engine, max_tokens: int, temperature: float, top_p: float) -> None:
        self.engine, self.max_tokens, self.temperature, self.top_p = engine, max_tokens, temperature, top_p

    def draw(self, wanted: Sequence[Wanted], ended: Callable[[int, Drawn], None]) -> None:
        """Continuous batching over all answers together."""
        self.engine.model.eval()
        numbers = {self.engine.submit(self._request(each)): number for number, each in enumerate(wanted)}
        pieces: dict[int, list[Piece]] = {request: [] for request in numbers}
        try:
            while pieces:
                for piece in self.engine.step():
                    pieces[piece.request].append(piece)
                    if piece.finish is not None:
                        parts = pieces.pop(piece.request)
                        made = join(parts)
                        logprobs = tuple(logprob for part in parts for logprob in part.logprobs)
                        ended(numbers[piece.request], Drawn(made.tokens, logprobs, made.text, made.finish))
        finally:
            for request in pieces:  # an interrupt must not leave rows occupied
                self.engine.cancel(request)

    def refresh(self) -> None:
        """Forget what was read with the old weights."""
        self.engine.refresh()

    def _request(self, wanted: Wanted) -> Request:
        return Request(
            wanted.prompt.tokens,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=wanted.seed,
        )


Scores = Callable[[Sequence[Prompt], Sequence[Drawn]], list[float]]  # a reward model's, one an answer


@dataclass(frozen=True, slots=True)
class Pending:
    """Groups that are drawn and whose verdicts may still be on their way."""

    prompts: tuple[Prompt, ...]
    size: int
    seeds: tuple[int, ...]
    drawn: tuple[Drawn, ...]
    verdicts: tuple["Future[Outcome] | None", ...]


def draw(
    prompts: Sequence[Prompt],
    size: int,
    seed: int,
    step: int,
    sampler: Sampler,
    judge: Judge | None,
    tests: Tests,
    places: Sequence[int] | None = None,
) -> Pending:
    """Draw `size` answers to each prompt; each goes to the judge, if there is one, as soon as it is written.

    places: where the prompts stand among those of the whole step, where they are not all of them.
    """
    wanted = [
        Wanted(prompt, derive(seed, "rollout", step, place, number) % 2**31)
        for place, prompt in zip(range(len(prompts)) if places is None else places, prompts, strict=True)
        for number in range(size)
    ]
    drawn: list[Drawn | None] = [None] * len(wanted)
    verdicts: list[Future[Outcome] | None] = [None] * len(wanted)

    def ended(number: int, answer: Drawn) -> None:
        drawn[number] = answer
        if judge is not None:
            verdicts[number] = judge.judge(wanted[number].prompt.problem, answer.text, tests)

    sampler.draw(wanted, ended)
    done = [answer for answer in drawn if answer is not None]
    assert len(done) == len(wanted), "a sampler ends with every answer"
    return Pending(tuple(prompts), size, tuple(each.seed for each in wanted), tuple(done), tuple(verdicts))


@dataclass(frozen=True, slots=True)
class Rewards:
    """What an answer is worth: weights of the tests' 0-1 (or share) and of a reward model's score."""

    tests: float
    share: bool  # the share of tests passed, not only whether all are
    model: float = 0.0
    scores: Scores | None = None


def judged(pending: Pending, rewards: Rewards, objective: ObjectiveConfig, step: int, digest: str) -> list[Rollout]:
    """Wait for the verdicts, in the order of the prompts, and weigh the answers against their groups.

    One row an answer, groups together; the reward is NaN where nobody could tell. `digest` names the weights that drew.
    """
    outcomes = [None if verdict is None else verdict.result() for verdict in pending.verdicts]
    kinds: list[tuple[float, list[float]]] = []
    if rewards.tests:
        known = [outcome for outcome in outcomes if outcome is not None]
        assert len(known) == len(outcomes), "a reward by tests needs a judge"
        kinds.append((rewards.tests, [each.share if rewards.share else each.passed for each in known]))
    if rewards.model:
        assert rewards.scores is not None, "a reward by a model needs the model"
        of_prompt = [prompt for prompt in pending.prompts for _ in range(pending.size)]
        kinds.append((rewards.model, rewards.scores(of_prompt, pending.drawn)))
    factor_K, reward_KN = (torch.tensor(each, dtype=torch.float64) for each in zip(*kinds, strict=True))
    total_N = combined_reward(reward_KN, factor_K)
    # what the model scores beyond all numbers is set aside like what nobody could judge
    total_N = torch.where(total_N.isfinite(), total_N, torch.nan)
    total, reward_BG = total_N.tolist(), total_N.view(len(pending.prompts), pending.size)
    advantages = group_advantages(reward_BG, objective).flatten().tolist()
    rows = []
    for number, answer in enumerate(pending.drawn):
        group, outcome = number // pending.size, outcomes[number]
        verdict = "" if outcome is None else outcome.verdict.status
        rows.append(
            Rollout(
                step, pending.prompts[group].problem.id, group, pending.seeds[number], answer.tokens, answer.logprobs,
                total[number], advantages[number], verdict, digest,
            )
        )  # fmt: skip
    return rows


# --- what a rollout was like ------------------------------------------------------------------------------------------


def grouped(rows: Sequence[Rollout]) -> list[list[Rollout]]:
    """The rows of a step, group by group."""
    groups: dict[int, list[Rollout]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return list(groups.values())


def silent(group: Sequence[Rollout]) -> bool:
    """Whether a group teaches nothing: no two of its known rewards differ."""
    return bool(silent_groups(torch.tensor([[row.reward for row in group]], dtype=torch.float64)))


def diagnosis(rows: Sequence[Rollout]) -> str:
    """In words, why groups teach nothing; empty where all teach something.

    "3 of 8 groups teach nothing: all 8 answers failed to compile (2 groups), all 8 answers passed (1 group)."
    """
    groups = grouped(rows)
    causes: Counter[str] = Counter()
    for group in groups:
        if not silent(group):
            continue
        [(word, count)] = Counter(map(_fate, group)).most_common(1)
        which = f"all {count}" if count == len(group) else f"{count} of {len(group)}"
        causes[f"{which} answers {word}"] += 1
    if not causes:
        return ""
    number, told = causes.total(), causes.most_common(COMMON)
    listed = [f"{cause} ({times} {'group' if times == 1 else 'groups'})" for cause, times in told]
    others = ", and other causes" if len(causes) > COMMON else ""
    return f"{number} of {len(groups)} groups teach nothing: {', '.join(listed)}{others}."


def _fate(row: Rollout) -> str:
    if math.isnan(row.reward):
        return "could not be judged"
    return STATUS_WORDS.get(row.verdict, "failed") if row.verdict else "have one score"


def facts(rows: Sequence[Rollout], end: int) -> dict[str, float]:
    """Means over the answers of a rollout (and over its groups), for the metrics; `end` is the token that ends one."""
    known = [row.reward for row in rows if not math.isnan(row.reward)]
    groups = grouped(rows)
    found = {
        "reward": sum(known) / max(len(known), 1),
        "length": sum(len(row.tokens) for row in rows) / len(rows),
        "cut_off": sum(row.tokens[-1] != end for row in rows) / len(rows),
        "silent_groups": sum(map(silent, groups)) / len(groups),
        "unjudged": float(len(rows) - len(known)),
    }
    judged = [row.verdict for row in rows if row.verdict]
    if judged:
        found["passed"] = sum(verdict == "ok" for verdict in judged) / len(judged)
        found["compiled"] = sum(verdict != "compile_error" for verdict in judged) / len(judged)
    return found


def weights_digest(model: torch.nn.Module) -> str:
    """A name for the weights, equal for equal ones: made of each tensor's sum and length, not of all its bytes."""
    wide = (each.detach().double() for each in model.parameters())
    sums = [[float(each.sum()), float(each.norm())] for each in wide]
    return digest_of(sums)
