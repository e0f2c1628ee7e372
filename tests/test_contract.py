"""A miniature run through all stages, as a person starts it, and the contracts of its files (docs/contracts.md)."""

import json
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from codeweft.base.artifacts import digest_file, read_manifest
from codeweft.base.records import Document, Dropped, TokenEntry, schema
from codeweft.stages import BY_NAME

MINIATURE = Path(__file__).parent / "miniature.toml"
PACKAGES = ("json", "email", "http", "logging", "unittest", "xml", "concurrent", "importlib", "asyncio", "wsgiref")


def codeweft(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "codeweft", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run over ten packages of the standard library, each a repository; and what it printed."""
    folder = tmp_path_factory.mktemp("miniature")
    library = Path(sysconfig.get_paths()["stdlib"])
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "test*")
        shutil.copytree(library / package, folder / "code" / package, ignore=ignored)
    run_folder = folder / "run"
    finished = codeweft("run", str(MINIATURE), "--source", str(folder / "code"), "--out", str(run_folder))
    assert finished.returncode == 0, finished.stderr[-3000:]
    return run_folder, finished.stdout


def test_the_run_ends_with_headlines_a_completion_and_what_to_do_next(miniature: tuple[Path, str]):
    run_folder, shown = miniature
    for word in ("kept_fraction", "bits_per_byte", "Infilled by the model", "report.html", "codeweft serve --model"):
        assert word in shown
    assert (run_folder / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("stage", list(BY_NAME))
def test_a_manifest_holds_everything_the_contract_names(miniature: tuple[Path, str], stage: str):
    run_folder, _ = miniature
    manifest = read_manifest(run_folder / stage)
    assert manifest is not None
    assert manifest.seconds > 0
    assert manifest.cpu_seconds > 0
    assert manifest.peak_rss_bytes > 1e7
    for name, digest in manifest.outputs.items():
        assert digest_file(run_folder / stage / name) == digest, name
    assert set(manifest.inputs) >= set(BY_NAME[stage].reads) - {"reward"}
    for upstream in manifest.inputs.keys() & BY_NAME.keys():
        assert manifest.inputs[upstream] == read_manifest(run_folder / upstream).digest


@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        ("corpus", {"kept_fraction", "documents"}),
        ("tokenizer", {"bytes_per_token"}),
        ("tokens", {"tokens", "code_share", "math_share", "text_share"}),
        (
            "pretrain",
            {
                *("bits_per_byte", "bits_per_byte_5gram", "fim_exact_match", "fim_exact_match_copy"),
                *("tokens_per_second", "bits_per_byte_ci95", "fim_exact_match_ci95"),
            },
        ),
        ("reward", {"pair_accuracy", "auc"}),
        ("grpo", {"fim_exact_match_after", "seconds_per_step"}),
        ("sft", {"fim_exact_match_before", "fim_exact_match_after", "fim_exact_match_after_ci95"}),
    ],
)
def test_headlines_have_the_agreed_names(miniature: tuple[Path, str], stage: str, keys: set[str]):
    assert keys <= set(read_manifest(miniature[0] / stage).headline)


def test_documents_have_the_agreed_columns_and_one_split_a_repository(miniature: tuple[Path, str]):
    documents = pq.read_table(miniature[0] / "corpus" / "documents")
    assert set(documents.schema.names) == {field.name for field in fields(Document)}
    assert documents.schema.field("members").type == schema(Document).field("members").type
    rows = documents.select(["id", "repository", "split", "kind", "bytes", "text"]).to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    splits: dict[tuple, set] = {}
    for row in rows:
        splits.setdefault((row["kind"], row["repository"]), set()).add(row["split"])
        assert row["bytes"] == len(row["text"].encode())
    assert all(len(found) == 1 for found in splits.values())
    assert {row["split"] for row in rows if row["kind"] == "code"} == {"train", "held-out"}
    dropped = pq.read_table(miniature[0] / "corpus" / "dropped")
    assert set(dropped.schema.names) == {field.name for field in fields(Dropped)}
    assert all(row["reason"] for row in dropped.select(["reason"]).to_pylist())


def test_shards_hold_what_the_index_says(miniature: tuple[Path, str]):
    folder = miniature[0] / "tokens"
    index = pq.read_table(folder / "index.parquet")
    assert set(index.schema.names) == {field.name for field in fields(TokenEntry)}
    rows = index.to_pylist()
    shards = {name: np.fromfile(folder / name, dtype=np.uint16) for name in {row["shard"] for row in rows}}
    assert sum(map(len, shards.values())) == sum(row["length"] for row in rows)
    ends = {(int(shards[row["shard"]][row["start"]]), int(shards[row["shard"]][row["start"] + row["length"] - 1]))
            for row in rows}  # fmt: skip
    assert len(ends) == 1, "every document begins and ends with the same two tokens"
    assert {row["fim"] for row in rows if row["split"] == "held-out"} == {False}
    fim = [row["fim"] for row in rows if row["split"] == "train" and row["kind"] == "code"]
    assert 0.3 < sum(fim) / len(fim) < 0.7


def test_transformers_loads_the_model_folder_unchanged(miniature: tuple[Path, str]):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from codeweft.model.folder import load_folder
    from codeweft.tokenizer.load import load_tokenizer

    folder = miniature[0] / "pretrain" / "model"
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours = load_folder(folder, dtype=torch.float32)
    text = "def parse(text):\n    return text.split()\n"
    ids = load_tokenizer(folder).encode(text)
    assert AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False) == ids
    tokens = torch.tensor([ids])
    with torch.no_grad():
        difference = (theirs(tokens).logits - ours(tokens).logits_BTW).abs().max()
    assert float(difference) < 1e-4
    assert json.loads((folder / "config.json").read_text())["codeweft"] == {"fim_rate": 0.5, "stage": "pretrain"}


def test_a_second_run_skips_every_stage(miniature: tuple[Path, str]):
    run_folder, _ = miniature
    before = {stage: read_manifest(run_folder / stage) for stage in BY_NAME}
    again = codeweft("run", str(MINIATURE), "--source", str(run_folder.parent / "code"), "--out", str(run_folder))
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("nothing changed, skipped") == len(BY_NAME)
    assert before == {stage: read_manifest(run_folder / stage) for stage in BY_NAME}


def test_a_changed_setting_runs_its_stage_again_and_says_why(miniature: tuple[Path, str], tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(miniature[0], copy)
    finished = codeweft("tokens", "--run", str(copy), "--tokens.fim_rate=0.0")
    assert finished.returncode == 0, finished.stderr
    assert "config.fim_rate changed from 0.5 to 0.0" in finished.stderr
    assert not any(pq.read_table(copy / "tokens" / "index.parquet")["fim"].to_pylist())


def test_a_report_can_be_made_of_an_unfinished_run_and_a_deleted_one_is_made_again(
    miniature: tuple[Path, str], tmp_path: Path
):
    copy = tmp_path / "run"
    shutil.copytree(miniature[0], copy, ignore=shutil.ignore_patterns("evaluate", "report", "report.html"))
    for _ in range(2):
        finished = codeweft("report", "--run", str(copy))
        assert finished.returncode == 0, finished.stderr
        (copy / "report.html").unlink()


def test_a_model_that_was_not_trained_to_infill_is_said_not_scored(miniature: tuple[Path, str], tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(miniature[0], copy)
    finished = codeweft("run", str(copy), "--tokens.fim_rate=0")
    assert finished.returncode == 0, finished.stderr
    assert "not trained to infill" in finished.stdout
    assert read_manifest(copy / "pretrain").headline["fim_exact_match"] is None


def test_refused_settings_do_not_stay_in_the_recipe(miniature: tuple[Path, str], tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(miniature[0], copy)
    before = (copy / "recipe.toml").read_text()
    finished = codeweft("pretrain", "--run", str(copy), f"--pretrain.init={copy / 'pretrain' / 'model'}")
    assert finished.returncode == 1
    assert "lies in the folder that this stage writes" in finished.stderr
    assert (copy / "recipe.toml").read_text() == before
    assert (copy / "pretrain" / "model" / "config.json").exists()


def test_going_on_from_a_model_folder_starts_from_its_loss(miniature: tuple[Path, str], tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(miniature[0], copy)
    model = miniature[0] / "pretrain" / "model"
    finished = codeweft("pretrain", "--run", str(copy), f"--pretrain.init={model}", "--pretrain.schedule.steps=2")
    assert finished.returncode == 0, finished.stderr

    def losses(folder: Path) -> list[float]:
        return [json.loads(line)["loss"] for line in (folder / "pretrain" / "metrics.jsonl").read_text().splitlines()]

    assert losses(copy)[0] < losses(miniature[0])[0] - 0.3


def test_why_tells_what_became_of_a_file(miniature: tuple[Path, str]):
    found = codeweft("why", str(miniature[0]), "json/decoder.py")
    assert found.returncode == 0, found.stderr
    assert "decoder.py" in found.stdout
    missing = codeweft("why", str(miniature[0]), "json/decodr.py")
    assert missing.returncode == 1
    assert "decoder.py" in missing.stderr


def test_complete_fills_in_a_line(miniature: tuple[Path, str], tmp_path: Path):
    file = tmp_path / "a.py"
    file.write_text("import os\n\ndef size(path):\n    return \n\nprint(size('a'))\n")
    model = str(miniature[0] / "pretrain" / "model")
    finished = codeweft("complete", f"{file}:4", "--model", model, "--json")
    assert finished.returncode == 0, finished.stderr
    assert len([line for line in json.loads(finished.stdout)["text"].splitlines() if line.strip()]) <= 1
    outside = codeweft("complete", f"{file}:40", "--model", model)
    assert outside.returncode == 1
    assert "40" in outside.stderr


def test_nothing_left_after_filtering_is_told(tmp_path: Path):
    (tmp_path / "code" / "a").mkdir(parents=True)
    (tmp_path / "code" / "a" / "long.py").write_text("x = 1 " * 1000)
    finished = codeweft("run", str(MINIATURE), "--source", str(tmp_path / "code"), "--out", str(tmp_path / "run"))
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert "line" in finished.stderr
