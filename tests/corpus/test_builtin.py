"""The built-in sources: docstrings against Python's own reading of them, sums against arithmetic."""

import ast
import inspect
import json
import math
import re
import textwrap
import tokenize
from fractions import Fraction
from types import ModuleType

import pytest

from codeweft.corpus import builtin, worksheets
from codeweft.corpus.config import CorpusConfig
from codeweft.corpus.sources import list_sources

TERM = r"(?:-?\d+|\(-?\d+\))"
EQUATION = re.compile(rf"(?<![/^\d] )({TERM}(?: [-+*/] {TERM})+) = (-?\d+(?:/\d+)?(?:\.\d+)?)(?![\d/]| [-+*/^])")
# families without an equation of that form; the two tests below check them
WORDY = {"linear", "remainders", "fractions", "quadratics", "divisors", "chances"}


@pytest.mark.parametrize("family", sorted(worksheets.FAMILIES))
def test_every_equation_on_the_worksheets_of_a_family_is_true(family: str):
    text = "\n".join(worksheets.worksheet(family, number, 5) for number in range(12))
    checked = 0
    for left, right in EQUATION.findall(text):
        value = eval(re.sub(r"(\d+)", r"Fraction(\1)", left), {"Fraction": Fraction})  # noqa: S307 digits and signs only
        assert float(value) == pytest.approx(float(Fraction(right)), rel=1e-4), (left, right)
        checked += 1
    assert checked or family in WORDY


def test_roots_and_solutions_on_the_worksheets_satisfy_their_equations():
    for number in range(20):
        text = worksheets.worksheet("linear", number, 5)
        for a, letter, b, c in re.findall(r"(\d+)([xyztn]) \+ (\d+) (?:=|equals) (-?\d+)", text):
            assert f"{letter} = {(int(c) - int(b)) // int(a)}." in text

        text = worksheets.worksheet("remainders", number, 5)
        shared = re.findall(r"(\d+) = \d+ \* (\d+) \+ \d+, so (\d+) full bags and (\d+)", text)
        assert len(shared) == worksheets.PROBLEMS
        for n, k, bags, rest in shared:
            assert divmod(int(n), int(k)) == (int(bags), int(rest))


def test_fractions_roots_divisors_and_chances_on_the_worksheets_are_right():
    def problems(family: str, pattern: str) -> list[tuple[str, ...]]:
        found = [match for n in range(12) for match in re.findall(pattern, worksheets.worksheet(family, n, 5))]
        assert len(found) > 20
        return found

    whole = r"(\d+(?:/\d+)?)"
    for x, y, total in problems("fractions", rf"So {whole} \+ {whole} = .* = {whole}\."):
        assert Fraction(x) + Fraction(y) == Fraction(total)
    for sign_b, b, sign_c, c, low, high in problems(
        "quadratics", r"x\^2 ([+-]) (\d+)x ([+-]) (\d+) = 0.\s+(?:.*\s+)*?.* x = (-?\d+) or x = (-?\d+)\."
    ):
        for x in (int(low), int(high)):
            assert x * x + int(sign_b + b) * x + int(sign_c + c) == 0
    for x, y, divisor in problems("divisors", r"(?:of |gcd\()(\d+)(?: and|,) (\d+)\)?[.?]\s+(?:.*) gcd = (\d+)"):
        assert math.gcd(int(x), int(y)) == int(divisor)
    for red, blue, product in problems("chances", rf"(\d+) red and (\d+) blue(?:.*\s+).* product is {whole}"):
        assert Fraction(math.comb(int(red), 2), math.comb(int(red) + int(blue), 2)) == Fraction(product)


def test_worksheets_differ_by_number_and_seed_and_repeat_exactly():
    sheets = {worksheets.worksheet(family, n, s) for family in worksheets.FAMILIES for n in range(3) for s in range(3)}
    assert len(sheets) == 9 * len(worksheets.FAMILIES)
    assert worksheets.worksheet("sums", 1, 2) == worksheets.worksheet("sums", 1, 2)


@pytest.mark.parametrize("module", [json, textwrap, tokenize, inspect, ast])
def test_a_modules_docstring_is_the_one_python_sees(module: ModuleType):
    with open(inspect.getfile(module), "rb") as file:  # noqa: PTH123
        source = file.read()
    found = builtin.module_docstring(source[: builtin.HEAD_BYTES])
    truth = ast.get_docstring(ast.parse(source), clean=False) or ""
    cleaned = "\n".join(line.rstrip() for line in truth.strip().splitlines())
    assert (found or b"").decode() == (cleaned if len(cleaned) >= builtin.SHORTEST_DOCSTRING else "")


def test_a_string_that_is_no_docstring_is_not_taken_for_one():
    assert builtin.module_docstring(b"import os\n'''" + b"text " * 100 + b"'''") is None
    assert builtin.module_docstring(b"x = '''" + b"text " * 100 + b"'''") is None
    assert builtin.module_docstring(b'"""' + b"unterminated " * 100) is None


def test_docstrings_come_in_the_order_of_the_file():
    source = '"""{0}"""\nclass A:\n    """B {0}"""\n    def f(self):\n        """C {0}"""\n'.format("word " * 30)
    found = (builtin.docstrings(source.encode()) or b"").decode()
    assert [found.index(mark) for mark in ("word", "A: B", "f: C")] == sorted(
        found.index(mark) for mark in ("word", "A: B", "f: C")
    )
    assert builtin.docstrings(b"def broken(:") is None


def test_the_standard_library_and_installed_distributions_are_repositories():
    entries = list(list_sources(CorpusConfig(math=()), 1).entries)
    code = [entry for entry in entries if entry.kind == "code"]
    repositories = {entry.repository for entry in code}
    assert {"cpython/json", "cpython/argparse", "pyarrow", "pytest"} <= repositories
    assert "codeweft" not in repositories
    assert all(not entry.path.startswith("/") and entry.path.endswith(".py") for entry in code)
    assert len({entry.full_path for entry in code}) == len(code)
    prose = {entry.repository for entry in entries if entry.kind == "text"}
    assert {"cpython/topics", "pyarrow"} <= prose
