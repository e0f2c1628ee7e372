"""Checkpoints of a training stage: whole or absent, the newest few kept, read without unpickling.

In:  named tensors and a few numbers.  Out: `checkpoints/step-00000100/` with `state.safetensors` and `state.json`.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from codeweft.base.artifacts import digest_file, read_json, write_json
from codeweft.base.errors import InputError

NAME = re.compile(r"step-(\d{8})")


class Checkpoints:
    """The checkpoints of one stage folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder / "checkpoints"
        self.keep = keep

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Write beside, then rename; then drop all but the newest `keep`."""
        final = self.folder / f"step-{step:08d}"
        partial = self.folder / f"partial-{step:08d}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        weights = partial / "state.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, weights)
        with weights.open("rb") as file:
            os.fsync(file.fileno())  # the rename below must not come before the bytes
        digest = digest_file(weights)
        write_json(partial / "state.json", {"step": step, "digest": digest, **facts})
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in self.all()[: -self.keep]:
            shutil.rmtree(old)

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
            facts = read_json(path / "state.json")
            tensors = load_file(path / "state.safetensors")
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise InputError(f"Checkpoint {path.name} is damaged: {error}.", remedy) from error
        if digest_file(path / "state.safetensors") != facts["digest"]:
            raise InputError(f"Checkpoint {path.name} is damaged: its bytes do not match its digest.", remedy)
        return tensors, facts
