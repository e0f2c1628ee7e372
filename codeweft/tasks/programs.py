"""A model's answer in any of twenty languages as a program that a benchmark's tests can follow.

In:  answers, prompts.  Out: the answer's code without what the tests bring themselves, and what it lacks of the prompt.

Unusual: languages are told apart by a few regular expressions each, not parsed: an answer need not be a program.
Boost, OpenSSL, Rust's crates, npm's js-md5, Go's testify, javatuples, luaunit and Test::Deep are no part of a
toolchain: files of stand_ins/ take the place of what solutions and tests use of them.
"""

import functools
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from codeweft.tasks.extraction import chat_code, code_blocks

STAND_INS = Path(__file__).parent / "stand_ins"
# What DeepSeek's and BigCode's harnesses put before each Python program; numpy only where it is named.
PYTHON_IMPORTS = """import math
import re
import sys
import copy
import datetime
import itertools
import collections
import heapq
import statistics
import functools
import hashlib
import string
from typing import *
from collections import *
"""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What has to be known of a language's text.

    `definition` finds the definition of the function NAME; `header` a line that makes names known; `unwanted` where a
    block begins that tests bring themselves, or that would run beside them.
    """

    definition: str
    header: str = r"(?!)"
    unwanted: str = r"(?!)"


_C_LIKE = r"[\w>\]&*?)]\s+[&*]?NAME\s*\([^;{}]*\)[^;{}(]*(?:\{|=>)"
_SCRIPT = r"\bfunction\s*\*?\s*NAME\b|\b(?:const|let|var)\s+NAME\s*[=:]"
GRAMMARS = {
    "python": Grammar(r"(?m)^[ \t]*(?:async\s+)?def\s+NAME\s*\(", r"(?:import|from)\s"),
    "java": Grammar(_C_LIKE, r"import\s", r"(?m)^[^\n;{}]*\bstatic\s+(?:final\s+)?void\s+main\s*\("),
    "cpp": Grammar(_C_LIKE, r"#\s*include|using\s+namespace\b", r"(?m)^[^\n;{}(]*\b(?:int|auto|void)\s+main\s*\("),
    "csharp": Grammar(_C_LIKE, r"using\s", r"(?m)^[^\n;{}]*\bstatic\s+(?:async\s+)?\w+\s+Main\s*\("),
    "typescript": Grammar(_SCRIPT, r"import\s|(?:const|let|var)\s[^\n]*\brequire\("),
    "javascript": Grammar(_SCRIPT, r"import\s|(?:const|let|var)\s[^\n]*\brequire\("),
    "php": Grammar(r"\bfunction\s+&?NAME\s*\(", r"<\?php"),
    "bash": Grammar(r"(?m)^[ \t]*(?:function\s+)?NAME\s*\(\s*\)|\bfunction\s+NAME\b", r"#!"),
    "swift": Grammar(r"\bfunc\s+NAME\b", r"import\s"),
    "r": Grammar(r"(?<![\w.])NAME\s*(?:<-|=)\s*(?:function\b|\\\()"),
    "julia": Grammar(r"(?m)\bfunction\s+NAME\s*\(|^NAME\s*\([^\n]*\)[^\n=]*=(?!=)", r"(?:using|import)\s"),
    "d": Grammar(_C_LIKE, r"import\s", r"(?m)^[^\n;{}(]*\b(?:int|void)\s+main\s*\("),
    "rust": Grammar(
        r"\bfn\s+NAME\b", r"use\s", r"(?m)^[^\n;{}(]*\bfn\s+main\s*\(|^[ \t]*#\[cfg\(test\)\]\s*(?:pub\s+)?mod\s+\w+"
    ),
    "racket": Grammar(r"\(define\s*(?:\(\s*|\s+)NAME(?=[\s)])", r"#lang\b|\(require\b"),
    "go": Grammar(r"\bfunc\s+NAME\s*[\[(]", unwanted=r"(?m)^func\s+(?:main|Test\w*)\s*\("),
    "lua": Grammar(r"\bfunction\s+NAME\b|\bNAME\s*=\s*function\b"),
    "perl": Grammar(r"\bsub\s+NAME\b", r"use\s"),
    "ruby": Grammar(r"\bdef\s+NAME\b", r"require\s"),
    "scala": Grammar(r"\bdef\s+NAME\b", r"import\s", r"(?m)^[^\n;{}]*\bdef\s+main\s*\("),
}
# What may hold a brace that opens or closes nothing, before the braces that do. Single quotes hold one character, since
# Rust has lone ones; in scripts they hold strings.
_BOTH = r'//[^\n]*|/\*.*?\*/|""".*?"""|r(#+)".*?"\1|@"(?:[^"]|"")*"|"(?:\\.|[^"\\\n])*"|[{}]'
TOKEN = re.compile(_BOTH + r"|'(?:\\[^'\n]+|[^'\\\n])'", re.DOTALL)
SCRIPT_TOKEN = re.compile(_BOTH + r"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`", re.DOTALL)
SCRIPTS = ("javascript", "typescript", "php")
CLASS = re.compile(r"(?m)^[^\n;{}\"/*]*\b(?:class|struct|record|object)\s+\w+[^;{}]*\{")


@functools.cache
def stand_in(name: str) -> str:
    """The text of a file of stand_ins/."""
    return (STAND_INS / name).read_text(encoding="utf-8")


@functools.lru_cache(maxsize=4096)
def _definition(language: str, name: str) -> re.Pattern[str]:
    return re.compile(GRAMMARS[language].definition.replace("NAME", name))


def defined_at(language: str, name: str, code: str) -> int:
    """Where a function's definition is found in some code; -1 where it is not.

    >>> defined_at("cpp", "f", "int g() { return f(1); }"), defined_at("cpp", "f", "long f(int x) { return x; }")
    (-1, 3)
    """
    found = _definition(language, re.escape(name)).search(code)
    return found.start() if found else -1


def defined_names(language: str, code: str) -> set[str]:
    """The names of all functions that some code defines.

    >>> sorted(defined_names("rust", "fn one() {}\\npub fn two() {}"))
    ['one', 'two']
    """
    found = _definition(language, r"(\w+)").findall(code)
    return {name for each in found for name in ([each] if isinstance(each, str) else each) if name}


def answer_code(language: str, name: str, text: str) -> str:
    """The code of a chat answer: the first block that defines the function, else what goes on after the prompt.

    The prompt may have left a fence open, which an answer that only continues will close.
    """
    text = text.replace("\r\n", "\n")
    for block in code_blocks(text):
        if defined_at(language, name, block) >= 0:
            return textwrap.dedent(block)
    before, _, after = text.partition("```")
    if text.count("```") % 2 == 1 and (not after.strip() or after.startswith("\n")):
        return before
    return chat_code(text, (name,))


def block_end(language: str, code: str, start: int) -> int:
    """The place behind the brace that closes the first one opened from `start` on; the code's end where none does.

    >>> code = "int f() { char c = '}'; // }\\n { } } int g() {}"
    >>> code[block_end("cpp", code, 0) :]
    ' int g() {}'
    """
    depth = 0
    for token in (SCRIPT_TOKEN if language in SCRIPTS else TOKEN).finditer(code, start):
        if token[0] == "{":
            depth += 1
        elif token[0] == "}":
            depth -= 1
            if depth <= 0:
                return token.end()
    return len(code)


def without_unwanted(language: str, code: str) -> str:
    """Code without its own main function or tests.

    >>> without_unwanted("cpp", "int f() { return 1; }\\nint main() { f(); }\\nint g() { return 2; }")
    'int f() { return 1; }\\n\\nint g() { return 2; }'
    """
    pattern = re.compile(GRAMMARS[language].unwanted)
    while found := pattern.search(code):
        code = code[: found.start()] + code[block_end(language, code, found.start()) :]
    return code


def with_headers(language: str, given: str, code: str) -> str:
    """Code after the lines of `given` that make names known; the code's own copies of these are left out.

    >>> with_headers("python", "import re\\n\\ndef f():\\n", "import re\\nx = 1")
    'import re\\nx = 1'
    """
    header = re.compile(GRAMMARS[language].header)
    lines = [line for line in given.split("\n") if header.match(line)]
    known = set(map(str.rstrip, lines))
    rest = [line for line in code.split("\n") if line.rstrip() not in known]
    return "\n".join([*dict.fromkeys(lines), *rest])


def with_helpers(language: str, name: str, given: str, code: str) -> str:
    """Code after the functions that `given` has before `name`, unless the code defines one of those itself."""
    place = defined_at(language, name, given)
    before = given[: given.rfind("\n", 0, place) + 1] if place >= 0 else ""
    header = re.compile(GRAMMARS[language].header)
    rest = "\n".join(line for line in before.split("\n") if not header.match(line))
    helpers = defined_names(language, rest) - {name}
    return f"{rest}\n{code}" if helpers and not helpers & defined_names(language, code) else code


@dataclass(frozen=True, slots=True)
class Held:
    """Code around a class: what is before it, the class, what is behind it."""

    before: str
    holder: str
    after: str


def held_at(language: str, code: str, place: int) -> Held | None:
    """The outermost class around a place, or None."""
    for found in CLASS.finditer(code):
        end = block_end(language, code, found.end() - 1)
        if found.start() <= place < end:
            return Held(code[: found.start()], code[found.start() : end], code[end:])
    return None


def go_imports(code: str) -> tuple[list[str], str]:
    """The imports of a Go file, and its text without them and without its package.

    >>> go_imports('package main\\nimport (\\n\\t"fmt"\\n\\tm "math"\\n)\\nfunc f() {}')
    (['"fmt"', 'm "math"'], '\\n\\nfunc f() {}')
    """
    found: list[str] = []

    def taken(match: re.Match[str]) -> str:
        found.extend(re.findall(r'(?:[\w.]+[ \t]+)?"[^"\n]+"', match[0]))
        return ""

    code = re.sub(r"(?m)^[ \t]*package[ \t]+\w+[ \t]*$", "", code)
    code = re.sub(r'(?m)^import\s*\([^)]*\)|^import\s+(?:[\w.]+[ \t]+)?"[^"\n]+"', taken, code)
    return found, code


def go_file(package: str, imports: Iterable[str], body: str, tests: str) -> str:
    """A Go file but for its tests; imports that nothing uses are left out, since Go refuses them."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", f"{body}\n{tests}", flags=re.DOTALL)
    used = "".join(f"import {each}\n" for each in dict.fromkeys(imports) if _is_used(each, text))
    return f"package {package}\n{used}{body}"


def _is_used(imported: str, text: str) -> bool:
    alias, _, path = imported.rpartition(" ")
    name = alias.strip() or path.strip('"').split("/")[-1]
    return name in ("_", ".") or re.search(rf"\b{re.escape(name)}\.[A-Za-z]", text) is not None


def with_openssl(code: str) -> str:
    """C++ code with stand-ins for the headers that are no part of a compiler."""
    for header, name in (("boost/any.hpp", "any.hpp"), ("openssl/md5.h", "md5.hpp")):
        code = re.sub(rf"#\s*include\s*<{re.escape(header)}>", lambda _, name=name: stand_in(name), code, count=1)
    return code


def with_tuples(code: str, tests: str) -> str:
    """Java code whose imports of javatuples are replaced by a class of the same file, before its first class."""
    code = re.sub(r"(?m)^[ \t]*import[ \t]+org\.javatuples\.[\w*]+[ \t]*;[ \t]*$", "", code).replace(
        "org.javatuples.", ""
    )
    wanted = re.search(r"\bPair\b", code + tests) and not re.search(r"\b(?:class|record)\s+Pair\b", code)
    if not wanted:
        return code
    first = re.search(r"(?m)^(?:(?:public|final|abstract)\s+)*(?:class|interface|enum|record)\s", code)
    place = first.start() if first else len(code)
    return code[:place] + stand_in("Pair.java") + code[place:]


def python_program(code: str) -> str:
    """Python code after the imports that harnesses put before it; an import from __future__ stays first."""
    future = "".join(f"{line}\n" for line in _future(code))
    numpy = "import numpy\nimport numpy as np\n" if re.search(r"\b(?:np|numpy)\.", code) else ""
    return f"{future}{PYTHON_IMPORTS}{numpy}{code}"


def _future(code: str) -> Iterator[str]:
    return (line for line in code.split("\n") if line.startswith("from __future__ import "))
