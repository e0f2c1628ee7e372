"""The architecture of a DeepSeek-V2 model, under the field names of the published `config.json`.

In:  the text or the dictionary of a Hugging Face `config.json`.  Out: a frozen, checked `ModelConfig`; the same text.

Source: DeepSeek-V2 §2, §3.1.2, App. B.1; defaults are DeepSeek-Coder-V2-Lite's before its context was extended.
Unusual: the text as read is kept, so that a folder is written back byte for byte and unknown keys survive; only fields
that differ from what the text says are rewritten. The latent norms do not follow `rms_norm_eps` (see attention.py).
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from codeweft.base.errors import ModelError

CAUSAL_LM = "DeepseekV2ForCausalLM"
GREEDY, GROUP_LIMITED = "greedy", "group_limited_greedy"


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """YaRN as the published code reads it; defaults are that code's, not a checkpoint's."""

    factor: float = 40.0
    original_max_position_embeddings: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0

    @staticmethod
    def from_json(section: Mapping[str, Any]) -> "RopeScaling | None":
        """Read `rope_scaling` (or `rope_parameters`); None for plain RoPE, ModelError for another kind of scaling."""
        kind = section.get("rope_type", section.get("type", "default"))
        if kind == "default":
            return None
        if kind != "yarn":
            raise ModelError(f"config.json: rope_scaling type {kind!r} is not known.", "Use yarn, or null for none.")
        for key in ("factor", "original_max_position_embeddings"):
            if not isinstance(section.get(key), int | float):
                raise ModelError(f"config.json: rope_scaling has no number {key}.", "Take it from the checkpoint.")
        for key, plain in (("attention_factor", None), ("truncate", True)):
            if section.get(key, plain) != plain:
                raise ModelError(f"config.json: rope_scaling.{key} is not part of DeepSeek-V2.", f"Remove {key}.")
        names = [each.name for each in dataclasses.fields(RopeScaling)]
        return RopeScaling(**{name: section[name] for name in names if section.get(name) is not None})


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes and switches of one model; see the properties for what follows from them."""

    vocab_size: int = 102400
    hidden_size: int = 2048
    intermediate_size: int = 10944  # of the dense layers
    moe_intermediate_size: int = 1408  # of one expert
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    n_shared_experts: int | None = 2
    n_routed_experts: int | None = 64  # None: every layer is dense
    routed_scaling_factor: float = 1.0
    kv_lora_rank: int = 512
    q_lora_rank: int | None = None  # None: queries are not compressed
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    qk_nope_head_dim: int = 128
    topk_method: str = GREEDY
    n_group: int | None = 1
    topk_group: int | None = 1
    num_experts_per_tok: int | None = 6
    moe_layer_freq: int = 1
    first_k_dense_replace: int = 1
    norm_topk_prob: bool = False
    aux_loss_alpha: float = 0.001
    seq_aux: bool = True
    max_position_embeddings: int = 4096
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    bos_token_id: int | None = 100000
    eos_token_id: int | tuple[int, ...] | None = 100001
    pad_token_id: int | None = None
    torch_dtype: str = "bfloat16"
    fim_rate: float | None = None  # share of code documents trained with FIM; None: the folder does not say
    stage: str | None = None  # the stage that wrote the weights
    source: str = field(default="", repr=False, compare=False)  # config.json as read

    def __post_init__(self) -> None:
        check(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "ModelConfig":
        """Read a parsed `config.json`; the key order and unknown keys are kept."""
        return ModelConfig.from_text(json.dumps(content, indent=2) + "\n")

    @staticmethod
    def from_text(text: str) -> "ModelConfig":
        """Read a `config.json`; ModelError names the key that is missing, of the wrong type, or not supported."""
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelError(f"config.json is not JSON: {error}.", "Fetch it again.") from error
        if not isinstance(content, dict):
            raise ModelError("config.json does not hold an object.", "Fetch it again.")
        return ModelConfig(**_values(content), source=text)

    def to_json(self) -> dict[str, Any]:
        """The dictionary of `config.json`: what was read, with changed fields rewritten in place."""
        content = json.loads(self.source) if self.source else dict(_FRESH)
        before = _values(content) if self.source else {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if each.name != "source" and (not before or before.get(each.name, each.default) != value):
                _put(content, each.name, list(value) if isinstance(value, tuple) else value)
        return content

    def to_text(self) -> str:
        """The text of `config.json`; exactly what was read where nothing changed."""
        content = self.to_json()
        if self.source and json.loads(self.source) == content:
            return self.source
        return json.dumps(content, indent=2) + "\n"

    @property
    def qk_head_dim(self) -> int:
        """Width of one query or key head: the part without position and the rotary part."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def cache_width(self) -> int:
        """Elements cached per token and layer: latent and rotary key (DeepSeek-V2 Table 1)."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    def is_moe_layer(self, layer: int) -> bool:
        """Whether layer `layer`, counted from 0, holds experts."""
        experts = self.n_routed_experts is not None
        return experts and layer >= self.first_k_dense_replace and layer % self.moe_layer_freq == 0

    @property
    def moe_layers(self) -> int:
        """How many layers hold experts."""
        return sum(self.is_moe_layer(layer) for layer in range(self.num_hidden_layers))

    @property
    def attention_parameters(self) -> int:
        """Parameters of one attention layer, its two latent norms included."""
        wide = self.num_attention_heads * self.qk_head_dim
        query = self.hidden_size * wide
        if self.q_lora_rank is not None:
            query = self.q_lora_rank * (self.hidden_size + 1 + wide)
        down = self.hidden_size * self.cache_width + self.kv_lora_rank
        up = self.kv_lora_rank * self.num_attention_heads * (self.qk_nope_head_dim + self.v_head_dim)
        return query + down + up + self.num_attention_heads * self.v_head_dim * self.hidden_size

    def _parameters(self, experts_per_layer: int) -> int:
        """All parameters, with so many routed experts counted in each layer that has experts."""
        dense = 3 * self.hidden_size * self.intermediate_size
        expert = 3 * self.hidden_size * self.moe_intermediate_size
        sparse = (experts_per_layer + (self.n_shared_experts or 0)) * expert
        sparse += self.hidden_size * (self.n_routed_experts or 0)
        each = self.attention_parameters + 2 * self.hidden_size
        ends = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2) + self.hidden_size
        dense_layers = self.num_hidden_layers - self.moe_layers
        return self.num_hidden_layers * each + dense_layers * dense + self.moe_layers * sparse + ends

    @property
    def total_parameters(self) -> int:
        """All parameters of the model."""
        return self._parameters(self.n_routed_experts or 0)

    @property
    def activated_parameters(self) -> int:
        """Parameters that take part in one token, embedding table and head included."""
        return self._parameters(self.num_experts_per_tok or 0)


_FRESH: dict[str, Any] = {"architectures": [CAUSAL_LM], "model_type": "deepseek_v2", "attention_bias": False}
_FRESH |= {"attention_dropout": 0.0, "hidden_act": "silu", "scoring_func": "softmax", "use_cache": True}

_REQUIRED = (  # a wrong guess for one of these would give another model
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "kv_lora_rank"),
    *("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"),
)
_REQUIRED_WITH_EXPERTS = ("moe_intermediate_size", "num_experts_per_tok", "first_k_dense_replace")
_FIXED: dict[str, Any] = {"attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "hidden_act": "silu"}
_FIXED |= {"scoring_func": "softmax", "ep_size": 1, "pretraining_tp": 1}
_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
_KINDS |= {"None": (type(None),), "tuple[int, ...]": (list, tuple)}


def _values(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a parsed config.json gives, `source` left out."""
    _refuse_other_architectures(content)
    experts = content.get("n_routed_experts")
    for key in _REQUIRED + (_REQUIRED_WITH_EXPERTS if experts is not None else ()):
        if not isinstance(content.get(key), int):
            raise ModelError(f"config.json has no whole number {key}.", "Take it from the checkpoint.")
    if "q_lora_rank" not in content:
        raise ModelError("config.json has no q_lora_rank.", "Write null where queries are not compressed.")
    nested = content.get("rope_parameters") or content.get("rope_scaling") or {}
    section = content.get("codeweft") or {}
    for key, table in (("rope_scaling", nested), ("codeweft", section)):
        if not isinstance(table, Mapping):
            raise ModelError(f"config.json: {key} is {table!r}, not a table.", "Take it from the checkpoint.")
    values = {each.name: content[each.name] for each in dataclasses.fields(ModelConfig) if each.name in content}
    values |= {"n_routed_experts": experts, "n_shared_experts": content.get("n_shared_experts")}
    values["rope_scaling"] = RopeScaling.from_json(nested)
    values["rope_theta"] = nested.get("rope_theta", content.get("rope_theta", 10000.0))
    values["torch_dtype"] = content.get("torch_dtype") or content.get("dtype") or "bfloat16"
    values["fim_rate"], values["stage"] = section.get("fim_rate"), section.get("stage")
    if values.get("topk_method") == "gready":  # the spelling of the first published files
        values["topk_method"] = GREEDY
    for each in dataclasses.fields(ModelConfig):
        written = each.type.__name__ if isinstance(each.type, type) else str(each.type)
        accepted = [kind for name in written.split(" | ") for kind in _KINDS.get(name, (object,))]
        if each.name in values and not isinstance(values[each.name], tuple(accepted)):
            found = values[each.name]
            raise ModelError(f"config.json: {each.name} is {found!r}, not of type {written}.", "Correct it.")
    if isinstance(values.get("eos_token_id"), list):
        values["eos_token_id"] = tuple(values["eos_token_id"])
    return values


def _refuse_other_architectures(content: Mapping[str, Any]) -> None:
    names = content.get("architectures") or [CAUSAL_LM]
    if names != [CAUSAL_LM] or content.get("model_type", "deepseek_v2") != "deepseek_v2":
        found = ", ".join(map(str, names)) if names != [CAUSAL_LM] else content["model_type"]
        raise ModelError(f"config.json names the architecture {found}.", f"Only {CAUSAL_LM} can be loaded here.")
    for key, only in _FIXED.items():
        if content.get(key, only) not in (only, None):
            found = content[key]
            raise ModelError(f"config.json: {key} {found!r} is not supported.", f"Published checkpoints have {only!r}.")
    heads = content.get("num_key_value_heads")
    if heads not in (None, content.get("num_attention_heads")):
        raise ModelError("config.json: num_key_value_heads differs from num_attention_heads.", "Make them equal.")


def _put(content: dict[str, Any], name: str, value: Any) -> None:
    """Write one field where this file keeps it: nested rope keys and our own section included."""
    if name in ("fim_rate", "stage"):
        if value is not None or "codeweft" in content:
            content["codeweft"] = {**(content.get("codeweft") or {}), name: value}
    elif name == "torch_dtype" and "dtype" in content:
        content["dtype"] = value
    elif name == "rope_theta" and "rope_theta" in (content.get("rope_parameters") or {}):
        content["rope_parameters"] = {**content["rope_parameters"], "rope_theta": value}
    elif name == "rope_scaling" and content.get("rope_parameters"):
        theta = content["rope_parameters"].get("rope_theta", 10000.0)
        yarn = {"rope_type": "default"} if value is None else {"rope_type": "yarn", **dataclasses.asdict(value)}
        content["rope_parameters"] = {"rope_theta": theta, **yarn}
    elif name == "rope_scaling":
        content[name] = None if value is None else {"type": "yarn", **dataclasses.asdict(value)}
    else:
        content[name] = value
        if name == "num_attention_heads":
            content["num_key_value_heads"] = value


def check(config: ModelConfig) -> None:
    """Refuse sizes that no model can have, naming the field and what would be right."""
    problems = [
        (f"{name} is {getattr(config, name)}", "It must be at least 1.")
        for name in (*_REQUIRED, "max_position_embeddings", "moe_layer_freq")
        if name != "qk_nope_head_dim" and getattr(config, name) < 1
    ]
    if config.qk_nope_head_dim < 0:
        problems.append((f"qk_nope_head_dim is {config.qk_nope_head_dim}", "It must not be negative."))
    if config.qk_rope_head_dim % 2:
        problems.append((f"qk_rope_head_dim is {config.qk_rope_head_dim}", "Rotation needs pairs: an even number."))
    if config.fim_rate is not None and not 0 <= config.fim_rate <= 1:
        problems.append((f"codeweft.fim_rate is {config.fim_rate}", "It is a share from 0 to 1."))
    if config.n_routed_experts is not None:
        problems += _routing_problems(config, config.n_routed_experts)
    if problems:
        raise ModelError(f"model configuration: {problems[0][0]}.", problems[0][1])


def _routing_problems(config: ModelConfig, experts: int) -> list[tuple[str, str]]:
    chosen, groups, kept = config.num_experts_per_tok or 0, config.n_group or 0, config.topk_group or 0
    if not 1 <= chosen <= experts:
        return [(f"num_experts_per_tok is {chosen} of {experts} experts", "Choose at least 1 and at most all.")]
    if config.moe_intermediate_size < 1:
        return [(f"moe_intermediate_size is {config.moe_intermediate_size}", "It must be at least 1.")]
    if config.topk_method not in (GREEDY, GROUP_LIMITED):
        return [(f"topk_method is {config.topk_method!r}", f"Known: {GREEDY}, {GROUP_LIMITED}.")]
    if config.topk_method == GREEDY:
        return []
    if groups < 1 or experts % groups:
        return [(f"n_group is {groups} for {experts} experts", "It must divide their number.")]
    if not 1 <= kept <= groups or kept * (experts // groups) < chosen:
        return [(f"topk_group is {kept}", f"It must leave at least {chosen} experts in at most {groups} groups.")]
    return []
