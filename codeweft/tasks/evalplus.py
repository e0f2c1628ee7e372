"""What HumanEval+ and MBPP+ share: EvalPlus publishes inputs; expected is what the canonical solution returns for them.

In:  records with base_input and plus_input.  Out: tests with their expected values, limits, and what a judge needs.
Source: Liu et al. 2023 (EvalPlus 0.3.1): `==` first, floats within an absolute and a relative tolerance, ten problems
that are compared otherwise, four times the reference's time.

Unusual: canonical solutions come out of a downloaded file, so they run behind the same wall as any answer. What they
return is kept on this disk, found again by the digest of program and inputs. Values that are compared with `==` or
within a tolerance are `call` tests; those of twelve problems are `assert` tests, because only code can say what else is
right.
"""

import asyncio
import inspect
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeweft.base.artifacts import atomic, digest_of
from codeweft.base.errors import InputError, UserError
from codeweft.base.progress import Bar, bar
from codeweft.base.records import Problem, Test
from codeweft.sandbox import plain
from codeweft.sandbox.client import Sandbox, all_of, open_sandbox
from codeweft.sandbox.config import MIB, Limits, Program, SandboxConfig, Submission
from codeweft.sandbox.plain import allclose
from codeweft.tasks.task import limits_of

# EvalPlus and BigCodeBench ask chat models so.
INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)
FIELDS = ("base_input", "plus_input", "atol")
VERSION = 2  # raised whenever the same program and inputs would give other expected values
JUDGED = "_judged"  # the function that tests call: the answer's own, with its value made fit to cross the wall
# What else is right than the expected value, by the function's name.
SAME_SET = ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
            "intersection_array", "find_dissimilar", "Diff")  # fmt: skip
ALSO_RIGHT = {
    "are_equivalent": "True",
    "sum_div": "value == 0",
    "surface_Area": "abs(value - pyramid_surface(*given)) <= tolerance",
    "digit_distance_nums": "value == digits_apart(*given)",
    **dict.fromkeys(SAME_SET, "set(value) == set(expected)"),
}
NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")  # whether there is a value is what counts
# Answers of up to a hundred million values or a million digits: their digest crosses the wall.
LARGE = (
    "string_sequence", "starts_one_ends", "make_a_pile", "tri", "special_factorial", "combinations_colors",
    "get_coordinates",
)  # fmt: skip
# Beside the answer, under a name of its own, so that an answer which calls itself gets its own values. Truth values
# become numbers, which `==` does not tell apart, and numpy's numbers Python's.
ADAPTER = """


def _judged(*arguments):
    def shown(value):
        kind = type(value)
        if kind is bool:
            return int(value)
        if kind in (list, tuple, set, frozenset):
            return kind(map(shown, value))
        if kind is dict:
            return {{shown(key): shown(item) for key, item in value.items()}}
        return shown(value.item()) if kind.__module__ == "numpy" and kind.__name__ != "ndarray" else value

    value = {name}(*arguments)
    return {what}
"""
# The same for large answers: the digest of their values, in which a float without a fraction is the integer.
DIGESTING = """


def _judged(*arguments):
    from hashlib import sha256

    def said(value):
        kind = type(value)
        if kind in (list, tuple):
            return kind.__name__ + "(" + ",".join(map(said, value)) + ")"
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return hex(value) if isinstance(value, int) else repr(value)

    value = {name}(*arguments)
    many, hashed = type(value) in (list, tuple), sha256()
    pieces = value if many else [value]
    for start in range(0, len(pieces), 4096):
        words = [
            hex(piece) if type(piece) is int
            else hex(int(piece)) if type(piece) is float and piece.is_integer()
            else said(piece)
            for piece in pieces[start : start + 4096]
        ]
        hashed.update((";".join(words) + ";").encode())
    return type(value).__name__ if many else "", hashed.hexdigest()
"""
DRIVER = """
import contextlib, io, json, time
import plain_data

_inputs = plain_data.loads(open("inputs.txt").read())
_values, _began = [], time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    for _given in _inputs:
        _values.append(_judged(*_given))
print(json.dumps([time.process_time() - _began, [plain_data.dumps(value) for value in _values]]))
"""
REFERENCE = Limits(cpu_seconds=120, wall_seconds=1200, memory_mib=4096, stdout_bytes=256 * MIB)


@dataclass(frozen=True, slots=True)
class Asked:
    """A canonical program, the function in it, and its inputs."""

    program: str
    name: str
    inputs: tuple[tuple[Any, ...], ...]
    tolerance: float

    @property
    def digest(self) -> str:
        """What decides the expected values; of sets there are only some of small numbers, whose order is always one."""
        return digest_of([VERSION, self.program, self.name, repr(self.inputs)]).removeprefix("blake2b:")


@dataclass(frozen=True, slots=True)
class Expected:
    """The tests of a problem, and what its judge must know beside them."""

    tests: tuple[Test, ...]
    limits: dict[str, float] = field(default_factory=lambda: {"cpu_seconds": 20.0, "wall_seconds": 600.0})
    facts: dict[str, Any] = field(default_factory=dict)


def adapter(name: str) -> str:
    """Code after a program: the function that the judge calls."""
    if name in LARGE:
        return DIGESTING.format(name=name)
    as_truth = "int(value if isinstance(value, bool) else value is not None)"
    return ADAPTER.format(name=name, what=as_truth if name in NOT_NONE else "shown(value)")


def asked(record: dict[str, Any], prompt: str) -> Asked:
    """What the canonical solution of a record is asked."""
    name = record["entry_point"]
    program = f"{prompt}{record['canonical_solution']}{adapter(name)}"
    inputs = tuple(map(tuple, (*record["base_input"], *record["plus_input"])))
    return Asked(program, name, inputs, float(record["atol"]))


def expected(of: Sequence[Asked]) -> list[Expected]:
    """The tests of each, from the disk or from the sandbox; UserError where a canonical solution fails."""
    paths = [cache_folder() / f"{each.digest}.json" for each in of]
    missing = [place for place, path in enumerate(paths) if not path.exists()]
    if missing:
        asyncio.run(_fill([of[place] for place in missing], [paths[place] for place in missing]))
    return [_tests(each, path) for each, path in zip(of, paths, strict=True)]


def cache_folder() -> Path:
    """Where expected values are kept: $XDG_CACHE_HOME/codeweft/expected, else ~/.cache/codeweft/expected."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codeweft" / "expected"


async def _fill(of: Sequence[Asked], paths: Sequence[Path]) -> None:
    async with open_sandbox(SandboxConfig()) as sandbox:
        with bar("expected values", len(of), "problems") as shown:
            await all_of(_keep(sandbox, each, path, shown) for each, path in zip(of, paths, strict=True))


async def _keep(sandbox: Sandbox, each: Asked, path: Path, shown: Bar) -> None:
    files = {"plain_data.py": inspect.getsource(plain).encode(), "inputs.txt": plain.dumps(each.inputs).encode()}
    code = each.program + DRIVER
    ran = await sandbox.run(Program("python", code, files=files, limits=REFERENCE))
    if ran.status != "ok":
        raise UserError(
            f"The canonical solution of {each.name} does not run ({ran.status}): {ran.detail}", "Fetch its file again."
        )
    try:
        _values(ran.stdout, len(each.inputs))
    except ValueError as error:
        raise UserError(f"The canonical solution of {each.name} writes {error}", "Fetch its file again.") from error
    with atomic(path) as file:
        file.write(ran.stdout)
    shown.advance()


def _values(content: bytes, count: int) -> tuple[float, list[Any]]:
    """Processor seconds and values; ValueError for anything else."""
    match _json(content):
        case [float(seconds), list(texts)] if len(texts) == count and 0 <= seconds <= REFERENCE.cpu_seconds:
            return seconds, [plain.loads(str(text)) for text in texts]
    raise ValueError("something else than its values.")


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("what is nested too deep.") from error


def _tests(each: Asked, path: Path) -> Expected:
    try:
        seconds, values = _values(path.read_bytes(), len(each.inputs))
    except ValueError as error:
        raise InputError(f"{path} does not hold expected values.", "Delete it: it is made again.") from error
    limits = {
        "cpu_seconds": max(10.0, 4 * seconds), "wall_seconds": 600.0, "memory_mib": 2048 if each.name in LARGE else 512,
    }  # fmt: skip
    tolerances = list(_tolerances(each.tolerance, values))
    facts = {"adapter": adapter(each.name), "setup": ""}
    if each.name not in ALSO_RIGHT:
        calls = (Test("call", args=given, expected=value) for given, value in zip(each.inputs, values, strict=True))
        return Expected(tuple(calls), limits, facts | ({"allclose": tolerances} if any(tolerances) else {}))
    code = "given, expected, tolerance = {!r}, {!r}, {!r}\nvalue = candidate(*given)\n"
    code += f"assert agrees(value, expected, tolerance) or {ALSO_RIGHT[each.name]}"
    compared = zip(each.inputs, values, tolerances, strict=True)
    return Expected(
        tuple(Test("assert", code=code.format(*row)) for row in compared),
        limits,
        {**facts, "setup": comparing()},
    )


def submission(problem: Problem, code: str) -> Submission:
    """An answer's program as the judge takes it."""
    facts = problem.facts
    return Submission(
        "python", code + facts["adapter"], problem.tests_hidden, JUDGED, facts["setup"], limits=limits_of(problem),
        allclose=tuple(facts.get("allclose", ())),
    )  # fmt: skip


# --- how values are compared -----------------------------------------------------------------------------------------


def _tolerances(stated: float, values: Sequence[Any]) -> Iterator[float]:
    """The tolerance of each value: a problem's own, else 1e-6 from the first floats on, for whatever follows too."""
    for value in values:
        if not stated and is_floats(value):
            stated = 1e-6
        yield stated


def is_floats(value: Any) -> bool:
    """Whether EvalPlus compares a value with a tolerance.

    >>> is_floats(0.5), is_floats((0.5, 1.0)), is_floats([0.5, 1]), is_floats([])
    (True, True, False, False)
    """
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def comparing() -> str:
    """Code that tests need beside them."""
    functions = (agrees, plain.allclose, plain.near, pyramid_surface, digits_apart)
    return "\n\n".join(
        ["import math\nfrom math import inf, nan\nfrom typing import Any", *map(inspect.getsource, functions)]
    )


def agrees(value: Any, expected: Any, tolerance: float) -> bool:
    """Whether a value is the expected one; with a tolerance, whether both are of one type and near.

    >>> (
    ...     agrees(True, 1, 0),
    ...     agrees([4e30], [4.0000001e30], 1e-6),
    ...     agrees([1], [1.0000001], 1e-6),
    ...     agrees(1, 1.0000001, 1e-6),
    ... )
    (True, True, True, False)
    """
    return value == expected or (bool(tolerance) and allclose(value, expected, tolerance))


def pyramid_surface(base: float, height: float) -> int:
    """Mbpp/581 read otherwise: the height stands on the base's centre.

    >>> pyramid_surface(3, 4)
    35
    """
    slant = math.sqrt((base / 2) ** 2 + height**2)
    return round(base**2 + 4 * (base * slant) / 2)


def digits_apart(one: int, other: int) -> int:
    """Mbpp/558 read otherwise: digit by digit, both numbers filled with zeros from the left.

    >>> digits_apart(12345, 9)
    14
    """
    width = max(len(str(one)), len(str(other)))
    return sum(abs(int(a) - int(b)) for a, b in zip(str(one).zfill(width), str(other).zfill(width), strict=True))


# --- inputs that JSON cannot say -----------------------------------------------------------------------------------


def _tuples(value: Any, levels: int = 99) -> Any:
    """Lists as tuples, so many levels deep."""
    return tuple(_tuples(item, levels - 1) for item in value) if levels and isinstance(value, list) else value


def _rows(value: Any) -> Any:
    return [tuple(item) for item in value]


# MBPP+'s files hold JSON: which arguments were no lists. One reading for each argument, the last for all that follow.
READINGS = (
    ((2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
     (lambda value: _tuples(value, 1),)),
    ((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780), (_rows,)),
    ((75, 413, 444, 753), (_rows, lambda value: value)),
    ((106, 750), (lambda value: value, lambda value: _tuples(value, 1))),
    ((250, 307, 405, 446, 617, 720, 763, 808), (lambda value: _tuples(value, 1), lambda value: value)),
    ((259, 278, 401, 445), (lambda value: _tuples(value, 2),)),
    ((580, 615, 791), (_tuples,)),
    ((115,), (lambda value: [set(item) if item else {} for item in value],)),
    ((124,), (float, complex)),
    ((252,), (complex,)),
    ((722,), (lambda value: {key: tuple(item) for key, item in value.items()}, lambda value: value)),
)  # fmt: skip


def as_arguments(number: int, given: list[Any]) -> list[Any]:
    """One input of MBPP+ as its problem's arguments."""
    for numbers, readings in READINGS:
        if number in numbers:
            return [readings[min(place, len(readings) - 1)](value) for place, value in enumerate(given)]
    return given


def pairs(record: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """The two lists of inputs of a record of MBPP+, each as arguments."""
    number = int(record["task_id"].removeprefix("Mbpp/"))
    for name in ("base_input", "plus_input"):
        yield name, [as_arguments(number, given) for given in record[name]]
