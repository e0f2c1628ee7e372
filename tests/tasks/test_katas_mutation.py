"""Hidden tests of katas notice wrong answers: small changes of the references, tried on a thousand random inputs."""

import copy
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from typing import Any

import pytest

from codeweft.base.records import Problem
from codeweft.tasks.katas.generate import FAMILIES, Instance, instances, problem
from codeweft.tasks.katas.mutate import Mutant, RoundsExceededError, guarded, mutants

INPUTS = 1000
CAUGHT = 0.95


@pytest.fixture(autouse=True)
def _shallow() -> Iterator[None]:
    """Mutants that call themselves for ever end sooner."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(500)
    yield
    sys.setrecursionlimit(before)


def loaded(code: str, name: str) -> Callable[..., Any]:
    namespace: dict[str, Any] = {"RoundsExceededError": RoundsExceededError}
    exec(guarded(code), namespace)
    return namespace[name]


def outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """What a call gives, `repr` apart; all errors are alike."""
    try:
        return repr(function(*copy.deepcopy(arguments)))
    except Exception:  # noqa: BLE001, a mutant may raise anything
        return "error"


def judged(instance: Instance, asked: Problem) -> tuple[int, list[tuple[Mutant, int]]]:
    """How many mutants differ from the reference on a random input, and which of these pass the hidden tests."""
    chance, kata = Random(f"inputs of {instance.behaviour}"), instance.kata
    inputs = [kata.kind.draw(chance, kata.hot) for _ in range(INPUTS)]
    right: list[str] = []
    different, passed = 0, []
    for mutant in mutants(asked.reference):
        function = loaded(mutant.code, asked.entry_point)
        caught = any(outcome(function, test.args) != repr(test.expected) for test in asked.tests_hidden)
        if not caught and not right:
            right = [outcome(instance.function, arguments) for arguments in inputs]
        # the random inputs are looked at in any case: a mutant may differ from the reference on a test alone
        if caught:
            differing = next((1 for each in inputs if outcome(function, each) != outcome(instance.function, each)), 0)
        else:
            differing = sum(outcome(function, each) != wanted for each, wanted in zip(inputs, right, strict=True))
        different += differing > 0
        if differing and not caught:
            passed.append((mutant, differing))
    return different, passed


def sample(each: int, families: tuple[str, ...], seed: int = 1) -> Iterator[Instance]:
    """Some instances of each difficulty of some families."""
    for family in FAMILIES:
        if family.name in families:
            split = "train" if family.trained else "unseen-families"
            for difficulty in sorted({str(level.difficulty) for level in family.levels}):
                yield from islice(instances(split, seed, (difficulty,), (family.name,)), each)


def caught_shares(each: int, families: tuple[str, ...]) -> tuple[dict[str, float], float]:
    """The share of wrong mutants that hidden tests catch, by family and over all."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for instance in sample(each, families):
        different, passed = judged(instance, problem(instance, "train", "python"))
        counts[instance.family.name][0] += different
        counts[instance.family.name][1] += different - len(passed)
    assert all(whole > 20 * each for whole, _ in counts.values())
    whole, caught = (sum(each[number] for each in counts.values()) for number in (0, 1))
    return {name: caught / whole for name, (whole, caught) in counts.items()}, caught / whole


# --- the mutants themselves -------------------------------------------------------------------------------------------


def made(code: str) -> set[str]:
    return {mutant.code for mutant in mutants(code)}


def test_mutants_are_the_changes_that_they_are_named_for():
    code = "def f(xs, k):\n    return [x + 1 for x in xs[1:] if not x >= k]"
    expected = {
        "x - 1 for x in xs[1:] if not x >= k", "x + 2 for x in xs[1:] if not x >= k",
        "x + 0 for x in xs[1:] if not x >= k", "x + 1 for x in xs[2:] if not x >= k",
        "x + 1 for x in xs[0:] if not x >= k", "x + 1 for x in xs[:] if not x >= k",
        "x + 1 for x in xs if not x >= k", "x + 1 for x in xs[1:]", "x + 1 for x in xs[1:] if not not x >= k",
        "x + 1 for x in xs[1:] if x >= k", "x + 1 for x in xs[1:] if not x > k", "x + 1 for x in xs[1:] if not x <= k",
    }  # fmt: skip
    assert {each.split("return [")[1][:-1] for each in made(code)} == expected


def test_statements_branches_and_builtins_are_changed_too():
    code = "def f(a, b):\n    if a and b:\n        a = min(a, 3)\n    return sorted(a, reverse=True)"
    found = {mutant.operator for mutant in mutants(code)}
    assert {
        "statement dropped", "condition negated", "branch always taken", "branch never taken", "and for or",
        "one condition less", "max for min", "only the first argument", "constant off by one", "named argument dropped",
    } == found  # fmt: skip
    assert code not in made(code)


def test_a_mutant_that_loops_for_ever_is_given_up():
    function = loaded("def f(n):\n    while n > 0:\n        n += 1\n    return n", "f")
    with pytest.raises(RoundsExceededError):
        function(1)
    assert function(0) == 0


# --- and the tests of katas -------------------------------------------------------------------------------------------


def test_hidden_tests_catch_wrong_answers_of_some_families():
    by_family, overall = caught_shares(1, ("cases", "list-filters", "sentences", "grids", "nested-lists"))
    assert overall >= CAUGHT, by_family


@pytest.mark.slow
def test_hidden_tests_catch_wrong_answers_of_all_families():
    by_family, overall = caught_shares(3, tuple(family.name for family in FAMILIES))
    assert len(by_family) == len(FAMILIES)
    assert overall >= CAUGHT, by_family
    assert min(by_family.values()) >= 0.9, by_family


def test_a_test_set_that_is_too_small_is_seen_to_be():
    """The measure itself: with the visible tests alone, wrong answers pass."""
    passed = 0
    for instance in sample(1, ("cases", "pairs")):
        asked = problem(instance, "train", "python")
        weak = Problem(**{name: getattr(asked, name) for name in ("id", "task", "entry_point", "reference")},
                       tests_hidden=asked.tests_visible)  # fmt: skip
        passed += len(judged(instance, weak)[1])
    assert passed > 20
