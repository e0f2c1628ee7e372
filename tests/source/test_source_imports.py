"""Imports and definitions: against Python's own parser, and against hand-written repositories of other languages."""

import ast
import sysconfig
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeweft.source.definitions import defined
from codeweft.source.imports import Import, Repository, imports, resolve
from codeweft.source.masks import masked

LANGUAGES = ["Python", "Java", "JavaScript", "TypeScript", "Go", "Rust", "C", "C++"]
Row = tuple[str, str, str, int, int]


def rows(text: str, language: str) -> list[Row]:
    """One row a name: module, name there, name here, first and last line."""
    found = imports(text, language)
    return [(each.module, *pair, each.start, each.end) for each in found for pair in each.names or [("", "")]]


def of_parser(text: str) -> list[Row]:
    """The same rows by Python's own parser."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if isinstance(node, ast.Import):
                    pair = alias.name, "", alias.asname or alias.name
                else:
                    pair = "." * node.level + (node.module or ""), alias.name, alias.asname or alias.name
                found.append((*pair, node.lineno, node.end_lineno or 0))
    return sorted(found)


def standard_library(every: int) -> list[str]:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    files += sorted(Path(sysconfig.get_paths()["stdlib"]).glob("asyncio/*.py"))
    return [file.read_text("utf-8") for file in files[::every]]


TRICKY = '''"""Says:

import nothing
from nowhere import nothing
"""
from __future__ import annotations

import a, b.c as d; import e
from . import f
from .. g import h  # from nowhere import nothing
from ...i.j import (
    k,  # (the first
    l as m,
)
from n import \\
    o, p as q
from r import *
if TYPE_CHECKING: from s import t
try:
    import u
except ImportError: import v
text = "import nothing", f"""
import nothing
""", 'it\\'s'; from w import x
def lazily():
    from.y import(z)
    important = from_here = 1
    yield from a.b
'''


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_tricky_imports_are_those_that_pythons_parser_finds(end: str, mark: str):
    expected = of_parser(TRICKY)
    assert len(expected) == 16
    assert sorted(rows(mark + TRICKY.replace("\n", end), "Python")) == expected


def test_imports_of_the_standard_library_are_those_that_pythons_parser_finds():
    files = standard_library(20)
    assert len(files) > 9
    for text in files:
        assert sorted(rows(text, "Python")) == of_parser(text)


def test_a_file_that_breaks_off_keeps_the_imports_before_the_break():
    head = "import a\nfrom b import (\n    c,\n)\n"
    for broken in ("def f(x, [y:\n    return {1, 2\n", 'x = """never closed\n', "from d import (e,\n", "'", "\\"):
        assert rows(head + broken, "Python")[:2] == [("a", "", "a", 1, 1), ("b", "c", "c", 2, 4)]
    assert ("g", "", "g", 4, 4) in rows("from d import (e,\n    f\ndef h(x):\n    import g\n", "Python")


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=60, deadline=None)
@given(text=st.text("imports from\n\r\t\"'`()[]{};:.,*/\\#@=<>a𝒳é0_", max_size=120))
def test_no_text_is_an_error_and_every_span_lies_in_it(language: str, text: str):
    assert len(masked(text, language)) == len(text)
    for each in imports(text, language):
        assert 1 <= each.start <= each.end <= text.count("\n") + 1
    span = defined(text, language, "a")
    assert span is None or 1 <= span[0] <= span[1] <= text.count("\n") + 1


JAVA = """\ufeffpackage a.b; /* import no.No; */
import java.util.List; import static a.c.Tools.help;
import a.d.*;
// import no.No;
import static a.e.Names.*
class X { String s = "import no.No;"; char c = '"'; }
"""
SCRIPT = """import {a as b, type C} from './a'
import D, * as e from "../d.js"; import './side'
export { f } from './f'
const { g: h, i } = require('./g'), s = "import x from './no'"
const j = require("outside")
import(`./late`) // import z from './no'
"""
GO = """package main
import "fmt"
import (
    "github.com/u/r/pkg/x"
    y "github.com/u/r/pkg/z" // "no"
)
"""
RUST = """mod deep;
use crate::a::{self, b::C as D, d::{e, f::*}};
use super::up; // use crate::no;
const S: &str = r#"use crate::no;"#;
use std::fmt;
"""


def test_imports_of_other_languages_have_their_names_and_lines():
    assert rows(JAVA.replace("\n", "\r\n"), "Java") == [
        ("java.util", "List", "List", 2, 2),
        ("a.c.Tools", "help", "help", 2, 2),
        ("a.d", "*", "*", 3, 3),
        ("a.e.Names", "*", "*", 5, 5),
    ]
    assert rows(SCRIPT, "TypeScript") == [
        ("./a", "a", "b", 1, 1),
        ("./a", "C", "C", 1, 1),
        ("../d.js", "default", "D", 2, 2),
        ("../d.js", "*", "e", 2, 2),
        ("./side", "", "", 2, 2),
        ("./f", "f", "f", 3, 3),
        ("./g", "g", "h", 4, 4),
        ("./g", "i", "i", 4, 4),
        ("outside", "default", "j", 5, 5),
        ("./late", "", "", 6, 6),
    ]
    assert rows(GO, "Go") == [
        ("fmt", "", "fmt", 2, 2),
        ("github.com/u/r/pkg/x", "", "x", 4, 4),
        ("github.com/u/r/pkg/z", "", "y", 5, 5),
    ]
    assert [row[:3] for row in rows(RUST, "Rust")] == [
        ("self", "deep", "deep"),
        ("crate::a", "self", "self"),
        ("crate::a::b", "C", "D"),
        ("crate::a::d", "e", "e"),
        ("crate::a::d::f", "*", "*"),
        ("super", "up", "up"),
        ("std", "fmt", "fmt"),
    ]
    includes = '#include <stdio.h>\n #  include "a/b.h"\n/*\n#include "no.h"\n*/\nchar *s = "#include \\"no.h\\"";\n'
    assert imports(includes, "C++") == [Import("a/b.h", (), 2, 2)]
    assert imports("import x", "APL") == []


PYTHON_FILES = [
    "src/pkg/__init__.py", "src/pkg/json.py", "src/pkg/a.py", "src/pkg/sub/__init__.py", "src/pkg/sub/b.py",
    "src/pkg/sub/c.py", "src/pkg/d/__init__.py", "src/pkg/stub.pyi", "tests/test_a.py", "tests/helper.py", "json/x.py",
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        ("src/pkg/a.py", "from .sub import b", ["src/pkg/sub/b.py"]),
        ("src/pkg/a.py", "from .sub import B", ["src/pkg/sub/__init__.py"]),
        ("src/pkg/a.py", "from . import d, stub", ["src/pkg/d/__init__.py", "src/pkg/stub.pyi"]),
        ("src/pkg/a.py", "from . import *", ["src/pkg/__init__.py"]),
        ("src/pkg/sub/b.py", "from ..a import x", ["src/pkg/a.py"]),
        ("src/pkg/sub/b.py", "from .. import a as other", ["src/pkg/a.py"]),
        ("src/pkg/sub/b.py", "from ..... import a", []),
        ("src/pkg/sub/b.py", "from .b import itself", []),
        ("src/pkg/sub/__init__.py", "from .b import *; from . import c", ["src/pkg/sub/b.py", "src/pkg/sub/c.py"]),
        ("src/pkg/a.py", "import json, os.path", []),
        ("src/pkg/a.py", "import pkg.sub.b as b", ["src/pkg/sub/b.py"]),
        ("tests/test_a.py", "from pkg.json import loads", ["src/pkg/json.py"]),
        ("tests/test_a.py", "import helper", ["tests/helper.py"]),
        ("src/pkg/a.py", "from numpy import sub", []),
    ],
)  # fmt: skip
def test_python_imports_name_the_repositorys_own_files_and_no_others(path: str, line: str, expected: list[str]):
    assert resolve(path, imports(line, "Python"), "Python", Repository(PYTHON_FILES)) == expected


def test_two_files_that_import_each_other_name_each_other():
    repository = Repository(["p/__init__.py", "p/a.py", "p/b.py"])
    assert resolve("p/a.py", imports("from p import b", "Python"), "Python", repository) == ["p/b.py"]
    assert resolve("p/b.py", imports("from p.a import f", "Python"), "Python", repository) == ["p/a.py"]


OTHERS = [
    "one/src/main/java/a/b/X.java", "one/src/main/java/a/c/Tools.java", "one/src/main/java/a/d/P.java",
    "one/src/main/java/a/d/Q.java", "two/src/main/java/a/c/Tools.java", "web/main.ts", "web/a.ts", "web/lib/index.js",
    "web/d.tsx", "cmd/main.go", "pkg/x/x.go", "pkg/x/x_test.go", "pkg/x/y.go", "vendor/github.com/o/e/e.go", "x/x.go",
    "rs/src/lib.rs", "rs/src/deep.rs", "rs/src/a/mod.rs", "rs/src/a/b.rs", "rs/src/a/up.rs", "tool-box/src/lib.rs",
    "tool-box/src/saw.rs", "c/main.c", "c/near.h", "include/lib/far.h", "old/far.h",
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "language", "text", "expected"),
    [
        ("one/src/main/java/a/b/X.java", "Java", "import a.c.Tools;", ["one/src/main/java/a/c/Tools.java"]),
        ("one/src/main/java/a/b/X.java", "Java", "import static a.c.Tools.help;", ["one/src/main/java/a/c/Tools.java"]),
        ("one/src/main/java/a/b/X.java", "Java", "import static a.c.Tools.*;", ["one/src/main/java/a/c/Tools.java"]),
        ("one/src/main/java/a/b/X.java", "Java", "import a.c.Tools.Inner;", ["one/src/main/java/a/c/Tools.java"]),
        ("one/src/main/java/a/b/X.java", "Java", "import a.d.*;", OTHERS[2:4]),
        ("one/src/main/java/a/b/X.java", "Java", "import java.util.*;\nimport java.util.List;", []),
        ("web/main.ts", "TypeScript", "import x from './a'; import './lib'", ["web/a.ts", "web/lib/index.js"]),
        ("web/main.ts", "TypeScript", "import x from './d.js'; import y from 'a'", ["web/d.tsx"]),
        ("web/lib/index.js", "JavaScript", "const x = require('../a')", ["web/a.ts"]),
        ("cmd/main.go", "Go", 'import "github.com/u/r/pkg/x"', ["pkg/x/x.go", "pkg/x/y.go"]),
        ("cmd/main.go", "Go", 'import ("fmt"; "github.com/o/e")', ["vendor/github.com/o/e/e.go"]),
        ("cmd/main.go", "Go", 'import ("github.com/other/x"; "example.org/m/pkg/x")', ["pkg/x/x.go", "pkg/x/y.go"]),
        ("cmd/main.go", "Go", 'import e "github.com/q/r/e/none"', []),
        ("rs/src/lib.rs", "Rust", "mod deep; mod a;", ["rs/src/deep.rs", "rs/src/a/mod.rs"]),
        ("rs/src/deep.rs", "Rust", "use crate::a::b::C;", ["rs/src/a/b.rs"]),
        ("rs/src/a/b.rs", "Rust", "use super::up::f; use super::super::deep;", ["rs/src/a/up.rs", "rs/src/deep.rs"]),
        ("rs/src/a/b.rs", "Rust", "use crate::Error; use std::io;", ["rs/src/lib.rs"]),
        ("rs/src/deep.rs", "Rust", "use tool_box::saw::Blade;", ["tool-box/src/saw.rs"]),
        ("c/main.c", "C", '#include "near.h"\n#include "lib/far.h"\n', ["c/near.h", "include/lib/far.h"]),
        ("c/main.c", "C", '#include "../old/far.h"\n#include "none.h"\n#include <near.h>\n', ["old/far.h"]),
    ],
)
def test_imports_of_other_languages_name_the_repositorys_own_files(
    path: str, language: str, text: str, expected: list[str]
):
    assert resolve(path, imports(text, language), language, Repository(OTHERS)) == expected


def test_functions_and_classes_of_the_standard_library_have_the_lines_that_pythons_parser_gives():
    checked = 0
    for text in standard_library(15):
        with warnings.catch_warnings(action="ignore"):
            body = ast.parse(text).body
        nodes = [each for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
        names = [node.name for node in nodes]
        for node in nodes[:12]:
            if names.count(node.name) == 1:
                start = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                assert defined(text, "Python", node.name) == (start, node.end_lineno), node.name
                checked += 1
    assert checked > 60


@pytest.mark.parametrize(
    ("language", "text", "name", "expected"),
    [
        ("Python", "if x:\n    def f(): pass\nelse:\n    f = 1\ng = f\n", "f", (2, 2)),
        ("Python", 'TABLE: dict = {\n    "a": 1,\n}\nTABLE == 2\n', "TABLE", (1, 3)),
        ("Python", "def f(:\n    return (1\n\ndef g(): pass\n", "f", (1, 2)),
        ("Python", "'''\ndef f(): pass\n'''\n# def f(): pass\nx.f = f(1)\n", "f", None),
        ("Java", '@A("{")\npublic class X<T>\n  extends Y {\n  int f() { return "}"; }\n}\nclass Z {}\n', "X", (1, 5)),
        ("Java", "class X {\n  int g() { return f(1); }\n  @A\n  static int f(int x) {\n    x++;\n  }\n}", "f", (3, 6)),
        ("Java", "class X {\n  static final int N =\n    1;\n  int n = N;\n}\n", "N", (2, 3)),
        ("Java", "class X {\n  Object o = new F() {\n  };\n}\n", "F", None),
        ("TypeScript", "export const f = (a) => {\n  return 1\n}\nconst g = f\n", "f", (1, 3)),
        ("TypeScript", "const a = 1\nconst g = f\nfunction h() {}\n", "g", (2, 2)),
        ("Go", "func (r *T) Run() error {\n\treturn nil\n}\ntype T struct {\n\ta int\n}\n", "T", (4, 6)),
        ("Go", "func (r *T) Run() error {\n\treturn nil\n}\n", "Run", (1, 3)),
        ("Rust", "#[derive(A)]\npub struct S<'a> {\n    s: &'a str,\n}\n", "S", (1, 4)),
        ("C", "int f(int);\nstatic int *f(int x)\n{\n    return 0;\n}\n", "f", (2, 5)),
    ],
)  # fmt: skip
def test_definitions_end_where_they_end(language: str, text: str, name: str, expected: tuple[int, int] | None):
    assert defined(text, language, name) == expected
    assert defined(text.replace("\n", "\r\n"), language, name) == expected
