"""HumanEval+ and MBPP+ are judged as EvalPlus judges them: the verdicts below are those of its version 0.3.1.

One is not: "equal to everything", which passes there.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from codeweft.base.errors import InputError, UserError
from codeweft.base.records import Problem
from codeweft.sandbox.client import judge_all
from codeweft.sandbox.config import SandboxConfig
from codeweft.tasks import evalplus, human_eval, mbpp


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Expected values of this file's problems are kept nowhere else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def record(name: str, solution: str, inputs: list[Any], atol: float = 0) -> dict[str, Any]:
    return {
        "task_id": "Mbpp/9999", "prompt": f'"""{name}"""', "entry_point": name, "canonical_solution": solution,
        "base_input": inputs[:1], "plus_input": inputs[1:], "atol": atol,
    }  # fmt: skip


HALVES = record("halves", "def halves(n):\n    return [n / 2] if n % 2 else [n // 2]\n", [[10], [7], [8]])
EVEN = record("even", "def even(n):\n    return n % 2 == 0\n", [[1], [2]])
PAIR = record("pair", "def pair(n):\n    return (n, [n])\n", [[1], [2]])
SPHERE = record("sphere", "def sphere(r):\n    return 4 / 3 * 3.141592653589793 * r * r * r\n", [[1], [10**10]], 1e-4)
TRI = record(
    "tri",
    "def tri(n):\n    a = [1, 3]\n    while len(a) <= n:\n        k = len(a)\n"
    "        a.append(k / 2 + 1 if k % 2 == 0 else a[-1] + a[-2] + (k + 3) / 2)\n    return a[:n + 1]\n",
    [[0], [6]],
)
FACTORIAL = record(
    "special_factorial",
    "def special_factorial(n):\n    f = s = 1\n    for i in range(1, n + 1):\n        f *= i\n"
    "        s *= f\n    return s\n",
    [[4], [7]],
)
DIVISORS = record("sum_div", "def sum_div(n):\n    return sum(d for d in range(1, n) if n % d == 0)\n", [[8], [12]])
EQUIVALENT = record("are_equivalent", "def are_equivalent(a, b):\n    return a % 3 == b % 3\n", [[1, 4], [1, 5]])
SURFACE = record("surface_Area", "def surface_Area(b, s):\n    return 2 * b * s + b * b\n", [[3, 4], [4, 5], [1, 2]])
DIGITS = record("digit_distance_nums", "def digit_distance_nums(a, b):\n    return sum(map(int, str(abs(a - b))))\n",
                [[1, 2], [23, 56], [12345, 9]])  # fmt: skip
FOUND = record("check_str", "import re\ndef check_str(t):\n    return re.match('[aeiou]', t)\n", [["ab"], ["b"]])
SHARED = record(
    "similar_elements", "def similar_elements(a, b):\n    return tuple(set(a) & set(b))\n", [[[1, 2], [2, 1]]]
)
CASES = {
    "floats in their last digits": (SPHERE, "def sphere(r): return r ** 3 * 3.141592653589793 * 4 / 3", True),
    "floats that are off by a millionth": (SPHERE, "def sphere(r): return 4.18879439 * r ** 3", False),
    "integers where floats are near": (SPHERE, "def sphere(r): return round(4.1887902047863905 * r ** 3)", False),
    "1 for True": (EVEN, "def even(n): return 1 - n % 2", True),
    "numpy's truth": (EVEN, "import numpy\ndef even(n): return numpy.bool_(n % 2 == 0)", True),
    "a text for True": (EVEN, "def even(n): return str(n % 2 == 0)", False),
    "equal to everything": (
        EVEN, "class E:\n    def __eq__(self, o): return True\ndef even(n): return E()", False,
    ),
    "a list for a tuple": (PAIR, "def pair(n): return [n, [n]]", False),
    "floats for integers": (PAIR, "def pair(n): return (float(n), [n])", True),
    "a tolerance before the first float": (HALVES, "def halves(n): return [n / 2 + (1e-7 if n == 10 else 0)]", False),
    "a tolerance after the first float": (HALVES, "def halves(n): return [n / 2 + (1e-7 if n != 10 else 0)]", True),
    "integers for a digest's floats": (
        TRI,
        "def tri(n):\n    if n < 2: return [1, 3][:n + 1]\n    a = tri(n - 1)\n"
        "    return a + [n // 2 + 1 if n % 2 == 0 else a[-1] + a[-2] + (n + 3) // 2]",
        True,
    ),
    "one value of many is wrong": (TRI, "def tri(n): return [1, 3, 2, 8, 3, 15, 5][:n + 1]", False),
    "an answer that calls itself": (
        FACTORIAL,
        "from math import factorial\n"
        "def special_factorial(n): return factorial(n) * special_factorial(n - 1) if n > 1 else 1",
        True,
    ),
    "a plain factorial": (FACTORIAL, "from math import factorial as special_factorial", False),
    "nothing for a sum": (DIVISORS, "def sum_div(n): return 0", True),
    "another sum": (DIVISORS, "def sum_div(n): return 1", False),
    "anything where all is right": (EQUIVALENT, "def are_equivalent(a, b): return 'x'", True),
    "an exception where all is right": (EQUIVALENT, "def are_equivalent(a, b): return a / 0", False),
    "the other height": (
        SURFACE, "def surface_Area(b, h): return round(b * b + 2 * b * (b * b / 4 + h * h) ** .5)", True,
    ),
    "no height": (SURFACE, "def surface_Area(b, h): return b * b", False),
    "digit by digit": (
        DIGITS,
        "def digit_distance_nums(a, b):\n    a, b = str(a).zfill(5), str(b).zfill(5)\n"
        "    return sum(abs(int(x) - int(y)) for x, y in zip(a, b))",
        True,
    ),
    "a match": (FOUND, "import re\ndef check_str(t): return re.search('^[aeiou]', t)", True),
    "whether there is one": (FOUND, "def check_str(t): return t[0] in 'aeiou'", True),
    "always a match": (FOUND, "def check_str(t): return t", False),
    "another order, another container": (SHARED, "def similar_elements(a, b): return [2, 1, 1]", True),
    "one too few": (SHARED, "def similar_elements(a, b): return (1,)", False),
}  # fmt: skip


def problems(records: list[dict[str, Any]]) -> dict[str, Problem]:
    return {problem.entry_point: problem for problem in mbpp.plus_problems(records)}


def test_answers_are_compared_as_evalplus_compares_them():
    made = problems([record for record, _, _ in {case[0]["entry_point"]: case for case in CASES.values()}.values()])
    answers = [mbpp.grade_plus(made[record["entry_point"]], "chat", answer) for record, answer, _ in CASES.values()]
    found = judge_all(SandboxConfig(), [answer.submission for answer in answers if answer.submission])
    passed = {name: verdict.status == "ok" for name, verdict in zip(CASES, found, strict=True)}
    assert passed == {name: right for name, (_, _, right) in CASES.items()}
    assert {verdict.mode for verdict in found} == {"split"}


def test_any_root_of_a_polynomial_is_right():
    prompt = "def poly(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\n"
    prompt += "\n\ndef find_zero(xs):\n    '''Root.'''\n"
    asked = record("find_zero", "    return 1.0\n", [[[-1, 0, 1]]], 1e-4) | {"test": "", "prompt": prompt}
    [problem] = human_eval.plus_problems([asked])
    bodies = {"    return -1.0": "ok", "    return 1.00001": "ok", "    return 2.0": "wrong"}
    graded = [human_eval.grade(problem, "base", body).submission for body in bodies]
    found = judge_all(SandboxConfig(), [each for each in graded if each])
    assert [verdict.status for verdict in found] == list(bodies.values())


@pytest.mark.parametrize(
    ("solution", "words"),
    [
        ("def f(n):\n    raise ValueError(n)\n", "does not run"),
        ("import os\nos.write(1, b'[0.5, [1]]')\ndef f(n):\n    return n\n", "writes"),
        ("import os\nos.write(1, b'[0.5, []]')\nos._exit(0)\n", "writes something else"),
        ("import os\nos.write(1, b'[0.5, 1]')\nos._exit(0)\n", "writes something else"),
        ("import os\nos.write(1, b'[Infinity, [1]]')\nos._exit(0)\n", "writes something else"),
        ("import os\nos.write(1, b'[' * 100000)\nos._exit(0)\n", "writes what is nested too deep"),
    ],
)
def test_a_canonical_solution_that_gives_no_values_is_named_and_nothing_is_kept(solution: str, words: str):
    with pytest.raises(UserError, match=f"The canonical solution of f {words}"):
        problems([record("f", solution, [[1]])])
    assert not evalplus.cache_folder().exists()


def test_a_damaged_file_of_expected_values_is_named():
    problems([PAIR])
    [kept] = evalplus.cache_folder().iterdir()
    kept.write_text(json.dumps([0.5, []]))
    with pytest.raises(InputError, match=kept.name):
        problems([PAIR])


def test_expected_values_belong_to_a_program_and_its_inputs():
    problems([PAIR])
    problems([PAIR | {"base_input": [[3]]}])
    problems([PAIR | {"canonical_solution": "def pair(n):\n    return (n, [n + 1])\n"}])
    assert len(list(evalplus.cache_folder().iterdir())) == 3
