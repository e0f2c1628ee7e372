"""Held-out bits per byte of a model and of its n-gram baseline, on the same documents and tokens.

In:  held-out documents of the token shards; a model or an n-gram model.  Out: bits and bytes of each document.

The bits of a document are the sum of -log2 p over all its tokens after `begin`, `end` included; its bytes are those of
its UTF-8 text, so that figures compare across tokenizers. A long document is read in windows of the training length
that overlap by half: every token but those of the first window has at least half a window before it.

Shapes: B batch, T tokens, D model, W vocabulary, S scored positions of a batch, K documents.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from codeweft.base.errors import InputError
from codeweft.base.progress import Bar
from codeweft.base.records import TokenEntry
from codeweft.base.seeds import generator
from codeweft.evaluate.baselines import KneserNey
from codeweft.model.transformer import Transformer
from codeweft.tokenizer.shards import TokenShards

HEAD_ROWS = 2048  # positions whose logits are in memory at once


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The documents to score, and how many were too long to be drawn."""

    entries: list[TokenEntry]
    tokens: list[np.ndarray]
    left_out: int

    @property
    def bytes_K(self) -> np.ndarray:
        """UTF-8 bytes of each document's text."""
        return np.array([entry.bytes for entry in self.entries], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one document: its tokens, and how many of its predictions an earlier window has made."""

    document: int
    tokens: np.ndarray
    already: int


def draw_documents(shards: TokenShards, wanted: int, longest: int, seed: int) -> HeldOut:
    """Whole held-out documents in an order drawn by seed until they hold `wanted` tokens."""
    found = [(entry, tokens) for entry, tokens in shards.documents("held-out") if entry.bytes > 0]
    fitting = [pair for pair in found if len(pair[1]) <= longest]
    if not fitting:
        raise InputError(
            f"There is no held-out document of at most {longest} tokens to measure on.",
            "Raise the corpus's held-out share, or measure.bits_document_tokens.",
        )
    chosen: list[tuple[TokenEntry, np.ndarray]] = []
    held = 0
    for place in generator(seed, "measure", "bits").permutation(len(fitting)).tolist():
        chosen.append(fitting[place])
        held += len(fitting[place][1])
        if held >= wanted:
            break
    tokens = [np.asarray(part, dtype=np.int64) for _, part in chosen]
    return HeldOut([entry for entry, _ in chosen], tokens, len(found) - len(fitting))


def windows(document: int, tokens: np.ndarray, length: int) -> Iterator[Window]:
    """Cut a document so that each of its tokens after the first is predicted exactly once.

    >>> [(w.tokens.tolist(), w.already) for w in windows(0, np.arange(7), 4)]
    [([0, 1, 2, 3, 4], 0), ([2, 3, 4, 5, 6], 2)]
    """
    start = already = 0
    while True:
        yield Window(document, tokens[start : start + length + 1], already)
        if start + length + 1 >= len(tokens):
            return
        step = max(length // 2, 1)
        start, already = start + step, length - step


@torch.no_grad()
def model_bits(model: Transformer, documents: Sequence[np.ndarray], length: int, batch: int, shown: Bar) -> np.ndarray:
    """Bits of each document under the model, float64; log-softmax in float32."""
    cut = [window for number, tokens in enumerate(documents) for window in windows(number, tokens, length)]
    cut.sort(key=lambda window: len(window.tokens))
    bits_K = np.zeros(len(documents))
    device = model.model.embed_tokens.weight.device
    for first in range(0, len(cut), batch):
        group = cut[first : first + batch]
        width = max(len(window.tokens) for window in group)
        # padded on the right, where causal attention never looks
        padded_BT = torch.zeros(len(group), width, dtype=torch.int64)
        scored_BT = torch.zeros(len(group), width - 1, dtype=torch.bool)
        for row, window in enumerate(group):
            padded_BT[row, : len(window.tokens)] = torch.from_numpy(window.tokens)
            scored_BT[row, window.already : len(window.tokens) - 1] = True
        padded_BT, scored_BT = padded_BT.to(device), scored_BT.to(device)
        hidden_BTD = model(padded_BT[:, :-1], return_hidden=True).hidden_BTD
        bits_S = _bits(model, hidden_BTD[scored_BT], padded_BT[:, 1:][scored_BT])
        row_S = torch.arange(len(group), device=device)[:, None].expand_as(scored_BT)[scored_BT]
        document_S = np.array([window.document for window in group])[row_S.cpu().numpy()]
        np.add.at(bits_K, document_S, bits_S.cpu().numpy())
        shown.advance(int(scored_BT.sum()))
    return bits_K


def _bits(model: Transformer, hidden_SD: Tensor, target_S: Tensor) -> Tensor:
    parts = []
    for first in range(0, len(target_S), HEAD_ROWS):
        logits_SW = model.head(hidden_SD[first : first + HEAD_ROWS]).float()
        loss_S = torch.nn.functional.cross_entropy(logits_SW, target_S[first : first + HEAD_ROWS], reduction="none")
        parts.append(loss_S.double() / math.log(2))
    return torch.cat(parts)


def ngram_bits(ngrams: KneserNey, documents: Sequence[np.ndarray]) -> np.ndarray:
    """Bits of each document under the n-gram model."""
    return np.array([-ngrams.log2_probability(tokens).sum() for tokens in documents])


def training_chunks(shards: TokenShards, tokens: int, chunk: int = 1 << 20) -> Iterator[np.ndarray]:
    """The first `tokens` tokens of the training stream in its own integer type; what was read twice comes once."""
    wanted = min(tokens, shards.total("train"))
    for start in range(0, wanted, chunk):
        yield shards.window("train", start, min(chunk, wanted - start)).astype(shards.dtype)
