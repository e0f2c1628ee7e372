"""What a run in the sandbox costs in processor time, beside `bwrap python3`; and whether 10,000 runs leave anything.

In:  nothing.  Out: benchmarks/results/sandbox.json and, from it alone, docs/results/sandbox.md: every repeat, medians,
ratios, what was there before and after 10,000 runs, the machine.

Processor time is the measure: the clock of a machine that does other things as well says little. Each variant runs in a
fresh process in a control group of its own, whose account (cpuacct, or cpu.stat of version 2) holds this process and
all that it starts: client, supervisor, cells, boxes, programs, those too whose parents never waited for them. Where no
group can be made, /proc of the same processes is summed. Neither holds what kernel threads do later to take a
namespace down, on any side. A sandbox's start is not counted: it starts once.

Same work on both sides: the same program in the same Python behind the arguments that our cells give bubblewrap (every
namespace, nothing but read-only binds), without `site` (-S) on both, since site-packages may start anything. The peer
has less to do: no limits, no system call filter, no writable folders, no watching, no output cap, and as root it does
not become another user, which ours does.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeweft.base.records import Test
from codeweft.sandbox import toolchains, wall
from codeweft.sandbox.client import Sandbox, open_sandbox
from codeweft.sandbox.config import Program, SandboxConfig, Submission

RESULTS = Path(__file__).parent / "results" / "sandbox.json"
PAGE = Path(__file__).parents[1] / "docs" / "results" / "sandbox.md"
REPEATS, LEAK_RUNS, WARM = 3, 10_000, 20
WANTED_RUNS, WANTED_RATIO = 150, 5  # runs per second and core; times cheaper than bwrap with the same imports
MODULES = (  # 14 that such programs import most
    "bisect", "collections", "copy", "datetime", "functools", "hashlib", "heapq", "itertools", "json", "math", "random",
    "re", "statistics", "typing",
)  # fmt: skip
EMPTY, IMPORTS = "pass", f"import {', '.join(MODULES)}"
WARM_EMPTY, WARM_IMPORTS = "sandbox, empty program", "sandbox, 14 imports"
PEER_EMPTY, PEER_IMPORTS = "bwrap python3 -I -S, empty program", "bwrap python3 -I -S, 14 imports"
GROUPS = Path("/sys/fs/cgroup")
TICK = os.sysconf("SC_CLK_TCK")


# --- processor time ------------------------------------------------------------------------------------------------


def new_group() -> Path | None:
    """A control group that keeps an account of processor time; None where this user may make none."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for folder in (GROUPS / "cpuacct", GROUPS) if controllers in ("cpuacct", "cpu,cpuacct", "") else ():
            group = folder / path.lstrip("/") / f"codeweft-benchmark-{os.getpid()}"
            with suppress(OSError):
                group.mkdir()
                if (group / "cpuacct.usage").exists() or (group / "cpu.stat").exists():
                    return group
                group.rmdir()
    return None


def used(group: str) -> float:
    """Processor seconds of everything in a group; without one, of this process and all below it, dead ones included."""
    if group:
        account = Path(group, "cpuacct.usage")
        if account.exists():
            return int(account.read_text()) / 1e9
        return int(Path(group, "cpu.stat").read_text().split("usage_usec", 1)[1].split()[0]) / 1e6
    seconds = 0.0
    for process in (os.getpid(), *below(os.getpid())):
        with suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            seconds += sum(map(int, fields[11:15])) / TICK
    return seconds


def below(process: int) -> list[int]:
    """All processes below one."""
    found, waiting = [], [process]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*"):
            with suppress(OSError):
                children = list(map(int, (task / "children").read_text().split()))
                found += children
                waiting += children
    return found


# --- what is run ---------------------------------------------------------------------------------------------------

SUM = {
    "python": "print(sum(map(int, input().split())))",
    "cpp": "#include <bits/stdc++.h>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }",
    "java": "import java.util.Scanner;\npublic class Main { public static void main(String[] words) {\n"
    "Scanner in = new Scanner(System.in); System.out.println(in.nextInt() + in.nextInt()); } }",
    "javascript": "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number); console.log(a + b);",
}
CALLS = tuple(Test("call", args=([3, 1, value],), expected=sorted([3, 1, value])) for value in range(3))
LINES = tuple(Test("stdio", stdin=f"{value} 22\n", expected=str(value + 22)) for value in range(5))
Ask = Callable[[Sandbox, int], Awaitable[None]]


def running(language: str, code: str, stdin: bytes = b"", output: bytes = b"") -> Ask:
    """Run a program through the client."""

    async def ask(sandbox: Sandbox, number: int) -> None:
        ran = await sandbox.run(Program(language, code, stdin))
        assert (ran.status, ran.stdout.strip()) == ("ok", output), (number, ran)

    return ask


def judging(code: str, tests: tuple[Test, ...], entry_point: str = "") -> Ask:
    """Judge an answer through the client."""

    async def ask(sandbox: Sandbox, number: int) -> None:
        verdict = await sandbox.judge(Submission("python", f"# {number}\n{code}", tests, entry_point))
        assert verdict.status == "ok", (number, verdict)

    return ask


@dataclass(frozen=True)
class Variant:
    """One row: how it is done, and how often in one repeat."""

    runs: int
    ask: Ask | None = None  # through the sandbox
    code: str = ""  # a Python program in a process of its own
    walled: bool = False  # behind bubblewrap
    language: str = "python"


VARIANTS = {
    WARM_EMPTY: Variant(300, running("python", EMPTY)),
    WARM_IMPORTS: Variant(300, running("python", IMPORTS)),
    PEER_EMPTY: Variant(60, code=EMPTY, walled=True),
    PEER_IMPORTS: Variant(60, code=IMPORTS, walled=True),
    "bare python3 -I -S, empty program": Variant(60, code=EMPTY),
    "bare python3 -I -S, 14 imports": Variant(60, code=IMPORTS),
    "sandbox, split judging of 3 calls": Variant(200, judging("def f(x):\n    return sorted(x)\n", CALLS, "f")),
    "sandbox, stdio judging of 5 tests": Variant(60, judging(SUM["python"], LINES)),
    **{
        f"sandbox, {label}: compile and run": Variant(8, running(name, SUM[name], b"20 22", b"42"), language=name)
        for label, name in (("C++", "cpp"), ("Java", "java"))
    },
    "sandbox, JavaScript": Variant(
        20, running("javascript", SUM["javascript"], b"20 22", b"42"), language="javascript"
    ),
}


def peer(code: str, walled: bool) -> list[str]:
    """The words that start a program in a Python of its own, with or without bubblewrap."""
    if not walled:
        return [os.path.realpath(sys.executable), "-I", "-S", "-c", code]
    program = wall.bubblewrap()
    assert program is not None
    executable, binds, environment = wall.interpreter()
    return [program, *wall.arguments(wall.Wall(program, None, binds, environment)), executable, "-I", "-S", "-c", code]


async def timed(variant: Variant, group: str) -> dict[str, float]:
    """Milliseconds of one run: processor and clock."""
    if variant.ask is None:
        words = peer(variant.code, variant.walled)
        for number in range(variant.runs + 3):
            if number == 3:
                began, before = time.perf_counter(), used(group)
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return each(variant.runs, began, before, group)
    ask = variant.ask
    async with open_sandbox(SandboxConfig(cache=0)) as sandbox:
        await asyncio.gather(*(ask(sandbox, -number) for number in range(min(WARM, variant.runs))))
        began, before = time.perf_counter(), used(group)
        await asyncio.gather(*(ask(sandbox, 1 + number) for number in range(variant.runs)))
        await asyncio.sleep(0.05)  # boxes that have just been ended
        return each(variant.runs, began, before, group)


def each(runs: int, began: float, before: float, group: str) -> dict[str, float]:
    """The mean over some runs."""
    processor, clock = used(group) - before, time.perf_counter() - began
    return {"cpu_ms": round(1000 * processor / runs, 3), "wall_ms": round(1000 * clock / runs, 3)}


# --- what is left behind -------------------------------------------------------------------------------------------

UNTIDY = (  # every so many-th run leaves something that has to be cleaned up
    "import os\nwhile True: os.write(1, b'x' * 65536)",  # ended for its output
    "raise SystemExit(3)",
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)",  # a daemon
    "import os\nfor n in range(100): open(f'/tmp/{n}', 'w').write('x' * 9999); os.makedirs(f'/box/{n}/{n}')",
)


def left() -> dict[str, float]:
    """What this process and all below it hold."""
    processes = (os.getpid(), *below(os.getpid()))
    folders = list(Path(tempfile.gettempdir()).glob("codeweft-sandbox-*"))
    held = {"processes": len(processes), "descriptors": 0, "mounts": 0}
    for process in processes:
        with suppress(OSError):
            held["descriptors"] += sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
            held["mounts"] += len(Path(f"/proc/{process}/mountinfo").read_text().splitlines())
    held["files"] = sum(1 for folder in folders for _ in folder.rglob("*")) + len(folders)
    held["control groups"] = sum(1 for _ in os.walk(GROUPS))
    memory = 0
    for process in processes:
        with suppress(OSError):
            memory += int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return held | {"resident MiB": round(memory * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)}


async def leaks() -> dict[str, Any]:
    """What is there before and after many runs, every 25th of them an untidy one."""

    async def one(sandbox: Sandbox, number: int) -> None:
        untidy = number % 25 == 0
        code = UNTIDY[number // 25 % len(UNTIDY)] if untidy else IMPORTS
        ran = await sandbox.run(Program("python", code))
        assert ran.status != "harness_error", ran
        assert untidy or ran.status == "ok", ran

    async with open_sandbox(SandboxConfig()) as sandbox:
        await asyncio.gather(*(one(sandbox, number) for number in range(200)))
        await asyncio.sleep(1)
        before = left()
        for start in range(0, LEAK_RUNS, 500):
            await asyncio.gather(*(one(sandbox, number) for number in range(start, min(start + 500, LEAK_RUNS))))
        await asyncio.sleep(1)
        return {"runs": LEAK_RUNS, "before": before, "after": left()}


# --- all of it -----------------------------------------------------------------------------------------------------


def fresh(*words: str) -> Any:
    """What a process of its own prints, in a control group of its own."""
    group = new_group()
    try:
        command = [sys.executable, __file__, *words, str(group or "")]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(finished.stdout.splitlines()[-1])
    finally:
        for _ in range(50 if group else 0):
            with suppress(OSError):  # busy until the last process in it is gone
                group.rmdir()
                break
            time.sleep(0.1)


def present() -> dict[str, Variant]:
    """The variants whose language this machine has."""
    return {
        name: variant
        for name, variant in VARIANTS.items()
        if not toolchains.detect(toolchains.find(variant.language)).missing
    }


def main() -> None:
    """Run every variant in turn, `REPEATS` times; then the many runs; write the results; hold them to the bars."""
    from codeweft.base.runs import machine

    found: dict[str, list[dict[str, float]]] = {name: [] for name in present()}
    group = new_group()
    account = "/proc" if group is None else "cpuacct" if (group / "cpuacct.usage").exists() else "cpu.stat"
    if group is not None:
        group.rmdir()
    load = os.getloadavg()[0]
    for _ in range(REPEATS):
        for name, rows in found.items():
            rows.append(fresh("time", name))
            print(f"{name}: {rows[-1]['cpu_ms']:.2f} ms", flush=True)
    medians = {name: statistics.median(row["cpu_ms"] for row in rows) for name, rows in found.items()}
    table = {
        "what": "processor time of one run in milliseconds, everything that takes part counted",
        "machine": machine(),
        "account": account,
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "runs_in_a_repeat": {name: VARIANTS[name].runs for name in found},
        "repeats": found,
        "median_cpu_ms": medians,
        "runs_per_second_and_core": round(1000 / max(medians[WARM_EMPTY], medians[WARM_IMPORTS]), 1),
        "times_cheaper_than_bwrap": {
            "empty program": round(medians[PEER_EMPTY] / medians[WARM_EMPTY], 2),
            "14 imports": round(medians[PEER_IMPORTS] / medians[WARM_IMPORTS], 2),
        },
        "leaks": fresh("leaks"),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(table, indent=2) + "\n")
    write_page(table)
    if missed := shortfalls(table):
        sys.exit("\n".join(missed))


def shortfalls(table: dict[str, Any]) -> list[str]:
    """In words, the bars that were missed."""
    missed = []
    if table["runs_per_second_and_core"] < WANTED_RUNS:
        missed.append(f"{table['runs_per_second_and_core']} runs per second and core, not {WANTED_RUNS}.")
    if table["times_cheaper_than_bwrap"]["14 imports"] < WANTED_RATIO:
        missed.append(
            f"{table['times_cheaper_than_bwrap']['14 imports']} times cheaper than bwrap, not {WANTED_RATIO}."
        )
    before, after = table["leaks"]["before"], table["leaks"]["after"]
    for name in before:
        if name != "resident MiB" and after[name] > before[name]:
            missed.append(f"{after[name]} {name} after {table['leaks']['runs']:,} runs, {before[name]} before.")
    return missed


def write_page(table: dict[str, Any]) -> None:
    """The results as docs/results/sandbox.md, from the JSON alone."""
    facts = ", ".join(f"{key} {value}" for key, value in table["machine"].items())
    medians, ratios, leaked = table["median_cpu_ms"], table["times_cheaper_than_bwrap"], table["leaks"]
    lines = ["# What a run in the sandbox costs", "", f"{table['what'].capitalize()}."]
    lines += [f"Machine: {facts}; load average {table['load'][0]} before, {table['load'][1]} after."]
    lines += [f"Account: {table['account']}. Made by `benchmarks/sandbox.py`, which says what is counted; do not edit."]
    lines += ["", f"- {table['runs_per_second_and_core']:.0f} isolated warm Python runs per second and core."]
    lines += [
        f"- {ratios['14 imports']:.1f} times cheaper than `bwrap python3 -I -S` with the same imports, "
        f"{ratios['empty program']:.1f} times with an empty program."
    ]
    lines += ["", "| variant | median ms | repeats | a second and core | runs in a repeat |", "|---|---|---|---|---|"]
    for name, median in medians.items():
        repeats = ", ".join(f"{row['cpu_ms']:.2f}" for row in table["repeats"][name])
        lines.append(f"| {name} | {median:.2f} | {repeats} | {1000 / median:.1f} | {table['runs_in_a_repeat'][name]} |")
    lines += [
        "",
        f"Before and after {leaked['runs']:,} runs, every 25th of which leaves a daemon, files, an error or too",
    ]
    lines[-1] += " much output, of client, supervisor and cells together:"
    lines += ["", "| | before | after |", "|---|---|---|"]
    lines += [f"| {name} | {value} | {leaked['after'][name]} |" for name, value in leaked["before"].items()]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        write_page(json.loads(RESULTS.read_text()))
    elif sys.argv[1:2] in (["time"], ["leaks"]):
        if sys.argv[-1]:
            Path(sys.argv[-1], "cgroup.procs").write_text(str(os.getpid()))
        work = leaks() if sys.argv[1] == "leaks" else timed(VARIANTS[sys.argv[2]], sys.argv[-1])
        print(json.dumps(asyncio.run(work)))
    else:
        main()
