"""Code is found in answers however they are laid out; a score must not depend on a newline."""

import pytest

from codeweft.base.records import Problem, Test
from codeweft.sandbox.client import judge_all
from codeweft.sandbox.config import SandboxConfig
from codeweft.tasks.extraction import (
    chat_code,
    code_blocks,
    completed,
    defines,
    holds,
    is_python,
    python_code,
    until,
    without_main,
)
from codeweft.tasks.human_eval import grade

PROMPT = 'import math\n\n\ndef helper(x):\n    return math.floor(x)\n\n\ndef down(x):\n    """Round down."""\n'
WHOLE = "def down(x):\n    y = helper(x)\n    return y\n"
FORMATS = {
    "a fence": f"Here it is:\n```python\n{WHOLE}```\nIt rounds.",
    "a fence without a language": f"```\n{WHOLE}```",
    "a short name of the language": f"```py\n{WHOLE}```",
    "an open fence": f"Sure!\n```python\n{WHOLE}",
    "no fence": WHOLE,
    "inside the fence that the prompt opened": f"{WHOLE}```\nThis rounds down.",
    "the whole prompt again": f"```python\n{PROMPT}    return helper(x)\n```",
    "the body alone": "```python\ny = helper(x)\nreturn y\n```",
    "the indented body alone": "```python\n    y = helper(x)\n    return y\n```",
    "tests after it": f"```python\n{WHOLE}\nassert down(1.5) == 1\n```",
    "usage in another block": f"```python\nprint(1)\n```\nand\n```python\n{WHOLE}```",
    "a demonstration that waits for input": f"```python\n{WHOLE}\nif __name__ == '__main__':\n    input()\n```",
    "lines that end as on Windows": f"```python\n{WHOLE}```".replace("\n", "\r\n"),
    "a fence inside a list": "1. So:\n" + "\n".join("   " + line for line in f"```python\n{WHOLE}```".split("\n")),
    "words about `down` first": f"The function `down` uses ```helper```:\n\n```python\n{WHOLE}```",
    "tildes": f"~~~python\n{WHOLE}~~~\n",
    "usage first": f"```python\nprint(down(2))\n```\nafter this:\n```python\n{WHOLE}```",
    "the body alone, its first indentation lost": "```python\ny = helper(x)\n    return y\n```",
    "a loop alone": "```python\nfor y in [x]:\n    return helper(y)\n```",
    "the body inside the fence that the prompt opened": "    y = helper(x)\n    return y\n```\nThis rounds down.",
    "the same, and an open block": f"{WHOLE}```\nFor example:\n```python\ndown(1.5) == 1\n",
    "the body and a call": "    return helper(x)\n\nprint(down(1.5))\n",
    "the body and words": "    return helper(x)\n\nThat's how it's rounded.",
    "words and no fence": f"import this from me: it's done.\n\n{WHOLE}\nThat's it.",
    "an import from the future": f"```python\nfrom __future__ import annotations\nimport math\n\n{WHOLE}```",
    "a name that is set": "```python\ndown = lambda x: helper(x)\n```",
}


def problem() -> Problem:
    tests = (
        Test("assert", code="assert candidate(1.5) == 1\nassert candidate(-0.5) == -1".replace("candidate", "down")),
    )
    return Problem("round/0", "human-eval", prompt=PROMPT, entry_point="down", tests_hidden=tests)


def test_a_right_answer_passes_in_every_layout():
    asked = problem()
    submissions = [grade(asked, "chat", text).submission for text in FORMATS.values()]
    found = judge_all(SandboxConfig(), [each for each in submissions if each is not None])
    assert {name: verdict.status for name, verdict in zip(FORMATS, found, strict=True)} == dict.fromkeys(FORMATS, "ok")


def test_blocks_are_found_in_order_and_the_last_may_be_open():
    assert code_blocks("```a\n1\n```\ntext\n```\n2\n") == ["1\n", "2\n"]
    assert code_blocks("none") == []


def test_the_block_that_names_everything_is_taken_first():
    text = "```\nf = 1\n```\n```\nfoo()\n```\n"
    assert chat_code(text, ["foo"]) == "foo()\n"
    assert chat_code(text, ["missing"]) == "f = 1\n"
    assert chat_code("only words", ["x"]) == "only words"


def test_a_name_is_a_word_of_its_own():
    assert holds("def add(a): pass", "add")
    assert not holds("def padding(a): pass", "add")


@pytest.mark.parametrize(
    ("stops", "kept"), [(("\ndef",), "a"), (("x", "y"), "a\ndef b"), (("b", "\ndef"), "a"), ((), "a\ndef b")]
)
def test_a_text_ends_at_the_first_of_its_stops(stops: tuple[str, ...], kept: str):
    assert until("a\ndef b", stops) == kept


def test_helpers_of_the_prompt_stay_before_a_whole_function():
    program = completed(PROMPT, "down", WHOLE)
    assert program.index("def helper") < program.index("def down")
    assert program.count("def down") == 1


def test_a_demonstration_is_left_out_only_at_the_left_edge():
    code = "def f():\n    if __name__ == 'x':\n        pass\n"
    assert without_main(code) == code


def test_a_definition_is_told_from_a_use():
    assert defines("x = 1\nasync def f(): ...", "f")
    assert defines("f = max", "f")
    for code in ("f(1)", "def g(f): ...", "def ff(): ...", "class A:\n    def f(self): ...", "f == 1"):
        assert not defines(code, "f"), code
    assert not defines("def f(): ...", "")


@pytest.mark.parametrize(
    "text", ["", "```", "```python\n```", "\x00", "(" * 1000, "-" * 100_000, "def f(", "no\n" * 300]
)
def test_text_that_is_no_program_becomes_one_that_fails_instead_of_an_error(text: str):
    program = completed(PROMPT, "down", python_code(text, "down"))
    assert program.startswith("import math")
    assert not is_python(program) or program.count("return") == 1


def test_words_around_a_program_without_fences_are_left_out():
    text = f"Here's a function.\nfrom experience: it works.\n\n{WHOLE}\nIt doesn't round up."
    assert python_code(text, "down").strip() == WHOLE.strip()
