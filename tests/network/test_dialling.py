"""Which of a peer's addresses is used, and what becomes of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from fallow.node.network.identity import Multiaddr, id_of
from fallow.node.network.mesh import Mesh
from fallow.node.network.racing import ADDRESS_S, GAP_S, RACE_S, RELAYED_GAP_S, Race
from fallow.protocol.errors import Code, NetworkError
from fallow.protocol.limits import ADDRESSES_MAX

NOBODY = "/ip4/127.0.0.1/tcp/1"
"""A port that refuses."""


def _address(number: int) -> Multiaddr:
    return Multiaddr(f"/ip4/192.0.2.1/tcp/{number}")


RELAYED = Multiaddr(f"/ip4/192.0.2.1/tcp/9/p2p/{id_of(bytes(32))}/p2p-circuit")


class Dials:
    """What a race dials: each address answers, fails or stays silent after so many seconds of the clock."""

    def __init__(self, **answers_s: float) -> None:
        self.answers_s = answers_s
        self.begun: dict[Multiaddr, float] = {}
        self.cancelled: list[Multiaddr] = []
        self.undone: list[Multiaddr] = []
        self._began = trio.current_time()

    async def __call__(self, address: Multiaddr) -> Multiaddr:
        self.begun[address] = round(trio.current_time() - self._began, 3)
        after_s = self.answers_s.get(f"at{list(self.begun).index(address)}", float("inf"))
        try:
            await trio.sleep(abs(after_s))
        except trio.Cancelled:
            self.cancelled.append(address)
            raise
        if after_s < 0:
            raise NetworkError(Code.PEER_UNREACHABLE, f"{address} refuses")
        return address

    async def undo(self, address: Multiaddr) -> None:
        self.undone.append(address)


async def _race(dials: Dials, *addresses: Multiaddr) -> tuple[Multiaddr | None, Race[Multiaddr]]:
    race = Race(dials, dials.undo)
    race.add(addresses)
    return await race.run(), race


async def test_silent_addresses_delay_the_good_one_by_a_gap_each(autojump_clock) -> None:
    addresses = [_address(number) for number in range(4)]
    dials = Dials(at3=0.05)
    assert (await _race(dials, *addresses))[0] == addresses[3]
    assert list(dials.begun.values()) == [pytest.approx(index * GAP_S) for index in range(4)]
    assert set(dials.cancelled) == set(addresses[:3])


async def test_after_a_failure_the_next_one_starts_at_once(autojump_clock) -> None:
    dials = Dials(at0=-0.01, at1=0.05)
    assert (await _race(dials, _address(0), _address(1)))[0] == _address(1)
    assert dials.begun == {_address(0): 0, _address(1): 0.01}


async def test_the_first_one_that_answers_ends_those_that_have_not_begun(autojump_clock) -> None:
    dials = Dials(at0=0.05)
    assert (await _race(dials, _address(0), _address(1)))[0] == _address(0)
    assert list(dials.begun) == [_address(0)]


async def test_direct_ways_come_before_relayed_ones(autojump_clock) -> None:
    dials = Dials(at1=0.45)
    assert (await _race(dials, RELAYED, _address(0), _address(1)))[0] == _address(1)
    dials = Dials(at2=0.1)
    assert (await _race(dials, RELAYED, _address(0), _address(1)))[0] == RELAYED
    assert dials.begun[RELAYED] == pytest.approx(GAP_S + RELAYED_GAP_S)
    dials = Dials(at0=-0.01, at1=0.1)
    assert (await _race(dials, RELAYED, _address(0)))[0] == RELAYED
    assert dials.begun[RELAYED] == 0.01


async def test_a_second_answer_in_the_same_moment_is_undone(autojump_clock) -> None:
    dials = Dials(at0=2 * GAP_S, at1=GAP_S)
    winner, _ = await _race(dials, _address(0), _address(1))
    assert dials.undone == [address for address in (_address(0), _address(1)) if address != winner][: len(dials.undone)]
    assert len(dials.undone) + len(dials.cancelled) == 1


async def test_a_race_that_nobody_wins_says_why_of_each_address(autojump_clock) -> None:
    winner, race = await _race(Dials(at1=-1.0), _address(0), _address(1))
    assert winner is None
    assert race.failures == [f"{_address(1)} refuses", f"{_address(0)}: no answer within {ADDRESS_S:g} s"]
    assert trio.current_time() < RACE_S


async def test_only_so_many_addresses_are_dialled(autojump_clock) -> None:
    dials = Dials()
    await _race(dials, *(_address(number) for number in range(3 * ADDRESSES_MAX)))
    assert len(dials.begun) == ADDRESSES_MAX


async def test_whoever_joins_a_race_brings_addresses(autojump_clock, nursery) -> None:
    dials = Dials(at1=0.2)
    race = Race(dials, dials.undo)
    race.add([_address(0)])
    nursery.start_soon(race.run)
    await trio.sleep(1)
    race.add([_address(0), _address(1)])
    await trio.sleep(1)
    assert (race.winner, list(dials.begun)) == (_address(1), [_address(0), _address(1)])


# The same over sockets.


class Silent:
    """A listener that takes connections, and says nothing on them."""

    def __init__(self, port: int) -> None:
        self.address = f"/ip4/127.0.0.1/tcp/{port}"
        self.taken = self.ended = 0
        self.news = trio.Event()

    async def take(self, stream: trio.SocketStream) -> None:
        self.taken += 1
        async with stream:
            while await stream.receive_some():
                pass
        self.ended += 1
        self.news.set()


@asynccontextmanager
async def _silent() -> AsyncIterator[Silent]:
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        silent = Silent(listener.socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, silent.take, [listener])
        yield silent
        nursery.cancel_scope.cancel()


def _connections(node: Mesh, other: Mesh) -> int:
    return len(node._dialler.standing(id_of(other.key)))


async def test_an_address_that_never_answers_does_not_delay_the_good_one(start_node) -> None:
    node, peer = await start_node(1), await start_node(2)

    async def echo(stream) -> None:
        await stream.send(await stream.receive())

    peer.serve("/test/echo", echo)
    async with _silent() as silent:
        addresses = [silent.address, NOBODY, *peer.addresses()]
        with trio.fail_after(ADDRESS_S - 0.5):  # before the silent one is given up
            assert await node.request(peer.key, "/test/echo", b"there", addresses) == b"there"
        with trio.fail_after(10):
            while not silent.ended:
                await silent.news.wait()
        assert silent.taken == 1
        assert _connections(node, peer) == 1


async def test_a_second_caller_does_not_wait_for_the_first_ones_dead_address(start_node) -> None:
    node, peer = await start_node(1), await start_node(2)
    async with _silent() as silent, trio.open_nursery() as nursery:
        with trio.fail_after(ADDRESS_S - 0.5):
            nursery.start_soon(node._dialler.connect, id_of(peer.key), [Multiaddr(silent.address)])
            while not silent.taken:
                await trio.testing.wait_all_tasks_blocked(0.01)
            await node.connect(peer.addresses()[0])
    assert _connections(node, peer) == 1


async def test_a_failure_is_not_held_against_the_peer(start_node) -> None:
    node, peer = await start_node(1), await start_node(2)
    name = peer.addresses()[0].partition("/p2p/")[2]
    with trio.fail_after(10):
        for _ in range(3):
            with pytest.raises(NetworkError) as caught:
                await node.connect(f"{NOBODY}/p2p/{name}")
            assert caught.value.code is Code.PEER_UNREACHABLE
            assert NOBODY in caught.value.message
        await node.connect(peer.addresses()[0])
        assert _connections(node, peer) == 1


async def test_several_callers_with_addresses_of_their_own_come_to_one_connection(start_node) -> None:
    node, peer = await start_node(1), await start_node(2)
    good = Multiaddr(peer.addresses()[0].partition("/p2p/")[0])
    port = str(good).rpartition("/")[2]
    others = [Multiaddr(f"/ip4/127.0.0.{last}/tcp/{port}") for last in range(2, 6)]  # refused, all of them
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for address in (good, *others):
                nursery.start_soon(node._dialler.connect, id_of(peer.key), [address])
        assert _connections(node, peer) == 1
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert _connections(peer, node) == 1
