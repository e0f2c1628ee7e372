"""How a kata looks on the page: the function, the question in a chat, the beginning that a base model goes on from.

In:  bodies, statements, tests.  Out: text in Python or JavaScript.
"""

import json
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from codeweft.base.records import Test

LANGUAGES = ("python", "javascript")
LABELS = {"python": "Python", "javascript": "JavaScript"}
WIDTH = 88  # characters in a line of a comment


def source(language: str, body: str, parameters: Sequence[str], name: str) -> str:
    """The whole function; `solve` in its body is the function itself.

    >>> print(source("javascript", "return n + 1;", ["n"], "compute"))
    function compute(n) {
      return n + 1;
    }
    <BLANKLINE>
    """
    named = re.sub(r"\bsolve\b", name, body)
    indented = textwrap.indent(named, "    " if language == "python" else "  ")
    ending = "" if language == "python" else "}\n"
    return f"{signature(language, name, parameters)}\n{indented}\n{ending}"


def signature(language: str, name: str, parameters: Sequence[str]) -> str:
    """The first line of the function."""
    listed = ", ".join(parameters)
    return f"def {name}({listed}):" if language == "python" else f"function {name}({listed}) {{"


def literal(language: str, value: Any) -> str:
    """A value as the language writes it."""
    return repr(value) if language == "python" else json.dumps(value)


def call(language: str, name: str, test: Test) -> str:
    """A test's call."""
    return f"{name}({', '.join(literal(language, each) for each in test.args)})"


def prompt(language: str, name: str, parameters: Sequence[str], says: str, shown: Sequence[Test]) -> str:
    """The question as a person would ask it."""
    examples = "\n".join(f"{call(language, name, test)} returns {literal(language, test.expected)}" for test in shown)
    return f"Write a {LABELS[language]} function {name}({', '.join(parameters)}). {says}\n\nExamples:\n{examples}\n"


def opening(language: str, name: str, parameters: Sequence[str], says: str, shown: Sequence[Test]) -> str:
    """The beginning of a file that ends where the function's body begins."""
    told = textwrap.wrap(says, WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    if language == "python":
        examples = "".join(f"    >>> {call(language, name, test)}\n    {test.expected!r}\n" for test in shown)
        comment = '    """' + "\n    ".join(told) + f'\n\n{examples}    """\n'
        return f"{signature(language, name, parameters)}\n{comment}"
    examples = "".join(f"// {call(language, name, test)} -> {literal(language, test.expected)}\n" for test in shown)
    comment = "".join(f"// {line}\n" for line in told)
    return f"{comment}{examples}{signature(language, name, parameters)}\n"
