"""Draw katas: small programming exercises with a statement, two references and tests, no two of them alike.

In:  how many, of which split, a seed.  Out: `Problem` records of the task katas.

Unusual: what an exercise does on its kind's probes decides its split, so nothing that is held out is ever trained on
under another statement. Its tests are drawn from what it does and says: it is the same problem for every seed.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Any, Literal

from codeweft.base.errors import ConfigError
from codeweft.base.records import Problem, Test
from codeweft.base.seeds import derive
from codeweft.tasks.katas import (
    families_lists,
    families_numbers,
    families_sequences,
    families_tables,
    families_text,
    families_unseen,
)
from codeweft.tasks.katas.inputs import Arguments, Hot, Kind, probes
from codeweft.tasks.katas.pieces import Family, Kata, Level, Piece
from codeweft.tasks.katas.writing import LANGUAGES, prompt, source

KataSplit = Literal["train", "held-out", "unseen-families"]
FAMILIES: tuple[Family, ...] = (
    *families_numbers.FAMILIES,
    *families_lists.FAMILIES,
    *families_sequences.FAMILIES,
    *families_text.FAMILIES,
    *families_tables.FAMILIES,
    *families_unseen.FAMILIES,
)
DIFFICULTIES = ("1", "2", "3", "4", "5")
HELD_OUT_OF = 4  # one of so many exercises of a known family is held out
HIDDEN, VISIBLE = 18, 3  # tests
CHOICE, OFFERED = 26, 12  # arguments that tests are chosen from, and examples where they are drawn apart
TRIES = 90  # after so many draws, fewer have to do
SHOWN = 30  # characters of arguments or result that a statement shows, where there are such
DULL = 0.9  # an exercise that gives one result for more of the probes than this is none


@dataclass(frozen=True, slots=True)
class Instance:
    """One exercise and what it does: its Python reference as a function, and a digest of its results."""

    family: Family
    difficulty: str
    kata: Kata
    behaviour: str
    function: Callable[..., Any]


def draw(
    count: int,
    *,
    split: KataSplit,
    seed: int,
    difficulties: Sequence[str] = (),
    languages: Sequence[str] = ("python",),
) -> list[Problem]:
    """Exercises of all families and difficulties in turn; those that are drawn later do not change earlier ones.

    ConfigError where there are not so many, or a difficulty or language is unknown. With several languages, they take
    turns.
    """
    for given, known, what in ((difficulties, DIFFICULTIES, "difficulty"), (languages, LANGUAGES, "language")):
        if unknown := [each for each in given if each not in known]:
            raise ConfigError(f"Katas have no {what} {unknown[0]}.", f"There are {', '.join(known)}.")
    spoken = cycle(languages or ("python",))
    problems = []
    for instance in instances(split, seed, difficulties):
        if len(problems) == count:
            break
        problems.append(problem(instance, split, next(spoken)))
    if len(problems) < count:
        raise ConfigError(
            f"There are {len(problems)} katas of the split {split} with these difficulties, not {count}.",
            "Ask for fewer, or for more difficulties.",
        )
    return problems


def instances(
    split: KataSplit, seed: int, difficulties: Sequence[str] = (), families: Sequence[str] = ()
) -> Iterator[Instance]:
    """All exercises of a split, no two of one behaviour, in an order drawn by seed that takes levels in turn."""
    wanted = [int(each) for each in difficulties or DIFFICULTIES]
    levels = [
        (family, number, level)
        for family in FAMILIES
        if family.trained == (split != "unseen-families") and (not families or family.name in families)
        for number, level in enumerate(family.levels)
        if level.difficulty in wanted
    ]
    Random(derive(seed, "katas", split)).shuffle(levels)
    seen: set[str] = set()
    streams = [
        _of_level(family, level, split, Random(derive(seed, "katas", split, family.name, number)))
        for family, number, level in levels
    ]
    while streams:
        for stream in list(streams):
            found = next((each for each in stream if each.behaviour not in seen), None)
            if found is None:
                streams.remove(stream)
                continue
            seen.add(found.behaviour)
            yield found


def _of_level(family: Family, level: Level, split: KataSplit, chance: Random) -> Iterator[Instance]:
    size = 1
    for slot in level.slots:
        size *= len(slot)
    for number in _order(size, chance):
        found = instance(family, level, number)
        if found is not None and split in ("unseen-families", split_of(found.behaviour)):
            yield found


def instance(family: Family, level: Level, number: int) -> Instance | None:
    """The exercise of that number; None where it says one thing twice or hardly depends on what it is given."""
    choices = []
    for slot in level.slots:
        number, place = divmod(number, len(slot))
        choices.append(slot[place])
    pieces = [each for each in choices if isinstance(each, Piece)]
    if any(one is other for number, one in enumerate(pieces) for other in pieces[:number]):
        return None
    kata = level.write(*choices)
    function = compiled(kata.python, kata.kind.parameters)
    results = [repr(function(*arguments)) for arguments in probes(kata.kind)]
    if Counter(results).most_common(1)[0][1] > DULL * len(results):
        return None
    said = "\n".join((kata.kind.name, *results))
    behaviour = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    return Instance(family, str(level.difficulty), kata, behaviour, function)


def split_of(behaviour: str) -> Literal["train", "held-out"]:
    """Whether an exercise of a known family is trained on, decided by what it does."""
    return "train" if int(behaviour, 16) % HELD_OUT_OF else "held-out"


def compiled(body: str, parameters: Sequence[str], name: str = "solve") -> Callable[..., Any]:
    """The function of a body that this package wrote itself."""
    namespace: dict[str, Any] = {}
    exec(source("python", body, parameters, name), namespace)  # noqa: S102, our own text
    return namespace[name]


def _order(size: int, chance: Random) -> Iterator[int]:
    """Every number below `size` once, in random order, without ever listing them all (Fisher and Yates, lazily)."""
    moved: dict[int, int] = {}
    for place in range(size):
        other = chance.randrange(place, size)
        yield moved.get(other, other)
        moved[other] = moved.pop(place, place)


def problem(found: Instance, split: KataSplit, language: str) -> Problem:
    """The record of an exercise in one language."""
    kata = found.kata
    key = hashlib.blake2b(f"{found.behaviour} {kata.says}".encode(), digest_size=6).hexdigest()
    chance = Random(key)
    name = chance.choice(found.family.names)
    visible, hidden = _tests(found, chance)
    body = kata.python if language == "python" else kata.javascript
    return Problem(
        id=f"{found.family.name}-{found.difficulty}-{key}-{language}",
        task="katas",
        family=found.family.name,
        language=language,
        difficulty=found.difficulty,
        split="train" if split == "train" else "held-out",
        prompt=prompt(language, name, kata.kind.parameters, kata.says, visible),
        entry_point=name,
        tests_visible=visible,
        tests_hidden=hidden,
        reference=source(language, body, kata.kind.parameters, name),
        facts={
            "statement": kata.says, "parameters": list(kata.kind.parameters), "behaviour": found.behaviour,
            "unseen_family": split == "unseen-families",
        },
    )  # fmt: skip


def _tests(found: Instance, chance: Random) -> tuple[tuple[Test, ...], tuple[Test, ...]]:
    """Tests to show and tests to keep; first those whose results are new, the kind's edges always."""
    kind, hot = found.kata.kind, found.kata.hot
    edges = {repr(arguments): arguments for arguments in (*kind.edges, *found.kata.edges)}
    drawn = _drawn(kind, hot, chance, CHOICE)
    offered = _away_from(hot, _drawn(kind, (), chance, OFFERED)) if kind.tight else drawn
    results = {key: (each, found.function(*each)) for key, each in (offered | drawn | edges).items()}
    size = {key: max(len(key), len(repr(results[key][1]))) for key in offered if key not in edges}
    short = [key for key in size if size[key] <= SHOWN]
    shown = _varied(short if len(short) >= VISIBLE else sorted(size, key=size.__getitem__), results)[:VISIBLE]
    others = [key for key in drawn if key not in shown and key not in edges]
    hidden = (list(edges) + _varied(others, results))[:HIDDEN]
    visible, secret = (
        tuple(Test("call", args=results[key][0], expected=results[key][1]) for key in keys) for keys in (shown, hidden)
    )
    return visible, secret


def _drawn(kind: Kind, hot: Hot, chance: Random, wanted: int) -> dict[str, Arguments]:
    """Different arguments by their text, as many as are wanted if chance gives them."""
    drawn: dict[str, Arguments] = {}
    for _ in range(TRIES):
        if len(drawn) == wanted:
            break
        arguments = kind.draw(chance, hot)
        drawn.setdefault(repr(arguments), arguments)
    return drawn


def _away_from(hot: Hot, drawn: dict[str, Arguments]) -> dict[str, Arguments]:
    """Those none of whose numbers is at or beside one that matters."""
    near = {value + beside for value in hot if isinstance(value, int) for beside in (-1, 0, 1)}
    away = {key: each for key, each in drawn.items() if near.isdisjoint(each)}
    return away if len(away) >= VISIBLE else drawn


def _varied(keys: Sequence[str], results: dict[str, tuple[Any, Any]]) -> list[str]:
    """Keys in their order, but those whose result came up before behind all others."""
    seen: set[str] = set()
    new, again = [], []
    for key in keys:
        result = repr(results[key][1])
        (again if result in seen else new).append(key)
        seen.add(result)
    return new + again
