"""Two processes on this machine that work as those that torchrun starts, and what they are given to do in tests."""

import dataclasses
import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_model import SMALLEST

from codeweft.base import progress
from codeweft.base.processes import Together
from codeweft.base.runs import Run
from codeweft.model.config import ModelConfig
from codeweft.model.transformer import Transformer
from codeweft.train.batches import Batch
from codeweft.train.config import BalanceConfig, OptimizerConfig
from codeweft.train.loop import Plan, Trainer, train
from codeweft.train.objectives import Loss, next_token

SECONDS = 300
SHAPE = ModelConfig(vocab_size=64, n_shared_experts=1, **SMALLEST)


def in_group(work: Callable[..., Any], *given: Any, size: int = 2) -> list[Any]:
    """What `work(group, *given)` returned in each of `size` new processes, by rank; its module lies in tests/."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=_member, args=(rank, size, port, answers, work, given)) for rank in range(size)]
    for process in processes:
        process.start()
    try:
        found = dict(answers.get(timeout=SECONDS) for _ in processes)
    finally:
        for process in processes:
            process.join(timeout=30)
            process.kill()
    assert [process.exitcode for process in processes] == [0] * size
    return [found[rank] for rank in range(size)]


def _member(rank: int, size: int, port: int, answers: Any, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    from codeweft.train.distributed import together

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    if rank:
        progress.hush()
    with together("cpu", "device") as group:
        answers.put((rank, work(group, *given)))


# --- what they train --------------------------------------------------------------------------------------------------


class WithSpare(Transformer):
    """A model with a matrix that no loss depends on, and one that some batches do not reach."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.unused = torch.nn.Parameter(torch.ones(3, 3))
        self.sometimes = torch.nn.Parameter(torch.ones(2, 2))


def counting(number: int) -> Batch:
    start_B1 = torch.randint(0, 64, (2, 1), generator=torch.Generator().manual_seed(number))
    window_BT = (start_B1 + torch.arange(17)) % 64
    return Batch(window_BT[:, :-1].contiguous(), window_BT[:, 1:].contiguous())


def loss(model: Transformer, batch: Batch) -> Loss:
    assert isinstance(model, WithSpare)
    made = next_token(model, batch, BalanceConfig(expert=0.01))
    facts = {"first": batch.tokens_BT[0, 0].float()}
    odd = bool(batch.tokens_BT[0, 0] % 2)
    return dataclasses.replace(made, total=made.total + (model.sometimes.sum() if odd else 0.0), facts=facts)


COUNTS = (3, 2, 1, 4, 1, 0, 5, 2)  # micro-batches of the steps: also fewer than processes, and none


def plan(steps: int) -> Plan:
    def batches(step: int) -> list[Batch]:
        return [counting(10 * step + number) for number in range(COUNTS[step % len(COUNTS)])]

    return Plan(
        steps=steps,
        batches=batches,
        learning_rate=lambda step: 1e-2,
        loss=loss,
        validation=lambda: (counting(1000 + number) for number in range(3)),
        validate_every=2,
        load_every=1,
        checkpoint_every=4,
        keep_checkpoints=5,
    )


def counted(group: Together, folder: Path, steps: int) -> dict[str, Any]:
    """Train in a run folder; returns the weights, and what this process holds of the run."""
    model = WithSpare(SHAPE)
    model.init_weights(0.02, torch.Generator().manual_seed(0))
    for weight in (model.unused, model.sometimes):
        torch.nn.init.ones_(weight)
    run = Run("pretrain", folder, 1, {}, together=group)
    train(Trainer(model, OptimizerConfig(), group), plan(steps), run)
    run.write("own.txt", str(group.rank))
    run.metrics.close()
    weights = {name: weight.detach().float().numpy() for name, weight in model.named_parameters()}
    return {"weights": weights, "outputs": run.outputs}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
