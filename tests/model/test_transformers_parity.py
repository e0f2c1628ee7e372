"""The whole model against transformers' DeepseekV2ForCausalLM, an implementation that is not ours."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import DeepseekV2ForCausalLM

from codeweft.model.config import RopeScaling
from codeweft.model.folder import load_folder, save_folder

YARN = {"factor": 4.0, "original_max_position_embeddings": 32}
GROUPS = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "routed_scaling_factor": 16.0}
DENSE = {"first_k_dense_replace": 3}
CASES: dict[str, dict[str, Any]] = {
    "lite_like": {"rope_scaling": RopeScaling(**YARN, mscale=0.707, mscale_all_dim=0.707)},
    "full_like": {"q_lora_rank": 28, **GROUPS, "rope_scaling": RopeScaling(**YARN, mscale=1.0, mscale_all_dim=1.0)},
    "no_yarn": {"q_lora_rank": 12},
    "groups_without_yarn": GROUPS,
    "unequal_mscales": {"rope_scaling": RopeScaling(**YARN, mscale=1.0, mscale_all_dim=0.707)},
    "mscale_of_all_dimensions_off": {"rope_scaling": RopeScaling(**YARN, mscale=1.0, mscale_all_dim=0.0)},
    "narrow_ramp": {"rope_scaling": RopeScaling(factor=8.0, original_max_position_embeddings=16, beta_fast=4.0)},
    # their rotation cannot view odd nope and latent widths as pairs; those two are even here
    "odd_sizes": {"vocab_size": 83, "hidden_size": 21, "num_attention_heads": 3, "kv_lora_rank": 14, "v_head_dim": 5}
    | {"qk_nope_head_dim": 4, "qk_rope_head_dim": 6, "moe_intermediate_size": 11, "intermediate_size": 13},
    "values_wider_than_keys": {"v_head_dim": 27, "n_routed_experts": 5, "num_experts_per_tok": 5},
    "dense_only": DENSE,
    "tied_head": {"tie_word_embeddings": True},
    "tied_dense_low_rank_query": {"tie_word_embeddings": True, "q_lora_rank": 9, **DENSE},
    "all_layers_sparse_other_eps": {"first_k_dense_replace": 0, "rms_norm_eps": 1e-3, "n_shared_experts": 1},
}


def theirs(folder: Path) -> Any:
    plain: dict[str, Any] = {
        "attn_implementation": "eager",
        "experts_implementation": "eager",
    }  # no kernels that refuse odd sizes
    return DeepseekV2ForCausalLM.from_pretrained(folder, dtype=torch.float32, **plain).eval()


@pytest.mark.parametrize("case", CASES)
def test_transformers_loads_our_folder_and_computes_the_same_logits(
    case: str, small: Callable, random_model: Callable, tmp_path: Path
):
    """In fp32, at positions up to three times the original window."""
    ours = random_model(small(**CASES[case]))
    save_folder(ours, tmp_path, dtype=torch.float32)
    tokens = torch.randint(0, ours.config.vocab_size, (2, 100), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = theirs(tmp_path)(tokens).logits, ours(tokens).logits_BTW
    assert expected.std() > 0.1  # logits that say nothing would agree too
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_logits_agree_at_sixteen_times_the_original_window_for_more_weights(
    case: str, small: Callable, random_model: Callable, tmp_path: Path
):
    """512 positions of three sequences, three drawings of weights; in fp32."""
    for seed in (11, 12, 13):
        ours = random_model(small(**CASES[case], max_position_embeddings=512), seed=seed)
        save_folder(ours, tmp_path / str(seed), dtype=torch.float32)
        tokens = torch.randint(0, ours.config.vocab_size, (3, 512), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            expected, got = theirs(tmp_path / str(seed))(tokens).logits, ours(tokens).logits_BTW
        assert expected.std() > 0.1
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_we_load_the_folder_of_transformers_and_compute_the_same_logits(
    case: str, small: Callable, random_model: Callable, tmp_path: Path
):
    save_folder(random_model(small(**CASES[case]), seed=3), tmp_path / "ours", dtype=torch.float32)
    their_model = theirs(tmp_path / "ours")
    their_model.save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    ours = load_folder(tmp_path / "theirs", dtype=None)
    tokens = torch.randint(0, ours.config.vocab_size, (2, 70), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens).logits_BTW, their_model(tokens).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_every_gradient_agrees_with_transformers(
    case: str, small: Callable, random_model: Callable, tmp_path: Path, path: str
):
    ours = random_model(small(**CASES[case])).train()
    save_folder(ours, tmp_path, dtype=torch.float32)
    reference = theirs(tmp_path).train()
    tokens = torch.randint(0, ours.config.vocab_size, (2, 48), generator=torch.Generator().manual_seed(5))
    for logits in (ours(tokens).logits_BTW, reference(tokens).logits):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    expected = {name: each.grad for name, each in reference.named_parameters()}
    got = {name: each.grad for name, each in ours.named_parameters()}
    assert got.keys() == expected.keys()
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, expected[name], atol=2e-5, rtol=1e-3, msg=lambda text, n=name: n + text)


def test_a_sharded_folder_of_transformers_is_byte_identical_after_load_and_save(
    small: Callable, random_model: Callable, tmp_path: Path
):
    save_folder(random_model(small(**CASES["full_like"])), tmp_path / "ours")
    written = DeepseekV2ForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.bfloat16)
    written.save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    save_folder(load_folder(tmp_path / "theirs"), tmp_path / "again", like=tmp_path / "theirs")
    names = {path.name for path in (tmp_path / "theirs").iterdir()}
    assert len([name for name in names if name.endswith(".safetensors")]) > 2
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name


def test_transformers_generates_from_our_bfloat16_folder_without_a_warning_about_weights(
    small: Callable, random_model: Callable, tmp_path: Path
):
    """Every tensor on disk has a place in their model, and every parameter of theirs is on disk."""
    save_folder(random_model(small(**CASES["lite_like"])), tmp_path, max_shard_bytes=30_000)
    loaded: Any = DeepseekV2ForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    model, report = loaded
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert model.dtype == torch.bfloat16
    assert model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False, pad_token_id=0).shape[1] > 3
