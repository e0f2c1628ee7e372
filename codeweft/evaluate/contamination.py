"""Which problems of a benchmark share words with the text that a model was trained on.

In:  problems, the n-gram index of a corpus (`ngrams.npy`, beside it `documents/`).  Out: for each problem the share of
its n-grams that the corpus has, and one of them.
Source: DeepSeek-Coder §2.4: a 10-gram in common; a text of 3 to 9 words counts where the corpus has it as a whole.

Unusual: looked at is what is the problem's own, its statement with its choices and its reference, never the prompt
with its solved examples, which all problems of a task share. A short text is no evidence beside a longer one: `return
x + y` is everywhere. So the rule for short texts is asked only of problems that have no 10-gram at all. The index knows
none of those: the documents are read for them, once, and where they are not there that is said. One n-gram is enough,
as in the rule; numbers that count up or a licence's words are found like any other, so `share` says more than a yes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from codeweft.base.progress import bar, say
from codeweft.base.records import Problem
from codeweft.source.ngrams import SHORTEST, WORDS, Index, batches, hashed, open_index, train_texts, words


@dataclass(frozen=True, slots=True)
class Found:
    """What a corpus has of a problem: the share of its distinct n-grams, and the first that was found, in its words."""

    share: float
    example: str = ""

    @property
    def contaminated(self) -> bool:
        """Whether it has any."""
        return self.share > 0


def contaminated_problems(problems: Sequence[Problem], path: Path) -> set[str]:
    """The ids of the problems that share an n-gram with the corpus of this index."""
    return {name for name, found in contamination(problems, path).items() if found.contaminated}


def contamination(problems: Sequence[Problem], path: Path) -> dict[str, Found]:
    """What the corpus of this index has of each problem, by id; a problem of fewer than 3 words counts as clean."""
    found = _by_ngrams(problems, open_index(path))
    short = {problem.id: _longest(problem) for problem in problems if problem.id not in found}
    short = {name: text for name, text in short.items() if len(words(text)) >= SHORTEST}
    if short:
        found |= _as_a_whole(short, path.parent / "documents")
    return {problem.id: found.get(problem.id, Found(0.0)) for problem in problems}


def own_texts(problem: Problem) -> tuple[str, ...]:
    """What is the problem's own: the statement with its choices, and the reference."""
    if problem.task == "katas":  # one family's statements share their words; what is asked differs in the reference
        return "", problem.reference
    choices = problem.facts.get("choices", ())
    listed = [each for each in choices if isinstance(each, str)] if isinstance(choices, list | tuple) else []
    return "\n".join([problem.prompt, *listed]), problem.reference


def _longest(problem: Problem) -> str:
    return max(own_texts(problem), key=lambda text: len(words(text)))


def _by_ngrams(problems: Sequence[Problem], index: Index) -> dict[str, Found]:
    """What is found of the problems that have an n-gram."""
    texts = [text for problem in problems for text in own_texts(problem)]
    each = len(texts) // max(1, len(problems))
    of_problem: dict[int, list[tuple[np.ndarray, np.ndarray, int]]] = {}  # hashes, whether found, number of the text
    first = 0
    for batch in batches(texts):
        hash_G, text_G = hashed(batch)
        held_G = index.holds(hash_G)
        bounds = np.searchsorted(text_G, np.arange(len(batch) + 1)).tolist()
        for place, (low, high) in enumerate(pairwise(bounds)):
            if low < high:
                number = first + place
                of_problem.setdefault(number // each, []).append((hash_G[low:high], held_G[low:high], number))
        first += len(batch)
    return {problems[number].id: _found(parts, texts) for number, parts in of_problem.items()}


def _found(parts: Sequence[tuple[np.ndarray, np.ndarray, int]], texts: Sequence[str]) -> Found:
    every = np.concatenate([hash_G for hash_G, _, _ in parts])
    held = np.concatenate([hash_G[held_G] for hash_G, held_G, _ in parts])
    if not len(held):
        return Found(0.0)
    place, number = next((int(held_G.argmax()), number) for _, held_G, number in parts if held_G.any())
    example = " ".join(words(texts[number])[place : place + WORDS])
    return Found(len(np.unique(held)) / len(np.unique(every)), example)


def _as_a_whole(texts: dict[str, str], documents: Path) -> dict[str, Found]:
    """Which short texts stand in the documents, word for word."""
    parts = sorted(documents.glob("part-*.parquet"))
    if not parts:
        say(f"{len(texts):,} problems of fewer than {WORDS} words count as clean: {documents} is not there to be read.")
        return {}
    wanted: dict[int, dict[int, list[str]]] = {}  # by number of words, by hash, the problems
    for name, text in texts.items():
        size = len(words(text))
        wanted.setdefault(size, {}).setdefault(int(hashed([text], size)[0][0]), []).append(name)
    found: dict[str, Found] = {}
    with bar(f"looking for {len(texts):,} short problems", len(parts), "parts") as shown:
        for part in parts:
            for batch in train_texts(part):
                for size, by_hash in wanted.items():
                    here = np.intersect1d(hashed(batch, size)[0], np.array(list(by_hash), np.uint64))
                    for name in (name for value in here.tolist() for name in by_hash[value]):
                        found[name] = Found(1.0, " ".join(words(texts[name])))
            shown.advance()
    return found
