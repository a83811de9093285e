"""Searches through made-up networks of hundreds of peers, a third of them hostile; the clock jumps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from heapq import nsmallest
from random import Random

import pytest
import trio
from libp2p.peer.id import ID

from fallow.node.network.buckets import Buckets, Contact
from fallow.node.network.entries import place_of
from fallow.node.network.identity import id_of
from fallow.node.network.walk import FANOUT, LATE_S, NAMED, PEER_S, WALK_MAX, WITNESSES, Named, Walk
from fallow.protocol.errors import Code, NetworkError

TARGET = b"serve/x"
WHERE = (b"somewhere",)


def _peers(name: str, count: int) -> list[bytes]:
    return [id_of(sha256(b"%s %d" % (name.encode(), number)).digest()).to_bytes() for number in range(count)]


def _near(name: str, count: int, of: int) -> list[bytes]:
    return nsmallest(count, _peers(name, of), key=lambda peer: place_of(peer) ^ place_of(TARGET))


class MadeUp:
    """Honest peers that know each other and the hostile; hostile ones that name each other and peers that are not there."""

    def __init__(self, nursery: trio.Nursery, honest: int, hostile: Sequence[bytes], silent: bool = False) -> None:
        self.random = Random(7)
        self.honest = {peer: Buckets(peer) for peer in _peers("honest", honest)}
        self.hostile = list(hostile)
        self.nobody = _near("nobody", 200, 3000)
        self.frozen: set[bytes] = set()
        self.asked: list[bytes] = []
        self._nursery = nursery
        self._silent = silent
        everybody = [*self.honest, *hostile]
        for peer, buckets in self.honest.items():
            self.random.shuffle(everybody)
            for other in everybody:
                if other != peer:
                    buckets.add(Contact(other, WHERE, proven=True))

    async def ask(self, peer: ID, addresses: Sequence[bytes]) -> list[Named]:
        name = peer.to_bytes()
        self.asked.append(name)
        if name in self.frozen or (self._silent and name in self.nobody):
            await trio.sleep_forever()
        await trio.sleep(self.random.uniform(0.01, 0.05))
        if name in self.honest:
            return [(ID(each), WHERE) for each in self.honest[name].closest(TARGET, FANOUT)]
        if name in self.hostile:
            friends = self.random.sample([*self.hostile, *self.nobody], FANOUT)
            return [(ID(each), WHERE) for each in friends]
        raise NetworkError(Code.PEER_UNREACHABLE, "nobody is there")

    async def search(self, own: bytes) -> list[bytes]:
        """Whom a search by the honest peer has found."""
        self.asked = []
        found = await Walk(own, TARGET, Known(self, self.honest[own]), self.ask).run()
        return [peer.to_bytes() for peer in found]

    def spawn(self, task) -> None:
        self._nursery.start_soon(task)


class Known:
    """The table of one peer, as a search sees it."""

    def __init__(self, made_up: MadeUp, buckets: Buckets) -> None:
        self._buckets = buckets
        self.spawn = made_up.spawn
        self._random = made_up.random

    def start(self, target: bytes) -> list[ID]:
        closest = self._buckets.closest(target, FANOUT)
        others = [peer for peer in self._buckets.peers() if peer not in closest]
        return [ID(peer) for peer in (*closest, *self._random.sample(others, min(WITNESSES, len(others))))]

    def late(self, peer: ID) -> None:
        self._buckets.remove(peer.to_bytes())

    lost = late


async def test_a_search_among_the_honest_finds_the_closest_and_asks_few(autojump_clock, nursery) -> None:
    network = MadeUp(nursery, 300, [])
    closest = nsmallest(FANOUT, network.honest, key=lambda peer: place_of(peer) ^ place_of(TARGET))
    for own in list(network.honest)[:10]:
        found = await network.search(own)
        assert len(set(closest) & {*found, own}) >= FANOUT - 1
        assert len(network.asked) == len(set(network.asked)) <= 2 * NAMED


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("near", [0, 15])
async def test_a_third_of_hostile_peers_hides_no_provider(autojump_clock, nursery, near, silent) -> None:
    """`near` of them made themselves keys around the target, as close as they liked."""
    hostile = [*_near("hostile", near, 100 * near), *_peers("elsewhere", 90 - near)]
    network = MadeUp(nursery, 210, hostile, silent)
    everyone = list(network.honest)
    reached = []
    for provider, reader in zip(everyone[:12], everyone[20:32], strict=True):
        holders = set(await network.search(provider)) & set(network.honest)
        await network.search(reader)
        reached.append(len(holders & set(network.asked)))
        assert len(network.asked) <= WALK_MAX
    assert min(reached) >= 8 if near == 0 else sum(map(bool, reached)) >= 10, reached


async def test_frozen_peers_cost_a_search_little_and_leave_the_table(autojump_clock, nursery) -> None:
    network = MadeUp(nursery, 60, [])
    everyone = list(network.honest)
    network.frozen = set(everyone[::4])
    own = everyone[1]
    began = trio.current_time()
    found = await network.search(own)
    assert trio.current_time() - began <= 4 * LATE_S
    assert len(found) >= FANOUT and not network.frozen & set(found)
    await trio.sleep(PEER_S)
    assert not network.frozen & set(network.asked) & set(network.honest[own].peers())


async def test_where_everybody_is_slow_a_search_waits(autojump_clock, nursery) -> None:
    network = MadeUp(nursery, 30, [])

    async def slow(peer: ID, addresses: Sequence[bytes]) -> list[Named]:
        await trio.sleep(PEER_S * 0.8)
        return await network.ask(peer, addresses)

    own = next(iter(network.honest))
    walk = Walk(own, TARGET, Known(network, network.honest[own]), slow)
    assert len(await walk.run()) >= FANOUT


async def test_a_search_ends_when_it_has_enough(autojump_clock, nursery) -> None:
    network = MadeUp(nursery, 60, [])
    own = next(iter(network.honest))
    known, enough = Known(network, network.honest[own]), partial(lambda: len(network.asked) >= 3)
    await Walk(own, TARGET, known, network.ask, enough).run()
    assert len(network.asked) < FANOUT
