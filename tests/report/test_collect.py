"""What is read from a run folder: whole, half done, and damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from codeweft.base.errors import InputError
from codeweft.report.collect import collect, expert_load, read_rows


def test_a_stage_without_a_manifest_is_missing(bare_folder: Callable[..., Path]):
    facts = collect(bare_folder("corpus", "tokenizer"))
    assert facts.missing == ["problems", "tokens", "pretrain", "sft", "reward", "grpo", "evaluate"]
    assert facts.results == {}
    assert facts.metrics == {}


def test_stages_are_told_in_the_order_of_the_data(run_folder: Path):
    assert list(collect(run_folder).manifests) == ["corpus", "tokenizer", "tokens", "pretrain", "evaluate"]


def test_a_row_that_was_being_written_is_left_out_and_a_damaged_one_is_named(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2', encoding="utf-8")
    assert read_rows(path) == [{"step": 1}]
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 2 is damaged"):
        read_rows(path)


def test_expert_load_is_relative_to_an_even_share_and_keeps_the_order_of_experts():
    row = {"step": 9, "expert_load/layer_1/expert_10": 0.1} | {
        f"expert_load/layer_1/expert_{e}": 0.09 for e in range(10)
    }
    ((step, layers),) = expert_load([{"step": 8, "loss": 1.0}, row])
    assert step == 9
    assert layers[1][10] == pytest.approx(1.1)
    assert sum(layers[1]) == pytest.approx(11)
