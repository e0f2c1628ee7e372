"""The stages reward and grpo with a judge that needs no sandbox, as one of the processes that work on them together."""

from pathlib import Path
from typing import Any

from tiny_judge import StubJudge

from codeweft.base.processes import Together
from codeweft.base.runs import Run
from codeweft.rl import feedback, loop, reward
from codeweft.rl.config import GrpoConfig, ObjectiveConfig, PaceConfig, RewardConfig, RewardPaceConfig
from codeweft.sandbox.config import SandboxConfig


class Judge(StubJudge):
    """Answers with an even number of letters e are right."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__(lambda text: "ok" if text.count("e") % 2 == 0 else "wrong")

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        pass


REWARD = RewardConfig(
    pace=RewardPaceConfig(steps=3, learning_rate=1e-3, sequence=96, micro_batch=2),
    answers=4,
    max_tokens=8,
    rows=8,
    held_out=3,
    pairs=6,
    precision="float32",
)
GRPO = GrpoConfig(
    pace=PaceConfig(steps=4, learning_rate=1e-3, sequence=96, micro_batch=2),
    objective=ObjectiveConfig(group=4),
    prompts=3,
    updates=2,
    iterations=2,
    max_tokens=8,
    rows=8,
    model_factor=0.5,
    silent="resample",
    checkpoint_every=1,
    precision="float32",
)


def aligned(group: Together, folder: Path, upstream: dict[str, Path]) -> dict[str, list[str]]:
    """Run the stages reward and grpo with the judge above; returns the problems that this process had judged."""
    judged: dict[str, list[str]] = {}
    stages: tuple[tuple[str, Any, Any], ...] = (("reward", reward, REWARD), ("grpo", loop, GRPO))
    feedback.PORTION = 2
    for name, module, config in stages:
        judge = Judge()
        module.Judge = lambda *_, judge=judge, **__: judge
        (folder / name).mkdir(parents=True, exist_ok=True)
        inputs = upstream | {"reward": folder / "reward"}
        sections = {"sandbox": SandboxConfig()}
        run = Run(name, folder / name, 1, inputs, sections=sections, model_stage="sft", together=group)
        module.run(config, run)
        run.metrics.close()
        judged[name] = [problem for problem, _, _ in judge.asked]
        group.wait()
    return judged
