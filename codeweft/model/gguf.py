"""A model folder as one GGUF file for llama.cpp, with or without quantised weights.

In:  a model folder, and what its tokenizer is in llama.cpp's words (tokenizer/llama_cpp.py).  Out: a .gguf file.
Source: llama.cpp, architecture `deepseek2`: its loader and graph (src/models/deepseek2.cpp), 2026.
Unusual: `kv_b_proj` is cut in two, the keys' part transposed, because llama.cpp attends in the latent space. Rotary
pairs stay interleaved: this architecture expects them so. 4 and 8 bits are repacked as Q4_0 and Q8_0, the same values.
`q_lora_rank` is written as 0 where queries are not compressed: llama.cpp knows that by itself at 26 and 27 layers only.

Shapes: N rows, K columns, H heads, C latent, E experts, F expert hidden, D model.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codeweft.base.errors import ModelError
from codeweft.base.progress import bar
from codeweft.model.attention import LATENT_NORM_EPS
from codeweft.model.config import GROUP_LIMITED, ModelConfig
from codeweft.model.folder import read_config, weight_files
from codeweft.model.quantize import GROUP, Quantization
from codeweft.model.tensor_file import TensorFile
from codeweft.model.verify import planned_tensors

ARCHITECTURE = "deepseek2"
FILE_TYPES = {"f32": 0, "bf16": 32, "q4_0": 2, "q8_0": 7}  # general.file_type
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate": "ffn_gate_inp",
    **{f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")},
    **{f"mlp.shared_experts.{name}_proj": f"ffn_{name}_shexp" for name in ("gate", "up", "down")},
}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
ALWAYS_FLOAT32 = ("norm", "gate_inp")  # ends of names; llama.cpp multiplies these in float32


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the file: its name, its type, its shape, and its bytes, [..., bytes of a row], when asked."""

    name: str
    kind: str  # f32, bf16, q4_0 or q8_0
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


def write_gguf(folder: Path, path: Path, kind: str, vocabulary: Mapping[str, Any]) -> None:
    """Write a folder's model; `kind`, f32 or bf16, is the type of the matrices that are not quantised.

    `vocabulary` are the tokenizer's keys. ModelError for what llama.cpp cannot compute.
    """
    import gguf

    config = read_config(folder)
    refuse_what_llama_cannot(config)
    source = Source(folder, config)
    entries = list(entries_of(source, config, kind))
    how = Quantization.of(config)
    file_type = FILE_TYPES[kind] if how is None else FILE_TYPES["q4_0" if how.bits == 4 else "q8_0"]
    unfinished = path.with_name(f".{path.name}.partial-{os.getpid()}")
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    keys = {"general.name": folder.resolve().name, "general.file_type": file_type, "general.quantization_version": 2}
    for key, value in {**keys, **parameters(config), **vocabulary}.items():
        add_key(writer, key, value)
    total = 0
    for entry in entries:
        row = row_bytes(entry.kind, entry.shape[-1])
        shape = (*entry.shape[:-1], row)
        size = torch.Size(shape).numel()
        total += size
        quantised = gguf.GGMLQuantizationType[entry.kind.upper()]
        writer.add_tensor_info(entry.name, shape, np.dtype("uint8"), size, raw_dtype=quantised)
    try:
        writer.write_header_to_file(unfinished)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with bar(path.name, total / 1e6, "MB") as shown:
            for entry in entries:
                data = entry.make().contiguous().view(torch.uint8)
                writer.write_tensor_data(data.numpy())
                shown.advance(data.numel() / 1e6)
        writer.close()
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
        source.close()


def refuse_what_llama_cannot(config: ModelConfig) -> None:
    """ModelError for a model that llama.cpp would load and compute wrongly."""
    yarn = config.rope_scaling
    for wrong, what in (
        (config.rms_norm_eps != LATENT_NORM_EPS, f"rms_norm_eps is {config.rms_norm_eps}, not {LATENT_NORM_EPS}"),
        (yarn is not None and yarn.mscale != yarn.mscale_all_dim, "mscale differs from mscale_all_dim"),
        (yarn is not None and not yarn.mscale_all_dim, "mscale_all_dim is 0"),
        (config.moe_layer_freq != 1, f"moe_layer_freq is {config.moe_layer_freq}, not 1"),
        (config.n_routed_experts is not None and not config.n_shared_experts, "it has no shared experts"),
        (config.qk_nope_head_dim < 1, "qk_nope_head_dim is 0"),
    ):
        if wrong:
            raise ModelError(f"llama.cpp cannot compute this model: {what}.", "No published checkpoint is like that.")


def routes_otherwise(config: ModelConfig) -> bool:
    """Whether llama.cpp chooses experts by another rule: it scores a group by its two best, DeepSeek-V2 by the best."""
    return config.topk_method == GROUP_LIMITED and (config.n_group or 1) > 1


def parameters(config: ModelConfig) -> dict[str, Any]:
    """The keys of the architecture, from config.json."""
    experts, width = config.n_routed_experts, config.kv_lora_rank
    keys: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": 1,  # all heads share the latent
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "attention.q_lora_rank": config.q_lora_rank or 0,
        "attention.kv_lora_rank": width,
        "attention.key_length": width + config.qk_rope_head_dim,
        "attention.value_length": width,
        "attention.key_length_mla": config.qk_head_dim,
        "attention.value_length_mla": config.v_head_dim,
        "vocab_size": config.vocab_size,
        "leading_dense_block_count": config.num_hidden_layers if experts is None else config.first_k_dense_replace,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_shared_count": config.n_shared_experts or 0,
        "rope.dimension_count": config.qk_rope_head_dim,
        "rope.freq_base": float(config.rope_theta),
    }
    if experts is not None:
        keys["expert_count"], keys["expert_used_count"] = experts, config.num_experts_per_tok
        # norm_topk_prob replaces the factor here, in llama.cpp both would apply
        keys["expert_weights_scale"] = 1.0 if config.norm_topk_prob else float(config.routed_scaling_factor)
        keys["expert_weights_norm"] = config.norm_topk_prob
        keys["expert_gating_func"] = 1  # softmax
    if routes_otherwise(config):
        keys["expert_group_count"], keys["expert_group_used_count"] = config.n_group, config.topk_group
    if (yarn := config.rope_scaling) is not None:
        keys["rope.scaling.type"] = "yarn"
        keys["rope.scaling.factor"] = float(yarn.factor)
        keys["rope.scaling.original_context_length"] = yarn.original_max_position_embeddings
        keys["rope.scaling.yarn_beta_fast"] = float(yarn.beta_fast)
        keys["rope.scaling.yarn_beta_slow"] = float(yarn.beta_slow)
        keys["rope.scaling.yarn_log_multiplier"] = 0.1 * yarn.mscale_all_dim  # a tenth, only in this architecture
    return {f"{ARCHITECTURE}.{key}": value for key, value in keys.items()}


def add_key(writer: Any, key: str, value: Any) -> None:
    """A key with the type that llama.cpp expects of its value."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def row_bytes(kind: str, columns: int) -> int:
    """Bytes of a row: a group of 32 is a float16 scale and its integers."""
    if kind in ("f32", "bf16"):
        return columns * (4 if kind == "f32" else 2)
    return columns // GROUP * (2 + (16 if kind == "q4_0" else 32))


# --- tensors -------------------------------------------------------------------------------------------------------


class Source:
    """A folder's tensors by published name, whatever is quantised."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        opened = map(TensorFile, weight_files(folder))
        self.files = {name: file for file in opened for name in file.places}
        for name, tensor in planned_tensors(config).items():
            found = self.files[name].places[name].shape if name in self.files else None
            if found != tuple(tensor.shape):
                what = "is missing" if found is None else f"has shape {list(found)}, not {list(tensor.shape)}"
                raise ModelError(f"{folder}: tensor {name} {what}.", "See what is wrong: codeweft model verify.")

    def holds(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self.files

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self.files[name].places[name].shape

    def read(self, name: str) -> Tensor:
        """A copy of a tensor."""
        return self.files[name].read(name)

    def close(self) -> None:
        """Close the files."""
        for file in self.files.values():
            file.close()


def entries_of(source: Source, config: ModelConfig, kind: str) -> Iterator[Entry]:
    """All tensors of the file, in the order of the model."""
    for name, theirs in TOP.items():
        if name != "lm_head" or not config.tie_word_embeddings:
            yield _matrix(source, name, theirs, kind)
    for layer in range(config.num_hidden_layers):
        ours, block = f"model.layers.{layer}.", f"blk.{layer}."
        for name, theirs in LAYER.items():
            if source.holds(f"{ours}{name}.weight") or source.holds(f"{ours}{name}.packed"):
                yield _matrix(source, ours + name, block + theirs, kind)
        yield from _up_projections(source, config, ours, block, kind)
        if config.is_moe_layer(layer):
            yield from _experts(source, config, f"{ours}mlp.experts", block, kind)


def _matrix(source: Source, name: str, theirs: str, kind: str) -> Entry:
    theirs += ".weight"
    if source.holds(f"{name}.packed"):
        return _quantised(source, name, theirs, slice(None))
    kind = "f32" if theirs.removesuffix(".weight").endswith(ALWAYS_FLOAT32) else kind
    weight = f"{name}.weight"
    return Entry(theirs, kind, source.shape(weight), lambda: _plain(source.read(weight), kind))


def _up_projections(source: Source, config: ModelConfig, ours: str, block: str, kind: str) -> Iterator[Entry]:
    """`kv_b_proj` as the keys' part [H, C, N] and the values' part [H, V, C]."""
    name = f"{ours}self_attn.kv_b_proj.weight"
    heads, nope, value = config.num_attention_heads, config.qk_nope_head_dim, config.v_head_dim

    def parts() -> tuple[Tensor, ...]:
        return source.read(name).unflatten(0, (heads, nope + value)).split([nope, value], dim=1)

    latent = config.kv_lora_rank
    yield Entry(f"{block}attn_k_b.weight", kind, (heads, latent, nope), lambda: _plain(parts()[0].mT, kind))
    yield Entry(f"{block}attn_v_b.weight", kind, (heads, value, latent), lambda: _plain(parts()[1], kind))


def _experts(source: Source, config: ModelConfig, ours: str, block: str, kind: str) -> Iterator[Entry]:
    """The experts of a layer, stacked, gate and up apart."""
    count, inner, hidden = config.n_routed_experts or 0, config.moe_intermediate_size, config.hidden_size
    for each, rows in (("gate", slice(0, inner)), ("up", slice(inner, None)), ("down", slice(None))):
        theirs = f"{block}ffn_{each}_exps.weight"
        stacked = f"{ours}.{'down' if each == 'down' else 'gate_up'}_proj"
        if source.holds(f"{stacked}.packed"):
            yield _quantised(source, stacked, theirs, rows)
            continue
        shape = (count, hidden, inner) if each == "down" else (count, inner, hidden)
        if source.holds(stacked):  # of a quantised folder, but its rows are no whole groups
            make = partial(_part, source, stacked, rows, kind)
        else:
            make = partial(_stacked, source, [f"{ours}.{expert}.{each}_proj.weight" for expert in range(count)], kind)
        yield Entry(theirs, kind, shape, make)


def _part(source: Source, name: str, rows: slice, kind: str) -> Tensor:
    return _plain(source.read(name)[:, rows], kind)


def _stacked(source: Source, names: Sequence[str], kind: str) -> Tensor:
    return torch.stack([_plain(source.read(name), kind) for name in names])


def _plain(tensor: Tensor, kind: str) -> Tensor:
    return tensor.to(torch.float32 if kind == "f32" else torch.bfloat16)


def _quantised(source: Source, name: str, theirs: str, rows: slice) -> Entry:
    """A matrix or a stack of them; `rows` of the last axis but one."""
    packed, scale = source.shape(f"{name}.packed"), source.shape(f"{name}.scale")
    columns = scale[-1] * GROUP
    kind = "q4_0" if packed[-1] * 2 == columns else "q8_0"
    count = len(range(*rows.indices(packed[-2])))

    def make() -> Tensor:
        whole, scales = source.read(f"{name}.packed")[..., rows, :], source.read(f"{name}.scale")[..., rows, :]
        blocks = whole.contiguous().view(torch.uint8).unflatten(-1, (scale[-1], -1))
        return torch.cat((scales.contiguous()[..., None].view(torch.uint8), blocks), dim=-1).flatten(-2)

    return Entry(theirs, kind, (*packed[:-2], count, columns), make)
