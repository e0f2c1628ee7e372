"""Tests that are encoded once and sent once are the same tests for every answer, however little may be kept of them."""

import json
import marshal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from sandbox.opened import SMALL, Opened, call, check, opened, stdio

from codeweft.base.errors import UserError
from codeweft.sandbox import tests_sent
from codeweft.sandbox.config import Submission
from codeweft.sandbox.harness import HEADER
from codeweft.sandbox.plain import dumps, loads
from codeweft.sandbox.tests_sent import Bounded, Encoder, TestSet, as_tables

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.binary()
    | st.text(st.characters(exclude_categories=())) | st.binary().map(bytearray)
)  # fmt: skip
VALUES = st.recursive(
    LEAVES | st.frozensets(st.integers()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def box() -> Iterator[Opened]:
    with opened(cache=0) as sandbox:
        yield sandbox


def of(*tests: Any, **fields: Any) -> Submission:
    return Submission("python", "", tests, "f", limits=SMALL, **fields)


def read(frames: bytes) -> Iterator[Any]:
    """The inputs in frames, as the harness takes them."""
    while frames:
        size = int.from_bytes(frames[:HEADER], "big")
        given = marshal.loads(frames[HEADER : HEADER + size])
        yield loads(given) if type(given) is str else given
        frames = frames[HEADER + size :]


@seed(4)
@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(st.lists(VALUES, max_size=3).map(tuple), max_size=4))
def test_inputs_reach_the_harness_exactly(inputs: list[tuple[Any, ...]]):
    tests = TestSet(as_tables(of(*(call(*arguments) for arguments in inputs))))
    assert list(map(dumps, read(tests.inputs))) == [dumps(loads(dumps(arguments))) for arguments in inputs]


def test_no_two_inputs_are_one_object():
    shared = [1]
    [(one, other), (third,)] = read(TestSet(as_tables(of(call(shared, shared), call(shared)))).inputs)
    assert len(set(map(id, (one, other, third)))) == 3


@seed(4)
@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), max_size=30))
def test_what_is_kept_are_those_used_last_that_fit(steps: list[tuple[int, int]]):
    bounded: Bounded[int, int] = Bounded(10)
    used: list[tuple[int, int]] = []  # the last used at the end
    for key, size in steps:
        if size == 0:
            assert (bounded.find(key) is None) == (key not in [kept for kept, _ in used])
            used.sort(key=lambda entry: entry[0] == key)
            continue
        gone = bounded.put(key, key, size)
        used = [entry for entry in used if entry[0] != key] + [(key, size)]
        dropped = []
        while sum(each for _, each in used) > 10 and len(used) > 1:
            dropped.append(used.pop(0)[0])
        assert gone == dropped
    assert [(key, size) for key, (_, size) in bounded.kept.items()] == used


def test_the_same_tests_are_encoded_once_and_equal_ones_have_one_digest(monkeypatch: pytest.MonkeyPatch):
    made: list[Submission] = []
    monkeypatch.setattr(tests_sent, "as_tables", lambda given: made.append(given) or as_tables(given))
    encoder, first = Encoder(), of(call(1, expected=1.0))
    alike = replace(first, tests=(call(1, expected=1.0),))
    found = [encoder.encoded(each) for each in (first, replace(first, code="x"), first, alike)]
    assert len(set(found)) == 1
    assert len(made) == 2
    others = [replace(first, allclose=(0.5,)), of(call(1, expected=1)), of(call(True, expected=1.0)), of(check("1"))]
    assert len({encoder.encoded(each).digest for each in (first, *others)}) == 5


def test_an_encoder_forgets_what_does_not_fit_and_is_right_all_the_same():
    encoder = Encoder(most=100)
    each = [of(call("x" * 60, number)) for number in range(5)]
    for submission in each * 2:
        assert json.loads(encoder.encoded(submission).text) == as_tables(submission)
        assert len(encoder.known.kept) == 1


def test_tests_that_the_supervisor_had_to_forget_are_sent_again(box: Opened):
    box.sandbox.sent.most = 300
    code = "def f(x): return x"
    for _ in range(2):
        for number in range(6):
            tests = (call(number, expected=number), call("x" * 100, expected="x" * 100))
            assert box.judge(code, *tests).status == "ok"
            assert box.judge(code, call(number, expected=-1), *tests).status == "wrong"
            assert len(box.sandbox.sent.kept) <= 2
    assert box.judge("print(1)", stdio("", "1")).status == "ok"


def test_answers_to_one_problem_are_judged_by_its_tests_and_not_by_each_others(box: Opened):
    tests = tuple(call([number], expected=number) for number in range(300))
    right = of(*tests)
    changing = "def f(x):\n    value = x[0]\n    x[0] = None\n    return value"
    codes = ["def f(x): return x[0]", "def f(x): return x[0] + (x[0] == 250)", changing] * 3
    verdicts = box.do(box.sandbox.judge_all([replace(right, code=code) for code in codes]))
    assert [(verdict.status, verdict.passed) for verdict in verdicts] == [("ok", 300), ("wrong", 250), ("ok", 300)] * 3


def test_values_longer_than_a_pipe_all_come(box: Opened):
    tests = [call(number, expected=str(number) * 30_000) for number in range(1, 9)]
    verdict = box.judge("def f(n): return str(n) * 30_000", *tests)
    assert (verdict.status, verdict.passed) == ("ok", 8), verdict


def test_tests_that_cannot_be_judged_from_outside_are_refused_before_anything_is_sent():
    with pytest.raises(UserError, match="Make it an assert test"):
        Encoder().encoded(of(call(object())))
    with pytest.raises(UserError, match="is no text"):
        Encoder().encoded(of(replace(stdio("", ""), expected=4)))


@pytest.mark.parametrize("tests", [(call(1), call(2)), (check("1"),), (stdio("", ""),)])
def test_there_is_a_tolerance_for_each_call_or_none(tests: tuple[Any, ...]):
    with pytest.raises(ValueError, match="There are 1 tolerances in allclose"):
        of(*tests, allclose=(1e-6,))
