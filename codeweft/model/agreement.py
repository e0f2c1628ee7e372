"""How far two models of one vocabulary agree on the same text: what quantisation costs.

In:  two models, token ids.  Out: bits of both, the share of equal likeliest tokens, the divergence.
Unusual: both read the true text at every position, so that one early difference does not decide the rest.

Shapes: T tokens, D model, W vocabulary.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codeweft.base.errors import UserError
from codeweft.base.progress import bar
from codeweft.base.sizes import shown
from codeweft.model.folder import read_config
from codeweft.model.quantize import Quantization
from codeweft.model.transformer import Transformer

AT_ONCE = 128  # positions whose logits are held


@dataclass(frozen=True, slots=True)
class Agreement:
    """Sums over all predicted tokens; `bits` and `divergence` (Kullback-Leibler, from the first model) in bits."""

    predictions: int
    bits: tuple[float, float]
    equal: int
    divergence: float

    @property
    def greedy(self) -> float:
        """Share of positions at which both find the same token likeliest."""
        return self.equal / self.predictions


@torch.inference_mode()
def agree(models: tuple[Transformer, Transformer], tokens: Sequence[int], window: int) -> Agreement:
    """Predict each token after the first from those before it in its window; windows do not overlap."""
    sums = torch.zeros(4, dtype=torch.float64)  # nats of the first, nats of the second, equal, divergence
    ids = torch.tensor(tokens)
    with bar("compare", len(ids) - 1, "tokens") as progress:
        for begin in range(0, len(ids) - 1, window):
            given, target_T = ids[begin : begin + window + 1][:-1], ids[begin + 1 : begin + window + 1]
            hidden = [model(given[None], return_hidden=True).hidden_BTD[0] for model in models]
            for part in range(0, len(target_T), AT_ONCE):
                here = slice(part, part + AT_ONCE)
                logits = [model.head(each[here]) for model, each in zip(models, hidden, strict=True)]
                sums += _compare(logits[0], logits[1], target_T[here])
            progress.advance(len(target_T))
    first, second, equal, divergence = sums.tolist()
    bit = math.log(2)
    return Agreement(len(ids) - 1, (first / bit, second / bit), round(equal), divergence / bit)


def _compare(first_TW: Tensor, second_TW: Tensor, target_T: Tensor) -> Tensor:
    first_TW, second_TW = (each.float().log_softmax(dim=-1) for each in (first_TW, second_TW))
    nats = [-each.gather(-1, target_T[:, None]).double().sum() for each in (first_TW, second_TW)]
    equal = (first_TW.argmax(dim=-1) == second_TW.argmax(dim=-1)).double().sum()
    divergence = (first_TW.exp() * (first_TW - second_TW)).double().sum()
    return torch.stack([*nats, equal, divergence])


def refuse_what_does_not_fit(*folders: Path) -> None:
    """UserError where plain weights are more than the machine's memory; quantised ones are mapped."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in folders:
        needed = 2 * read_config(folder).total_parameters
        if Quantization.of(read_config(folder)) is None and needed > memory:
            raise UserError(
                f"{folder} takes {shown(needed)} to compare with, this machine has {shown(memory)}.",
                "Compare on a larger machine; quantising alone needs little memory.",
            )


def sentences(quality: dict[str, Any]) -> str:
    """A report for people."""
    return (
        f"{quality['tokens']:,} tokens ({quality['bytes']:,} bytes) in windows of {quality['window']}:\n"
        f"bits per byte      {quality['bits_per_byte']:.4f}, the reference {quality['bits_per_byte_reference']:.4f}\n"
        f"same likeliest     {100 * quality['greedy_agreement']:.2f} % of tokens\n"
        f"divergence         {quality['divergence_bits_per_token']:.5f} bits a token"
    )
