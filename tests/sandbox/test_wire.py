"""What travels between the service and its clients arrives as it was, and what is wrong is refused by its place."""

import base64
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from codeweft.base import records
from codeweft.sandbox import wire
from codeweft.sandbox.config import COMPILING, Limits, Program, Ran, Submission
from codeweft.sandbox.plain import dumps
from codeweft.sandbox.shape import WireError, number, table, text

FUSION = {"code": "print(1)", "language": "python"}
ONE_TEST: dict[str, Any] = {"kind": "stdio", "stdin": "1", "expected": "2"}
SUBMISSION: dict[str, Any] = {"language": "python", "code": "x", "tests": [ONE_TEST]}
hashable = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
hashable = hashable | st.tuples(hashable) | st.frozensets(hashable, max_size=2)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashable, inner, max_size=2)
        | st.sets(hashable, max_size=2)
    ),
    max_leaves=6,
)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
stdio = st.builds(records.Test, kind=st.just("stdio"), stdin=words, expected=words)
call = st.builds(records.Test, kind=st.just("call"), args=st.lists(values, max_size=3).map(tuple), expected=values)
asserted = st.builds(records.Test, kind=st.just("assert"), code=words.filter(bool))
submissions = st.builds(
    Submission,
    language=words.filter(bool),
    code=words,
    tests=st.lists(stdio | call | asserted, min_size=1, max_size=3).map(tuple),
    entry_point=words,
    setup=words,
    mode=st.sampled_from([None, "stdio", "split", "compat"]),
    limits=st.none() | st.builds(Limits, cpu_seconds=st.floats(0.01, 9), memory_mib=st.integers(1, 2**30)),
    tolerance=st.floats(0, 1),
    stop_early=st.booleans(),
)
of_calls = st.lists(st.builds(records.Test, kind=st.just("call"), expected=st.floats()), min_size=1, max_size=3).map(
    tuple
)
submissions |= of_calls.map(lambda tests: Submission("python", "", tests, allclose=(0.0, 1e-6, 0.5)[: len(tests)]))


def exact(submission: Submission) -> tuple[Submission, list[str]]:
    """A submission in a form that compares types too and holds nan equal to itself."""
    tests = tuple(replace(test, args=(), expected=None) for test in submission.tests)
    return replace(submission, tests=tests), [dumps((test.args, test.expected)) for test in submission.tests]


@seed(4)
@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(submissions)
def test_any_submission_arrives_as_it_was_sent(submission: Submission):
    """Tuples, sets, bytes, nan, endless integers and half surrogate pairs among the values."""
    sent = json.dumps(wire.submission_to_json(submission))
    assert exact(wire.submission_from_json(json.loads(sent))) == exact(submission)


def test_a_verdict_arrives_as_it_was_sent_and_a_newer_services_fields_are_passed_over():
    verdict = records.Verdict("wrong", 1, 3, 0.25, 2**33, "namespaces")
    sent = json.loads(json.dumps(wire.verdict_to_json(verdict))) | {"colour": "blue"}
    assert wire.verdict_from_json(sent) == verdict
    with pytest.raises(WireError, match=r"verdicts\[0\]\.status: must be one of ok, wrong"):
        wire.JUDGE_RESPONSE.read({"verdicts": [sent | {"status": "splendid"}]}, "")


def test_a_person_may_write_plain_json_and_leave_out_what_has_a_default():
    test = {"kind": "call", "args": [1, [2.5, "x"]], "expected": {"a": None}}
    read = wire.submission_from_json({"language": "python", "code": "c", "entry_point": "f", "tests": [test]})
    expected = Submission("python", "c", (records.Test("call", args=(1, [2.5, "x"]), expected={"a": None}),), "f")
    assert read == expected


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"code": None}, "code: must be a text"),
        ({"code": "\ud800"}, "code: holds half a surrogate pair"),
        ({"language": ""}, "language: must be a text that is not empty"),
        ({"tests": []}, "tests: must be a list that is not empty"),
        ({"tests": [ONE_TEST, 5]}, r"tests\[1\]: must be a table"),
        ({"tests": [{"stdin": "1"}]}, r"tests\[0\].kind: is missing"),
        ({"tests": [ONE_TEST | {"kind": "stdoi"}]}, r"tests\[0\].kind: must be one of stdio, call, assert"),
        ({"tests": [ONE_TEST | {"expected": 2}]}, "expected of a stdio test: must be a text"),
        ({"tests": [{"kind": "assert"}]}, r"tests\[0\]: an assert test needs code"),
        ({"tests": [{"kind": "call", "args": [["q", 1]], "typed": True}]}, r"tests\[0\]: 'q' stands before"),
        ({"tests": [{"kind": "call", "args": {"a": 1}}]}, r"tests\[0\].args: must be a list"),
        ({"tests": [{"kind": "call", "expected": json.loads("[" * 200 + "]" * 200)}]}, "deeper than"),
        ({"limits": {"memory_mb": 5}}, r"limits.memory_mb: is unknown. Did you mean memory_mib\?"),
        ({"limits": {"cpu_seconds": 0}}, "limits: cpu_seconds = 0.0 must be at least"),
        ({"limits": {"tasks": 1.5}}, "limits.tasks: must be a whole number"),
        ({"mode": "fast"}, "mode: must be one of stdio, split, compat"),
        ({"tolerance": math.inf}, "tolerance: must be a finite number"),
        ({"tolerance": math.nan}, "tolerance: must be a number"),
        ({"tolerance": 10**400}, "tolerance: is too large"),
        ({"allclose": [0.5]}, "There are 1 tolerances in allclose"),
        ({"allclose": [-1]}, r"allclose\[0\]: must be"),
        ({"stop_early": 1}, "stop_early: must be true or false"),
        ({"stop_erly": 1, "z": 2}, r"stop_erly: is unknown, as is z. Did you mean stop_early\?"),
    ],
)
def test_what_is_wrong_in_a_submission_is_told_by_its_place(wrong: dict[str, Any], told: str):
    with pytest.raises(WireError, match=told):
        wire.submission_from_json(SUBMISSION | wrong)


def test_a_hundred_thousand_unknown_fields_make_one_short_error():
    with pytest.raises(WireError) as caught:
        table({"a": text()}).read({f"field {number}" * 30: 1 for number in range(100_000)}, "")
    assert len(str(caught.value)) < 1000
    assert "and 99992 more" in str(caught.value)


def test_a_whole_number_may_be_written_with_a_fraction_of_zero_but_not_as_a_truth_value():
    assert number(0, 5, whole=True).read(3.0, "n") == 3
    for wrong in (True, 3.5, "3", None, 6, -1):
        with pytest.raises(WireError, match="n: must be a whole number"):
            number(0, 5, whole=True).read(wrong, "n")


# --- SandboxFusion -------------------------------------------------------------------------------------------------


def test_a_program_of_sandbox_fusion_is_read_with_its_limits_and_files():
    body = FUSION | {"stdin": "é", "run_timeout": 3, "compile_timeout": 7.5, "memory_limit_MB": 1024, "args": ["-x"]}
    body |= {"files": {"lib/a.txt": base64.b64encode(b"\x00\xff").decode(), "left_out": None}, "fetch_files": []}
    program = wire.program_from_fusion(body, lambda language: Limits(tasks=128))
    assert program == Program(
        "python",
        "print(1)",
        "é".encode(),
        ("-x",),
        {"lib/a.txt": b"\x00\xff"},
        Limits(cpu_seconds=3, memory_mib=1024, tasks=128),
        replace(COMPILING, cpu_seconds=7.5, wall_seconds=0),
    )


def test_what_sandbox_fusion_leaves_out_is_ten_seconds_and_the_languages_memory():
    program = wire.program_from_fusion(FUSION | {"stdin": None}, lambda language: Limits(memory_mib=700))
    assert program.limits == Limits(cpu_seconds=10, memory_mib=700)
    assert program.compile_limits.cpu_seconds == 10
    assert program.stdin == b""


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"run_timeout": 0}, "run_timeout: must be a number of at least 0.01 and at most 3600"),
        ({"memory_limit_MB": 0}, "memory_limit_MB: must be a whole number of at least 1"),
        ({"fetch_files": ["a"]}, "fetch_files: this service gives no files back"),
        ({"files": {"../a": ""}}, "files: '../a' is not a path below"),
        ({"files": {"/etc/a": ""}}, "files: '/etc/a' is not a path below"),
        ({"files": {"a\x00": ""}}, "is not a path below"),
        ({"files": {".": ""}}, "is not a path below"),
        ({"files": {"": ""}}, "files: must be a text that is not empty"),
        ({"files": {"a": "?"}}, "files: the contents of 'a' are not base64"),
        ({"files": {"a": 5}}, "files: the contents of 'a' are not base64"),
        ({"files": {"a": "é"}}, "files: the contents of 'a' are not base64"),
        ({"stdn": ""}, r"stdn: is unknown. Did you mean stdin\?"),
    ],
)
def test_what_is_wrong_in_a_run_is_told_by_its_field(wrong: dict[str, Any], told: str):
    with pytest.raises(WireError, match=told):
        wire.program_from_fusion(FUSION | wrong)


def ran(status: Any = "ok", code: int | None = 0, compiled: Ran | None = None) -> Ran:
    return Ran(status, code, b"out\xff", b"err", 0.5, 0.75, 1 << 20, "namespaces", compiled=compiled)


@pytest.mark.parametrize(
    ("done", "status", "commands"),
    [
        (ran(), "Success", (None, ("Finished", 0))),
        (ran(compiled=ran()), "Success", (("Finished", 0), ("Finished", 0))),
        (ran("runtime_error", 3), "Failed", (None, ("Finished", 3))),
        (ran("runtime_error", -11), "Failed", (None, ("Finished", -11))),
        (ran("time_limit", -24), "Failed", (None, ("TimeLimitExceeded", None))),
        (ran("memory_limit", 0), "Failed", (None, ("Finished", -9))),
        (ran("output_limit", None), "Failed", (None, ("Finished", -9))),
        (ran("compile_error", 1, ran("compile_error", 1)), "Failed", (("Finished", 1), None)),
        (ran("compile_error", 1), "Failed", (("Finished", 1), None)),
        (ran("compile_error", None, ran("time_limit", None)), "Failed", (("TimeLimitExceeded", None), None)),
        (ran("harness_error", None), "SandboxError", (None, None)),
        (ran("unsupported", None), "SandboxError", (None, None)),
    ],
)
def test_every_ending_has_its_words_in_sandbox_fusion(done: Ran, status: str, commands: tuple[Any, Any]):
    """A program that a limit ended is never told with exit code 0, whatever its own was."""
    answer = wire.ran_to_fusion(done)
    assert set(answer) == {"status", "message", "compile_result", "run_result", "executor_pod_name", "files"}
    assert answer["status"] == status
    found = [answer[name] and (answer[name]["status"], answer[name]["return_code"]) for name in RESULTS]
    assert tuple(found) == commands
    assert wire.FUSION_RESPONSE.read(json.loads(json.dumps(answer)), "")["status"] == status


RESULTS = ("compile_result", "run_result")


@pytest.mark.parametrize(
    "done",
    [
        ran(),
        ran("runtime_error", 3),
        ran("time_limit", None),
        ran("runtime_error", 1, ran()),
        ran("compile_error", 1, ran("runtime_error", 1)),
        ran("harness_error", None),
    ],
)
def test_a_foreign_services_answer_is_read_back_as_what_happened(done: Ran):
    again = wire.ran_from_fusion(wire.ran_to_fusion(done))
    assert (again.status, again.exit_code) == (done.status, done.exit_code)
    assert (again.compiled is None) == (done.compiled is None)
    assert again.tier == "remote"
    if done.status != "harness_error":
        assert again.stdout.decode() == "out\ufffd"
        assert again.wall_seconds == 0.75


def test_an_answer_that_is_none_is_a_wire_error():
    for wrong in ([], {}, {"status": "Success", "run_result": 5}, {"status": "Great"}):
        with pytest.raises(WireError):
            wire.ran_from_fusion(wrong)


def test_output_that_is_no_text_does_not_make_the_answer_void():
    """A program must not choose between a failure and an error of the service by what it prints."""
    answer = wire.ran_to_fusion(ran())
    answer["run_result"]["stdout"] = "\ud800"
    assert wire.ran_from_fusion(answer).stdout == b"?"


def test_a_program_for_a_foreign_service_says_what_that_can_hold():
    limits = Limits(cpu_seconds=2, memory_mib=300)
    program = Program("python", "c", b"in", ("a",), {"f": b"\x00"}, limits, COMPILING)
    body = wire.program_to_fusion(program)
    assert wire.program_from_fusion(body) == replace(program, compile_limits=replace(COMPILING, wall_seconds=0))
    with pytest.raises(WireError, match="stdin: is not UTF-8"):
        wire.program_to_fusion(replace(program, stdin=b"\xff"))
