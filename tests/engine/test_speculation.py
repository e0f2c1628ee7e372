"""Guesses: found where the text repeats, and never a change of what is drawn."""

import random
from collections import Counter

import pytest
import torch

from codeweft.engine.engine import Engine
from codeweft.engine.request import Request
from codeweft.engine.speculation import LENGTHS, Guesser


def by_search(tokens: list[int], most: int) -> tuple[int, ...]:
    """The slow truth: look for the last place where the last tokens stood before."""
    for length in LENGTHS:
        for place in range(len(tokens) - 1, length - 1, -1):
            if tokens[place - length : place] == tokens[-length:]:
                return tuple(tokens[place : place + most])
    return ()


def test_guesses_are_what_followed_the_last_time():
    chance = random.Random(1)
    for _ in range(200):
        guesser, tokens = Guesser(5), []
        for _ in range(40):
            tokens.append(chance.randrange(4))
            assert guesser.guess(0, tokens, 3) == by_search(tokens, 3)


def test_what_an_ended_sequence_said_is_guessed_for_the_next_and_texts_do_not_run_into_each_other():
    guesser = Guesser(5)
    guesser.guess(0, [1, 2, 3, 4, 5], 3)
    guesser.end(0)
    guesser.guess(1, [9, 9, 9], 3)
    guesser.end(1)
    assert guesser.guess(2, [7, 1, 2, 3], 3) == (4, 5)
    assert not set(guesser.records) - {2}


def test_wrong_guesses_make_room_for_plain_steps():
    guesser, tokens = Guesser(8), [1, 2, 3, 4] * 3
    tried = 0
    for _ in range(200):
        guess = guesser.guess(0, tokens, 8)
        tried += len(guess)
        if guess:
            guesser.learn(0, len(guess), 0)
    assert tried < 12
    guesser.learn(0, 1, 1)  # one right guess, and it tries again at once
    assert guesser.guess(0, tokens, 8)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_guessing_changes_no_text_and_saves_passes_where_text_repeats(loaded: Engine, temperature: float):
    """A model whose next token depends on the last alone falls into circles when it is greedy."""
    prompt = loaded.prompt("def add(a, b):\n    return a + b\n" * 3)
    requests = [Request(prompt, max_tokens=60, temperature=temperature, seed=seed) for seed in range(4)]
    plain = Engine(loaded.model, loaded.tokenizer, rows=1, guess=0).generate(requests)
    engine = Engine(loaded.model, loaded.tokenizer, rows=1, guess=6)
    for guessed, expected in zip(engine.generate(requests), plain, strict=True):
        assert (guessed.text, guessed.tokens) == (expected.text, expected.tokens)
        assert guessed.logprob == pytest.approx(expected.logprob, abs=1e-3)
    assert engine.guesser.tried > 0
    if temperature == 0:
        assert engine.guesser.right > 10  # all four are the same text


def test_a_guessed_text_is_drawn_from_the_model_s_own_distribution(loaded: Engine):
    """Second tokens of 1,500 guessed texts against the exact probabilities, by a chi-squared bound."""
    engine = Engine(loaded.model, loaded.tokenizer, rows=1, guess=4)
    prompt = engine.prompt("ababababab")
    requests = [Request(prompt, max_tokens=3, temperature=0.5, seed=seed) for seed in range(1500)]
    drawn = Counter(completion.tokens[1] for completion in engine.generate(requests) if len(completion.tokens) > 1)
    assert engine.guesser.tried > 250
    size = engine.tokenizer.size
    with torch.inference_mode():
        first_W = engine.model(torch.tensor([prompt])).logits_BTW[0, -1, :size]
        first_W = (first_W / 0.5).softmax(-1)
        likely = first_W.topk(200).indices
        follow = engine.model(torch.tensor([[*prompt, int(token)] for token in likely])).logits_BTW[:, -1, :size]
    ended = float(first_W[engine.tokenizer.end])
    expected_W = (first_W[likely, None] * (follow / 0.5).softmax(-1)).sum(0) * (sum(drawn.values()) / (1 - ended))
    common = [token for token in range(size) if expected_W[token] >= 6]
    squares = sum((drawn[token] - float(expected_W[token])) ** 2 / float(expected_W[token]) for token in common)
    assert len(common) > 10
    assert squares < len(common) + 5 * (2 * len(common)) ** 0.5
