"""What another model thinks of open-ended answers: which of two is better, or how many points of ten one deserves.

In:  samples and their problems, a judging model, for pairs a baseline's answers.  Out: a score, its interval, by whom.
Source: Arena-Hard v0.1 (both orders, five verdicts, a strong one counts three times), AlpacaEval 2.0 (win rate),
MT-Bench (points for each turn, a reference where there is one), AlignBench (points; mean over kinds of task).

Unusual: the judge is asked in our words (opinion_questions.py), not the official ones, so that scores compare among
themselves. Each verdict is one line of a file, found again by everything that decided it: judge, question, answers. A
judge that gives no verdict, or two that differ, is asked again; who never gives one is counted, not guessed.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codeweft.base.artifacts import digest_of, naming
from codeweft.base.errors import InputError
from codeweft.base.intervals import bootstrap_mean, mean_of, ratio_interval, wilson_interval
from codeweft.base.progress import bar, say
from codeweft.base.records import Problem
from codeweft.engine.remote import RemoteModel, TooLong
from codeweft.evaluate.opinion_questions import TITLES, Question, paired, pointed

PAIRED, POINTED = ("arena-hard", "alpaca-eval"), ("mt-bench", "align-bench")
JUDGED = (*PAIRED, *POINTED)
TRIES = 3  # of one question to the judge; the first at temperature 0
TRY_AGAIN_AT = 0.7  # the temperature of further tries, since the same question gives the same words at 0
VERDICT_TOKENS = 4096
SEED = 1  # of the bootstrap
DIGITS = 6
STRONG = {"arena-hard": 3, "alpaca-eval": 1}  # how often a verdict with two signs counts
REASONING = ("数学计算", "逻辑推理")  # AlignBench: this half of the score; all others are the other half
LEVELS = {"A>>B": 2, "A>B": 1, "A=B": 0, "B>A": -1, "B>>A": -2}


async def judge_answers(
    task: str,
    samples: Sequence[Mapping[str, Any]],
    problems: Sequence[Problem],
    judge: RemoteModel,
    folder: Path,
    baseline: Path | None = None,
) -> dict[str, Any]:
    """What replaces the entry of an open-ended task in results.json; verdicts are kept in `folder`/TASK.jsonl.

    Win rates are shares; points are in "points" from 1 to 10. UserError where a baseline is wanted, or the judge fails
    for good; the same call then goes on from the verdicts that are there.
    """
    assert task in JUDGED, task
    by_name = {problem.id: problem for problem in problems}
    wanted = paired(task, samples, by_name, baseline) if task in PAIRED else pointed(samples, by_name)
    parse = level if task in PAIRED else points
    name = f"{await judge.model()} at {judge.config.url}"
    lines = await _ask_all(TITLES[task], wanted.questions, judge, folder / f"{task}.jsonl", parse)
    scored = [(question, line) for question, line in zip(wanted.questions, lines, strict=True) if line["said"]]
    read = [(question, line["verdict"]) for question, line in scored if line["verdict"] is not None]
    count = {
        "wanted": len(lines),
        "read": len(read),
        "unreadable": len(scored) - len(read),
        "too_long_for_the_judge": len(lines) - len(scored),
        "asked_again": sum(line["tries"] > 1 for line in lines),
    }
    said = {
        "metric": "score",
        "judge": name,
        "verdicts": count,
        "unscored": wanted.left_out,
        "protocol": protocol(task),
    }
    if wanted.baseline:
        said["baseline"] = wanted.baseline
    if not read:
        return {**said, "n": 0, "score": None, "ci95": None, "unit": "share", "reason": "The judge gave no verdict."}
    family = {problem.id: problem.family for problem in problems}
    found = wins(read, family, STRONG[task]) if task in PAIRED else marks(read, family, task)
    return {**found, **said, "reason": ""}


def protocol(task: str) -> str:
    """How the score came about; equal words (and equal judges and baselines) mean that scores may be compared."""
    ours = "The judge was asked in this program's words, not the official ones: scores compare among themselves."
    return {
        "arena-hard": "Share of wins against a baseline, both orders, ties half, a clear win or loss three times.",
        "alpaca-eval": "Share of wins against a baseline, both orders, ties half. Not controlled for length: the "
        "official control is a regression fitted on many models' verdicts of one judge, which are not here.",
        "mt-bench": "Points from 1 to 10 for each turn, beside a reference where the set comes with one.",
        "align-bench": "Points from 1 to 10 beside a reference; half the mean over kinds of reasoning tasks, half that "
        "over kinds of language tasks. The official judge also gives points by dimension.",
    }[task] + f" {ours}"


# --- verdicts --------------------------------------------------------------------------------------------------------


def level(said: str) -> float | None:
    """How much better A is, from 2 to -2; None where no verdict or several different ones were given.

    >>> level("A errs in line 2. [[B>>A]]"), level("[[A>B]] or rather [[A=B]]"), level("A")
    (-2, None, None)
    """
    return _only({LEVELS[found] for found in re.findall(r"\[\[\s*(A>>B|A>B|A=B|B>A|B>>A)\s*\]\]", _final(said))})


def points(said: str) -> float | None:
    """The points, from 1 to 10; None where there are none, several different ones, or others.

    >>> points("Good. [[7]]"), points("[[7.5/10]]"), points("[[0]]"), points("[[3]], no, [[4]]")
    (7.0, 7.5, None, None)
    """
    value = _only({float(found) for found in re.findall(r"\[\[\s*(\d+(?:\.\d+)?)\s*(?:/\s*10)?\s*\]\]", _final(said))})
    return value if value is not None and 1 <= value <= 10 else None


def _only(found: set[float]) -> float | None:
    return found.pop() if len(found) == 1 else None


def _final(said: str) -> str:
    """What was said after thinking aloud."""
    return said.rpartition("</think>")[2]


async def _ask_all(
    title: str, questions: Sequence[Question], judge: RemoteModel, path: Path, parse: Callable[[str], float | None]
) -> list[dict[str, Any]]:
    """A line for each question: those that the file has, and the others asked now and written as they come."""
    name = [judge.config.url, await judge.model(), TRIES, TRY_AGAIN_AT, VERDICT_TOKENS]
    asked = [digest_of([*name, question.problem, question.part, question.text]) for question in questions]
    known = _kept(path)
    missing = [number for number, digest in enumerate(asked) if digest not in known]
    if len(missing) < len(asked):
        say(f"{title}: going on from {len(asked) - len(missing):,} verdicts.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # equal answers of several samples are one question
    open_questions = {asked[number]: questions[number] for number in missing}
    with path.open("a", encoding="utf-8") as file, bar(title, len(open_questions), "verdicts") as shown:
        waiting = [asyncio.ensure_future(_one(judge, d, q, parse)) for d, q in open_questions.items()]
        try:
            for finished in asyncio.as_completed(waiting):
                line = await finished
                known[line["asked"]] = line
                with naming(path):
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    file.flush()
                shown.advance()
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
    return [known[digest] for digest in asked]


async def _one(
    judge: RemoteModel, asked: str, question: Question, parse: Callable[[str], float | None]
) -> dict[str, Any]:
    """Ask until a verdict can be read, at most a few times."""
    said, verdict, tries = "", None, 0
    messages = [{"role": "user", "content": question.text}]
    while verdict is None and tries < TRIES:
        temperature = TRY_AGAIN_AT if tries else 0.0
        try:
            answer = await judge.chat(messages, max_tokens=VERDICT_TOKENS, temperature=temperature, seed=tries)
        except TooLong:
            break
        tries += 1
        said, verdict = answer.text or "(nothing)", parse(answer.text)
    return {
        "asked": asked, "problem": question.problem, "sample": question.sample, "part": question.part,
        "verdict": verdict, "tries": tries, "said": said,
    }  # fmt: skip


def _kept(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of the file; what a kill left of the last one is cut off. InputError for a damaged one."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    try:
        lines = [json.loads(line) for line in content[:whole].decode().split("\n")[:-1]]
        return {line["asked"]: line for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}.", "Delete it and judge again.") from error


# --- scores ----------------------------------------------------------------------------------------------------------

Read = Sequence[tuple[Question, float]]


def wins(read: Read, family: Mapping[str, str], strong: int) -> dict[str, Any]:
    """The share of verdicts that our answers win, a strong one counted as `strong` ones; problems are drawn again.

    Against one baseline that share is the win rate of the Bradley-Terry fit that Arena-Hard makes.
    """

    def figures(part: Read) -> dict[str, Any]:
        won: dict[str, float] = {}
        weight: dict[str, float] = {}
        for question, verdict in part:
            ours = -verdict if question.part == "baseline first" else verdict
            times = strong if abs(ours) == 2 else 1
            won[question.problem] = won.get(question.problem, 0) + times * (0.5 + 0.5 * float(np.sign(ours)))
            weight[question.problem] = weight.get(question.problem, 0) + times
        return _share(np.array(list(won.values())), np.array(list(weight.values())))

    return {**figures(read), "unit": "share", "per_family": _by_family(read, family, figures)}


def _share(won_P: np.ndarray, weight_P: np.ndarray) -> dict[str, Any]:
    score = float(won_P.sum() / weight_P.sum())
    # where all is won, or all lost, drawing again shows no uncertainty
    if score in (0.0, 1.0):
        interval = wilson_interval(score * len(won_P), len(won_P))
    else:
        interval = ratio_interval(won_P, weight_P, SEED)
    return _figures(len(won_P), score, interval)


def marks(read: Read, family: Mapping[str, str], task: str) -> dict[str, Any]:
    """The mean points: over all turns (MT-Bench), over kinds of tasks (AlignBench); problems are drawn again."""

    def figures(part: Read) -> dict[str, Any]:
        given = by_problem(part)
        total_P = np.array([sum(each) for each in given.values()])
        count_P = np.array([float(len(each)) for each in given.values()])
        return _figures(len(given), float(total_P.sum() / count_P.sum()), ratio_interval(total_P, count_P, SEED))

    found = halves(by_problem(read), family) if task == "align-bench" else figures(read)
    parts = sorted({question.part for question, _ in read})
    if len(parts) > 1:
        found["per_turn"] = {part: figures([each for each in read if each[0].part == part]) for part in parts}
    return {**found, "unit": "points", "per_family": _by_family(read, family, figures)}


def by_problem(read: Read) -> dict[str, list[float]]:
    """The verdicts of each problem."""
    found: dict[str, list[float]] = {}
    for question, verdict in read:
        found.setdefault(question.problem, []).append(verdict)
    return found


def halves(given: Mapping[str, Sequence[float]], family: Mapping[str, str]) -> dict[str, Any]:
    """AlignBench's mean: each kind of task first, then reasoning and language, then both; each kind is drawn again."""
    kind_P = np.array([family[problem] for problem in given])
    value_P = np.array([float(np.mean(each)) for each in given.values()])
    kinds = dict.fromkeys(kind_P.tolist())
    sides = [side for side in (set(kinds) & set(REASONING), set(kinds) - set(REASONING)) if side]
    # a plain mean over kinds of points that are weighted so is the mean of the two sides
    weight = {kind: len(kinds) / len(sides) / len(side) for side in sides for kind in side}
    weighted_P = value_P * np.array([weight[kind] for kind in kind_P.tolist()])
    return _figures(len(given), mean_of(weighted_P, kind_P), bootstrap_mean(weighted_P, SEED, kind_P))


def _by_family(
    read: Read, family: Mapping[str, str], figures: Callable[[Read], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    names = dict.fromkeys(family[question.problem] for question, _ in read)
    return {name: figures([each for each in read if family[each[0].problem] == name]) for name in names if name}


def _figures(n: int, score: float, interval: tuple[float, float]) -> dict[str, Any]:
    return {"n": n, "score": round(score, DIGITS), "ci95": [round(bound, DIGITS) for bound in interval]}
