"""Make sets in RepoBench's format out of any folder of Python and Java repositories.

In:  a source folder.  Out: repobench-LANGUAGE/SETTING.jsonl, which tasks/repobench.py reads.
Source: Liu et al. 2024: the line that first uses what another file defines, a later one, one that uses nothing of it.

Unusual: RepoBench counts tokens with a tokenizer of OpenAI's. Here levels follow a given tokenizer, or a quarter of the
characters; shorter prompts than RepoBench keeps (640 tokens) count among 2k, longer ones than its longest are left out.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from codeweft.base.artifacts import atomic
from codeweft.base.errors import ConfigError, InputError
from codeweft.base.seeds import generator
from codeweft.source.definitions import defined
from codeweft.source.imports import Import, Repository, imports
from codeweft.source.masks import FILLER, masked
from codeweft.tasks.repobench import COMMENTS, LEVELS, SETTINGS, predicted, prompt
from codeweft.tokenizer.load import load_tokenizer

NAMES = {"python": "Python", "java": "Java"}  # of this format, of codeweft.source
ENDS = {".py": "python", ".java": "java"}
ROOT_FILES = (".git", "pyproject.toml", "setup.py", "setup.cfg", "pom.xml", "build.gradle", "build.gradle.kts")
LEFT_OUT = ("node_modules", "__pycache__", "site-packages", "venv")
LARGEST = 1 << 20  # bytes of a file
CROPPED = 120  # most lines of the file before the line that is asked
FOLLOWED = 3  # files on the way from an import to a definition that is imported there again
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Snippet:
    """Where something that a file imports is defined: its name, the file, first and last line."""

    identifier: str
    path: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A line that may be asked, counted from 1, and the snippet that it uses (None: it uses none)."""

    line: int
    gold: Snippet | None


@dataclass(frozen=True)
class Place:
    """One file of a repository; it is read when its lines are asked for."""

    repository: "Sources"
    path: str
    language: str

    @cached_property
    def candidates(self) -> dict[str, list[Candidate]]:
        """Its lines that may be asked, by setting."""
        return candidates(self.repository, self.path, self.language)


class Sources:
    """One repository: its Python and Java files, read when they are needed."""

    def __init__(self, folder: Path) -> None:
        self.name, found = folder.name, {}
        # what is a package itself is imported by its own name
        prefix = f"{folder.name}/" if (folder / "__init__.py").exists() else ""
        for file in sorted(folder.rglob("*")):
            inside = file.relative_to(folder)
            hidden = any(part.startswith(".") or part in LEFT_OUT for part in inside.parts)
            if file.suffix in ENDS and not hidden and file.is_file() and not file.is_symlink():
                found[prefix + inside.as_posix()] = file
        self.files = found
        self.index = Repository(found)
        self.text = lru_cache(maxsize=64)(self._text)
        self.imports = lru_cache(maxsize=None)(self._imports)
        self.definition = lru_cache(maxsize=None)(self._definition)

    def _text(self, path: str) -> str:
        """The file's text with \\n as line ends; empty for what is no text or too long."""
        file = self.files[path]
        if file.stat().st_size > LARGEST:
            return ""
        try:
            return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            return ""

    def _imports(self, path: str) -> list[Import]:
        return imports(self.text(path), NAMES[ENDS[Path(path).suffix]])

    def _definition(self, path: str, name: str, language: str, steps: int = FOLLOWED) -> Snippet | None:
        """Where a name that a file holds is defined: there, or in what that file imports it from."""
        text = self.text(path)
        if name in text and (span := defined(text, NAMES[language], name)):
            return Snippet(name, path, *span)
        for each in self.imports(path) if steps else ():
            for there, here in each.names:
                original = name if there == "*" else there
                if here not in (name, "*") or not original:
                    continue
                for target in self.index.files(path, each, NAMES[language], there):
                    if found := self.definition(target, original, language, steps - 1):
                        return found
        return None


# --- what a file takes from others -----------------------------------------------------------------------------------


def _bound(
    sources: Sources, path: str, language: str, taken: list[Import]
) -> tuple[dict[str, Snippet], dict[str, str]]:
    """Names in the file that stand for a definition of another file, and those that stand for another file."""
    names: dict[str, Snippet] = {}
    modules: dict[str, str] = {}
    for each in taken:
        for there, here in each.names:
            targets = sources.index.files(path, each, NAMES[language], there)
            if there == "*":
                if language == "java":
                    stems = {Path(target).stem: target for target in targets}
                    found = {stem: sources.definition(target, stem, language, 0) for stem, target in stems.items()}
                    names |= {stem: snippet for stem, snippet in found.items() if snippet and stem not in names}
                continue
            for target in targets[:1]:
                snippet = sources.definition(target, there, language) if there else None
                if snippet and snippet.path != path:
                    names[here] = snippet
                elif language == "python" and (not there or there in (Path(target).stem, Path(target).parent.name)):
                    modules[here] = target
    return names, modules


def _uses(sources: Sources, path: str, language: str, taken: list[Import]) -> Iterator[tuple[int, list[Snippet]]]:
    """Every line of code outside the imports, with the definitions of other files that it uses."""
    names, modules = _bound(sources, path, language, taken)
    text = sources.text(path)
    mask = masked(text, NAMES[language])
    spelt = sorted([*names, *modules], key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, spelt))})\b(?:\.(\w+))?" if spelt else r"(?!)")
    imported = {line for each in sources.imports(path) for line in range(each.start, each.end + 1)}
    attributes: dict[tuple[str, str], Snippet | None] = {}
    place = 0
    for number, line in enumerate(text.split("\n"), 1):
        seen = mask[place : place + len(line)]
        place += len(line) + 1
        if number in imported or not re.search(r"\w", seen.replace(FILLER, "")):
            continue
        used: list[Snippet] = []
        for name, attribute in pattern.findall(seen):
            snippet = names.get(name)
            if snippet is None and attribute and name in modules:
                if (name, attribute) not in attributes:
                    attributes[name, attribute] = sources.definition(modules[name], attribute, language)
                snippet = attributes[name, attribute]
            if snippet and snippet.path != path and snippet not in used:
                used.append(snippet)
        yield number, used


def _removable(text: str, found: list[Import], language: str) -> list[Import]:
    """The imports that stand for themselves at the outermost level: those that are shown apart from the code."""
    lines, mask = text.split("\n"), masked(text, NAMES[language])
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line) + 1)

    def alone(each: Import) -> bool:
        statement = mask[offsets[each.start - 1] : offsets[each.end]].strip()
        return not lines[each.start - 1][:1].isspace() and ";" not in statement.rstrip(";")

    return [each for each in found if alone(each)]


def candidates(sources: Sources, path: str, language: str) -> dict[str, list[Candidate]]:
    """The lines of a file that may be asked, by setting; none of a file that uses nothing of another one."""
    text = sources.text(path)
    taken = _removable(text, sources.imports(path), language)
    if not taken:
        return {}
    first, later, own = [], [], []
    seen: set[Snippet] = set()
    gone = {line for each in taken for line in range(each.start, each.end + 1)}
    lines, code = text.split("\n"), 0
    for number, used in _uses(sources, path, language, taken):
        new = [snippet for snippet in used if snippet not in seen]
        # a line is asked only with some of the file's own code before it
        code_before = code > 0
        code += number not in gone
        seen |= set(used)
        line = lines[number - 1].rstrip()
        # nor a line that the benchmark would take for a comment, or of a bracket and little else
        if not code_before or len(line.strip()) < 3 or predicted(f"{line}\n-", language) != line:
            continue
        if new:
            first.append(Candidate(number, new[0]))
        elif used:
            later.append(Candidate(number, used[0]))
        else:
            own.append(Candidate(number, None))
    return dict(zip(SETTINGS, (first, later, own), strict=True)) if seen else {}


# --- items -----------------------------------------------------------------------------------------------------------


def item(place: Place, candidate: Candidate, count: Callable[[str], int]) -> dict[str, Any] | None:
    """One record of the format; None where its prompt is longer than the longest level."""
    sources, path = place.repository, place.path
    text = sources.text(path)
    lines = text.split("\n")
    taken = _removable(text, sources.imports(path), place.language)
    gone = {line for each in taken for line in range(each.start, each.end + 1)}
    snippets = list(
        dict.fromkeys(each for _, used in _uses(sources, path, place.language, taken) for each in used)
    )  # in the order of their first use
    before = [line for number, line in enumerate(lines[: candidate.line - 1], 1) if number not in gone]
    record: dict[str, Any] = {
        "repo_name": sources.name,
        "file_path": path,
        "context": [_shown(sources, snippet) for snippet in snippets],
        "import_statement": "\n".join(lines[number - 1] for number in sorted(gone)),
        "cropped_code": "\n".join(before[-CROPPED:]).strip("\n"),
        "all_code": text,
        "next_line": lines[candidate.line - 1],
        "gold_snippet_index": snippets.index(candidate.gold) if candidate.gold else -1,
        "created_at": "",
    }
    tokens = count(prompt(record, COMMENTS[place.language], 1 << 60, count))
    level = next((name for name, most in LEVELS.items() if tokens <= most), None)
    return record | {"token_num": tokens, "level": level} if level else None


def _shown(sources: Sources, snippet: Snippet) -> dict[str, str]:
    lines = sources.text(snippet.path).split("\n")[snippet.start - 1 : snippet.end]
    return {"identifier": snippet.identifier, "path": snippet.path, "snippet": "\n".join(lines)}


def repositories(source: Path) -> list[Path]:
    """The folder itself where it looks like a repository (its own sources or build files), else the folders in it."""
    if not source.is_dir():
        raise InputError(f"{source} is not a folder.", "Name a folder of repositories.")
    inside = sorted(source.iterdir())
    if any(each.name in ROOT_FILES or (each.suffix in ENDS and each.is_file()) for each in inside):
        return [source.resolve()]
    return [each for each in inside if each.is_dir() and not each.name.startswith(".")]


def build(source: Path, out: Path, *, per_setting: int, seed: int, tokenizer: Path | None = None) -> dict[str, int]:
    """Write up to `per_setting` items of each language and setting; how many they are, by "LANGUAGE/SETTING".

    A file gives its second item only when every file has given its first. Equal folders, seeds and tokenizers give
    equal sets. InputError where no file imports another one of its repository.
    """
    if per_setting < 1:
        raise ConfigError(f"per_setting = {per_setting} must be at least 1.")
    count: Callable[[str], int] = lambda text: len(text) // CHARACTERS_PER_TOKEN + 1  # noqa: E731
    if tokenizer is not None:
        loaded = load_tokenizer(tokenizer)
        count = lambda text: len(loaded.encode(text))  # noqa: E731
    places: dict[str, list[Place]] = {language: [] for language in NAMES}
    for folder in repositories(source):
        sources = Sources(folder)
        for path in sources.files:
            places[ENDS[Path(path).suffix]].append(Place(sources, path, ENDS[Path(path).suffix]))
    records = {
        (language, setting): list(_drawn(found, setting, per_setting, seed, count))
        for language, found in places.items()
        for setting in SETTINGS
    }
    used = [language for language in NAMES if any(records[language, setting] for setting in SETTINGS)]
    if not used:
        raise InputError(
            f"{source} has no Python or Java file that uses what another file of its repository defines.",
            "Name a folder of repositories, or one repository.",
        )
    for language in used:
        for setting in SETTINGS:
            with atomic(out / f"repobench-{language}" / f"{setting}.jsonl") as file:
                for record in records[language, setting]:
                    file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
    return {f"{language}/{setting}": len(records[language, setting]) for language in used for setting in SETTINGS}


def _drawn(
    places: list[Place], setting: str, wanted: int, seed: int, count: Callable[[str], int]
) -> Iterator[dict[str, Any]]:
    """Items in an order drawn by seed: first one of each file, then a second one of each, and so on.

    All settings go through the files in one order, so that no more files are read than needed.
    """
    order = generator(seed, "repobench", "files").permutation(len(places)).tolist()
    given, turn, more = 0, 0, True
    while more:
        more = False
        for place in (places[number] for number in order):
            found = place.candidates.get(setting, [])
            if turn >= len(found):
                continue
            more = True
            random = generator(seed, "repobench", setting, place.repository.name, place.path)
            if record := item(place, found[int(random.permutation(len(found))[turn])], count):
                yield record
                given += 1
                if given == wanted:
                    return
        turn += 1
