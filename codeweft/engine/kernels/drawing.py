"""Draws tokens natively: the noise of a vocabulary costs more than a small model's whole pass, and most is not needed.

In:  logits, a temperature and a key for each row.  Out: the tokens that sampling.py's formula finds (drawing.cpp).

Shapes: S rows that sample, W vocabulary.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from codeweft.model.kernels import native

SOURCE = Path(__file__).with_name("drawing.cpp")
WITHOUT = "tokens are drawn with torch alone, slower"
UNSIGNED = 1 << 63  # keys are 64 bits that ctypes and torch take as signed


def applies(logits_SW: Tensor) -> bool:
    """Whether tokens can be drawn natively from these logits."""
    return logits_SW.device.type == "cpu" and native.available(SOURCE, WITHOUT)


def draw(logits_SW: Tensor, temperatures: Sequence[float], keys: Sequence[int]) -> Tensor:
    """The argmax of logit / temperature + Gumbel noise of (key, token) for each row, int64 [S]; float32 logits."""
    assert logits_SW.dtype == torch.float32, logits_SW.dtype
    logits_SW = logits_SW if logits_SW.stride(1) == 1 else logits_SW.contiguous()
    rows, words = logits_SW.shape
    temperature_S = torch.tensor(temperatures, dtype=torch.float64)
    key_S = torch.tensor([(key + UNSIGNED) % (1 << 64) - UNSIGNED for key in keys], dtype=torch.int64)
    token_S = torch.empty(rows, dtype=torch.int64)
    native.functions(SOURCE).draw(
        ctypes.c_void_p(logits_SW.data_ptr()), ctypes.c_int64(rows), ctypes.c_int64(words),
        ctypes.c_int64(logits_SW.stride(0)), ctypes.c_void_p(temperature_S.data_ptr()),
        ctypes.c_void_p(key_S.data_ptr()), ctypes.c_void_p(token_S.data_ptr()), ctypes.c_int(torch.get_num_threads()),
    )  # fmt: skip
    return token_S
