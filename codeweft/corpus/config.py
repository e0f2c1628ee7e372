"""Settings of the stage corpus.

In:  a recipe's [corpus] table.  Out: a checked CorpusConfig.
Source of the rule thresholds: DeepSeek-Coder-V2 §2; of the near-duplicate settings: StarCoder (DeepSeek's are
unpublished), with fewer permutations by default.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CorpusConfig:
    """What is read, which rule drops what, and how much is held out."""

    code: tuple[str, ...] = (
        "builtin:python",
    )  # sources of code: folders, git repositories, .jsonl files, builtin:NAME
    math: tuple[str, ...] = ("builtin:mathematics",)  # sources of mathematical text
    text: tuple[str, ...] = ("builtin:prose",)  # sources of natural language
    code_megabytes: float = 32.0  # read at most this much code, whole repositories in hash order (0: everything)
    math_megabytes: float = 8.0  # the same for mathematics
    text_megabytes: float = 16.0  # the same for natural language
    file_megabytes: float = 1.0  # larger files are dropped unread
    average_line: float = 100.0  # drop code whose lines are longer than this on average, in characters
    maximum_line: int = 1000  # drop code with a longer line, in characters
    alphabetic: float = 0.25  # drop texts with a smaller share of letters
    html_visible_share: float = 0.2  # drop HTML of which less is visible text
    html_visible_characters: int = 100  # drop HTML with less visible text, in characters
    data_minimum: int = 50  # drop JSON and YAML files with fewer characters
    data_maximum: int = 5000  # drop JSON and YAML files with more characters
    near_duplicates: bool = True  # drop near-duplicates (exact duplicates always go)
    similarity: float = 0.7  # documents at least this alike (Jaccard, estimated by MinHash) are near-duplicates
    ngram: int = 5  # words in a shingle; documents with fewer words are compared exactly only
    permutations: int = 128  # MinHash values a document; StarCoder used 256
    held_out_fraction: float = 0.05  # share of each kind's bytes held out, by whole repositories
    ngrams: bool = True  # write the index of the training documents' word 10-grams, which tells contaminated problems
    part_megabytes: float = 4.0  # source bytes in one part: the unit of work, memory and resumption

    def __post_init__(self) -> None:
        """ValueError for what cannot be."""
        if not (self.code or self.math or self.text):
            raise ValueError("there is no source: set code, math or text")
        for name in ("alphabetic", "html_visible_share", "held_out_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if not 0 < self.similarity <= 1:
            raise ValueError(f"similarity must be above 0 and at most 1, not {self.similarity}")
        for name in ("ngram", "permutations", "part_megabytes", "file_megabytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("code_megabytes", "math_megabytes", "text_megabytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.data_minimum > self.data_maximum:
            raise ValueError("data_minimum is above data_maximum")

    def limit(self, kind: str) -> int:
        """The most bytes to read of a kind; 0 for no limit."""
        return round(
            {"code": self.code_megabytes, "math": self.math_megabytes, "text": self.text_megabytes}[kind] * 1e6
        )
