"""Adapters train alone beside a frozen model, and merging them gives the model that was trained."""

import copy
import math
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

from codeweft.base.errors import UserError
from codeweft.model.cache import LatentCache
from codeweft.model.config import ModelConfig
from codeweft.model.folder import disk_tensors, load_folder, save_folder
from codeweft.model.kernels import fused, native
from codeweft.model.transformer import Transformer
from codeweft.train import lora
from codeweft.train.batches import Batch
from codeweft.train.config import BalanceConfig, LoraConfig, OptimizerConfig
from codeweft.train.loop import Trainer
from codeweft.train.objectives import Loss, next_token

SHAPE = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=56,
    moe_intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=2,
    n_shared_experts=1,
    n_routed_experts=4,
    num_experts_per_tok=2,
    kv_lora_rank=16,
    q_lora_rank=20,
    qk_rope_head_dim=8,
    qk_nope_head_dim=8,
    v_head_dim=8,
)
ALL = LoraConfig(rank=3, alpha=12)
TOKENS = torch.randint(0, 64, (2, 30), generator=torch.Generator().manual_seed(1))
BATCH = Batch(TOKENS[:, :-1].contiguous(), TOKENS[:, 1:].contiguous())


def make(config: LoraConfig | None = ALL, dtype: torch.dtype = torch.float32, trained: bool = True) -> Transformer:
    """A random model with adapters, that differ from zero where they are to look trained."""
    model = Transformer(SHAPE)
    model.init_weights(0.2, torch.Generator().manual_seed(0))
    model = model.to(dtype).eval()
    if config is not None:
        lora.add(model, config, seed=5)
        generator = torch.Generator().manual_seed(2)
        for _, adapter in lora.adapted(model) if trained else ():
            adapter.lora_B.data.normal_(0, 0.1, generator=generator)
    return model


def loss(model: Transformer, batch: Batch) -> Loss:
    return next_token(model, batch, BalanceConfig(expert=0.01))


@pytest.fixture(params=["torch alone", "kernels"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways that a step goes on a processor."""
    if request.param == "torch alone":
        monkeypatch.setattr(fused, "applies", lambda x: False)
    elif not native.available():
        pytest.skip("toolchain: no C++ compiler")
    return request.param


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_fresh_adapters_change_no_bit(dtype: torch.dtype):
    plain, fresh = make(None, dtype), make(ALL, dtype, trained=False)
    assert len(lora.adapted(fresh)) == 3 * 5 + 3 + 2 * (3 + 2)
    assert torch.equal(plain(TOKENS).logits_BTW, fresh(TOKENS).logits_BTW)
    weights = dict(plain.named_parameters())
    assert all(torch.equal(weights[name], weight) for name, weight in lora.merge_(fresh).named_parameters())


def test_a_is_drawn_by_seed_within_one_over_the_root_of_the_inputs():
    """Kaiming's uniform distribution with a = sqrt(5), which PEFT takes: its deviation is the bound over sqrt(3)."""
    wide = LoraConfig(rank=200, targets=("kv_a_proj_with_mqa", "experts.down_proj"))
    first, again = (dict(make(wide, trained=False).named_parameters()) for _ in range(2))
    drawn = {name: weight for name, weight in first.items() if name.endswith("lora_A")}
    assert len(drawn) == 3 + 2
    for name, weight in drawn.items():
        bound = 1 / math.sqrt(weight.shape[-1])
        assert float(weight.detach().abs().max()) <= bound
        assert float(weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert torch.equal(weight, again[name])
    assert len({float(weight.detach().flatten()[0]) for weight in drawn.values()}) == len(drawn)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@torch.no_grad()
def test_the_merged_model_computes_the_same_bits_also_while_decoding(dtype: torch.dtype):
    adapted = make(ALL, dtype)
    plain = lora.merged(adapted)
    assert lora.adapted(adapted)
    assert not lora.adapted(plain)
    logits = []
    for model in (adapted, plain):
        cache = LatentCache(SHAPE, 2, dtype)
        tables_BP = cache.tables([[0], [1]], 30)
        prompt = model(TOKENS[:, :20], window=cache.window(tables_BP, torch.tensor([0, 0]), 20)).logits_BTW
        step = model(TOKENS[:, 20:21], window=cache.window(tables_BP, torch.tensor([20, 20]), 1)).logits_BTW
        logits.append(torch.cat((model(TOKENS).logits_BTW, prompt, step), dim=1))
    assert torch.equal(*logits)
    assert not torch.equal(logits[0], torch.zeros_like(logits[0]))
    assert (logits[1][:, :30] - make(None, dtype)(TOKENS).logits_BTW).abs().max() > 0.1


@torch.no_grad()
def test_merging_adds_the_scaled_product_of_each_expert_and_projection():
    before, model = dict(make(None).named_parameters()), make()
    adapters = {(matrix.path, matrix.parameter): adapter for matrix, adapter in lora.adapted(model)}
    for name, weight in lora.merged(model).named_parameters():
        expected = before[name].double()
        adapter = adapters.pop(tuple(name.rsplit(".", 1)), None)
        if adapter is not None:
            expected = expected + 4.0 * (adapter.lora_B.double() @ adapter.lora_A.double())
        torch.testing.assert_close(weight.double(), expected, atol=1e-6, rtol=1e-5)
    assert not adapters


def test_gradients_follow_from_those_of_the_merged_weights(path: str):
    """d/dB = s G A^T and d/dA = s B^T G, where G is the gradient of the plain, merged model."""
    model = make()
    plain = lora.merged(model)
    for each in (model, plain):
        each.train()
        loss(each, BATCH).total.backward()
    for matrix, adapter in lora.adapted(model):
        weight = plain.get_submodule(matrix.path).get_parameter(matrix.parameter)
        assert weight.grad is not None
        scaled = 4.0 * weight.grad
        close = {"atol": 1e-7, "rtol": 1e-4}
        torch.testing.assert_close(adapter.lora_B.grad, scaled @ adapter.lora_A.detach().mT, **close)
        torch.testing.assert_close(adapter.lora_A.grad, adapter.lora_B.detach().mT @ scaled, **close)
        assert adapter.lora_A.grad.abs().sum() > 0


def test_only_adapters_are_trained_and_the_model_keeps_its_bytes(path: str):
    model = make(ALL, torch.bfloat16, trained=False)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    worker = Trainer(model, OptimizerConfig())
    losses = [worker.step([BATCH, BATCH], loss, 1e-2).loss for _ in range(8)]
    assert losses[-1] < losses[0] - 0.2
    for name, weight in model.named_parameters():
        is_adapter = name.endswith(("lora_A", "lora_B"))
        assert weight.requires_grad == is_adapter
        assert weight.dtype == (torch.float32 if is_adapter else torch.bfloat16)
        assert torch.equal(weight, before[name]) != is_adapter, name
    assert all(name.endswith(("lora_A", "lora_B")) for name in worker.optimizer.state())


def test_effective_weights_do_not_wait_for_the_backward_pass(path: str, monkeypatch: pytest.MonkeyPatch):
    made: list[weakref.ref[Tensor]] = []
    effective = lora.Adapter.effective

    def watched(self: lora.Adapter, weight: Tensor) -> Tensor:
        result = effective(self, weight)
        made.append(weakref.ref(result))
        return result

    monkeypatch.setattr(lora.Adapter, "effective", watched)
    model = make().train()
    total = loss(model, BATCH).total
    forward = len(made)
    assert forward == len(lora.adapted(model))
    assert not any(reference() is not None for reference in made)
    total.backward()
    assert forward < len(made) <= 2 * forward  # made again, and once only
    del total
    assert not any(reference() is not None for reference in made)


def test_a_forward_pass_that_fails_leaves_the_frozen_weights_in_place():
    model = make()
    with pytest.raises(RuntimeError):
        model.model.layers[1](torch.zeros(1, 2, 7), None, None, None)
    weight = model.model.layers[1].self_attn.o_proj.weight
    assert isinstance(weight, torch.nn.Parameter)
    assert torch.equal(weight, make(None).model.layers[1].self_attn.o_proj.weight)


def test_a_merged_model_is_saved_as_an_ordinary_folder(tmp_path: Path):
    model = make()
    expected = {name: tensor.clone() for name, tensor in disk_tensors(lora.merged(model))}
    save_folder(lora.merge_(model), tmp_path, dtype=torch.float32)
    assert expected.keys() == dict(disk_tensors(make(None))).keys()
    loaded = dict(disk_tensors(load_folder(tmp_path, dtype=None)))
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_copy_of_a_model_has_adapters_of_its_own():
    model = make()
    other = copy.deepcopy(model)
    for _, adapter in lora.adapted(other):
        adapter.lora_B.data.zero_()
    with torch.no_grad():
        assert torch.equal(other(TOKENS).logits_BTW, make(None)(TOKENS).logits_BTW)
        assert not torch.equal(model(TOKENS).logits_BTW, make(None)(TOKENS).logits_BTW)


def test_only_the_named_matrices_are_adapted():
    model = make(LoraConfig(rank=2, targets=("kv_b_proj", "down_proj", "experts.gate_up_proj")))
    assert {matrix.path for matrix, _ in lora.adapted(model)} == {
        *(f"model.layers.{layer}.self_attn.kv_b_proj" for layer in range(3)),
        "model.layers.0.mlp.down_proj",
        *(f"model.layers.{layer}.mlp.shared_experts.down_proj" for layer in (1, 2)),
        *(f"model.layers.{layer}.mlp.experts" for layer in (1, 2)),
    }


@pytest.mark.parametrize(
    ("target", "near"), [("q_b_prj", "q_b_proj"), ("experts.gate_proj", "experts.gate_up_proj"), ("q_proj", "_proj")]
)
def test_an_unknown_target_is_refused_with_the_nearest_name(target: str, near: str):
    """q_proj is a name of other models: this one compresses its queries."""
    model = make(None)
    with pytest.raises(UserError, match=rf"no matrix {target} .*Did you mean \w*{near}"):
        lora.add(model, LoraConfig(rank=2, targets=("o_proj", target)), seed=0)
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("values", [{"rank": -1}, {"alpha": 0.0}, {"alpha": float("inf")}])
def test_settings_that_cannot_be_are_refused(values: dict):
    with pytest.raises(ValueError, match=next(iter(values))):
        LoraConfig(**values)
