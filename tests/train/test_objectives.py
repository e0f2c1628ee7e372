"""The loss equals the plain formula, and so does its gradient."""

import pytest
import torch
import torch.nn.functional as F

from codeweft.model.kernels import native
from codeweft.train import objectives
from codeweft.train.objectives import cross_entropy


def test_the_chunked_cross_entropy_equals_the_plain_one_with_its_gradients(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objectives, "CHUNK", 7)
    torch.manual_seed(0)
    hidden, weight = torch.randn(23, 16), torch.randn(40, 16)
    targets = torch.randint(0, 40, (23,))
    gradients = []
    for function in (cross_entropy, lambda h, w, t: F.cross_entropy(h @ w.T, t)):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = function(h, w, targets)
        (3 * loss).backward()
        gradients.append((loss.detach(), h.grad, w.grad))
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-5)


def test_half_precision_hidden_states_lose_little():
    torch.manual_seed(1)
    hidden, weight = torch.randn(64, 32), torch.randn(100, 32) * 0.1
    targets = torch.randint(0, 100, (64,))
    plain = F.cross_entropy(hidden @ weight.T, targets)
    ours = cross_entropy(hidden.bfloat16(), weight.bfloat16(), targets)
    assert abs(float(ours - plain)) < 0.01


def test_weighted_tokens_count_as_often_as_their_weight_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objectives, "CHUNK", 5)
    torch.manual_seed(2)
    hidden, weight, targets = torch.randn(23, 16), torch.randn(40, 16), torch.randint(0, 40, (23,))
    counts = torch.tensor([0, 0, 1, 2.5, 0, 1, 0] * 4)[:23]

    def plain(h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (F.cross_entropy(h @ w.T, targets, reduction="none") * counts).sum() / 23

    found = []
    for function in (lambda h, w: cross_entropy(h, w, targets, counts), plain):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = function(h, w)
        (3 * loss).backward()
        found.append((loss.detach(), h.grad, w.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    nothing = cross_entropy(hidden.requires_grad_(), weight, targets, torch.zeros(23))
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert not hidden.grad.any()


@pytest.mark.skipif(not native.available(), reason="toolchain: no compiler")
def test_training_goes_through_the_fused_cross_entropy(monkeypatch: pytest.MonkeyPatch):
    calls, fused_one = [], objectives.fused.cross_entropy_
    monkeypatch.setattr(objectives.fused, "cross_entropy_", lambda *given: calls.append(1) or fused_one(*given))
    hidden, weight = torch.randn(9, 16, requires_grad=True), torch.randn(40, 16, requires_grad=True)
    cross_entropy(hidden, weight, torch.randint(0, 40, (9,))).backward()
    cross_entropy(hidden, weight, torch.randint(0, 40, (9,)), torch.rand(9)).backward()
    assert len(calls) == 2
