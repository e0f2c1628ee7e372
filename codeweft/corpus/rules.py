"""The file filter rules: each a pure function from a text to None (keep) or the number that broke the rule.

In:  a text, its kind and language, the thresholds.  Out: the first broken rule's name and its number.
Source: DeepSeek-Coder-V2 §2 (the same list as DeepSeek-Coder §2.1, after StarCoder); boundaries as the paper words
them: "exceeding" and "less than" drop, equality keeps.

Unusual: natural language and mathematics are not files of code. They get `empty`, and natural language the share of
letters; line lengths say nothing about prose (a paragraph is often one line), and formulas are few letters.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from codeweft.corpus.config import CorpusConfig

CODE, TEXT, EVERY = ("code",), ("code", "text"), ("code", "math", "text")
_NOT_LETTERS = bytes(code for code in range(256) if not (chr(code).isalpha() and code < 128))


def empty(text: str, config: CorpusConfig) -> float | None:
    """Nothing but white space; without it the averages below would divide by zero. Number: characters."""
    return float(len(text)) if not text.strip() else None


def average_line_length(text: str, config: CorpusConfig) -> float | None:
    """Lines longer than `average_line` (100) characters on average: DeepSeek-Coder-V2 §2.

    Lines are those of `str.splitlines`, without their ends, as in StarCoder's preprocessing/filtering.py.
    """
    lines = text.splitlines()
    average = sum(map(len, lines)) / len(lines)
    return average if average > config.average_line else None


def maximum_line_length(text: str, config: CorpusConfig) -> float | None:
    """A line longer than `maximum_line` (1000) characters: DeepSeek-Coder-V2 §2, lines as above."""
    longest = max(map(len, text.splitlines()))
    return float(longest) if longest > config.maximum_line else None


def alphabetic_share(text: str, config: CorpusConfig) -> float | None:
    """Letters (`str.isalpha`) make up less than `alphabetic` (25 %) of the characters: DeepSeek-Coder-V2 §2."""
    if text.isascii():
        letters = len(text.encode().translate(None, _NOT_LETTERS))  # forty times as fast as asking each character
    else:
        letters = sum(map(str.isalpha, text))
    return letters / len(text) if letters < config.alphabetic * len(text) else None


def xml_header(text: str, config: CorpusConfig) -> float | None:
    """`<?xml version=` within the first 100 characters; never asked of XSLT: DeepSeek-Coder-V2 §2. Number: where."""
    place = text[:100].find("<?xml version=")
    return float(place) if place >= 0 else None


# What begins markup: a comment, a declaration or instruction, or a tag's name.
_MARKUP = re.compile(r"<(?:(?P<comment>!--)|(?P<declaration>[!?])|/?(?P<name>[a-zA-Z][^\s/>]*))")
# The rest of a tag: a ">" inside the quotes of a value does not end it. Nothing is tried twice (atomic, possessive).
_TAG_REST = re.compile(r"""(?>=\s*"[^"]*"|=\s*'[^']*'|[^>])*+>""")
_HIDDEN_END = {name: re.compile(rf"</{name}[\s/>]", re.IGNORECASE) for name in ("script", "style")}


def visible_characters(text: str) -> int:
    """Characters of an HTML file's text outside tags, comments, scripts and styles; references count as what they mean.

    What the end of the file breaks off is not visible, as in browsers. Time is linear in the length, whatever the text:
    the standard library's parser takes hours for a megabyte of unclosed tags. StarCoder asked BeautifulSoup.

    >>> visible_characters("<p>ab<script>cdef</script>&amp;</p><!-- g -->")
    3
    """
    visible = place = 0
    while place >= 0:
        markup = _MARKUP.search(text, place)
        visible += len(html.unescape(text[place : markup.start() if markup else None]))
        place = _markup_end(text, markup) if markup else -1
    return visible


def _markup_end(text: str, markup: re.Match[str]) -> int:
    """Where markup ends, with all that it hides; -1 where the file ends first."""
    if markup["comment"]:
        return _behind(text, "-->", markup.start() + 2)
    if markup["declaration"]:
        return _behind(text, ">", markup.end())
    rest = _TAG_REST.match(text, markup.end())
    if rest is None:
        return -1
    hidden = _HIDDEN_END.get(markup["name"].lower())
    if hidden is None or text[markup.start() + 1] == "/" or rest[0].endswith("/>"):
        return rest.end()
    close = hidden.search(text, rest.end())
    return close.start() if close else -1


def _behind(text: str, mark: str, place: int) -> int:
    found = text.find(mark, place)
    return found + len(mark) if found >= 0 else -1


def html_visible_text(text: str, config: CorpusConfig) -> float | None:
    """HTML whose visible text is under 20 % of the file or under 100 characters: DeepSeek-Coder-V2 §2.

    The paper keeps "at least"; StarCoder's code keeps strictly more than both. Number: the share.
    """
    visible = visible_characters(text)
    kept = visible >= config.html_visible_share * len(text) and visible >= config.html_visible_characters
    return None if kept else visible / len(text)


def data_length(text: str, config: CorpusConfig) -> float | None:
    """JSON and YAML under 50 or over 5000 characters: DeepSeek-Coder-V2 §2."""
    return None if config.data_minimum <= len(text) <= config.data_maximum else float(len(text))


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule and what it applies to: kinds; of code, only the named languages, or all but the excepted."""

    name: str
    check: Callable[[str, CorpusConfig], float | None]
    kinds: tuple[str, ...] = CODE
    languages: tuple[str, ...] = ()
    excepted: tuple[str, ...] = ()

    def applies(self, kind: str, language: str) -> bool:
        """Whether the rule is asked of such a document."""
        named = not self.languages or language in self.languages
        return kind in self.kinds and named and language not in self.excepted


RULES = (
    Rule("empty", empty, EVERY),
    Rule("average_line_length", average_line_length),
    Rule("maximum_line_length", maximum_line_length),
    Rule("alphabetic_share", alphabetic_share, TEXT),
    Rule("xml_header", xml_header, excepted=("XSLT",)),
    Rule("html_visible_text", html_visible_text, languages=("HTML",)),
    Rule("data_length", data_length, languages=("JSON", "YAML")),
)


def broken(text: str, kind: str, language: str, config: CorpusConfig) -> tuple[str, str] | None:
    """The first rule, in the paper's order, that the text breaks, with its number; None: keep it."""
    for rule in RULES:
        if rule.applies(kind, language):
            number = rule.check(text, config)
            if number is not None:
                return rule.name, f"{number:.4g}"
    return None
