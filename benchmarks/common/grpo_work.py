"""The work that both sides of grpo_step.py do: model, prompts, reward, fixed answers, and a clock around functions.

In:  a folder.  Out: there `model/`, `tokenizer/` and `prompts.json`, the same for both sides.
Unusual: the peer's environment has no codeweft; what needs it is imported where the folder is made.
"""

import json
import sysconfig
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from common.small import SMALL, VOCABULARY

PROMPTS, GROUP, TOKENS = 4, 8, 64
SHORT = (
    "Write a function that adds two numbers.",
    "Write a Python function that reverses a list.",
    "Count the vowels of a text.",
    "Return the largest number of a list of numbers.",
)


def make_folder(folder: Path) -> None:
    """The model with its tokenizer, learned from Python's standard library, and `prompts.json`."""
    from codeweft.model.config import ModelConfig
    from codeweft.model.folder import save_folder
    from codeweft.model.transformer import Transformer
    from codeweft.tasks.katas.generate import draw
    from codeweft.tasks.registry import find
    from codeweft.tasks.task import Room
    from codeweft.tokenizer.chat import encode_chat
    from codeweft.tokenizer.load import FILES, load_tokenizer
    from codeweft.tokenizer.train import CONFIG, train

    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    learned = train((file.read_text("utf-8") for file in files), VOCABULARY, longest_token=64)
    made = folder / "tokenizer"
    made.mkdir(parents=True)
    learned.save(str(made / FILES[0]))
    (made / FILES[1]).write_text(json.dumps(CONFIG), encoding="utf-8")
    tokenizer = load_tokenizer(made)
    model = Transformer(ModelConfig(**SMALL, bos_token_id=tokenizer.begin, eos_token_id=tokenizer.end))
    model.init_weights(0.02, torch.Generator().manual_seed(0))
    save_folder(model, folder / "model", dtype=torch.float32, extra_files=[made / name for name in FILES])
    room = Room(1024, lambda text: len(tokenizer.encode(text)))
    asked = {
        "short": [[{"role": "user", "content": text}] for text in SHORT],
        "katas": [
            list(find("katas").ask(problem, "chat", room).messages) for problem in draw(PROMPTS, split="train", seed=1)
        ],
    }
    told = {
        kind: [{"messages": each, "ids": encode_chat(tokenizer, each)} for each in talks]
        for kind, talks in asked.items()
    }
    (folder / "prompts.json").write_text(json.dumps(told), encoding="utf-8")


def asked_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The prompts of a kind: what is asked as `messages`, and as `ids`."""
    return json.loads((folder / "prompts.json").read_text("utf-8"))[kind]


def reward(text: str) -> float:
    """The share of vowels: cheap, and different for any two random answers."""
    return sum(letter in "aeiou" for letter in text) / max(len(text), 1)


def fixed_answers() -> torch.Tensor:
    """Random ids [prompts, group, tokens] that both sides are given in place of drawing."""
    return torch.randint(300, 8000, (PROMPTS, GROUP, TOKENS), generator=torch.Generator().manual_seed(2))


class Clock:
    """Adds up the seconds spent in what it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        @wraps(function)
        def timed(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.seconds += time.perf_counter() - began

        return timed

    def taken(self) -> float:
        """The seconds since it was last asked."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds
