"""Settings of the server and of one completion in a file; nothing here is part of what a model is.

In:  the `[serve]` section and the command line.  Out: frozen settings.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeConfig:
    """How the server listens, what it refuses, and how much runs at once."""

    host: str = "127.0.0.1"  # address to listen on
    port: int = 8012  # port to listen on; 0 takes any free one
    allowed_hosts: tuple[str, ...] = ()  # names beside localhost that a request may address; "*" allows every name
    name: str = ""  # the model's id for clients; empty: made from its folder
    rows: int = 16  # requests that run at the same time; more wait
    queue: int = 256  # completions that may run or wait; one more is refused with 503
    max_length: int | None = None  # tokens of prompt and completion together; none: the model's, at most 4096
    memory: str = ""  # such as 12GiB: weights, cache and work in all; then max_length is what fits, if it is not given
    guess: int = 8  # most tokens tried by looking up where the last ones stood before; 0 turns it off
    max_body_bytes: int = 4194304  # a longer request body is refused with 413
    assume_fim: bool = False  # infill although the model folder does not say that it was trained to

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; ports go from 0 to 65535")
        if self.guess < 0:
            raise ValueError(f"guess is {self.guess}; it must be at least 0")
        for name in ("rows", "queue", "max_body_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class CompleteConfig:
    """How a place in a file is filled in."""

    max_tokens: int = 64  # longest completion
    lines: int = 1  # lines to fill in; 0 for no limit
    temperature: float = 0.0  # 0 takes the most probable token each time
    seed: int = 0  # for temperatures above 0
    memory: str = ""  # such as 12GiB, in all; empty: what the model's window takes
    assume_fim: bool = False  # infill although the model folder does not say that it was trained to
