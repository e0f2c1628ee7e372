"""A pass over few tokens as one native call: on a processor, what torch spends between its operations is most of it.

In:  a model, its paged cache, tokens with positions and tables of blocks.  Out: logits; the cache holds the tokens.
Source: DeepSeek-V2 §2.1, §2.2. Weights stay where the model has them, float32, bfloat16 or quantised; see decoding.cpp.
Unusual: a token's logits are the same bits whatever other tokens are in the pass.

Shapes: M tokens of all sequences, B sequences, P blocks of a table, N positions that are looked at, W vocabulary.
"""

import ctypes
import weakref
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from codeweft.model.attention import LATENT_NORM_EPS, Attention, Linear, softmax_scale
from codeweft.model.cache import BLOCK, LatentCache
from codeweft.model.config import GROUP_LIMITED
from codeweft.model.kernels import native
from codeweft.model.kernels.products import KINDS, Matrix, plain, quantised
from codeweft.model.moe import MLP, Experts, MixtureOfExperts
from codeweft.model.quantize import QuantizedExperts, QuantizedLinear, QuantizedMLP
from codeweft.model.rope import rotation
from codeweft.model.transformer import Block, Transformer

SOURCE = Path(__file__).with_name("decoding.cpp")
MOST_TOKENS = 64
WITHOUT = "texts are drawn with torch alone, slower"
NONE = Matrix()
MATRICES = (
    *("input_norm", "query_down", "query_norm", "query", "latent_down", "latent_norm", "up", "output", "post_norm"),
    *("gate", "inner", "down", "router", "expert_gate_inner", "expert_down"),
)
SIZES = (
    *("layers", "hidden", "heads", "nope", "rope", "value", "latent"),
    *("experts", "chosen", "groups", "kept_groups", "normalised"),
)


class Layer(ctypes.Structure):
    """A layer's matrices, in the order of decoding.cpp."""

    _fields_ = tuple((name, Matrix) for name in MATRICES)


class Model(ctypes.Structure):
    """Sizes and the matrices that are no layer's."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in SIZES),
        *((name, ctypes.c_double) for name in ("scale", "routed_scale", "epsilon", "latent_epsilon")),
        *((name, Matrix) for name in ("embedding", "norm", "head")),
        ("layer", ctypes.POINTER(Layer)),
    )


class Cache(ctypes.Structure):
    """The cache's entries: their type, blocks of a layer, address."""

    _fields_ = (("kind", ctypes.c_int64), ("blocks", ctypes.c_int64), ("entries", ctypes.c_void_p))


class Call(ctypes.Structure):
    """What one pass is about."""

    _fields_ = (
        ("count", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("tokens", "sequences", "positions", "tables")),
        ("table_width", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("cosine", "sine")),
        ("wanted", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("wanted_tokens", "logits")),
    )


def why_not(model: Transformer) -> str | None:
    """None where the native pass can run this model, else the reason; builds it at the first question."""
    weight = model.model.embed_tokens.weight
    if weight.device.type != "cpu":
        return f"the model is on {weight.device.type}"
    if weight.dtype not in KINDS:
        return f"weights are {weight.dtype}"
    if not native.available(SOURCE, WITHOUT):
        return "it cannot be built here"
    return None


class NativeDecoder:
    """Runs passes over one model and one cache. The weights are read where they are: keep the model."""

    def __init__(self, model: Transformer, cache: LatentCache) -> None:
        self.model, self.cache = model, cache
        self.native = native.functions(SOURCE)
        self.native.pass_new.restype = ctypes.c_void_p
        positions = torch.arange(cache.blocks * BLOCK)[None]
        self.turn = [each[0].contiguous() for each in rotation(model.config, positions)]
        self.refresh()

    def refresh(self) -> None:
        """Look up anew where the weights are."""
        config = self.model.config
        self.layers = (Layer * config.num_hidden_layers)(*map(layer_of, self.model.model.layers))
        sizes = {
            "layers": config.num_hidden_layers,
            "hidden": config.hidden_size,
            "heads": config.num_attention_heads,
            "nope": config.qk_nope_head_dim,
            "rope": config.qk_rope_head_dim,
            "value": config.v_head_dim,
            "latent": config.kv_lora_rank,
            "experts": config.n_routed_experts or 0,
            "chosen": config.num_experts_per_tok or 0,
            "groups": (config.n_group or 1) if config.topk_method == GROUP_LIMITED else 0,
            "kept_groups": config.topk_group or 1,
            "normalised": int(config.norm_topk_prob),
        }
        self.description = Model(
            **sizes,
            scale=softmax_scale(config),
            routed_scale=config.routed_scaling_factor,
            epsilon=config.rms_norm_eps,
            latent_epsilon=LATENT_NORM_EPS,
            embedding=plain(self.model.model.embed_tokens.weight),
            norm=plain(self.model.model.norm.weight),
            head=matrix_of(self.model.lm_head),
            layer=self.layers,
        )
        entries = self.cache.entries
        cache = Cache(KINDS[entries.dtype], entries.shape[1], entries.data_ptr())
        self.handle = ctypes.c_void_p(self.native.pass_new(ctypes.byref(self.description), ctypes.byref(cache)))
        weakref.finalize(self.handle, self.native.pass_delete, ctypes.c_void_p(self.handle.value))

    def step(
        self, tokens_M: Tensor, tables_BP: Tensor, sequence_M: Tensor, positions_M: Tensor, wanted_N: Tensor
    ) -> Tensor:
        """Logits [N, W] of the tokens `wanted_N`, float32; all arguments are int32.

        Token m stands at `positions_M[m]` of the sequence whose blocks are `tables_BP[sequence_M[m]]`, behind tokens
        that the cache holds or that come before it here.
        """
        assert len(tokens_M) <= MOST_TOKENS, "too many tokens for a native pass"
        given = (tokens_M, sequence_M, positions_M, tables_BP, wanted_N)
        assert all(each.dtype == torch.int32 and each.is_contiguous() for each in given), "int32, contiguous"
        logits_NW = torch.empty(len(wanted_N), self.description.head.rows)
        call = Call(
            len(tokens_M),
            *(each.data_ptr() for each in (tokens_M, sequence_M, positions_M, tables_BP)),
            tables_BP.shape[1],
            *(each.data_ptr() for each in self.turn),
            len(wanted_N),
            wanted_N.data_ptr(),
            logits_NW.data_ptr(),
        )
        self.native.pass_run(self.handle, ctypes.byref(call), ctypes.c_int(torch.get_num_threads()))
        return logits_NW


def layer_of(block: nn.Module) -> Layer:
    """A layer's matrices by address."""
    assert isinstance(block, Block)
    return Layer(**dict(_attention(block.self_attn)), **dict(_feed_forward(block)))


def _attention(attention: Attention) -> Iterator[tuple[str, Matrix]]:
    if attention.config.q_lora_rank is None:
        yield "query", matrix_of(attention.q_proj)
    else:
        yield "query_down", matrix_of(attention.q_a_proj)
        yield "query_norm", plain(attention.q_a_layernorm.weight)
        yield "query", matrix_of(attention.q_b_proj)
    yield "latent_down", matrix_of(attention.kv_a_proj_with_mqa)
    yield "latent_norm", plain(attention.kv_a_layernorm.weight)
    yield "up", plain(attention.kv_b_proj.weight)
    yield "output", matrix_of(attention.o_proj)


def _feed_forward(block: Block) -> Iterator[tuple[str, Matrix]]:
    yield "input_norm", plain(block.input_layernorm.weight)
    yield "post_norm", plain(block.post_attention_layernorm.weight)
    dense: nn.Module | None = block.mlp
    if isinstance(block.mlp, MixtureOfExperts):
        yield "router", plain(block.mlp.gate.weight)
        experts: nn.Module = block.mlp.experts
        if isinstance(experts, QuantizedExperts):
            yield "expert_gate_inner", quantised(experts.gate_up_packed, experts.gate_up_scale, experts.bits)
            yield "expert_down", quantised(experts.down_packed, experts.down_scale, experts.bits)
        else:
            assert isinstance(experts, Experts)
            yield "expert_gate_inner", plain(experts.gate_up_proj)
            yield "expert_down", plain(experts.down_proj)
        dense = block.mlp.shared_experts
    if dense is not None:
        assert isinstance(dense, MLP | QuantizedMLP)
        yield "gate", matrix_of(dense.gate_proj)
        yield "inner", matrix_of(dense.up_proj)
        yield "down", matrix_of(dense.down_proj)


def matrix_of(projection: nn.Module) -> Matrix:
    """A projection's weights, plain or quantised."""
    if isinstance(projection, QuantizedLinear):
        return quantised(projection.packed, projection.scale, projection.bits)
    assert isinstance(projection, Linear)
    return plain(projection.weight)
