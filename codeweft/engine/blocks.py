"""Who owns which block of the latent cache, and which blocks already hold the beginning of a prompt.

In:  token ids, and requests for blocks.  Out: block numbers, shared where tokens and all tokens before them are equal.

Unusual: a block that nobody owns keeps what it holds until its room is needed, longest unused first. Full blocks are
found by a digest of their tokens chained to the block before; of the block after the last match its first tokens may
still be right, and are copied: an edit in the middle of a block, or one prompt asked for many samples, then costs the
tokens that differ and no more.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from codeweft.model.cache import BLOCK

Digest = bytes
ROOT: Digest = b""  # stands before the first block
MOST_SIBLINGS = 64  # blocks after the same beginning that are compared for a copy, youngest first


def digests(tokens: Sequence[int], known: Sequence[Digest] = ()) -> list[Digest]:
    """The chained digests of the full blocks of a text; of those behind its `known` ones, where they are given.

    >>> a, b = digests(range(32)), digests([*range(16), *range(17, 33)])
    >>> len(a), a[0] == b[0], a[1] == b[1], digests(range(32), a[:1]) == a[1:]
    (2, True, False, True)
    """
    chain, found = known[-1] if known else ROOT, []
    for end in range((len(known) + 1) * BLOCK, len(tokens) + 1, BLOCK):
        words = b"".join(token.to_bytes(4, "little") for token in tokens[end - BLOCK : end])
        chain = hashlib.blake2b(chain + words, digest_size=16).digest()
        found.append(chain)
    return found


@dataclass(slots=True)
class Held:
    """What a full block holds."""

    digest: Digest
    before: Digest
    tokens: tuple[int, ...]


@dataclass(slots=True)
class BlockPool:
    """Hands out blocks 0 to `size` - 1; counts owners; remembers full blocks."""

    size: int
    free: list[int] = field(init=False)
    owners: dict[int, int] = field(default_factory=dict)
    held: dict[int, Held] = field(default_factory=dict)
    block_of: dict[Digest, int] = field(default_factory=dict)
    after: dict[Digest, list[int]] = field(default_factory=dict)  # full blocks by the digest before them
    idle: "OrderedDict[int, None]" = field(default_factory=OrderedDict)  # nobody's, still holding something, by age

    def __post_init__(self) -> None:
        self.free = list(range(self.size))[::-1]

    @property
    def available(self) -> int:
        """Blocks that can be handed out."""
        return len(self.free) + len(self.idle)

    def match(self, chain: Sequence[Digest]) -> list[int]:
        """The blocks that hold the beginning of a text with these digests; taken by nobody yet."""
        found = []
        for digest in chain:
            block = self.block_of.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def partly(self, before: Digest, tokens: Sequence[int]) -> tuple[int, int]:
        """Of the full blocks after `before` the one that begins most like `tokens`, and how many tokens are the same.

        >>> BlockPool(4).partly(ROOT, [1, 2])
        (-1, 0)
        """
        best = (-1, 0)
        for block in reversed(self.after.get(before, [])[-MOST_SIBLINGS:]):
            same = alike(self.held[block].tokens, tokens)
            if same > best[1]:
                best = (block, same)
        return best

    def share(self, blocks: Sequence[int]) -> None:
        """Own blocks that hold something, beside their other owners."""
        for block in blocks:
            self.idle.pop(block, None)
            self.owners[block] = self.owners.get(block, 0) + 1

    def take(self) -> int:
        """Own a block whose content is lost; ask `available` first."""
        if self.free:
            block = self.free.pop()
        else:
            block, _ = self.idle.popitem(last=False)
            self._forget(block)
        self.owners[block] = 1
        return block

    def give_back(self, blocks: Sequence[int]) -> None:
        """Own them no longer. The end of a text goes first, as its beginning is the likelier to be asked again."""
        for block in reversed(blocks):
            self.owners[block] -= 1
            if self.owners[block]:
                continue
            del self.owners[block]
            if block in self.held:
                self.idle[block] = None
            else:
                self.free.append(block)

    def publish(self, block: int, digest: Digest, before: Digest, tokens: tuple[int, ...]) -> None:
        """Say what a full block holds; where another block holds the same, that one stays the one to find."""
        if digest in self.block_of or block in self.held:
            return
        self.held[block] = Held(digest, before, tokens)
        self.block_of[digest] = block
        self.after.setdefault(before, []).append(block)

    def forget_all(self) -> None:
        """Other weights: nothing that is held is right any more. Who owns blocks has to give them back first."""
        assert not self.owners, "blocks are in use"
        for block in list(self.held):
            self._forget(block)
        self.free += self.idle
        self.idle.clear()

    def _forget(self, block: int) -> None:
        held = self.held.pop(block)
        del self.block_of[held.digest]
        siblings = self.after[held.before]
        siblings.remove(block)
        if not siblings:
            del self.after[held.before]


def alike(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts have in common from their beginning.

    >>> alike([1, 2, 3], [1, 2, 9, 9])
    2
    """
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
