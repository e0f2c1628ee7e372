"""The small random model, ready to be asked."""

from pathlib import Path

import pytest
from tiny_model import make_folder

from codeweft.engine.engine import Engine


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
