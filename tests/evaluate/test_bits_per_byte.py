"""Bits per byte: each token once, padding without effect, long documents read with half a window before each token."""

import numpy as np
import pytest
import tiny_model
import torch
from hypothesis import given
from hypothesis import strategies as st

from codeweft.base.progress import Bar
from codeweft.evaluate.bits_per_byte import model_bits, windows
from codeweft.model.config import ModelConfig
from codeweft.model.transformer import Transformer

VOCABULARY = 61
CONFIG = ModelConfig(
    vocab_size=VOCABULARY,
    **tiny_model.SMALLEST,
    max_position_embeddings=64,
    bos_token_id=0,
    eos_token_id=1,
)


@pytest.fixture(scope="module")
def model() -> Transformer:
    made = Transformer(CONFIG)
    made.init_weights(0.3, torch.Generator().manual_seed(1))
    return made.float().eval()


def documents(*lengths: int) -> list[np.ndarray]:
    random = np.random.default_rng(sum(lengths))
    return [np.concatenate(([0], random.integers(2, VOCABULARY, length - 2), [1])) for length in lengths]


@torch.no_grad()
def one_by_one(model: Transformer, tokens: np.ndarray, length: int) -> float:
    """-log2 p of every token by a pass of its own over the part of its document that its window shows it."""
    total, half = 0.0, length // 2
    for place in range(1, len(tokens)):
        window = max(0, -(-(place - length) // half))
        context = torch.from_numpy(tokens[window * half : place])[None]
        output = model(context)
        assert output.logits_BTW is not None
        total -= float(torch.log_softmax(output.logits_BTW[0, -1].double(), -1)[int(tokens[place])]) / np.log(2)
    return total


@given(st.integers(2, 80), st.sampled_from([2, 4, 8, 16]))
def test_windows_predict_every_token_after_the_first_exactly_once_with_half_a_window_before_it(size: int, length: int):
    tokens, predicted = np.arange(size), []
    for number, window in enumerate(windows(0, tokens, length)):
        assert len(window.tokens) <= length + 1
        predicted += window.tokens[1 + window.already :].tolist()
        assert window.already >= (length // 2 if number else 0)
    assert predicted == list(range(1, size))


def test_bits_of_batched_padded_windows_equal_those_of_each_token_alone(model: Transformer):
    texts = documents(2, 5, 17, 18, 40, 23)
    found = model_bits(model, texts, 16, 3, Bar("test", None, "tokens"))
    expected = [one_by_one(model, text, 16) for text in texts]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_model_that_knows_nothing_pays_the_logarithm_of_its_vocabulary(model: Transformer):
    even = Transformer(CONFIG)
    even.load_state_dict(model.state_dict())
    torch.nn.init.zeros_(even.lm_head.weight)
    texts = documents(9, 30)
    found = model_bits(even.eval(), texts, 8, 2, Bar("test", None, "tokens"))
    np.testing.assert_allclose(found, [8 * np.log2(VOCABULARY), 29 * np.log2(VOCABULARY)], rtol=1e-6)
