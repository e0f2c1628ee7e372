"""Stage problems: exercises with tests, and conversations with their answers, none of them known from a benchmark.

In:  the corpus's index of n-grams; katas that are drawn; files of word problems, problems and conversations.
Out: train.jsonl, visible.jsonl (the same without what an answer is judged by), held-out.jsonl;
conversations/{train,held-out}.jsonl; dropped.jsonl.
Source: DeepSeek-Coder-V2 §4 (code problems judged by tests, mathematics by its result); the 10-gram rule of §2.

Unusual: katas of one family share their statement's words, so katas are compared by what they do: an exercise that does
what a held-out one does is dropped, and no other. Against anything else, every text counts.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from codeweft.base.artifacts import digest_file
from codeweft.base.errors import InputError
from codeweft.base.progress import say
from codeweft.base.records import Conversation, Problem, Split
from codeweft.base.runs import Run
from codeweft.base.seeds import derive
from codeweft.source import ngrams
from codeweft.tasks.files import read_records
from codeweft.tasks.katas.generate import KataSplit, draw
from codeweft.tasks.mathematics import REASON
from codeweft.tasks.problem_files import (
    read_conversations,
    read_problems,
    write_conversations,
    write_problems,
)
from codeweft.tasks.problems_settings import ProblemsConfig

SOLUTION = "solution"  # the fact that holds a worked answer
ENDINGS = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz")  # of benchmark files in a folder


@dataclass(frozen=True, slots=True)
class Collected:
    """What was drawn and read: problems and conversations of both splits, and which problem an answer is of."""

    problems: list[Problem]
    conversations: list[tuple[Split, Conversation, Problem | None]]


def inputs(config: ProblemsConfig) -> dict[str, str]:
    """The digests of all files that are named; InputError where one is missing."""
    named = [*config.gsm8k, *config.problems, *config.conversations]
    paths = [*map(Path, named), *(path for each in config.evaluation for path in benchmark_files(Path(each)))]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is no file.", "Correct its name under [problems].")
    return {f"file:{path}": digest_file(path) for path in paths}


def run(config: ProblemsConfig, run: Run) -> dict[str, int]:
    """Draw, read, leave out what is known from elsewhere, write; headline: problems and conversations to train on."""
    found = _answered(_with_word_problems(_with_own(_katas(config, run.seed), config), config), config)
    _refuse_doubled(found.problems)
    held_out = [problem for problem in found.problems if problem.split == "held-out"]
    held_out_talk = [talk for split, talk, _ in found.conversations if split == "held-out"]
    train, talk, dropped = _decontaminated(found, Known.of(held_out, config))
    held_out, in_corpus = _marked(held_out, run.read("corpus") / ngrams.INDEX)
    for name, problems in (
        ("train", train),
        ("visible", map(visible, train)),
        ("held-out", held_out),
    ):
        with run.open(f"{name}.jsonl") as file:
            write_problems(file, problems)
    for name, conversations in (("train", talk), ("held-out", held_out_talk)):
        with run.open(f"conversations/{name}.jsonl") as file:
            write_conversations(file, conversations)
    run.write("dropped.jsonl", "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in dropped))
    run.counts |= {
        "train": _by_task(train),
        "held_out": _by_task(held_out),
        "held_out_conversations": len(held_out_talk),
        "dropped": dict(sorted(Counter(each["what"] for each in dropped).items())),
        "held_out_in_corpus": in_corpus,
    }
    if dropped:
        say(f"problems: {len(dropped)} were dropped for what they share with held-out ones or benchmarks.")
    return {"problems": len(train), "conversations": len(talk)}


def visible(problem: Problem) -> Problem:
    """A problem without what an answer to it is judged by."""
    facts = {name: value for name, value in problem.facts.items() if name != SOLUTION}
    return replace(problem, tests_hidden=(), reference="", facts=facts)


def _by_task(problems: Iterable[Problem]) -> dict[str, int]:
    return dict(sorted(Counter(problem.task for problem in problems).items()))


# --- sources ----------------------------------------------------------------------------------------------------------


def _katas(config: ProblemsConfig, seed: int) -> Collected:
    wanted: tuple[tuple[KataSplit, int], ...] = (
        ("train", config.katas),
        ("held-out", config.katas_held_out),
        ("unseen-families", config.katas_unseen),
    )
    problems: list[Problem] = []
    for split, count in wanted:
        problems += draw(count, split=split, seed=seed, difficulties=config.difficulties, languages=config.languages)
    return Collected(problems, [])


def _with_own(found: Collected, config: ProblemsConfig) -> Collected:
    problems = [problem for name in config.problems for problem in read_problems(Path(name))]
    talk = [each for name in config.conversations for each in read_conversations(Path(name))]
    # the same question is on the same side, whatever was answered
    split = [_split(next(iter(contents(each)), ""), config) for each in talk]
    chats = [(side, each, None) for side, each in zip(split, talk, strict=True)]
    return Collected(found.problems + problems, found.conversations + chats)


def _with_word_problems(found: Collected, config: ProblemsConfig) -> Collected:
    problems, conversations = list(found.problems), list(found.conversations)
    for name in config.gsm8k:
        for problem, talk in word_problems(Path(name), config):
            problems.append(problem)
            conversations.append((problem.split, talk, problem))
    return Collected(problems, conversations)


def word_problems(path: Path, config: ProblemsConfig) -> Iterator[tuple[Problem, Conversation]]:
    """Each problem of a GSM8K file, and the conversation that its worked answer makes, asked as benchmarks ask it.

    InputError names the file and line of an answer without its ####.
    """
    for number, (place, record) in enumerate(read_records(path, ("question", "answer"))):
        question, answer = record["question"], record["answer"]
        if not isinstance(question, str) or not isinstance(answer, str):
            raise InputError(f"{place}: question or answer is no text.", "Mend that line.")
        worked, mark, result = answer.rpartition("####")
        if not mark or not result.strip():
            raise InputError(f"{place}: the answer does not end with #### and a result.", "Mend that line.")
        split, result = _split(question, config), result.strip()
        name = f"{path.stem}-{number}"
        worked = re.sub(r"<<.*?>>", "", worked).strip()  # without the notes to a calculator
        messages = (
            {"role": "user", "content": question + REASON},
            {"role": "assistant", "content": f"{worked}\n\nThe answer is $\\boxed{{{result}}}$."},
        )
        facts = {"shots": "", SOLUTION: worked}
        problem = Problem(name, "gsm8k", "gsm8k", split=split, prompt=question, reference=result, facts=facts)
        yield problem, Conversation(name, messages, "gsm8k")


def _split(text: str, config: ProblemsConfig) -> Split:
    """The split of what brings none: decided by its own text, so that more files never move it."""
    return "held-out" if derive(0, "problems", text) / 2**63 < config.held_out_fraction else "train"


def _answered(found: Collected, config: ProblemsConfig) -> Collected:
    """With the reference as a chat answer, for all held-out katas and the wanted share of the others."""
    conversations = list(found.conversations)
    for problem in found.problems:
        if problem.task != "katas" or not problem.reference:
            continue
        share = derive(0, "answered", problem.id) / 2**63
        if problem.split == "held-out" or share < config.answered:
            conversations.append((problem.split, conversation(problem), problem))
    return Collected(found.problems, conversations)


def conversation(problem: Problem) -> Conversation:
    """A problem and its reference as a chat."""
    answer = f"```{problem.language}\n{problem.reference.rstrip()}\n```"
    messages = ({"role": "user", "content": problem.prompt}, {"role": "assistant", "content": answer})
    return Conversation(problem.id, messages, problem.task)


def _refuse_doubled(problems: Sequence[Problem]) -> None:
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InputError(f"Two problems are named {problem.id}.", "Give each line of your files its own id.")
        seen.add(problem.id)


# --- what is known from elsewhere -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of named texts, each with the number of a text that has it.

    A text of fewer words than an n-gram is looked for as a whole, if it has a few.
    """

    hash_G: np.ndarray
    text_G: np.ndarray
    names: tuple[str, ...]
    short: dict[tuple[str, ...], str]

    @staticmethod
    def of(named: Sequence[tuple[str, str]]) -> "Grams":
        """Of (name, text) pairs."""
        hash_G, text_G = ngrams.hashed([text for _, text in named])
        order = np.argsort(hash_G, kind="stable")
        short = {_words_if_few(text): name for name, text in named}
        short.pop((), None)
        return Grams(hash_G[order], text_G[order], tuple(name for name, _ in named), short)

    def where(self, wanted: Sequence[tuple[str, ...]]) -> list[str]:
        """For each group of texts, the name of a text that shares an n-gram with one of them, or nothing."""
        owner = [number for number, texts in enumerate(wanted) for _ in texts]
        listed = [text for texts in wanted for text in texts]
        found = [""] * len(wanted)
        for number, text in zip(owner, listed, strict=True):
            found[number] = found[number] or self.short.get(_words_if_few(text), "")
        if not len(self.hash_G):
            return found
        hash_G, text_G = ngrams.hashed(listed)
        place_G = np.minimum(np.searchsorted(self.hash_G, hash_G), len(self.hash_G) - 1)
        for gram in np.flatnonzero(self.hash_G[place_G] == hash_G).tolist():
            number = owner[text_G[gram]]
            found[number] = found[number] or self.names[self.text_G[place_G[gram]]]
        return found


def _words_if_few(text: str) -> tuple[str, ...]:
    """The words of a text that is shorter than an n-gram but long enough to mean something."""
    words = tuple(ngrams.words(text)) if len(text) < 40 * ngrams.WORDS else ()
    return words if ngrams.SHORTEST <= len(words) < ngrams.WORDS else ()


@dataclass(frozen=True, slots=True)
class Known:
    """What nothing may be trained on: held-out katas, by behaviour and by their texts, and all else, by its texts."""

    behaviours: dict[str, str]
    katas: Grams
    others: Grams

    @staticmethod
    def of(held_out: Sequence[Problem], config: ProblemsConfig) -> "Known":
        """Of held-out problems and the benchmark files of the configuration."""
        katas = [problem for problem in held_out if problem.task == "katas"]
        others = [(each.id, text) for each in held_out if each.task != "katas" for text in texts_of(each)]
        for name in config.evaluation:
            others += [(place, text) for place, texts in benchmark_texts(Path(name)) for text in texts]
        return Known(
            {_behaviour(problem): problem.id for problem in katas},
            Grams.of([(problem.id, text) for problem in katas for text in texts_of(problem)]),
            Grams.of(others),
        )

    def where(self, texts: Sequence[tuple[str, ...]]) -> list[str]:
        """For each group of texts that are no kata's, where it is known from, or nothing."""
        return [
            first or second for first, second in zip(self.others.where(texts), self.katas.where(texts), strict=True)
        ]

    def where_problems(self, problems: Sequence[Problem]) -> list[str]:
        """For each problem, where it is known from, or nothing."""
        texts = [texts_of(problem) for problem in problems]
        of_katas = self.katas.where(
            [() if each.task == "katas" else said for each, said in zip(problems, texts, strict=True)]
        )
        of_others = self.others.where(texts)
        alike = [self.behaviours.get(_behaviour(problem), "") for problem in problems]
        return [one or two or three for one, two, three in zip(alike, of_katas, of_others, strict=True)]


def _behaviour(problem: Problem) -> str:
    """What a kata does; what is none, or says nothing of it, is unlike all."""
    return str(problem.facts.get("behaviour", problem.id)) if problem.task == "katas" else ""


def texts_of(problem: Problem) -> tuple[str, str]:
    """A problem's question and solution; of a kata, the statement without its examples."""
    facts = problem.facts
    return str(facts.get("statement") or problem.prompt), str(facts.get(SOLUTION) or problem.reference)


def contents(conversation: Conversation) -> tuple[str, ...]:
    """What is said in a conversation, but for the system's part."""
    return tuple(message["content"] for message in conversation.messages if message["role"] != "system")


def benchmark_files(path: Path) -> list[Path]:
    """A benchmark's file, or all such files in a folder."""
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.rglob("*") if each.is_file() and each.name.endswith(ENDINGS))
    if not found:
        raise InputError(f"{path} holds no {', '.join(ENDINGS)}.", "Name the folder with the benchmark's files.")
    return found


def benchmark_texts(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(place, texts) of each record of a benchmark: every text in it, at any depth."""
    for file in benchmark_files(path):
        for place, record in read_records(file):
            yield place, tuple(_texts_in(record))


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(each)


def _decontaminated(found: Collected, known: Known) -> tuple[list[Problem], list[Conversation], list[dict[str, str]]]:
    """The problems and conversations to train on, and what was dropped, each with the text that it is known from."""
    train, talk, dropped = [], [], []
    candidates = [problem for problem in found.problems if problem.split == "train"]
    where = dict(zip((each.id for each in candidates), known.where_problems(candidates), strict=True))
    for problem in candidates:
        if where[problem.id]:
            dropped.append({"what": problem.task, "id": problem.id, "known_from": where[problem.id]})
        else:
            train.append(problem)
    chats = [(each, problem) for split, each, problem in found.conversations if split == "train"]
    own = known.where([() if problem else contents(each) for each, problem in chats])
    for (each, problem), place in zip(chats, own, strict=True):
        # a conversation made from a problem shares its fate
        if source := where[problem.id] if problem else place:
            dropped.append({"what": f"conversations of {each.source}", "id": each.id, "known_from": source})
        else:
            talk.append(each)
    return train, talk, dropped


def _marked(held_out: Sequence[Problem], index: Path) -> tuple[list[Problem], int | None]:
    """Held-out problems, marked where the corpus trains on a 10-gram of them; how many, if it has an index."""
    if not index.exists():
        say("problems: the corpus has no index of n-grams, so held-out problems are not looked for in it.")
        return list(held_out), None
    # of a kata, the solution alone: statements of a family have most words in common
    said = [texts_of(each)[1:] if each.task == "katas" else texts_of(each) for each in held_out]
    owner = [number for number, texts in enumerate(said) for _ in texts]
    hash_G, text_G = ngrams.hashed([text for texts in said for text in texts])
    seen = {owner[text] for text in text_G[ngrams.open_index(index).holds(hash_G)].tolist()}
    marked = [
        replace(problem, facts=problem.facts | {"in_corpus": True}) if number in seen else problem
        for number, problem in enumerate(held_out)
    ]
    return marked, len(seen)
