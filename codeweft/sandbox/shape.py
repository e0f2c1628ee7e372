"""What a JSON value must be: tables of fields that check a body and are the schema that is published of it.

In:  decoded JSON.  Out: checked values, or a WireError that names the field that is wrong.

Unusual: the standard library alone, so that a client needs no more, and one error a body, however much is wrong in it.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codeweft.base.config import nearest
from codeweft.base.errors import UserError

Json = dict[str, Any]
REQUIRED: Any = object()  # the default of a field that has none
MOST_NAMES, LONGEST_NAME = 8, 64  # unknown fields that one error tells, and characters of each


class WireError(UserError):
    """A JSON value is not what it should be; `field` is its place, such as `submissions[0].tests[2].kind`."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        told = f"{field}: {message}" if field else f"{message[:1].upper()}{message[1:]}"
        super().__init__(told if told.endswith("?") else f"{told.rstrip('.')}.")


@dataclass(frozen=True, slots=True)
class Field:
    """What a JSON value must be: a reader of (value, place), the JSON schema that says the same, and its default."""

    read: Callable[[Any, str], Any]
    schema: Json
    default: Any = REQUIRED

    def otherwise(self, default: Any) -> "Field":
        """The same, but it may be left out."""
        shown = {"default": default} if isinstance(default, str | int | float | list | dict | None) else {}
        return Field(self.read, self.schema | shown, default)

    def or_null(self) -> "Field":
        """The same or null; null where it is left out."""
        read = self.read
        return Field(
            lambda value, place: None if value is None else read(value, place),
            {"anyOf": [self.schema, {"type": "null"}]},
            None,
        )

    def told(self, purpose: str) -> "Field":
        """The same with a description in the schema."""
        return dataclasses.replace(self, schema=self.schema | {"description": purpose})


def text(shortest: int = 0, *, halves: bool = False) -> Field:
    """A string that UTF-8 can hold; `halves` lets halves of surrogate pairs through."""

    def read(value: Any, place: str) -> str:
        if not isinstance(value, str) or len(value) < shortest:
            raise WireError(place, "must be a text" + (" that is not empty" if shortest else ""))
        if not halves and not value.isascii() and value != value.encode("utf-8", "replace").decode():
            raise WireError(place, "holds half a surrogate pair")
        return value

    return Field(read, {"type": "string"} | ({"minLength": shortest} if shortest else {}))


def number(lowest: float, highest: float = math.inf, *, whole: bool = False) -> Field:
    """A finite number between two bounds; a whole one may be written with a fraction of zero."""
    bounds = f"of at least {lowest:g}" + (f" and at most {highest:g}" if highest < math.inf else "")

    def read(value: Any, place: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            raise WireError(place, f"must be a {'whole ' if whole else ''}number {bounds}")
        if value == math.inf or (whole and value != int(value)):
            raise WireError(place, f"must be a {'whole' if whole else 'finite'} number {bounds}")
        try:
            return int(value) if whole else float(value)
        except OverflowError as error:
            raise WireError(place, "is too large") from error

    schema: Json = {"type": "integer" if whole else "number", "minimum": lowest}
    return Field(read, schema | ({"maximum": highest} if highest < math.inf else {}))


def flag() -> Field:
    """True or false."""

    def read(value: Any, place: str) -> bool:
        if not isinstance(value, bool):
            raise WireError(place, "must be true or false")
        return value

    return Field(read, {"type": "boolean"})


def choice(*names: str) -> Field:
    """One of some words."""

    def read(value: Any, place: str) -> str:
        if value not in names:
            raise WireError(place, f"must be one of {', '.join(names)}")
        return value

    return Field(read, {"type": "string", "enum": list(names)})


def anything() -> Field:
    """Any JSON value, taken as it is."""
    return Field(lambda value, place: value, {})


def several(inner: Field, fewest: int = 0) -> Field:
    """A list of the same kind of value."""

    def read(value: Any, place: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) < fewest:
            raise WireError(place, "must be a list" + (" that is not empty" if fewest else ""))
        return tuple(inner.read(item, f"{place}[{index}]") for index, item in enumerate(value))

    return Field(read, {"type": "array", "items": inner.schema} | ({"minItems": fewest} if fewest else {}))


def table(fields: Mapping[str, Field], make: Callable[..., Any] = dict, *, others: bool = False) -> Field:
    """A table of named fields, handed to `make`; unknown ones are refused, all of them in one error, or ignored."""

    def read(value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            raise WireError(place, f"{'' if place else 'the body '}must be a table (a JSON object)")
        before = f"{place}." if place else ""
        unknown = [name for name in value if name not in fields]
        if unknown and not others:
            raise _unknown(unknown, before, fields)
        read_values = {}
        for name, field in fields.items():
            if name in value:
                read_values[name] = field.read(value[name], before + name)
            elif field.default is REQUIRED:
                raise WireError(before + name, "is missing")
            else:
                read_values[name] = field.default
        try:
            return make(**read_values)
        except ValueError as error:  # a dataclass that checks itself
            raise WireError(place, str(error)) from error

    schema: Json = {"type": "object", "properties": {name: field.schema for name, field in fields.items()}}
    required = [name for name, field in fields.items() if field.default is REQUIRED]
    closed: Json = {} if others else {"additionalProperties": False}
    return Field(read, schema | closed | ({"required": required} if required else {}))


def _unknown(names: Sequence[str], before: str, known: Mapping[str, Field]) -> WireError:
    shown = [name[:LONGEST_NAME].encode("utf-8", "backslashreplace").decode() for name in names[:MOST_NAMES]]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    others = f", as {'is' if len(names) == 2 else 'are'} {', '.join(shown[1:])}{more}" if len(names) > 1 else ""
    return WireError(before + shown[0], f"is unknown{others}. {nearest(shown[0], known)}")


def of_dataclass(cls: Any, *, others: bool = False) -> Field:
    """The table of a flat dataclass of words, texts and numbers, every field with its default where it has one."""
    hints, fields = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if typing.get_origin(hint) is typing.Literal:
            kind = choice(*typing.get_args(hint))
        else:
            kind = text() if hint is str else number(0, 2**40, whole=hint is int)
        default = REQUIRED if field.default is dataclasses.MISSING else field.default
        fields[field.name] = kind if default is REQUIRED else kind.otherwise(default)
    return table(fields, cls, others=others)
