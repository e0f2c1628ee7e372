"""Answers of a policy as batches, their log-probabilities, and the loss of GRPO on them.

In:  prompts with answers, advantages.  Out: micro-batches; the loss that the training loop steps along.
Source: DeepSeek-V2 §4.2, DeepSeekMath §4.1 (the formulas themselves are in grpo.py).

Unusual: each answer has a row of its own behind its prompt, and a batch holds answers of about one length: the kernels
for plain causal attention then do. Logits are made for the answers' tokens alone, and one pass over them gives the
log-probabilities, the entropies and what the gradient needs.

Shapes: N answers, T tokens of the longest answer; B rows, M tokens of a batch's answers, D model, W vocabulary.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from codeweft.model.kernels import fused
from codeweft.model.transformer import Transformer
from codeweft.rl.config import ObjectiveConfig
from codeweft.rl.grpo import policy_loss, token_weights
from codeweft.train.batches import Batch
from codeweft.train.config import BalanceConfig
from codeweft.train.objectives import Loss, balance, entropy_and_gradient, routed_share

CHUNK = 1024  # tokens whose logits exist at one time, but for
KEPT = 1 << 26  # logits of a batch up to which their gradient is kept for the way back (256 MiB of float32)
SHORTER, ENOUGH = 0.75, 1024  # of a batch's width; tokens from which a batch keeps its matrix products busy


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer to learn from: its prompt, its tokens, and how much better it was than its group."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    advantage: float
    old: tuple[float, ...] = ()  # log-probabilities of its tokens under the weights that drew it, where they are known


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBatch(Batch):
    """Answers in rows; `place_NT` tells at which of the B T inputs each answer's token is predicted, -1 for none.

    `weight_NT` are this batch's rows of the whole step's `token_weights`, `counted` the step's tokens that count.
    """

    place_NT: Tensor
    advantage_N1: Tensor
    weight_NT: Tensor
    counted: int
    number_N: Tensor  # which of the answers that were given each row of the others is
    old_NT: Tensor | None = None  # log-probabilities under the weights that drew the answers; None: the policy's own
    reference_NT: Tensor | None = None


def policy_batches(
    scored: Sequence[Scored], config: ObjectiveConfig, length: int, rows: int, padding: int, device: torch.device
) -> list[PolicyBatch]:
    """All answers of a step in batches of at most `rows * length` tokens, an answer a row behind its prompt.

    The longest come first, so that those of one batch need little padding, which stands on the right, where nothing
    that counts looks at it.
    """
    mask_NT = torch.zeros(len(scored), max((len(each.answer) for each in scored), default=0), dtype=torch.bool)
    for number, each in enumerate(scored):
        mask_NT[number, : len(each.answer)] = True
    weight_NT = token_weights(mask_NT, config)
    sizes = [len(each.prompt) + len(each.answer) for each in scored]
    assert max(sizes, default=0) <= length, "prompts and answers fit in a row"
    batches = []
    for members in portions(sizes, rows * length):
        width = sizes[members[0]]
        tokens_BT = torch.full((len(members), width), padding)
        place_NT = torch.full((len(members), max(len(scored[number].answer) for number in members)), -1)
        for row, number in enumerate(members):
            each = scored[number]
            tokens_BT[row, : sizes[number]] = torch.tensor((*each.prompt, *each.answer))
            begin = row * width + len(each.prompt) - 1  # the input before a token predicts it
            place_NT[row, : len(each.answer)] = torch.arange(begin, begin + len(each.answer))
        advantage_N1 = torch.tensor([[scored[number].advantage] for number in members])
        batches.append(
            PolicyBatch(
                tokens_BT.to(device),
                tokens_BT.roll(-1, 1).to(device),
                place_NT=place_NT.to(device),
                advantage_N1=advantage_N1.to(device),
                weight_NT=weight_NT[members, : place_NT.shape[1]].to(device),
                counted=int(mask_NT.sum()),
                number_N=torch.tensor(members),
                old_NT=_known([scored[number] for number in members], place_NT.shape[1], device),
            )
        )
    return batches


def portions(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Numbers of texts by batch, longest first: at most `most` tokens each, padding included.

    A text much shorter than the first of its batch begins the next one where the batch is large enough without it.

    >>> portions([3, 5, 4, 1], 10)
    [[1, 2], [0, 3]]
    """
    found: list[list[int]] = []
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        widest = sizes[found[-1][0]] if found else 0
        tokens = widest * len(found[-1]) if found else 0
        if not found or tokens + widest > most or (tokens >= ENOUGH and sizes[number] < SHORTER * widest):
            found.append([])
        found[-1].append(number)
    return found


def _known(scored: Sequence[Scored], longest: int, device: torch.device) -> Tensor | None:
    """The log-probabilities that came with the answers, [N, T]; None where they came with none."""
    if not any(each.old for each in scored):
        return None
    old_NT = torch.zeros(len(scored), longest)
    for row, each in enumerate(scored):
        old_NT[row, : len(each.old)] = torch.tensor(each.old)
    return old_NT.to(device)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a model says of a batch's answers: log-probability of each token, [N, T], and the mean entropy's sum."""

    logprob_NT: Tensor
    entropy: Tensor  # nats, summed over tokens
    balance: Tensor
    load: list[Tensor]


def look(model: Transformer, batch: PolicyBatch, config: BalanceConfig, temperature: float) -> Looked:
    """One forward pass; log-probabilities under `temperature`, that of the drawing."""
    output = model(batch.tokens_BT, return_hidden=True)
    mask_NT = batch.place_NT >= 0
    place_M = batch.place_NT[mask_NT]
    hidden_MD, target_M = output.hidden_BTD.flatten(0, 1)[place_M], batch.targets_BT.flatten()[place_M]
    logprob_M, entropy_M = logprobs_and_entropy(hidden_MD, model.lm_head.weight, target_M, temperature)
    logprob_NT = torch.zeros(mask_NT.shape, dtype=logprob_M.dtype, device=logprob_M.device)
    logprob_NT = logprob_NT.masked_scatter(mask_NT, logprob_M)
    total = entropy_M.sum()
    if not output.router:
        return Looked(logprob_NT, total, torch.zeros((), device=total.device), [])
    balancing = balance(output.router, config, model.config.topk_group or 1)
    return Looked(logprob_NT, total, balancing, [routed_share(router) for router in output.router])


def logprobs_and_entropy(
    hidden_MD: Tensor, weight_WD: Tensor, target_M: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """`token_logprobs` and `entropy` of the logits hidden W^T, float32 [M] each; only the former has a gradient.

    The entropy comes with the gradient: it is NaN where hidden and weight want none.
    """
    if temperature != 1:
        hidden_MD = hidden_MD / temperature
    learning = hidden_MD.requires_grad or weight_WD.requires_grad
    return _LogprobsAndEntropy.apply(hidden_MD, weight_WD, target_M, fused.applies(hidden_MD), learning)


class _LogprobsAndEntropy(torch.autograd.Function):
    """Both from one pass over the logits, which are turned into what the gradient needs.

    With G = softmax - onehot and logit = h . W: the gradient of log p by h is -G W; and as p . logit = h . (G W) +
    logit of the target, the entropy is -log p - h . (G W), without a further look at the vocabulary.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_MD: Tensor, weight_WD: Tensor, target_M: Tensor, fuse: bool, learning: bool
    ) -> tuple[Tensor, Tensor]:
        logprob_M = torch.empty(len(target_M), dtype=torch.float32, device=hidden_MD.device)
        mixed_MD = torch.empty_like(hidden_MD)
        keep = ctx.needs_input_grad[1] and target_M.numel() * weight_WD.shape[0] <= KEPT
        kept = []
        for start in range(0, len(target_M), CHUNK):
            part = slice(start, start + CHUNK)
            loss_M, gradient_MW = softmax_gradient(hidden_MD[part], weight_WD, target_M[part], fuse)
            logprob_M[part] = -loss_M
            if not learning:
                continue
            torch.mm(gradient_MW, weight_WD, out=mixed_MD[part])
            if keep:
                kept.append(gradient_MW)
        if learning:
            entropy_M = -logprob_M - (hidden_MD.float() * mixed_MD.float()).sum(1)
        else:
            entropy_M = torch.full_like(logprob_M, torch.nan)
        ctx.mark_non_differentiable(entropy_M)
        ctx.save_for_backward(hidden_MD, weight_WD, target_M, mixed_MD, *kept)
        ctx.fuse = fuse
        return logprob_M, entropy_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *arrived: Tensor) -> tuple[Tensor | None, ...]:
        """Of a vocabulary times answers that were too many to keep, the logits are made again."""
        hidden_MD, weight_WD, target_M, mixed_MD, *kept = ctx.saved_tensors
        factor_M1 = -arrived[0][:, None]
        hidden_made = (mixed_MD * factor_M1).to(hidden_MD.dtype) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:  # a frozen head (adapters)
            return hidden_made, None, None, None, None
        weighed_MD = (hidden_MD * factor_M1).to(hidden_MD.dtype)
        weight_made = torch.zeros_like(weight_WD, dtype=torch.float32)
        for number, start in enumerate(range(0, len(target_M), CHUNK)):
            part = slice(start, start + CHUNK)
            if kept:
                gradient_MW = kept[number]
            else:
                _, gradient_MW = softmax_gradient(hidden_MD[part], weight_WD, target_M[part], ctx.fuse)
            if weight_WD.dtype == torch.float32:
                weight_made.addmm_(gradient_MW.T, weighed_MD[part])
            else:
                weight_made += gradient_MW.T @ weighed_MD[part]
        return hidden_made, weight_made.to(weight_WD.dtype), None, None, None


def softmax_gradient(hidden_MD: Tensor, weight_WD: Tensor, target_M: Tensor, fuse: bool) -> tuple[Tensor, Tensor]:
    """-log p of each target, float32 [M], and its gradient by the logits, softmax - onehot, [M, W]."""
    logits_MW = hidden_MD @ weight_WD.T
    if fuse:
        return fused.cross_entropy_(logits_MW, target_M, 1.0), logits_MW
    return entropy_and_gradient(logits_MW, target_M, 1.0)


@contextmanager
def frozen(model: Transformer) -> Generator[None, None, None]:
    """No gradient is wanted of any weight, yet the kernels of training run: equal weights give equal numbers.

    `torch.no_grad` would choose the kernels of inference, which round otherwise and are slower for whole texts.
    """
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in learned:
        weight.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for weight in learned:
            weight.requires_grad_(True)


def with_old(model: Transformer, batches: Sequence[PolicyBatch], temperature: float) -> list[PolicyBatch]:
    """The batches with the model's log-probabilities as those of the policy that drew the answers."""
    with frozen(model):
        return [replace(batch, old_NT=look(model, batch, BalanceConfig(), temperature).logprob_NT) for batch in batches]


def with_reference(model: Transformer, batches: Sequence[PolicyBatch], temperature: float) -> list[PolicyBatch]:
    """The batches with a model's log-probabilities as the reference's."""
    with frozen(model):
        looked = [look(model, batch, BalanceConfig(), temperature).logprob_NT for batch in batches]
    return [replace(batch, reference_NT=logprob_NT) for batch, logprob_NT in zip(batches, looked, strict=True)]


def answer_logprobs(
    model: Transformer, batches: Sequence[PolicyBatch], answers: int, temperature: float
) -> list[tuple[float, ...]]:
    """The log-probabilities of each answer's tokens, in the order in which the answers were given."""
    found: list[tuple[float, ...]] = [()] * answers
    for batch in with_old(model, batches, temperature):
        assert batch.old_NT is not None
        for number, row_T, place_T in zip(batch.number_N.tolist(), batch.old_NT, batch.place_NT, strict=True):
            found[number] = tuple(row_T[place_T >= 0].tolist())
    return found


def grpo_loss(
    model: Transformer,
    batch: PolicyBatch,
    objective: ObjectiveConfig,
    balancing: BalanceConfig,
    temperature: float,
    batches: int,
) -> Loss:
    """The loss of one of the `batches` of a step, whose mean the loop takes; its facts add up to the step's.

    `entropy` and `kl` are means over the step's tokens, `clip_fraction` the share of tokens without a gradient.
    """
    seen = look(model, batch, balancing, temperature)
    old_NT = seen.logprob_NT.detach() if batch.old_NT is None else batch.old_NT
    made = policy_loss(seen.logprob_NT, old_NT, batch.reference_NT, batch.advantage_N1, batch.weight_NT, objective)
    counted = max(batch.counted, 1)
    facts = {"entropy": seen.entropy / counted, "kl": made.kl / counted, "clip_fraction": made.clipped / counted}
    # each batch holds its part of the step's sum, while the loop takes the mean over batches
    total = made.total * batches
    return Loss(total + seen.balance, total.detach(), seen.balance.detach(), seen.load, facts)
