"""Writing and reading model folders, and what a damaged one says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from codeweft.base.artifacts import digest_file
from codeweft.base.errors import ModelError
from codeweft.model.config import ModelConfig
from codeweft.model.folder import companion_files, fim_trained, load_folder, read_config, save_folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def saved(small: Callable, random_model: Callable, tmp_path: Path) -> Path:
    save_folder(random_model(small()), tmp_path / "model", stage="pretrain", fim_rate=0.5)
    return tmp_path / "model"


@pytest.mark.parametrize("shard", [10**9, 20_000])
def test_a_folder_is_byte_identical_after_load_and_save(
    shard: int, small: Callable, random_model: Callable, tmp_path: Path
):
    save_folder(random_model(small(q_lora_rank=9)), tmp_path / "one", fim_rate=0.5, max_shard_bytes=shard)
    save_folder(load_folder(tmp_path / "one"), tmp_path / "two", max_shard_bytes=shard)
    save_folder(load_folder(tmp_path / "one"), tmp_path / "three", like=tmp_path / "one")
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(tmp_path / "three")
    assert len(files(tmp_path / "one")) == 4 if shard > 10**6 else len(files(tmp_path / "one")) > 6


def test_weight_files_have_the_bytes_that_the_safetensors_library_writes(saved: Path, tmp_path: Path):
    save_file(load_file(saved / "model.safetensors"), tmp_path / "reference", metadata={"format": "pt"})
    assert (saved / "model.safetensors").read_bytes() == (tmp_path / "reference").read_bytes()


def test_weights_survive_exactly_in_each_type(small: Callable, random_model: Callable, tmp_path: Path):
    model = random_model(small())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        save_folder(model, tmp_path, dtype=dtype)
        loaded = load_folder(tmp_path, dtype=None)
        for name, parameter in loaded.named_parameters():
            assert parameter.dtype == dtype
            assert torch.equal(parameter, model.get_parameter(name).to(dtype)), name


def test_no_shard_is_larger_than_asked_and_the_index_names_every_tensor(
    small: Callable, random_model: Callable, tmp_path: Path
):
    save_folder(random_model(small()), tmp_path, max_shard_bytes=20_000)
    listed = json.loads((tmp_path / INDEX).read_text())
    found = {}
    for path in tmp_path.glob("*.safetensors"):
        tensors = load_file(path)
        assert sum(each.numel() * 2 for each in tensors.values()) <= 20_000
        found |= dict.fromkeys(tensors, path.name)
    assert listed["weight_map"] == found
    assert "model.layers.1.mlp.experts.7.down_proj.weight" in found


def test_saving_again_into_the_same_folder_leaves_no_old_shards(
    small: Callable, random_model: Callable, tmp_path: Path
):
    model = random_model(small())
    save_folder(model, tmp_path, max_shard_bytes=20_000)
    save_folder(model, tmp_path)
    assert sorted(files(tmp_path)) == ["README.md", "config.json", "generation_config.json", "model.safetensors"]
    save_folder(model, tmp_path, max_shard_bytes=20_000)
    assert "model.safetensors" not in files(tmp_path)
    load_folder(tmp_path)


def test_digests_are_those_of_the_files_and_nothing_partial_is_left(
    small: Callable, random_model: Callable, tmp_path: Path
):
    digests = save_folder(random_model(small()), tmp_path)
    assert digests == {name: digest_file(tmp_path / name) for name in files(tmp_path)}


def test_tokenizer_files_travel_and_stage_and_fim_rate_are_recorded(saved: Path, tmp_path: Path):
    (saved / "tokenizer.json").write_text("{}")
    (saved / "manifest.json").write_text("{}")
    save_folder(load_folder(saved), tmp_path / "next", stage="sft", extra_files=companion_files(saved))
    assert (tmp_path / "next" / "tokenizer.json").exists()
    assert not (tmp_path / "next" / "manifest.json").exists()
    assert json.loads((tmp_path / "next" / "config.json").read_text())["codeweft"] == {"fim_rate": 0.5, "stage": "sft"}
    assert "sft" in (tmp_path / "next" / "README.md").read_text()


def test_a_broken_off_save_is_seen_as_a_folder_without_configuration(saved: Path, tmp_path: Path):
    """config.json goes first and comes last; a copy of a missing file breaks the save off in between."""
    model = load_folder(saved)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        save_folder(model, tmp_path / "new", extra_files=[tmp_path / "tokenizer.json"])
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_folder(tmp_path / "new")


def test_infilling_is_judged_by_the_folder_then_by_the_published_shapes(small: Callable, saved: Path):
    assert fim_trained(saved)
    assert not fim_trained(small(fim_rate=0.0))
    assert not fim_trained(small())
    assert fim_trained(ModelConfig())  # Lite
    assert not fim_trained(ModelConfig(hidden_size=5120, num_hidden_layers=60, n_routed_experts=160))
    assert not fim_trained(ModelConfig(fim_rate=0.0))


def test_weights_are_loaded_into_a_tied_model_that_also_stores_its_head(
    small: Callable, random_model: Callable, tmp_path: Path
):
    save_folder(random_model(small(tie_word_embeddings=True)), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, tmp_path / "model.safetensors")
    load_folder(tmp_path)


NAME = "model.layers.1.mlp.experts.2.up_proj.weight"


def with_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(saved: Path) -> None:
        tensors = load_file(saved / "model.safetensors")
        change(tensors)
        save_file(tensors, saved / "model.safetensors")

    return apply


def with_bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(saved: Path) -> None:
        path = saved / name
        path.write_bytes(change(path.read_bytes() if path.exists() else b""))

    return apply


def index(shard: str) -> Callable[[bytes], bytes]:
    return lambda _: json.dumps({"weight_map": {NAME: shard}}).encode()


INDEX = "model.safetensors.index.json"
DAMAGES: dict[str, Callable[[Path], object]] = {
    "no config": lambda saved: (saved / "config.json").unlink(),
    "config cut off": with_bytes("config.json", lambda content: content[:50]),
    "no weights": lambda saved: (saved / "model.safetensors").unlink(),
    "weights cut off": with_bytes("model.safetensors", lambda content: content[:-10]),
    "empty weights": with_bytes("model.safetensors", lambda _: b""),
    "pickle": lambda saved: (saved / "model.safetensors").rename(saved / "pytorch_model.bin"),
    "tensor missing": with_weights(lambda tensors: tensors.pop(NAME)),
    "tensor unexpected": with_weights(lambda tensors: tensors.update({"extra.weight": torch.ones(2)})),
    "wrong shape": with_weights(lambda tensors: tensors.update({NAME: tensors[NAME].T.contiguous()})),
    "wrong type": with_weights(lambda tensors: tensors.update({NAME: tensors[NAME].to(torch.int8)})),
    "not finite": with_weights(lambda tensors: tensors[NAME][0, 0].fill_(torch.nan)),
    "infinite": with_weights(lambda tensors: tensors[NAME][0, 0].fill_(-torch.inf)),
    "index leads outside": with_bytes(INDEX, index("../x.safetensors")),
    "index names a missing file": with_bytes(INDEX, index("x.safetensors")),
    "index damaged": with_bytes(INDEX, lambda _: b"[]"),
}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no config", r"config\.json is missing"),
        ("config cut off", r"config\.json is not JSON"),
        ("no weights", r"model\.safetensors is missing"),
        ("weights cut off", r"model\.safetensors is damaged or cut off"),
        ("empty weights", r"model\.safetensors is damaged or cut off"),
        ("pickle", "pickled"),
        ("tensor missing", r"experts\.2\.up_proj\.weight is missing"),
        ("tensor unexpected", r"unexpected tensor extra\.weight"),
        ("wrong shape", r"experts\.2\.up_proj\.weight has shape \[32, 24\], not \[24, 32\]"),
        ("wrong type", "int8"),
        ("not finite", r"experts\.2\.up_proj\.weight holds values that are not finite"),
        ("infinite", r"experts\.2\.up_proj\.weight holds values that are not finite"),
        ("index leads outside", "not a file name"),
        ("index names a missing file", r"x\.safetensors is missing"),
        ("index damaged", r"index\.json is damaged"),
    ],
)
def test_a_damaged_folder_is_told_by_name_with_a_next_step(what: str, words: str, saved: Path):
    DAMAGES[what](saved)
    with pytest.raises(ModelError, match=words) as caught:
        load_folder(saved)
    assert caught.value.next_step


def test_a_weight_that_the_type_cannot_hold_is_told(saved: Path):
    with_weights(lambda tensors: tensors[NAME][0, 0].fill_(1e30))(saved)
    load_folder(saved, dtype=torch.float32)
    with pytest.raises(ModelError, match=r"up_proj\.weight holds values that are not finite in torch\.float16"):
        load_folder(saved, dtype=torch.float16)


def test_a_size_that_no_memory_holds_is_told(saved: Path):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"vocab_size": 10**13}))
    with pytest.raises(ModelError, match=r"a model of [\d,]+ parameters cannot be made"):
        load_folder(saved)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(ModelError, match="missing"):
        read_config(tmp_path / "nothing")
