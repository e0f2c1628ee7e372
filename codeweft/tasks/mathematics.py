"""Word problems and competition mathematics: GSM8K, SVAMP, MATH, AIME, Odyssey.

In:  official files, or a user's in their format.  Out: tasks whose answers are compared by value.
Source: DeepSeek-Coder-V2 §4.5 (zero-shot, \\boxed); DeepSeek-V2 App. G (8 and 4 shots for base models).

Unusual: GSM8K's shots are the first problems of its own training file. MATH's four are written here, since its official
ones cannot be shipped; the protocol says so, and scores of base models on it compare among themselves.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import read_records
from codeweft.tasks.math_answers import final_answer, last_boxed, same_answer, vote
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task

Record = dict[str, Any]
REASON = "\nPlease reason step by step, and put your final answer within \\boxed{}."
REASON_CHINESE = "\n请通过逐步推理来解答问题，并把最终答案放置于\\boxed{}中。"
SHOTS, SHOTS_MATH = 8, 4
GSM8K = Data(
    ("gsm8k/test.jsonl", "GSM8K/test.jsonl", "grade_school_math/data/test.jsonl"),
    "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
    "/grade_school_math/data/test.jsonl",
    "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
    "MIT",
)
GSM8K_TRAIN = Data(
    ("gsm8k/train.jsonl", "GSM8K/train.jsonl", "grade_school_math/data/train.jsonl"),
    GSM8K.url.replace("test.jsonl", "train.jsonl"),
    "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    "MIT",
)
SVAMP = Data(
    ("svamp/SVAMP.json", "SVAMP.json"),
    "https://raw.githubusercontent.com/arkilpatel/SVAMP/689d7ccac74b9983a2ac7cc3b264f441b99e7c53/SVAMP.json",
    "5be77703a6d891ae476d7c082787ad361392aa02453b132516cdd5f4e7934e3e",
    "MIT",
)
OWN = "there is no free copy to fetch: give a JSONL file with the fields problem and answer (docs/evaluation.md)"
MATH = Data(
    ("math/test.jsonl", "MATH/test.jsonl", "math-500/test.jsonl", "MATH/test", "math/test"),
    licence="MIT",
    note="it is the file of Hendrycks et al. 2021, as JSONL or as its folder of JSON files, or the 500 of MATH-500",
)
AIME = Data(("aime/aime.jsonl", "aime.jsonl", "aime/test.jsonl"), note=OWN)
ODYSSEY = Data(("math-odyssey/math-odyssey.jsonl", "math-odyssey.jsonl", "math-odyssey/test.jsonl"), note=OWN)
# Worked examples for base models, written for this file.
WORKED = (
    ("What is the sum of the first 20 positive odd integers?",
     "The sum of the first $n$ odd integers is $n^2$, so the sum is $20^2 = 400$.", "400"),
    ("Solve for $x$: $\\frac{x}{3} + 2 = x$.",
     "Multiplying by 3 gives $x + 6 = 3x$, so $2x = 6$ and $x = 3$.", "3"),
    ("A bag holds 3 red and 5 blue marbles. Two are drawn without putting back. What is the probability that both are "
     "red?",
     "The first is red with probability $\\frac{3}{8}$ and the second then with $\\frac{2}{7}$. Together "
     "$\\frac{3}{8} \\cdot \\frac{2}{7} = \\frac{3}{28}$.", "\\frac{3}{28}"),
    ("Find the distance between the points $(1, 2)$ and $(4, 8)$.",
     "The differences are 3 and 6, so the distance is $\\sqrt{9 + 36} = \\sqrt{45} = 3\\sqrt{5}$.", "3\\sqrt{5}"),
)  # fmt: skip


# --- reading -------------------------------------------------------------------------------------------------------


def load_gsm8k(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """The test file; the shots of base models are kept with each problem."""
    count = SHOTS if options.shots < 0 else options.shots
    shots = _gsm8k_shots(files.path(GSM8K_TRAIN), count) if count else ""
    for number, (place, record) in enumerate(read_records(files.path(GSM8K), ("question", "answer"))):
        _, mark, answer = record["answer"].rpartition("####")
        if not mark:
            raise InputError(f"{place}: the answer has no ####.", "Mend that line or fetch the file again.")
        yield Problem(
            f"gsm8k/{number}", "gsm8k", prompt=record["question"], reference=answer.strip(), facts={"shots": shots}
        )


def _gsm8k_shots(path: Path, count: int) -> str:
    shots = []
    for _, record in read_records(path, ("question", "answer")):
        if len(shots) == count:
            break
        worked, _, answer = record["answer"].rpartition("####")
        worked = " ".join(re.sub(r"<<.*?>>", "", worked).split())  # without the notes to its calculator
        question = record["question"]
        shots.append(f"Q: {question}\nA: Let's think step by step. {worked} The answer is {answer.strip()}.\n\n")
    return "".join(shots)


def load_svamp(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """All 1,000 problems of the file; the kind of calculation is the family."""
    path = files.path(SVAMP)
    for place, record in read_records(path, ("ID", "Body", "Question", "Answer")):
        body = record["Body"].strip()
        if not isinstance(record["Answer"], int | float):
            raise InputError(f"{place}: Answer is no number.", "Mend that entry or fetch the file again.")
        yield Problem(
            record["ID"],
            "svamp",
            family=record.get("Type", ""),
            prompt=f"{body}{'' if body.endswith(('.', '?', '!')) else '.'} {record['Question'].strip()}",
            reference=str(record["Answer"]).removesuffix(".0"),
            facts={"shots": ""},
        )


def load_math(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """MATH's records: problem, solution with the answer in a box, level, type."""
    path = files.path(MATH)
    paths = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"{path} holds no JSON file.", "Give the folder MATH/test as it is published.")
    number = 0
    for one in paths:
        for place, record in read_records(one, ("problem",)):
            answer = record.get("answer") or last_boxed(str(record.get("solution", "")))
            if answer is None:
                raise InputError(f"{place}: there is neither an answer nor a box in a solution.", "Mend that record.")
            name = f"{one.parent.name}/{one.stem}" if path.is_dir() else str(record.get("unique_id", number))
            level = str(record.get("level", "")).removeprefix("Level ").strip()
            family = str(record.get("type") or record.get("subject") or "")
            facts = {"shots": _worked(options.shots)}
            yield Problem(
                name, "math", family, difficulty=level, prompt=record["problem"], reference=str(answer), facts=facts
            )
            number += 1


def load_own(name: str, data: Data) -> Any:
    """A loader for a user's JSONL in any of the usual spellings of its two fields."""

    def load(files: Files, options: TaskOptions) -> Iterator[Problem]:
        for number, (place, record) in enumerate(read_records(files.path(data))):
            question = _first(record, ("problem", "question", "Problem", "prompt"))
            answer = _first(record, ("answer", "final_answer", "Answer", "expected_answer"))
            if question is None or answer is None:
                missing = "problem" if question is None else "answer"
                raise InputError(f"{place}: the field {missing} is missing.", "Give each line both.")
            key = _first(record, ("id", "ID", "problem_id", "unique_id"))
            yield Problem(
                str(number if key is None else key),
                name,
                family=str(_first(record, ("type", "category", "label", "subject")) or ""),
                difficulty=str(_first(record, ("level", "difficulty")) or ""),
                prompt=str(question),
                reference=last_boxed(str(answer)) or str(answer).strip().strip("$"),
                facts={"shots": _worked(options.shots)},
            )

    return load


def _first(record: Record, names: Sequence[str]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _worked(shots: int) -> str:
    chosen = WORKED[: SHOTS_MATH if shots < 0 else shots]
    return "".join(_minerva(problem, f" {solution} {_finally(answer)}\n\n") for problem, solution, answer in chosen)


def _minerva(problem: str, solution: str) -> str:
    return f"Problem:\n{problem}\n\nSolution:{solution}"


def _finally(answer: str) -> str:
    return f"Final Answer: The final answer is ${answer}$. I hope it is correct."


# --- asking and grading --------------------------------------------------------------------------------------------


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """Chat: the question and the paper's sentence. Base: shots and the question in their form."""
    if style == "chat":
        chinese = len(re.findall(r"[\u4e00-\u9fff]", problem.prompt)) > len(problem.prompt) / 4
        content = problem.prompt + (REASON_CHINESE if chinese else REASON)
        return Ask(messages=({"role": "user", "content": content},), max_tokens=2048)
    if problem.task in ("gsm8k", "svamp"):
        text = f"{problem.facts['shots']}Q: {problem.prompt}\nA: Let's think step by step."
        return Ask(text, stop=("\nQ:", "\n\nQ:"), max_tokens=512)
    text = problem.facts["shots"] + _minerva(problem.prompt, "")
    return Ask(text, stop=("\nProblem:", "I hope it is correct."), max_tokens=1024)


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """The final answer, compared by value."""
    found = final_answer(text)
    score = float(same_answer(found, problem.reference))
    return Answer(found, score, vote=vote(found), detail="" if found else "There is no final answer.")


COMMON = "The final answer is the last boxed expression, else what is said to be the answer, else the last number; "
COMMON += "math-verify decides what is equal. "
TASKS = (
    Task(
        "gsm8k", "GSM8K", "mathematics", ("chat", "base"), (GSM8K, GSM8K_TRAIN),
        "1,319 test problems; chat: zero-shot with the paper's sentence; base: 8 shots, the first of the training "
        f"file, unless shots says otherwise. {COMMON}",
        load_gsm8k, ask, grade, "accuracy", columns=("gsm8k",),
    ),
    Task(
        "svamp", "SVAMP", "mathematics", ("chat", "base"), (SVAMP,),
        f"All 1,000 problems, zero-shot. {COMMON}", load_svamp, ask, grade, "accuracy",
    ),
    Task(
        "math", "MATH", "mathematics", ("chat", "base"), (MATH,),
        f"Chat: zero-shot with the paper's sentence; base: 4 worked examples of this program's own. {COMMON}",
        load_math, ask, grade, "accuracy", columns=("math",),
    ),
    Task(
        "aime", "AIME", "mathematics", ("chat", "base"), (AIME,),
        f"The problems of the file given, zero-shot (base: 4 worked examples of our own). {COMMON}",
        load_own("aime", AIME), ask, grade, "accuracy", columns=("aime",),
    ),
    Task(
        "math-odyssey", "Math Odyssey", "mathematics", ("chat", "base"), (ODYSSEY,),
        f"The problems of the file given, zero-shot (base: 4 worked examples of our own). {COMMON}",
        load_own("math-odyssey", ODYSSEY), ask, grade, "accuracy", columns=("math-odyssey",),
    ),
)  # fmt: skip
