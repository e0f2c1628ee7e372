"""What the stages that learn to predict the next token ask of the loop alike: their pace, their loss.

In:  a stage's settings, its batches by step, its validation.  Out: its plan.
"""

from collections.abc import Callable, Iterable

from codeweft.model.transformer import Transformer
from codeweft.train.batches import Batch
from codeweft.train.config import PretrainConfig, SftConfig
from codeweft.train.loop import Plan
from codeweft.train.objectives import Loss, next_token
from codeweft.train.schedule import learning_rate


def next_token_plan(
    config: PretrainConfig | SftConfig,
    batches: Callable[[int], list[Batch]],
    validation: Callable[[], Iterable[Batch]],
) -> Plan:
    """Rates and intervals as the settings say them, and the loss of the next token with their balance losses."""

    def loss(model: Transformer, batch: Batch) -> Loss:
        return next_token(model, batch, config.balance)

    return Plan(
        steps=config.schedule.steps,
        batches=batches,
        learning_rate=lambda step: learning_rate(step, config.schedule),
        loss=loss,
        validation=validation,
        validate_every=config.validate_every,
        load_every=config.load_every,
        checkpoint_every=config.checkpoint_every,
        keep_checkpoints=config.keep_checkpoints,
    )
