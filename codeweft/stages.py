"""The table of stages and the sections of a recipe: what there is to run, and the settings that it is run with.

In:  layers of settings, weakest first.  Out: the resolved recipe; a stage's row and, when it is to run, its code.

Unusual: a stage's code is imported only when it runs, so the table costs nothing.
"""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from codeweft.base import config as settings
from codeweft.base.artifacts import RECIPE, atomic
from codeweft.base.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the table. `version` is raised whenever the same input would give other output."""

    name: str
    module: str
    config: str
    version: int
    reads: tuple[str, ...]
    summary: str
    measured: bool = False  # whether evaluate measures the model it leaves, for the headline
    partial: bool = False  # whether it works with those of its inputs that are finished
    together: bool = False  # whether several processes can work on it, as torchrun starts them
    models: tuple[str, ...] = ()  # training stages, newest first: it reads the model of the first that is finished

    def code(self) -> ModuleType:
        """Its module, imported now; `run(config, run)` is the stage, `inputs(config)` what it reads outside the run."""
        return importlib.import_module(self.module)


STAGES = (
    Stage(
        "corpus",
        "codeweft.corpus.build",
        "codeweft.corpus.config:CorpusConfig",
        3,
        (),
        "source folders and git repositories -> unique, filtered documents",
    ),
    Stage(
        "problems",
        "codeweft.tasks.problems",
        "codeweft.tasks.problems_settings:ProblemsConfig",
        1,
        ("corpus",),
        "generated and given problems -> problems and conversations, apart from what is measured",
    ),
    Stage(
        "tokenizer",
        "codeweft.tokenizer.train",
        "codeweft.tokenizer.config:TokenizerConfig",
        1,
        ("corpus",),
        "documents -> a byte-level BPE tokenizer",
    ),
    Stage(
        "tokens",
        "codeweft.tokenizer.tokens",
        "codeweft.tokenizer.config:TokensConfig",
        1,
        ("corpus", "tokenizer"),
        "documents -> mixed, infilling-cut token shards",
    ),
    Stage(
        "pretrain",
        "codeweft.train.pretrain",
        "codeweft.train.config:PretrainConfig",
        1,
        ("tokens", "tokenizer"),
        "token shards -> a model folder",
        measured=True,
        together=True,
    ),
    Stage(
        "sft",
        "codeweft.train.sft",
        "codeweft.train.config:SftConfig",
        1,
        ("problems", "tokens"),
        "conversations and a model folder -> a model folder that chats",
        measured=True,
        together=True,
        models=("pretrain",),
    ),
    Stage(
        "reward",
        "codeweft.rl.reward",
        "codeweft.rl.config:RewardConfig",
        1,
        ("problems",),
        "a model's answers and what tests said of them -> a reward model",
        together=True,
        models=("sft", "pretrain"),
    ),
    Stage(
        "grpo",
        "codeweft.rl.loop",
        "codeweft.rl.config:GrpoConfig",
        1,
        ("problems", "reward"),
        "problems and a model folder -> a model folder that answers more of them",
        measured=True,
        together=True,
        models=("sft", "pretrain"),
    ),
    Stage(
        "evaluate",
        "codeweft.evaluate.run",
        "codeweft.evaluate.config:EvaluateConfig",
        4,
        ("corpus", "problems", "tokenizer", "tokens"),
        "a model folder -> scores with intervals and baselines",
        models=("grpo", "sft", "pretrain"),
    ),
    Stage(
        "report",
        "codeweft.report.page",
        "codeweft.report.config:ReportConfig",
        1,
        ("corpus", "problems", "tokenizer", "tokens", "pretrain", "sft", "reward", "grpo", "evaluate"),
        "the run folder -> one HTML file",
        partial=True,
    ),
)
BY_NAME = {stage.name: stage for stage in STAGES}
# Sections of a recipe that are no stage: how a run is run, how models are measured and served, how programs are walled.
OTHER_SECTIONS = {
    "run": "codeweft.stages:RunConfig",
    "measure": "codeweft.evaluate.config:MeasureConfig",
    "serve": "codeweft.serve.config:ServeConfig",
    "sandbox": "codeweft.sandbox.config:SandboxConfig",
}
SECTIONS = (*OTHER_SECTIONS, *BY_NAME)


@dataclass(frozen=True)
class RunConfig:
    """What holds for the whole run."""

    seed: int = 1  # every stream of chance is derived from it
    workers: int = 0  # processes for work that splits (0: as many as there are cores)
    processes: int = 1  # that train together; another number than torchrun started is refused (1: any is taken)

    def __post_init__(self) -> None:
        """ValueError for what cannot be."""
        if self.workers < 0 or self.processes < 1:
            raise ValueError("workers must not be negative, and processes must be at least 1")


@dataclass(frozen=True)
class Recipe:
    """The resolved configuration: one dataclass a section, and the plain values they came from."""

    sections: dict[str, Any]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.sections["run"].seed

    @property
    def workers(self) -> int:
        """Processes to use."""
        return self.sections["run"].workers or len(os.sched_getaffinity(0))

    def write(self, run_folder: Path) -> None:
        """Write `recipe.toml` in full, defaults included."""
        text = settings.to_toml({name: settings.plain(section) for name, section in self.sections.items()})
        with atomic(run_folder / RECIPE) as file:
            file.write(text.encode())


def config_class(section: str) -> Any:
    """The dataclass of a section, imported from its room's torch-free config."""
    address = BY_NAME[section].config if section in BY_NAME else OTHER_SECTIONS[section]
    module, name = address.split(":")
    return getattr(importlib.import_module(module), name)


def resolve(layers: Sequence[settings.Layer]) -> Recipe:
    """Every section filled from the layers, weakest first; ConfigError for a section that does not exist."""
    for layer in layers:
        for name in layer.values:
            if name not in SECTIONS:
                raise ConfigError(f"{layer.origin}: there is no section [{name}].", settings.nearest(name, SECTIONS))
    sections = {}
    for name in SECTIONS:
        sections[name] = settings.build(config_class(name), [layer.section(name) for layer in layers], name)
    return Recipe(sections)
