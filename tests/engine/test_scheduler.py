"""Who runs next: nobody waits without end."""

import pytest

from codeweft.engine.engine import Engine
from codeweft.engine.request import Request


@pytest.mark.parametrize("rows", [2, 6])
def test_a_stream_of_newcomers_does_not_stop_a_request_that_runs(loaded: Engine, rows: int):
    """Each step finds new prompts; the one that runs gets at least every second step."""
    engine = Engine(loaded.model, loaded.tokenizer, rows=rows)
    tokens = 20
    long = engine.submit(Request(engine.prompt("class A:"), max_tokens=tokens))
    alone = Engine(loaded.model, loaded.tokenizer, rows=1)
    [expected] = alone.generate([Request(engine.prompt("class A:"), max_tokens=tokens)])
    drawn: list[int] = []
    for _ in range(2 * tokens + 2):
        for _ in range(rows):
            engine.submit(Request(engine.prompt("x"), max_tokens=1))
        drawn += [token for piece in engine.step() if piece.request == long for token in piece.tokens]
    assert drawn == list(expected.tokens)


def test_newcomers_are_not_kept_waiting_by_those_who_run(loaded: Engine):
    """A prompt that has a row is read by the second step at the latest."""
    engine = Engine(loaded.model, loaded.tokenizer, rows=6)
    for _ in range(5):
        engine.submit(Request(engine.prompt("class A:"), max_tokens=100))
    for _ in range(10):
        engine.step()
    new = engine.submit(Request(engine.prompt("x"), max_tokens=5))
    assert new in {piece.request for _ in range(2) for piece in engine.step()}
