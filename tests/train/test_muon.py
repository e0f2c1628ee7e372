"""Muon's directions are the orthogonal factor of the momentum, and it takes hidden matrices alone, each by itself."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from codeweft.base.runs import Run
from codeweft.model.config import ModelConfig
from codeweft.model.transformer import Transformer
from codeweft.train.batches import Batch
from codeweft.train.config import BalanceConfig, OptimizerConfig
from codeweft.train.loop import Plan, Trainer, train
from codeweft.train.objectives import next_token
from codeweft.train.optimizer import MasterOptimizer, Muon, orthogonal

MUON = OptimizerConfig(kind="muon")
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


def model(dtype: torch.dtype = torch.float32) -> Transformer:
    made = Transformer(SHAPE)
    made.init_weights(0.02, torch.Generator().manual_seed(0))
    return made.to(dtype)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (5, 20), (32, 64)])
def test_directions_have_singular_values_of_about_one_and_the_vectors_of_the_matrix(
    rows: int, columns: int, dtype: torch.dtype, close: float
):
    left = torch.linalg.qr(draw(7, rows, rows)).Q
    right = torch.linalg.qr(draw(7, columns, rows, seed=1)).Q
    spread = torch.logspace(0, -2, rows)  # known singular values, the smallest a hundredth of the largest
    stack = left @ torch.diag(spread) @ right.mT
    directions = orthogonal(stack, dtype)
    turned = left.mT @ directions @ right  # diagonal where the singular vectors are the same
    values = turned.diagonal(dim1=-2, dim2=-1)
    assert float(values.min()) > 0.6 - close
    assert float(values.max()) < 1.3 + close
    assert float((turned - torch.diag_embed(values)).abs().max()) < close
    if rows == 6:
        svd = torch.linalg.svd(stack, full_matrices=False)
        cosine = (directions * (svd.U @ svd.Vh)).sum((-2, -1)) / directions.norm(dim=(-2, -1)) / rows**0.5
        assert float(cosine.min()) > 0.95


def literal(matrix: Tensor) -> Tensor:
    """Newton-Schulz as it is written down, one matrix that may stand or lie, in float64."""
    x = matrix.double() / max(float(matrix.double().square().sum()) ** 0.5, 1e-7)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * (x @ x.T @ x) + 2.0315 * (x @ x.T @ x @ x.T @ x)
    return x


def test_a_step_equals_one_written_out_for_every_matrix_of_a_stack():
    gate_up, down, plain = draw(5, 12, 8), draw(5, 8, 6, seed=1), draw(10, 4, seed=2)
    masters = {"mlp.experts.gate_up_proj": gate_up, "mlp.experts.down_proj": down, "q_proj.weight": plain}
    pieces = [*gate_up[:, :6], *gate_up[:, 6:], *down, plain]  # views, in the order of `wanted`
    wanted = [piece.double() for piece in pieces]
    sums = [torch.zeros_like(piece) for piece in wanted]
    config = OptimizerConfig(kind="muon", momentum=0.9, weight_decay=0.2, matrix_rate=1.5)
    muon = Muon(masters, config)
    for step in range(3):
        for index, master in enumerate(masters.values()):
            master.grad = draw(*master.shape, seed=10 * step + index) * 1e-3
        grads = [*gate_up.grad[:, :6], *gate_up.grad[:, 6:], *down.grad, plain.grad]
        muon.step(0.01)
        for index, grad in enumerate(grads):
            sums[index] = 0.9 * sums[index] + grad.double()
            direction = literal(grad.double() + 0.9 * sums[index]) * 0.2 * math.sqrt(max(grad.shape))
            wanted[index] = wanted[index] - 0.015 * (direction + 0.2 * wanted[index])
    for piece, other in zip(pieces, wanted, strict=True):
        torch.testing.assert_close(piece.double(), other, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
def test_a_matrix_is_stepped_as_by_muon_of_torch_to_the_precision_of_bfloat16(shape: tuple[int, int]):
    ours, theirs = draw(*shape), nn.Parameter(draw(*shape))
    before = ours.clone()
    reference = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    muon = Muon({"weight": ours}, MUON)
    for step in range(3):
        ours.grad, theirs.grad = draw(*shape, seed=step), draw(*shape, seed=step)
        muon.step(0.1)
        reference.step()
    far = float((ours - theirs.detach()).norm() / (ours - before).norm())
    assert far < 0.02


def test_a_stack_steps_as_its_slices_do_one_by_one():
    whole = draw(9, 6, 8)
    alone = [piece.clone() for piece in whole]
    together = Muon({"experts.down_proj": whole}, MUON)
    apart = [Muon({"down_proj.weight": piece}, MUON) for piece in alone]
    for step in range(3):
        whole.grad = draw(9, 6, 8, seed=step)
        together.step(0.1)
        for piece, grad, muon in zip(alone, whole.grad, apart, strict=True):
            piece.grad = grad
            muon.step(0.1)
    torch.testing.assert_close(whole, torch.stack(alone), atol=1e-6, rtol=1e-5)


def test_an_entry_steps_on_average_a_fifth_of_the_rate_whatever_the_shape():
    for shape in ((3, 16, 16), (3, 64, 16), (3, 16, 64)):
        weight = torch.zeros(shape)
        weight.grad = draw(*shape)
        Muon({"weight": weight}, MUON).step(0.5)
        assert float(weight.square().mean().sqrt()) == pytest.approx(0.1, rel=0.2)


def test_muon_gets_lower_than_descent_where_curvature_differs_each_at_its_best_rate():
    steep = torch.logspace(0, -2, 16)  # curvatures from 1 to 0.0001 along rows and columns
    goal = draw(16, 16)

    def lost(weight: Tensor) -> Tensor:
        return (steep[:, None] * (weight - goal) * steep).square().sum()

    def descent(rate: float) -> float:
        weight = nn.Parameter(torch.zeros(16, 16))
        sgd = torch.optim.SGD([weight], lr=rate, momentum=0.95, nesterov=True)
        for step in range(100):
            sgd.param_groups[0]["lr"] = rate * (1 - step / 100)
            sgd.zero_grad()
            lost(weight).backward()
            sgd.step()
        return float(lost(weight.detach()).nan_to_num(math.inf))

    def muon(rate: float) -> float:
        weight = nn.Parameter(torch.zeros(16, 16))
        optimizer = Muon({"weight": weight.detach()}, OptimizerConfig(kind="muon", weight_decay=0.0))
        for step in range(100):
            weight.grad = None
            lost(weight).backward()
            optimizer.masters["weight"].grad = weight.grad
            optimizer.step(rate * (1 - step / 100))
        return float(lost(weight.detach()).nan_to_num(math.inf))

    rates = (0.03, 0.1, 0.3, 1.0, 3.0)
    assert min(map(muon, rates)) < 0.5 * min(map(descent, rates))


def test_muon_takes_attention_and_feed_forward_and_adamw_the_rest():
    optimizer = MasterOptimizer(model(), MUON)
    rest = set(optimizer.names) - set(optimizer.muon.masters)
    norms = {name for name in optimizer.names if "norm" in name}
    assert rest - norms == {"model.embed_tokens.weight", "lm_head.weight", "model.layers.1.mlp.gate.weight"}
    assert {name.split("layers.1.")[-1] for name in optimizer.muon.masters if "layers.1." in name} == {
        *(f"self_attn.{part}.weight" for part in ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")),
        *("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
        *(f"mlp.shared_experts.{part}_proj.weight" for part in ("gate", "up", "down")),
    }
    held = {id(master) for group in optimizer.adam.param_groups for master in group["params"]}
    assert held == {id(master) for name, master in zip(optimizer.names, optimizer.masters, strict=True) if name in rest}
    assert not MasterOptimizer(model(), OptimizerConfig()).muon.masters


def test_a_gradient_that_is_not_finite_leaves_weights_and_momenta_as_they_were():
    layer = nn.Linear(3, 3)
    optimizer = MasterOptimizer(layer, MUON)
    for value in (1.0, float("nan")):
        before = {name: tensor.clone() for name, tensor in optimizer.state().items()}
        layer.weight.grad = torch.full_like(layer.weight, value)
        optimizer.accumulate()
        optimizer.step(0.1)
    after = optimizer.state()
    assert "momentum/weight" in after
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_a_matrix_whose_gradient_is_zero_only_decays():
    weight = draw(4, 4)
    before, weight.grad = weight.clone(), torch.zeros(4, 4)
    Muon({"weight": weight}, MUON).step(0.5)
    torch.testing.assert_close(weight, before * 0.95)


def batch_of(step: int) -> Batch:
    """Counting upwards from a start drawn by step."""
    start = torch.randint(0, 64, (4, 1), generator=torch.Generator().manual_seed(step))
    window = (start + torch.arange(17)) % 64
    return Batch(window[:, :-1].contiguous(), window[:, 1:].contiguous())


def trained(folder: Path, batches: Callable[[int], list[Batch]] = lambda step: [batch_of(step)]) -> dict[str, Tensor]:
    plan = Plan(
        steps=30,
        batches=batches,
        learning_rate=lambda step: 1e-2,
        loss=lambda made, batch: next_token(made, batch, BalanceConfig(expert=0.01)),
        validation=lambda: [batch_of(10_000)],
        validate_every=10,
        load_every=10,
        checkpoint_every=10,
        keep_checkpoints=2,
    )
    folder.mkdir(exist_ok=True)
    worker = Trainer(model(torch.bfloat16), MUON)
    run = Run("pretrain", folder, 1, {})
    train(worker, plan, run)
    run.metrics.close()
    return {name: value.clone() for name, value in worker.optimizer.state().items()}


def test_an_interrupted_run_ends_with_the_same_masters_moments_and_momenta(tmp_path: Path):
    whole = trained(tmp_path / "whole")

    def pulled_plug(step: int) -> list[Batch]:
        if step == 17:
            raise KeyboardInterrupt
        return [batch_of(step)]

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", pulled_plug)
    again = trained(tmp_path / "cut")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[("momentum", 1.0), ("beta1", -0.1), ("beta2", float("nan")), ("weight_decay", -1.0)],
        *[("clip", 0.0), ("epsilon", 0.0), ("matrix_rate", 0.0), ("matrix_rate", float("inf"))],
    ],
)
def test_impossible_settings_are_named(setting: str, value: float):
    with pytest.raises(ValueError, match=f"{setting} = "):
        dataclasses.replace(MUON, **{setting: value})


def test_a_rate_for_matrices_without_muon_is_refused():
    with pytest.raises(ValueError, match="does nothing with kind"):
        OptimizerConfig(matrix_rate=2.0)
