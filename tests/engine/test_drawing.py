"""Tokens drawn natively are those that the formula over the whole vocabulary finds."""

import math
from collections.abc import Iterator

import kernel_targets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codeweft.engine import sampling
from codeweft.engine.kernels import drawing
from codeweft.engine.request import Request
from codeweft.model.kernels import native

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="toolchain: no C++ compiler")


@pytest.fixture(scope="module", params=kernel_targets.parameters("x86-64-v3", "x86-64"), autouse=True)
def target(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs with the kernels of each target."""
    yield from kernel_targets.built_for(request.param)


def by_formula(logits_SW: torch.Tensor, temperature: float, keys: list[int]) -> torch.Tensor:
    noise_SW = sampling.gumbel_noise(keys, torch.arange(logits_SW.shape[1]))
    return (logits_SW.double() / temperature + noise_SW).argmax(-1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), words=st.integers(1, 700), spread=st.sampled_from([0.0, 0.1, 3.0, 40.0, 1e4]),
    temperature=st.sampled_from([0.01, 0.7, 1.0, 5.0, 1e3]), key=st.integers(0, 2**64 - 1),
)  # fmt: skip
def test_the_native_draw_is_the_formulas(seed: int, words: int, spread: float, temperature: float, key: int):
    logits_SW = torch.randn(3, words, generator=torch.Generator().manual_seed(seed % 2**31)) * spread
    keys = [key, key ^ 1, (key * 7) % 2**64]
    found = drawing.draw(logits_SW, [temperature] * 3, keys)
    assert torch.equal(found, by_formula(logits_SW, temperature, keys))


def test_a_published_vocabulary_and_rows_that_are_parts_of_wider_ones_are_drawn_alike():
    logits_SW = torch.randn(4, 102_400, generator=torch.Generator().manual_seed(1)) * 2
    keys = [sampling.derive(3, "token", place) for place in range(4)]
    assert torch.equal(
        drawing.draw(logits_SW[:, :100_005], [1.0] * 4, keys), by_formula(logits_SW[:, :100_005], 1.0, keys)
    )
    assert torch.equal(drawing.draw(logits_SW, [0.5] * 4, keys), by_formula(logits_SW, 0.5, keys))


def test_many_draws_have_the_softmaxs_frequencies():
    """Chi-squared over 20,000 draws from one distribution."""
    logits_W = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5])
    keys = [sampling.derive(7, "token", place) for place in range(20_000)]
    counts = torch.bincount(drawing.draw(logits_W.expand(20_000, 5), [1.3] * 20_000, keys), minlength=5).double()
    expected = (logits_W.double() / 1.3).softmax(0) * 20_000
    assert float(((counts - expected) ** 2 / expected).sum()) < 20  # four degrees of freedom: p < 0.001 above 18.5


def test_choosing_gives_the_same_with_and_without_the_kernel(monkeypatch: pytest.MonkeyPatch):
    logits_BW = torch.randn(5, 900, generator=torch.Generator().manual_seed(2)) * 3
    requests = [Request((1,), temperature=each, seed=9) for each in (1.0, 0.3, 0.0, 2.0, 1.0)]
    positions = [0, 4, 2, 8, 1]
    natively = sampling.choose(logits_BW, requests, positions, 850)
    monkeypatch.setattr(drawing, "applies", lambda logits: False)
    assert sampling.choose(logits_BW, requests, positions, 850) == natively
    assert all(math.isfinite(logprob) for _, logprob in natively)
