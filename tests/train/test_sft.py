"""The stage: what a step reads, what it learns, what it keeps of infilling, and what it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny_model
import torch

from codeweft.base.artifacts import Manifest
from codeweft.base.errors import InputError, ModelError
from codeweft.base.records import TokenEntry, schema
from codeweft.base.runs import Run
from codeweft.engine.engine import Engine
from codeweft.engine.request import Request
from codeweft.model.folder import load_folder, read_config
from codeweft.tokenizer.chat import encode_chat
from codeweft.tokenizer.load import load_tokenizer
from codeweft.train.adapter_folder import load_adapter
from codeweft.train.config import BalanceConfig, LoraConfig, OptimizerConfig, SftConfig, SftScheduleConfig
from codeweft.train.conversations import Sample, row_of
from codeweft.train.lora import merge_
from codeweft.train.objectives import next_token
from codeweft.train.sft import Rows, batches_of, run

CPU = torch.device("cpu")
LENGTH = 96
CONFIG = SftConfig(
    schedule=SftScheduleConfig(steps=6, learning_rate=3e-3, warmup=2, sequence=LENGTH, batch=4, micro_batch=2),
    fim_share=0.25,
    validate_every=3,
    validation_sequences=2,
    checkpoint_every=3,
)
ANSWERS = {"Add a and b.": "return a + b", "Name a colour.": "blue", "Say nothing.": "nothing", "Count.": "1 2 3"}


@pytest.fixture
def upstream(tmp_path: Path) -> dict[str, Path]:
    """A model, conversations of two sources, and a token stream of which half the documents are cut for infilling."""
    model = tiny_model.make_folder(tmp_path / "pretrain" / "model")
    tokenizer = load_tokenizer(model)
    Manifest("pretrain", 1, {}, {}, {}, 1, counts={"tokens_seen": 4096}).write(tmp_path / "pretrain")
    talks = tmp_path / "problems" / "conversations"
    talks.mkdir(parents=True)
    for split in ("train", "held-out"):
        lines = [
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}], "source": source}
            for source in ("short", "other")
            for asked, said in ANSWERS.items()
        ]
        (talks / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    maker = Run("tokens", tmp_path / "tokens", 1, {})
    cut = [
        *(tokenizer.begin, tokenizer.fim_begin, *tokenizer.encode("a ="), tokenizer.fim_hole, *tokenizer.encode("2")),
        *(tokenizer.fim_end, *tokenizer.encode(" 1 +"), tokenizer.end),
    ]
    whole = [tokenizer.begin, *tokenizer.encode("a = 1 + 2"), tokenizer.end]
    rows, ids = [], []
    for number in range(40):
        document = cut if number % 2 else whole
        rows.append(
            {"document": f"d{number}", "shard": "train-00000.bin", "start": len(ids), "length": len(document),
             "bytes": 9, "kind": "code", "language": "Python", "repository": "r", "split": "train", "epoch": 0,
             "fim": bool(number % 2)}
        )  # fmt: skip
        ids += document
    maker.write("train-00000.bin", np.array(ids, dtype="<u2").tobytes())
    maker.write("held-out-00000.bin", b"")
    maker.write("index.parquet", pa.Table.from_pylist(rows, schema=schema(TokenEntry)))
    maker.write("mixture.json", {"dtype": "uint16", "vocabulary": tokenizer.size})
    return {name: tmp_path / name for name in ("pretrain", "problems", "tokens")}


def work(folder: Path, upstream: dict[str, Path]) -> Run:
    folder.mkdir(parents=True)
    return Run("sft", folder, 1, upstream, model_stage="pretrain")


def test_the_folder_says_its_stage_and_still_how_it_infills(tmp_path: Path, upstream: dict[str, Path]):
    stage = work(tmp_path / "sft", upstream)
    assert run(CONFIG, stage)["tokens_per_second"] > 0
    config = read_config(stage.folder / "model")
    assert (config.stage, config.fim_rate) == ("sft", read_config(upstream["pretrain"] / "model").fim_rate)
    assert stage.counts["conversations"] == {"other": 4, "short": 4}
    assert stage.counts["infilling_documents"] > 0
    assert (stage.counts["tokens_seen"], stage.counts["tokens_trained"]) == (4096, 6 * 4 * LENGTH)
    assert set(stage.outputs) >= {"model/config.json", "model/model.safetensors", "model/tokenizer.json"}
    rows = [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation_loss" in row] == [3, 6]
    assert all(row["balance_loss"] > 0 for row in rows)


def test_training_twice_and_in_two_goes_gives_the_same_bytes(tmp_path: Path, upstream: dict[str, Path]):
    stages = [work(tmp_path / name / "sft", upstream) for name in ("a", "b", "c")]
    run(CONFIG, stages[0])
    run(CONFIG, stages[1])
    often = dataclasses.replace(CONFIG, checkpoint_every=2)
    run(often, stages[2])
    shutil.rmtree(stages[2].folder / "checkpoints" / "step-00000006")  # as if killed after step 4
    again = Run("sft", stages[2].folder, 1, upstream, resumed=True, model_stage="pretrain")
    run(often, again)
    assert stages[0].outputs == stages[1].outputs == again.outputs


def test_a_few_conversations_are_learned_by_heart(tmp_path: Path, upstream: dict[str, Path]):
    schedule = SftScheduleConfig(
        steps=120, learning_rate=1e-2, warmup=10, floor=0.02, sequence=LENGTH, batch=2, micro_batch=2
    )
    optimizer = OptimizerConfig(weight_decay=0.0)
    stage = work(tmp_path / "sft", upstream)
    run(SftConfig(schedule=schedule, optimizer=optimizer, fim_share=0.1, precision="float32"), stage)
    tokenizer = load_tokenizer(stage.folder / "model")
    engine = Engine(load_folder(stage.folder / "model"), tokenizer, rows=4)
    prompts = [encode_chat(tokenizer, [{"role": "user", "content": asked}]) for asked in ANSWERS]
    found = engine.generate([Request(tuple(prompt), max_tokens=20) for prompt in prompts])
    assert [each.text.strip() for each in found] == list(ANSWERS.values())
    assert all(each.finish == "stop" for each in found)


def test_packed_samples_lose_as_much_as_samples_alone():
    tokenizer_size, length = 60, 32
    random = np.random.default_rng(3)
    samples = [
        Sample(tuple(random.integers(0, tokenizer_size, size).tolist()), (False, *(True,) * (size - 1)))
        for size in (9, 14, 5)
    ]
    shape = tiny_model.SMALLEST | {"vocab_size": 64, "max_position_embeddings": 64}
    torch.manual_seed(0)
    model = tiny_model.Transformer(tiny_model.ModelConfig(**shape))
    model.init_weights(std=0.2, generator=torch.Generator().manual_seed(1))
    model.eval()
    (packed,) = batches_of([row_of(samples, length, 0)], 1, True, CPU)
    apart = batches_of([row_of([sample], length, 0) for sample in samples], 1, True, CPU)
    none = BalanceConfig(expert=0.0)
    together = float(next_token(model, packed, none).cross_entropy.detach())
    alone = float(np.mean([float(next_token(model, batch, none).cross_entropy.detach()) for batch in apart]))
    assert together == pytest.approx(alone, rel=1e-5)
    across = dataclasses.replace(packed, documents_BT=None)
    assert float(next_token(model, across, none).cross_entropy.detach()) != pytest.approx(alone, rel=1e-3)


def rows_of(config: SftConfig, talks: int = 10, infilling: int = 4) -> Rows:
    talk = [Sample((n, n), (False, True), "rare" if n % 2 else "often") for n in range(talks)]
    cut = [Sample((100 + n, 100), (True, True), "infilling") for n in range(infilling)]
    return Rows(talk, cut, config, 0, 7)


def test_infilling_documents_take_their_share_of_the_sequences():
    rows = rows_of(dataclasses.replace(CONFIG, schedule=dataclasses.replace(CONFIG.schedule, sequence=2)))
    kinds = [bool(rows.row(position).tokens[0] >= 100) for position in range(40)]
    assert sum(kinds) == 10
    assert all(sum(kinds[start : start + 4]) == 1 for start in range(0, 40, 4))
    none = rows_of(dataclasses.replace(CONFIG, schedule=dataclasses.replace(CONFIG.schedule, sequence=2)), infilling=0)
    assert not any(none.row(position).tokens[0] >= 100 for position in range(40))


def test_a_source_is_read_as_often_as_its_weight_says():
    schedule = dataclasses.replace(CONFIG.schedule, sequence=2)
    rows = rows_of(SftConfig(schedule=schedule, fim_share=0.0, weights={"rare": 0.5, "often": 2.0}), talks=40)
    counts = np.zeros(40)
    for epoch in range(50):
        for number in rows.drawn("conversations", epoch):
            counts[number] += 1
    assert (counts[::2] == 100).all()
    assert counts[1::2].mean() == pytest.approx(25, abs=3)
    # an epoch's rows hold what was drawn for it, in another order each time
    first = [int(rows.row(position).tokens[0]) for position in range(len(rows.drawn("conversations", 0)))]
    assert sorted(first) == sorted(rows.drawn("conversations", 0))
    assert first != sorted(first)


def test_a_conversation_longer_than_a_sequence_is_left_out_and_counted(tmp_path: Path, upstream: dict[str, Path]):
    path = upstream["problems"] / "conversations" / "train.jsonl"
    long = {"messages": [{"role": "user", "content": "x y " * 90}, {"role": "assistant", "content": "z"}]}
    path.write_text(path.read_text("utf-8") + json.dumps(long) + "\n", encoding="utf-8")
    stage = work(tmp_path / "sft", upstream)
    run(CONFIG, stage)
    assert (stage.counts["dropped"], stage.counts["cut"]) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"weights": {"nobody": 1.0}},
            r"sft\.weights\.nobody names no source of conversations; there are other, short",
        ),
        ({"weights": {"other": 0.0, "short": 0.0}}, "There are no conversations to train on"),
        ({"schedule": dataclasses.replace(CONFIG.schedule, sequence=4)}, "There are no conversations to train on"),
        ({"schedule": dataclasses.replace(CONFIG.schedule, sequence=tiny_model.WINDOW + 1)}, "takes 192 tokens"),
    ],
)
def test_what_cannot_be_trained_on_is_told_before_training(
    changes: dict, words: str, tmp_path: Path, upstream: dict[str, Path]
):
    with pytest.raises((InputError, ModelError), match=words):
        run(dataclasses.replace(CONFIG, **changes), work(tmp_path / "sft", upstream))


@pytest.mark.parametrize("changes", [{"fim_share": 1.0}, {"weights": {"a": -1.0}}, {"validate_every": 0}])
def test_settings_that_cannot_be_are_refused(changes: dict):
    with pytest.raises(ValueError, match="must be"):
        SftConfig(**changes)


def test_adapters_are_saved_beside_a_model_that_holds_them_merged(tmp_path: Path, upstream: dict[str, Path]):
    config = dataclasses.replace(CONFIG, lora=LoraConfig(rank=4, alpha=16.0), precision="float32")
    stage = work(tmp_path / "sft", upstream)
    run(config, stage)
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= set(stage.outputs)
    before, after = (load_folder(each / "model", dtype=torch.float32) for each in (upstream["pretrain"], stage.folder))
    base = {name: value.bfloat16().float() for name, value in before.state_dict().items()}
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, base[name])}
    assert any("q_proj" in name for name in changed)
    assert not any("norm" in name or "embed_tokens" in name for name in changed)
    load_adapter(before, stage.folder / "adapter")
    merge_(before)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(value.bfloat16().float(), after.state_dict()[name], msg=name)
