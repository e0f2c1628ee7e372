"""The stage: fresh weights by seed, going on from a folder, and refusing another tokenizer."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny_model
import torch

from codeweft.base.artifacts import Manifest
from codeweft.base.errors import ModelError, UserError
from codeweft.base.records import TokenEntry, schema
from codeweft.base.runs import Run
from codeweft.model.config import ModelConfig
from codeweft.model.device import choose_device
from codeweft.model.folder import load_folder, read_config
from codeweft.tokenizer.load import Tokenizer, load_tokenizer
from codeweft.train.config import PretrainConfig, ScheduleConfig
from codeweft.train.pretrain import inputs, make_model, run

CPU = torch.device("cpu")
SHAPE = ModelConfig(
    hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
    n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, kv_lora_rank=16, qk_rope_head_dim=8,
    qk_nope_head_dim=8, v_head_dim=8, max_position_embeddings=64,
)  # fmt: skip
CONFIG = PretrainConfig(
    model=SHAPE,
    schedule=ScheduleConfig(steps=6, warmup=2, sequence=16, batch=4, micro_batch=2),
    initializer_std=0.02,
    validate_every=3,
    validation_sequences=4,
    checkpoint_every=3,
)


@pytest.fixture
def upstream(tmp_path: Path) -> dict[str, Path]:
    """A tokenizer, and shards of its own words over and over."""
    tokenizer = tiny_model.make_tokenizer(tmp_path / "tokenizer")
    folder = tmp_path / "tokens"
    maker = Run("tokens", folder, 1, {})
    ids = [tokenizer.begin, *tokenizer.encode("def add(a, b):\n    return a + b\n"), tokenizer.end]
    rows = []
    for split in ("train", "held-out"):
        maker.write(f"{split}-00000.bin", np.array(ids * 40, dtype="<u2").tobytes())
        rows += [
            {"document": f"{split}{n}", "shard": f"{split}-00000.bin", "start": n * len(ids), "length": len(ids),
             "bytes": 32, "kind": "code", "language": "Python", "repository": "r", "split": split, "epoch": 0,
             "fim": False}
            for n in range(40)
        ]  # fmt: skip
    maker.write("index.parquet", pa.Table.from_pylist(rows, schema=schema(TokenEntry)))
    maker.write("mixture.json", {"dtype": "uint16", "vocabulary": tokenizer.size})
    Manifest("tokens", 1, {"fim_rate": 0.5}, {}, maker.outputs, 1).write(folder)
    return {"tokenizer": tmp_path / "tokenizer", "tokens": folder}


def work(folder: Path, upstream: dict[str, Path]) -> Run:
    folder.mkdir()
    return Run("pretrain", folder, 1, upstream)


def test_the_stage_writes_a_folder_that_says_how_it_was_trained(tmp_path: Path, upstream: dict[str, Path]):
    stage = work(tmp_path / "pretrain", upstream)
    headline = run(CONFIG, stage)
    assert headline["tokens_per_second"] > 0
    assert stage.counts["tokens_seen"] == 6 * 4 * 16
    config = read_config(stage.folder / "model")
    assert (config.fim_rate, config.stage) == (0.5, "pretrain")
    assert config.vocab_size % 64 == 0
    assert load_tokenizer(stage.folder / "model").digest == load_tokenizer(upstream["tokenizer"]).digest
    assert set(stage.outputs) >= {"model/config.json", "model/model.safetensors", "model/tokenizer.json"}


def test_training_twice_gives_the_same_bytes(tmp_path: Path, upstream: dict[str, Path]):
    stages = [work(tmp_path / name, upstream) for name in ("a", "b")]
    for stage in stages:
        run(CONFIG, stage)
    assert stages[0].outputs == stages[1].outputs


def test_going_on_from_a_folder_starts_with_its_weights(tmp_path: Path, upstream: dict[str, Path]):
    first = work(tmp_path / "first", upstream)
    run(CONFIG, first)
    config = dataclasses.replace(CONFIG, init=first.folder / "model", precision="float32")
    tokenizer = load_tokenizer(upstream["tokenizer"])
    model = make_model(config, tokenizer, 1, CPU)
    weights = load_folder(first.folder / "model", dtype=torch.float32).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert inputs(config)["init/model.safetensors"] == first.outputs["model/model.safetensors"]


def test_a_model_with_another_tokenizer_is_refused(tmp_path: Path, upstream: dict[str, Path]):
    tokenizer: Tokenizer = tiny_model.make_tokenizer(tmp_path / "other", vocabulary=400)
    folder = tiny_model.make_folder(tmp_path / "model")
    with pytest.raises(ModelError, match="another tokenizer"):
        make_model(dataclasses.replace(CONFIG, init=folder), tokenizer, 1, CPU)


def test_a_missing_folder_to_go_on_from_is_told():
    with pytest.raises(ModelError, match="there is no folder"):
        inputs(dataclasses.replace(CONFIG, init=Path("/no/such/folder")))


def test_fresh_weights_follow_the_seed(upstream: dict[str, Path]):
    tokenizer = load_tokenizer(upstream["tokenizer"])
    weights = [make_model(CONFIG, tokenizer, seed, CPU).lm_head.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_isolated_attention_trains_other_weights(tmp_path: Path, upstream: dict[str, Path]):
    across, isolated = work(tmp_path / "a", upstream), work(tmp_path / "b", upstream)
    run(CONFIG, across)
    run(dataclasses.replace(CONFIG, attention="isolated"), isolated)
    assert across.outputs["model/model.safetensors"] != isolated.outputs["model/model.safetensors"]


@pytest.mark.parametrize("wanted", ["nonsense", "cuda"])
def test_a_device_that_is_not_there_is_told(wanted: str):
    if wanted == "cuda" and torch.cuda.is_available():
        return
    with pytest.raises(UserError, match=r"pretrain\.device"):
        choose_device(wanted, "pretrain.device")
