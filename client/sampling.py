"""Where a client looks for the nodes of a bundle, in whichever shards they stand."""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import Final

from ..protocol.shards import depth_of, safe_depth

PLENTY: Final = 10
"""Nodes that a client wants to know before it stops looking at more shards."""


class Sampler:
    """Where a client looks next for nodes of one bundle: at the root, and once it knows of a crowd, in any of its shards."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._depth = 0
        self._above = False
        """Whether it looks a level higher than it had told."""

    def shard(self) -> int:
        """Where to look now."""
        return (1 << self._depth) - 1 + self._random.randrange(1 << self._depth)

    def saw(self, shard: int, found: Collection[bytes], now_ms: int) -> bool:
        """Whether that will do; if not, look again."""
        if len(found) < PLENTY and shard:
            # The depth is told give or take one. If that was not it, there are fewer than there were, or somebody hides
            # them: the root is where everybody meets, and so the last place to look.
            self._depth, self._above = (0, False) if self._above else (depth_of(shard) - 1, True)
            return False
        self._depth, self._above = safe_depth(shard, found, now_ms), False
        return True
