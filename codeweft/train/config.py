"""Settings of training: the schedule, the optimizer, checkpoints, and the stages that step through the loop.

In:  recipe tables.  Out: frozen dataclasses; no torch.  Source: DeepSeek-Coder-V2 §3.3, DeepSeek-V2 §3.1.2.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from codeweft.model.config import ModelConfig


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, how fast, and in what portions."""

    steps: int = 500  # optimizer steps
    learning_rate: float = 1e-3  # peak rate (236B: 2.4e-4, 16B: 4.2e-4)
    warmup: int = 50  # steps of linear warm-up (paper: 2000)
    floor: float = 0.1  # last rate as a share of the peak
    sequence: int = 512  # tokens a sequence
    batch: int = 16  # sequences a step
    batch_start: int = 0  # sequences in the first step, where the batch grows (0: as batch)
    ramp: int = 0  # steps over which the batch grows
    micro_batch: int = 8  # sequences a forward pass

    def __post_init__(self) -> None:
        """Refuse portions that do not divide."""
        for name in ("batch", "batch_start"):
            if getattr(self, name) % self.micro_batch:
                raise ValueError(f"{name} = {getattr(self, name)} is not a multiple of micro_batch {self.micro_batch}.")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW as in the paper; weights that are vectors (norms) are not decayed."""

    beta1: float = 0.9  # decay of the mean gradient
    beta2: float = 0.95  # decay of the mean square
    epsilon: float = 1e-8  # guard of the division (not stated in the paper)
    weight_decay: float = 0.1  # decoupled decay of matrices
    clip: float = 1.0  # largest norm of the whole gradient


@dataclass(frozen=True)
class BalanceConfig:
    """Weights of the three balance losses (DeepSeek-V2 §2.2.3); 236B: 0.003, 0.05, 0.02; Lite: 0.001, 0, 0."""

    expert: float = 0.001  # expert-level factor
    device: float = 0.0  # device-level factor
    communication: float = 0.0  # communication factor
    devices: int = 1  # groups of experts that count as a device


@dataclass(frozen=True)
class PretrainConfig:
    """Everything the pretrain stage can be told."""

    init: Path | None = None  # model folder to go on from, with a fresh optimizer (default: random weights)
    model: ModelConfig = field(default_factory=ModelConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    vocabulary_multiple: int = 64  # fresh models take the tokenizer's size, rounded up to this (published: 4096)
    initializer_std: float = 0.006  # standard deviation of fresh weights (DeepSeek-V2 §3.1.2)
    precision: Literal["bfloat16", "float32"] = "bfloat16"  # weights and products; masters are float32 either way
    attention: Literal["across", "isolated"] = "across"  # whether tokens see earlier documents of their sequence
    device: str = "auto"  # cpu, cuda or auto
    validate_every: int = 100  # steps between validations
    validation_sequences: int = 32  # held-out sequences a validation reads
    load_every: int = 50  # steps between records of the expert load
    checkpoint_every: int = 100  # steps between checkpoints
    keep_checkpoints: int = 2  # newest checkpoints kept
