"""Multi-head latent attention: keys and values of all heads are read out of one small latent per token.

In:  hidden states, the tokens' rotation, what may be seen, and (when decoding) the cache.  Out: hidden states.
Source: DeepSeek-V2 §2.1.2, §2.1.3 (eq. 9 to 19), App. C.
Unusual: two ways to the same numbers. Expanded (training, prefill): keys and values of every head are formed, and
value heads are padded with zeros to the key width, because the fused kernels want equal widths and keep memory linear.
Absorbed (decoding): the up-projections move over to query and output, so that the cache is read as it is.
A long prompt that is read in pieces expands its earlier keys in parts, whose outputs are merged: memory stays bounded.
The norms of the two latents use 1e-6 whatever `rms_norm_eps` says, as the published code does.

Shapes: B batch, T tokens, S keys, D model, H heads, N nope, R rope, V value, C latent, Q query latent, K = N + R.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeweft.model.cache import CacheWindow
from codeweft.model.config import ModelConfig
from codeweft.model.kernels import fused
from codeweft.model.rope import Rotation, rotate_pairs, softmax_scale

LATENT_NORM_EPS = 1e-6
# Measured at the Lite shape (bf16, 256 to 16,384 keys): up to 64 new tokens absorbing is 1.7 times as quick and more,
# at 128 the two are even. At width 256 (fp32) they are even at 64. Counted multiplications agree on both sides.
ABSORB_AT_MOST = 64  # new tokens per row
SCORES_AT_MOST = 1 << 22  # new tokens times keys: absorbed scores of every head are stored
PART = 4096  # keys that are expanded at once where earlier keys are read in parts


class Linear(nn.Linear):
    """A projection without bias whose weights wait, uninitialised, for `init_weights` or a folder."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Nothing: filling weights that are about to be overwritten costs minutes at full size."""


class RMSNorm(nn.Module):
    """x / rms(x) * weight; the root mean square is taken in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        if fused.applies(x):
            return fused.RMSNorm.apply(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """One layer's `self_attn`; parameter names are the checkpoint's."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.scale = softmax_scale(config)
        hidden, heads, latent = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
        query_width = heads * config.qk_head_dim
        if config.q_lora_rank is None:
            self.q_proj = Linear(hidden, query_width)
        else:
            self.q_a_proj = Linear(hidden, config.q_lora_rank)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, LATENT_NORM_EPS)
            self.q_b_proj = Linear(config.q_lora_rank, query_width)
        self.kv_a_proj_with_mqa = Linear(hidden, latent + config.qk_rope_head_dim)
        self.kv_a_layernorm = RMSNorm(latent, LATENT_NORM_EPS)
        self.kv_b_proj = Linear(latent, heads * (config.qk_nope_head_dim + config.v_head_dim))
        self.o_proj = Linear(heads * config.v_head_dim, hidden)

    def forward(
        self,
        hidden_BTD: Tensor,
        turn: Rotation,
        visible_BTS: Tensor | None = None,
        window: CacheWindow | None = None,
        starts_BT: Tensor | None = None,
    ) -> Tensor:
        """Attend causally (DeepSeek-V2 eq. 9 to 19) to every earlier token of the same row.

        `visible_BTS` says which of them where a window holds other rows too; `starts_BT` from where on, in training.
        """
        if window is None and fused.applies(hidden_BTD):
            return self.o_proj(self.attend_fused(hidden_BTD, turn, starts_BT))
        if starts_BT is not None:
            visible_BTS = visible_from(starts_BT)
        query_nope_BTHN, query_rope_BTHR = self.queries(hidden_BTD, turn)
        latent_BSC, key_rope_BSR = self.compress(hidden_BTD, turn)
        if window is not None:
            window.write(self.layer, latent_BSC, key_rope_BSR)
            if not window.is_fresh:
                latent_BSC, key_rope_BSR = window.read(self.layer)
        if window is not None and absorbing_is_cheaper(self.config, hidden_BTD.shape[1], latent_BSC.shape[1]):
            attend = self.attend_absorbed
        elif window is not None and window.is_single and not window.is_fresh:
            attend = self.attend_in_parts
        else:
            attend = self.attend_expanded
        output_BTHV = attend(query_nope_BTHN, query_rope_BTHR, latent_BSC, key_rope_BSR, visible_BTS)
        return self.o_proj(output_BTHV.flatten(-2))

    def queries(self, hidden_BTD: Tensor, turn: Rotation) -> tuple[Tensor, Tensor]:
        """Every head's query without position and its rotated part (DeepSeek-V2 eq. 12 to 14, 16)."""
        config = self.config
        query_BTHK = self.project_query(hidden_BTD).unflatten(-1, (config.num_attention_heads, config.qk_head_dim))
        nope_BTHN, rope_BTHR = query_BTHK.split([config.qk_nope_head_dim, config.qk_rope_head_dim], dim=-1)
        return nope_BTHN, rotate_pairs(rope_BTHR, turn)

    def project_query(self, hidden_BTD: Tensor) -> Tensor:
        """All heads' queries side by side, [B, T, H*K], directly or through a latent of their own."""
        if self.config.q_lora_rank is None:
            return self.q_proj(hidden_BTD)
        return self.q_b_proj(self.q_a_layernorm(self.q_a_proj(hidden_BTD)))

    def compress(self, hidden_BTD: Tensor, turn: Rotation) -> tuple[Tensor, Tensor]:
        """What is cached: the normed latent [B, T, C] and the one rotated key [B, T, R] (DeepSeek-V2 eq. 9, 15)."""
        latent_BTC, key_BTR = self.project_latent(hidden_BTD)
        return latent_BTC, rotate_pairs(key_BTR[:, :, None], turn)[:, :, 0]

    def project_latent(self, hidden_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """The normed latent [B, T, C] and the key [B, T, R] before its rotation."""
        widths = [self.config.kv_lora_rank, self.config.qk_rope_head_dim]
        latent_BTC, key_BTR = self.kv_a_proj_with_mqa(hidden_BTD).split(widths, dim=-1)
        return self.kv_a_layernorm(latent_BTC), key_BTR

    def attend_fused(self, hidden_BTD: Tensor, turn: Rotation, starts_BT: Tensor | None) -> Tensor:
        """What `attend_expanded` gives, from one kernel that rotates, attends and knows its gradient (training)."""
        config = self.config
        latent_BTC, key_BTR = self.project_latent(hidden_BTD)
        widths = fused.HeadWidths(config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim, self.scale)
        query_BTX, expanded_BTX = self.project_query(hidden_BTD), self.kv_b_proj(latent_BTC)
        return fused.LatentAttention.apply(query_BTX, expanded_BTX, key_BTR, turn, widths, starts_BT)

    def attend_expanded(
        self, nope_BTHN: Tensor, rope_BTHR: Tensor, latent_BSC: Tensor, key_rope_BSR: Tensor, visible_BTS: Tensor | None
    ) -> Tensor:
        """Form keys and values of all heads, then attend with a fused kernel (DeepSeek-V2 eq. 10, 11, 17, 18)."""
        output_BHTV = F.scaled_dot_product_attention(
            *self.expand(nope_BTHN, rope_BTHR, latent_BSC, key_rope_BSR),
            attn_mask=None if visible_BTS is None else visible_BTS[:, None],
            is_causal=visible_BTS is None,
            scale=self.scale,
        )
        return output_BHTV.transpose(1, 2)[..., : self.config.v_head_dim]

    def expand(
        self, nope_BTHN: Tensor, rope_BTHR: Tensor, latent_BSC: Tensor, key_rope_BSR: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all heads, [B, H, T or S, width], the narrower padded with zeros."""
        config = self.config
        heads, nope, value = config.num_attention_heads, config.qk_nope_head_dim, config.v_head_dim
        expanded_BSHX = self.kv_b_proj(latent_BSC).unflatten(-1, (heads, nope + value))
        key_nope_BSHN, value_BSHV = expanded_BSHX.split([nope, value], dim=-1)
        query_BTHK = torch.cat((nope_BTHN, rope_BTHR), dim=-1)
        key_BSHK = torch.cat((key_nope_BSHN, key_rope_BSR[:, :, None].expand(-1, -1, heads, -1)), dim=-1)
        width = max(config.qk_head_dim, value)
        query, key, padded = (
            F.pad(each, (0, width - each.shape[-1])).transpose(1, 2) for each in (query_BTHK, key_BSHK, value_BSHV)
        )
        return query, key, padded

    def attend_in_parts(
        self, nope_BTHN: Tensor, rope_BTHR: Tensor, latent_BSC: Tensor, key_rope_BSR: Tensor, visible_BTS: Tensor | None
    ) -> Tensor:
        """What `attend_expanded` gives for one row on a CPU, its earlier keys expanded `PART` at a time.

        Softmax over all keys is the mean of softmaxes over parts, weighted by the parts' sums of exponentials.
        """
        assert visible_BTS is None, "a single row sees all of its earlier tokens"
        keys, tokens = latent_BSC.shape[1], nope_BTHN.shape[1]
        ends = [*range(PART, keys - tokens, PART), keys - tokens, keys]
        outputs, sums = [], []
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            parts = self.expand(nope_BTHN, rope_BTHR, latent_BSC[:, begin:end], key_rope_BSR[:, begin:end])
            output_BHTV, sum_BHT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *parts, is_causal=end == keys, scale=self.scale
            )
            outputs.append(output_BHTV)
            sums.append(sum_BHT.float())
        weights_NBHT = torch.stack(sums).softmax(dim=0)  # of logarithms
        merged = sum(output * weight[..., None] for output, weight in zip(outputs, weights_NBHT, strict=True))
        assert isinstance(merged, Tensor)
        return merged.to(nope_BTHN.dtype).transpose(1, 2)[..., : self.config.v_head_dim]

    def attend_absorbed(
        self, nope_BTHN: Tensor, rope_BTHR: Tensor, latent_BSC: Tensor, key_rope_BSR: Tensor, visible_BTS: Tensor | None
    ) -> Tensor:
        """Attend in the latent space itself, W^UK moved to the query and W^UV to the output (DeepSeek-V2 §2.1.2)."""
        config = self.config
        batch, tokens, heads, nope = nope_BTHN.shape
        up_HXC = self.kv_b_proj.weight.unflatten(0, (heads, nope + config.v_head_dim))
        query_BTHC = torch.einsum("bthn,hnc->bthc", nope_BTHN, up_HXC[:, :nope])
        scores = query_BTHC.flatten(1, 2) @ latent_BSC.mT + rope_BTHR.flatten(1, 2) @ key_rope_BSR.mT
        scores_BTHS = scores.unflatten(1, (tokens, heads)).float() * self.scale
        if visible_BTS is None:
            keys = latent_BSC.shape[1]
            shape = (1, tokens, keys)
            visible_BTS = torch.ones(shape, dtype=torch.bool, device=scores.device).tril(keys - tokens)
        scores_BTHS = scores_BTHS.masked_fill(~visible_BTS[:, :, None], -torch.inf)
        weights_BTHS = scores_BTHS.softmax(dim=-1).to(latent_BSC.dtype)
        mixed_BTHC = (weights_BTHS.flatten(1, 2) @ latent_BSC).view(batch, tokens, heads, -1)
        # All rows, then the value rows: slicing the weights first would copy them (in bf16 0.6 against 0.13 ms, Lite).
        return torch.einsum("bthc,hxc->bthx", mixed_BTHC, up_HXC)[..., nope:]


def absorbing_is_cheaper(config: ModelConfig, tokens: int, keys: int) -> bool:
    """Compare multiplications per row and head; expanding pays once many new tokens share the expanded keys.

    >>> absorbing_is_cheaper(ModelConfig(), 1, 4096), absorbing_is_cheaper(ModelConfig(), 512, 512)
    (True, False)
    """
    up = config.kv_lora_rank * (config.qk_nope_head_dim + config.v_head_dim)
    absorbed = tokens * (up + keys * (2 * config.kv_lora_rank + config.qk_rope_head_dim))
    expanded = keys * up + tokens * keys * (config.qk_head_dim + config.v_head_dim)
    return tokens <= ABSORB_AT_MOST and tokens * keys <= SCORES_AT_MOST and absorbed < expanded


def visible_from(starts_BT: Tensor) -> Tensor:
    """True [B, T, S] where a token may look: at itself and back to where it starts.

    >>> visible_from(torch.tensor([[0, 0, 2]])).int().tolist()
    [[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]
    """
    index_T = torch.arange(starts_BT.shape[1], device=starts_BT.device)
    return (starts_BT[:, :, None] <= index_T) & (index_T <= index_T[:, None])
