"""A small corpus folder, a tokenizer trained on it, and finished stages made without the command line."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeweft.base.records import Document, schema
from codeweft.base.runs import Run
from codeweft.tokenizer import train
from codeweft.tokenizer.config import TokenizerConfig
from codeweft.tokenizer.load import Tokenizer, load_tokenizer

WORDS = ["value", "result", "parser", "token", "index", "stream", "buffer", "model", "layer", "shape", "count", "node"]


def make_text(kind: str, random: np.random.Generator, lines: int) -> str:
    """Lines of made-up code, sums or prose."""
    names = [str(name) for name in random.choice(WORDS, 4 * lines)]
    numbers = random.integers(0, 1000, 2 * lines).tolist()
    made = []
    for line in range(lines):
        first, second, third, fourth = names[4 * line : 4 * line + 4]
        left, right = numbers[2 * line : 2 * line + 2]
        if kind == "code":
            made.append(f"def {first}_{second}({third}):\n    return {third}.{fourth}({left}) + {right}\n")
        elif kind == "math":
            made.append(f"The sum of {left} and {right} is {left + right}.\n")
        else:
            made.append(
                f"A {first} keeps its {second} while the {third} reads — «{fourth}» — and the naïve 模型 waits.\n"
            )
    return "".join(made)


def make_rows(number: int = 120, seed: int = 0, lines: tuple[int, int] = (1, 40)) -> list[dict[str, Any]]:
    """Documents of three kinds, every tenth held out."""
    random = np.random.default_rng(seed)
    rows = []
    for place in range(number):
        kind = ("code", "code", "math", "text")[place % 4]
        text = make_text(kind, random, int(random.integers(*lines)))
        document = Document(
            id=hashlib.blake2b(f"{seed} {place}".encode(), digest_size=16).hexdigest(),
            text=text,
            kind=kind,
            language="Python" if kind == "code" else "Text",
            source=f"source-{place % 3}",
            repository=f"repository-{place}",
            path=f"file-{place}",
            bytes=len(text.encode()),
            split="held-out" if place % 10 == 9 or place % 20 == 6 else "train",
        )
        rows.append({name: getattr(document, name) for name in schema(Document).names} | {"attributes": []})
    return rows


def write_corpus(folder: Path, rows: list[dict[str, Any]], parts: int = 2, row_group: int = 17) -> Path:
    """Write documents as the corpus stage does."""
    (folder / "documents").mkdir(parents=True)
    for part in range(parts):
        table = pa.Table.from_pylist(rows[part::parts], schema(Document))
        pq.write_table(table, folder / "documents" / f"part-{part:05d}.parquet", row_group_size=row_group)
    return folder


@pytest.fixture(scope="session")
def documents() -> Callable[..., list[dict[str, Any]]]:
    """Makes documents: `make_rows`."""
    return make_rows


@pytest.fixture(scope="session")
def store() -> Callable[..., Path]:
    """Writes documents as a corpus folder: `write_corpus`."""
    return write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished corpus folder."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), make_rows())


@pytest.fixture(scope="session")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tokenizer folder."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train.run(TokenizerConfig(vocabulary=600), Run("tokenizer", folder, 1, {"corpus": corpus}))
    return folder


@pytest.fixture(scope="session")
def tokenizer(trained: Path) -> Tokenizer:
    return load_tokenizer(trained)


@pytest.fixture
def stage(corpus: Path, trained: Path, tmp_path: Path) -> Callable[..., Run]:
    """Makes the `Run` of a stage over the corpus and the tokenizer, in a folder of its own."""

    def make(name: str, folder: str = "stage", corpus: Path = corpus, seed: int = 1, workers: int = 1) -> Run:
        (tmp_path / folder).mkdir()
        return Run(name, tmp_path / folder, seed, {"corpus": corpus, "tokenizer": trained}, workers=workers)

    return make
