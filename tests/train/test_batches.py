"""Sequences follow the stream, wrap at its end, and know where documents begin."""

from typing import Any

import numpy as np
import pytest
import torch

from codeweft.base.errors import InputError
from codeweft.train.batches import Order, StreamBatches

CPU = torch.device("cpu")


class Stream:
    """Counting tokens in memory, with the two methods that batches ask of shards."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens = tokens

    def total(self, split: str) -> int:
        return len(self.tokens)

    def window(self, split: str, start: int, length: int) -> np.ndarray:
        return self.tokens[start : start + length]


def batches(tokens: np.ndarray, sequence: int, isolated: bool = False, order: Order | None = None) -> StreamBatches:
    stream: Any = Stream(tokens)
    return StreamBatches(stream, "train", sequence, begin=0, isolated=isolated, order=order or Order(10**9))


def test_targets_are_the_next_tokens_and_sequences_follow_each_other():
    stream = batches(np.arange(100), 10)
    assert stream.sequences == 9
    batch = stream.read(2, 3, CPU)
    assert batch.tokens_BT.tolist() == [list(range(start, start + 10)) for start in (20, 30, 40)]
    assert torch.equal(batch.targets_BT, batch.tokens_BT + 1)
    assert stream.read(9, 1, CPU).tokens_BT.tolist() == stream.read(0, 1, CPU).tokens_BT.tolist()


def test_micro_batches_join_to_the_whole():
    stream = batches(np.arange(100), 10)
    parts = list(stream.micro_batches(1, 7, 3, CPU))
    assert [len(part.tokens_BT) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part.tokens_BT for part in parts]), stream.read(1, 7, CPU).tokens_BT)


def test_isolated_sequences_number_their_documents():
    tokens = np.array([5, 6, 0, 7, 8, 0, 0, 9, 1, 1, 1])
    numbers = batches(tokens, 10, isolated=True).read(0, 1, CPU).documents_BT
    assert numbers is not None
    assert numbers.tolist() == [[0, 0, 1, 1, 1, 2, 3, 3, 3, 3]]


def test_a_stream_shorter_than_a_sequence_is_refused():
    with pytest.raises(InputError, match="fewer than one sequence"):
        batches(np.arange(10), 10)


def test_a_sequence_longer_than_every_document_holds_several_of_them():
    tokens = np.array([0, 5, 6] * 40)
    batch = batches(tokens, 50, isolated=True).read(0, 2, CPU)
    assert batch.tokens_BT.flatten().tolist() == tokens[:100].tolist()
    assert batch.documents_BT is not None
    assert batch.documents_BT.max(1).values.tolist() == [17, 17]


def test_a_plan_reads_exactly_the_first_sequences_of_the_stream_in_another_order():
    stream = batches(np.arange(1001), 10, order=Order(planned=40, seed=3))
    first = [int(stream.read(position, 1, CPU).tokens_BT[0, 0]) // 10 for position in range(40)]
    assert sorted(first) == list(range(40))
    assert first != sorted(first)


def test_every_pass_has_an_order_of_its_own_and_the_last_reads_a_prefix():
    order = Order(planned=250, seed=3)
    passes = [[order.sequence(position, 100) for position in range(start, start + 100)] for start in (0, 100)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(100))
    assert passes[0] != passes[1]
    assert sorted(order.sequence(position, 100) for position in range(200, 250)) == list(range(50))


def test_blocks_bound_the_memory_of_an_order_and_lose_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("codeweft.train.batches.BLOCK", 16)
    order = Order(planned=90, seed=3)
    assert sorted(order.sequence(position, 1000) for position in range(90)) == list(range(90))
