"""The benchmark of katas: small exercises drawn here, answered by a function, judged by hidden tests.

In:  options (which split, how many, which seed, difficulties, languages).  Out: the task `katas`.

Unusual: no file is read. JavaScript cannot be split from its tests as Python can, so an answer becomes a program that
reads one call's arguments and prints the result: no expected value is ever beside it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from codeweft.base.errors import ConfigError
from codeweft.base.records import Problem, Test
from codeweft.sandbox.config import Submission
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.extraction import chat_code, until
from codeweft.tasks.katas.generate import DIFFICULTIES, draw
from codeweft.tasks.katas.writing import LANGUAGES, opening, signature
from codeweft.tasks.task import Answer, Ask, Files, Room, Style, Task

CHAT_TOKENS, BASE_TOKENS = 512, 256
STOPS = {
    "python": ("\ndef ", "\nclass ", "\nif ", "\nprint(", "\nassert ", "\n#", "\n@", "\n>>>", "\n```"),
    "javascript": ("\n}",),
}
SHOTS_SEED = 3  # of the solved exercises before a question: from the training split, one a family
MOST_SHOTS = 8
# What an answer prints must not be taken for its result. Tables travel as sorted pairs, since JavaScript puts keys
# that look like numbers first.
QUIET = "console.log = () => {};\n"
DRIVER = """
;(() => {
  const plain = value => Array.isArray(value) ? value.map(plain)
    : value && typeof value === "object"
      ? { pairs: Object.keys(value).sort().map(key => [key, plain(value[key])]) } : value;
  const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
  require("fs").writeSync(1, JSON.stringify(plain(NAME(...given))) + "\\n");
})();
"""


def load(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """`kata_problems` exercises of `kata_split`, of the difficulties and languages that were asked for."""
    difficulties = _known(options.difficulties, DIFFICULTIES, "difficulties")
    languages = _known(options.languages, LANGUAGES, "languages") or ("python",)
    if options.shots > MOST_SHOTS:
        raise ConfigError(f"Katas have at most {MOST_SHOTS} shots, not {options.shots}.", "Ask for fewer.")
    drawn = draw(
        options.kata_problems,
        split=options.kata_split,
        seed=options.seed,
        difficulties=difficulties,
        languages=languages,
    )
    for problem in drawn:
        yield replace(problem, facts=problem.facts | {"shots": max(options.shots, 0)})


def _known(asked: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """What is asked of these; ConfigError where all of it means other tasks."""
    found = tuple(each for each in known if each in asked)
    if asked and not found:
        raise ConfigError(f"Katas have none of the {what} {', '.join(asked)}.", f"They have {', '.join(known)}.")
    return found


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """Chat: the question. Base: solved exercises as far as they fit, then the function up to where its body begins."""
    if style == "chat":
        return Ask(messages=({"role": "user", "content": problem.prompt},), max_tokens=CHAT_TOKENS)
    text = _opening(problem)
    for shot in reversed(_shots(problem.language)[: problem.facts.get("shots", 0)]):
        if room.count(shot + text) > room.tokens:
            break
        text = shot + text
    return Ask(text, stop=STOPS[problem.language], max_tokens=BASE_TOKENS)


def _opening(problem: Problem) -> str:
    parameters, says = problem.facts["parameters"], problem.facts["statement"]
    return opening(problem.language, problem.entry_point, parameters, says, problem.tests_visible)


@cache
def _shots(language: str) -> tuple[str, ...]:
    """Solved exercises of the training split as text, one of each of several families."""
    drawn = draw(60, split="train", seed=SHOTS_SEED, difficulties=("1", "2"), languages=(language,))
    chosen = {problem.family: problem for problem in drawn}
    bodies = [(problem, problem.reference.split("\n", 1)[1]) for problem in chosen.values()]
    return tuple(f"{_opening(problem)}{body}\n\n" for problem, body in bodies)[:MOST_SHOTS]


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """The function out of the answer, and the hidden tests that the sandbox is to run on it."""
    code = chat_code(text, (problem.entry_point,)) if style == "chat" else continued(problem, text)
    return Answer(code, submission=submission(problem, code, problem.tests_hidden))


def continued(problem: Problem, text: str) -> str:
    """The function that a base model's continuation makes of its first line."""
    first = signature(problem.language, problem.entry_point, problem.facts["parameters"])
    ending = "\n}\n" if problem.language == "javascript" else "\n"
    return f"{first}\n{until(text, STOPS[problem.language]).rstrip()}{ending}"


def submission(problem: Problem, code: str, tests: Sequence[Test]) -> Submission:
    """What the sandbox judges: an answer to an exercise and some of its tests, visible or hidden ones."""
    if problem.language == "python":
        return Submission("python", code, tuple(tests), entry_point=problem.entry_point)
    program = QUIET + code + DRIVER.replace("NAME", problem.entry_point)
    as_programs = tuple(
        Test("stdio", stdin=json.dumps(test.args), expected=_printed(test.expected) + "\n") for test in tests
    )
    return Submission("javascript", program, as_programs)


def _printed(value: Any) -> str:
    """A value as the driver prints it."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {"pairs": [[key, plain(value[key])] for key in sorted(value)]}
        return [plain(each) for each in value] if isinstance(value, list) else value

    return json.dumps(plain(value), separators=(",", ":"))


TASKS = (
    Task(
        "katas", "Katas", "code generation", ("chat", "base"), (),
        "Exercises drawn by this program from families that were trained on, with parameters that were not "
        "(kata_split = held-out), or from families that never were (unseen-families); 18 hidden tests, fewer where "
        "there are not so many arguments. Chat: the question; base: the function's first lines, zero-shot unless shots "
        "says otherwise.",
        load, ask, grade, "pass@1",
    ),
)  # fmt: skip
