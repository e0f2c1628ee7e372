"""What an evaluation has so far: one line a finished turn, kept as it comes, read again after a kill.

In:  a file, and the settings that decide what is in it.  Out: the turns that need not be made again.

Unusual: the first line holds those settings; a file of other settings is never mixed with these. A line that was cut
off by a kill is dropped, and so is a turn that the sandbox could not judge, so that it is judged again.
"""

import json
import os
from pathlib import Path
from typing import Any

from codeweft.base.artifacts import differences, naming
from codeweft.base.errors import InputError

Turned = dict[str, Any]
Key = tuple[str, int, int]  # problem, sample, turn


class Journal:
    """The turns of one benchmark, by problem, sample and turn."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Read what is there; InputError where it was made with other settings."""
        self.path, self.settings = path, settings
        self.turns: dict[Key, Turned] = {}
        lines = self._whole_lines()
        if lines:
            self._check(json.loads(lines[0]))
        for line in lines[1:]:
            turn = json.loads(line)
            if (turn["verdict"] or {}).get("status") != "harness_error":
                self.turns[turn["problem"], turn["sample"], turn["turn"]] = turn
        path.parent.mkdir(parents=True, exist_ok=True)
        with naming(path):
            self.file = path.open("a", encoding="utf-8")
        if not lines:
            self._write({"settings": settings})

    def _whole_lines(self) -> list[str]:
        """The lines that end; what a kill left behind the last of them is cut off."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        return content[:whole].decode().split("\n")[:-1]

    def _check(self, first: dict[str, Any]) -> None:
        changed = differences(first["settings"], self.settings)
        if changed:
            raise InputError(
                f"{self.path} holds answers to other settings: {'; '.join(changed[:3])}.",
                "Give another --out, or --restart to throw them away.",
            )

    def append(self, turn: Turned) -> None:
        """Keep a finished turn."""
        self.turns[turn["problem"], turn["sample"], turn["turn"]] = turn
        self._write(turn)

    def _write(self, value: dict[str, Any]) -> None:
        with naming(self.path):
            self.file.write(json.dumps(value, ensure_ascii=False) + "\n")
            self.file.flush()

    def close(self) -> None:
        """No more turns."""
        self.file.close()
