"""A small run folder made by the real stages: documents, a tokenizer, token shards, and a model with random weights."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
import torch

from codeweft.base.artifacts import Manifest, digest_bytes, digest_file, write_json
from codeweft.base.records import Document, schema
from codeweft.base.runs import STARTED, Run
from codeweft.model.config import ModelConfig
from codeweft.model.folder import save_folder
from codeweft.model.transformer import Transformer
from codeweft.tokenizer import tokens as tokens_stage
from codeweft.tokenizer import train as tokenizer_stage
from codeweft.tokenizer.config import TokenizerConfig, TokensConfig
from codeweft.tokenizer.load import FILES, load_tokenizer

WINDOW = 64


def source(random: np.random.Generator) -> str:
    """A small class with methods that resemble each other."""
    names = random.choice(["count", "total", "width", "height", "depth", "speed"], 4, replace=False)
    lines = ["class Thing:", "    def __init__(self):"]
    lines += [f"        self.{name} = {random.integers(100)}" for name in names]
    for name in names:
        lines += ["", f"    def get_{name}(self):", f"        return self.{name} + {random.integers(9)}"]
        lines += ["", f"    def reset_{name}(self):", "        return self.clear(everything=True)"]
    return "\n".join(lines) + "\n"


def documents() -> Iterator[Document]:
    random = np.random.default_rng(8)
    for number in range(60):
        split = "held-out" if number % 3 == 0 else "train"
        code = number % 4 != 3
        text = source(random) if code else " ".join(random.choice(["the", "cat", "sat", "on", "mats"], 80).tolist())
        yield Document(
            id=digest_bytes(f"{number}".encode())[8:],
            text=text,
            kind="code" if code else "text",
            language=("python" if number % 8 else "c") if code else "english",
            source="made up",
            repository=f"repository {number}",
            path=f"file{number}.py",
            bytes=len(text.encode()),
            split=split,
        )


def finish(folder: Path, stage: str, work: Run | None = None) -> None:
    outputs = work.outputs if work else {"all": digest_bytes(stage.encode())}
    Manifest(stage=stage, version=1, config={}, inputs={}, outputs=outputs, seed=1).write(folder / stage)


def write_model(folder: Path, fim_rate: float) -> None:
    """A model with random weights, as pretrain leaves it while it is being measured: started.json, no manifest."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    config = ModelConfig(
        vocab_size=tokenizer.size,
        **tiny_model.SMALLEST,
        max_position_embeddings=128,
        bos_token_id=tokenizer.begin,
        eos_token_id=tokenizer.end,
    )
    model = Transformer(config)
    model.init_weights(0.1, torch.Generator().manual_seed(0))
    files = [tokenizer.folder / name for name in FILES]
    save_folder(model, folder / "pretrain" / "model", stage="pretrain", fim_rate=fim_rate, extra_files=files)
    write_json(folder / "pretrain" / STARTED, {"config": {"schedule": {"sequence": WINDOW}}})


def build(folder: Path, fim_rate: float = 0.5) -> Path:
    for stage in ("corpus", "tokenizer", "tokens"):
        (folder / stage).mkdir(parents=True)
    rows = [asdict(each) for each in documents()]
    (folder / "corpus" / "documents").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema(Document)), folder / "corpus" / "documents" / "part-00000.parquet")
    finish(folder, "corpus")
    work = Run("tokenizer", folder / "tokenizer", 1, {"corpus": folder / "corpus"})
    tokenizer_stage.run(TokenizerConfig(vocabulary=400), work)
    finish(folder, "tokenizer", work)
    inputs = {"corpus": folder / "corpus", "tokenizer": folder / "tokenizer"}
    work = Run("tokens", folder / "tokens", 1, inputs)
    settings = TokensConfig(total=8000, code_share=0.7, math_share=0.0, text_share=0.3, held_out_tokens=100_000)
    tokens_stage.run(settings, work)
    finish(folder, "tokens", work)
    write_model(folder, fim_rate)
    return folder


@pytest.fixture(scope="session")
def measured_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose pretrain stage is about to be measured; tests may fill its `measured/`."""
    return build(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def own_run(measured_run: Path, tmp_path: Path) -> Path:
    """The same for a test that changes it."""
    shutil.copytree(measured_run, tmp_path / "own", ignore=shutil.ignore_patterns("measured"))
    return tmp_path / "own"


@pytest.fixture(scope="session")
def finish_pretrain() -> Callable[..., None]:
    """What follows the measuring: the manifest of pretrain."""

    def write(folder: Path, tokens_seen: int) -> None:
        model = folder / "pretrain" / "model"
        outputs = {f"model/{path.name}": digest_file(path) for path in model.iterdir()}
        config = {"schedule": {"sequence": WINDOW}}
        manifest = Manifest("pretrain", 1, config, {}, outputs, 1, counts={"tokens_seen": tokens_seen})
        manifest.write(folder / "pretrain")

    return write


@pytest.fixture(scope="session")
def unlearn_infilling() -> Callable[[Path], None]:
    """Turn a run's model into one that never saw a hole."""
    return lambda folder: write_model(folder, fim_rate=0.0)
