"""The needle is where it should be, the prompt as long as it should be, and only its number counts."""

import time
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.needle import NEEDLE, QUESTION, haystack, hidden
from codeweft.tasks.registry import find
from codeweft.tasks.task import Ask, Room

NEEDLES = find("needle")
CHARACTERS = Room(1 << 20, len)


@cache
def byte_pairs() -> Tokenizer:
    """A byte-level tokenizer learned from some of the text, as models have them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = haystack("")[:60_000]
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet))
    return tokenizer


def count(text: str) -> int:
    return len(byte_pairs().encode(text).ids)


def problems(**options: object) -> list[Problem]:
    return list(NEEDLES.load(Folder(None), TaskOptions(**options)))  # ty: ignore[invalid-argument-type]


def said(ask: Ask) -> str:
    return ask.text or "".join(message["content"] for message in ask.messages)


def test_the_default_grid_is_lengths_times_depths_up_to_128k():
    grid = problems()
    assert {(each.family, each.difficulty) for each in grid} == {
        (str(1024 << power), str(10 * step)) for power in range(8) for step in range(11)
    }
    assert len({each.id for each in grid}) == len(grid) == 88


@pytest.mark.parametrize("style", ["base", "chat"])
@pytest.mark.parametrize("length", [1024, 4096])
def test_a_prompt_has_its_length_within_one_percent(style: str, length: int):
    for problem in problems(lengths=(length,)):
        ask = NEEDLES.ask(problem, style, Room(8192, count))  # ty: ignore[invalid-argument-type]
        assert 0.99 * length <= count(said(ask)) <= length, problem.id


@pytest.mark.slow
def test_128k_tokens_are_met_too_and_each_cell_after_the_first_is_counted_once():
    counted: list[int] = []

    def counting(text: str) -> int:
        counted.append(len(text))
        return count(text)

    room, grid = Room(1 << 18, counting), problems(lengths=(131_072,))
    began = time.monotonic()
    asks = [NEEDLES.ask(problem, "base", room) for problem in grid]
    assert time.monotonic() - began < 60
    assert len(counted) <= len(grid) + 6
    for ask in asks[::5]:
        assert 0.99 * 131_072 <= count(ask.text) <= 131_072


def test_the_needle_stands_at_its_depth_once_and_nothing_else_changes():
    for problem in problems(lengths=(20_000,), depths=5, seed=7):
        text = said(NEEDLES.ask(problem, "base", CHARACTERS))
        line = f"\n{NEEDLE.format(number=problem.reference)}\n"
        assert text.count(line) == text.count(problem.reference) == 1
        before, after = text.removesuffix(QUESTION).split(line)
        before = before.partition("\n\n")[2] + "\n" if problem.difficulty != "0" else ""
        assert abs(len(before) / len(before + after) - float(problem.difficulty) / 100) < 0.01
        assert haystack("").startswith((before + after).rstrip("\n"))


def test_a_needle_never_cuts_a_line():
    text = "some words that are long enough to be cut\n" * 30
    for depth in range(101):
        assert hidden(text, "NEEDLE", depth).replace("NEEDLE\n", "", 1) == text


def test_a_length_beyond_the_models_room_is_asked_with_nothing():
    small, large = problems(lengths=(1024, 2048), depths=1)
    room = Room(1500, count)
    assert said(NEEDLES.ask(small, "base", room))
    assert not said(NEEDLES.ask(large, "base", room))
    assert not said(NEEDLES.ask(large, "chat", room))


def test_a_length_that_holds_no_question_is_asked_with_nothing():
    [problem] = problems(lengths=(64,), depths=1)
    assert not said(NEEDLES.ask(problem, "chat", CHARACTERS))


@pytest.mark.parametrize("rate", [0.3, 1, 9])
def test_the_length_is_met_by_odd_tokenizers(rate: float):
    """Token counts that jump, or that grow much faster or slower than those of the first guess."""

    def steps(text: str) -> int:
        return int(len(text) / rate) // 20 * 20

    [problem] = problems(lengths=(6000,), depths=1)
    assert 5940 <= steps(said(NEEDLES.ask(problem, "base", Room(1 << 20, steps)))) <= 6000


def test_a_short_text_is_repeated_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "own.txt").write_text("Each evening the ferry crosses the river.\n" * 20)
    [problem] = problems(lengths=(5000,), depths=1, text=tmp_path / "own.txt")
    text = said(NEEDLES.ask(problem, "base", CHARACTERS))
    assert 4950 <= len(text) <= 5000
    assert text.count("the ferry") > 100
    assert "repeated to make 5,000 tokens" in capsys.readouterr().err


def test_the_seed_decides_the_numbers_and_other_cells_do_not_change_them():
    first, again, other = problems(seed=1), problems(seed=1, lengths=(4096, 1024)), problems(seed=2)
    numbers = {each.id: each.reference for each in first}
    assert all(each.reference == numbers[each.id] for each in again)
    assert len(set(numbers.values())) == 88
    assert all(each.reference != numbers[each.id] for each in other)


def test_another_text_makes_other_problems(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one text")
    first = problems(text=tmp_path, depths=1, lengths=(1024,))
    haystack.cache_clear()
    (tmp_path / "a.txt").write_text("another text")
    assert problems(text=tmp_path, depths=1, lengths=(1024,)) != first


def test_no_text_is_told(tmp_path: Path):
    (tmp_path / "empty.txt").write_text(" \n")
    for place in (tmp_path / "empty.txt", tmp_path / "missing.txt", tmp_path):
        with pytest.raises(InputError, match=place.name):
            problems(text=place)


@pytest.mark.parametrize(
    ("style", "text", "score"),
    [
        ("base", " 1234567.\nQuestion: what else?", 1.0),
        ("base", " unknown.\n1234567", 0.0),
        ("base", "\n 1234567", 1.0),
        ("chat", "I looked.\n\nIt is **1,234,567**.", 1.0),
        ("chat", "12345678", 0.0),
        ("chat", "91234567", 0.0),
        ("chat", "123456", 0.0),
        ("chat", "", 0.0),
    ],
)
def test_the_number_counts_only_whole_and_in_its_place(style: str, text: str, score: float):
    problem = Problem("1024@0", "needle", reference="1234567")
    assert NEEDLES.grade(problem, style, text).score == score  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize("depth", [0, 30, 60, 90])
def test_a_text_of_one_line_is_hit_at_its_depth_too(depth: int):
    text = "word " * 4000
    found = hidden(text, "NEEDLE", depth)
    assert abs(found.index("NEEDLE") / len(found) - depth / 100) < 0.01
    assert found.replace("NEEDLE", "").split() == text.split()
