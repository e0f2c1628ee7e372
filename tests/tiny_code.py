"""Made-up repositories of Python and a recipe that takes them to a model in seconds, for the tests of whole stages."""

import random
from pathlib import Path

MINIATURE = Path(__file__).parent / "miniature.toml"
REPOSITORIES = ("a", "b", "c", "d")
RECIPE = """
extends = "{miniature}"
[run]
workers = 1
[corpus]
code = {sources}
math = []
text = []
[tokenizer]
vocabulary = 400
[tokens]
total = 6000
math_share = 0
text_share = 0
held_out_tokens = 1500
[pretrain]
checkpoint_every = 1
[pretrain.schedule]
steps = 2
warmup = 1
sequence = 32
batch = 2
micro_batch = 2
[measure]
bits_tokens = 500
infilling_samples = 2
[evaluate]
bits_tokens = 500
infilling_samples = 2
"""


def make_source(folder: Path, seed: int = 1, order: int | None = None) -> Path:
    """Four repositories of three files, no two alike; `order` draws the order in which they are written."""
    chance = random.Random(seed)
    names = ["".join(chance.choices(("ka", "lo", "mi", "nu", "re", "so", "ti"), k=4)) for _ in range(200)]
    texts = {}
    for repository in REPOSITORIES:
        for number in range(3):
            lines = ["{} = {}({}, {})\n".format(*chance.choices(names, k=4)) for _ in range(40)]
            texts[folder / repository / f"m{number}.py"] = "".join(lines)
    paths = list(texts)
    if order is not None:
        random.Random(order).shuffle(paths)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[path])
    return folder


def make_recipe(path: Path, *sources: Path) -> Path:
    """Write the recipe for these sources."""
    path.write_text(RECIPE.format(miniature=MINIATURE, sources=[str(source) for source in sources]))
    return path
