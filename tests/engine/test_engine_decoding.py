"""What the engine draws: equal to the plain forward pass, and the same in any company."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from codeweft.base.errors import ModelError, UserError
from codeweft.engine.engine import Engine
from codeweft.engine.request import Completion, Request
from codeweft.engine.scheduler import Feed

TEXTS = ("x", "def add(a, b):\n    return", "class Scheduler:\n" * 6, "    for token in tokens:\n        ", "\n\n", "é")


def greedy_without_cache(engine: Engine, request: Request) -> tuple[list[int], float]:
    """The slow truth: a full forward pass over everything for each token."""
    tokens, total = list(request.prompt), 0.0
    for _ in range(request.max_tokens):
        with torch.inference_mode():
            logits_W = engine.model(torch.tensor([tokens])).logits_BTW[0, -1]
        token = int(logits_W[: engine.tokenizer.size].argmax())
        total += float(logits_W.log_softmax(-1)[token])
        tokens.append(token)
        if token == engine.tokenizer.end:
            break
    return tokens[len(request.prompt) :], total


def mixed_requests(engine: Engine, count: int) -> list[Request]:
    chance = random.Random(3)
    return [
        Request(
            engine.prompt(chance.choice(TEXTS) + str(number)),
            max_tokens=chance.randint(1, 24),
            temperature=chance.choice((0.0, 0.7, 1.3)),
            top_p=chance.choice((1.0, 0.9, 0.5)),
            stop=chance.choice(((), ("e",), ("to", "se"))),
            stop_line=chance.random() < 0.3,
            seed=number,
        )
        for number in range(count)
    ]


def test_greedy_tokens_in_a_ragged_batch_equal_full_forward_passes(engine: Engine):
    requests = [Request(engine.prompt(text), max_tokens=20) for text in TEXTS]
    for request, completion in zip(requests, engine.generate(requests), strict=True):
        tokens, logprob = greedy_without_cache(engine, request)
        assert list(completion.tokens) == tokens
        assert completion.logprob == pytest.approx(logprob, abs=1e-3)


def test_a_row_that_served_another_request_before_leaves_no_trace(loaded: Engine):
    engine = Engine(loaded.model, loaded.tokenizer, rows=1)
    requests = [Request(engine.prompt(text), max_tokens=8) for text in TEXTS]
    alone = [Engine(loaded.model, loaded.tokenizer, rows=1).generate([request])[0].tokens for request in requests]
    assert [completion.tokens for completion in engine.generate(requests)] == alone


def test_text_is_the_same_alone_and_among_many_more_requests_than_rows(engine: Engine):
    requests = mixed_requests(engine, 40)
    together = engine.generate(requests)
    assert len({completion.text for completion in together}) > 20
    for request, completion in zip(requests, together, strict=True):
        [alone] = engine.generate([request])
        assert (alone.text, alone.tokens, alone.finish) == (completion.text, completion.tokens, completion.finish)


def test_requests_that_join_later_do_not_change_those_that_run(engine: Engine):
    first, second = (Request(engine.prompt(text), max_tokens=20, temperature=1.0, seed=1) for text in TEXTS[1:3])
    expected = [completion.tokens for completion in engine.generate([first, second])]
    got: dict[int, list[int]] = {}
    ids = [engine.submit(first)]
    for step in range(60):
        if step == 7:
            ids.append(engine.submit(second))
        for piece in engine.step():
            got.setdefault(piece.request, []).extend(piece.tokens)
    assert [tuple(got[each]) for each in ids] == expected
    assert not engine.busy


def test_other_seeds_give_other_texts_and_temperature_zero_ignores_them(engine: Engine):
    def texts(temperature: float) -> set[str]:
        prompt = engine.prompt("def ")
        requests = [Request(prompt, max_tokens=12, temperature=temperature, seed=seed) for seed in range(8)]
        return {completion.text for completion in engine.generate(requests)}

    assert len(texts(1.0)) == 8
    assert len(texts(0.0)) == 1


def test_padded_vocabulary_is_never_drawn(loaded: Engine):
    engine = Engine(loaded.model, loaded.tokenizer, rows=6)
    before = engine.model.lm_head.weight.detach().clone()
    try:
        with torch.no_grad():
            engine.model.lm_head.weight[engine.tokenizer.size :] *= 50  # the padding would win most of the time
        requests = [Request(engine.prompt(t), max_tokens=20, temperature=h) for t in TEXTS for h in (0.0, 1.0)]
        drawn = [token for completion in engine.generate(requests) for token in completion.tokens]
    finally:
        with torch.no_grad():
            engine.model.lm_head.weight.copy_(before)
    assert max(drawn) < engine.tokenizer.size


def test_cancelling_frees_the_row_for_the_next_step(loaded: Engine):
    engine = Engine(loaded.model, loaded.tokenizer, rows=1)
    long, waiting = Request(engine.prompt("a"), max_tokens=150), Request(engine.prompt("b"), max_tokens=2)
    first, second = engine.submit(long), engine.submit(waiting)
    assert [piece.request for piece in engine.step()] == [first]
    engine.cancel(first)
    pieces = engine.step()
    assert [(piece.request, piece.finish) for piece in pieces] == [(first, "cancelled"), (second, None)]
    engine.cancel(first)  # twice, and of one that is done: nothing happens
    [last] = engine.step()
    assert (last.request, last.finish) == (second, "length")
    assert not engine.busy
    assert engine.step() == []


def test_cancelling_one_that_waits_takes_it_from_the_queue(loaded: Engine):
    engine = Engine(loaded.model, loaded.tokenizer, rows=1)
    ids = [engine.submit(Request(engine.prompt("a"), max_tokens=2)) for _ in range(3)]
    engine.cancel(ids[1])
    finished = [piece.request for _ in range(6) for piece in engine.step() if piece.finish in ("stop", "length")]
    assert finished == [ids[0], ids[2]]


def test_an_interrupted_generate_leaves_no_block_occupied(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    original, count = engine.step, 0

    def step() -> list:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return original()

    monkeypatch.setattr(engine, "step", step)
    with pytest.raises(KeyboardInterrupt):
        engine.generate([Request(engine.prompt("a"), max_tokens=50)] * 9)
    assert not engine.scheduler.running
    assert engine.pool.available == engine.pool.size
    assert not engine.sequences


def test_prompts_of_a_pass_stay_within_its_budget_and_none_is_left_behind(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    scheduler, sizes = engine.scheduler, []
    scheduler.prompt_tokens = 64
    original = scheduler.next

    def recorded(guess: Callable) -> list[Feed]:
        feeds = original(guess)
        if len(feeds[0].tokens) > 1:
            sizes.append((len(feeds), max(len(feed.tokens) for feed in feeds)))
        return feeds

    monkeypatch.setattr(scheduler, "next", recorded)
    chance = random.Random(0)
    lengths = [chance.randint(2, 100) for _ in range(30)]
    prompts = [tuple(chance.randrange(3, 400) for _ in range(length)) for length in lengths]
    completions = engine.generate([Request(prompt, max_tokens=1) for prompt in prompts])
    assert [len(completion.tokens) for completion in completions] == [1] * 30
    assert all(count * longest <= 64 for count, longest in sizes)
    assert max(count for count, _ in sizes) > 1


def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(engine: Engine):
    with pytest.raises(UserError, match=r"190 tokens and 3 more .* 192 .*at most 2 tokens"):
        engine.submit(Request((1,) * 190, max_tokens=3))
    with pytest.raises(UserError, match="Shorten the prompt or raise"):
        engine.submit(Request((1,) * 192, max_tokens=3))
    assert engine.generate([Request((1,) * 190, max_tokens=2)])[0].finish in ("length", "stop")


def test_texts_are_refused_unread_only_where_no_cut_in_tokens_could_fit(engine: Engine):
    """The truth is the tokenizer: its longest token repeated is the longest text that could fit."""
    tokenizer = engine.tokenizer
    every = [tokenizer.decode([number], skip_special=False) for number in range(tokenizer.size)]
    text = max(every, key=lambda text: len(text.encode())) * engine.max_length
    engine.check_text(text)
    whole = len(text.encode())
    with pytest.raises(UserError, match=rf"has {whole + 1} characters, but 192 tokens.* at most {whole}.*Shorten"):
        engine.check_text("x" * whole, "x")


@pytest.mark.parametrize("wrong", [-1, 432, 10**12])
def test_a_token_outside_the_vocabulary_is_refused(engine: Engine, wrong: int):
    with pytest.raises(UserError, match=f"Token {wrong} "):
        engine.submit(Request((1, wrong)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ()),
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 1.1),
        ("stop", ("",)),
        ("stop_indent", 0),
        ("max_ms", 0),
        ("max_ms", float("nan")),
    ],
)
def test_a_request_that_cannot_be_names_its_field(field: str, value: Any):
    settings: dict[str, Any] = {"prompt": (1,), field: value}
    with pytest.raises(UserError, match=field.replace("_", ".")):
        Request(**settings)


def test_weights_that_give_no_numbers_are_a_model_error(loaded: Engine):
    engine = Engine(loaded.model, loaded.tokenizer, rows=1)
    weight = engine.model.model.norm.weight
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0] = float("nan")
        with pytest.raises(ModelError, match="not finite"):
            engine.generate([Request((1,))])
    finally:
        with torch.no_grad():
            weight.copy_(before)


def test_loading_what_is_no_model_folder_names_it(tmp_path: Path):
    with pytest.raises(ModelError, match="nowhere is not a model folder"):
        Engine.load(tmp_path / "nowhere")


def test_the_window_can_be_shortened_but_not_beyond_the_model(loaded: Engine):
    assert Engine(loaded.model, loaded.tokenizer, max_length=50).max_length == 50
    with pytest.raises(UserError, match="2 to 192"):
        Engine(loaded.model, loaded.tokenizer, max_length=193)


def test_progress_counts_each_request_once(engine: Engine):
    class Counter:
        total = 0.0

        def advance(self, amount: float = 1) -> None:
            self.total += amount

    counter = Counter()
    requests = mixed_requests(engine, 15)
    completions = engine.generate(requests, counter)  # ty: ignore[invalid-argument-type]
    assert counter.total == 15
    assert all(isinstance(completion, Completion) for completion in completions)
