"""The stage's stream holds what the documents hold, in the wanted shares, whoever encoded it."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from codeweft.base.artifacts import digest_file
from codeweft.base.errors import InputError
from codeweft.base.records import TokenEntry, schema
from codeweft.base.runs import Run, settle
from codeweft.tokenizer import tokens
from codeweft.tokenizer.config import TokensConfig
from codeweft.tokenizer.load import Tokenizer
from codeweft.tokenizer.shards import TokenShards
from codeweft.tokenizer.special import BEGIN, END, FIM_BEGIN, FIM_END, FIM_HOLE

Make = Callable[..., Any]
CONFIG = TokensConfig(total=60_000, held_out_tokens=4_000, shard_tokens=9_000)


@pytest.fixture(scope="module")
def finished(corpus: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, float]]:
    """A finished stage of about three passes over the code, and its headline."""
    work = Run("tokens", tmp_path_factory.mktemp("tokens"), 1, {"corpus": corpus, "tokenizer": trained})
    return work, tokens.run(CONFIG, work)


@pytest.fixture(scope="module")
def shards(finished: tuple[Run, dict[str, float]]) -> TokenShards:
    return TokenShards(finished[0].folder)


@pytest.fixture(scope="module")
def rows(documents: Make) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in documents()}


def test_every_document_decodes_to_its_text(shards: TokenShards, tokenizer: Tokenizer, rows: dict[str, dict[str, Any]]):
    seen = Counter()
    for split in ("train", "held-out"):
        for entry, ids in shards.documents(split):
            assert (ids[0], ids[-1]) == (tokenizer.begin, tokenizer.end)
            body = tokenizer.decode(ids[1:-1].tolist(), skip_special=False)
            if entry.fim:
                prefix, rest = body.removeprefix(FIM_BEGIN).split(FIM_HOLE)
                suffix, middle = rest.split(FIM_END)
                body = prefix + middle + suffix
            assert FIM_BEGIN not in body
            row = rows[entry.document]
            assert body == row["text"]
            assert (entry.kind, entry.language, entry.repository, entry.split, entry.bytes) == tuple(
                row[name] for name in ("kind", "language", "repository", "split", "bytes")
            )
            assert entry.split == split
            seen[split] += 1
    assert sum(seen.values()) == shards.index.num_rows


def test_shares_are_exact_to_half_a_percent(finished: tuple[Run, dict[str, float]], shards: TokenShards):
    headline = finished[1]
    assert headline["tokens"] == shards.total("train")
    assert abs(headline["tokens"] - CONFIG.total) < 0.005 * CONFIG.total
    counted = Counter()
    for entry, _ in shards.documents("train"):
        counted[entry.kind] += entry.length
    for kind, share in (("code", 0.6), ("math", 0.1), ("text", 0.3)):
        assert abs(counted[kind] / headline["tokens"] - share) < 0.005
        assert headline[f"{kind}_share"] == pytest.approx(counted[kind] / headline["tokens"], abs=1e-6)


def test_the_mixture_says_what_the_index_says(finished: tuple[Run, dict[str, float]], shards: TokenShards):
    mixture = json.loads((finished[0].folder / "mixture.json").read_text())
    entries = [entry for entry, _ in shards.documents("train")]
    for kind, row in mixture["kinds"].items():
        of_kind = [entry for entry in entries if entry.kind == kind]
        assert row["copies"] == len(of_kind)
        assert row["documents"] == len({entry.document for entry in of_kind})
        assert row["tokens"] == sum(entry.length for entry in of_kind)
        assert row["fim"] == sum(entry.fim for entry in of_kind)
        assert abs(row["epochs"] - max(entry.epoch for entry in of_kind)) <= 1.05
        parts = [source for source in mixture["sources"] if source["kind"] == kind]
        for key in ("tokens", "copies", "documents", "fim"):
            assert sum(part[key] for part in parts) == row[key]
        assert sum(part["target"] for part in parts) == pytest.approx(row["target"], abs=1e-5)
    assert mixture["kinds"]["code"]["epochs"] > 1.2


def test_no_document_comes_twice_in_a_pass_and_passes_follow_each_other(shards: TokenShards):
    entries = [entry for entry, _ in shards.documents("train")]
    assert len({(entry.document, entry.epoch) for entry in entries}) == len(entries)
    for kind in ("code", "math", "text"):
        epochs = [entry.epoch for entry in entries if entry.kind == kind]
        assert epochs == sorted(epochs)


def test_half_of_the_code_is_cut_anew_in_every_pass_and_nothing_else(shards: TokenShards):
    by_document: dict[str, list[tuple[bool, bytes]]] = {}
    for entry, ids in shards.documents("train"):
        assert entry.kind == "code" or not entry.fim
        if entry.kind == "code":
            by_document.setdefault(entry.document, []).append((entry.fim, ids.tobytes()))
    copies = [copy for found in by_document.values() for copy in found]
    assert 0.35 < np.mean([fim for fim, _ in copies]) < 0.65
    cut = [ids for fim, ids in copies if fim]
    assert len(set(cut)) == len(cut)
    assert any(len({fim for fim, _ in found}) == 2 for found in by_document.values())


def test_held_out_documents_are_plain_and_come_once(shards: TokenShards):
    entries = [entry for entry, _ in shards.documents("held-out")]
    assert len({entry.document for entry in entries}) == len(entries)
    assert not any(entry.fim or entry.epoch for entry in entries)
    assert 0.7 * CONFIG.held_out_tokens < shards.total("held-out") < 1.3 * CONFIG.held_out_tokens


def test_neither_workers_nor_the_corpus_files_change_a_byte(
    finished: tuple[Run, dict[str, float]], stage: Make, documents: Make, store: Make, tmp_path: Path
):
    shuffled = store(tmp_path / "shuffled", documents()[::-1], parts=7, row_group=3)
    for folder, where, workers in (("two", finished[0].inputs["corpus"], 2), ("files", shuffled, 1)):
        work = stage("tokens", folder, corpus=where, workers=workers)
        assert tokens.run(CONFIG, work) == finished[1]
        assert work.outputs == finished[0].outputs


def test_a_stage_that_was_cut_off_encodes_no_finished_piece_again(
    finished: tuple[Run, dict[str, float]], stage: Make, monkeypatch: pytest.MonkeyPatch
):
    work = stage("tokens")
    with monkeypatch.context() as patched:
        patched.setattr(tokens, "write_shards", cut)
        with pytest.raises(KeyboardInterrupt):
            tokens.run(CONFIG, work)
    pieces = sorted(work.staging.iterdir())
    assert len(pieces) > 3 * 10
    lost = [path for path in pieces if path.stem == pieces[4].stem]
    assert sorted(path.suffix for path in lost) == [".json", ".npy", ".tokens"]
    lost[0].unlink()
    damaged = next(path for path in pieces if path.suffix == ".tokens" and path.stem != lost[0].stem)
    damaged.write_bytes(damaged.read_bytes()[:-2] + b"\0\0")
    times = {path: path.stat().st_mtime_ns for path in pieces if path.exists()}
    again = Run("tokens", work.folder, 1, work.inputs, resumed=True)
    assert tokens.run(CONFIG, again) == finished[1]
    assert again.outputs == finished[0].outputs
    written = {path.stem for path in pieces if times.get(path) != path.stat().st_mtime_ns}
    assert written == {lost[0].stem, damaged.stem}


def cut(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_another_seed_gives_another_order_and_the_same_shares(finished: tuple[Run, dict[str, float]], stage: Make):
    work = stage("tokens", seed=2)
    headline = tokens.run(CONFIG, work)
    assert work.outputs["index.parquet"] != finished[0].outputs["index.parquet"]
    assert headline["code_share"] == pytest.approx(0.6, abs=0.005)


def test_the_folder_holds_its_outputs_and_nothing_else(finished: tuple[Run, dict[str, float]]):
    folder, outputs = finished[0].folder, finished[0].outputs
    settle(folder)
    assert {path.name for path in folder.iterdir()} == set(outputs)
    assert all(digest_file(folder / name) == digest for name, digest in outputs.items())
    index = pq.read_table(folder / "index.parquet")
    assert index.schema.equals(schema(TokenEntry))
    assert sum(name.startswith("train-") for name in outputs) >= 6


def test_a_scarce_kind_lowers_the_total_and_says_which(stage: Make, capsys: pytest.CaptureFixture[str]):
    headline = tokens.run(TokensConfig(total=500_000, max_epochs=2, held_out_tokens=1000), stage("tokens"))
    assert headline["tokens"] < 100_000
    assert headline["code_share"] == pytest.approx(0.6, abs=0.005)
    said = capsys.readouterr().err
    assert "instead of 500.0k, because 2 passes over all code give" in said


def test_a_share_without_documents_is_refused_and_shares_are_scaled(
    stage: Make, documents: Make, store: Make, tmp_path: Path
):
    code = store(tmp_path / "code", [row for row in documents() if row["kind"] != "math"])
    with pytest.raises(InputError, match=r"tokens\.math_share is 0\.1, but no training document is math"):
        tokens.run(CONFIG, stage("tokens", "a", corpus=code))
    config = TokensConfig(total=20_000, math_share=0, held_out_tokens=2000)
    headline = tokens.run(config, stage("tokens", "b", corpus=code))
    assert headline["math_share"] == 0
    assert headline["code_share"] == pytest.approx(2 / 3, abs=0.005)


def test_languages_without_a_grammar_are_counted(
    stage: Make, documents: Make, store: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    odd = [
        row | {"language": "INTERCAL" if place % 8 == 0 else row["language"]} for place, row in enumerate(documents())
    ]
    work = stage("tokens", corpus=store(tmp_path / "odd", odd))
    tokens.run(TokensConfig(total=20_000, held_out_tokens=2000, fim_cut="syntax", fim_rate=1.0), work)
    index = pq.read_table(work.folder / "index.parquet").to_pylist()
    assert work.counts["fim_without_grammar"] == sum(row["language"] == "INTERCAL" and row["fim"] for row in index) > 0
    assert work.counts["fim"] == sum(row["split"] == "train" and row["kind"] == "code" for row in index)
    assert f"{work.counts['fim_without_grammar']} copies without a grammar" in capsys.readouterr().err


def test_a_document_longer_than_its_share_does_not_hide_the_others(
    stage: Make, documents: Make, store: Make, tmp_path: Path
):
    rows = documents()
    for row in rows:
        if row["kind"] == "text" and row["repository"] == "repository-3":
            row["text"] *= 500
            row["bytes"] *= 500
    headline = tokens.run(CONFIG, stage("tokens", corpus=store(tmp_path / "giant", rows)))
    assert headline["text_share"] == pytest.approx(0.3, abs=0.005)
    assert headline["tokens"] == pytest.approx(CONFIG.total, rel=0.005)


def test_documents_too_long_for_the_shares_are_told(
    stage: Make, documents: Make, store: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    long = store(tmp_path / "long", documents(40, lines=(60, 61)))
    tokens.run(TokensConfig(total=5_000, held_out_tokens=20_000), stage("tokens", corpus=long))
    assert "its documents are too long to come closer" in capsys.readouterr().err


def test_segments_each_carry_their_own_hole_and_join_to_the_document(
    stage: Make, tokenizer: Tokenizer, rows: dict[str, dict[str, Any]]
):
    work = stage("tokens")
    tokens.run(TokensConfig(total=60_000, held_out_tokens=4_000, fim_segment=200), work)
    lengths = []
    for entry, ids in TokenShards(work.folder).documents("train"):
        if not entry.fim:
            continue
        pieces = tokenizer.decode(ids.tolist(), skip_special=False).split(BEGIN)[1:]
        text = ""
        for piece in pieces:
            prefix, rest = piece.removesuffix(END).removeprefix(FIM_BEGIN).split(FIM_HOLE)
            suffix, middle = rest.split(FIM_END)
            text += prefix + middle + suffix
        assert text == rows[entry.document]["text"]
        lengths.append(len(pieces))
    assert max(lengths) > 1
