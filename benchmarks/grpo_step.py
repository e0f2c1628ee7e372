"""A GRPO step beside TRL's GRPOTrainer on the same machine: seconds, with drawing, judging and updating apart.

In:  in TRL_PYTHON the Python of an environment with the peer, which is never installed here: `python3 -m venv peer &&
peer/bin/pip install torch==2.13.0 transformers==5.23.0 trl==1.16.0 numpy pyarrow rich` (else that side is left out).
Out: benchmarks/results/grpo_step.json and, from it alone, docs/results/grpo_step.md.

Same work on both sides: one folder (the small configuration, random weights; theirs loads what ours wrote), the same 4
chat prompts as the same ids, 8 answers to each of exactly 64 tokens (theirs by `min_new_tokens`, which forbids the end
token; ours by an engine that does not stop at it), temperature 1, the same reward (a share of vowels: groups are never
silent), group-normalised advantages, one update a rollout, answers weighed alike, AdamW with decay and clipping at the
same rate, two threads; no checkpoints, no dropout, no balance loss. With beta each side looks at a reference model of
its own. In float32 both multiply in it; in bfloat16 theirs has float32 weights under autocast, as its default says,
ours bfloat16 weights beside float32 masters. theirs is tried with each implementation of experts, without gradient
checkpointing (its default, slower); the quickest counts. Ours goes the stage's own way, its rollout file included.

That both do the same is shown apart: with the answers of one fixed rollout in place of drawing, `SAME_STEPS` steps of
each side have the same loss, KL divergence, entropy and gradient norm.

Names of cases as arguments measure these alone and keep the others' results; `page` writes the page anew.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the peer's environment has no codeweft

from common.grpo_work import GROUP, PROMPTS, TOKENS, Clock, asked_of, fixed_answers, make_folder, reward  # noqa: E402
from common.small import Endless  # noqa: E402

from codeweft.base.runs import machine  # noqa: E402
from codeweft.running import ALLOCATOR  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "grpo_step.json"
PAGE = ROOT / "docs" / "results" / "grpo_step.md"
PEER = os.environ.get("TRL_PYTHON")
REPEATS, WARM, STEPS, SAME_STEPS, THREADS = 3, 2, 6, 3, 2
RATE, SAME_RATE = 1e-5, 3e-4
WANTED, AIM = 2.5, 4.0
TOLERANCE = {"loss": 1e-4, "kl": 2e-3, "entropy": 1e-3, "gradient_norm": 1e-2}  # of SAME[0]; relative above 1
CASES = {  # name -> prompts, precision, beta; the first is the one that is held to the bar
    "short prompts, float32, beta 0": ("short", "float32", 0.0),
    "short prompts, float32, beta 0.04": ("short", "float32", 0.04),
    "short prompts, bfloat16, beta 0": ("short", "bfloat16", 0.0),
    "katas, float32, beta 0": ("katas", "float32", 0.0),
    "katas, bfloat16, beta 0.04": ("katas", "bfloat16", 0.04),
}
SAME = ("short prompts, float32, beta 0.04", "katas, bfloat16, beta 0.04")  # where the losses are compared
OURS = "codeweft"
# name -> arguments of a fresh process behind those of the case, its environment
VARIANTS: dict[str, tuple[list[str], dict[str, str]]] = {
    OURS: (["ours"], ALLOCATOR),
    "TRL, eager": (["theirs", "eager"], {}),
    "TRL, grouped_mm": (["theirs", "grouped_mm"], {}),
    "TRL, grouped_mm, same allocator": (["theirs", "grouped_mm"], ALLOCATOR),
}
PARTS = ("drawing", "judging", "updating")
Row = dict[str, float]


def medians(steps: Sequence[Row]) -> Row:
    """Of the steps after those that warm up."""
    return {name: round(statistics.median(row[name] for row in steps[WARM:]), 4) for name in steps[0]}


# --- ours ------------------------------------------------------------------------------------------------------------


class RewardJudge:
    """Stands where the sandbox would: gives `reward` of a text at once."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.found = self.clock(self.found)

    def found(self, text: str) -> Any:
        """The outcome of a text."""
        from codeweft.base.records import Verdict
        from codeweft.rl.judging import Outcome

        return Outcome(Verdict("wrong", 0, 1, 0.0, 0, "compared"), reward(text))

    def judge(self, problem: Any, text: str, tests: str) -> "Future[Any]":
        """As `codeweft.rl.judging.Judge`."""
        answer: Future[Any] = Future()
        answer.set_result(self.found(text))
        return answer


class FixedSampler:
    """Gives the fixed answers in place of drawing."""

    def __init__(self, prompts: Sequence[Any], tokenizer: Any) -> None:
        self.order = [prompt.tokens for prompt in prompts]
        self.tokenizer = tokenizer

    def draw(self, wanted: Sequence[Any], ended: Callable[[int, Any], None]) -> None:
        """As `codeweft.rl.rollout.Sampler`."""
        from codeweft.rl.rollout import Drawn

        answers = fixed_answers().tolist()
        for number, each in enumerate(wanted):
            ids = answers[self.order.index(each.prompt.tokens)][number % GROUP]
            ended(number, Drawn(tuple(ids), (), self.tokenizer.decode(ids), "length"))

    def refresh(self) -> None:
        """Nothing was read."""


def ours(folder: Path, kind: str, precision: str, beta: float, *, same: bool = False) -> list[Row]:
    """Steps of the stage: seconds of each, or losses with fixed answers."""
    from codeweft.base.records import Problem
    from codeweft.base.runs import Run
    from codeweft.engine.engine import Engine
    from codeweft.model.folder import load_folder
    from codeweft.rl.config import GrpoConfig, ObjectiveConfig, PaceConfig
    from codeweft.rl.loop import Exploring
    from codeweft.rl.prompts import Prompt
    from codeweft.rl.rollout import EngineSampler
    from codeweft.tokenizer.load import load_tokenizer
    from codeweft.train.config import BalanceConfig
    from codeweft.train.loop import Trainer

    steps = SAME_STEPS if same else WARM + STEPS
    config = GrpoConfig(
        pace=PaceConfig(steps=steps, learning_rate=SAME_RATE if same else RATE),
        objective=ObjectiveConfig(group=GROUP, beta=beta),
        balance=BalanceConfig(expert=0.0),
        prompts=PROMPTS, max_tokens=TOKENS, passed="share", silent="keep", precision=precision, tell_every=1000,
    )  # fmt: skip
    model, cpu = folder / "model", torch.device("cpu")
    tokenizer = load_tokenizer(model)
    prompts = [
        Prompt(Problem(f"{number}", "katas"), tuple(each["ids"])) for number, each in enumerate(asked_of(folder, kind))
    ]
    policy = load_folder(model, dtype=getattr(torch, precision), device=cpu, trainable=True)
    engine = Engine(policy, Endless(tokenizer), rows=config.rows, max_length=config.pace.sequence, guess=0)
    sampler = FixedSampler(prompts, tokenizer) if same else EngineSampler(engine, TOKENS, 1.0, 1.0)
    judge, trainer, found = RewardJudge(), Trainer(policy, config.optimizer), []
    with tempfile.TemporaryDirectory() as place:
        run = Run("grpo", Path(place), 1, {})
        stage = Exploring(config, run, prompts, policy, model, tokenizer, sampler, judge, None, cpu)
        plan = stage.plan()
        for step in range(steps):
            began = time.perf_counter()
            report = trainer.step(plan.batches(step), plan.loss, config.pace.learning_rate)
            seconds, judging = time.perf_counter() - began, judge.clock.taken()
            drawing = stage.recorded["seconds_drawing"] - judging
            judging += stage.recorded["seconds_waiting"]
            if same:
                found.append({"loss": report.loss, "gradient_norm": report.gradient_norm} | report.facts)
            else:
                parts = (drawing, judging, seconds - drawing - judging)
                found.append({"seconds": seconds} | dict(zip(PARTS, parts, strict=True)))
    return found


# --- theirs ----------------------------------------------------------------------------------------------------------


def theirs(folder: Path, kind: str, precision: str, beta: float, experts: str, *, same: bool = False) -> list[Row]:
    """Steps of TRL's trainer: seconds of each, or losses with fixed answers."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    steps = SAME_STEPS if same else WARM + STEPS
    asked, found = asked_of(folder, kind), []

    def score(completions: Any, **_: Any) -> list[float]:
        return [reward(completion[0]["content"]) for completion in completions]

    with tempfile.TemporaryDirectory() as place:
        settings = GRPOConfig(
            output_dir=place, use_cpu=True, bf16=precision == "bfloat16", gradient_checkpointing=False,
            model_init_kwargs={"dtype": "float32", "experts_implementation": experts},
            per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, max_completion_length=TOKENS,
            generation_kwargs={"min_new_tokens": TOKENS}, temperature=1.0, shuffle_dataset=False, max_steps=steps,
            loss_type="grpo", beta=beta, router_aux_loss_coef=0.0, learning_rate=SAME_RATE if same else RATE,
            lr_scheduler_type="constant", adam_beta1=0.9, adam_beta2=0.95, weight_decay=0.1, max_grad_norm=1.0,
            save_strategy="no", report_to="none", logging_steps=1 if same else 1000, disable_tqdm=True,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=str(folder / "model"), args=settings, reward_funcs=score,
            train_dataset=Dataset.from_list([{"prompt": each["messages"]} for each in asked]),
            processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        )  # fmt: skip
        if same:
            trainer.model.generate = with_fixed_answers([each["ids"] for each in asked])
            trainer.train()
            names = {"loss": "loss", "gradient_norm": "grad_norm", "entropy": "entropy", "kl": "kl"}
            rows = [row for row in trainer.state.log_history if "loss" in row]
            return [{name: float(row.get(key, 0.0)) for name, key in names.items()} for row in rows]
        drawing, judging = Clock(), Clock()
        trainer._generate = drawing(trainer._generate)
        trainer._calculate_rewards = judging(trainer._calculate_rewards)

        class Stopwatch(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                self.began = time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                now = time.perf_counter()
                parts = [drawing.taken(), judging.taken()]
                seconds, self.began = now - self.began, now
                found.append({"seconds": seconds} | dict(zip(PARTS, (*parts, seconds - sum(parts)), strict=True)))

        trainer.add_callback(Stopwatch())
        trainer.train()
    return found


def with_fixed_answers(asked: list[list[int]]) -> Callable[..., torch.Tensor]:
    """What stands in for `generate`: the prompts as they come (padded on the left) with their fixed answers."""

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
        known = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
        assert known == [ids for ids in asked for _ in range(GROUP)], "both sides read the same prompts"
        return torch.cat([input_ids, fixed_answers().flatten(0, 1)], dim=1)

    return generate


# --- results ---------------------------------------------------------------------------------------------------------


def fresh(what: str, folder: Path, case: str, variant: str) -> list[Row]:
    """The steps that a process of its own takes."""
    (side, *options), environment = VARIANTS[variant]
    python = sys.executable if side == "ours" else PEER
    assert python is not None, "without TRL_PYTHON the peer's variants are left out"
    command = [python, __file__, what, str(folder), case, side, *options]
    threads = {"OMP_NUM_THREADS": str(THREADS)}
    finished = subprocess.run(
        command, env=dict(os.environ) | environment | threads, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(finished.stdout.splitlines()[-1])


def median(rows: list[Row], name: str) -> float:
    """Over the repeats."""
    return statistics.median(row[name] for row in rows)


def compared(rows: dict[str, list[Row]], plain: bool) -> dict[str, Any]:
    """Of the peer's variants the quickest, and by how much ours is quicker, part by part.

    plain: only those that a person would run, without the settings of the allocator that ours brings.
    """
    peers = [name for name in rows if name != OURS and not (plain and VARIANTS[name][1])]
    if not peers:
        return {}
    best = min(peers, key=lambda name: median(rows[name], "seconds"))
    parts = ("seconds", "drawing", "updating")
    ratios = {part: round(median(rows[best], part) / median(rows[OURS], part), 2) for part in parts}
    ratios["least"] = round(
        min(row["seconds"] for row in rows[best]) / max(row["seconds"] for row in rows[OURS]), 2
    )  # by the spread of the repeats
    return {"best": best, **ratios}


def agreement(folder: Path) -> dict[str, Any]:
    """Losses of both sides with fixed answers, and the largest difference of each number, relative where above 1."""
    found = {}
    for case in SAME:
        mine, yours = (fresh("same", folder, case, name) for name in (OURS, "TRL, grouped_mm"))
        apart = {
            name: max(abs(a[name] - b[name]) / max(1.0, abs(b[name])) for a, b in zip(mine, yours, strict=True))
            for name in TOLERANCE
        }
        found[case] = {OURS: mine, "TRL": yours, "apart": apart}
    return found


def main(names: list[str]) -> None:
    """Measure cases, sides in turn; write the results after each; hold them to the bars."""
    table = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}, "load": {}}
    table["machine"] = machine() | {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
    variants = [name for name, (arguments, _) in VARIANTS.items() if PEER or arguments[0] == "ours"]
    with tempfile.TemporaryDirectory(prefix="codeweft-grpo-") as place:
        folder = Path(place)
        make_folder(folder)
        if PEER:
            table["agreement"] = agreement(folder)
        for case in names:
            before, rows = round(os.getloadavg()[0], 1), {name: [] for name in variants}
            for _ in range(REPEATS):
                for name in variants:
                    rows[name].append(medians(fresh("time", folder, case, name)))
                    print(f"{case}, {name}: {rows[name][-1]}", flush=True)
            lengths = [len(each["ids"]) for each in asked_of(folder, CASES[case][0])]
            table["cases"][case] = {"prompt_tokens": lengths, "repeats": rows}
            table["load"][case] = [before, round(os.getloadavg()[0], 1)]
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(table, indent=2) + "\n")
            write_page(table)
    if missed := shortfalls(table):
        sys.exit("\n".join(missed))


def shortfalls(table: dict[str, Any]) -> list[str]:
    """In words, what was missed."""
    missed = []
    for name, least in TOLERANCE.items():
        apart = table["agreement"][SAME[0]]["apart"][name] if "agreement" in table else 0.0
        if apart > least:
            missed.append(f"{name} of the two sides is {apart:.2g} apart ({SAME[0]}), more than {least:g}.")
    rows = table["cases"].get(next(iter(CASES)), {}).get("repeats")
    if rows and (first := compared(rows, plain=True)) and first["seconds"] < WANTED:
        missed.append(f"{next(iter(CASES))}: {first['seconds']} times as fast as TRL, not {WANTED}.")
    return missed


def write_page(table: dict[str, Any]) -> None:
    """The results as docs/results/grpo_step.md, from the JSON alone."""
    facts = ", ".join(f"{key} {value}" for key, value in table["machine"].items())
    lines = ["# A GRPO step beside TRL", "", f"{PROMPTS} prompts x {GROUP} answers x {TOKENS} tokens, one update."]
    lines += [f"Machine: {facts}.", "Made by `benchmarks/grpo_step.py`, which says what is the same on both sides; "]
    lines[-1] += "do not edit."
    lines += ["", "| case | TRL's seconds over ours | drawing | updating | worst repeats | TRL's best |"]
    lines.append("|---" * 6 + "|")
    for case, found in table["cases"].items():
        for plain in (True, False):
            if ratio := compared(found["repeats"], plain):
                told = " | ".join(f"{ratio[part]:.2f}" for part in ("seconds", "drawing", "updating", "least"))
                lines.append(f"| {case} | {told} | {ratio['best']} |")
    lines += [
        "",
        f"At least {WANTED:g} and as aim {AIM:g} times are asked of the first case, beside TRL as people run it. ",
    ]
    lines[-1] += "A second row gives TRL the settings of the allocator that our stages start with, which nobody has by "
    lines[-1] += "default. Worst repeats: TRL's quickest process over our slowest."
    for case, found in table["cases"].items():
        load, lengths = (", ".join(map(str, each)) for each in (table["load"][case], found["prompt_tokens"]))
        lines += ["", f"## {case}", "", f"Prompts of {lengths} tokens. Load average before and after: {load}.", ""]
        lines += ["| side | seconds a step | repeats | drawing | judging | updating |", "|---" * 6 + "|"]
        for name, rows in found["repeats"].items():
            repeats = ", ".join(f"{row['seconds']:.2f}" for row in rows)
            parts = " | ".join(f"{median(rows, part):.3f}" for part in PARTS)
            lines.append(f"| {name} | {median(rows, 'seconds'):.2f} | {repeats} | {parts} |")
    if "agreement" in table:
        lines += ["", "## The same work", "", f"With the same fixed answers, {SAME_STEPS} steps of each side; the "]
        lines[-1] += "largest differences, relative where the number is above 1:"
        lines += ["", "| case | " + " | ".join(TOLERANCE) + " |", "|---" * (1 + len(TOLERANCE)) + "|"]
        for case, found in table["agreement"].items():
            apart = " | ".join(f"{found['apart'][name]:.1e}" for name in TOLERANCE)
            lines.append(f"| {case} | {apart} |")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        write_page(json.loads(RESULTS.read_text()))
    elif sys.argv[1:2] in (["time"], ["same"]):
        what, place, case, side, *options = sys.argv[1:]
        torch.set_num_threads(THREADS)
        steps = {"ours": ours, "theirs": theirs}[side](Path(place), *CASES[case], *options, same=what == "same")
        print(json.dumps(steps))
    else:
        main(sys.argv[1:] or list(CASES))
