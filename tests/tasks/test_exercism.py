"""Exercism edits: solutions of our own pass the generated tests, wrong ones do not; what is left out is counted."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codeweft.base.errors import InputError
from codeweft.base.records import Problem, Verdict
from codeweft.sandbox.client import judge_all
from codeweft.sandbox.config import SandboxConfig
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.exercism import failure_words, follow, whole_file
from codeweft.tasks.exercism_tests import survey
from codeweft.tasks.files import Folder
from codeweft.tasks.registry import find
from codeweft.tasks.task import Answer, Room, Turn

TASK = find("exercism-edits")
ROOM = Room(4096, len)

# exercise -> a part of the solution, what makes it wrong in that part's place, the solution
SOLUTIONS = {
    "two-fer": ('me.', 'me', """
def two_fer(name):
    return f"One for {name or 'you'}, one for me."
"""),
    "leap": ('400', '800', """
def leap_year(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
"""),
    "reverse-string": ('[::-1]', '[::1]', """
def reverse(value):
    return value[::-1]
"""),
    "hamming": ("raise ValueError('lengths')", 'return -1', """
def distance(strand1, strand2):
    if len(strand1) != len(strand2):
        raise ValueError('lengths')
    return sum(a != b for a, b in zip(strand1, strand2))
"""),
    "collatz-conjecture": ('NotPositive(ValueError)', 'NotPositive(TypeError)', """
class NotPositive(ValueError):
    pass


def steps(number):
    if number < 1:
        raise NotPositive
    count = 0
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        count += 1
    return count
"""),
    "raindrops": ('or str(number)', '', """
def convert(number):
    sounds = {3: 'Pling', 5: 'Plang', 7: 'Plong'}
    return ''.join(s for n, s in sounds.items() if number % n == 0) or str(number)
"""),
    "flatten-array": ('return flat\n', 'return tuple(flat)\n', """
def flatten(array):
    flat = []
    for each in array:
        if isinstance(each, list):
            flat += flatten(each)
        elif each is not None:
            flat.append(each)
    return flat
"""),
    "all-your-base": ('not 0 <= d < input_base', 'd < 0', """
def rebase(input_base, digits, output_base):
    if min(input_base, output_base) < 2:
        raise ValueError
    if any(not 0 <= d < input_base for d in digits):
        raise ValueError
    number, found = 0, []
    for digit in digits:
        number = number * input_base + digit
    while number:
        number, digit = divmod(number, output_base)
        found.insert(0, digit)
    return found or [0]
"""),
    "roman-numerals": ('XC', 'LXXXX', """
def roman(number):
    signs = zip((1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        'M CM D CD C XC L XL X IX V IV I'.split())
    text = ''
    for value, sign in signs:
        text += sign * (number // value)
        number %= value
    return text
"""),
    "triangle": ('< 3', '== 2', """
def valid(sides):
    return all(2 * s < sum(sides) for s in sides)


def equilateral(sides):
    return valid(sides) and len(set(sides)) == 1


def isosceles(sides):
    return valid(sides) and len(set(sides)) < 3


def scalene(sides):
    return valid(sides) and len(set(sides)) == 3
"""),
    # the order of anagrams is free: here it is the other way round
    "anagram": ('c.lower() != subject.lower()', 'c != subject', """
def find_anagrams(subject, candidates):
    found = [c for c in candidates if c.lower() != subject.lower()
        and sorted(c.lower()) == sorted(subject.lower())]
    return found[::-1]
"""),
    # not rounded: within half a unit of the two decimals that are expected
    "space-age": ('31557600', '31536000', """
YEARS = dict(Mercury=0.2408467, Venus=0.61519726, Earth=1.0, Mars=1.8808158, Jupiter=11.862615,
    Saturn=29.447498, Uranus=84.016846, Neptune=164.79132)


def age(planet, seconds):
    if planet not in YEARS:
        raise ValueError(planet)
    return seconds / 31557600 / YEARS[planet]
"""),
    "etl": ('score + 0', 'str(score)', """
def transform(legacy):
    return {one.lower(): score + 0 for score, many in legacy.items() for one in many}
"""),
    "saddle-points": ('r + 1', 'r', """
def saddle_points(matrix):
    if not matrix or not matrix[0]:
        return []
    columns = list(zip(*matrix))
    found = [dict(row=r + 1, column=c + 1) for c in range(len(columns)) for r in range(len(matrix))
        if matrix[r][c] == max(matrix[r]) == min(columns[c])]
    return found
"""),
    "matching-brackets": ('not stack\n', 'True\n', """
def is_paired(value):
    stack = []
    for sign in value:
        if sign in '([{':
            stack.append(')]}'['([{'.index(sign)])
        elif sign in ')]}':
            if not stack or stack.pop() != sign:
                return False
    return not stack
"""),
    "allergies": ('bool(score >> NAMES.index(item) & 1)', 'score >> NAMES.index(item) & 1', """
NAMES = 'eggs peanuts shellfish strawberries tomatoes chocolate pollen cats'.split()


def allergic_to(item, score):
    return bool(score >> NAMES.index(item) & 1)


def list_(score):
    return [name for name in NAMES if allergic_to(name, score)]
"""),
    "complex-numbers": ('-z[1]', 'z[1]', """
def c(z):
    return complex(*z) if isinstance(z, list) else complex(z)


def p(z):
    return [z.real, z.imag]


def real(z):
    return z[0]


def imaginary(z):
    return z[1]


def mul(z1, z2):
    return p(c(z1) * c(z2))


def add(z1, z2):
    return p(c(z1) + c(z2))


def sub(z1, z2):
    return p(c(z1) - c(z2))


def div(z1, z2):
    return p(c(z1) / c(z2))


def abs_(z):
    return abs(c(z))


def conjugate(z):
    return [z[0], -z[1]]
"""),
}  # fmt: skip


@pytest.fixture(scope="module")
def exercises(shared_data: Path) -> dict[str, Problem]:
    return {problem.id: problem for problem in TASK.load(Folder(shared_data / "eval"), TaskOptions())}


def answer(problem: Problem, code: str) -> str:
    return f"I changed it.\n\n{problem.facts['file']}\n```python\n{code}```\n"


def verdicts(problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
    answers = [TASK.grade(problem, "chat", text) for problem, text in zip(problems, texts, strict=True)]
    assert all(answer.metrics["well_formed"] == 1 for answer in answers)
    return judge_all(SandboxConfig(), [answer.submission for answer in answers if answer.submission is not None])


def test_solutions_pass_all_tests_and_a_small_mistake_fails(exercises: dict[str, Problem]):
    problems = [exercises[slug] for slug in SOLUTIONS]
    right = [solution for _, _, solution in SOLUTIONS.values()]
    wrong = [solution.replace(part, other) for part, other, solution in SOLUTIONS.values()]
    assert all(one != other for one, other in zip(right, wrong, strict=True))
    texts = [answer(problem, code) for problem, code in zip(problems * 2, right + wrong, strict=True)]
    found = verdicts(problems * 2, texts)
    count = len(problems)
    assert [(v.status, v.detail) for v in found[:count]] == [("ok", "")] * count
    assert [v.total for v in found[:count]] == [len(p.tests_visible) + len(p.tests_hidden) for p in problems]
    statuses = {slug: v.status for slug, v in zip(SOLUTIONS, found[count:], strict=True)}
    assert statuses.pop("collatz-conjecture") == "runtime_error"  # another exception than ValueError
    assert set(statuses.values()) == {"wrong"}


@pytest.mark.slow
def test_no_exercise_is_solved_by_its_own_stub(exercises: dict[str, Problem]):
    problems = list(exercises.values())
    stubs = [problem.prompt.rpartition("```python\n")[2].partition("```")[0] for problem in problems]
    found = verdicts(problems, [answer(problem, stub) for problem, stub in zip(problems, stubs, strict=True)])
    assert {verdict.status for verdict in found} == {"wrong"}  # it compiles, is called, and gives None


def test_what_is_asked_and_what_is_left_out(shared_data: Path, exercises: dict[str, Problem]):
    kept, left_out = survey(shared_data / "eval" / "exercism-specs")
    folders = {path.name for path in (shared_data / "eval" / "exercism-specs" / "exercises").iterdir()}
    assert {exercise.slug for exercise in kept} | set(left_out) == folders
    assert (len(kept), len(left_out)) == (124, 27)
    assert min(len(exercise.shown) + len(exercise.hidden) for exercise in kept) >= 3
    assert left_out["grep"].startswith("what it reads are files")
    assert left_out["paasio"] == "it has no canonical data"
    assert left_out["hello-world"] == "only 1 of its cases can be tests"
    # every case is either a test or counted with its reason; a plain count of the leaves of the file says how many
    for exercise in kept:
        text = (
            shared_data / "eval" / "exercism-specs" / "exercises" / exercise.slug / "canonical-data.json"
        ).read_text()
        total = text.count('"expected":')
        assert len(exercise.shown) + len(exercise.hidden) + sum(exercise.skipped.values()) == total, exercise.slug
    assert all(exercises[exercise.slug].tests_hidden == exercise.hidden for exercise in kept)


def test_stubs_are_python_and_show_calls_errors_and_shapes(exercises: dict[str, Problem]):
    for problem in exercises.values():
        stub = problem.prompt.rpartition("```python\n")[2].partition("```")[0]
        names: dict[str, Any] = {}
        exec(compile(stub, problem.id, "exec"), names)
        assert all(callable(names[test.args[0]]) for test in problem.tests_visible + problem.tests_hidden)
    assert "# measure(6, 15, 5, 'one') raises ValueError\n" in exercises["two-bucket"].prompt
    assert "def transform(legacy: dict[int, list[str]]) -> dict[str, int]:\n" in exercises["etl"].prompt
    assert "def two_fer(name: str | None) -> str:\n" in exercises["two-fer"].prompt
    assert "'end': {'column': 7, 'row': 1}" in exercises["word-search"].prompt
    assert "every result is one of 'draw', 'ongoing', 'win'" in exercises["state-of-tic-tac-toe"].prompt


CODE = "def two_fer(name):\n    return 1\n"
WHOLE = (
    f"two_fer.py\n```python\n{CODE}```",
    f"Here:\n\n**`two_fer.py`**:\n\n```py\n{CODE}```\nDone.",
    f"### src/two_fer.py\n```\n{CODE}```",
    f"```python two_fer.py\n{CODE}```",
    f"```python\n{CODE}```",  # without a name, as Aider takes it where one file is open
    f"It should be this:\n```python\n{CODE}```\nRun it:\n\ntest.sh\n```sh\npytest\n```",
    f"two_fer.py\n```python\nx = 0\n```\nBetter:\ntwo_fer.py\n```python\n{CODE}```",
    f"two_fer.py\r\n```python\r\n{CODE}```".replace("\n", "\r\n").replace("\r\r", "\r"),
    f"- two_fer.py\n\n  two_fer.py\n  ```python\n{''.join(f'  {line}' + chr(10) for line in CODE.splitlines())}  ```",
    f"two_fer.py\n````python\n{CODE}````",
    f"two_fer.py\n```python\n{CODE}",  # cut off
)
MALFORMED = (
    (CODE, "The answer has no fenced block."),
    ("", "The answer has no fenced block."),
    (f"tests.py\n```python\n{CODE}```", "The answer has only blocks of other files."),
    ("two_fer.py\n```python\n\n```", "The block of the answer is empty."),
)


@pytest.mark.parametrize("text", WHOLE)
def test_the_whole_file_is_found(text: str):
    found, failure = whole_file(text, "two_fer.py")
    assert (found.strip(), failure) == (CODE.strip(), "")


def test_a_fence_inside_the_code_does_not_end_it():
    code = '"""Example:\n\n    ```\n    two_fer()\n    ```\n"""\n' + CODE
    assert whole_file(f"two_fer.py\n```python\n{code}```", "two_fer.py")[0] == code


def exercise(folder: Path, cases: list[dict[str, Any]] | None = None) -> Problem:
    place = folder / "problem-specifications" / "exercises" / "two-fer"
    place.mkdir(parents=True, exist_ok=True)
    plain = [
        {"uuid": "1", "property": "twoFer", "input": {"name": None}, "expected": "One for you."},
        {"uuid": "2", "property": "twoFer", "input": {"name": "Al"}, "expected": "old"},
        {"uuid": "3", "reimplements": "2", "property": "twoFer", "input": {"name": "Al"}, "expected": "One for Al."},
        {"uuid": "4", "property": "twoFer", "input": {"name": ""}, "expected": {"error": "no name"}},
    ]
    (place / "canonical-data.json").write_text(json.dumps({"cases": [{"cases": plain if cases is None else cases}]}))
    (place / "metadata.toml").write_text('title = "Two Fer"\n')
    (place / "description.md").write_text("Say for whom it is.\n")
    [problem] = TASK.load(Folder(folder), TaskOptions())
    return problem


def test_a_malformed_answer_has_a_detail_and_no_submission(tmp_path: Path):
    problem = exercise(tmp_path)
    for text, detail in MALFORMED:
        found = TASK.grade(problem, "chat", text)
        assert (found.score, found.submission, found.detail) == (0, None, detail)
        assert found.metrics == {"well_formed": 0}


def test_a_replaced_case_is_no_test(tmp_path: Path):
    problem = exercise(tmp_path)
    tests = problem.tests_visible + problem.tests_hidden
    assert [test.expected for test in tests] == [
        ["value", "One for you."], ["raised", "ValueError"], ["value", "One for Al."],
    ]  # fmt: skip
    assert problem.facts["skipped"] == {"a later case replaces it": 1}
    assert "old" not in problem.prompt


def test_the_second_try_sees_the_first_failed_test_only(tmp_path: Path):
    problem = exercise(tmp_path)
    first = TASK.ask(problem, "chat", ROOM)
    assert problem.prompt == first.messages[1]["content"]
    text = answer(problem, "def two_fer(name):\n    return 'One for you.'\n")
    [verdict] = verdicts([problem], [text])
    assert (verdict.status, verdict.passed) == ("wrong", 1)
    second = follow(problem, [Turn(first, text, Answer(""), verdict)])
    assert second is not None
    assert [message["role"] for message in second.messages] == ["system", "user", "assistant", "user"]
    told = second.messages[-1]["content"]
    assert "The call: two_fer('')\nWhat is right: it raises ValueError\nWhat happened: it raised nothing." in told
    assert "One for Al" not in told
    third = follow(problem, [Turn(first, text, Answer(""), verdict), Turn(second, text, Answer(""), verdict)])
    assert third is None


def test_whether_there_is_a_second_try(tmp_path: Path):
    problem = exercise(tmp_path)
    first = TASK.ask(problem, "chat", ROOM)
    verdict = Verdict("ok", 3, 3, 0.1, 1, "namespaces")
    broken = replace(verdict, status="harness_error")
    assert follow(problem, [Turn(first, "", Answer(""), verdict)]) is None
    assert follow(problem, [Turn(first, "", Answer(""), broken)]) is None
    assert follow(problem, [Turn(first, "", Answer("", None, detail="does not fit"))]) is None
    malformed = follow(problem, [Turn(first, "", TASK.grade(problem, "chat", CODE))])
    assert malformed is not None
    assert malformed.messages[-1]["content"].startswith("The answer has no fenced block. Return the whole file")


HAPPENED = {
    "def two_fer(name):\n    return 1 / 0\n": "What happened: runtime error: ZeroDivisionError: division by zero",
    "def two_fer(name):\n    return {}\n": "What happened: it gave another value, or raised ValueError.",
    "def two_fer(name):\n    return two_fer\n": "What happened: bad output: A value of type function",
    "def two_fer(name:\n": "What happened (compile error): On loading: SyntaxError",
    "import sys\nsys.exit()\n": "What happened (runtime error): On loading: SystemExit",
    "x = 1\n": "runtime error: KeyError: 'two_fer'",
}
CHEATS = (
    """
class Alike(str):
    __eq__ = lambda self, other: True
    __hash__ = str.__hash__

def two_fer(name):
    return Alike()
""",
    "import os\n\ndef two_fer(name):\n    os._exit(0)\n",
    "def two_fer(name):\n    return 0\n\ndef codeweft_call(name, arguments):\n    return ['value', 'One for you.']\n",
)


def test_what_happened_is_told_and_cheats_get_nothing(tmp_path: Path):
    problem = exercise(tmp_path)
    texts = [answer(problem, code) for code in (*HAPPENED, *CHEATS)]
    found = verdicts([problem] * len(texts), texts)
    told = [failure_words(problem, verdict) for verdict in found]
    for words, line in zip(HAPPENED.values(), told, strict=False):
        assert words in line
    assert all(verdict.status != "ok" for verdict in found)


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        ([{"property": "p", "input": {}}], "line 1: a case has no property, input or expected"),
        ([{"property": "p", "input": [1], "expected": 1}], "line 1: an input is no table of names"),
    ],
)
def test_a_malformed_case_is_named(tmp_path: Path, cases: list[dict[str, Any]], words: str):
    with pytest.raises(InputError, match=words):
        exercise(tmp_path, cases)
    (tmp_path / "problem-specifications" / "exercises" / "two-fer" / "canonical-data.json").write_text("{}")
    with pytest.raises(InputError, match="field cases is missing"):
        list(TASK.load(Folder(tmp_path), TaskOptions()))


def test_a_folder_without_exercises_is_named(tmp_path: Path):
    (tmp_path / "exercism-specs").mkdir()
    with pytest.raises(InputError, match="has no folder exercises/"):
        list(TASK.load(Folder(tmp_path), TaskOptions()))
    with pytest.raises(InputError, match="to be cloned"):
        list(TASK.load(Folder(tmp_path / "none"), TaskOptions()))
