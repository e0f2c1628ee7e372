"""HumanEvalFix: published solutions pass as a model would write them, published bugs and empty answers do not.

The truth comes from outside: the set's own solutions, bugs and tests. What its solutions fail, they fail officially.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from sandbox.opened import Opened, opened

from codeweft.base.errors import ConfigError
from codeweft.base.records import Problem, Verdict
from codeweft.sandbox import toolchains
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.human_eval_fix import FILES, TASKS
from codeweft.tasks.task import Answer, Room, Style

(TASK,) = TASKS
ROOM = Room(8192, len)
# Solutions that are not held to their tests (why: tests/sandbox/test_official_sets.py), in either style or in one.
DEFECTS = {"Go/95", "Rust/32"}
# Not as continuations: OctoPack cuts an answer off behind its function, where three of these go on, and Go's at the
# word struct, which two use; the declaration of CPP/38 holds half of the function's body.
NOT_CONTINUED = {"Rust/137", "Rust/145", "Go/72", "Go/90", "Go/158", "CPP/38"}
WRONG_BUT_PASSING = {"CPP/23"}  # <cstring> has a function of this name, which the tests call
UNJUDGED = ("ok", "harness_error", "refused", "unsupported")
# In the slow tests, every so many-th: whole files were run once, and take a quarter of an hour.
MANY = {"java": 4, "go": 4, "cpp": 4, "rust": 2}
SOME = {"python": 16, "javascript": 27}  # every so many-th in the quick tests; one of languages that are compiled


@pytest.fixture(scope="module")
def files(shared_data: Path) -> Folder:
    return Folder(shared_data / "eval")


@pytest.fixture(scope="module")
def problems(files: Folder) -> dict[str, list[Problem]]:
    """All problems by language."""
    found: dict[str, list[Problem]] = {}
    for each in TASK.load(files, TaskOptions()):
        found.setdefault(each.language, []).append(each)
    return found


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Opened]:
    with opened(cells=0) as sandbox:
        yield sandbox


def verdicts(sandbox: Opened, answers: Iterable[tuple[Problem, Style, str]]) -> list[tuple[str, Verdict]]:
    asked = list(answers)
    assert asked
    graded = [TASK.grade(*each) for each in asked]
    submissions = [answer.submission for answer in graded if answer.submission is not None]
    assert len(submissions) == len(graded)
    found = sandbox.do(sandbox.sandbox.judge_all(submissions))
    return [(problem.id, verdict) for (problem, _, _), verdict in zip(asked, found, strict=True)]


def need_toolchain(language: str) -> None:
    if toolchains.detect(toolchains.find(language)).missing:
        pytest.skip(f"toolchain: {language}")


def solution(problem: Problem) -> str:
    """The body of the corrected function, as published."""
    return problem.reference.removeprefix(problem.facts["prompt"])


def continuation(problem: Problem, body: str) -> str:
    """What follows the declaration as a base model is given it, with what models like to repeat behind it."""
    declaration = problem.facts["declaration"]
    return f"{declaration[len(declaration.rstrip()) :]}{body}\n{problem.tests_visible[0].code}"


def fenced(problem: Problem, whole: str) -> str:
    return f"The bug was in the comparison.\n\n```{problem.language}\n{whole}\n```\n\nNow all tests pass."


def corrected(problems: list[Problem]) -> Iterator[tuple[Problem, Style, str]]:
    for each in problems:
        if each.id not in DEFECTS:
            yield each, "chat", fenced(each, each.reference)
            if each.id not in NOT_CONTINUED:
                yield each, "base", continuation(each, solution(each))


def buggy(problems: list[Problem]) -> Iterator[tuple[Problem, Style, str]]:
    for each in problems:
        if each.id not in WRONG_BUT_PASSING:
            yield each, "base", continuation(each, each.prompt.removeprefix(each.facts["declaration"]))


def not_passed(found: Iterable[tuple[str, Verdict]]) -> dict[str, str]:
    return {name: f"{verdict.status} {verdict.detail}" for name, verdict in found if verdict.status != "ok"}


def passed_or_unjudged(found: Iterable[tuple[str, Verdict]]) -> dict[str, str]:
    return {name: f"{verdict.status} {verdict.detail}" for name, verdict in found if verdict.status in UNJUDGED}


# --- asking --------------------------------------------------------------------------------------------------------


def test_there_are_164_problems_in_each_of_six_languages(problems: dict[str, list[Problem]]):
    assert {name: len(each) for name, each in problems.items()} == dict.fromkeys(FILES, 164)
    assert len({each.id for listed in problems.values() for each in listed}) == 6 * 164


def test_one_language_can_be_asked_and_an_unknown_one_is_refused(files: Folder):
    assert {each.language for each in TASK.load(files, TaskOptions(languages=("js",)))} == {"javascript"}
    with pytest.raises(ConfigError, match=r"no file for pyton\. Did you mean python\?"):
        list(TASK.load(files, TaskOptions(languages=("pyton",))))


def test_a_model_is_shown_the_bug_then_the_tests_then_the_instruction(problems: dict[str, list[Problem]]):
    problem = problems["python"][23]
    text = TASK.ask(problem, "base", ROOM).text
    shown = [problem.prompt.strip(), problem.tests_visible[0].code.strip(), "Fix bugs in strlen.", "def strlen"]
    places = [text.index(shown[0]), text.index(shown[1]), text.index(shown[2]), text.rindex(shown[3])]
    assert places == sorted(places)
    assert text.endswith("Fix bugs in strlen.\n\ndef strlen(string: str) -> int:")
    assert "Return length of given string" not in text  # in the setting with tests there is no docstring
    (message,) = TASK.ask(problem, "chat", ROOM).messages
    assert "Fix bugs in strlen." in message["content"]
    assert solution(problem).rstrip() + "\n" not in message["content"]


def test_no_question_holds_its_solution(problems: dict[str, list[Problem]]):
    for each in (each for listed in problems.values() for each in listed):
        assert f"{solution(each).strip()}\n" not in TASK.ask(each, "base", ROOM).text, each.id


def test_fifteen_records_name_a_function_that_they_do_not_declare(problems: dict[str, list[Problem]]):
    """The instruction keeps the published name; what is looked for in an answer is the declared one."""
    other = {each.id: each.entry_point for listed in problems.values() for each in listed
             if each.entry_point != each.facts["entry_point"]}  # fmt: skip
    assert Counter(name.split("/")[0] for name in other) == {"Rust": 9, "Java": 3, "CPP": 2, "JavaScript": 1}
    assert (other["Java/99"], other["CPP/121"]) == ("countUpper", "solutions")
    assert "Fix bugs in closest_integer." in TASK.ask(problems["java"][99], "base", ROOM).text


# --- grading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", FILES)
def test_some_corrected_functions_pass_and_buggy_or_empty_ones_fail(
    problems: dict[str, list[Problem]], sandbox: Opened, language: str
):
    need_toolchain(language)
    some = problems[language][3 :: SOME.get(language, 164)]
    found = verdicts(sandbox, corrected(some))
    assert not_passed(found) == {}
    assert {verdict.mode for _, verdict in found} == {"split" if language == "python" else "compat"}
    assert passed_or_unjudged(verdicts(sandbox, [*buggy(some[-1:]), (some[-1], "chat", "")])) == {}


@pytest.mark.slow
@pytest.mark.parametrize("language", FILES)
def test_corrected_functions_pass_in_both_styles(problems: dict[str, list[Problem]], sandbox: Opened, language: str):
    need_toolchain(language)
    assert not_passed(verdicts(sandbox, corrected(problems[language][:: MANY.get(language, 1)]))) == {}


@pytest.mark.slow
@pytest.mark.parametrize("language", FILES)
def test_buggy_functions_and_empty_answers_fail(problems: dict[str, list[Problem]], sandbox: Opened, language: str):
    need_toolchain(language)
    empty = [(each, style, "") for each in problems[language][::41] for style in ("chat", "base")]
    wrong = buggy(problems[language][:: MANY.get(language, 1)])
    assert passed_or_unjudged(verdicts(sandbox, [*wrong, *empty])) == {}


# --- forms of chat answers -----------------------------------------------------------------------------------------

JAVA = "    public int strlen(String string) {\n        return string.length();\n    }\n"
JAVA_TESTS = "public class Main {\n    public static void main(String[] args) { assert false; }\n}\n"
FORMS = {
    "java: the method alone": ("java", JAVA),
    "java: a public class, and the tests again": ("java", f"public class Solution {{\n{JAVA}}}\n\n{JAVA_TESTS}"),
    "javascript: another kind of function": ("javascript", "function strlen(string) {\n  return string.length;\n}"),
    "rust: imports that the declaration has too, and tests": (
        "rust",
        "use std::collections::HashMap;\n\nfn strlen(strings: String) -> i32 {\n"
        "    let _none: HashMap<i32, i32> = HashMap::new();\n    strings.len() as i32\n}\n\nfn main() {}\n\n"
        "#[cfg(test)]\nmod tests {\n    use super::*;\n    #[test]\n    fn fails() { assert!(false); }\n}\n",
    ),
    "go: a package and its imports": (
        "go",
        'package main\n\nimport (\n    "fmt"\n    "unicode/utf8"\n)\n\nfunc Strlen(str string) int {\n'
        '    return utf8.RuneCountInString(str)\n}\n\nfunc main() { fmt.Println(Strlen("a")) }\n',
    ),
    "cpp: no headers, a main": ("cpp", "int add(int x, int y) { return max(x, y) + min(x, y); }\nint main() { }\n"),
    "python: nothing but the function": ("python", "def strlen(string):\n    return len(string)\n"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_corrected_function_passes_in_the_form_of(problems: dict[str, list[Problem]], sandbox: Opened, form: str):
    language, code = FORMS[form]
    need_toolchain(language)
    problem = problems[language][53 if language == "cpp" else 23]  # in C++, the tests of 23 call something else
    assert not_passed(verdicts(sandbox, [(problem, "chat", fenced(problem, code))])) == {}


def test_helpers_of_the_declaration_need_not_be_repeated(problems: dict[str, list[Problem]], sandbox: Opened):
    """decode_shift and its encode_shift, which the tests call as well; the answer is the last function alone."""
    answers: list[tuple[Problem, Style, str]] = []
    for language in ("python", "javascript"):
        problem = problems[language][50]
        assert "encode" in problem.facts["declaration"]
        begins = {"python": "def decode_shift", "javascript": "const decodeShift"}[language]
        answers.append((problem, "chat", fenced(problem, problem.reference[problem.reference.index(begins) :])))
    assert not_passed(verdicts(sandbox, answers)) == {}


def test_a_continuation_is_cut_where_its_function_ends(problems: dict[str, list[Problem]]):
    problem = problems["javascript"][23]
    answer: Answer = TASK.grade(problem, "base", "\n  return '}'.length ? string.length : 0;\n}\n\nstrlen = broken(;")
    assert answer.extracted == "\nconst strlen = (string) => {\n  return '}'.length ? string.length : 0;\n}\n"
    java = TASK.grade(problems["java"][23], "base", "\n        return string.length();\n    }\n")
    assert java.extracted.rstrip().endswith("    }\n}")
