"""Shards in arrays are the protocol's shards."""

import numpy as np
import pytest

from fallow.protocol import shards as protocol
from fallow.testnet.simnet.events.standing import Shards, next_depths, safe_depths, shards_of, stands

NOW_MS = 1_800_000_000_000


def nodes(count: int, seed: int) -> tuple[list[bytes], np.ndarray, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    keys = [chance.bytes(32) for _ in range(count)]
    heads = np.array([int.from_bytes(key[:4]) for key in keys])
    lots = np.array([protocol.lot(key, NOW_MS) for key in keys])
    return keys, heads, lots, chance.integers(0, 7, count)


@pytest.mark.parametrize("count", [3, 40, 900])
def test_where_nodes_stand_and_move_is_as_the_protocol_has_it(count: int) -> None:
    keys, heads, lots, depths = nodes(count, count)
    assert shards_of(heads, depths).tolist() == [
        protocol.shard_of(key, int(depth)) for key, depth in zip(keys, depths, strict=True)
    ]
    who, where = stands(heads, depths, lots)
    for number, key in enumerate(keys):
        assert sorted(where[who == number]) == sorted(protocol.shards_of(key, int(depths[number]), NOW_MS))
    table = Shards(who, where, lots[who])
    own = shards_of(heads, depths)
    for number, key in enumerate(keys):
        found = [keys[member] for member in table.members(int(own[number]))]
        assert table.populations(own)[number] == protocol.population(int(own[number]), found, NOW_MS)
        told = table.populations(own)[number : number + 1]
        depth = depths[number : number + 1]
        assert next_depths(depth, told)[0] == protocol.next_depth(key, int(depth[0]), found, NOW_MS)
        assert safe_depths(depth, told)[0] == protocol.safe_depth(int(own[number]), found, NOW_MS)
