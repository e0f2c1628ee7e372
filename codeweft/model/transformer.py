"""The whole model: token ids through blocks of attention and feed-forward to scores over the vocabulary.

In:  token ids [B, T], optionally a window of a cache or the document each token belongs to.  Out: `Output`.
Source: DeepSeek-V2 §2; DeepSeek-Coder-V2 §3.2. Read in this order: config, rope, attention, moe, here.
Unusual: module names are the published checkpoint's, stacked experts aside (folder.py). No dropout and no biases.

Shapes: B batch, T tokens, S keys, D model, W vocabulary.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeweft.model.attention import Attention, Linear, RMSNorm
from codeweft.model.cache import CacheWindow
from codeweft.model.config import ModelConfig
from codeweft.model.moe import MLP, MixtureOfExperts, RouterOutput
from codeweft.model.rope import rotation

INIT_STD = 0.006  # DeepSeek-V2 §3.1.2


@dataclass(frozen=True, slots=True)
class Output:
    """What a forward pass gives; `logits_BTW` keeps the model's type and is None when only hidden states are asked."""

    logits_BTW: Tensor | None
    hidden_BTD: Tensor  # after the final norm
    router: list[RouterOutput] = field(default_factory=list)  # one per MoE layer, see Transformer.forward


class Embedding(nn.Embedding):
    """A table whose rows wait, uninitialised, for `init_weights` or a folder."""

    def reset_parameters(self) -> None:
        """Nothing, as in `Linear`."""


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        sparse = config.is_moe_layer(layer)
        self.mlp = MixtureOfExperts(config) if sparse else MLP(config.hidden_size, config.intermediate_size)

    def forward(self, hidden_BTD: Tensor, *about: Any) -> tuple[Tensor, RouterOutput | None]:
        """One layer (DeepSeek-V2 eq. 20 for the second half); the routing is None in a dense layer.

        `about` is what `Attention.forward` takes beside the hidden states.
        """
        hidden_BTD = hidden_BTD + self.self_attn(self.input_layernorm(hidden_BTD), *about)
        mixed = self.mlp(self.post_attention_layernorm(hidden_BTD))
        if isinstance(mixed, Tensor):
            return hidden_BTD + mixed, None
        output_BTD, routing = mixed
        return hidden_BTD + output_BTD, routing


class Decoder(nn.Module):
    """`model` of the checkpoint: embedding, blocks, final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Transformer(nn.Module):
    """A DeepSeek-V2 causal language model; parameters are uninitialised until `init_weights` or `load_folder`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        window: CacheWindow | None = None,
        documents_BT: Tensor | None = None,
        return_hidden: bool = False,
        keep_router: bool = False,
    ) -> Output:
        """Score the next token at every position.

        Without a cache: causal attention from position 0; with `documents_BT` (an id per token, equal ids in a row)
        only inside a document, each starting at position 0. With a `window` of a cache: each row goes on where it
        ends there, and its tokens are written.
        Routing is returned in training mode, else where `keep_router` asks for it.
        """
        assert window is None or documents_BT is None, "documents are separated in training only"
        visible_BTS = starts_BT = None
        if window is not None:
            positions_BT = window.positions_BT
            visible_BTS = None if window.is_fresh or window.is_single else window.visible_BTS()
        elif documents_BT is not None:
            positions_BT, starts_BT = separate_documents(documents_BT)
        else:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        turn = rotation(self.config, positions_BT)
        hidden_BTD = self.model.embed_tokens(tokens_BT)
        router = []
        for block in self.model.layers:
            hidden_BTD, routing = block(hidden_BTD, turn, visible_BTS, window, starts_BT)
            if routing is not None and (self.training or keep_router):
                router.append(routing)
        hidden_BTD = self.model.norm(hidden_BTD)
        return Output(None if return_hidden else self.head(hidden_BTD), hidden_BTD, router)

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """Logits of hidden states after the final norm; any leading shape."""
        return self.lm_head(hidden_BTD)

    @torch.no_grad()
    def init_weights(self, std: float = INIT_STD, generator: torch.Generator | None = None) -> None:
        """Draw every matrix from N(0, std²) and set every norm to 1 (DeepSeek-V2 §3.1.2)."""
        for parameter in self.parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, std, generator=generator)


def separate_documents(documents_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Positions [B, T] that restart in each document, and where each token's document starts, [B, T].

    >>> [each.tolist() for each in separate_documents(torch.tensor([[7, 7, 3]]))]
    [[[0, 1, 0]], [[0, 0, 2]]]
    """
    index_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    begins_BT = F.pad(documents_BT[:, 1:] != documents_BT[:, :-1], (1, 0), value=True)
    starts_BT = torch.where(begins_BT, index_T, 0).cummax(dim=1).values
    return index_T - starts_BT, starts_BT
