"""A made-up run folder with every file that the report reads."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codeweft.base.artifacts import Manifest, write_json

STEPS, EXPERTS, LAYERS = 500, 16, 3
HOSTILE = "<script>alert('&')</script>"


def write_corpus(folder: Path) -> None:
    """Three languages, prose and mathematics; 40 of 157 documents dropped by four of five steps."""
    steps, left = [], 157
    for name, lost in (("size", 3), ("average_line", 11), ("html", 0), (HOSTILE, 5), ("exact_duplicate", 21)):
        steps.append(
            {
                "name": name,
                "documents_in": left,
                "bytes_in": left * 5000,
                "documents_dropped": lost,
                "bytes_dropped": lost * 5000,
                "documents_out": left - lost,
                "bytes_out": (left - lost) * 5000,
                "share_dropped": lost / 157,
            }
        )
        left -= lost
    kinds = [
        ("code", "Python", 70),
        ("code", "C", 12),
        ("code", "", 6),
        ("text", "English", 20),
        ("math", "English", 9),
    ]
    languages = [
        {
            "kind": kind,
            "language": language,
            "documents_in": count + 8,
            "bytes_in": (count + 8) * 5000,
            "documents_kept": count,
            "bytes_kept": count * 5000,
        }
        for kind, language, count in kinds
    ]
    whole = {"documents": 157, "bytes": 157 * 5000}
    kept = {"documents": 117, "bytes": 117 * 5000, "share": 117 / 157}
    write_json(folder / "funnel.json", {"input": whole, "steps": steps, "kept": kept, "languages": languages})


def write_metrics(folder: Path) -> None:
    """A falling loss, a cosine rate, a validation every 50 steps, and experts that even out."""
    random = np.random.default_rng(1)
    folder.mkdir(parents=True)
    rows = []
    for step in range(1, STEPS + 1):
        row = {
            "step": step,
            "time": 1.7e9 + step,
            "loss": 3.1 + 5.9 * math.exp(-step / 60) + float(random.normal(0, 0.12)),
            "learning_rate": 3e-3 * min(step / 30, 0.55 + 0.45 * math.cos(math.pi * step / STEPS)),
            "gradient_norm": 0.5 + 2 / step + float(random.uniform(0, 0.2)),
            "tokens_per_second": 22_000 + float(random.normal(0, 900)),
            "balance_loss": 0.003 + 0.002 * math.exp(-step / 80),
        }
        if step % 50 == 0:
            row["validation_loss"] = 3.25 + 5.8 * math.exp(-step / 60)
            for layer in range(LAYERS):
                shares = random.dirichlet(np.full(EXPERTS, 3 + step / 20))
                row |= {f"expert_load/layer_{layer}/expert_{e}": float(share) for e, share in enumerate(shares)}
        rows.append(json.dumps(row))
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def score(value: float, unit: str, **more: object) -> dict[str, object]:
    part = {"n": 200, "score": value, "ci95": [value * 0.9, value * 1.1]}
    languages = {"python": part, "c": part | {"n": 20}}
    better = "lower" if unit == "bits per byte" else "higher"
    return {**part, "unit": unit, "better": better, "protocol": "made up", "per_language": languages, **more}


def write_scores(folder: Path) -> None:
    """Two tasks beside their baselines, and ten infilled lines of which three are right."""
    folder.mkdir(parents=True)
    tasks = {
        "bits_per_byte": score(1.42, "bits per byte", beside=["bits_per_byte_5gram"], bits_per_token=4.7),
        "bits_per_byte_5gram": score(1.61, "bits per byte", bits_per_token=5.3),
        "fim_exact_match": score(0.18, "share", beside=["fim_exact_match_copy", "fim_line_elsewhere"]),
        "fim_exact_match_copy": score(0.11, "share"),
        "fim_line_elsewhere": score(0.24, "share"),
        "fim_edit_similarity": score(0.52, "share"),
    }
    write_json(folder / "results.json", tasks)
    samples = []
    for number in range(10):
        truth = f"        return self.values[{number}]"
        samples.append(
            {
                "task": "infilling",
                "problem": f"d{number}:7",
                "language": "python",
                "repository": "standard library",
                "path": f"collections/{number}.py",
                "line": 7,
                "prefix": f"class Values:\n\n    def get_{number}(self):\n        # {HOSTILE}\n",
                "suffix": "\n\n    def __len__(self):\n        return len(self.values)\n",
                "truth": truth,
                "text": truth if number % 4 == 0 else "        return None",
                "exact_match": number % 4 == 0,
            }
        )
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples), encoding="utf-8")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run."""
    return fill(tmp_path / "made-up")


def fill(folder: Path) -> Path:
    write_corpus(folder / "corpus")
    write_metrics(folder / "pretrain")
    write_scores(folder / "evaluate")
    facts = {"share": 0.6, "target": 0.6, "tokens": 3_000_000, "epochs": 1.25, "documents": 88, "copies": 99, "fim": 41}
    kinds = {"code": facts, "math": facts | {"share": 0.1, "target": 0.1, "tokens": 500_000, "fim": 0}}
    sources = [{"source": name, "kind": "code", **facts} for name in ("builtin:python", HOSTILE)]
    mixture = {"tokens": 3_500_000, "kinds": kinds, "sources": sources}
    write_json(folder / "tokens" / "mixture.json", mixture)
    (folder / "recipe.toml").write_text('[corpus]\ncode = ["builtin:python"]\n', encoding="utf-8")
    headlines = {
        "corpus": {"documents": 117, "kept_fraction": 0.745},
        "tokenizer": {"bytes_per_token": 3.2},
        "tokens": {"tokens": 3_500_000, "code_share": 0.6, "math_share": 0.1, "text_share": 0.3},
        "pretrain": {"tokens_per_second": 22_000.0, "bits_per_byte": 1.42, "bits_per_byte_ci95": [1.3, 1.5]},
        "evaluate": {"fim_exact_match": 0.18, "fim_exact_match_ci95": [0.13, 0.24]},
    }
    counts = {"tokens_seen": 4_096_000, "parameters": 12_300_000, "activated_parameters": 4_100_000}
    for number, (stage, headline) in enumerate(headlines.items(), start=1):
        (folder / stage).mkdir(parents=True, exist_ok=True)
        Manifest(
            stage=stage,
            version=1,
            config={},
            inputs={},
            outputs={},
            seed=1,
            counts=counts if stage == "pretrain" else {},
            seconds=17.3 * number,
            cpu_seconds=30.0 * number,
            peak_rss_bytes=number << 28,
            device="cpu",
            headline=headline,
        ).write(folder / stage)
    return folder


@pytest.fixture
def bare_folder(tmp_path: Path) -> Callable[..., Path]:
    """A run that has come as far as the named folders."""

    def keep(*stages: str) -> Path:
        whole = fill(tmp_path / "whole")
        for path in whole.iterdir():
            if path.is_dir() and path.name not in stages:
                path.rename(tmp_path / f"away-{path.name}")
        return whole

    return keep
