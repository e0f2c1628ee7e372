"""Decoding with the cache gives what a full forward pass gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from codeweft.model import attention
from codeweft.model.cache import BLOCK, LatentCache, block_bytes
from codeweft.model.config import RopeScaling
from codeweft.model.transformer import Transformer

YARN = RopeScaling(factor=4.0, original_max_position_embeddings=16, mscale=0.707, mscale_all_dim=0.707)
CASES = {"plain": {}, "low_rank_yarn": {"q_lora_rank": 9, "rope_scaling": YARN}, "tied": {"tie_word_embeddings": True}}
LENGTHS = [25, 7, 14]
TABLES = [[6, 2, 4], [1, 8, 0], [3, 7, 5]]  # blocks of three sequences, in no order


def texts(count: int, tokens: int) -> Tensor:
    return torch.randint(0, 97, (count, tokens), generator=torch.Generator().manual_seed(8))


def read(model: Transformer, cache: LatentCache, tokens: Tensor, tables: list[list[int]], starts: list[int]) -> Tensor:
    """Logits of new tokens behind what the sequences' blocks hold."""
    tables_BP = cache.tables(tables, max(starts) + tokens.shape[1])
    return model(tokens, window=cache.window(tables_BP, torch.tensor(starts), tokens.shape[1])).logits_BTW


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("step", [1, 3])
@torch.no_grad()
def test_ragged_prefill_and_stepwise_decoding_equal_the_full_forward(
    case: str, step: int, small: Callable, random_model: Callable
):
    """Three prompts padded on the right, in blocks that held other text before."""
    model = random_model(small(**CASES[case]))
    tokens = texts(3, 40)
    full = model(tokens).logits_BTW
    cache = LatentCache(model.config, 9, torch.float32)
    read(model, cache, texts(3, 40).flip(1), TABLES, [0, 0, 0])
    prefill = read(model, cache, tokens[:, :25], TABLES, [0, 0, 0])
    for b, length in enumerate(LENGTHS):
        torch.testing.assert_close(prefill[b, :length], full[b, :length], atol=1e-4, rtol=1e-4)
    for begin in range(0, 13, step):
        new = torch.stack([tokens[b, n + begin : n + begin + step] for b, n in enumerate(LENGTHS)])
        got = read(model, cache, new, TABLES, [n + begin for n in LENGTHS])
        for b, n in enumerate(LENGTHS):
            torch.testing.assert_close(got[b], full[b, n + begin : n + begin + step], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 2])
@torch.no_grad()
def test_both_ways_of_attending_give_the_same_decoding(
    rows: int, small: Callable, random_model: Callable, monkeypatch: pytest.MonkeyPatch
):
    """Of one row, earlier keys are expanded in parts; here of five."""
    monkeypatch.setattr(attention, "PART", 5)
    model, tokens = random_model(small(rope_scaling=YARN)), texts(rows, 30)
    results = []
    for absorb in (True, False):
        monkeypatch.setattr(attention, "absorbing_is_cheaper", lambda *_, answer=absorb: answer)
        cache = LatentCache(model.config, 4, torch.float32)
        logits, start = [], 0
        for piece in tokens.split([11, 1, 1, 5, 12], dim=1):
            logits.append(read(model, cache, piece, [[3, 1], [0, 2]][:rows], [start] * rows))
            start += piece.shape[1]
        results.append(torch.cat(logits, dim=1))
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(results[0], model(tokens).logits_BTW, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_padding_beyond_a_row_s_blocks_goes_where_nobody_reads(small: Callable, random_model: Callable):
    """Row 0 has room for two more tokens; the batch is five wide because of row 1."""
    model, tokens = random_model(small()), texts(2, BLOCK)
    full = model(tokens).logits_BTW
    cache = LatentCache(model.config, 3, torch.float32)
    read(model, cache, tokens[:, :14], [[2], [0]], [0, 0])
    before = cache.entries[:, 1].clone()
    new = torch.stack((torch.cat((tokens[0, 14:], tokens[0, :3])), tokens[1, 9:14]))
    got = read(model, cache, new, [[2], [0]], [14, 9])
    torch.testing.assert_close(got[0, :2], full[0, 14:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got[1], full[1, 9:14], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(cache.entries[:, 1], before, atol=0, rtol=0)


@torch.no_grad()
def test_sequences_that_share_a_block_read_the_same_tokens_and_write_their_own(small: Callable, random_model: Callable):
    model, tokens = random_model(small()), texts(2, 2 * BLOCK)
    tokens[1, :BLOCK] = tokens[0, :BLOCK]
    full = model(tokens).logits_BTW
    cache = LatentCache(model.config, 3, torch.float32)
    read(model, cache, tokens[:1, :BLOCK], [[1]], [0])
    got = read(model, cache, tokens[:, BLOCK:], [[1, 0], [1, 2]], [BLOCK, BLOCK])
    torch.testing.assert_close(got, full[:, BLOCK:], atol=1e-4, rtol=1e-4)


def test_more_tokens_than_the_tables_hold_are_noticed(small: Callable):
    cache = LatentCache(small(), 2, torch.float32)
    with pytest.raises(AssertionError, match="too short"):
        cache.window(torch.tensor([[1]]), torch.tensor([BLOCK - 4]), 5)


def test_cache_holds_what_the_paper_counts_and_nothing_per_head(small: Callable):
    """(d_c + d_h^R) elements per token and layer (DeepSeek-V2 Table 1)."""
    config = small()
    assert block_bytes(config, torch.bfloat16) == BLOCK * (20 + 8) * 3 * 2
    assert LatentCache(config, 4, torch.bfloat16).bytes == 5 * block_bytes(config, torch.bfloat16)
