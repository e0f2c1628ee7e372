"""Final answers are found, and compared by value: two hundred pairs whose truth is a matter of arithmetic."""

import time
from pathlib import Path

import pytest

from codeweft.tasks import math_answers
from codeweft.tasks.math_answers import COMPARER, final_answer, last_boxed, number_in, same_answer, vote

PAIRS = [line.split("\t") for line in (Path(__file__).parent / "math_pairs.tsv").read_text().splitlines()]
EQUAL = [(answer, reference) for truth, answer, reference in PAIRS if truth == "same"]
DIFFERENT = [(answer, reference) for truth, answer, reference in PAIRS if truth == "different"]
# Where math-verify and the table differ, and why the grader's answer is kept as it is.
EXPLAINED = {
    (
        "\\sin 30^\\circ",
        "0.5",
    ): "math-verify drops the degree sign, which makes angles as answers equal to bare numbers",
}


def test_the_table_has_two_hundred_pairs():
    assert len(EQUAL) + len(DIFFERENT) >= 200


@pytest.mark.parametrize(("answer", "reference"), EQUAL)
def test_answers_of_the_same_value_are_the_same(answer: str, reference: str):
    assert same_answer(answer, reference) is ((answer, reference) not in EXPLAINED)


@pytest.mark.parametrize(("answer", "reference"), DIFFERENT)
def test_answers_of_another_value_are_not(answer: str, reference: str):
    assert same_answer(answer, reference) is ((answer, reference) in EXPLAINED)


@pytest.mark.parametrize(
    "answer", ["9^{9^{9^{9}}}", "\\sum_{n=1}^{10^{12}} \\sin(n^{n})", "((((" * 90, "(10^{10^{10}})!"]
)
def test_an_answer_that_takes_for_ever_is_wrong_and_stops_nobody(answer: str, monkeypatch: pytest.MonkeyPatch):
    assert same_answer("x+x", "2x"), "the process is there before its time is cut short"
    monkeypatch.setattr(math_answers, "SECONDS", 1.0)
    began = time.monotonic()
    assert not same_answer(answer, "5")
    monkeypatch.undo()
    assert same_answer("x^2-4", "(x-2)(x+2)")
    assert time.monotonic() - began < 60


def test_a_comparing_process_that_died_is_replaced():
    assert same_answer("2x", "x+x")
    COMPARER.process.kill()
    COMPARER.process.join()
    assert same_answer("3x", "x+2x")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Thus \\boxed{42}.", "42"),
        ("First \\boxed{1}, then \\boxed{\\frac{1}{\\sqrt{2}}}", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed {7}", "7"),
        ("\\boxed{3", "3"),
        ("He earns 2 + 3 = 5. The answer is 5.", "5"),
        ("The answer is $5 per hour.", "5"),
        ("The final answer is $\\frac{3}{28}$. I hope it is correct.", "\\frac{3}{28}"),
        ("**Answer:** 12 apples", "12"),
        ("#### 1,234", "1,234"),
        ("答案是 15。", "15"),
        ("She has 3 cats and 12 dogs", "12"),
        ("Answer: x = 3", "x = 3"),
        ("The answer is 2x + 1.", "2x + 1"),
        ("nothing at all", ""),
        ("", ""),
    ],
)
def test_the_final_answer_is_found(text: str, answer: str):
    assert final_answer(text) == answer


def test_an_open_box_is_no_box():
    assert last_boxed("\\boxed{1") is None
    assert last_boxed("\\boxed{1} \\boxed{2") == "1"


def test_numbers_are_exact():
    assert number_in("0.1") * 3 == number_in("0.3")
    assert number_in("1,00") is None
    assert number_in("1/0") is None


def test_votes_gather_equal_numbers_and_formulas():
    assert len({vote(answer) for answer in ("0.5", "1/2", "$.50", "0.500")}) == 1
    assert len({vote(answer) for answer in ("\\dfrac{a}{b}", "$\\frac{a}{b}$", "\\frac{a}{b}.")}) == 1
    assert vote("1/2") != vote("1/3")
