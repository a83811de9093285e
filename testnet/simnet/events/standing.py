"""Under which shards a million nodes stand: `protocol.shards` for all of them at once, formula by formula.

A shard is told by its number, as there. `lots` are whole numbers from 0 to 2^32 - 1, `heads` the first 32 bits of keys. A
test holds each function to its twin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....protocol.shards import CROWD_MAX, CROWD_MIN, DEPTH_MAX, SMALLEST

Ints = NDArray[np.int64]


def shards_of(heads: Ints, depths: Ints) -> Ints:
    """The shard of each node at its depth."""
    return (np.int64(1) << depths) - 1 + (heads >> (32 - depths))


def stands(heads: Ints, depths: Ints, lots: Ints) -> tuple[Ints, Ints]:
    """Where each node stands: nodes by number, and a shard for each, its own and those above it that its lot gives it."""
    nodes, shards = [np.arange(len(heads))], [shards_of(heads, depths)]
    above = depths - 1
    rest = np.flatnonzero(above >= 0)
    while len(rest):
        # A node stands `k` levels above its own shard if the first k bits of its lot are 0; so it does in between.
        rest = rest[lots[rest] >> (32 - (depths[rest] - above[rest])) == 0]
        nodes.append(rest)
        shards.append(shards_of(heads[rest], above[rest]))
        above[rest] -= 1
        rest = rest[above[rest] >= 0]
    return np.concatenate(nodes), np.concatenate(shards)


class Shards:
    """Who stands in which shard, as of one moment."""

    def __init__(self, nodes: Ints, shards: Ints, lots: Ints) -> None:
        """`lots` of these nodes, one each."""
        order = np.argsort((shards << 32) | lots, kind="stable")
        self._nodes = nodes[order]
        self._lots = lots[order]
        self.shards, self._first, counts = np.unique(shards[order], return_index=True, return_counts=True)
        self._counts = counts

    def members(self, shard: int) -> Ints:
        """The nodes in it, those with the smallest lots first."""
        at = int(np.searchsorted(self.shards, shard))
        if at == len(self.shards) or self.shards[at] != shard:
            return np.zeros(0, dtype=np.int64)
        return self._nodes[self._first[at] : self._first[at] + self._counts[at]]

    def slices(self, shards: Ints) -> tuple[Ints, Ints]:
        """Of each shard, where its members begin in `listed`, and how many they are."""
        if not len(self.shards):
            return np.zeros(len(shards), dtype=np.int64), np.zeros(len(shards), dtype=np.int64)
        at = np.minimum(np.searchsorted(self.shards, shards), len(self.shards) - 1)
        there = self.shards[at] == shards
        return np.where(there, self._first[at], 0), np.where(there, self._counts[at], 0)

    @property
    def listed(self) -> Ints:
        return self._nodes

    def populations(self, shards: Ints) -> Ints:
        """About how many nodes are in each shard and below: `protocol.shards.population` over all that stand there."""
        first, counts = self.slices(shards)
        crowded = counts > SMALLEST
        told = counts.copy()
        smallest = self._lots[first[crowded] + SMALLEST - 1]
        told[crowded] = np.maximum(counts[crowded], ((SMALLEST - 1) << 32) // np.maximum(1, smallest))
        return told


def next_depths(depths: Ints, populations: Ints) -> Ints:
    """Each node's depth from now on, as told by the population of its shard."""
    deeper = np.minimum(depths + 1, DEPTH_MAX)
    higher = np.where(populations < CROWD_MIN, np.maximum(depths - 1, 0), depths)
    return np.where(populations > CROWD_MAX, deeper, higher)


def safe_depths(depths: Ints, populations: Ints) -> Ints:
    """The depth that every node has at least, as told by shards of these depths."""
    about = (np.maximum(1, populations << depths) - 1) // CROWD_MAX
    # `bit_length`, which is exact for these: frexp gives the power of two just above.
    return np.minimum(DEPTH_MAX, np.where(about > 0, np.frexp(about.astype(np.float64))[1], 0)).astype(np.int64)
