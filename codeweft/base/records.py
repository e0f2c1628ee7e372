"""The nouns that rooms exchange: what a row of each file means, and nothing else.

In:  nothing.  Out: frozen dataclasses (docs/contracts.md) and their Arrow schemas; no behaviour.
"""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import pyarrow as pa

Kind = Literal["code", "math", "text"]
Split = Literal["train", "held-out"]


@dataclass(frozen=True, slots=True)
class Document:
    """One document of the corpus; `id` is BLAKE2b of source, path and bytes, `bytes` the UTF-8 length of `text`."""

    id: str
    text: str
    kind: Kind
    language: str
    source: str
    repository: str
    path: str
    bytes: int
    split: Split = "train"
    revision: str = ""
    url: str = ""
    licence: str = ""
    stars: int | None = None
    quality: float | None = None
    members: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dropped(Document):
    """A document that was left out: the rule's name, and the number that broke it or the kept duplicate's id."""

    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """One document inside the token shards: `start` and `length` count tokens from the shard's beginning."""

    document: str
    shard: str
    start: int
    length: int
    bytes: int
    kind: Kind
    language: str
    repository: str
    split: Split
    # which epoch over its kind this copy belongs to, 0 first
    epoch: int
    fim: bool


@dataclass(frozen=True, slots=True)
class Test:
    """One check of a problem: `call` compares a returned value, `stdio` an output, `assert` runs code."""

    __test__ = False  # for pytest, which takes what is called Test for tests
    kind: Literal["stdio", "call", "assert"]
    stdin: str = ""
    args: tuple[Any, ...] = ()
    expected: Any = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One question of a task: a statement, tests that may be shown and others, or an answer to compare with.

    `id` is unique in its task; `difficulty` is the task's own word or number for it; `limits` are fields of the
    sandbox's `Limits`; `facts` is what else the task needs to ask and to grade (choices, the text after a hole, set-up
    code), plain JSON values.
    """

    id: str
    task: str
    family: str = ""
    language: str = ""
    difficulty: str = ""
    split: Split = "held-out"
    prompt: str = ""
    entry_point: str = ""
    tests_visible: tuple[Test, ...] = ()
    tests_hidden: tuple[Test, ...] = ()
    reference: str = ""
    limits: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns of a chat, each `{role, content}`."""

    id: str
    messages: tuple[dict[str, str], ...]
    source: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One generated text; `logprob` is the sum over its tokens under the sampling distribution at temperature 1."""

    problem: str
    prompt_digest: str
    seed: int
    text: str
    tokens: tuple[int, ...]
    logprob: float
    finish: str


Status = Literal[
    "ok", "wrong", "runtime_error", "compile_error", "time_limit", "memory_limit", "output_limit", "incomplete",
    "bad_output", "unsupported", "refused", "harness_error",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge found: tests passed of all, CPU seconds, peak memory, and the wall it ran behind.

    `mode` is how tests and answer met (stdio, split; compat proves little and is never a reward); `detail` says in
    words what failed first, without any expected value.
    """

    status: Status
    passed: int
    total: int
    cpu_seconds: float
    peak_bytes: int
    tier: str
    mode: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Feedback:
    """One sampled answer and what the tests that its prompt shows, and those that it does not, said of it.

    `logprob` is the sum over `tokens` at temperature 1. A problem with a known result in place of tests has one verdict
    for both.
    """

    problem: str
    seed: int
    text: str
    tokens: tuple[int, ...]
    logprob: float
    finish: str
    visible: Status
    visible_passed: int
    visible_total: int
    hidden: Status
    hidden_passed: int
    hidden_total: int
    tier: str
    mode: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one problem, one better by its tests."""

    problem: str
    chosen: str
    rejected: str
    chosen_passed: int
    rejected_passed: int
    total: int
    visible_only: bool


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled answer inside a policy step."""

    step: int
    problem: str
    group: int
    seed: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    reward: float
    advantage: float
    verdict: str
    weights_digest: str


@cache
def schema(record: Any) -> pa.Schema:
    """The Arrow schema of a record, one column a field.

    >>> schema(TokenEntry).field("start").type
    DataType(int64)
    """
    hints = typing.get_type_hints(record)
    return pa.schema([(entry.name, _arrow_type(hints[entry.name])) for entry in dataclasses.fields(record)])


def _arrow_type(hint: Any) -> pa.DataType:
    simple = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    if hint in simple:
        return simple[hint]
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return _arrow_type(next(a for a in arguments if a is not types.NoneType))
    origin = typing.get_origin(hint)
    if origin is tuple:
        return pa.list_(_arrow_type(arguments[0]))
    if origin is dict:
        return pa.map_(pa.string(), _arrow_type(arguments[1]))
    assert origin is Literal, hint
    return pa.string()
