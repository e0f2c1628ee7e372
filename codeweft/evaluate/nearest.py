"""What a model of problems must beat: the reference of the training problem that reads most alike.

In:  problems to answer, problems with references.  Out: a reference for each, under the name that is asked for.
Source: Robertson & Zaragoza 2009 (BM25), by the package bm25s.

Unusual: a model that only recalls what it was trained on cannot do better than this in the long run; whoever reports a
score on generated problems without it reports memory as skill.
"""

import re
from collections.abc import Sequence

from codeweft.base.errors import UserError
from codeweft.base.records import Problem


def nearest(problems: Sequence[Problem], training: Sequence[Problem]) -> list[Problem]:
    """For each problem the training problem of its language with the most similar statement, the first of equals."""
    assert training, "there is nothing to be near to"
    found: dict[int, Problem] = {}
    for language in {problem.language for problem in problems}:
        known = [problem for problem in training if problem.language == language] or list(training)
        places = [place for place, problem in enumerate(problems) if problem.language == language]
        best = _best([problems[place].prompt for place in places], [problem.prompt for problem in known])
        found |= {place: known[number] for place, number in zip(places, best, strict=True)}
    return [found[place] for place in range(len(problems))]


def _best(asked: Sequence[str], known: Sequence[str]) -> list[int]:
    try:
        import bm25s
    except ImportError as error:
        told = "Install it: pip install 'codeweft[eval]'."
        raise UserError("The nearest-problem baseline needs bm25s.", told) from error
    retriever = bm25s.BM25()
    retriever.index([words(text) for text in known], show_progress=False)
    numbers, _ = retriever.retrieve([words(text) for text in asked], k=1, show_progress=False)
    return [int(row[0]) for row in numbers]


def words(text: str) -> list[str]:
    """Words, numbers and signs of a statement.

    >>> words("Return n + 2.")
    ['return', 'n', '+', '2', '.']
    """
    return re.findall(r"\w+|[^\w\s]", text.lower())


def answered(problem: Problem, like: Problem) -> str:
    """The reference of another problem, its function named as this one asks for it."""
    return re.sub(rf"\b{re.escape(like.entry_point)}\b", problem.entry_point, like.reference)
