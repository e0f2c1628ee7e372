"""Settings of the stage problems.

In:  the recipe table [problems].  Out: a checked ProblemsConfig; no torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProblemsConfig:
    """Where problems and conversations come from, and what none of them may share words with."""

    katas: int = 1500  # exercises to train on (docs/problems.md)
    katas_held_out: int = 300  # of the same families, with parameters that are never trained on
    katas_unseen: int = 200  # of families that are never trained on
    difficulties: tuple[str, ...] = ()  # of katas, "1" to "5" (none: all)
    languages: tuple[str, ...] = ("python",)  # of katas: python, javascript
    answered: float = 0.5  # share of the katas to train on whose reference becomes a conversation
    gsm8k: tuple[str, ...] = ()  # files of word problems: question, answer with #### and the result
    problems: tuple[str, ...] = ()  # files of problems of your own
    conversations: tuple[str, ...] = ()  # files of conversations of your own
    held_out_fraction: float = 0.05  # share of word problems and of your conversations that is held out
    evaluation: tuple[str, ...] = ()  # benchmark files and folders: what shares a word 10-gram with them is dropped

    def __post_init__(self) -> None:
        """ValueError for what cannot be."""
        for name in ("katas", "katas_held_out", "katas_unseen"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        for name in ("answered", "held_out_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        if not (self.katas or self.gsm8k or self.problems or self.conversations):
            raise ValueError("there is no source: set katas, gsm8k, problems or conversations")
