"""The parts that katas are put together from: conditions and changes of numbers, each in English, Python, JavaScript.

In:  nothing.  Out: `Piece` values that say one thing of `x` (or of `a` and `b`); `Kata`, one finished exercise.

Unusual: a piece knows the values at which it turns, so that tests are drawn around them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from codeweft.tasks.katas.inputs import Arguments, Kind

Hot = tuple[int | str, ...]
WHOLE = re.compile(r"[\w.]+|[\w.]+\([^()]*\)|\w+\[[^\[\]]*\]")  # an expression that nothing beside it can tear apart


@lru_cache(maxsize=65536)
def paste(code: str, *expressions: str) -> str:
    """Code with `x`, or with `a` and `b`, replaced by expressions, in parentheses where they would fall apart.

    >>> paste("x * 3", "n + 1"), paste("abs(x)", "n + 1"), paste("a - b", "b", "a * 2")
    ('(n + 1) * 3', 'abs(n + 1)', 'b - (a * 2)')
    """
    names = ("x",) if len(expressions) == 1 else ("a", "b")
    given = dict(zip(names, expressions, strict=True))

    def put(match: re.Match[str]) -> str:
        expression = given[match[0]]
        before, after = code[: match.start()].rstrip()[-1:], code[match.end() :].lstrip()[:1]
        alone = before in ("", "(", ",") and after in ("", ")", ",")
        return expression if alone or WHOLE.fullmatch(expression) else f"({expression})"

    return re.sub(rf"\b(?:{'|'.join(names)})\b", put, code)


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing that can be said of `x` (or of `a` and `b`); `says` has a hole for each, or none for a condition."""

    says: str
    python: str
    javascript: str
    hot: Hot = ()

    def said(self, *subjects: str) -> str:
        """The English of it; a subject of several words stands in parentheses."""
        return self.says.format(*(f"({each})" if " " in each else each for each in subjects))

    def py(self, *expressions: str) -> str:
        """The Python of it."""
        return paste(self.python, *(expressions or ("x",)))

    def js(self, *expressions: str) -> str:
        """The JavaScript of it."""
        return paste(self.javascript, *(expressions or ("x",)))

    def at(self, value: int) -> int:
        """What becomes of a number."""
        return eval(self.py(str(value)))  # noqa: S307, our own text


@dataclass(frozen=True, slots=True)
class Kata:
    """One exercise: what to return, the bodies of both reference functions, and the values at which it turns.

    In a body, `solve` stands for the function itself.
    """

    kind: Kind
    says: str
    python: str
    javascript: str
    hot: Hot
    edges: tuple[Arguments, ...] = ()  # arguments that must be tried, beside those of the kind


@dataclass(frozen=True, slots=True)
class Level:
    """Exercises of one difficulty: every choice of one option a slot is one; `write` makes it from them."""

    difficulty: int
    slots: tuple[Sequence[Any], ...]
    write: Callable[..., Kata]


@dataclass(frozen=True, slots=True)
class Family:
    """Exercises of one sort; `names` are what their functions are called. Those not `trained` are only ever asked."""

    name: str
    names: tuple[str, ...]
    levels: tuple[Level, ...]
    trained: bool = True


def plural(count: int, noun: str) -> str:
    """A count of things.

    >>> plural(1, "letter"), plural(2, "letter")
    ('1 letter', '2 letters')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def one(kind: Kind, says: str, python: str, javascript: str, *pieces: Piece) -> Kata:
    """An exercise whose answer is one expression."""
    return several(kind, says, (f"return {python}",), (f"return {javascript};",), *pieces)


def several(kind: Kind, says: str, python: Sequence[str], javascript: Sequence[str], *pieces: Piece) -> Kata:
    """An exercise whose answer takes several lines."""
    return Kata(kind, says, "\n".join(python), "\n".join(javascript), sum((piece.hot for piece in pieces), ()))


def turning(*values: int | str) -> Piece:
    """Nothing but values at which an exercise turns."""
    return Piece("", "", "", values)


NEAR_ZERO = turning(0, 0, 1)  # where two numbers are compared with a third, one of them should be small


# --- conditions: what stands after "is" or "are" ----------------------------------------------------------------------


def _above(k: int) -> Piece:
    return Piece(f"greater than {k}", f"x > {k}", f"x > {k}", (k,))


def _below(k: int) -> Piece:
    return Piece(f"less than {k}", f"x < {k}", f"x < {k}", (k,))


def _divisible(k: int) -> Piece:
    return Piece(f"divisible by {k}", f"x % {k} == 0", f"x % {k} === 0", (k, 2 * k, -k))


def _not_divisible(k: int) -> Piece:
    return Piece(f"not divisible by {k}", f"x % {k} != 0", f"x % {k} !== 0", (k, 2 * k, -k))


def _between(low: int, high: int) -> Piece:
    says = f"between {low} and {high} (both included)"
    return Piece(says, f"{low} <= x <= {high}", f"x >= {low} && x <= {high}", (low, high))


PARITIES = (
    Piece("even", "x % 2 == 0", "x % 2 === 0", (0, 2)),
    Piece("odd", "x % 2 == 1", "x % 2 !== 0", (1, 3)),
)
SIGNS = (
    Piece("negative", "x < 0", "x < 0", (0,)),
    Piece("positive", "x > 0", "x > 0", (0,)),
    Piece("not negative", "x >= 0", "x >= 0", (0,)),
)
LIMITS = tuple(make(k) for k in range(-3, 16) for make in (_above, _below) if k)
DIVISORS = tuple(make(k) for k in range(3, 10) for make in (_divisible, _not_divisible))
RANGES = tuple(_between(low, low + width) for low in (-6, -2, 1, 3, 5, 8) for width in (4, 7))
CONDITIONS = PARITIES + SIGNS + LIMITS + DIVISORS + RANGES
RESIDUES = PARITIES + DIVISORS  # conditions that hold again and again
SIZES = SIGNS + LIMITS + RANGES  # conditions that hold on one side or in one stretch
DIGITS = tuple(
    Piece(f"{name} {k}", f"x {python} {k}", f"x {javascript} {k}", (k,))
    for k in range(1, 9)
    for name, python, javascript in (
        ("greater than", ">", ">"), ("less than", "<", "<"), ("equal to", "==", "==="), ("other than", "!=", "!=="),
    )
) + PARITIES  # fmt: skip
LENGTHS = tuple(
    Piece(f"has {name} than {k} letters", f"x {sign} {k}", f"x {sign} {k}", (k,))
    for k in range(2, 7)
    for name, sign in (("more", ">"), ("fewer", "<"))
)


# --- changes: what becomes of a number --------------------------------------------------------------------------------


def _modulo(k: int) -> Piece:
    says = f"the remainder (0 to {k - 1}) of {{}} divided by {k}"
    return Piece(says, f"x % {k}", f"((x % {k}) + {k}) % {k}", (k, 2 * k, -k))


def _divided(k: int) -> Piece:
    return Piece(f"{{}} divided by {k} and rounded down", f"x // {k}", f"Math.floor(x / {k})", (k, -k))


def _at_most(k: int) -> Piece:
    return Piece(f"the smaller of {{}} and {k}", f"min(x, {k})", f"Math.min(x, {k})", (k,))


def _at_least(k: int) -> Piece:
    return Piece(f"the larger of {{}} and {k}", f"max(x, {k})", f"Math.max(x, {k})", (k,))


SUMS = tuple(Piece(f"{{}} plus {k}", f"x + {k}", f"x + {k}") for k in range(1, 13))
DIFFERENCES = tuple(Piece(f"{{}} minus {k}", f"x - {k}", f"x - {k}") for k in range(1, 13))
PRODUCTS = tuple(Piece(f"{{}} times {k}", f"x * {k}", f"x * {k}") for k in range(2, 10))
REMAINDERS = tuple(Piece(f"{k} minus {{}}", f"{k} - x", f"{k} - x") for k in range(1, 16))
SQUARE = Piece("the square of {}", "x * x", "x * x")
ABSOLUTE = Piece("the absolute value of {}", "abs(x)", "Math.abs(x)", (0, -1, -3))
MODULI = tuple(map(_modulo, range(3, 10)))
QUOTIENTS = tuple(map(_divided, range(2, 6)))
CAPS = (*map(_at_most, range(0, 13)), *map(_at_least, range(-4, 9)))
CHANGES = (*SUMS, *DIFFERENCES, *PRODUCTS, *REMAINDERS, SQUARE, ABSOLUTE, *MODULI, *QUOTIENTS, *CAPS)
STEADY_CHANGES = (*SUMS, *DIFFERENCES, *PRODUCTS, *REMAINDERS, SQUARE)  # those that hardly ever give the same for two
KEY_CHANGES = (*REMAINDERS, SQUARE, ABSOLUTE, *MODULI, *QUOTIENTS)  # those that something is compared by
PLAIN_CHANGES = (*SUMS, *DIFFERENCES, *PRODUCTS, SQUARE, ABSOLUTE)  # those of one short phrase
BENT_CHANGES = (SQUARE, ABSOLUTE, *MODULI, *QUOTIENTS, *CAPS)  # those that no other sum and product does

TWO = (
    Piece("the sum of {} and {}", "a + b", "a + b"),
    Piece("{} minus {}", "a - b", "a - b"),
    Piece("the product of {} and {}", "a * b", "a * b"),
    Piece("the larger of {} and {}", "max(a, b)", "Math.max(a, b)"),
    Piece("the smaller of {} and {}", "min(a, b)", "Math.min(a, b)"),
    Piece("the absolute difference of {} and {}", "abs(a - b)", "Math.abs(a - b)"),
    *(Piece(f"the sum of {k} times {{}} and {{}}", f"{k} * a + b", f"{k} * a + b") for k in range(2, 8)),
    *(Piece(f"{{}} minus {k} times {{}}", f"a - {k} * b", f"a - {k} * b") for k in range(2, 8)),
)  # what two numbers give
RELATIONS = (
    Piece("{} is greater than {}", "a > b", "a > b"),
    Piece("{} is less than {}", "a < b", "a < b"),
    Piece("{} equals {}", "a == b", "a === b"),
)


def both(first: Piece, second: Piece) -> Piece:
    """A condition of two that must both hold."""
    return Piece(
        f"{first.says} and {second.says}", f"{first.python} and {second.python}",
        f"{first.javascript} && {second.javascript}", first.hot + second.hot,
    )  # fmt: skip


def either(first: Piece, second: Piece) -> Piece:
    """A condition of two of which one must hold."""
    return Piece(
        f"{first.says} or {second.says}", f"{first.python} or {second.python}",
        f"{first.javascript} || {second.javascript}", first.hot + second.hot,
    )  # fmt: skip


PAIRED = (both, either)
