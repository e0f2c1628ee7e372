"""Adapter folders against PEFT over transformers' own model, and against plain arithmetic on their tensors."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DeepseekV2ForCausalLM

from codeweft.base.errors import ModelError
from codeweft.model.config import ModelConfig
from codeweft.model.folder import disk_tensors, load_folder, save_folder
from codeweft.model.transformer import Transformer
from codeweft.train import lora
from codeweft.train.adapter_folder import CONFIG, WEIGHTS, load_adapter, save_adapter
from codeweft.train.config import LoraConfig

SHAPE = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=56,
    moe_intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=2,
    n_shared_experts=2,
    n_routed_experts=4,
    num_experts_per_tok=2,
    kv_lora_rank=16,
    qk_rope_head_dim=8,
    qk_nope_head_dim=8,
    v_head_dim=8,
)
ATTENTION = ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
EVERY_LAYER = [f"model.layers.{layer}" for layer in range(3)]
TARGETS: dict[str, tuple[str, ...]] = {
    "all": (),
    "attention": ATTENTION,
    "dense_and_shared": ("gate_proj", "up_proj", "down_proj"),
    "one_of_the_stacks": ("experts.down_proj",),
    "the_other_stack": ("experts.gate_up_proj", "kv_b_proj", "up_proj"),
}
TOKENS = torch.randint(0, 64, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft", reason="toolchain: peft is not installed")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model folder in float32."""
    model = Transformer(SHAPE)
    model.init_weights(0.2, torch.Generator().manual_seed(0))
    save_folder(model, tmp_path / "base", dtype=torch.float32)
    return tmp_path / "base"


def ours(base: Path, targets: tuple[str, ...] | None = None, rank: int = 3, alpha: float = 12) -> Transformer:
    """Their model with adapters that look trained, if targets are given."""
    model = load_folder(base, dtype=None)
    if targets is not None:
        lora.add(model, LoraConfig(rank, alpha, targets), seed=5)
        generator = torch.Generator().manual_seed(2)
        for _, adapter in lora.adapted(model):
            adapter.lora_B.data.normal_(0, 0.1, generator=generator)
    return model


def theirs(base: Path) -> Any:
    plain: dict[str, Any] = {"attn_implementation": "eager", "experts_implementation": "eager"}
    return DeepseekV2ForCausalLM.from_pretrained(base, dtype=torch.float32, **plain).eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    output = model(TOKENS)
    return output.logits_BTW if hasattr(output, "logits_BTW") else output.logits


def rewritten(folder: Path, **changes: Any) -> Path:
    """The folder with other settings."""
    settings = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(settings | changes))
    return folder


@pytest.mark.parametrize("case", TARGETS)
def test_peft_opens_our_folder_and_computes_the_same_logits(case: str, base: Path, tmp_path: Path, peft: Any):
    model = ours(base, TARGETS[case])
    save_adapter(model, tmp_path / "adapter", base)
    opened = peft.PeftModel.from_pretrained(theirs(base), tmp_path / "adapter")
    torch.testing.assert_close(logits(opened), logits(model), atol=1e-4, rtol=0)
    assert (logits(model) - logits(ours(base))).abs().max() > 0.1
    merged = opened.merge_and_unload()
    torch.testing.assert_close(logits(merged), logits(lora.merged(model)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", TARGETS)
def test_peft_finds_every_tensor_of_our_folder_and_misses_none(case: str, base: Path, tmp_path: Path, peft: Any):
    save_adapter(ours(base, TARGETS[case]), tmp_path / "ours", base)
    peft.PeftModel.from_pretrained(theirs(base), tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    expected, got = load_file(tmp_path / "theirs" / WEIGHTS), load_file(tmp_path / "ours" / WEIGHTS)
    assert got.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in got.items())


FROM_PEFT: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": [*ATTENTION]},
    "pattern": {"target_modules": r".*\.(q_proj|o_proj)", "lora_alpha": 5},
    "routed_by_their_old_names": {"target_modules": ["kv_b_proj", "gate_proj", "up_proj", "down_proj"]},
    "parameters": {"target_modules": ["o_proj"], "target_parameters": ["experts.gate_up_proj", "up_proj.weight"]},
    "other_ranks": {
        "target_modules": ["q_proj", "o_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 5, "o_proj": 2},
        "alpha_pattern": {"layers.[02].self_attn.q_proj": 7},
    },
    "some_layers": {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
}


@pytest.mark.parametrize("case", FROM_PEFT)
def test_we_load_what_peft_saved_and_save_it_so_that_peft_loads_it_again(
    case: str, base: Path, tmp_path: Path, peft: Any
):
    torch.manual_seed(3)
    settings = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "init_lora_weights": False} | FROM_PEFT[case]
    trained = peft.get_peft_model(theirs(base), peft.LoraConfig(**settings)).eval()
    trained.save_pretrained(tmp_path / "theirs")
    model = ours(base)
    before = logits(model)
    assert load_adapter(model, tmp_path / "theirs") == len(lora.adapted(model))
    torch.testing.assert_close(logits(model), logits(trained), atol=1e-4, rtol=0)
    assert (logits(model) - before).abs().max() > 0.05
    save_adapter(model, tmp_path / "again", base)
    opened = peft.PeftModel.from_pretrained(theirs(base), tmp_path / "again")
    torch.testing.assert_close(logits(opened), logits(trained), atol=1e-4, rtol=0)


def single(folder: Path, seed: int = 4) -> dict[str, Tensor]:
    """An older adapter: tensors for each routed expert's own projections, as the checkpoints have them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in (1, 2):
        for expert in range(4):
            for name, outputs, inputs in (("gate_proj", 24, 32), ("up_proj", 24, 32), ("down_proj", 32, 24)):
                path = f"base_model.model.model.layers.{layer}.mlp.experts.{expert}.{name}"
                tensors[f"{path}.lora_A.weight"] = torch.randn(2, inputs, generator=generator) / 5
                tensors[f"{path}.lora_B.weight"] = torch.randn(outputs, 2, generator=generator) / 5
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 3, "lora_dropout": 0.0}
    settings |= {"target_modules": ["gate_proj", "up_proj", "down_proj"], "bias": "none"}
    (folder / CONFIG).write_text(json.dumps(settings))
    return tensors


@pytest.mark.parametrize("without", ["nothing", "up_proj", "gate_proj", "down_proj"])
def test_adapters_of_single_experts_are_added_to_the_tensors_of_their_names(without: str, base: Path, tmp_path: Path):
    tensors = {name: tensor for name, tensor in single(tmp_path / "old").items() if without not in name}
    save_file(tensors, tmp_path / "old" / WEIGHTS)
    model = ours(base)
    before = {name: tensor.clone() for name, tensor in disk_tensors(model)}
    assert load_adapter(model, tmp_path / "old") == 2 * (1 if without == "down_proj" else 2)
    for name, tensor in disk_tensors(lora.merge_(model)):
        path = f"base_model.model.{name.removesuffix('.weight')}"
        expected = before[name]
        if f"{path}.lora_A.weight" in tensors:
            expected = expected + 1.5 * tensors[f"{path}.lora_B.weight"] @ tensors[f"{path}.lora_A.weight"]
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)


def test_peft_reads_adapters_of_single_experts_as_we_do(base: Path, tmp_path: Path, peft: Any):
    single(tmp_path / "old")
    model = ours(base)
    load_adapter(model, tmp_path / "old")
    opened = peft.PeftModel.from_pretrained(theirs(base), tmp_path / "old")
    torch.testing.assert_close(logits(opened), logits(model), atol=1e-4, rtol=0)


def test_the_tensors_on_disk_say_what_is_added_to_which_weight_of_transformers(base: Path, tmp_path: Path):
    """Names and shapes by hand: projections as matrices; of stacks, A holds expert after expert, B rank after rank."""
    model = ours(base, ())
    save_adapter(model, tmp_path)
    tensors, reference = load_file(tmp_path / WEIGHTS), theirs(base)
    names = {name.rsplit(".lora_", 1)[0].removeprefix("base_model.model.") for name in tensors}
    attention = {f"{layer}.self_attn.{name}" for layer in EVERY_LAYER for name in ATTENTION}
    feed_forward = ["model.layers.0.mlp", *(f"{layer}.mlp.shared_experts" for layer in EVERY_LAYER[1:])]
    dense = {f"{path}.{name}" for path in feed_forward for name in ("gate_proj", "up_proj", "down_proj")}
    stacks = {f"{layer}.mlp.experts" for layer in EVERY_LAYER[1:]}
    assert names == attention | dense | stacks | {f"{path}.base_layer" for path in stacks}
    with torch.no_grad():
        for name in names:
            a, b = (tensors[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
            if name in attention | dense:
                reference.get_parameter(f"{name}.weight").add_(b @ a, alpha=4.0)
                continue
            path = name.removesuffix(".base_layer")
            weight = reference.get_parameter(f"{path}.{'down_proj' if path == name else 'gate_up_proj'}")
            for expert in range(4):
                weight[expert].add_(b[:, expert::4] @ a[3 * expert : 3 * expert + 3], alpha=4.0)
    torch.testing.assert_close(logits(reference), logits(model), atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", TARGETS)
def test_a_saved_adapter_comes_back_to_the_bit_and_goes_on_training(case: str, base: Path, tmp_path: Path):
    model, again = ours(base, TARGETS[case], alpha=2.5), ours(base)
    digests = save_adapter(model, tmp_path / "first", base)
    assert load_adapter(again, tmp_path / "first") == len(lora.adapted(model))
    assert torch.equal(logits(model), logits(again))
    assert save_adapter(again, tmp_path / "second", base) == digests
    trained = {name for name, weight in again.named_parameters() if weight.requires_grad}
    assert trained == {name for name, _ in again.named_parameters() if name.endswith(("lora_A", "lora_B"))}


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 40},
        {"moe_intermediate_size": 28},
        {"n_routed_experts": 6},  # which divides the 12 rows of the stacked A
        {"num_hidden_layers": 2},
        {"q_lora_rank": 12},
        {"n_shared_experts": None},
    ],
    ids=str,
)
def test_an_adapter_of_another_base_model_is_refused_before_anything_changes(changes: dict, base: Path, tmp_path: Path):
    save_adapter(ours(base, ()), tmp_path / "adapter")
    other = Transformer(ModelConfig.from_json(SHAPE.to_json() | changes))
    other.init_weights()
    with pytest.raises(ModelError, match="another base model"):
        load_adapter(other, tmp_path / "adapter")
    assert not lora.adapted(other)
    assert all(weight.requires_grad for weight in other.parameters())


def test_single_experts_of_another_number_are_refused(base: Path, tmp_path: Path):
    tensors = single(tmp_path / "old")
    kept = {name: tensor for name, tensor in tensors.items() if "experts.3.up_proj" not in name}
    save_file(kept, tmp_path / "old" / WEIGHTS)
    with pytest.raises(ModelError, match="up_proj do not fit 4 experts"):
        load_adapter(ours(base), tmp_path / "old")


def test_gate_and_up_of_single_experts_must_be_scaled_alike(base: Path, tmp_path: Path):
    single(tmp_path / "old")
    model = ours(base)
    with pytest.raises(ModelError, match=r"gate_proj and up_proj are scaled by \[1.5, 4.0\]"):
        load_adapter(model, rewritten(tmp_path / "old", alpha_pattern={"up_proj": 8}))
    assert load_adapter(model, rewritten(tmp_path / "old", alpha_pattern={"down_proj": 8})) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": "IA3"},
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "pissa"},
        {"lora_alpha": None},
        {"alpha_pattern": {"(": 3}},
        {"rank_pattern": {"(": 3}},
        {"rank_pattern": ["o_proj"]},
        {"r": 2.5},
    ],
    ids=str,
)
def test_settings_that_make_another_model_of_the_same_tensors_are_refused(changes: dict, base: Path, tmp_path: Path):
    save_adapter(ours(base, ("o_proj",)), tmp_path / "adapter")
    with pytest.raises(ModelError, match=next(iter(changes))):
        load_adapter(ours(base), rewritten(tmp_path / "adapter", **changes))


def test_a_damaged_folder_is_refused_with_the_name_of_what_is_wrong(base: Path, tmp_path: Path):
    folder = tmp_path / "adapter"
    save_adapter(ours(base, ("o_proj",)), folder)
    tensors = load_file(folder / WEIGHTS)
    first = next(iter(sorted(tensors)))
    assert first.endswith("layers.0.self_attn.o_proj.lora_A.weight")
    for broken, message in (
        ({name: tensor for name, tensor in tensors.items() if name != first}, "layers.0.self_attn.o_proj has lora_B"),
        (tensors | {first: torch.full_like(tensors[first], float("nan"))}, "not finite"),
        (tensors | {"base_model.model.lm_head.lora_embedding_A": torch.zeros(2, 2)}, "not part of a plain LoRA"),
        ({}, "holds no adapters"),
        (tensors | {"model.norm.weight": torch.zeros(32)}, "model.norm.weight is not part"),
    ):
        save_file(broken, folder / WEIGHTS)
        with pytest.raises(ModelError, match=message):
            load_adapter(ours(base), folder)
    (folder / WEIGHTS).write_bytes(b"\x10" * 40)
    with pytest.raises(ModelError, match="damaged"):
        load_adapter(ours(base), folder)
    (folder / CONFIG).write_text("[]")
    with pytest.raises(ModelError, match="does not hold an object"):
        load_adapter(ours(base), folder)
    (folder / CONFIG).unlink()
    with pytest.raises(ModelError, match="is missing"):
        load_adapter(ours(base), folder)
