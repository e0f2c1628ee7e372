"""What can be chosen about benchmarks: where their files are, which part of them is asked, and how.

In:  the recipe tables [evaluate.tasks] and [problems].  Out: frozen dataclasses; no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class TaskOptions:
    """Options of all tasks; each reads those that its page in docs/evaluation.md names."""

    data: Path | None = None  # folder of official benchmark files
    download: bool = False  # whether files that are missing may be fetched, with their checksums
    limit: int = 0  # problems of each task, the first in the file's order (0: all)
    languages: tuple[str, ...] = ()  # multipl-e, human-eval-fix: languages to ask (none: those of the paper)
    shots: int = -1  # solved examples before a question (-1: as many as the paper shows)
    since: str = ""  # livecodebench: first day of the contests, YYYY-MM-DD
    until: str = ""  # livecodebench: first day that is not asked any more
    difficulties: tuple[str, ...] = ()  # livecodebench, katas: which difficulties (none: all)
    repository_levels: tuple[str, ...] = ("2k", "4k", "8k", "12k", "16k")  # repobench: lengths of context
    repository_prompt: int = 15_800  # repobench: most tokens of a prompt
    lengths: tuple[int, ...] = (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072)  # needle: tokens of context
    depths: int = 11  # needle: places from the beginning to the end
    text: Path | None = None  # needle: text to hide it in (none: Python's help topics)
    seed: int = 1  # katas, needle: what is drawn
    kata_problems: int = 1000  # katas: how many instances are asked
    kata_split: Literal["held-out", "unseen-families"] = "held-out"  # katas: known families, or those never trained on
    votes: int = 0  # mathematics: maj@k, of how many samples the most frequent answer counts (0: none)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("limit", "votes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} must not be negative.")
        if self.shots < -1 or self.depths < 1 or self.kata_problems < 1 or self.repository_prompt < 64:
            raise ValueError(
                "shots is at least -1; depths and kata_problems at least 1; repository_prompt at least 64."
            )
        if not self.lengths or min(self.lengths) < 64:
            raise ValueError("lengths must name at least one length, each of 64 tokens or more.")
