"""The loop learns, repeats itself bit for bit, resumes exactly, and stops at numbers that are none."""

import dataclasses
from pathlib import Path

import pytest
import torch

from codeweft.base.errors import UserError
from codeweft.base.runs import Run
from codeweft.model.config import ModelConfig
from codeweft.model.transformer import Transformer
from codeweft.train.batches import Batch
from codeweft.train.config import BalanceConfig, OptimizerConfig
from codeweft.train.loop import Plan, Trainer, train
from codeweft.train.objectives import Loss, next_token

SHAPE = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    moe_intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    n_shared_experts=1,
    n_routed_experts=4,
    num_experts_per_tok=2,
    kv_lora_rank=16,
    qk_rope_head_dim=8,
    qk_nope_head_dim=8,
    v_head_dim=8,
)


def batch_of(step: int) -> Batch:
    """Counting upwards from a start drawn by step: learnable from one token of context."""
    start = torch.randint(0, 64, (4, 1), generator=torch.Generator().manual_seed(step))
    window = (start + torch.arange(17)) % 64
    return Batch(window[:, :-1].contiguous(), window[:, 1:].contiguous())


def loss(model: Transformer, batch: Batch) -> Loss:
    return next_token(model, batch, BalanceConfig(expert=0.01))


def trainer(dtype: torch.dtype) -> Trainer:
    model = Transformer(SHAPE)
    model.init_weights(0.02, torch.Generator().manual_seed(0))
    return Trainer(model.to(dtype), OptimizerConfig())


def plan(steps: int) -> Plan:
    return Plan(
        steps=steps,
        batches=lambda step: [batch_of(2 * step), batch_of(2 * step + 1)],
        learning_rate=lambda step: 1e-2,
        loss=loss,
        validation=lambda: [batch_of(10_000)],
        validate_every=10,
        load_every=10,
        checkpoint_every=10,
        keep_checkpoints=2,
    )


def trained(folder: Path, steps: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    worker = trainer(dtype)
    run = Run("pretrain", folder, 1, {})
    train(worker, plan(steps), run)
    run.metrics.close()
    return worker.model.state_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_training_learns_to_count(tmp_path: Path, dtype: torch.dtype):
    worker = trainer(dtype)
    first = worker.validate([batch_of(10_000)], loss)
    for step in range(60):
        worker.step([batch_of(step)], loss, 1e-2)
    assert first > 4.0
    assert worker.validate([batch_of(10_000)], loss) < 0.5


def test_an_interrupted_run_ends_with_the_same_weights_and_metrics(tmp_path: Path):
    whole = trained(tmp_path / "whole", 30)

    def pulled_plug(step: int) -> list[Batch]:
        if step == 17:
            raise KeyboardInterrupt
        return plan(30).batches(step)

    (tmp_path / "cut").mkdir()
    run = Run("pretrain", tmp_path / "cut", 1, {})
    with pytest.raises(KeyboardInterrupt):
        train(trainer(torch.bfloat16), dataclasses.replace(plan(30), batches=pulled_plug), run)
    again = trained(tmp_path / "cut", 30)
    assert all(torch.equal(whole[name], again[name]) for name in whole)

    def losses(folder: Path) -> list[tuple]:
        import json

        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [(row["step"], row["loss"], row["tokens"], row.get("validation_loss")) for row in rows]

    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    def norm(batches: list[Batch]) -> float:
        worker = trainer(torch.float32)
        # the balance loss is a mean over sequences, so it splits like the cross-entropy does
        return worker.step(batches, loss, 0.0).gradient_norm

    parts = [batch_of(0), batch_of(1)]
    together = Batch(torch.cat([part.tokens_BT for part in parts]), torch.cat([part.targets_BT for part in parts]))
    assert norm(parts) == pytest.approx(norm([together]), rel=1e-4)


def test_a_loss_that_is_not_a_number_stops_with_the_next_step(tmp_path: Path):
    worker = trainer(torch.float32)
    with torch.no_grad():
        worker.model.lm_head.weight[0, 0] = float("inf")
    with pytest.raises(UserError, match="Lower the learning rate"):
        train(worker, plan(3), Run("pretrain", tmp_path, 1, {}))


def test_the_recorded_expert_load_sums_to_one(tmp_path: Path):
    import json

    trained(tmp_path, 10)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    shares = [value for name, value in row.items() if name.startswith("expert_load/layer_0/")]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)
