"""Blocks of the cache: owned, shared, found again, and never given to two who do not know of each other."""

import random

from hypothesis import given
from hypothesis import strategies as st

from codeweft.engine.blocks import ROOT, BlockPool, digests
from codeweft.model.cache import BLOCK


def filled(pool: BlockPool, tokens: list[int]) -> list[int]:
    """Blocks that hold a text whose length is a multiple of a block's."""
    chain, table, before = digests(tokens), [], ROOT
    for place, digest in enumerate(chain):
        table.append(pool.take())
        pool.publish(table[-1], digest, before, tuple(tokens[place * BLOCK : (place + 1) * BLOCK]))
        before = digest
    return table


def text(seed: int, blocks: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.randrange(1000) for _ in range(blocks * BLOCK)]


def test_a_beginning_is_found_and_nothing_behind_the_first_difference():
    pool = BlockPool(8)
    tokens = text(1, 3)
    table = filled(pool, tokens)
    assert pool.match(digests(tokens)) == table
    changed = [*tokens]
    changed[BLOCK + 3] += 1
    assert pool.match(digests(changed)) == table[:1]
    assert pool.partly(digests(tokens)[0], changed[BLOCK:]) == (table[1], 3)
    # the same tokens behind another beginning are another block
    assert pool.match(digests([*text(2, 1), *tokens[BLOCK:]])) == []


def test_what_nobody_owns_is_found_until_its_room_is_needed_and_ends_go_first():
    pool = BlockPool(4)
    tokens = text(1, 3)
    table = filled(pool, tokens)
    pool.give_back(table)
    assert pool.available == 4
    assert pool.match(digests(tokens)) == table
    taken = [pool.take(), pool.take()]
    assert taken[1] == table[-1]
    assert pool.match(digests(tokens)) == table[:2]
    pool.share(table[:2])
    assert pool.available == 0
    pool.give_back(taken)
    assert pool.available == 2


def test_forgetting_leaves_nothing_to_find_and_every_block_free():
    pool = BlockPool(5)
    table = filled(pool, text(1, 4))
    pool.give_back(table)
    pool.forget_all()
    assert pool.match(digests(text(1, 4))) == []
    assert sorted(pool.take() for _ in range(5)) == list(range(5))


@given(st.lists(st.tuples(st.sampled_from(["take", "share", "free", "publish"]), st.integers(0, 30)), max_size=120))
def test_a_block_is_free_or_idle_or_owned_by_as_many_as_hold_it(moves: list[tuple[str, int]]):
    """Against the slow truth: a list of tables, whose owners are counted anew after each move."""
    pool, tables = BlockPool(6), []
    for move, number in moves:
        if move == "take" and pool.available:
            tables.append([pool.take()])
        elif move == "share" and tables:
            tables.append(list(tables[number % len(tables)]))
            pool.share(tables[-1])
        elif move == "free" and tables:
            pool.give_back(tables.pop(number % len(tables)))
        elif move == "publish" and tables:
            [block] = tables[number % len(tables)]
            tokens = tuple([number % 3] * BLOCK)
            pool.publish(block, digests(tokens)[0], ROOT, tokens)
        owners = {block: sum(block in table for table in tables) for block in range(6)}
        assert pool.owners == {block: count for block, count in owners.items() if count}
        assert sorted([*pool.free, *pool.idle, *pool.owners]) == list(range(6))
        assert set(pool.idle) <= set(pool.held)
        assert sorted(pool.block_of.values()) == sorted(pool.held)
        assert sorted(block for blocks in pool.after.values() for block in blocks) == sorted(pool.held)
