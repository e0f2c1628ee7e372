"""The completion endpoint through the official client, against the engine asked directly."""

import json
import statistics
import time
from typing import Any

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


def test_the_ids_of_all_drawn_tokens_are_told_where_asked_whole_or_in_a_stream(served: Served, reference: Engine):
    ids = list(reference.prompt(PROMPT))
    settings: dict[str, Any] = {"model": "m", "prompt": ids, "seed": 5, "max_tokens": 24, "stop": ["e"]}
    expected = direct(reference, seed=5, temperature=1.0, max_tokens=24, stop=("e",)).tokens

    def ids_of(choice: Any) -> tuple[int, ...]:
        return tuple(choice.model_extra["token_ids"])

    told = {"return_token_ids": True}
    whole = served.openai.completions.create(**settings, extra_body=told).choices[0]
    chunks = [chunk.choices[0] for chunk in served.openai.completions.create(**settings, extra_body=told, stream=True)]
    assert ids_of(whole) == expected
    assert tuple(token for chunk in chunks for token in ids_of(chunk)) == expected
    untold: Any = served.openai.completions.create(**settings).choices[0]
    assert untold.model_extra["token_ids"] is None


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


def test_events_are_ascii_since_some_clients_end_a_line_at_more_than_newlines(served: Served):
    body = {"prompt": PROMPT, "stream": True, "max_tokens": 60, "seed": 1, "temperature": 2}
    with served.http as http:
        answer = http.post("/v1/completions", json=body)
    assert answer.content.isascii()
    texts = [json.loads(line[6:])["choices"][0]["text"] for line in answer.text.splitlines()[:-2] if line]
    assert not "".join(texts).isascii()


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


def test_models_and_health_tell_who_answers(served: Served):
    assert [model.id for model in served.openai.models.list().data] == ["tiny"]
    with served.http as http:
        health = http.get("/health").json()
    assert (health["status"], health["open"]) == ("ok", 0)
    assert 0 <= health["guessed_right"] <= health["guessed"]


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


def test_rules_of_layout_end_the_text_as_the_engine_does(served: Served, reference: Engine):
    """Fields beside OpenAI's: the official client sends them in `extra_body`."""
    for rule in ({"stop_line": True}, {"stop_indent": 2}, {"stop_bracket": True}):
        answer = served.openai.completions.create(
            model="m", prompt=PROMPT, temperature=1.0, seed=3, max_tokens=60, extra_body=rule
        )
        assert answer.choices[0].text == direct(reference, temperature=1.0, seed=3, max_tokens=60, **rule).text


def test_a_deadline_gives_the_text_so_far_and_is_length_to_clients(served: Served):
    answer = served.openai.completions.create(
        model="m", prompt=PROMPT, temperature=0, max_tokens=150, stop=["never to be seen"], extra_body={"max_ms": 1}
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens < 150
