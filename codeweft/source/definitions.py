"""Find where a name is defined: the lines of its outermost function, class, type or assignment.

In:  text, its language's name, a name.  Out: the first and the last line.

Unusual: the patterns run over the text's mask (masks.py), so that neither comments nor strings define anything. Broken
code gives what can still be seen and never an error.
"""

import re

from codeweft.source.imports import LANGUAGES
from codeweft.source.masks import masked

_WORDS = "class|interface|enum|record|struct|union|trait|type|func|fn|function|mod|namespace|const|let|var|static"
_ENDLESS = ("JavaScript", "JSX", "TypeScript", "Vue", "Go")  # a line end may stand for a semicolon


def defined(text: str, language: str, name: str) -> tuple[int, int] | None:
    r"""The first and last line, from 1, of the outermost definition of a name, decorators and annotations included.

    Functions, classes, types and assigned names of Python, Java and the other languages with braces. None: not found.

    >>> defined("import os\n\n@cached\ndef f(\n  a,\n):\n    return a\n\nx = 1\n", "Python", "f")
    (3, 7)
    """
    if language not in LANGUAGES or not re.fullmatch(r"[\w$]+", name):
        return None
    mask = masked(text, language)
    span = (_defined_in_python if language == "Python" else _defined_with_braces)(mask, re.escape(name), language)
    return span and (text.count("\n", 0, span[0]) + 1, text.count("\n", 0, span[1]) + 1)


def _width(line: str) -> int:
    return len(line.expandtabs()) - len(line.expandtabs().lstrip())


def _outermost(mask: str, pattern: str) -> re.Match[str] | None:
    def order(match: re.Match[str]) -> tuple[int, bool]:  # a class or function before a name that is only assigned
        return _width(_line(mask, match.start())), match.groupdict(default=None).get("block") is None

    return min(re.finditer(pattern, mask, re.MULTILINE), key=order, default=None)


def _line(mask: str, place: int) -> str:
    return mask[mask.rfind("\n", 0, place) + 1 :].partition("\n")[0]


def _with_lines_above(mask: str, start: int, marks: tuple[str, ...]) -> int:
    """The beginning of the line, or of the decorators right above it."""
    start = mask.rfind("\n", 0, start) + 1
    while start and _line(mask, start - 1).lstrip().startswith(marks):
        start = mask.rfind("\n", 0, start - 1) + 1
    return start


def _defined_in_python(mask: str, word: str, language: str) -> tuple[int, int] | None:
    block = rf"(?P<block>(?:async[ \t]+)?def|class)[ \t]+{word}\b"
    assigned = rf"(?:type[ \t]+)?{word}[ \t]*(?::[^=\n]*)?=(?!=)"
    match = _outermost(mask, rf"^[ \t]*(?:{block}|{assigned})")
    if match is None:
        return None
    line = _line(mask, match.start())
    place = match.start() + len(line)
    end = place - len(line) + len(line.rstrip())
    while match["block"] and place < len(mask):
        following = _line(mask, place + 1)
        place += 1 + len(following)
        if following.strip():
            if _width(following) <= _width(line):
                break
            end = place - len(following) + len(following.rstrip())
    return _with_lines_above(mask, match.start(), ("@",)), end


def _defined_with_braces(mask: str, word: str, language: str) -> tuple[int, int] | None:
    prefix = r"^(?!\s*(?:return|new|throw|else|case|await)\b)[ \t]*(?:[\w<>\[\],.?*&:@$ \t]*[ \t*&>\]])?"
    match = (
        _outermost(mask, rf"(?:\b|@)(?:{_WORDS})\*?\s+(?:\([^()]*\)\s*|mut\s+)?{word}(?![\w$])")
        or _outermost(mask, rf"{prefix}{word}\s*\([^;{{}}]*\)[^;{{}}=()]*\{{")
        or _outermost(mask, rf"{prefix}(?<![\w$]){word}\s*(?:=(?!=)|;)")
    )
    if match is None:
        return None
    return _with_lines_above(mask, match.start(), ("@", "#[")), _end_of_block(mask, match.start(), language)


def _end_of_block(mask: str, start: int, language: str) -> int:
    """The closing brace, semicolon or line end of what begins here; the end of the text where there is none."""
    depth = 0
    for token in re.finditer(r"[(\[{)\]};\n]", mask[start:]):
        place, letter = start + token.start(), token[0]
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if depth < 0 or (depth == 0 and letter == "}"):
                return place
        elif depth == 0 and letter == ";":
            return place
        elif depth == 0 and language in _ENDLESS:
            goes_on = re.search(r"[=,(+\-*/&|?:<]\s*$", mask[start:place]) or re.match(
                r"\s*[{.?:&|+*/=)]", mask[place:]
            )
            if not goes_on:
                return place
    return len(mask.rstrip())
