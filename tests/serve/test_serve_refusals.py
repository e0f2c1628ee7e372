"""Bad requests: the right status, OpenAI's error form, the name of what is wrong; and the server goes on."""

import json
from collections.abc import Iterator

import httpx
import openai
import pytest
from pydantic import ValidationError
from tiny_server import Served, serve

from codeweft.engine.engine import Engine
from codeweft.serve.config import ServeConfig
from codeweft.serve.guard import host_name
from codeweft.serve.schema import CompletionRequest

JSON = {"Content-Type": "application/json"}


def refusal(served: Served, status: int, **request: object) -> dict[str, str | None]:
    """The error of a request that must get this status."""
    with served.http as http:
        answer = http.post("/v1/completions", **request)  # ty: ignore[invalid-argument-type]
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("prompt", None, "must be a text"),
        ("prompt", [], "must be a text"),
        ("prompt", ["a", 1], "must be a text"),
        ("prompt", [True], "must be a text"),
        ("prompt", [[]], "must be a text"),
        ("max_tokens", 0, "greater than or equal to 1"),
        ("max_tokens", "16", "valid integer"),
        ("temperature", 2.5, "less than or equal to 2"),
        ("temperature", -1, "greater than or equal to 0"),
        ("top_p", 1.5, "less than or equal to 1"),
        ("stop", [""], "none of them empty"),
        ("stop", ["x"] * 65, "at most 64"),
        ("n", 0, "greater than or equal to 1"),
        ("seed", 2**63, "less than"),
        ("stream", "yes", "valid boolean"),
        ("echo", True, "not supported"),
        ("logprobs", 2, "not supported"),
        ("best_of", 3, "not supported"),
        ("frequency_penalty", 0.5, "not supported"),
        ("presence_penalty", -1, "not supported"),
        ("logit_bias", {"5": 1}, "not supported"),
        ("stream_options", {"include_usage": True}, "only together with stream"),
    ],
)
def test_a_wrong_value_is_400_and_names_its_field(served: Served, field: str, value: object, told: str):
    error = refusal(served, 400, json={"prompt": "x", field: value})
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"
    assert str(error["message"]).startswith(field)
    assert told in str(error["message"])


def test_official_fields_at_their_defaults_are_taken(served: Served):
    defaults: dict[str, object] = {
        "best_of": 1,
        "echo": False,
        "frequency_penalty": 0,
        "logit_bias": None,
        "logprobs": None,
        "n": 1,
    }
    defaults |= {"presence_penalty": 0, "stop": None, "stream": False, "stream_options": None, "suffix": None}
    defaults |= {"max_tokens": 2, "seed": None, "temperature": 1, "top_p": 1, "user": "u", "model": "m"}
    with served.http as http:
        assert http.post("/v1/completions", json={"prompt": "x", **defaults}).status_code == 200
        nulls = dict.fromkeys(defaults) | {"model": "m", "prompt": "x"}
        assert http.post("/v1/completions", json=nulls).status_code == 200


def test_unknown_fields_are_400_and_named_with_the_nearest(served: Served):
    error = refusal(served, 400, json={"prompt": "x", "temperatur": 1, "zzz": 2})
    assert error["message"] == "Unknown field temperatur (did you mean temperature?), zzz."
    assert error["param"] == "temperatur"
    inner = refusal(served, 400, json={"prompt": "x", "stream_options": {"include_usag": True}})
    assert inner["message"] == "Unknown field include_usag (did you mean include_usage?) in stream_options."
    assert inner["param"] == "stream_options.include_usag"


def test_an_unknown_field_is_named_even_where_its_name_is_no_text_or_endless(served: Served):
    half = refusal(served, 400, content=b'{"prompt": "x", "temperatur\\ud800": 1}', headers=JSON)
    assert half["message"] == "Unknown field temperatur\\ud800 (did you mean temperature?)."
    long = refusal(served, 400, json={"prompt": "x", "a" * 9000: 1})
    assert long["param"] == "a" * 64
    assert len(str(long["message"])) < 100


def test_an_error_never_repeats_more_than_a_thousand_characters(served: Served):
    for body in ({"prompt": [10**4000]}, {"prompt": "x", "max_tokens": 10**4000}):
        assert len(str(refusal(served, 400, json=body)["message"])) < 1010


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [1] * 100_000 + ["x"]},
        {"prompt": [[1]] * 100_000 + [[]]},
        {"prompt": "x", **{f"field {number}": 1 for number in range(100_000)}},
        {"prompt": "x", "stream": True, "stream_options": {f"field {number}": 1 for number in range(100_000)}},
        {"prompt": "x", "logit_bias": {f"{number}": "x" for number in range(100_000)}},
        {"prompt": "x", "stop": [1] * 100_000},
    ],
)
def test_a_hundred_thousand_mistakes_make_one_error(body: dict[str, object]):
    """An error each took gigabytes and seconds, in which nobody else was answered."""
    with pytest.raises(ValidationError) as caught:
        CompletionRequest.model_validate(body)
    assert caught.value.error_count() == 1


def test_a_prompt_of_tokens_is_taken_as_it_is_and_not_tried_as_every_other_kind_first():
    """Trying makes an error of each token that is no text; what was tried is a copy."""
    tokens = [1] * 1000
    assert CompletionRequest.model_validate({"prompt": tokens}).prompt is tokens


def test_a_prompt_far_too_long_is_refused_before_it_is_cut_in_tokens(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(served.engine.tokenizer, "encode", lambda text: pytest.fail("it was cut in tokens"))
    for body in ({"prompt": "a" * 15_000}, {"prompt": "a", "suffix": "a" * 15_000}):
        assert "characters" in str(refusal(served, 400, json=body)["message"])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"prompt": "x"', "not JSON"),
        (b"", "must be a JSON object"),
        (b"[1]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"max_tokens": 3}', "prompt is missing"),
        (b'{"prompt": "x", "temperature": NaN}', "temperature"),
        (b'{"prompt": "x", "max_tokens": ' + b"9" * 5000 + b"}", "parsing the body"),
        (b"[" * 15000, "parsing the body"),
        (b'{"prompt": "\\ud800"}', "half a surrogate pair"),
        (b'{"prompt": "\xff"}', "parsing the body"),
    ],
)
def test_a_body_that_is_no_request_is_400(served: Served, body: bytes, told: str):
    assert told in str(refusal(served, 400, content=body, headers=JSON)["message"])


def test_json_sent_as_plain_text_is_refused(served: Served):
    """A page of another origin may send text/plain without asking; only application/json makes a browser ask."""
    body = json.dumps({"prompt": "x"})
    assert refusal(served, 400, content=body, headers={"Content-Type": "text/plain"})["type"] == "invalid_request_error"


def test_a_body_over_the_limit_is_413_declared_or_not(served: Served):
    long = json.dumps({"prompt": "x" * 30_000}).encode()
    assert "20000 bytes" in str(refusal(served, 413, content=long, headers=JSON)["message"])

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(long), 1000):
            yield long[start : start + 1000]

    assert refusal(served, 413, content=pieces(), headers=JSON)["code"] == "body_too_long"


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:8012", "[::1]:8012", "LOCALHOST:80"])
def test_loopback_names_are_served(served: Served, host: str):
    with served.http as http:
        assert http.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil:80", "192.168.0.2", "[::2]"]
)
def test_other_host_names_are_403(served: Served, host: str):
    with served.http as http:
        answer = http.get("/v1/models", headers={"Host": host})
    assert answer.status_code == 403
    assert host_name(host) in answer.json()["error"]["message"]


def test_a_configured_host_name_is_served_and_others_still_not(served: Served):
    engine = Engine(served.engine.model, served.engine.tokenizer)
    for other in serve(engine, ServeConfig(port=0, allowed_hosts=("Box.lan",))):
        hosts = ("box.lan:8012", "localhost", "other.lan")
        answers = [httpx.get(f"{other.url}/health", headers={"Host": host}).status_code for host in hosts]
        assert answers == [200, 200, 403]


def test_no_page_of_another_origin_is_let_in(served: Served):
    with served.http as http:
        answer = http.options(
            "/v1/completions", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        )
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_unknown_paths_and_methods_have_openais_error_form(served: Served):
    with served.http as http:
        answers = [http.get("/v1/nothing"), http.get("/v1/completions")]
    assert [answer.status_code for answer in answers] == [404, 405]
    assert all(answer.json()["error"]["type"] == "invalid_request_error" for answer in answers)
    assert [answer.json()["error"]["message"] for answer in answers] == [
        "There is no /v1/nothing here, only /v1/completions, /v1/models and /health.",
        "/v1/completions does not take GET.",
    ]
    with served.http as http:
        assert http.post("/v1/completions/", json={"prompt": "x"}).status_code == 404


def test_too_many_completions_in_one_request_are_400(served: Served):
    assert "At most 128" in str(refusal(served, 400, json={"prompt": ["x", "y"], "n": 100})["message"])


def test_suffix_on_a_model_without_fim_is_400_unless_told_to_assume_it(without_fim: Engine):
    for plain in serve(without_fim, ServeConfig(port=0)):
        with pytest.raises(openai.BadRequestError, match=r"not trained to infill \(fim_rate 0 in config.json\)"):
            plain.openai.completions.create(model="m", prompt="a", suffix="b")
        assert plain.openai.completions.create(model="m", prompt="a", suffix="").choices
    engine = Engine(without_fim.model, without_fim.tokenizer)
    for told in serve(engine, ServeConfig(port=0, assume_fim=True)):
        assert told.openai.completions.create(model="m", prompt="a", suffix="b").choices


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_breaks_is_told_to_those_who_wait_and_to_health(without_fim: Engine):
    engine = Engine(without_fim.model, without_fim.tokenizer)

    def broken() -> list:
        raise RuntimeError("broken on purpose")

    engine.step = broken
    for server in serve(engine, ServeConfig(port=0)):
        for _ in range(2):
            with pytest.raises(openai.InternalServerError, match="engine has stopped") as caught:
                server.openai.completions.create(model="m", prompt="a")
            assert caught.value.status_code == 503
        with server.http as http:
            assert http.post("/v1/completions", json={"prompt": "a", "stream": True}).status_code == 503
            assert http.get("/health").status_code == 503
