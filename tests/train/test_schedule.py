"""Rates, batches and data positions follow from the step alone."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeweft.train.config import ScheduleConfig
from codeweft.train.schedule import batch_size, learning_rate, sequences_before

PAPER = ScheduleConfig(steps=20_000, learning_rate=4.2e-4, warmup=2000, floor=0.1)


def test_the_rate_peaks_after_warm_up_and_ends_at_a_tenth():
    rates = [learning_rate(step, PAPER) for step in range(PAPER.steps)]
    assert max(rates) == rates[1999] == pytest.approx(4.2e-4)
    assert rates[-1] == pytest.approx(4.2e-5)
    assert all(b > a for a, b in itertools.pairwise(rates[:2000]))
    assert all(b <= a for a, b in itertools.pairwise(rates[2000:]))


def test_the_middle_of_the_cosine_is_the_mean_of_both_ends():
    middle = 2000 + (PAPER.steps - 1 - 2000) / 2
    low, high = learning_rate(math.floor(middle), PAPER), learning_rate(math.ceil(middle), PAPER)
    assert (low + high) / 2 == pytest.approx((4.2e-4 + 4.2e-5) / 2, rel=1e-3)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.integers(0, 30), st.integers(0, 60))
def test_the_data_position_is_the_sum_of_all_earlier_batches(start: int, more: int, micro: int, ramp: int, step: int):
    config = ScheduleConfig(
        steps=60, batch_start=start * micro, batch=(start + more) * micro, micro_batch=micro, ramp=ramp
    )
    sizes = [batch_size(each, config) for each in range(61)]
    assert sequences_before(step, config) == sum(sizes[:step])
    assert all(size % micro == 0 and size >= micro for size in sizes)
    assert sizes == sorted(sizes)


def test_portions_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="batch = 10 is not a multiple of micro_batch 8"):
        ScheduleConfig(batch=10, micro_batch=8)
