"""Folders with quantised weights: written in pieces, mapped when opened, and what a damaged one says."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from codeweft.base.errors import ModelError, UserError
from codeweft.model import streamed
from codeweft.model.folder import disk_tensors, empty_model, fim_trained, load_folder, read_config, save_folder
from codeweft.model.quantize import Quantization, quantize
from codeweft.model.quantized_folder import PublishedTensors, quantize_folder
from codeweft.model.random_folder import FULL, LITE, write_random
from codeweft.model.verify import check_folder

WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "v_head_dim": 16}
HOW = Quantization(4, 8)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def plain(small: Callable, random_model: Callable, tmp_path: Path) -> Path:
    save_folder(random_model(small(**WIDE)), tmp_path / "plain", stage="sft", fim_rate=0.5, max_shard_bytes=100_000)
    (tmp_path / "plain" / "tokenizer.json").write_text("{}")
    return tmp_path / "plain"


@pytest.fixture
def saved(plain: Path, tmp_path: Path) -> Path:
    quantize_folder(plain, tmp_path / "quantised", HOW)
    return tmp_path / "quantised"


def test_the_folder_holds_the_quantised_form_of_every_published_tensor(plain: Path, saved: Path):
    published = dict(disk_tensors(load_folder(plain)))
    found = load_file(saved / "model.safetensors")
    for name in ("lm_head", "model.layers.0.mlp.down_proj", "model.layers.2.self_attn.q_proj"):
        packed, scale = quantize(published[f"{name}.weight"], 8 if name == "lm_head" else 4)
        assert torch.equal(found.pop(f"{name}.packed"), packed)
        assert torch.equal(found.pop(f"{name}.scale"), scale)
    experts = [
        torch.cat([published[f"model.layers.1.mlp.experts.{expert}.{kind}_proj.weight"] for kind in ("gate", "up")])
        for expert in range(8)
    ]
    packed, scale = quantize(torch.stack(experts), 4)
    assert torch.equal(found["model.layers.1.mlp.experts.gate_up_proj.packed"], packed)
    assert torch.equal(found["model.layers.1.mlp.experts.gate_up_proj.scale"], scale)
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.gate.weight", "model.norm.weight"):
        assert torch.equal(found[name], published[name])


def test_the_configuration_says_so_and_keeps_the_rest(plain: Path, saved: Path):
    content = json.loads((saved / "config.json").read_text())
    assert content["codeweft"]["quantization"] == {"bits": 4, "head_bits": 8, "group": 32}
    assert content["codeweft"]["stage"] == "sft"
    assert fim_trained(saved)
    assert read_config(saved).hidden_size == 64
    assert sorted(files(saved)) == [
        *("README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
    ]


@pytest.mark.parametrize(
    "shape", [{}, {"tie_word_embeddings": True}, {"moe_intermediate_size": 24}, {"q_lora_rank": 32}]
)
def test_an_opened_model_is_close_to_the_plain_one_and_8_bits_are_closer(
    shape: dict[str, Any], small: Callable, random_model: Callable, tmp_path: Path
):
    model = random_model(small(**{**WIDE, **shape}), std=0.05)
    save_folder(model, tmp_path / "plain")
    tokens = torch.randint(0, 97, (2, 30), generator=torch.Generator().manual_seed(2))
    errors = []
    for bits in (4, 8):
        quantize_folder(tmp_path / "plain", tmp_path / str(bits), Quantization(bits, bits))
        opened = load_folder(tmp_path / str(bits), dtype=torch.float32)
        with torch.no_grad():
            expected, got = model(tokens).logits_BTW, opened(tokens).logits_BTW
        errors.append(((got - expected).std() / expected.std()).item())
    assert errors[1] < 0.05 < errors[0] < 0.4


def test_other_types_are_converted_only_where_weights_are_plain(saved: Path):
    for dtype in (torch.float32, torch.bfloat16, None):
        model = load_folder(saved, dtype=dtype)
        assert next(model.parameters()).dtype == (dtype or torch.bfloat16)
        assert model.lm_head.packed.dtype == torch.int8
        assert model.lm_head.scale.dtype == torch.float16
        assert not model.training


def status(key: str) -> int:
    """Bytes that the system counts for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="toolchain: no /proc")
def test_opening_reads_and_copies_nothing(small: Callable, tmp_path: Path):
    config = small(vocab_size=20_000, hidden_size=512)
    write_random(tmp_path / "model", config, HOW, seed=1)
    size = sum(path.stat().st_size for path in (tmp_path / "model").glob("*.safetensors"))
    before = status("VmRSS")
    model = load_folder(tmp_path / "model")
    assert status("VmRSS") - before < size / 4
    before = status("RssAnon")
    model.model.embed_tokens.weight.view(torch.uint8).sum(), model.lm_head.packed.sum()
    assert status("RssAnon") - before < size / 4


def test_writing_that_was_cut_off_goes_on_and_gives_the_same_folder(
    plain: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streamed, "SHARD_BYTES", 30_000)
    monkeypatch.setattr(streamed.shards, "__defaults__", (30_000,))
    quantize_folder(plain, tmp_path / "whole", HOW)
    read, count = PublishedTensors.read, 0

    def failing(self: PublishedTensors, name: str) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == 30:
            raise KeyboardInterrupt
        return read(self, name)

    monkeypatch.setattr(PublishedTensors, "read", failing)
    with pytest.raises(KeyboardInterrupt):
        quantize_folder(plain, tmp_path / "cut", HOW)
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_folder(tmp_path / "cut")
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.safetensors")}
    assert finished
    with pytest.raises(UserError, match="unfinished part of another model"):
        quantize_folder(plain, tmp_path / "cut", Quantization(8, 8))
    quantize_folder(plain, tmp_path / "cut", HOW)
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    merged = {name: each for path in (tmp_path / "cut").glob("*.safetensors") for name, each in load_file(path).items()}
    single = load_file(saved / "model.safetensors")
    assert merged.keys() == single.keys()
    assert all(torch.equal(merged[name], single[name]) for name in single)


@pytest.mark.slow
def test_quantising_needs_the_memory_of_a_matrix_not_of_the_model(small: Callable, tmp_path: Path):
    """A folder of 300 MB whose largest matrix has 8 MB."""
    config = small(vocab_size=4096, hidden_size=1024, moe_intermediate_size=768, num_hidden_layers=9)
    write_random(tmp_path / "plain", config, None, seed=1)
    assert sum(path.stat().st_size for path in (tmp_path / "plain").glob("*.safetensors")) > 300e6
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from codeweft.model.quantize import Quantization, quantize\n"
        "from codeweft.model.quantized_folder import quantize_folder\n"
        "import torch; quantize(torch.randn(1024, 1024), 4)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "quantize_folder(Path(sys.argv[1]), Path(sys.argv[2]), Quantization())\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "plain"), str(tmp_path / "out")]
    finished = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(finished.stdout) < 80, finished.stdout


NAME = "model.layers.1.mlp.experts.down_proj"


def with_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(saved: Path) -> None:
        tensors = load_file(saved / "model.safetensors")
        change(tensors)
        save_file(tensors, saved / "model.safetensors")

    return apply


def with_quantization(**changes: int) -> Callable[[Path], None]:
    def apply(saved: Path) -> None:
        content = json.loads((saved / "config.json").read_text())
        content["codeweft"]["quantization"] |= changes
        (saved / "config.json").write_text(json.dumps(content))

    return apply


def cut(saved: Path) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (cut, r"model\.safetensors is damaged or cut off"),
    "no weights": (lambda saved: (saved / "model.safetensors").unlink(), r"model\.safetensors is missing"),
    "tensor missing": (with_weights(lambda t: t.pop(f"{NAME}.scale")), r"down_proj\.scale is missing"),
    "tensor unexpected": (with_weights(lambda t: t.update(x=torch.ones(2))), "unexpected tensor x"),
    "wrong shape": (
        with_weights(lambda t: t.update({f"{NAME}.packed": t[f"{NAME}.packed"][:, :-1].contiguous()})),
        r"down_proj\.packed has shape \[8, 63, 16\], not \[8, 64, 16\]",
    ),
    "wrong type": (
        with_weights(lambda t: t.update({f"{NAME}.scale": t[f"{NAME}.scale"].float()})),
        r"down_proj\.scale is of type torch\.float32",
    ),
    "norm not finite": (
        with_weights(lambda t: t["model.norm.weight"][3:4].fill_(torch.nan)),
        r"model\.norm\.weight holds values that are not finite",
    ),
    "other group": (with_quantization(group=64), "group is 64"),
    "other bits": (with_quantization(bits=8), r"packed has shape|is of type"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_folder_is_told_by_name_with_a_next_step(what: str, saved: Path):
    damage, words = DAMAGES[what]
    damage(saved)
    with pytest.raises(ModelError, match=words) as caught:
        load_folder(saved)
    assert caught.value.next_step


def test_verifying_finds_what_opening_does_not_read(saved: Path):
    assert all(finding.ok for finding in check_folder(saved))
    with_weights(lambda t: t[f"{NAME}.scale"][3, 2].fill_(torch.inf))(saved)
    load_folder(saved)
    wrong = [finding for finding in check_folder(saved) if not finding.ok]
    assert [finding.detail for finding in wrong] == [f"{NAME}.scale is not finite"]


def test_verifying_tells_all_that_is_wrong_with_a_plain_folder(plain: Path):
    assert all(finding.ok for finding in check_folder(plain))
    tensors = {name: each for path in plain.glob("*.safetensors") for name, each in load_file(path).items()}
    for path in plain.glob("model*.safetensors*"):
        path.unlink()
    del tensors["lm_head.weight"]
    tensors["model.norm.weight"] = torch.ones(3)
    tensors["extra"] = torch.ones(1)
    tensors["model.embed_tokens.weight"][0, 0] = torch.nan
    save_file(tensors, plain / "model.safetensors")
    details = [finding.detail for finding in check_folder(plain) if not finding.ok]
    assert details == [
        "lm_head.weight is missing",
        "extra is unexpected",
        "model.norm.weight has shape [3], not [64]",
        "model.embed_tokens.weight is not finite",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("lm_head.weight"), "lm_head.weight is missing"),
        (lambda t: t.update(extra=torch.ones(2)), "unexpected tensor extra"),
        (lambda t: t["lm_head.weight"][0, 0].fill_(torch.nan), "lm_head.weight holds values that are not finite"),
        (lambda t: t["lm_head.weight"][0, 0].fill_(1e30), "lm_head: a scale in float16 holds values that are not"),
        (lambda t: t.update({"lm_head.weight": torch.ones(3, 3)}), r"has shape \[3, 3\], not \[97, 64\]"),
    ],
)
def test_a_damaged_source_is_told_and_leaves_no_folder_that_loads(
    change: Callable, words: str, small: Callable, random_model: Callable, tmp_path: Path
):
    save_folder(random_model(small(**WIDE)), tmp_path / "plain", dtype=torch.float32)
    with_weights(change)(tmp_path / "plain")
    with pytest.raises(ModelError, match=words):
        quantize_folder(tmp_path / "plain", tmp_path / "out", HOW)
    assert not (tmp_path / "out" / "config.json").exists()


def test_nothing_is_written_over(plain: Path, saved: Path, tmp_path: Path):
    with pytest.raises(UserError, match="is not empty"):
        quantize_folder(plain, plain, HOW)
    with pytest.raises(UserError, match="quantised already"):
        quantize_folder(saved, tmp_path / "again", HOW)
    with pytest.raises(UserError, match="is a file"):
        quantize_folder(plain, plain / "config.json", HOW)


def test_a_quantised_model_is_not_trained_and_not_saved_as_a_published_one(saved: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="Train the folder"):
        load_folder(saved, trainable=True)
    with pytest.raises(UserError, match="Copy the folder"):
        save_folder(load_folder(saved), tmp_path / "again")


def test_transformers_names_the_method_that_it_does_not_know(saved: Path, caplog: pytest.LogCaptureFixture):
    """It goes on with random numbers nevertheless; the configuration can do no more than make it say why."""
    from transformers import DeepseekV2ForCausalLM

    logger = logging.getLogger("transformers")  # which hands nothing on to the root
    logger.addHandler(caplog.handler)
    DeepseekV2ForCausalLM.from_pretrained(saved)
    logger.removeHandler(caplog.handler)
    assert "Unknown quantization type, got codeweft" in caplog.text


def test_random_folders_of_a_seed_differ_by_their_quantisation_alone(small: Callable, tmp_path: Path):
    config = small(**WIDE)
    write_random(tmp_path / "plain", config, None, seed=4)
    write_random(tmp_path / "quantised", config, HOW, seed=4)
    quantize_folder(tmp_path / "plain", tmp_path / "of plain", HOW)
    drawn, made = (load_file(tmp_path / name / "model.safetensors") for name in ("quantised", "of plain"))
    packed = "model.layers.0.mlp.up_proj.packed"
    assert (drawn[packed] == made[packed]).float().mean() > 0.98  # the one was rounded to bfloat16 first
    assert torch.equal(drawn["model.embed_tokens.weight"], made["model.embed_tokens.weight"])
    weights = load_folder(tmp_path / "plain", dtype=torch.float32).state_dict()
    assert weights["model.embed_tokens.weight"].std() == pytest.approx(0.006, rel=0.05)
    assert (weights["model.norm.weight"] == 1).all()


def test_the_published_shapes_have_their_published_sizes():
    """Parameters of the model cards: 16B with 2.4B active, 236B with 21B active."""
    assert round(LITE.total_parameters / 1e9, 1) == 15.7
    assert round(FULL.total_parameters / 1e9) == 236
    assert fim_trained(LITE)
    assert not fim_trained(FULL)
    assert len(dict(disk_tensors(empty_model(LITE, torch.bfloat16, "meta")))) > 5000
