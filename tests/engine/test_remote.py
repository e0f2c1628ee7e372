"""A model behind a URL: what is no answer is asked for again, and what cannot be answered is told in a sentence."""

import asyncio
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from scripted_server import Reply, Script, chat_piece, piece, send, served, stream

from codeweft.base.errors import UserError
from codeweft.engine import remote
from codeweft.engine.remote import RemoteCompletion, RemoteConfig, RemoteModel, TooLong


def fine(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    stream(handler, piece("one "), piece("two"), piece("", "stop"), "[DONE]")


def refusing(status: int, message: str = "not now", **headers: str) -> Reply:
    return lambda handler, body: send(handler, {"error": {"message": message}}, status, **headers)


def ask(script: Script, **changes: Any) -> RemoteCompletion:
    settings: dict[str, Any] = {"model": "tiny", "retries": 3, "timeout_seconds": 20.0}

    async def work() -> RemoteCompletion:
        async with RemoteModel(RemoteConfig(script.url, **settings | changes)) as model:
            return await model.complete("def f", max_tokens=8, temperature=0.5, stop=("\n\n",), seed=7)

    return asyncio.run(work())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)


def test_a_stream_is_put_together_and_the_question_says_everything():
    with served(fine) as script:
        assert ask(script) == RemoteCompletion("one two", 2, "stop")
    [body] = script.bodies
    wanted = {"model": "tiny", "prompt": "def f", "max_tokens": 8, "temperature": 0.5, "stop": ["\n\n"], "seed": 7}
    assert wanted.items() <= body.items()
    assert body["path"] == "/v1/completions"
    assert "suffix" not in body


@pytest.mark.parametrize(
    "failure",
    [
        refusing(429, Retry_After="0.01"),
        refusing(503),
        refusing(500),
        lambda handler, body: stream(handler, piece("half")),
        lambda handler, body: stream(handler, piece("half"), "[DONE]"),
        lambda handler, body: stream(handler, piece("ha"), '{"choices": [{"te'),
        lambda handler, body: stream(handler, piece("half"), piece("", "abort"), "[DONE]"),
        lambda handler, body: stream(handler, piece("half", "stop") | {"choices": [{"text": "", "token_ids": ["7"]}]}),
        lambda handler, body: stream(handler, {"error": {"message": "out of memory"}}),
        lambda handler, body: send(handler, b"<html>busy</html>"),
        lambda handler, body: send(handler, {"choices": []}),
        lambda handler, body: handler.connection.close(),
    ],
)
def test_what_is_no_answer_is_asked_for_again(failure: Reply):
    with served(failure, failure, fine) as script:
        assert ask(script).text == "one two"
    assert len(script.bodies) == 3


def test_a_server_that_never_answers_is_given_up_with_its_last_words():
    with served(refusing(429, "You are too fast.")) as script, pytest.raises(UserError) as caught:
        ask(script)
    assert len(script.bodies) == 4
    assert "gave no answer in 4 tries; at last: 429 You are too fast." in str(caught.value)
    assert "goes on from here" in str(caught.value)


def test_a_hanging_server_is_a_timeout():
    def hanging(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        script.ended.wait(30)

    with served(hanging) as script, pytest.raises(UserError) as caught:
        ask(script, timeout_seconds=0.2, retries=1)
    assert "nothing came in 0.2 s" in str(caught.value)


def test_signs_of_life_without_an_answer_are_a_timeout_too():
    def breathing(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        stream(handler, piece("half"))
        while not script.ended.wait(0.02):
            handler.wfile.write(b": still here\n\n")
            handler.wfile.flush()

    with served(breathing, fine) as script:
        assert ask(script, timeout_seconds=0.4).text == "one two"


def test_the_servers_pause_is_kept():
    with served(refusing(429, Retry_After="0.3"), fine) as script:
        began = time.monotonic()
        ask(script)
        assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(("status", "step"), [(401, "CODEWEFT_API_KEY"), (404, "--url-model"), (400, "Look at what")])
def test_what_asking_again_cannot_change_is_told_at_once(status: int, step: str):
    with served(refusing(status, "context is\n 4096 tokens")) as script, pytest.raises(UserError) as caught:
        ask(script)
    assert len(script.bodies) == 1
    assert f"{status} context is 4096 tokens" in str(caught.value)
    assert step in str(caught.value)


@pytest.mark.parametrize(
    ("message", "too_long"),
    [
        ("This model's maximum context length is 4096 tokens. However, you requested 5000.", True),
        ("The prompt is too long for this model.", True),
        ("temperature must be at most 2", False),
    ],
)
def test_a_question_that_does_not_fit_is_told_from_other_mistakes(message: str, too_long: bool):
    with served(refusing(400, message)) as script, pytest.raises(UserError) as caught:
        ask(script)
    assert isinstance(caught.value, TooLong) == too_long


def test_a_stream_without_end_is_cut_off():
    def endless(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        while not script.ended.is_set():
            stream(handler, *[piece("x" * 1000)] * 50)

    with served(endless) as script, pytest.raises(UserError, match="longer than"):
        ask(script, retries=0)


def test_stop_strings_are_cut_here_too_and_only_four_are_sent():
    with served(lambda handler, body: stream(handler, piece("a = 1\nclass B", "length"), "[DONE]")) as script:

        async def work() -> RemoteCompletion:
            async with RemoteModel(RemoteConfig(script.url, "tiny")) as model:
                stops = ("\ndef", "\nif", "\nprint", "\n@", "\nclass")
                return await model.complete("", max_tokens=8, temperature=0, stop=stops)

        assert asyncio.run(work()) == RemoteCompletion("a = 1", 1, "stop")
    assert len(script.bodies[0]["stop"]) == 4


def test_chat_infilling_and_answers_in_one_piece_are_understood():
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if "messages" in body:
            stream(handler, chat_piece("hel"), chat_piece("lo", "stop"), "[DONE]")
        else:
            send(handler, {"choices": [{"text": "mid", "finish_reason": "length"}], "usage": {"completion_tokens": 3}})

    async def work(script: Script) -> list[RemoteCompletion]:
        async with RemoteModel(RemoteConfig(script.url)) as model:
            chat = await model.chat([{"role": "user", "content": "hi"}], max_tokens=4, temperature=0)
            return [chat, await model.complete("a", suffix="b", max_tokens=4, temperature=0)]

    with served(reply) as script:
        chat, infilled = asyncio.run(work(script))
    assert (chat.text, chat.finish) == ("hello", "stop")
    assert infilled == RemoteCompletion("mid", 3, "length")
    assert [body["model"] for body in script.bodies] == ["listed-first"] * 2
    assert script.bodies[1]["suffix"] == "b"


def test_prompts_may_be_token_ids_and_so_may_answers():
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        first = piece("one ")["choices"][0] | {"token_ids": [5, 6], "prompt_token_ids": body["prompt"]}
        last = piece("", "stop")["choices"][0] | {"token_ids": [2]}
        if body["stream"]:
            stream(handler, {"choices": [first]}, {"choices": [last]}, "[DONE]")
        else:
            usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 3}
            send(handler, {"choices": [first | {"finish_reason": "length"}], "usage": usage})

    async def work(script: Script, **settings: Any) -> RemoteCompletion:
        async with RemoteModel(RemoteConfig(script.url, "tiny", token_ids=True, **settings)) as model:
            return await model.complete(range(1000, 21_000), max_tokens=4, temperature=0)  # a long one comes back

    with served(reply) as script:
        assert asyncio.run(work(script)) == RemoteCompletion("one ", 3, "stop", ids=(5, 6, 2))
        whole = asyncio.run(work(script, stream=False))
    assert whole == RemoteCompletion("one ", 3, "length", ids=(5, 6), prompt_tokens=20_000)
    assert script.bodies[0]["prompt"] == list(range(1000, 21_000))
    assert script.bodies[0]["return_token_ids"] is True


def test_a_request_that_is_no_question_is_patient_too_and_may_have_an_empty_answer():
    async def work(script: Script) -> list[Any]:
        async with RemoteModel(RemoteConfig(script.url.removesuffix("/v1"), retries=1)) as model:
            return await model.post(("/load", {"folder": "x"}), ("/forget", {}))

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if handler.path == "/load":
            return send(handler, {"done": True})
        return send(handler, b"", 200 if len(script.bodies) > 2 else 503)

    with served(reply) as script:
        assert asyncio.run(work(script)) == [{"done": True}, None]
    assert [body["path"] for body in script.bodies] == ["/load", "/forget"] * 2  # what was loaded may be lost


def test_choices_are_summed_by_where_their_tokens_begin():
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        told = {"text_offset": [0, 4, 6, 9], "token_logprobs": [None, -1.0, -2.0, -99.0]}
        send(handler, {"choices": [{"text": body["prompt"] + "!", "logprobs": told}]})

    async def work(script: Script) -> list[float]:
        async with RemoteModel(RemoteConfig(script.url, "tiny")) as model:
            return await model.logprobs("2+2=", [" four"])

    with served(reply) as script:
        assert asyncio.run(work(script)) == [-3.0]
    shifted: dict[str, Any] = {"tokens": ["<s>", "2+2=", " ", "four", "!"], "text_offset": [0, 3, 7, 8, 12]}
    shifted["token_logprobs"] = [None, -7.0, -1.0, -2.0, -99.0]
    with served(lambda handler, body: send(handler, {"choices": [{"text": "", "logprobs": shifted}]})) as script:
        assert asyncio.run(work(script)) == [-3.0]
    merged = {"text_offset": [0, 3, 6], "token_logprobs": [None, -1.0, -2.0]}
    answering = served(lambda handler, body: send(handler, {"choices": [{"text": "", "logprobs": merged}]}))
    with answering as script, pytest.raises(UserError, match="end of a prompt and the beginning"):
        asyncio.run(work(script))
    silent = served(lambda handler, body: send(handler, {"choices": [{"text": "x"}]}))
    with silent as script, pytest.raises(UserError, match="does not tell the log-probabilities"):
        asyncio.run(work(script))


def test_a_key_of_the_environment_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CODEWEFT_API_KEY", "secret-word")
    with served(fine) as script:
        ask(script)
    assert script.headers[0]["Authorization"] == "Bearer secret-word"
    with served(refusing(401)) as script, pytest.raises(UserError) as caught:
        ask(script)
    assert "secret-word" not in str(caught.value)


def test_as_many_questions_as_allowed_are_under_way_at_once():
    under_way, most, lock = 0, 0, threading.Lock()

    def slow(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.05)
        with lock:
            under_way -= 1
        fine(handler, body)

    async def work(script: Script) -> None:
        async with RemoteModel(RemoteConfig(script.url, "tiny", concurrency=3)) as model:
            await asyncio.gather(*(model.complete("", max_tokens=4, temperature=0) for _ in range(12)))

    with served(slow) as script:
        asyncio.run(work(script))
    assert most == 3


@pytest.mark.parametrize("url", ["ftp://x/v1", "127.0.0.1:8012", ""])
def test_a_url_that_is_none_is_refused(url: str):
    with pytest.raises(UserError, match="Give a URL like"):
        RemoteModel(RemoteConfig(url))
