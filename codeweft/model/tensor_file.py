"""Safetensors files in streams: read a tensor at a time without mapping, write tensors that are never whole in memory.

In:  a path and names, or a plan of names, types and shapes with the values in pieces.  Out: tensors, or a file.
Source: the format of the safetensors library; a test holds the bytes equal to its own.
Unusual: reading copies, so that what was read is given back when it is dropped. The library maps the file, and pages
that were touched count as memory until the whole file is closed.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from codeweft.base.artifacts import atomic
from codeweft.base.errors import ModelError

DISK_NAMES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.float16: "F16", torch.uint8: "U8", torch.int8: "I8"}
DISK_TYPES = {name: dtype for dtype, name in DISK_NAMES.items()}
LONGEST_HEADER = 100_000_000  # bytes; the library's own limit


class Planned(NamedTuple):
    """A tensor that is still to be written."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


class Place(NamedTuple):
    """Where a file holds a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    bytes: int


class TensorFile:
    """One safetensors file, open for reading; `places` says what it holds. ModelError names what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = path.open("rb")
        except FileNotFoundError as error:
            raise ModelError(f"{path} is missing.", "Fetch it again.") from error
        self.places = self._read_header()

    def _read_header(self) -> dict[str, Place]:
        size = self.path.stat().st_size
        length = int.from_bytes(self.file.read(8), "little")
        if size < 8 or length > min(LONGEST_HEADER, size - 8):
            raise self._damaged("it ends before its header does")
        try:
            header = json.loads(self.file.read(length))
            header.pop("__metadata__", None)
            return {name: self._place(name, entry, 8 + length, size) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged("its header is none") from error

    def _place(self, name: str, entry: Mapping[str, Any], start: int, size: int) -> Place:
        begin, end = entry["data_offsets"]
        dtype = DISK_TYPES.get(entry["dtype"])
        if dtype is None:
            known = ", ".join(DISK_TYPES)
            raise ModelError(f"{self.path}: {name} is of type {entry['dtype']}.", f"Read are {known}.")
        place = Place(dtype, tuple(entry["shape"]), start + begin, end - begin)
        if begin < 0 or start + end > size:
            raise self._damaged(f"it ends before {name} does")
        if math.prod(place.shape) * dtype.itemsize != place.bytes:
            raise self._damaged(f"{name} has not as many bytes as its shape {list(place.shape)} needs")
        return place

    def _damaged(self, reason: str) -> ModelError:
        return ModelError(f"{self.path} is damaged or cut off: {reason}.", "Fetch it again.")

    def read(self, name: str) -> Tensor:
        """A copy of one tensor."""
        place = self.places[name]
        data = torch.empty(place.bytes, dtype=torch.uint8)
        self.file.seek(place.begin)
        if self.file.readinto(memoryview(data.numpy())) != place.bytes:
            raise self._damaged(f"it ends before {name} does")
        return data.view(place.dtype).view(place.shape)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def write_tensors(path: Path, plan: Mapping[str, Planned], pieces: Iterable[Tensor], align: int = 8) -> str:
    """Write one file atomically and return its digest.

    `pieces` are the values of all tensors in the order of the plan, cut anywhere; they are of the planned types. The
    first begins at a multiple of `align` bytes.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, planned in plan.items():
        begin, end = end, end + planned.bytes
        header[name] = {
            "dtype": DISK_NAMES[planned.dtype],
            "shape": list(planned.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % align)
    with atomic(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece in pieces:
            file.write(memoryview(piece.to("cpu").contiguous().view(torch.uint8).numpy().reshape(-1)))
        assert file.bytes == 8 + len(text) + end, f"{path}: the pieces are not what was planned"
    return file.digest
