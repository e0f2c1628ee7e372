"""Sampling against the distribution it claims, and its noise against what noise must be."""

from typing import Any

import torch

from codeweft.engine.request import Request
from codeweft.engine.sampling import choose, gumbel_noise, nucleus

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def frequencies(draws: int, **settings: Any) -> torch.Tensor:
    requests = [Request((1,), seed=11, **settings)] * draws
    drawn = choose(LOGITS.expand(draws, -1), requests, range(draws), len(LOGITS))
    return torch.bincount(torch.tensor([token for token, _ in drawn]), minlength=len(LOGITS)) / draws


def test_frequencies_are_the_softmax_at_that_temperature():
    for temperature in (1.0, 0.5, 2.0):
        expected = (LOGITS / temperature).softmax(-1)
        # 20,000 draws: five standard deviations of the likeliest share are below 0.018
        assert (frequencies(20_000, temperature=temperature) - expected).abs().max() < 0.018


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    probability = LOGITS.softmax(-1)  # 0.56 0.21 0.13 0.08 ...
    found = frequencies(5_000, temperature=1.0, top_p=0.75)
    assert found[:2].sum() == 1
    assert abs(found[0] - probability[0] / probability[:2].sum()) < 0.03
    assert frequencies(100, temperature=1.0, top_p=0.0)[0] == 1


def test_the_nucleus_equals_a_slow_search_also_where_the_likeliest_do_not_suffice():
    scores = torch.randn(6, 3000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores[3:] *= 6  # peaked: a few tokens hold the mass
    top_p = [0.2, 0.9, 0.999, 0.2, 0.9, 0.999]
    kept, token = nucleus(scores, top_p)
    for row in range(6):
        probability = scores[row].softmax(-1)
        expected, mass = set(), 0.0
        for index in probability.argsort(descending=True).tolist():
            if mass >= top_p[row]:
                break
            expected.add(index)
            mass += float(probability[index])
        assert set(token[row][kept[row].isfinite()].tolist()) == expected
    few, _ = nucleus(scores[3:4], [0.2])
    assert few.shape[1] == 1024


def test_a_nucleus_of_almost_everything_draws_as_without_one():
    wide = choose(LOGITS.expand(500, -1), [Request((1,), temperature=1.0)] * 500, range(500), len(LOGITS))
    almost = [Request((1,), temperature=1.0, top_p=1 - 1e-9)] * 500
    assert choose(LOGITS.expand(500, -1), almost, range(500), len(LOGITS)) == wide


def test_the_logprob_is_that_of_temperature_one_over_everything():
    requests = [Request((1,), temperature=0.3, top_p=0.5), Request((1,))]
    for token, logprob in choose(LOGITS.expand(2, -1), requests, [0, 0], len(LOGITS)):
        assert abs(logprob - float(LOGITS.log_softmax(-1)[token])) < 1e-6


def test_greedy_takes_the_first_of_equals():
    [(token, _)] = choose(torch.tensor([[0.0, 5.0, 5.0]]), [Request((1,))], [0], 3)
    assert token == 1


def test_noise_is_gumbel_and_independent_across_keys_and_columns():
    noise = gumbel_noise(range(200), torch.arange(2_000))
    assert abs(float(noise.mean()) - 0.5772) < 0.01  # Euler's constant
    assert abs(float(noise.var()) - 1.6449) < 0.03  # pi squared over six
    correlation = torch.corrcoef(noise).fill_diagonal_(0)
    assert correlation.abs().max() < 0.12  # 20,000 pairs of 2,000 columns: chance reaches 0.10
    neighbours = torch.corrcoef(torch.stack([noise[:, :-1].flatten(), noise[:, 1:].flatten()]))[0, 1]
    assert abs(float(neighbours)) < 0.01


def test_noise_depends_on_every_bit_of_the_key_and_on_nothing_else():
    one = gumbel_noise([2**62 + 5], torch.arange(50))
    assert torch.equal(one[0], gumbel_noise([1, 2**62 + 5, 3], torch.arange(80))[1, :50])
    assert torch.equal(one[0, [7, 3]], gumbel_noise([2**62 + 5], torch.tensor([[7, 3]]))[0])
    for bit in range(63):
        assert not torch.equal(one, gumbel_noise([(2**62 + 5) ^ (1 << bit)], torch.arange(50)))


def test_the_smallest_temperature_draws_what_greedy_takes():
    """Divided by it, logits are infinite: the first of several infinities was drawn."""
    logits = torch.tensor([1.0, 4.0, 5.0, 3.0])
    for top_p in (1.0, 0.5, 0.0):
        requests = [Request((1,), temperature=temperature, top_p=top_p) for temperature in (5e-324, 1e-310, 1e-200)]
        drawn = choose(logits.expand(3, -1), requests, [0, 1, 2], 4)
        assert [token for token, _ in drawn] == [2] * 3
