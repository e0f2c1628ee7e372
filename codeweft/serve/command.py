"""`codeweft complete` and `codeweft serve`: what a person asks of a model at a terminal.

In:  parsed words.  Out: a completion on standard output, or a server until it is interrupted; the exit code.
Unusual: help and parsing need the standard library alone; everything else is imported when a command acts.
"""

import argparse
import json
from pathlib import Path

from codeweft.base import config as settings


def _model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="model folder, such as runs/toy/pretrain/model")


def complete_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft complete` takes."""
    parser.add_argument("place", help="FILE:LINE or FILE:LINE:COLUMN, counted from 1")
    _model_argument(parser)
    parser.add_argument("--max-tokens", type=int, default=64, help="longest completion in tokens (64)")
    parser.add_argument("--lines", type=int, default=1, help="lines to fill in; 0 for no limit (1)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token (0)")
    parser.add_argument("--seed", type=int, default=0, help="for temperatures above 0 (0)")
    parser.add_argument("--assume-fim", action="store_true", help="infill although the folder does not say it can")
    parser.add_argument("--memory", default="", help="such as 12GiB: what it may take in all")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def complete(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft complete FILE:LINE`: print what the model fills in there."""
    from codeweft.serve.completion import complete_place

    result = complete_place(
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


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft serve` takes."""
    _model_argument(parser)
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (8012)")
    parser.add_argument("--memory", help="such as 12GiB: what it may take in all; says the longest context it gives")


def serve(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft serve`: answer completion requests until interrupted."""
    from codeweft.serve.app import run
    from codeweft.serve.config import ServeConfig

    named = {name: getattr(arguments, name) for name in ("host", "port", "memory")}
    given = {name: value for name, value in named.items() if value is not None}
    layers = [settings.parse_overrides(rest, ["serve"]).section("serve"), settings.Layer("the command line", given)]
    return run(settings.build(ServeConfig, layers, "serve"), arguments.model)
