"""Where texts end, whatever way tokens cut them."""

import random

import pytest

from codeweft.engine.engine import Engine
from codeweft.engine.request import Request
from codeweft.engine.stopping import Characters, Text
from codeweft.tokenizer.load import Tokenizer


class Bytes:
    """A tokenizer of single bytes, so that a test decides where tokens cut; 256 ends."""

    end = 256

    def decode(self, ids: list[int]) -> str:
        return bytes(each for each in ids if each < 256).decode("utf-8", errors="replace")


class Chunks:
    """A tokenizer whose token ids stand for given texts; the last one ends."""

    def __init__(self, chunks: list[str]) -> None:
        self.chunks = chunks
        self.end = len(chunks)

    def decode(self, ids: list[int]) -> str:
        return "".join(self.chunks[each] for each in ids if each < self.end)


def run(chunks: list[str], **settings: object) -> tuple[list[str], str | None]:
    """The pieces and the finish when these texts are drawn one after the other, then the end token."""
    text = Text(Chunks(chunks), Request((0,), max_tokens=1000, **settings))  # ty: ignore[invalid-argument-type]
    pieces = []
    for token in range(len(chunks) + 1):
        piece, finish = text.push(token)
        pieces.append(piece)
        if finish:
            return pieces, finish
    raise AssertionError("the end token must end")


def cut_by_characters(text: str, stops: tuple[str, ...]) -> str:
    """The slow truth: read character by character until some stop string stands at the end."""
    for end in range(len(text) + 1):
        matching = [stop for stop in stops if text[:end].endswith(stop)]
        if matching:
            return text[: end - max(map(len, matching))]
    return text


def random_chunks(text: str, chance: random.Random) -> list[str]:
    chunks = []
    while text:
        size = chance.randint(1, 4)
        chunks.append(text[:size])
        text = text[size:]
    return chunks


def test_the_cut_is_the_same_however_tokens_divide_the_text():
    chance = random.Random(5)
    stops_of_all = ["ab", "abc", "b", "ca", "aab", "bcbc", "cccc", "acab"]
    for _ in range(2000):
        text = "".join(chance.choices("abc", k=chance.randint(0, 14)))
        stops = tuple(chance.sample(stops_of_all, chance.randint(0, 3)))
        expected = cut_by_characters(text, stops)
        pieces, finish = run(random_chunks(text, chance), stop=stops)
        assert "".join(pieces) == expected, (text, stops)
        assert finish == "stop"
        assert not any(stop in expected for stop in stops)


def test_text_that_no_stop_can_begin_in_is_shown_at_once():
    pieces, _ = run(["one ", "two S", "TO", "x STOP", " three"], stop=("STOP",))
    assert pieces == ["one ", "two ", "", "STOx "]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (["return x", "\n", "more"], "return x"),
        (["\n", "  \n", "  return", " x\nmore"], "\n  \n  return x"),
        (["a\r", "\nb"], "a"),
        (["   "], "   "),
        (["a b\n"], "a b"),
    ],
)
def test_the_line_rule_ends_after_the_first_line_that_holds_text(chunks: list[str], expected: str):
    pieces, finish = run(chunks, stop_line=True)
    assert ("".join(pieces), finish) == (expected, "stop")


@pytest.mark.parametrize(
    ("text", "indent", "expected"),
    [
        ("x = 1\n    y = 2\nz = 3", 4, "x = 1\n    y = 2"),
        ("x = 1\n    y = 2\n  z = 3", 4, "x = 1\n    y = 2"),
        ("x = 1\n\n\n    y = 2\n\n\nz", 4, "x = 1\n\n\n    y = 2"),
        ("x = 1\n    y = 2\n    ", 4, "x = 1\n    y = 2\n    "),
        ("x = 1\r\n\ty = 2\r\nz", 1, "x = 1\r\n\ty = 2"),
        ("\nz", 1, ""),
        ("x", 1, "x"),
    ],
)
def test_the_indentation_rule_ends_before_a_later_line_that_stands_further_left(text: str, indent: int, expected: str):
    chance = random.Random(1)
    for _ in range(20):
        pieces, finish = run(random_chunks(text, chance), stop_indent=indent)
        assert ("".join(pieces), finish) == (expected, "stop")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a, b) + c", "a, b"),
        ("f(a, [b]), c}", "f(a, [b]), c"),
        ("')', x)", "')', x"),
        ('"\\")", x)', '"\\")", x'),
        ("don't)\n) y", "don't)\n"),
        ("(a, b", "(a, b"),
    ],
)
def test_the_bracket_rule_ends_before_a_bracket_that_the_text_did_not_open(text: str, expected: str):
    chance = random.Random(2)
    for _ in range(20):
        pieces, finish = run(random_chunks(text, chance), stop_bracket=True)
        assert ("".join(pieces), finish) == (expected, "stop")


def test_a_stop_token_ends_the_text_and_does_not_show():
    pieces, finish = run(["a", "b", "c"], stop_tokens=(1,))
    assert ("".join(pieces), finish) == ("a", "stop")


def test_a_stop_string_before_the_line_end_wins_and_the_other_way_round():
    assert run(["ab;cd\n"], stop=(";",), stop_line=True)[0] == ["ab"]
    assert run(["ab\ncd;"], stop=(";",), stop_line=True)[0] == ["ab"]


def test_characters_split_over_tokens_are_shown_whole():
    text = "aé€😀\ufffdz"
    characters = Characters(Bytes())  # ty: ignore[invalid-argument-type]
    pieces = [characters.push(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert pieces[:8] == ["a", "", "é", "", "", "€", "", ""]


def test_bytes_that_are_no_text_come_out_as_the_decoder_writes_them():
    chance = random.Random(2)
    for _ in range(300):
        data = bytes(chance.choices([0x41, 0x80, 0xBF, 0xC3, 0xE2, 0x82, 0xF0, 0x9F, 0xFF], k=12)) + b"."
        characters = Characters(Bytes())  # ty: ignore[invalid-argument-type]
        assert "".join(map(characters.push, data)) == data.decode("utf-8", errors="replace")


def test_a_text_cut_by_length_does_not_end_in_half_a_character():
    text = Text(Bytes(), Request((0,), max_tokens=4))  # ty: ignore[invalid-argument-type]
    assert [text.push(byte) for byte in "ab€".encode()[:4]] == [("a", None), ("b", None), ("", None), ("", "length")]


def test_held_back_text_is_shown_when_the_length_ends_it():
    text = Text(Bytes(), Request((0,), max_tokens=3, stop=("STOP",)))  # ty: ignore[invalid-argument-type]
    assert [text.push(byte) for byte in b"xST"] == [("x", None), ("", None), ("ST", "length")]


def test_pieces_of_a_real_tokenizer_join_to_what_it_decodes(engine: Engine):
    tokenizer: Tokenizer = engine.tokenizer
    text = "def größe(π: float) -> str:  # 日本語 😀\n    return '→'\r\n"
    tokens = [*tokenizer.encode(text), tokenizer.end]
    assert sum("\ufffd" in tokenizer.decode([token]) for token in tokens) > 10  # what is rare is spelt in bytes
    flow = Text(tokenizer, Request((0,), max_tokens=1000))
    pieces = [flow.push(token) for token in tokens]
    assert "".join(piece for piece, _ in pieces) == text
    assert not any("\ufffd" in piece for piece, _ in pieces)
    assert pieces[-1][1] == "stop"


def test_a_generated_text_is_the_decoded_tokens_up_to_its_stop(engine: Engine):
    prompt = engine.prompt("class Engine")
    requests = [Request(prompt, max_tokens=40, temperature=1.0, seed=seed, stop=("e",)) for seed in range(20)]
    finishes = set()
    for completion in engine.generate(requests):
        decoded = engine.tokenizer.decode(completion.tokens)
        assert decoded.startswith(completion.text)
        assert "e" not in completion.text
        if completion.finish == "stop" and completion.tokens[-1] != engine.tokenizer.end:
            assert decoded[len(completion.text)] == "e"
        finishes.add(completion.finish)
    assert "stop" in finishes
