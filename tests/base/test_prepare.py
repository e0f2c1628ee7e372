"""Finished work is never lost before its successor is finished."""

from pathlib import Path

import pytest

from codeweft.base.artifacts import Manifest, digest_bytes
from codeweft.base.errors import InputError
from codeweft.base.runs import prepare, settle, upstream

PRINT = {"stage": "tokens", "version": 1, "seed": 1, "config": {"rate": 0.5}, "inputs": {}}
OTHER = PRINT | {"config": {"rate": 0.6}}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A finished stage with one output."""
    folder = tmp_path / "tokens"
    prepare(folder, PRINT)
    (folder / "a.bin").write_bytes(b"precious")
    Manifest(**PRINT, outputs={"a.bin": digest_bytes(b"precious")}).write(folder)
    return folder


def test_going_back_to_the_old_settings_brings_the_old_folder_back(finished: Path):
    assert prepare(finished, OTHER) == (False, False)
    assert not (finished / "a.bin").exists()
    assert prepare(finished, PRINT) == (True, False)
    assert (finished / "a.bin").read_bytes() == b"precious"


def test_the_old_folder_survives_a_second_change_before_anything_is_finished(finished: Path):
    prepare(finished, OTHER)
    prepare(finished, PRINT | {"seed": 2})
    assert prepare(finished, PRINT) == (True, False)


def test_the_old_folder_goes_when_its_successor_is_finished(finished: Path):
    prepare(finished, OTHER)
    Manifest(**OTHER, outputs={}).write(finished)
    settle(finished)
    assert [path.name for path in finished.parent.iterdir()] == ["tokens"]


def test_a_missing_output_is_made_again_and_a_changed_one_when_asked(
    finished: Path, capsys: pytest.CaptureFixture[str]
):
    (finished / "a.bin").write_bytes(b"tampered")
    assert prepare(finished, PRINT) == (True, False)
    assert prepare(finished, PRINT, verify=True) == (False, False)
    assert "its output a.bin is damaged" in capsys.readouterr().err


def test_a_deleted_output_is_noticed(finished: Path, capsys: pytest.CaptureFixture[str]):
    (finished / "a.bin").unlink()
    assert prepare(finished, PRINT) == (False, False)
    assert "its output a.bin is missing" in capsys.readouterr().err


def test_a_stage_made_from_other_inputs_is_not_built_upon(finished: Path):
    (finished.parent / "pretrain").mkdir()
    right = Manifest("tokens", 1, {}, {}, {"a.bin": digest_bytes(b"precious")}, 1).digest
    for digest, fits in ((right, True), ("blake2b:other", False)):
        Manifest("pretrain", 1, {}, {"tokens": digest}, {}, 1).write(finished.parent / "pretrain")
        if fits:
            assert upstream(finished.parent, ("pretrain",), "evaluate")["pretrain"].inputs == {"tokens": right}
        else:
            with pytest.raises(InputError, match="made from another tokens than is there now"):
                upstream(finished.parent, ("pretrain",), "evaluate")


def test_a_source_with_a_manifest_of_its_own_is_not_taken_for_a_stage(finished: Path, tmp_path: Path):
    (tmp_path / "extension").mkdir()
    (tmp_path / "extension" / "manifest.json").write_text('{"manifest_version": 3}')
    inputs = {f"code:{tmp_path / 'extension'}": "blake2b:1", str(tmp_path / "extension"): "blake2b:2"}
    (finished.parent / "corpus").mkdir()
    Manifest("corpus", 1, {}, inputs, {}, 1).write(finished.parent / "corpus")
    assert upstream(finished.parent, ("corpus",), "tokens")["corpus"].inputs == inputs
