"""Stage grpo: a policy that draws answers, learns which are better than the others of their group, and draws again.

In:  problems/train.jsonl, a model folder and perhaps reward/model.  Out: grpo/model/, rollouts/*.parquet.
Source: DeepSeekMath Algorithm 1, DeepSeek-V2 §4.2, DeepSeek-Coder-V2 §3.5.2.

Unusual: to the training loop this is a stage like any other. Its plan's `batches(step)` draws answers with the weights
as they are at that step, so what a step reads follows from the weights, the seed and the step, and a run that was cut
off goes on with the same numbers. A rollout that was kept is taken again instead of being drawn again. Of several
processes each draws and judges its share of a rollout's prompts; then all know all of it, and the first keeps it.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from codeweft.base.artifacts import atomic_folder
from codeweft.base.errors import ConfigError
from codeweft.base.progress import quantity, say
from codeweft.base.records import Rollout, schema
from codeweft.base.runs import Run
from codeweft.base.seeds import generator
from codeweft.engine.engine import Engine
from codeweft.model.device import choose_device, choose_precision
from codeweft.model.folder import load_folder, save_folder, weights_given
from codeweft.model.transformer import Transformer
from codeweft.rl.config import GrpoConfig
from codeweft.rl.judging import Judge
from codeweft.rl.policy import (
    PolicyBatch,
    Scored,
    answer_logprobs,
    grpo_loss,
    policy_batches,
    with_old,
    with_reference,
)
from codeweft.rl.prompts import Prompt, prompts_of, room_for_prompts, with_few_tests
from codeweft.rl.rollout import (
    EngineSampler,
    Pending,
    Rewards,
    Sampler,
    diagnosis,
    draw,
    facts,
    grouped,
    judged,
    silent,
    weights_digest,
)
from codeweft.rl.scoring import Scorer
from codeweft.tasks.problem_files import read_problems
from codeweft.tokenizer.load import FILES, Tokenizer, load_tokenizer
from codeweft.train.batches import Batch
from codeweft.train.loop import Plan, Trainer, train
from codeweft.train.objectives import Loss
from codeweft.train.schedule import learning_rate

ROLLOUTS = "rollouts"
ITERATIONS = "iterations"


def inputs(config: GrpoConfig) -> dict[str, str]:
    """The weights that come from outside the run."""
    return weights_given("grpo.init", config.init) | weights_given("grpo.reward", config.reward)


def run(config: GrpoConfig, run: Run) -> dict[str, float]:
    """Train and write the model folder; headline: seconds a step."""
    device = choose_device(config.device, "grpo.device")
    if config.server.url and run.together.size > 1:
        raise ConfigError(
            f"grpo.server.url is set, but {run.together.size} processes train: each would give the server weights of "
            "its own.",
            "Start one process, or let each draw for itself, without a server.",
        )
    folder = config.init or run.model
    tokenizer = load_tokenizer(folder)
    room = room_for_prompts("grpo", folder, config.pace.sequence, config.max_tokens)
    problems = with_few_tests(list(read_problems(run.read("problems") / "train.jsonl")), config.few_tests)
    prompts = prompts_of(problems, tokenizer, room, config.tests, "grpo")
    policy = load_folder(folder, dtype=choose_precision(config.precision, device), device=device, trainable=True)
    scorer = Scorer.open(reward_folder(config, run), tokenizer, device) if config.model_factor else None
    run.device = str(device)
    size, dtype = quantity(policy.config.total_parameters), str(policy.lm_head.weight.dtype).removeprefix("torch.")
    say(f"grpo: {size} parameters, {len(prompts):,} problems, on {device}, {dtype}.")
    trainer = Trainer(policy, config.optimizer, run.together)
    with Judge(
        run.sections["sandbox"], "grpo", allow_weak=config.allow_weak_sandbox, shares=config.passed == "share"
    ) as judge:
        sampler = make_sampler(config, policy, tokenizer, run)
        exploring = Exploring(config, run, prompts, policy, folder, tokenizer, sampler, judge, scorer, device)
        train(trainer, exploring.plan(), run)
    if not run.leads:
        return {}
    run.adopt(ROLLOUTS)
    tokens = [tokenizer.folder / name for name in FILES]
    save_folder(policy, run.folder / "model", stage="grpo", extra_files=tokens)
    run.adopt("model")
    run.counts |= {
        "tokens_seen": run.tokens_seen,
        "prompts": len(prompts),
        "rollouts": config.pace.steps // config.updates,
        "answers": config.pace.steps // config.updates * config.prompts * config.objective.group,
    }
    return {"seconds_per_step": round(run.metrics.mean("seconds"), 3)}


def reward_folder(config: GrpoConfig, run: Run) -> Path:
    """Where the reward model is."""
    return config.reward or run.read("reward") / "model"


def make_sampler(config: GrpoConfig, policy: Transformer, tokenizer: Tokenizer, run: Run) -> Sampler:
    """Our engine over the policy itself, or a server that gets its weights as a folder."""
    if config.server.url:
        from codeweft.rl.server import ServerSampler

        return ServerSampler(config, policy, tokenizer, run.staging / "served")
    longest = min(config.pace.sequence, policy.config.max_position_embeddings)
    engine = Engine(policy, tokenizer, rows=config.rows, max_length=longest, guess=0)
    return EngineSampler(engine, config.max_tokens, config.temperature, config.top_p)


@dataclass
class Exploring:
    """What a policy reads at each step: its own answers of that step, judged and weighed."""

    config: GrpoConfig
    run: Run
    prompts: Sequence[Prompt]
    policy: Transformer
    folder: Path
    tokenizer: Tokenizer
    sampler: Sampler
    judge: Judge
    scorer: Scorer | None
    device: torch.device
    reference: Transformer | None = None
    iteration: int = -1
    rollout: int = -1  # the one that `kept` holds
    kept: list[PolicyBatch] = field(default_factory=list)
    ahead: tuple[int, Pending, str] | None = None  # a rollout that is drawn and not weighed yet, with overlap
    recorded: dict[str, float] = field(default_factory=dict)

    def plan(self) -> Plan:
        """The stage as the training loop sees it."""
        config = self.config
        return Plan(
            steps=config.pace.steps,
            batches=self.batches,
            learning_rate=lambda step: learning_rate(step, config.pace),
            loss=self.loss,
            validation=lambda: (),
            validate_every=config.pace.steps + 1,  # what it is worth is measured on held-out problems
            load_every=config.load_every,
            checkpoint_every=config.checkpoint_every * config.updates,  # never amid the updates along one rollout
            keep_checkpoints=config.keep_checkpoints,
            facts=lambda step: self.recorded,
        )

    def loss(self, model: Transformer, batch: Batch) -> Loss:
        """The objective on one batch of the step's rollout."""
        assert isinstance(batch, PolicyBatch)
        config = self.config
        return grpo_loss(model, batch, config.objective, config.balance, config.temperature, len(self.kept))

    def batches(self, step: int) -> list[Batch]:
        """The batches of a step; a new rollout where the last one has had its updates."""
        rollout = step // self.config.updates
        if rollout != self.rollout:
            self._begin(rollout // (self.config.pace.steps // self.config.updates // self.config.iterations))
            rows = self._rows(rollout)
            self.kept, self.rollout = self._made(rows), rollout
            self.recorded |= facts(rows, self.tokenizer.end)
            if rollout % self.config.tell_every == 0 and (words := diagnosis(rows)):
                say(f"grpo: step {step + 1}: {words}")
        return list(self.kept)

    # --- one rollout --------------------------------------------------------------------------------------------------

    def _rows(self, rollout: int) -> list[Rollout]:
        """The rollout's answers: those that were kept, else drawn now (or, with overlap, drawn a step ago)."""
        path = self._path(rollout)
        self.recorded = {"seconds_drawing": 0.0, "seconds_waiting": 0.0, "staleness": 0.0}
        kept = self.run.together.first(read_rollout(path) if self.run.leads and path.exists() else None)
        if kept is not None:
            self.ahead = None
            return kept
        began = time.monotonic()
        if self.ahead is not None and self.ahead[0] == rollout:
            (_, pending, digest), self.ahead = self.ahead, None
            self.recorded["staleness"] = 1.0
        else:
            digest, pending = self._drawn(rollout, 0)
        last = rollout + 1 >= self.config.pace.steps // self.config.updates
        if self.config.overlap == "on" and not last:
            behind, following = self._drawn(rollout + 1, 0)
            self.ahead = rollout + 1, following, behind
        drawn = time.monotonic()
        rows = self._weighed(pending, rollout, digest)
        waited = time.monotonic()
        if self.config.silent == "resample":
            rows = self._resampled(rows, rollout)
        self.recorded |= {"seconds_drawing": drawn - began, "seconds_waiting": waited - drawn}
        self.run.write(f"{ROLLOUTS}/{path.name}", pa.Table.from_pylist([asdict(row) for row in rows], schema(Rollout)))
        return rows

    def _path(self, rollout: int) -> Path:
        return self.run.folder / ROLLOUTS / f"{rollout:06d}.parquet"

    def _drawn(self, rollout: int, again: int) -> tuple[str, Pending]:
        self.sampler.refresh()
        chosen = self._chosen(rollout, self.config.prompts, again)
        judge = self.judge if self.config.tests_factor else None
        places = self.run.together.share(range(len(chosen)))
        pending = draw(
            [chosen[place] for place in places], self.config.objective.group, self.run.seed, (rollout << 8) + again,
            self.sampler, judge, self.config.tests, places,
        )  # fmt: skip
        if self.config.overlap == "on":
            pending = self._remembered(pending)
        return weights_digest(self.policy), pending

    def _remembered(self, pending: Pending) -> Pending:
        """The answers with the policy's log-probabilities as it is now: when they are learned from, it has moved on."""
        asked = [prompt for prompt in pending.prompts for _ in range(pending.size)]
        scored = [Scored(prompt.tokens, each.tokens, 0.0) for prompt, each in zip(asked, pending.drawn, strict=True)]
        self.policy.eval()
        batches = policy_batches(
            scored, self.config.objective, self.config.pace.sequence, self.config.pace.micro_batch,
            self.tokenizer.end, self.device,
        )  # fmt: skip
        known = answer_logprobs(self.policy, batches, len(scored), self.config.temperature)
        drawn = tuple(replace(each, logprobs=old) for each, old in zip(pending.drawn, known, strict=True))
        return replace(pending, drawn=drawn)

    def _weighed(self, pending: Pending, rollout: int, digest: str) -> list[Rollout]:
        """The rows of all processes, groups in the order of their prompts."""
        found = judged(pending, self._rewards(), self.config.objective, rollout, digest) if pending.prompts else []
        groups = self.run.together.joined(grouped(found))
        return [replace(row, group=place) for place, group in enumerate(groups) for row in group]

    def _chosen(self, rollout: int, count: int, again: int) -> list[Prompt]:
        """The prompts of a rollout: all in an order drawn anew each time round; replacements are drawn from all."""
        if again:
            order = generator(self.run.seed, "grpo", "again", rollout, again).permutation(len(self.prompts))
            return [self.prompts[number] for number in order[:count]]
        chosen = []
        for position in range(rollout * count, (rollout + 1) * count):
            epoch, place = divmod(position, len(self.prompts))
            chosen.append(self.prompts[_order(self.run.seed, epoch, len(self.prompts))[place]])
        return chosen

    def _rewards(self) -> Rewards:
        config = self.config
        scores = None if self.scorer is None else self.scorer.scores
        return Rewards(config.tests_factor, config.passed == "share", config.model_factor, scores)

    def _resampled(self, rows: list[Rollout], rollout: int) -> list[Rollout]:
        """The rows, silent groups exchanged for groups of other prompts that teach something, as far as they come."""
        for again in range(1, self.config.resamples + 1):
            missing = [number for number, group in enumerate(grouped(rows)) if silent(group)]
            if not missing:
                break
            digest, pending = self._drawn(rollout, again)
            others = grouped(self._weighed(pending, rollout, digest))
            useful = [group for group in others if not silent(group)]
            groups = grouped(rows)
            for number, other in zip(missing, useful, strict=False):
                groups[number] = [replace(row, group=number) for row in other]
            rows = [row for group in groups for row in group]
        return rows

    def _made(self, rows: list[Rollout]) -> list[PolicyBatch]:
        """What of the rows is learned from, as batches."""
        config, by_id = self.config, {prompt.problem.id: prompt for prompt in self.prompts}
        stale = config.overlap == "on"
        scored = [
            Scored(by_id[row.problem].tokens, row.tokens, row.advantage, row.logprobs if stale else ())
            for group in grouped(rows)
            if config.silent == "keep" or not silent(group)
            for row in group
            if row.reward == row.reward and (config.cut_off == "keep" or row.tokens[-1] == self.tokenizer.end)
        ]
        if not scored:
            return []
        batches = policy_batches(
            scored, config.objective, config.pace.sequence, config.pace.micro_batch, self.tokenizer.end, self.device
        )
        mine = list(self.run.together.share(batches))  # what this process will not learn from itself is only counted
        if config.updates > 1 and not stale:
            self.policy.eval()
            mine = with_old(self.policy, mine, config.temperature)
        if self.reference is not None:
            mine = with_reference(self.reference, mine, config.temperature)
        batches[self.run.together.rank :: self.run.together.size] = mine
        return batches

    # --- iterations ---------------------------------------------------------------------------------------------------

    def _begin(self, iteration: int) -> None:
        """At the start of an iteration the reference becomes the policy, and the reward model learns from the last."""
        if iteration == self.iteration:
            return
        folder = self.run.folder / ITERATIONS / f"{iteration:03d}"
        if iteration:
            if self.run.leads and not (folder / "model").exists():
                with atomic_folder(folder / "model") as partial_folder:
                    save_folder(
                        self.policy, partial_folder, extra_files=[self.tokenizer.folder / name for name in FILES]
                    )
            self.run.together.wait()
            if self.scorer is not None:
                self.scorer = self._scorer_after(iteration, folder)
        source = folder / "model" if iteration else self.folder
        if self.config.objective.beta:
            dtype = self.policy.lm_head.weight.dtype
            self.reference = load_folder(source, dtype=dtype, device=self.device)
        self.iteration = iteration

    def _scorer_after(self, iteration: int, folder: Path) -> Scorer:
        """The reward model after learning from the last iteration's answers and a share of the earlier pairs."""
        from codeweft.rl.reward import trained_on

        made = folder / "reward"
        if self.run.leads and not made.exists():
            each = self.config.pace.steps // self.config.updates // self.config.iterations
            paths = [self._path(number) for number in range((iteration - 1) * each, iteration * each)]
            rows = [row for path in paths for row in read_rollout(path)]
            before = self.run.folder / ITERATIONS / f"{iteration - 1:03d}" / "reward"
            source = before if before.exists() else reward_folder(self.config, self.run)
            with atomic_folder(made) as partial_folder:
                trained_on(rows, self.prompts, source, partial_folder, self.config, self.run, self.tokenizer)
        self.run.together.wait()
        return Scorer.open(made, self.tokenizer, self.device)


def read_rollout(path: Path) -> list[Rollout]:
    """The answers of a kept rollout."""
    rows = pq.read_table(path).to_pylist()
    return [Rollout(**row | {name: tuple(row[name]) for name in ("tokens", "logprobs")}) for row in rows]


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return generator(seed, "grpo", "order", epoch).permutation(count)
