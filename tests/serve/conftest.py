"""The small random models, one of them served for the whole session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import make_folder
from tiny_server import Served, serve

from codeweft.engine.engine import Engine
from codeweft.serve.config import ServeConfig


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def served(folder: Path) -> Iterator[Served]:
    yield from serve(Engine.load(folder, rows=4), ServeConfig(port=0, name="tiny", max_body_bytes=20_000, queue=40))


@pytest.fixture(scope="session")
def without_fim(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(make_folder(tmp_path_factory.mktemp("plain"), fim_rate=0.0))
