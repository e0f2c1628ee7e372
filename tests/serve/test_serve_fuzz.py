"""Bodies nobody thought of: each is answered, or refused with an error that names a field; never 500."""

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tiny_server import Served

from codeweft.serve.schema import CompletionRequest

LIMIT = 20_000  # bytes that this server takes
FIELDS = sorted(CompletionRequest.model_fields)
ODD_NUMBERS = (0, -0.0, 1, -1, 5e-324, 1e308, 1e999, -1e999, float("nan"), 2**31, 2**63, -(2**63), 10**400, 0.5, 1.0)
ODD_TEXTS = ("", "\x00", "\ud800", "\U0001f600", "x" * 300, "\u2028", "<｜fim▁begin｜>", "null")
scalars = st.none() | st.booleans() | st.sampled_from(ODD_NUMBERS) | st.sampled_from(ODD_TEXTS) | st.text(max_size=9)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner))
names = st.sampled_from(FIELDS) | st.text(max_size=12)
likely = st.fixed_dictionaries(
    {"prompt": st.text(max_size=9) | st.lists(st.integers(-1, 500), max_size=4)},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "n": st.integers(1, 3),
        "stop": st.lists(st.text(min_size=1, max_size=2), max_size=3),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "stream": st.booleans(),
        "suffix": st.text(max_size=5) | st.none(),
        "logprobs": st.none(),
    },
)


def ask(http: httpx.Client, body: object) -> None:
    """Post one body; a 400 must be in OpenAI's form and name a field that was sent or is missing."""
    content = json.dumps(body).encode()
    answer = http.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in ((413,) if len(content) > LIMIT else (200, 400)), answer.text[:1000]
    if answer.status_code == 400:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert len(answer.content) < 8000
        if error["param"] is not None and isinstance(body, dict):
            sent = {str(name).encode("utf-8", "backslashreplace").decode() for name in body} | {"prompt"}
            assert error["param"] in sent or error["param"].split(".")[0] in sent


def test_any_body_is_answered_or_refused_by_name(served: Served):
    """Seeded; one of three is a request with one field replaced, one a table of anything, one any JSON."""
    replaced = st.builds(lambda body, name, value: body | {name: value}, likely, names, values)
    bodies = replaced | st.dictionaries(names, values, max_size=4) | values

    with served.http as http:

        @seed(20)
        @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(bodies)
        def check(body: Any) -> None:
            ask(http, body | {"max_tokens": 2} if isinstance(body, dict) and "max_tokens" not in body else body)

        check()
        health = http.get("/health").json()
        assert (health["status"], health["open"]) == ("ok", 0)


def test_the_published_schema_has_every_field_and_no_others(served: Served):
    """The published schema names every field and forbids others, as the server does."""
    with served.http as http:
        schema = http.get("/openapi.json").json()["components"]["schemas"]["CompletionRequest"]
        assert sorted(schema["properties"]) == FIELDS
        assert schema["additionalProperties"] is False
        assert schema["required"] == ["prompt"]
        assert {option["type"] for option in schema["properties"]["prompt"]["anyOf"]} == {"string", "array"}
