"""The command line: parse with the standard library, then import what the command needs.

In:  words.  Out: work done and exit code 0; 1 for a person's mistake told in a line or two; 2 for a wrong command line;
130 when interrupted.
"""

import argparse
import errno
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from codeweft.base import config as settings
from codeweft.base.errors import CodeweftError, UsageError
from codeweft.base.interrupts import interrupts_kept
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
        with interrupts_kept():
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
    if rest and not (command.sections and "." in rest[0]):
        known = [option for action in parser._actions for option in action.option_strings]
        known += [setting.name for section in command.sections for setting in _settings(section)]
        raise UsageError(f"codeweft {name}: {rest[0]} is not understood.", settings.nearest(rest[0], known))
    return command.act(arguments, rest)


def all_commands() -> dict[str, Command | Group]:
    """Every command by name, in the order of the help."""
    from codeweft import run_command as runs
    from codeweft import stages
    from codeweft.evaluate import command as evaluating
    from codeweft.serve import command as serving

    commands: dict[str, Command | Group] = {}
    every = ("run", "measure", *stages.BY_NAME)
    commands["run"] = Command("run every stage of a recipe", runs.run_arguments, runs.run, every)
    for stage in stages.STAGES:
        sections = (stage.name, "measure") if stage.measured else (stage.name,)
        arguments = runs.stage_arguments(stage.name)
        commands[stage.name] = Command(f"stage: {stage.summary}", arguments, runs.run_one, sections)
    commands["evaluate"] = Command(
        f"stage: {stages.BY_NAME['evaluate'].summary}; or any model on benchmarks",
        runs.evaluate_arguments,
        runs.evaluate,
        ("evaluate", "sandbox"),
    )
    return commands | {
        "compare": Command(
            "say which differences of two evaluations are no chance", evaluating.compare_arguments, evaluating.compare
        ),
        "tasks": Group("list the benchmarks, and make sets of one's own", task_commands),
        "why": Command("say what became of a source file, and by which rule", _why_arguments, why),
        "complete": Command("fill in the code at FILE:LINE", serving.complete_arguments, serving.complete),
        "serve": Command(
            "serve a model to editors and clients over HTTP", serving.serve_arguments, serving.serve, ("serve",)
        ),
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
    recipes = ", ".join(settings.recipe_names())
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
