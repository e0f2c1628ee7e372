"""The three losses that keep experts, devices and the traffic between devices evenly loaded.

In:  a layer's router scores and chosen experts.  Out: a scalar each, without its factor alpha.
Source: DeepSeek-V2 §2.2.3. Factors there: 0.003, 0.05, 0.02 for 236B with 8 devices, of which a token meets 3;
0.001 for the first loss alone at 16B (§3.1.2, App. B.1).
Unusual: counted within each sequence, then averaged over the batch; only the mean scores P carry a gradient. All three
are 1 for perfectly even scores and counts.

Shapes: B batch, T tokens, E experts, K chosen, G groups (devices).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def expert_load(chosen_BTK: Tensor, experts: int) -> Tensor:
    """f_i of each sequence [B, E]: how often an expert is chosen, 1 where all are chosen alike (DeepSeek-V2 eq. 24)."""
    chosen = chosen_BTK.flatten(1)
    counts_BE = torch.zeros(len(chosen), experts, device=chosen.device)
    counts_BE.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=counts_BE.dtype))
    return counts_BE * experts / chosen.shape[1]


def mean_scores(scores_BTE: Tensor) -> Tensor:
    """P_i of each sequence [B, E]: an expert's mean probability (DeepSeek-V2 eq. 25)."""
    return scores_BTE.mean(dim=1)


def expert_balance(scores_BTE: Tensor, chosen_BTK: Tensor) -> Tensor:
    """L_ExpBal / alpha_1 (DeepSeek-V2 eq. 23)."""
    load_BE = expert_load(chosen_BTK, scores_BTE.shape[-1])
    return (load_BE * mean_scores(scores_BTE)).sum(dim=-1).mean()


def device_balance(scores_BTE: Tensor, chosen_BTK: Tensor, groups: int) -> Tensor:
    """L_DevBal / alpha_2 over `groups` equal runs of experts (DeepSeek-V2 eq. 26 to 28)."""
    load_BG = expert_load(chosen_BTK, scores_BTE.shape[-1]).unflatten(-1, (groups, -1)).mean(dim=-1)
    score_BG = mean_scores(scores_BTE).unflatten(-1, (groups, -1)).sum(dim=-1)
    return (load_BG * score_BG).sum(dim=-1).mean()


def communication_balance(scores_BTE: Tensor, chosen_BTK: Tensor, groups: int, limit: int) -> Tensor:
    """L_CommBal / alpha_3: how evenly devices receive tokens (DeepSeek-V2 eq. 29 to 31).

    A token may go to at most `limit` of the `groups` devices.
    """
    per_group = scores_BTE.shape[-1] // groups
    sent_BTG = F.one_hot(chosen_BTK // per_group, groups).amax(dim=2)
    received_BG = sent_BTG.float().mean(dim=1) * groups / limit
    score_BG = mean_scores(scores_BTE).unflatten(-1, (groups, -1)).sum(dim=-1)
    return (received_BG * score_BG).sum(dim=-1).mean()
