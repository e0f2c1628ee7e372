"""Checkpoints are whole or absent, few, and never believed when damaged."""

from pathlib import Path

import pytest
import torch

from codeweft.base.errors import InputError
from codeweft.train.checkpoint import Checkpoints


def test_the_newest_few_are_kept_and_the_newest_is_read(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.newest() is None
    for step in (10, 20, 30):
        checkpoints.save(step, {"a": torch.full((3,), float(step))}, {"tokens": step * 5})
    assert [path.name for path in checkpoints.all()] == ["step-00000020", "step-00000030"]
    tensors, facts = checkpoints.newest()
    assert tensors["a"].tolist() == [30.0] * 3
    assert (facts["step"], facts["tokens"]) == (30, 150)


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(10, {"a": torch.zeros(1)}, {})
    (tmp_path / "checkpoints" / "partial-00000020").mkdir()
    assert checkpoints.newest()[1]["step"] == 10


@pytest.mark.parametrize("damage", ["flip", "cut", "json"])
def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path: Path, damage: str):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(10, {"a": torch.zeros(100)}, {})
    path = tmp_path / "checkpoints" / "step-00000010" / "state.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-50])
    else:
        path.with_name("state.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        checkpoints.newest()
