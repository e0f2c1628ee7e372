"""Reading, checking and writing `config.json`."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from codeweft.base.errors import ModelError
from codeweft.model.config import ModelConfig, RopeScaling

LITE: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV2Config"},
    "aux_loss_alpha": 0.001,
    "bos_token_id": 100000,
    "eos_token_id": 100001,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 10944,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v2",
    "moe_intermediate_size": 1408,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "pretraining_tp": 1,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "seq_aux": True,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "greedy",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.39.3",
    "use_cache": True,
    "v_head_dim": 128,
    "vocab_size": 102400,
}
FULL = {
    **LITE,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "n_group": 8,
    "n_routed_experts": 160,
    "num_attention_heads": 128,
    "num_hidden_layers": 60,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "routed_scaling_factor": 16.0,
    "topk_group": 3,
    "topk_method": "group_limited_greedy",
}


def test_parameter_counts_equal_the_published_ones():
    """15,706,484,224 is what the Lite checkpoint holds; 2.66B and 21.4B are activated with embedding and head."""
    lite, full = ModelConfig.from_json(LITE), ModelConfig.from_json(FULL)
    assert lite.total_parameters == 15_706_484_224
    assert full.total_parameters == 235_741_434_880
    assert round(lite.activated_parameters / 1e9, 2) == 2.66
    assert round(full.activated_parameters / 1e9, 1) == 21.4


def test_parameter_count_equals_the_tensors_of_a_built_model(small: Callable, random_model: Callable):
    for changes in ({}, {"q_lora_rank": 9, "n_shared_experts": None}, {"tie_word_embeddings": True}):
        config = small(**changes)
        assert config.total_parameters == sum(each.numel() for each in random_model(config).parameters())


def test_cached_elements_per_token_equal_the_papers_table():
    """DeepSeek-V2 Table 9: 15.6K at 16B, 34.6K at 250B."""
    for content, elements in ((LITE, 15_552), (FULL, 34_560)):
        config = ModelConfig.from_json(content)
        assert config.cache_width * config.num_hidden_layers == elements


@pytest.mark.parametrize("indent", [2, 4, None])
def test_text_comes_back_unchanged_whatever_its_layout(indent: int | None):
    text = json.dumps({"first": {"unknown": [1, 2]}, **LITE, "last": None}, indent=indent)
    assert ModelConfig.from_text(text).to_text() == text


def test_a_changed_field_is_rewritten_in_place_and_unknown_keys_stay():
    config = ModelConfig.from_json({**LITE, "mine": 7})
    changed = dataclasses.replace(config, max_position_embeddings=8192, stage="longcontext", fim_rate=0.5)
    content = json.loads(changed.to_text())
    expected = {**LITE, "mine": 7, "max_position_embeddings": 8192}
    assert content == {**expected, "codeweft": {"fim_rate": 0.5, "stage": "longcontext"}}
    assert list(content) == [*LITE, "mine", "codeweft"]


def test_a_fresh_configuration_survives_writing_and_reading(small: Callable):
    yarn = RopeScaling(factor=8.0, original_max_position_embeddings=64, mscale=0.707, mscale_all_dim=0.707)
    config = small(rope_scaling=yarn, rope_theta=5000.0, fim_rate=0.5, stage="pretrain", eos_token_id=(1, 2))
    assert ModelConfig.from_text(config.to_text()) == config
    assert json.loads(config.to_text())["num_key_value_heads"] == 4


def test_all_spellings_of_rope_scaling_mean_the_same():
    yarn = LITE["rope_scaling"]
    nested = {**{key: value for key, value in yarn.items() if key != "type"}, "rope_type": "yarn", "rope_theta": 10000}
    without = {key: value for key, value in LITE.items() if key not in ("rope_scaling", "rope_theta")}
    old = ModelConfig.from_json(LITE)
    assert ModelConfig.from_json({**without, "rope_parameters": nested}) == old
    assert ModelConfig.from_json({**LITE, "rope_scaling": {**yarn, "rope_type": "yarn"}}) == old
    plain = ModelConfig.from_json({**without, "rope_parameters": {"rope_type": "default", "rope_theta": 500}})
    assert (plain.rope_scaling, plain.rope_theta) == (None, 500)


def test_the_first_published_spelling_of_greedy_is_understood_and_kept():
    config = ModelConfig.from_json({**LITE, "topk_method": "gready"})
    assert config.topk_method == "greedy"
    assert config.to_json()["topk_method"] == "gready"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"model_type": "llama"}, "llama"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"scoring_func": "sigmoid"}, "scoring_func"),
        ({"num_key_value_heads": 4}, "num_key_value_heads"),
        ({"hidden_size": "2048"}, "hidden_size"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"qk_rope_head_dim": 63}, "qk_rope_head_dim"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "linear"),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, "original_max_position_embeddings"),
        ({"rope_scaling": "yarn"}, "rope_scaling"),
        ({"codeweft": [1]}, "codeweft"),
        ({"num_experts_per_tok": 65}, "num_experts_per_tok"),
        ({"topk_method": "noaux_tc"}, "noaux_tc"),
        ({"topk_method": "group_limited_greedy", "n_group": 7}, "n_group"),
        ({"topk_method": "group_limited_greedy", "n_group": 32, "topk_group": 2}, "topk_group"),
        ({"codeweft": {"fim_rate": 2}}, "fim_rate"),
        ({"norm_topk_prob": "no"}, "norm_topk_prob"),
    ],
)
def test_what_cannot_be_is_refused_by_name_with_a_next_step(changes: dict[str, Any], words: str):
    with pytest.raises(ModelError, match=words) as caught:
        ModelConfig.from_json({**LITE, **changes})
    assert caught.value.next_step


@pytest.mark.parametrize("key", ["hidden_size", "q_lora_rank", "num_experts_per_tok", "v_head_dim"])
def test_a_missing_size_is_never_guessed(key: str):
    with pytest.raises(ModelError, match=key):
        ModelConfig.from_json({name: value for name, value in LITE.items() if name != key})
