"""What HumanEval+ and MBPP+ share: EvalPlus publishes inputs; expected is what the canonical solution returns for them.

In:  records with base_input and plus_input.  Out: `call` tests with their expected values, limits and a tolerance.
Source: Liu et al. 2023 (EvalPlus): comparison by value, floats within a tolerance, four times the reference's time.

Unusual: canonical solutions come out of a downloaded file, so they run behind the same wall as any answer. What they
return is kept on this disk, found again by the digest of program and inputs. A few problems are compared otherwise than
by value; for those a wrapper is put around the function, reference and answer alike.
"""

import asyncio
import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeweft.base.artifacts import atomic, digest_of
from codeweft.base.errors import UserError
from codeweft.base.progress import Bar, bar
from codeweft.base.records import Test
from codeweft.sandbox import plain
from codeweft.sandbox.client import Sandbox, all_of, open_sandbox
from codeweft.sandbox.config import MIB, Limits, Program, SandboxConfig

FIELDS = ("base_input", "plus_input", "atol")
VERSION = 1  # raised whenever the same program and inputs would give other expected values
# The values that problems of these names return are compared as sets, or only by whether there is one.
SAME_SET = ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
            "intersection_array", "find_dissimilar", "Diff")  # fmt: skip
NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")
# Answers of up to a hundred million values or a million digits: their digest crosses the wall.
LARGE = (
    "string_sequence", "starts_one_ends", "make_a_pile", "tri", "special_factorial", "combinations_colors",
    "get_coordinates",
)  # fmt: skip
ADAPTER = """
def _adapted(function):
    from hashlib import sha256

    def digest(value):
        pieces, hashed = value if isinstance(value, (list, tuple)) else [value], sha256()
        for piece in pieces:
            text = hex(piece) if type(piece) is int else repr(piece)
            hashed.update(text.encode() + b";")
        return type(value).__name__, hashed.hexdigest()

    def adapted(*arguments):
        value = function(*arguments)
        return {what}

    return adapted


{name} = _adapted({name})
"""
DRIVER = """
import contextlib, io, json, time
import plain_data

_inputs = plain_data.loads(open("inputs.txt").read())
_values, _began = [], time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    for _given in _inputs:
        _values.append({name}(*_given))
print(json.dumps([time.process_time() - _began, [plain_data.dumps(value) for value in _values]]))
"""
REFERENCE = Limits(cpu_seconds=120, wall_seconds=1200, memory_mib=4096, stdout_bytes=256 * MIB)


@dataclass(frozen=True, slots=True)
class Asked:
    """A canonical program, the function in it, and its inputs."""

    program: str
    name: str
    inputs: tuple[Any, ...]
    tolerance: float

    @property
    def digest(self) -> str:
        """What decides the expected values."""
        return digest_of([VERSION, self.program, self.name, plain.dumps(self.inputs)]).removeprefix("blake2b:")


@dataclass(frozen=True, slots=True)
class Expected:
    """The tests of a problem, and what its judge must know beside them."""

    tests: tuple[Test, ...]
    limits: dict[str, float] = field(default_factory=lambda: {"cpu_seconds": 20.0, "wall_seconds": 600.0})
    facts: dict[str, Any] = field(default_factory=dict)


def adapter(name: str) -> str:
    """Code after a program where EvalPlus compares something other than the value itself."""
    for names, what in (
        (SAME_SET, "set(value)"),
        (NOT_NONE, "value if isinstance(value, bool) else value is not None"),
        (LARGE, "digest(value)"),
    ):
        if name in names:
            return ADAPTER.format(what=what, name=name)
    return ""


def asked(record: dict[str, Any], prompt: str) -> Asked:
    """What the canonical solution of a record is asked."""
    name = record["entry_point"]
    program = f"{prompt}{record['canonical_solution']}{adapter(name)}"
    return Asked(program, name, (*record["base_input"], *record["plus_input"]), float(record["atol"]))


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
    code = each.program + DRIVER.format(name=each.name)
    ran = await sandbox.run(Program("python", code, files=files, limits=REFERENCE))
    if ran.status != "ok":
        raise UserError(
            f"The canonical solution of {each.name} does not run ({ran.status}): {ran.detail}", "Fetch its file again."
        )
    with atomic(path) as file:
        file.write(ran.stdout)
    shown.advance()


def _tests(each: Asked, path: Path) -> Expected:
    seconds, values = _kept(path)
    tests = tuple(
        Test("call", args=tuple(given), expected=value) for given, value in zip(each.inputs, values, strict=True)
    )
    # EvalPlus's rule: where values are floats, they need not be equal to the last digit
    tolerance = each.tolerance or (1e-6 if any(map(is_floats, values)) else 0.0)
    limits = {
        "cpu_seconds": max(10.0, 4 * seconds), "wall_seconds": 600.0, "memory_mib": 2048 if each.name in LARGE else 512,
    }  # fmt: skip
    return Expected(tests, limits, {"adapter": adapter(each.name), "tolerance": tolerance})


def _kept(path: Path) -> tuple[float, list[Any]]:
    import json

    seconds, values = json.loads(path.read_bytes())
    return seconds, [plain.loads(value) for value in values]


def is_floats(value: Any) -> bool:
    """Whether EvalPlus compares a value with a tolerance."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


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
