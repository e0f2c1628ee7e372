"""The numbers of a stage's steps: rows of `metrics.jsonl` and, where tensorboard is installed, its event file.

In:  a step and numbers by name.  Out: `metrics.jsonl`, `tensorboard/events…`, both in the stage's folder.
"""

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codeweft.base.artifacts import atomic, naming
from codeweft.base.progress import say

EVENTS = "tensorboard"


class Metrics:
    """Appends rows to `metrics.jsonl` and, where tensorboard is installed, to its event file.

    Where it does not write, because another process does, it neither reads.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.writes = writes
        self.path = folder / "metrics.jsonl"
        self.folder = folder
        self.events: Any = None

    def log(self, step: int, **values: float) -> None:
        """One row: the step, the time, and numbers by name."""
        if not self.writes:
            return
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
        self._event(step, values)

    def truncate(self, step: int) -> None:
        """Drop rows after `step`, which a resumed stage is about to write again."""
        if self.writes and self.path.exists():
            # a killed process may have left half a line at the end: no newline, no row
            rows = [line for line in self.path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
            kept = [line for line in rows if json.loads(line)["step"] <= step]
            with atomic(self.path) as file:
                file.write("".join(kept).encode())

    def mean(self, name: str) -> float:
        """The mean of a number over all rows that have it; NaN where none has."""
        rows = [json.loads(line) for line in self.path.read_text("utf-8").splitlines()] if self.writes else []
        values = [row[name] for row in rows if name in row]
        return sum(values) / len(values) if values else float("nan")

    def _event(self, step: int, values: Mapping[str, float]) -> None:
        if self.events is None:
            self.events = _event_writer(self.folder / EVENTS)
        if self.events is not False:
            from tensorboard.compat.proto.event_pb2 import Event  # ty: ignore[missing-module-member]
            from tensorboard.compat.proto.summary_pb2 import Summary  # ty: ignore[missing-module-member]

            rows = [Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
            event = Event(wall_time=time.time(), step=step, summary=Summary(value=rows))
            with naming(self.folder / EVENTS):
                self.events.write(event.SerializeToString())
                self.events.flush()

    def close(self) -> None:
        """Close the event file."""
        if self.events:
            self.events.close()


def _event_writer(folder: Path) -> Any:
    try:
        from tensorboard.compat.proto.event_pb2 import Event  # ty: ignore[missing-module-member]
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        say("tensorboard is not installed: metrics go to metrics.jsonl alone (pip install 'codeweft[track]').")
        return False
    folder.mkdir(exist_ok=True)
    # written here and not by the library's own thread, whose errors, such as a full disk, would be a traceback
    path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
    with naming(path):
        writer = RecordWriter(path.open("wb"))
        writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        writer.flush()
    return writer
