"""Several processes train as one does: the same losses and weights, one writer, one sentence, and none left behind."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_group import COUNTS, counted, in_group, rows

from codeweft.base.processes import Together

STEPS = len(COUNTS)


def close(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether two rows of metrics agree, apart from the clock."""
    clock = ("time", "seconds", "tokens_per_second")
    names = expected.keys() - clock
    return found.keys() == expected.keys() and all(
        found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6) for name in names
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, counted(Together(), folder, STEPS)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("by_two")
    return folder, in_group(counted, folder, STEPS)


def test_two_processes_record_the_losses_of_one_and_hold_equal_weights(
    alone: tuple[Path, dict[str, Any]], by_two: tuple[Path, list[dict[str, Any]]]
):
    found, expected = rows(by_two[0]), rows(alone[0])
    assert len(found) == STEPS  # and not once for each process
    assert all(close(*each) for each in zip(found, expected, strict=True))
    first, second = by_two[1]
    for name, weight in alone[1]["weights"].items():
        assert np.array_equal(first["weights"][name], second["weights"][name]), name
        np.testing.assert_allclose(first["weights"][name], weight, rtol=2e-3, atol=2e-4, err_msg=name)
    assert (first["weights"]["unused"] == 1).all()  # without a gradient in any process it is not decayed


def test_only_the_first_process_writes(by_two: tuple[Path, list[dict[str, Any]]]):
    folder, (first, second) = by_two
    assert list(first["outputs"]) == ["own.txt"]
    assert not second["outputs"]
    assert (folder / "own.txt").read_text() == "0"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-00000004", "step-00000008"]


def test_one_process_goes_on_from_what_two_came_to(
    tmp_path: Path,
    alone: tuple[Path, dict[str, Any]],
    by_two: tuple[Path, list[dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
):
    folder = Path(shutil.copytree(by_two[0], tmp_path / "again"))
    shutil.rmtree(folder / "checkpoints" / "step-00000008")
    counted(Together(), folder, STEPS)
    assert (
        "going on from step 4, with another number of processes (1, not 2): last bits may differ."
        in capsys.readouterr().err
    )
    assert all(close(*each) for each in zip(rows(folder), rows(alone[0]), strict=True))


def test_shares_are_disjoint_and_what_came_of_them_is_joined_in_order():
    class Half(Together):
        size = 2

        def __init__(self, rank: int) -> None:
            self.rank = rank

    for count in range(6):
        shares = [Half(rank).share(range(count)) for rank in (0, 1)]
        assert sorted([*shares[0], *shares[1]]) == list(range(count))

        class Told(Half):
            def every(self, value: Any, shares: list[Any] = shares) -> list[Any]:
                return [list(share) for share in shares]

        assert Told(0).joined(shares[0]) == list(range(count))
