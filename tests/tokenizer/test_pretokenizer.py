"""The pre-tokenizer cuts text as the published one does."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from codeweft.tokenizer.pretokenizer import ABSENT_BYTES, PATTERNS, alphabet, byte_symbols, pre_tokenizer


def pieces(text: str) -> list[str]:
    return [piece for piece, _ in pre_tokenizer().pre_tokenize_str(text)]


def shown(text: str) -> str:
    """Text as the pieces spell it, one character a byte."""
    return "".join(byte_symbols()[byte] for byte in text.encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n\n\r\nb", ["a", "\n", "\n", "\r", "\n", "b"]),
        ("    word", ["   ", " word"]),
        ("\t\tif x", ["\t", "\tif", " x"]),
        ("1234", ["1", "2", "3", "4"]),
        ("x12y", ["x", "1", "2", "y"]),
        ("٣٤", ["٣", "٤"]),
        ("f(a, b)", ["f", "(", "a", ",", " b", ")"]),
        ("  ==  !=", [" ", " ==", " ", " !="]),
        ("end  \n  x", ["end", "  ", "\n", " ", " x"]),
        ("ab中文字def", ["ab", "中文字", "def"]),
        ("naïve Ångström", ["na", "ï", "ve", " Å", "ngstr", "ö", "m"]),
        ("привет мир", ["привет", " мир"]),
        ("__init__", ["__", "init", "__"]),
        ("<｜fim▁begin｜>", ["<｜", "fim", "▁", "begin", "｜>"]),
    ],
)
def test_pieces_are_those_of_the_published_rules(text: str, expected: list[str]):
    assert pieces(text) == [shown(piece) for piece in expected]


def test_patterns_equal_the_published_ones_letter_by_letter(shared_data: Path):
    facts = (shared_data / "facts" / "paper.md").read_text("utf-8")
    section = facts[facts.index("### 2.2") : facts.index("### 2.3")]
    published = [json.loads(found) for found in re.findall(r'^\s+\d\. `("[^`]*")`', section, re.MULTILINE)]
    assert list(PATTERNS) == published


@given(st.text())
def test_no_piece_holds_a_line_end_with_anything_else_or_two_digits(text: str):
    line_ends = {shown("\n"), shown("\r")}
    for piece in pieces(text):
        assert piece in line_ends or not line_ends & set(piece)
        assert sum(letter in "0123456789" for letter in piece) <= (len(piece) == 1)


def cut_by_hand(text: str) -> list[str]:
    """The published patterns by the standard library, each applied to what the ones before left; then single digits."""
    found = [text]
    for pattern in PATTERNS:
        split = [re.split(f"({pattern})", piece) for piece in found]
        found = [piece for pieces in split for piece in pieces if piece]
    return [part for piece in found for part in (re.split(r"(\d)", piece)) if part]


# The two regular expression engines disagree on which control characters are white space.
SOURCE = st.text(
    st.one_of(st.sampled_from("aZ_ 09\t\n\r(.:~é中，　Ж"), st.characters(exclude_categories=["C", "N", "Z"]))
)


@given(SOURCE)
def test_pieces_equal_those_of_an_independent_cutter(text: str):
    assert pieces(text) == [shown(piece) for piece in cut_by_hand(text)]


@given(st.text())
def test_pieces_join_to_the_bytes_of_the_text(text: str):
    assert "".join(pieces(text)) == shown(text)


def test_byte_symbols_are_those_of_the_tokenizers_library():
    assert set(byte_symbols().values()) == set(pre_tokenizers.ByteLevel.alphabet())
    decoder = Tokenizer(models.BPE())
    decoder.decoder = decoders.ByteLevel()
    for byte in range(128):
        assert decoder.decoder.decode([byte_symbols()[byte]]) == chr(byte)


def test_the_alphabet_has_a_symbol_for_each_of_the_243_bytes_of_utf8():
    used = {byte for code in [*range(0xD800), *range(0xE000, 0x110000, 61)] for byte in chr(code).encode()}
    assert used == set(range(256)) - ABSENT_BYTES
    assert len(alphabet()) == 243
