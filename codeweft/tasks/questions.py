"""Questions with short answers: BBH, TriviaQA, NaturalQuestions, CLUEWSC.

In:  the official files.  Out: tasks graded by exact match after the usual normalisation.
Source: DeepSeek-Coder-V2 Table 10 (shots); DeepSeek-V2 App. G (by generation).

Unusual: shots of TriviaQA and NaturalQuestions come from the set's own training file where it lies beside, and the
protocol counts on it; without that file it is asked for.
"""

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import read_records
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task

MEND = "Mend that record or fetch the file again."
NOTE = "give the file of the official release (docs/evaluation.md says how it is laid out)"
BBH = Data(("bbh", "BIG-Bench-Hard/bbh", "BIG-Bench-Hard"), licence="MIT", note=NOTE)
TRIVIAQA = Data(
    ("triviaqa/web-dev.json", "triviaqa/unfiltered-web-dev.json", "triviaqa/qa/wikipedia-dev.json"),
    licence="Apache-2.0",
    note=NOTE,
)
TRIVIAQA_TRAIN = Data(
    ("triviaqa/web-train.json", "triviaqa/unfiltered-web-train.json", "triviaqa/qa/wikipedia-train.json"),
    licence="Apache-2.0",
    note=NOTE,
)
NQ = Data(("natural-questions/NQ-open.dev.jsonl", "nq_open/NQ-open.dev.jsonl", "NQ-open.dev.jsonl"), note=NOTE)
NQ_TRAIN = Data(
    ("natural-questions/NQ-open.train.jsonl", "nq_open/NQ-open.train.jsonl", "NQ-open.train.jsonl"), note=NOTE
)
CLUEWSC = Data(("cluewsc/dev.json", "CLUEWSC2020/dev.json", "cluewsc2020/dev.json"), note=NOTE)
CLUEWSC_TRAIN = Data(("cluewsc/train.json", "CLUEWSC2020/train.json", "cluewsc2020/train.json"), note=NOTE)


def normal(answer: str) -> str:
    """Lower case, without articles and punctuation, one space between words (Rajpurkar et al. 2016).

    >>> normal("The  Beatles!")
    'beatles'
    """
    lower = unicodedata.normalize("NFKC", answer).lower()
    bare = "".join(" " if character in string.punctuation + "‘’´`“”" else character for character in lower)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


# --- BBH -----------------------------------------------------------------------------------------------------------


def load_bbh(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """One JSON file a task; the three solved examples of cot-prompts/ are shown where that folder lies beside."""
    folder = files.path(BBH)
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise InputError(f"{folder} holds no JSON file.", "Give the folder bbh/ as it is published.")
    for path in paths:
        shots, count = "", 3 if options.shots < 0 else options.shots
        if count:
            shots = _thoughts(path, count)
        for place, record in read_records(path, ("examples",)):
            for number, example in enumerate(record["examples"]):
                if not isinstance(example, dict) or not {"input", "target"} <= example.keys():
                    raise InputError(f"{place}, example {number + 1}: input or target is missing.", MEND)
                yield Problem(
                    f"{path.stem}/{number}", "bbh", path.stem, prompt=example["input"], reference=example["target"],
                    facts={"shots": shots},
                )  # fmt: skip


def _thoughts(path: Path, count: int) -> str:
    """The first examples of the task's chain-of-thought prompt; the notice above its rule of dashes is left out."""
    for folder in (path.parent / "cot-prompts", path.parent.parent / "cot-prompts"):
        prompt = folder / f"{path.stem}.txt"
        if prompt.is_file():
            text = prompt.read_text(encoding="utf-8").split("-----\n", 1)[-1].strip()
            parts = re.split(r"(?m)^(?=Q: )", text)
            return parts[0] + "".join(part.strip() + "\n\n" for part in parts[1 : 1 + count])
    raise InputError(
        f"{path.parent} has no cot-prompts/{path.stem}.txt beside it for the shots.",
        "Put that folder of the release there, or ask without them: --evaluate.options.shots=0.",
    )


def ask_bbh(problem: Problem, style: Style, room: Room) -> Ask:
    """Question and thinking, in the form of the official prompts."""
    text = f"{problem.facts['shots']}Q: {problem.prompt}\nA: Let's think step by step."
    if style == "chat":
        told = f"{text}\n\nEnd with the sentence 'So the answer is X.' where X is the answer alone."
        return Ask(messages=({"role": "user", "content": told},), max_tokens=1024)
    return Ask(text, stop=("\nQ:", "\n\nQ:"), max_tokens=512)


def grade_bbh(problem: Problem, style: Style, text: str) -> Answer:
    """What follows the last "the answer is", compared without case, brackets and a last full stop."""
    said = re.split(r"answer is:?\s*", text.replace("**", ""))
    line = said[-1].split("\n")[0] if len(said) > 1 else text.strip().split("\n")[-1]
    found = line.strip().rstrip(".")
    return Answer(found, float(_bare(found) == _bare(problem.reference)), vote=_bare(found))


def _bare(answer: str) -> str:
    return re.sub(r"\s+", " ", answer.strip().strip('"').strip("()")).strip().lower()


# --- open questions ------------------------------------------------------------------------------------------------


def load_triviaqa(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """Data[].Question with Answer.Aliases; problems whose file holds no answers are refused."""
    count = 5 if options.shots < 0 else options.shots
    shots = _shots(islice(_trivia(files.path(TRIVIAQA_TRAIN)), count)) if count else ""
    for name, (question, answers) in enumerate(_trivia(files.path(TRIVIAQA))):
        yield _open("triviaqa", str(name), question, answers, shots)


def _trivia(path: Path) -> Iterator[tuple[str, list[str]]]:
    for place, record in read_records(path, ("Data",)):
        for number, entry in enumerate(record["Data"]):
            answer = entry.get("Answer") if isinstance(entry, dict) else None
            if not answer or "Question" not in entry:
                raise InputError(f"{place}, entry {number + 1}: Question or Answer is missing.", MEND)
            aliases = [answer.get("Value", ""), *answer.get("Aliases", []), *answer.get("NormalizedAliases", [])]
            yield entry["Question"], [alias for alias in dict.fromkeys(aliases) if alias]


def load_natural(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """NQ-open: question, and a list of answers."""
    count = 5 if options.shots < 0 else options.shots
    shots = _shots(islice(_natural(files.path(NQ_TRAIN)), count)) if count else ""
    for name, (question, answers) in enumerate(_natural(files.path(NQ))):
        yield _open("natural-questions", str(name), question, answers, shots)


def _natural(path: Path) -> Iterator[tuple[str, list[str]]]:
    for place, record in read_records(path, ("question", "answer")):
        if not isinstance(record["answer"], list) or not record["answer"]:
            raise InputError(f"{place}: answer is no list with an answer in it.", MEND)
        yield record["question"], record["answer"]


def _shots(pairs: Iterable[tuple[str, list[str]]]) -> str:
    return "".join(f"Question: {question}\nAnswer: {answers[0]}\n\n" for question, answers in pairs)


def _open(task: str, name: str, question: str, answers: Sequence[str], shots: str) -> Problem:
    facts = {"shots": shots, "answers": list(answers)}
    return Problem(name, task, prompt=question, reference=answers[0], facts=facts)


def ask_open(problem: Problem, style: Style, room: Room) -> Ask:
    """A few questions with their answers, and the question."""
    text = f"{problem.facts['shots']}Question: {problem.prompt}\nAnswer:"
    if style == "chat":
        told = f"Answer with as few words as possible, as in the examples.\n\n{text}"
        return Ask(messages=({"role": "user", "content": told},), max_tokens=64)
    return Ask(text, stop=("\n",), max_tokens=32)


def grade_open(problem: Problem, style: Style, text: str) -> Answer:
    """The first line, equal to one of the answers after normalisation."""
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    found = re.sub(r"^Answer:\s*", "", lines[0]) if lines else ""
    right = normal(found) in {normal(answer) for answer in problem.facts["answers"]} and bool(normal(found))
    return Answer(found, float(right), vote=normal(found))


# --- CLUEWSC -------------------------------------------------------------------------------------------------------


def load_cluewsc(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """Whether a pronoun means a noun: text, target.span1_text, target.span2_text, label."""
    count = 5 if options.shots < 0 else options.shots
    shots = ""
    if count:
        given = islice(_wsc(files.path(CLUEWSC_TRAIN)), count)
        shots = "".join(f"{question}{answer}\n\n" for question, answer in given)
    for name, (question, answer) in enumerate(_wsc(files.path(CLUEWSC))):
        yield Problem(str(name), "cluewsc", language="zh", prompt=question, reference=answer, facts={"shots": shots})


def _wsc(path: Path) -> Iterator[tuple[str, str]]:
    for place, record in read_records(path, ("text", "target", "label")):
        target, label = record["target"], str(record["label"]).lower()
        spans = {"span1_text", "span2_text"} <= target.keys() if isinstance(target, dict) else False
        if not spans or label not in ("true", "false"):
            raise InputError(f"{place}: target has no two spans, or label is neither true nor false.", MEND)
        asked = f"在上面的句子中，“{target['span2_text']}”指的是“{target['span1_text']}”吗？回答是或否："
        yield f"{record['text']}\n{asked}", "是" if label == "true" else "否"


def ask_cluewsc(problem: Problem, style: Style, room: Room) -> Ask:
    """Solved examples and the question; the answer is one character."""
    text = problem.facts["shots"] + problem.prompt
    if style == "chat":
        return Ask(messages=({"role": "user", "content": text},), max_tokens=64)
    return Ask(text, choices=("是", "否"), stop=("\n",), max_tokens=8)


def grade_cluewsc(problem: Problem, style: Style, text: str) -> Answer:
    """The first 是 or 否, 不是 being a no."""
    if style == "likelihood":
        found = "是否"[int(text)]
    else:
        said = re.search(r"不是|是|否", text)
        found = "" if said is None else "是" if said[0] == "是" else "否"
    return Answer(found, float(found == problem.reference), vote=found)


TASKS = (
    Task(
        "bbh", "BBH", "general language", ("base", "chat"), (BBH,),
        "All files of the folder; 3 chain-of-thought examples of the release's cot-prompts; exact match.",
        load_bbh, ask_bbh, grade_bbh, "exact_match", columns=("bbh",),
    ),
    Task(
        "triviaqa", "TriviaQA", "general language", ("base", "chat"), (TRIVIAQA, TRIVIAQA_TRAIN),
        "Without documents; 5 shots, the first of the training file; exact match with an alias after normalisation.",
        load_triviaqa, ask_open, grade_open, "exact_match", columns=("triviaqa",),
    ),
    Task(
        "natural-questions", "NaturalQuestions", "general language", ("base", "chat"), (NQ, NQ_TRAIN),
        "NQ-open; 5 shots, the first of the training file; exact match with an answer after normalisation.",
        load_natural, ask_open, grade_open, "exact_match", columns=("natural-questions",),
    ),
    Task(
        "cluewsc", "CLUEWSC", "general language", ("base", "chat", "likelihood"), (CLUEWSC, CLUEWSC_TRAIN),
        "The development file; 5 shots, the first of the training file; yes or no.",
        load_cluewsc, ask_cluewsc, grade_cluewsc, "exact_match", columns=("cluewsc",),
    ),
)  # fmt: skip
