"""The completion endpoint through the official client, against the engine asked directly."""

import json
import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from tiny_server import Served

from codeweft.base.seeds import derive
from codeweft.engine.engine import Engine
from codeweft.engine.request import Completion, Request
from codeweft.tokenizer.fim import infill_prompt

PROMPT = "def add(a, b):\n    "


@pytest.fixture(scope="module")
def reference(served: Served) -> Engine:
    """A second engine on the same weights: the server's own belongs to its thread."""
    return Engine(served.engine.model, served.engine.tokenizer)


def direct(reference: Engine, **settings: Any) -> Completion:
    asked: dict[str, Any] = {"prompt": reference.prompt(PROMPT), "max_tokens": 16, **settings}
    return reference.generate([Request(**asked)])[0]


def wait_until_idle(served: Served) -> float:
    started = time.monotonic()
    while served.worker.open or served.engine.sequences:
        assert time.monotonic() - started < 20, "a request goes on although nobody waits for it"
        time.sleep(0.005)
    return time.monotonic() - started


def test_the_official_client_gets_the_engines_text_and_usage(served: Served, reference: Engine):
    answer = served.openai.completions.create(model="any", prompt=PROMPT, temperature=0)
    expected = direct(reference)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (expected.text, expected.finish)
    assert (answer.object, answer.model, len(answer.choices)) == ("text_completion", "tiny", 1)
    assert answer.usage is not None
    prompt_tokens = len(reference.prompt(PROMPT))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt_tokens, len(expected.tokens))
    assert answer.usage.total_tokens == prompt_tokens + len(expected.tokens)


def test_n_gives_different_texts_and_the_first_is_that_of_n_1(served: Served, reference: Engine):
    answer = served.openai.completions.create(model="any", prompt=PROMPT, n=2, seed=5, max_tokens=20)
    seeds = [5, derive(5, "choice", 1)]
    expected = [direct(reference, seed=seed, temperature=1.0, max_tokens=20).text for seed in seeds]
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert expected[0] != expected[1]


def test_without_a_seed_each_answer_is_drawn_anew(served: Served):
    texts = {served.openai.completions.create(model="m", prompt=PROMPT).choices[0].text for _ in range(4)}
    assert len(texts) == 4


def test_streamed_pieces_join_to_the_whole_answer(served: Served):
    settings: dict[str, Any] = {"model": "m", "prompt": PROMPT, "n": 3, "seed": 2, "max_tokens": 40, "stop": ["e"]}
    whole = served.openai.completions.create(**settings)
    texts, finishes = ["", "", ""], [None, None, None]
    chunks = list(served.openai.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
    for chunk in chunks[:-1]:
        [choice] = chunk.choices
        assert finishes[choice.index] is None
        texts[choice.index] += choice.text
        finishes[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices]
    assert finishes == [choice.finish_reason for choice in whole.choices]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_the_stream_is_server_sent_events_that_end_with_done(served: Served):
    body = {"prompt": PROMPT, "stream": True, "max_tokens": 4, "temperature": 0}
    with served.http as http:
        answer = http.post("/v1/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: "))["object"] == "text_completion" for event in events[:-2])


def test_suffix_asks_for_the_middle(served: Served, reference: Engine):
    suffix = "\n\nprint(add(1, 2))\n"
    answer = served.openai.completions.create(model="m", prompt=PROMPT, suffix=suffix, temperature=0)
    prompt = tuple(infill_prompt(reference.tokenizer, PROMPT, suffix))
    assert answer.choices[0].text == direct(reference, prompt=prompt).text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(prompt)
    empty = served.openai.completions.create(model="m", prompt=PROMPT, suffix="", temperature=0)
    assert empty.choices[0].text == direct(reference).text


def test_lists_of_prompts_and_token_ids_are_answered_in_order(served: Served, reference: Engine):
    ids = list(reference.prompt(PROMPT))
    other = "class A:"
    expected = [direct(reference).text, direct(reference, prompt=reference.prompt(other)).text]
    for prompt in ([PROMPT, other], [ids, list(reference.prompt(other))]):
        answer = served.openai.completions.create(model="m", prompt=prompt, temperature=0)
        assert [choice.text for choice in answer.choices] == expected
    [choice] = served.openai.completions.create(model="m", prompt=ids, temperature=0).choices
    assert choice.text == expected[0]


def test_special_tokens_typed_into_a_prompt_stay_text(served: Served, reference: Engine):
    answer = served.openai.completions.create(model="m", prompt="<｜fim▁begin｜>", max_tokens=1)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 1 + len(reference.tokenizer.encode("<｜fim▁begin｜>")) > 3


def test_two_hundred_at_once_are_answered_or_told_to_come_back(served: Served, reference: Engine):
    def ask(number: int) -> tuple[int, str | None, str]:
        body = {"prompt": PROMPT, "max_tokens": 8, "seed": number}
        while True:
            answer = http.post("/v1/completions", json=body)
            if answer.status_code != 503:
                return number, None, answer.json()["choices"][0]["text"]
            assert answer.json()["error"]["code"] == "queue_full"
            time.sleep(float(answer.headers["retry-after"]) / 4)

    limits = httpx.Limits(max_connections=200)
    with httpx.Client(base_url=served.url, timeout=60, limits=limits) as http, ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, range(200)))
    requests = [Request(reference.prompt(PROMPT), max_tokens=8, temperature=1.0, seed=seed) for seed in range(200)]
    assert [text for *_, text in answers] == [completion.text for completion in reference.generate(requests)]
    wait_until_idle(served)


def slowed(served: Served, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Make each step take 50 ms, so that leaving early is possible; the event tells that one has run."""
    original, began = served.engine.step, threading.Event()

    def step() -> list:
        time.sleep(0.05)
        pieces = original()
        began.set()
        return pieces

    monkeypatch.setattr(served.engine, "step", step)
    return began


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_rows(served: Served, monkeypatch: pytest.MonkeyPatch, stream: bool):
    began = slowed(served, monkeypatch)
    body = json.dumps({"prompt": PROMPT, "max_tokens": 150, "n": 6, "stream": stream, "temperature": 0}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        assert began.wait(10)
        assert len(served.engine.sequences) == 6
    assert wait_until_idle(served) < 2  # 150 steps of 50 ms would take 7.5 s
    assert len(served.engine.scheduler.free) == 4


def test_models_and_health_tell_who_answers(served: Served):
    assert [model.id for model in served.openai.models.list().data] == ["tiny"]
    with served.http as http:
        assert http.get("/health").json() == {"status": "ok", "open": 0}


def test_a_kept_connection_is_answered_at_once(served: Served):
    """Nagle's algorithm against delayed acknowledgements costs 40 ms each time, a keystroke's whole patience."""
    times = []
    with served.http as http:
        for _ in range(21):
            started = time.perf_counter()
            http.get("/health")
            times.append(time.perf_counter() - started)
    assert statistics.median(times) < 0.03


def test_a_prompt_that_does_not_fit_is_an_error_not_a_cut(served: Served):
    with pytest.raises(openai.BadRequestError, match="holds 192 in all"):
        served.openai.completions.create(model="m", prompt="word " * 400)
