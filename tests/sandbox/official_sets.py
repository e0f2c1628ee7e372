"""The official benchmark files, each problem as a submission of its own solution.

In:  the folder of benchmark files as published.  Out: by problem, a Submission of the canonical or the buggy solution.

Unusual: EvalPlus publishes inputs only; what is expected is what its canonical solution returns, so this file runs
those (and nothing else) in its own process. Boost, OpenSSL, Rust's crates, npm's js-md5 and Go's testify are no part
of a toolchain: stand-ins of a few lines take the place of what solutions and tests use of them.
"""

import ast
import contextlib
import copy
import functools
import gzip
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codeweft.base.records import Test
from codeweft.sandbox.config import Limits, Submission

Named = Iterator[tuple[str, Submission]]
Record = dict[str, Any]
STAND_INS = Path(__file__).parent / "stand_ins"
TOOLCHAINS = {"python": "python", "cpp": "cpp", "java": "java", "js": "javascript", "go": "go", "rust": "rust"}
# Of MBPP, what gives its function objects that are no plain data (its own classes, types): judged in one process.
NOT_PLAIN = {367: "its own class", 533: "types as arguments", 601: "its own class", 927: "its own class"}
# MBPP/123 alone takes four seconds; the clock of a machine that does other things as well says nothing.
PATIENT = Limits(cpu_seconds=20, wall_seconds=600)


def records(path: Path, every: int = 1) -> list[Record]:
    """Every so many-th record of a file of JSON lines."""
    content = path.read_bytes()
    lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode().strip().split("\n")
    return [json.loads(line) for line in lines[::every]]


# --- assertions in Python ------------------------------------------------------------------------------------------


def human_eval(folder: Path, every: int = 1) -> Named:
    """The 164 problems as published; the prompt is what the tests need beside the answer (problems 32, 38, 50)."""
    for record in records(folder / "human-eval/HumanEval.jsonl.gz", every):
        test = f"{record['test']}\ncheck({record['entry_point']})"
        yield record["task_id"], asserting(record, record["canonical_solution"], test, record["entry_point"])


def asserting(record: Record, solution: str, test: str, entry_point: str) -> Submission:
    """A Python solution after its prompt, with one program of assertions."""
    code, setup = record["prompt"] + solution, record["prompt"]
    return Submission("python", code, (Test("assert", code=test),), entry_point, setup)


def mbpp(folder: Path, every: int = 1) -> Named:
    """The 974 problems as published, one test an assertion."""
    for record in records(folder / "mbpp/mbpp.jsonl", every):
        yield f"MBPP/{record['task_id']}", _of_mbpp(record)


def _of_mbpp(record: Record) -> Submission:
    setup, code = record["test_setup_code"], record["code"]
    if record["task_id"] in NOT_PLAIN:
        tests = tuple(Test("assert", code=f"{setup}\n{test}") for test in record["test_list"])
        return Submission("python", code, tests, "", mode="compat", limits=PATIENT)
    # The tests' own names of modules (596 asks sys) come from the imports of the canonical solution.
    imports = [ast.unparse(node) for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    tests = tuple(Test("assert", code=test) for test in record["test_list"])
    return Submission("python", code, tests, called(record), "\n".join([*imports, setup]), limits=PATIENT)


def called(record: Record) -> str:
    """The one function of the solution that the tests call."""
    defined = {node.name for node in ast.parse(record["code"]).body if isinstance(node, ast.FunctionDef)}
    nodes = [node for test in record["test_list"] for node in ast.walk(ast.parse(test))]
    (function,) = defined & {node.id for node in nodes if isinstance(node, ast.Name)}
    return function


# --- EvalPlus: inputs, and a solution that says what is right --------------------------------------------------------

SAME_SET = ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
            "intersection_array", "find_dissimilar", "Diff")  # fmt: skip
NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")
# Answers of up to a hundred million values or a million digits: their digest crosses the wall.
LARGE = (
    "string_sequence", "starts_one_ends", "make_a_pile", "tri", "special_factorial", "combinations_colors",
    "get_coordinates",
)  # fmt: skip
ADAPTED = """
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


def adapter(name: str) -> str:
    """Code after the solution where EvalPlus compares something other than the value itself."""
    for names, what in (
        (SAME_SET, "set(value)"),
        (NOT_NONE, "value if isinstance(value, bool) else value is not None"),
        (LARGE, "digest(value)"),
    ):
        if name in names:
            return ADAPTED.format(what=what, name=name)
    return ""


def human_eval_plus(folder: Path, every: int = 1) -> Named:
    """HumanEval+: all base and plus inputs of a problem."""
    for record in records(folder / "human-eval-plus/HumanEvalPlus.jsonl.gz", every):
        if record["entry_point"] == "find_zero":  # any root will do
            code = "assert abs(poly(*{0!r}, candidate(*{0!r}))) <= {1!r}"
            inputs = record["base_input"] + record["plus_input"]
            tests = tuple(Test("assert", code=code.format(given, record["atol"])) for given in inputs)
            program = record["prompt"] + record["canonical_solution"]
            yield record["task_id"], Submission("python", program, tests, "find_zero", record["prompt"], limits=PATIENT)
        else:
            yield record["task_id"], calling(record)


def mbpp_plus(folder: Path, every: int = 1) -> Named:
    """MBPP+: all base and plus inputs of a problem, read as the types they stand for."""
    for record in records(folder / "mbpp-plus/MbppPlus.jsonl.gz", every):
        number = int(record["task_id"].removeprefix("Mbpp/"))
        for name in ("base_input", "plus_input"):
            record[name] = [as_arguments(number, given) for given in record[name]]
        yield record["task_id"], calling(record)


def calling(record: Record) -> Submission:
    """A solution with a `call` test an input; EvalPlus's rules of time (four times the reference) and of floats."""
    name = record["entry_point"]
    program = record["prompt"] + record["canonical_solution"] + adapter(name)
    inputs = [*record["base_input"], *record["plus_input"]]
    values, seconds = returned(program, name, inputs)
    tests = tuple(Test("call", args=tuple(given), expected=value) for given, value in zip(inputs, values, strict=True))
    tolerance = record["atol"] or (1e-6 if any(map(is_floats, values)) else 0.0)
    memory = 2048 if name in LARGE else 512
    limits = Limits(cpu_seconds=max(10.0, 4 * seconds), wall_seconds=600, memory_mib=memory)
    return Submission("python", program, tests, name, limits=limits, tolerance=tolerance)


def returned(program: str, name: str, inputs: list[Any]) -> tuple[list[Any], float]:
    """What a trusted function returns for each input, and its processor seconds."""
    namespace: dict[str, Any] = {}
    exec(program, namespace)
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        values = [namespace[name](*copy.deepcopy(given)) for given in inputs]
    return values, time.process_time() - began


def is_floats(value: Any) -> bool:
    """Whether EvalPlus compares a value with a tolerance."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


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


# --- HumanEval-X and HumanEvalPack: six languages ------------------------------------------------------------------


def human_eval_x(folder: Path, language: str, every: int = 1) -> Named:
    """HumanEval-X's canonical solutions in a language."""
    for record in records(folder / f"humaneval-x-v2/humanevalx_{language}.jsonl.gz", every):
        yield record["task_id"], program(language, record, record["canonical_solution"])


def human_eval_pack(folder: Path, language: str, field: str, every: int = 1) -> Named:
    """HumanEvalPack's canonical (or buggy) solutions in a language, by the name of their field."""
    for record in records(folder / f"humanevalpack/{language}.jsonl", every):
        yield record["task_id"], program(language, record, record[field])


def program(language: str, record: Record, solution: str) -> Submission:
    """A solution with the program of assertions that the data set has for it."""
    prompt, test = record["prompt"], record["test"]
    if language == "python":
        name = re.findall(r"^check\((\w+)\)", test, re.MULTILINE)[-1]
        return asserting(record, solution, test, name)
    code = prompt + solution
    if language == "cpp":
        code = "".join(f"#include<{name}>\n" for name in CPP_HEADERS if f"#include<{name}>" not in prompt) + code
        for header, name in (("boost/any.hpp", "any.hpp"), ("openssl/md5.h", "md5.hpp")):
            code = code.replace(f"#include<{header}>", stand_in(name))
    if language == "go":
        code, test = _go(record, solution)
    if language == "rust":
        code, test = _rust(code, test)
    if language == "js" and "require('js-md5')" in code:
        code = code.replace("require('js-md5')", stand_in("md5.js"))
    return Submission(TOOLCHAINS[language], code, (Test("assert", code=test),), mode="compat")


# What the published harness puts before each program.
CPP_HEADERS = ("stdlib.h", "algorithm", "math.h", "stdio.h", "vector", "string", "climits", "cstring", "iostream")
GO_PACKAGES = ("math", "strings", "fmt", "strconv", "time", "bytes", "regexp", "sort", "math/rand", "crypto/md5")


def _go(record: Record, solution: str) -> tuple[str, str]:
    """One file's two halves; its imports are those that are used, since Go refuses the others."""
    body = record["prompt"].replace(record["import"], "") + solution
    test = stand_in("assert.go") + record["test"]
    known = dict.fromkeys((*re.findall(r'"([\w/.]+)"', record["import"] + record["test_setup"]), *GO_PACKAGES))
    used = [name for name in known if "." not in name and re.search(rf"\b{name.split('/')[-1]}\.[A-Z]", body + test)]
    imports = "".join(f'import "{name}"\n' for name in dict.fromkeys((*used, "reflect", "testing")))
    return f"package main\n{imports}{body}", test


def _rust(code: str, test: str) -> tuple[str, str]:
    """The crates that all programs name and few use: without their lines, or with a stand-in."""
    for crate, pattern in (("rand", r"\brand::[a-z]"), ("regex", r"\bRegex::"), ("md5", r"\bmd5::")):
        used = re.search(pattern, code + test)
        if not used or crate == "md5":  # a module of this name in the same file needs no `use`
            code = re.sub(rf"(?m)^use {crate}\b.*$", "", code)
        if used:
            code += stand_in(f"{crate}.rs")
    return code if "fn main" in code else code + "\nfn main() {}\n", test


@functools.cache
def stand_in(name: str) -> str:
    """The text of a file of stand_ins/."""
    return (STAND_INS / name).read_text(encoding="utf-8")


SETS = {
    "human-eval": human_eval,
    "human-eval-plus": human_eval_plus,
    "mbpp": mbpp,
    "mbpp-plus": mbpp_plus,
    **{f"human-eval-x-{language}": functools.partial(human_eval_x, language=language) for language in TOOLCHAINS},
    **{
        f"human-eval-pack-{language}": functools.partial(human_eval_pack, language=language, field="canonical_solution")
        for language in TOOLCHAINS
    },
}
BUGGY = {
    language: functools.partial(human_eval_pack, language=language, field="buggy_solution") for language in TOOLCHAINS
}
