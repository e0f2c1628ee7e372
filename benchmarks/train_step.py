"""Training speed beside transformers: tokens a second of whole steps, each variant in fresh processes.

In:  nothing (Python's own source files are the text).  Out: benchmarks/results/train_step.json and, from it alone,
docs/results/train_step.md: every repeat, medians, ratios, losses, where the time goes, the machine.

Same work on both sides: the same architecture (16 experts, 4 a token) with the same weights (a folder that ours writes
and theirs loads), the same batches of 8 x 512 ids, fused AdamW with decay and clipping, the cross-entropy over 8,192
words, no token dropped. Ids are pairs of bytes of real source text, so that routing is as uneven as text makes it and
the loss has something to learn; after 50 steps both sides must have the same loss to 0.5 %.
Both multiply in bfloat16 where the processor has instructions for it (theirs by autocast over float32 weights, as
people run it), else in float32. transformers is tried with each of its implementations of experts that fit in memory;
the faster one counts.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common.small import SMALL, VOCABULARY

from codeweft.base.runs import machine
from codeweft.model.config import ModelConfig
from codeweft.model.device import choose_precision
from codeweft.model.folder import save_folder
from codeweft.model.transformer import Transformer
from codeweft.running import ALLOCATOR
from codeweft.train.batches import Batch
from codeweft.train.config import BalanceConfig, OptimizerConfig
from codeweft.train.loop import Trainer
from codeweft.train.objectives import Loss, next_token

RESULTS = Path(__file__).parent / "results" / "train_step.json"
PAGE = Path(__file__).parents[1] / "docs" / "results" / "train_step.md"
REPEATS, STEPS, WARM, LOSS_STEPS, TOLERANCE = 3, 10, 3, 50, 0.005
BATCH, SEQUENCE, RATE = 8, 512, 1e-3
CPU = torch.device("cpu")
OURS = "codeweft"
# name -> (arguments of a fresh process, its environment)
VARIANTS: dict[str, tuple[list[str], dict[str, str]]] = {
    OURS: (["ours"], ALLOCATOR),
    "codeweft, torch alone": (["ours"], ALLOCATOR | {"CODEWEFT_KERNELS": "0"}),
    "transformers, grouped_mm": (["theirs", "grouped_mm"], {}),
    "transformers, eager": (["theirs", "eager"], {}),
    "transformers, grouped_mm, same allocator": (["theirs", "grouped_mm"], ALLOCATOR),
    "transformers, grouped_mm, same allocator, compiled": (["theirs", "grouped_mm", "compiled"], ALLOCATOR),
}
KINDS = {  # where time goes: a kind of work -> what its operations are called in the profile
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::_grouped_mm", "mkldnn", "aten::baddbmm"),
    "attention": ("attention", "Attention"),
    "experts, SwiGLU, gathering": ("Experts", "SwiGLU", "silu", "index_select", "aten::gather", "sort", "aten::cat"),
    "cross-entropy": ("CrossEntropy", "exp", "logsumexp", "scatter"),
    "norms": ("RMSNorm", "rsqrt", "aten::pow", "aten::mean", "rms_norm"),
    "optimizer and clipping": ("adamw", "linalg_vector_norm", "_foreach", "aten::lerp"),
}


def text() -> torch.Tensor:
    """Ids of Python's standard library: each pair of neighbouring bytes, folded into the vocabulary."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    pairs = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8).long()
    pairs = pairs[: len(pairs) // 2 * 2].view(-1, 2)
    return (pairs[:, 0] * 97 + pairs[:, 1]) % VOCABULARY


def windows(ids: torch.Tensor, step: int) -> torch.Tensor:
    """The ids of one step, [B, T+1], the same on both sides."""
    generator = torch.Generator().manual_seed(step)
    starts = torch.randint(0, len(ids) - SEQUENCE - 1, (BATCH,), generator=generator)
    return torch.stack([ids[start : start + SEQUENCE + 1] for start in starts.tolist()])


def fresh_model() -> Transformer:
    """Ours, with the weights that every variant starts from."""
    model = Transformer(ModelConfig(**SMALL))
    model.init_weights(0.02, torch.Generator().manual_seed(0))
    return model


def ours() -> Callable[[torch.Tensor], float]:
    """One step of our trainer, as the pretrain stage takes it."""
    trainer = Trainer(fresh_model().to(choose_precision("auto", CPU)), OptimizerConfig())

    def loss(model: Transformer, batch: Batch) -> Loss:
        return next_token(model, batch, BalanceConfig(expert=0.0))

    def step(ids: torch.Tensor) -> float:
        batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        return trainer.step([batch], loss, RATE).loss

    return step


def theirs(experts: str, compiled: str = "") -> Callable[[torch.Tensor], float]:
    """One step of transformers' model in a plain training loop."""
    from transformers import DeepseekV2ForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        save_folder(fresh_model(), Path(folder), dtype=torch.float32)
        model = DeepseekV2ForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation=experts)
    decayed = [weight for weight in model.parameters() if weight.ndim >= 2]
    plain = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), eps=1e-8, fused=True)
    forward = torch.compile(model) if compiled else model
    model.train()
    half = choose_precision("auto", CPU) == torch.bfloat16

    def step(ids: torch.Tensor) -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16) if half else contextlib.nullcontext():
            logits = forward(input_ids=ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


SIDES: dict[str, Callable[..., Callable[[torch.Tensor], float]]] = {"ours": ours, "theirs": theirs}


def timed(step: Callable[[torch.Tensor], float], steps: int) -> dict[str, float]:
    """Median tokens a second over the steps after those that warm up; CPU seconds of such a step; the last loss."""
    ids, seconds, cpu, loss = text(), [], [], 0.0
    for number in range(steps):
        batch = windows(ids, number)
        began, worked = time.perf_counter(), time.process_time()
        loss = step(batch)
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - worked)
    return {
        "tokens_per_second": round(BATCH * SEQUENCE / statistics.median(seconds[WARM:]), 1),
        "cpu_seconds": round(statistics.median(cpu[WARM:]), 3),
        "loss": round(loss, 5),
    }


def profiled(step: Callable[[torch.Tensor], float]) -> dict[str, float]:
    """CPU milliseconds of a step by kind of work, and of everything else."""
    ids = text()
    for number in range(WARM):
        step(windows(ids, number))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for number in range(WARM, 2 * WARM):
            step(windows(ids, number))
    found = dict.fromkeys((*KINDS, "everything else"), 0.0)
    for event in profile.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(name in event.key for name in names)), None)
        found[kind or "everything else"] += event.self_cpu_time_total / WARM / 1000
    return {kind: round(value, 1) for kind, value in found.items()}


def fresh(variant: str, *words: str) -> dict[str, float]:
    """What a process of its own prints for a variant."""
    arguments, environment = VARIANTS[variant]
    command = [sys.executable, __file__, *words, *arguments]
    finished = subprocess.run(
        command, env=dict(os.environ) | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(finished.stdout.splitlines()[-1])


def main() -> None:
    """Run every variant in turn, `REPEATS` times; then the losses and the profile; write the results."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(REPEATS):
        for name in VARIANTS:
            found[name].append(fresh(name, "time", str(STEPS)))
            print(f"{name}: {found[name][-1]['tokens_per_second']:.0f} tokens/s", flush=True)
    medians = {name: statistics.median(row["tokens_per_second"] for row in rows) for name, rows in found.items()}
    uncompiled = [name for name, (arguments, settings) in VARIANTS.items() if "theirs" in arguments and not settings]
    as_run = max(uncompiled, key=medians.__getitem__)
    best = max((name for name in medians if name.startswith("transformers")), key=medians.__getitem__)
    losses = {name: fresh(name, "time", str(LOSS_STEPS))["loss"] for name in (OURS, as_run)}
    difference = losses[OURS] / losses[as_run] - 1
    table = {
        "what": f"tokens a second of one training step, small configuration, batch {BATCH} x {SEQUENCE}",
        "machine": machine() | {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()},
        "precision": str(choose_precision("auto", CPU)).removeprefix("torch."),
        "repeats": found,
        "median": medians,
        "as_people_run_it": {"variant": as_run, "ratio": round(medians[OURS] / medians[as_run], 3)},
        "their_best": {"variant": best, "ratio": round(medians[OURS] / medians[best], 3)},
        "loss_after_50_steps": losses | {"difference": round(difference, 6)},
        "milliseconds_of_a_step": {name: fresh(name, "profile") for name in list(VARIANTS)[:3]},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(table, indent=2) + "\n")
    write_page(table)
    if abs(difference) > TOLERANCE:
        sys.exit(f"The losses after {LOSS_STEPS} steps differ by {difference:.2%}: {losses}.")


def write_page(table: dict[str, Any]) -> None:
    """The results as docs/results/train_step.md, from the JSON alone."""
    facts = ", ".join(f"{key} {value}" for key, value in table["machine"].items())
    medians, losses = table["median"], table["loss_after_50_steps"]
    run, best = table["as_people_run_it"], table["their_best"]
    lines = ["# Training speed beside transformers", "", f"{table['what'].capitalize()}, {table['precision']}."]
    lines += [f"Machine: {facts}.", "Made by `benchmarks/train_step.py`, which says what is the same on both sides; "]
    lines[-1] += "do not edit."
    lines += ["", f"- {run['ratio']:.2f} times transformers as people run it ({run['variant']}, its faster experts)."]
    lines += [f"- {best['ratio']:.2f} times its best setting of those tried ({best['variant']})."]
    pair = ", ".join(f"{name} {value}" for name, value in losses.items() if name != "difference")
    lines += [f"- Loss after {LOSS_STEPS} steps from the same weights: {pair}; {losses['difference']:+.3%}.", ""]
    lines += ["| variant | median tokens/s | repeats | CPU seconds a step | codeweft is faster by |"]
    lines += ["|---|---|---|---|---|"]
    for name, median in medians.items():
        repeats = ", ".join(f"{row['tokens_per_second']:.0f}" for row in table["repeats"][name])
        cpu = statistics.median(row["cpu_seconds"] for row in table["repeats"][name])
        faster = "" if name == OURS else f"{medians[OURS] / median:.2f} times"
        lines.append(f"| {name} | {median:.0f} | {repeats} | {cpu:.2f} | {faster} |")
    profiles = table["milliseconds_of_a_step"]
    lines += ["", "Where a step's time goes, in milliseconds (torch's profiler, operations grouped by name):", ""]
    lines += ["| | " + " | ".join(profiles) + " |", "|---" * (1 + len(profiles)) + "|"]
    for kind in (*KINDS, "everything else"):
        lines.append(f"| {kind} | " + " | ".join(f"{profile[kind]:.0f}" for profile in profiles.values()) + " |")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        write_page(json.loads(RESULTS.read_text()))
    elif sys.argv[1:2] == ["time"]:
        steps, side, *options = sys.argv[2:]
        print(json.dumps(timed(SIDES[side](*options), int(steps))))
    elif sys.argv[1:2] == ["profile"]:
        side, *options = sys.argv[2:]
        print(json.dumps(profiled(SIDES[side](*options))))
    else:
        main()
