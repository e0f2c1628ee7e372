"""The stage reward: what it collects, learns, keeps and measures; equal seeds, resumption, and what it refuses."""

import asyncio
import dataclasses
import json
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_model
import torch
from tiny_judge import problem
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from codeweft.base.artifacts import Manifest, atomic
from codeweft.base.errors import InputError, ModelError
from codeweft.base.records import Feedback, Pair, Problem, Test, Verdict
from codeweft.base.runs import Run
from codeweft.model.config import ModelConfig
from codeweft.model.folder import read_config
from codeweft.model.reward import RewardModel, reward_model_of
from codeweft.model.transformer import Transformer
from codeweft.rl import feedback, judging
from codeweft.rl.config import PreferenceConfig, RewardConfig, RewardPaceConfig
from codeweft.rl.feedback import read_feedback
from codeweft.rl.reward import Example, batches_of, inputs, make_plan, reward_loss, run, validation_batches
from codeweft.rl.scoring import scores_of
from codeweft.sandbox.config import SandboxConfig, Submission
from codeweft.tasks.problem_files import write_problems
from codeweft.train.config import BalanceConfig, OptimizerConfig
from codeweft.train.loop import Trainer

CPU = torch.device("cpu")
PACE = RewardPaceConfig(steps=4, learning_rate=1e-3, sequence=96, micro_batch=4)
CONFIG = RewardConfig(
    pace=PACE,
    preference=PreferenceConfig(chosen_passes_all=False),
    held_out=4,
    answers=4,
    max_tokens=10,
    rows=8,
    pairs=3,
    validate_every=2,
    checkpoint_every=2,
    precision="float32",
)


class LetterSandbox:
    """A text passes as many tests as it has letters e; one without any letter does not parse."""

    tier = "namespaces"

    async def judge(self, submission: Submission, deadline: float | None = None) -> Verdict:
        await asyncio.sleep(0)
        total, found = len(submission.tests), min(submission.code.count("e"), len(submission.tests))
        status = "ok" if found == total else "wrong" if any(map(str.isalpha, submission.code)) else "compile_error"
        return Verdict(status, found, total, 0.0, 0, "namespaces", "split")


def asked(name: str, split: Any) -> Problem:
    """A problem with one visible test and three hidden ones."""
    more = tuple(Test("call", args=(n,), expected=n) for n in (2, 3, 4))
    return dataclasses.replace(problem(name), tests_hidden=more, split=split)


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A model that chats, problems of both splits, and a sandbox to whom the letter e is what counts."""
    tiny_model.make_folder(tmp_path / "sft" / "model")
    Manifest("sft", 1, {}, {}, {}, 1, counts={"tokens_seen": 4096}).write(tmp_path / "sft")
    write(tmp_path / "problems", "train", [asked(f"t{n}", "train") for n in range(5)])
    write(tmp_path / "problems", "held-out", [asked(f"h{n}", "held-out") for n in range(6)])

    @asynccontextmanager
    async def opened(_: SandboxConfig) -> AsyncIterator[LetterSandbox]:
        yield LetterSandbox()

    monkeypatch.setattr(judging, "open_sandbox", opened)
    monkeypatch.setattr(feedback, "PORTION", 2)
    return {name: tmp_path / name for name in ("sft", "problems")}


def write(folder: Path, name: str, problems: list[Problem]) -> None:
    folder.mkdir(exist_ok=True)
    with atomic(folder / f"{name}.jsonl") as file:
        write_problems(file, problems)


def work(folder: Path, upstream: dict[str, Path], **given: Any) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    return Run("reward", folder, 1, upstream, sections={"sandbox": SandboxConfig()}, model_stage="sft", **given)


def metrics(stage: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_the_stage_learns_from_visible_tests_and_is_measured_by_hidden_ones(tmp_path: Path, upstream: dict[str, Path]):
    stage = work(tmp_path / "reward", upstream)
    headline = run(CONFIG, stage)
    known = read_feedback(stage.folder / "feedback" / "held-out.parquet")
    rows = read_feedback(stage.folder / "feedback" / "train.parquet")
    assert pq.read_schema(stage.folder / "feedback" / "train.parquet").names == [
        field.name for field in dataclasses.fields(Feedback)
    ]
    assert {row.problem for row in rows} == {f"t{n}" for n in range(5)}
    assert len({row.problem for row in known}) == 4
    for row in (*rows, *known):
        letters = row.text.count("e")
        assert (row.visible_passed, row.visible_total) == (min(letters, 1), 1)
        assert (row.hidden_passed, row.hidden_total) == (min(letters, 3), 3)
    pairs = pq.read_table(stage.folder / "pairs.parquet").to_pylist()
    assert stage.counts["pairs"] == len(pairs) > 4
    for pair in pairs:
        assert set(pair) == {field.name for field in dataclasses.fields(Pair)}
        assert ("e" in pair["chosen"], "e" in pair["rejected"]) == (True, False)
        assert (pair["chosen_passed"], pair["rejected_passed"], pair["total"]) == (1, 0, 1)
        assert pair["visible_only"]
        assert {(pair["problem"], pair[side]) for side in ("chosen", "rejected")} <= {
            (row.problem, row.text) for row in rows
        }
    # measured.json by hand: pairs are of one problem, both run, one passes more hidden tests
    measured = json.loads((stage.folder / "measured.json").read_text("utf-8"))
    score = dict(zip(((row.problem, row.text) for row in known), scores_by_transformers(stage, upstream), strict=True))
    unlike = list({(row.problem, row.text): row for row in known if row.hidden in ("ok", "wrong")}.values())
    won, visible = [], []
    for one in unlike:
        for two in unlike:
            if one.problem == two.problem and one.hidden_passed > two.hidden_passed:
                won.append(float(score[one.problem, one.text] > score[two.problem, two.text]))
                visible.append(0.5 * (1 + one.visible_passed - two.visible_passed))
    assert measured["pairs"] == len(won) > 4
    assert headline["pair_accuracy"] == measured["pair_accuracy"] == pytest.approx(np.mean(won), abs=1e-6)
    assert headline["visible_test_accuracy"] == pytest.approx(np.mean(visible), abs=1e-6)
    for name in ("pair_accuracy", "visible_test_accuracy", "length_accuracy", "logprob_accuracy", "auc"):
        low, high = headline[f"{name}_ci95"]
        assert low <= headline[name] <= high
    assert [row["step"] for row in metrics(stage) if "validation_loss" in row] == [2, 4]
    assert stage.counts["tokens_seen"] == 4096


def scores_by_transformers(stage: Run, upstream: dict[str, Path]) -> list[float]:
    """Scores of the held-out answers by transformers, each text alone."""
    theirs = AutoModelForSequenceClassification.from_pretrained(
        stage.folder / "model", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    assert type(theirs).__name__ == "DeepseekV2ForSequenceClassification"
    assert read_config(upstream["sft"] / "model").pad_token_id != theirs.config.pad_token_id
    tokenizer = AutoTokenizer.from_pretrained(stage.folder / "model")
    assert tokenizer.pad_token_id == theirs.config.pad_token_id != tokenizer.eos_token_id
    found = []
    for row in read_feedback(stage.folder / "feedback" / "held-out.parquet"):
        messages = [{"role": "user", "content": f"Do {row.problem}."}]
        asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        with torch.no_grad():
            found.append(float(theirs(torch.tensor([[*asked, *row.tokens]])).logits))
    return found


def test_equal_seeds_and_a_stage_cut_off_in_any_part_give_the_same_bytes(
    tmp_path: Path, upstream: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    whole, again, cut = (work(tmp_path / name / "reward", upstream) for name in ("a", "b", "c"))
    run(CONFIG, whole)
    run(CONFIG, again)
    assert again.outputs == whole.outputs
    drawn = feedback._collected
    turn = iter(range(99))

    def interrupted(*given: Any) -> Any:
        if next(turn) == 3:  # amid the held-out problems
            raise KeyboardInterrupt
        return drawn(*given)

    monkeypatch.setattr(feedback, "_collected", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, cut)
    assert len(list(cut.staging.glob("*.parquet"))) == 3
    assert not [thread for thread in threading.enumerate() if thread.name == "judge"]
    cut = work(cut.folder, upstream, resumed=True)
    run(CONFIG, cut)
    assert cut.outputs == whole.outputs
    shutil.rmtree(cut.folder / "checkpoints" / "step-00000004")  # as if killed after step 2
    monkeypatch.setattr(feedback, "_collected", None)  # answers that are there are not drawn again
    cut = work(cut.folder, upstream, resumed=True)
    run(CONFIG, cut)
    assert cut.outputs == whole.outputs
    assert [row["step"] for row in metrics(cut)] == [1, 2, 3, 4]
    other = Run("reward", tmp_path / "d", 2, upstream, sections={"sandbox": SandboxConfig()}, model_stage="sft")
    monkeypatch.setattr(feedback, "_collected", drawn)
    run(CONFIG, other)
    assert other.outputs["feedback/train.parquet"] != whole.outputs["feedback/train.parquet"]


# --- learning ---------------------------------------------------------------------------------------------------------

SHAPE = tiny_model.SMALLEST | {"vocab_size": 24, "max_position_embeddings": 32}
PADDING, SIGN = 23, 7  # the token that makes a text a good one


def reward_model(seed: int = 1) -> RewardModel:
    model = Transformer(ModelConfig(**SHAPE))
    model.init_weights(std=0.15, generator=torch.Generator().manual_seed(seed))
    return reward_model_of(model, torch.Generator().manual_seed(seed), padding=PADDING)


def toy_texts(count: int, good: bool, seed: int) -> list[tuple[int, ...]]:
    """Texts of 5 to 14 tokens, with the sign somewhere or without it."""
    random = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        text = random.choice([token for token in range(2, 22) if token != SIGN], random.integers(5, 15))
        if good:
            text[random.integers(len(text))] = SIGN
        texts.append(tuple(text.tolist()))
    return texts


def toy_examples(count: int, loss: str, seed: int) -> list[Example]:
    better, worse = toy_texts(count, True, seed), toy_texts(count, False, seed + 1)
    if loss == "pairwise":
        return [Example(pair) for pair in zip(better, worse, strict=True)]
    return [*(Example((text,), 1.0) for text in better), *(Example((text,), 0.25) for text in worse)]


@pytest.mark.parametrize("loss", ["pairwise", "pointwise"])
def test_a_sign_of_good_answers_is_learned_and_found_in_answers_never_seen(loss: Any):
    config = RewardConfig(
        pace=RewardPaceConfig(steps=150, learning_rate=6e-3, warmup=10, micro_batch=32),
        preference=PreferenceConfig(loss=loss),
        pairs=16,
        optimizer=OptimizerConfig(weight_decay=0.0),
    )
    model = reward_model()
    trainer = Trainer(model, config.optimizer)
    plan = make_plan(config, toy_examples(200, loss, 1), toy_examples(20, loss, 5), PADDING, 1, CPU)
    before = trainer.validate(plan.validation(), plan.loss)
    for step in range(plan.steps):
        trainer.step(plan.batches(step), plan.loss, plan.learning_rate(step))
    better, worse = (np.array(scores_of(model, toy_texts(100, good, 50))) for good in (True, False))
    assert np.mean(better > worse) > 0.9
    assert trainer.validate(plan.validation(), plan.loss) < before - 0.1
    if loss == "pointwise":  # the score is the log-odds of the share that passes
        assert 1 / (1 + np.exp(-worse.mean())) == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("loss", ["pairwise", "pointwise"])
def test_a_step_has_one_gradient_however_it_is_divided(loss: Any):
    examples = toy_examples(5, loss, 3)
    config = RewardConfig(balance=BalanceConfig(expert=0.0), preference=PreferenceConfig(loss=loss, centre=0.1))

    def gradient(rows: int) -> tuple[int, list[torch.Tensor]]:
        model = reward_model()
        batches = batches_of(examples, rows, PADDING, CPU)
        for batch in batches:
            (reward_loss(model, batch, config).total / len(batches)).backward()
        assert max(len(batch.tokens_BT) for batch in batches) <= max(rows, len(examples[0].texts))
        return len(batches), [each.grad for each in model.parameters() if each.grad is not None]

    (one, whole), (several, parts) = gradient(100), gradient(3)
    assert one == 1
    assert several > 3
    for expected, got in zip(whole, parts, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)


def test_the_validation_loss_is_the_mean_over_examples_whatever_is_padding():
    examples, config = toy_examples(7, "pairwise", 3), RewardConfig(balance=BalanceConfig(expert=0.0))
    model = reward_model(2)
    scores = [scores_of(model, example.texts) for example in examples]
    expected = np.mean([np.log1p(np.exp(worse - better)) for better, worse in scores])
    batches = validation_batches(batches_of(examples, 4, PADDING, CPU))
    assert len({batch.tokens_BT.numel() for batch in batches}) > 1
    found = Trainer(model, config.optimizer).validate(batches, lambda m, batch: reward_loss(m, batch, config))
    assert found == pytest.approx(expected, rel=1e-5)
    assert validation_batches(batches_of([], 4, PADDING, CPU)) == []


def test_every_example_is_read_once_before_any_is_read_again():
    examples = [Example(((number, 1), (number, 2))) for number in range(10)]
    config = dataclasses.replace(CONFIG, pairs=4)
    plan = make_plan(config, examples, (), PADDING, 1, CPU)
    read = [int(row[0]) for step in range(5) for batch in plan.batches(step) for row in batch.tokens_BT.chunk(2)[0]]
    assert sorted(read[:8]) == sorted(set(read[:8]))
    assert sorted(read) == sorted([*range(10)] * 2)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_tokens": 96}, r"reward\.max_tokens = 96 leaves no room for a prompt in 96 tokens"),
        ({"max_tokens": 90}, "reward, train: there are no problems to answer"),
        (
            {"answers": 2, "problems": 1, "temperature": 1e-6},
            r"nothing to learn \(problem without a pair: 1; same text: 1\)",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_told_before_training(
    changes: dict[str, Any], words: str, tmp_path: Path, upstream: dict[str, Path]
):
    stage = work(tmp_path / "reward", upstream)
    with pytest.raises((InputError, ModelError), match=words):
        run(dataclasses.replace(CONFIG, **changes), stage)
    assert not stage.metrics.path.exists()


def test_without_hidden_tests_a_problem_is_learned_from_and_not_measured_by(
    tmp_path: Path, upstream: dict[str, Path], capsys: pytest.CaptureFixture[str]
):
    bare = [dataclasses.replace(asked(f"b{n}", "train"), tests_hidden=()) for n in range(3)]
    write(upstream["problems"], "train", bare)
    write(upstream["problems"], "held-out", [bare[0], asked("h1", "held-out")])
    stage = work(tmp_path / "reward", upstream)
    run(dataclasses.replace(CONFIG, answers=12, pace=dataclasses.replace(PACE, steps=1)), stage)
    assert "reward, held-out: 1 problems have no hidden tests" in capsys.readouterr().err
    rows = read_feedback(stage.folder / "feedback" / "train.parquet")
    assert {(row.hidden, row.hidden_total) for row in rows} == {("refused", 0)}
    assert {row.problem for row in read_feedback(stage.folder / "feedback" / "held-out.parquet")} == {"h1"}


def test_a_held_out_problem_that_is_too_long_is_counted(tmp_path: Path, upstream: dict[str, Path]):
    long = dataclasses.replace(asked("long", "held-out"), prompt="Do it. " * 90)
    write(upstream["problems"], "held-out", [long, asked("h1", "held-out")])
    stage = work(tmp_path / "reward", upstream)
    run(dataclasses.replace(CONFIG, pace=dataclasses.replace(PACE, steps=1)), stage)
    assert stage.counts["held_out_problems_left_out"] == 1


def test_a_folder_that_is_not_there_is_told():
    with pytest.raises(ModelError, match=r"reward\.init: there is no folder"):
        inputs(dataclasses.replace(CONFIG, init=Path("/no/such/folder")))


@pytest.mark.parametrize(
    "changes", [{"answers": 1}, {"few_tests": -1}, {"temperature": 0.0}, {"pairs": 0}, {"keep_checkpoints": 0}]
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any]):
    with pytest.raises(ValueError, match="must"):
        dataclasses.replace(CONFIG, **changes)
