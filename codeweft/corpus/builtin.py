"""List the sources that every machine has: this Python's own code, its prose, and mathematics.

In:  the Python that runs.  Out: entries of `builtin:python`, `builtin:prose` and `builtin:mathematics`.

Unusual: repositories carry the same names in all three (`cpython/json`, `sympy`), so that the held-out split can keep
a package's code, description and docstrings on one side.
"""

import ast
import csv
import importlib.metadata
import platform
import pydoc_data.topics
import re
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from codeweft.base.artifacts import digest_of
from codeweft.base.records import Kind
from codeweft.corpus import worksheets
from codeweft.corpus.entries import Entry

Builtin = Callable[[Kind, int], Iterator[Entry]]
HEAD_BYTES = 16_384  # a module's docstring must begin and end here
SHORTEST_DOCSTRING = 200  # characters; shorter ones are labels, not prose
# White space and comments, then a string literal: what stands first in a file with a docstring.
_DOCSTRING = re.compile(r"(?:\s|#[^\n]*\n)*([rRuU]?(\"\"\"|''').*?\2)", re.DOTALL)


def _files() -> Iterator[tuple[str, str, Path]]:
    """Every .py file as (repository, path in it, place): the standard library, then installed distributions."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for top in sorted(library.iterdir()):
        if top.is_file() and top.suffix == ".py":
            yield f"cpython/{top.stem}", top.name, top
        elif top.is_dir() and top.name not in ("site-packages", "dist-packages", "__pycache__"):
            for path in sorted(top.rglob("*.py")):
                if path.is_file():
                    yield f"cpython/{top.name}", path.relative_to(library).as_posix(), path
    for name, distribution in sorted(_distributions().items()):
        root = Path(str(distribution.locate_file("")))
        # RECORD is read as a table: asking for `distribution.files` costs ten seconds on a full environment
        for row in sorted(csv.reader((distribution.read_text("RECORD") or "").splitlines())):
            if row and row[0].endswith(".py") and not row[0].startswith(("..", "/")):
                path = root / row[0]
                if path.is_file():
                    yield name, row[0], path


def _distributions() -> dict[str, importlib.metadata.Distribution]:
    """Installed distributions by lower-case name, ourselves left out."""
    found = {d.name.lower(): d for d in importlib.metadata.distributions() if d.name}
    return {name: distribution for name, distribution in found.items() if name != "codeweft"}


def digest() -> str:
    """What the built-in sources depend on: Python's version and the installed distributions."""
    versions = {name: distribution.version for name, distribution in _distributions().items()}
    return digest_of([platform.python_version(), worksheets.VERSION, versions])


def python(kind: Kind, seed: int) -> Iterator[Entry]:
    """This Python's standard library (each top-level module a repository) and installed distributions."""
    for repository, path, place in _files():
        yield Entry(kind, "builtin:python", repository, path, place.stat().st_size, "file", str(place))


def prose(kind: Kind, seed: int) -> Iterator[Entry]:
    """Python's help topics, the descriptions of installed distributions, the docstrings of modules."""
    source = "builtin:prose"
    for topic, text in sorted(pydoc_data.topics.topics.items()):
        yield Entry(kind, source, "cpython/topics", f"{topic}.rst", len(text.encode()), "topic", topic, language="Text")
    for name, distribution in sorted(_distributions().items()):
        size = len((distribution.read_text("METADATA") or "").encode())
        if size:
            yield Entry(kind, source, name, "METADATA", size, "description", name, language="Text")
    for repository, path, place in _files():
        if repository != "sympy":  # its docstrings are mathematics
            with place.open("rb") as file:
                docstring = module_docstring(file.read(HEAD_BYTES))
            if docstring is not None:
                size, location = len(docstring), str(place)
                yield Entry(kind, source, repository, path, size, "module_docstring", location, language="Text")


def mathematics(kind: Kind, seed: int) -> Iterator[Entry]:
    """Generated word problems with worked answers, each family a repository, and sympy's docstrings."""
    source = "builtin:mathematics"
    for family in sorted(worksheets.FAMILIES):
        for number in range(worksheets.SHEETS):
            location, path = f"{family}\0{number}\0{seed}", f"sheet-{number:04d}.txt"
            size = worksheets.TYPICAL_BYTES
            yield Entry(kind, source, f"problems/{family}", path, size, "worksheet", location, language="Text")
    for repository, path, place in _files():
        if repository == "sympy" and "/tests/" not in path:
            size = place.stat().st_size // 4  # about what the docstrings of its files come to
            yield Entry(kind, source, repository, path, size, "docstrings", str(place), language="Text")


BUILTINS: dict[str, Builtin] = {"python": python, "prose": prose, "mathematics": mathematics}


def module_docstring(head: bytes) -> bytes | None:
    """The docstring of the module that begins with `head`, as UTF-8; None if it has none worth reading."""
    match = _DOCSTRING.match(head.decode("utf-8", "replace"))
    if match is None:
        return None
    try:
        text = ast.literal_eval(match[1])
    except (SyntaxError, ValueError):
        return None
    cleaned = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return cleaned.encode("utf-8", "replace") if len(cleaned) >= SHORTEST_DOCSTRING else None


def docstrings(source: bytes) -> bytes | None:
    """All docstrings of a Python file in the order of the file, as UTF-8; None if they are too short to read."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    named = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = sorted((n for n in ast.walk(tree) if isinstance(n, named)), key=lambda node: getattr(node, "lineno", 0))
    found = []
    for node in nodes:
        text = ast.get_docstring(node)
        if text:
            found.append(text if isinstance(node, ast.Module) else f"{node.name}: {text}")
    joined = "\n\n".join(found)
    return joined.encode("utf-8", "replace") if len(joined) >= SHORTEST_DOCSTRING else None


def topic(name: str) -> bytes:
    """One of Python's help topics."""
    return pydoc_data.topics.topics[name].encode()


@cache
def _descriptions() -> dict[str, importlib.metadata.Distribution]:
    return _distributions()


def description(name: str) -> bytes | None:
    """The long description of an installed distribution; None if it has none."""
    metadata = _descriptions()[name].metadata
    body = metadata.get_payload() or metadata.get("Description") or ""  # ty: ignore[missing-attribute]
    return body.strip().encode("utf-8", "replace") or None
