"""Evaluation: what is asked, judged, kept and scored, whatever interrupts it."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from evaluate.scripted import (
    NoFiles,
    ScriptedModel,
    ScriptedSandbox,
    compared,
    judged,
    problems,
    right,
    task,
    two_tries,
)
from tiny_model import make_folder

from codeweft.base.errors import ConfigError, InputError
from codeweft.base.records import Problem
from codeweft.evaluate import suite
from codeweft.evaluate.benchmarks import Plan, evaluate, plan
from codeweft.evaluate.config import EvaluateConfig
from codeweft.evaluate.local_models import LocalModel
from codeweft.evaluate.models import Drawing, Wanted
from codeweft.evaluate.tally import entry
from codeweft.sandbox.client import open_sandbox
from codeweft.sandbox.config import SandboxConfig
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.task import Answer, Ask, Style, Task

PROBLEMS = problems(6)


def settings(**changes: Any) -> EvaluateConfig:
    return EvaluateConfig(style="base", **changes)


def carried_out(made: Plan, model: Any, folder: Path, sandbox: Any = None) -> list[dict[str, Any]]:
    sandbox = sandbox or ScriptedSandbox()
    [(_, samples, _)] = asyncio.run(evaluate([made], model, sandbox, folder, settings())).values()
    return samples


def planned(of: Task, model: Any, **changes: Any) -> Plan:
    return plan(of, model, NoFiles(), settings(**changes), seed=1)


def half_right(wanted: Wanted) -> str:
    return right(PROBLEMS[wanted.number]) if wanted.number % 2 == 0 else "    return None\n"


def test_the_real_sandbox_passes_right_bodies_and_fails_others(tmp_path: Path):
    model = ScriptedModel(half_right)

    async def work() -> list[dict[str, Any]]:
        async with open_sandbox(SandboxConfig(cells=1)) as sandbox:
            [(_, samples, _)] = (
                await evaluate([planned(task(), model)], model, sandbox, tmp_path, settings())
            ).values()
            return samples

    samples = asyncio.run(work())
    assert [sample["score"] for sample in samples] == [1.0, 0.0] * 3
    assert {sample["verdict"]["mode"] for sample in samples} == {"split"}


def test_scores_come_for_all_and_by_family(tmp_path: Path):
    model = ScriptedModel(half_right)
    made = planned(task(), model)
    found = entry(made, carried_out(made, model, tmp_path), None, (1, 10), 0)
    assert (found["n"], found["pass@1"], found["score"]) == (6, 0.5, 0.5)
    assert found["per_family"]["even"]["score"] == 1.0
    assert found["per_family"]["odd"]["score"] == 0.0
    assert found["per_family"]["odd"]["ci95"][1] > 0, "three failures do not prove that it always fails"
    assert found["ci95"][0] < 0.5 < found["ci95"][1]


def test_clean_problems_are_scored_apart(tmp_path: Path):
    model = ScriptedModel(half_right)
    made = planned(task(), model)
    found = entry(made, carried_out(made, model, tmp_path), {"add/0", "add/2"}, (1,), 0)
    assert (found["contaminated"], found["clean"]["n"], found["clean"]["score"]) == (2, 4, 0.25)


@pytest.mark.parametrize("stop_after", [0, 1, 4, 11])
def test_an_interrupted_evaluation_asks_only_for_what_is_missing(tmp_path: Path, stop_after: int):
    whole = ScriptedModel(lambda wanted: f"    return {wanted.seed}\n")
    expected = carried_out(planned(task(), whole, samples=2), whole, tmp_path / "whole")
    first = ScriptedModel(whole.text, stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        carried_out(planned(task(), first, samples=2), first, tmp_path / "cut")
    kept = tmp_path / "cut" / "adding.jsonl"
    turns = [json.loads(line) for line in kept.read_text().splitlines()[1:]]
    judged = {int(turn["problem"].split("/")[1]) * 2 + turn["sample"] for turn in turns}
    kept.write_bytes(kept.read_bytes() + b'{"problem": "add/5", "sam')  # a kill in the middle of a line
    second = ScriptedModel(whole.text)
    assert carried_out(planned(task(), second, samples=2), second, tmp_path / "cut") == expected
    assert judged == set(range(12)) - set(second.asked), "what was judged is not asked again, the rest is"


def test_answers_to_other_settings_are_not_mixed(tmp_path: Path):
    model = ScriptedModel(half_right)
    carried_out(planned(task(), model), model, tmp_path)
    with pytest.raises(InputError, match=r"temperature changed from 0\.0 to 0\.5.*--restart"):
        carried_out(planned(task(), model, temperature=0.5), model, tmp_path)


def test_what_the_sandbox_could_not_judge_is_no_score_and_is_judged_again(tmp_path: Path):
    model = ScriptedModel(half_right)
    broken = ScriptedSandbox(statuses=["harness_error", "harness_error"])
    samples = carried_out(planned(task(), model), model, tmp_path, broken)
    assert [sample["score"] for sample in samples].count(None) == 1
    again = ScriptedModel(half_right)
    samples = carried_out(planned(task(), again), again, tmp_path)
    assert len(again.asked) == 1
    assert [sample["score"] for sample in samples] == [1.0, 0.0] * 3


def test_a_language_that_is_not_installed_is_not_scored(tmp_path: Path):
    model = ScriptedModel(half_right)
    made = planned(task(), model)
    samples = carried_out(made, model, tmp_path, ScriptedSandbox(statuses=["unsupported"] * 6))
    found = entry(made, samples, None, (1,), 0)
    assert (found["score"], found["unscored"]) == (None, {"unsupported": 6})


def test_answers_are_judged_while_others_are_written(tmp_path: Path):
    judged = asyncio.Event()

    async def wait(asked: int) -> None:
        if asked == 2:  # the third answer is not begun before one of the first two has its verdict
            await asyncio.wait_for(judged.wait(), 20)

    model = ScriptedModel(half_right, wait=wait)
    samples = carried_out(planned(task(), model), model, tmp_path, ScriptedSandbox(on_judge=judged.set))
    assert len(samples) == 6


def test_a_second_try_counts_and_both_texts_are_kept(tmp_path: Path):
    def text(wanted: Wanted) -> str:
        return half_right(wanted) if "again" not in wanted.ask.text else "    return n + 1\n"

    model = ScriptedModel(text)
    samples = carried_out(planned(task(follow=two_tries), model), model, tmp_path)
    assert [sample["score"] for sample in samples] == [1.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    assert [len(sample["earlier"]) for sample in samples] == [0, 1] * 3


def test_an_answer_without_form_counts_although_the_next_try_has_it(tmp_path: Path):
    def grade(problem: Problem, style: Style, text: str) -> Answer:
        made = judged(problem, style, text)
        return replace(made, metrics={"well_formed": float("None" not in text)})

    model = ScriptedModel(lambda wanted: half_right(wanted) if "again" not in wanted.ask.text else "    return 1\n")
    samples = carried_out(planned(task(grade, follow=two_tries), model), model, tmp_path)
    assert [sample["metrics"]["well_formed"] for sample in samples] == [1.0, 0.0] * 3


def test_pass_at_k_and_majorities_are_over_samples(tmp_path: Path):
    votes = iter(["add/0", "add/0", "no"])

    model = ScriptedModel(lambda wanted: next(votes))
    made = planned(task(compared, count=1), model, samples=3, temperature=1.0)
    found = entry(made, carried_out(made, model, tmp_path), None, (1, 2, 3, 9), 3)
    assert found["pass@1"] == pytest.approx(2 / 3, abs=1e-6)
    assert (found["pass@2"], found["pass@3"], found["maj@3"]) == (1.0, 1.0, 1.0)
    assert "pass@9" not in found
    assert found["metrics"]["length"]["score"] == pytest.approx(4.0)


def test_a_task_names_its_doubled_problem():
    doubled = task(load=lambda files, options: iter([PROBLEMS[0], PROBLEMS[0]]))
    with pytest.raises(InputError, match="two problems named add/0"):
        planned(doubled, ScriptedModel(half_right))


def test_limits_take_the_first_problems():
    made = planned(task(), ScriptedModel(half_right), options=TaskOptions(limit=2))
    assert [problem.id for problem in made.problems] == ["add/0", "add/1"]


# --- which way a model is asked --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model"))


def local(folder: Path, **changes: Any) -> LocalModel:
    return LocalModel(folder, EvaluateConfig(batch=2, **changes))


def test_a_base_model_is_asked_as_one_unless_told_otherwise(folder: Path):
    model = local(folder)
    auto = EvaluateConfig()
    assert model.kind == "base"
    assert plan(task(styles=("chat", "base")), model, NoFiles(), auto, 1).drawing.style == "base"
    assert plan(task(styles=("base", "likelihood")), model, NoFiles(), auto, 1).drawing.style == "likelihood"
    chat = plan(task(), model, NoFiles(), EvaluateConfig(style="chat"), 1)
    assert "chat template is used on a base model" in chat.warning
    assert plan(task(styles=("chat",)), model, NoFiles(), auto, 1).reason


def test_a_model_without_infilling_gets_no_infilling_score(tmp_path: Path):
    plain = make_folder(tmp_path / "plain", fim_rate=0.0)
    made = plan(task(styles=("infill", "base")), local(plain), NoFiles(), EvaluateConfig(), 1)
    assert "not trained to infill" in made.reason
    found = entry(made, [], None, (1,), 0)
    assert (found["score"], found["reason"]) == (None, made.reason)
    assert not plan(task(styles=("infill",)), local(plain, assume_fim=True), NoFiles(), EvaluateConfig(), 1).reason


def test_a_folder_that_does_not_say_what_it_is_must_be_told(folder: Path):
    model = local(folder)
    model.kind = "unknown"
    with pytest.raises(ConfigError, match="--style base or --style chat"):
        plan(task(styles=("chat", "base")), model, NoFiles(), EvaluateConfig(), 1)


def test_a_style_that_a_task_has_not_is_refused(folder: Path):
    with pytest.raises(ConfigError, match="It has base"):
        plan(task(styles=("base",)), local(folder), NoFiles(), EvaluateConfig(style="chat"), 1)


# --- a model folder --------------------------------------------------------------------------------------------------


def test_a_local_model_resumed_anywhere_says_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sampled = {"samples": 3, "temperature": 0.8}
    whole = carried_out(planned(task(compared, 5), local(folder), **sampled), local(folder), tmp_path / "whole")
    from codeweft.evaluate.journal import Journal

    append, kept = Journal.append, []

    def cut(self: Journal, turn: dict[str, Any]) -> None:
        if len(kept) == 7:
            raise KeyboardInterrupt
        kept.append(turn)
        append(self, turn)

    monkeypatch.setattr(Journal, "append", cut)
    with pytest.raises(KeyboardInterrupt):
        carried_out(planned(task(compared, 5), local(folder), **sampled), local(folder), tmp_path / "cut")
    monkeypatch.undo()
    assert carried_out(planned(task(compared, 5), local(folder), **sampled), local(folder), tmp_path / "cut") == whole
    assert len({sample["text"] for sample in whole}) > 5, "samples of one problem differ"


def test_an_ask_that_does_not_fit_is_refused_not_cut(folder: Path, tmp_path: Path):
    long = task(compared, 2, ask=lambda problem, style, room: Ask("x = 1\n" * (400 if problem.id == "add/1" else 4)))
    samples = carried_out(planned(long, local(folder)), local(folder), tmp_path)
    assert [sample["score"] is None for sample in samples] == [False, True]
    assert "this model takes 192" in samples[1]["detail"]


def test_choices_are_as_likely_as_transformers_says(folder: Path):
    """The sum of log-probabilities of a choice's tokens after the prompt, in float32."""
    model = local(folder)
    choices = (" the", " return self", "x")

    async def first() -> Any:
        wanted = [Wanted(0, Ask("def f(self):", choices=choices), 1)]
        found = [said async for said in model.say(wanted, frozenset(), Drawing("likelihood"))]
        return found.pop()

    said = asyncio.run(first())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = [model.tokenizer.begin, *model.tokenizer.encode("def f(self):")]
    for choice, ours in zip(choices, said.choices, strict=True):
        ids = model.tokenizer.encode(choice)
        with torch.no_grad():
            logprob = theirs(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        expected = sum(float(logprob[len(prompt) - 1 + place, token]) for place, token in enumerate(ids))
        assert ours == pytest.approx(expected, abs=1e-3)
    assert said.text == str(max(range(3), key=said.choices.__getitem__))


# --- folders ---------------------------------------------------------------------------------------------------------


def request(model: Path, folder: Path, **changes: Any) -> suite.Request:
    config = EvaluateConfig(batch=4, tasks=("katas",), options=TaskOptions(kata_problems=6), max_tokens=12, **changes)
    return suite.Request(str(model), config, folder, folder / "staging", 1, SandboxConfig(cells=1))


def test_a_folder_holds_results_samples_and_a_sample_can_be_replayed(tmp_path: Path):
    asked = request(make_folder(tmp_path / "model", max_position_embeddings=1024), tmp_path / "out")
    suite.write(asked, suite.measure(asked))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["katas"]["n"] == 6
    again = suite.measure(asked)
    assert again.entries == results, "nothing changed, nothing is asked"
    stored = again.samples[3]
    found = suite.replay(asked, stored["id"])
    assert found["same"] == {"prompt_digest": True, "text": True, "score": True}
    with pytest.raises(InputError, match=r"They are named like katas/"):
        suite.replay(asked, "katas/none#0")
