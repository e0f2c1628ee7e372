"""Settings: frozen dataclasses filled from layers of TOML and dotted overrides, and written back as TOML.

In:  a dataclass and layers of nested mappings, weakest first (an extended recipe, the recipe, the command line).
Out: an instance of the dataclass, or one ConfigError naming the layer, the key and the nearest right one.

Unusual: a setting's help text is the comment behind its field, read from the source, so that it stands in one place.
"""

import dataclasses
import difflib
import inspect
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass
from pathlib import Path

from codeweft.base.errors import ConfigError, UsageError

T = typing.TypeVar("T")
RECIPES = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True, slots=True)
class Layer:
    """Nested settings and where they came from ("recipe toy.toml", "the command line")."""

    origin: str
    values: Mapping[str, typing.Any]

    def section(self, name: str) -> "Layer":
        """The layer's table `name`, empty where it has none."""
        table = self.values.get(name, {})
        if not isinstance(table, Mapping):
            raise ConfigError(f"{self.origin}: {name} must be a table, not {table!r}.", f"Write [{name}] above it.")
        return Layer(self.origin, table)


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of a stage's help: dotted name, type, default and what it is for."""

    name: str
    kind: str
    default: str
    purpose: str


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence naming the closest known name, or all of them when none is close.

    >>> nearest("fim_rat", ["fim_rate", "seed"])
    'Did you mean fim_rate?'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else f"Known here: {', '.join(names)}."


def build(cls: type[T], layers: Sequence[Layer], section: str) -> T:
    """Fill dataclass `cls`; later layers win key by key, nested dataclasses merge, everything else is replaced."""
    hints = typing.get_type_hints(cls)
    names = [field.name for field in setting_fields(cls)]
    for layer in layers:
        for key in layer.values:
            if key not in names:
                raise ConfigError(f"{layer.origin}, [{section}] {key}: no such setting.", nearest(key, names))
    values: dict[str, typing.Any] = {}
    for name in names:
        givers = [layer for layer in layers if name in layer.values]
        if not givers:
            continue
        inner = _dataclass_in(hints[name])
        if inner is not None and isinstance(givers[-1].values[name], Mapping):
            nested = [layer.section(name) for layer in givers if isinstance(layer.values[name], Mapping)]
            values[name] = build(inner, nested, f"{section}.{name}")
        else:
            place = f"{givers[-1].origin}, [{section}] {name}"
            values[name] = _convert(givers[-1].values[name], hints[name], place)
    try:
        return cls(**values)
    except ValueError as error:  # raised by a dataclass that checks itself
        raise ConfigError(f"[{section}]: {error}") from error
    except TypeError as error:
        raise ConfigError(f"[{section}] lacks a setting: {error}.", f"Set it with --{section}.NAME=VALUE.") from error


def setting_fields(cls: typing.Any) -> "list[Field[typing.Any]]":
    """The fields of a dataclass that a person may set; one declared with repr=False is internal."""
    return [field for field in dataclasses.fields(cls) if field.init and field.repr]


def _dataclass_in(hint: typing.Any) -> type | None:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option) and isinstance(option, type)), None)


def _convert(value: typing.Any, hint: typing.Any, place: str) -> typing.Any:
    """Turn a TOML or command-line value into the field's type; a string may stand for any of them."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() in {"none", ""} and str not in arguments):
            return None
        return _convert(value, next(a for a in arguments if a is not types.NoneType), place)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{place}: {value!r} is not a choice.", nearest(str(value), map(str, arguments)))
        return value
    if origin is tuple:
        items = _items(value, place)
        return tuple(_convert(item, arguments[0], place) for item in items)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{place}: expected a table, got {value!r}.")
        return {str(key): _convert(item, arguments[1], place) for key, item in value.items()}
    return _scalar(value, hint, place)


def _items(value: typing.Any, place: str) -> list[typing.Any]:
    if isinstance(value, str):
        if value.startswith("["):
            try:
                return tomllib.loads(f"value = {value}")["value"]
            except tomllib.TOMLDecodeError as error:
                raise ConfigError(f"{place}: {value} is not a list: {error}.", 'Write a,b or ["a", "b"].') from error
        return [part for part in value.split(",") if part]
    return list(value) if isinstance(value, list | tuple) else [value]


def _scalar(value: typing.Any, hint: type, place: str) -> typing.Any:
    wrong = ConfigError(f"{place}: expected {getattr(hint, '__name__', hint)}, got {value!r}.")
    if hint is bool:
        word = str(value).lower()
        if word not in {"true", "false"}:
            raise wrong
        return word == "true"
    if hint in (Path, str):
        if isinstance(value, Mapping | list):
            raise wrong
        text = str(value)
        if "\0" in text or text != text.encode("utf-8", "replace").decode():
            raise ConfigError(f"{place}: {value!r} cannot be written into a recipe.", "Rename it in UTF-8.")
        return hint(text)
    if isinstance(value, bool) or hint not in (int, float):
        raise wrong
    text = str(value).replace("_", "")
    try:
        if hint is float:
            return float(text)
        # 1e6 is a whole number too, but digits alone must not pass through a float, which rounds long ones
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else _whole(float(text))
    except (ValueError, OverflowError) as error:
        raise wrong from error


def _whole(number: float) -> int:
    if number != int(number):
        raise ValueError(number)
    return int(number)


def recipe_names() -> list[str]:
    """The recipes of the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def read_recipe(name: str, above: tuple[str, ...] = ()) -> list[Layer]:
    """The layers of a recipe, weakest first: a file, or a name in the package; `extends = "toy"` puts another below.

    >>> [layer.origin for layer in read_recipe("toy")]
    ['recipe toy.toml']
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        known = recipe_names()
        raise ConfigError(f"There is no recipe {name}.", nearest(name, known) + " A path must end in .toml.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path.name} is not TOML: {error}.", "Mend that line.") from error
    below = values.pop("extends", "")
    if not isinstance(below, str):
        raise ConfigError(f"recipe {path.name}: extends = {below!r} is not a recipe.", 'Write extends = "toy".')
    if below in (*above, name):
        raise ConfigError(f"recipe {path.name} extends itself.", "Remove its line `extends`.")
    return [*(read_recipe(below, (*above, name)) if below else []), Layer(f"recipe {path.name}", values)]


def parse_overrides(words: Sequence[str], sections: Sequence[str]) -> Layer:
    """Read `--section.key=value` and `--section.key value` into one layer.

    >>> parse_overrides(["--tokens.fim_rate=0.1"], ["tokens"]).values
    {'tokens': {'fim_rate': '0.1'}}
    """
    values: dict[str, typing.Any] = {}
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        match = re.fullmatch(r"--([\w.-]+?)(?:=(.*))?", word, re.DOTALL)
        if match is None or "." not in match[1]:
            raise UsageError(
                f"{word}: not understood.", nearest(word.lstrip("-"), [f"--{s}.KEY=VALUE" for s in sections])
            )
        path = match[1].replace("-", "_").split(".")
        if path[0] not in sections:
            raise UsageError(f"{word}: there is no section {path[0]}.", nearest(path[0], sections))
        value = match[2]
        if value is None:
            if not remaining or remaining[0].startswith("--"):
                raise UsageError(f"{word}: a value is missing.", f"Write {word}=VALUE.")
            value = remaining.pop(0)
        table = values
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise UsageError(f"{word}: {part} was given a value before.", f"Leave out --{path[0]}.{part}=….")
        table[path[-1]] = value
    return Layer("the command line", values)


def settings(cls: type, prefix: str) -> Iterator[Setting]:
    """Every setting of a configuration dataclass, nested ones dotted, with the comment behind the field."""
    sources = [inspect.getsource(each) for each in cls.__mro__[::-1] if dataclasses.is_dataclass(each)]
    comments = dict(re.findall(r"^    (\w+):[^#\n]*#\s*(.+?)\s*$", "\n".join(sources), re.MULTILINE))
    hints = typing.get_type_hints(cls)
    for field in setting_fields(cls):
        inner = _dataclass_in(hints[field.name])
        if inner is not None:
            yield from settings(inner, f"{prefix}.{field.name}")
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        shown = "required" if default is dataclasses.MISSING else toml_value(default)
        yield Setting(f"--{prefix}.{field.name}", _kind(hints[field.name]), shown, comments.get(field.name, ""))


def _kind(hint: typing.Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(map(str, typing.get_args(hint)))
    return getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint).replace("typing.", "")


def plain(config: typing.Any) -> typing.Any:
    """A dataclass as nested dictionaries, lists and scalars that JSON and TOML can hold.

    TOML has no null: a None that is the field's default is left out, any other is the word "none".
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        values = {}
        for field in setting_fields(config):
            value = getattr(config, field.name)
            if value is not None:
                values[field.name] = plain(value)
            elif field.default is not None:
                values[field.name] = "none"
        return values
    if isinstance(config, Mapping):
        return {str(key): plain(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain(item) for item in config]
    return str(config) if isinstance(config, Path) else config


def toml_value(value: typing.Any) -> str:
    """One value as TOML writes it.

    >>> toml_value((1, 2.5, "a"))
    '[1, 2.5, "a"]'
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {toml_value(v)}" for k, v in value.items()) + "}"
    return repr(value)


def to_toml(values: Mapping[str, typing.Any], path: str = "") -> str:
    """Nested plain values as a TOML document, scalars before tables."""
    scalars = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {toml_value(value)}" for key, value in scalars.items()]
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = f"{path}.{_key(key)}" if path else _key(key)
            lines += ["", f"[{inner}]", to_toml(value, inner).rstrip("\n")]
    return "\n".join(lines).strip("\n") + "\n"


def _key(name: str) -> str:
    """A key as TOML writes it: quoted where it is not a plain word."""
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else toml_value(name)
