"""What training minimises: next-token cross-entropy, and the balance losses of the routed experts.

In:  a model, a batch.  Out: a scalar to differentiate and the numbers to report.
Source: DeepSeek-Coder-V2 §3.1 (next token; infilling is a matter of the data), DeepSeek-V2 §2.2.3 (balance).

Unusual: the cross-entropy computes its gradient in the forward pass, chunk by chunk, so that the logits of a whole
batch (tokens times vocabulary, float32) never exist.

Shapes: N tokens of all sequences, D model, W vocabulary; B batch, T tokens, E experts.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from codeweft.model.balance import communication_balance, device_balance, expert_balance
from codeweft.model.kernels import fused
from codeweft.model.moe import RouterOutput
from codeweft.model.transformer import Transformer
from codeweft.train.batches import Batch
from codeweft.train.config import BalanceConfig

CHUNK = 1024  # tokens whose logits exist at one time


@dataclass(frozen=True, slots=True)
class Loss:
    """The scalar to differentiate, and detached facts about it."""

    total: Tensor
    cross_entropy: Tensor  # nats a token, mean
    balance: Tensor
    load: list[Tensor] = field(default_factory=list)  # a MoE layer: share of routed slots of each expert, [E]
    facts: dict[str, Tensor] = field(default_factory=dict)  # what else is recorded; a step's are summed over batches


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of hidden states against a vocabulary matrix, gradient made on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_WD: Tensor,
        targets_N: Tensor,
        weights_N: Tensor | None,
        tokens: int,
        fuse: bool,
    ) -> Tensor:
        wanted, head_wanted = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        hidden_gradient_ND = torch.empty_like(hidden_ND) if wanted else None
        # a frozen head (adapters) is spared its product
        weight_gradient_WD = torch.zeros_like(weight_WD, dtype=torch.float32) if head_wanted else None
        for start in range(0, targets_N.numel(), CHUNK):
            part = slice(start, start + CHUNK)
            logits_NW = hidden_ND[part] @ weight_WD.T
            if fuse:
                losses_N, gradient_NW = fused.cross_entropy_(logits_NW, targets_N[part], 1.0 / tokens), logits_NW
            else:
                losses_N, gradient_NW = entropy_and_gradient(logits_NW, targets_N[part], 1.0 / tokens)
            rows_ND = hidden_ND[part]
            if weights_N is not None:
                losses_N *= weights_N[part]
                rows_ND = rows_ND * weights_N[part, None].to(rows_ND.dtype)  # a row of D is less than one of W
            total += losses_N.sum()
            if hidden_gradient_ND is not None:
                torch.mm(gradient_NW, weight_WD, out=hidden_gradient_ND[part])
                if weights_N is not None:
                    hidden_gradient_ND[part] *= weights_N[part, None].to(hidden_ND.dtype)
            if weight_gradient_WD is None:
                continue
            if weight_WD.dtype == torch.float32:
                weight_gradient_WD.addmm_(gradient_NW.T, rows_ND)
            else:
                weight_gradient_WD += gradient_NW.T @ rows_ND
        of_weight_WD = None if weight_gradient_WD is None else weight_gradient_WD.to(weight_WD.dtype)
        ctx.save_for_backward(hidden_gradient_ND, of_weight_WD)
        return total / tokens

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        of_hidden_ND, of_weight_WD = (None if each is None else each * gradient for each in ctx.saved_tensors)
        return of_hidden_ND, of_weight_WD, None, None, None, None


def entropy_and_gradient(logits_NW: Tensor, targets_N: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each row in nats, float32 [N], and the gradient by the logits of `factor` times their sum."""
    wide_NW = logits_NW.float()
    normaliser_N1 = wide_NW.logsumexp(1, keepdim=True)
    losses_N = (normaliser_N1 - wide_NW.gather(1, targets_N[:, None])).squeeze(1)
    gradient_NW = (wide_NW - normaliser_N1).exp_()
    gradient_NW.scatter_add_(1, targets_N[:, None], -torch.ones_like(normaliser_N1))
    return losses_N, gradient_NW.mul_(factor).to(logits_NW.dtype)


def cross_entropy(hidden_ND: Tensor, weight_WD: Tensor, targets_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Mean of -log softmax(hidden W^T)[target] in nats, float32; differentiable in hidden and weight.

    Logits are made in the dtype of `hidden_ND` and reduced in float32. With `weights_N` (float32) each token's term
    is multiplied by its weight; the sum is still divided by N. No logits are made for tokens of weight 0.
    """
    tokens = targets_N.numel()
    if weights_N is not None:
        counted = weights_N.nonzero().squeeze(1)
        hidden_ND, targets_N, weights_N = hidden_ND[counted], targets_N[counted], weights_N[counted]
    # asked here, since nothing wants a gradient any more inside `forward`
    fuse = fused.applies(hidden_ND)
    return _ChunkedCrossEntropy.apply(hidden_ND, weight_WD, targets_N, weights_N, tokens, fuse)


def balance(routers: list[RouterOutput], config: BalanceConfig, groups_reached: int) -> Tensor:
    """Sum over MoE layers of the weighted balance losses, each the mean over the batch's sequences."""
    total = torch.zeros((), device=routers[0].scores_BTE.device)
    for router in routers:
        scores_BTE, chosen_BTK = router.scores_BTE, router.chosen_BTK
        if config.expert:
            total = total + config.expert * expert_balance(scores_BTE, chosen_BTK)
        if config.device:
            total = total + config.device * device_balance(scores_BTE, chosen_BTK, config.devices)
        if config.communication:
            total = total + config.communication * communication_balance(
                scores_BTE, chosen_BTK, config.devices, groups_reached
            )
    return total


def routed_share(router: RouterOutput) -> Tensor:
    """The share of routed slots that went to each expert, [E], summing to one."""
    counts_E = torch.bincount(router.chosen_BTK.flatten(), minlength=router.scores_BTE.shape[-1])
    return counts_E.float() / router.chosen_BTK.numel()


def next_token(model: Transformer, batch: Batch, config: BalanceConfig) -> Loss:
    """Cross-entropy of every position's next token, plus the balance losses while the model is in training mode."""
    weights_N = None if batch.weights_BT is None else batch.weights_BT.flatten()
    output = model(batch.tokens_BT, documents_BT=batch.documents_BT, return_hidden=True)
    hidden_ND = output.hidden_BTD.flatten(0, 1)
    entropy = cross_entropy(hidden_ND, model.lm_head.weight, batch.targets_BT.flatten(), weights_N)
    if not output.router:
        return Loss(entropy, entropy.detach(), torch.zeros(()))
    balancing = balance(output.router, config, model.config.topk_group or 1)
    load = [routed_share(router) for router in output.router]
    return Loss(entropy + balancing, entropy.detach(), balancing.detach(), load)
