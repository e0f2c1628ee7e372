"""Word n-grams against a slow reading of their definition, and the index against Python's sets."""

import io
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeweft.base.errors import InputError
from codeweft.base.records import Document, schema
from codeweft.source import ngrams

ALONE = "\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# the definition: an ideograph or kana that is a letter, or a run of other letters, digits and underscores
DEFINITION = re.compile(rf"(?=\w)[{ALONE}]|(?:(?![{ALONE}])\w)+")


def slow_words(text: str) -> list[str]:
    return DEFINITION.findall(text.lower())


def slow_ngrams(text: str, size: int) -> list[tuple[str, ...]]:
    found = slow_words(text)
    return [tuple(found[at : at + size]) for at in range(len(found) - size + 1)]


TEXTS = st.text(st.sampled_from("abAB_19 .,\n\t(é素数かナ・ー々ßİ\u0301𠀀\ud800"), max_size=60)


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_words_are_what_the_definition_says(text: str):
    assert ngrams.words(text) == slow_words(text)


@given(st.lists(TEXTS, max_size=5), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_hashes_are_equal_exactly_where_ngrams_are(texts: list[str], size: int):
    hash_G, text_G = ngrams.hashed(texts, size)
    slow = [(gram, number) for number, text in enumerate(texts) for gram in slow_ngrams(text, size)]
    assert text_G.tolist() == [number for _, number in slow]
    by_hash = dict(zip(hash_G.tolist(), [gram for gram, _ in slow], strict=True))
    assert [by_hash[value] for value in hash_G.tolist()] == [gram for gram, _ in slow]
    assert len(by_hash) == len({gram for gram, _ in slow})


def test_indentation_case_and_signs_do_not_matter_but_order_does():
    plain, _ = ngrams.hashed(["For a, b in pairs: total += a*b; return the total of it"])
    dressed, _ = ngrams.hashed(["# for A\n#    b IN pairs -- total = (a / b)\n#  RETURN the 'total', of it."])
    swapped, _ = ngrams.hashed(["for b, a in pairs: total += a*b; return the total of it"])
    assert len(plain) == 4
    assert plain.tolist() == dressed.tolist()
    assert plain[0] != swapped[0]


POINT = 0x9D1F5C3B7E24A68F


def slow_hash(gram: tuple[str, ...]) -> int:
    """The hash in whole numbers modulo 2^64, which no machine can get differently."""
    modulus = 1 << 64

    def mixed(value: int) -> int:
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % modulus
        value = (value ^ value >> 27) * 0x94D049BB133111EB % modulus
        return value ^ value >> 31

    total = 0
    for word in gram:
        polynomial = sum(ord(letter) * pow(POINT, place + 1, modulus) for place, letter in enumerate(word))
        total = (total * 0xC2B2AE3D27D4EB4F + mixed(polynomial % modulus)) % modulus
    return mixed(total)


def test_the_hash_is_that_of_whole_numbers_modulo_2_to_the_64():
    text = "def has_close_elements(numbers, threshold): 判断列表中 ß é " + "long" * 50 + " the end of it"
    hash_G, _ = ngrams.hashed([text])
    assert hash_G.tolist() == [slow_hash(gram) for gram in slow_ngrams(text, ngrams.WORDS)]


def test_different_words_have_different_hashes():
    hash_G, _ = ngrams.hashed([" ".join(map(str, range(300_000)))], 1)
    assert len(np.unique(hash_G)) == 300_000


def part(path: Path, texts: list[str], splits: list[str] | None = None) -> Path:
    table = {name: [None] * len(texts) for name in schema(Document).names}
    table |= {"text": texts, "split": splits or ["train"] * len(texts)}
    pq.write_table(pa.table({name: pa.array(table[name], pa.string()) for name in ("text", "split")}), path)
    return path


def indexed(folder: Path, parts: list[list[str]]) -> bytes:
    folder.mkdir()
    runs = []
    for number, texts in enumerate(parts):
        runs.append(folder / f"run-{number:03d}.npy")
        ngrams.write_run(part(folder / f"part-{number:03d}.parquet", texts), runs[-1])
    buffer = io.BytesIO()
    ngrams.write_index(runs, buffer)
    return buffer.getvalue()


@pytest.fixture
def texts() -> list[str]:
    chance = random.Random(4)
    return [" ".join(chance.choices("abcdefgh", k=chance.randrange(60))) for _ in range(60)]


def test_the_index_holds_the_ngrams_of_the_texts_and_no_others(tmp_path: Path, texts: list[str]):
    path = tmp_path / ngrams.INDEX
    path.write_bytes(indexed(tmp_path / "runs", [texts[:20], [], texts[20:]]))
    index = ngrams.open_index(path)
    truth = {gram for text in texts for gram in slow_ngrams(text, ngrams.WORDS)}
    assert len(index) == len(truth)
    others = [gram[::-1] for gram in truth if gram[::-1] not in truth]
    asked = [*truth, *others]
    hash_G, _ = ngrams.hashed([" ".join(gram) for gram in asked])
    assert index.holds(hash_G).tolist() == [gram in truth for gram in asked]


def test_neither_parts_nor_pieces_nor_rounds_of_merging_change_a_byte(
    tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
):
    whole = indexed(tmp_path / "one", [texts])
    shuffled = random.Random(1).sample(texts, len(texts))
    monkeypatch.setattr(ngrams, "BATCH", 50)
    monkeypatch.setattr(ngrams, "PIECE", 100)
    monkeypatch.setattr(ngrams, "FAN_IN", 3)
    assert indexed(tmp_path / "many", [shuffled[at : at + 3] for at in range(0, 60, 3)]) == whole


def test_held_out_documents_are_not_indexed(tmp_path: Path, texts: list[str]):
    kept, held = texts[:30], texts[30:]
    mixed = part(tmp_path / "mixed.parquet", texts, ["train"] * 30 + ["held-out"] * 30)
    ngrams.write_run(mixed, tmp_path / "mixed.npy")
    ngrams.write_run(part(tmp_path / "kept.parquet", kept), tmp_path / "kept.npy")
    assert (tmp_path / "mixed.npy").read_bytes() == (tmp_path / "kept.npy").read_bytes()
    assert sum(len(slow_ngrams(text, ngrams.WORDS)) for text in held) > 0


def test_a_corpus_of_short_texts_has_an_empty_index_that_can_be_asked(tmp_path: Path):
    path = tmp_path / ngrams.INDEX
    path.write_bytes(indexed(tmp_path / "runs", [["too short"]]))
    index = ngrams.open_index(path)
    assert len(index) == 0
    assert index.holds(ngrams.hashed(["a b c d e f g h i j"])[0]).tolist() == [False]


@pytest.mark.parametrize("content", [b"", b"something else entirely", b"\x93NUMPY\x01\x00v\x00{'descr': "])
def test_what_is_no_index_is_told_with_its_name(tmp_path: Path, content: bytes):
    path = tmp_path / ngrams.INDEX
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"ngrams\.npy is no index"):
        ngrams.open_index(path)


def test_an_index_that_was_cut_off_and_an_array_of_something_else_are_refused(tmp_path: Path, texts: list[str]):
    path = tmp_path / ngrams.INDEX
    path.write_bytes(indexed(tmp_path / "runs", [texts])[:-8])
    with pytest.raises(InputError, match="no index"):
        ngrams.open_index(path)
    np.save(path, np.arange(3.0))
    with pytest.raises(InputError, match="float64"):
        ngrams.open_index(path)
