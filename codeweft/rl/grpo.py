"""Group relative policy optimisation: every formula as one function of tensors, nothing that samples or steps.

In:  rewards of groups of answers; log-probabilities of their tokens under three policies.  Out: advantages, a loss.
Source: DeepSeekMath §4.1, App. A.1.6 (a ratio per token); DeepSeek-V2 §4.2 (a ratio per answer).

Unusual: the two papers print different objectives under one name (docs/alignment.md); `ObjectiveConfig` says which.
What an answer's tokens weigh is worked out once for a whole step (`token_weights`), so that losses of any portions of
it add up to the loss of the whole. Masked places may hold anything, -inf and NaN included. Float64 stays float64.

Shapes: B prompts, G answers to a prompt, N answers of a step or of a portion of it, T tokens and S steps of an answer,
K kinds of reward, W vocabulary; N1 where one number stands for all tokens of an answer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from codeweft.rl.config import ObjectiveConfig

# --- rewards to advantages -------------------------------------------------------------------------------------------


def combined_reward(reward_KN: Tensor, factor_K: Tensor) -> Tensor:
    """The weighted sum of several reward models' scores, [N] (DeepSeek-V2 eq. 36)."""
    return torch.einsum("kn,k->n", _wide(reward_KN), _wide(factor_K))


def group_advantages(reward_BG: Tensor, config: ObjectiveConfig) -> Tensor:
    """Rewards relative to their group, (r - mean) / std, [B, G] (DeepSeek-V2 eq. 34).

    A NaN reward says that the answer could not be judged: it counts neither in the mean nor in the deviation, and its
    advantage is 0; whoever calls leaves its tokens out of the mask. A group whose rewards are all equal, or that has
    fewer than two, has advantages of exactly 0, whatever rounding leaves of their deviation. Infinite rewards are a
    fault of the caller. `std_epsilon` is added to the deviation.

    >>> group_advantages(torch.tensor([[1.0, 0.0], [0.3, 0.3]]), ObjectiveConfig(normalise_std=False)).tolist()
    [[0.5, -0.5], [0.0, 0.0]]
    """
    assert not reward_BG.isinf().any(), "a reward is infinite"
    known_BG = ~reward_BG.isnan()
    wide_BG = torch.where(known_BG, reward_BG, 0.0).double()  # a mean in float32 would move rewards that are equal
    count_B1 = known_BG.sum(1, keepdim=True)
    mean_B1 = wide_BG.sum(1, keepdim=True) / count_B1.clamp(min=1)
    centred_BG = torch.where(known_BG, wide_BG - mean_B1, 0.0)
    if config.normalise_std:
        variance_B1 = centred_BG.square().sum(1, keepdim=True) / (count_B1 - config.std_correction).clamp(min=1)
        centred_BG = centred_BG / (variance_B1.sqrt() + config.std_epsilon)
    silent_B1 = silent_groups(reward_BG)[:, None]
    return torch.where(silent_B1 | ~known_BG, 0.0, centred_BG).to(_wide(reward_BG).dtype)


def silent_groups(reward_BG: Tensor) -> Tensor:
    """True [B] where a group teaches nothing: all known rewards are equal, or fewer than two are known.

    >>> silent_groups(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, float("nan")]])).tolist()
    [False, True]
    """
    known_BG = ~reward_BG.isnan()
    largest_B = torch.where(known_BG, reward_BG, -torch.inf).amax(1)
    smallest_B = torch.where(known_BG, reward_BG, torch.inf).amin(1)
    return largest_B <= smallest_B  # a group without any known reward has -inf and inf


def process_advantages(reward_BGS: Tensor, end_BGS: Tensor, tokens: int, config: ObjectiveConfig) -> Tensor:
    """Advantages under process supervision, [B, G, T]: a token's is the sum over the steps that end at it or later.

    Rewards are normalised over all steps of all answers to a prompt (DeepSeekMath §4.1.3). `end_BGS` is the place of a
    step's last token; answers with fewer steps than S are filled up with NaN rewards.
    """
    normalised_BGS = group_advantages(reward_BGS.flatten(1), config).view_as(reward_BGS)
    place_T = torch.arange(tokens, device=end_BGS.device)
    ahead_BGST = end_BGS[..., None] >= place_T
    return (normalised_BGS[..., None] * ahead_BGST).sum(2)


# --- log-probabilities -----------------------------------------------------------------------------------------------


def token_logprobs(logits_NTW: Tensor, tokens_NT: Tensor, temperature: float = 1.0) -> Tensor:
    """Each token's log pi(o_t | q, o_<t), float32 [N, T]; its logits are those of the place before it."""
    scaled_NTW = _wide(logits_NTW) / temperature
    return scaled_NTW.gather(-1, tokens_NT[..., None]).squeeze(-1) - scaled_NTW.logsumexp(-1)


def entropy(logits_NTW: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of each place's distribution in nats, float32 [N, T]; logits of -inf (excluded tokens) add nothing."""
    logprob_NTW = (_wide(logits_NTW) / temperature).log_softmax(-1)
    return torch.special.entr(logprob_NTW.exp()).sum(-1)


# --- the objective ---------------------------------------------------------------------------------------------------


def importance_ratios(logprob_NT: Tensor, old_NT: Tensor, mask_NT: Tensor, config: ObjectiveConfig) -> Tensor:
    """How much likelier the policy makes what the sampling policy said; 1 at masked places.

    By `level`: "token" [N, T], each token's own ratio (DeepSeekMath eq. 3); "sequence" [N, 1], the whole answer's, the
    product over its tokens (DeepSeek-V2 eq. 32); "sequence-mean" [N, 1], its geometric mean over tokens (GSPO, Zheng et
    al. 2025; what TRL calls sequence).
    """
    difference_NT = _kept(logprob_NT, mask_NT) - _kept(old_NT, mask_NT)
    if config.level == "token":
        return difference_NT.exp()
    sum_N1 = difference_NT.sum(1, keepdim=True)
    if config.level == "sequence-mean":
        sum_N1 = sum_N1 / (mask_NT != 0).sum(1, keepdim=True).clamp(min=1)
    return sum_N1.exp()


def clipped_surrogate(ratio_NT: Tensor, advantage_NT: Tensor, config: ObjectiveConfig) -> Tensor:
    """min(ratio A, clip(ratio, 1 - clip, 1 + clip_high) A), the part of DeepSeekMath eq. 3 and DeepSeek-V2 eq. 32.

    No gradient flows where the policy has gone past the range in the direction that the advantage asks for.
    """
    clipped_NT = ratio_NT.clamp(1 - config.clip, 1 + (config.clip_high or config.clip))
    return torch.minimum(ratio_NT * advantage_NT, clipped_NT * advantage_NT)


def is_clipped(ratio_NT: Tensor, advantage_NT: Tensor, config: ObjectiveConfig) -> Tensor:
    """True where `clipped_surrogate` has no gradient."""
    low_NT = (ratio_NT < 1 - config.clip) & (advantage_NT < 0)
    return low_NT | ((ratio_NT > 1 + (config.clip_high or config.clip)) & (advantage_NT > 0))


def kl_estimate(logprob_NT: Tensor, reference_NT: Tensor, estimator: str = "k3") -> Tensor:
    """An estimate of KL(policy || reference) from each sample of the policy (DeepSeekMath eq. 4, DeepSeek-V2 eq. 33).

    With d = log reference - log policy: "k3", the papers', is exp(d) - d - 1, unbiased and never negative; "k1" is -d,
    unbiased; "k2" is d² / 2, biased. (Names of Schulman 2020.) Far off the reference k3 overflows: the loss is then
    infinite, which the training loop refuses.
    """
    difference_NT = _wide(reference_NT) - _wide(logprob_NT)
    if estimator == "k1":
        return -difference_NT
    if estimator == "k2":
        return difference_NT.square() / 2
    assert estimator == "k3", estimator
    return difference_NT.expm1() - difference_NT  # exp(d) - 1 would cancel where the policies are close


def token_weights(mask_NT: Tensor, config: ObjectiveConfig) -> Tensor:
    """What each token's term counts in the objective of a whole step, float32 [N, T]; 0 at masked places.

    By `average`, for the n answers that have any token: "answer" 1 / (n |o_i|) (DeepSeekMath eq. 3), "token"
    1 / (sum of |o_i|) (DAPO, Yu et al. 2025), "length" 1 / (n longest) (Dr. GRPO, Liu et al. 2025). Sum them over an
    answer for what its one term counts: 1 / n with "answer" (DeepSeek-V2 eq. 32).

    >>> token_weights(torch.tensor([[1, 1], [1, 0]]), ObjectiveConfig()).tolist()
    [[0.25, 0.25], [0.5, 0.0]]
    """
    counted_NT = (mask_NT != 0).float()
    length_N1 = counted_NT.sum(1, keepdim=True)
    answers = (length_N1 > 0).sum().clamp(min=1)
    if config.average == "answer":
        return counted_NT / (answers * length_N1.clamp(min=1))
    if config.average == "token":
        return counted_NT / length_N1.sum().clamp(min=1)
    return counted_NT / (answers * config.longest)


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The scalar to minimise and detached facts about it; sums over the portions of a step give the step's.

    `tokens` is how many tokens the sums of `clipped` and `kl` run over.
    """

    total: Tensor
    surrogate: Tensor  # weighted clipped surrogate, without KL
    kl: Tensor  # sum over tokens of the k3 estimate, whatever estimator the loss has
    clipped: Tensor  # tokens whose ratio gives no gradient
    tokens: Tensor


def policy_loss(
    logprob_NT: Tensor,
    old_NT: Tensor,
    reference_NT: Tensor | None,
    advantage_NT: Tensor,
    weight_NT: Tensor,
    config: ObjectiveConfig,
) -> PolicyLoss:
    """The negative of the objective of GRPO: DeepSeekMath eq. 3, or DeepSeek-V2 eq. 32 with level "sequence".

    Log-probabilities are those of the policy (differentiable), of the policy that sampled, and of the reference (may be
    None where `beta` is 0). `advantage_NT` is [N, 1] under outcome supervision. `weight_NT` is `token_weights` of the
    whole step's answers, these rows of it; tokens of weight 0 are left out. Prompts weigh alike, which needs groups of
    one size.
    """
    assert reference_NT is not None or not config.beta, "a KL term needs the reference's log-probabilities"
    assert config.level != "sequence" or advantage_NT.shape[1] == 1, "an answer's one ratio has one advantage"
    mask_NT, advantage_NT, weight_NT = weight_NT != 0, _wide(advantage_NT), _wide(weight_NT)
    ratio_NT = importance_ratios(logprob_NT, old_NT, mask_NT, config)
    clipped_NT = is_clipped(ratio_NT, advantage_NT, config) & mask_NT
    policy_NT = _kept(logprob_NT, mask_NT)
    reference_NT = policy_NT.detach() if reference_NT is None else _kept(reference_NT, mask_NT)
    shown_kl = kl_estimate(policy_NT.detach(), reference_NT).sum()
    if config.level == "sequence":  # as printed: ratio and divergence of the answer as a whole
        policy_NT, reference_NT, weight_NT = (
            each.sum(1, keepdim=True) for each in (policy_NT, reference_NT, weight_NT)
        )
    surrogate = (weight_NT * clipped_surrogate(ratio_NT, advantage_NT, config)).sum()
    total = -surrogate
    if config.beta:
        total = total + config.beta * (weight_NT * kl_estimate(policy_NT, reference_NT, config.kl_estimator)).sum()
    return PolicyLoss(total, surrogate.detach(), shown_kl, clipped_NT.sum(), mask_NT.sum())


def gradient_coefficients(logprob_NT: Tensor, reference_NT: Tensor, advantage_NT: Tensor, beta: float) -> Tensor:
    """What multiplies each token's gradient of log pi, [N, T], when the policy still is the one that sampled.

    A + beta (reference / policy - 1) (DeepSeekMath App. A.1.6), for the papers' k3.
    """
    return _wide(advantage_NT) + beta * (_wide(reference_NT) - _wide(logprob_NT)).expm1()


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _kept(x_NT: Tensor, mask_NT: Tensor) -> Tensor:
    return torch.where(mask_NT != 0, _wide(x_NT), 0.0)
