"""Shards of provider keys: every node in its place, no shard crowded, and clients that find enough at once."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fallow.client.sampling import PLENTY, Sampler
from fallow.protocol.shards import (
    CROWD_MAX,
    CROWD_MIN,
    DEPTH_MAX,
    LOT_MS,
    depth_of,
    lot,
    next_depth,
    population,
    safe_depth,
    shard_of,
    shards_of,
)

NOW_MS = 1_790_000_000_000
REFRESH_MS = 600_000
NAMED_MAX = 256
"""More than an index node keeps of one key, clients do not see."""

nodes = some.binary(min_size=32, max_size=32)
depths = some.integers(0, DEPTH_MAX)


def _nodes(count: int, seed: int = 1) -> list[bytes]:
    random = Random(seed)
    return [random.randbytes(32) for _ in range(count)]


@pytest.mark.spec("D-34")
@given(nodes, depths)
def test_a_nodes_shards_are_its_own_and_some_above(node, depth) -> None:
    own, *above = shards_of(node, depth, NOW_MS)
    assert own == shard_of(node, depth) and depth_of(own) == depth
    levels = [depth_of(shard) for shard in above]
    assert above == [shard_of(node, level) for level in levels]
    assert levels == list(range(depth - 1, depth - 1 - len(levels), -1))


@given(nodes, some.integers(1, DEPTH_MAX))
def test_a_shards_two_halves_are_told_by_one_bit_of_the_key(node, depth) -> None:
    shard = shard_of(node, depth)
    assert (shard - 1) // 2 == shard_of(node, depth - 1)
    assert shard == 2**depth - 1 + int(bin(int.from_bytes(node))[2:].zfill(256)[:depth], 2)


@pytest.mark.spec("D-34")
def test_above_its_shard_a_node_stands_at_half_the_chance_each_and_later_others_do() -> None:
    standing = {node: len(shards_of(node, 10, NOW_MS)) for node in _nodes(4000)}
    counts = Counter(standing.values())
    for extra in range(4):
        assert abs(sum(counts[n] for n in counts if n > extra + 1) - 4000 / 2 ** (extra + 1)) < 200
    later = sum(lot(node, NOW_MS) >> 31 == lot(node, NOW_MS + LOT_MS) >> 31 for node in standing)
    assert abs(later - 2000) < 200


@given(some.sets(nodes, max_size=40), depths, nodes)
def test_only_a_shards_own_nodes_count(found, depth, node) -> None:
    shard = shard_of(node, depth)
    own = {each for each in found if shard_of(each, depth) == shard}
    assert population(shard, found, NOW_MS) == population(shard, own, NOW_MS) >= len(own)


def test_a_crowd_is_told_from_those_whose_lot_is_small() -> None:
    everybody = _nodes(20_000)
    for levels in (0, 2, 4, 7):
        shown = [node for node in everybody if lot(node, NOW_MS) >> (32 - levels) == 0]
        assert 0.5 < population(0, shown, NOW_MS) / 20_000 < 2
        assert 20_000 / 128 / 4 <= 2 ** safe_depth(0, shown, NOW_MS) <= 20_000 / CROWD_MIN


Keys = dict[int, list[bytes]]


def _settle(everybody: list[bytes], depth: dict[bytes, int], rounds: int, random: Random) -> Keys:
    """What stands under each shard once every node has looked at its own so many times, and moved."""
    for turn in range(rounds):
        now_ms = NOW_MS + turn * REFRESH_MS
        keys = _keys(everybody, depth, now_ms)
        seen = {shard: random.sample(those, min(len(those), NAMED_MAX)) for shard, those in keys.items()}
        moves: dict[int, int] = {}  # nodes that see the same move alike
        for node in everybody:
            own = shard_of(node, depth[node])
            if own not in moves:
                moves[own] = next_depth(node, depth[node], seen[own], now_ms)
            depth[node] = moves[own]
    return _keys(everybody, depth, NOW_MS + rounds * REFRESH_MS)


def _keys(everybody: list[bytes], depth: dict[bytes, int], now_ms: int) -> Keys:
    keys: Keys = {}
    for node in everybody:
        for shard in shards_of(node, depth[node], now_ms):
            keys.setdefault(shard, []).append(node)
    return keys


@pytest.mark.spec("D-34", "D-35")
@pytest.mark.parametrize(("count", "begin", "rounds"), [(10, 0, 3), (10, 6, 8), (1000, 0, 8), (1000, 8, 8)])
def test_no_shard_is_crowded_and_a_client_finds_enough_in_three_lookups(count, begin, rounds) -> None:
    """Wherever the nodes begin."""
    everybody, random = _nodes(count), Random(2)
    depth = dict.fromkeys(everybody, begin)
    keys = _settle(everybody, depth, rounds, random)
    _check(keys, count, NOW_MS + rounds * REFRESH_MS, random)
    again = _settle(everybody, dict(depth), 1, random)
    assert sum(shard in again for shard in keys) > 0.9 * len(keys)  # and there it stays


def test_a_hundred_thousand_nodes_that_look_before_they_stand() -> None:
    """As nodes do that start: the depth that all have at least is their first."""
    everybody, random = _nodes(100_000), Random(3)
    settled = 10
    depth = dict.fromkeys(everybody, settled)
    keys = _keys(everybody, depth, NOW_MS)
    newcomer = random.randbytes(32)
    assert settled - 2 <= safe_depth(0, keys[0], NOW_MS) <= settled
    own = safe_depth(0, keys[0], NOW_MS)
    for _ in range(3):
        own = next_depth(newcomer, own, keys[shard_of(newcomer, own)], NOW_MS)
    assert settled - 1 <= own <= settled
    _check(keys, 100_000, NOW_MS, random)


def _check(keys: Keys, count: int, now_ms: int, random: Random) -> None:
    assert max(map(len, keys.values())) <= 1.5 * CROWD_MAX
    assert sum(map(len, keys.values())) <= 2.2 * count
    for start in (0, 9):  # knowing nothing, and knowing a crowd that has gone since
        sampler, found, lookups = Sampler(random), set(), 0
        sampler._depth = start
        for _ in range(20):
            lookups += 1
            shard = sampler.shard()
            named = keys.get(shard, [])
            named = random.sample(named, min(len(named), NAMED_MAX))
            found |= set(named)
            if sampler.saw(shard, named, now_ms):
                break
        assert len(found) >= PLENTY and lookups <= 3
        if count >= 10_000:
            assert len({sampler.shard() for _ in range(20)}) > 10  # from now on it looks elsewhere than everybody


def test_a_client_whose_root_shows_too_many_looks_one_level_higher_before_the_root() -> None:
    """The 16th smallest lot tells a number give or take a quarter: for some hours that is a level too deep, for all clients."""
    random = Random(4)
    everybody = _nodes(2000)
    keys, sampler = _keys(everybody, dict.fromkeys(everybody, 4), NOW_MS), Sampler(random)
    sampler._depth = 5
    looked = [sampler.shard()]
    assert not sampler.saw(looked[0], keys.get(looked[0], []), NOW_MS)
    looked.append(sampler.shard())
    assert sampler.saw(looked[1], keys[looked[1]], NOW_MS)
    assert [depth_of(shard) for shard in looked] == [5, 4]


def test_a_client_from_whom_a_crowd_has_gone_comes_to_the_root() -> None:
    sampler = Sampler(Random(5))
    sampler._depth = 9
    depths = []
    while True:
        depths.append(depth_of(shard := sampler.shard()))
        if sampler.saw(shard, [], NOW_MS):
            break
    assert depths == [9, 8, 0]


@given(nodes, some.integers(0, 30), some.sets(nodes, max_size=300))
def test_a_depth_moves_by_one_and_stays_within_bounds(node, depth, found) -> None:
    depth = min(depth, DEPTH_MAX)
    assert abs(next_depth(node, depth, found, NOW_MS) - depth) <= 1
    assert 0 <= next_depth(node, depth, found, NOW_MS) <= DEPTH_MAX
