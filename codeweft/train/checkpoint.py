"""Checkpoints of a training stage: whole or absent, the newest few kept, read without unpickling.

In:  named tensors and a few numbers.  Out: `checkpoints/step-00000100/` with `state.safetensors` and `state.json`.
"""

import os
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from codeweft.base.artifacts import atomic_folder, digest_file, discard_folder, read_json, write_json
from codeweft.base.errors import InputError

NAME = re.compile(r"step-(\d{8})")
WEIGHTS, FACTS = "state.safetensors", "state.json"


class Checkpoints:
    """The checkpoints of one stage folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder / "checkpoints"
        self.keep = keep

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Write beside, then rename; then drop all but the newest `keep`."""
        final = self.folder / f"step-{step:08d}"
        with atomic_folder(final) as partial:
            weights = partial / WEIGHTS
            _write(weights, {name: tensor.contiguous() for name, tensor in tensors.items()})
            write_json(partial / FACTS, {"step": step, "digest": digest_file(weights), **facts})
            discard_folder(final)
        for old in self.all()[: -self.keep]:
            discard_folder(old)

    def all(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if NAME.fullmatch(path.name))

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and facts of the newest checkpoint; None where there is none yet."""
        found = self.all()
        if not found:
            return None
        path = found[-1]
        remedy = f"Delete {path} to go on from the one before, or start over with --restart."
        try:
            facts = read_json(path / FACTS)
            tensors = load_file(path / WEIGHTS)
        except (OSError, SafetensorError, InputError) as error:
            reason = error.message.rstrip(".") if isinstance(error, InputError) else error
            raise InputError(f"Checkpoint {path.name} is damaged: {reason}.", remedy) from error
        if not isinstance(facts, dict) or digest_file(path / WEIGHTS) != facts.get("digest"):
            raise InputError(f"Checkpoint {path.name} is damaged: its bytes do not match its digest.", remedy)
        return tensors, facts


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        # the library keeps the system's error, such as a full disk, in its text alone
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    with path.open("rb") as file:
        os.fsync(file.fileno())  # the folder must not get its name before the bytes are there
