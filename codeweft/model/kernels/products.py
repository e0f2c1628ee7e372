"""Products of quantised matrices with few vectors, by the C++ beside this file.

In:  tensors as quantize.py makes them.  Out: float32 results, or the matrix as plain numbers.
Unusual: vectors are quantised too, to 8 bits in groups of 32, so that integers are multiplied; see products.h.

Shapes: M vectors, N rows of the matrix, K columns.
"""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from codeweft.model.kernels import native

SOURCE = Path(__file__).with_name("products.cpp")
KINDS = {torch.float32: 0, torch.bfloat16: 1}
QUANTISED = {8: 2, 4: 3}  # by bits


class Matrix(ctypes.Structure):
    """A matrix by address, as products.h reads it. All zeros: there is none."""

    _fields_ = (
        ("kind", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("data", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
    )


def plain(weight: Tensor) -> Matrix:
    """A float32 or bfloat16 matrix, or a stack of them as one tall matrix; a vector is a matrix of one row."""
    assert weight.is_contiguous(), "kernels take contiguous tensors"
    return Matrix(KINDS[weight.dtype], weight.numel() // weight.shape[-1], weight.shape[-1], weight.data_ptr(), None)


def quantised(packed: Tensor, scale: Tensor, bits: int) -> Matrix:
    """A matrix in groups of 32 columns, or a stack of them as one tall matrix."""
    assert packed.is_contiguous(), "kernels take contiguous tensors"
    assert scale.is_contiguous(), "kernels take contiguous tensors"
    columns = packed.shape[-1] * 8 // bits
    rows = packed.numel() // packed.shape[-1]
    return Matrix(QUANTISED[bits], rows, columns, packed.data_ptr(), scale.data_ptr())


def available() -> bool:
    """Whether the functions below can be called."""
    return native.available(SOURCE, "products with quantised weights go through torch, much slower")


def multiply(x_MK: Tensor, packed: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Vectors times the transposed matrix, float32 [M, N]."""
    matrix, x_MK = quantised(packed, scale, bits), x_MK.float().contiguous()
    y_MN = torch.empty(len(x_MK), matrix.rows)
    native.functions(SOURCE).multiply_float32(
        ctypes.byref(matrix),
        ctypes.c_void_p(x_MK.data_ptr()),
        ctypes.c_int64(len(x_MK)),
        ctypes.c_void_p(y_MN.data_ptr()),
        ctypes.c_int(torch.get_num_threads()),
    )
    return y_MN


def dequantize(packed: Tensor, scale: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """The plain matrix, or stack of them, in float32 or bfloat16."""
    matrix = quantised(packed, scale, bits)
    result = torch.empty(*packed.shape[:-1], matrix.columns, dtype=dtype)
    function = getattr(native.functions(SOURCE), f"dequantize_{native.SUFFIXES[dtype]}")
    function(ctypes.byref(matrix), ctypes.c_void_p(result.data_ptr()), ctypes.c_int(torch.get_num_threads()))
    return result
