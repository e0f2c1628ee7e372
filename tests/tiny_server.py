"""The real server in a thread of the test's process, on a free loopback port."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from typing import Any

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
    server: Server

    @cached_property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=30)

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=False)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def connect(self) -> socket.socket:
        """A bare connection, for what no honest client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, data: bytes) -> tuple[int, dict[str, Any]]:
        """Send bytes; the status and the JSON of what comes back until the server closes."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_answer(connection.makefile("rb"))

    def wait_until_idle(self) -> float:
        """Seconds until nothing is open any more; fails where something goes on although nobody waits for it."""
        started = time.monotonic()
        while self.worker.open or self.engine.busy:
            assert time.monotonic() - started < 20, "a request goes on although nobody waits for it"
            time.sleep(0.005)
        return time.monotonic() - started


def post(body: bytes, *headers: str) -> bytes:
    """The bytes of a completion request; its length is that of the body unless a header says otherwise."""
    lines = ["POST /v1/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_answer(file: BufferedReader) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of an answer with a length."""
    status = int(file.readline().split()[1])
    length = 0
    while line := file.readline().strip():
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    return status, json.loads(file.read(length))


def serve(engine: Engine, config: ServeConfig) -> Iterator[Served]:
    """Run the application as `codeweft serve` does, in a thread of this process."""
    app = create_app(engine, config)
    listening = listen(config)
    server = Server(app)
    # a daemon, so that a test that fails while it runs does not keep the process from ending
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", engine, app.state.worker, server)
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert not app.state.worker.thread.is_alive()
