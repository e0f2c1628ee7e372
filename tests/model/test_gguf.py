"""GGUF files: read back by the gguf package tensor by tensor, and run by llama.cpp itself where it is installed."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny_model
import torch

from codeweft.base.errors import ModelError
from codeweft.model import quantize as products_of
from codeweft.model.config import RopeScaling
from codeweft.model.folder import load_folder, read_config, save_folder
from codeweft.model.gguf import parameters, refuse_what_llama_cannot, routes_otherwise, write_gguf
from codeweft.model.kernels import products
from codeweft.model.quantize import Quantization
from codeweft.model.quantized_folder import quantize_folder
from codeweft.tokenizer.llama_cpp import llama_vocabulary
from codeweft.tokenizer.load import load_tokenizer

WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "kv_lora_rank": 32}
YARN = {"factor": 4.0, "original_max_position_embeddings": 48}  # shorter than the prompt and its answer
NO_EXPERTS = {"n_routed_experts": None, "n_shared_experts": None, "num_experts_per_tok": None}
CASES: dict[str, dict[str, Any]] = {
    "lite_like": {"rope_scaling": RopeScaling(**YARN, mscale=0.707, mscale_all_dim=0.707)},
    "compressed_queries": {
        "q_lora_rank": 32,
        "routed_scaling_factor": 2.5,
        "rope_scaling": RopeScaling(**YARN, mscale=1.0, mscale_all_dim=1.0),
    },
    "plain_rope_tied_head": {"tie_word_embeddings": True},
    "normalised_gates": {"norm_topk_prob": True, "routed_scaling_factor": 3.0},
    "dense": NO_EXPERTS,
}
PROMPT = "def step(self, feeds):\n    return [each for each in feeds if x1 > 20]\n"


def export(folder: Path, kind: str = "f32") -> Path:
    path = folder / "model.gguf"
    write_gguf(folder, path, kind, llama_vocabulary(folder, read_config(folder).vocab_size))
    return path


def make(folder: Path, std: float = 0.3, **changes: Any) -> Path:
    """Without unused ids, which llama.cpp prints as nothing."""
    tokenizer = tiny_model.make_tokenizer(folder)
    model = tiny_model.make_model(tokenizer, **{**WIDE, "vocab_size": tokenizer.size, **changes})
    model.init_weights(std, torch.Generator().manual_seed(7))
    with torch.no_grad():
        model.model.embed_tokens.weight /= std
    save_folder(model, folder, dtype=torch.float32)
    return folder


@pytest.fixture
def reader(tmp_path: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(export(make(tmp_path)))


def test_every_tensor_is_there_under_its_own_name_with_its_values(tmp_path: Path):
    folder = make(tmp_path, q_lora_rank=32)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(export(folder)).tensors}
    weights = load_folder(folder, dtype=torch.float32).state_dict()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DEEPSEEK2, 3)
    for name, weight in weights.items():
        if name.endswith("kv_b_proj.weight"):
            keys, values = weight.unflatten(0, (4, 32)).split([16, 16], dim=1)
            block = name.split(".")[2]
            assert np.array_equal(found.pop(f"blk.{block}.attn_k_b.weight").data, keys.mT.numpy())
            assert np.array_equal(found.pop(f"blk.{block}.attn_v_b.weight").data, values.numpy())
        elif name.endswith("gate_up_proj"):
            gate, up = weight.chunk(2, dim=1)
            block = name.split(".")[2]
            assert np.array_equal(found.pop(f"blk.{block}.ffn_gate_exps.weight").data, gate.numpy())
            assert np.array_equal(found.pop(f"blk.{block}.ffn_up_exps.weight").data, up.numpy())
        else:
            theirs = names.get_name(name, try_suffixes=(".weight",))
            theirs = theirs or names.get_name(f"{name}.weight", try_suffixes=(".weight",))
            assert theirs is not None, name
            tensor = found.pop(theirs if theirs.endswith(".weight") else f"{theirs}.weight")
            assert np.array_equal(tensor.data.reshape(weight.shape), weight.numpy()), name
    assert not found


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("inner", [32, 24])
def test_quantised_weights_are_repacked_to_the_same_values(bits: int, inner: int, tmp_path: Path):
    """An experts' width of 24 is no whole group: those matrices are bfloat16 in the folder, and here."""
    quantize_folder(make(tmp_path / "a", moe_intermediate_size=inner), tmp_path / "q", Quantization(bits, 8))
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(export(tmp_path / "q", "bf16")).tensors}
    state = load_folder(tmp_path / "q").state_dict()

    def values(name: str) -> torch.Tensor:
        tensor = found[name]
        return torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type)))

    def ours(name: str, at: int = bits) -> torch.Tensor:
        return products_of.dequantize(state[f"{name}packed"], state[f"{name}scale"], at, torch.float32)

    assert found["blk.0.attn_q.weight"].tensor_type.name == f"Q{bits}_0"
    assert found["output.weight"].tensor_type.name == "Q8_0"
    assert torch.equal(values("blk.0.attn_q.weight"), ours("model.layers.0.self_attn.q_proj."))
    assert torch.equal(values("output.weight"), ours("lm_head.", at=8))
    if inner == 32:
        experts = ours("model.layers.2.mlp.experts.gate_up_")
        assert torch.equal(values("blk.2.ffn_down_exps.weight"), ours("model.layers.2.mlp.experts.down_"))
    else:
        experts = state["model.layers.2.mlp.experts.gate_up_proj"].float()
        assert found["blk.2.ffn_up_exps.weight"].tensor_type.name == "BF16"
    assert torch.equal(values("blk.2.ffn_gate_exps.weight"), experts[:, :inner])
    assert torch.equal(values("blk.2.ffn_up_exps.weight"), experts[:, inner:])
    embedding = state["model.embed_tokens.weight"].float()
    assert torch.equal(values("token_embd.weight"), embedding)


def test_norms_and_router_are_float32_whatever_the_rest_is(tmp_path: Path):
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(export(make(tmp_path), "bf16")).tensors}
    for name, kind in kinds.items():
        assert kind == ("F32" if "norm" in name or "gate_inp" in name else "BF16"), name


def test_the_tokenizer_is_there_id_by_id(tmp_path: Path):
    folder = make(tmp_path, vocab_size=460)
    fields = gguf.GGUFReader(export(folder)).fields
    tokenizer = load_tokenizer(folder)
    tokens, kinds = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.token_type"].contents()
    assert len(tokens) == len(kinds) == 460
    assert tokens[tokenizer.fim_hole] == "<｜fim▁hole｜>"
    assert kinds[tokenizer.fim_hole] == kinds[tokenizer.begin] == gguf.TokenType.CONTROL
    assert kinds[459] == gguf.TokenType.UNUSED
    assert kinds[5] == gguf.TokenType.NORMAL
    assert fields["tokenizer.ggml.bos_token_id"].contents() == tokenizer.begin
    assert fields["tokenizer.ggml.fim_suf_token_id"].contents() == tokenizer.fim_hole


def test_yarn_is_written_as_this_architecture_reads_it(small: Callable):
    keys = parameters(small(rope_scaling=RopeScaling(mscale=0.707, mscale_all_dim=0.707)))
    assert keys["deepseek2.rope.scaling.yarn_log_multiplier"] == pytest.approx(0.0707)
    assert keys["deepseek2.attention.head_count_kv"] == 1
    assert keys["deepseek2.attention.key_length"] == 28  # latent and rotary key
    assert keys["deepseek2.attention.key_length_mla"] == 20


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps"),
        ({"rope_scaling": RopeScaling(mscale=1.0, mscale_all_dim=0.707)}, "mscale differs"),
        ({"rope_scaling": RopeScaling(mscale=0.0, mscale_all_dim=0.0)}, "mscale_all_dim is 0"),
        ({"moe_layer_freq": 2}, "moe_layer_freq"),
        ({"n_shared_experts": None}, "no shared experts"),
        ({"qk_nope_head_dim": 0}, "qk_nope_head_dim"),
    ],
)
def test_what_llama_cpp_would_compute_wrongly_is_refused(changes: dict[str, Any], words: str, small: Callable):
    with pytest.raises(ModelError, match=words):
        refuse_what_llama_cannot(small(**changes))


def test_other_routing_is_known(small: Callable):
    assert routes_otherwise(small(topk_method="group_limited_greedy", n_group=4, topk_group=2))
    assert not routes_otherwise(small())


def test_a_tokenizer_that_cuts_otherwise_is_refused(tmp_path: Path):
    folder = make(tmp_path)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"individual_digits":true', '"individual_digits":false'))
    if '"individual_digits": true' in path.read_text():
        path.write_text(path.read_text().replace('"individual_digits": true', '"individual_digits": false'))
    with pytest.raises(ModelError, match="no name for"):
        llama_vocabulary(folder, 460)


def test_a_model_with_fewer_ids_than_its_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="the model 300"):
        llama_vocabulary(make(tmp_path), 300)


# --- llama.cpp itself ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def llama() -> Path:
    """Its program that completes a text; the environment variable LLAMA_CPP names the folder of its binaries."""
    program = Path(os.environ.get("LLAMA_CPP", "")) / "llama-completion"
    if "LLAMA_CPP" not in os.environ or not program.is_file():
        pytest.skip("toolchain: llama.cpp")
    return program


def draws(program: Path, model: Path, prompt: str, tokens: int, expected: bytes) -> bool:
    """Whether llama.cpp draws this greedily, with caches in float32.

    Its thread that prints sometimes loses what is last when the program ends: it is asked until it says all of it.
    """
    words = [program, "-m", model, "-p", prompt, "-n", str(tokens), "--temp", "0", "-c", "192", "-t", "1"]
    words += ["-no-cnv", "--no-display-prompt", "--special", "--simple-io", "--no-warmup"]
    words += ["-ctk", "f32", "-ctv", "f32", "-fa", "off"]
    for _ in range(6):
        finished = subprocess.run(words, capture_output=True, timeout=120, check=True)
        drawn, ended, _ = finished.stdout.partition(b" [end of text]")
        if (drawn if ended else drawn.removesuffix(b"\n\n")) == expected:
            return True
    return False


@torch.no_grad()
def our_bytes(folder: Path, prompt: str, tokens: int) -> bytes:
    """The same of our model in float32; llama.cpp does not print NUL."""
    model, tokenizer = load_folder(folder, dtype=torch.float32), load_tokenizer(folder)
    ids = [tokenizer.begin, *tokenizer.encode(prompt)]
    before = len(ids)
    for _ in range(tokens):
        logits_BTW = model(torch.tensor([ids])).logits_BTW
        ids.append(int(logits_BTW[0, -1].argmax()))
        if ids[-1] == tokenizer.end:
            break
    return b"".join(tokenizer._bytes[number] for number in ids[before:]).replace(b"\0", b"")


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_draws_our_tokens(case: str, llama: Path, tmp_path: Path):
    """24 tokens after a prompt that it cuts itself, in float32."""
    folder = make(tmp_path, **CASES[case])
    expected = our_bytes(folder, PROMPT, 24)
    assert len(expected) > 20
    assert draws(llama, export(folder), PROMPT, 24, expected)


@pytest.mark.parametrize("bits", [4, 8])
def test_llama_cpp_reads_our_quantised_weights(bits: int, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It takes vectors in 8 bits, we do not here, so a likeliest token may differ now and then: one of eight."""
    monkeypatch.setattr(products, "available", lambda: False)
    monkeypatch.setattr(products_of, "product_type", lambda device: torch.float32)
    make(tmp_path / "plain", std=0.1, **CASES["lite_like"])
    quantize_folder(tmp_path / "plain", tmp_path / "quantised", Quantization(bits, bits))
    path = export(tmp_path / "quantised")
    lines = [PROMPT[begin : begin + 30] for begin in range(0, 40, 5)]
    equal = [draws(llama, path, line, 1, our_bytes(tmp_path / "quantised", line, 1)) for line in lines]
    assert sum(equal) >= 7, equal
