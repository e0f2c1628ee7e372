"""Problems and conversations as lines of JSON, and back without losing a bit.

In:  records, a file that is open for writing; a path.  Out: one JSON object a line; records.

Unusual: a test's values may be tuples, sets or bytes, which JSON has not: those of such a test are written with the
type of each (sandbox/plain.py) and the test says so: `"typed": true`, as the sandbox's service has it.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from codeweft.base.conversations import MEND, conversation_of
from codeweft.base.errors import InputError
from codeweft.base.records import Conversation, Problem, Test
from codeweft.sandbox.plain import PlainError, decode, encode
from codeweft.tasks.files import read_records

TEXTS = ("id", "task", "family", "language", "difficulty", "split", "prompt", "entry_point", "reference")
FIELDS = tuple(field.name for field in dataclasses.fields(Problem))


class Writable(Protocol):
    """What lines can be written to."""

    def write(self, data: bytes) -> int:
        """Take all of `data`."""
        ...


# --- problems ---------------------------------------------------------------------------------------------------------


def write_problems(file: Writable, problems: Iterable[Problem]) -> int:
    """One problem a line; returns their number."""
    return _write(file, map(problem_to_json, problems))


def read_problems(path: Path) -> Iterator[Problem]:
    """The problems of a file; InputError names the file and the line of one that is malformed."""
    for place, record in read_records(path, ("id", "task")):
        yield problem_from_json(record, place)


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """A problem as JSON values; fields that hold nothing are left out, but for the split."""
    found: dict[str, Any] = {}
    for name in FIELDS:
        value = getattr(problem, name)
        if name.startswith("tests"):
            value = [_test_to_json(test) for test in value]
        if value or name == "split":
            found[name] = value
    return found


def problem_from_json(record: dict[str, Any], place: str) -> Problem:
    """The problem of a line; InputError where a field is unknown or of the wrong type."""
    if unknown := sorted(set(record) - set(FIELDS)):
        raise InputError(f"{place}: a problem has no field {unknown[0]}.", MEND)
    for name in TEXTS:
        if not isinstance(record.get(name, ""), str):
            raise InputError(f"{place}: {name} is no text.", MEND)
    if record.get("split", "held-out") not in ("train", "held-out"):
        raise InputError(f"{place}: the split is {record['split']!r}, neither train nor held-out.", MEND)
    for name in ("limits", "facts"):
        if not isinstance(record.get(name, {}), dict):
            raise InputError(f"{place}: {name} is no JSON object.", MEND)
    fields: dict[str, Any] = dict(record)
    for name in ("tests_visible", "tests_hidden"):
        fields[name] = _tests(record.get(name, []), f"{place}: {name}")
    return Problem(**fields)


def _test_to_json(test: Test) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": test.kind}
    if test.kind == "call":
        typed = not all(map(_plain, (*test.args, test.expected)))
        found["args"] = [encode(each) if typed else each for each in test.args]
        found["expected"] = encode(test.expected) if typed else test.expected
        return found | ({"typed": True} if typed else {})
    if test.kind == "stdio":
        return found | {"stdin": test.stdin, "expected": test.expected}
    return found | {"code": test.code}


def _plain(value: Any) -> bool:
    """Whether JSON gives a value back as it was."""
    if type(value) is list:
        return all(map(_plain, value))
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(_plain, value.values()))
    return value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))


def _tests(values: Any, place: str) -> tuple[Test, ...]:
    if not isinstance(values, list):
        raise InputError(f"{place} is no list.", MEND)
    return tuple(_test(value, f"{place}[{number}]") for number, value in enumerate(values))


def _test(value: Any, place: str) -> Test:
    if not isinstance(value, dict) or value.get("kind") not in ("stdio", "call", "assert"):
        raise InputError(f"{place} is no test: its kind must be stdio, call or assert.", MEND)
    if unknown := sorted(set(value) - {"kind", "stdin", "args", "expected", "code", "typed"}):
        raise InputError(f"{place}: a test has no field {unknown[0]}.", MEND)
    arguments, expected = value.get("args", []), value.get("expected")
    if not isinstance(arguments, list):
        raise InputError(f"{place}: args is no list.", MEND)
    for name in ("stdin", "code"):
        if not isinstance(value.get(name, ""), str):
            raise InputError(f"{place}: {name} is no text.", MEND)
    if value["kind"] == "stdio" and not isinstance(expected, str):
        raise InputError(f"{place}: what a stdio test expects is no text.", MEND)
    if value["kind"] == "assert" and not value.get("code"):
        raise InputError(f"{place}: an assert test has no code.", MEND)
    if value.get("typed"):
        try:
            arguments, expected = [decode(each) for each in arguments], decode(expected)
        except PlainError as error:
            raise InputError(f"{place}: {error}", MEND) from error
    return Test(value["kind"], value.get("stdin", ""), tuple(arguments), expected, value.get("code", ""))


# --- conversations ----------------------------------------------------------------------------------------------------


def write_conversations(file: Writable, conversations: Iterable[Conversation]) -> int:
    """One conversation a line; returns their number."""
    return _write(file, map(dataclasses.asdict, conversations))


def read_conversations(path: Path) -> Iterator[Conversation]:
    """The conversations of a file; an id or source that is missing becomes the line's place and the file's name.

    InputError names the file and the line of one that has no messages, an unknown role, or no answer.
    """
    for number, (place, record) in enumerate(read_records(path)):
        yield conversation_of(record, place, f"{path.stem}-{number}", path.stem)


def _write(file: Writable, records: Iterable[dict[str, Any]]) -> int:
    written = 0
    for record in records:
        line = json.dumps(record, ensure_ascii=False)
        # half of a surrogate pair can be written as an escape alone
        file.write(f"{line if _encodes(line) else json.dumps(record)}\n".encode())
        written += 1
    return written


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
