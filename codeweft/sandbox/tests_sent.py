"""The tests of a submission on their way to the judge: encoded once for all answers to a problem, and sent once.

In:  the tests of submissions.  Out: their text and its digest; at the judge, a list with what a harness reads.

Unusual: tests are found again by being the same objects, since a thousand of them take longer to encode than to judge:
who changes what a test holds in place is judged by what it held before. The text says values exactly (plain.py);
within the judge they become what `marshal` writes, which the harness reads quickest. From here inwards only: what
comes out of a box is never unmarshalled.
"""

import hashlib
import json
import marshal
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from codeweft.base.errors import UserError
from codeweft.sandbox import plain
from codeweft.sandbox.config import Submission
from codeweft.sandbox.harness import framed, packed

if TYPE_CHECKING:  # the supervisor has neither Arrow nor anything else that needs a package
    from codeweft.base.records import Test

K = TypeVar("K")
V = TypeVar("V")
KEPT = 16 << 20  # characters of tests that are kept for the next answer, on each side
WITHOUT_SHARING = 2  # the newest version of marshal's format in which no two inputs are one object
# How values begin in text that marshal would change: bytearrays, which it does not know, and sets, whose order may be
# another one each time they are made anew: an answer's shall be made as often as the one that gave the expected value.
CHANGED = ('["y",', '["e",', '["z",')


class Bounded(Generic[K, V]):
    """The values that were used last, as many as fit into so many characters; the newest is always there."""

    def __init__(self, most: int) -> None:
        self.most, self.size = most, 0
        self.kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def find(self, key: K) -> V | None:
        """What was put there, which counts as used now."""
        if key not in self.kept:
            return None
        self.kept.move_to_end(key)
        return self.kept[key][0]

    def put(self, key: K, value: V, size: int) -> list[K]:
        """Keep a value; the keys of those that had to go for it."""
        _, before = self.kept.pop(key, (None, 0))
        self.kept[key] = value, size
        self.size += size - before
        gone = []
        while self.size > self.most and len(self.kept) > 1:
            oldest, (_, freed) = self.kept.popitem(last=False)
            self.size -= freed
            gone.append(oldest)
        return gone


# --- where submissions come from -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tests as text, and the digest by which the judge finds them."""

    text: str
    digest: str


class Encoder:
    """Encodes tests, those that it was given last only once."""

    def __init__(self, most: int = KEPT) -> None:
        self.known: Bounded[int, tuple[Submission, Encoded]] = Bounded(most)

    def encoded(self, submission: Submission) -> Encoded:
        """The tests of a submission; UserError where they cannot be judged from outside."""
        found = self.known.find(id(submission.tests))  # kept with them, so no other tests can have that identity
        if found is not None and found[0].allclose == submission.allclose:
            return found[1]
        text = json.dumps(as_tables(submission), separators=(",", ":"))
        made = Encoded(text, hashlib.blake2b(text.encode(), digest_size=16).hexdigest())
        self.known.put(id(submission.tests), (submission, made), len(text))
        return made


def as_tables(submission: Submission) -> list[dict[str, Any]]:
    """The tests as the judge has them: values as text already, so that they are not encoded twice."""
    tables = [_table(test) for test in submission.tests]
    for table, tolerance in zip(tables, submission.allclose, strict=False):
        table["allclose"] = tolerance
    return tables


def _table(test: "Test") -> dict[str, Any]:
    if test.kind == "stdio":
        if not isinstance(test.expected, str | None):
            raise UserError("What a stdio test expects is no text.", "Give it as a str.")
        return {"kind": "stdio", "stdin": test.stdin, "expected": test.expected}
    if test.kind == "assert":
        return {"kind": "assert", "code": test.code}
    try:
        arguments, expected = plain.dumps(tuple(test.args)), plain.dumps(test.expected)
    except plain.PlainError as error:
        raise UserError(f"A call test cannot be judged from outside: {error}", "Make it an assert test.") from error
    return {"kind": "call", "args": arguments, "expected": expected}


# --- where they are judged -----------------------------------------------------------------------------------------


class TestSet(list[dict[str, Any]]):
    """The tables of one set of tests."""

    __test__ = False  # for pytest

    @cached_property
    def inputs(self) -> bytes:
        """The arguments of all `call` tests, a frame each, as the harness reads them."""
        return b"".join(framed(_input(test["args"])) for test in self)

    @cached_property
    def right(self) -> list[bytes]:
        """What a harness says of each `call` test when the value is the expected one to the last bit."""
        return [packed({"value": test["expected"]}) for test in self]


def _input(arguments: str) -> bytes:
    as_text = any(begin in arguments for begin in CHANGED)
    return marshal.dumps(arguments if as_text else plain.loads(arguments), WITHOUT_SHARING)
