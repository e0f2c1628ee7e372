"""Tell the programming language of a file from its name and first bytes.

In:  a path and the head of the file.  Out: one of the 338 names of DeepSeek-Coder-V2's list, one of the few beside it
(Markdown, YAML, reStructuredText), or None.
Source: DeepSeek-Coder-V2 §2 and appendix A (338 languages); the table itself is `languages.toml`.

Unusual: a file's content is looked at only where the name leaves a choice (an extension that several languages claim,
no extension at all), because asking enry costs about 0.1 ms a file and opening the question invites wrong answers.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from codeweft.base.errors import UserError

TABLE = Path(__file__).with_name("languages.toml")
HEAD_BYTES = 16_384  # what detect() looks at; longer heads are cut


@dataclass(frozen=True, slots=True)
class Language:
    """One row of the table; `listed` tells the 338 of the paper from those beside."""

    name: str
    listed: bool
    extensions: tuple[str, ...] = ()
    filenames: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    linguist: tuple[str, ...] = ()
    line_comment: str = ""
    block_comment: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Table:
    languages: dict[str, Language]
    by_extension: dict[str, tuple[str, ...]]
    by_filename: dict[str, str]
    by_interpreter: dict[str, str]
    by_linguist: dict[str, str]
    ambiguous: frozenset[str]


def _row(name: str, listed: bool, values: dict[str, Any]) -> Language:
    fixed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Language(name=name, listed=listed, **fixed)


@cache
def _table() -> _Table:
    values = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    languages = {
        name: _row(name, part == "language", row)
        for part in ("language", "beside")
        for name, row in values[part].items()
    }
    by_extension: dict[str, tuple[str, ...]] = {}
    by_filename: dict[str, str] = {}
    by_interpreter: dict[str, str] = {}
    by_linguist: dict[str, str] = {}
    for language in languages.values():
        for extension in language.extensions:
            by_extension[extension] = (*by_extension.get(extension, ()), language.name)
        by_filename |= dict.fromkeys(language.filenames, language.name)
        for interpreter in language.interpreters:
            by_interpreter.setdefault(interpreter, language.name)
        for name in language.linguist:
            by_linguist.setdefault(name, language.name)
    by_linguist |= {name: name for name in languages}
    ambiguous = frozenset(values["ambiguous"])
    return _Table(languages, by_extension, by_filename, by_interpreter, by_linguist, ambiguous)


def names() -> tuple[str, ...]:
    """The 338 names in the published order.

    >>> len(names()), names()[0], names()[-1]
    (338, 'ABAP', 'ooc')
    """
    return tuple(name for name, language in _table().languages.items() if language.listed)


def language(name: str) -> Language | None:
    """The row of a language by its exact name; None for a name that is not in the table."""
    return _table().languages.get(name)


def by_alias(word: str) -> str | None:
    """The table's name for a language as people call it, whatever the case: name, alias, Linguist's spelling.

    >>> by_alias("py"), by_alias("c++"), by_alias("nothing of the sort")
    ('Python', 'C++', None)
    """
    wanted = word.lower()
    rows = _table().languages.values()
    exact = (row.name for row in rows if row.name.lower() == wanted)
    others = (row.name for row in rows if wanted in row.aliases or wanted in map(str.lower, row.linguist))
    return next(exact, None) or next(others, None)


def detect(path: str, head: bytes) -> str | None:
    """The language of a file: by its whole name, then its longest known extension, then its `#!` line.

    An extension that several languages claim is settled by the content. None: not one of the table's languages.

    >>> detect("notes.unheard", b""), detect("Makefile", b""), detect("tool", b"#!/usr/bin/env python3")
    (None, 'Makefile', 'Python')
    """
    table, name = _table(), PurePosixPath(path).name
    if name in table.by_filename:
        return table.by_filename[name]
    extension = _extension(name)
    if extension is not None:
        claimants = table.by_extension[extension]
        if len(claimants) == 1 and extension not in table.ambiguous:
            return claimants[0]
        return _by_content(name, head, claimants)
    if "." in name.lstrip("."):
        return None
    return _by_shebang(head)


def _extension(name: str) -> str | None:
    """The longest known extension, in its own case first: `.S` is not `.s`."""
    known = _table().by_extension
    dots = [at for at, character in enumerate(name) if character == "." and at < len(name) - 1]
    for at in dots:
        for extension in (name[at:], name[at:].lower()):
            if extension in known:
                return extension
    return None


def _by_shebang(head: bytes) -> str | None:
    """The language of the interpreter that a `#!` line names, its version and options put aside."""
    first = head[:256].split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode("latin-1").split()
    if words and words[0].rsplit("/", 1)[-1] == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if not words:
        return None
    program = words[0].rsplit("/", 1)[-1]
    interpreters = _table().by_interpreter
    return interpreters.get(program) or interpreters.get(re.sub(r"[\d.]+$", "", program))


def _by_content(name: str, head: bytes, claimants: tuple[str, ...]) -> str | None:
    """Let enry (Linguist's heuristics and classifier) choose; a language that the table lacks gives None."""
    try:
        import enry
    except ImportError as error:
        raise UserError(
            f"{name}: only its content can tell the language, and enry is not installed.",
            "Run `pip install 'codeweft[curate]'`.",
        ) from error
    guess = enry.get_language(name, head[:HEAD_BYTES])
    if guess:
        return _table().by_linguist.get(guess)
    # enry has no opinion on an empty file: the extension's first claimant by primary extension, else the first
    extension = _extension(name)
    primary = [claimant for claimant in claimants if _table().languages[claimant].extensions[0] == extension]
    return (primary or list(claimants))[0]
