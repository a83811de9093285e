"""Under which provider keys the nodes of a bundle stand, however many they are: pure, and agreed on without a word.

The nodes of a bundle form a tree by the leading bits of their keys. A node stands in the shard of its own depth, and, if
this hour's lot falls to it, in some of those above, each of which so holds about as many as a shard below. The root, shard
0, is where a small network stands altogether, and where a client that knows nothing begins.

Whoever has looked at a shard can tell how many nodes are below it: from all of them, and from how small the smallest lots
are, as of n lots drawn between 0 and 1 the kth smallest is about k/n. So nodes that see the same come to the same depth.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from blake3 import blake3

DEPTH_MAX: Final = 24
"""Sixteen million shards: enough for every machine that there is."""

CROWD_MAX: Final = 128
"""Nodes of a shard beyond which they go a level down. Ten that answer are soon found among a quarter as many; twenty index
nodes keep twice as many without effort."""

CROWD_MIN: Final = 24
"""Below it they come up again. Well below half of the above: a shard that has just been split does not join at once."""

LOT_MS: Final = 60 * 60 * 1000
"""For so long the same nodes stand above their shard; then others do."""

SMALLEST: Final = 16
"""Lots from which a number is told, give or take a quarter: few enough that nodes a few levels down have all shown theirs."""


def shard_of(node: bytes, depth: int) -> int:
    """The shard of that depth in which the node is: shards are numbered from the root, level by level."""
    return (1 << depth) - 1 + (int.from_bytes(node[:4]) >> (32 - depth))


def depth_of(shard: int) -> int:
    """How many levels the shard is below the root."""
    return (shard + 1).bit_length() - 1


def lot(node: bytes, now_ms: int) -> int:
    """The node's lot of this hour, from 0 to 2**32 - 1."""
    return int.from_bytes(blake3(b"fallow/1/shard" + (now_ms // LOT_MS).to_bytes(8) + node).digest()[:4])


def shards_of(node: bytes, depth: int, now_ms: int) -> list[int]:
    """Where a node of that depth stands now: its own shard first, and each above it at half the chance of the one below."""
    drawn = lot(node, now_ms)
    above = [level for level in range(depth) if drawn >> (32 - (depth - level)) == 0]
    return [shard_of(node, depth)] + [shard_of(node, level) for level in reversed(above)]


def population(shard: int, found: Collection[bytes], now_ms: int) -> int:
    """About how many nodes are in the shard and below, as told by those found there. Others than its own do not count."""
    depth = depth_of(shard)
    lots = sorted(lot(node, now_ms) for node in set(found) if shard_of(node, depth) == shard)
    if len(lots) <= SMALLEST:
        return len(lots)
    return max(len(lots), ((SMALLEST - 1) << 32) // max(1, lots[SMALLEST - 1]))


def next_depth(node: bytes, depth: int, found: Collection[bytes], now_ms: int) -> int:
    """The node's depth from now on: `found` are those seen in its own shard, itself or not."""
    about = population(shard_of(node, depth), {node, *found}, now_ms)
    if about > CROWD_MAX:
        return min(depth + 1, DEPTH_MAX)
    return max(0, depth - 1) if about < CROWD_MIN else depth


def safe_depth(shard: int, found: Collection[bytes], now_ms: int) -> int:
    """The depth that every node has at least, as told by those found in the shard: there is no shard there with too few."""
    about = population(shard, found, now_ms) << depth_of(shard)
    return min(DEPTH_MAX, max(0, (max(1, about) - 1) // CROWD_MAX).bit_length())
