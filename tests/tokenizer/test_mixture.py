"""Shares come out exact with whole documents, passes are used up in turn, and kinds stay mixed everywhere."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from codeweft.tokenizer.mixture import affordable_total, choose, interleave, shard_starts, targets

SHARES = {"code": 0.6, "math": 0.1, "text": 0.3}


@st.composite
def offers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Lengths pass after pass, pass numbers, and a target within what is offered."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    documents, passes = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    lengths = random.lognormal(4, draw(st.floats(0, 2)), documents).astype(np.int64) + 3
    length_N = np.concatenate([random.permutation(lengths) for _ in range(passes)])
    return length_N, np.repeat(np.arange(passes), documents), draw(st.integers(1, int(length_N.sum())))


@given(offers())
@settings(deadline=None)
def test_no_document_that_was_left_out_would_bring_the_sum_closer(
    offer: tuple[np.ndarray, np.ndarray, int],
):
    length_N, pass_N, target = offer
    places = choose(length_N, pass_N, target, 0)
    assert (np.diff(places) > 0).all()
    gap = target - int(length_N[places].sum())
    outside = np.delete(length_N, places)
    assert not len(outside) or abs(gap) <= min(abs(gap - int(length)) for length in outside)


def test_shares_are_exact_to_half_a_percent_when_documents_are_many():
    """The figures of a real mix: long-tailed documents, code read three times, prose once."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        got = {}
        for kind, documents in (("code", 60), ("math", 40), ("text", 300)):
            lengths = np.minimum(random.lognormal(6, 1.2, documents).astype(np.int64), 8000) + 3
            length_N = np.concatenate([random.permutation(lengths) for _ in range(8)])
            places = choose(length_N, np.repeat(np.arange(8), documents), targets(SHARES, 250_000)[kind], 250)
            got[kind] = int(length_N[places].sum())
        total = sum(got.values())
        assert abs(total - 250_000) < 750
        assert all(abs(got[kind] / total - SHARES[kind]) < 0.005 for kind in SHARES), got


@given(st.integers(1, 5), st.integers(5, 40), st.integers(0, 1000))
def test_earlier_passes_are_complete(passes: int, documents: int, seed: int):
    random = np.random.default_rng(seed)
    lengths = random.integers(10, 60, documents)
    length_N = np.concatenate([random.permutation(lengths) for _ in range(passes + 1)])
    pass_N = np.repeat(np.arange(passes + 1), documents)
    target = int(lengths.sum() * (passes - 0.5))
    places = choose(length_N, pass_N, target, 20)
    counts = np.bincount(pass_N[places], minlength=passes + 1)
    assert (counts[: passes - 1] == documents).all()
    assert 0 < counts[passes - 1] < documents or documents < 8
    assert counts[passes] == 0


def test_documents_longer_than_the_target_are_passed_over():
    length_N, pass_N = np.array([500, 10, 10, 500, 10, 10]), np.array([0, 0, 0, 1, 1, 1])
    assert choose(length_N, pass_N, 40, 0).tolist() == [1, 2, 4, 5]
    assert choose(np.array([90]), np.array([0]), 100, 0).tolist() == [0]
    assert choose(np.array([110]), np.array([0]), 100, 0).tolist() == [0]
    assert choose(np.array([250]), np.array([0]), 100, 0).tolist() == []
    assert choose(np.zeros(0, np.int64), np.zeros(0, np.int64), 100, 0).tolist() == []


@given(st.integers(1, 10**9), st.tuples(*[st.integers(0, 10**9)] * 3))
def test_a_lowered_total_can_be_filled_and_no_larger_one_could(total: int, counts: tuple[int, int, int]):
    available = dict(zip(SHARES, counts, strict=True))
    lowered = affordable_total(available, SHARES, total)
    assert lowered <= total
    assert all(wanted <= available[kind] + 1 for kind, wanted in targets(SHARES, lowered).items())
    if lowered < total:
        assert any(share * (lowered + 1) > available[kind] - 1 for kind, share in SHARES.items())


@given(st.lists(st.lists(st.integers(1, 50), max_size=60), min_size=1, max_size=3))
def test_every_stretch_of_the_stream_has_the_shares_of_the_whole(lists: list[list[int]]):
    lengths = [np.array(each, dtype=np.int64) for each in lists]
    number_N, place_N = interleave(lengths)
    assert sorted(zip(number_N.tolist(), place_N.tolist(), strict=True)) == [
        (number, place) for number, each in enumerate(lists) for place in range(len(each))
    ]
    progress = np.zeros(len(lists))
    for number, place in zip(number_N.tolist(), place_N.tolist(), strict=True):
        progress[number] += lengths[number][place] / lengths[number].sum()
        reached = [progress[other] for other in range(len(lists)) if len(lists[other])]
        largest = max(max(each) / sum(each) for each in lists if each)
        assert max(reached) - min(reached) <= largest + 1e-9


@given(st.lists(st.integers(1, 30), min_size=1), st.integers(5, 60))
def test_shards_hold_whole_documents_one_after_the_other(lengths: list[int], limit: int):
    shard_N, start_N = shard_starts(np.array(lengths), limit)
    for shard in range(int(shard_N[-1]) + 1):
        inside = [place for place in range(len(lengths)) if shard_N[place] == shard]
        assert [start_N[place] for place in inside] == [sum(lengths[inside[0] : place]) for place in inside]
        assert len(inside) == 1 or sum(lengths[place] for place in inside) <= limit
