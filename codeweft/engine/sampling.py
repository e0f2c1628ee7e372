"""Draw the next token of each row: greedy, or by temperature and nucleus with noise that belongs to the request.

In:  logits_BW and each row's request and position.  Out: token ids and their log-probabilities at temperature 1.

Unusual: sampling is Gumbel-max, argmax(logits / temperature + noise), where the noise is a hash of (seed, position,
token id) and of nothing else. A request therefore draws the same text alone, in any batch and on any device, except
where two perturbed logits are as close as the rounding of the forward pass.

Shapes: B rows, S rows that sample, W vocabulary, K likeliest tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from codeweft.base.errors import ModelError
from codeweft.base.seeds import derive
from codeweft.engine.kernels import drawing
from codeweft.engine.request import Request

LOW_32 = 0xFFFFFFFF
LIKELIEST = 1024  # tokens looked at first for a nucleus


def choose(
    logits_BW: Tensor, requests: Sequence[Request], positions: Sequence[int], size: int
) -> list[tuple[int, float]]:
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
    return list(zip(tokens_B.tolist(), logprob_B.tolist(), strict=True))


def _draw(logits_SW: Tensor, requests: Sequence[Request], positions: Sequence[int]) -> Tensor:
    device = logits_SW.device
    keys = [derive(request.seed, "token", position) for request, position in zip(requests, positions, strict=True)]
    if all(request.top_p >= 1 for request in requests) and drawing.applies(logits_SW):
        return drawing.draw(logits_SW, [request.temperature for request in requests], keys)
    temperature_S = torch.tensor([request.temperature for request in requests], dtype=torch.float64, device=device)
    logits_SW = logits_SW.double()
    # Below their maximum, so that a tiny temperature sends the others to minus infinity and not the best to infinity.
    scores_SW = (logits_SW - logits_SW.amax(-1, keepdim=True)) / temperature_S[:, None]
    tokens_S = torch.empty(len(requests), dtype=torch.int64, device=device)
    narrow = [index for index, request in enumerate(requests) if request.top_p < 1]
    wide = [index for index, request in enumerate(requests) if request.top_p >= 1]
    if wide:
        noise_SW = gumbel_noise([keys[i] for i in wide], torch.arange(scores_SW.shape[1], device=device))
        tokens_S[wide] = (scores_SW[wide] + noise_SW).argmax(-1)
    if narrow:
        kept_SK, token_SK = nucleus(scores_SW[narrow], [requests[i].top_p for i in narrow])
        place_S1 = (kept_SK + gumbel_noise([keys[i] for i in narrow], token_SK)).argmax(-1, keepdim=True)
        tokens_S[narrow] = token_SK.gather(-1, place_S1)[:, 0]
    return tokens_S


def nucleus(scores_SW: Tensor, top_p: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The smallest sets of most probable tokens that reach `top_p`, never empty: scores [S, K] and token ids [S, K].

    Places beyond a row's set hold minus infinity. A full sort is only made where the likeliest tokens do not suffice.

    >>> kept, token = nucleus(torch.tensor([[0.2, 0.5, 0.3]]).log(), [0.6])
    >>> kept.exp().round(decimals=1).tolist(), token.tolist()
    ([[0.5, 0.30000001192092896, 0.0]], [[1, 2, 0]])
    """
    top_p_S1 = torch.tensor(top_p, dtype=torch.float64, device=scores_SW.device)[:, None]
    total_S1 = scores_SW.double().logsumexp(-1, keepdim=True)
    for count in (min(LIKELIEST, scores_SW.shape[1]), scores_SW.shape[1]):
        score_SK, token_SK = scores_SW.topk(count)
        probability_SK = (score_SK.double() - total_S1).exp()
        mass_SK = probability_SK.cumsum(-1)
        if bool((mass_SK[:, -1:] >= top_p_S1).all()):
            break
    outside_SK = mass_SK - probability_SK >= top_p_S1
    outside_SK[:, 0] = False
    return score_SK.masked_fill(outside_SK, -torch.inf), token_SK


def gumbel_noise(keys: Sequence[int], columns: Tensor) -> Tensor:
    """Standard Gumbel noise in float64 [len(keys), columns], a pure function of (key, column).

    columns: token ids, [W] for all keys or [S, K] for each.
    """
    low_S1 = torch.tensor([[key & LOW_32] for key in keys], dtype=torch.int64, device=columns.device)
    high_S1 = torch.tensor([[key >> 32 & LOW_32] for key in keys], dtype=torch.int64, device=columns.device)
    bits = _scramble((_scramble(_scramble(columns) ^ low_S1) + high_S1) & LOW_32)
    return -(-((bits.double() + 0.5) / 2.0**32).log()).log()


def _scramble(bits: Tensor) -> Tensor:
    """A bijective mix of 32-bit words held in int64 (two multiply-xorshift rounds, each bit reaches each other)."""
    bits = bits ^ (bits >> 16)
    bits = (bits * 0x7FEB352D) & LOW_32
    bits = bits ^ (bits >> 15)
    bits = (bits * 0x846CA68B) & LOW_32
    return bits ^ (bits >> 16)
