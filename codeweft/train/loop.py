"""THE loop: forward, backward, clip, update, validate, record, checkpoint, for every stage that trains.

In:  a model, micro-batches by step, a loss function.  Out: the trained model; metrics; checkpoints to go on from.
Source: DeepSeek-Coder-V2 §3.3. Unusual: the loop knows no stage; a stage is a `Plan` of batches and a loss. Of several
processes each takes its share of a step's batches; all then know the losses of all and make the same update.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from codeweft.base.errors import InputError, UserError
from codeweft.base.processes import Together
from codeweft.base.progress import bar, quantity, say
from codeweft.base.runs import Run
from codeweft.model.transformer import Transformer
from codeweft.train.batches import Batch
from codeweft.train.checkpoint import Checkpoints
from codeweft.train.config import OptimizerConfig
from codeweft.train.objectives import Loss
from codeweft.train.optimizer import MasterOptimizer

IDLE = "some of them wait: make micro_batch smaller, or start fewer"
LossFunction = Callable[[Transformer, Batch], Loss]


@dataclass(frozen=True)
class Plan:
    """What a stage asks of the loop; functions of the 0-based step, so that a resumed run asks the same."""

    steps: int
    batches: Callable[[int], list[Batch]]  # the micro-batches of a step, all of one shape
    learning_rate: Callable[[int], float]
    loss: LossFunction
    validation: Callable[[], Iterable[Batch]]
    validate_every: int
    load_every: int
    checkpoint_every: int
    keep_checkpoints: int
    facts: Callable[[int], dict[str, float]] | None = None  # what a stage records of a step beside its loss


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did: mean losses over its micro-batches, the gradient's norm, tokens read."""

    loss: float
    balance: float
    gradient_norm: float
    tokens: int
    load: list[Tensor]
    facts: dict[str, float]


class Trainer:
    """A model with its optimizer; `step` is one update.

    Of processes that train together, each calls the methods with the batches of all and works on its share of them.
    """

    def __init__(self, model: Transformer, config: OptimizerConfig, together: Together | None = None) -> None:
        self.model, self.together = model, together or Together()
        self.optimizer = MasterOptimizer(model, config)

    def step(self, batches: list[Batch], loss: LossFunction, learning_rate: float) -> StepReport:
        """One update from equal micro-batches; gradients are means over all their tokens. Without any, nothing."""
        if not batches:
            return StepReport(0.0, 0.0, 0.0, 0, [], {})
        self.model.train()
        losses = []
        for batch in self.together.share(batches):
            made = loss(self.model, batch)
            (made.total / len(batches)).backward()
            self.optimizer.accumulate()
            losses.append(made)
        self.optimizer.sum_over(self.together)
        losses = self._of_all(losses)
        norm = self.optimizer.step(learning_rate)
        return StepReport(
            loss=float(torch.stack([made.cross_entropy for made in losses]).mean()),
            balance=float(torch.stack([made.balance for made in losses]).mean()),
            gradient_norm=norm,
            tokens=sum(batch.tokens_BT.numel() for batch in batches),
            facts={name: float(sum(made.facts[name] for made in losses)) for name in losses[0].facts},
            load=[torch.stack(layer).mean(0) for layer in zip(*(made.load for made in losses), strict=True)],
        )

    def _of_all(self, losses: list[Loss]) -> list[Loss]:
        """The losses of all batches, in their order, from those of this process's share."""
        if self.together.size == 1:
            return losses
        return self.together.joined([_sendable(made) for made in losses])

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], loss: LossFunction) -> float | None:
        """Mean cross-entropy over held-out batches, each weighted by its tokens; None where there are none."""
        self.model.eval()
        found: list[tuple[float, int]] = []
        for number, batch in enumerate(batches):
            if number % self.together.size == self.together.rank:
                found.append((float(loss(self.model, batch).cross_entropy), batch.tokens_BT.numel()))
        total, tokens = 0.0, 0
        for entropy, counted in self.together.joined(found):
            total += entropy * counted
            tokens += counted
        return total / tokens if tokens else None


def _sendable(made: Loss) -> Loss:
    """A loss without its graph, in the memory that every process has."""

    def plain(tensor: Tensor) -> Tensor:
        return tensor.detach().cpu()

    return replace(
        made,
        total=plain(made.total),
        cross_entropy=plain(made.cross_entropy),
        balance=plain(made.balance),
        load=[plain(layer) for layer in made.load],
        facts={name: plain(fact) for name, fact in made.facts.items()},
    )


def train(trainer: Trainer, plan: Plan, run: Run) -> float:
    """Take the plan's steps, from the newest checkpoint if there is one; returns tokens a second of training."""
    checkpoints = Checkpoints(run.folder, plan.keep_checkpoints)
    start, tokens, seconds = _restore(trainer, checkpoints, run)
    told_idle = False
    with bar(run.name, plan.steps, "steps") as shown:
        shown.advance(start)
        for step in range(start, plan.steps):
            began = time.monotonic()
            rate = plan.learning_rate(step)
            batches = plan.batches(step)
            if 0 < len(batches) < run.together.size and not told_idle:
                told_idle = True
                fewer = f"fewer batches ({len(batches)}) than there are processes ({run.together.size})"
                say(f"{run.name}: step {step + 1} has {fewer}; {IDLE}.")
            report = trainer.step(batches, plan.loss, rate)
            _check_finite(report, step, run.name)
            elapsed = time.monotonic() - began
            seconds, tokens = seconds + elapsed, tokens + report.tokens
            done = step + 1
            values = {
                "loss": report.loss,
                "learning_rate": rate,
                "gradient_norm": report.gradient_norm,
                "balance_loss": report.balance,
                "tokens": tokens,
                "tokens_per_second": report.tokens / elapsed,
                "seconds": elapsed,
                **report.facts,
                **(plan.facts(step) if plan.facts else {}),
            }
            if done % plan.validate_every == 0 or done == plan.steps:
                found = trainer.validate(plan.validation(), plan.loss)
                values |= {} if found is None else {"validation_loss": found}
            if done % plan.load_every == 0 or done == plan.steps:
                values |= _load_values(report.load)
            run.metrics.log(done, **values)
            if run.leads and (done % plan.checkpoint_every == 0 or done == plan.steps):
                progress = {"tokens": tokens, "seconds": seconds, "processes": run.together.size}
                checkpoints.save(done, trainer.optimizer.state(), progress)
            fact = f"loss {report.loss:.3f}, {quantity(report.tokens / elapsed)} tokens/s"
            shown.advance(fact=fact)
    return tokens / seconds


def _restore(trainer: Trainer, checkpoints: Checkpoints, run: Run) -> tuple[int, int, float]:
    """The steps, tokens and training seconds that the newest checkpoint stands for."""
    found = checkpoints.newest()
    steps = run.together.every(found[1]["step"] if found else 0)
    if len(set(steps)) > 1:
        raise InputError(
            f"{run.name}: the processes would go on from different steps ({', '.join(map(str, steps))}).",
            "They need one run folder, on a disk that all of them see.",
        )
    if found is None:
        run.metrics.truncate(0)
        return 0, 0, 0.0
    tensors, facts = found
    trainer.optimizer.load(tensors)
    run.metrics.truncate(facts["step"])
    before, now = facts.get("processes", 1), run.together.size
    changed = f", with another number of processes ({now}, not {before}): last bits may differ"
    changed = changed if now != before else ""
    say(f"{run.name}: going on from step {facts['step']}{changed}.")
    return facts["step"], facts["tokens"], facts["seconds"]


def _check_finite(report: StepReport, step: int, name: str) -> None:
    if not (math.isfinite(report.loss) and math.isfinite(report.gradient_norm)):
        raise UserError(
            f"{name}: step {step + 1} gave loss {report.loss} and gradient norm {report.gradient_norm}; "
            "the weights were left as they were.",
            "Lower the learning rate or lengthen the warm-up; either starts the stage over.",
        )


def _load_values(load: list[Tensor]) -> dict[str, float]:
    return {
        f"expert_load/layer_{layer}/expert_{expert}": round(float(share), 6)
        for layer, shares_E in enumerate(load)
        for expert, share in enumerate(shares_E)
    }
