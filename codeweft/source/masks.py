"""Masks of source texts: copies as long as the text, in which comments are blank and strings are filled up.

In:  text and its language's name.  Out: the mask; what stands at a place of it stands at that place of the text.

Unusual: in Python's mask a statement is one line. Broken code gives what can still be seen and never an error.
"""

import re
from functools import lru_cache

FILLER = "\x01"  # what a masked string holds between its quotes

_PYTHON_TOKEN = re.compile(
    r'(?P<string>"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\')'
    r"|(?P<comment>\#[^\n]*)|(?P<join>\\\r?\n)|(?P<open>[\[({])|(?P<close>[\])}])|(?P<line>\n)",
    re.DOTALL,
)
# what no bracket holds at the beginning of a line: the bracket before was never closed
_STATEMENT = re.compile(
    r"@\w|[ \t]*(?:(?:async[ \t]+)?def[ \t]|class[ \t]+\w|import[ \t]|from[ \t]*[\w.]+[ \t]+import\b)"
)
_COMMENT = r"(?P<comment>//[^\n]*|/\*.*?(?:\*/|\Z))"
_QUOTED = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
_BRACE_TOKENS = {
    "Java": re.compile(rf'{_COMMENT}|"""(?:\\.|[^\\])*?"""|{_QUOTED}', re.DOTALL),
    "Rust": re.compile(
        rf"{_COMMENT}|r(?P<fence>\#*)\".*?\"(?P=fence)|\"(?:\\.|[^\"\\])*\"|'(?:\\[^\n']+|[^'\\\n])'", re.DOTALL
    ),
    "C++": re.compile(rf"{_COMMENT}|R\"(?P<fence>[^()\s]*)\(.*?\)(?P=fence)\"|{_QUOTED}", re.DOTALL),
}
_BRACE_TOKEN = re.compile(rf"{_COMMENT}|{_QUOTED}|`(?:\\.|[^\\`])*`", re.DOTALL)


@lru_cache(maxsize=64)
def masked(text: str, language: str) -> str:
    """A copy of the same length without comments and contents of strings; a byte order mark becomes a space.

    Python: line ends inside brackets, strings and after a backslash become spaces, so that a line is a statement.
    """
    text = text.replace("\ufeff", " ", 1) if text.startswith("\ufeff") else text
    if language == "Python":
        return _masked_python(text)

    def fill(match: re.Match[str]) -> str:
        token = match[0]
        if match["comment"] is not None:
            return re.sub(r"[^\n]", " ", token)
        if not token.startswith(("'", '"', "`")):  # the letter and the fence of a raw string
            return '"' + FILLER * (len(token) - 2) + '"'
        return token[0] + FILLER * (len(token) - 2) + token[-1]

    return _BRACE_TOKENS.get(language, _BRACE_TOKEN).sub(fill, text)


def _masked_python(text: str) -> str:
    pieces, place, depth = [], 0, 0
    for match in _PYTHON_TOKEN.finditer(text):
        token, kind = match[0], match.lastgroup
        pieces.append(text[place : match.start()])
        place = match.end()
        if kind == "string":
            token = token[0] + FILLER * (len(token) - 2) + token[-1]
        elif kind in ("comment", "join"):
            token = " " * len(token)
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth = max(0, depth - 1)
        elif depth and _STATEMENT.match(text, place):
            depth = 0
        elif depth:
            token = " "
        pieces.append(token)
    return "".join([*pieces, text[place:]])
