"""No cheat passes where the verdict is found outside, in `split` and `stdio`; those that pass in `compat` are known."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sandbox.cheats import (
    CHEATS,
    HONEST_SUMS,
    PROBLEMS,
    SUMS,
    TOGETHER,
    TOGETHER_HONEST,
    TOGETHER_TESTS,
    Cheat,
)

from codeweft.base import records
from codeweft.base.records import Verdict
from codeweft.sandbox.client import Sandbox, open_sandbox
from codeweft.sandbox.config import Limits, Mode, SandboxConfig, Submission

LIMITS = Limits(cpu_seconds=0.25, wall_seconds=1.5, memory_mib=128, tasks=24, disk_mib=8, shared_mib=4, open_files=64)
ROOMY = Limits(cpu_seconds=4.0, wall_seconds=20.0, memory_mib=1024, tasks=128, open_files=1024, stack_mib=64)
# `harness_error` is none of them: who could cause it at will would never be given a zero
JUDGED = {
    "wrong", "runtime_error", "compile_error", "time_limit", "memory_limit", "output_limit", "incomplete", "bad_output",
}  # fmt: skip


class Judge:
    """One sandbox for all tests of this file, driven from outside its event loop."""

    def __init__(self, runner: asyncio.Runner, sandbox: Sandbox) -> None:
        self.runner, self.sandbox = runner, sandbox

    def __call__(self, submission: Submission) -> Verdict:
        return self.runner.run(self.sandbox.judge(submission))

    def together(self, submissions: list[Submission]) -> list[Verdict]:
        return self.runner.run(self.sandbox.judge_all(submissions))


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with asyncio.Runner() as runner:
        opening = open_sandbox(SandboxConfig(cells=1, cache=0))
        sandbox = runner.run(opening.__aenter__())
        yield Judge(runner, sandbox)
        runner.run(opening.__aexit__(None, None, None))


def submission(cheat: Cheat, kind: str, **changes: Any) -> Submission:
    """A cheat as an answer to its problem's tests of one kind."""
    if kind == "stdio":
        limits = LIMITS if cheat.language == "python" else ROOMY
        return Submission(cheat.language, cheat.code, SUMS, limits=limits, **changes)
    problem = PROBLEMS[cheat.problem]
    tests = problem.calls if kind == "call" else problem.asserts
    return Submission(
        "python", cheat.code, tests, problem.entry_point, limits=LIMITS, tolerance=problem.tolerance, **changes
    )


def honest(problem: str, kind: str, mode: Mode | None = None) -> Submission:
    return submission(Cheat("honest", PROBLEMS[problem].honest, problem), kind, mode=mode)


def skip_without(toolchain_of: Verdict) -> None:
    if toolchain_of.status == "unsupported":
        pytest.skip(f"toolchain: {toolchain_of.detail}")


CASES = [(cheat, kind) for cheat in CHEATS for kind in cheat.kinds]
NAMES = [f"{kind}-{cheat.language}-{cheat.name}" for cheat, kind in CASES]


@pytest.mark.parametrize(("cheat", "kind"), CASES, ids=NAMES)
def test_no_cheat_passes(judge: Judge, cheat: Cheat, kind: str):
    verdict = judge(submission(cheat, kind))
    skip_without(verdict)
    assert verdict.status in JUDGED, verdict
    assert verdict.passed < verdict.total
    assert verdict.mode == ("stdio" if kind == "stdio" else "split")
    assert verdict.tier == "namespaces"
    assert verdict.detail.isprintable()
    assert verdict.detail
    after = judge(honest("join", kind) if kind != "stdio" else Submission("python", HONEST_SUMS["python"], SUMS))
    assert after.status == "ok", after


@pytest.mark.parametrize("kind", ["call", "assert"])
@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_an_honest_answer_passes(judge: Judge, problem: str, kind: str):
    verdict = judge(honest(problem, kind))
    assert (verdict.status, verdict.mode) == ("ok", "split"), verdict
    assert verdict.passed == verdict.total > 0


@pytest.mark.parametrize("language", list(HONEST_SUMS))
def test_an_honest_program_passes(judge: Judge, language: str):
    verdict = judge(Submission(language, HONEST_SUMS[language], SUMS, limits=ROOMY))
    skip_without(verdict)
    assert (verdict.status, verdict.passed, verdict.mode) == ("ok", len(SUMS), "stdio"), verdict


def test_expected_values_that_a_cheat_could_guess_do_not_pass_the_rest(judge: Judge):
    """Without stopping early as well, an answer that is right once passes once."""
    once = "def join(one, other): return 42\n"
    for kind in ("call", "assert"):
        verdict = judge(submission(Cheat("once", once), kind, stop_early=False))
        assert verdict.status != "ok"
        assert verdict.passed == 1


# --- what is wrong without being a cheat: types and numbers -----------------------------------------------------------

UNEQUAL = (
    ("True", 1), ("1", True), ("False", 0), ("0", False), ("{True}", {1}), ("{True: 2}", {1: 2}), ("[True]", [1]),
    ("'1'", 1), ("b'1'", "1"), ("[1]", (1,)), ("(1,)", [1]), ("None", 0), ("None", False), ("{}", []), ("set()", {}),
    ("float('nan')", 1.0), ("1.0", float("nan")), ("float('inf')", 1e308), ("2 ** 53 + 1.0", 2**53 + 1),
    ("'a\\0'", "a"), ("{1: 2}", {2: 1}), ("[1, 2]", [1]), ("'\\ud800'", "?"), ("1j", 1),
)  # fmt: skip
EQUAL = (
    ("1.0", 1), ("1", 1.0), ("float('nan')", float("nan")), ("[float('nan')]", [float("nan")]), ("-0.0", 0.0),
    ("frozenset({1})", {1}), ("True", True), ("10 ** 5000", 10**5000), ("'\\ud800\\0\\x1b'", "\ud800\0\x1b"),
    ("{(1, 2): {None: b'x'}}", {(1, 2): {None: b"x"}}), ("__import__('collections').OrderedDict(a=1)", {"a": 1}),
)  # fmt: skip


def test_values_count_by_their_type(judge: Judge):
    faults = []
    for wanted, pairs in (("wrong", UNEQUAL), ("ok", EQUAL)):
        for expression, expected in pairs:
            test = records.Test("call", args=(), expected=expected)
            verdict = judge(
                Submission("python", f"def value(): return {expression}\n", (test,), "value", limits=LIMITS)
            )
            if verdict.status != wanted:
                faults.append(f"{expression} for {type(expected).__name__}: {verdict.status} instead of {wanted}")
    assert not faults


# --- the labelled mode -----------------------------------------------------------------------------------------

BESIDE = [cheat for cheat in CHEATS if "assert" in cheat.kinds]


@pytest.mark.parametrize("cheat", BESIDE, ids=[cheat.name for cheat in BESIDE])
def test_compat_is_labelled_and_what_passes_there_is_known(judge: Judge, cheat: Cheat):
    verdict = judge(submission(cheat, "assert", mode="compat"))
    assert verdict.mode == "compat"
    assert (verdict.status == "ok") == cheat.passes_in_compat, verdict
    assert verdict.status in JUDGED | {"ok"}


@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_an_honest_answer_passes_in_compat(judge: Judge, problem: str):
    verdict = judge(honest(problem, "assert", "compat"))
    assert (verdict.status, verdict.mode) == ("ok", "compat"), verdict


@pytest.mark.parametrize("cheat", TOGETHER, ids=[f"{cheat.language}-{cheat.name}" for cheat in TOGETHER])
def test_assertions_of_other_languages_are_not_passed_by_leaving(judge: Judge, cheat: Cheat):
    test = records.Test("assert", code=TOGETHER_TESTS[cheat.language])
    verdict = judge(Submission(cheat.language, cheat.code, (test,), "add", mode="compat", limits=ROOMY))
    skip_without(verdict)
    assert verdict.mode == "compat"
    assert (verdict.status == "ok") == cheat.passes_in_compat, verdict


@pytest.mark.parametrize("language", list(TOGETHER_HONEST))
def test_honest_assertions_of_other_languages_pass(judge: Judge, language: str):
    test = records.Test("assert", code=TOGETHER_TESTS[language])
    code = TOGETHER_HONEST[language]
    verdict = judge(Submission(language, code, (test,), "add", mode="compat", limits=ROOMY))
    skip_without(verdict)
    assert (verdict.status, verdict.mode) == ("ok", "compat"), verdict


def test_compat_is_never_taken_without_being_asked_for(judge: Judge):
    for kind in ("call", "assert"):
        assert judge(honest("join", kind)).mode == "split"
    test = records.Test("assert", code="console.assert(true)")
    refused = judge(Submission("javascript", "", (test,), "add", limits=ROOMY))
    assert refused.status in ("refused", "unsupported")


# --- the judge itself ------------------------------------------------------------------------------------------


def test_a_hostile_value_does_not_keep_others_waiting(judge: Judge):
    """The supervisor serves everybody: while it decodes what one answer says, no other verdict comes."""
    import time

    slow = next(cheat for cheat in CHEATS if "hash alike" in cheat.name)
    began = time.monotonic()
    verdicts = judge.together([submission(slow, "call"), *[honest("join", "call")] * 4])
    assert [verdict.status == "ok" for verdict in verdicts] == [False, True, True, True, True]
    assert time.monotonic() - began < 4.0


def test_cheats_all_at_once_change_no_honest_verdict(judge: Judge):
    cheating = [submission(cheat, "call") for cheat in CHEATS[:20] if "call" in cheat.kinds]
    mixed = [one for cheat in cheating for one in (cheat, honest("join", "call"))]
    verdicts = judge.together(mixed)
    assert all(verdict.status == "ok" for verdict in verdicts[1::2])
    assert not any(verdict.status == "ok" for verdict in verdicts[::2])
