"""The copy baseline against its definition written out line by line, and its ceiling."""

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from codeweft.evaluate.baselines import copied_line, occurs_elsewhere


def jaccard(a: str, b: str) -> float:
    one, other = set(re.findall(r"\w+|[^\w\s]", a)), set(re.findall(r"\w+|[^\w\s]", b))
    return len(one & other) / len(one | other) if one | other else 0.0


def slowly_copied(lines: list[str], hole: int) -> str:
    """The definition of the docstring, with loops."""
    kept = [number for number, line in enumerate(lines) if line.strip() or number == hole]
    centre = kept.index(hole)

    def text(place: int) -> str:
        return "" if not 0 <= place < len(kept) or place == centre else lines[kept[place]]

    best, chosen = None, ""
    for place, number in enumerate(kept):
        if place == centre or len(re.sub(r"\s", "", lines[number])) < 8:
            continue
        score = sum(jaccard(text(centre + d), text(place + d)) / abs(d) for d in (-3, -2, -1, 1, 2, 3))
        key = (-round(score, 9), abs(place - centre), place)
        if best is None or key < best:
            best, chosen = key, lines[number].strip()
    return chosen


LINE = st.sampled_from(["", "  ", "if a:", "x = f(a, b)", "y = f(a, c)", "    return total", "}", "for i in range(n):"])


@settings(max_examples=300, deadline=None)
@given(st.lists(LINE, min_size=2, max_size=25), st.data())
def test_the_copied_line_is_the_one_of_the_definition(lines: list[str], data: st.DataObject):
    hole = data.draw(st.integers(0, len(lines) - 1))
    assert copied_line(lines, hole) == slowly_copied(lines, hole)


def test_the_answer_is_never_looked_at():
    random = np.random.default_rng(3)
    lines = [f"value_{random.integers(9)} = compute({random.integers(9)})" for _ in range(60)]
    for hole in range(60):
        other = [*lines[:hole], "something entirely different", *lines[hole + 1 :]]
        assert copied_line(lines, hole) == copied_line(other, hole)


def test_a_line_between_the_same_neighbours_is_copied():
    lines = ["class A:", "    def size(self):", "        return self.count", "", "class B:", "    def size(self):", "?"]
    assert copied_line(lines, hole=6) == "return self.count"


def test_a_file_without_another_long_line_gives_nothing():
    assert copied_line(["a", "b = 12345678", "c"], hole=1) == ""


def test_a_line_occurs_elsewhere_whatever_its_indentation():
    assert occurs_elsewhere(["    return x", "y", "return x"], 0)
    assert not occurs_elsewhere(["    return x", "y", "return xy"], 0)
