"""A run folder: one folder a stage, each with its manifest, its metrics and its outputs.

In:  `runs/NAME`, the resolved recipe, a stage's configuration and input digests.
Out: a `Run` for the stage to read from and write to; the decision to skip, go on or start anew, said aloud.

A stage writes `started.json` before its first output and `manifest.json` after its last: both equal, the stage is
skipped; only the first, it was cut off and may go on from what it left.
"""

import fcntl
import os
import platform
import re
import resource
import shlex
import shutil
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from codeweft.base.artifacts import (
    DigestingFile,
    Manifest,
    atomic,
    differences,
    digest_file,
    read_json,
    read_manifest,
    remove_partials,
    write_json,
)
from codeweft.base.errors import BusyError, InputError
from codeweft.base.metrics import Metrics
from codeweft.base.processes import Together
from codeweft.base.progress import say

STARTED = "started.json"
STAGING = "staging"  # finished parts of unfinished work, in a stage's folder
ACCOUNT = "account.json"  # what the processes of an unfinished stage have used so far
OTHER_ACCOUNTS = "account-*.json"  # the same of the second and further processes that train together
FIGURES = ("seconds", "cpu_seconds", "peak_rss_bytes")
ACCOUNT_SECONDS = 2.0  # between two entries of the account: the most that a killed process leaves uncounted


@dataclass
class Run:
    """What a stage's `run(config, run)` works with: its folder, its inputs, its seed, its metrics.

    `inputs` maps upstream stage names to their finished folders; `model_stage` is the one of them whose model the stage
    goes on from, if any. `sections` are the settings that belong to no stage, such as the sandbox's. `counts` collects
    facts for the manifest. `together` are the processes that work on it.
    """

    name: str
    folder: Path
    seed: int
    inputs: dict[str, Path]
    resumed: bool = False
    workers: int = 1
    counts: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    sections: Mapping[str, Any] = field(default_factory=dict)
    model_stage: str = ""
    together: Together = field(default_factory=Together)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.folder, self.leads)

    @property
    def leads(self) -> bool:
        """Whether this process writes; of several that work together, only the first does."""
        return self.together.leads

    @property
    def staging(self) -> Path:
        """Where finished parts wait until the stage is finished; `settle` removes it."""
        return self.folder / STAGING

    def read(self, stage: str) -> Path:
        """The folder of an upstream stage."""
        assert stage in self.inputs, f"stage {self.name} does not declare that it reads {stage}"
        return self.inputs[stage]

    @property
    def model(self) -> Path:
        """The model folder that the stage goes on from."""
        return self.read(self.model_stage) / "model"

    @property
    def tokens_seen(self) -> int:
        """How many tokens of the run's stream that model was trained on; 0 for a model from elsewhere."""
        manifest = read_manifest(self.read(self.model_stage)) if self.model_stage else None
        return manifest.counts["tokens_seen"] if manifest else 0

    @contextmanager
    def open(self, name: str) -> Generator[DigestingFile, None, None]:
        """Write output `name` atomically; its digest is recorded. What others than the first process write is lost."""
        if not self.leads:
            with Path(os.devnull).open("wb") as nothing:
                yield DigestingFile(nothing)
            return
        with atomic(self.folder / name) as file:
            yield file
        self.outputs[name] = file.digest

    def write(self, name: str, value: pa.Table | bytes | str | dict | list) -> None:
        """Write a whole output: an Arrow table as zstd Parquet, bytes, text, or JSON."""
        if not self.leads:
            return
        if isinstance(value, dict | list):
            self.outputs[name] = write_json(self.folder / name, value)
            return
        with self.open(name) as file:
            if isinstance(value, pa.Table):
                pq.write_table(value, cast(BinaryIO, file), compression="zstd")
            else:
                file.write(value.encode() if isinstance(value, str) else value)

    def adopt(self, name: str) -> None:
        """Record an output that a library wrote under its final name, or every file of a folder."""
        path = self.folder / name
        if self.leads and path.is_dir():
            for file in sorted(path.iterdir()):
                self.outputs[f"{name}/{file.name}"] = digest_file(file)
        elif self.leads:
            self.outputs[name] = digest_file(path)


@contextmanager
def held(folder: Path) -> Generator[int, None, None]:
    """Hold the run folder against a second process; BusyError names the owner.

    Yields the lock's descriptor: a child that inherits it keeps the folder held even when its parent dies. What a
    killed process left half-written beside the stages' folders is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise BusyError(f"{folder} is in use by {owner}.", "Wait for it, or choose another --out.") from error
        name_owner(lock.fileno())
        remove_partials(path for path in folder.iterdir() if path.is_file())
        yield lock.fileno()


def name_owner(lock: int, stage: str = "", process: int = 0) -> None:
    """Write into the lock who holds it: this process, its command, and the process of the stage that it runs."""
    command = shlex.join(["codeweft", *sys.argv[1:]])
    owner = f"process {os.getpid()} on {socket.gethostname()} ({textwrap.shorten(command, 200)})"
    owner += f" with process {process} (stage {stage})" if stage else ""
    os.ftruncate(lock, 0)
    os.pwrite(lock, owner.encode(), 0)


def upstream(run_folder: Path, stages: tuple[str, ...], reader: str) -> dict[str, Manifest]:
    """The manifests of the stages that `reader` reads.

    InputError names the first that is not finished, or that was made from something else than what is there now.
    """
    found = {}
    for stage in stages:
        manifest = read_manifest(run_folder / stage)
        remedy = f"Run `codeweft {stage} --run {run_folder}` first."
        if manifest is None:
            raise InputError(f"{reader} needs the stage {stage}, which is not finished in {run_folder}.", remedy)
        for name, digest in manifest.inputs.items():
            # a stage's name is one word; what lies outside the run ("code:/path", "init/file") is not looked up here
            earlier = read_manifest(run_folder / name) if name.isidentifier() else None
            if earlier is not None and earlier.digest != digest:
                raise InputError(f"{stage} in {run_folder} was made from another {name} than is there now.", remedy)
        found[stage] = manifest
    return found


def missing_output(folder: Path, done: Manifest, verify: bool) -> str:
    """The name of the first output that is gone or, with `verify`, whose bytes changed; empty when all is well."""
    for name, digest in done.outputs.items():
        path = folder / name
        if not path.is_file() or (verify and digest_file(path) != digest):
            return name
    return ""


def prepare(
    folder: Path, fingerprint: dict[str, Any], restart: bool = False, verify: bool = False
) -> tuple[bool, bool]:
    """Decide what to do with a stage folder: (skip, resume). Says what changed.

    fingerprint: {stage, version, seed, config, inputs} as JSON values. A finished folder that is no longer wanted is
    kept aside until its successor is finished (`settle`), and taken back when the old settings return before that.
    """
    stage, aside = fingerprint["stage"], _aside(folder)
    done = read_manifest(folder)
    if done is None and aside.exists() and not restart and _same(read_manifest(aside), fingerprint):
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        done = read_manifest(folder)
    started = read_json(folder / STARTED) if (folder / STARTED).exists() else None
    if done is not None and not restart:
        changes = differences({key: getattr(done, key) for key in fingerprint}, fingerprint)
        gone = missing_output(folder, done, verify)
        if not changes and not gone:
            say(f"{stage}: nothing changed, skipped.")
            return True, False
        changes += [f"its output {gone} is {'damaged' if (folder / gone).exists() else 'missing'}"] if gone else []
        say(f"{stage}: running again, because {_reasons(changes)}.")
    elif started is not None and not restart:
        changes = differences(started, fingerprint)
        if not changes:
            say(f"{stage} was cut off; going on from there (start over: --restart).")
            remove_partials(folder.rglob(".*"))
            return False, True
        say(f"{stage}: an unfinished try is discarded, because {_reasons(changes)}.")
    if done is not None:
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    elif started is not None:
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} holds files that no stage wrote.", "Move them away or choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STARTED, fingerprint)
    return False, False


def settle(folder: Path) -> None:
    """Remove what was kept until the stage is finished: its predecessor, its finished parts, its account."""
    for leftover in (_aside(folder), folder / STAGING):
        shutil.rmtree(leftover, ignore_errors=True)
    for account in (folder / ACCOUNT, *folder.glob(OTHER_ACCOUNTS)):
        account.unlink(missing_ok=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.before")


def _same(done: Manifest | None, fingerprint: dict[str, Any]) -> bool:
    return done is not None and all(getattr(done, key) == value for key, value in fingerprint.items())


def _reasons(changes: list[str]) -> str:
    # a new input shows as a digest, which tells a person nothing
    named = [re.sub(r"^inputs\.(\S+) changed from .*", r"its input \1 changed", change) for change in changes]
    return "; ".join(named[:3]) + (f"; and {len(named) - 3} more" if len(named) > 3 else "")


class Meter:
    """Seconds, CPU seconds (children included) and peak memory of a stage, over all processes that worked on it.

    In its block, what was used is written to the stage's folder every few seconds, for a process that goes on after
    this one is killed. A new meter of a folder begins with what stands there, in the account or in the manifest.
    Processes that train together each keep an account; `read` is of this one's until `add_others`.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.account = folder / (OTHER_ACCOUNTS.replace("*", str(rank)) if rank else ACCOUNT)
        self.started, self.cpu = time.monotonic(), sum(usage[0] for usage in _own_usage())
        before: Any = read_json(self.account) if self.account.exists() else read_manifest(folder)
        if isinstance(before, Manifest):
            before = {name: getattr(before, name) for name in FIGURES}
        self.before: dict[str, Any] = before or dict.fromkeys(FIGURES, 0)
        self.others: list[tuple[float, int]] = []
        self.ended = threading.Event()
        self.clerk = threading.Thread(target=self._keep, daemon=True)

    def read(self) -> dict[str, float | int]:
        """The manifest's three figures; the peak is that of the largest single process in bytes."""
        usages = [*_own_usage(), *_usage_of_children(), *self.others]
        return {
            "seconds": round(self.before["seconds"] + time.monotonic() - self.started, 3),
            "cpu_seconds": round(self.before["cpu_seconds"] + sum(usage[0] for usage in usages) - self.cpu, 3),
            "peak_rss_bytes": max(self.before["peak_rss_bytes"], *(usage[1] for usage in usages)),
        }

    def add_others(self) -> None:
        """Count what the processes used that trained together with this one, once they and the block have ended."""
        accounts = [read_json(path) for path in sorted(self.account.parent.glob(OTHER_ACCOUNTS))]
        self.others = [(account["cpu_seconds"], account["peak_rss_bytes"]) for account in accounts]

    def __enter__(self) -> "Meter":
        """Begin to keep the account."""
        self.clerk.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop keeping it, with a last entry."""
        self.ended.set()
        self.clerk.join()

    def _keep(self) -> None:
        while True:
            ended = self.ended.wait(ACCOUNT_SECONDS)
            # on a full disk the stage itself meets the error and tells it; the last entry stays
            with suppress(OSError):
                write_json(self.account, self.read())
            if ended:
                return


def _own_usage() -> list[tuple[float, int]]:
    """CPU seconds and peak bytes of this process, and of the children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return [(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024) for usage in usages]


def _usage_of_children() -> list[tuple[float, int]]:
    """The same of each child that is running, where the system tells (Linux)."""
    usages = []
    for task in Path("/proc/self/task").glob("*/children"):
        # a thread or a child may end while one looks
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in task.read_text().split():
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{child}/status").read_text())
                ticks = int(fields[11]) + int(fields[12])
                usages.append((ticks / os.sysconf("SC_CLK_TCK"), int(peak[1]) * 1024 if peak else 0))
    return usages


def machine() -> dict[str, Any]:
    """A description of this machine for reports and benchmark results."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line.split(":", 1)[1].strip() for line in information.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
