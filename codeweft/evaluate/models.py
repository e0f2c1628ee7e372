"""Who answers, behind one interface: any OpenAI-compatible URL, a file of answers, or a folder (local_models.py).

In:  what is wanted: asks with their seeds.  Out: what was said, each as soon as it is there.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from codeweft.base.artifacts import digest_file, digest_of
from codeweft.base.errors import InputError, UserError
from codeweft.engine.remote import RemoteModel, TooLong
from codeweft.tasks.files import read_records
from codeweft.tasks.task import Ask, Room, Style

Kind = Literal["base", "chat", "unknown"]
REMOTE_BYTES_PER_TOKEN = 3.0  # of a tokenizer that is not known
REMOTE_ROOM = 1 << 17  # tokens of a prompt for a model whose length is not known
ANSWER_FIELDS = ("completion", "solution", "text")  # of a file of answers


@dataclass(frozen=True, slots=True)
class Wanted:
    """One turn that is to be said; `number` is its place among all that are wanted."""

    number: int
    ask: Ask
    seed: int
    problem: str = ""
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What came; for `likelihood`, `text` is the number of the likeliest choice and `choices` are log-probabilities.

    `finish` is "refused" where the ask does not fit the model; `text` then says why.
    """

    number: int
    text: str
    tokens: tuple[int, ...] = ()
    logprob: float | None = None
    finish: str = "stop"
    prompt_digest: str = ""
    choices: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawing:
    """How tokens are drawn; `normalise` divides the log-probability of a choice by its bytes."""

    style: Style
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 0  # 0: as the ask says
    normalise: bool = False


class Model(Protocol):
    """A model that can be asked."""

    digest: str  # equal digests answer alike
    kind: Kind
    room: Room

    @property
    def name(self) -> str:
        """What it is called where scores are shown."""
        ...

    def unable(self, style: Style) -> str:
        """Why it cannot be asked in this style, or nothing."""
        ...

    def say(self, wanted: Sequence[Wanted], done: frozenset[int], drawing: Drawing) -> AsyncIterator[Said]:
        """What is wanted and not done yet, in the order in which it is finished."""
        ...


def likeliest(wanted: Wanted, logprobs: tuple[float, ...], normalise: bool, prompt_digest: str) -> Said:
    """The number of the likeliest choice, by its whole or its mean log-probability a byte."""
    sizes = [len(choice.encode()) if normalise else 1 for choice in wanted.ask.choices]
    scores = [logprob / size for logprob, size in zip(logprobs, sizes, strict=True)]
    best = max(range(len(scores)), key=scores.__getitem__)
    return Said(wanted.number, str(best), (), logprobs[best], "stop", prompt_digest, logprobs)


class UrlModel:
    """A model behind an OpenAI-compatible URL."""

    kind: Kind = "unknown"

    def __init__(self, remote: RemoteModel) -> None:
        self.remote = remote
        self.digest = digest_of([remote.config.url, remote.config.model])
        self.room = Room(REMOTE_ROOM, lambda text: int(len(text.encode()) / REMOTE_BYTES_PER_TOKEN) + 1)

    @property
    def name(self) -> str:
        """The model and where it is, as far as is known."""
        return f"{self.remote.known_model or 'the first model'} at {self.remote.config.url}"

    def unable(self, style: Style) -> str:
        """Nothing is known before it is asked."""
        return ""

    async def say(self, wanted: Sequence[Wanted], done: frozenset[int], drawing: Drawing) -> AsyncIterator[Said]:
        """As many at once as the client allows, in the order of their finish."""
        waiting = [asyncio.ensure_future(self._one(each, drawing)) for each in wanted if each.number not in done]
        try:
            for finished in asyncio.as_completed(waiting):
                yield await finished
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await self.remote.close()

    async def _one(self, wanted: Wanted, drawing: Drawing) -> Said:
        ask = wanted.ask
        digest = digest_of([ask.text, ask.suffix, [dict(message) for message in ask.messages]])
        if not ask.text and not ask.messages and drawing.style != "infill":
            return Said(wanted.number, "The question does not fit this model.", finish="refused")
        try:
            return await self._asked(wanted, drawing, digest)
        except TooLong as error:
            return Said(wanted.number, error.message, finish="refused")

    async def _asked(self, wanted: Wanted, drawing: Drawing, digest: str) -> Said:
        ask = wanted.ask
        if drawing.style == "likelihood":
            logprobs = await self.remote.logprobs(ask.text, ask.choices)
            return likeliest(wanted, tuple(logprobs), drawing.normalise, digest)
        tokens = drawing.max_tokens or ask.max_tokens
        seed = wanted.seed % 2**31  # some servers read no more
        if drawing.style == "chat":
            answer = await self.remote.chat(
                ask.messages, max_tokens=tokens, temperature=drawing.temperature, top_p=drawing.top_p, stop=ask.stop,
                seed=seed,
            )  # fmt: skip
        else:
            suffix = ask.suffix if drawing.style == "infill" else None
            answer = await self.remote.complete(
                ask.text, suffix=suffix, max_tokens=tokens, temperature=drawing.temperature, top_p=drawing.top_p,
                stop=ask.stop, seed=seed,
            )  # fmt: skip
        text = through_first_line(answer.text) if ask.stop_line else answer.text
        return Said(wanted.number, text, (), answer.logprob, answer.finish, digest)


def through_first_line(text: str) -> str:
    r"""A text up to the end of its first line that is not blank, as our engine stops there.

    >>> through_first_line("\n  x = 1\ny = 2")
    '\n  x = 1'
    """
    found = re.match(r"\s*[^\n]*", text)
    return found[0] if found else text


class AnswersModel:
    """Answers that somebody else had from a model, as lines of JSON: problem (or task_id) and text.

    A `completion` goes on from the prompt of a base model; a `solution` or `text` is what a chat model said. Several
    lines of one problem are its samples, in the order of the file.
    """

    room = Room(REMOTE_ROOM, len)

    def __init__(self, path: Path) -> None:
        self.name, self.digest = str(path), digest_file(path)
        self.answers: dict[tuple[str, int], str] = {}
        kinds: set[Kind] = set()
        counts: dict[str, int] = {}
        for place, record in read_records(path):
            problem = record.get("problem", record.get("task_id"))
            field = next((name for name in ANSWER_FIELDS if isinstance(record.get(name), str)), None)
            if not isinstance(problem, str) or field is None:
                raise InputError(
                    f"{place}: there is no problem with a text.", f"Give problem and one of {', '.join(ANSWER_FIELDS)}."
                )
            kinds.add("base" if field == "completion" else "chat")
            self.answers[problem, counts.get(problem, 0)] = record[field]
            counts[problem] = counts.get(problem, 0) + 1
        if len(kinds) != 1:
            raise InputError(f"{path} holds no answers, or completions and whole answers.", "Give one kind a file.")
        self.kind: Kind = kinds.pop()
        self.samples = max(counts.values())

    def unable(self, style: Style) -> str:
        """There are no log-probabilities in a file."""
        return "A file of answers has no log-probabilities." if style == "likelihood" else ""

    async def say(self, wanted: Sequence[Wanted], done: frozenset[int], drawing: Drawing) -> AsyncIterator[Said]:
        """What the file says; a problem without an answer is refused."""
        for each in wanted:
            if each.number in done:
                continue
            text = self.answers.get((each.problem, each.sample))
            if text is None:
                yield Said(each.number, "The file has no answer to it.", finish="refused")
            else:
                yield Said(each.number, text, prompt_digest=digest_of(each.problem))


def check_style(model: Model, style: Style, title: str) -> None:
    """UserError where a style was asked for that the model cannot do."""
    if reason := model.unable(style):
        raise UserError(f"{title} in the style {style}: {reason}", "Choose another style, or another model.")
