"""Model folders that are written one matrix at a time, and gone on with where writing was cut off.

In:  a configuration, units of tensors in their order, and what gives a published tensor by name.  Out: a model folder.
Unusual: weights may be many times the memory. A folder that is being written holds `unfinished.json`, which says what
from; finished files are kept by the same command, and `config.json` comes last.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from codeweft.base.artifacts import read_json, remove_partials, write_json
from codeweft.base.errors import ModelError, UserError
from codeweft.base.progress import Bar, bar, say
from codeweft.model.config import ModelConfig
from codeweft.model.folder import CONFIG, INDEX, WEIGHTS, copy_file, model_card, weight_index, write_text
from codeweft.model.tensor_file import Planned, write_tensors

UNFINISHED = "unfinished.json"
SHARD_BYTES = 1_000_000_000  # so much is lost, at most, when writing is cut off
ALIGN = 64  # bytes; a line of the processor's cache

Read = Callable[[str], Tensor]  # a published tensor by name, in any type


@dataclass(frozen=True, slots=True)
class Unit:
    """Tensors that are made together; `pieces` gives the values of all of them in order, cut anywhere."""

    tensors: dict[str, Planned]
    pieces: Callable[[Read], Iterator[Tensor]]

    @property
    def bytes(self) -> int:
        """Their size on disk."""
        return sum(planned.bytes for planned in self.tensors.values())


def shards(units: Sequence[Unit], most: int = SHARD_BYTES) -> list[list[Unit]]:
    """Cut units, in their order, into files of at most `most` bytes, or of one unit."""
    files: list[list[Unit]] = [[]]
    room = most
    for unit in units:
        if unit.bytes > room and files[-1]:
            files.append([])
            room = most
        files[-1].append(unit)
        room -= unit.bytes
    return files


def write_folder(
    folder: Path, config: ModelConfig, units: Sequence[Unit], read: Read, origin: dict[str, Any], extras: Sequence[Path]
) -> None:
    """Write a folder; `origin` says in JSON what it is made of, `extras` are files to copy.

    Run again with the same origin it keeps finished files. UserError for a folder that holds something else.
    """
    _begin(folder, origin)
    files = shards(units)
    names = [f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)]
    names = names if len(files) > 1 else [WEIGHTS]
    total = sum(unit.bytes for unit in units)
    with bar(folder.name, total / 1e6, "MB") as shown:
        for name, file in zip(names, files, strict=True):
            size = sum(unit.bytes for unit in file)
            if (folder / name).exists():
                shown.advance(size / 1e6)
                continue
            plan = {tensor: planned for unit in file for tensor, planned in unit.tensors.items()}
            write_tensors(folder / name, plan, _counted(file, read, shown), align=ALIGN)
    if len(files) > 1:
        held = {name: [each for unit in file for each in unit.tensors] for name, file in zip(names, files, strict=True)}
        write_text(folder / INDEX, weight_index(held, total))
    for path in extras:
        copy_file(path, folder / path.name)
    if not (folder / "generation_config.json").exists():
        ids = {key: config.to_json().get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        write_json(folder / "generation_config.json", ids)
    if not (folder / "README.md").exists():
        write_text(folder / "README.md", model_card(config))
    write_text(folder / CONFIG, config.to_text())
    (folder / UNFINISHED).unlink()


def _begin(folder: Path, origin: dict[str, Any]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file.", "Name a new folder.")
    marker = folder / UNFINISHED
    if marker.exists():
        if read_json(marker) != origin:
            raise UserError(f"{folder} holds the unfinished part of another model.", "Remove it, or name a new folder.")
        say(f"{folder} was cut off; finished files in it are kept.")
        remove_partials(folder.iterdir())
        return
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty.", "Remove it, or name a new folder.")
    write_json(marker, origin)


def _counted(file: Sequence[Unit], read: Read, shown: Bar) -> Iterator[Tensor]:
    for unit in file:
        for piece in unit.pieces(read):
            yield piece
            shown.advance(piece.numel() * piece.element_size() / 1e6)


def finite(tensor: Tensor, name: str) -> Tensor:
    """The tensor itself; ModelError naming it where a value is not finite."""
    if not tensor.isfinite().all():
        raise ModelError(f"{name} holds values that are not finite.", "Use an earlier checkpoint.")
    return tensor
