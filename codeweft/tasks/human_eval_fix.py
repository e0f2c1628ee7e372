"""HumanEvalFix: a function with a bug and its tests are shown in six languages, the corrected function is wanted.

In:  LANGUAGE.jsonl of HumanEvalPack.  Out: the task human-eval-fix, one problem a language and item.
Source: OctoPack (HumanEvalFix, the setting with tests), whose instruction and order of the prompt's parts are kept.

Unusual: OctoPack lets every model go on from the declaration. A chat model cannot be made to, and is asked for the
whole function within a code block instead: one sentence more than the official prompt.
"""

import re
from collections.abc import Iterator

from codeweft.base.errors import InputError
from codeweft.base.records import Problem, Test
from codeweft.sandbox.config import Submission
from codeweft.tasks import programs
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.extraction import until
from codeweft.tasks.files import Record, read_records
from codeweft.tasks.multipl_e import chosen
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task

URL = (
    "https://raw.githubusercontent.com/bigcode-project/octopack/e17a8f6470264286bc6a52eb8263582083bf3bf6/"
    "evaluation/create/humaneval-x/data/{tag}/data/humanevalpack.jsonl"
)
# language -> (word of its file, checksum), in the order of the paper that made the set
FILES = {
    "python": ("python", "b1376d72be4bd016a62ad043d9de3846edb8d63edf1222da802a31330c14c3a7"),
    "javascript": ("js", "04c86c1fac5f33818d9187cba278ed1dfc66cc259372dd8342126aa580fb7569"),
    "java": ("java", "a8d077d300bbdc2eda91e1a733deb2944678bce8fcc7eb272214626516768cc1"),
    "go": ("go", "0ee2cdca46d70afb33d913a0d4b205624fe4ded2f28c2efdb241727221837993"),
    "cpp": ("cpp", "891a390c1b9d2cb85dd8fbebcf1d88dbdd565734a6b2b3259f9ddb3fe95e33d7"),
    "rust": ("rust", "01ece28eaf490d7af037ce53095083dacfd38022cf5b82662ccb78024dc269a1"),
}
FIELDS = ("task_id", "prompt", "declaration", "canonical_solution", "buggy_solution", "test", "entry_point")
# OctoPack's stop strings; where it has none, what the prompt's tests begin with, which models like to repeat.
STOPS = {
    "python": ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\nassert"),
    "go": ("\n//", "\nfunc main(", "struct", "\nfunc"),
    "javascript": ("\nconst test", "\nFix bugs in"),
    "java": ("\npublic class Main", "\nFix bugs in"),
    "cpp": ("\nint main", "\n#undef", "\nFix bugs in"),
    "rust": ("\n#[cfg(test)]", "\nfn main", "\nFix bugs in"),
}
BASE_TOKENS, CHAT_TOKENS = 512, 1024
CHAT = "\n\nReturn the whole corrected function within a code block."
# What the published harness makes known to each program.
CPP_HEADERS = (
    "stdlib.h", "algorithm", "cmath", "math.h", "numeric", "stdio.h", "vector", "set", "map", "queue", "stack", "list",
    "deque", "string", "climits", "cstring", "iostream", "sstream", "fstream",
)  # fmt: skip
GO_PACKAGES = ("math", "strings", "fmt", "strconv", "time", "bytes", "regexp", "sort", "math/rand", "crypto/md5")
CRATES = (("rand", r"\brand::[a-z]", "Rng"), ("regex", r"\bRegex::", "Regex"), ("md5", r"\bmd5::", ""))


def data_of(language: str) -> Data:
    """The file of a language."""
    tag, sha256 = FILES[language]
    return Data((f"humanevalpack/{tag}.jsonl",), url=URL.format(tag=tag), sha256=sha256, licence="MIT")


def load(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """Problems of each language in turn."""
    known = {word: language for language, (tag, _) in FILES.items() for word in (tag, language)}
    for language in chosen(options.languages, known, tuple(FILES)):
        for place, record in read_records(files.path(data_of(language)), FIELDS):
            yield _problem(language, place, record)


def _problem(language: str, place: str, record: Record) -> Problem:
    name = function_of(language, record)
    if not name:
        raise InputError(f"{place}: the tests call no function of the declaration.", "Fetch the file again.")
    given = {key: record.get(key) or "" for key in ("declaration", "entry_point", "import", "test_setup", "prompt")}
    return Problem(
        record["task_id"], "human-eval-fix", family=str(record.get("bug_type", "")), language=language,
        prompt=record["declaration"] + record["buggy_solution"], entry_point=name,
        tests_visible=(Test("assert", code=record["test"]),),
        reference=record["prompt"] + record["canonical_solution"], facts=given,
    )  # fmt: skip


def function_of(language: str, record: Record) -> str:
    """The function to correct: in 15 records another one than their entry_point names. Empty where there is none."""
    name, declaration = record["entry_point"], record["declaration"]
    if programs.defined_at(language, name, declaration) >= 0:
        return name
    tested = [each for each in programs.defined_names(language, declaration) if each in record["test"]]
    return max(tested, key=lambda each: programs.defined_at(language, each, declaration), default="")


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """The buggy function, its tests, the instruction; for base models the declaration again, to go on from."""
    main = "fn main(){}\n" if problem.language == "rust" else ""
    asked = f"{main}{problem.prompt}\n{problem.tests_visible[0].code}\nFix bugs in {problem.facts['entry_point']}."
    if style == "base":
        text = f"{asked}\n\n{main}{problem.facts['declaration']}".strip()
        return Ask(text, stop=STOPS[problem.language], max_tokens=BASE_TOKENS)
    return Ask(messages=({"role": "user", "content": asked.strip() + CHAT},), max_tokens=CHAT_TOKENS)


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """The program of corrected function and tests: Python's called from outside, the others' in `compat` mode."""
    language, name, given = problem.language, problem.entry_point, problem.facts["declaration"]
    text = text.replace("\r\n", "\n")
    code = text if style == "base" else programs.answer_code(language, name, text)
    if style == "base" or programs.defined_at(language, name, code) < 0:
        code = continued(language, name, given, code)
    else:
        code = _whole(problem, code)
    if language == "python":
        (test,) = problem.tests_visible
        setup = problem.facts["prompt"]  # the tests' own helpers (problems 32, 38, 50)
        return Answer(code, submission=Submission(language, programs.python_program(code), (test,), name, setup))
    program, test = joined(problem, code)
    return Answer(code, submission=Submission(language, program, (Test("assert", code=test),), mode="compat"))


def continued(language: str, name: str, declaration: str, text: str) -> str:
    """A declaration and what goes on from it, up to the end of the function (in Java: of its class)."""
    text = until(text, STOPS[language])
    if language == "python":
        lines = text.split("\n")
        ends = (number for number, line in enumerate(lines) if number and line.strip() and line[0] not in " \t")
        return declaration.rstrip() + "\n".join(lines[: next(ends, len(lines))]) + "\n"
    code = declaration.rstrip() + text
    start = code.find("class Solution") if language == "java" else _opening(language, name, code)
    end = programs.block_end(language, code, start)
    if language == "java" and programs.block_end(language, code + "\n}", start) > end:
        return code.rstrip() + "\n}\n"  # the method is closed, its class is not
    return code[:end] + "\n"


def _opening(language: str, name: str, code: str) -> int:
    """Where a function's body begins: its line may hold other braces, as those of Go's interface{}."""
    start = max(programs.defined_at(language, name, code), 0)
    line = code[start : code.find("\n", start)].rstrip()
    return start + len(line) - 1 if line.endswith("{") else start


def _whole(problem: Problem, code: str) -> str:
    """An answer that has the whole function, with what it lacks of the declaration."""
    language, name, given = problem.language, problem.entry_point, problem.facts["declaration"]
    code = programs.without_unwanted(language, code)
    if language == "java":
        return _java(given, code, name)
    code = programs.with_helpers(language, name, given, code)
    if language == "rust":
        # Names of the declaration through a module: those that the answer imports itself come before them.
        names = "".join(f"    pub {line}\n" for line in given.split("\n") if line.startswith("use std::"))
        return f"mod given {{\n{names}}}\nuse given::*;\n{code}\n"
    return (code if language == "go" else programs.with_headers(language, given, code)) + "\n"


def _java(given: str, code: str, name: str) -> str:
    """The class Solution, which must not be public beside that of the tests; without a class Main."""
    main = re.compile(r"(?m)^[^\n;{}]*\bclass\s+Main\b")
    while found := main.search(code):
        code = code[: found.start()] + code[programs.block_end("java", code, found.start()) :]
    code = re.sub(r"(?m)^[ \t]*public\s+(?=(?:final\s+)?class\s+Solution\b)", "", code)
    opened = given[: given.find("{") + 1]
    held = programs.held_at("java", code, programs.defined_at("java", name, code))
    if held is None:
        code = programs.with_helpers("java", name, given[len(opened) :], code)
        imports = [line for line in code.split("\n") if line.startswith("import ")]
        rest = [line for line in code.split("\n") if not line.startswith("import ")]
        code = "\n".join([*imports, opened.rstrip().split("\n")[-1], *rest, "}"])
    return programs.with_headers("java", opened, code) + "\n"


def joined(problem: Problem, code: str) -> tuple[str, str]:
    """(program, tests) as the language wants them, with stand-ins for what is no part of its toolchain."""
    test, given = problem.tests_visible[0].code, problem.facts
    if problem.language == "cpp":
        code = "".join(f"#include<{name}>\n" for name in CPP_HEADERS if f"#include<{name}>" not in code) + code
        return programs.with_openssl(code), test
    if problem.language == "go":
        code = programs.with_helpers("go", problem.entry_point, given["prompt"], code)  # Go/32 tests with one of these
        own, body = programs.go_imports(f"{given['import']}\n{code}")
        test = programs.stand_in("assert.go") + test
        tested = [each for each in programs.go_imports(given["test_setup"])[0] if "." not in each]
        packages = (f'"{name}"' for name in GO_PACKAGES)
        body = f"\n{body}"
        return programs.go_file("main", [*own, *tested, *packages, '"reflect"', '"testing"'], body, test), test
    if problem.language == "rust":
        return _rust(code, test), test
    if problem.language == "javascript":
        code = re.sub(r"require\(['\"]js-md5['\"]\)", lambda _: programs.stand_in("md5.js"), code)
    return code, test


def _rust(code: str, test: str) -> str:
    """The crates that all programs name and few use: without their lines, or with a stand-in."""
    for crate, pattern, name in CRATES:
        used = re.search(pattern, code + test)
        if not used or crate == "md5":  # a module of this name in the same file needs no `use`
            code = re.sub(rf"(?m)^use {crate}\b.*$", "", code)
        elif not re.search(rf"(?m)^use {crate}\b", code):
            code = f"use {crate}::{name};\n{code}"
        if used:
            code += programs.stand_in(f"{crate}.rs")
    return code if "fn main" in code else code + "\nfn main() {}\n"


TASKS = (
    Task(
        name="human-eval-fix",
        title="HumanEvalFix with tests, six languages",
        group="code repair",
        styles=("chat", "base"),
        data=tuple(map(data_of, FILES)),
        protocol="0-shot, greedy, one completion; the buggy function, its tests, `Fix bugs in NAME.`; base: goes on "
        "from the declaration, 512 tokens; chat: asked for the whole function in a code block, 1,024 tokens; mean over "
        "languages",
        load=load,
        ask=ask,
        grade=grade,
        average="language",
    ),
)
