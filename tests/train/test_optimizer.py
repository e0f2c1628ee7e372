"""The optimizer equals AdamW of torch on float32, and keeps what bfloat16 would lose."""

import copy
import math

import torch
from torch import nn

from codeweft.train.config import OptimizerConfig
from codeweft.train.optimizer import MasterOptimizer

CONFIG = OptimizerConfig()


def test_float32_training_equals_torch_adamw_with_clipping():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    theirs = copy.deepcopy(ours)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    optimizer = MasterOptimizer(ours, CONFIG)
    for _ in range(5):
        inputs = torch.randn(32, 8) * 10
        for half in inputs.chunk(2):
            (ours(half).square().mean() / 2).backward()
            optimizer.accumulate()
        (theirs(inputs).square().mean()).backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        reference.step()
        reference.zero_grad()
        assert abs(optimizer.step(1e-2) - float(norm)) < 1e-3 * float(norm)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


def test_masters_remember_steps_too_small_for_bfloat16():
    model = nn.Linear(4, 4, bias=False).bfloat16()
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = MasterOptimizer(model, OptimizerConfig(weight_decay=0.0, clip=1e9))
    for _ in range(8):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.accumulate()
        optimizer.step(1e-3)
    # a step of 0.001 is below half of bfloat16's spacing at 1.0; eight of them are not
    assert torch.allclose(optimizer.masters[0], torch.full((4, 4), 0.992), atol=1e-4)
    assert float(model.weight.detach()[0, 0]) < 1.0


def test_a_gradient_that_is_not_finite_changes_nothing():
    model = nn.Linear(3, 3)
    before = copy.deepcopy(model.state_dict())
    optimizer = MasterOptimizer(model, CONFIG)
    model.weight.grad = torch.full_like(model.weight, float("nan"))
    optimizer.accumulate()
    assert math.isnan(optimizer.step(1.0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_state_round_trips():
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer = MasterOptimizer(model, CONFIG)

    def advance(model: nn.Module, optimizer: MasterOptimizer, seed: int) -> None:
        model(torch.full((2, 4), float(seed))).square().sum().backward()
        optimizer.accumulate()
        optimizer.step(1e-2)

    advance(model, optimizer, 1)
    saved = {name: value.clone() for name, value in optimizer.state().items()}
    other = nn.Linear(4, 4)
    resumed = MasterOptimizer(other, CONFIG)
    resumed.load(saved)
    advance(model, optimizer, 2)
    advance(other, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
