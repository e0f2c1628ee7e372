"""Many clients at once: right answers for all of them, a bounded queue, and nothing left behind."""

import asyncio
import gc
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tiny_server import Served, post, read_answer, serve

from codeweft.engine.engine import Engine
from codeweft.engine.request import Request
from codeweft.serve.config import ServeConfig

AT_ONCE = 200


@pytest.fixture(scope="module")
def wide(served: Served) -> Iterator[Served]:
    """A server with the default number of rows and places."""
    yield from serve(Engine(served.engine.model, served.engine.tokenizer), ServeConfig(port=0))


def all_at_once(url: str, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    """Send all requests before any answer, each on its own connection."""

    async def ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        settings: dict[str, Any] = {"base_url": url, "timeout": 60, "trust_env": False, "verify": False}
        async with httpx.AsyncClient(limits=limits, **settings) as http:
            return await asyncio.gather(*(http.post("/v1/completions", json=body) for body in bodies))

    return asyncio.run(ask())


def streamed_text(answer: httpx.Response) -> str:
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events.pop() == "[DONE]"
    return "".join(httpx.Response(200, text=event).json()["choices"][0]["text"] for event in events)


def test_two_hundred_at_once_all_get_the_text_they_would_get_alone(wide: Served):
    """Every second one streams; the truth is a second engine that runs one request at a time."""
    prompts = [f"def f{number}(a):\n    " for number in range(20)]
    alone = Engine(wide.engine.model, wide.engine.tokenizer, rows=1)
    expected = [alone.generate([Request(alone.prompt(prompt), max_tokens=6)])[0].text for prompt in prompts]
    bodies = [
        {"prompt": prompts[number % 20], "max_tokens": 6, "temperature": 0, "stream": number % 2 == 1}
        for number in range(AT_ONCE)
    ]
    answers = all_at_once(wide.url, bodies)
    assert {answer.status_code for answer in answers} == {200}
    texts = [
        streamed_text(answer) if body["stream"] else answer.json()["choices"][0]["text"]
        for body, answer in zip(bodies, answers, strict=True)
    ]
    assert texts == [expected[number % 20] for number in range(AT_ONCE)]
    assert len(set(texts)) > 10
    wide.wait_until_idle()


def test_the_queue_is_never_longer_than_it_may_be_and_who_finds_it_full_is_told_when_to_come_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
):
    engine = Engine(served.engine.model, served.engine.tokenizer, rows=2)
    original, longest = engine.step, 0

    def step() -> list:
        nonlocal longest
        time.sleep(0.02)  # all requests come while the first still run
        longest = max(longest, len(engine.sequences))
        return original()

    monkeypatch.setattr(engine, "step", step)
    for other in serve(engine, ServeConfig(port=0, queue=5)):
        answers = all_at_once(other.url, [{"prompt": "x", "max_tokens": 8}] * 60)
        other.wait_until_idle()
    refused = [answer for answer in answers if answer.status_code == 503]
    assert longest == 5
    assert refused
    assert {(answer.headers["retry-after"], answer.json()["error"]["code"]) for answer in refused} == {
        ("1", "queue_full")
    }
    assert sum(answer.status_code == 200 for answer in answers) == 60 - len(refused)


def test_what_the_queue_can_never_hold_is_400_and_not_told_to_come_back(served: Served):
    with served.http as http:
        answer = http.post("/v1/completions", json={"prompt": "x", "n": 41})
    assert answer.status_code == 400
    assert "at most 40 together" in answer.json()["error"]["message"]


def test_health_is_answered_while_prompts_are_cut_in_tokens_four_at_a_time(
    wide: Served, monkeypatch: pytest.MonkeyPatch
):
    """The slow part happens beside the event loop: here it does not end before health has been answered."""
    encode, begun, gate = wide.engine.tokenizer.encode, [], threading.Event()

    def slow(text: str) -> list[int]:
        begun.append(text)
        gate.wait(20)
        return encode(text)

    monkeypatch.setattr(wide.engine.tokenizer, "encode", slow)
    clients = [wide.connect() for _ in range(8)]
    for client in clients:
        client.sendall(post(b'{"prompt": "x", "max_tokens": 1}'))
    with wide.http as http:
        assert http.get("/health", timeout=10).status_code == 200
        while len(begun) < 4:
            time.sleep(0.01)
        time.sleep(0.2)
        assert len(begun) == 4
    gate.set()
    assert [read_answer(client.makefile("rb"))[0] for client in clients] == [200] * 8
    assert len(begun) == 8
    for client in clients:
        client.close()


def mixed_bodies(count: int) -> list[dict[str, Any]]:
    """Whole and streamed answers, wrong values, unknown fields, prompts that do not fit."""
    kinds: list[dict[str, Any]] = [
        {},
        {"stream": True},
        {"n": 2, "seed": 3},
        {"temperature": "hot"},
        {"tempratur": 1},
        {"prompt": "word " * 300},
    ]
    return [{"prompt": "x", "max_tokens": 2} | kinds[number % len(kinds)] for number in range(count)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="toolchain: no /dev/fd here")
def test_two_thousand_requests_leave_no_memory_and_no_files_behind(wide: Served):
    """One in ten leaves without reading; counted after 300 and after 2,000 requests."""

    def ask_many(rounds: int) -> tuple[int, int]:
        for _ in range(rounds):
            for _ in range(10):
                client = wide.connect()
                client.sendall(post(b'{"prompt": "x", "max_tokens": 100, "stream": true}'))
                client.close()
            statuses = {answer.status_code for answer in all_at_once(wide.url, mixed_bodies(90))}
            assert statuses == {200, 400}
            wide.wait_until_idle()
        while wide.server.server_state.connections:
            time.sleep(0.01)
        gc.collect()
        return tracemalloc.get_traced_memory()[0], sum(1 for _ in Path("/dev/fd").iterdir())

    tracemalloc.start()
    try:
        memory_before, files_before = ask_many(3)
        memory, files = ask_many(17)
    finally:
        tracemalloc.stop()
    assert files <= files_before + 1
    assert memory - memory_before < 500_000  # 250 bytes a request
    assert not wide.worker.tickets
    assert not wide.engine.sequences
    assert wide.engine.pool.available == wide.engine.pool.size
