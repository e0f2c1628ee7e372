"""Prompts to text: many requests share one model, one latent cache and one forward pass a step.

In:  a model, its tokenizer and requests.  Out: pieces of text each step, or completions in the order asked.

Unusual: reading a prompt and drawing a token are the same act (feed what the cache has not seen, look at the last
position), so `step()` knows no phases.

Shapes: N positions that are looked at, W vocabulary.
"""

import itertools
import time
from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codeweft.base.errors import ModelError, UserError
from codeweft.base.progress import Bar
from codeweft.engine import memory
from codeweft.engine.blocks import BlockPool
from codeweft.engine.passes import Passes
from codeweft.engine.request import Completion, Piece, Request, join
from codeweft.engine.sampling import choose
from codeweft.engine.scheduler import Feed, Scheduler, Sequence
from codeweft.engine.speculation import Guesser
from codeweft.engine.stopping import Text
from codeweft.model.cache import BLOCK, LatentCache
from codeweft.model.folder import load_folder
from codeweft.model.transformer import Transformer
from codeweft.tokenizer.load import Tokenizer, load_tokenizer

LONGEST_DEFAULT = 4096  # positions a request may have where nothing else is asked
FLOAT32_BYTES = 2 << 30  # on a CPU, weights up to this size on disk are computed in float32
GUESS = 8  # most tokens that are tried beside the next one
FEW_ROWS = 4  # rows up to which guessing pays: more keep the processor busy by themselves
LARGE = 1 << 29  # active parameters from which a pass over a prompt is kept short
PROMPT_TOKENS, PROMPT_TOKENS_LARGE = 4096, 512  # of prompts in one pass, padding included


@dataclass(frozen=True, slots=True)
class Options:
    """What an engine may use. None of it changes a text, but for the rounding of sums."""

    rows: int = 16  # requests that run at once
    max_length: int | None = None  # tokens of a request, prompt and completion together
    memory: int | None = None  # bytes in all, weights included; none: room for all rows at full length
    share_prefixes: bool = True  # whether prompts that begin alike share what was read
    guess: int = GUESS  # most tokens tried by prompt look-up; 0 turns it off
    prompt_tokens: int | None = None  # most tokens of prompts in one pass; none: by the size of the model


class Engine:
    """Continuous batching over the blocks of a latent cache. Not thread-safe: one thread drives it.

    engine = Engine.load(Path("runs/toy/pretrain/model"))
    [completion] = engine.generate([Request(engine.prompt("def add(a, b):"), stop_line=True)])
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, *, device: torch.device | str | None = None, **given: Any
    ) -> None:
        """given: fields of `Options`. All memory that requests will need is taken here."""
        self.options = options = Options(**given)
        longest = model.config.max_position_embeddings
        if options.max_length is not None and not 2 <= options.max_length <= longest:
            raise UserError(f"max_length is {options.max_length}.", f"This model takes 2 to {longest} tokens.")
        if options.rows < 1:
            raise UserError(f"rows is {options.rows}.", "The engine needs at least one.")
        if tokenizer.size > model.config.vocab_size:
            raise ModelError(
                f"The tokenizer has {tokenizer.size} ids, the model only {model.config.vocab_size}.",
                "They belong to different models: take both from one model folder.",
            )
        self.model = model.to(device).eval() if device is not None else model.eval()
        self.tokenizer = tokenizer
        weight = next(model.parameters())
        large = model.config.activated_parameters >= LARGE
        prompt_tokens = options.prompt_tokens or (PROMPT_TOKENS_LARGE if large else PROMPT_TOKENS)
        if options.memory is None:
            self.max_length = options.max_length or min(longest, LONGEST_DEFAULT)
            blocks = options.rows * -(-self.max_length // BLOCK)
        else:
            blocks = memory.plan(model, options.memory, weight.dtype, prompt_tokens, options.rows).blocks
            self.max_length = min(options.max_length or longest, blocks * BLOCK)
        self.device = weight.device
        self.cache = LatentCache(model.config, blocks, weight.dtype, self.device)
        self.pool = BlockPool(blocks)
        self.passes = Passes(model, self.cache)
        self.scheduler = Scheduler(options.rows, prompt_tokens, self.pool, self.cache.copy)
        self.scheduler.share = options.share_prefixes
        self.guesser = Guesser(options.guess)
        self.sequences: dict[int, Sequence] = {}
        self.cancelled: list[int] = []
        self.ids = itertools.count()

    @classmethod
    def load(
        cls, folder: Path, *, device: str | None = None, dtype: torch.dtype | None = None, **options: Any
    ) -> "Engine":
        """Open a model folder, on the GPU where there is one.

        dtype: bfloat16 as stored by default; on a CPU float32 for weights of at most 2 GiB on disk (small models are
        as fast in it and it needs no bfloat16 instructions). ModelError or InputError when the folder is damaged.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} is not a model folder: it has no config.json.", "Give --model a model folder.")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if dtype is None:
            size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
            dtype = torch.float32 if device == "cpu" and size <= FLOAT32_BYTES else torch.bfloat16
        model = load_folder(folder, dtype=dtype, device=device)
        return cls(model, load_tokenizer(folder), **options)

    @property
    def about(self) -> str:
        """Where it runs and what it holds, for people."""
        held, rows = self.pool.size * BLOCK, self.options.rows
        return f"{self.device}, {rows} rows; {held} tokens in all, {self.max_length} the longest request"

    @property
    def guesses(self) -> dict[str, int]:
        """How many tokens were tried by look-up, and how many of them were drawn."""
        return {"guessed": self.guesser.tried, "guessed_right": self.guesser.right}

    def prompt(self, text: str) -> tuple[int, ...]:
        """Plain text as a prompt: the begin token and the text's ids; special tokens in it stay plain text."""
        return (self.tokenizer.begin, *self.tokenizer.encode(text))

    def check_text(self, *texts: str) -> None:
        """UserError when texts cannot fit together, however they are cut in tokens. Cheap; from any thread.

        To ask before `prompt`: reading a few megabytes takes seconds and gigabytes only to find that they do not fit.
        """
        longest = self.max_length * self.tokenizer.longest
        characters = sum(map(len, texts))  # no more than its bytes
        if characters > longest:
            raise UserError(
                f"The prompt has {characters} characters, but {self.max_length} tokens, all that this engine holds, "
                f"have at most {longest}.",
                "Shorten the prompt or raise max_length.",
            )

    def check(self, request: Request) -> None:
        """UserError when this engine cannot run the request. Safe to call from any thread."""
        length = len(request.prompt)
        if length + request.max_tokens > self.max_length:
            raise UserError(
                f"The prompt has {length} tokens and {request.max_tokens} more are asked, but this engine holds "
                f"{self.max_length} in all.",
                f"Shorten the prompt, ask for at most {self.max_length - length} tokens, or raise max_length."
                if length < self.max_length
                else "Shorten the prompt or raise max_length.",
            )
        low, high = min(request.prompt), max(request.prompt)
        if low < 0 or high >= self.model.config.vocab_size:
            wrong = low if low < 0 else high
            raise UserError(
                f"Token {wrong} is not in the vocabulary.", f"Ids go from 0 to {self.model.config.vocab_size - 1}."
            )

    def submit(self, request: Request) -> int:
        """Queue a request; its id. It joins at the first step that finds a place and blocks free."""
        self.check(request)
        deadline = float("inf") if request.max_ms is None else time.monotonic() + request.max_ms / 1000
        sequence = Sequence(next(self.ids), request, Text(self.tokenizer, request), deadline)
        self.sequences[sequence.id] = sequence
        self.scheduler.submit(sequence)
        return sequence.id

    def cancel(self, request: int) -> None:
        """Stop a request now; the next step gives its last piece. One that is done already stays done."""
        if request in self.sequences:
            self._end(request)
            self.cancelled.append(request)

    def refresh(self) -> None:
        """The weights were changed in place: forget what was read with the old ones.

        Requests on their way read their tokens again, so that each goes on with one set of weights.
        """
        for sequence in reversed(list(self.scheduler.running)):  # the oldest is then the first in front
            self.scheduler.evict(sequence)
        self.pool.forget_all()
        self.passes.refresh()

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.sequences or self.cancelled)

    @torch.inference_mode()
    def step(self) -> list[Piece]:
        """One forward pass: read prompts, or draw for each sequence that has read its own; release who is done."""
        pieces = self._ended()
        feeds = self.scheduler.next(self._guess)
        if feeds:
            pieces += self._accept(feeds, self._drawn(feeds, self.passes.logits(feeds)))
        return pieces

    def generate(self, requests: Many[Request], progress: Bar | None = None) -> list[Completion]:
        """Run all requests; their completions in the same order. `progress` advances by one a finished request."""
        for request in requests:
            self.check(request)
        ids = [self.submit(request) for request in requests]
        pieces: dict[int, list[Piece]] = {request: [] for request in ids}
        missing = len(ids)
        try:
            while missing:
                for piece in self.step():
                    if piece.request in pieces:
                        pieces[piece.request].append(piece)
                        missing -= piece.finish is not None
                        if progress is not None and piece.finish is not None:
                            progress.advance()
        finally:
            for request in ids:  # an interrupt must not leave rows occupied
                self.cancel(request)
        return [join(pieces[request]) for request in ids]

    def _ended(self) -> list[Piece]:
        """Last pieces of those who were cancelled and of those whose time is over."""
        pieces = [Piece(request, "", finish="cancelled") for request in self.cancelled]
        self.cancelled = []
        now = time.monotonic()
        for sequence in [each for each in self.sequences.values() if each.deadline <= now]:
            pieces.append(Piece(sequence.id, sequence.text.rest(), finish="deadline"))
            self._end(sequence.id)
        return pieces

    def _end(self, request: int) -> None:
        self.scheduler.remove(self.sequences.pop(request))
        self.guesser.end(request)

    def _guess(self, sequence: Sequence) -> tuple[int, ...]:
        """Tokens to try behind the last one; none where many run, and never more than may still be drawn."""
        if len(self.scheduler.running) > FEW_ROWS:
            return ()
        return self.guesser.guess(sequence.id, sequence.known, sequence.request.max_tokens - sequence.drawn - 1)

    def _drawn(self, feeds: list[Feed], logits_NW: Tensor) -> list[tuple[int, float]]:
        """A token and its log-probability at each position that is looked at."""
        looked_at = [feed.sequence for feed in feeds for _ in range(feed.wanted)]
        positions = [feed.sequence.drawn + place for feed in feeds for place in range(feed.wanted)]
        if not looked_at:
            return []
        return choose(logits_NW, [sequence.request for sequence in looked_at], positions, self.tokenizer.size)

    def _accept(self, feeds: list[Feed], drawn: list[tuple[int, float]]) -> list[Piece]:
        """Count what was read; of a guess, take the tokens that were drawn anyway and the one after them."""
        pieces, begin = [], 0
        for feed in feeds:
            sequence, own = feed.sequence, drawn[begin : begin + feed.wanted]
            begin += feed.wanted
            if not own:
                self.scheduler.advance(sequence, feed.start + len(feed.tokens))
                continue
            guessed = feed.tokens[len(feed.tokens) - feed.wanted + 1 :]
            right = next((place for place, token in enumerate(guessed) if own[place][0] != token), len(guessed))
            if guessed:
                self.guesser.learn(sequence.id, len(guessed), right)
            tokens, logprobs = zip(*own[: right + 1], strict=True)
            piece = sequence.accept(tokens, logprobs)
            # of the guess, what was taken stands in the cache already
            self.scheduler.advance(sequence, feed.start + len(feed.tokens) - feed.wanted + len(piece.tokens))
            pieces.append(piece)
            if piece.finish is not None:
                self._end(piece.request)
        return pieces
