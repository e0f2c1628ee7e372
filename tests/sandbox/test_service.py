"""The service as clients meet it: fields, token, refusals, a full queue, clients that leave, a sandbox that ends.

Protocol behaviour is tested against a sandbox that runs nothing; one test starts the whole service on the real one.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from codeweft.base.errors import UserError
from codeweft.base.records import Verdict
from codeweft.sandbox import service as serving
from codeweft.sandbox.config import Program, Ran, SandboxConfig, Submission
from codeweft.sandbox.service import ServiceConfig, create_app
from codeweft.sandbox.wire import FUSION_REQUEST, SUBMISSION

TOKEN = "a token of this test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
LIMIT = 20_000  # bytes of a body that this service takes
PROGRAM: dict[str, Any] = {"language": "python", "code": "print(6 * 7)"}
JUDGED: dict[str, Any] = {"language": "python", "code": "", "tests": [{"kind": "stdio", "stdin": "", "expected": "1"}]}


class IdleSandbox:
    """Runs nothing: a program is answered by its stdin, a submission by how long its code is, `wait` by nothing."""

    tier, facts = "namespaces", {"kernel": "6.0"}

    def __init__(self) -> None:
        self.lost = ""
        self.asked: list[Program | Submission] = []
        self.running, self.cancelled = 0, 0
        self.fails: Exception | None = None

    async def run(self, program: Program) -> Ran:
        await self._work(program)
        return Ran("ok", 0, program.stdin, b"", 0.25, 0.5, 1 << 20, "namespaces")

    async def judge_all(self, submissions: Sequence[Submission]) -> list[Verdict]:
        for submission in submissions:
            await self._work(submission)
        return [
            Verdict("ok", len(submission.code), len(submission.tests), 0.1, 5, "namespaces")
            for submission in submissions
        ]

    async def _work(self, asked: Program | Submission) -> None:
        self.asked.append(asked)
        if self.fails:
            raise self.fails
        self.running += 1
        try:
            await asyncio.sleep(3600 if asked.code == "wait" else 0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


@pytest.fixture
def idle() -> IdleSandbox:
    return IdleSandbox()


@pytest.fixture
def app(idle: IdleSandbox) -> Any:
    return made(idle)


def made(sandbox: Any, longest: int = LIMIT) -> Any:
    return create_app(sandbox, SandboxConfig(waiting=4), ServiceConfig(token=TOKEN, max_body_bytes=longest))


def client(app: Any, **settings: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://sandbox", **({"headers": BEARER} | settings))


def ask(app: Any, method: str, path: str, headers: dict[str, str] = BEARER, **request: Any) -> httpx.Response:
    """One request."""

    async def once() -> httpx.Response:
        async with client(app, headers=headers) as http:
            return await http.request(method, path, **request)

    return asyncio.run(once())


def refusal(app: Any, status: int, path: str, **request: Any) -> tuple[str, str | None]:
    """Message and field of a request that must get this status."""
    answer = ask(app, "POST", path, **request)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "field"}
    return error["message"], error["field"]


# --- what is answered ----------------------------------------------------------------------------------------------


def test_run_code_takes_and_gives_sandbox_fusions_fields(app: Any, idle: IdleSandbox):
    body = PROGRAM | {"compile_timeout": 10, "run_timeout": 2, "memory_limit_MB": 1024, "stdin": "20 22", "files": {}}
    answer = ask(app, "POST", "/run_code", json=body | {"fetch_files": []})
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "Success",
        "message": "",
        "compile_result": None,
        "run_result": {
            "status": "Finished",
            "execution_time": 0.5,
            "return_code": 0,
            "stdout": "20 22",
            "stderr": "",
        },
        "executor_pod_name": None,
        "files": {},
    }
    (program,) = idle.asked
    assert isinstance(program, Program)
    assert program.stdin == b"20 22"
    assert program.limits is not None
    assert (program.limits.cpu_seconds, program.limits.memory_mib) == (2, 1024)


def test_what_a_body_leaves_open_is_the_languages(app: Any, idle: IdleSandbox):
    for language in ("python", "java"):
        ask(app, "POST", "/run_code", json=PROGRAM | {"language": language})
    python, java = (asked.limits for asked in idle.asked)
    assert python is not None
    assert java is not None
    assert java.tasks > python.tasks


def test_judge_answers_in_the_order_of_the_submissions(app: Any, idle: IdleSandbox):
    asked = [JUDGED | {"code": "x" * length} for length in (3, 1, 2)]
    answer = ask(app, "POST", "/judge", json={"submissions": asked})
    assert [verdict["passed"] for verdict in answer.json()["verdicts"]] == [3, 1, 2]
    assert {(verdict["status"], verdict["tier"]) for verdict in answer.json()["verdicts"]} == {("ok", "namespaces")}


def test_info_tells_the_tier_the_languages_and_how_much_is_open(app: Any):
    told = ask(app, "GET", "/v1/info").json()
    assert (told["tier"], told["facts"], told["open"], told["most"]) == ("namespaces", {"kernel": "6.0"}, 0, 4)
    python = next(row for row in told["languages"] if row["language"] == "Python")
    assert python["version"].startswith("3.")


# --- who is let in -------------------------------------------------------------------------------------------------


def basic(words: str) -> str:
    return f"Basic {base64.b64encode(words.encode()).decode()}"


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic(f"any:{TOKEN}"), basic(f":{TOKEN}")])
def test_the_token_lets_in_as_a_bearers_or_as_the_password_of_a_url(app: Any, given: str):
    assert ask(app, "GET", "/v1/info", headers={"Authorization": given}).status_code == 200


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", TOKEN, f"Token {TOKEN}", basic(TOKEN), "Basic ????", "Basic é"],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/run_code"), ("POST", "/judge"), ("GET", "/openapi.json")])
def test_nobody_else_is_let_in(app: Any, idle: IdleSandbox, method: str, path: str, given: str):
    answer = ask(app, method, path, headers={"Authorization": given.encode("latin-1")} if given else {})  # ty: ignore
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert not idle.asked


def test_health_needs_no_token_and_unknown_paths_and_methods_are_told(app: Any):
    assert ask(app, "GET", "/health", headers={}).json() == {"status": "ok", "open": 0}
    assert ask(app, "GET", "/nothing", headers={}).status_code == 401
    answers = [ask(app, "GET", "/nothing"), ask(app, "GET", "/judge"), ask(app, "POST", "/judge/")]
    assert [answer.status_code for answer in answers] == [404, 405, 404]
    assert "/run_code" in answers[0].json()["error"]["message"]


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/run_code", PROGRAM | {"stdn": "", "zzz": 1}, "stdn"),
        ("/run_code", PROGRAM | {"fetch_files": ["out.txt"]}, "fetch_files"),
        ("/run_code", PROGRAM | {"language": "pyton"}, "language"),
        ("/run_code", {"language": "python"}, "code"),
        ("/judge", [JUDGED], None),
        ("/judge", {"submissions": []}, "submissions"),
        ("/judge", {"submissions": [JUDGED, JUDGED | {"tests": [{"kind": "x"}]}]}, "submissions[1].tests[0].kind"),
        ("/judge", {"submissions": [JUDGED, JUDGED | {"language": "pyton"}]}, "submissions[1].language"),
        ("/judge", {"submissions": [JUDGED] * 5}, "submissions"),
    ],
)
def test_what_is_wrong_is_400_and_named(app: Any, idle: IdleSandbox, path: str, body: Any, field: str | None):
    message, told = refusal(app, 400, path, json=body)
    assert (told or None) == field
    assert field is None or field in message
    assert not idle.asked


def test_an_unknown_field_is_told_with_the_nearest(app: Any):
    assert refusal(app, 400, "/run_code", json=PROGRAM | {"run_timeot": 1}) == (
        "run_timeot: is unknown. Did you mean run_timeout?",
        "run_timeot",
    )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b'{"code": "x"', "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b'{"run_timeout": NaN}', "NaN is no number of JSON"),
        (b"[" * 15_000, "nested too deep"),
        (b'{"run_timeout": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"null", "must be a table"),
        (b'{"code": "\\ud800", "language": "python"}', "half a surrogate pair"),
    ],
)
def test_a_body_that_is_no_request_is_400(app: Any, body: bytes, told: str):
    for path in ("/run_code", "/judge"):
        message, _ = refusal(app, 400, path, content=body)
        assert told in message or path == "/judge"
        assert len(message) <= 1002


def test_a_body_over_the_limit_is_413_declared_or_not(app: Any, idle: IdleSandbox):
    long = json.dumps(PROGRAM | {"stdin": "x" * LIMIT}).encode()
    assert "20000 bytes" in refusal(app, 413, "/run_code", content=long)[0]

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(long), 1000):
            yield long[start : start + 1000]

    assert refusal(app, 413, "/run_code", content=pieces())[0]
    assert not idle.asked


def test_a_body_that_does_not_come_is_408(app: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "BODY_SECONDS", 0.05)

    async def endless() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(3600)

    assert "did not arrive" in refusal(app, 408, "/run_code", content=endless())[0]


def test_a_full_queue_is_429_and_its_places_come_back(app: Any, idle: IdleSandbox):
    async def story() -> None:
        async with client(app) as http:
            waiting = [
                asyncio.create_task(http.post("/judge", json={"submissions": [JUDGED | {"code": "wait"}, JUDGED]}))
                for _ in range(2)
            ]
            await until(lambda: idle.running == 2)
            answer = await http.post("/run_code", json=PROGRAM)
            assert answer.status_code == 429
            assert answer.headers["Retry-After"] == "1"
            assert "4 submissions run or wait" in answer.json()["error"]["message"]
            assert (await http.get("/health")).json()["open"] == 4
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert (await http.get("/health")).json()["open"] == 0
            assert (await http.post("/run_code", json=PROGRAM)).status_code == 200

    asyncio.run(story())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/run_code", PROGRAM | {"code": "wait"}),
        ("/judge", {"submissions": [JUDGED | {"code": "wait"}]}),
    ],
)
def test_a_client_that_leaves_cancels_its_work(app: Any, idle: IdleSandbox, path: str, body: Any):
    """At the ASGI level, as uvicorn calls it: the body, then nothing until the connection ends."""

    async def story() -> None:
        gone, sent = asyncio.Event(), []
        messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [(b"authorization", BEARER["Authorization"].encode())]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        serving = asyncio.create_task(app(scope, receive, send))
        await until(lambda: idle.running == 1)
        gone.set()
        await serving
        assert (idle.running, idle.cancelled) == (0, 1)
        assert sent[0]["status"] == 499
        async with client(app) as http:
            assert (await http.get("/health")).json()["open"] == 0

    asyncio.run(story())


def test_a_client_that_leaves_within_its_body_runs_nothing(app: Any, idle: IdleSandbox):
    async def story() -> None:
        messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

        async def receive() -> dict[str, Any]:
            return next(messages)

        async def send(_: dict[str, Any]) -> None:
            pass

        headers = [(b"authorization", BEARER["Authorization"].encode())]
        scope = {"type": "http", "method": "POST", "path": "/run_code", "headers": headers, "query_string": b""}
        await app(scope, receive, send)

    asyncio.run(story())
    assert not idle.asked


def test_a_sandbox_that_ended_is_503_to_those_who_ask_and_to_health(app: Any, idle: IdleSandbox):
    idle.lost = "The supervisor has ended."
    idle.fails = UserError(idle.lost, "Open the sandbox again.")
    for path, body in (("/run_code", PROGRAM), ("/judge", {"submissions": [JUDGED]})):
        assert "has ended" in refusal(app, 503, path, json=body)[0]
    assert ask(app, "GET", "/health", headers={}).status_code == 503


def test_what_the_sandbox_refuses_is_400_and_what_nobody_foresaw_500(app: Any, idle: IdleSandbox):
    idle.fails = UserError("compat must be asked for.", "Set mode.")
    assert refusal(app, 400, "/run_code", json=PROGRAM)[0] == "compat must be asked for. Set mode."
    idle.fails = RuntimeError("a secret path")
    message, _ = refusal(app, 500, "/run_code", json=PROGRAM)
    assert "RuntimeError" in message
    assert "secret" not in message


def test_a_service_without_a_token_cannot_be_made(idle: IdleSandbox):
    with pytest.raises(AssertionError, match="without a token"):
        create_app(idle, SandboxConfig(), ServiceConfig())  # ty: ignore[invalid-argument-type]


# --- bodies nobody thought of --------------------------------------------------------------------------------------

ODD = (0, -0.0, 1, -1, 5e-324, 1e308, 1e999, 2**63, 10**400, 0.5, "", "\x00", "\ud800", "x" * 300, "stdio", "python")
scalars = st.none() | st.booleans() | st.sampled_from(ODD) | st.text(max_size=9)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner))


def names(fields: dict[str, Any]) -> st.SearchStrategy[str]:
    return st.sampled_from(sorted(fields["properties"])) | st.text(max_size=12)


runs = st.builds(lambda name, value: PROGRAM | {name: value}, names(FUSION_REQUEST.schema), values)
tests = st.builds(
    lambda name, value: {"kind": "call", "args": [1], "typed": False} | {name: value},
    st.sampled_from(["kind", "args", "expected", "typed", "stdin", "code"]),
    values,
)
judged = st.builds(lambda name, value: JUDGED | {name: value}, names(SUBMISSION.schema), values)
judged = judged | st.builds(lambda test: JUDGED | {"tests": [test]}, tests)
batches = st.builds(lambda each: {"submissions": each}, st.lists(judged, max_size=5)) | values


@pytest.mark.parametrize(("path", "bodies"), [("/run_code", runs | values), ("/judge", batches)])
def test_any_body_is_answered_or_refused_with_a_field(app: Any, path: str, bodies: st.SearchStrategy[Any]):
    async def story(sent: list[Any]) -> None:
        async with client(app) as http:
            for body in sent:
                content = json.dumps(body).encode()
                answer = await http.post(path, content=content)
                assert answer.status_code in ((413,) if len(content) > LIMIT else (200, 400)), (body, answer.text)
                if answer.status_code == 400:
                    error = answer.json()["error"]
                    assert error["message"]
                    assert len(answer.content) < 8000

    @seed(20)
    @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(bodies, min_size=4, max_size=4))
    def check(sent: list[Any]) -> None:
        asyncio.run(story(sent))

    check()


PUBLISHED = schemathesis.openapi.from_asgi("/openapi.json", made(IdleSandbox(), 1 << 30), headers=BEARER)


@PUBLISHED.parametrize()
@seed(4)
@settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_the_service_keeps_the_promises_of_its_published_schema(case: schemathesis.Case):
    """Requests made from the schema, right and wrong ones: the right are taken, the wrong refused, no answer differs.

    Which typed values and kinds of tests go together is more than the schema of /judge can say.
    """
    unsaid = [positive_data_acceptance] if case.path == "/judge" else []
    case.call_and_validate(headers=BEARER, excluded_checks=unsaid)
