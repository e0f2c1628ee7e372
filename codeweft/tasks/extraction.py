"""The code in an answer: out of a chat answer's fences, or the part of a continuation that belongs to it.

In:  generated text.  Out: code.

Unusual: published scores have been off by tens of points because a newline or an open fence was handled in another way
(docs/evaluation.md), so every rule here is one function with its own test. Answers are read as Python, never run.
"""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence

FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)
FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[^\n]*\n?", re.MULTILINE)
BEGINS = re.compile(r"^(?:import|from|def|async|class)[ \t]|^@", re.MULTILINE)  # first line of a Python program


def code_blocks(text: str) -> list[str]:
    r"""The contents of all fenced blocks, in order, without a fence's own indentation; the last may be left open.

    >>> code_blocks("So:\n```python\nx = 1\n```\nDone.")
    ['x = 1\n']
    """
    return [textwrap.dedent(match[3]) for match in FENCE.finditer(text.replace("\r\n", "\n"))]


def chat_code(text: str, names: Sequence[str] = ()) -> str:
    r"""The code of a chat answer: the first block that holds all `names`, else the first block, else the whole text.

    An answer that goes on inside a fence which the prompt left open ends at its first closing fence.

    >>> chat_code("def f(): pass\n```\nThis defines f.", ["f"])
    'def f(): pass\n'
    """
    text = text.replace("\r\n", "\n")
    fences = re.findall(r"^[ \t]*```", text, re.MULTILINE)
    first = re.split(r"^[ \t]*```", text, maxsplit=1, flags=re.MULTILINE)[0]
    if len(fences) % 2 == 1 and first.strip() and names and all(holds(first, name) for name in names):
        return first
    blocks = code_blocks(text)
    fitting = [block for block in blocks if all(holds(block, name) for name in names)]
    return (fitting or blocks or [text])[0]


def holds(code: str, name: str) -> bool:
    """Whether code says a name, as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", code) is not None


def until(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of some strings."""
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places)] if places else text


# --- Python --------------------------------------------------------------------------------------------------------


def python_code(text: str, name: str) -> str:
    r"""The Python of a chat answer that is to define a function, or to be its body.

    In this order: the first piece that defines it (a piece is a block, or what stands before the first fence, since
    the prompt may have left one open), a body before a bare fence, the first block, and without any fence as many
    lines as are a program.

    >>> python_code("```python\nprint(f(1))\n```\nwith\n```python\ndef f(x): return x\n```", "f")
    'def f(x): return x\n'
    >>> python_code("    return x\n```\nThat is all.", "f")
    '    return x\n'
    """
    text = text.replace("\r\n", "\n")
    fence = re.search(r"^[ \t]*(?:`{3,}|~{3,})[ \t]*(\S*)", text, re.MULTILINE)
    if fence is None:
        return _without_words(text, name)
    before, blocks = text[: fence.start()], code_blocks(text)
    if defines(before, name):
        return _without_words(before, name)
    for block in blocks:
        if defines(block, name):
            return block
    if before.strip() and not fence[1] and is_python("def body():\n" + _indented(before)):
        return before
    return blocks[0] if blocks else before


def defines(code: str, name: str) -> bool:
    """Whether code defines a function (or sets a name) at its left edge."""
    return bool(name) and _definition(name).search(code) is not None


def _definition(name: str) -> re.Pattern[str]:
    word = re.escape(name)
    return re.compile(rf"^(?:(?:async[ \t]+)?def[ \t]+{word}\b|{word}[ \t]*=[^=])", re.MULTILINE)


def _without_words(text: str, name: str) -> str:
    """Text without fences, without the sentences before and after its program."""
    if is_python(text):
        return text
    if not defines(text, name):
        return _longest(text, body=True) or text
    programs = (_longest(text[start.start() :]) for start in BEGINS.finditer(text))
    return next((program for program in programs if defines(program, name)), text)


def _longest(text: str, body: bool = False) -> str:
    """As many of the first lines as are a program, or a function's body."""
    head = "def body():\n" if body else ""
    lines = text.split("\n")
    while any(lines):
        code = "\n".join(lines) + "\n"
        error = _syntax_error(head + (_indented(code) if body else code))
        if error is None:
            return code
        place = (error.lineno or len(lines)) - head.count("\n")
        lines = lines[: max(0, min(len(lines), place) - 1)]
    return ""


def is_python(code: str) -> bool:
    """Whether code compiles as Python, as far as its grammar says."""
    return _syntax_error(code) is None


def parsed(code: str) -> ast.Module:
    """The syntax tree, without Python's warnings of escapes in other people's strings; SyntaxError for no Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def _syntax_error(code: str) -> SyntaxError | None:
    try:
        parsed(code)
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError) as error:  # null characters, expressions nested too deep
        return SyntaxError(str(error))
    return None


def completed(prompt: str, name: str, answer: str) -> str:
    """A Python program out of a prompt that ends in an open function, and code that answers it.

    Code that defines the function comes after what the prompt has before it (imports, other functions); code that does
    not is its body, at whatever indentation it was written.
    """
    if defines(answer, name):
        found = _definition(name).search(prompt)
        before = prompt[: found.start()] if found else f"{prompt}\n"
        return "".join(FUTURE.findall(answer)) + before + without_main(FUTURE.sub("", answer))
    programs = [f"{prompt.rstrip()}\n{body}\n" for body in _bodies(answer)]
    return next((program for program in programs if is_python(program)), programs[0])


def _bodies(answer: str) -> Iterator[str]:
    """A body as it may have been meant: all of it moved, as it stands, or without its first line's indentation."""
    yield _indented(answer)
    whole = without_main(answer).strip("\n")
    yield whole
    yield f"    {whole}"


def _indented(code: str) -> str:
    """A function's body, four spaces from the left."""
    return textwrap.indent(textwrap.dedent(code).strip("\n"), "    ")


def without_main(code: str) -> str:
    """A program without the demonstration at its end, which may wait for input.

    >>> without_main("x = 1\\nif __name__ == '__main__':\\n    input()\\n")
    'x = 1\\n'
    """
    return re.split(r"^if[ \t]+__name__[ \t]*==.*$", code, maxsplit=1, flags=re.MULTILINE)[0]
