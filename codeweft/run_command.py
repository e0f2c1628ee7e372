"""`codeweft run` and `codeweft STAGE`: which recipe, which stages, and the run folder held while they work.

In:  parsed words and the overrides that are left.  Out: finished stage folders; a manifest as JSON; an exit code.
"""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from codeweft import stages
from codeweft.base import config as settings
from codeweft.base.artifacts import RECIPE
from codeweft.base.errors import CodeweftError, InputError, UsageError
from codeweft.base.processes import leads
from codeweft.evaluate import command


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft run` takes."""
    parser.add_argument("recipe", help="a recipe of the package, a path ending in .toml, or an earlier run folder")
    parser.add_argument("--source", action="append", default=[], help="folder or git repository of code (repeatable)")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE)")
    parser.add_argument("--from", dest="first", choices=list(stages.BY_NAME), help="first stage to run")
    parser.add_argument("--to", dest="last", choices=list(stages.BY_NAME), help="last stage to run")
    parser.add_argument("--restart", action="store_true", help="run the stages even when nothing changed")
    parser.add_argument("--verify", action="store_true", help="read finished outputs again before skipping a stage")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft run`: every stage of a recipe, each in a process of its own."""
    from codeweft import running
    from codeweft.base.runs import held

    earlier = Path(arguments.recipe)
    again = (earlier / RECIPE).is_file()
    layers = settings.read_recipe(str(earlier / RECIPE) if again else arguments.recipe)
    layers.append(settings.parse_overrides(rest, stages.SECTIONS))
    if arguments.source:
        sources = [os.path.realpath(source) for source in arguments.source]  # Path.resolve dies of a loop of links
        missing = [source for source in sources if not Path(source).exists()]
        if missing:
            raise InputError(f"--source: there is no {missing[0]}.", "Give a folder or a git repository.")
        layers.append(settings.Layer("--source", {"corpus": {"code": sources}}))
    recipe = stages.resolve(layers)
    run_folder = arguments.out or (earlier if again else Path("runs") / earlier.stem)
    names = list(stages.BY_NAME)
    first = names.index(arguments.first) if arguments.first else 0
    last = names.index(arguments.last) if arguments.last else len(names) - 1
    if first > last:
        raise UsageError(f"--from {arguments.first} comes after --to {arguments.last}.", "Swap them.")
    running.check_processes(recipe.sections["run"].processes, names[first : last + 1], whole=True)
    flags = [f"--{flag}" for flag in ("restart", "verify") if getattr(arguments, flag)]
    with held(run_folder) as lock:
        recipe.write(run_folder)
        for name in names[first : last + 1]:
            code = running.run_in_process(run_folder, name, flags, lock)
            if code:
                return code
    if last == len(names) - 1:
        from codeweft.report.summary import closing_words

        print(closing_words(run_folder))
    return 0


def stage_arguments(stage: str, required: bool = True) -> Callable[[argparse.ArgumentParser], None]:
    """What `codeweft STAGE` takes, for one stage; required: whether it can only work on a run."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.set_defaults(stage=stage)
        parser.add_argument("--run", type=Path, required=required, dest="folder", help="run folder")
        parser.add_argument("--recipe", help="recipe to use instead of the run folder's recipe.toml")
        parser.add_argument("--restart", action="store_true", help="run even when nothing changed")
        parser.add_argument("--verify", action="store_true", help="read finished outputs again before skipping")
        parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
        parser.add_argument("--within-run", action="store_true", help=argparse.SUPPRESS)

    return add


def run_one(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft STAGE`: one stage in this process."""
    from codeweft import running
    from codeweft.base.runs import held

    folder: Path = arguments.folder
    if arguments.recipe:
        layers = settings.read_recipe(arguments.recipe)
    elif (folder / RECIPE).exists():
        layers = settings.read_recipe(str(folder / RECIPE))
    else:
        raise InputError(f"{folder} has no {RECIPE}.", "Name a recipe: --recipe toy.")
    recipe = stages.resolve([*layers, settings.parse_overrides(rest, stages.SECTIONS)])
    running.check_processes(recipe.sections["run"].processes, [arguments.stage])
    if arguments.within_run or not leads():
        manifest = running.run_stage(folder, arguments.stage, recipe, arguments.restart, arguments.verify)
    else:
        with held(folder):
            before = (folder / RECIPE).read_bytes() if (folder / RECIPE).exists() else None
            recipe.write(folder)
            try:
                manifest = running.run_stage(folder, arguments.stage, recipe, arguments.restart, arguments.verify)
            except CodeweftError:
                if before is not None:  # settings that were refused must not stay behind for the next command
                    (folder / RECIPE).write_bytes(before)
                raise
    if arguments.json and manifest is not None:
        print(json.dumps(asdict(manifest), indent=2))
    return 0


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft evaluate` takes: the words of a stage, and those of a model on benchmarks."""
    stage_arguments("evaluate", required=False)(parser)
    command.evaluate_arguments(parser)


def evaluate(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft evaluate`: the stage of a run, or a model on benchmarks."""
    if bool(arguments.folder) == bool(arguments.model):
        raise UsageError("codeweft evaluate measures a run or a model.", "Give --run RUN, or --model DIR|URL.")
    if arguments.model:
        return command.evaluate(arguments, rest)
    return run_one(arguments, rest)
