"""Problems as prompts: which can be asked and judged, by which tests, and what is said of the others."""

import dataclasses
from typing import Any

import pytest
import tiny_model
from tiny_judge import problem

from codeweft.base.errors import InputError
from codeweft.base.records import Problem, Test
from codeweft.rl.prompts import graded, prompts_of, unsuitable, with_few_tests
from codeweft.tasks.mathematics import REASON
from codeweft.tokenizer.chat import encode_chat
from codeweft.tokenizer.load import Tokenizer

VISIBLE = tuple(Test("call", args=(n,), expected=n) for n in range(3))
HIDDEN = tuple(Test("call", args=(n,), expected=n) for n in range(10, 14))
KATA = dataclasses.replace(problem("kata"), tests_visible=VISIBLE, tests_hidden=HIDDEN)
SUM = Problem("sum", "gsm8k", prompt="What is 2 and 3?", reference="5", facts={"shots": ""})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tiny_model.make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_a_prompt_is_the_conversation_that_asks_the_problem(tokenizer: Tokenizer):
    kata, calculation = prompts_of([KATA, SUM], tokenizer, 200, "visible", "grpo")
    asked = ({"role": "user", "content": KATA.prompt},), ({"role": "user", "content": SUM.prompt + REASON},)
    assert [kata.tokens, calculation.tokens] == [tuple(encode_chat(tokenizer, messages)) for messages in asked]
    assert tokenizer.decode(kata.tokens).endswith("Assistant:")


def test_what_is_too_long_or_cannot_be_judged_is_left_out_and_counted(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
):
    long = dataclasses.replace(KATA, id="long", prompt="Do this. " * 60)
    shown = dataclasses.replace(KATA, id="shown", tests_hidden=())
    infilled = Problem("hole", "fim-single-line", reference="x", facts={"suffix": ""})
    limit = len(encode_chat(tokenizer, [{"role": "user", "content": KATA.prompt}]))
    kept = prompts_of([KATA, long, long, shown, infilled], tokenizer, limit, "hidden", "grpo")
    assert [each.problem.id for each in kept] == ["kata"]
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"codeweft: grpo: 2 problems are longer than {limit} tokens and are left out.",
        "codeweft: grpo: 1 problems cannot be asked in chat and are left out.",
        "codeweft: grpo: 1 problems have no hidden tests and are left out.",
    ]


@pytest.mark.parametrize(
    ("problems", "longest", "step"),
    [([], 100, "Raise problems.katas"), ([KATA], 3, "Raise pace.sequence, or lower max_tokens")],
)
def test_where_nothing_can_be_asked_the_next_step_is_told(
    problems: list[Problem], longest: int, step: str, tokenizer: Tokenizer
):
    with pytest.raises(InputError, match="grpo: there are no problems to answer") as caught:
        prompts_of(problems, tokenizer, longest, "visible", "grpo")
    assert caught.value.next_step.startswith(step)


@pytest.mark.parametrize(("tests", "expected"), [("visible", VISIBLE), ("hidden", HIDDEN), ("all", VISIBLE + HIDDEN)])
def test_an_answer_is_judged_by_the_tests_that_are_meant_and_no_others(tests: Any, expected: tuple[Test, ...]):
    answer = graded(KATA, "```python\ndef f(n):\n    return n\n```", tests)
    assert answer.submission is not None
    assert answer.submission.tests == expected
    assert answer.submission.code.strip() == "def f(n):\n    return n"


def test_tests_are_not_run_twice_for_a_task_that_judges_by_both_kinds():
    facts = {"file": "a.py", "unordered": [], "tolerance": 0.0}
    exercise = dataclasses.replace(KATA, task="exercism-edits", facts=facts, limits={"cpu_seconds": 1.0})
    answer = graded(exercise, "a.py\n```\ndef f(n):\n    return n\n```\n", "visible")
    assert answer.submission is not None
    assert answer.submission.tests == VISIBLE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"task": "arena-hard", "tests_visible": (), "tests_hidden": ()}, "have neither tests nor a known result"),
        ({"tests_visible": ()}, "have no visible tests"),
        ({"tests_visible": (), "tests_hidden": ()}, "have neither tests nor a known result"),
        ({"task": "gsm8k", "tests_visible": (), "tests_hidden": (), "reference": "5"}, ""),
        # as problems/visible.jsonl has it: without its result nobody can say what is right
        (
            {"task": "gsm8k", "tests_visible": (), "tests_hidden": (), "facts": {"shots": ""}},
            "have neither tests nor a known result",
        ),
        # tests that only run beside the answer prove little
        (
            {"task": "mbpp", "facts": {"mode": "compat", "setup": "", "tests": ["assert f(1) == 1"]}},
            "have tests that run beside the answer (mode compat), which prove little,",
        ),
    ],
)
def test_a_problem_that_could_never_be_judged_is_known_before_it_is_asked(changes: dict[str, Any], reason: str):
    assert unsuitable(dataclasses.replace(KATA, **changes), "visible") == reason


def test_few_tests_are_the_first_visible_ones_and_none_of_the_hidden():
    [few] = with_few_tests([KATA], 2)
    assert (few.tests_visible, few.tests_hidden) == (VISIBLE[:2], HIDDEN)
    assert with_few_tests([KATA], 0) == [KATA]
