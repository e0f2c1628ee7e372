"""`codeweft evaluate --model`, `codeweft compare` and `codeweft tasks`: words in, tables out.

In:  parsed arguments.  Out: what a person reads, or JSON; an exit code.
Unusual: help and parsing need the standard library alone; everything else is imported when a command acts.
"""

import argparse
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codeweft.base import config as settings
from codeweft.base.errors import UsageError


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft evaluate` understands beside the stage's own words."""
    ways = parser.add_argument_group("a model on benchmarks (instead of --run)")
    ways.add_argument(
        "--model", help="model folder, URL of an OpenAI-compatible server (…/v1), or a JSONL file of answers"
    )
    ways.add_argument("--tasks", help="benchmarks, separated by commas; `codeweft tasks list` names them")
    ways.add_argument("--eval-data", type=Path, help="folder of official benchmark files")
    ways.add_argument("--download", action="store_true", help="fetch missing files, checked by their digest")
    ways.add_argument("--out", type=Path, help="folder of the results (default: evaluations/MODEL)")
    ways.add_argument(
        "--style", choices=["auto", "base", "chat", "infill", "likelihood"], help="how it is asked (auto)"
    )
    ways.add_argument("--samples", help="answers to each problem (as the benchmark's protocol says)")
    ways.add_argument("--temperature", help="0 takes the likeliest token (as the protocol says)")
    ways.add_argument("--limit", help="problems of each benchmark, the first ones (all)")
    ways.add_argument("--url-model", default="", help="the model's name at the URL (the first that it lists)")
    ways.add_argument("--concurrency", type=int, default=8, help="requests to a URL at once (8)")
    ways.add_argument("--seed", type=int, default=1, help="of everything that is drawn (1)")
    ways.add_argument("--ngrams", type=Path, help="run folder whose corpus tells which problems were seen")
    ways.add_argument("--compare", action="store_true", help="print the paper's rows beside the scores")
    ways.add_argument("--replay", metavar="ID", help="ask and judge one stored sample again")
    ways.add_argument("--judge", metavar="URL", help="server whose model judges open-ended answers")
    ways.add_argument("--judge-model", default="", help="the judging model's name there")
    ways.add_argument("--baseline", type=Path, help="answers that open-ended answers are compared with")


FLAGS = {"tasks": "tasks", "style": "style", "samples": "samples", "temperature": "temperature"}
OPTIONS = {"eval_data": "data", "download": "download", "limit": "limit"}


def evaluate(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft evaluate --model`: measure, write, print."""
    from codeweft.base.runs import held
    from codeweft.evaluate import suite
    from codeweft.evaluate.config import EvaluateConfig
    from codeweft.sandbox.config import SandboxConfig

    given = {flag: getattr(arguments, name) for name, flag in FLAGS.items() if getattr(arguments, name) is not None}
    options = {key: str(getattr(arguments, name)) for name, key in OPTIONS.items() if getattr(arguments, name)}
    overrides = settings.parse_overrides(rest, ["evaluate", "sandbox"])
    flags = settings.Layer("the command line", given | {"options": options})
    config = settings.build(EvaluateConfig, [flags, overrides.section("evaluate")], "evaluate")
    sandbox = settings.build(SandboxConfig, [overrides.section("sandbox")], "sandbox")
    folder = arguments.out or Path("evaluations") / slug(arguments.model)
    request = suite.Request(
        arguments.model, config, folder, folder / "staging", arguments.seed, sandbox,
        suite.index_of(arguments.ngrams or config.ngrams), arguments.url_model, arguments.concurrency,
    )  # fmt: skip
    with held(folder):
        if arguments.replay:
            return _print_replay(suite.replay(request, arguments.replay), arguments.json)
        if arguments.restart:
            suite.discard(request)
        measured = suite.measure(request)
        if arguments.judge:
            suite.judge_open_ended(request, measured, arguments.judge, arguments.judge_model, arguments.baseline)
        suite.write(request, measured)
    shown = {name: measured.entries[name] for name in config.tasks}
    if arguments.json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    print(table(shown))
    if arguments.compare:
        from codeweft.evaluate.paper import comparison

        print(comparison(measured.entries))
    print(f"Results: {folder / suite.RESULTS}; every sample: {folder / suite.SAMPLES}")
    return 0


def slug(model: str) -> str:
    """A folder's name for a model.

    >>> slug("runs/toy/pretrain/model"), slug("http://127.0.0.1:8012/v1")
    ('runs-toy-pretrain-model', '127.0.0.1-8012-v1')
    """
    return re.sub(r"[^\w.]+", "-", re.sub(r"^\w+://", "", model)).strip("-.") or "model"


def table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a benchmark: score, interval, problems, and below it what has to be said.

    >>> print(table({"t": {"n": 4, "score": 0.5, "ci95": [0.15, 0.85], "metric": "pass@1"}}))
    benchmark              metric          score   95 %             problems
    t                      pass@1         50.0 %   15.0 to 85.0          4
    """
    lines = [f"{'benchmark':<22} {'metric':<12} {'score':>8}   {'95 %':<16} {'problems':<8}"]
    for name, entry in entries.items():
        score, interval = entry["score"], entry["ci95"]
        points = entry.get("unit") == "points"
        factor, sign = (1, "") if points else (100, " %")
        shown = "-" if score is None else f"{factor * score:.1f}{sign}"
        between = "" if interval is None else f"{factor * interval[0]:.1f} to {factor * interval[1]:.1f}"
        lines.append(f"{name:<22} {entry['metric']:<12} {shown:>8}   {between:<14} {entry['n']:>8,}")
        lines += [f"    {words}" for words in remarks(entry)]
    return "\n".join(lines)


def remarks(entry: Mapping[str, Any]) -> list[str]:
    """What must be known beside a score."""
    said = [str(entry[key]) for key in ("warning", "reason") if entry.get(key)]
    for key in entry:
        if re.fullmatch(r"(pass|maj)@\d+", key) and key != "pass@1":
            said.append(f"{key}: {100 * entry[key]:.1f} %")
    for name, found in entry.get("metrics", {}).items():
        said.append(f"{name.replace('_', ' ')}: {found['score']:.3f}")
    for group in ("per_language", "per_family", "per_difficulty"):
        parts = entry.get(group, {})
        if 1 < len(parts) <= 16:
            shown = ", ".join(f"{part} {100 * found['score']:.1f}" for part, found in parts.items())
            said.append(f"{group.replace('_', ' ')}: {shown}")
    if "clean" in entry and entry.get("contaminated"):
        clean = entry["clean"]["score"]
        known = "none is clean" if clean is None else f"{100 * clean:.1f} % on the {entry['clean']['n']:,} clean ones"
        said.append(f"{entry['contaminated']:,} problems share 10 words in a row with the training text; {known}")
    if "unscored" in entry and entry["score"] is not None:
        said.append("not scored: " + ", ".join(f"{count:,} {why}" for why, count in entry["unscored"].items()))
    return said


def _print_replay(found: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    stored, now = found["stored"], found["now"]
    print(f"{stored['id']}, seed {stored['seed']}")
    for key, same in found["same"].items():
        print(f"  {key}: {'the same' if same else 'another one'}")
    for label, sample in (("stored", stored), ("now", now)):
        status = (sample["verdict"] or {}).get("status", "")
        print(f"\n--- {label}: score {sample['score']} {status} {sample['detail']}".rstrip())
        print(sample["text"])
        if found["same"]["text"]:
            break
    return 0


# --- comparing -----------------------------------------------------------------------------------------------------


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Two folders."""
    parser.add_argument("a", type=Path, help="run or evaluation folder")
    parser.add_argument("b", type=Path, help="run or evaluation folder to compare with it")
    parser.add_argument("--any-protocol", action="store_true", help="compare although the protocols differ")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def compare(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft compare A B`: which differences are more than chance."""
    from codeweft.evaluate.compare import compare as compared
    from codeweft.evaluate.compare import words

    found = compared(arguments.a, arguments.b, any_protocol=arguments.any_protocol)
    print(json.dumps(found, indent=2, ensure_ascii=False) if arguments.json else words(found))
    return 0


# --- tasks ---------------------------------------------------------------------------------------------------------


def list_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing but the form."""
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def list_tasks(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft tasks list`: every benchmark, how it is asked, and which file it needs."""
    from codeweft.tasks.registry import MODULES, find

    tasks = [find(name) for name in MODULES]
    if arguments.json:
        print(json.dumps([{key: getattr(task, key) for key in ("name", "title", "group", "styles")} for task in tasks]))
        return 0
    for group, members in itertools.groupby(tasks, key=lambda task: task.group):
        print(f"\n{group.capitalize()}")
        for task in members:
            print(f"  {task.name:<22} {task.title:<42} {', '.join(task.styles)}")
    print("\nMeasure a model: codeweft evaluate --model DIR|URL --tasks NAME,NAME --eval-data DIR")
    return 0


def show_arguments(parser: argparse.ArgumentParser) -> None:
    """A name."""
    parser.add_argument("name", help="a benchmark")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def show_task(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft tasks show NAME`: its protocol, its files, their licences, and where they can be had."""
    from codeweft.tasks.registry import find

    task = find(arguments.name)
    facts = {
        "name": task.name, "title": task.title, "group": task.group, "styles": task.styles, "metric": task.metric,
        "samples": task.samples, "temperature": task.temperature, "protocol": task.protocol,
        "files": [
            {"names": data.names, "url": data.url, "licence": data.licence, "note": data.note} for data in task.data
        ],
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return 0
    print(f"{task.title} ({task.name}), {task.group}; asked as {', '.join(task.styles)}; {task.metric}")
    print(task.protocol)
    for data in task.data:
        licence = f" ({data.licence})" if data.licence else ""
        print(f"  {data.names[0]}{licence}: {data.url or data.note}")
    return 0


def build_arguments(parser: argparse.ArgumentParser) -> None:
    """A source and a place."""
    parser.add_argument("source", type=Path, help="folder of repositories with Python or Java files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files of the set")
    parser.add_argument("--per-setting", type=int, default=200, help="most items of each setting (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (1)")


def build_repobench(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft tasks build-repobench SOURCE`: a completion set across files, in RepoBench's format."""
    from codeweft.tasks.repobench_builder import build

    if arguments.per_setting < 1:
        raise UsageError(f"--per-setting is {arguments.per_setting}.", "Give at least 1.")
    counts = build(arguments.source, arguments.out, per_setting=arguments.per_setting, seed=arguments.seed)
    for name, count in counts.items():
        print(f"{name}: {count:,}")
    return 0
