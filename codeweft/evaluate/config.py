"""Settings of measuring: of the stage evaluate, and of the look that follows each training stage.

In:  recipe tables [measure] and [evaluate].  Out: frozen dataclasses; no torch.

Unusual: both tables have the same settings. Where they are equal, evaluate takes the figures that were already
measured instead of measuring again.
"""

from dataclasses import dataclass
from typing import Literal


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
    window: int = 0  # tokens of context (0: the sequence length of the training stage)
    batch: int = 16  # windows scored, or lines generated, at once
    precision: Literal["float32", "bfloat16"] = "float32"  # weights and products while measuring
    device: str = "auto"  # cpu, cuda or auto

    def __post_init__(self) -> None:
        """Refuse amounts with which nothing can be measured."""
        counts = ("bits_tokens", "ngram_order", "ngram_tokens", "batch")
        for name in (*counts, "infilling_samples", "infilling_per_file", "infilling_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")


@dataclass(frozen=True)
class EvaluateConfig(MeasureConfig):
    """What the stage evaluate measures."""

    model: str = "pretrain"  # training stage whose model folder is measured
