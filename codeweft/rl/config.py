"""Settings of alignment by feedback: which form of GRPO is maximised, and how preferences are learned.

In:  recipe tables.  Out: frozen dataclasses; no torch.  Source: DeepSeek-V2 §4.2, DeepSeekMath §4.1.

Unusual: the papers do not state the clip range, the group size and KL factor of DeepSeek-Coder-V2, nor which of two
printed forms it used; the defaults are DeepSeekMath's where it states a number, else what the field does.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from codeweft.train.config import BalanceConfig, OptimizerConfig


@dataclass(frozen=True)
class ObjectiveConfig:
    """The form of the objective: DeepSeekMath's by default, DeepSeek-V2's as printed with `level = "sequence"`."""

    group: int = 64  # answers to one prompt (DeepSeekMath: 64)
    normalise_std: bool = True  # whether a group's rewards are divided by their standard deviation
    std_correction: Literal[0, 1] = 1  # 1: divide by n - 1 in the variance (TRL), 0: by n; the papers do not say
    std_epsilon: float = 1e-4  # added to the standard deviation (TRL's; the papers have none)
    supervision: Literal["outcome", "process"] = "outcome"  # one reward an answer, or one a step of it
    level: Literal["token", "sequence", "sequence-mean"] = "token"  # whose probability the ratio compares
    average: Literal["answer", "token", "length"] = (
        "answer"  # answers count alike, tokens count alike, or see `longest`
    )
    longest: int = 1024  # tokens every answer's sum is divided by with average = "length" (DeepSeekMath's cut: 1024)
    clip: float = 0.2  # how far below 1 a ratio still has a gradient, and above it too unless clip_high is set
    clip_high: float = 0.0  # how far above 1 (0: as clip)
    beta: float = 0.04  # factor of the KL divergence from the reference (DeepSeekMath: 0.04)
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"  # the papers' is k3

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be, and combinations that no formula describes."""
        for name in ("group", "longest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        for name in ("std_epsilon", "beta", "clip_high"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)} must be finite and not negative.")
        if not 0 < self.clip < 1:
            raise ValueError(f"clip = {self.clip} must lie between 0 and 1.")
        if self.level == "sequence" and self.average != "answer":
            raise ValueError(
                f'average = "{self.average}" weighs tokens, but level = "sequence" has one term an answer; '
                'use average = "answer" or level = "sequence-mean".'
            )
        if self.level != "token" and self.supervision == "process":
            raise ValueError(
                f'supervision = "process" has an advantage for every token, level = "{self.level}" one an answer; '
                'use level = "token".'
            )


@dataclass(frozen=True)
class PreferenceConfig:
    """How a reward model learns from tests, and which answers are compared; DeepSeek-Coder-V2 states none of it."""

    loss: Literal["pairwise", "pointwise"] = "pairwise"  # DeepSeek-V2 §4.2 names both
    centre: float = 0.0  # pairwise: pulls the mean score of a pair to 0 (0: scores may drift together)
    per_problem: int = 8  # most pairs of one problem
    matched: bool = True  # only answers that parse and run to the end on both sides
    chosen_passes_all: bool = True  # the better answer passes every test (the paper's 0-1 feedback)
    least_gap: float = 0.0  # smallest difference of the shares of tests passed

    def __post_init__(self) -> None:
        """Refuse what selects nothing."""
        if self.per_problem < 1:
            raise ValueError(f"per_problem = {self.per_problem} must be at least 1.")
        if not 0 <= self.least_gap < 1:
            raise ValueError(f"least_gap = {self.least_gap} must be at least 0 and below 1.")
        if not 0 <= self.centre < math.inf:
            raise ValueError(f"centre = {self.centre} must be finite and not negative.")


@dataclass(frozen=True)
class PaceConfig:
    """How many steps, how fast, and in what portions."""

    steps: int = 200  # updates of the weights
    learning_rate: float = 1e-6  # peak rate (DeepSeekMath: 1e-6)
    warmup: int = 0  # steps of linear warm-up
    floor: float = 1.0  # last rate as a share of the peak
    sequence: int = 2048  # longest prompt with its answer, in tokens
    micro_batch: int = 4  # so many times `sequence` tokens make a forward pass at most

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("steps", "sequence", "micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        if self.warmup < 0 or not 0 <= self.floor <= 1:
            raise ValueError("warmup must not be negative, and floor must lie between 0 and 1.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate = {self.learning_rate} must be positive.")


@dataclass(frozen=True)
class RewardPaceConfig(PaceConfig):
    """The same of the reward model."""

    learning_rate: float = 2e-5  # peak rate (DeepSeekMath: 2e-5)
    floor: float = 0.1  # last rate as a share of the peak
    sequence: int = 2048  # longest prompt with its answer, in tokens
    micro_batch: int = 4  # texts a forward pass (a pair is two, and never divided)


@dataclass(frozen=True)
class ServerConfig:
    """An OpenAI-compatible server that draws the answers; without a url the engine of this process does."""

    url: str = ""  # up to and with /v1; its model must be the policy
    model: str = ""  # its name there (none: the first that the server lists)
    reload: str = (
        ""  # path that makes the server load the weights that were just written, e.g. /update_weights_from_disk
    )
    folder_field: str = "model_path"  # under which name that request tells the model folder
    concurrency: int = 64  # questions at once
    timeout_seconds: float = 300.0  # without a further piece of an answer


@dataclass(frozen=True)
class GrpoConfig:
    """Everything the grpo stage can be told."""

    INCIDENTAL: ClassVar[tuple[str, ...]] = (
        "device",
        "load_every",
        "checkpoint_every",
        "keep_checkpoints",
        "tell_every",
    )

    init: Path | None = None  # model folder to go on from (default: the newest model of the run)
    reward: Path | None = None  # reward-model folder (default: that of the stage reward, where it is needed)
    pace: PaceConfig = field(default_factory=PaceConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    prompts: int = 16  # prompts a rollout (DeepSeekMath: 1024 answers in groups of 64)
    updates: int = 1  # steps along one rollout
    iterations: int = 1  # times that the reference becomes the policy and the reward model is trained on
    max_tokens: int = 1024  # longest answer
    temperature: float = 1.0  # of drawing; the objective looks at the same distribution
    top_p: float = 1.0  # smallest probability of the tokens that are drawn from; below 1 the ratio is only nearly right
    rows: int = 64  # answers that are drawn at once
    tests: Literal["visible", "hidden", "all"] = "visible"  # by which answers are judged
    few_tests: int = 0  # only so many of the visible tests (0: all)
    passed: Literal["all", "share"] = "all"  # reward by tests: 1 if all pass (the paper's), or the share that pass
    tests_factor: float = 1.0  # weight of the reward by tests
    model_factor: float = 0.0  # weight of the reward model's score
    silent: Literal["keep", "skip", "resample"] = "skip"  # groups whose rewards are all equal
    resamples: int = 2  # times other prompts are tried in their place
    cut_off: Literal["keep", "leave-out"] = "keep"  # answers that reached max_tokens
    replay: float = 0.1  # share of earlier pairs when the reward model is trained on (DeepSeekMath: 0.1)
    overlap: Literal["off", "on"] = "off"  # on: draw for the next step while answers are judged; weights one step old
    allow_weak_sandbox: bool = False  # run answers behind a weaker tier than namespaces
    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # of products; auto: bfloat16 if in hardware
    device: str = "auto"  # cpu, cuda or auto
    load_every: int = 50  # steps between records of the expert load
    tell_every: int = 10  # steps between words on groups that teach nothing
    checkpoint_every: int = 20  # steps between checkpoints
    keep_checkpoints: int = 2  # newest checkpoints kept

    @property
    def unread(self) -> tuple[str, ...]:
        """Stages that are not needed with these settings."""
        return ("reward",) if self.reward is not None or not self.model_factor else ()

    def __post_init__(self) -> None:
        """Refuse what cannot be, and what would teach nothing."""
        counts = ("prompts", "updates", "iterations", "max_tokens", "rows")
        for name in (*counts, "load_every", "tell_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        if self.objective.group < 2:
            raise ValueError("objective.group = 1: an answer alone is neither better nor worse than its group; take 2.")
        if self.tests_factor < 0 or self.model_factor < 0 or not self.tests_factor + self.model_factor:
            raise ValueError("tests_factor and model_factor must not be negative, nor both 0: there is no reward.")
        if not self.temperature > 0 or not 0 < self.top_p <= 1:
            raise ValueError("temperature must be positive and top_p above 0 and at most 1: a group must differ.")
        if self.pace.steps % (self.updates * self.iterations):
            raise ValueError(
                f"pace.steps = {self.pace.steps} must be a multiple of updates x iterations = "
                f"{self.updates * self.iterations}."
            )
        if not 0 <= self.replay < 1:
            raise ValueError(f"replay = {self.replay} must be at least 0 and below 1.")
        if self.few_tests < 0 or self.resamples < 0:
            raise ValueError("few_tests and resamples must not be negative.")
        if self.objective.supervision == "process":
            raise ValueError('objective.supervision = "process" needs rewards of steps, which tests do not give.')


@dataclass(frozen=True)
class RewardConfig:
    """Everything the reward stage can be told."""

    INCIDENTAL: ClassVar[tuple[str, ...]] = (
        "device",
        "validate_every",
        "load_every",
        "checkpoint_every",
        "keep_checkpoints",
    )

    init: Path | None = None  # model folder to go on from (default: the newest model of the run)
    pace: RewardPaceConfig = field(default_factory=RewardPaceConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)
    problems: int = 0  # problems to answer for training (0: all there are)
    held_out: int = 200  # held-out problems on which the reward model is measured
    answers: int = 8  # drawn for each
    max_tokens: int = 1024  # longest answer
    temperature: float = 1.0  # of drawing
    rows: int = 64  # answers that are drawn at once
    few_tests: int = 0  # only so many of the visible tests judge what is trained on (0: all)
    pairs: int = 16  # pairs (or, point by point, answers) a step
    allow_weak_sandbox: bool = False  # run answers behind a weaker tier than namespaces
    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # of products; auto: bfloat16 if in hardware
    device: str = "auto"  # cpu, cuda or auto
    validate_every: int = 50  # steps between validations
    load_every: int = 50  # steps between records of the expert load
    checkpoint_every: int = 100  # steps between checkpoints
    keep_checkpoints: int = 2  # newest checkpoints kept

    def __post_init__(self) -> None:
        """Refuse amounts with which nothing can be compared."""
        for name in (
            *("held_out", "max_tokens", "rows", "pairs"),
            *("validate_every", "load_every", "checkpoint_every", "keep_checkpoints"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        if self.answers < 2:
            raise ValueError(f"answers = {self.answers} must be at least 2: one alone is in no pair.")
        if self.problems < 0 or self.few_tests < 0:
            raise ValueError("problems and few_tests must not be negative.")
        if not self.temperature > 0:
            raise ValueError("temperature must be positive: equal answers make no pair.")
