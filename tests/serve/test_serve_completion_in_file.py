"""Places in files: what stands before and after them, what fits the window, and what comes out."""

import random
from pathlib import Path
from typing import Any

import pytest

from codeweft.base.errors import InputError, ModelError, UserError
from codeweft.engine.engine import Engine
from codeweft.engine.request import Request
from codeweft.serve.completion import complete_file, complete_place, fitting_prompt, parse_place, split_at
from codeweft.serve.config import CompleteConfig
from codeweft.tokenizer.fim import infill_prompt


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.load(folder)


@pytest.mark.parametrize(
    ("text", "line", "column", "prefix"),
    [
        ("one\ntwo\nthree", 2, None, "one\ntwo"),
        ("one\ntwo\nthree", 2, 1, "one\n"),
        ("one\ntwo\nthree", 2, 3, "one\ntw"),
        ("one\ntwo\nthree", 2, 4, "one\ntwo"),
        ("one\ntwo\nthree", 3, None, "one\ntwo\nthree"),
        ("one\n    \nx", 2, None, "one\n    "),
        ("one\r\ntwo\r\n", 1, None, "one"),
        ("one\r\ntwo\r\n", 2, None, "one\r\ntwo"),
        ("one\n", 2, None, "one\n"),
        ("", 1, None, ""),
        ("\f one\x0b\u2028two\nx", 1, None, "\f one\x0b\u2028two"),
    ],
)
def test_a_place_divides_the_file(tmp_path: Path, text: str, line: int, column: int | None, prefix: str):
    path = tmp_path / "a.py"
    path.write_bytes(text.encode())
    assert split_at(path, line, column) == (prefix, text[len(prefix) :])


@pytest.mark.parametrize(
    ("text", "line", "column", "told"),
    [
        ("a\nb", 3, None, r"no line 3\. Its lines go from 1 to 2"),
        ("a\nb", 0, None, "no line 0"),
        ("", 2, None, "from 1 to 1"),
        ("a\n", 3, None, "from 1 to 2"),
        ("ab\n", 1, 4, r"no column 4\. Its columns go from 1 to 3"),
        ("ab\n", 1, 0, "no column 0"),
    ],
)
def test_a_place_outside_the_file_is_told_with_its_bounds(
    tmp_path: Path, text: str, line: int, column: int | None, told: str
):
    path = tmp_path / "a.py"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        split_at(path, line, column)


def test_what_is_no_readable_text_file_is_told(tmp_path: Path):
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'")
    for name, told in (("none.py", "There is no file"), ("latin.py", "not UTF-8 text .byte 5."), (".", "cannot be")):
        with pytest.raises(InputError, match=told):
            split_at(tmp_path / name, 1, None)
    for place in ("a.py", "a.py:x", ":3", "a.py:1:2:y"):
        with pytest.raises(UserError, match="FILE:LINE"):
            parse_place(place)
    assert parse_place("C:/a b.py:3") == (Path("C:/a b.py"), 3, None)


def test_a_file_that_fits_is_asked_whole_and_the_first_line_comes_back(engine: Engine, tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("def f(x):\n    return \n\nprint(f(1))\n")
    prompt = infill_prompt(engine.tokenizer, "def f(x):\n    return ", "\n\nprint(f(1))\n")
    expected = engine.generate([Request(tuple(prompt), max_tokens=64, stop_line=True)])[0].text
    assert complete_file(engine, path, 2) == expected
    assert complete_file(engine, path, 2, 12) == expected


def test_several_lines_are_given_when_asked_for(engine: Engine, tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("x\n")
    settings: dict[str, Any] = {"temperature": 1.0, "seed": 4, "max_tokens": 150}
    whole = complete_file(engine, path, 1, None, CompleteConfig(lines=0, **settings))
    two = complete_file(engine, path, 1, None, CompleteConfig(lines=2, **settings))
    assert len(whole.splitlines()) > 2
    assert whole.startswith(two)
    assert len(two.splitlines()) == 2


def test_the_nearest_text_of_both_sides_is_kept_within_the_window(engine: Engine):
    tokenizer = engine.tokenizer
    chance = random.Random(1)
    words = ["def", "engine", "größe", "    ", "(self)", "return", "日本"]

    def text(lines: int) -> str:
        return "".join(" ".join(chance.choices(words, k=chance.randint(0, 9))) + "\n" for _ in range(lines))

    for lines_before, lines_after, length in [(200, 200, 150), (200, 1, 100), (0, 200, 100), (3, 3, 180), (9, 200, 90)]:
        prefix, suffix = text(lines_before), text(lines_after)
        prompt = list(fitting_prompt(tokenizer, prefix, suffix, length))
        hole = prompt.index(tokenizer.fim_hole)
        before, after = tokenizer.decode(prompt[:hole]), tokenizer.decode(prompt[hole:])
        assert len(prompt) <= length
        assert prefix.endswith(before)
        assert suffix.startswith(after)
        cut = len(before) < len(prefix) or len(after) < len(suffix)
        longest_line = 60  # tokens of the longest line above in the small vocabulary
        assert not cut or len(prompt) > length - longest_line
        if cut and lines_before == lines_after:
            assert hole > length / 2


def test_a_single_line_longer_than_the_window_keeps_what_is_next_to_the_place(engine: Engine):
    prefix, suffix = "ab" * 5000 + "LEFT", "RIGHT" + "cd" * 5000
    prompt = list(fitting_prompt(engine.tokenizer, prefix, suffix, 60))
    hole = prompt.index(engine.tokenizer.fim_hole)
    assert 30 < len(prompt) <= 60
    assert engine.tokenizer.decode(prompt[:hole]).endswith("abLEFT")
    assert engine.tokenizer.decode(prompt[hole:]).startswith("RIGHTc")


def test_a_window_without_room_is_told(engine: Engine, tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("x\n")
    with pytest.raises(UserError, match="Ask for fewer tokens"):
        complete_file(engine, path, 1, None, CompleteConfig(max_tokens=190))


def test_a_model_that_cannot_infill_says_so_unless_assumed(without_fim: Engine, tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("x\n")
    with pytest.raises(ModelError, match=r"fim_rate 0 in config.json.*or --assume-fim"):
        complete_file(without_fim, path, 1)
    assert isinstance(complete_file(without_fim, path, 1, None, CompleteConfig(assume_fim=True)), str)


def test_the_command_gives_the_text_with_its_facts(folder: Path, tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("def f():\n    return\n")
    facts = complete_place(f"{path}:2:11", folder, max_tokens=9, temperature=0.0)
    assert (facts["file"], facts["line"], facts["column"]) == (str(path), 2, 11)
    assert 0 < facts["tokens"] <= 9
    assert "\n" not in facts["text"].strip()
