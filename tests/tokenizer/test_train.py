"""Training gives the same file for the same documents, whatever way they are stored, and a vocabulary by the rules."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codeweft.base.errors import InputError
from codeweft.tokenizer import train
from codeweft.tokenizer.catalogue import read_catalogue
from codeweft.tokenizer.config import TokenizerConfig
from codeweft.tokenizer.load import FILES, Tokenizer, load_tokenizer
from codeweft.tokenizer.pretokenizer import alphabet

Make = Callable[..., Any]


def test_the_same_documents_give_the_same_bytes_however_they_are_stored(
    stage: Make, documents: Make, store: Make, tmp_path: Path
):
    config = TokenizerConfig(vocabulary=500, code_megabytes=0.02, math_megabytes=0.003, text_megabytes=0.01)
    other = store(tmp_path / "other", documents()[::-1], parts=5, row_group=4)
    first, second = stage("tokenizer", "first"), stage("tokenizer", "second", corpus=other)
    assert train.run(config, first) == train.run(config, second)
    assert first.outputs == second.outputs
    assert set(first.outputs) == set(FILES)


def test_every_kind_keeps_to_its_limit_and_held_out_text_is_never_learned_from(corpus: Path):
    catalogue = read_catalogue(corpus)
    config = TokenizerConfig(code_megabytes=0.02, math_megabytes=0.0, text_megabytes=0.01)
    sample = train.draw_sample(catalogue, config, seed=3)
    assert catalogue.columns["split"].take(sample).unique().to_pylist() == ["train"]
    for kind, limit in (("code", 20_000), ("math", 0), ("text", 10_000)):
        drawn = int(catalogue.bytes_N[sample][catalogue.having("kind", kind)[sample]].sum())
        assert limit * 0.8 <= drawn <= limit


def test_every_byte_of_utf8_has_a_token_and_no_token_breaks_the_cutting_rules(trained: Path):
    vocabulary = json.loads((trained / FILES[0]).read_text("utf-8"))["model"]["vocab"]
    assert set(alphabet()) <= set(vocabulary)
    for token in vocabulary:
        assert len(token) == 1 or "Ċ" not in token
        assert sum(letter.isdigit() for letter in token) <= (len(token) == 1)


def test_no_token_is_longer_than_asked():
    text = ["x" * 40 + "\n"] * 50
    vocabulary = train.train(iter(text), 400, longest_token=8).get_vocab(with_added_tokens=False)
    assert max(map(len, vocabulary)) == 8


def test_bytes_per_token_is_measured_on_held_out_text(stage: Make, documents: Make, tokenizer: Tokenizer):
    rows = [row for row in documents() if row["split"] == "held-out"]
    expected = sum(row["bytes"] for row in rows) / sum(len(tokenizer.encode(row["text"])) for row in rows)
    assert train.run(TokenizerConfig(vocabulary=600), stage("tokenizer")) == {"bytes_per_token": round(expected, 4)}


def test_a_given_tokenizer_is_taken_over_unchanged(stage: Make, tokenizer: Tokenizer):
    config = TokenizerConfig(init=tokenizer.folder)
    assert set(train.inputs(config)) == {f"init/{name}" for name in FILES}
    work = stage("tokenizer")
    train.run(config, work)
    assert load_tokenizer(work.folder).digest == tokenizer.digest


def test_a_corpus_without_documents_or_held_out_ones_is_told(stage: Make, documents: Make, store: Make, tmp_path: Path):
    empty = store(tmp_path / "empty", [])
    with pytest.raises(InputError, match="There are no documents"):
        train.run(TokenizerConfig(), stage("tokenizer", "a", corpus=empty))
    rows = [row | {"split": "train"} for row in documents(20)]
    whole = store(tmp_path / "whole", rows)
    with pytest.raises(InputError, match="no held-out document"):
        train.run(TokenizerConfig(), stage("tokenizer", "b", corpus=whole))


def test_a_damaged_part_of_the_corpus_is_named(documents: Make, store: Make, tmp_path: Path):
    corpus = store(tmp_path / "corpus", documents(20))
    part = corpus / "documents" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"part-00001\.parquet is damaged"):
        read_catalogue(corpus)
