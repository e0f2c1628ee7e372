"""Clients that send what is no request, send or read too slowly, or leave: each is told or cut off."""

import json
import socket
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator

import httpx
import pytest
from tiny_server import Served, post, read_answer, serve

from codeweft.engine.engine import Engine
from codeweft.serve import connection, guard
from codeweft.serve.config import ServeConfig

ASKED = {"prompt": "x", "max_tokens": 2, "temperature": 0}
HUNDRED_MEGABYTES = 100_000_000


@pytest.fixture(scope="module")
def served(served: Served) -> Iterator[Served]:
    """A server whose connections are all from here."""
    engine = Engine(served.engine.model, served.engine.tokenizer, rows=4)
    yield from serve(engine, ServeConfig(port=0, max_body_bytes=20_000))


@pytest.fixture(autouse=True)
def the_server_goes_on(served: Served) -> Iterator[None]:
    """After each of these tests the server holds nothing and gives the answer that it gave before."""

    def choices() -> list:
        with served.http as http:
            return http.post("/v1/completions", json=ASKED).json()["choices"]

    before = choices()
    wait_until(lambda: not served.server.server_state.connections)
    yield
    served.wait_until_idle()
    assert choices() == before


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> float:
    """Seconds until `condition()` holds."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.01)
    return time.monotonic() - started


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000,
        post(b"{}", "Content-Length: -5"),
        post(b"{}", "Content-Length: 2", "Content-Length: 3"),
        post(b"{}", "Content-Length: " + "9" * 30),
        post(b"{}", "Transfer-Encoding: gzip"),
        post(b"ZZ\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    ],
)
def test_what_is_no_http_is_400_in_openais_form(served: Served, data: bytes):
    status, body = served.ask(data)
    assert status == 400
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert "Invalid HTTP" in body["error"]["message"]


@pytest.mark.parametrize("declared", [True, False])
def test_a_hundred_megabytes_are_refused_without_being_kept(
    served: Served, monkeypatch: pytest.MonkeyPatch, declared: bool
):
    """The client sends all of it before it looks for an answer, as simple ones do, and still finds one."""
    monkeypatch.setattr(guard, "LINGER_SECONDS", 60.0)  # however busy the machine is
    megabyte = b" " * 1_000_000
    tracemalloc.start()
    with served.connect() as client:
        header = f"Content-Length: {HUNDRED_MEGABYTES}" if declared else "Transfer-Encoding: chunked"
        client.sendall(post(b"", header))
        for _ in range(HUNDRED_MEGABYTES // len(megabyte)):
            client.sendall(megabyte if declared else b"%x\r\n%b\r\n" % (len(megabyte), megabyte))
        client.sendall(b"" if declared else b"0\r\n\r\n")
        status, body = read_answer(client.makefile("rb"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (status, body["error"]["code"]) == (413, "body_too_long")
    assert peak < 10_000_000


def test_a_client_that_asks_first_is_refused_before_it_sends_the_body(served: Served):
    status, body = served.ask(post(b"", f"Content-Length: {HUNDRED_MEGABYTES}", "Expect: 100-continue"))
    assert (status, body["error"]["code"]) == (413, "body_too_long")


def send_slowly(client: socket.socket, byte: bytes) -> None:
    """Send a byte twenty times a second; fails when the server takes them for three seconds."""
    for _ in range(60):
        try:
            client.sendall(byte)
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the server still listens")


def test_a_head_that_arrives_drop_by_drop_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch):
    """Each byte alone is in time; the head as a whole is not."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.4)
    with served.connect() as client:
        send_slowly(client, b"G")
    with served.connect() as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost:")
        status, body = read_answer(client.makefile("rb"))
    assert (status, body["error"]["message"]) == (408, "The request's head did not arrive within 0 s.")


def test_a_client_that_says_nothing_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    with served.connect() as client:
        assert client.recv(1) == b""


def test_a_body_that_does_not_arrive_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    status, body = served.ask(post(b'{"prompt":', "Content-Length: 100"))
    assert (status, body["error"]["type"]) == (408, "invalid_request_error")


def test_the_rest_of_a_body_that_is_answered_already_is_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    with served.connect() as client:
        client.sendall(post(b"{", "Content-Length: 1000").replace(b"localhost", b"foreign.example"))
        assert read_answer(client.makefile("rb"))[0] == 403
        send_slowly(client, b" ")


@pytest.fixture(scope="module")
def wordy(served: Served) -> Iterator[Served]:
    """A server whose pieces are so large that no buffer holds a stream of them."""
    engine = Engine(served.engine.model, served.engine.tokenizer)
    yield from serve(engine, ServeConfig(port=0, name="m" * 100_000))


def ask_without_reading(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(post(json.dumps({"prompt": "x", "max_tokens": 20, "n": 16, "stream": True}).encode()))


def test_a_client_that_does_not_read_holds_no_place_in_the_queue(wordy: Served):
    with wordy.connect() as client:
        ask_without_reading(client)
        wait_until(lambda: wordy.worker.open == 16)
        wait_until(lambda: wordy.worker.open == 0)
        [waiting] = wordy.server.server_state.connections
        assert waiting.transport.get_write_buffer_size() > 0
    wait_until(lambda: not wordy.server.server_state.connections)


def test_a_client_that_does_not_read_is_cut_off(wordy: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "READ_SECONDS", 0.3)
    with wordy.connect() as client:
        ask_without_reading(client)
        wait_until(lambda: wordy.server.server_state.connections)
        wait_until(lambda: not wordy.server.server_state.connections)
    wordy.wait_until_idle()


def test_a_body_whose_end_never_comes_is_not_run(served: Served, monkeypatch: pytest.MonkeyPatch):
    """What is there is JSON already, and the client is gone."""
    submitted = []
    monkeypatch.setattr(served.worker, "submit", lambda requests: submitted.append(requests))
    body = json.dumps(ASKED).encode()
    for data in (
        post(body, "Content-Length: 1000"),
        post(b"%x\r\n%b\r\n" % (len(body), body), "Transfer-Encoding: chunked"),
    ):
        with served.connect() as client:
            client.sendall(data)
            time.sleep(0.1)
    wait_until(lambda: not served.server.server_state.connections)
    assert submitted == []


def leave_by_reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("leave", [socket.socket.close, leave_by_reset, lambda client: client.shutdown(socket.SHUT_WR)])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_work_within_two_steps(
    served: Served, monkeypatch: pytest.MonkeyPatch, stream: bool, leave: Callable[[socket.socket], None]
):
    original, steps = served.engine.step, []

    def step() -> list:
        time.sleep(0.05)  # the event loop has its time to see the client go
        steps.append(len(served.engine.sequences))
        return original()

    monkeypatch.setattr(served.engine, "step", step)
    client = served.connect()
    client.sendall(post(json.dumps({"prompt": "x", "max_tokens": 150, "n": 6, "stream": stream}).encode()))
    wait_until(lambda: len(steps) >= 3)
    before = len(steps)
    leave(client)
    served.wait_until_idle()
    assert len(steps) - before <= 4  # the one it is in, one that ends it, and what a busy machine adds
    assert served.engine.pool.available == served.engine.pool.size
    client.close()


def test_a_client_that_leaves_after_its_answer_disturbs_nobody(served: Served):
    for _ in range(10):
        client = served.connect()
        client.sendall(post(json.dumps(ASKED).encode()))
        assert read_answer(client.makefile("rb"))[0] == 200
        leave_by_reset(client)
    wait_until(lambda: not served.server.server_state.connections)


def test_two_requests_sent_at_once_on_one_connection_are_answered_in_order(served: Served):
    with served.connect() as client:
        client.sendall(post(b"[]") + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answers = client.makefile("rb")
        assert [read_answer(answers)[0], read_answer(answers)[0]] == [400, 404]


def test_more_connections_than_files_allow_are_told_so(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection.Connection, "most", 3)
    held = [served.connect() for _ in range(3)]
    wait_until(lambda: len(served.server.server_state.connections) == 3)
    with served.connect() as client:
        status, body = read_answer(client.makefile("rb"))
    assert (status, body["error"]["message"]) == (503, "3 connections are open; try again shortly.")
    for each in held:
        each.close()
    wait_until(lambda: not served.server.server_state.connections)


@pytest.mark.slow
def test_a_connection_that_rests_longer_than_clients_keep_one_is_still_there(served: Served):
    with httpx.Client(base_url=served.url, limits=httpx.Limits(keepalive_expiry=60)) as http:
        assert http.get("/health").status_code == 200
        [kept] = served.server.server_state.connections
        time.sleep(11)  # twice what httpx keeps one by default
        assert http.get("/health").status_code == 200
        assert list(served.server.server_state.connections) == [kept]
