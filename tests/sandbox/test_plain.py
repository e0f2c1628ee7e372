"""Plain data crosses the wall exactly, no method of a hostile class runs meanwhile, and no text breaks the reader."""

import json
import math
import time
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, seed, settings
from hypothesis import strategies as st

from codeweft.sandbox import plain
from codeweft.sandbox.plain import DEPTH, DIGITS, PlainError, allclose, dumps, equal, loads

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.binary()
    | st.text(st.characters(exclude_categories=())) | st.binary().map(bytearray)
)  # fmt: skip
HASHABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
VALUES = st.recursive(
    LEAVES | HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
    ),
    max_leaves=8,
)


def shape(value: Any) -> Any:
    """A value with the type and the exact bits of everything in it, to compare what `==` would not tell apart."""
    kind = type(value).__name__
    if isinstance(value, complex):
        return kind, shape(value.real), shape(value.imag)
    if isinstance(value, float):
        return kind, "nan" if math.isnan(value) else value.hex()
    if isinstance(value, (list, tuple)):
        return kind, [shape(item) for item in value]
    if isinstance(value, dict):
        return kind, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return kind, sorted((shape(item) for item in value), key=repr)
    return kind, value


@seed(4)
@settings(max_examples=60, deadline=None)
@given(VALUES)
@example("\ud800\udc00")  # two halves that JSON would join
@example({(1, 2): [{"a": float("nan")}], frozenset({b"x"}): (None, True, -0.0)})
@example([10**40, -(16**99), 1j, complex("nan-infj"), bytearray(b"\0\xff"), "\0\ud912"])
def test_every_plain_value_comes_back_as_it_was(value: Any):
    assert shape(loads(dumps(value))) == shape(value)


def test_text_is_plain_ascii_whatever_it_holds():
    assert dumps(["é", "\U0001f600", "\udcff", "\n"]).isascii()


@pytest.mark.parametrize(("levels", "fits"), [(DEPTH, True), (DEPTH + 1, True), (DEPTH + 2, False), (10**5, False)])
def test_as_much_nesting_comes_back_as_goes_in(levels: int, fits: bool):
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    if fits:
        assert loads(dumps(value)) == value
    else:
        with pytest.raises(PlainError, match="nested deeper"):
            dumps(value)


def test_a_value_that_contains_itself_is_refused():
    endless: list[Any] = []
    endless.append(endless)
    table: dict[str, Any] = {}
    table["self"] = (table,)
    for value in (endless, table):
        with pytest.raises(PlainError, match="contains itself"):
            dumps(value)


def test_integers_have_a_longest():
    longest = 16**DIGITS - 1
    assert loads(dumps(longest)) == longest
    assert loads(dumps(-(longest // 16))) == -(longest // 16)
    with pytest.raises(PlainError, match="digits"):
        dumps(longest + 1)


@pytest.mark.parametrize(
    "value",
    [
        object(), len, print, lambda: 1, type, int, iter([]), (item for item in ()), range(3), memoryview(b""),
        Ellipsis,
        NotImplemented, Decimal(1), Fraction(1), deque([1]), {}.keys(), ValueError("no"), pytest,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_everything_else_is_refused_by_the_name_of_its_type(value: Any):
    for wrapped in (value, [value], {"key": (value,)}, {1: {2: value}}):
        with pytest.raises(PlainError, match=f"type {type(value).__name__} is not plain data"):
            dumps(wrapped)


# --- subclasses ----------------------------------------------------------------------------------------------------

Point = namedtuple("Point", "x y")


class Colour(IntEnum):
    RED = 1


class Word(str, Enum):  # noqa: UP042 (the older way, of which there is much)
    YES = "yes"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (Point(1, [2]), (1, [2])),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (Colour.RED, 1),
        (Word.YES, "yes"),
    ],
)
def test_subclasses_come_back_as_what_they_are_built_on(value: Any, wanted: Any):
    assert shape(loads(dumps(value))) == shape(wanted)


ran: list[str] = []


def hostile(base: type) -> type:
    """A subclass of which every method, and every method of its class, tells that it ran."""

    def spy(name: str) -> Any:
        def method(*_: Any, **__: Any) -> Any:
            ran.append(f"{base.__name__}.{name}")
            raise RuntimeError(name)

        return method

    spared = {"__new__", "__init__", "__init_subclass__", "__class__", "__getattribute__"}
    names = {name for name in dir(base) if callable(getattr(base, name)) and name not in spared}
    names |= {"__getattr__", "__iter__", "__len__", "__bool__", "__index__", "__int__", "__float__", "__reduce__"}

    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            ran.append(f"{base.__name__}'s class: {name}")
            return super().__getattribute__(name)

        def __instancecheck__(cls, _: object) -> bool:
            ran.append(f"{base.__name__}'s class: isinstance")
            return True

        def __subclasscheck__(cls, _: type) -> bool:
            ran.append(f"{base.__name__}'s class: issubclass")
            return True

        @property
        def __name__(cls) -> str:
            ran.append(f"{base.__name__}'s class: name")
            raise RuntimeError

    body: dict[str, Any] = {name: spy(name) for name in names - {"__hash__"}}
    body["__hash__"] = lambda self: 7  # sets and tables are made before they are written
    body["__class__"] = property(spy("__class__"))
    body["real"] = body["imag"] = body["__dict__"] = property(spy("attribute"))
    return Meta("Hostile", (base,), body)


@pytest.mark.parametrize(
    "value",
    [5, -(10**30), 2.5, float("nan"), 1 - 2j, "text \ud800", b"bytes", [1, [2]], (1, (2,)), {1: "one"}, {1, 2},
     frozenset({3}), bytearray(b"array")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_no_method_of_a_hostile_subclass_runs(value: Any):
    made = hostile(type(value))(value)
    ran.clear()
    text = dumps(made)
    nested = dumps([(made,), {"key": made}])
    assert not ran
    assert text == dumps(value)
    assert shape(loads(nested)) == shape([(value,), {"key": value}])


def test_no_method_of_a_hostile_stranger_runs():
    stranger = hostile(object)()
    ran.clear()
    with pytest.raises(PlainError, match="type Hostile is not plain data"):
        dumps([stranger])
    assert not ran


# --- the reader ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from(["n", "t", "f", "i", "d", "c", "s", "w", "b", "y", "l", "u", "m", "e", "z"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


def read(text: str | bytes) -> None:
    """Reading either gives plain data or a PlainError."""
    try:
        value = loads(text)
    except PlainError:
        return
    shape(loads(dumps(value)))


@seed(4)
@settings(max_examples=60, deadline=None)
@given(JSON)
def test_any_json_is_read_or_refused(tagged: Any):
    read(json.dumps(tagged))


@seed(4)
@settings(max_examples=60, deadline=None)
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(data: bytes):
    read(data)


@seed(4)
@settings(max_examples=60, deadline=None)
@given(
    VALUES, st.integers(0), st.sampled_from([*'[]",0aflmuez\\', "\\ud800", "[", "null", "1e999", "NaN"]), st.booleans()
)
def test_an_encoding_with_an_error_in_it_is_read_or_refused(value: Any, place: int, other: str, insert: bool):
    text = dumps(value)
    place %= len(text)
    read(text[:place] + other + text[place + (not insert) :])


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "{}", "5", '"n"', "null", "[]", "[[]]", "[null]", "[1]", '["q"]', '["n",1]', '["i"]', '["i",5]',
        '["i","g"]', '["i","1","2"]', '["d","x"]', '["d",1.5]', '["c","0x1p0"]', '["s"]', '["s",5]', '["s",["n"]]',
        '["b","0"]', '["b",5]', '["l",5]', '["l","n"]', '["e",["l"]]', '["z",["e"]]', '["m",["s","a"]]', '["w","ff"]',
        '["w",5]', '["m",[["l"],["n"]]]', '["m",[["n"],["n"],["n"]]]', '["m",5]', '["d","0x1p99999"]', '["s","a","b"]',
        "NaN", '["d",NaN]', "[" * 10**5, '["l",' * 10**5, '["l",' * 67 + "]" * 67, '["i","' + "f" * (DIGITS + 2) + '"]',
        "1" * 10**5, '["i",' + "1" * 10**5 + "]", b"\xff", "\ud800", '["n"] ["n"]',
    ],
    ids=lambda text: repr(text[:24]),
)  # fmt: skip
def test_what_no_encoder_writes_is_refused(text: str | bytes):
    with pytest.raises(PlainError):
        loads(text)


@pytest.mark.parametrize(
    "head",
    ['["e",{}]', '["z",{}]', '["m",{}]'],
)
def test_values_chosen_to_collide_do_not_stall_the_reader(head: str):
    """A hash of integers is known to everybody: a megabyte of equal hashes took twelve seconds to put into a set."""
    numbers = [json.dumps(["i", format(factor * (2**61 - 1), "x")]) for factor in range(1, 20_000)]
    items = numbers if '"m"' not in head else [f'[{number},["n"]]' for number in numbers]
    began = time.process_time()
    with pytest.raises(PlainError, match="collide"):
        loads(head.format(",".join(items)))
    assert time.process_time() - began < 1.5


def test_large_honest_sets_and_tables_are_read():
    for value in (set(range(-9000, 9000)), {str(number): number for number in range(9000)}, {-1, -2}):
        assert loads(dumps(value)) == value
    assert loads(dumps({(a, b) for a in range(-50, 50) for b in range(50)}))


# --- what counts as equal ------------------------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "expected", "tolerance", "wanted"),
    [
        (1, 1, 0, True), (1, 2, 0, False), (1.0, 1, 0, True), (1, 1.0, 0, True), (1 + 0j, 1, 0, True),
        (True, True, 0, True), (True, 1, 0, False), (1, True, 0, False), (False, 0, 0, False), (False, None, 0, False),
        ([True], [1], 0, False), ((0,), (False,), 0, False), ({"a": True}, {"a": 1}, 0, False),
        (NAN, NAN, 0, True), ([NAN], [NAN], 0, True), (NAN, 1.0, 9e9, False), (1.0, NAN, 9e9, False),
        (NAN, 1, 0, False), (complex(NAN, 1), complex(NAN, 1), 0, True), ("nan", NAN, 0, False),
        (0.30000000000000004, 0.3, 0, False), (0.30000000000000004, 0.3, 1e-9, True), (0.31, 0.3, 1e-9, False),
        (3, 3.0000001, 1e-3, True), (3.0000001, 3, 1e-3, False), ([[0.1]], [[0.1 + 1e-12]], 1e-9, True),
        ({"a": (0.1,)}, {"a": (0.1 + 1e-12,)}, 1e-9, True), (1j, 1j + 1e-12, 1e-9, True),
        (float("inf"), float("inf"), 1, True), (float("inf"), 1e308, 1e308, False),
        (-float("inf"), float("inf"), 1, False),
        (10**400, 1.0, 1.0, False), (1.0, 10**400, 1.0, False), (10**400, 10**400, 0, True),
        ([1], (1,), 0, False), ((1,), [1], 0, False), ([1, 2], [1], 0, False), ([], [], 0, True), ([], None, 0, False),
        ("1", 1, 0, False), ("a", b"a", 0, False), (b"a", bytearray(b"a"), 0, True), ("", [], 0, False),
        ({1: 2, 3: 4}, {3: 4, 1: 2}, 0, True), ({1: 2}, {1: 2, 3: 4}, 0, False), ({1: [2]}, {1: [3]}, 0, False),
        ({1}, {1}, 0, True), ({1}, frozenset({1}), 0, True), ({1}, [1], 0, False), ({1, 2}, {1}, 0, False),
        ({1}, {True}, 0, False), ({True}, {1}, 0, False), ({1: "a"}, {True: "a"}, 0, False),
        ({(1,)}, {(True,)}, 0, False),
        ({1.0}, {1}, 0, True), ({0.1, 2}, {2, 0.1}, 0, True), ({(1.0,): 5}, {(1,): 5}, 0, True),
        (None, None, 0, True), (None, 0, 0, False), ("a", "a", 0, True), ("a", "b", 9, False),
    ],
)  # fmt: skip
def test_what_counts_as_equal(value: Any, expected: Any, tolerance: float, wanted: bool):
    assert equal(value, expected, tolerance) is wanted


@seed(4)
@settings(max_examples=60, deadline=None)
@given(VALUES, VALUES)
def test_without_truth_values_and_nan_equal_means_the_built_in_equality(value: Any, other: Any):
    assert equal(value, loads(dumps(value)))
    if not any(word in repr((value, other)) for word in ("True", "False", "nan")):
        assert equal(value, other) == (value == other)


@seed(4)
@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES)
def test_values_of_one_text_are_equal(value: Any, other: Any):
    """Why the judge need not read what says the expected value to the last letter."""
    assert dumps(value) != dumps(other) or equal(loads(dumps(value)), loads(dumps(other)))


NUMBERS = st.floats(width=32) | st.sampled_from([0.0, 1.0, 1.0000001, 1.0000005, 1.000001, 1e30, 1.0000001e30, NAN])


@seed(4)
@settings(max_examples=400, deadline=None, database=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS | st.integers(-3, 3)), min_size=1, max_size=4), st.sampled_from([1e-6, 0.1]))
def test_near_numbers_are_those_that_numpy_finds_near(pairs: list[tuple[float, float]], tolerance: float):
    values, expected = map(list, zip(*pairs, strict=True))
    with np.errstate(all="ignore"):
        wanted = bool(np.allclose(values, expected, rtol=1e-7, atol=tolerance))
    assert allclose(values, expected, tolerance) == wanted
    assert allclose([values, (1,)], [expected, (1,)], tolerance) == wanted


@pytest.mark.parametrize(
    ("value", "expected", "wanted"),
    [
        (1, 1.0, False), ((1.0,), [1.0], False), ([(1.0,)], [[1.0]], True), ([1], [1.0000001], True),
        ([1.0], [1.0, 1.0], False), ([True], [1.0], False), ([1], [True], False), (["a", 1.0], ["a", 1.0000001], True),
        (["a"], [1.0], False), ([1.0], ["a"], False), ([None], [1.0], False), ({"a": 1.0}, {"a": 1.0000001}, False),
        ({"a": 1.0}, {"a": 1}, True), (1.0, float("inf"), False), ([10**400], [1.0], False), ([1.0], [10**400], False),
        (1j, 1j + 1e-9, True), (1j, 1j + 1e-3, False), ("a", "a", True), ([[1.0]], [1.0], False),
    ],
)  # fmt: skip
def test_beside_near_numbers_only_what_is_equal_is_near(value: Any, expected: Any, wanted: bool):
    assert allclose(value, expected, 1e-6) is wanted


def test_equality_is_plain_and_does_not_run_out_of_stack():
    deep: Any = 0.5
    for _ in range(DEPTH):
        deep = [deep]
    assert equal(deep, loads(dumps(deep)))
    assert plain.equal(list(range(10**5)), list(range(10**5)))
