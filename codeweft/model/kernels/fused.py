"""Training on processors: the layers' functions with their gradients, each fused around torch's matrix products.

In:  tensors of float32 or bfloat16 on a CPU.  Out: the numbers of the plain functions, to rounding; tests hold that.
Source: DeepSeek-V2 §2.1.2 (attention), §2.2 (experts); the plain forms are in attention.py, moe.py and objectives.py.
Unusual: at small widths three quarters of a step were copies and element-wise passes over memory. Here each layer is
one autograd function: activations are made again instead of stored, and rows are gathered expert by expert while they
are in the cache.

Shapes: B batch, T tokens, D model, H heads, N nope, R rope, V value, M = B*T, K chosen, A = M*K, F hidden, E experts.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from codeweft.model.kernels import native


def applies(x: Tensor) -> bool:
    """Whether gradients are wanted of a tensor that the kernels can read; inference has its own needs."""
    return torch.is_grad_enabled() and x.device.type == "cpu" and x.dtype in native.SUFFIXES and native.available()


class HeadWidths(NamedTuple):
    """Widths of one attention head, and what scores are multiplied by."""

    nope: int
    rope: int
    value: int
    scale: float


class RMSNorm(torch.autograd.Function):
    """x / rms(x) * weight over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """[..., D] to [..., D]."""
        x = x.contiguous()
        rows, width = x.numel() // x.shape[-1], x.shape[-1]
        output, inverse = torch.empty_like(x), torch.empty(rows)
        native.call("norm_forward", x.dtype, x, weight, output, inverse, rows, width, eps)
        ctx.save_for_backward(x, weight, inverse)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of x and weight; the weight's is summed in blocks of rows of a fixed size."""
        x, weight, inverse = ctx.saved_tensors
        x_gradient, weight_gradient = torch.empty_like(x), torch.empty_like(weight)
        sizes = (len(inverse), x.shape[-1])
        arrived = gradients[0].contiguous()
        native.call("norm_backward", x.dtype, arrived, x, weight, inverse, x_gradient, weight_gradient, *sizes)
        return x_gradient, weight_gradient, None


class LatentAttention(torch.autograd.Function):
    """Causal attention from unturned queries, expanded latents and the one rotary key (DeepSeek-V2 eq. 14 to 18)."""

    @staticmethod
    def forward(
        ctx: Any,
        query_BTX: Tensor,
        expanded_BTX: Tensor,
        key_BTR: Tensor,
        turn: tuple[Tensor, Tensor],
        widths: HeadWidths,
        starts_BT: Tensor | None = None,
    ) -> Tensor:
        """[B, T, H*(N+R)], [B, T, H*(N+V)] and [B, T, R] to [B, T, H*V]; memory grows with T, not with its square.

        With `starts_BT` (int64, never falling in a row) a token looks back to there only; other scores are not made.
        """
        query, expanded, key = (each.contiguous() for each in (query_BTX, expanded_BTX, key_BTR))
        given = (query, expanded, key, *(each.contiguous() for each in turn))
        starts = None if starts_BT is None else starts_BT.contiguous()
        batch, tokens = query.shape[:2]
        heads = query.shape[-1] // (widths.nope + widths.rope)
        output = query.new_empty(batch, tokens, heads * widths.value)
        normaliser = torch.empty(batch, heads, tokens)
        sizes = (batch, tokens, heads, widths.nope, widths.rope, widths.value, len(turn[0]), widths.scale)
        native.call("attention_forward", query.dtype, *given, starts, output, normaliser, *sizes)
        ctx.save_for_backward(*given, output, normaliser)
        ctx.starts, ctx.sizes = starts, sizes
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Scores are made again, block by block, from the stored normalisers."""
        *given, output, normaliser = ctx.saved_tensors
        made = [torch.empty_like(each) for each in given[:3]]
        kept = (output, gradients[0].contiguous(), normaliser)
        native.call("attention_backward", output.dtype, *given, ctx.starts, *kept, *made, *ctx.sizes)
        return (*made, None, None, None)


class SwiGLU(torch.autograd.Function):
    """down(silu(gate(x)) * up(x)) with three weights."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor) -> Tensor:
        """[M, D] to [M, D]."""
        inner = len(gate_FD)
        both = x_MD.new_empty(len(x_MD), 2 * inner)
        torch.mm(x_MD, gate_FD.T, out=both[:, :inner])
        torch.mm(x_MD, up_FD.T, out=both[:, inner:])
        activated = x_MD.new_empty(len(x_MD), inner)
        native.call("swiglu_forward", both.dtype, both, activated, len(x_MD), inner)
        ctx.save_for_backward(x_MD, gate_FD, up_FD, down_DF, both)
        return activated @ down_DF.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """The activations are made again: they cost a pass, not a product."""
        x_MD, gate_FD, up_FD, down_DF, both = ctx.saved_tensors
        arrived, inner = gradients[0], len(gate_FD)
        made, activated = torch.empty_like(both), both.new_empty(len(both), inner)
        native.call(
            "swiglu_backward", both.dtype, both, arrived @ down_DF, None, made, activated, None, len(both), inner
        )
        gate_made, up_made = made[:, :inner], made[:, inner:]
        x_gradient = torch.addmm(gate_made @ gate_FD, up_made, up_FD)
        return x_gradient, gate_made.T @ x_MD, up_made.T @ x_MD, arrived.T @ activated


class Experts(torch.autograd.Function):
    """Sum over a token's chosen experts of gate value times expert (DeepSeek-V2 eq. 20)."""

    @staticmethod
    def forward(
        ctx: Any, x_MD: Tensor, gate_MK: Tensor, gate_up_EXD: Tensor, down_EDF: Tensor, chosen_MK: Tensor
    ) -> Tensor:
        """[M, D] to [M, D]; `gate_MK` is float32."""
        x_MD, gate_MK = x_MD.contiguous(), gate_MK.contiguous()
        copies, (experts, width, inner) = chosen_MK.shape[1], down_EDF.shape
        flat_A = chosen_MK.flatten()
        order_A = flat_A.argsort(stable=True)
        place_A = torch.empty_like(order_A).scatter_(0, order_A, torch.arange(len(order_A)))
        counts = flat_A.bincount(minlength=experts).tolist()
        both_AX = x_MD.new_empty(len(order_A), 2 * inner)
        output_AD = x_MD.new_empty(len(order_A), width)
        for expert, rows in _runs(counts):
            count = rows.stop - rows.start
            taken, activated = x_MD.new_empty(count, width), x_MD.new_empty(count, inner)
            native.call("gather", x_MD.dtype, x_MD, order_A[rows], taken, count, copies, width)
            torch.mm(taken, gate_up_EXD[expert].T, out=both_AX[rows])
            native.call("swiglu_forward", x_MD.dtype, both_AX[rows], activated, count, inner)
            torch.mm(activated, down_EDF[expert].T, out=output_AD[rows])
        output_MD = torch.empty_like(x_MD)
        native.call("combine", x_MD.dtype, output_AD, place_A, gate_MK, None, output_MD, len(x_MD), copies, width)
        ctx.save_for_backward(x_MD, gate_MK, gate_up_EXD, down_EDF, order_A, place_A, both_AX)
        ctx.counts = counts
        return output_MD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Expert after expert; a gate value's gradient is the product of what arrives with the unweighted activation.

        With y = W (g a): dg = a . (W^T dy), and W^T dy is what the activation's gradient needs anyway, so that no
        expert's output is stored.
        """
        x_MD, gate_MK, gate_up_EXD, down_EDF, order_A, place_A, both_AX = ctx.saved_tensors
        arrived_MD, copies, dtype = gradients[0].contiguous(), gate_MK.shape[1], x_MD.dtype
        _, width, inner = down_EDF.shape
        gate_A = gate_MK.flatten()[order_A]
        gate_made_A, x_made_AD = torch.empty_like(gate_A), x_MD.new_empty(len(order_A), width)
        gate_up_made, down_made = torch.zeros_like(gate_up_EXD), torch.zeros_like(down_EDF)
        for expert, rows in _runs(ctx.counts):
            count = rows.stop - rows.start
            arrived, taken = x_MD.new_empty(count, width), x_MD.new_empty(count, width)
            native.call("gather", dtype, arrived_MD, order_A[rows], arrived, count, copies, width)
            native.call("gather", dtype, x_MD, order_A[rows], taken, count, copies, width)
            made, activated = x_MD.new_empty(count, 2 * inner), x_MD.new_empty(count, inner)
            inside = arrived @ down_EDF[expert]
            given = (both_AX[rows], inside, gate_A[rows], made, activated, gate_made_A[rows], count, inner)
            native.call("swiglu_backward", dtype, *given)
            torch.mm(arrived.T, activated, out=down_made[expert])
            torch.mm(made.T, taken, out=gate_up_made[expert])
            torch.mm(made, gate_up_EXD[expert], out=x_made_AD[rows])
        x_made = torch.empty_like(x_MD)
        native.call("combine", dtype, x_made_AD, place_A, None, None, x_made, len(x_MD), copies, width)
        return x_made, gate_made_A[place_A].view_as(gate_MK), gate_up_made, down_made, None


def _runs(counts: list[int]) -> list[tuple[int, slice]]:
    """Each expert that has rows, with them.

    >>> _runs([2, 0, 3])
    [(0, slice(0, 2, None)), (2, slice(2, 5, None))]
    """
    ends = torch.tensor(counts).cumsum(0).tolist()
    return [
        (expert, slice(end - count, end)) for expert, (count, end) in enumerate(zip(counts, ends, strict=True)) if count
    ]


def cross_entropy_(logits_NW: Tensor, targets_N: Tensor, factor: float) -> Tensor:
    """Turn logits, in place, into the gradient of `factor` times their summed cross-entropy; returns each row's [N]."""
    losses = torch.empty(len(logits_NW))
    native.call("cross_entropy", logits_NW.dtype, logits_NW, targets_N.contiguous(), losses, *logits_NW.shape, factor)
    return losses
