"""RepoBench v1.1: the next line of a file, with snippets of the files that it imports above it.

In:  the official Parquet files, or sets that repobench_builder made.  Out: repobench-python and repobench-java.
Source: DeepSeek-Coder-V2 §4.2 (Table 5); Liu et al. 2024, whose prompt builder fixes the text.

Unusual: the official cut counts every line by itself and stops with an error; here the whole prompt is counted, so
that it never exceeds its room. The official search for the predicted line takes a comment block that ends on its first
line for one that is still open; here it has ended. The official December ends with the 30th, and so does this one.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Record, read_records
from codeweft.tasks.infilling import edit_similarity, last_lines
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task

SETTINGS = ("cross_file_first", "cross_file_random", "in_file")
SUFFIXES = (".parquet", ".jsonl", ".json", ".gz")
LINE_TOKENS = 64
SINCE, UNTIL = "2023-12-01", "2023-12-31"  # both as the official runner has them: the last moment is 00:00 of UNTIL
# Names of levels, each with the tokens that a prompt of it has at most (data/README.md of the official repository).
LEVELS = {
    "2k": 1600, "4k": 3600, "8k": 7200, "12k": 10_800, "16k": 14_400, "24k": 21_600, "32k": 28_800, "64k": 57_600,
    "128k": 100_000,
}  # fmt: skip
TEXTS = ("repo_name", "file_path", "import_statement", "cropped_code", "next_line", "level")
COMMENTS = {"python": "#", "java": "//"}
# The beginnings and ends of comments of several lines; a string of its own is counted among them, as officially.
BLOCKS = {"python": (('"""', '"""'), ("'''", "'''")), "java": (("/*", "*/"),)}


def data(language: str) -> Data:
    """The folder of one language's three splits."""
    note = (
        f"it is the data set tianyang/repobench_{language}_v1.1 of Hugging Face, the folder with its Parquet files; "
        "`build` of codeweft.tasks.repobench_builder makes such a folder from sources of yours"
    )
    names = f"repobench_{language}_v1.1", f"repobench-{language}", f"repobench/{language}"
    return Data(names, licence="CC (the data's card says no more)", note=note)


DATA = {language: data(language) for language in COMMENTS}


# --- items -----------------------------------------------------------------------------------------------------------


def load(language: str, files: Files, options: TaskOptions) -> Iterator[Problem]:
    """The items of the wanted levels that were created in December 2023 or bear no date (those that were built)."""
    edit_similarity("", "")  # what is missing for it is told before anything is asked
    unknown = [level for level in options.repository_levels if level not in LEVELS]
    if unknown:
        raise InputError(f"repository_levels: RepoBench has no level {unknown[0]}.", f"Choose of {', '.join(LEVELS)}.")
    folder = files.path(DATA[language])
    for setting in SETTINGS:
        number = -1
        for path in _parts(folder, setting):
            for place, record in read_records(path, (*TEXTS, "context")):
                number += 1
                check(place, record)
                if record["level"] in options.repository_levels and _wanted(place, record.get("created_at")):
                    yield _problem(f"{setting}/{number}", language, setting, record, options.repository_prompt)


def _parts(folder: Path, setting: str) -> list[Path]:
    """The files of one split."""
    found = [path for path in folder.rglob(f"{setting}*") if path.suffix in SUFFIXES]
    if not found:
        raise InputError(
            f"{folder} has no file {setting}-*.parquet or {setting}.jsonl.", "Fetch the whole data set, or build it."
        )
    return sorted(found)


def check(place: str, record: Record) -> None:
    """InputError for an item that is not what it should be."""
    for name in TEXTS:
        if not isinstance(record[name], str):
            raise InputError(f"{place}: {name} is not a text.", "Mend that line or fetch the file again.")
    context = record["context"]
    if not isinstance(context, list) or not all(
        isinstance(each, dict) and isinstance(each.get("path"), str) and isinstance(each.get("snippet"), str)
        for each in context
    ):
        raise InputError(f"{place}: context is not a list of snippets with path and snippet.", "Fetch the file again.")


def _wanted(place: str, created: object) -> bool:
    if created is None or created == "":
        return True
    told = created.isoformat() if isinstance(created, datetime) else str(created)
    if not re.match(r"\d{4}-\d\d-\d\d", told):
        raise InputError(f"{place}: created_at is no date: {told}.", "Mend that line or fetch the file again.")
    moment = told[:19].replace("T", " ")
    return moment >= SINCE and (moment[:10] < UNTIL or moment in (UNTIL, f"{UNTIL} 00:00:00"))


def _problem(name: str, language: str, setting: str, record: Record, tokens: int) -> Problem:
    """`family` is the level, `difficulty` the setting."""
    facts: dict[str, Any] = {key: record[key] for key in ("repo_name", "file_path", "import_statement", "cropped_code")}
    facts["context"] = [{"path": each["path"], "snippet": each["snippet"]} for each in record["context"]]
    return Problem(
        name, f"repobench-{language}", family=record["level"], language=language, difficulty=setting,
        reference=record["next_line"], facts=facts | {"tokens": tokens},
    )  # fmt: skip


# --- prompts and answers ---------------------------------------------------------------------------------------------


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """The prompt, cut to the options' tokens or to the model's room, whichever is less."""
    tokens = min(problem.facts["tokens"], room.tokens)
    return Ask(prompt(problem.facts, COMMENTS[problem.language], tokens, room.count), max_tokens=LINE_TOKENS)


def prompt(item: Mapping[str, Any], mark: str, tokens: int, count: Callable[[str], int]) -> str:
    """Repository, snippets, the file's imports and code; with at most so many tokens.

    Lines of the snippets go first, from the end; then, where the file's own part alone is too long, its first lines.
    """
    across = f"{mark} Repo Name: {item['repo_name']}\n"
    across += "".join(f"{mark} Path: {each['path']}\n{each['snippet']}\n\n" for each in item["context"])
    own = f"{mark} Path: {item['file_path']}\n{item['import_statement']}\n{item['cropped_code']}\n"
    whole = _evened(across + own)
    if count(whole) <= tokens:
        return whole
    lines = across.split("\n")

    def cut(kept: int) -> str:
        return _evened("\n".join(lines[:kept]) + "\n\n" + own) if kept else _evened(own)

    low, high = 0, len(lines)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if count(cut(middle)) <= tokens else (low, middle)
    while low and count(cut(low)) > tokens:
        low -= 1
    return cut(low) if count(cut(low)) <= tokens else last_lines(_evened(own), tokens, count)


def _evened(text: str) -> str:
    return re.sub(r"\n{4,}", "\n\n", text)


def predicted(text: str, language: str) -> str:
    r"""The first line that is neither blank nor a comment; the first that is not blank where there is no other.

    >>> predicted("\n# now\n    x = 1\ny", "python"), predicted("/* a\n b */\n\treturn;", "java")
    ('    x = 1', '\treturn;')
    """
    lines = [line.rstrip() for line in text.split("\n") if line.strip()]
    end = ""
    for line in lines:
        solid = line.strip()
        if end:
            end = "" if solid.endswith(end) else end
            continue
        block = next((block for block in BLOCKS[language] if solid.startswith(block[0])), None)
        if block:
            closed = len(solid) >= len(block[0]) + len(block[1]) and solid.endswith(block[1])
            end = "" if closed else block[1]
        elif not solid.startswith(COMMENTS[language]):
            return line
    return lines[0] if lines else ""


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """1 where the predicted line has the words of the right one, whatever the white space between them."""
    line = predicted(text, problem.language)
    score = float(line.split() == problem.reference.split())
    return Answer(line, score, metrics={"edit_similarity": edit_similarity(line, problem.reference)})


def _task(language: str, title: str) -> Task:
    name = f"repobench-{language}"
    return Task(
        name, f"RepoBench v1.1, {title}", "code completion", ("base",), (DATA[language],),
        "Items of December 2023 (of a set that was built: all), all three settings; official prompt, cut to 15,800 "
        "tokens unless repository_prompt says otherwise; of 64 new tokens the first line that is neither blank nor a "
        "comment; exact match of its words; the plain mean of the levels.",
        partial(load, language), ask, grade, "exact_match", average="family",
        columns=tuple(f"{name}.{column}" for column in ("2k", "4k", "8k", "12k", "16k", "average")),
    )  # fmt: skip


TASKS = (_task("python", "Python"), _task("java", "Java"))
