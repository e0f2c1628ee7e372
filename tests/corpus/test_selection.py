"""Limits and the held-out split, as properties over drawn repositories."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from codeweft.corpus.entries import Entry
from codeweft.corpus.selection import hold_out, under_limit

sizes = st.lists(st.integers(1, 1000), min_size=1, max_size=30)


def entries(repositories: list[int], files: int = 4) -> list[Entry]:
    return [
        Entry("code", "s", f"r{number}", f"f{at}", size, "file", "")
        for number, size in enumerate(repositories)
        for at in range(files)
    ]


def read(offered: list[Entry], limit: int, seed: int) -> list[Entry]:
    choice = under_limit(offered, limit, seed)
    return offered if choice is None else list(choice.select(offered))


@given(sizes, st.integers(1, 5000), st.integers(0, 5))
def test_a_limit_is_kept_by_whole_repositories_whatever_their_order(drawn: list[int], limit: int, seed: int):
    offered = entries(drawn)
    taken = read(offered, limit, seed)
    assert sum(entry.size for entry in taken) <= limit
    assert {e.full_path for e in read(offered[::-1], limit, seed)} == {e.full_path for e in taken}
    counts: dict[str, int] = defaultdict(int)
    for entry in taken:
        counts[entry.repository] += 1
    assert sum(count != 4 for count in counts.values()) <= 1  # at most one is read in part
    if sum(drawn) * 4 <= limit:
        assert taken == offered


def test_one_repository_larger_than_the_limit_is_read_in_part():
    taken = read(entries([100], files=50), 1000, 1)
    assert len(taken) == 10


def by_id(kinds: dict[str, list[int]]) -> dict[tuple[str, str], dict[str, int]]:
    return {
        (k, f"r{n}"): {f"{k}{n}.{at}": size for at in range(3)} for k, r in kinds.items() for n, size in enumerate(r)
    }


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["code", "math", "text"]), sizes, min_size=1), st.integers(0, 5))
def test_every_kind_has_held_out_and_training_text_and_no_repository_has_both(kinds: dict[str, list[int]], seed: int):
    drawn = by_id(kinds)
    held = hold_out(drawn, 0.05, seed)
    for kind in kinds:
        documents = {
            name: repository in held.repositories or name in held.documents
            for (of, repository), inner in drawn.items()
            if of == kind
            for name in inner
        }
        assert any(documents.values())
        assert not all(documents.values())
        alone = len([1 for of, _ in drawn if of == kind]) == 1
        assert alone or held.repositories & {repository for of, repository in drawn if of == kind}
        if kind not in held.by_document:
            assert not held.documents & set(documents)


def test_with_many_small_repositories_the_share_is_close_to_the_fraction():
    drawn = by_id({"code": [10] * 400})
    held = hold_out(drawn, 0.05, 1)
    assert 20 <= len(held.repositories) <= 21


def test_a_fraction_of_zero_holds_nothing_out():
    held = hold_out(by_id({"code": [5, 6]}), 0.0, 1)
    assert not held.repositories | held.documents


def test_adding_a_repository_changes_little_of_what_was_held_out():
    before = hold_out(by_id({"code": [10] * 400}), 0.05, 1).repositories
    after = hold_out(by_id({"code": [10] * 401}), 0.05, 1).repositories
    assert len(before - after) <= 1
