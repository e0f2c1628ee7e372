"""The official benchmark files, each problem as a submission of its own solution.

In:  the folder of benchmark files as published.  Out: by problem, a Submission of the canonical or the buggy solution.

Unusual: Python's sets are loaded and graded as evaluation does it. Boost, OpenSSL, Rust's crates, npm's js-md5 and Go's
testify are no part of a toolchain: stand-ins of a few lines take the place of what solutions and tests use of them.
"""

import functools
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codeweft.base.records import Problem, Test
from codeweft.sandbox.config import Submission
from codeweft.tasks import human_eval as tasks_human_eval
from codeweft.tasks import mbpp
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.programs import stand_in
from codeweft.tasks.registry import find

Named = Iterator[tuple[str, Submission]]
Record = dict[str, Any]
TOOLCHAINS = {"python": "python", "cpp": "cpp", "java": "java", "js": "javascript", "go": "go", "rust": "rust"}


def records(path: Path, every: int = 1) -> list[Record]:
    """Every so many-th record of a file of JSON lines."""
    content = path.read_bytes()
    lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode().strip().split("\n")
    return [json.loads(line) for line in lines[::every]]


# --- Python: the tasks' own loaders and graders ----------------------------------------------------------------------


def solved(problem: Problem) -> tuple[str, Submission]:
    """A problem's name, and its reference as a chat model would answer."""
    submission = find(problem.task).grade(problem, "chat", f"```python\n{problem.reference}\n```").submission
    assert submission is not None
    return problem.id, submission


def human_eval(folder: Path, every: int = 1) -> Named:
    """The 164 problems as published; the prompt is what the tests need beside the answer (problems 32, 38, 50)."""
    yield from map(solved, list(find("human-eval").load(Folder(folder), TaskOptions()))[::every])


def mbpp_all(folder: Path, every: int = 1) -> Named:
    """The 974 problems as published, those of the shots included."""
    for record in records(folder / "mbpp/mbpp.jsonl", every):
        yield solved(mbpp.problem_of(f"MBPP/{record['task_id']}", record))


def human_eval_plus(folder: Path, every: int = 1) -> Named:
    """HumanEval+: all base and plus inputs of a problem."""
    chosen = records(folder / "human-eval-plus/HumanEvalPlus.jsonl.gz", every)
    yield from map(solved, tasks_human_eval.plus_problems(chosen))


def mbpp_plus(folder: Path, every: int = 1) -> Named:
    """MBPP+: all base and plus inputs of a problem, read as the types they stand for."""
    yield from map(solved, mbpp.plus_problems(records(folder / "mbpp-plus/MbppPlus.jsonl.gz", every)))


def asserting(record: Record, solution: str, test: str, entry_point: str) -> Submission:
    """A Python solution after its prompt, with one program of assertions."""
    code, setup = record["prompt"] + solution, record["prompt"]
    return Submission("python", code, (Test("assert", code=test),), entry_point, setup)


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


SETS = {
    "human-eval": human_eval,
    "human-eval-plus": human_eval_plus,
    "mbpp": mbpp_all,
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
