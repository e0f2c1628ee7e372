"""What a benchmark is to this program: questions, how each is asked, and what an answer is worth.

In:  official files and options.  Out: `Task` values that evaluation and alignment read; nothing here runs a model.

Unusual: a task is a value made of functions, not a class to inherit from. It never sees a model: it is told how much
room a prompt has and hands back what to say; it never runs an answer: it hands the sandbox a `Submission`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from codeweft.base.records import Problem, Verdict
from codeweft.sandbox.config import Limits, Submission
from codeweft.tasks.config import TaskOptions

# base: the model goes on from a text. chat: it answers messages. infill: it writes between two texts. likelihood: each
# choice is scored as what follows the text.
Style = Literal["base", "chat", "infill", "likelihood"]
Group = Literal[
    "code generation", "code completion", "code repair", "code understanding", "mathematics", "general language",
    "long context",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Room:
    """How much a model takes: tokens of a prompt, and how many tokens a text has (estimated where it is not known)."""

    tokens: int
    count: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a model is given: `text` (base; the prefix when infilling), `messages` (chat), `choices` (likelihood).

    `stop` strings end the answer and are not part of it; `stop_line` ends it after its first line that is not blank.
    """

    text: str = ""
    messages: tuple[Mapping[str, str], ...] = ()
    suffix: str = ""
    choices: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    stop_line: bool = False
    max_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found in a text: the part that counts, and either its score or what the judge has to run.

    `score` is in [0, 1]; None where a `submission` decides it or where nothing can (an export). `vote` is what equal
    answers have in common, for maj@k. `metrics` are further numbers of this sample; `detail` says why in words.
    """

    extracted: str
    score: float | None = None
    submission: Submission | None = None
    vote: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One finished exchange of a sample: what came, what was found in it, and the verdict where it was judged."""

    ask: Ask
    text: str
    answer: Answer
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """One sample as an official format needs it: the problem, the texts of its turns, the extracted last answer."""

    problem: Problem
    texts: tuple[str, ...]
    extracted: str
    model: str


@dataclass(frozen=True, slots=True)
class Data:
    """An official file: the names it may have below the data folder, where it comes from, and under which licence.

    `url` and `sha256` are empty where the file cannot be fetched without an account; `note` then says what to do.
    """

    names: tuple[str, ...]
    url: str = ""
    sha256: str = ""
    licence: str = ""
    note: str = ""


class Files(Protocol):
    """Where official files are."""

    def path(self, data: Data) -> Path:
        """The file on this disk, fetched when that was asked for; InputError says how to get it where there is none."""
        ...


def limits_of(problem: Problem) -> Limits | None:
    """The limits that a problem states, None where it states none."""
    whole = {name: isinstance(value, int) for name, value in vars(Limits()).items()}
    chosen: dict[str, Any] = {name: int(value) if whole[name] else value for name, value in problem.limits.items()}
    return Limits(**chosen) if chosen else None


def first_turn_only(problem: Problem, turns: Sequence[Turn]) -> Ask | None:
    """No further turn: the first answer counts."""
    return None


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark. `styles` are the ways it can be asked, the one that the paper uses first.

    load: problems in the file's order; InputError names file and line of what is malformed. ask: one problem in one
    style, made to fit the room. grade: what a text is worth (for `likelihood`, the text is the chosen choice's number).
    follow: what is asked after some turns, or None. export: the files of an official format, by name.
    average: "language" or "family" where the score is the plain mean over those instead of over problems.
    columns: keys of this task in the paper's tables (evaluate/paper.toml).
    """

    name: str
    title: str
    group: Group
    styles: tuple[Style, ...]
    data: tuple[Data, ...]
    protocol: str
    load: Callable[[Files, TaskOptions], Iterator[Problem]]
    ask: Callable[[Problem, Style, Room], Ask]
    grade: Callable[[Problem, Style, str], Answer]
    metric: Literal["pass@1", "accuracy", "exact_match", "score"] = "pass@1"
    samples: int = 1
    temperature: float = 0.0
    average: Literal["", "language", "family"] = ""
    columns: tuple[str, ...] = ()
    follow: Callable[[Problem, Sequence[Turn]], Ask | None] = first_turn_only
    export: Callable[[Sequence[Exported]], dict[str, str]] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
