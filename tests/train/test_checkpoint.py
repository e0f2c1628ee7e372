"""Checkpoints are whole or absent, few, and never believed when damaged."""

import errno
import resource
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
    (tmp_path / "checkpoints" / ".step-00000020.partial-7").mkdir()
    assert checkpoints.newest()[1]["step"] == 10


def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_half_one(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(10, {"a": torch.ones(10)}, {"tokens": 5})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # no file grows beyond it
    try:
        for step in (10, 20):
            with pytest.raises(OSError, match="File too large") as caught:
                checkpoints.save(step, {"a": torch.zeros(100_000)}, {"tokens": 10})
            assert caught.value.errno == errno.EFBIG
            assert caught.value.filename == str(tmp_path / "checkpoints" / f"step-{step:08d}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    tensors, facts = checkpoints.newest()
    assert (facts["step"], tensors["a"].tolist()) == (10, [1.0] * 10)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000010"]


@pytest.mark.parametrize("damage", ["flip", "cut", "json", "facts", "gone"])
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
    elif damage == "gone":
        path.unlink()
    else:
        path.with_name("state.json").write_text("{" if damage == "json" else "[]")
    with pytest.raises(InputError, match=r"Checkpoint step-00000010 is damaged.*Delete .*/step-00000010 to go on"):
        checkpoints.newest()
