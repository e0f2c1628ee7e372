"""Settings of training: the schedule, the optimizer, checkpoints, and the stages that step through the loop.

In:  recipe tables.  Out: frozen dataclasses; no torch.  Source: DeepSeek-Coder-V2 §3.3, DeepSeek-V2 §3.1.2.
"""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Literal

from codeweft.model.config import ModelConfig

DEFAULTS = {each.name: each.default for each in fields(ModelConfig)}


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
        """Refuse what cannot be, and portions that do not divide."""
        for name in ("steps", "sequence", "batch", "micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        for name in ("warmup", "batch_start", "ramp"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} must not be negative.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate = {self.learning_rate} must be positive.")
        for name in ("batch", "batch_start"):
            if getattr(self, name) % self.micro_batch:
                raise ValueError(f"{name} = {getattr(self, name)} is not a multiple of micro_batch {self.micro_batch}.")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW as in the paper, or Muon beside it; weights that are vectors (norms) are not decayed."""

    kind: Literal["adamw", "muon"] = "adamw"  # muon: for hidden matrices, AdamW for the rest (not the paper's)
    beta1: float = 0.9  # AdamW's decay of the mean gradient
    beta2: float = 0.95  # AdamW's decay of the mean square
    epsilon: float = 1e-8  # guard of AdamW's division (not stated in the paper)
    weight_decay: float = 0.1  # decoupled decay of matrices
    clip: float = 1.0  # largest norm of the whole gradient
    momentum: float = 0.95  # Muon's decay of the summed gradient
    matrix_rate: float = 1.0  # Muon's learning rate as a multiple of the schedule's

    def __post_init__(self) -> None:
        """Refuse what would divide by zero, never forget, or climb."""
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 0 and below 1.")
        if not self.clip > 0:  # infinity: nothing is clipped
            raise ValueError(f"clip = {self.clip} must be positive.")
        for name in ("epsilon", "matrix_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)} must be positive and finite.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay = {self.weight_decay} must be finite and not negative.")
        if self.kind == "adamw" and self.matrix_rate != 1:
            raise ValueError(
                f'matrix_rate = {self.matrix_rate} does nothing with kind "adamw"; remove it or use "muon".'
            )


@dataclass(frozen=True)
class BalanceConfig:
    """Weights of the three balance losses (DeepSeek-V2 §2.2.3); 236B: 0.003, 0.05, 0.02; Lite: 0.001, 0, 0."""

    expert: float = 0.001  # expert-level factor
    device: float = 0.0  # device-level factor
    communication: float = 0.0  # communication factor
    devices: int = 1  # groups of experts that count as a device


@dataclass(frozen=True)
class LoraConfig:
    """Adapters of low rank beside frozen weights (Hu et al. 2021); with rank 0 every weight is trained itself."""

    rank: int = 0  # inner width of an adapter (0: no adapters)
    alpha: float = 32.0  # an adapter's product counts alpha / rank times
    targets: tuple[str, ...] = ()  # matrices with adapters, such as kv_b_proj or experts.down_proj (none named: all)

    def __post_init__(self) -> None:
        """Refuse ranks and factors that cannot be."""
        if self.rank < 0:
            raise ValueError(f"rank = {self.rank} must not be negative.")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha = {self.alpha} must be positive and finite.")


@dataclass(frozen=True)
class PretrainConfig:
    """Everything the pretrain stage can be told."""

    # change what is recorded, not what is learned: a finished stage stays finished when they change
    INCIDENTAL: ClassVar[tuple[str, ...]] = (
        *("device", "validate_every", "validation_sequences", "load_every", "checkpoint_every", "keep_checkpoints"),
    )

    init: Path | None = None  # model folder to go on from, with a fresh optimizer (default: random weights)
    model: ModelConfig = field(default_factory=ModelConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    vocabulary_multiple: int = 64  # fresh models take the tokenizer's size, rounded up to this (published: 4096)
    initializer_std: float = 0.006  # standard deviation of fresh weights (DeepSeek-V2 §3.1.2)
    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # of products; auto: bfloat16 if in hardware
    attention: Literal["across", "isolated"] = "across"  # whether tokens see earlier documents of their sequence
    device: str = "auto"  # cpu, cuda or auto
    validate_every: int = 100  # steps between validations
    validation_sequences: int = 32  # held-out sequences a validation reads
    load_every: int = 50  # steps between records of the expert load
    checkpoint_every: int = 100  # steps between checkpoints
    keep_checkpoints: int = 2  # newest checkpoints kept

    def __post_init__(self) -> None:
        """Refuse intervals that never come and sizes that are not this table's to say."""
        for name in ("validate_every", "load_every", "checkpoint_every", "keep_checkpoints", "vocabulary_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        for name in ("vocab_size", "bos_token_id", "eos_token_id", "fim_rate", "stage"):
            if getattr(self.model, name) != DEFAULTS[name]:
                raise ValueError(f"model.{name} follows from the tokenizer and the tokens; remove it.")
        if self.init is None and self.schedule.sequence > self.model.max_position_embeddings:
            raise ValueError(
                f"schedule.sequence = {self.schedule.sequence} is longer than model.max_position_embeddings = "
                f"{self.model.max_position_embeddings}. Shorten the one, or raise the other."
            )


@dataclass(frozen=True)
class SftScheduleConfig(ScheduleConfig):
    """The schedule of fine-tuning, with the paper's rate and warm-up (DeepSeek-Coder-V2 §3.5.1)."""

    steps: int = 1000  # optimizer steps
    learning_rate: float = 5e-6  # peak rate
    warmup: int = 100  # steps of linear warm-up


@dataclass(frozen=True)
class SftConfig:
    """Everything the sft stage can be told."""

    INCIDENTAL: ClassVar[tuple[str, ...]] = (
        *("device", "validate_every", "validation_sequences", "load_every", "checkpoint_every", "keep_checkpoints"),
    )

    init: Path | None = None  # model folder to go on from (default: the newest model of the run)
    schedule: SftScheduleConfig = field(default_factory=SftScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    weights: dict[str, float] = field(default_factory=dict)  # how often an epoch reads each source (default: once)
    too_long: Literal["cut", "drop"] = "cut"  # conversations over schedule.sequence lose their last turns, or go
    lora: LoraConfig = field(default_factory=LoraConfig)
    fim_share: float = 0.1  # share of the sequences that are infilling documents of the stage tokens
    attention: Literal["isolated", "across"] = "isolated"  # whether tokens see earlier samples of their sequence
    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # of products; auto: bfloat16 if in hardware
    device: str = "auto"  # cpu, cuda or auto
    validate_every: int = 100  # steps between validations
    validation_sequences: int = 16  # packed held-out sequences a validation reads
    load_every: int = 50  # steps between records of the expert load
    checkpoint_every: int = 100  # steps between checkpoints
    keep_checkpoints: int = 2  # newest checkpoints kept

    def __post_init__(self) -> None:
        """Refuse shares and weights that cannot be."""
        for name in ("validate_every", "load_every", "checkpoint_every", "keep_checkpoints", "validation_sequences"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        if not 0 <= self.fim_share < 1:
            raise ValueError(f"fim_share = {self.fim_share} must be at least 0 and below 1.")
        for source, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"weights.{source} = {weight} must be finite and not negative.")
