"""CRUXEval: what an answer is worth, against the official references and against answers that cheat."""

import ast
import json
from pathlib import Path

import pytest

from codeweft.base.errors import ConfigError, InputError
from codeweft.base.records import Problem
from codeweft.sandbox.client import judge_all
from codeweft.sandbox.config import SandboxConfig
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.cruxeval import WORKED
from codeweft.tasks.files import Folder
from codeweft.tasks.registry import find
from codeweft.tasks.task import Answer, Room, Style

CODE = "base = [4]\ndef f(xs, n):\n    return [x * n for x in xs]"
ROOM = Room(4096, lambda text: len(text) // 3)


def made(name: str, folder: Path, given: str = "[1, 2], 3", output: str = "[3, 6]", code: str = CODE) -> Problem:
    record = {"id": "sample_0", "code": code, "input": given, "output": output}
    (folder / "cruxeval.jsonl").write_text(json.dumps(record) + "\n")
    [problem] = find(name).load(Folder(folder), TaskOptions())
    return problem


def graded(name: str, problems: list[Problem], texts: list[str], style: Style = "chat") -> list[float]:
    """The scores, those of the sandbox included."""
    answers = [find(name).grade(problem, style, text) for problem, text in zip(problems, texts, strict=True)]
    judged: list[Answer] = [answer for answer in answers if answer.submission is not None]
    submissions = [answer.submission for answer in judged if answer.submission]
    verdicts = iter(judge_all(SandboxConfig(), submissions) if submissions else ())
    return [float(next(verdicts).status == "ok") if a.submission else float(a.score or 0) for a in answers]


OUTPUTS = (
    "[ANSWER]\nassert f([1, 2], 3) == [3, 6]\n[/ANSWER]",
    "assert f([1, 2], 3) == [3, 6]\n",  # as a continuation behind the open tag, which the stop string cut
    " [3, 6]\n[/ANSWER]\n\n[PYTHON]\ndef f():",
    "[3, 6]",
    "f([1, 2], 3) == [3,6]",
    "[THOUGHT]\n1 * 3 is 3, f gives [9]?\n[/THOUGHT]\n[ANSWER]\n[3, 6]\n[/ANSWER]",
    "```python\nassert f([1, 2], 3) == [3, 6]\n```",
    "Each is tripled.\n\n[ANSWER]\n```python\n[\n    3,\n    6,\n]\n```\n[/ANSWER]",
    "`x * n` is computed twice. The output is [3, 6].",
    "So the answer is **`[3, 6]`**.",
    "**Output:** `[3, 6]`",
    "We first said [ANSWER] [1] [/ANSWER], but it is [ANSWER] [3] * 1 + [6] [/ANSWER]",
    "Therefore:\n[6 - 3, 6]",
)
INPUTS = (
    "[ANSWER]\nassert f([1, 2], 3) == [3, 6]\n[/ANSWER]",
    "assert f([3, 6], 1) == [3, 6]\n",
    "[1, 2], 3",
    "f(xs=[1, 2], n=3)",
    "[3, 6] == f([1, 2], n=3)",
    "[THOUGHT]\nf([9], 9) is no help.\n[/THOUGHT]\n[ANSWER]\nf((1, 2), 3)\n[/ANSWER]",
    "```python\nassert f(\n    [1, 2],\n    3,\n) == [3, 6]\n```",
    "Take n = 3. The input is `f([1, 2], 3)`.",
    "**Input:** `[1, 2], 3`",
    "[ANSWER] f(range(1, 3), 3)  # what is tripled [/ANSWER]",
    "[ANSWER] f(base[1:] + [1, 2], int('3')) [/ANSWER]",
)
WRONG = (
    "", "I cannot tell.", "[ANSWER][/ANSWER]", "assert f(??) == ??", "[ANSWER]\n[3, 6", "[9]", "f", "True", "...",
    "[1, 2], 4", "(((", "\0", "[3, 6]" * 2, "{[1]: 2}", "-" * 15_000 + "1", "1" * 9000, "0x" + "f" * 9000,
)  # fmt: skip


@pytest.mark.parametrize("name", ["cruxeval-o", "cruxeval-o-cot"])
def test_outputs_are_found_in_all_usual_shapes(tmp_path: Path, name: str):
    problem = made(name, tmp_path)
    assert graded(name, [problem] * len(OUTPUTS), list(OUTPUTS)) == [1] * len(OUTPUTS)


def test_inputs_are_found_in_all_usual_shapes(tmp_path: Path):
    problem = made("cruxeval-i", tmp_path)
    assert graded("cruxeval-i", [problem] * len(INPUTS), list(INPUTS)) == [1] * len(INPUTS)


@pytest.mark.parametrize("name", ["cruxeval-o", "cruxeval-i"])
def test_wrong_and_unreadable_answers_get_nothing(tmp_path: Path, name: str):
    problem = made(name, tmp_path)
    assert graded(name, [problem] * len(WRONG), list(WRONG)) == [0] * len(WRONG)


ALIKE = "type('A', (list,), {'__eq__': lambda s, o: True, '__len__': lambda s: 2})()"
CHEATS = (
    "f([1, 2], 3)", "[f([1, 2], 3)[0], 6]", "(lambda: f([1, 2], 3))()", ALIKE, f"[{ALIKE}]", "exit()", "quit(0)",
    "__import__('os')._exit(0)", "open('/box/main.py').read()", "eval('f([1, 2], 3)')", "[x * 3 for x in [1, 2]]",
    "globals()['f']([1, 2], 3)", "(y := [3, 6])", "[3, 6].copy()", "[3, 6] if f else 0", "codeweft_answer()",
    "class A:\n    def __eq__(self, other):\n        return True\nassert f([1, 2], 3) == A()", "raise SystemExit(0)",
)  # fmt: skip


def test_an_output_that_is_computed_instead_of_predicted_gets_nothing(tmp_path: Path):
    problem = made("cruxeval-o", tmp_path)
    texts = [f"[ANSWER]\nassert f([1, 2], 3) == {cheat}\n[/ANSWER]" for cheat in CHEATS]
    texts += [f"[ANSWER]\n{cheat}\n[/ANSWER]" for cheat in CHEATS]
    assert graded("cruxeval-o", [problem] * len(texts), texts) == [0] * len(texts)


def test_an_input_that_takes_the_function_over_gets_nothing(tmp_path: Path):
    code = "def f(xs):\n    return xs.best()"
    problem = made("cruxeval-i", tmp_path, "[]", "[3, 6]", code)
    cheats = [
        "type('A', (), {'best': lambda self: [3, 6]})()", "exit()", "print([3, 6])", "open('/etc/passwd')",
        "globals().update(f=lambda xs: [3, 6])", "(lambda: 0).__globals__.update(f=len)", "__import__('os')._exit(0)",
        "[3, 6]) or ([3, 6]", "setattr(f, 'best', 1)", "[f := lambda x: [3, 6]]", "f([3, 6])", "[3, 6]",
    ]  # fmt: skip
    texts = [f"[ANSWER]\nassert f({cheat}) == [3, 6]\n[/ANSWER]" for cheat in cheats]
    assert graded("cruxeval-i", [problem] * len(texts), texts) == [0] * len(texts)


def test_values_are_compared_as_python_compares_them(tmp_path: Path):
    problem = made("cruxeval-o", tmp_path, output="{'a': (1, 2.0), 'b': set()}")
    right = ["{'b': set(), 'a': (1, 2)}", "dict(a=(1, 2.0), b=set())"]
    wrong = ["{'a': [1, 2.0], 'b': set()}", "{'a': (1, 2.0), 'b': {}}", "{'a': (1, 2.0)}"]
    assert graded("cruxeval-o", [problem] * 5, right + wrong) == [1, 1, 0, 0, 0]


@pytest.mark.slow
def test_answers_that_never_end_get_nothing(tmp_path: Path):
    problem = made("cruxeval-i", tmp_path, "0", "1", "def f(n):\n    while n:\n        pass\n    return 1")
    texts = ["[ANSWER]f(0)[/ANSWER]", "[ANSWER]f(7)[/ANSWER]", "[ANSWER]f(9**9**9**9)[/ANSWER]"]
    assert graded("cruxeval-i", [problem] * 3, texts) == [1, 0, 0]
    assert graded("cruxeval-o", [made("cruxeval-o", tmp_path)], ["9**9**9**9"]) == [0]


def test_worked_examples_are_true():
    for code, given, output, *_ in WORKED:
        names: dict[str, object] = {}
        exec(code, names)
        exec(f"found = f({given})", names)
        assert names["found"] == ast.literal_eval(output)


@pytest.mark.parametrize(("name", "shots"), [("cruxeval-i", 2), ("cruxeval-o", 2), ("cruxeval-o-cot", 1)])
def test_the_answer_is_not_in_its_own_prompt(tmp_path: Path, name: str, shots: int):
    problem = made(name, tmp_path, "[111, 222], 7", "[777, 1554]")
    text = find(name).ask(problem, "base", ROOM).text
    told = find(name).ask(problem, "chat", ROOM).messages[0]["content"]
    assert told == text
    assert text.count("[PYTHON]") == shots + 1
    assert text.rstrip().endswith("[THOUGHT]" if name.endswith("cot") else "[ANSWER]")
    assert ("111" in text) != ("777" in text)
    assert ("777" in text) == (name == "cruxeval-i")
    small = find(name).ask(problem, "base", Room(150, lambda text: len(text) // 3)).text
    assert small.count("[PYTHON]") == 1
    assert problem.prompt in small


def test_mistakes_of_file_and_options_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="line 1: the output is no literal"):
        made("cruxeval-o", tmp_path, output="f(1)")
    with pytest.raises(ConfigError, match="2 worked examples, not 3"):
        list(find("cruxeval-o").load(Folder(tmp_path), TaskOptions(shots=3)))


def official(name: str, shared: Path) -> list[Problem]:
    return list(find(name).load(Folder(shared / "eval"), TaskOptions()))


def test_all_official_outputs_are_right_and_those_of_the_next_problem_are_not(shared_data: Path):
    problems = official("cruxeval-o", shared_data)
    answers = [problem.facts["output"] for problem in problems]
    assert len(problems) == 800
    assert graded("cruxeval-o", problems, [f"[ANSWER]{answer}[/ANSWER]" for answer in answers]) == [1] * 800
    others = [answers[number - 1] for number in range(800)]
    same = sum(ast.literal_eval(one) == ast.literal_eval(two) for one, two in zip(answers, others, strict=True))
    assert sum(graded("cruxeval-o", problems, others)) == same < 20


def holds(problem: Problem, given: object) -> bool:
    """Whether the official function, run right here, gives the official output for an input."""
    names: dict[str, object] = {"given": given}
    try:
        exec(f"{problem.facts['code']}\nfound = f(given)", names)
    except Exception:  # noqa: BLE001 - most functions do not take it
        return False
    return names["found"] == ast.literal_eval(problem.facts["output"])


@pytest.mark.slow
def test_all_official_inputs_are_right_and_another_is_where_plain_python_says_so(shared_data: Path):
    problems = official("cruxeval-i", shared_data)
    texts = [f"assert f({problem.reference}) == {problem.facts['output']}" for problem in problems]
    assert graded("cruxeval-i", problems, texts) == [1] * 800
    expected = [float(holds(problem, {"no": b"such"})) for problem in problems[:100]]
    assert graded("cruxeval-i", problems[:100], ["[ANSWER]f({'no': b'such'})[/ANSWER]"] * 100) == expected
    assert 0 < sum(expected) < 10


def test_a_sample_of_official_inputs_is_right(shared_data: Path):
    problems = official("cruxeval-i", shared_data)
    # the references that are no literals: calls, lambdas, a slice of the problem's own list
    chosen = [problems[n] for n in (0, 135, 152, 239, 258, 344, 364, 378, 459, 522, 694, 720, 760, 770)]
    texts = [f"[ANSWER]\nassert f({problem.reference}) == ...\n[/ANSWER]" for problem in chosen]
    assert graded("cruxeval-i-cot", chosen, texts) == [1] * len(chosen)
