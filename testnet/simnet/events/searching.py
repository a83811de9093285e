"""The table of hints: which index nodes keep a key, and how a search towards it fares, among liars too.

Searches are made by the network's own `Walk`, among index nodes whose tables are filled as Kademlia fills them; a sample of
them tells what all others cost and find. Who keeps a key is found for all keys at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from random import Random
from statistics import mean
from typing import Any, Final

import numpy as np
import trio
from numpy.typing import NDArray

from ....node.network.entries import place_of
from ....node.network.identity import id_of
from ....node.network.walk import FANOUT, WITNESSES, Named, Walk
from ....protocol.errors import Code, NetworkError
from ..lots import Seeds
from ..traffic import Crowd

SAMPLES: Final = 60
"""Pairs of searches, a provider's and a client's: a failure in fifty is seen, and none takes long."""
HOLDERS_AT_ONCE: Final = 8192
"""Keys whose holders are found at one time: some megabytes."""
BITS: Final = 64
"""Of a place in Kademlia's space: among a million index nodes, two share that many once in ten million networks."""


def holders(places: Seeds, keys: Seeds) -> NDArray[np.int32]:
    """Which `FANOUT` of the places, which are in order, are closest to each key: indices by key, in no order."""
    if len(places) <= FANOUT:
        return np.broadcast_to(np.arange(len(places), dtype=np.int32), (len(keys), len(places)))
    found = np.empty((len(keys), FANOUT), dtype=np.int32)
    for begin in range(0, len(keys), HOLDERS_AT_ONCE):
        found[begin : begin + HOLDERS_AT_ONCE] = _holders(places, keys[begin : begin + HOLDERS_AT_ONCE])
    return found


def _holders(places: Seeds, keys: Seeds) -> NDArray[np.int64]:
    # The smallest subtree around the key that has enough: all outside are farther away.
    first, end = np.zeros(len(keys), dtype=np.int64), np.full(len(keys), len(places))
    for bits in range(1, BITS):
        rest = np.uint64((1 << (BITS - bits)) - 1)
        low, high = keys & ~rest, keys | rest
        low_at = np.searchsorted(places, low, side="left")
        high_at = np.searchsorted(places, high, side="right")
        enough = high_at - low_at >= FANOUT
        first[enough], end[enough] = low_at[enough], high_at[enough]
        if not enough.any():
            break
    width = int((end - first).max())
    near = first[:, None] + np.arange(width)
    outside = near >= end[:, None]
    near = np.minimum(near, len(places) - 1)
    distance = places[near] ^ keys[:, None]
    distance[outside] = np.uint64((1 << BITS) - 1)
    chosen = np.argpartition(distance, FANOUT - 1, axis=1)[:, :FANOUT]
    return np.take_along_axis(near, chosen, axis=1)


@dataclass(frozen=True, slots=True)
class Searching:
    """What searches among these index nodes come to, on average."""

    asked: float
    """Peers that one search asks."""
    told: float
    """Peers that it comes to: those are told what is said."""
    found: float
    """Of the searches for one provider, so many meet somebody who names it."""
    kept: float
    """Of the index nodes to whom a record was given, so many keep it."""


def sampled(index: int, hostile: float, dead: float, seed: int, samples: int = SAMPLES) -> Searching:
    """Of searches among so many index nodes, of which such shares lie, and answer nothing."""
    return trio.run(_sampled, index, hostile, dead, seed, samples)


async def _sampled(index: int, hostile: float, dead: float, seed: int, samples: int) -> Searching:
    chance = Random(f"searching {seed} {index} {hostile} {dead}")
    mesh = _Mesh(index, hostile, dead, chance)
    asked: list[int] = []
    told: list[int] = []
    found: list[bool] = []
    kept: list[float] = []
    for _ in range(samples):
        key = chance.randbytes(32)
        given, _, _ = await mesh.search(key)
        keep = {peer for peer in given if mesh.keeps(peer)}
        _, answered, count = await mesh.search(key)
        asked.append(count)
        told.append(len(given))
        kept.append(len(keep) / max(len(given), 1))
        found.append(not keep.isdisjoint(answered))
    return Searching(mean(asked), mean(told), mean(found), mean(kept))


class _Mesh:
    """Index nodes with names, some of which lie: they name the liars closest to the key, and nobody else."""

    def __init__(self, count: int, hostile: float, dead: float, chance: Random) -> None:
        peers = [id_of(chance.randbytes(32)) for _ in range(count)]
        self._random = chance
        self._peers: dict[int, Any] = {place_of(peer.to_bytes()): peer for peer in peers}
        self._place = {peer: place for place, peer in self._peers.items()}
        self._places = sorted(self._peers)
        self._crowd = Crowd(self._places)
        order = chance.sample(peers, count)
        liars = round(hostile * count)
        self._liars = set(order[:liars])
        self._dead = set(order[liars : liars + round(dead * count)])
        self._liar_places = sorted(self._place[peer] for peer in self._liars)

    def keeps(self, peer: object) -> bool:
        return peer not in self._liars and peer not in self._dead

    async def search(self, key: bytes) -> tuple[Sequence[object], set[object], int]:
        """By somebody outside: whom the search came to, who answered, and how many were asked."""
        target, own = place_of(key), self._random.getrandbits(256)
        begin = self._crowd.closest(own, target)
        begin += self._random.sample(self._places, min(WITNESSES, len(self._places)))
        answered: set[object] = set()
        asked = 0

        async def ask(peer: Any, _: Sequence[bytes]) -> list[Named]:
            nonlocal asked
            asked += 1
            if peer in self._dead:
                raise NetworkError(Code.PEER_UNREACHABLE, "It is dead.")
            answered.add(peer)
            if peer in self._liars:
                near = nsmallest(FANOUT, self._liar_places, key=target.__xor__)
            else:
                near = self._crowd.closest(self._place[peer], target)
            return [(self._peers[place], ()) for place in near]

        walk = Walk(own.to_bytes(32), key, _Start([self._peers[place] for place in begin]), ask)
        return await walk.run(), answered, asked


class _Start:
    """What a search knows at its beginning. Its questions are answered at once, one after the other."""

    def __init__(self, peers: Sequence[Any]) -> None:
        self._peers = peers

    def start(self, target: bytes) -> Sequence[Any]:
        return self._peers

    def late(self, peer: object) -> None:
        pass

    def lost(self, peer: object) -> None:
        pass

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        step = task().__await__()
        try:
            next(step)
        except StopIteration:
            return
        raise AssertionError("a simulated question waits for nothing")
