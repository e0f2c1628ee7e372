"""Collected feedback: what a row says, that it can be had again, and that other problems change nothing of it."""

import dataclasses
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from tiny_judge import StubJudge, prompts

from codeweft.base.records import Feedback, Problem, Verdict
from codeweft.engine.engine import Engine
from codeweft.model.folder import load_folder
from codeweft.rl import feedback
from codeweft.rl.config import PreferenceConfig
from codeweft.rl.feedback import collect, judged_by, measurable, read_feedback
from codeweft.rl.judging import Outcome, outcome_of
from codeweft.rl.preferences import select_pairs
from codeweft.rl.prompts import Prompt
from codeweft.rl.rollout import EngineSampler
from codeweft.tokenizer.load import Tokenizer, load_tokenizer

ANSWERS, LONGEST = 3, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "PORTION", 2)


def sampler(folder: Path) -> EngineSampler:
    model = load_folder(folder, dtype=torch.float32)
    return EngineSampler(Engine(model, load_tokenizer(folder), rows=4, max_length=160, guess=0), LONGEST, 1.0, 1.0)


def collected(asked: list[Prompt], staging: Path, given: EngineSampler, judge: Any = None) -> list[Feedback]:
    return collect(asked, ANSWERS, 5, "train", given, judge or StubJudge(lambda text: "wrong"), staging)


def test_a_row_tells_an_answer_its_likelihood_and_both_verdicts(folder: Path, tokenizer: Tokenizer, tmp_path: Path):
    class ByKind(StubJudge):
        def judge(self, problem: Problem, text: str, tests: str) -> "Future[Outcome]":
            self.asked.append((problem.id, text, tests))
            found: Future[Outcome] = Future()
            passed, total = (1, 1) if tests == "visible" else (2, 5)
            status = "ok" if passed == total else "wrong"
            found.set_result(outcome_of(Verdict(status, passed, total, 0.0, 0, "remote", "split")))
            return found

    asked, judge = prompts(tokenizer, 3), ByKind(lambda text: "ok")
    rows = collected(asked, tmp_path / "staging", sampler(folder), judge)
    assert [row.problem for row in rows] == ["p0"] * 3 + ["p1"] * 3 + ["p2"] * 3
    assert len({row.seed for row in rows}) == len({row.text for row in rows}) == 9
    model = load_folder(folder, dtype=torch.float32)
    for row, prompt in zip(rows, [each for each in asked for _ in range(ANSWERS)], strict=True):
        assert (row.visible, row.visible_passed, row.visible_total) == ("ok", 1, 1)
        assert (row.hidden, row.hidden_passed, row.hidden_total) == ("wrong", 2, 5)
        assert (row.tier, row.mode) == ("remote", "split")
        # half a character at the end of a text that was cut off is not shown
        assert row.text.removesuffix("\ufffd") == tokenizer.decode(row.tokens).removesuffix("\ufffd")
        assert row.finish == ("stop" if row.tokens[-1] == tokenizer.end else "length")
        assert len(row.tokens) <= LONGEST
        tokens = torch.tensor([[*prompt.tokens, *row.tokens]])
        with torch.no_grad():
            logprob = model(tokens).logits_BTW[0].log_softmax(-1)[len(prompt.tokens) - 1 : -1]
        expected = logprob.gather(1, tokens[0, len(prompt.tokens) :, None]).sum()
        assert row.logprob == pytest.approx(float(expected), abs=1e-3)
    for row in rows:
        assert {(row.problem, row.text, kind) for kind in ("visible", "hidden")} <= set(judge.asked)
    assert len(judge.asked) == 18


def test_a_portion_that_was_lost_comes_again_as_it_was(folder: Path, tokenizer: Tokenizer, tmp_path: Path):
    """The prompts begin alike: an engine that went on has read of them what a new one has not."""
    words = "Write the function as it was asked for before and return what it is to return. "
    asked = [
        dataclasses.replace(each, tokens=(*tokenizer.encode(words * 2), *each.tokens)) for each in prompts(tokenizer, 6)
    ]
    whole, staging = collected(asked, tmp_path / "whole", sampler(folder)), tmp_path / "cut"
    stopping = StubJudge(lambda text: "wrong")
    stopping.judge = stopped_after(2 * 2 * ANSWERS * 2 - 3, stopping.judge)
    with pytest.raises(KeyboardInterrupt):
        collected(asked, staging, sampler(folder), stopping)
    assert sorted(path.name for path in staging.iterdir()) == ["feedback-train-000000.parquet"]
    assert collected(asked, staging, sampler(folder)) == whole
    names = [f"feedback-train-{first:06d}.parquet" for first in (0, 2, 4)]
    assert sorted(path.name for path in staging.iterdir()) == names
    for name in names:
        assert (staging / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def stopped_after(count: int, judge: Any) -> Any:
    turn = iter(range(10**6))

    def asked(*given: Any) -> Any:
        if next(turn) == count:
            raise KeyboardInterrupt
        return judge(*given)

    return asked


def test_other_problems_change_no_answer(folder: Path, tokenizer: Tokenizer, tmp_path: Path):
    asked = prompts(tokenizer, 4)
    together = collected(asked, tmp_path / "one", sampler(folder))
    alone = collected([asked[2]], tmp_path / "two", sampler(folder))
    assert [(row.seed, row.tokens) for row in alone] == [(row.seed, row.tokens) for row in together[6:9]]


def test_a_known_result_is_asked_for_once_and_counts_for_both(folder: Path, tokenizer: Tokenizer, tmp_path: Path):
    [prompt] = prompts(tokenizer, 1)
    calculation = Problem("p0", "gsm8k", prompt="2 + 3?", reference="5", facts={"shots": ""})
    judge = StubJudge(lambda text: "ok")
    rows = collected([dataclasses.replace(prompt, problem=calculation)], tmp_path, sampler(folder), judge)
    assert [kind for _, _, kind in judge.asked] == ["visible"] * ANSWERS
    assert {(row.visible, row.visible_total, row.hidden, row.hidden_total) for row in rows} == {("ok", 1, "ok", 1)}
    assert measurable(calculation)
    assert not measurable(dataclasses.replace(prompt.problem, tests_hidden=()))


ROW = Feedback("p", 1, "x", (5, 6), -2.0, "stop", "ok", 1, 1, "wrong", 1, 4, "namespaces", "split")


def test_an_answer_that_was_not_judged_is_in_no_pair():
    rows = [
        ROW,
        dataclasses.replace(ROW, text="y", visible="harness_error", visible_passed=0),
        dataclasses.replace(ROW, text="z", visible="refused", visible_passed=0, visible_total=0),
        dataclasses.replace(ROW, text="w", visible="wrong", visible_passed=0),
    ]
    chosen = select_pairs(judged_by(rows, "visible"), PreferenceConfig(), 1)
    assert chosen.places == [(0, 3)]
    assert chosen.left_out == {"not judged": 2}
    # by hidden tests all four passed as many
    assert select_pairs(judged_by(rows, "hidden"), PreferenceConfig(chosen_passes_all=False), 1).places == []


def test_rows_read_back_as_they_were(tmp_path: Path):
    import pyarrow.parquet as pq

    rows = [ROW, dataclasses.replace(ROW, text="ü\0\n", tokens=(), logprob=0.0)]
    pq.write_table(feedback.table_of(rows), tmp_path / "a.parquet")
    assert read_feedback(tmp_path / "a.parquet") == rows
