"""The small random model, ready to be asked."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_model import make_folder

from codeweft.engine.engine import Engine


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products: a second thread costs more than it brings, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def loaded(folder: Path) -> Engine:
    return Engine.load(folder, rows=6)


@pytest.fixture
def engine(loaded: Engine) -> Engine:
    """An engine of its own for each test; the weights are shared."""
    return Engine(loaded.model, loaded.tokenizer, rows=6)
