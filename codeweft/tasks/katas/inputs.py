"""What katas are called with: for each kind of arguments, how to draw some, and some that are always tried.

In:  a source of chance, the values at which an exercise turns.  Out: arguments, plain JSON values.

Unusual: half of what is drawn lies at or beside those values, where a wrong answer shows. `probes` are the same for
all exercises of a kind: two that agree on them count as one exercise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

Arguments = tuple[Any, ...]
Hot = Sequence[int | str]
PROBES = 40
LETTERS = "abcdefghijklmnopqrstuvwxyz"
COMMON = "aaeeiioounstrlcdm"
SHORT = ("ash", "oak", "elm", "fig", "rye", "tea", "pea", "nut", "lime", "kale", "date", "corn", "rice", "plum", "oat")


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """Arguments of one shape: their names, how one is drawn, and those that every exercise is tested with."""

    name: str
    parameters: tuple[str, ...]
    draw: Callable[[Random, Hot], Arguments]
    edges: tuple[Arguments, ...]
    fixed: tuple[Arguments, ...] = ()  # probes, where some are better than drawn ones
    tight: bool = False  # whether one value is all there is: examples then stay away from those that matter


@cache
def probes(kind: Kind) -> tuple[Arguments, ...]:
    """Arguments that tell exercises of this kind apart."""
    chance = Random(f"probes of {kind.name}")
    return kind.edges + (kind.fixed or tuple(kind.draw(chance, ()) for _ in range(PROBES)))


def whole(hot: Hot) -> list[int]:
    """The numbers among the values."""
    return [each for each in hot if isinstance(each, int)]


def letters(hot: Hot) -> str:
    """The characters among the values."""
    return "".join(each for each in hot if isinstance(each, str))


def number(chance: Random, hot: Sequence[int]) -> int:
    """A number, as often as not at or beside one that matters."""
    dice = chance.random()
    if hot and dice < 0.5:
        return chance.choice(hot) + chance.choice((-1, 0, 0, 1))
    return chance.randint(-9, 14) if dice < 0.9 else chance.randint(-40, 60)


def lone(chance: Random, hot: Hot) -> int:
    """A number that is all there is of a test, nearly always at or beside one that matters."""
    ints = whole(hot)
    if ints and chance.random() < 0.75:
        return chance.choice(ints) + chance.choice((-1, 0, 1))
    return number(chance, ())


def pair(chance: Random, hot: Hot) -> Arguments:
    """Two numbers, often close to each other."""
    first, second = lone(chance, hot), lone(chance, hot)
    return (first, first + chance.randint(-3, 3)) if chance.random() < 0.2 else (first, second)


def numbers(chance: Random, hot: Hot) -> list[int]:
    """A list of numbers, some of them twice."""
    ints = whole(hot)
    found = [number(chance, ints) for _ in range(chance.choice((1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 9)))]
    if chance.random() < 0.3:
        found.insert(chance.randrange(len(found)), chance.choice(found))
    return found


def text(chance: Random, hot: Hot) -> str:
    """Letters of both cases, digits and spaces; the length may be one that matters."""
    special, sizes, found = letters(hot), whole(hot), []
    near = sizes and chance.random() < 0.4
    for _ in range(max(chance.choice(sizes) + chance.choice((-1, 0, 1)), 1) if near else chance.randint(2, 22)):
        dice = chance.random()
        if special and dice < 0.4:
            found.append(chance.choice(special))
        elif dice < 0.85:
            found.append(chance.choice(COMMON if dice < 0.6 else LETTERS))
        else:
            found.append(chance.choice(" 0123456789") if dice < 0.93 else chance.choice(LETTERS).upper())
    return "".join(found)


def word(chance: Random, hot: Hot) -> str:
    """A word of small letters; its length may be one that matters."""
    special, sizes = letters(hot), whole(hot)
    size = chance.choice(sizes) + chance.choice((-1, 0, 1)) if sizes and chance.random() < 0.6 else chance.randint(1, 8)
    pool = COMMON + LETTERS + special * 4
    found = "".join(chance.choice(pool) for _ in range(max(size, 1)))
    dice = chance.random()
    if special and dice < 0.25:
        return chance.choice(special) + found[1:]
    return found[:-1] + chance.choice(special) if special and dice < 0.5 else found


def words(chance: Random, hot: Hot) -> list[str]:
    """Words, some of them twice."""
    found = [word(chance, hot) for _ in range(chance.choice((1, 2, 3, 4, 5, 6, 7)))]
    if chance.random() < 0.4:
        found.insert(chance.randrange(len(found) + 1), chance.choice(found))
    return found


def table(chance: Random, hot: Hot) -> dict[str, int]:
    """Numbers by short names, in no order."""
    ints = whole(hot)
    return {name: number(chance, ints) for name in chance.sample(SHORT, chance.randint(1, 7))}


def grid(chance: Random, hot: Hot) -> list[list[int]]:
    """Rows of the same length."""
    ints = whole(hot)
    columns = chance.randint(1, 4)
    return [[number(chance, ints) for _ in range(columns)] for _ in range(chance.randint(1, 4))]


def spans(chance: Random, hot: Hot) -> list[list[int]]:
    """Pairs of a start and an end that is not before it; many touch or overlap."""
    ints, found = whole(hot), []
    for _ in range(chance.randint(1, 6)):
        low = number(chance, ints) if chance.random() < 0.7 or not found else chance.choice(found)[1]
        high = low + chance.randint(0, 9)
        if ints and chance.random() < 0.3:
            high = max(low, chance.choice(ints) + chance.choice((-1, 0, 1)))
        found.append([low, high])
    return found


def nested(chance: Random, hot: Hot, depth: int = 0) -> list[Any]:
    """Lists in lists of numbers."""
    ints, found = whole(hot), []
    for _ in range(chance.randint(1 if depth == 0 else 0, 4)):
        deeper = depth < 3 and chance.random() < 0.45
        found.append(nested(chance, hot, depth + 1) if deeper else number(chance, ints))
    return found


def brackets(chance: Random, hot: Hot) -> str:
    """Letters in balanced parentheses, from the outside to at most five deep."""
    found, depth = [], 0
    for _ in range(chance.randint(3, 20)):
        dice = chance.random()
        if dice < 0.3 and depth < 5:
            found.append("(")
            depth += 1
        elif dice < 0.5 and depth:
            found.append(")")
            depth -= 1
        else:
            found.append(chance.choice("abcde" + letters(hot)))
    return "".join(found) + ")" * depth


def _runs(chance: Random, hot: Hot) -> str:
    sizes = whole(hot)
    found = []
    for _ in range(chance.randint(1, 6)):
        near = sizes and chance.random() < 0.6
        size = chance.choice(sizes) + chance.choice((-1, 0, 1)) if near else chance.randint(1, 5)
        found.append(chance.choice("abcd") * max(size, 1))
    return "".join(found)


def _machine(chance: Random, hot: Hot) -> str:
    ints = [abs(each) for each in whole(hot)]
    signs = "+-*" if chance.random() < 0.5 else "+-"
    steps = [chance.choice(signs) + str(abs(number(chance, ints)) % 13) for _ in range(chance.randint(1, 6))]
    return " ".join(steps)


def _natural(chance: Random, hot: Hot) -> int:
    special = [each for each in whole(hot) if 0 <= each <= 9] * 3
    found = "".join(str(chance.choice([*range(10), *special])) for _ in range(chance.randint(1, 7)))
    return int(found)


def _joined(separator: str) -> Callable[[Random, Hot], Arguments]:
    return lambda chance, hot: (separator.join(map(str, numbers(chance, whole(hot)))),)


def _assigned(separator: str, equals: str) -> Callable[[Random, Hot], Arguments]:
    def draw(chance: Random, hot: Hot) -> Arguments:
        return (separator.join(f"{key}{equals}{value}" for key, value in table(chance, hot).items()),)

    return draw


@cache
def fields(separator: str) -> Kind:
    """A text of numbers with a separator between them."""
    return Kind(f"fields {separator}", ("text",), _joined(separator), (("0",), (f"7{separator}-7",)))


@cache
def assignments(separator: str, equals: str) -> Kind:
    """A text of names and numbers."""
    name = f"assignments {separator}{equals}"
    return Kind(name, ("text",), _assigned(separator, equals), ((f"tea{equals}0",),))


NUMBER = Kind(
    "number", ("n",), lambda chance, hot: (lone(chance, hot),), ((0,), (1,), (-1,)),
    tuple((n,) for n in range(-40, 61)), True,
)  # fmt: skip
PAIR = Kind(
    "pair", ("a", "b"), pair, ((0, 0), (1, -1), (5, 5)),
    tuple((a, b) for a in range(-17, 25, 3) for b in (-20, -9, -4, -1, 1, 3, 4, 6, 10, 15)), True,
)  # fmt: skip
NATURAL = Kind("natural", ("n",), lambda chance, hot: (_natural(chance, hot),), ((0,), (10,), (9,)))
SMALL = Kind(
    "small", ("n",), lambda chance, hot: (chance.randint(0, 14),), ((0,), (1,), (2,)), tuple((n,) for n in range(15))
)
COUNT = Kind(
    "count", ("n",), lambda chance, hot: (chance.randint(1, 90),), ((1,), (2,)), tuple((n,) for n in range(1, 91))
)
NUMBERS = Kind("numbers", ("numbers",), lambda chance, hot: (numbers(chance, hot),), (([],), ([0],), ([3, 3],)))
LISTS = Kind(
    "lists", ("first", "second"), lambda chance, hot: (numbers(chance, hot), numbers(chance, hot)),
    (([], []), ([], [4]), ([2, 1], [])),
)  # fmt: skip
TEXT = Kind("text", ("text",), lambda chance, hot: (text(chance, hot),), (("",), ("a",), ("Zz 9",)))
SENTENCE = Kind("sentence", ("text",), lambda chance, hot: (" ".join(words(chance, hot)),), (("",), ("on",)))
WORDS = Kind("words", ("words",), lambda chance, hot: (words(chance, hot),), (([],), (["a"],)))
TABLE = Kind("table", ("table",), lambda chance, hot: (table(chance, hot),), (({},), ({"tea": 0},)))
GRID = Kind("grid", ("grid",), lambda chance, hot: (grid(chance, hot),), (([[0]],), ([[1, 2], [3, 4]],)))
SPANS = Kind("spans", ("spans",), lambda chance, hot: (spans(chance, hot),), (([],), ([[0, 0]],), ([[1, 4], [4, 6]],)))
NESTED = Kind("nested", ("items",), lambda chance, hot: (nested(chance, hot),), (([],), ([[]],), ([1, [2, [3]]],)))
BRACKETS = Kind("brackets", ("text",), lambda chance, hot: (brackets(chance, hot),), (("",), ("()",), ("a(b)",)))
RUNS = Kind("runs", ("text",), lambda chance, hot: (_runs(chance, hot),), (("",), ("a",), ("aab",)))
MACHINE = Kind("machine", ("text",), lambda chance, hot: (_machine(chance, hot),), (("+0",), ("-1 *2",)))
WALK = Kind(
    "walk", ("moves",), lambda chance, hot: ("".join(chance.choice("NSEW") for _ in range(chance.randint(1, 12))),),
    (("",), ("N",), ("WE",)),
)  # fmt: skip
