"""Plain data across the wall: Python values of the built-in types as JSON that says the type of each.

In:  None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict and their subclasses, nested.
Out: text that holds them exactly, and back; PlainError for anything else and for anything too deep or too long.

Unusual: subclasses are written as what they are built on, by the built-in type's own methods, so that no method of a
hostile class runs while its value is read; the reader makes nothing but exact built-in types.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

DEPTH = 64  # levels of nesting
DIGITS = 100_000  # hexadecimal digits of an integer
ALIKE = 100  # members of a set or keys of a table that may have the same hash
SINGLETONS = {"n": None, "t": True, "f": False}


class PlainError(ValueError):
    """A value is not plain data, or text does not say one."""


class NoDataError(PlainError):
    """A value is of a type that is not plain data."""


def dumps(value: Any) -> str:
    """A value as text.

    >>> dumps((1, [2.5, None]))
    '["u",["i","1"],["l",["d","0x1.4000000000000p+1"],["n"]]]'
    """
    return _JSON(encode(value))


_JSON = json.JSONEncoder(separators=(",", ":")).encode


def loads(text: str | bytes) -> Any:
    """The value that `dumps` wrote.

    >>> loads(dumps({"a": {1, 2}, b"b": (True,)}))
    {'a': {1, 2}, b'b': (True,)}
    """
    try:
        tagged = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlainError("The text is not what an encoder writes.") from error
    return decode(tagged)


def encode(value: Any, depth: int = 0) -> list[Any]:
    """A value as nested lists, each beginning with the letter of its type."""
    if value is None:
        return ["n"]
    kind = type(value)
    if kind is bool:
        return ["t" if value else "f"]
    if depth > DEPTH:
        raise PlainError(f"The value is nested deeper than {DEPTH} levels, or contains itself.")
    for base, write in _WRITERS:
        if kind is base:
            return write(value, depth)
    for base, write in _WRITERS:
        if issubclass(kind, base):
            return write(value, depth)
    name = _NAME(kind)  # a hostile class of classes may have replaced the attribute
    raise NoDataError(f"A value of type {name[:80]} is not plain data.")


_NAME: Callable[[type], str] = vars(type)["__name__"].__get__


def _integer(value: Any, _: int) -> list[Any]:
    digits = int.__format__(int.__pos__(value), "x")
    if len(digits) > DIGITS:
        raise PlainError(f"An integer has more than {DIGITS} hexadecimal digits.")
    return ["i", digits]


def _real(value: Any, _: int) -> list[Any]:
    return ["d", float.hex(value)]


def _complex(value: Any, _: int) -> list[Any]:
    exact: Any = complex.__pos__(value)  # a subclass may have replaced the attributes
    return ["c", exact.real.hex(), exact.imag.hex()]


def _string(value: Any, _: int) -> list[Any]:
    text = value if type(value) is str else str.__add__("", value)
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:  # JSON would join two halves of a surrogate pair
        return ["w", text.encode("utf-8", "surrogatepass").hex()]
    return ["s", text]


def _bytes(value: Any, _: int) -> list[Any]:
    return ["b", bytes.hex(value)]


def _bytearray(value: Any, _: int) -> list[Any]:
    return ["y", bytearray.hex(value)]


def _sequence(letter: str, base: Any) -> Callable[[Any, int], list[Any]]:
    def write(value: Any, depth: int) -> list[Any]:
        return [letter, *(encode(item, depth + 1) for item in base.__iter__(value))]

    return write


def _table(value: Any, depth: int) -> list[Any]:
    pairs = dict.items(value)
    return ["m", *([encode(key, depth + 1), encode(item, depth + 1)] for key, item in pairs)]


_WRITERS: tuple[tuple[type, Callable[[Any, int], list[Any]]], ...] = (
    (int, _integer),
    (str, _string),
    (float, _real),
    (list, _sequence("l", list)),
    (tuple, _sequence("u", tuple)),
    (dict, _table),
    (set, _sequence("e", set)),
    (frozenset, _sequence("z", frozenset)),
    (bytes, _bytes),
    (bytearray, _bytearray),
    (complex, _complex),
)


def decode(tagged: Any, depth: int = 0) -> Any:
    """The value that nested lists say; PlainError for anything `encode` cannot have written."""
    if depth > DEPTH + 1 or type(tagged) is not list or not tagged or type(tagged[0]) is not str:
        raise PlainError("A value has no type, or is nested too deep.")
    letter, items = tagged[0], tagged[1:]
    try:
        if letter in SINGLETONS and not items:
            return SINGLETONS[letter]
        if letter in _LEAVES:
            return _LEAVES[letter](*items)
        if letter == "m":
            pairs = [(decode(key, depth + 1), decode(item, depth + 1)) for key, item in items]
            _refuse_collisions([key for key, _ in pairs])
            return dict(pairs)
        make = _CONTAINERS[letter]
        members = [decode(item, depth + 1) for item in items]
        if letter in "ez":
            _refuse_collisions(members)
        return make(members)
    except PlainError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:  # unknown letters, wrong or unhashable parts
        raise PlainError(f"{letter[:1]!r} stands before what is not its kind of value.") from error


def _refuse_collisions(members: list[Any]) -> None:
    """Hashes of numbers can be foreseen: a set of members chosen to have the same one takes minutes to make."""
    if len(members) > ALIKE and max(Counter(map(hash, members)).values()) > ALIKE:
        raise PlainError("The members of a set or the keys of a table collide.")


def _read_integer(digits: str) -> int:
    if len(digits) > DIGITS + 1:
        raise PlainError("An integer has too many digits.")
    return int(digits, 16)


def _read_string(text: str) -> str:
    if type(text) is not str:
        raise PlainError("A text is no text.")
    return text


def _read_wide_string(digits: str) -> str:
    return bytes.fromhex(digits).decode("utf-8", "surrogatepass")


_LEAVES: dict[str, Callable[..., Any]] = {
    "i": _read_integer,
    "d": float.fromhex,
    "c": lambda real, imaginary: complex(float.fromhex(real), float.fromhex(imaginary)),
    "s": _read_string,
    "w": _read_wide_string,
    "b": bytes.fromhex,
    "y": bytearray.fromhex,
}
_CONTAINERS: dict[str, Callable[..., Any]] = {"l": list, "u": tuple, "e": set, "z": frozenset}


def equal(value: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether an exact built-in value counts as the expected one.

    As `==`, except that a truth value is no number, NaN equals NaN, and numbers where the expected one is a float may
    differ by `tolerance`.

    >>> equal([1.0, (2,)], [1, (2,)]), equal(True, 1), equal(0.30000001, 0.3, 1e-6)
    (True, False, True)
    """
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, (int, float, complex)) and isinstance(expected, (int, float, complex)):
        return _numbers_equal(value, expected, tolerance)
    kinds = {type(value), type(expected)}
    if kinds <= {set, frozenset}:
        return value == expected and set(map(_told_apart, value)) == set(map(_told_apart, expected))
    if len(kinds) > 1:
        return kinds == {bytes, bytearray} and value == expected
    if isinstance(value, (list, tuple)):
        return len(value) == len(expected) and all(
            equal(one, other, tolerance) for one, other in zip(value, expected, strict=True)
        )
    if isinstance(value, dict):
        return (
            value.keys() == expected.keys()
            and set(map(_told_apart, value)) == set(map(_told_apart, expected))
            and all(equal(value[key], wanted, tolerance) for key, wanted in expected.items())
        )
    return bool(value == expected)


def _told_apart(member: Any) -> Any:
    """A member of a set such that truth values in it are no numbers."""
    if isinstance(member, bool):
        return bool, member
    if isinstance(member, (tuple, frozenset)):
        return type(member)(map(_told_apart, member))
    return member


def _numbers_equal(value: Any, expected: Any, tolerance: float) -> bool:
    if value == expected or (value != value and expected != expected):
        return True
    if not tolerance or not isinstance(expected, (float, complex)):
        return False
    try:
        return abs(value - expected) <= tolerance
    except OverflowError:
        return False


def allclose(value: Any, expected: Any, tolerance: float) -> bool:
    """Whether an exact built-in value is of the expected type and its numbers lie near the expected ones.

    Near is what NumPy's `allclose` means: within the tolerance and a ten millionth of the expected number.

    >>> allclose([4e30, 1], (4.0000001e30, 1), 1e-6), allclose([4e30, 1], [4.0000001e30, 1], 1e-6), allclose(1, 1.0, 1)
    (False, True, False)
    """
    return type(value) is type(expected) and near(value, expected, tolerance)


def near(value: Any, expected: Any, tolerance: float) -> bool:
    """Whether all numbers of a value lie near the expected ones; of what is no number, whether it is equal."""
    if isinstance(expected, (list, tuple)):
        same = isinstance(value, (list, tuple)) and len(value) == len(expected)
        return same and all(near(one, other, tolerance) for one, other in zip(value, expected, strict=True))
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if value == expected or not all(isinstance(each, (int, float, complex)) for each in (value, expected)):
        return bool(value == expected)
    try:
        return abs(expected) < math.inf and abs(value - expected) <= tolerance + 1e-7 * abs(expected)
    except OverflowError:
        return False
