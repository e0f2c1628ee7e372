"""The real server in a thread of the test's process, on a free loopback port."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import httpx
import openai

from codeweft.engine.engine import Engine
from codeweft.serve.app import Server, create_app, listen
from codeweft.serve.config import ServeConfig
from codeweft.serve.worker import Worker


@dataclass
class Served:
    url: str
    engine: Engine
    worker: Worker

    @cached_property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=30)

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)


def serve(engine: Engine, config: ServeConfig) -> Iterator[Served]:
    """Run the application as `codeweft serve` does, in a thread of this process."""
    app = create_app(engine, config)
    listening = listen(config)
    server = Server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", engine, app.state.worker)
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert not app.state.worker.thread.is_alive()
