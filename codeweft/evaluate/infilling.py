"""Single-line infilling: holes in held-out files, the model's line, the copied line, and who was exactly right.

In:  held-out code documents; an engine and its tokenizer.  Out: one sample a hole, as samples.jsonl holds it.
Source: the task of DeepSeek-Coder-V2 Table 6 (first generated line, exact match), on the run's own held-out files.

Unusual: nothing here is trained on, shown to, or chosen by the model: holes come from the seed alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from codeweft.base.artifacts import digest_of
from codeweft.base.errors import InputError
from codeweft.base.progress import Bar
from codeweft.base.seeds import generator
from codeweft.engine.request import Completion, Request
from codeweft.evaluate.baselines import copied_line, occurs_elsewhere, solid
from codeweft.tokenizer.fim import fitting_prompt, plain_prompt
from codeweft.tokenizer.load import Tokenizer

MINIMUM = 8  # characters of a hole that are not white space
SHOWN_BEFORE, SHOWN_AFTER = 1200, 600  # characters around the hole that a sample keeps


class Generator(Protocol):
    """What is asked of an engine."""

    def generate(self, requests: Sequence[Request], progress: Bar | None = None) -> list[Completion]:
        """Completions in the order of the requests; `progress` advances by one a finished request."""
        ...


@dataclass(frozen=True, slots=True)
class Hole:
    """A line that is missing from a file; `line` counts from 0."""

    document: str
    language: str
    repository: str
    path: str
    lines: tuple[str, ...]
    line: int

    @property
    def name(self) -> str:
        """The hole's name in samples.jsonl: the document and the line counted from 1."""
        return f"{self.document}:{self.line + 1}"

    @property
    def truth(self) -> str:
        """The missing line, without its line end."""
        return self.lines[self.line]

    @property
    def before(self) -> str:
        """All text before the missing line, its last line end included."""
        return "".join(line + "\n" for line in self.lines[: self.line])

    @property
    def after(self) -> str:
        """All text after the missing line, beginning with its line end."""
        return "".join("\n" + line for line in self.lines[self.line + 1 :])


def held_out_code(corpus: Path) -> pa.Table:
    """Id, language, repository, path and text of held-out code documents, ordered by id; parts alone are read."""
    wanted = (ds.field("split") == "held-out") & (ds.field("kind") == "code")
    columns = ["id", "language", "repository", "path", "text"]
    parts = sorted(str(part) for part in (corpus / "documents").glob("part-*.parquet"))
    if not parts:
        raise InputError(f"{corpus / 'documents'} holds no part-*.parquet.", "Run the stage corpus first.")
    return ds.dataset(parts, format="parquet").to_table(columns=columns, filter=wanted).sort_by("id")


def draw_holes(documents: pa.Table, wanted: int, per_file: int, seed: int) -> list[Hole]:
    """Up to `wanted` holes, at most `per_file` a file, files in an order drawn by seed."""
    holes: list[Hole] = []
    for place in generator(seed, "measure", "infilling").permutation(documents.num_rows).tolist():
        row = {name: documents[name][place].as_py() for name in documents.column_names}
        lines = tuple(row["text"].split("\n"))
        open_lines = [number for number, line in enumerate(lines) if solid(line) >= MINIMUM]
        # a file whose other lines are all blank gives nothing to infill from
        if len(open_lines) < 2:
            continue
        random = generator(seed, "measure", "hole", row["id"])
        drawn = random.choice(open_lines, min(per_file, len(open_lines)), replace=False)
        for line in sorted(drawn.tolist()):
            holes.append(Hole(row["id"], row["language"], row["repository"], row["path"], lines, line))
            if len(holes) == wanted:
                return holes
    if not holes:
        raise InputError(
            "There is no held-out code file with a line to infill.",
            "Raise the corpus's held-out share, or add sources.",
        )
    return holes


def prompt(hole: Hole, tokenizer: Tokenizer, window: int, room: int, context: str = "both") -> tuple[int, ...]:
    """The infilling prompt, with the text nearest to the hole when all of it does not fit beside `room` tokens.

    With the context `before` it is the text before the hole alone, as a model without infilling would get it.
    """
    if context == "before":
        return plain_prompt(tokenizer, hole.before, window - room)
    return fitting_prompt(tokenizer, hole.before, hole.after, window - room)


def fill(
    holes: Sequence[Hole], prompts: Sequence[tuple[int, ...]], engine: Generator, room: int, progress: Bar | None = None
) -> Iterator[dict[str, Any]]:
    """Ask for every hole, greedily, and yield what came: prompt digest, text, tokens, logprob, finish, exact_match."""
    completions = engine.generate([Request(ids, max_tokens=room, stop_line=True) for ids in prompts], progress)
    for hole, ids, completion in zip(holes, prompts, completions, strict=True):
        line = generated_line(completion.text)
        yield {
            "prompt_digest": digest_of(list(ids)),
            "text": line,
            "tokens": list(completion.tokens),
            "logprob": completion.logprob,
            "finish": completion.finish,
            "exact_match": line.strip() == hole.truth.strip(),
        }


def generated_line(text: str) -> str:
    r"""The first line that was generated and is not blank, its indentation kept.

    >>> generated_line("\n    return x\nprint")
    '    return x'
    """
    return next((line.rstrip() for line in text.split("\n") if line.strip()), "")


def facts(hole: Hole, seed: int) -> dict[str, Any]:
    """What a sample says without any model: the hole, its surroundings, the truth, and what copying gives."""
    copied = copied_line(hole.lines, hole.line, MINIMUM)
    return {
        "task": "infilling",
        "problem": hole.name,
        "language": hole.language,
        "repository": hole.repository,
        "path": hole.path,
        "line": hole.line + 1,
        "prefix": hole.before[-SHOWN_BEFORE:],
        "suffix": hole.after[:SHOWN_AFTER],
        "truth": hole.truth,
        "copied": copied,
        "copied_match": copied == hole.truth.strip(),
        "occurs_elsewhere": occurs_elsewhere(hole.lines, hole.line),
        "seed": seed,
    }


def outcomes(samples: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    """One key of all samples as numbers."""
    return np.array([float(sample[key]) for sample in samples])


def files_of(samples: Sequence[dict[str, Any]]) -> np.ndarray:
    """The number of the file that each sample comes from."""
    names = [sample["problem"].rsplit(":", 1)[0] for sample in samples]
    return np.unique(names, return_inverse=True)[1]
