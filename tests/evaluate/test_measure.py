"""Measuring a real small run: what is measured, what is remembered, and what is refused."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from codeweft.base.config import Layer, build
from codeweft.base.errors import ConfigError, ModelError, UserError
from codeweft.base.runs import Run
from codeweft.evaluate import measure as measuring
from codeweft.evaluate.bits_per_byte import draw_documents
from codeweft.evaluate.config import EvaluateConfig, MeasureConfig
from codeweft.evaluate.measure import measure, measured
from codeweft.evaluate.run import run
from codeweft.sandbox.config import SandboxConfig
from codeweft.tokenizer.shards import TokenShards

SETTINGS: dict[str, Any] = {"bits_tokens": 1500, "infilling_samples": 20, "infilling_tokens": 12, "batch": 4}
SEEN = 5000


@torch.no_grad()
def bits_by_transformers(model_folder: Path, tokens: np.ndarray, length: int) -> float:
    """-log2 p of a document under the reference implementation, window after window."""
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    total, start, already = 0.0, 0, 0
    while start + already + 1 < len(tokens):
        piece = torch.from_numpy(tokens[start : start + length + 1])[None]
        chances = torch.log_softmax(model(piece[:, :-1]).logits[0].double(), -1)
        own = chances[torch.arange(piece.shape[1] - 1), piece[0, 1:]]
        total -= float(own[already:].sum()) / np.log(2)
        start, already = start + length // 2, length - length // 2
    return total


def test_bits_per_byte_is_what_transformers_gives_for_the_same_documents(measured_run: Path):
    headline = measure(measured_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS), SandboxConfig())
    held_out = draw_documents(TokenShards(measured_run / "tokens"), 1500, 16_384, 1)
    bits = sum(bits_by_transformers(measured_run / "pretrain" / "model", tokens, 64) for tokens in held_out.tokens)
    assert max(map(len, held_out.tokens)) > 64
    assert headline["bits_per_byte"] == pytest.approx(bits / sum(entry.bytes for entry in held_out.entries), rel=1e-4)
    low, high = headline["bits_per_byte_ci95"]
    assert low < headline["bits_per_byte"] < high


def test_random_weights_lose_against_the_5gram_that_read_the_training_tokens(measured_run: Path):
    headline = measure(measured_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS), SandboxConfig())
    assert headline["bits_per_byte_5gram"] < 0.5 * headline["bits_per_byte"]
    assert headline["fim_exact_match"] < headline["fim_exact_match_copy"] <= 1


def test_the_protocol_says_what_was_counted(measured_run: Path):
    total = TokenShards(measured_run / "tokens").total("train")
    few = measured(measured_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS)).tasks["bits_per_byte_5gram"]
    assert f"first {SEEN:,} training tokens" in few["protocol"]
    again = measured(measured_run, "pretrain", 1, 3 * total, MeasureConfig(**SETTINGS)).tasks["bits_per_byte_5gram"]
    assert f"first {total:,} training tokens" in again["protocol"]
    assert "repeats are counted once" in again["protocol"]


def test_samples_are_held_out_code_lines_and_keep_what_a_reader_needs(measured_run: Path):
    samples = measured(measured_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS)).samples
    table = pq.read_table(measured_run / "corpus" / "documents").to_pylist()
    by_id = {row["id"]: row for row in table if row["split"] == "held-out" and row["kind"] == "code"}
    assert len(samples) == 20
    for sample in samples:
        document, line = sample["problem"].rsplit(":", 1)
        assert by_id[document]["text"].split("\n")[int(line) - 1] == sample["truth"]
        assert len("".join(sample["truth"].split())) >= 8
        assert (
            by_id[document]["text"].endswith(sample["prefix"] + sample["truth"] + sample["suffix"]) or sample["suffix"]
        )
        assert sample["exact_match"] == (sample["text"].strip() == sample["truth"].strip())
        assert {"prompt_digest", "tokens", "logprob", "finish", "seed"} <= set(sample)
    per_file = [sample["problem"].rsplit(":", 1)[0] for sample in samples]
    assert max(per_file.count(name) for name in per_file) <= 4


def test_the_same_seed_measures_the_same_and_another_draws_other_holes(own_run: Path):
    settings = MeasureConfig(**SETTINGS)
    first = measured(own_run, "pretrain", 1, SEEN, settings)
    for path in (own_run / "measured").iterdir():
        path.unlink()
    assert measured(own_run, "pretrain", 1, SEEN, settings) == first
    other = measured(own_run, "pretrain", 2, SEEN, settings)
    assert [sample["problem"] for sample in other.samples] != [sample["problem"] for sample in first.samples]


def test_measuring_that_was_cut_off_goes_on_after_its_finished_parts(
    own_run: Path, measured_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    settings = MeasureConfig(**SETTINGS | {"infilling_samples": 40, "batch": 2})  # portions of 16, 16 and 8
    whole = measured(measured_run, "pretrain", 1, SEEN, settings)
    fill, portions = measuring.fill, []

    def filled(holes: Any, *rest: Any) -> Any:
        portions.append(len(holes))
        if portions in ([16, 16], [16, 16, 16, 8]):
            raise KeyboardInterrupt
        return fill(holes, *rest)

    monkeypatch.setattr(measuring, "fill", filled)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            measured(own_run, "pretrain", 1, SEEN, settings)
        monkeypatch.setattr(measuring, "model_bits", None)  # scoring again would fail
        monkeypatch.setattr(measuring, "KneserNey", None)
    assert measured(own_run, "pretrain", 1, SEEN, settings) == whole
    assert portions == [16, 16, 16, 8, 8]
    assert "going on from what is measured already" in capsys.readouterr().err
    [result] = (own_run / "measured").glob("pretrain-*")
    assert result.read_bytes() == (measured_run / "measured" / result.name).read_bytes()


def test_parts_of_a_measurement_with_other_settings_are_discarded_and_said(
    own_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(measuring, "fill", cut)
        with pytest.raises(KeyboardInterrupt):
            measure(own_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS), SandboxConfig())
    assert [path.is_dir() for path in (own_run / "measured").glob("pretrain-*")] == [True]
    measure(own_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS | {"bits_tokens": 900}), SandboxConfig())
    assert "an unfinished measurement with other settings or of another model is discarded" in capsys.readouterr().err
    assert {path.suffix for path in (own_run / "measured").iterdir()} == {".json"}


def test_the_stage_takes_the_figures_measured_after_training(
    own_run: Path, finish_pretrain: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    headline = measure(own_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS), SandboxConfig())
    finish_pretrain(own_run, SEEN)
    monkeypatch.setattr(measuring, "_Measuring", None)  # measuring again would fail
    (own_run / "evaluate").mkdir()
    work = Run("evaluate", own_run / "evaluate", 1, {"pretrain": own_run / "pretrain"}, model_stage="pretrain")
    later = run(EvaluateConfig(**SETTINGS), work)
    assert {name: later[name] for name in headline} == headline
    results = json.loads((own_run / "evaluate" / "results.json").read_text())
    assert set(results) == {
        "bits_per_byte", "bits_per_byte_5gram", "fim_exact_match", "fim_exact_match_copy", "fim_line_elsewhere",
        "fim_edit_similarity",
    }  # fmt: skip
    for task in results.values():
        assert {"n", "score", "ci95", "protocol", "per_language"} <= set(task)
        assert task["ci95"][0] <= task["score"] <= task["ci95"][1]
        assert task["n"] == sum(part["n"] for part in task["per_language"].values())
    lines = (own_run / "evaluate" / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 20
    assert 0 <= json.loads(lines[0])["edit_similarity"] <= 1


def test_another_setting_is_measured_anew(measured_run: Path, monkeypatch: pytest.MonkeyPatch):
    measure(measured_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS), SandboxConfig())
    monkeypatch.setattr(measuring, "_Measuring", None)
    with pytest.raises(TypeError):
        measure(
            measured_run,
            "pretrain",
            1,
            SEEN,
            dataclasses.replace(MeasureConfig(**SETTINGS), bits_tokens=1600),
            SandboxConfig(),
        )


def test_a_model_that_never_learned_to_infill_gets_no_score_and_the_reason(
    own_run: Path, unlearn_infilling: Callable[[Path], None]
):
    unlearn_infilling(own_run)
    headline = measure(own_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS), SandboxConfig())
    assert headline["fim_exact_match"] is None
    assert "fim_exact_match_ci95" not in headline
    assert headline["fim_exact_match_copy"] > 0
    task = measured(own_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS)).tasks["fim_exact_match"]
    assert "not trained to infill" in task["reason"]


def test_a_window_beyond_the_model_is_refused_with_its_limits(measured_run: Path):
    with pytest.raises(UserError, match=r"measure.window is 4096.*16 to 128"):
        measure(measured_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS, window=4096), SandboxConfig())


def test_beside_a_model_from_elsewhere_the_n_gram_model_counts_the_whole_stream(measured_run: Path):
    total = TokenShards(measured_run / "tokens").total("train")
    settings = MeasureConfig(**SETTINGS)
    unknown = measured(measured_run, "pretrain", 1, 0, settings).tasks["bits_per_byte_5gram"]
    assert unknown == measured(measured_run, "pretrain", 1, total, settings).tasks["bits_per_byte_5gram"]


def test_the_n_gram_model_is_counted_once_for_all_stages(
    own_run: Path, finish_pretrain: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    """A later stage's figures stand beside those of the stage before it, under their agreed names."""
    settings = MeasureConfig(**SETTINGS)
    first = measure(own_run, "pretrain", 1, SEEN, settings, SandboxConfig())
    finish_pretrain(own_run, SEEN)
    shutil.copytree(own_run / "pretrain", own_run / "sft")
    monkeypatch.setattr(measuring, "KneserNey", None)
    change = measuring.measure_change("pretrain", own_run, "sft", 1, SEEN, settings, SandboxConfig())
    assert change["fim_exact_match_before"] == change["fim_exact_match_after"] == first["fim_exact_match"]
    assert change["fim_exact_match_after_ci95"] == first["fim_exact_match_ci95"]
    assert "bits_per_byte_after" not in change


@pytest.mark.parametrize("name", ["infilling_samples", "infilling_tokens", "ngram_tokens", "bits_tokens"])
def test_measuring_nothing_is_refused(name: str):
    with pytest.raises(ConfigError, match=f"{name} = 0 must be at least 1"):
        build(MeasureConfig, [Layer("the command line", {name: "0"})], "measure")


def test_a_baseline_of_another_order_says_so(measured_run: Path):
    settings = MeasureConfig(**SETTINGS)
    five, three = (
        measured(measured_run, "pretrain", 1, SEEN, each).tasks["bits_per_byte_5gram"]
        for each in (settings, dataclasses.replace(settings, ngram_order=3))
    )
    assert "Kneser-Ney 5-gram" in five["protocol"]
    assert "Kneser-Ney 3-gram" in three["protocol"]
    assert three["score"] != five["score"]


def test_a_model_with_another_tokenizer_is_refused(own_run: Path):
    path = own_run / "pretrain" / "model" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": None}, indent=7))
    with pytest.raises(ModelError, match=r"pretrain.model has another tokenizer than .*tokenizer, .* stage pretrain"):
        measure(own_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS), SandboxConfig())
    path.unlink()
    with pytest.raises(ModelError, match=r"There is no tokenizer.json in .*model"):
        measure(own_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS), SandboxConfig())


def test_katas_are_left_out_aloud_where_there_are_no_problems(measured_run: Path, capsys: pytest.CaptureFixture[str]):
    headline = measure(measured_run, "pretrain", 1, SEEN, MeasureConfig(**SETTINGS, katas=5), SandboxConfig())
    assert "katas_pass@1" not in headline
    assert "the stage problems is not finished, so no katas are asked" in capsys.readouterr().err
