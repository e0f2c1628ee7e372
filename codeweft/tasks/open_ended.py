"""Open-ended questions: Arena-Hard, AlpacaEval, MT-Bench, AlignBench, asked in a chat and written out for their judges.

In:  the official question files.  Out: answers in each official answer format; no score (a model judges them:
evaluate/opinions.py, or the official scripts on what is exported).
Source: DeepSeek-Coder-V2 Table 10; the formats are those of arena-hard-auto v0.1, alpaca_eval 2, FastChat's llm_judge
and AlignBench.

Unusual: every answer is greedy. MT-Bench and AlignBench draw some categories at 0.7; a task here has one temperature.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from codeweft.base.artifacts import digest_of
from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import read_records
from codeweft.tasks.task import Answer, Ask, Data, Exported, Files, Room, Style, Task, Turn

MEND = "Mend that record or fetch the file again."
MODEL = "codeweft"  # stands for a model's name where that would be a file's name without any letter
ARENA = Data(
    ("arena-hard/question.jsonl", "arena-hard-v0.1/question.jsonl", "data/arena-hard-v0.1/question.jsonl"),
    licence="Apache-2.0",
    note="it is data/arena-hard-v0.1/question.jsonl of lmarena/arena-hard-auto",
)
ALPACA = Data(
    ("alpaca-eval/alpaca_eval.json", "alpaca_eval/alpaca_eval.json", "alpaca_eval.json"),
    licence="CC-BY-NC-4.0",
    note="it is alpaca_eval.json of the data set tatsu-lab/alpaca_eval",
)
MT = Data(
    ("mt-bench/question.jsonl", "mt_bench/question.jsonl", "data/mt_bench/question.jsonl"),
    licence="Apache-2.0",
    note="it is fastchat/llm_judge/data/mt_bench/question.jsonl of lm-sys/FastChat, reference_answer/ beside it",
)
ALIGN = Data(
    (
        "align-bench/data_release.jsonl",
        "AlignBench/data_release.jsonl",
        "data_release.jsonl",
        "data_v1.1_release.jsonl",
    ),
    note="it is data/data_release.jsonl of THUDM/AlignBench, whose licence it does not state",
)


# --- questions -------------------------------------------------------------------------------------------------------


def load_arena(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """question_id, cluster, and one turn with its content."""
    for place, record in read_records(files.path(ARENA), ("question_id", "turns")):
        match record["turns"]:
            case [{"content": str(text)}] if text.strip():
                yield _problem("arena-hard", record["question_id"], record.get("cluster", ""), text, record)
            case _:
                raise InputError(f"{place}: turns is not a list of one turn with a content.", MEND)


def load_alpaca(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """An instruction and the data set it comes from; an instruction that comes twice is another problem."""
    seen: dict[str, int] = {}
    for place, record in read_records(files.path(ALPACA), ("instruction",)):
        text = record["instruction"]
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{place}: the instruction is no text.", MEND)
        name = digest_of(text).removeprefix("blake2b:")[:16]
        seen[name] = seen.get(name, 0) + 1
        name += f"-{seen[name]}" if seen[name] > 1 else ""
        kept = {key: record[key] for key in ("instruction", "dataset") if key in record}
        yield _problem("alpaca-eval", name, record.get("dataset", ""), text, kept)


def load_mt(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """Two turns each; reference answers of the folder beside the file, or else of the record itself."""
    path = files.path(MT)
    references = dict(_references(path.parent / "reference_answer"))
    for place, record in read_records(path, ("question_id", "category", "turns")):
        turns = record["turns"]
        if not isinstance(turns, list) or len(turns) != 2 or not all(isinstance(turn, str) for turn in turns):
            raise InputError(f"{place}: turns is not a list of two texts.", MEND)
        reference = references.get(record["question_id"], record.get("reference") or [])
        if not isinstance(reference, list) or not all(isinstance(each, str) for each in reference):
            raise InputError(f"{place}: reference is not a list of texts.", MEND)
        problem = _problem("mt-bench", record["question_id"], record["category"], turns[0], record)
        problem.facts["turns"], problem.facts["references"] = turns, reference
        yield problem


def _references(folder: Path) -> Iterator[tuple[Any, list[str]]]:
    """Question and reference answers of the only file of FastChat's folder."""
    paths = sorted(folder.glob("*.jsonl"))
    if len(paths) > 1:
        raise InputError(f"{folder} holds {len(paths)} files of references.", "Leave the one that counts.")
    for path in paths:
        for place, record in read_records(path, ("question_id", "choices")):
            match record["choices"]:
                case [{"turns": [*turns]}, *_]:
                    yield record["question_id"], turns
                case _:
                    raise InputError(f"{place}: choices is not a list with turns.", MEND)


def load_align(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """A Chinese question, its category, and a reference answer."""
    for place, record in read_records(files.path(ALIGN), ("question_id", "category", "question", "reference")):
        if not isinstance(record["question"], str) or not isinstance(record["reference"], str):
            raise InputError(f"{place}: question or reference is no text.", MEND)
        problem = _problem("align-bench", record["question_id"], record["category"], record["question"], record)
        problem.facts["references"] = [record["reference"]]
        yield problem


def _problem(task: str, name: Any, family: Any, text: str, record: Mapping[str, Any]) -> Problem:
    facts = {"record": dict(record), "turns": [text], "references": []}
    return Problem(str(name), task, str(family), prompt=text, facts=facts)


# --- asking ----------------------------------------------------------------------------------------------------------


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """The question as it is, without any words of ours."""
    return Ask(messages=({"role": "user", "content": problem.prompt},), max_tokens=LONGEST[problem.task])


def follow(problem: Problem, turns: Sequence[Turn]) -> Ask | None:
    """The next question of the conversation, after the answers so far."""
    questions = problem.facts["turns"]
    if len(turns) == len(questions):
        return None
    last = turns[-1]
    messages = (
        *last.ask.messages,
        {"role": "assistant", "content": last.text},
        {"role": "user", "content": questions[len(turns)]},
    )
    return Ask(messages=messages, max_tokens=last.ask.max_tokens)


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """No score: the answer is exported as it is."""
    return Answer(text, detail="exported, for a judge")


# --- exporting -------------------------------------------------------------------------------------------------------


def by_problem(given: Sequence[Exported]) -> list[list[Exported]]:
    """The samples of each problem, in the order in which they come."""
    found: dict[str, list[Exported]] = {}
    for each in given:
        found.setdefault(each.problem.id, []).append(each)
    return list(found.values())


def export_arena(given: Sequence[Exported]) -> dict[str, str]:
    """model_answer/MODEL.jsonl; counts of tokens are added by add_markdown_info.py of arena-hard-auto."""
    return _choices(given, lambda text: {"content": text})


def export_mt(given: Sequence[Exported]) -> dict[str, str]:
    """model_answer/MODEL.jsonl of FastChat."""
    return _choices(given, lambda text: text)


def _choices(given: Sequence[Exported], turn: Any) -> dict[str, str]:
    lines = []
    for samples in by_problem(given):
        first = samples[0]
        question = first.problem.facts["record"]["question_id"]
        record = {
            "question_id": question,
            # both sets draw it by chance; here equal answers have equal names
            "answer_id": digest_of([first.model, question, [each.texts for each in samples]])[8:30],
            "model_id": first.model,
            "choices": [
                {"index": index, "turns": [turn(text) for text in each.texts]} for index, each in enumerate(samples)
            ],
            "tstamp": 0.0,
        }
        lines.append(record)
    return {f"{_file_name(given)}.jsonl": _lines(lines)}


def export_alpaca(given: Sequence[Exported]) -> dict[str, str]:
    """model_outputs.json: the first answer to each instruction."""
    found = []
    for first, *_ in by_problem(given):
        found.append({**first.problem.facts["record"], "output": first.texts[-1], "generator": first.model})
    return {"model_outputs.json": json.dumps(found, ensure_ascii=False, indent=2) + "\n"}


def export_align(given: Sequence[Exported]) -> dict[str, str]:
    """answer/MODEL.jsonl: the question's own fields and the first answer to it."""
    found = []
    for first, *_ in by_problem(given):
        record = first.problem.facts["record"]
        answer_id = f"{record['question_id']}_{first.model}"
        found.append({**record, "model_id": first.model, "answer_id": answer_id, "answer": first.texts[-1]})
    return {f"{_file_name(given)}.jsonl": _lines(found)}


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _file_name(given: Sequence[Exported]) -> str:
    """The model's name as a file's name."""
    return re.sub(r"[^\w.-]+", "-", given[0].model).strip("-.") or MODEL


LONGEST = {"arena-hard": 4096, "alpaca-eval": 2048, "mt-bench": 1024, "align-bench": 2048}  # tokens of an answer
WORDS = "Asked without any system message, greedy, at most {} tokens an answer; exported, not scored."
TASKS = (
    Task(
        name="arena-hard",
        title="Arena-Hard",
        group="general language",
        styles=("chat",),
        data=(ARENA,),
        protocol=f"The 500 prompts of v0.1. {WORDS.format(LONGEST['arena-hard'])}",
        load=load_arena,
        ask=ask,
        grade=grade,
        metric="score",
        export=export_arena,
    ),
    Task(
        name="alpaca-eval",
        title="AlpacaEval 2.0",
        group="general language",
        styles=("chat",),
        data=(ALPACA,),
        protocol=f"The 805 instructions. {WORDS.format(LONGEST['alpaca-eval'])}",
        load=load_alpaca,
        ask=ask,
        grade=grade,
        metric="score",
        export=export_alpaca,
    ),
    Task(
        name="mt-bench",
        title="MT-Bench",
        group="general language",
        styles=("chat",),
        data=(MT,),
        protocol=f"80 conversations of two turns. {WORDS.format(LONGEST['mt-bench'])}",
        load=load_mt,
        ask=ask,
        grade=grade,
        metric="score",
        follow=follow,
        export=export_mt,
    ),
    Task(
        name="align-bench",
        title="AlignBench",
        group="general language",
        styles=("chat",),
        data=(ALIGN,),
        protocol=f"683 Chinese questions. {WORDS.format(LONGEST['align-bench'])}",
        load=load_align,
        ask=ask,
        grade=grade,
        metric="score",
        export=export_align,
    ),
)
