"""Training speed beside transformers: tokens a second of whole steps, each variant in fresh processes.

In:  nothing.  Out: benchmarks/results/train_step.json: every repeat, medians, spread, ratios, the machine.

Same work on both sides: the same architecture (16 experts, 4 a token), weights drawn with one deviation, the same token
ids, batch 8 x 512, fused AdamW, cross-entropy over 8,192 words, no token dropped. transformers runs as people run it:
bfloat16 autocast over float32 weights, its grouped experts, not compiled. Ours runs as the pretrain stage does.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from codeweft.base.runs import machine
from codeweft.stages import ALLOCATOR

RESULTS = Path(__file__).parent / "results" / "train_step.json"
PAGE = Path(__file__).parents[1] / "docs" / "results" / "train_step.md"
REPEATS, STEPS = 3, 12
BATCH, SEQUENCE, VOCABULARY = 8, 512, 8192
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_shared_experts": 2,
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 64,
    "q_lora_rank": None,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "max_position_embeddings": 2048,
}
VARIANTS = {  # name -> (side, the allocator's settings that the program sets for its own training)
    "codeweft": ("ours", True),
    "transformers, autocast": ("theirs", False),
    "transformers, autocast, same allocator": ("theirs", True),
}


def window(step: int) -> torch.Tensor:
    """Token ids of one step, [B, T+1], the same on both sides."""
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, VOCABULARY, (BATCH, SEQUENCE + 1), generator=generator)


def ours() -> dict[str, float]:
    """Our trainer, as the pretrain stage uses it."""
    from codeweft.model.config import ModelConfig
    from codeweft.model.transformer import Transformer
    from codeweft.train.batches import Batch
    from codeweft.train.config import BalanceConfig, OptimizerConfig
    from codeweft.train.loop import Trainer
    from codeweft.train.objectives import Loss, next_token

    known = {key: value for key, value in SHAPE.items() if key != "num_key_value_heads"}
    model = Transformer(ModelConfig(**known))
    model.init_weights(0.02, torch.Generator().manual_seed(0))
    trainer = Trainer(model.bfloat16(), OptimizerConfig())

    def loss(model: Transformer, batch: Batch) -> Loss:
        return next_token(model, batch, BalanceConfig(expert=0.0))

    def step(number: int) -> float:
        ids = window(number)
        batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        return trainer.step([batch], loss, 1e-3).loss

    return timed(step)


def theirs() -> dict[str, float]:
    """The model of transformers in a plain training loop."""
    from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

    torch.manual_seed(0)
    model = DeepseekV2ForCausalLM(DeepseekV2Config(**SHAPE, experts_implementation="grouped_mm"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step(number: int) -> float:
        ids = window(number)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return timed(step)


def timed(step) -> dict[str, float]:  # noqa: ANN001
    """Median tokens a second over the steps after two that warm up, and the last loss."""
    seconds = []
    loss = 0.0
    for number in range(STEPS):
        began = time.perf_counter()
        loss = step(number)
        seconds.append(time.perf_counter() - began)
    return {"tokens_per_second": BATCH * SEQUENCE / statistics.median(seconds[2:]), "loss": loss}


def main() -> None:
    """Run every variant in turn, `REPEATS` times, and write the table."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(REPEATS):
        for name, (side, allocator) in VARIANTS.items():
            environment = (ALLOCATOR if allocator else {}) | dict(os.environ)
            command = [sys.executable, __file__, side]
            finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found[name].append(json.loads(finished.stdout.splitlines()[-1]))
            print(f"{name}: {found[name][-1]['tokens_per_second']:.0f} tokens/s", flush=True)
    speeds = {name: [row["tokens_per_second"] for row in rows] for name, rows in found.items()}
    medians = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
    table = {
        "what": "tokens a second of one training step, small configuration, batch 8 x 512",
        "machine": machine() | {"torch": torch.__version__},
        "repeats": {name: [round(value, 1) for value in values] for name, values in speeds.items()},
        "median": medians,
        "last_loss": {name: [round(row["loss"], 4) for row in rows] for name, rows in found.items()},
        "ratio_to_transformers": {
            name: round(medians["codeweft"] / medians[name], 3) for name in medians if name != "codeweft"
        },
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(table, indent=2) + "\n")
    write_page(table)
    print(json.dumps(table["ratio_to_transformers"], indent=2))


def write_page(table: dict[str, Any]) -> None:
    """The results as docs/results/train_step.md, from the JSON alone."""
    facts = ", ".join(f"{key} {value}" for key, value in table["machine"].items())
    lines = ["# Training speed beside transformers", "", f"{table['what'].capitalize()}.", f"Machine: {facts}."]
    lines += ["Made by `benchmarks/train_step.py`, which says what is the same on both sides; do not edit.", ""]
    lines += ["| variant | median | repeats | ours is faster by | last loss |", "|---|---|---|---|---|"]
    for name, median in table["median"].items():
        repeats = ", ".join(f"{value:.0f}" for value in table["repeats"][name])
        ratio = table["ratio_to_transformers"].get(name)
        faster = f"{ratio:.2f} times" if ratio else ""
        lines.append(f"| {name} | {median:.0f} | {repeats} | {faster} | {table['last_loss'][name][-1]} |")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        write_page(json.loads(RESULTS.read_text()))
    elif len(sys.argv) > 1:
        print(json.dumps({"ours": ours, "theirs": theirs}[sys.argv[1]]()))
    else:
        main()
