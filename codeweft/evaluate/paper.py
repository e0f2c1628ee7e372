"""The figures of the paper's tables, and scores of ours beside them.

In:  paper.toml; entries of results.json.  Out: figures by column and model; tables for people, 100 columns wide.
Source: DeepSeek-Coder-V2 Tables 3 to 10, DeepSeek-V2 Tables 2 and 6.

Unusual: a figure of ours is put beside the paper's whatever its protocol, and the difference is said below: how it was
asked, of how many problems, and what the paper does not state, so that nobody could do the same.
"""

import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("paper.toml")
WIDTH, NAME, CELL = 100, 32, 11  # of a table, of a model's name, of a figure: as wide as "97.7-100.0" and a space
COLUMNS = (WIDTH - NAME) // CELL  # side by side
GROUPS = ("per_language", "per_family", "per_difficulty")
Entries = Mapping[str, Mapping[str, Any]]
KIND_OF_STYLE = {"base": "base models", "chat": "chat models", "infill": "models that infill"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: the figures by model, where ours may stand, and of what a figure is a share.

    `problems` is how many the paper asks, 0 where it does not say.
    """

    name: str
    header: str
    values: Mapping[str, float]
    places: tuple[str, ...]
    problems: int = 0
    scale: float = 100


@dataclass(frozen=True, slots=True)
class Table:
    """One table; `average` names the column that is the plain mean of the others, where there is one."""

    name: str
    title: str
    paper: str
    styles: tuple[str, ...]
    protocol: str
    unstated: str
    greedy: bool
    average: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Ours:
    """A figure of ours on the column's scale, its interval, how many problems, and the entry that it is from."""

    value: float
    interval: tuple[float, float] | None
    n: int
    task: str


@cache
def tables() -> tuple[Table, ...]:
    """All tables, in the paper's order."""
    with FILE.open("rb") as file:
        return tuple(_table(name, said) for name, said in tomllib.load(file).items())


def _table(name: str, said: Mapping[str, Any]) -> Table:
    columns = []
    for number, column in enumerate(said["columns"]):
        values = {model: _value(row[number]) for model, row in said["rows"].items() if row[number] != ""}
        places = tuple(said.get("places", {}).get(column, (column,)))
        problems = said["problems"][number] if "problems" in said else 0
        scale = said.get("scales", {}).get(column, 100)
        columns.append(Column(column, said["headers"][number], values, places, problems, scale))
    return Table(
        name, said["title"], said["paper"], tuple(said["styles"]), said["protocol"], said.get("unstated", ""),
        said.get("greedy", False), said.get("average", ""), tuple(columns),
    )  # fmt: skip


def _value(written: float | str) -> float:
    """A figure; right answers of all as a percentage.

    >>> _value("3/30"), _value(83.5)
    (10.0, 83.5)
    """
    if isinstance(written, str):
        right, every = written.split("/")
        return 100 * int(right) / int(every)
    return float(written)


def rows(column: str) -> dict[str, float]:
    """The paper's figures in one column, by model; empty where the paper has no such column.

    >>> rows("fim-single-line.python")["DeepSeek-Coder-V2-Lite-Base"]
    80.0
    """
    return {model: value for table in tables() for each in table.columns if each.name == column
            for model, value in each.values.items()}  # fmt: skip


# --- ours -------------------------------------------------------------------------------------------------------------


def _find_ours(column: Column, table: Table, entries: Entries) -> Ours | None:
    """Our figure for a column: an entry's score, that of one of its parts, or a vote; None where there is none."""
    for place in column.places:
        task, _, part = place.partition(".")
        if task in entries and not _belongs_elsewhere(table, entries[task], task):
            found = _in_entry(entries[task], task, part, column.scale)
            if found is not None:
                return found
    return None


def _in_entry(entry: Mapping[str, Any], task: str, part: str, scale: float) -> Ours | None:
    factor = scale if entry.get("unit", "share") == "share" else 1.0
    if part.startswith("maj@"):
        score, interval, n = entry.get(part), entry.get(f"{part}_ci95"), entry["n"]
    else:
        groups = [entry[group][part] for group in GROUPS if part in entry.get(group, {})] if part else [entry]
        if not groups:
            return None
        score, interval, n = groups[0].get("score"), groups[0].get("ci95"), groups[0]["n"]
    if score is None:
        return None
    between = (interval[0] * factor, interval[1] * factor) if interval else None
    return Ours(score * factor, between, n, task)


def _shown(table: Table, entries: Entries) -> dict[str, Ours]:
    """Our figures of a table's columns; its average, where we have all of what it is made of."""
    found = {}
    for column in table.columns:
        ours = _find_ours(column, table, entries)
        if ours is not None:
            found[column.name] = ours
    others = [column.name for column in table.columns if column.name != table.average]
    if table.average and table.average not in found and all(name in found for name in others):
        value = sum(found[name].value for name in others) / len(others)
        found[table.average] = Ours(value, None, 0, "")
    return found


def _belongs_elsewhere(table: Table, entry: Mapping[str, Any], task: str) -> bool:
    """Whether another table has the same benchmark asked as ours was, and this one has not."""
    style = entry.get("style", "")
    if style in table.styles:
        return False
    return any(style in other.styles and task in _tasks(other) for other in tables())


def _tasks(table: Table) -> set[str]:
    return {place.partition(".")[0] for column in table.columns for place in column.places}


# --- telling ----------------------------------------------------------------------------------------------------------


def comparison(entries: Entries) -> str:
    """The paper's models beside ours on every benchmark that both have, and what must be known to read it."""
    parts = []
    for table in tables():
        found = _shown(table, entries)
        if any(ours.task for ours in found.values()):
            parts.append(_told(table, found, entries))
    return "\n\n".join(parts) if parts else "The paper has none of these benchmarks."


def _told(table: Table, found: Mapping[str, Ours], entries: Entries) -> str:
    columns = [column for column in table.columns if column.name in found]
    lines = [
        f"{table.title} ({table.paper} of the paper)" if "," not in table.paper else f"{table.title} ({table.paper})"
    ]
    for first in range(0, len(columns), COLUMNS):
        lines += ["", *_block(columns[first : first + COLUMNS], found)]
    lines.append("")
    lines += _wrapped(f"The paper: {table.protocol}")
    if table.unstated:
        lines += _wrapped(f"Not stated in the paper: {table.unstated}")
    for words in _differences(table, columns, found, entries):
        lines += _wrapped(f"Differs here: {words}")
    for task in dict.fromkeys(found[column.name].task for column in columns):
        if task:
            lines += _wrapped(f"Yours, {task}: {entries[task].get('protocol', 'not stated.')}")
    return "\n".join(lines)


def _block(columns: Sequence[Column], found: Mapping[str, Ours]) -> list[str]:
    """Some columns with the models that have a figure in one of them, and ours in the last two lines."""
    models = dict.fromkeys(model for column in columns for model in column.values)
    lines = [f"{'':<{NAME}}" + "".join(f"{column.header:>{CELL}}" for column in columns)]
    for model in models:
        cells = [_figure(column.values.get(model), column.scale) for column in columns]
        lines.append(f"{model:<{NAME}}" + "".join(f"{cell:>{CELL}}" for cell in cells))
    ours = [_figure(found[column.name].value, column.scale) for column in columns]
    lines.append(f"{'yours':<{NAME}}" + "".join(f"{cell:>{CELL}}" for cell in ours))
    between = [_interval(found[column.name].interval, column.scale) for column in columns]
    if any(between):
        lines.append(f"{'  95 %':<{NAME}}" + "".join(f"{cell:>{CELL}}" for cell in between))
    return [line.rstrip() for line in lines]


def _figure(value: float | None, scale: float) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if scale == 100 else f"{value:.2f}"


def _interval(between: tuple[float, float] | None, scale: float) -> str:
    return "" if between is None else f"{_figure(between[0], scale)}-{_figure(between[1], scale)}"


def _differences(
    table: Table, columns: Sequence[Column], found: Mapping[str, Ours], entries: Entries
) -> list[str]:  # fmt: skip
    """How our figures came about otherwise than the paper's, in words."""
    said: dict[str, None] = {}
    for column in columns:
        ours = found[column.name]
        if not ours.task:
            continue
        entry = entries[ours.task]
        if entry.get("style") and entry["style"] not in table.styles:
            kinds = " and ".join(KIND_OF_STYLE.get(style, style) for style in table.styles)
            said[f"{ours.task} was asked in the style {entry['style']}; the paper's figures are of {kinds}."] = None
        if column.problems and ours.n != column.problems:
            said[f"{column.header} has {ours.n:,} problems; the paper asks {column.problems:,}."] = None
        if table.greedy and entry.get("samples_each", 1) > 1:
            said[f"{ours.task} has {entry['samples_each']} samples a problem; the paper decodes greedily."] = None
        if entry.get("unscored"):
            left_out = sum(entry["unscored"].values())
            said[f"{ours.task}: {left_out:,} samples have no score and are left out."] = None
    return list(said)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")
