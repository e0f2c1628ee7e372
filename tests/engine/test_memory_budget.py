"""A stated amount of memory: what it holds, that it is kept, and what is said where it is too small."""

import subprocess
import sys
from pathlib import Path

import pytest

from codeweft.base.errors import UserError
from codeweft.base.sizes import bytes_of
from codeweft.engine import memory
from codeweft.engine.engine import Engine
from codeweft.model.cache import BLOCK, block_bytes

MEASURE = """
import resource, sys, torch
from pathlib import Path
from codeweft.engine.engine import Engine
from codeweft.engine.request import Request

torch.set_num_threads(2)
engine = Engine.load(Path(sys.argv[1]), memory=int(sys.argv[2]), rows=8)
prompts = [tuple((7 * place + row) % 300 + 5 for place in range(2000)) for row in range(8)]
engine.generate([Request(prompt, max_tokens=40) for prompt in prompts])
print(engine.cache.bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_the_budget_less_weights_and_work_is_the_cache(loaded: Engine):
    budget = memory.PROGRAM + memory.PIECE + (200 << 20)
    engine = Engine(loaded.model, loaded.tokenizer, rows=3, memory=budget)
    plan = memory.plan(engine.model, budget, engine.cache.entries.dtype, engine.scheduler.prompt_tokens, 3)
    assert plan.total <= budget
    assert engine.pool.size == plan.blocks
    assert engine.cache.bytes == (plan.blocks + 1) * block_bytes(engine.model.config, engine.cache.entries.dtype)
    assert engine.max_length <= plan.blocks * BLOCK
    # never more than all rows could use
    assert plan.blocks <= 3 * -(-engine.model.config.max_position_embeddings // BLOCK)


def test_too_little_memory_names_what_it_takes(loaded: Engine):
    with pytest.raises(UserError, match=r"300 MiB do not hold this model.*Give at least \d+ MiB") as caught:
        Engine(loaded.model, loaded.tokenizer, memory=300 << 20)
    least = str(caught.value).split("at least ")[1].split(",")[0]
    assert Engine(loaded.model, loaded.tokenizer, memory=bytes_of(least)).pool.size > 0


@pytest.mark.parametrize("wrong", ["12 parsecs", "", "GiB", "-1GiB"])
def test_what_is_no_amount_of_memory_is_told(wrong: str):
    with pytest.raises(UserError, match="amount of memory"):
        bytes_of(wrong)


@pytest.mark.slow
def test_the_process_stays_within_its_budget(tmp_path: Path):
    """A model of 100 MB at full load: eight rows, long prompts, all of the cache written to."""
    from tiny_model import make_folder

    folder = make_folder(
        tmp_path / "model",
        hidden_size=512,
        intermediate_size=2048,
        moe_intermediate_size=512,
        num_hidden_layers=6,
        n_routed_experts=16,
        kv_lora_rank=256,
        qk_rope_head_dim=32,
        qk_nope_head_dim=64,
        v_head_dim=64,
        max_position_embeddings=4096,
    )
    budget = 1600 << 20
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), str(budget)], capture_output=True, text=True, check=True
    )
    cache, peak = map(int, run.stdout.split())
    assert cache > 100 << 20
    assert peak <= budget
