"""The fused kernels against the plain functions of torch: values and gradients, on all processors that can be had."""

from collections.abc import Callable, Iterator

import kernel_targets
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from codeweft.model.kernels import fused, native
from codeweft.model.rope import Rotation, rotate_pairs
from codeweft.model.transformer import separate_documents

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="toolchain: no C++ compiler")
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module", params=kernel_targets.parameters("x86-64-v3"), autouse=True)
def target(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs with the kernels of each target."""
    yield from kernel_targets.built_for(request.param)


def leaf(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape) * scale).to(dtype).requires_grad_()


def compare(got: Tensor, expected: Tensor, leaves: tuple[Tensor, ...]) -> None:
    """Values and the gradients of all leaves, of the dtype's precision; `expected` is computed in float32."""
    precise = got.dtype == torch.float32
    arriving = torch.randn(got.shape).to(got.dtype)
    gradients = torch.autograd.grad(got, leaves, arriving)
    truths = torch.autograd.grad(expected, leaves, arriving.to(expected.dtype))
    for ours, truth in ((got, expected), *zip(gradients, truths, strict=True)):
        assert ours.dtype == (truth.dtype if ours is not got else got.dtype)
        size = float(truth.detach().abs().max())
        tolerance = 3e-6 * max(size, 1) if precise else 2**-6 * max(size, 1)
        torch.testing.assert_close(ours.float(), truth.float(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "rows", [1, 63, 64, 200]
)  # beside and across the blocks in which a weight's gradient is summed
def test_rms_norm(dtype: torch.dtype, rows: int):
    x, weight = leaf(rows, 37, dtype=dtype), leaf(37, dtype=dtype)
    expected = F.rms_norm(x.float(), (37,), weight.float(), 1e-3)
    compare(fused.RMSNorm.apply(x, weight, 1e-3), expected, (x, weight))


def plain_attention(
    query: Tensor, expanded: Tensor, key: Tensor, turn: Rotation, widths: fused.HeadWidths, hidden: Tensor | None = None
) -> Tensor:
    """Every score of every pair, float32, from the equations; `hidden` [B, T, S] are pairs that do not count."""
    nope, rope, value, scale = widths
    batch, tokens = query.shape[:2]
    query_BTHK = query.float().view(batch, tokens, -1, nope + rope)
    expanded_BTHX = expanded.float().view(batch, tokens, -1, nope + value)
    turned = rotate_pairs(query_BTHK[..., nope:], turn)
    key_rope = rotate_pairs(key.float()[:, :, None], turn).expand_as(turned)
    scores = torch.einsum("bthk,bshk->bhts", query_BTHK[..., :nope], expanded_BTHX[..., :nope])
    scores = (scores + torch.einsum("bthk,bshk->bhts", turned, key_rope)) * scale
    later = torch.ones(tokens, tokens).triu(1).bool()
    outside = later if hidden is None else (later | hidden)[:, None]
    weights = scores.masked_fill(outside, -torch.inf).softmax(-1)
    return torch.einsum("bhts,bshv->bthv", weights, expanded_BTHX[..., nope:]).flatten(2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 2, 47, 48, 49, 161])  # beside and across the blocks of queries
@pytest.mark.parametrize("widths", [(12, 4, 10), (32, 16, 32), (5, 2, 19)])
def test_latent_attention(dtype: torch.dtype, tokens: int, widths: tuple[int, int, int]):
    nope, rope, value = widths
    heads, batch = 3, 2
    angles = torch.rand(batch, tokens, rope // 2) * 6
    turn = Rotation(angles.cos(), angles.sin())
    query = leaf(batch, tokens, heads * (nope + rope), dtype=dtype)
    expanded, key = leaf(batch, tokens, heads * (nope + value), dtype=dtype), leaf(batch, tokens, rope, dtype=dtype)
    about = fused.HeadWidths(nope, rope, value, 0.3)
    got = fused.LatentAttention.apply(query, expanded, key, turn, about)
    compare(got, plain_attention(query, expanded, key, turn, about), (query, expanded, key))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [(1, 160), (33, 15, 49, 64), (47, 1, 1, 112), (161,), (80, 81), (31, 1, 64, 65)])
def test_latent_attention_inside_documents(dtype: torch.dtype, lengths: tuple[int, ...]):
    """Documents that begin and end beside and across the blocks of queries and the panels of keys."""
    tokens = sum(lengths)
    orders = torch.tensor([lengths, lengths[::-1]])
    numbers = torch.stack([torch.repeat_interleave(torch.arange(len(lengths)), order) for order in orders])
    positions, starts = separate_documents(numbers)
    angles = positions[..., None] * torch.rand(4)
    turn = Rotation(angles.cos(), angles.sin())
    inputs = tuple(leaf(2, tokens, width, dtype=dtype) for width in (3 * 20, 3 * 22, 8))
    about = fused.HeadWidths(12, 8, 10, 0.3)
    hidden = numbers[:, :, None] != numbers[:, None]
    expected = plain_attention(*inputs, turn, about, hidden)
    compare(fused.LatentAttention.apply(*inputs, turn, about, starts), expected, inputs)


def test_one_rotation_serves_all_rows_of_a_batch():
    angles = torch.rand(1, 30, 4) * 6
    turn = Rotation(angles.cos(), angles.sin())
    inputs = (leaf(3, 30, 2 * 20), leaf(3, 30, 2 * 22), leaf(3, 30, 8))
    about = fused.HeadWidths(12, 8, 10, 0.3)
    compare(fused.LatentAttention.apply(*inputs, turn, about), plain_attention(*inputs, turn, about), inputs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_swiglu(dtype: torch.dtype):
    x, gate, up, down = (leaf(*shape, dtype=dtype, scale=0.4) for shape in ((70, 21), (13, 21), (13, 21), (21, 13)))
    wide = [each.float() for each in (x, gate, up, down)]
    expected = (F.silu(wide[0] @ wide[1].T) * (wide[0] @ wide[2].T)) @ wide[3].T
    compare(fused.SwiGLU.apply(x, gate, up, down), expected, (x, gate, up, down))


@pytest.mark.parametrize("dtype", DTYPES)
def test_experts_one_of_which_nobody_chose(dtype: torch.dtype):
    experts, count, tokens = 5, 3, 90
    x = leaf(tokens, 16, dtype=dtype)
    gate_up, down = leaf(experts, 22, 16, dtype=dtype, scale=0.4), leaf(experts, 16, 11, dtype=dtype, scale=0.4)
    chosen = torch.stack([torch.randperm(experts - 1)[:count] for _ in range(tokens)])
    weights = torch.rand(tokens, count).requires_grad_()
    inner = torch.einsum("md,mkxd->mkx", x.float(), gate_up.float()[chosen])
    each = torch.einsum("mkf,mkdf->mkd", F.silu(inner[..., :11]) * inner[..., 11:], down.float()[chosen])
    leaves = (x, weights, gate_up, down)
    compare(fused.Experts.apply(*leaves, chosen), (weights[..., None] * each).sum(1), leaves)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_in_place(dtype: torch.dtype):
    logits, targets = (torch.randn(40, 301) * 5).to(dtype), torch.randint(0, 301, (40,))
    wide = logits.float().requires_grad_()
    expected = F.cross_entropy(wide, targets, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum() * 0.25, wide)
    torch.testing.assert_close(fused.cross_entropy_(logits, targets, 0.25), expected, atol=4e-6, rtol=0)
    torch.testing.assert_close(logits.float(), gradient, atol=2e-7 if dtype == torch.float32 else 2**-10, rtol=0)


def test_extreme_logits_stay_finite_and_a_nan_stays_visible():
    targets = torch.zeros(1, dtype=torch.int64)
    logits = torch.tensor([[-3e38, 3e38, -200.0]])
    assert fused.cross_entropy_(logits.clone(), targets, 1.0).isinf().all()  # the true value is beyond float32
    logits = torch.tensor([[1e4, -1e4, -200.0]])
    assert fused.cross_entropy_(logits, targets, 1.0).tolist() == [0.0]
    for dtype in DTYPES:
        broken = torch.tensor([[1.0, torch.nan, 2.0]], dtype=dtype)
        assert fused.cross_entropy_(broken, targets, 1.0).isnan().all()
        assert broken.isnan().all()
        x, weight = torch.tensor([[1.0, torch.nan]], dtype=dtype).requires_grad_(), torch.ones(2, dtype=dtype)
        assert fused.RMSNorm.apply(x, weight, 1e-6).isnan().all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_bit(threads: int):
    torch.manual_seed(3)
    x, weight = leaf(500, 64), leaf(64)
    inputs = (leaf(3, 100, 2 * 20), leaf(3, 100, 2 * 22), leaf(3, 100, 8))
    turn = Rotation(torch.rand(1, 100, 4), torch.rand(1, 100, 4))
    found = []
    before = torch.get_num_threads()
    try:
        for number in (1, threads):
            torch.set_num_threads(number)
            normed = fused.RMSNorm.apply(x, weight, 1e-6)
            attended = fused.LatentAttention.apply(*inputs, turn, fused.HeadWidths(12, 8, 10, 0.3))
            found.append(torch.autograd.grad(normed.sum() + attended.pow(2).sum(), (x, weight, *inputs)))
    finally:
        torch.set_num_threads(before)
    for one, several in zip(*found, strict=True):
        assert torch.equal(one, several)


def test_inference_does_not_use_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "available", lambda: pytest.fail("asked for kernels without a gradient"))
    with torch.no_grad():
        assert not fused.applies(torch.ones(2))
    assert not fused.applies(torch.ones(2, dtype=torch.float64))


def test_a_model_learns_the_same_with_and_without(small: Callable, random_model: Callable, path: str):
    """Three steps of plain descent lose what the same model in float64 loses, whichever `path` its gradients take."""
    model, truth = random_model(small(), seed=5).train(), random_model(small(), seed=5).train().double()
    tokens = torch.randint(0, 97, (2, 41), generator=torch.Generator().manual_seed(8))
    losses: dict[torch.dtype, list[float]] = {torch.float32: [], torch.float64: []}
    for _ in range(3):
        for each in (model, truth):
            loss = F.cross_entropy(each(tokens[:, :-1]).logits_BTW.flatten(0, 1), tokens[:, 1:].flatten())
            each.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in each.parameters():
                    parameter -= 0.05 * parameter.grad
            losses[each.lm_head.weight.dtype].append(loss.item())
    assert losses[torch.float32] == pytest.approx(losses[torch.float64], rel=1e-5)
    assert losses[torch.float64][2] < losses[torch.float64][0]
