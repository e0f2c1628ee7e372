"""Decoding with the cache gives what a full forward pass gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from codeweft.model import attention
from codeweft.model.cache import LatentCache
from codeweft.model.config import RopeScaling

YARN = RopeScaling(factor=4.0, original_max_position_embeddings=16, mscale=0.707, mscale_all_dim=0.707)
CASES = {"plain": {}, "low_rank_yarn": {"q_lora_rank": 9, "rope_scaling": YARN}, "tied": {"tie_word_embeddings": True}}
LENGTHS = torch.tensor([25, 7, 14])


def texts(count: int, tokens: int) -> Tensor:
    return torch.randint(0, 97, (count, tokens), generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("step", [1, 3])
@torch.no_grad()
def test_ragged_prefill_and_stepwise_decoding_equal_the_full_forward(
    case: str, step: int, small: Callable, random_model: Callable
):
    """Three prompts padded on the right, in rows 3, 0 and 4 of a cache that held other text before."""
    model = random_model(small(**CASES[case]))
    tokens = texts(3, 40)
    full = model(tokens).logits_BTW
    cache, rows = LatentCache(model.config, 5, 64, torch.float32), torch.tensor([3, 0, 4])
    model(texts(5, 40).flip(1), cache=cache)
    cache.advance(None, 40)
    cache.reset(rows)
    prefill = model(tokens[:, :25], cache=cache, rows_B=rows).logits_BTW
    cache.advance(rows, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(prefill[b, :length], full[b, :length], atol=1e-4, rtol=1e-4)
    for begin in range(0, 13, step):
        new = torch.stack([tokens[b, n + begin : n + begin + step] for b, n in enumerate(LENGTHS.tolist())])
        got = model(new, cache=cache, rows_B=rows).logits_BTW
        cache.advance(rows, step)
        for b, n in enumerate(LENGTHS.tolist()):
            torch.testing.assert_close(got[b], full[b, n + begin : n + begin + step], atol=1e-4, rtol=1e-4)
    assert cache.lengths.tolist()[1:3] == [40, 40]


@torch.no_grad()
def test_both_ways_of_attending_give_the_same_decoding(
    small: Callable, random_model: Callable, monkeypatch: pytest.MonkeyPatch
):
    model, tokens = random_model(small(rope_scaling=YARN)), texts(2, 30)
    results = []
    for absorb in (True, False):
        monkeypatch.setattr(attention, "absorbing_is_cheaper", lambda *_, answer=absorb: answer)
        cache = LatentCache(model.config, 2, 30, torch.float32)
        logits = []
        for piece in tokens.split([11, 1, 1, 5, 12], dim=1):
            logits.append(model(piece, cache=cache).logits_BTW)
            cache.advance(None, piece.shape[1])
        results.append(torch.cat(logits, dim=1))
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(results[0], model(tokens).logits_BTW, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_padding_beyond_the_end_of_the_cache_is_left_out(small: Callable, random_model: Callable):
    """Row 0 has room for two more tokens; the batch is five wide because of row 1."""
    model, tokens = random_model(small()), texts(2, 16)
    full = model(tokens).logits_BTW
    cache = LatentCache(model.config, 2, 16, torch.float32)
    model(tokens[:, :14], cache=cache)
    cache.advance(None, torch.tensor([14, 9]))
    new = torch.stack((torch.cat((tokens[0, 14:], tokens[0, :3])), tokens[1, 9:14]))
    got = model(new, cache=cache).logits_BTW
    cache.advance(None, torch.tensor([2, 5]))
    torch.testing.assert_close(got[0, :2], full[0, 14:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got[1], full[1, 9:14], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_rows_that_are_not_named_stay_as_they_were(small: Callable, random_model: Callable):
    model = random_model(small())
    cache = LatentCache(model.config, 3, 20, torch.float32)
    model(texts(3, 10), cache=cache)
    cache.advance(None, 10)
    before = cache.latent[:, 1].clone(), cache.key_rope[:, 1].clone()
    model(texts(2, 5), cache=cache, rows_B=torch.tensor([2, 0]))
    torch.testing.assert_close((cache.latent[:, 1], cache.key_rope[:, 1]), before, atol=0, rtol=0)


def test_more_tokens_than_fit_are_noticed(small: Callable):
    cache = LatentCache(small(), 1, 4, torch.float32)
    with pytest.raises(AssertionError, match="cache"):
        cache.advance(None, 5)


def test_cache_holds_what_the_paper_counts_and_nothing_per_head(small: Callable):
    """(d_c + d_h^R) elements per token and layer (DeepSeek-V2 Table 1)."""
    config = small()
    assert LatentCache(config, 2, 10, torch.bfloat16).bytes == 2 * 10 * (20 + 8) * 3 * 2
