"""Settings of measuring: of the stage evaluate, of the look that follows each training stage, of benchmarks.

In:  recipe tables [measure] and [evaluate].  Out: frozen dataclasses; no torch.

Unusual: both tables share the settings of `MeasureConfig`. Where they are equal, evaluate takes the figures that were
already measured instead of measuring again.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from codeweft.tasks.config import TaskOptions


@dataclass(frozen=True)
class MeasureConfig:
    """How much is measured, and where."""

    bits_tokens: int = 200_000  # held-out tokens that are scored (whole documents, drawn by seed)
    bits_document_tokens: int = 16_384  # longer held-out documents are left out of bits per byte
    ngram_order: int = 5  # of the Kneser-Ney baseline; the figure is called 5-gram all the same, its protocol is exact
    ngram_tokens: int = 50_000_000  # most training tokens the baseline counts (about 40 bytes of memory each)
    infilling_samples: int = 200  # single-line holes to fill
    infilling_per_file: int = 4  # most holes in one file
    infilling_context: Literal["both", "before"] = "both"  # before: no infilling format, the text before the hole alone
    infilling_tokens: int = 64  # most tokens generated for a line
    katas: int = 0  # held-out katas of the stage problems that are asked, of known and of unseen families each
    katas_tokens: int = 128  # most tokens of an answer to one
    katas_batch: int = 64  # answers that are written at once
    window: int = 0  # tokens of context (0: the sequence length of the training stage)
    batch: int = 16  # windows scored, or lines generated, at once
    precision: Literal["float32", "bfloat16"] = "float32"  # weights and products while measuring
    device: str = "auto"  # cpu, cuda or auto

    def __post_init__(self) -> None:
        """Refuse amounts with which nothing can be measured."""
        counts: tuple[str, ...] = ("bits_tokens", "ngram_order", "ngram_tokens", "batch")
        counts += ("infilling_samples", "infilling_per_file", "infilling_tokens", "katas_tokens", "katas_batch")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        if self.katas < 0:
            raise ValueError(f"katas = {self.katas} must not be negative.")


@dataclass(frozen=True)
class EvaluateConfig(MeasureConfig):
    """What the stage evaluate measures, and on which benchmarks a model is asked."""

    model: str = ""  # training stage whose model folder is measured (default: the newest that is finished)
    tasks: tuple[str, ...] = ()  # benchmarks by name; `codeweft tasks` lists them
    style: Literal["auto", "base", "chat", "infill", "likelihood"] = "auto"  # how they are asked (auto: by the model)
    samples: int = 0  # answers to each problem (0: as many as the benchmark's protocol says)
    temperature: float = -1.0  # 0 takes the likeliest token each time (negative: as the protocol says)
    top_p: float = 1.0  # smallest probability of the tokens that are drawn from
    max_tokens: int = 0  # longest answer in tokens (0: as the protocol says)
    pass_at: tuple[int, ...] = (1, 10, 100)  # k of pass@k, as far as there are as many samples
    assume_fim: bool = False  # infill although the model folder does not say that it can
    ngrams: Path | None = None  # a corpus's index of word 10-grams (none: that of the run, where there is one)
    options: TaskOptions = field(default_factory=TaskOptions)  # which part of the benchmarks is asked

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        MeasureConfig.__post_init__(self)
        if self.samples < 0 or self.max_tokens < 0 or min(self.pass_at, default=1) < 1:
            raise ValueError("samples and max_tokens must not be negative, and each k of pass_at must be at least 1.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p = {self.top_p} must be above 0 and at most 1.")
