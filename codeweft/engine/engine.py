"""Prompts to text: many requests share one model, one latent cache and one forward pass a step.

In:  a model, its tokenizer and requests.  Out: pieces of text each step, or completions in the order asked.

Unusual: reading a prompt and drawing a token are the same act (feed what the cache has not seen, look at the last
position), so `step()` knows no phases. Prompts are right-padded: a padded position writes behind its row's length and
is overwritten before anything attends to it.

Shapes: B rows of the batch, T tokens, D model, W vocabulary.
"""

import itertools
from collections.abc import Sequence as Many
from pathlib import Path

import torch
from torch import Tensor

from codeweft.base.errors import ModelError, UserError
from codeweft.base.progress import Bar
from codeweft.engine.request import Completion, Piece, Request, join
from codeweft.engine.sampling import choose
from codeweft.engine.scheduler import Scheduler, Sequence
from codeweft.engine.stopping import Text
from codeweft.model.cache import LatentCache
from codeweft.model.folder import load_folder
from codeweft.model.transformer import Transformer
from codeweft.tokenizer.load import Tokenizer, load_tokenizer

LONGEST_DEFAULT = 4096  # positions a row holds where nothing else is asked
PROMPT_TOKENS = 4096  # of prompts in one pass, padding included
FLOAT32_BYTES = 2 << 30  # on a CPU, weights up to this size on disk are computed in float32


class Engine:
    """Continuous batching over the rows of a latent cache. Not thread-safe: one thread drives it.

    engine = Engine.load(Path("runs/toy/pretrain/model"))
    [completion] = engine.generate([Request(engine.prompt("def add(a, b):"), stop_line=True)])
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        rows: int = 16,
        max_length: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """rows: requests that run at once. max_length: tokens a row holds, prompt and completion together."""
        longest = model.config.max_position_embeddings
        if max_length is not None and not 2 <= max_length <= longest:
            raise UserError(f"max_length is {max_length}.", f"This model takes 2 to {longest} tokens.")
        if rows < 1:
            raise UserError(f"rows is {rows}.", "The engine needs at least one.")
        if tokenizer.size > model.config.vocab_size:
            raise ModelError(
                f"The tokenizer has {tokenizer.size} ids, the model only {model.config.vocab_size}.",
                "They belong to different models: take both from one model folder.",
            )
        self.model = model.to(device).eval() if device is not None else model.eval()
        self.tokenizer = tokenizer
        self.max_length = max_length or min(longest, LONGEST_DEFAULT)
        weight = next(model.parameters())
        self.device = weight.device
        self.cache = LatentCache(model.config, rows, self.max_length, weight.dtype, self.device)
        self.scheduler = Scheduler(rows, PROMPT_TOKENS)
        self.sequences: dict[int, Sequence] = {}
        self.cancelled: list[int] = []
        self.ids = itertools.count()

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        rows: int = 16,
        max_length: int | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
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
        return cls(model, load_tokenizer(folder), rows=rows, max_length=max_length)

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
        """Queue a request; its id. It joins at the first step that finds a row free."""
        self.check(request)
        sequence = Sequence(next(self.ids), request, Text(self.tokenizer, request))
        self.sequences[sequence.id] = sequence
        self.scheduler.submit(sequence)
        return sequence.id

    def cancel(self, request: int) -> None:
        """Stop a request now; the next step gives its last piece. One that is done already stays done."""
        sequence = self.sequences.pop(request, None)
        if sequence is not None:
            self.scheduler.remove(sequence)
            self.cancelled.append(request)

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.sequences or self.cancelled)

    @torch.inference_mode()
    def step(self) -> list[Piece]:
        """One forward pass: admit who waits, draw one token for each sequence of the batch, release who is done."""
        self._admit()
        batch = self.scheduler.batch()
        drawn = self._draw(batch)
        pieces = [sequence.accept(*each) for sequence, each in zip(batch, drawn, strict=True)]
        return self._release(pieces)

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

    def _admit(self) -> None:
        rows = [sequence.row for sequence in self.scheduler.admit()]
        if rows:
            self.cache.reset(torch.tensor(rows, device=self.device))

    def _draw(self, batch: list[Sequence]) -> list[tuple[int, float]]:
        """Feed what the cache has not seen of each sequence and draw from its last position."""
        if not batch:
            return []
        logits_BW = self._logits([sequence.pending for sequence in batch], [sequence.row or 0 for sequence in batch])
        positions = [len(sequence.drawn) for sequence in batch]
        return choose(logits_BW, [sequence.request for sequence in batch], positions, self.tokenizer.size)

    def _logits(self, pending: list[tuple[int, ...]], rows: list[int]) -> Tensor:
        count_B = torch.tensor([len(tokens) for tokens in pending], device=self.device)
        longest = int(count_B.max())
        padded = [[*tokens, *[self.tokenizer.end] * (longest - len(tokens))] for tokens in pending]
        tokens_BT = torch.tensor(padded, device=self.device)
        rows_B = torch.tensor(rows, device=self.device)
        hidden_BTD = self.model(tokens_BT, cache=self.cache, rows_B=rows_B, return_hidden=True).hidden_BTD
        self.cache.advance(rows_B, count_B)
        last_BD = hidden_BTD[torch.arange(len(rows), device=self.device), count_B - 1]
        return self.model.head(last_BD)

    def _release(self, pieces: list[Piece]) -> list[Piece]:
        for piece in pieces:
            if piece.finish is not None:
                self.scheduler.remove(self.sequences.pop(piece.request))
        cancelled = [Piece(request, "", finish="cancelled") for request in self.cancelled]
        self.cancelled = []
        return cancelled + pieces
