"""Named seeds: every source of chance has its own stream, so that adding one never shifts another.

In:  the run's seed and a path of names ("pretrain", "order", 3).  Out: an integer seed or a NumPy generator.
"""

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on every name and their order.

    >>> derive(1, "tokens", "fim") != derive(1, "fim", "tokens")
    True
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator (PCG64) for the stream of that name."""
    return np.random.default_rng(derive(seed, *names))
