"""Settings of the stages tokenizer and tokens.

In:  a recipe's [tokenizer] and [tokens] tables.  Out: checked configurations.
Source: DeepSeek-Coder-V2 §2 (shares 60/10/30), §3.1 (infilling rate 0.5); four passes: Muennighoff et al. 2023.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class TokenizerConfig:
    """How large the vocabulary is, and on how much text it is trained."""

    vocabulary: int = 8192  # ids in all, the five special tokens included (published: 100,000 ordinary ones)
    code_megabytes: float = 12.0  # train on at most this much code, documents drawn by seed
    math_megabytes: float = 2.0  # the same for mathematics
    text_megabytes: float = 4.0  # the same for natural language
    longest_token: int = 128  # no token has more bytes than this
    held_out_megabytes: float = 2.0  # held-out text on which bytes per token are measured
    init: Path | None = None  # take the tokenizer of this folder instead of training one

    def __post_init__(self) -> None:
        """ValueError for what cannot be."""
        if self.vocabulary < 256:
            raise ValueError(f"vocabulary is {self.vocabulary}, but bytes and special tokens alone are 248")
        if self.longest_token < 2:
            raise ValueError("longest_token must be at least 2")
        for name in ("code_megabytes", "math_megabytes", "text_megabytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.held_out_megabytes <= 0:
            raise ValueError("held_out_megabytes must be positive")

    def limit(self, kind: str) -> int:
        """The most bytes of a kind to train on."""
        return round(
            {"code": self.code_megabytes, "math": self.math_megabytes, "text": self.text_megabytes}[kind] * 1e6
        )


@dataclass(frozen=True)
class TokensConfig:
    """What the training stream is mixed from, and how it is cut for infilling."""

    total: int = 6_000_000  # tokens in the training stream
    code_share: float = 0.6  # share of code in it (the three shares are scaled to add up to 1)
    math_share: float = 0.1  # share of mathematics
    text_share: float = 0.3  # share of natural language
    max_epochs: int = 4  # most passes over a kind; one that would need more lowers the total, which is said
    fim_rate: float = 0.5  # chance that a copy of a document is rearranged for infilling
    fim_cut: Literal["characters", "lines", "syntax"] = "characters"  # where documents are cut for infilling
    fim_kinds: tuple[str, ...] = ("code",)  # kinds that are rearranged
    fim_segment: int = 0  # characters; longer documents are rearranged run by run of lines (0: whole, as the paper)
    shard_tokens: int = 100_000_000  # tokens in one file; documents are never split
    held_out_tokens: int = 400_000  # tokens in the held-out stream, mixed by the same shares

    def __post_init__(self) -> None:
        """ValueError for what cannot be."""
        for name in ("total", "max_epochs", "shard_tokens", "held_out_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.fim_segment < 0:
            raise ValueError(f"fim_segment must not be negative, not {self.fim_segment}")
        if not 0 <= self.fim_rate <= 1:
            raise ValueError(f"fim_rate must be between 0 and 1, not {self.fim_rate}")
        if min(self.code_share, self.math_share, self.text_share) < 0 or not sum(self.shares.values()):
            raise ValueError("shares must not be negative, and one must be positive")
        if unknown := set(self.fim_kinds) - {"code", "math", "text"}:
            raise ValueError(f"fim_kinds names {sorted(unknown)}; the kinds are code, math and text")

    @property
    def shares(self) -> dict[str, float]:
        """The wanted share of each kind that has one; they add up to 1."""
        given = {"code": self.code_share, "math": self.math_share, "text": self.text_share}
        whole = sum(given.values())
        return {kind: share / whole for kind, share in given.items() if share > 0}
