"""What running a stage means: decide whether it is to be run, run it, measure the model it leaves, write its manifest.

In:  a run folder, a stage's name, the resolved recipe.  Out: a finished stage folder, or why it was skipped.

Unusual: every stage of a whole run works in a process of its own, so that its memory figure is its own and nothing it
did lingers.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeweft.base import config as settings
from codeweft.base.artifacts import Manifest, differences, read_manifest
from codeweft.base.errors import ConfigError, InputError, UserError
from codeweft.base.processes import Together, leads, started
from codeweft.stages import BY_NAME, OTHER_SECTIONS, Recipe, Stage

if TYPE_CHECKING:
    from codeweft.base.runs import Run

# glibc returns big blocks to the system after every use; keeping them saves page faults, a fifth of a training step of
# transformers on a CPU (benchmarks/train_step.py runs it with and without). The allocator reads them before main(),
# hence by environment and only for child processes.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


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
                headline = stage.code().run(config, work)
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
    from codeweft.base.runs import Run, prepare, upstream

    name, folder, config = stage.name, run_folder / stage.name, recipe.sections[stage.name]
    reads = [each for each in stage.reads if each not in getattr(config, "unread", ())]
    reads = [each for each in reads if not stage.partial or read_manifest(run_folder / each)]
    before = model_stage(run_folder, stage, config)
    manifests = upstream(run_folder, (*reads, *filter(None, (before,))), name)
    module = stage.code()
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
        if not (skip or stage.partial):
            _refuse_damaged(run_folder, manifests)
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


def _refuse_damaged(run_folder: Path, manifests: dict[str, Manifest]) -> None:
    """InputError where a file is not what an earlier stage wrote."""
    from codeweft.base.runs import missing_output

    for earlier, manifest in manifests.items():
        if damaged := missing_output(run_folder / earlier, manifest, verify=True):
            raise InputError(
                f"{run_folder / earlier / damaged} is not what the stage {earlier} wrote there: damaged, or exchanged.",
                f"Make it again: codeweft {earlier} --run {run_folder} --verify.",
            )


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
    """Headline numbers of the model that a stage left; of one that went on from another, what it changed as well."""
    from codeweft.evaluate.measure import measure, measure_change

    asked = recipe.sections["measure"]
    work.counts["measure"] = settings.plain(asked)
    seen, sandbox = work.counts["tokens_seen"], recipe.sections["sandbox"]
    if BY_NAME[work.name].models:
        measure = partial(measure_change, work.model_stage)
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
