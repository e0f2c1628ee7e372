"""Verdicts: every mode, every status, what passes and what is refused, and that nothing expected is ever in a box."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest
from sandbox.opened import SMALL, Opened, call, check, opened, stdio

from codeweft.base import records
from codeweft.base.errors import UserError
from codeweft.base.records import Status, Verdict
from codeweft.sandbox.client import calibrated
from codeweft.sandbox.config import Submission

DOUBLE = "def f(x):\n    return x * 2\n"
PRINT = "print(int(input()) * 2)"


@pytest.fixture(scope="module")
def box() -> Iterator[Opened]:
    with opened(cache=0) as sandbox:
        yield sandbox


def brief(verdict: Verdict) -> tuple[str, int, int]:
    return verdict.status, verdict.passed, verdict.total


# --- what passes and what does not ---------------------------------------------------------------------------------


def test_a_verdict_says_how_it_was_found(box: Opened):
    verdict = box.judge(DOUBLE, call(2, expected=4), call("ab", expected="abab"))
    assert verdict == Verdict("ok", 2, 2, verdict.cpu_seconds, verdict.peak_bytes, "namespaces", "split", "")
    assert 0 < verdict.cpu_seconds < 1
    assert verdict.peak_bytes > 1 << 20
    assert box.judge(PRINT, stdio("2", "4")).mode == "stdio"
    assert box.judge(DOUBLE, check("assert f(2) == 4"), mode="compat").mode == "compat"


CALLS = (call(1, expected=2), call(2, expected=5), call(None, expected=0), call(3, expected=6))
ASSERTS = tuple(map(check, ("assert f(1) == 2", "assert f(2) == 5", "assert f(None) == 0", "assert f(3) == 6")))
LINES = (stdio("1", "2"), stdio("2", "5"), stdio("x", "0"), stdio("3", "6"))


@pytest.mark.parametrize(
    ("code", "tests", "mode", "status"),
    [
        (DOUBLE, CALLS, None, "wrong"),
        (DOUBLE, ASSERTS, None, "wrong"),
        (DOUBLE, ASSERTS, "compat", "wrong"),
        (PRINT, LINES, None, "wrong"),
        (DOUBLE, CALLS[2:], None, "runtime_error"),
        (DOUBLE, ASSERTS[2:], None, "runtime_error"),
        (PRINT, LINES[2:], None, "runtime_error"),
    ],
)
def test_all_tests_count_unless_the_first_failure_is_to_end_it(
    box: Opened, code: str, tests: tuple[records.Test, ...], mode: Any, status: str
):
    passing = len(tests) // 2
    first = 2 if len(tests) == 4 else 1
    stopped = box.judge(code, *tests, mode=mode)
    assert brief(stopped) == (status, first - 1, len(tests))
    assert stopped.detail.startswith(f"Test {first}: ")
    through = box.judge(code, *tests, mode=mode, stop_early=False)
    assert brief(through) == (status, passing, len(tests))
    assert through.detail.startswith(f"Test {first}: ")


SILENT = "def f(*arguments):\n    import os, sys, time\n    "
REACHED: dict[str, tuple[str, tuple[records.Test, ...], dict[str, Any]]] = {
    "ok": (DOUBLE, (call(2, expected=4),), {}),
    "wrong": (DOUBLE, (call(2, expected=5),), {}),
    "runtime_error": (SILENT + "return 1 / 0", (call(2, expected=4),), {}),
    "compile_error": ("def f(:", (call(2, expected=4),), {}),
    "time_limit": (SILENT + "while True: pass", (call(2, expected=4),), {"limits": replace(SMALL, cpu_seconds=0.2)}),
    "memory_limit": (SILENT + "x = []\n    while True: x.append(bytearray(1 << 20))", (stdio("", ""),), {}),
    "output_limit": ("print('x' * 10 ** 6)", (stdio("", ""),), {}),
    "incomplete": (SILENT + "os._exit(0)", (call(2, expected=4),), {}),
    "bad_output": (SILENT + "return print", (call(2, expected=4),), {}),
    "unsupported": ("", (stdio("", ""),), {"language": "nothing-like-it"}),
    "refused": (DOUBLE, (), {}),
}
REACHED["memory_limit"] = ("x = []\nwhile True: x.append(bytearray(1 << 20))", (stdio("", ""),), {})


@pytest.mark.parametrize("status", [status for status in REACHED if status != "unsupported"])
def test_every_status_is_reached_and_told_in_words(box: Opened, status: str):
    code, tests, fields = REACHED[status]
    verdict = box.judge(code, *tests, **fields)
    assert verdict.status == status, verdict
    assert verdict.passed == (1 if status == "ok" else 0)
    assert bool(verdict.detail) == (status != "ok")


def test_the_list_of_statuses_is_whole():
    """`harness_error` is reached in test_supervision.py."""
    assert {*REACHED, "harness_error"} == set(get_args(Status))


@pytest.mark.parametrize("language", ["swift", "julia", "d", "racket", "kotlin", "scala"])
def test_a_language_that_is_not_installed_is_unsupported_and_says_what_to_install(box: Opened, language: str):
    verdict = box.do(box.sandbox.judge(Submission(language, "", (stdio("", ""),))))
    if verdict.status != "unsupported":
        pytest.skip(f"toolchain: {language} is installed")
    assert "is not installed: " in verdict.detail


def test_an_unknown_language_is_an_error_that_names_the_nearest(box: Opened):
    with pytest.raises(UserError, match=r"'pythn'.*Did you mean python\?"):
        box.do(box.sandbox.judge(Submission("pythn", "", (stdio("", ""),))))


STEPS = {
    "raises": ("raise ValueError('no good')", "runtime_error", "ValueError: no good"),
    "exits": ("raise SystemExit(0)", "runtime_error", "SystemExit: 0"),
    "leaves": ("os._exit(0)", "incomplete", "ended (exit code 0) in test 1"),
    "leaves loudly": ("os._exit(3)", "incomplete", "ended (exit code 3) in test 1"),
    "dies": ("os.kill(os.getpid(), 11)", "runtime_error", "signal 11"),
    "loops": ("while True: pass", "time_limit", "0.3 s of processor time"),
    "sleeps": ("time.sleep(60)", "time_limit", "not ended after"),
    "hogs": ("x = bytearray(90 << 20), bytearray(90 << 20)", "runtime_error", "MemoryError"),
    "shouts": ("sys.stdout.write('x' * 10 ** 6); sys.stdout.flush()", "output_limit", "more than may be"),
    "returns too much": ("return 'x' * 10 ** 6", "output_limit", "too long"),
    "returns no data": ("return object()", "bad_output", "type object is not plain data"),
    "returns itself": ("x = []; x.append(x); return x", "bad_output", "contains itself"),
    "forks": ("os.fork(); return 4", "ok", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", STEPS)
@pytest.mark.parametrize("test", [call(2, expected=4), check("assert f(2) == 4")], ids=["call", "assert"])
def test_whatever_a_function_does_instead_is_named(box: Opened, what: str, test: records.Test):
    body, status, words = STEPS[what]
    limits = replace(SMALL, cpu_seconds=0.3, wall_seconds=0.5 if what == "sleeps" else 20.0)
    verdict = box.judge(SILENT + body, test, limits=limits)
    assert verdict.status == status, verdict
    assert words in verdict.detail
    onloading = box.judge("import os, sys, time\n" + body.replace("return ", "f = "), test, limits=limits)
    if status in ("time_limit", "incomplete", "runtime_error"):
        assert onloading.status == status, onloading


def test_the_first_failure_is_in_the_code_where_it_is(box: Opened):
    assert "no function g" not in box.judge(DOUBLE, call(2, expected=4)).detail
    missing = box.judge(DOUBLE, call(2, expected=4), entry_point="g")
    assert missing.status == "runtime_error"
    assert "g" in missing.detail
    assert (
        box.judge("1 / 0\n" + DOUBLE, call(2, expected=4)).detail == "On loading: ZeroDivisionError: division by zero"
    )


# --- how values meet -----------------------------------------------------------------------------------------------

SHOWN = [None, True, -5, 10**30, 2.5, float("nan"), 1j, "é\ud800", b"\xff", [1, [2]], (1, (2,)), {1: {2}}, {3}]


def test_every_plain_value_goes_in_and_comes_out(box: Opened):
    tests = [call(value, expected=(value, str(type(value)))) for value in SHOWN]
    verdict = box.judge("def f(x):\n    return x, str(type(x))", *tests)
    assert brief(verdict) == ("ok", len(SHOWN), len(SHOWN)), verdict


@pytest.mark.parametrize(
    ("returned", "expected", "tolerance", "status"),
    [
        ("0.1 + 0.2", 0.3, 0.0, "wrong"),
        ("0.1 + 0.2", 0.3, 1e-9, "ok"),
        ("[(0.1 + 0.2,)]", [(0.3,)], 1e-9, "ok"),
        ("1", True, 0.0, "wrong"),
        ("True", 1, 0.0, "wrong"),
        ("3.0", 3, 0.0, "ok"),
        ("(1, 2)", [1, 2], 0.0, "wrong"),
        ("float('nan')", float("nan"), 0.0, "ok"),
        ("type('Int', (int,), {'__eq__': lambda s, o: True, '__hash__': None})(3)", 4, 0.0, "wrong"),
        ("__import__('collections').Counter('aab')", {"a": 2, "b": 1}, 0.0, "ok"),
        ("{2, 1}", {1, 2}, 0.0, "ok"),
        ("iter([1])", [1], 0.0, "bad_output"),
        ("__import__('numpy').int64(4)", 4, 0.0, "bad_output"),
    ],
)
def test_values_are_compared_outside(box: Opened, returned: str, expected: Any, tolerance: float, status: str):
    limits = replace(SMALL, memory_mib=512, cpu_seconds=5.0)
    verdict = box.judge(f"def f():\n    return {returned}", call(expected=expected), tolerance=tolerance, limits=limits)
    assert verdict.status == status, verdict


def test_each_value_may_differ_by_its_own_tolerance(box: Opened):
    tests = tuple(call(number, expected=[float(number)]) for number in range(1, 4))
    near = "def f(n): return [n + (n == {}) * 1e-7]"
    found = [box.judge(near.format(number), *tests, allclose=(0.0, 1e-6, 1e-9)) for number in (1, 2, 3)]
    assert [(verdict.status, verdict.passed) for verdict in found] == [("wrong", 0), ("ok", 3), ("ok", 3)]
    assert box.judge("def f(n): return [n + 1e-3]", *tests, allclose=(1.0, 1e-6, 1.0)).passed == 1
    assert box.judge("def f(n): return (float(n) + 1e-9,)", *tests, allclose=(1.0,) * 3).status == "wrong"


@pytest.mark.parametrize(
    "returned", ["1 / 0", "4", "object()", "'x' * 10 ** 6", "[4]"], ids=["raises", "number", "object", "long", "list"]
)
def test_no_detail_tells_what_was_expected(box: Opened, returned: str):
    marker = 918273645
    code = f"def f(*x):\n    return {returned}"
    asserted = check(f"assert f(1) == {marker}, 'expected {marker}'")
    compared = check(f"import unittest\nunittest.TestCase().assertEqual(f(1), {marker})")
    for test, mode in ((call(1, expected=marker), None), (asserted, None), (compared, None), (asserted, "compat")):
        verdict = box.judge(code, test, mode=mode)
        assert verdict.status != "ok"
        assert str(marker) not in verdict.detail


@pytest.mark.parametrize(
    ("body", "test"),
    [
        ("x.append(1)", "l = [0]; f(l); assert l == [0, 1]"),
        ("x[0].append(1)", "inner = [0]; l = [inner]; f(l); assert inner == [0, 1]; assert l[0] is inner"),
        ("x.clear()", "l = [1, 2]; alias = l; f(l); assert alias == []"),
        ("x['a']['b'] = 1", "d = {'a': {}}; inner = d['a']; f(d); assert inner == {'b': 1}"),
        ("x.pop('a')", "d = {'a': 1, 'b': 2}; f(d); assert d == {'b': 2}"),
        ("x.add(2)", "s = {1}; f(s); assert s == {1, 2}"),
        ("x.sort()", "l = [3, 1, 2]; f(l); assert l == [1, 2, 3]"),
        ("x[0].append(1)", "t = ([0],); f(t); assert t == ([0, 1],)"),
        ("x[0]['a'].add(1)", "s = set(); f(({'a': s}, 5)); assert s == {1}"),
        ("x.extend(b'b')", "b = bytearray(b'a'); f(b); assert b == b'ab'"),
        ("y.append(1)", "l = []; f(0, y=l); assert l == [1]"),
        ("y.append(x.pop())", "a = [1]; b = []; f(a, b); assert (a, b) == ([], [1])"),
        ("x[0], x[1] = x[1], x[0]", "a, b = [1], [2]; l = [a, b]; f(l); assert l == [[2], [1]]"),
        ("x[:] = [[9]] + x", "a = [1]; l = [a]; f(l); assert l == [[9], [1]]"),
    ],
)
def test_changed_arguments_come_back_to_the_test(box: Opened, body: str, test: str):
    verdict = box.judge(f"def f(x, y=None):\n    {body}", check(test))
    assert verdict.status == "ok", verdict


@pytest.mark.parametrize(
    "test",
    [
        "assert candidate(2) == 4 and f(2) == 4 and f(x=2) == 4 and f(**{'x': [1]}) == [1, 1]",
        "try:\n    f(None)\nexcept TypeError as error:\n    assert 'NoneType' in str(error)\nelse:\n    assert False",
        "import math\nassert math.isclose(f(0.05), 0.1)",
        "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate('a') == 'aa'\ncheck(f)",
        "assert list(map(f, [1, 2])) == [2, 4]",
        "assert sorted([3, 1], key=f) == [1, 3]",
        "assert f(2) is not None and f.__name__ == 'f'",
        "assert [f(x) for x in range(50)] == [x * 2 for x in range(50)]",
        "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(2), 4)\n"
        "        self.assertRaises(TypeError, f, None)\n"
        "result = unittest.TestResult()\nT('test').run(result)\nassert result.wasSuccessful() and result.testsRun == 1",
    ],
)
def test_tests_use_the_stand_in_like_the_function(box: Opened, test: str):
    assert brief(box.judge(DOUBLE, check(test))) == ("ok", 1, 1)


@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        ("ValueError('no')", "ValueError"),
        ("KeyError('a')", "LookupError"),
        ("type('Own', (ValueError,), {})('no')", "Exception"),
        ("StopIteration(3)", "StopIteration"),
        ("UnicodeDecodeError('utf-8', b'', 0, 1, 'x')", "Exception"),
        ("OSError(2, 'no')", "OSError"),
        ("SystemExit(3)", "Exception"),
        ("KeyboardInterrupt()", "Exception"),
        ("ExceptionGroup('two', [ValueError()])", "Exception"),
        ("AssertionError('x')", "AssertionError"),
    ],
)
def test_exceptions_that_a_test_expects_reach_it(box: Opened, raised: str, caught: str):
    test = check(f"try:\n    f()\nexcept {caught}:\n    pass\nelse:\n    raise AssertionError('nothing was raised')")
    assert box.judge(f"def f():\n    raise {raised}", test).status == "ok"
    uncaught = box.judge(f"def f():\n    raise {raised}", check("f()"))
    assert uncaught.status == "runtime_error"


def test_helpers_of_the_setup_are_there_for_tests_and_not_for_the_answer(box: Opened):
    setup = "import math\nSECRET = 4\ndef helper(x):\n    return f(x) + 1\n"
    assert box.judge(DOUBLE, check("assert helper(2) == 5 and math.pi > SECRET - 1"), setup=setup).status == "ok"
    assert (
        box.judge("def f(x):\n    return SECRET", check("assert f(2) == SECRET"), setup=setup).status == "runtime_error"
    )
    together = box.judge("def f(x):\n    return SECRET", check("assert f(2) == 4"), setup=setup, mode="compat")
    assert together.status == "ok"  # as other harnesses do it


@pytest.mark.parametrize("setup", ["def broken(:", "1 / 0", "import no_such_module", "raise SystemExit(0)"])
def test_a_broken_setup_is_refused_and_blames_no_answer(box: Opened, setup: str):
    for code in (DOUBLE, "def f(x): return 0"):
        verdict = box.judge(code, check("assert f(2) == 4"), setup=setup)
        assert verdict.status == "refused"
        assert "set-up" in verdict.detail


def test_a_test_that_cannot_be_asked_from_outside_is_refused_and_blames_no_answer(box: Opened):
    verdict = box.judge("def f(x): return x", check("assert f(len)('ab') == 2"))
    assert verdict.status == "refused"
    assert "plain data" in verdict.detail


def test_a_test_that_does_not_compile_is_refused_and_blames_no_answer(box: Opened):
    verdict = box.judge(DOUBLE, check("assert f(2) =="))
    assert verdict.status == "refused"


def test_tests_beside_the_answer_find_it_by_either_name(box: Opened):
    both = check("assert f(2) == 4"), check("assert candidate(2) == 4")
    assert brief(box.judge(DOUBLE, *both, mode="compat")) == ("ok", 2, 2)


MISMATCHES = {
    "There are no tests": ((), {}),
    "of one kind": ((call(1, expected=2), check("assert f(1) == 2")), {}),
    "not for tests of the kind stdio": ((stdio("1", "2"),), {"mode": "split"}),
    "not for tests of the kind call": ((call(1, expected=2),), {"mode": "stdio"}),
    "The mode compat is for tests of the kind assert": ((call(1, expected=2),), {"mode": "compat"}),
    "has no expected output": ((stdio("1", "2"), records.Test("stdio", stdin="1")), {}),
    "no function to call": ((call(1, expected=2),), {"entry_point": ""}),
    "Without an entry_point": ((check("assert 1"),), {"entry_point": ""}),
}  # fmt: skip


@pytest.mark.parametrize("words", MISMATCHES)
def test_what_does_not_go_together_is_refused_in_words(box: Opened, words: str):
    tests, fields = MISMATCHES[words]
    verdict = box.judge(DOUBLE, *tests, **fields)
    assert brief(verdict) == ("refused", 0, len(tests))
    assert words in verdict.detail


def test_functions_of_other_languages_are_not_called_from_outside(box: Opened):
    if not shutil.which("gcc"):
        pytest.skip("toolchain: no C compiler")
    verdict = box.do(box.sandbox.judge(Submission("c", "", (call(1, expected=1),), "f")))
    assert verdict.status == "refused"
    assert "Only Python" in verdict.detail


def test_what_is_expected_must_be_data(box: Opened):
    with pytest.raises(UserError, match="cannot be judged from outside"):
        box.judge(DOUBLE, call(1, expected=object()))
    with pytest.raises(UserError, match="is no text"):
        box.judge(PRINT, records.Test("stdio", stdin="1", expected=2))


@pytest.mark.parametrize(
    ("printed", "expected", "status"),
    [
        ("1 \\n2\\n\\n", "1\n2", "ok"), ("1\\n2", "1\n2\n", "ok"), ("1\\r\\n2", "1\n2", "ok"), (" 1", "1", "wrong"),
        ("1\\n\\n2", "1\n2", "wrong"), ("", "", "ok"), ("\\n", "", "ok"), ("1.0", "1", "wrong"), ("é", "é", "ok"),
        ("1", "", "wrong"), ("A", "a", "wrong"),
    ],
)  # fmt: skip
def test_outputs_are_compared_line_by_line(box: Opened, printed: str, expected: str, status: str):
    assert box.judge(f"print('{printed}', end='')", stdio("", expected)).status == status


def test_limits_are_calibrated_by_the_reference(box: Opened):
    burn = "import time\ndef f():\n    while time.process_time() < {}: pass\n    return 1\n"
    reference = Submission("python", burn.format(0.12), (call(expected=1),), "f")
    tight = replace(SMALL, cpu_seconds=0.1)
    limits = box.do(calibrated(box.sandbox, reference, tight))
    assert 0.45 < limits.cpu_seconds < 1.0
    assert box.do(calibrated(box.sandbox, replace(reference, code="def f(): return 1"), SMALL)) == SMALL
    with pytest.raises(UserError, match="does not pass"):
        box.do(calibrated(box.sandbox, replace(reference, code="def f(): return 2"), SMALL))
