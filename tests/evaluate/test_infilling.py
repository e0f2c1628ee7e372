"""Holes and prompts: the nearest text on both sides, never too long; judged by the first line alone."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from codeweft.base.errors import InputError
from codeweft.engine.request import Completion, Request
from codeweft.evaluate.infilling import Hole, draw_holes, facts, fill, generated_line, held_out_code, prompt
from codeweft.tokenizer.load import Tokenizer, load_tokenizer

LINES = tuple(f"    self.value_{number} = compute({number}, 'größe')" for number in range(80))


@pytest.fixture(scope="module")
def tokenizer(measured_run: Path) -> Tokenizer:
    return load_tokenizer(measured_run / "tokenizer")


def hole(line: int) -> Hole:
    return Hole("document", "python", "repository", "file.py", LINES, line)


def sides(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, str]:
    """Prefix and suffix of a prompt, found by its sentinels."""
    first, second, third = (ids.index(each) for each in (tokenizer.fim_begin, tokenizer.fim_hole, tokenizer.fim_end))
    assert (ids[0], first, third) == (tokenizer.begin, 1, len(ids) - 1)
    return tokenizer.decode(ids[2:second]), tokenizer.decode(ids[second + 1 : third])


def test_hole_and_surroundings_make_up_the_file():
    for line in (0, 5, 79):
        each = hole(line)
        assert each.before + each.truth + each.after == "\n".join(LINES)


@pytest.mark.parametrize("line", [0, 1, 40, 78, 79])
@pytest.mark.parametrize("window", [20, 128, 900, 100_000])
def test_the_prompt_holds_text_from_beside_the_hole_and_leaves_room(tokenizer: Tokenizer, line: int, window: int):
    ids = prompt(hole(line), tokenizer, window, 16)
    assert len(ids) + 16 <= window
    before, after = sides(tokenizer, ids)
    assert hole(line).before.endswith(before)
    assert hole(line).after.startswith(after)
    assert ((before, after) == (hole(line).before, hole(line).after)) == (window == 100_000)


class Oracle:
    """An engine that answers with given texts and keeps what it was asked."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.asked = texts, []

    def generate(self, requests: Sequence[Request], progress: object = None) -> list[Completion]:
        self.asked = list(requests)
        return [Completion(text, (5, 6), -1.5, "stop") for text in self.texts]


def test_only_the_first_line_counts_and_white_space_around_it_does_not(tokenizer: Tokenizer):
    holes = [hole(3)] * 4
    truth = LINES[3].strip()
    engine = Oracle([truth, f"\t{truth}  \nand more", f"x{truth}", ""])
    prompts = [prompt(each, tokenizer, 200, 16) for each in holes]
    answers = list(fill(holes, prompts, engine, 16))
    assert [answer["exact_match"] for answer in answers] == [True, True, False, False]
    assert all(request.temperature == 0 and request.stop_line and request.max_tokens == 16 for request in engine.asked)
    assert len({answer["prompt_digest"] for answer in answers}) == 1


def test_the_prompt_never_holds_the_missing_line(measured_run: Path, tokenizer: Tokenizer):
    holes = draw_holes(held_out_code(measured_run / "corpus"), 30, 2, seed=3)
    for each in holes:
        before, after = sides(tokenizer, prompt(each, tokenizer, 2000, 16))
        assert before + each.truth + after == "\n".join(each.lines)


def test_the_context_before_is_the_text_before_alone_and_its_end_where_room_is_short(tokenizer: Tokenizer):
    whole = prompt(hole(3), tokenizer, 2000, 16, "before")
    assert whole[0] == tokenizer.begin
    assert tokenizer.decode(whole[1:]) == hole(3).before
    for window in (18, 21, 30):
        short = prompt(hole(3), tokenizer, window, 16, "before")
        assert len(short) <= window - 16
        assert hole(3).before.endswith(tokenizer.decode(short[1:]))


def test_other_files_among_the_documents_are_not_read(own_run: Path):
    before = held_out_code(own_run / "corpus")
    folder = own_run / "corpus" / "documents"
    for name in (".part-00001.parquet.partial-7", ".part-00001.parquet", "part-00000.parquet.old", "notes.txt"):
        (folder / name).write_bytes(b"half a file")
    shutil.copy(folder / "part-00000.parquet", folder / "copy.parquet")
    assert held_out_code(own_run / "corpus").equals(before)
    (folder / "part-00000.parquet").rename(folder / "part-00001.parquet")
    assert held_out_code(own_run / "corpus").equals(before)
    (folder / "part-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"holds no part-\*.parquet"):
        held_out_code(own_run / "corpus")


def test_holes_do_not_depend_on_the_order_of_the_files(measured_run: Path):
    table = held_out_code(measured_run / "corpus")
    names = [each.name for each in draw_holes(table, 15, 2, seed=3)]
    assert [each.name for each in draw_holes(table, 10, 2, seed=3)] == names[:10]
    assert set(table["language"].to_pylist()) == {"python", "c"}


def test_blank_lines_before_the_generated_line_are_skipped():
    assert generated_line("\n  \n\tx = 1\ny") == "\tx = 1"
    assert generated_line(" \n") == ""


def test_copying_is_judged_like_the_model():
    lines = ("def a():", "    return compute(1)", "", "def b():", "    return compute(1)", "")
    known = facts(Hole("d", "python", "r", "p", lines, 4), seed=1)
    assert known["copied"] == "return compute(1)"
    assert known["copied_match"]
    assert known["occurs_elsewhere"]
