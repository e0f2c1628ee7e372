"""The command line: parse with the standard library, then import what the command needs.

In:  words.  Out: work done and exit code 0; 1 for a person's mistake told in a line or two; 2 for a wrong command line;
130 when interrupted.
"""

import argparse
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from codeweft.base import config as settings
from codeweft.base.errors import CodeweftError, InputError, UsageError
from codeweft.base.processes import ProcessLost, leads, wait_to_speak

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@dataclass(frozen=True, slots=True)
class Command:
    """A word of the command line: its one-line help, its arguments, what it does."""

    summary: str
    arguments: Callable[[argparse.ArgumentParser], None]
    act: Callable[[argparse.Namespace, list[str]], int]
    sections: tuple[str, ...] = ()  # sections whose settings it takes as --section.key=value


@dataclass(frozen=True, slots=True)
class Group:
    """A word of the command line that other commands follow."""

    summary: str
    commands: Callable[[], dict[str, Command]]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}.", f"See {self.prog} --help.")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    words = list(sys.argv[1:] if words is None else words)
    words = words[1:] if words[:1] == ["--"] else words  # which keeps torchrun from taking --run for one of its own
    try:
        return dispatch(words)
    except ProcessLost as error:
        return error.exit_code
    except CodeweftError as error:
        return tell(str(error), error.exit_code)
    except KeyboardInterrupt:
        if not leads():
            return 130
        lasting = words[:1] not in (["serve"], ["complete"], ["sandbox"])
        print("codeweft: interrupted" + ("; the same command goes on from here." if lasting else "."), file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except ModuleNotFoundError as error:
        if (error.name or "codeweft").split(".")[0] == "codeweft":
            raise
        extra = missing_extra(error.name or "")
        return tell(f"{words[0]} needs the package {error.name}. Install it: {extra}.", 1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        return tell(system_error(error), 1)


def tell(text: str, code: int) -> int:
    """Say what ends the command, once for all processes that were started together; returns the exit code."""
    wait_to_speak()
    print(f"codeweft: {text}", file=sys.stderr, flush=True)
    return code


def system_error(error: OSError) -> str:
    """What the system refused, of which file, and what to do; a full disk is told with the room that is left."""
    if error.errno not in DISK_ERRORS or not error.filename:
        return f"{error.strerror}: {error.filename or ''}. Mend that and run again."
    folder = next(path for path in Path(error.filename).absolute().parents if path.is_dir())
    free = shutil.disk_usage(folder).free / 1e6
    return (
        f"{error.filename} could not be written: {error.strerror} ({free:,.1f} MB are free there). "
        "Make room; the same command goes on from the last finished part."
    )


def missing_extra(module: str) -> str:
    """The command that installs a module that is missing."""
    from codeweft.doctor import PACKAGES

    extras = {name: extra for name, _, extra in PACKAGES.values()}
    extra = extras.get(module.split(".")[0], "all")
    return f"pip install 'codeweft[{extra}]'" if extra else "pip install codeweft"


def dispatch(words: list[str]) -> int:
    """Find the command and act."""
    commands = all_commands()
    if not words or words[0] in {"-h", "--help", "help"}:
        print_overview(commands)
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("codeweft"))
        return 0
    name = words[0]
    if name not in commands:
        raise UsageError(f"There is no command {name}.", settings.nearest(name, commands))
    command = commands[name]
    if isinstance(command, Group):
        return dispatch_within(name, command, words[1:])
    return carry_out(name, command, words[1:])


def dispatch_within(group: str, among: Group, words: list[str]) -> int:
    """Find the command of a group and act."""
    commands = among.commands()
    if not words or words[0] in {"-h", "--help"}:
        lines = [f"  {name:<10} {command.summary}" for name, command in commands.items()]
        print(f"usage: codeweft {group} COMMAND\n\n{among.summary.capitalize()}.\n\nCommands:", *lines, sep="\n")
        return 0
    if words[0] not in commands:
        raise UsageError(f"There is no command {group} {words[0]}.", settings.nearest(words[0], commands))
    return carry_out(f"{group} {words[0]}", commands[words[0]], words[1:])


def carry_out(name: str, command: Command, words: list[str]) -> int:
    """Parse the words of one command and act."""
    parser = _Parser(
        prog=f"codeweft {name}",
        description=command.summary[0].upper() + command.summary[1:] + ".",
        epilog=settings_help(command.sections),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.arguments(parser)
    arguments, rest = parser.parse_known_args(words)
    if rest and not command.sections:
        known = [option for action in parser._actions for option in action.option_strings]
        raise UsageError(f"codeweft {name}: {rest[0]} is not understood.", settings.nearest(rest[0], known))
    if rest and "." not in rest[0]:
        known = [option for action in parser._actions for option in action.option_strings]
        known += [setting.name for section in command.sections for setting in _settings(section)]
        raise UsageError(f"codeweft {name}: {rest[0]} is not understood.", settings.nearest(rest[0], known))
    return command.act(arguments, rest)


def all_commands() -> dict[str, Command | Group]:
    """Every command by name, in the order of the help."""
    from codeweft import stages

    commands: dict[str, Command | Group] = {}
    commands["run"] = Command("run every stage of a recipe", _run_arguments, run, ("run", "measure", *stages.BY_NAME))
    for stage in stages.STAGES:
        sections = (stage.name, "measure") if stage.measured else (stage.name,)
        commands[stage.name] = Command(f"stage: {stage.summary}", _stage_arguments(stage.name), run_one, sections)
    commands["evaluate"] = Command(
        f"stage: {stages.BY_NAME['evaluate'].summary}; or any model on benchmarks",
        _evaluate_arguments,
        evaluate,
        ("evaluate", "sandbox"),
    )
    return commands | {
        "compare": Command("say which differences of two evaluations are no chance", _compare_arguments, compare),
        "tasks": Group("list the benchmarks, and make sets of one's own", task_commands),
        "why": Command("say what became of a source file, and by which rule", _why_arguments, why),
        "complete": Command("fill in the code at FILE:LINE", _complete_arguments, complete),
        "serve": Command("serve a model to editors and clients over HTTP", _serve_arguments, serve, ("serve",)),
        "model": Group("look into, make, quantise, check and export model folders", model_commands),
        "sandbox": Group("run and judge untrusted programs behind a wall", sandbox_commands),
        "doctor": Command("check this machine and say what is missing", _json_argument, doctor),
    }


def task_commands() -> dict[str, Command]:
    """The commands that follow `codeweft tasks`."""
    from codeweft.evaluate import command

    return {
        "list": Command("list every benchmark and how it is asked", command.list_arguments, command.list_tasks),
        "show": Command("show one benchmark's protocol and files", command.show_arguments, command.show_task),
        "build-repobench": Command(
            "make a completion set across files from source folders", command.build_arguments, command.build_repobench
        ),
    }


def model_commands() -> dict[str, Command]:
    """The commands that follow `codeweft model`."""
    from codeweft import model_folders as folders

    return {
        "info": Command("say what a model folder holds and needs", folders.info_arguments, folders.info),
        "verify": Command("read a whole model folder and say what is wrong", folders.verify_arguments, folders.verify),
        "quantize": Command("write a folder's weights in 4 or 8 bits", folders.quantize_arguments, folders.quantize),
        "compare": Command("say how far two models agree on a text", folders.compare_arguments, folders.compare),
        "export": Command("write a folder as a GGUF file for llama.cpp", folders.export_arguments, folders.export),
        "init": Command("write random weights of any shape, to measure with", folders.init_arguments, folders.init),
    }


def sandbox_commands() -> dict[str, Command]:
    """The commands that follow `codeweft sandbox`."""
    from codeweft.sandbox import command

    own = ("sandbox",)
    return {
        "probe": Command("try every part of the wall and list the languages", _json_argument, command.probe, own),
        "run": Command("run one program behind the wall", command.run_arguments, command.run, own),
        "serve": Command("judge for others over HTTP", command.serve_arguments, command.serve, own),
    }


def print_overview(commands: dict[str, Command | Group]) -> None:
    """The stage table and the other commands."""
    from codeweft import stages

    print("codeweft builds, measures and serves open Mixture-of-Experts code language models.\n")
    print("Stages, in the order of `codeweft run RECIPE`:")
    for stage in stages.STAGES:
        print(f"  {stage.name:<10} {stage.summary}")
    print("\nCommands:")
    for name, command in commands.items():
        if name not in stages.BY_NAME:
            print(f"  {name:<10} {command.summary}")
    recipes = ", ".join(sorted(path.stem for path in settings.RECIPES.glob("*.toml")))
    print(f"\nRecipes: {recipes}. Begin with `codeweft run toy`; `codeweft COMMAND --help` tells more.")


def _settings(section: str) -> list[settings.Setting]:
    from codeweft.stages import config_class

    return list(settings.settings(config_class(section), section))


def settings_help(sections: tuple[str, ...]) -> str:
    """The settings of some sections as help text: name, type, default, purpose."""
    if not sections:
        return ""
    lines = ["settings (defaults here; a recipe and the command line override them):"]
    for section in sections:
        for setting in _settings(section):
            lines.append(f"  {setting.name}={setting.kind} ({setting.default})")
            if setting.purpose:
                lines.append(f"      {setting.purpose}")
    return "\n".join(lines)


# --- running -------------------------------------------------------------------------------------------------------


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    from codeweft.stages import BY_NAME

    parser.add_argument("recipe", help="a recipe of the package, a path ending in .toml, or an earlier run folder")
    parser.add_argument("--source", action="append", default=[], help="folder or git repository of code (repeatable)")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE)")
    parser.add_argument("--from", dest="first", choices=list(BY_NAME), help="first stage to run")
    parser.add_argument("--to", dest="last", choices=list(BY_NAME), help="last stage to run")
    parser.add_argument("--restart", action="store_true", help="run the stages even when nothing changed")
    parser.add_argument("--verify", action="store_true", help="read finished outputs again before skipping a stage")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft run`: every stage of a recipe, each in a process of its own."""
    from codeweft import running, stages
    from codeweft.base.artifacts import RECIPE
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


def _stage_arguments(stage: str, required: bool = True) -> Callable[[argparse.ArgumentParser], None]:
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
    from dataclasses import asdict

    from codeweft import running, stages
    from codeweft.base.artifacts import RECIPE
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


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    from codeweft.evaluate import command

    _stage_arguments("evaluate", required=False)(parser)
    command.evaluate_arguments(parser)


def evaluate(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft evaluate`: the stage of a run, or a model on benchmarks."""
    from codeweft.evaluate import command

    if bool(arguments.folder) == bool(arguments.model):
        raise UsageError("codeweft evaluate measures a run or a model.", "Give --run RUN, or --model DIR|URL.")
    if arguments.model:
        return command.evaluate(arguments, rest)
    return run_one(arguments, rest)


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    from codeweft.evaluate import command

    command.compare_arguments(parser)


def compare(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft compare A B`: paired tests of two evaluations."""
    from codeweft.evaluate import command

    return command.compare(arguments, rest)


# --- asking --------------------------------------------------------------------------------------------------------


def _json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def _why_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("what", help="path (or its end) or document id")
    _json_argument(parser)


def why(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft why`: what became of a file."""
    from codeweft.corpus.why import explain, sentence

    found = explain(arguments.run, arguments.what)
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for fate in found:
            print(sentence(fate))
    return 0


def doctor(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft doctor`: what this machine has, what each missing part is for, how to get it."""
    from codeweft.doctor import examine

    findings = examine()
    if arguments.json:
        print(json.dumps(findings, indent=2))
    else:
        for finding in findings:
            mark = "ok     " if finding["ok"] else "missing"
            print(f"{mark}  {finding['what']:<22} {finding['detail']}")
    return 0 if all(finding["ok"] or finding["optional"] for finding in findings) else 1


# --- completing and serving ----------------------------------------------------------------------------------------


def _model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="model folder, such as runs/toy/pretrain/model")


def _complete_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", help="FILE:LINE or FILE:LINE:COLUMN, counted from 1")
    _model_argument(parser)
    parser.add_argument("--max-tokens", type=int, default=64, help="longest completion in tokens (64)")
    parser.add_argument("--lines", type=int, default=1, help="lines to fill in; 0 for no limit (1)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token (0)")
    parser.add_argument("--seed", type=int, default=0, help="for temperatures above 0 (0)")
    parser.add_argument("--assume-fim", action="store_true", help="infill although the folder does not say it can")
    parser.add_argument("--memory", default="", help="such as 12GiB: what it may take in all")
    _json_argument(parser)


def complete(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft complete FILE:LINE`: print what the model fills in there."""
    from codeweft.serve.completion import complete_place

    result: dict[str, Any] = complete_place(
        arguments.place,
        arguments.model,
        max_tokens=arguments.max_tokens,
        lines=arguments.lines,
        temperature=arguments.temperature,
        seed=arguments.seed,
        assume_fim=arguments.assume_fim,
        memory=arguments.memory,
    )
    print(json.dumps(result, ensure_ascii=False) if arguments.json else result["text"])
    return 0


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    _model_argument(parser)
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (8012)")
    parser.add_argument("--memory", help="such as 12GiB: what it may take in all; says the longest context it gives")


def serve(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft serve`: answer completion requests until interrupted."""
    from codeweft.serve.app import run as serve_model
    from codeweft.stages import config_class

    named = {name: getattr(arguments, name) for name in ("host", "port", "memory")}
    given = {name: value for name, value in named.items() if value is not None}
    layers = [settings.parse_overrides(rest, ["serve"]).section("serve"), settings.Layer("the command line", given)]
    return serve_model(settings.build(config_class("serve"), layers, "serve"), arguments.model)
