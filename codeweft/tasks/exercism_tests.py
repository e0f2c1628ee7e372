"""Exercises as Python tasks: stubs and tests made from the language-independent cases of Exercism's specifications.

In:  a folder of exercises (canonical-data.json and descriptions).  Out: exercises; what was left out and why.

Unusual: every test calls one function through `codeweft_call`, which says whether a value came back or ValueError was
raised, so that values and errors are both compared outside the sandbox and no expected value ever goes in.
"""

import builtins
import inspect
import keyword
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeweft.base.errors import InputError
from codeweft.base.records import Test
from codeweft.tasks.files import Record, read_records

ENTRY = "codeweft_call"
FEWEST = 3  # tests of an exercise that is asked
FILES = "what it reads are files, which the data do not hold"
OBJECT = "it is about an object with a state, and the data do not say its interface"
OWN_CODE = "it is about changing given code, which the data do not hold"
LEFT_OUT = {
    "bank-account": OBJECT, "circular-buffer": OBJECT, "linked-list": OBJECT, "simple-linked-list": OBJECT,
    "react": OBJECT, "split-second-stopwatch": OBJECT, "zipper": OBJECT, "grep": FILES, "ledger": OWN_CODE,
    "markdown": OWN_CODE, "dot-dsl": "its results have keys whose form only the tests tell", "tree-building": OWN_CODE,
}  # fmt: skip
FUNCTIONS = ("function", "predicate", "accumulator")  # inputs that are functions, written in no language
RANDOM = "chance decides what is right"
SYMBOLS = "values are written as formulas"
NO_CALL = "it is no property of one call"
SCENARIOS = {"random": RANDOM, "immutable": NO_CALL}
# exercise, property or scenario -> why those cases are left out
CASES = {
    ("complex-numbers", "exp"): SYMBOLS,
    ("diffie-hellman", "keyExchange"): SYMBOLS,
    ("dnd-character", "strength"): NO_CALL,
    ("dnd-character", "character"): NO_CALL,
    ("run-length-encoding", "consistency"): NO_CALL,
    ("reverse-string", "unicode"): "it needs grapheme clusters, which Python's library does not know",
}
# exercises, or exercise and property, where the order of a list in the result means nothing
UNORDERED = (
    "anagram", "custom-set", "go-counting", "killer-sudoku-helper", "palindrome-products", "pythagorean-triplet",
    "saddle-points", "allergies.list", "poker.bestHands", "pov.fromPov",
)  # fmt: skip
NUMBER_KEYS = ("etl",)  # its tables have numbers as keys, which JSON cannot say
TOLERANCE = {"space-age": 0.00501}  # expected values of two decimals
LONGEST_HINT = 40  # characters of an annotation within another
MEND = "Mend that file or fetch the repository again."


@dataclass(frozen=True, slots=True)
class Function:
    """A function that tests call: its Python name, its parameters by the names of the data, its cases."""

    name: str
    parameters: tuple[str, ...]
    cases: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Exercise:
    """One exercise: statement, stub, tests that the stub shows, all others; how many cases were left out by reason."""

    slug: str
    title: str
    statement: str
    stub: str
    shown: tuple[Test, ...]
    hidden: tuple[Test, ...]
    unordered: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name of the file that an answer returns."""
        return self.slug.replace("-", "_") + ".py"


def survey(folder: Path) -> tuple[list[Exercise], dict[str, str]]:
    """All exercises of `folder`/exercises that can be asked, and why the others cannot."""
    places = sorted(path for path in (folder / "exercises").glob("*") if path.is_dir())
    if not places:
        raise InputError(f"{folder} has no folder exercises/ with an exercise in it.", "Give the repository's folder.")
    kept: list[Exercise] = []
    left_out: dict[str, str] = {}
    for place in places:
        if place.name in LEFT_OUT:
            left_out[place.name] = LEFT_OUT[place.name]
        elif not (place / "canonical-data.json").exists():
            left_out[place.name] = "it has no canonical data"
        else:
            exercise = read(place)
            count = len(exercise.shown) + len(exercise.hidden)
            if count < FEWEST:
                left_out[place.name] = f"only {count} of its cases can be tests"
            else:
                kept.append(exercise)
    return kept, left_out


def read(place: Path) -> Exercise:
    """One exercise; InputError names the file that is not as it should be."""
    [(where, record)] = list(read_records(place / "canonical-data.json", ("cases",)))
    slug, skipped = place.name, Counter[str]()
    cases = []
    leaves = list(_leaves(record, where))
    replaced = {case["reimplements"] for case in leaves if "reimplements" in case}
    for case in leaves:
        reason = "a later case replaces it" if case.get("uuid") in replaced else _unusable(slug, case)
        if reason:
            skipped[reason] += 1
        else:
            cases.append(_with_number_keys(case) if slug in NUMBER_KEYS else case)
    functions = tuple(_functions(cases, skipped))
    shown, hidden = [], []
    for function in functions:
        chosen = _examples(function.cases)
        for number, case in enumerate(function.cases):
            (shown if number in chosen else hidden).append(_test(slug, function, case))
    title = re.search(r'^title = "(.*)"', _text(place / "metadata.toml"), re.MULTILINE)
    unordered = tuple(f.name for f in functions if {slug, f"{slug}.{f.cases[0]['property']}"} & set(UNORDERED))
    return Exercise(
        slug, title[1] if title else slug, _statement(place), _stub(functions), tuple(shown), tuple(hidden), unordered,
        dict(skipped),
    )  # fmt: skip


def _leaves(node: Record, where: str) -> Iterator[Record]:
    """The cases of a file, out of their groups."""
    for case in node["cases"]:
        if isinstance(case, dict) and isinstance(case.get("cases"), list):
            yield from _leaves(case, where)
        elif not isinstance(case, dict) or not {"property", "input", "expected"} <= case.keys():
            raise InputError(f"{where}: a case has no property, input or expected.", MEND)
        elif not isinstance(case["input"], dict):
            raise InputError(f"{where}: an input is no table of names.", MEND)
        else:
            yield case


def _unusable(slug: str, case: Record) -> str:
    """Why a case cannot be a test, or nothing."""
    if any(name in case["input"] for name in FUNCTIONS):
        return "an argument is a function"
    for word in (case["property"], *case.get("scenarios", ())):
        if reason := CASES.get((slug, word)) or SCENARIOS.get(word):
            return reason
    return ""


def _with_number_keys(case: Record) -> Record:
    given = {
        name: {int(key): entry for key, entry in value.items()} if isinstance(value, dict) else value
        for name, value in case["input"].items()
    }
    return {**case, "input": given}


def _functions(cases: Iterable[Record], skipped: Counter[str]) -> Iterator[Function]:
    """The functions that cases call, each with the parameters that most of its cases have."""
    by_name: dict[str, list[Record]] = {}
    for case in cases:
        by_name.setdefault(case["property"], []).append(case)
    for name, of_name in by_name.items():
        keys = Counter(frozenset(case["input"]) for case in of_name).most_common(1)[0][0]
        fitting = tuple(case for case in of_name if frozenset(case["input"]) == keys)
        if len(fitting) < len(of_name):
            skipped["it has other parameters than most cases"] += len(of_name) - len(fitting)
        yield Function(python_name(name), tuple(fitting[0]["input"]), fitting)


def python_name(name: str) -> str:
    """A name of the data as Python writes it.

    >>> python_name("isPaired"), python_name("list"), python_name("from")
    ('is_paired', 'list_', 'from_')
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
    return f"{snake}_" if keyword.iskeyword(snake) or hasattr(builtins, snake) else snake


def is_error(expected: Any) -> bool:
    """Whether a case expects an error."""
    return isinstance(expected, dict) and set(expected) == {"error"}


def _test(slug: str, function: Function, case: Record) -> Test:
    arguments = [case["input"][name] for name in function.parameters]
    if is_error(case["expected"]):
        return Test("call", args=(function.name, arguments), expected=["raised", "ValueError"])
    value = case["expected"]
    if {slug, f"{slug}.{case['property']}"} & set(UNORDERED):
        value = in_order(value)
    return Test("call", args=(function.name, arguments), expected=["value", value])


def in_order(value):  # noqa: ANN001, ANN201 - its text goes into programs, where no other name of this file is known
    """A value whose lists, tuples and sets are sorted lists, all the way down."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value, key=repr)}
    if isinstance(value, (list, tuple, set, frozenset)):
        return sorted((in_order(one) for one in value), key=repr)
    return value


def program(code: str, unordered: Sequence[str]) -> str:
    """An answer with the function behind it through which tests call its functions."""
    return f"""{code}

{inspect.getsource(in_order)}

def {ENTRY}(name, arguments):
    try:
        value = globals()[name](*arguments)
    except ValueError:
        return ["raised", "ValueError"]
    return ["value", in_order(value) if name in {tuple(unordered)!r} else value]
"""


def call_words(test: Test) -> str:
    """A test's call as one writes it."""
    name, arguments = test.args
    return f"{name}({', '.join(map(repr, arguments))})"


def outcome_words(test: Test) -> str:
    """What a test expects."""
    kind, value = test.expected
    return "raises ValueError" if kind == "raised" else f"gives {value!r}"


# --- what the model sees -------------------------------------------------------------------------------------------


def _examples(cases: Sequence[Record]) -> set[int]:
    """The numbers of the cases that a stub shows, so that the shape of results is known.

    The first of each kind of result, and the first of the most deeply nested ones where that is deeper.
    """
    first: dict[str, int] = {}
    for number, case in enumerate(cases):
        first.setdefault(_kind(case["expected"]), number)
    values = [number for number, case in enumerate(cases) if _kind(case["expected"]) == "value"]
    deepest = max(values, key=lambda number: _depth(cases[number]["expected"]), default=None)
    if deepest is not None and _depth(cases[deepest]["expected"]) > _depth(cases[first["value"]]["expected"]):
        return {*first.values(), deepest}
    return set(first.values())


def _kind(expected: Any) -> str:
    if is_error(expected):
        return "error"
    if expected is None:
        return "nothing"
    return "empty" if expected in ([], {}, "") else "value"


def _depth(value: Any) -> int:
    members = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if members is None else 1 + max(map(_depth, members), default=0)


def _stub(functions: Sequence[Function]) -> str:
    pieces = []
    for function in functions:
        chosen = [function.cases[number] for number in sorted(_examples(function.cases))]
        shown = [_test("", function, case) for case in chosen]
        lines = [f"# {call_words(test)} {outcome_words(test)}" for test in shown] + _choices(function.cases)
        columns = [[case["input"][name] for case in function.cases] for name in function.parameters]
        names = [_parameter(name) for name in function.parameters]
        given = ", ".join(f"{name}: {hint(column)}" for name, column in zip(names, columns, strict=True))
        results = [case["expected"] for case in function.cases if not is_error(case["expected"])]
        arrow = f" -> {hint(results)}" if results else ""
        pieces.append("\n".join([*lines, f"def {function.name}({given}){arrow}:", "    pass\n"]))
    return "\n\n".join(pieces)


def _choices(cases: Sequence[Record]) -> list[str]:
    """A line that lists all results where they are a few words, which a description may leave open."""
    results = [case["expected"] for case in cases if not is_error(case["expected"])]
    words = sorted({result for result in results if isinstance(result, str)})
    if len(words) < 2 or 2 * len(words) >= len(results) or not all(isinstance(result, str) for result in results):
        return []
    return [f"# every result is one of {', '.join(map(repr, words))}"]


def _parameter(name: str) -> str:
    snake = python_name(name)
    return snake.removesuffix("_") if not keyword.iskeyword(name) else snake


def hint(values: Sequence[Any]) -> str:
    """The type of some values, as an annotation.

    >>> hint([[1, 2], []]), hint([None, "a"]), hint([{"a": 1}]), hint([[1, "a"], 2.5])
    ('list[int]', 'str | None', 'dict[str, int]', 'list[int | str] | float')
    """
    kinds: dict[str, list[Any]] = {}
    for value in values:
        kinds.setdefault("None" if value is None else type(value).__name__, []).append(value)
    if {"int", "float"} <= kinds.keys():
        del kinds["int"]
    words = [_hint_of(kind, of_kind) for kind, of_kind in kinds.items() if kind != "None"]
    if len(words) > 3:
        return "object"
    return " | ".join([*words, *(["None"] if "None" in kinds else [])]) or "object"


def _hint_of(kind: str, values: Sequence[Any]) -> str:
    if kind == "list":
        members = [member for value in values for member in value]
        inner = hint(members) if members else ""
        return f"list[{inner}]" if 0 < len(inner) <= LONGEST_HINT else "list"
    if kind == "dict":
        members, keys = [m for value in values for m in value.values()], [key for value in values for key in value]
        inner = hint(members) if members else ""
        plain = inner and "|" not in inner and "object" not in inner
        return f"dict[{hint(keys)}, {inner}]" if plain else "dict"
    return kind


def _statement(place: Path) -> str:
    """The exercise's text, however it is divided into files."""
    names = ("description.md", "introduction.md", "instructions.md")
    texts = [_text(place / name).strip() for name in names if (place / name).exists()]
    if not texts:
        raise InputError(f"{place} has no description.", MEND)
    return "\n\n".join(texts)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.", MEND) from error
