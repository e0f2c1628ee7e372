"""The stage grpo: what it learns, keeps and repeats; iterations, staleness, resumption, and what it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
import torch
from tiny_judge import StubJudge, problem

from codeweft.base.artifacts import Manifest, atomic
from codeweft.base.errors import InputError, ModelError
from codeweft.base.records import Pair, Rollout, schema
from codeweft.base.runs import Run
from codeweft.model.folder import load_folder, read_config
from codeweft.model.reward import load_reward_folder, reward_model_of, save_reward_folder
from codeweft.rl import loop
from codeweft.rl.config import GrpoConfig, ObjectiveConfig, PaceConfig
from codeweft.rl.loop import inputs, read_rollout, run
from codeweft.sandbox.config import SandboxConfig
from codeweft.tasks.problem_files import write_problems
from codeweft.tokenizer.load import FILES, load_tokenizer

CONFIG = GrpoConfig(
    pace=PaceConfig(steps=4, learning_rate=1e-3, sequence=96, micro_batch=2),
    objective=ObjectiveConfig(group=4),
    prompts=2,
    max_tokens=8,
    rows=8,
    tests="visible",
    checkpoint_every=2,
    precision="float32",
)


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A model that chats, six problems, and a judge to whom answers with an even number of letters e are right."""
    tiny_model.make_folder(tmp_path / "sft" / "model")
    Manifest("sft", 1, {}, {}, {}, 1, counts={"tokens_seen": 4096}).write(tmp_path / "sft")
    (tmp_path / "problems").mkdir()
    with atomic(tmp_path / "problems" / "train.jsonl") as file:
        write_problems(file, [problem(f"p{number}") for number in range(6)])
    judge_as(monkeypatch, lambda text: "ok" if text.count("e") % 2 == 0 else "wrong")
    return {name: tmp_path / name for name in ("sft", "problems")}


def judge_as(monkeypatch: pytest.MonkeyPatch, verdict: Any) -> None:
    class Judge(StubJudge):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(verdict)

        def __enter__(self) -> "Judge":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(loop, "Judge", Judge)


def work(folder: Path, upstream: dict[str, Path], **given: Any) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    return Run("grpo", folder, 1, upstream, sections={"sandbox": SandboxConfig()}, model_stage="sft", **given)


def metrics(stage: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_the_stage_keeps_its_rollouts_and_records_what_they_were_like(tmp_path: Path, upstream: dict[str, Path]):
    stage = work(tmp_path / "grpo", upstream)
    headline = run(CONFIG, stage)
    assert headline["seconds_per_step"] > 0
    config, before = read_config(stage.folder / "model"), read_config(upstream["sft"] / "model")
    assert (config.stage, config.fim_rate) == ("grpo", before.fim_rate)
    rows = [row for number in range(4) for row in read_rollout(stage.folder / "rollouts" / f"{number:06d}.parquet")]
    assert len(rows) == 4 * 2 * 4
    assert len({row.weights_digest for row in rows}) == 4  # on-policy: each rollout by the weights of its step
    assert {row.problem for row in rows[:24]} == {f"p{number}" for number in range(6)}
    tokenizer = load_tokenizer(upstream["sft"] / "model")
    for row in rows:
        text = tokenizer.decode([token for token in row.tokens if token != tokenizer.end])
        assert row.reward == float(text.count("e") % 2 == 0)
        assert len(row.logprobs) == len(row.tokens) <= 8
    found = metrics(stage)
    assert [row["step"] for row in found] == [1, 2, 3, 4]
    for number, row in enumerate(found):
        mine = rows[number * 8 : number * 8 + 8]
        assert row["reward"] == pytest.approx(sum(each.reward for each in mine) / 8)
        assert {"entropy", "kl", "clip_fraction", "length", "silent_groups", "seconds_drawing"} <= set(row)
        assert (row["clip_fraction"], row["staleness"]) == (0, 0)
    assert found[0]["kl"] == pytest.approx(0, abs=1e-6)  # the policy still is the reference
    assert found[3]["kl"] > 1e-7


def test_equal_seeds_and_a_run_that_was_cut_off_give_the_same_bytes(tmp_path: Path, upstream: dict[str, Path]):
    stages = [work(tmp_path / name / "grpo", upstream) for name in ("a", "b", "c")]
    for stage in stages:
        run(CONFIG, stage)
    assert stages[0].outputs == stages[1].outputs
    cut = stages[2].folder
    shutil.rmtree(cut / "checkpoints" / "step-00000004")  # as if killed after the rollout of step 4 was kept
    (cut / "rollouts" / "000003.parquet").unlink()
    again = work(cut, upstream, resumed=True)
    run(CONFIG, again)
    assert again.outputs == stages[0].outputs
    kept = [{**row, "time": 0, "seconds": 0} for row in metrics(again)]
    assert [row["loss"] for row in kept] == [row["loss"] for row in metrics(stages[0])]


def test_a_kept_rollout_is_learned_from_and_not_drawn_again(tmp_path: Path, upstream: dict[str, Path]):
    first, second = (work(tmp_path / name / "grpo", upstream) for name in ("a", "b"))
    run(CONFIG, first)
    shutil.copytree(first.folder / "rollouts", second.folder / "rollouts")
    stamps = {path: path.stat().st_mtime_ns for path in (second.folder / "rollouts").iterdir()}
    run(CONFIG, second)
    assert second.outputs == first.outputs
    assert {path: path.stat().st_mtime_ns for path in (second.folder / "rollouts").iterdir()} == stamps


def test_a_policy_learns_what_is_rewarded(tmp_path: Path, upstream: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    """A made-up taste: answers that hold no letter e are right. Chance alone finds few; in the end nearly all are."""
    judge_as(monkeypatch, lambda text: "wrong" if "e" in text else "ok")
    config = dataclasses.replace(
        CONFIG,
        pace=PaceConfig(steps=40, learning_rate=4e-3, sequence=96, micro_batch=8),
        objective=ObjectiveConfig(group=8, beta=0.0),
        prompts=4,
        rows=32,
        max_tokens=12,
        checkpoint_every=40,
    )
    stage = work(tmp_path / "grpo", upstream)
    run(config, stage)
    passed = [row["passed"] for row in metrics(stage)]
    assert sum(passed[-5:]) / 5 > sum(passed[:5]) / 5 + 0.3


def test_several_updates_go_along_one_rollout(tmp_path: Path, upstream: dict[str, Path]):
    config = dataclasses.replace(CONFIG, updates=2)
    stage = work(tmp_path / "grpo", upstream)
    run(config, stage)
    assert sorted(path.name for path in (stage.folder / "rollouts").iterdir()) == ["000000.parquet", "000001.parquet"]
    found = metrics(stage)
    assert found[0]["reward"] == found[1]["reward"]
    # the second update's policy is no longer the one that drew
    assert found[1]["loss"] != found[0]["loss"]


def test_with_overlap_the_ratio_is_to_the_weights_that_drew(
    tmp_path: Path, upstream: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    """At a high rate the policy has moved far from the one that drew: tokens are clipped, as on-policy none is."""
    config = dataclasses.replace(CONFIG, pace=dataclasses.replace(CONFIG.pace, learning_rate=2e-2))
    stages = [work(tmp_path / name / "grpo", upstream) for name in ("off", "on")]
    for stage, overlap in zip(stages, ("off", "on"), strict=True):
        run(dataclasses.replace(config, overlap=overlap), stage)
    off, on = ([row["clip_fraction"] for row in metrics(stage)] for stage in stages)
    assert off == [0, 0, 0, 0]
    assert on[0] == 0
    assert min(on[1:]) > 0.02


def test_with_overlap_answers_are_one_step_old_and_that_is_recorded(tmp_path: Path, upstream: dict[str, Path]):
    stage = work(tmp_path / "grpo", upstream)
    run(dataclasses.replace(CONFIG, overlap="on"), stage)
    assert [row["staleness"] for row in metrics(stage)] == [0, 1, 1, 1]
    digests = [
        {row.weights_digest for row in read_rollout(stage.folder / "rollouts" / f"{number:06d}.parquet")}
        for number in range(4)
    ]
    assert digests[0] == digests[1]  # both were drawn before the first update
    assert digests[1] != digests[2] != digests[3]


@pytest.mark.parametrize("choice", ["skip", "keep"])
def test_groups_that_teach_nothing_are_left_out_or_held_to_the_reference(
    choice: Any, tmp_path: Path, upstream: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    judge_as(monkeypatch, lambda text: "compile_error")
    stage = work(tmp_path / "grpo", upstream)
    run(dataclasses.replace(CONFIG, silent=choice), stage)
    assert "2 of 2 groups teach nothing: all 4 answers failed to compile (2 groups)" in capsys.readouterr().err
    rows = metrics(stage)
    assert all(row["silent_groups"] == 1 for row in rows)
    before, after = (load_folder(each / "model") for each in (upstream["sft"], stage.folder))
    same = all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert same == (choice == "skip")
    assert [row["tokens"] > 0 for row in rows] == [choice == "keep"] * 4


def test_other_prompts_take_the_place_of_groups_that_teach_nothing(
    tmp_path: Path, upstream: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    turn = iter(range(10**6))
    # two of each four answers, in whichever order groups are finished
    judge_as(monkeypatch, lambda text: "ok" if (number := next(turn)) >= 8 and number // 2 % 2 else "wrong")
    config = dataclasses.replace(CONFIG, silent="resample", pace=dataclasses.replace(CONFIG.pace, steps=1))
    stage = work(tmp_path / "grpo", upstream)
    run(config, stage)
    rows = read_rollout(stage.folder / "rollouts" / "000000.parquet")
    assert len(rows) == 8
    assert sorted({row.group for row in rows}) == [0, 1]
    assert metrics(stage)[0]["silent_groups"] == 0


def reward_folder(upstream: dict[str, Path], folder: Path) -> Path:
    """A reward model with a random head, and pairs to replay, as the stage reward leaves them."""
    model = load_folder(upstream["sft"] / "model", dtype=torch.float32)
    made = reward_model_of(model, torch.Generator().manual_seed(1), std=0.5)
    files = [upstream["sft"] / "model" / name for name in FILES]
    save_reward_folder(made, folder / "model", extra_files=files)
    stage = Run("reward", folder, 1, {})
    pairs = [Pair("p1", "1", "2", 1, 0, 1, True)] * 8
    stage.write("pairs.parquet", pa.Table.from_pylist([dataclasses.asdict(pair) for pair in pairs], schema(Pair)))
    return folder


def test_a_reward_models_scores_can_be_the_reward_and_it_learns_on_between_iterations(
    tmp_path: Path, upstream: dict[str, Path]
):
    reward = reward_folder(upstream, tmp_path / "reward")
    config = dataclasses.replace(CONFIG, model_factor=1.0, iterations=2)
    assert config.unread == ()
    stage = work(tmp_path / "grpo", upstream | {"reward": reward})
    run(config, stage)
    rows = read_rollout(stage.folder / "rollouts" / "000000.parquet")
    assert len({row.reward for row in rows}) > 4  # scores are real numbers, unlike verdicts
    begun = stage.folder / "iterations" / "001"
    first, second = (load_reward_folder(each) for each in (reward / "model", begun / "reward"))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    # the reference of the second iteration is the policy as it was when that began
    assert metrics(stage)[2]["kl"] < metrics(stage)[1]["kl"]
    assert read_config(begun / "model").vocab_size == read_config(upstream["sft"] / "model").vocab_size
    cut = work(tmp_path / "cut" / "grpo", upstream | {"reward": reward})
    run(config, cut)
    shutil.rmtree(cut.folder / "checkpoints" / "step-00000004")
    again = work(cut.folder, upstream | {"reward": reward}, resumed=True)
    run(config, again)
    assert again.outputs == stage.outputs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_tokens": 96}, r"grpo\.max_tokens = 96 leaves no room for a prompt in 96 tokens"),
        ({"max_tokens": 90}, "there are no problems to answer"),
    ],
)
def test_what_cannot_be_asked_is_told_before_training(
    changes: dict[str, Any], words: str, tmp_path: Path, upstream: dict[str, Path]
):
    with pytest.raises((InputError, ModelError), match=words):
        run(dataclasses.replace(CONFIG, **changes), work(tmp_path / "grpo", upstream))


def test_a_reward_model_of_another_tokenizer_is_refused(tmp_path: Path, upstream: dict[str, Path]):
    reward = reward_folder(upstream, tmp_path / "reward")
    tiny_model.make_tokenizer(reward / "model", vocabulary=400)
    with pytest.raises(ModelError, match="another tokenizer"):
        run(dataclasses.replace(CONFIG, model_factor=1.0), work(tmp_path / "grpo", upstream | {"reward": reward}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": ObjectiveConfig(group=1)}, "an answer alone is neither better nor worse"),
        ({"tests_factor": 0.0}, "there is no reward"),
        ({"temperature": 0.0}, "a group must differ"),
        ({"updates": 3}, "must be a multiple of updates"),
        ({"objective": ObjectiveConfig(supervision="process")}, "needs rewards of steps"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **changes)


def test_a_folder_that_is_not_there_is_told():
    with pytest.raises(ModelError, match=r"grpo\.init: there is no folder"):
        inputs(dataclasses.replace(CONFIG, init=Path("/no/such/folder")))


def test_a_kept_rollout_reads_back_as_it_was(tmp_path: Path, upstream: dict[str, Path]):
    stage = work(tmp_path / "grpo", upstream)
    run(CONFIG, stage)
    path = stage.folder / "rollouts" / "000000.parquet"
    assert [field.name for field in dataclasses.fields(Rollout)] == pq.read_schema(path).names
    assert all(isinstance(row.tokens, tuple) for row in read_rollout(path))
