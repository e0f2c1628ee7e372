"""Groups of answers: drawn alike alone and together, weighed against each other, told in words."""

import dataclasses
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from tiny_judge import StubJudge, prompts

from codeweft.base.records import Rollout
from codeweft.engine.engine import Engine
from codeweft.model.folder import load_folder
from codeweft.rl.config import ObjectiveConfig
from codeweft.rl.judging import Outcome
from codeweft.rl.rollout import (
    Drawn,
    EngineSampler,
    Pending,
    Rewards,
    Wanted,
    diagnosis,
    draw,
    facts,
    grouped,
    judged,
    silent,
    weights_digest,
)  # fmt: skip
from codeweft.tokenizer.load import Tokenizer, load_tokenizer

ROW = Rollout(0, "p", 0, 1, (5, 6), (-0.1, -0.2), 1.0, 0.0, "ok", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def sampler(folder: Path) -> EngineSampler:
    engine = Engine(load_folder(folder), load_tokenizer(folder), rows=5, guess=0)
    return EngineSampler(engine, 12, 1.0, 1.0)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


def test_an_answer_is_the_same_alone_and_in_its_group(sampler: EngineSampler, tokenizer: Tokenizer):
    """The engine's noise belongs to a seed, which follows from step, place and number."""
    judge = StubJudge(lambda text: "ok")
    together = draw(prompts(tokenizer, 3), 4, 9, 2, sampler, judge, "visible")
    assert len(set(together.seeds)) == 12
    alone: dict[int, Drawn] = {}
    wanted = Wanted(together.prompts[1], together.seeds[6])
    sampler.draw([wanted], lambda number, answer: alone.update({number: answer}))
    assert alone[0].tokens == together.drawn[6].tokens
    assert alone[0].logprobs == pytest.approx(together.drawn[6].logprobs, abs=1e-4)
    assert sorted(judge.asked) == sorted(
        (prompt.problem.id, answer.text, "visible")
        for prompt, answers in zip(together.prompts, np.array_split(np.arange(12), 3), strict=True)
        for answer in (together.drawn[number] for number in answers)
    )


def test_another_step_draws_other_answers(sampler: EngineSampler, tokenizer: Tokenizer):
    first, second = (draw(prompts(tokenizer, 1), 3, 9, step, sampler, None, "visible") for step in (1, 2))
    assert not set(first.seeds) & set(second.seeds)
    assert first.verdicts == (None,) * 3


def test_a_drawing_that_is_interrupted_leaves_no_row_occupied(sampler: EngineSampler, tokenizer: Tokenizer):
    def stop(number: int, answer: Drawn) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler.draw([Wanted(prompt, 3) for prompt in prompts(tokenizer, 9)], stop)
    while sampler.engine.busy:
        sampler.engine.step()
    answers: list[int] = []
    sampler.draw([Wanted(prompts(tokenizer, 1)[0], 3)], lambda number, answer: answers.append(number))
    assert answers == [0]


def pending(tokenizer: Tokenizer, statuses: Sequence[str], size: int) -> Pending:
    judge = StubJudge(lambda text: text)
    drawn = tuple(Drawn((7, tokenizer.end), (-1.0, -0.5), status, "stop") for status in statuses)
    asked = prompts(tokenizer, len(statuses) // size)
    verdicts = tuple(judge.judge(asked[0].problem, answer.text, "all") for answer in drawn)
    return Pending(tuple(asked), size, tuple(range(len(drawn))), drawn, verdicts)


def test_rewards_are_relative_to_the_group_and_what_cannot_be_judged_counts_nowhere(tokenizer: Tokenizer):
    statuses = ["ok", "wrong", "wrong", "ok", "ok", "harness_error", "wrong", "ok"]
    rows = judged(pending(tokenizer, statuses, 4), Rewards(2.0, False), ObjectiveConfig(std_epsilon=0.0), 3, "d")
    assert [row.reward for row in rows[:4]] == [2, 0, 0, 2]
    known = np.array([2.0, 0.0, 2.0])
    expected = (known - known.mean()) / known.std(ddof=1)
    assert [rows[4].advantage, rows[6].advantage, rows[7].advantage] == pytest.approx(expected.tolist())
    assert math.isnan(rows[5].reward)
    assert rows[5].advantage == 0
    assert [(row.step, row.group, row.problem, row.weights_digest) for row in rows[3:5]] == [
        (3, 0, "p0", "d"), (3, 1, "p1", "d"),
    ]  # fmt: skip


def test_a_reward_models_score_is_added_by_its_weight_and_no_number_is_set_aside(tokenizer: Tokenizer):
    def scores(asked: Sequence[object], answers: Sequence[Drawn]) -> list[float]:
        return [0.5, math.inf, -1.0, 0.25]

    rewards = Rewards(1.0, False, 2.0, scores)
    rows = judged(pending(tokenizer, ["ok", "ok", "wrong", "ok"], 4), rewards, ObjectiveConfig(), 0, "")
    assert [row.reward for row in rows] == pytest.approx([2.0, math.nan, -2.0, 1.5], nan_ok=True)


def test_verdicts_are_waited_for_in_order_whenever_they_come(tokenizer: Tokenizer):
    late = pending(tokenizer, ["ok", "wrong"], 2)
    first: Future[Outcome] = Future()
    found = late.verdicts[0].result()
    late = dataclasses.replace(late, verdicts=(first, late.verdicts[1]))

    threading.Timer(0.05, first.set_result, [found]).start()
    rows = judged(late, Rewards(1.0, False), ObjectiveConfig(), 0, "")
    assert [row.reward for row in rows] == [1, 0]


def rows_of(*groups: str, reward: Callable[[str], float] = lambda verdict: float(verdict == "ok")) -> list[Rollout]:
    return [
        dataclasses.replace(ROW, group=number, verdict=verdict, reward=reward(verdict))
        for number, group in enumerate(groups)
        for verdict in group.split()
    ]


def test_groups_that_teach_nothing_are_told_with_their_cause():
    words = diagnosis(rows_of("ok wrong", "compile_error compile_error", "compile_error compile_error", "ok ok"))
    assert words == (
        "3 of 4 groups teach nothing: all 2 answers failed to compile (2 groups), all 2 answers passed (1 group)."
    )
    assert diagnosis(rows_of("ok wrong", "wrong ok")) == ""
    mixed = diagnosis(rows_of("wrong time_limit wrong"))
    assert mixed == "1 of 1 groups teach nothing: 2 of 3 answers were wrong (1 group)."
    unknown = diagnosis(rows_of("harness_error harness_error", reward=lambda verdict: math.nan))
    assert "all 2 answers could not be judged" in unknown


def test_the_facts_of_a_rollout_are_means_over_its_answers():
    rows = [
        *rows_of("ok wrong", "compile_error compile_error"),
        dataclasses.replace(ROW, group=2, tokens=(5, 6, 7, 8), reward=math.nan, verdict="harness_error"),
    ]
    found = facts(rows, end=6)
    assert found == {
        "reward": 0.25, "length": 12 / 5, "cut_off": 0.2, "silent_groups": 2 / 3, "unjudged": 1.0, "passed": 0.2,
        "compiled": 0.6,
    }  # fmt: skip
    assert [silent(group) for group in grouped(rows)] == [False, True, True]


def test_equal_weights_have_one_name_and_others_another(folder: Path):
    model, same = load_folder(folder), load_folder(folder)
    assert weights_digest(model) == weights_digest(same)
    next(iter(same.parameters())).data[0, 0] += 0.25
    assert weights_digest(model) != weights_digest(same)
