"""Fill in the middle without a server: load a model folder, ask for the text between two others.

In:  a model folder (default: the one that `make demo` leaves).  Out: the middle, printed.

    python examples/infill.py runs/toy/pretrain/model
"""

import sys
from pathlib import Path

from codeweft.engine.engine import Engine
from codeweft.engine.request import Request
from codeweft.tokenizer.fim import infill_prompt

BEFORE = "def mean(values):\n    total = 0\n"
AFTER = "\n    return total / len(values)\n"


def main(folder: Path) -> str:
    """The line that the model puts between `BEFORE` and `AFTER`."""
    engine = Engine.load(folder, rows=1)
    prompt = tuple(infill_prompt(engine.tokenizer, BEFORE, AFTER))
    (completion,) = engine.generate([Request(prompt, max_tokens=48, stop_line=True)])
    return completion.text


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/toy/pretrain/model")))
