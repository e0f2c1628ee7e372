"""A model folder that answers: our engine in a thread of its own.

In:  a model folder; asks with their seeds.  Out: what was said, each as soon as it is there.

Unusual: answers are judged while the next are written. The engine takes what is wanted in portions of like length whose
members do not depend on what is there already: a resumed evaluation makes a portion again in the same company, and so
the same numbers.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

import torch

from codeweft.base.artifacts import digest_file, digest_of, read_manifest
from codeweft.base.errors import InputError, ModelError
from codeweft.engine.engine import Engine
from codeweft.engine.request import Completion, Piece, Request, join
from codeweft.evaluate.config import EvaluateConfig
from codeweft.evaluate.models import Drawing, Kind, Said, Wanted, likeliest
from codeweft.model.device import choose_device
from codeweft.model.folder import fim_trained, load_folder, read_config
from codeweft.model.transformer import Transformer
from codeweft.tasks.task import Ask, Room, Style
from codeweft.tokenizer.chat import encode_chat
from codeweft.tokenizer.fim import fitting_prompt
from codeweft.tokenizer.load import Tokenizer, load_tokenizer

BASE_STAGES, CHAT_STAGES = ("pretrain", "longcontext"), ("sft", "grpo")
PORTION = 4  # times the rows of the engine: asks that are answered together
HELD = 1 << 17  # tokens of all rows of the engine together
SHORTEST_ANSWER = 16  # tokens that must be left for an answer


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
        self.digest = digest_of([[path.name, digest_file(path)] for path in deciding_files(folder)])
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


def deciding_files(folder: Path) -> list[Path]:
    """The files of a model folder that decide what it says."""
    return sorted([*folder.glob("*.safetensors"), folder / "config.json", *folder.glob("tokenizer*.json")])


def model_digests(stage_folder: Path) -> dict[str, str]:
    """Digests of the files that decide what a stage's model says: from its manifest, made anew where there is none."""
    manifest = read_manifest(stage_folder)
    recorded = manifest.outputs if manifest else {}
    folder = stage_folder / "model"
    if not (folder / "config.json").is_file():
        raise InputError(f"There is no model folder {folder}.", f"Run the stage {stage_folder.name} first.")
    names = {f"model/{path.name}": path for path in deciding_files(folder)}
    return {name: recorded.get(name) or digest_file(path) for name, path in names.items()}


def open_local(folder: Path, config: EvaluateConfig) -> LocalModel:
    """A model folder; ModelError where it is none."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a model folder: it has no config.json.", "Give a model folder or a URL.")
    return LocalModel(folder, config)
