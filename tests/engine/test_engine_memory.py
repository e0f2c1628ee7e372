"""Texts are the same however memory is short, prompts are cut, beginnings are shared and requests leave."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import make_folder

from codeweft.engine import engine as engine_module
from codeweft.engine.engine import Engine
from codeweft.engine.request import Completion, Piece, Request, join
from codeweft.model.cache import BLOCK
from codeweft.model.folder import load_folder
from codeweft.model.quantize import Quantization, quantize_structure, quantized_parts
from codeweft.tokenizer.load import load_tokenizer
from codeweft.train.batches import Batch
from codeweft.train.config import BalanceConfig, OptimizerConfig
from codeweft.train.loop import Trainer
from codeweft.train.objectives import next_token

BEGINNINGS = ("def add(a, b):\n    return", "class Engine:\n" * 5, "x")


CLOSE = 1e-3  # two best logits nearer than this may change places by rounding


def truth(engine: Engine, request: Request) -> tuple[list[int], int]:
    """Greedy tokens of full forward passes, and how many come before the first close call."""
    tokens, certain = list(request.prompt), request.max_tokens
    for place in range(request.max_tokens):
        with torch.inference_mode():
            logits_W = engine.model(torch.tensor([tokens])).logits_BTW[0, -1, : engine.tokenizer.size]
        best = logits_W.topk(2)
        if float(best.values[0] - best.values[1]) < CLOSE:
            certain = min(certain, place)
        tokens.append(int(best.indices[0]))
        if tokens[-1] == engine.tokenizer.end:
            break
    return tokens[len(request.prompt) :], certain


def random_request(engine: Engine, chance: random.Random, greedy: bool = False, longest: int = 30) -> Request:
    text = chance.choice(BEGINNINGS) + "".join(chance.choices("ab (\n", k=chance.randint(0, 60)))
    return Request(
        engine.prompt(text),
        max_tokens=chance.randint(1, longest),
        temperature=0.0 if greedy else chance.choice((0.0, 0.8)),
        seed=chance.randrange(1000),
    )


def with_blocks(loaded: Engine, blocks: int, **options: Any) -> Engine:
    """An engine with room for so many blocks only, so that requests have to give theirs up."""
    engine = Engine(loaded.model, loaded.tokenizer, **{"rows": 6, "max_length": min(192, blocks * BLOCK)} | options)
    while engine.pool.size > blocks:
        engine.pool.free.remove(engine.pool.size - 1)
        engine.pool.size -= 1
    return engine


def run_with_losses(engine: Engine, requests: list[Request], chance: random.Random) -> tuple[list[Completion], set]:
    """Completions in order, and the places of those that were cancelled on the way."""
    pieces: dict[int, list[Piece]] = {engine.submit(request): [] for request in requests}
    numbers, left = list(pieces), set()
    while engine.busy:
        for piece in engine.step():
            pieces[piece.request].append(piece)
        if engine.sequences and chance.random() < 0.05:
            leaving = chance.choice(list(engine.sequences))
            engine.cancel(leaving)
            left.add(numbers.index(leaving))
    return [join(pieces[number]) for number in numbers], left


def test_greedy_tokens_are_those_of_full_forward_passes_whatever_happens_to_memory(loaded: Engine):
    """Random pieces of prompts, room for a few, requests that leave at random, guesses on and off."""
    evictions = cancelled = compared = close = 0
    for seed in range(4):
        chance = random.Random(seed)
        engine = with_blocks(loaded, 9, prompt_tokens=chance.choice((5, 16, 64)), guess=chance.choice((0, 4)))
        requests = [random_request(engine, chance, greedy=True, longest=50) for _ in range(14)]
        completions, left = run_with_losses(engine, requests, chance)
        for place, (request, completion) in enumerate(zip(requests, completions, strict=True)):
            expected, certain = truth(engine, request)
            length = len(completion.tokens) if place in left else len(expected)
            close += certain < length
            compared += min(certain, length)
            assert list(completion.tokens[: min(certain, length)]) == expected[: min(certain, length)]
            assert completion.finish == "cancelled" or certain < length or len(completion.tokens) == length
        assert engine.pool.available == engine.pool.size
        evictions, cancelled = evictions + engine.scheduler.evictions, cancelled + len(left)
    assert evictions >= 3
    assert cancelled > 5
    assert compared > 400
    assert close < 15


def test_sampled_texts_are_the_same_with_and_without_sharing_guessing_and_short_memory(loaded: Engine):
    chance = random.Random(7)
    requests = [random_request(loaded, chance) for _ in range(30)]

    def texts(engine: Engine) -> list[Completion]:
        return engine.generate(requests)

    plain = texts(Engine(loaded.model, loaded.tokenizer, rows=1, share_prefixes=False, guess=0))
    for options in ({}, {"guess": 0}, {"share_prefixes": False}, {"prompt_tokens": 7}):
        for given, expected in zip(texts(with_blocks(loaded, 12, **options)), plain, strict=True):
            assert (given.tokens, given.text, given.finish) == (expected.tokens, expected.text, expected.finish)
            assert given.logprob == pytest.approx(expected.logprob, abs=1e-3)


class Counted:
    """Counts the tokens that go through the model."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens, original = 0, engine.passes.logits

        def logits(feeds: list) -> torch.Tensor:
            self.tokens += sum(len(feed.tokens) for feed in feeds)
            return original(feeds)

        monkeypatch.setattr(engine.passes, "logits", logits)


def test_a_group_of_samples_reads_its_prompt_once(loaded: Engine, monkeypatch: pytest.MonkeyPatch):
    engine = Engine(loaded.model, loaded.tokenizer, rows=8)
    prompt = engine.prompt("class Engine:\n    def step(self):\n" * 4)
    counted = Counted(engine, monkeypatch)
    samples = engine.generate([Request(prompt, max_tokens=1, temperature=1.0, seed=seed) for seed in range(8)])
    assert len({sample.tokens for sample in samples}) > 1
    # the first reads it all, each other one its last token, from which it draws
    assert counted.tokens == len(prompt) + 7


def test_an_edited_prompt_reads_what_follows_the_edit_and_no_more(loaded: Engine, monkeypatch: pytest.MonkeyPatch):
    engine = Engine(loaded.model, loaded.tokenizer, rows=2)
    tokens = [engine.tokenizer.begin, *(5 + place % 300 for place in range(139))]
    engine.generate([Request(tuple(tokens), max_tokens=1)])
    counted = Counted(engine, monkeypatch)
    tokens[100] += 1
    [edited] = engine.generate([Request(tuple(tokens), max_tokens=4)])
    assert counted.tokens == 40 + 3
    [fresh] = Engine(loaded.model, loaded.tokenizer, rows=1).generate([Request(tuple(tokens), max_tokens=4)])
    assert edited.tokens == fresh.tokens


def test_requests_with_memory_for_some_of_them_all_get_their_text(loaded: Engine):
    engine = with_blocks(loaded, 10, rows=100)
    requests = [Request(engine.prompt(f"def f{number}():"), max_tokens=40) for number in range(60)]
    alone = Engine(loaded.model, loaded.tokenizer, rows=1)
    for request, completion in zip(requests, engine.generate(requests), strict=True):
        assert completion.tokens == alone.generate([request])[0].tokens


def test_a_request_ends_in_time_with_the_text_so_far(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    now = 0.0

    def clock() -> float:
        return now

    monkeypatch.setattr(engine_module.time, "monotonic", clock)
    timed = engine.submit(Request(engine.prompt("a"), max_tokens=100, max_ms=500))
    other = engine.submit(Request(engine.prompt("a"), max_tokens=100))
    pieces = []
    for _ in range(10):
        pieces += engine.step()
        now += 0.1
    mine = [piece for piece in pieces if piece.request == timed]
    assert mine[-1].finish == "deadline"
    completion = join(mine)
    assert 1 <= len(completion.tokens) < 10
    assert completion.text == engine.tokenizer.decode(completion.tokens)[: len(completion.text)]
    assert list(engine.sequences) == [other]


def test_new_weights_are_seen_by_the_next_step_and_nothing_read_before_is_reused(loaded: Engine):
    engine = Engine(loaded.model, loaded.tokenizer, rows=2)
    request = Request(engine.prompt("class Engine:\n    def step(self):\n"), max_tokens=8)
    before = engine.generate([request])[0]
    weight = engine.model.model.layers[1].self_attn.kv_b_proj.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(-1.5)
        engine.refresh()
        after = engine.generate([request])[0]
        expected, _ = truth(engine, request)
        assert list(after.tokens) == expected
        assert after.tokens != before.tokens
    finally:
        with torch.no_grad():
            weight.copy_(kept)


@pytest.mark.parametrize("guess", [0, 4])
def test_a_quantised_model_reads_a_long_prompt_in_pieces(tmp_path: Path, guess: int):
    """A piece that is not the last asks for no logits, which a quantised head has to bear."""
    folder = make_folder(tmp_path / "plain", hidden_size=64, moe_intermediate_size=32, intermediate_size=96)
    model = quantize_structure(load_folder(folder, dtype=torch.bfloat16), Quantization(4, 4))
    for _, part in quantized_parts(model):
        for name, buffer in part.named_buffers(recurse=False):
            chance = torch.Generator().manual_seed(len(name))
            scale = torch.rand(buffer.shape, generator=chance) * 0.1
            buffer.copy_(scale if "scale" in name else torch.randint(0, 256, buffer.shape, generator=chance))
    engine = Engine(model, load_tokenizer(folder), rows=2, prompt_tokens=70, guess=guess)
    prompt = tuple(5 + place % 300 for place in range(150))
    texts = engine.generate([Request(prompt, max_tokens=9), Request(prompt[:80], max_tokens=9)])
    assert [len(completion.tokens) for completion in texts] == [9, 9]
    assert engine.pool.available == engine.pool.size


def test_after_an_update_the_next_texts_have_the_trainer_s_log_probabilities(folder: Path):
    """One optimizer's step on the engine's own weights, then texts drawn and scored by the model itself."""
    model = load_folder(folder, dtype=torch.float32, trainable=True)
    engine = Engine(model, load_tokenizer(folder), rows=4)
    requests = [Request(engine.prompt("def "), max_tokens=12, temperature=1.0, seed=seed) for seed in range(4)]
    before = [completion.tokens for completion in engine.generate(requests)]
    trainer = Trainer(model, OptimizerConfig())
    tokens = torch.tensor([[*engine.prompt("def add(a, b):\n    return a + b\n")]])
    batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    trainer.step([batch], lambda model, batch: next_token(model, batch, BalanceConfig()), 0.02)
    model.eval()
    engine.refresh()
    after = engine.generate(requests)
    assert [completion.tokens for completion in after] != before
    for request, completion in zip(requests, after, strict=True):
        text = torch.tensor([[*request.prompt, *completion.tokens]])
        with torch.no_grad():
            logprobs = model(text).logits_BTW[0, len(request.prompt) - 1 : -1].log_softmax(-1)
        total = float(logprobs.gather(-1, text[0, len(request.prompt) :, None]).sum())
        assert completion.logprob == pytest.approx(total, abs=1e-4 * len(completion.tokens))


@pytest.mark.slow
def test_ten_thousand_random_requests_leave_nothing_behind(loaded: Engine):
    """Blocks, sequences and guesses are where they were; texts at the end are those of the beginning."""
    chance = random.Random(0)
    engine = with_blocks(loaded, 30)
    probe = [random_request(engine, random.Random(99)) for _ in range(6)]
    first = [completion.tokens for completion in engine.generate(probe)]
    waiting = 10_000
    while waiting or engine.busy:
        while waiting and len(engine.sequences) < 12:
            engine.submit(random_request(engine, chance))
            waiting -= 1
        engine.step()
        if engine.sequences and chance.random() < 0.02:
            engine.cancel(chance.choice(list(engine.sequences)))
    assert engine.pool.available == engine.pool.size
    assert not engine.pool.owners
    assert not engine.guesser.records
    assert [completion.tokens for completion in engine.generate(probe)] == first
