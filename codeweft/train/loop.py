"""THE loop: forward, backward, clip, update, validate, record, checkpoint, for every stage that trains.

In:  a model, micro-batches by step, a loss function.  Out: the trained model; metrics; checkpoints to go on from.
Source: DeepSeek-Coder-V2 §3.3. Unusual: the loop knows no stage; a stage is a `Plan` of batches and a loss.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from codeweft.base.errors import UserError
from codeweft.base.progress import bar, quantity, say
from codeweft.base.runs import Run
from codeweft.model.transformer import Transformer
from codeweft.train.batches import Batch
from codeweft.train.checkpoint import Checkpoints
from codeweft.train.config import OptimizerConfig
from codeweft.train.objectives import Loss
from codeweft.train.optimizer import MasterOptimizer

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
    """A model with its optimizer; `step` is one update."""

    def __init__(self, model: Transformer, config: OptimizerConfig) -> None:
        self.model = model
        self.optimizer = MasterOptimizer(model, config)

    def step(self, batches: list[Batch], loss: LossFunction, learning_rate: float) -> StepReport:
        """One update from equal micro-batches; gradients are means over all their tokens."""
        self.model.train()
        losses = []
        for batch in batches:
            made = loss(self.model, batch)
            (made.total / len(batches)).backward()
            self.optimizer.accumulate()
            losses.append(made)
        norm = self.optimizer.step(learning_rate)
        return StepReport(
            loss=float(torch.stack([made.cross_entropy for made in losses]).mean()),
            balance=float(torch.stack([made.balance for made in losses]).mean()),
            gradient_norm=norm,
            tokens=sum(batch.tokens_BT.numel() for batch in batches),
            facts={name: float(sum(made.facts[name] for made in losses)) for name in losses[0].facts},
            load=[torch.stack(layer).mean(0) for layer in zip(*(made.load for made in losses), strict=True)],
        )

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], loss: LossFunction) -> float:
        """Mean cross-entropy over held-out batches, each weighted by its tokens."""
        self.model.eval()
        total, tokens = 0.0, 0
        for batch in batches:
            total += float(loss(self.model, batch).cross_entropy) * batch.tokens_BT.numel()
            tokens += batch.tokens_BT.numel()
        return total / max(tokens, 1)


def train(trainer: Trainer, plan: Plan, run: Run) -> float:
    """Take the plan's steps, from the newest checkpoint if there is one; returns tokens a second of training."""
    checkpoints = Checkpoints(run.folder, plan.keep_checkpoints)
    start, tokens, seconds = _restore(trainer, checkpoints, run)
    with bar(run.name, plan.steps, "steps") as shown:
        shown.advance(start)
        for step in range(start, plan.steps):
            began = time.monotonic()
            rate = plan.learning_rate(step)
            report = trainer.step(plan.batches(step), plan.loss, rate)
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
                **report.facts,
                **(plan.facts(step) if plan.facts else {}),
            }
            if done % plan.validate_every == 0 or done == plan.steps:
                values["validation_loss"] = trainer.validate(plan.validation(), plan.loss)
            if done % plan.load_every == 0 or done == plan.steps:
                values |= _load_values(report.load)
            run.metrics.log(done, **values)
            if done % plan.checkpoint_every == 0 or done == plan.steps:
                checkpoints.save(done, trainer.optimizer.state(), {"tokens": tokens, "seconds": seconds})
            fact = f"loss {report.loss:.3f}, {quantity(report.tokens / elapsed)} tokens/s"
            shown.advance(fact=fact)
    return tokens / seconds


def _restore(trainer: Trainer, checkpoints: Checkpoints, run: Run) -> tuple[int, int, float]:
    """The steps, tokens and training seconds that the newest checkpoint stands for."""
    found = checkpoints.newest()
    if found is None:
        run.metrics.truncate(0)
        return 0, 0, 0.0
    tensors, facts = found
    trainer.optimizer.load(tensors)
    run.metrics.truncate(facts["step"])
    say(f"{run.name}: going on from step {facts['step']}.")
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
