"""Comparing made-up evaluations: what is more than chance, what may not be compared, what is left out."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from codeweft.base.errors import InputError
from codeweft.evaluate import compare as comparing
from codeweft.evaluate.compare import compare, words
from codeweft.evaluate.config import MeasureConfig
from codeweft.evaluate.measure import measured

Sample = dict[str, Any]


@pytest.fixture(autouse=True)
def plain_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks of these tests are made up, but for the way in which their score is averaged."""
    monkeypatch.setattr(comparing, "average_of", lambda name: {"by-language": "language"}.get(name, ""))


def samples(task: str, scores: Mapping[str, Any], each: int = 1) -> list[Sample]:
    """Samples by problem: one score, or several."""
    return [
        {
            "task": task,
            "problem": problem,
            "language": problem.split("/")[0],
            "sample": number,
            "seed": 1,
            "score": score,
        }
        for problem, of_problem in scores.items()
        for number, score in enumerate(of_problem if isinstance(of_problem, list) else [of_problem] * each)
    ]


def folder(path: Path, found: Iterable[Sample], **changes: Any) -> Path:
    """An evaluation with these samples; `changes` are fields of every entry."""
    found = list(found)
    entries = {}
    for task in dict.fromkeys(sample["task"] for sample in found):
        by_problem: dict[str, list[float]] = {}
        for sample in found:
            if sample["task"] == task and sample["score"] is not None:
                by_problem.setdefault(sample["problem"], []).append(sample["score"])
        score = float(np.mean([np.mean(scores) for scores in by_problem.values()])) if by_problem else None
        entries[task] = {"n": len(by_problem), "score": score, "ci95": [0, 1], "protocol": "Asked; greedy.", **changes}
    path.mkdir(parents=True)
    (path / "results.json").write_text(json.dumps(entries))
    (path / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in found))
    return path


def pair(right_a: int, right_b: int, problems: int = 164) -> tuple[dict[str, float], dict[str, float]]:
    """Scores of two models, the one right on the first problems, the other on the last ones."""
    names = [f"python/{number}" for number in range(problems)]
    a = {name: float(number < right_a) for number, name in enumerate(names)}
    return a, {name: float(number >= problems - right_b) for number, name in enumerate(names)}


def test_a_clear_difference_is_shown_with_the_p_of_the_sign_test(tmp_path: Path):
    a, b = pair(20, 60)
    found = compare(folder(tmp_path / "a", samples("t", a)), folder(tmp_path / "b", samples("t", b)))["tasks"]["t"]
    assert found["verdict"] == "B higher"
    assert (found["n"], found["unequal"]) == (164, 80)
    assert found["a"]["score"] == pytest.approx(20 / 164)
    assert found["difference"] == pytest.approx(40 / 164)
    assert found["ci95"][0] > 0
    assert found["p"] == pytest.approx(binomtest(20, 80).pvalue, abs=2e-4)
    assert found["p_holm"] == found["p"]


def test_the_labels_decide_only_the_sign(tmp_path: Path):
    a, b = (folder(tmp_path / name, samples("t", scores)) for name, scores in zip("ab", pair(20, 60), strict=True))
    one, two = compare(a, b)["tasks"]["t"], compare(b, a)["tasks"]["t"]
    assert (one["verdict"], two["verdict"]) == ("B higher", "A higher")
    assert one["p"] == pytest.approx(two["p"], abs=1e-4)
    assert one["difference"] == -two["difference"]


def test_a_small_difference_is_not_shown_and_equal_answers_are_called_equal(tmp_path: Path):
    a, b = pair(50, 56)
    one, two = folder(tmp_path / "a", samples("t", a)), folder(tmp_path / "b", samples("t", b))
    assert compare(one, two)["tasks"]["t"]["verdict"] == "no difference shown"
    same = compare(one, one)["tasks"]["t"]
    assert (same["verdict"], same["p"], same["ci95"]) == ("equal on every problem", 1.0, [0.0, 0.0])


def test_pairing_sees_what_the_intervals_of_the_two_scores_hide(tmp_path: Path):
    a = {f"python/{number}": float(number < 80) for number in range(160)}
    b = a | {f"python/{number}": 1.0 for number in range(80, 90)}
    found = compare(folder(tmp_path / "a", samples("t", a)), folder(tmp_path / "b", samples("t", b)))["tasks"]["t"]
    assert found["a"]["ci95"][1] > found["b"]["ci95"][0]
    assert found["verdict"] == "B higher"
    assert found["p"] == pytest.approx(2 / 2**10)


def test_only_problems_that_both_scored_count(tmp_path: Path):
    a = {"python/1": 1.0, "python/2": 0.0, "python/3": 1.0, "python/5": None}
    b = {"python/2": 1.0, "python/3": 1.0, "python/4": 0.0, "python/5": 1.0}
    result = compare(folder(tmp_path / "a", samples("t", a)), folder(tmp_path / "b", samples("t", b)))
    found = result["tasks"]["t"]
    assert (found["n"], found["only_a"], found["only_b"]) == (2, 1, 2)
    assert (found["a"]["score"], found["b"]["score"]) == (0.5, 1.0)
    assert "2 problems are scored in B alone" in words(result)


def test_several_samples_of_a_problem_are_one_outcome(tmp_path: Path):
    """A hundred samples of three problems are three differences, of which no test can make more than p = 1/4."""
    a, b = samples("t", dict.fromkeys("xyz", 0.0), each=100), samples("t", dict.fromkeys("xyz", 1.0), each=100)
    found = compare(folder(tmp_path / "a", a), folder(tmp_path / "b", b))["tasks"]["t"]
    assert (found["n"], found["p"], found["verdict"]) == (3, 0.25, "no difference shown")


def test_several_benchmarks_are_corrected_for(tmp_path: Path):
    """The p-value is 0.031 on each; one benchmark alone would show a difference, two do not."""
    a, b = [], []
    for task in ("one", "two"):
        a += samples(task, {f"p/{number}": 0.0 for number in range(6)})
        b += samples(task, {f"p/{number}": 1.0 for number in range(6)})
    both = compare(folder(tmp_path / "a", a), folder(tmp_path / "b", b))
    assert both["tasks"]["one"]["p"] == pytest.approx(1 / 32)
    assert both["tasks"]["one"]["verdict"] == "no difference shown"
    assert both["correction"] == "Holm over 2"
    alone = compare(folder(tmp_path / "c", a[:6]), folder(tmp_path / "d", b[:6]))
    assert alone["tasks"]["one"]["verdict"] == "B higher"


def test_other_protocols_are_refused_and_named(tmp_path: Path):
    a = folder(tmp_path / "a", samples("t", {"p": 1.0}), protocol="The raw prompt. Style base; greedy.")
    b = folder(tmp_path / "b", samples("t", {"p": 1.0}), protocol="The raw prompt. Style base; 10 samples.")
    with pytest.raises(InputError) as caught:
        compare(a, b)
    assert "A: greedy; B: 10 samples" in caught.value.message
    assert "raw prompt" not in caught.value.message
    assert "--any-protocol" in caught.value.next_step
    told = compare(a, b, any_protocol=True)
    assert told["tasks"]["t"]["protocols_differ"] == ["A: greedy; B: 10 samples"]
    assert "Two protocols. A: greedy; B: 10 samples" in words(told)


def test_another_style_is_another_protocol(tmp_path: Path):
    a = folder(tmp_path / "a", samples("t", {"p": 1.0}), style="base")
    b = folder(tmp_path / "b", samples("t", {"p": 1.0}), style="chat")
    with pytest.raises(InputError, match="style: A base, B chat"):
        compare(a, b)


def test_a_mean_over_languages_is_compared_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """B gains on python, of which there is much, and loses all of java: the mean over languages falls."""
    a = {f"python/{n}": 0.0 for n in range(90)} | {f"java/{n}": 1.0 for n in range(10)}
    b = {f"python/{n}": float(n < 30) for n in range(90)} | {f"java/{n}": 0.0 for n in range(10)}
    one = folder(tmp_path / "a", samples("by-language", a), score=0.5)
    two = folder(tmp_path / "b", samples("by-language", b), score=1 / 6)
    found = compare(one, two)["tasks"]["by-language"]
    assert (found["a"]["score"], found["b"]["score"]) == (0.5, pytest.approx(1 / 6))
    assert (found["difference"], found["verdict"]) == (pytest.approx(-1 / 3), "A higher")
    monkeypatch.undo()
    assert comparing.average_of("multipl-e") == "language"
    assert comparing.average_of("a benchmark of another version") == ""


def infilling(path: Path, right: Mapping[str, bool]) -> Path:
    """What the stage evaluate writes of a run's own held-out files."""
    found = [
        {"task": "infilling", "problem": name, "exact_match": ok, "edit_similarity": 0.5 + ok / 2, "language": "Python"}
        for name, ok in right.items()
    ]
    share = float(np.mean(list(right.values())))
    same = {"n": len(found), "ci95": [0, 1], "protocol": "greedy"}
    entries = {
        "bits_per_byte": same | {"score": 2.1234},
        "fim_exact_match": same | {"score": share},
        "fim_edit_similarity": same | {"score": 0.5 + share / 2},
        "fim_exact_match_copy": same | {"score": 0.2},
    }
    (path / "evaluate").mkdir(parents=True)
    (path / "evaluate" / "results.json").write_text(json.dumps(entries))
    (path / "evaluate" / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in found))
    return path


def test_two_runs_are_compared_on_their_own_held_out_lines_by_file(tmp_path: Path):
    """Twelve holes of three files are three outcomes, not twelve."""
    holes = [f"file{number // 4}:{number}" for number in range(12)]
    a = infilling(tmp_path / "a", dict.fromkeys(holes, False))
    b = infilling(tmp_path / "b", dict.fromkeys(holes, True))
    found = compare(a, b)
    assert found["tasks"].keys() == {"fim_exact_match", "fim_edit_similarity"}
    match = found["tasks"]["fim_exact_match"]
    assert (match["n"], match["difference"], match["p"]) == (12, 1.0, 0.25)
    assert match["verdict"] == "no difference shown"
    assert found["left_out"].keys() == {"bits_per_byte"}
    assert "A 2.1234, B 2.1234, untested" in found["left_out"]["bits_per_byte"]


def test_what_a_run_really_measures_of_its_own_files_can_be_compared(measured_run: Path, tmp_path: Path):
    settings = MeasureConfig(bits_tokens=1500, infilling_samples=20, infilling_tokens=12, batch=4)
    real = measured(measured_run, "pretrain", 1, 5000, settings)
    (tmp_path / "results.json").write_text(json.dumps(real.tasks))
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in real.samples))
    found = compare(tmp_path, tmp_path)
    assert found["tasks"].keys() == {"fim_exact_match"}
    match, stated = found["tasks"]["fim_exact_match"], real.tasks["fim_exact_match"]
    assert match["n"] == stated["n"]
    assert match["a"]["ci95"] == pytest.approx(stated["ci95"], abs=1e-6)
    assert match["verdict"] == "equal on every problem"


def test_files_with_more_holes_weigh_more_as_in_the_score(tmp_path: Path):
    holes = ["f:1", *(f"g:{line}" for line in range(1, 10))]
    a = infilling(tmp_path / "a", dict.fromkeys(holes, False))
    b = infilling(tmp_path / "b", {hole: hole.startswith("g") for hole in holes})
    assert compare(a, b)["tasks"]["fim_exact_match"]["difference"] == pytest.approx(0.9)


def test_a_benchmark_without_a_score_is_left_out_with_the_reason(tmp_path: Path):
    a = folder(tmp_path / "a", [*samples("t", {"p": 1.0}), *samples("u", {"p": None})], reason="No answer is scored.")
    b = folder(tmp_path / "b", [*samples("t", {"p": 1.0}), *samples("u", {"p": 1.0})])
    found = compare(a, b)
    assert found["left_out"] == {"u": "A has no score. No answer is scored."}
    assert "Not compared: u. A has no score." in words(found)


def test_samples_of_another_evaluation_than_the_results_are_refused(tmp_path: Path):
    a = folder(tmp_path / "a", samples("t", {"p": 1.0, "q": 0.0}), score=0.9)
    with pytest.raises(InputError, match=r"says 0\.9 for t, samples\.jsonl gives 0\.5"):
        compare(a, a)


def test_folders_that_cannot_be_compared_are_told(tmp_path: Path):
    a = folder(tmp_path / "a", samples("t", {"p": 1.0}))
    b = folder(tmp_path / "b", samples("u", {"p": 1.0}))
    with pytest.raises(InputError, match="no benchmark in common"):
        compare(a, b)
    with pytest.raises(InputError, match=r"holds no results\.json"):
        compare(a, tmp_path / "nowhere")
    (a / "samples.jsonl").write_text('{"task": "t", "problem": "p", "score": 1.0}\n{"task": "t"\n')
    with pytest.raises(InputError, match=r"samples\.jsonl, line 2"):
        compare(a, b)


def test_the_table_fits_100_columns_and_says_how_it_was_tested(tmp_path: Path):
    a, b = pair(20, 60)
    names = ("human-eval-infilling", "t")
    one = folder(tmp_path / "a", [s for name in names for s in samples(name, a)], model="m1")
    two = folder(tmp_path / "b", [s for name in names for s in samples(name, b)], model="m2")
    told = words(compare(one, two))
    below = told.split("\n\n", 1)[1]
    assert max(map(len, below.split("\n"))) <= 100
    assert "(m1)" in told
    assert "B higher" in below
    assert "2 benchmarks (Holm)" in below.replace("\n", " ")
