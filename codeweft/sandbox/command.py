"""`codeweft sandbox probe|run|serve`: what a person asks of the sandbox at a terminal.

In:  parsed words.  Out: lines or JSON on standard output, and the exit code.

Unusual: help and parsing need the standard library alone; everything else is imported when a command acts. What a
program printed is shown with its control characters spelt out, so that it cannot write to the terminal as we do.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeweft.base import config as settings
from codeweft.base.errors import InputError, UserError
from codeweft.sandbox.config import Limits, SandboxConfig

if TYPE_CHECKING:
    from codeweft.sandbox.config import Program, Ran

MIB = 1 << 20


def configured(rest: list[str]) -> SandboxConfig:
    """The settings of a command line, `--sandbox.key=value`."""
    return settings.build(SandboxConfig, [settings.parse_overrides(rest, ["sandbox"]).section("sandbox")], "sandbox")


def probe(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft sandbox probe`: the wall's parts, each tried, and the languages that this machine can run."""
    from codeweft.sandbox import probe as probing
    from codeweft.sandbox import toolchains

    config = configured(rest)
    steps = probing.probe(config)
    tier = probing.reached(steps, config)
    languages = toolchains.as_table()
    code = 1 if tier == "refused" else 0
    if arguments.json:
        rows = [{"language": name, "version": version, "install": hint} for name, version, hint in languages]
        facts = {"asked": config.tier, "tier": tier, "steps": [vars(step) for step in steps], "languages": rows}
        print(json.dumps(facts, indent=2))
        return code
    for step in steps:
        print(f"{'ok     ' if step.ok else 'failed '}  {step.name:<30} {printable(step.detail)}")
    print(f"\ntier: {tier}\n")
    for name, version, hint in languages:
        print(f"{'missing' if hint else 'ok     '}  {name:<30} {hint or version}")
    return code


# --- one program ---------------------------------------------------------------------------------------------------


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft sandbox run` takes."""
    parser.add_argument("file", type=Path, help="the program")
    parser.add_argument("--language", help="its language (default: told by the file's name)")
    parser.add_argument("--stdin", type=Path, help="file that it reads as its standard input (default: nothing)")
    parser.add_argument("--cpu-seconds", type=float, help="processor time it may use (default: the language's)")
    parser.add_argument("--wall-seconds", type=float, help="time by the clock (default: twice that and two more)")
    parser.add_argument("--memory", type=int, help="MiB it may use (default: the language's)")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft sandbox run FILE`: run one program behind the wall and say how it ended."""
    from codeweft.sandbox.config import Program

    config = configured(rest)
    language = arguments.language or language_of(arguments.file)
    code, stdin = (_read(path) for path in (arguments.file, arguments.stdin))
    try:
        text = code.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{arguments.file} is not UTF-8.", "Convert it and run again.") from error
    program = Program(language, text, stdin, limits=_limits(language, arguments))
    ran = asyncio.run(_run(config, program))
    print(json.dumps(ran_to_json(ran), indent=2) if arguments.json else told(ran))
    return 0 if ran.status == "ok" else 1


async def _run(config: SandboxConfig, program: "Program") -> "Ran":
    from codeweft.sandbox.client import open_sandbox

    async with open_sandbox(replace(config, cells=config.cells or 1)) as sandbox:
        return await sandbox.run(program)


def language_of(file: Path) -> str:
    """The language that a file's name tells, by the sources' names of toolchains.toml or as an alias.

    >>> language_of(Path("a.py")), language_of(Path("a.cxx"))
    ('python', 'cpp')
    """
    from codeweft.sandbox import toolchains

    suffix = file.suffix.lower()
    for toolchain in toolchains.all_toolchains().values():
        if suffix and Path(toolchain.file).suffix.lower() == suffix:
            return toolchain.name
    try:
        return toolchains.find(suffix.removeprefix(".")).name
    except UserError as error:
        raise UserError(f"The name of {file} tells no language.", "Say it: --language python.") from error


def _read(path: Path | None) -> bytes:
    try:
        return b"" if path is None else path.read_bytes()
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder.", "Give a file.") from error


def _limits(language: str, arguments: argparse.Namespace) -> Limits:
    from codeweft.sandbox import toolchains

    asked = {"cpu_seconds": arguments.cpu_seconds, "wall_seconds": arguments.wall_seconds}
    asked |= {"memory_mib": arguments.memory}
    try:
        return replace(
            toolchains.find(language).limits, **{name: value for name, value in asked.items() if value is not None}
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def told(ran: "Ran") -> str:
    """A run as a person reads it: how it ended and what it took, then what it wrote."""
    lines = []
    if ran.compiled is not None:
        lines.append(f"compiled: {_ending(ran.compiled)}")
    lines.append(_ending(ran) + (f": {printable(ran.detail)}" if ran.detail else ""))
    for name, written in (("stdout", ran.stdout), ("stderr", ran.stderr)):
        if written:
            lines += [f"--- {name}", printable(written.decode("utf-8", "replace")).rstrip("\n")]
    return "\n".join(lines)


def _ending(ran: "Ran") -> str:
    code = "" if ran.exit_code is None else f", exit code {ran.exit_code}"
    if ran.exit_code is not None and ran.exit_code < 0:
        code = f", signal {-ran.exit_code}"
    times = f"{ran.cpu_seconds:.3f} s of processor, {ran.wall_seconds:.3f} s by the clock"
    return f"{ran.status}{code} ({times}, {ran.peak_bytes / MIB:.1f} MiB, tier {ran.tier})"


def printable(text: str) -> str:
    r"""Text whose control characters, but tabs and ends of lines, are spelt out.

    >>> printable("a\tb\x1b[31m\n")
    'a\tb\\x1b[31m\n'
    """
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in text.replace("\r\n", "\n")
    )


def ran_to_json(ran: "Ran") -> dict[str, Any]:
    """A run as JSON, its output as text."""
    facts = {name: value for name, value in vars(ran).items() if name not in ("stdout", "stderr", "compiled")}
    output = {name: getattr(ran, name).decode("utf-8", "replace") for name in ("stdout", "stderr")}
    return facts | output | {"compiled": None if ran.compiled is None else ran_to_json(ran.compiled)}


# --- the service ---------------------------------------------------------------------------------------------------


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft sandbox serve` takes."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8014, help="port to listen on; 0 takes any free one (8014)")
    parser.add_argument(
        "--token", default="", help="what clients must show (default: $CODEWEFT_SANDBOX_TOKEN, or made)"
    )
    parser.add_argument("--body-mib", type=int, default=64, help="longest request body in MiB (64)")


def serve(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft sandbox serve`: judge for others until interrupted."""
    config = configured(rest)
    if arguments.body_mib < 1:
        raise UserError(f"--body-mib {arguments.body_mib} leaves no room for a request.", "Give at least 1.")
    from codeweft.sandbox.service import ServiceConfig
    from codeweft.sandbox.service import serve as serve_sandbox

    if arguments.token:
        print("codeweft: a token on the command line can be read by other users of this machine.", file=sys.stderr)
    service = ServiceConfig(arguments.host, arguments.port, arguments.token, arguments.body_mib * MIB)
    return serve_sandbox(config, service)
