"""The code in an answer: out of a chat answer's fences, or the part of a continuation that belongs to it.

In:  generated text.  Out: code.

Unusual: published scores have been off by tens of points because a newline or an open fence was handled in another way
(docs/evaluation.md), so every rule here is one function with its own test.
"""

import re
import textwrap
from collections.abc import Sequence

FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)


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


def completed(prompt: str, name: str, answer: str) -> str:
    """A Python program out of a prompt that ends in an open function, and code that answers it.

    Code that defines the function comes after what the prompt has before it (imports, other functions); code that does
    not is its body.
    """
    definition = re.compile(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(name)}[ \t]*\(", re.MULTILINE)
    if definition.search(answer):
        found = definition.search(prompt)
        return (prompt[: found.start()] if found else prompt + "\n") + without_main(answer)
    body = textwrap.dedent(answer).strip("\n")
    return f"{prompt.rstrip()}\n{textwrap.indent(body, '    ')}\n"


def without_main(code: str) -> str:
    """A program without the demonstration at its end, which may wait for input.

    >>> without_main("x = 1\\nif __name__ == '__main__':\\n    input()\\n")
    'x = 1\\n'
    """
    return re.split(r"^if[ \t]+__name__[ \t]*==.*$", code, maxsplit=1, flags=re.MULTILINE)[0]
