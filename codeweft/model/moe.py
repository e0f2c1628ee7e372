"""Feed-forward layers: the dense one, and the mixture of many small experts with some that every token shares.

In:  hidden states.  Out: hidden states, and on request which experts each token chose with what probability.
Source: DeepSeek-V2 §2.2 (routing and balance), DeepSeekMoE §3 (fine-grained and shared experts).
Unusual: routed experts stand stacked in two tensors (gate rows first, then up rows); no token is ever dropped; tokens
are sorted by expert and only gathered, never scattered, so that backward is reproducible on every device.

Shapes: B batch, T tokens, M = B*T, D model, E experts, K chosen, F expert hidden, G groups, A = M*K assignments.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeweft.model.attention import Linear
from codeweft.model.config import GROUP_LIMITED, ModelConfig
from codeweft.model.kernels import fused


class RouterOutput(NamedTuple):
    """One MoE layer's routing: fp32 probabilities over all experts, and the chosen ones (in no order)."""

    scores_BTE: Tensor
    chosen_BTK: Tensor


def choose_greedy(scores_ME: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Scores and indices of the `count` likeliest experts (DeepSeek-V2 eq. 21)."""
    return scores_ME.topk(count, dim=-1, sorted=False)


def choose_group_limited(scores_ME: Tensor, count: int, groups: int, kept: int) -> tuple[Tensor, Tensor]:
    """The likeliest experts inside the `kept` groups with the best single expert (DeepSeek-V2 §2.2.2).

    A group is a run of E / `groups` neighbouring experts: those that would share a device.
    """
    scores_MGX = scores_ME.unflatten(-1, (groups, -1))
    best_MK = scores_MGX.amax(dim=-1).topk(kept, dim=-1, sorted=False).indices
    allowed_MG = torch.zeros(scores_MGX.shape[:-1], dtype=torch.bool, device=scores_ME.device)
    allowed_MG.scatter_(-1, best_MK, True)
    limited_ME = scores_MGX.masked_fill(~allowed_MG[..., None], 0.0).flatten(-2)
    return choose_greedy(limited_ME, count)


def gate_values(chosen_scores_MK: Tensor, config: ModelConfig) -> Tensor:
    """What the chosen experts' outputs are weighted by (DeepSeek-V2 eq. 21).

    As published, `norm_topk_prob` replaces the scaling factor instead of joining it; no published checkpoint sets it.
    """
    if config.norm_topk_prob:
        return chosen_scores_MK / (chosen_scores_MK.sum(dim=-1, keepdim=True) + 1e-20)
    return chosen_scores_MK * config.routed_scaling_factor


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)); a dense layer, or the shared experts fused into one."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden, inner)
        self.up_proj = Linear(hidden, inner)
        self.down_proj = Linear(inner, hidden)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Apply to the last axis."""
        if fused.applies(hidden_BTD):
            weights = (self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)
            return fused.SwiGLU.apply(hidden_BTD.flatten(0, -2), *weights).view_as(hidden_BTD)
        return self.down_proj(F.silu(self.gate_proj(hidden_BTD)) * self.up_proj(hidden_BTD))


class Router(nn.Module):
    """`mlp.gate`: one direction per expert; softmax over all routed experts, in fp32 (DeepSeek-V2 eq. 22)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts or 0, config.hidden_size))

    def forward(self, hidden_MD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores [M, E], chosen experts [M, K] and their fp32 gate values [M, K]."""
        config, count = self.config, self.config.num_experts_per_tok or 0
        scores_ME = F.linear(hidden_MD.float(), self.weight.float()).softmax(dim=-1)
        if config.topk_method == GROUP_LIMITED:
            top_MK, chosen_MK = choose_group_limited(scores_ME, count, config.n_group or 1, config.topk_group or 1)
        else:
            top_MK, chosen_MK = choose_greedy(scores_ME, count)
        return scores_ME, chosen_MK, gate_values(top_MK, config)


class Gather(torch.autograd.Function):
    """rows[order // copies], the rows of A assignments; backward gathers by the inverse order and sums the copies."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order_A: Tensor, inverse_A: Tensor) -> Tensor:
        """[A / copies, D] to [A, D]; `order_A` is a permutation of the assignments and `inverse_A` undoes it."""
        ctx.save_for_backward(inverse_A)
        ctx.copies = len(order_A) // len(rows)
        return rows.index_select(0, order_A // ctx.copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """[A, D] to [A / copies, D]; gathering, unlike adding into place, is reproducible on a GPU."""
        (inverse_A,) = ctx.saved_tensors
        gathered_AD = gradients[0].index_select(0, inverse_A)
        return gathered_AD.unflatten(0, (-1, ctx.copies)).sum(dim=1), None, None


def grouped_mm_applies(experts: "Experts") -> bool:
    """Whether torch's grouped product takes these weights: bf16, or fp32 on a CPU, with rows of whole 16 bytes."""
    weight = experts.gate_up_proj
    kinds = (torch.bfloat16, torch.float32) if weight.device.type == "cpu" else (torch.bfloat16,)
    widths = (weight.shape[-1], experts.down_proj.shape[-1])
    return weight.dtype in kinds and all(width * weight.element_size() % 16 == 0 for width in widths)


class Experts(nn.Module):
    """All routed experts of a layer, stacked; on disk each has its own three tensors."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, inner = config.n_routed_experts or 0, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, inner))

    def forward(self, hidden_MD: Tensor, chosen_MK: Tensor, gate_MK: Tensor) -> Tensor:
        """Sum over the chosen experts of gate value times expert (DeepSeek-V2 eq. 20), every token to its experts."""
        if fused.applies(hidden_MD):
            return fused.Experts.apply(hidden_MD, gate_MK, self.gate_up_proj, self.down_proj, chosen_MK)
        flat_A = chosen_MK.flatten()
        order_A = flat_A.argsort(stable=True)
        inverse_A = torch.empty_like(order_A).scatter_(0, order_A, torch.arange(len(order_A), device=order_A.device))
        counts_E = flat_A.bincount(minlength=len(self.gate_up_proj))
        rows_AD = Gather.apply(hidden_MD, order_A, inverse_A)
        compute = self.compute_grouped if grouped_mm_applies(self) else self.compute_one_by_one
        output_AD = Gather.apply(compute(rows_AD, counts_E), inverse_A, order_A)
        output_MKD = output_AD.unflatten(0, chosen_MK.shape)
        return (gate_MK.to(output_MKD.dtype)[:, None] @ output_MKD).squeeze(1)

    def compute_grouped(self, rows_AD: Tensor, counts_E: Tensor) -> Tensor:
        """Each run of rows through its expert, in two grouped products."""
        ends_E = counts_E.cumsum(0).to(torch.int32)
        gate_AF, up_AF = F.grouped_mm(rows_AD, self.gate_up_proj.mT, offs=ends_E).chunk(2, dim=-1)
        return F.grouped_mm(F.silu(gate_AF) * up_AF, self.down_proj.mT, offs=ends_E)

    def compute_one_by_one(self, rows_AD: Tensor, counts_E: Tensor) -> Tensor:
        """The same, expert after expert: for sizes and types that the grouped product refuses."""
        outputs = []
        # unbind, not indexing: the gradient of every index would be as large as all experts together
        weights = zip(self.gate_up_proj.unbind(), self.down_proj.unbind(), strict=True)
        for rows, (gate_up, down) in zip(rows_AD.split(counts_E.tolist()), weights, strict=True):
            if len(rows):
                gate, up = F.linear(rows, gate_up).chunk(2, dim=-1)
                outputs.append(F.linear(F.silu(gate) * up, down))
        return torch.cat(outputs)


class MixtureOfExperts(nn.Module):
    """`mlp` of a MoE layer: router, routed experts, and the experts that every token shares (DeepSeek-V2 eq. 20)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        shared = (config.n_shared_experts or 0) * config.moe_intermediate_size
        self.shared_experts = MLP(config.hidden_size, shared) if shared else None

    def forward(self, hidden_BTD: Tensor) -> tuple[Tensor, RouterOutput]:
        """The layer's output without the residual, and its routing."""
        hidden_MD = hidden_BTD.flatten(0, 1)
        scores_ME, chosen_MK, gate_MK = self.gate(hidden_MD)
        output_BTD = self.experts(hidden_MD, chosen_MK, gate_MK).view_as(hidden_BTD)
        if self.shared_experts is not None:
            output_BTD = output_BTD + self.shared_experts(hidden_BTD)
        batch = hidden_BTD.shape[:2]
        return output_BTD, RouterOutput(scores_ME.unflatten(0, batch), chosen_MK.unflatten(0, batch))
