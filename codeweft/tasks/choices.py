"""Multiple choice: MMLU, ARC, AGIEval, C-Eval, CMMLU.

In:  the official files (CSV by subject, JSONL).  Out: tasks asked by likelihood, by continuation or in a chat.
Source: DeepSeek-Coder-V2 Table 10 (shots); DeepSeek-V2 App. G (base models by perplexity, AGIEval by generation).

Unusual: letters are scored for the examinations, whole answers a byte for ARC, as is usual for each. Shots are the
first rows of the set's own development or training file, of the same subject.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import read_records
from codeweft.tasks.math_answers import final_answer, same_answer
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task

LETTERS = "ABCDEFGHIJ"
MEND = "Mend that row or fetch the file again."
NOTE = "give the folder of the official release (docs/evaluation.md says how it is laid out)"
MMLU = Data(("mmlu", "MMLU", "mmlu/data"), licence="MIT", note=NOTE)
CEVAL = Data(("ceval", "c-eval", "ceval-exam"), licence="CC BY-NC-SA 4.0", note=NOTE)
CMMLU = Data(("cmmlu", "CMMLU"), licence="CC BY-NC 4.0", note=NOTE)
AGIEVAL = Data(("agieval", "AGIEval", "AGIEval/data/v1", "AGIEval/data/v1_1"), licence="MIT", note=NOTE)
ARC = {
    "Easy": Data(("ARC-Easy", "arc/ARC-Easy", "ARC-V1-Feb2018/ARC-Easy"), licence="CC BY-SA 4.0", note=NOTE),
    "Challenge": Data(
        ("ARC-Challenge", "arc/ARC-Challenge", "ARC-V1-Feb2018/ARC-Challenge"), licence="CC BY-SA 4.0", note=NOTE
    ),
}


@dataclass(frozen=True, slots=True)
class Item:
    """A question, its choices, and the number of the right one."""

    question: str
    choices: tuple[str, ...]
    answer: int


# --- reading -------------------------------------------------------------------------------------------------------


def read_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of a CSV file; `columns` name those of a file without a header."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Fetch the file again.") from error
    reader = csv.reader(text.splitlines(keepends=True))
    names = list(columns) or [name.strip() for name in next(reader, [])]
    try:
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if len(row) != len(names):
                raise InputError(f"{place}: {len(row)} columns instead of {len(names)}.", MEND)
            yield place, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}.", MEND) from error


def examination(path: Path, columns: Sequence[str] = ()) -> list[Item]:
    """The questions of one subject: columns question, A to D, answer, in either case."""
    items = []
    for place, row in read_rows(path, columns):
        lower = {name.lower(): value for name, value in row.items()}
        missing = [name for name in ("question", "a", "b", "c", "d", "answer") if name not in lower]
        if missing:
            raise InputError(f"{place}: the column {missing[0]} is missing.", MEND)
        letter = lower["answer"].strip().upper()
        if letter not in ("A", "B", "C", "D"):
            raise InputError(f"{place}: the answer is {letter!r}, not A, B, C or D.", MEND)
        items.append(Item(lower["question"].strip(), tuple(lower[name] for name in "abcd"), LETTERS.index(letter)))
    return items


def load_examinations(name: str, data: Data, split: str, pattern: str, columns: Sequence[str] = ()) -> Any:
    """A loader of one CSV file a subject, `pattern` being its name around the subject's; 5 shots from dev/."""

    def load(files: Files, options: TaskOptions) -> Iterator[Problem]:
        folder = files.path(data)
        paths = sorted((folder / split).glob("*.csv"))
        if not paths:
            raise InputError(f"{folder / split} holds no CSV file.", NOTE[0].upper() + NOTE[1:] + ".")
        chinese, count = name != "mmlu", 5 if options.shots < 0 else options.shots
        for path in paths:
            subject = path.stem.removesuffix(pattern.format(split))
            shots = ""
            if count:
                given = examination(folder / "dev" / f"{subject}{pattern.format('dev')}.csv", columns)
                shots = "".join(lettered(item, chinese, LETTERS[item.answer]) for item in given[:count])
            for number, item in enumerate(examination(path, columns)):
                yield _problem(f"{subject}/{number}", name, subject, item, shots, chinese)

    return load


def load_arc(part: str) -> Any:
    """ARC as AI2 publishes it; 25 shots from the training file."""

    def load(files: Files, options: TaskOptions) -> Iterator[Problem]:
        folder, count = files.path(ARC[part]), 25 if options.shots < 0 else options.shots
        shots = ""
        if count:
            given = list(_arc(folder / f"ARC-{part}-Train.jsonl"))[:count]
            shots = "".join(f"Question: {i.question}\nAnswer: {i.choices[i.answer]}\n\n" for _, i in given)
        for name, item in _arc(folder / f"ARC-{part}-Test.jsonl"):
            yield _problem(name, f"arc-{part.lower()}", "", item, shots, False)

    return load


def _arc(path: Path) -> Iterator[tuple[str, Item]]:
    for place, record in read_records(path, ("id", "question", "answerKey")):
        question = record["question"]
        try:
            labels = [choice["label"] for choice in question["choices"]]
            item = Item(
                question["stem"], tuple(c["text"] for c in question["choices"]), labels.index(record["answerKey"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{place}: the question has no stem, choices, or right choice ({error}).", MEND) from error
        yield str(record["id"]), item


def load_agieval(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """AGIEval: one JSONL file a test; options with one or several right ones, or an answer in words."""
    folder = files.path(AGIEVAL)
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise InputError(f"{folder} holds no JSONL file.", NOTE[0].upper() + NOTE[1:] + ".")
    for path in paths:
        chinese = bool(re.match(r"gaokao(?!-english)|logiqa-zh|jec-qa", path.stem))
        for number, (place, record) in enumerate(read_records(path, ("question",))):
            passage = f"{record['passage']}\n\n" if record.get("passage") else ""
            options_given, label = record.get("options") or [], record.get("label")
            right = "".join(sorted(re.findall(r"[A-J]", "".join(label)))) if label else ""
            reference = right or record.get("answer")
            if not reference or (right and not options_given):
                raise InputError(f"{place}: there is neither a label with options nor an answer.", MEND)
            choices = tuple(re.sub(r"^\s*\(?[A-J][).．:：]\s*", "", choice) for choice in options_given)
            facts = {"choices": list(choices), "chinese": chinese, "shots": ""}
            language = "zh" if chinese else "en"
            yield Problem(
                f"{path.stem}/{number}", "agieval", path.stem, language, prompt=passage + record["question"],
                reference=str(reference), facts=facts,
            )  # fmt: skip


def _problem(name: str, task: str, family: str, item: Item, shots: str, chinese: bool) -> Problem:
    facts = {"choices": list(item.choices), "chinese": chinese, "shots": shots}
    return Problem(
        name, task, family, "zh" if chinese else "en", prompt=item.question, reference=LETTERS[item.answer], facts=facts
    )


# --- asking --------------------------------------------------------------------------------------------------------


def lettered(item: Item, chinese: bool, answer: str = "") -> str:
    """A question with lettered choices; with its answer it is a shot."""
    choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, item.choices, strict=False))
    return f"{item.question}\n{choices}\n{'答案：' if chinese else 'Answer:'}" + (f" {answer}\n\n" if answer else "")


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """By likelihood: the letters (ARC: the choices); base: the same text; chat: thinking, then a last line."""
    choices, chinese = tuple(problem.facts["choices"]), problem.facts["chinese"]
    if style == "chat":
        content = chat_text(problem.prompt, choices, chinese)
        return Ask(messages=({"role": "user", "content": content},), max_tokens=2048)
    if problem.task.startswith("arc"):
        text = f"{problem.facts['shots']}Question: {problem.prompt}\nAnswer:"
        return Ask(text, choices=tuple(f" {choice}" for choice in choices), stop=("\n",), max_tokens=64)
    text = problem.facts["shots"] + lettered(Item(problem.prompt, choices, 0), chinese)
    letters = tuple(f" {LETTERS[number]}" for number in range(len(choices)))
    return Ask(text, choices=letters, stop=("\n",), max_tokens=64)


def chat_text(question: str, choices: Sequence[str], chinese: bool) -> str:
    """What a chat model is asked; the form of the last line decides what is read."""
    letters = LETTERS[: len(choices)]
    listed = "\n".join(f"{letter}) {choice}" for letter, choice in zip(letters, choices, strict=True))
    if chinese:
        told = f"请回答下面的选择题。先逐步思考，最后一行写成“答案：X”，X 是 {'、'.join(letters)} 中的选项。"
        open_told = "请回答下面的问题。先逐步思考，并把最终答案放置于\\boxed{}中。"
    else:
        told = (
            "Answer this multiple choice question. Think step by step first; the last line of your answer has the form "
            f"'Answer: X' where X is one of {', '.join(letters)}."
        )
        open_told = "Answer this question. Think step by step first, and put the final answer within \\boxed{}."
    return f"{told}\n\n{question}\n\n{listed}" if choices else f"{open_told}\n\n{question}"


# --- grading -------------------------------------------------------------------------------------------------------


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """The number of the chosen choice, or the letters that are said at last; answers in words by value."""
    choices = problem.facts["choices"]
    if style == "likelihood":
        found = LETTERS[int(text)]
    elif not choices:
        found = final_answer(text)
        return Answer(found, float(same_answer(found, problem.reference)), vote=found)
    elif style == "base" and problem.task.startswith("arc"):
        said = text.strip().lower()
        right = choices[LETTERS.index(problem.reference)].strip().lower()
        return Answer(said, float(said.rstrip(".") == right.rstrip(".")))
    else:
        found = letters_in(text, len(choices))
    return Answer(found, float(found == problem.reference), vote=found, detail="" if found else "No letter was said.")


def letters_in(text: str, count: int) -> str:
    r"""The letters of the last line that says "Answer:", else of the last line that is a letter, in order.

    >>> letters_in("It cannot be A.\nAnswer: (B)", 4), letters_in("C", 4), letters_in("**Answer: A, C**", 4)
    ('B', 'C', 'AC')
    """
    some = f"[A-{LETTERS[count - 1]}]"
    group = rf"\(?{some}\)?(?:(?:\s*[,、]\s*|\s+and\s+|\s*)\(?{some}\)?(?![a-z]))*"
    bare = re.sub(r"\\boxed\{(?:\\text\{)?([^{}]*)\}*|[*$`]", r"\1", text)
    said = re.findall(rf"(?:answer(?:\s+is)?|答案(?:是|为)?|选)\s*[:：]?\s*({group})(?![A-Za-z])", bare, re.IGNORECASE)
    lines = re.findall(rf"^\s*({group})[.)]?\s*$", bare, re.MULTILINE)
    last = (said or lines or re.findall(rf"^\s*({group})(?:[.):]|\s*$)", bare)[:1] or [""])[-1]
    return "".join(sorted(set(re.findall(some, last))))


def _protocol(what: str) -> str:
    return f"{what} Chat: zero-shot, thinking first, the letters of the last line that says the answer."


STYLES: tuple[Style, ...] = ("likelihood", "chat", "base")
COLUMNS = ("question", "A", "B", "C", "D", "answer")
TASKS = (
    Task(
        "mmlu", "MMLU", "general language", STYLES, (MMLU,),
        _protocol("All subjects of test/, mean over questions; 5 shots of the subject's dev/ file; letters."),
        load_examinations("mmlu", MMLU, "test", "_{}", COLUMNS), ask, grade, "accuracy", columns=("mmlu",),
    ),
    Task(
        "arc-easy", "ARC-Easy", "general language", STYLES, (ARC["Easy"],),
        _protocol("The test file; 25 shots of the training file; whole answers, log-probability a byte."),
        load_arc("Easy"), ask, grade, "accuracy", columns=("arc-easy",), facts={"normalise": True},
    ),
    Task(
        "arc-challenge", "ARC-Challenge", "general language", STYLES, (ARC["Challenge"],),
        _protocol("The test file; 25 shots of the training file; whole answers, log-probability a byte."),
        load_arc("Challenge"), ask, grade, "accuracy", columns=("arc-challenge",), facts={"normalise": True},
    ),
    Task(
        "agieval", "AGIEval", "general language", ("chat", "base"), (AGIEVAL,),
        _protocol("All files of the folder, zero-shot, mean over questions; answers in words by value."),
        load_agieval, ask, grade, "accuracy", columns=("agieval",),
    ),
    Task(
        "c-eval", "C-Eval", "general language", STYLES, (CEVAL,),
        _protocol("All subjects of val/ (the answers of test/ are not public); 5 shots of dev/; letters."),
        load_examinations("c-eval", CEVAL, "val", "_{}"), ask, grade, "accuracy", columns=("c-eval",),
    ),
    Task(
        "cmmlu", "CMMLU", "general language", STYLES, (CMMLU,),
        _protocol("All subjects of test/, mean over questions; 5 shots of the subject's dev/ file; letters."),
        load_examinations("cmmlu", CMMLU, "test", ""), ask, grade, "accuracy", columns=("cmmlu",),
    ),
)  # fmt: skip
