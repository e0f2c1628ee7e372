"""A judge that needs no sandbox, and problems and prompts for the tests of rollouts."""

from collections.abc import Callable
from concurrent.futures import Future

from codeweft.base.records import Problem, Status, Test, Verdict
from codeweft.rl.judging import Outcome, outcome_of
from codeweft.rl.prompts import Prompt
from codeweft.tokenizer.chat import encode_chat
from codeweft.tokenizer.load import Tokenizer


class StubJudge:
    """Finds with a function of the text what the sandbox would find with tests; keeps what it was asked."""

    def __init__(self, verdict: Callable[[str], Status]) -> None:
        self.verdict, self.asked = verdict, []

    def judge(self, problem: Problem, text: str, tests: str) -> "Future[Outcome]":
        self.asked.append((problem.id, text, tests))
        found: Future[Outcome] = Future()
        status = self.verdict(text)
        found.set_result(outcome_of(Verdict(status, int(status == "ok"), 1, 0.0, 0, "namespaces", "split")))
        return found


def problem(name: str) -> Problem:
    tests = (Test("call", args=(1,), expected=1),)
    return Problem(
        name, "katas", language="python", entry_point="f", prompt=f"Do {name}.", tests_visible=tests, split="train",
        tests_hidden=tests, facts={"parameters": ["n"], "statement": "x", "unseen_family": False},
    )  # fmt: skip


def prompts(tokenizer: Tokenizer, count: int) -> list[Prompt]:
    asked = [problem(f"p{number}") for number in range(count)]
    return [Prompt(each, tuple(encode_chat(tokenizer, [{"role": "user", "content": each.prompt}]))) for each in asked]
