"""The table of stages, and what running one means: decide, run, measure, write the manifest.

In:  a run folder and the resolved recipe.  Out: a finished stage folder, or the reason why it was skipped.

Unusual: a stage's code is imported only when it runs, so the table costs nothing; every stage of a whole run works in
a process of its own, so that its memory figure is its own and nothing it did lingers.
"""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeweft.base import config as settings
from codeweft.base.artifacts import RECIPE, Manifest, atomic, differences, read_manifest
from codeweft.base.errors import ConfigError, InputError, UserError
from codeweft.base.processes import Together, leads, started

if TYPE_CHECKING:
    from codeweft.base.runs import Run


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

# glibc returns big blocks to the system after every use; keeping them saves page faults, a fifth of a training step of
# transformers on a CPU (benchmarks/train_step.py runs it with and without). The allocator reads them before main(),
# hence by environment and only for child processes.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


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


def check_processes(wanted: int, names: Sequence[str], whole: bool = False) -> None:
    """ConfigError unless as many processes were started (torchrun sets WORLD_SIZE) as these stages want and can use.

    `run.processes = 1` takes any number. whole: it is `codeweft run` that is about to run them.
    """
    number = started()
    several = [name for name in names if BY_NAME[name].together]
    if whole and number > 1:
        raise ConfigError(
            f"codeweft run works alone, but {number} processes were started.",
            "Start it without torchrun, or one stage at a time: torchrun … -m codeweft -- STAGE --run RUN.",
        )
    if number > 1 and not several:
        raise ConfigError(
            f"The stage {names[0]} works alone, but {number} processes were started.", "Start it without torchrun."
        )
    if several and wanted not in (1, number):
        raise ConfigError(
            f"The recipe wants run.processes = {wanted}, but the number started (WORLD_SIZE) is {number}.",
            f"Start them: torchrun --nproc-per-node {wanted} -m codeweft -- {several[0]} --run RUN; "
            "or take the number as it is, with --run.processes=1.",
        )


def run_stage(
    run_folder: Path, name: str, recipe: Recipe, restart: bool = False, verify: bool = False
) -> Manifest | None:
    """Run one stage unless nothing changed; returns its manifest. The caller holds the run folder.

    Of several processes that torchrun started, each calls this; all but the first only help, and return None.
    """
    from codeweft.base.progress import duration, hush, say
    from codeweft.base.runs import Meter, settle
    from codeweft.report.summary import headline_line

    stage, folder, config = BY_NAME[name], run_folder / name, recipe.sections[name]
    if not leads():
        hush()
    with ExitStack() as measuring:
        with _all_processes(stage, config) as together, ExitStack() as helping:
            work, fingerprint, skip = _begun(run_folder, stage, recipe, together, (restart, verify))
            if not skip:
                meter = (measuring if work.leads else helping).enter_context(Meter(folder, together.rank))
                headline = importlib.import_module(stage.module).run(config, work)
        # from here on there is nothing to help with
        if not work.leads:
            return None
        if skip:
            manifest = _measured_again(run_folder, work, recipe)
            settle(folder)
            return manifest
        if together.size > 1:
            work.counts["processes"] = together.size
        if stage.measured:
            headline |= _measure(run_folder, work, recipe)
        work.metrics.close()
    meter.add_others()
    manifest = Manifest(
        **fingerprint,
        outputs=work.outputs,
        counts=work.counts,
        **meter.read(),
        device=work.device,
        headline=headline,
    )
    manifest.write(folder)
    settle(folder)
    say(f"{name}: done in {duration(manifest.seconds)}; {headline_line(headline)}.")
    return manifest


@contextmanager
def _all_processes(stage: Stage, config: Any) -> Generator[Together, None, None]:
    """The processes that work on a stage: those that torchrun started, or this one alone."""
    if started() == 1:
        yield Together()
        return
    from codeweft.train.distributed import together

    with together(config.device, f"{stage.name}.device") as group:
        yield group


def _begun(
    run_folder: Path, stage: Stage, recipe: Recipe, together: Together, flags: tuple[bool, bool]
) -> tuple["Run", dict[str, Any], bool]:
    """What a stage works with, its fingerprint, and whether it is to be skipped; what it reads has been looked at.

    The first process decides and looks. flags: to start anew, to read finished outputs again.
    """
    from codeweft.base.runs import Run, missing_output, prepare, upstream

    name, folder, config = stage.name, run_folder / stage.name, recipe.sections[stage.name]
    reads = [each for each in stage.reads if each not in getattr(config, "unread", ())]
    reads = [each for each in reads if not stage.partial or read_manifest(run_folder / each)]
    before = model_stage(run_folder, stage, config)
    manifests = upstream(run_folder, (*reads, *filter(None, (before,))), name)
    module = importlib.import_module(stage.module)
    outside = module.inputs(config) if hasattr(module, "inputs") else {}
    fingerprint: dict[str, Any] = {
        "stage": name,
        "version": stage.version,
        "seed": recipe.seed,
        "config": tracked(config, folder),
        "inputs": {stage: manifest.digest for stage, manifest in manifests.items()} | outside,
    }
    skip = resumed = False
    if together.leads:
        skip, resumed = prepare(folder, fingerprint, *flags)
        for earlier in () if stage.partial or skip else manifests:
            if damaged := missing_output(run_folder / earlier, manifests[earlier], verify=True):
                raise InputError(
                    f"{run_folder / earlier / damaged} is not what the stage {earlier} wrote there: damaged, "
                    "or exchanged.",
                    f"Make it again: codeweft {earlier} --run {run_folder} --verify.",
                )
    skip, resumed, asked = together.first((skip, resumed, fingerprint))
    if asked != fingerprint:
        changes = "; ".join(differences(asked, fingerprint)[:3])
        raise ConfigError(
            f"{name}: process {together.rank} was started for something else than the first: {changes}.",
            "Start all with one command, on machines that see the same files.",
        )
    inputs = {stage: run_folder / stage for stage in manifests}
    others = {section: recipe.sections[section] for section in OTHER_SECTIONS}
    work = Run(
        name, folder, recipe.seed, inputs, resumed, recipe.workers, sections=others, model_stage=before,
        together=together,
    )  # fmt: skip
    return work, fingerprint, skip


def model_stage(run_folder: Path, stage: Stage, config: Any) -> str:
    """The training stage whose model a stage goes on from: the one its settings name, or the newest that is finished.

    Nothing where it reads no model, or its settings name a folder outside the run (`init`).
    """
    if not stage.models or getattr(config, "init", None) is not None:
        return ""
    named = getattr(config, "model", "")
    if named and named not in stage.models:
        raise ConfigError(f"{stage.name}.model = {named} is no training stage.", settings.nearest(named, stage.models))
    finished = [each for each in stage.models if read_manifest(run_folder / each)]
    return named or next(iter(finished), stage.models[-1])


def tracked(config: Any, folder: Path) -> dict[str, Any]:
    """The settings that decide a stage's output, as plain values; those a config calls INCIDENTAL do not.

    ConfigError for a path inside the stage's own folder, which the stage is about to write anew.
    """
    values = settings.plain(config)
    for name in values:
        path = getattr(config, name)
        if isinstance(path, Path) and path.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"{name} = {path} lies in the folder that this stage writes.", "Choose another run folder."
            )
    return {name: value for name, value in values.items() if name not in getattr(config, "INCIDENTAL", ())}


def _measure(run_folder: Path, work: "Run", recipe: Recipe) -> dict[str, Any]:
    measuring = importlib.import_module("codeweft.evaluate.measure")
    asked = recipe.sections["measure"]
    work.counts["measure"] = settings.plain(asked)
    seen, sandbox = work.counts["tokens_seen"], recipe.sections["sandbox"]
    measure = measuring.measure
    if BY_NAME[work.name].models:
        measure = partial(measuring.measure_change, work.model_stage)
    return measure(run_folder, work.name, recipe.seed, seen, asked, sandbox)


def _measured_again(run_folder: Path, work: "Run", recipe: Recipe) -> Manifest:
    """The manifest of a skipped stage, its model measured anew if [measure] changed since."""
    from codeweft.base.progress import say
    from codeweft.base.runs import Meter

    manifest = read_manifest(work.folder)
    assert manifest is not None, "only a finished stage is skipped"
    if not BY_NAME[work.name].measured or manifest.counts["measure"] == settings.plain(recipe.sections["measure"]):
        return manifest
    say(f"{work.name}: [measure] changed, measuring again.")
    work.counts |= manifest.counts
    with Meter(work.folder) as meter:
        headline = manifest.headline | _measure(run_folder, work, recipe)
    manifest = replace(manifest, headline=headline, counts=work.counts, **meter.read())
    manifest.write(work.folder)
    return manifest


def run_in_process(run_folder: Path, name: str, flags: Sequence[str], lock: int) -> int:
    """Run one stage of a whole run in a process of its own, which inherits the run folder's lock.

    Returns its exit code; UserError when the system ended it.
    """
    from codeweft.base.runs import name_owner

    command = [sys.executable, "-m", "codeweft", name, "--run", str(run_folder), "--within-run", *flags]
    process = subprocess.Popen(command, env=ALLOCATOR | os.environ, pass_fds=(lock,))
    name_owner(lock, name, process.pid)
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:
            # the terminal sent Ctrl-C to the child as well: let it end by itself
            continue
    if code < 0:
        reason = "most likely for want of memory" if code == -signal.SIGKILL else f"by signal {-code}"
        raise UserError(f"The stage {name} was killed, {reason}.", "The same command goes on from where it was.")
    return code
