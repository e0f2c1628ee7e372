"""Editing whole files: Exercism's exercises in the manner of Aider's benchmark, two tries each.

In:  the repository exercism/problem-specifications.  Out: the task exercism-edits.
Source: DeepSeek-Coder-V2 Table 7, column Aider (133 Python exercises, edit format `whole`).

Unusual: Aider's stubs and unit tests are those of Exercism's Python track. Ours are made from the specifications that
all tracks share (exercism_tests.py), so the exercises overlap but the tests are others: a score here is not that of the
paper's column. As with Aider, a failed test is shown with what it expects before the second try; only the first one.
"""

import re
from collections.abc import Iterator, Sequence

from codeweft.base.records import Problem, Test, Verdict
from codeweft.sandbox.config import Limits, Submission
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.exercism_tests import ENTRY, TOLERANCE, call_words, outcome_words, program, survey
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task, Turn

DATA = Data(
    ("exercism-specs", "problem-specifications", "exercism/problem-specifications"),
    licence="MIT",
    note="it is the repository exercism/problem-specifications at GitHub, to be cloned",
)
TRIES = 2
TOKENS = 2048
SECONDS = 20.0  # of processor time for all tests of an exercise; some searches are slow in Python
SYSTEM = """You are a careful Python programmer who edits files. Return every file that you change whole, from its
first line to its last, in this form: a line with the name of the file and nothing else, then a fenced block with all
of its new content. Never leave a part out and never write that something stays as it is.

example.py
```python
def double(number: int) -> int:
    return 2 * number
```"""
ASKED = """# {title}

{statement}

---
Here is the file {file}:

{file}
```python
{stub}```

Change {file} so that it does what is described above. Keep the names of its functions and their parameters: unit
tests call them, as the examples in the file show. Where an error is expected, raise ValueError. Use nothing but
Python's standard library. Return the whole file."""
AGAIN = """The tests of {file} fail.

{failure}

The test is right. Mend the code, and return the whole file {file} again."""
UNREADABLE = """{failure} Return the whole file in this form: a line with the name {file}, then a fenced block with
all of its content."""
BROKEN = ("harness_error", "unsupported", "refused")  # no verdict on the answer


def load(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """One problem an exercise, in the order of their names; tests that the stub shows are the visible ones."""
    exercises, _ = survey(files.path(DATA))
    for exercise in exercises:
        words = {"title": exercise.title, "statement": exercise.statement, "stub": exercise.stub}
        asked = ASKED.format(file=exercise.file, **words)
        facts = {
            "file": exercise.file, "unordered": list(exercise.unordered),
            "tolerance": TOLERANCE.get(exercise.slug, 1e-6), "skipped": dict(exercise.skipped),
        }  # fmt: skip
        yield Problem(
            exercise.slug, "exercism-edits", language="python", prompt=asked, entry_point=ENTRY,
            tests_visible=exercise.shown, tests_hidden=exercise.hidden, limits={"cpu_seconds": SECONDS}, facts=facts,
        )  # fmt: skip


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """The form of the answer, the exercise and its stub."""
    system, user = {"role": "system", "content": SYSTEM}, {"role": "user", "content": problem.prompt}
    return Ask(messages=(system, user), max_tokens=TOKENS)


def whole_file(text: str, file: str) -> tuple[str, str]:
    """The new content of a file in an answer, or why there is none.

    The last block under the file's name counts; else, as with Aider where only one file is open, the last block without
    a name. A last block may be left open.
    """
    named, unnamed, others = [], [], []
    for title, content in _blocks(text.replace("\r\n", "\n")):
        if title.rsplit("/", 1)[-1] == file:
            named.append(content)
        else:
            (others if title else unnamed).append(content)
    found = (named or unnamed or [""])[-1]
    if found.strip():
        return found, ""
    if named or unnamed:
        return "", "The block of the answer is empty."
    return "", "The answer has only blocks of other files." if others else "The answer has no fenced block."


FENCE = re.compile(r"([ \t]*)(`{3,})[ \t]*([^`]*)")


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """(file name or nothing, content) of all fenced blocks."""
    lines, number = text.split("\n"), 0
    while number < len(lines):
        opened = FENCE.fullmatch(lines[number])
        number += 1
        if not opened:
            continue
        before = next((line for line in reversed(lines[: number - 1]) if line.strip()), "")
        start = number
        while number < len(lines) and lines[number].rstrip() != opened[1] + opened[2]:
            number += 1
        indent = len(opened[1])
        inside = [line[indent:] if not line[:indent].strip() else line for line in lines[start:number]]
        number += 1
        info = [word for word in opened[3].split() if _file_name(word)]
        yield (info[0] if info else _file_name(before)), "".join(f"{line}\n" for line in inside)


def _file_name(line: str) -> str:
    """The file that a line names, or nothing.

    >>> _file_name("**`two_fer.py`**:"), _file_name("### src/two_fer.py"), _file_name("That is all.")
    ('two_fer.py', 'src/two_fer.py', '')
    """
    bare = line.strip().lstrip("#").strip().strip("*:`").strip()
    return bare if re.fullmatch(r"[\w./-]*\w\.\w{1,5}", bare) else ""


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """The whole file, judged by all tests; `well_formed` says whether there was one."""
    code, failure = whole_file(text, problem.facts["file"])
    if failure:
        return Answer("", 0.0, metrics={"well_formed": 0.0}, detail=failure)
    limits = Limits(cpu_seconds=problem.limits["cpu_seconds"])
    submission = Submission(
        "python", program(code, problem.facts["unordered"]), _tests(problem), ENTRY, limits=limits,
        tolerance=problem.facts["tolerance"],
    )  # fmt: skip
    return Answer(code, submission=submission, metrics={"well_formed": 1.0})


def _tests(problem: Problem) -> tuple[Test, ...]:
    return problem.tests_visible + problem.tests_hidden


def follow(problem: Problem, turns: Sequence[Turn]) -> Ask | None:
    """The second try, after the first failure."""
    last = turns[-1]
    file = problem.facts["file"]
    if len(turns) == TRIES or (last.verdict is None and last.answer.score is None):
        return None
    if last.verdict is None:
        told = UNREADABLE.format(failure=last.answer.detail, file=file)
    elif last.verdict.status == "ok" or last.verdict.status in BROKEN:
        return None
    else:
        told = AGAIN.format(failure=failure_words(problem, last.verdict), file=file)
    said = ({"role": "assistant", "content": last.text}, {"role": "user", "content": told})
    return Ask(messages=(*last.ask.messages, *said), max_tokens=TOKENS)


def failure_words(problem: Problem, verdict: Verdict) -> str:
    """The first failed test in words: the call, what it should do, what it did."""
    number = re.match(r"Test (\d+): ", verdict.detail)
    if number is None or not 0 < int(number[1]) <= len(_tests(problem)):
        return f"What happened ({verdict.status.replace('_', ' ')}): {verdict.detail}"
    test = _tests(problem)[int(number[1]) - 1]
    if verdict.status != "wrong":
        happened = f"{verdict.status.replace('_', ' ')}: {verdict.detail[number.end() :]}"
    elif test.expected[0] == "raised":
        happened = "it raised nothing."
    else:
        happened = "it gave another value, or raised ValueError."
    return f"The call: {call_words(test)}\nWhat is right: it {outcome_words(test)}\nWhat happened: {happened}"


TASKS = (
    Task(
        "exercism-edits", "Exercism edits", "code repair", ("chat",), (DATA,),
        "Exercism's exercises, stubs and tests made from the specifications that all languages share: not the tests of "
        "Aider's benchmark, whose scores cannot be compared with these. Whole files; two tries, the second after "
        "seeing the first failed test with what it expects; 20 s of processor time for all tests of an exercise.",
        load, ask, grade, follow=follow,
    ),
)  # fmt: skip
