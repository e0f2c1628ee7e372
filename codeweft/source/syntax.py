"""Find the syntax nodes of source text: the only file that knows tree-sitter.

In:  text and its language's name.  Out: a parser, or the character spans of the text's syntax nodes.
Source: the syntax-node option for fill-in-the-middle cuts (DeepSeek-Coder-V2 §3.1 cuts at random places).

Unusual: tree-sitter counts bytes and Python counts characters, so spans are converted; a file with errors still has
nodes, since the parser recovers. tree-sitter is imported inside, so that the rest works where it is not installed.
"""

import importlib
from functools import cache
from typing import TYPE_CHECKING

from codeweft.base.errors import UserError

if TYPE_CHECKING:
    from tree_sitter import Parser

# Language name -> grammar package and the function in it that gives the grammar.
GRAMMARS = {
    "Python": ("tree_sitter_python", "language"),
    "JavaScript": ("tree_sitter_javascript", "language"),
    "JSX": ("tree_sitter_javascript", "language"),
    "TypeScript": ("tree_sitter_typescript", "language_tsx"),
    "Java": ("tree_sitter_java", "language"),
    "C": ("tree_sitter_c", "language"),
    "C++": ("tree_sitter_cpp", "language"),
    "Go": ("tree_sitter_go", "language"),
    "Rust": ("tree_sitter_rust", "language"),
    "C#": ("tree_sitter_c_sharp", "language"),
    "PHP": ("tree_sitter_php", "language_php"),
    "Ruby": ("tree_sitter_ruby", "language"),
    "Shell": ("tree_sitter_bash", "language"),
    "Lua": ("tree_sitter_lua", "language"),
    "Scala": ("tree_sitter_scala", "language"),
}


@cache
def parser(language: str) -> "Parser | None":
    """A tree-sitter parser; None for a language without a grammar here. UserError where tree-sitter is missing."""
    if language not in GRAMMARS:
        return None
    package, function = GRAMMARS[language]
    try:
        tree_sitter = importlib.import_module("tree_sitter")
        grammar = importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"Syntax nodes of {language} need tree-sitter, which is not installed ({error.name}).",
            "Run `pip install 'codeweft[curate]'`.",
        ) from error
    return tree_sitter.Parser(tree_sitter.Language(getattr(grammar, function)()))  # ty: ignore[deprecated]


def node_spans(text: str, language: str) -> list[tuple[int, int]] | None:
    """Spans (start, end) in characters of every named node except the root, sorted, each once.

    Cutting a text before and after such a span leaves a whole construct in the middle. None: no grammar.

    >>> node_spans("x = 1", "Python")
    [(0, 1), (0, 5), (4, 5)]
    """
    reader = parser(language)
    if reader is None:
        return None
    data = text.encode("utf-8")
    cursor = reader.parse(data).walk()
    spans = set()
    descending = True
    while True:
        if descending and cursor.goto_first_child():
            pass
        elif cursor.goto_next_sibling():
            descending = True
        elif cursor.goto_parent():
            descending = False
            continue
        else:
            break
        node = cursor.node
        assert node is not None
        if node.is_named and node.end_byte > node.start_byte:
            spans.add((node.start_byte, node.end_byte))
    if len(data) == len(text):
        return sorted(spans)
    character = _characters(text)
    return sorted((character[start], character[end]) for start, end in spans)


def _characters(text: str) -> list[int]:
    """For every byte offset of the UTF-8 text, the number of characters that begin before it."""
    offsets = []
    for index, letter in enumerate(text):
        code = ord(letter)
        offsets += [index] * (1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4)
    return [*offsets, len(text)]
