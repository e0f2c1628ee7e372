"""Draw the next token of each row: greedy, or by temperature and nucleus with noise that belongs to the request.

In:  logits_BW and each row's request and position.  Out: token ids and their log-probabilities at temperature 1.

Unusual: sampling is Gumbel-max, argmax(logits / temperature + noise), where the noise is a hash of (seed, position,
token id) and of nothing else. A request therefore draws the same text alone, in any batch and on any device, except
where two perturbed logits are as close as the rounding of the forward pass.

Shapes: B rows, S rows that sample, W vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from codeweft.base.errors import ModelError
from codeweft.base.seeds import derive
from codeweft.engine.request import Request

LOW_32 = 0xFFFFFFFF


def choose(
    logits_BW: Tensor, requests: Sequence[Request], positions: Sequence[int], size: int
) -> tuple[list[int], list[float]]:
    """One token id below `size` and its log-probability for each row.

    positions: how many tokens the request has drawn before. size: ids that the tokenizer knows; a model's vocabulary
    may be padded beyond it. ModelError where a logit is not a number.
    """
    logits_BW = logits_BW.float()
    if not bool(torch.isfinite(logits_BW).all()):
        raise ModelError("The model's logits are not finite.", "Its weights are damaged: verify or train it again.")
    known_BW = logits_BW[:, :size]
    tokens_B = known_BW.argmax(-1)
    sampled = [index for index, request in enumerate(requests) if request.temperature > 0]
    if sampled:
        tokens_B[sampled] = _draw(known_BW[sampled], [requests[i] for i in sampled], [positions[i] for i in sampled])
    logprob_B = logits_BW.log_softmax(-1).gather(-1, tokens_B[:, None])[:, 0]
    return tokens_B.tolist(), logprob_B.tolist()


def _draw(logits_SW: Tensor, requests: Sequence[Request], positions: Sequence[int]) -> Tensor:
    temperature_S = torch.tensor([request.temperature for request in requests], dtype=torch.float64)
    scores_SW = logits_SW.double() / temperature_S.to(logits_SW.device)[:, None]
    scores_SW = keep_nucleus(scores_SW, [request.top_p for request in requests])
    keys = [derive(request.seed, "token", position) for request, position in zip(requests, positions, strict=True)]
    return (scores_SW + gumbel_noise(keys, scores_SW.shape[1], scores_SW.device)).argmax(-1)


def keep_nucleus(scores_SW: Tensor, top_p: Sequence[float]) -> Tensor:
    """Minus infinity outside the smallest set of most probable tokens that reaches `top_p` (never an empty set).

    >>> keep_nucleus(torch.tensor([[0.5, 0.3, 0.2]]).log(), [0.6]).exp().tolist()
    [[0.5, 0.30000001192092896, 0.0]]
    """
    if min(top_p) >= 1:
        return scores_SW
    top_p_S1 = torch.tensor(top_p, dtype=torch.float64, device=scores_SW.device)[:, None]
    sorted_SW, order_SW = scores_SW.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    dropped_SW = (sorted_SW.cumsum(-1) - sorted_SW >= top_p_S1) & (top_p_S1 < 1)
    dropped_SW[:, 0] = False
    outside_SW = torch.zeros_like(dropped_SW).scatter(-1, order_SW, dropped_SW)
    return scores_SW.masked_fill(outside_SW, -torch.inf)


def gumbel_noise(keys: Sequence[int], width: int, device: torch.device) -> Tensor:
    """Standard Gumbel noise [len(keys), width] in float64, a pure function of (key, column)."""
    low_S1 = torch.tensor([[key & LOW_32] for key in keys], dtype=torch.int64, device=device)
    high_S1 = torch.tensor([[key >> 32 & LOW_32] for key in keys], dtype=torch.int64, device=device)
    column_W = torch.arange(width, dtype=torch.int64, device=device)
    bits_SW = _scramble(_scramble((column_W + low_S1) & LOW_32) ^ high_S1)
    uniform_SW = (bits_SW.double() + 0.5) / 2.0**32
    return -(-uniform_SW.log()).log()


def _scramble(bits: Tensor) -> Tensor:
    """A bijective mix of 32-bit words held in int64 (two multiply-xorshift rounds, each bit reaches each other)."""
    bits = bits ^ (bits >> 16)
    bits = (bits * 0x7FEB352D) & LOW_32
    bits = bits ^ (bits >> 15)
    bits = (bits * 0x846CA68B) & LOW_32
    return bits ^ (bits >> 16)
