"""Places in files: what stands before and after them, what fits the window, and what comes out."""

from pathlib import Path
from typing import Any

import pytest

from codeweft.base.errors import InputError, ModelError, UserError
from codeweft.engine.engine import Engine
from codeweft.engine.request import Request
from codeweft.serve.completion import complete_place, infill, parse_place, split_at
from codeweft.serve.config import CompleteConfig
from codeweft.tokenizer.fim import SENTINELS, fitting_prompt, infill_prompt


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


def test_texts_that_fit_are_asked_whole_and_the_first_line_comes_back(engine: Engine):
    prefix, suffix = "def f(x):\n    return ", "\n\nprint(f(1))\n"
    prompt = tuple(infill_prompt(engine.tokenizer, prefix, suffix))
    [expected] = engine.generate([Request(prompt, max_tokens=64, stop_line=True)])
    got = infill(engine, prefix, suffix, CompleteConfig())
    assert (got.text, got.tokens, got.finish) == (expected.text, expected.tokens, expected.finish)


def test_texts_longer_than_the_window_are_asked_by_their_nearest_part(engine: Engine):
    prefix, suffix = "".join(f"a{number}\n" for number in range(999)), "\nb" * 999
    settings = CompleteConfig(max_tokens=20)
    prompt = fitting_prompt(engine.tokenizer, prefix, suffix, engine.max_length - 20)
    [expected] = engine.generate([Request(prompt, max_tokens=20, stop_line=True)])
    got = infill(engine, prefix, suffix, settings)
    assert (got.text, got.tokens, got.finish) == (expected.text, expected.tokens, expected.finish)


def test_several_lines_are_given_when_asked_for(engine: Engine):
    settings: dict[str, Any] = {"temperature": 1.0, "seed": 4, "max_tokens": 150}
    whole = infill(engine, "x", "\n", CompleteConfig(lines=0, **settings)).text
    two = infill(engine, "x", "\n", CompleteConfig(lines=2, **settings)).text
    assert len(whole.splitlines()) > 2
    assert whole.startswith(two)
    assert len(two.splitlines()) == 2


def test_a_window_without_room_is_told(engine: Engine):
    with pytest.raises(UserError, match=r"leaves 7 tokens .* Ask for fewer tokens"):
        infill(engine, "x", "", CompleteConfig(max_tokens=engine.max_length - SENTINELS - 7))
    assert infill(engine, "x", "", CompleteConfig(max_tokens=engine.max_length - SENTINELS - 8)).tokens


def test_a_model_that_cannot_infill_says_so_unless_assumed(without_fim: Engine):
    with pytest.raises(ModelError, match=r"fim_rate 0 in config.json.*or --assume-fim"):
        infill(without_fim, "x", "\n", CompleteConfig())
    assert infill(without_fim, "x", "\n", CompleteConfig(assume_fim=True)).tokens


def test_the_command_gives_the_text_with_its_facts(folder: Path, tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("def f():\n    return\n")
    facts = complete_place(f"{path}:2:11", folder, max_tokens=9, temperature=0.0)
    assert (facts["file"], facts["line"], facts["column"]) == (str(path), 2, 11)
    assert 0 < facts["tokens"] <= 9
    assert "\n" not in facts["text"].strip()
