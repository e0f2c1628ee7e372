"""Single-line infilling (SantaCoder) and OpenAI's infilling of HumanEval.

In:  official files: a program with a hole.  Out: tasks that compare the first written line, or run the filled program.
Source: DeepSeek-Coder-V2 Table 6 (first generated line, exact match); Bavarian et al. 2022 and Fried et al. 2022 for
HumanEval's holes.

Unusual: SantaCoder's file took the line ends beside the hole away. Both sides are asked as they are stored, as its
harness does, so that an answer begins by ending the prefix's last line.
"""

from collections.abc import Callable, Iterator

from codeweft.base.errors import InputError, UserError
from codeweft.base.progress import say
from codeweft.base.records import Problem, Test
from codeweft.sandbox.config import Submission
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Record, read_records
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task

LINE_TOKENS = 128  # the longest line of the file is 219 characters of digits
HOLE_TOKENS = 512
SENTINELS = 8  # tokens that mark the sides of a hole, and some to spare
LANGUAGES = {"py": "python", "js": "javascript", "java": "java"}
SANTACODER = Data(
    ("fim-santacoder/santacoder-fim.parquet", "santacoder-fim.parquet", "fim_singleline.jsonl"),
    "https://raw.githubusercontent.com/QwenLM/Qwen2.5-Coder/d5ead97fea36bca3744e1a4c49e882f6fa2f406a"
    "/qwencoder-eval/base/benchmarks/fim-bench/hm_fim/data/train.parquet",
    "54d62b5a4f1554ca3f7ab65f901fe1fecdb3eaebac28ebd52a90397c9239c6d9",
    "derived from MultiPL-E: BSD-3-Clause with a clause against training",
)


ENDS = (".jsonl.gz", ".jsonl")


def _human_eval(*names: str) -> Data:
    note = "it is in the folder data of github.com/openai/human-eval-infilling"
    spelt = [f"{folder}{name}{end}" for folder in ("human-eval-infilling/", "") for name in names for end in ENDS]
    return Data(tuple(spelt), licence="MIT", note=note)


SUITES = (
    _human_eval("HumanEval-SingleLineInfilling"),
    _human_eval("HumanEval-MultiLineInfilling"),
    _human_eval("HumanEval-RandomSpanInfilling", "HumanEval-RandomSpan"),
)


# --- what completion tasks share --------------------------------------------------------------------------------------


def edit_similarity(guess: str, truth: str) -> float:
    """1 - Levenshtein distance over the longer length, after strip; 1 for equal lines.

    >>> edit_similarity("return x", "return y")
    0.875
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise UserError("Edit similarity needs rapidfuzz.", "Install it: pip install 'codeweft[eval]'.") from error
    return Levenshtein.normalized_similarity(guess.strip(), truth.strip())


def last_lines(text: str, tokens: int, count: Callable[[str], int]) -> str:
    r"""As many whole lines from the end of a text as have at most so many tokens together.

    >>> last_lines("a b\nc\nd e", 3, lambda text: len(text.split()))
    'c\nd e'
    """
    lines = text.split("\n")
    return _fitting(len(lines), tokens, count, lambda kept: "\n".join(lines[len(lines) - kept :]))


def first_lines(text: str, tokens: int, count: Callable[[str], int]) -> str:
    """As many whole lines from the beginning of a text as have at most so many tokens together."""
    lines = text.split("\n")
    return _fitting(len(lines), tokens, count, lambda kept: "\n".join(lines[:kept]))


def _fitting(most: int, tokens: int, count: Callable[[str], int], part: Callable[[int], str]) -> str:
    """`part` of the largest number up to `most` that fits; more lines are taken to have more tokens, then checked."""
    if count(part(most)) <= tokens:
        return part(most)
    low, high = 0, most
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if count(part(middle)) <= tokens else (low, middle)
    while low and count(part(low)) > tokens:
        low -= 1
    return part(low) if low else ""


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """Both sides of the hole (infill) or the text before it (base); the lines nearest to the hole where room is short.

    The half of the room that one side leaves empty goes to the other.
    """
    line = problem.task == "fim-single-line"
    longest = LINE_TOKENS if line else HOLE_TOKENS
    if style == "base":
        return Ask(last_lines(problem.prompt, room.tokens, room.count), stop_line=line, max_tokens=longest)
    tokens, suffix = room.tokens - SENTINELS, problem.facts["suffix"]
    before, after = room.count(problem.prompt), room.count(suffix)
    prefix = last_lines(problem.prompt, max(tokens - after, tokens // 2), room.count)
    suffix = first_lines(suffix, max(tokens - before, tokens - tokens // 2), room.count)
    return Ask(prefix, suffix=suffix, stop_line=line, max_tokens=longest)


# --- single lines ----------------------------------------------------------------------------------------------------


def load_lines(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """The items of SantaCoder's file in its order."""
    edit_similarity("", "")  # what is missing for it is told before anything is asked
    needed = ("name", "language", "prompt", "suffix", "canonical_solution")
    for place, record in read_records(files.path(SANTACODER), needed):
        _check(place, record, needed)
        language = LANGUAGES.get(record["language"], record["language"])
        yield Problem(
            f"{language}/{record['name']}", "fim-single-line", language=language, prompt=record["prompt"],
            reference=record["canonical_solution"], facts={"suffix": record["suffix"]},
        )  # fmt: skip


def _check(place: str, record: Record, names: tuple[str, ...]) -> None:
    for name in names:
        if not isinstance(record[name], str):
            raise InputError(f"{place}: {name} is not a text.", "Mend that line or fetch the file again.")


def first_line(text: str) -> str:
    r"""The first line that is not blank, its indentation kept.

    >>> first_line("\n    return x\nprint")
    '    return x'
    """
    return next((line.rstrip() for line in text.split("\n") if line.strip()), "")


def grade_line(problem: Problem, style: Style, text: str) -> Answer:
    """1 where the first line that was written is the missing one, white space around it put aside."""
    line = first_line(text)
    score = float(line.strip() == problem.reference.strip())
    return Answer(line, score, metrics={"edit_similarity": edit_similarity(line, problem.reference)})


# --- HumanEval's holes -----------------------------------------------------------------------------------------------


def load_holes(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """The items of OpenAI's files; of the three suites, those that are there, and a line about each that is not."""
    paths, missing = [], []
    for suite in SUITES:
        try:
            paths.append(files.path(suite))
        except InputError as error:
            missing.append(error)
    if not paths:
        raise missing[0]
    for error in missing:
        say(f"HumanEval infilling is asked without one of its suites: {error.message}")
    needed = ("task_id", "entry_point", "prompt", "suffix", "canonical_solution", "test")
    for path in paths:
        for place, record in read_records(path, needed):
            _check(place, record, needed)
            yield _hole(record)


def _hole(record: Record) -> Problem:
    return Problem(
        record["task_id"], "human-eval-infilling", family=record["task_id"].split("/")[0], language="python",
        prompt=record["prompt"], entry_point=record["entry_point"], reference=record["canonical_solution"],
        tests_hidden=(Test("assert", code=f"{record['test']}\ncheck({record['entry_point']})"),),
        facts={"suffix": record["suffix"]},
    )  # fmt: skip


def grade_hole(problem: Problem, style: Style, text: str) -> Answer:
    """The program with the whole answer in its hole, to be judged by HumanEval's tests.

    Three problems' tests also call functions that stand above the hole; they get those of the reference program.
    """
    suffix = problem.facts["suffix"]
    program = problem.prompt + text + suffix
    reference = problem.prompt + problem.reference + suffix
    return Answer(
        text, submission=Submission("python", program, problem.tests_hidden, problem.entry_point, setup=reference)
    )


TASKS = (
    Task(
        "fim-single-line", "Single-line infilling", "code completion", ("infill", "base"), (SANTACODER,),
        "SantaCoder's holes of one line in HumanEval solutions in Python, Java and JavaScript. The first written line "
        "that is not blank counts; exact match after strip; the mean of all items.",
        load_lines, ask, grade_line, "exact_match",
        columns=("fim-single-line", "fim-single-line.python", "fim-single-line.java", "fim-single-line.javascript"),
    ),
    Task(
        "human-eval-infilling", "HumanEval infilling", "code completion", ("infill",), SUITES,
        "OpenAI's holes in HumanEval solutions: single lines, several lines, random spans. The whole answer is put "
        "into the hole and the tests run; the plain mean of the suites that were given.",
        load_holes, ask, grade_hole, "pass@1", average="family",
    ),
)  # fmt: skip
