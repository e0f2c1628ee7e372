"""Who answers: a model folder through our engine, or any OpenAI-compatible URL, behind one interface.

In:  what is wanted: asks with their seeds.  Out: what was said, each as soon as it is there.

Unusual: the engine works in a thread of its own, so that answers are judged while the next are written. It takes what
is wanted in portions of like length whose members do not depend on what is there already: a resumed evaluation makes
a portion again in the same company, and so the same numbers.
"""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch

from codeweft.base.artifacts import digest_file, digest_of, read_manifest
from codeweft.base.errors import InputError, ModelError, UserError
from codeweft.engine.engine import Engine
from codeweft.engine.remote import RemoteModel, TooLong
from codeweft.engine.request import Completion, Piece, Request, join
from codeweft.evaluate.config import EvaluateConfig
from codeweft.model.device import choose_device
from codeweft.model.folder import fim_trained, load_folder, read_config
from codeweft.model.transformer import Transformer
from codeweft.tasks.files import read_records
from codeweft.tasks.task import Ask, Room, Style
from codeweft.tokenizer.chat import encode_chat
from codeweft.tokenizer.fim import fitting_prompt
from codeweft.tokenizer.load import Tokenizer, load_tokenizer

Kind = Literal["base", "chat", "unknown"]
BASE_STAGES, CHAT_STAGES = ("pretrain", "longcontext"), ("sft", "grpo")
PORTION = 4  # times the rows of the engine: asks that are answered together
HELD = 1 << 17  # tokens of all rows of the engine together
SHORTEST_ANSWER = 16  # tokens that must be left for an answer
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


class LocalModel:
    """A model folder on this machine."""

    def __init__(self, folder: Path, config: EvaluateConfig) -> None:
        settings = read_config(folder)
        self.folder, self.config, self.name = folder, config, str(folder)
        stage = settings.stage
        self.kind: Kind = "base" if stage in BASE_STAGES else "chat" if stage in CHAT_STAGES else "unknown"
        self.fim = config.assume_fim or fim_trained(folder)
        self.tokenizer: Tokenizer = load_tokenizer(folder)
        dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
        device = choose_device(config.device, "evaluate.device")
        self.model: Transformer = load_folder(folder, dtype=dtype, device=device).eval()
        files = [*folder.glob("*.safetensors"), folder / "config.json", *folder.glob("tokenizer*.json")]
        self.digest = digest_of([[path.name, digest_file(path)] for path in sorted(files)])
        self.longest = settings.max_position_embeddings
        self.room = Room(self.longest - min(256, self.longest // 4), lambda text: len(self.tokenizer.encode(text)))

    def unable(self, style: Style) -> str:
        """A base model cannot chat without a template, nor one without FIM training infill."""
        if style == "chat" and self.tokenizer.chat_template is None:
            return "The model has no chat template: it is a base model."
        if style == "infill" and not self.fim:
            return "The model was not trained to infill (codeweft.fim_rate in config.json); assume_fim overrules that."
        return ""

    async def say(self, wanted: Sequence[Wanted], done: frozenset[int], drawing: Drawing) -> AsyncIterator[Said]:
        """Portions of like length, the longest first, so that a lack of memory shows at once."""
        prompts = [self._prompt(each.ask, drawing.style) for each in wanted]
        order = sorted(range(len(wanted)), key=lambda place: (-len(prompts[place]), wanted[place].number))
        size = PORTION * self.config.batch
        for first in range(0, len(order), size):
            portion = order[first : first + size]
            if all(wanted[place].number in done for place in portion):
                continue
            work = [(wanted[place], prompts[place]) for place in portion]
            async for said in _from_thread(lambda emit, stop, work=work: self._answer(work, drawing, emit, stop)):
                if said.number not in done:
                    yield said

    def _prompt(self, ask: Ask, style: Style) -> tuple[int, ...]:
        if style == "chat":
            return tuple(encode_chat(self.tokenizer, ask.messages))
        if style == "infill":
            return fitting_prompt(self.tokenizer, ask.text, ask.suffix, self.longest - min(ask.max_tokens, 256))
        return (self.tokenizer.begin, *self.tokenizer.encode(ask.text))

    def _answer(
        self, work: "list[tuple[Wanted, tuple[int, ...]]]", drawing: Drawing, emit: "Emit", stop: threading.Event
    ) -> None:
        """Answer a portion; runs in a thread."""
        fitting: list[tuple[Wanted, tuple[int, ...]]] = []
        for wanted, prompt in work:
            needed = SHORTEST_ANSWER if drawing.style != "likelihood" else 1
            if not wanted.ask.text and not wanted.ask.messages and drawing.style != "infill":
                emit(Said(wanted.number, "The question does not fit this model.", finish="refused"))
            elif len(prompt) + needed > self.longest:
                words = f"The prompt has {len(prompt)} tokens; this model takes {self.longest}, the answer included."
                emit(Said(wanted.number, words, finish="refused"))
            else:
                fitting.append((wanted, prompt))
        if drawing.style == "likelihood":
            for wanted, prompt in fitting:
                if stop.is_set():
                    return
                emit(self._likeliest(wanted, prompt, drawing.normalise))
        elif fitting:
            self._write(fitting, drawing, emit, stop)

    def _write(
        self, work: "list[tuple[Wanted, tuple[int, ...]]]", drawing: Drawing, emit: "Emit", stop: threading.Event
    ) -> None:
        requests = []
        for wanted, prompt in work:
            longest = min(drawing.max_tokens or wanted.ask.max_tokens, self.longest - len(prompt))
            requests.append(
                Request(
                    prompt, longest, drawing.temperature, drawing.top_p, wanted.ask.stop, wanted.ask.stop_line,
                    wanted.seed,
                )
            )  # fmt: skip
        length = max(len(request.prompt) + request.max_tokens for request in requests)
        rows = max(1, min(self.config.batch, HELD // length))
        # a new engine: a portion's figures must not depend on whether this process answered the one before
        engine = Engine(self.model, self.tokenizer, rows=rows, max_length=max(length, 2))
        numbers = {engine.submit(request): place for place, request in enumerate(requests)}
        pieces: dict[int, list[Piece]] = {number: [] for number in numbers}
        while engine.busy and not stop.is_set():
            for piece in engine.step():
                pieces[piece.request].append(piece)
                if piece.finish is not None:
                    wanted, prompt = work[numbers[piece.request]]
                    emit(_said(wanted.number, join(pieces[piece.request]), prompt))

    @torch.inference_mode()
    def _likeliest(self, wanted: Wanted, prompt: tuple[int, ...], normalise: bool) -> Said:
        """The sum of each choice's log-probabilities after the prompt; choices are encoded by themselves."""
        device, found = self.model.model.embed_tokens.weight.device, []
        for choice in wanted.ask.choices:
            ids = self.tokenizer.encode(choice)
            known = [*prompt, *ids][-self.longest :]
            hidden_BTD = self.model(torch.tensor([known[:-1]], device=device), return_hidden=True).hidden_BTD
            logits_TW = self.model.head(hidden_BTD[0, -len(ids) :]).float()
            target_T = torch.tensor(known[-len(ids) :], device=device)
            found.append(float(logits_TW.log_softmax(-1).gather(-1, target_T[:, None]).double().sum()))
        return likeliest(wanted, tuple(found), normalise, digest_of(list(prompt)))


def likeliest(wanted: Wanted, logprobs: tuple[float, ...], normalise: bool, prompt_digest: str) -> Said:
    """The number of the likeliest choice, by its whole or its mean log-probability a byte."""
    sizes = [len(choice.encode()) if normalise else 1 for choice in wanted.ask.choices]
    scores = [logprob / size for logprob, size in zip(logprobs, sizes, strict=True)]
    best = max(range(len(scores)), key=scores.__getitem__)
    return Said(wanted.number, str(best), (), logprobs[best], "stop", prompt_digest, logprobs)


def _said(number: int, completion: Completion, prompt: tuple[int, ...]) -> Said:
    return Said(
        number, completion.text, completion.tokens, completion.logprob, completion.finish, digest_of(list(prompt))
    )


class Emit(Protocol):
    """Hands one answer to whoever waits."""

    def __call__(self, said: Said) -> None:
        """One answer."""
        ...


class Work(Protocol):
    """Blocking work that emits answers and looks whether it is to stop."""

    def __call__(self, emit: Emit, stop: threading.Event) -> None:
        """Do it."""
        ...


async def _from_thread(work: Work) -> AsyncIterator[Said]:
    """What blocking work emits, as it comes; leaving early stops the work."""
    loop, queue, stop = asyncio.get_running_loop(), asyncio.Queue[Said | None](), threading.Event()

    def emit(said: Said) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, said)

    def run() -> None:
        try:
            work(emit, stop)
        finally:
            loop.call_soon_threadsafe(queue.put_nowait, None)

    running = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        while (said := await queue.get()) is not None:
            yield said
        await running
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)


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


def model_digests(stage_folder: Path) -> dict[str, str]:
    """Digests of the files that decide what a stage's model says: from its manifest, made anew where there is none."""
    manifest = read_manifest(stage_folder)
    recorded = manifest.outputs if manifest else {}
    folder = stage_folder / "model"
    if not (folder / "config.json").is_file():
        raise InputError(f"There is no model folder {folder}.", f"Run the stage {stage_folder.name} first.")
    files = [*folder.glob("*.safetensors"), folder / "config.json", *folder.glob("tokenizer*.json")]
    names = {f"model/{path.name}": path for path in sorted(files)}
    return {name: recorded.get(name) or digest_file(path) for name, path in names.items()}


def open_local(folder: Path, config: EvaluateConfig) -> LocalModel:
    """A model folder; ModelError where it is none."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a model folder: it has no config.json.", "Give a model folder or a URL.")
    return LocalModel(folder, config)


def check_style(model: Model, style: Style, title: str) -> None:
    """UserError where a style was asked for that the model cannot do."""
    if reason := model.unable(style):
        raise UserError(f"{title} in the style {style}: {reason}", "Choose another style, or another model.")
