"""What alignment adds on the toy recipe: sft over the base, grpo over sft, and the paper's Figure 3 in small.

In:  a finished `codeweft run toy --to pretrain` (its folder, or none: it is made); seeds.
Out: benchmarks/results/alignment.json, docs/results/alignment.md and docs/results/figure-3.svg, from the JSON alone.

Seeds are those of problems' order, fine-tuning, drawing and rollouts; the base model and the problems are one for all.
Held-out katas of known families (as many as there are, 1,000 in the toy) are answered greedily and judged by hidden
tests; differences have paired bootstrap intervals over problems. Beside grpo stand two ways to spend the same
processor seconds: more sft on the same conversations, and sft on the policy's own answers that pass the visible tests
(rejection sampling). The figure trains grpo where one visible test is left, by that test, by a reward model that
learned from it, and by both; what is plotted is the share of each rollout's answers that pass all hidden tests.

`python benchmarks/alignment.py BASE SEED...` measures; `page` writes page and figure anew; each seed's runs stay in
BASE-seed-N beside BASE and are not made twice.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from codeweft.base.artifacts import Manifest, read_json, read_manifest
from codeweft.base.runs import machine
from codeweft.base.seeds import generator
from codeweft.evaluate import katas
from codeweft.rl.feedback import read_feedback
from codeweft.rl.judging import Judge
from codeweft.rl.loop import read_rollout
from codeweft.sandbox.config import SandboxConfig
from codeweft.tasks.problem_files import read_problems
from codeweft.tokenizer.load import load_tokenizer

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "alignment.json"
PAGE, FIGURE = (ROOT / "docs" / "results" / name for name in ("alignment.md", "figure-3.svg"))
MEASURE = ["--measure.katas=1000", "--measure.katas_tokens=96"]
SIGNALS = {
    "one visible test": ["--grpo.tests_factor=1", "--grpo.model_factor=0"],
    "reward model": ["--grpo.tests_factor=0", "--grpo.model_factor=1"],
    "both": ["--grpo.tests_factor=1", "--grpo.model_factor=1"],
}
FEW = ["--grpo.few_tests=1"]
RESAMPLES = 10_000


def codeweft(folder: Path, stage: str, seed: int, *words: str) -> Manifest:
    """One stage of the toy in a run folder, on one processor; what it left behind."""
    command = [sys.executable, "-m", "codeweft", stage, "--run", str(folder), "--recipe", "toy", f"--run.seed={seed}"]
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *MEASURE, *words], check=True, env=environment)
    manifest = read_manifest(folder / stage)
    assert manifest is not None
    return manifest


def branch(origin: Path, name: str, *stages: str) -> Path:
    """A run folder that goes on from some finished stages of another."""
    folder = origin.parent / f"{origin.name}-{name}"
    for stage in stages:
        if not (folder / stage).exists():
            shutil.copytree(origin / stage, folder / stage)
    (folder / "measured").mkdir(exist_ok=True)
    for path in (origin / "measured").glob("*.json"):
        if not path.name.removeprefix("katas-").startswith(("sft", "grpo")) or "sft" in stages:
            shutil.copy(path, folder / "measured")
    return folder


EARLY = ("corpus", "problems", "tokenizer", "tokens", "pretrain")


def right(folder: Path, stage: str, name: str = katas.KNOWN) -> dict[str, float]:
    """By problem, whether the stage's model passed its hidden tests; of a base model, in its better way of asking."""
    samples = [sample for sample in read_json(measured(folder, stage))["samples"] if sample["task"] == name]
    return {sample["problem"]: float(sample["verdict"]["status"] == "ok") for sample in samples}


def measured(folder: Path, stage: str) -> Path:
    """The newest measurement of a stage's model over more problems than the recipe's own; the base has one a seed."""
    found = (folder / "measured").glob(f"katas-{stage}-*.json")
    return max((path for path in found if of_thousand(path)), key=lambda path: path.stat().st_mtime)


def of_thousand(path: Path) -> bool:
    """Whether a kept measurement is over more problems than the recipe's own."""
    return read_json(path)["entries"][katas.KNOWN]["n"] > 200


def difference(after: dict[str, float], before: dict[str, float], seed: int) -> dict[str, Any]:
    """Points gained over the same problems, with the 95 % interval of a paired bootstrap."""
    problems = sorted(after.keys() & before.keys())
    gain_N = np.array([after[name] - before[name] for name in problems])
    drawn_SN = generator(seed, "alignment").integers(len(gain_N), size=(RESAMPLES, len(gain_N)))
    low, high = np.quantile(gain_N[drawn_SN].mean(1), (0.025, 0.975))
    return {"points": 100 * gain_N.mean(), "ci95": [100 * low, 100 * high], "n": len(gain_N)}


def share(values: dict[str, float]) -> float:
    """Percent right."""
    return 100 * sum(values.values()) / len(values)


def same_seconds(spent: Manifest, wanted: Manifest, steps: int) -> int:
    """Steps of a stage that take the processor seconds of another, by what its steps took so far."""
    return max(round(steps * wanted.cpu_seconds / spent.cpu_seconds), 1)


def one_seed(base: Path, seed: int) -> dict[str, Any]:
    """All of one seed but the figure."""
    run = branch(base, f"seed-{seed}", *EARLY)
    sft, reward, grpo = (codeweft(run, stage, seed) for stage in ("sft", "reward", "grpo"))
    steps = same_seconds(sft, grpo, sft.config["schedule"]["steps"])
    more = branch(run, "more-sft", *EARLY)
    longer = [f"--sft.init={run / 'sft' / 'model'}", f"--sft.schedule.steps={steps}"]
    codeweft(more, "sft", seed, *longer)
    rejection = branch(run, "rejection", "corpus", "tokenizer", "tokens", "pretrain")
    passed = passing_answers(run, run / "passing.jsonl")
    problems = read_manifest(base / "problems")
    assert problems is not None
    codeweft(rejection, "problems", problems.seed, "--problems.answered=0", f'--problems.conversations=["{passed}"]')
    codeweft(rejection, "sft", seed, *longer)
    found = {name: right(folder, stage) for name, folder, stage in (
        ("base", run, "pretrain"), ("sft", run, "sft"), ("grpo", run, "grpo"), ("more sft", more, "sft"),
        ("rejection sampling", rejection, "sft"),
    )}  # fmt: skip
    before = {name: found["base" if name == "sft" else "sft"] for name in found if name != "base"}
    return {
        "seed": seed,
        "katas_pass@1": {name: share(values) for name, values in found.items()},
        "unseen families": {stage: share(right(run, stage, katas.UNSEEN)) for stage in ("pretrain", "sft", "grpo")},
        "nearest training problem": 100 * nearest(run),
        "gain": {name: difference(found[name], before[name], seed) for name in before},
        "grpo over": {
            name: difference(found["grpo"], found[name], seed) for name in ("more sft", "rejection sampling")
        },
        "cpu_seconds": {"sft": sft.cpu_seconds, "reward": reward.cpu_seconds, "grpo": grpo.cpu_seconds},
        "infilling": {name: grpo.headline[f"fim_exact_match_{name}"] for name in ("before", "after")},
        "reward": reward.headline,
    }


def nearest(run: Path) -> float:
    """What copying the training kata that reads most alike scores."""
    return read_json(measured(run, "sft"))["entries"][katas.NEAREST]["score"]


def passing_answers(run: Path, path: Path) -> Path:
    """The policy's own answers that passed the visible tests, as conversations."""
    asked = {problem.id: problem.prompt for problem in read_problems(run / "problems" / "train.jsonl")}
    lines, seen = [], set()
    for row in read_feedback(run / "reward" / "feedback" / "train.parquet"):
        if row.visible == "ok" and (row.problem, row.text) not in seen:
            seen.add((row.problem, row.text))
            turns = (
                {"role": "user", "content": asked[row.problem]},
                {"role": "assistant", "content": row.text.strip()},
            )
            lines.append(json.dumps({"messages": turns, "source": "katas"}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


# --- Figure 3 --------------------------------------------------------------------------------------------------------


def figure(base: Path, seed: int) -> dict[str, list[float]]:
    """By signal, for each step the percentage of its answers that pass all hidden tests."""
    run = base.parent / f"{base.name}-seed-{seed}"
    noisy = branch(run, "noisy", *EARLY, "sft")
    codeweft(noisy, "reward", seed, "--reward.few_tests=1")
    found = {}
    for signal, words in SIGNALS.items():
        folder = branch(noisy, signal.replace(" ", "-"), *EARLY, "sft", "reward")
        codeweft(folder, "grpo", seed, *FEW, *words)
        found[signal] = hidden_share(folder)
    return found


def hidden_share(folder: Path) -> list[float]:
    """The percentage of answers of each rollout that pass all hidden tests."""
    problems = {problem.id: problem for problem in read_problems(folder / "problems" / "train.jsonl")}
    tokenizer = load_tokenizer(folder / "grpo" / "model")
    shares = []
    with Judge(SandboxConfig(), "figure", shares=False) as judge:
        for path in sorted((folder / "grpo" / "rollouts").glob("*.parquet")):
            texts = [
                (problems[row.problem], tokenizer.decode([token for token in row.tokens if token != tokenizer.end]))
                for row in read_rollout(path)
            ]
            waiting = [judge.judge(problem, text, "hidden") for problem, text in texts]
            shares.append(100 * float(np.nanmean([each.result().passed for each in waiting])))
    return shares


# --- results ---------------------------------------------------------------------------------------------------------


NOTE = """The base model is one for all seeds, asked with no and with three examples, the better counts. More sft and
rejection sampling begin anew at sft's full rate, for as many processor seconds as grpo took. Rejection sampling learns
from the answers that passed visible tests among those that the stage reward drew: too few at that rate, it forgets."""


def write_page(table: dict[str, Any]) -> None:
    """Page and figure from the results alone."""
    facts = ", ".join(f"{key} {value}" for key, value in table["machine"].items())
    lines = ["# What alignment adds on the toy recipe", "", f"Machine: {facts}."]
    lines += [
        "Made by `benchmarks/alignment.py`, which says how; do not edit. Percent of held-out katas, greedy.",
        NOTE,
        "",
    ]
    seeds = table["seeds"]
    if seeds:
        names = list(seeds[0]["katas_pass@1"])
        lines += ["| seed | " + " | ".join(names) + " | nearest training problem |", "|---" * (len(names) + 2) + "|"]
        for each in seeds:
            cells = [f"{each['katas_pass@1'][name]:.1f}" for name in names]
            lines.append(f"| {each['seed']} | " + " | ".join(cells) + f" | {each['nearest training problem']:.1f} |")
        lines += ["", "| seed | gained, in points, with 95 % interval | |", "|---|---|---|"]
        for each in seeds:
            told = [
                (f"{name} over {'base' if name == 'sft' else 'sft'}", found) for name, found in each["gain"].items()
            ]
            told += [(f"grpo over {name}", found) for name, found in each["grpo over"].items()]
            for what, found in told:
                low, high = found["ci95"]
                lines.append(f"| {each['seed']} | {what} | {found['points']:+.1f} ({low:+.1f} to {high:+.1f}) |")
        lines += [
            "",
            "| seed | unseen families: base, sft, grpo | infilling before and after grpo | CPU seconds |",
            "|---" * 4 + "|",
        ]
        for each in seeds:
            unseen = ", ".join(f"{value:.1f}" for value in each["unseen families"].values())
            infilling = ", ".join(f"{100 * (value or 0):.1f}" for value in each["infilling"].values())
            spent = ", ".join(f"{name} {value:.0f}" for name, value in each["cpu_seconds"].items())
            lines.append(f"| {each['seed']} | {unseen} | {infilling} | {spent} |")
        lines += [
            "",
            "| seed | reward model on matched pairs | visible tests | length | log-probability | AUC |",
            "|---" * 6 + "|",
        ]
        for each in seeds:
            names = ("pair_accuracy", "visible_test_accuracy", "length_accuracy", "logprob_accuracy", "auc")
            cells = ["" if each["reward"].get(name) is None else f"{each['reward'][name]:.3f}" for name in names]
            lines.append(f"| {each['seed']} | " + " | ".join(cells) + " |")
    if table["figure"]:
        lines += [
            "",
            "## Figure 3 in small",
            "",
            "![share of answers that pass all hidden tests, by signal](figure-3.svg)",
            "",
        ]
        lines += ["| seed | signal | first five steps | last five steps |", "|---" * 4 + "|"]
        for seed, signals in table["figure"].items():
            for signal, shares in signals.items():
                lines.append(f"| {seed} | {signal} | {np.mean(shares[:5]):.1f} | {np.mean(shares[-5:]):.1f} |")
        draw_figure(table["figure"])
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")


def draw_figure(found: dict[str, dict[str, list[float]]]) -> None:
    """Each signal's mean over seeds, smoothed over five steps, with the seeds as thin lines."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "codeweft"
    from matplotlib import pyplot as plt

    _, axes = plt.subplots(figsize=(7, 4))
    for signal in SIGNALS:
        runs = [smoothed(signals[signal]) for signals in found.values()]
        steps = range(5, 5 + len(runs[0]))
        [line] = axes.plot(steps, np.mean(runs, axis=0), label=signal, linewidth=2)
        for run in runs:
            axes.plot(steps, run, color=line.get_color(), linewidth=0.6, alpha=0.5)
    axes.set_xlabel("step")
    axes.set_ylabel("answers that pass all hidden tests, %")
    axes.legend(title="reward")
    plt.tight_layout()
    plt.savefig(FIGURE, metadata={"Date": None})


def smoothed(values: Sequence[float]) -> np.ndarray:
    """Means of five steps in a row."""
    return np.convolve(values, np.ones(5) / 5, mode="valid")


def main(base: Path, seeds: list[int]) -> None:
    """All seeds side by side, a processor each; the results after each."""
    table: dict[str, Any] = {"machine": machine(), "seeds": [], "figure": {}}
    with ThreadPoolExecutor(max_workers=len(seeds)) as pool:
        for found in pool.map(lambda seed: one_seed(base, seed), seeds):
            table["seeds"].append(found)
            RESULTS.write_text(json.dumps(table, indent=2) + "\n")
            write_page(table)
        for seed, found in zip(seeds, pool.map(lambda seed: figure(base, seed), seeds), strict=True):
            table["figure"][str(seed)] = found
            RESULTS.write_text(json.dumps(table, indent=2) + "\n")
            write_page(table)


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        write_page(json.loads(RESULTS.read_text()))
    else:
        main(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]])
