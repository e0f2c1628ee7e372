"""Find what a source file imports, and which files of its repository those are.

In:  text and its language's name; the repository's paths.  Out: imports with their lines, and paths.
Source: repository-level ordering of DeepSeek-Coder §2.2, which reads import statements with regular expressions.

Unusual: the patterns run over the text's mask (masks.py), in which comments are blank and strings are filled up. Broken
code gives what can still be seen and never an error.
"""

import posixpath
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from codeweft.source.masks import FILLER, masked

_STRING = rf"(?:\"{FILLER}*\"|'{FILLER}*'|`{FILLER}*`)"
_PYTHON_ENDS = (".py", ".pyi", "/__init__.py", "/__init__.pyi")
_SCRIPT_ENDS = (".ts", ".tsx", ".d.ts", ".js", ".jsx", ".mjs", ".cjs", ".mts", ".cts")
_SCRIPT_FORMS = ("", *_SCRIPT_ENDS, ".vue", ".json", *(f"/index{end}" for end in _SCRIPT_ENDS))
_RUST_ENDS = (".rs", "/mod.rs")


@dataclass(frozen=True, slots=True)
class Import:
    """One import: the module as it is written, and what it brings as (name there, name here).

    The name there is "" for the module itself and "*" for all of it; an include brings no names. Rust and Go have one
    Import a path, not a statement. Lines count from 1; `end` is the last one.
    """

    module: str
    names: tuple[tuple[str, str], ...]
    start: int
    end: int


def imports(text: str, language: str) -> list[Import]:
    r"""The imports of a text in their order; none for a language that is not known here.

    >>> imports("from . import (a as b,\n  c)", "Python")
    [Import(module='.', names=(('a', 'b'), ('c', 'c')), start=1, end=2)]
    """
    find = _FINDERS.get(language)
    if find is None:
        return []
    found, breaks = [], [match.start() for match in re.finditer("\n", text)]
    for start, end, module, names in find(text, masked(text, language)):
        lines = bisect_right(breaks, start - 1) + 1, bisect_right(breaks, max(start, end - 1) - 1) + 1
        found.append(Import(module, tuple(names), *lines))
    return found


def resolve(path: str, found: Iterable[Import], language: str, repository: "Repository") -> list[str]:
    """The files of the repository that a file's imports name, each once, in the imports' order."""
    return list(dict.fromkeys(target for each in found for target in repository.files(path, each, language)))


class Repository:
    """The paths of a repository, ready to be looked up; folders are separated by "/"."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = frozenset(paths)
        self.folders: dict[str, list[str]] = {}
        self._ending: dict[str, list[str]] = {}  # by the last part and by the last two parts
        for path in sorted(self.paths):
            folder, name = posixpath.split(path)
            self.folders.setdefault(folder, []).append(path)
            self._ending.setdefault(name, []).append(path)
            if folder:
                self._ending.setdefault(f"{posixpath.basename(folder)}/{name}", []).append(path)

    def files(self, path: str, found: Import, language: str, name: str | None = None) -> tuple[str, ...]:
        """The files that one import of `path` names (of its names, only `name`), without `path` itself."""
        look = _RESOLVERS.get(language)
        if look is None:
            return ()
        wanted = [there for there, _ in found.names] or [""] if name is None else [name]
        targets = dict.fromkeys(target for each in wanted for target in look(self, path, found.module, each))
        targets.pop(path, None)
        return tuple(targets)

    def ending(self, tail: str) -> list[str]:
        """All paths that end with these parts.

        >>> Repository(["a/b.h", "c/a/b.h", "ca/b.h"]).ending("a/b.h")
        ['a/b.h', 'c/a/b.h']
        """
        near = self._ending.get("/".join(tail.split("/")[-2:]), [])
        return [path for path in near if path == tail or path.endswith("/" + tail)]

    def first(self, stem: str, ends: Sequence[str]) -> str | None:
        """The first of some spellings of a path that is there; `stem` may be the repository's own folder, ""."""
        spelt = ((stem + end).lstrip("/") for end in ends)
        return next((path for path in spelt if path in self.paths), None)


# --- what is imported ------------------------------------------------------------------------------------------------

Found = Iterator[tuple[int, int, str, list[tuple[str, str]]]]  # start, end, module, names

_PYTHON = re.compile(
    r"(?:^|[;:])[ \t\f]*(?:from\b(?P<module>[ \t.\w]*?)\bimport\b(?P<names>[^\n;]*)|import[ \t]+(?P<modules>[^\n;]*))",
    re.MULTILINE,
)
_JAVA = re.compile(
    r"(?:^|(?<=[;}]))[ \t]*import\s+(?:static\s+)?(?P<path>[\w.]+(?:\.\*)?)[ \t]*(?:;|\r?$)", re.MULTILINE
)
_JAVASCRIPT = re.compile(
    rf"\b(?:import|export)\b(?P<names>[^;\"'`()=]*?)\bfrom\s*(?P<from>{_STRING})"
    rf"|\bimport\s*\(?\s*(?P<plain>{_STRING})"
    rf"|(?:\b(?:const|let|var)\s+(?P<bound>[\w$]+|\{{[^{{}}]*\}})\s*=\s*)?\brequire\s*\(\s*(?P<required>{_STRING})\s*\)"
)
_GO = re.compile(rf"^[ \t]*import\s*(?:\((?P<block>[^)]*)\)|(?P<one>[\w.]*[ \t]*{_STRING}))", re.MULTILINE)
_GO_ONE = re.compile(rf"(?P<alias>[\w.]*)[ \t]*(?P<path>{_STRING})")
_RUST = re.compile(r"\bmod\s+(?P<mod>(?:r\#)?\w+)\s*;|\buse\s+(?P<use>[^;]+);")
_INCLUDE = re.compile(rf"^[ \t]*\#[ \t]*(?:include|include_next|import)[ \t]*(?P<path>\"{FILLER}*\")", re.MULTILINE)


def _python(text: str, mask: str) -> Found:
    for match in _PYTHON.finditer(mask):
        start, end = _tight(mask, match.start(), match.end())
        if match["modules"] is not None:
            for module, alias in _renamed(match["modules"]):
                yield start, end, module, [("", alias)]
        elif (module := re.sub(r"\s", "", match["module"])) and re.fullmatch(r"\.*[\w.]*", module):
            yield start, end, module, _renamed(match["names"].strip(" \t\r()"))


def _tight(mask: str, start: int, end: int) -> tuple[int, int]:
    """A span without the separator and the white space around it."""
    piece = mask[start:end]
    return start + len(piece) - len(piece.lstrip(" \t\f\r\n;:")), start + len(piece.rstrip())


def _renamed(listed: str) -> list[tuple[str, str]]:
    """(name there, name here) of "a, b as c"; what is neither is left out."""
    pairs = re.findall(r"(?:^|(?<=,))[ \t\r]*([\w.]+|\*)(?:\s+as\s+(\w+))?[ \t\r]*(?=,|$)", listed.strip())
    return [(name, alias or name) for name, alias in pairs]


def _java(text: str, mask: str) -> Found:
    for match in _JAVA.finditer(mask):
        module, _, name = match["path"].rpartition(".")
        if module:
            yield *_tight(mask, match.start(), match.end()), module, [(name, name)]


def _javascript(text: str, mask: str) -> Found:
    for match in _JAVASCRIPT.finditer(mask):
        group = next(name for name in ("from", "plain", "required") if match[name] is not None)
        module = text[match.start(group) + 1 : match.end(group) - 1]
        yield match.start(), match.end(), module, _bindings(match["names"] or match["bound"] or "")


def _bindings(clause: str) -> list[tuple[str, str]]:
    """What the clause of an import binds: `a, {b as c}`, `* as d`, `{e: f}`."""
    inner, outer = re.search(r"\{([^}]*)\}", clause), re.sub(r"\{[^}]*\}", "", clause)
    found = []
    default = re.match(r"\s*(?:type\s+)?([\w$]+)\s*(?:,|$)", outer)
    if default and default[1] != "type":
        found.append(("default", default[1]))
    if whole := re.search(r"\*(?:\s*as\s+([\w$]+))?", outer):
        found.append(("*", whole[1] or "*"))
    for part in (inner[1] if inner else "").split(","):
        if names := re.fullmatch(r"\s*(?:type\s+)?([\w$]+)(?:\s*(?:\bas\b|:)\s*([\w$]+))?\s*", part):
            found.append((names[1], names[2] or names[1]))
    return found


def _go(text: str, mask: str) -> Found:
    for match in _GO.finditer(mask):
        group = "block" if match["block"] is not None else "one"
        for one in _GO_ONE.finditer(mask, match.start(group), match.end(group)):
            module = text[one.start("path") + 1 : one.end("path") - 1]
            yield one.start(), one.end(), module, [("", one["alias"] or posixpath.basename(module))]


def _rust(text: str, mask: str) -> Found:
    for match in _RUST.finditer(mask):
        if match["mod"]:
            name = match["mod"].removeprefix("r#")
            yield match.start(), match.end(), "self", [(name, name)]
            continue
        for leaf, alias in _leaves(re.sub(r"\s+", " ", match["use"]).strip()):
            parts = [part.removeprefix("r#") for part in leaf.split("::") if part]
            if len(parts) > 1:
                yield match.start(), match.end(), "::".join(parts[:-1]), [(parts[-1], alias or parts[-1])]


def _leaves(tree: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(path, alias) of every leaf of a use tree: `a::{b, c::{d as e}}` has a::b and a::c::d."""
    head, brace, rest = tree.partition("{")
    if not brace:
        path, _, alias = tree.partition(" as ")
        yield prefix + path.replace(" ", ""), alias.strip()
        return
    depth, begin = 0, 0
    inner = rest.rstrip()[:-1] if rest.rstrip().endswith("}") else rest
    for place, letter in enumerate(inner + ","):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth <= 0:
            if branch := inner[begin:place].strip():
                yield from _leaves(branch, prefix + head.replace(" ", ""))
            begin = place + 1


def _c(text: str, mask: str) -> Found:
    for match in _INCLUDE.finditer(mask):
        yield *_tight(mask, match.start(), match.end()), text[match.start("path") + 1 : match.end("path") - 1], []


_FINDERS: dict[str, Callable[[str, str], Found]] = {
    "Python": _python, "Java": _java, "JavaScript": _javascript, "JSX": _javascript, "TypeScript": _javascript,
    "Vue": _javascript, "Go": _go, "Rust": _rust, "C": _c, "C++": _c, "CUDA": _c, "Objective-C": _c,
}  # fmt: skip
LANGUAGES = frozenset(_FINDERS)


# --- which file that is ----------------------------------------------------------------------------------------------


def _nearest(path: str, tail: str, candidates: Iterable[str]) -> str | None:
    """Of files that end alike, the one whose root holds the importing file, then the one with most folders shared."""

    def far(candidate: str) -> tuple[bool, int, int, str]:
        root = candidate[: len(candidate) - len(tail)]
        shared = 0
        for one, other in zip(path.split("/")[:-1], candidate.split("/")[:-1], strict=False):
            if one != other:
                break
            shared += 1
        return not path.startswith(root), -shared, len(root), candidate

    return min(candidates, key=far, default=None)


def _of_python(repository: Repository, path: str, module: str, name: str) -> Iterator[str]:
    level = len(module) - len(module.lstrip("."))
    parts = [part for part in module.split(".") if part]
    spelt = ([parts + name.split(".")] if name not in ("", "*") else []) + [parts]
    here = path.split("/")[:-1]
    if level > len(here) + 1:
        return
    base = here[: len(here) - level + 1]
    for each in spelt:
        if not level:
            target = _absolute(repository, path, each) if each else None
        else:  # of the folder itself only its __init__, not a file beside it of the same name
            target = repository.first("/".join(base + each), _PYTHON_ENDS if each else _PYTHON_ENDS[2:])
        if target:
            yield target
            return


def _absolute(repository: Repository, path: str, parts: Sequence[str]) -> str | None:
    """An absolute import: below a folder that is no package itself; a standard module only below a folder of ours."""
    for end in _PYTHON_ENDS:
        tail, possible = "/".join(parts) + end, []
        for candidate in repository.ending(tail):
            root = candidate[: len(candidate) - len(tail)]
            ours = path.startswith(root)
            if root + "__init__.py" not in repository.paths and (ours or parts[0] not in sys.stdlib_module_names):
                possible.append(candidate)
        if nearest := _nearest(path, tail, possible):
            return nearest
    return None


def _of_java(repository: Repository, path: str, module: str, name: str) -> Iterator[str]:
    folder = module.replace(".", "/")
    if name == "*":
        same = [each for each in repository.folders if each == folder or each.endswith("/" + folder)]
        if nearest := _nearest(path, folder, same):
            yield from (each for each in repository.folders[nearest] if each.endswith(".java"))
            return
    stems = [folder] if name in ("", "*") else [f"{folder}/{name}", folder]
    for stem in [*stems, posixpath.dirname(folder)]:  # a member of a class, a class inside a class
        if stem and (nearest := _nearest(path, stem + ".java", repository.ending(stem + ".java"))):
            yield nearest
            return


def _of_javascript(repository: Repository, path: str, module: str, name: str) -> Iterator[str]:
    if not module.startswith("."):
        return
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), module))
    stem = "" if joined == "." else joined
    bare = re.sub(r"\.(?:js|jsx|mjs|cjs)$", "", stem)  # TypeScript imports by the name of what it compiles to
    if target := repository.first(stem, _SCRIPT_FORMS) or repository.first(bare, _SCRIPT_ENDS):
        yield target


def _of_go(repository: Repository, path: str, module: str, name: str) -> Iterator[str]:
    parts = module.split("/")
    if "." not in parts[0]:
        return  # the standard library
    whole = [folder for folder in repository.folders if f"/{folder}".endswith(f"/{module}")]  # vendored, or a GOPATH
    # else what is left without the name of this repository's own module, which the paths do not tell
    named = 3 if parts[0] in ("github.com", "gitlab.com", "bitbucket.org") else 2
    tails = ["/".join(parts[dropped:]) for dropped in range(named, len(parts))]
    folder = min(whole, key=len, default=None) or next((tail for tail in tails if tail in repository.folders), None)
    for each in repository.folders[folder] if folder else ():
        if each.endswith(".go") and not each.endswith("_test.go"):
            yield each


def _of_rust(repository: Repository, path: str, module: str, name: str) -> Iterator[str]:
    folder, file = posixpath.split(path)
    own = folder if file in ("mod.rs", "lib.rs", "main.rs") else posixpath.join(folder, file.removesuffix(".rs"))
    first, *parts = [part for part in module.split("::") if part]
    if first == "crate":
        base = _crate(repository, folder)
    elif first in ("self", "super"):
        ups = [first, *parts].count("super")
        base, parts = own, [part for part in parts if part != "super"]
        for _ in range(ups):
            base = posixpath.dirname(base)
    else:  # another crate of the same workspace
        roots = [f"{spelling}/src/lib.rs" for spelling in {first, first.replace("_", "-")}]
        found = [each for root in roots for each in repository.ending(root)]
        if not found:
            return
        base = posixpath.dirname(min(found, key=len))
    steps = [*parts, name] if name not in ("", "*", "self") else parts
    for kept in range(len(steps), 0, -1):
        if target := repository.first(posixpath.join(base, *steps[:kept]), _RUST_ENDS):
            yield target
            return
    if first != "self" and (target := repository.first(base, ("/lib.rs", "/main.rs", "/mod.rs", ".rs"))):
        yield target


def _crate(repository: Repository, folder: str) -> str:
    """The nearest folder above with a crate's root file."""
    while folder and not any(f"{folder}/{root}" in repository.paths for root in ("lib.rs", "main.rs")):
        folder = posixpath.dirname(folder)
    return folder


def _of_c(repository: Repository, path: str, module: str, name: str) -> Iterator[str]:
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), module))
    tail = re.sub(r"^(?:\.\.?/)+", "", posixpath.normpath(module))
    target = beside if beside in repository.paths else _nearest(path, tail, repository.ending(tail))
    if target:
        yield target


_RESOLVERS: dict[str, Callable[[Repository, str, str, str], Iterator[str]]] = {
    "Python": _of_python, "Java": _of_java, "JavaScript": _of_javascript, "JSX": _of_javascript,
    "TypeScript": _of_javascript, "Vue": _of_javascript, "Go": _of_go, "Rust": _of_rust, "C": _of_c, "C++": _of_c,
    "CUDA": _of_c, "Objective-C": _of_c,
}  # fmt: skip
