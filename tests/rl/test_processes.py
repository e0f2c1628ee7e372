"""Two processes draw, judge and learn as one does: they divide the answers, and all know all of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_alignment
import tiny_group
import tiny_model
from safetensors.torch import load_file
from tiny_judge import problem

from codeweft.base.artifacts import Manifest, atomic
from codeweft.base.errors import ConfigError
from codeweft.base.processes import Together
from codeweft.base.runs import Run
from codeweft.rl import loop
from codeweft.rl.config import GrpoConfig, ServerConfig
from codeweft.rl.feedback import read_feedback
from codeweft.rl.loop import read_rollout
from codeweft.tasks.problem_files import write_problems

CLOCK = {"time", "seconds", "tokens_per_second", "seconds_drawing", "seconds_waiting"}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model that chats, and problems."""
    folder = tmp_path_factory.mktemp("upstream")
    tiny_model.make_folder(folder / "sft" / "model")
    Manifest("sft", 1, {}, {}, {}, 1, counts={"tokens_seen": 4096}).write(folder / "sft")
    (folder / "problems").mkdir()
    for split, count in (("train", 7), ("held-out", 3)):
        with atomic(folder / "problems" / f"{split}.jsonl") as file:
            write_problems(file, [problem(f"{split}{number}") for number in range(count)])
    return {name: folder / name for name in ("sft", "problems")}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, upstream: dict[str, Path]) -> tuple[Path, dict[str, list[str]]]:
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patched:
        for module in (tiny_alignment.reward, tiny_alignment.loop):
            patched.setattr(module, "Judge", None)
        patched.setattr(tiny_alignment.feedback, "PORTION", 2)
        return folder, tiny_alignment.aligned(Together(), folder, upstream)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, upstream: dict[str, Path]) -> tuple[Path, list[dict[str, list[str]]]]:
    folder = tmp_path_factory.mktemp("two")
    return folder, tiny_group.in_group(tiny_alignment.aligned, folder, upstream)


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["reward", "grpo"])
def test_two_processes_record_the_losses_of_one(stage: str, one: tuple[Path, Any], two: tuple[Path, Any]):
    found, expected = metrics(two[0] / stage), metrics(one[0] / stage)
    assert len(found) == len(expected)
    for row, same in zip(found, expected, strict=True):
        assert row == pytest.approx(same, rel=1e-4, abs=1e-5)
    assert any(row["gradient_norm"] > 0 for row in found)


@pytest.mark.slow
def test_two_processes_judge_what_one_judges_between_them(one: tuple[Path, Any], two: tuple[Path, Any]):
    for stage in ("reward", "grpo"):
        shares = [judged[stage] for judged in two[1]]
        assert all(shares)
        assert sorted([*shares[0], *shares[1]]) == sorted(one[1][stage])


@pytest.mark.slow
def test_the_answers_are_kept_once_and_in_the_order_of_one_process(one: tuple[Path, Any], two: tuple[Path, Any]):
    for name in ("train", "held-out"):
        found, expected = (read_feedback(each[0] / f"reward/feedback/{name}.parquet") for each in (two, one))
        assert [(row.problem, row.seed, row.text, row.hidden) for row in found] == [
            (row.problem, row.seed, row.text, row.hidden) for row in expected
        ]
    paths = sorted((one[0] / "grpo/rollouts").iterdir())
    assert [path.name for path in paths] == [path.name for path in sorted((two[0] / "grpo/rollouts").iterdir())]
    for path in paths:
        found, expected = read_rollout(two[0] / "grpo/rollouts" / path.name), read_rollout(path)
        assert [(row.problem, row.group, row.tokens) for row in found] == [
            (row.problem, row.group, row.tokens) for row in expected
        ]
        rewards = [[row.reward for row in rows] for rows in (found, expected)]
        np.testing.assert_allclose(*rewards, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["reward/model", "grpo/model", "grpo/iterations/001/reward"])
def test_two_processes_end_with_the_weights_of_one(folder: str, one: tuple[Path, Any], two: tuple[Path, Any]):
    found, expected = (load_file(each[0] / folder / "model.safetensors") for each in (two, one))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        np.testing.assert_allclose(found[name].float(), weight.float(), rtol=2e-2, atol=2e-3, err_msg=name)


def test_a_server_is_refused_with_several_processes_before_anything_is_read(tmp_path: Path):
    class Half(Together):
        size = 2

    config = GrpoConfig(server=ServerConfig(url="http://127.0.0.1:1/v1", reload="/reload"), device="cpu")
    with pytest.raises(ConfigError, match="Start one process"):
        loop.run(config, Run("grpo", tmp_path, 1, {}, together=Half()))
