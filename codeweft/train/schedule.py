"""What the learning rate and the batch are at each step: pure functions of the step.

In:  the step and the schedule's settings.  Out: a factor of the peak rate; the number of sequences.
Source: DeepSeek-Coder-V2 §3.3 (warm-up, then cosine to a tenth), DeepSeek-V2 §3.1.2 (batch ramp).
"""

import math
from typing import Protocol

from codeweft.train.config import ScheduleConfig


class Pace(Protocol):
    """Settings that decide the rate."""

    @property
    def steps(self) -> int:
        """All steps."""
        ...

    @property
    def learning_rate(self) -> float:
        """The peak."""
        ...

    @property
    def warmup(self) -> int:
        """Steps of linear warm-up."""
        ...

    @property
    def floor(self) -> float:
        """The last rate as a share of the peak."""
        ...


def learning_rate(step: int, config: Pace) -> float:
    """The rate of 0-based `step`: linear from 0 over `warmup`, then half a cosine down to `floor` of the peak.

    >>> config = ScheduleConfig(steps=111, warmup=10, learning_rate=1.0, floor=0.1)
    >>> [round(learning_rate(step, config), 3) for step in (0, 9, 10, 60, 110)]
    [0.1, 1.0, 1.0, 0.55, 0.1]
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    span = max(config.steps - 1 - config.warmup, 1)
    progress = min((step - config.warmup) / span, 1.0)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * (config.floor + (1 - config.floor) * cosine)


def batch_size(step: int, config: ScheduleConfig) -> int:
    """Sequences in 0-based `step`: grows linearly from `batch_start` to `batch` over the first `ramp` steps.

    Rounded to whole micro-batches, so that every micro-batch has the same shape.

    >>> config = ScheduleConfig(steps=10, batch=8, batch_start=2, micro_batch=2, ramp=3)
    >>> [batch_size(step, config) for step in range(5)]
    [2, 4, 6, 8, 8]
    """
    start = config.batch_start or config.batch
    if config.ramp == 0 or step >= config.ramp:
        return config.batch
    wanted = start + (config.batch - start) * step / config.ramp
    return max(round(wanted / config.micro_batch), 1) * config.micro_batch


def sequences_before(step: int, config: ScheduleConfig) -> int:
    """How many sequences all earlier steps took: the data position that a resumed run starts from."""
    ramped = sum(batch_size(earlier, config) for earlier in range(min(step, config.ramp)))
    return ramped + max(step - config.ramp, 0) * config.batch
