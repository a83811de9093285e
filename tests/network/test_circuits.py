"""Relays and those behind them, all on loopback: who may be reached how, what a relay refuses, what it carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, PeerId, Status

from fallow.node.network.circuit import HOP_ID, hear_untrusted, tell
from fallow.node.network.identity import id_of
from fallow.node.network.introductions import Introductions
from fallow.node.network.mesh import Mesh
from fallow.node.network.reach import Caps, Reach
from fallow.node.network.relaying import Relay
from fallow.node.network.seam import Stream
from fallow.protocol.errors import Code, NetworkError
from fallow.protocol.names import relay_key

ECHO = "/test/echo"
KEYS = (relay_key(),)
BEHIND = Reach("relayed", relay_keys=KEYS)


async def echo(stream: Stream) -> None:
    while True:
        await stream.send(await stream.receive())


@pytest.fixture
async def start_relay(start_node) -> Callable[..., Awaitable[Mesh]]:
    """A relay that the table names."""

    async def start(number: int, bootstrap=(), **caps: int) -> Mesh:
        relay = await start_node(number, bootstrap, reach=Reach(relay=replace(Caps(), **caps)))
        await relay.provide(relay_key())
        return relay

    return start


async def until(holds: Callable[[], object]) -> None:
    """Returns once it holds: what libp2p does in the background tells nobody."""
    with trio.fail_after(20):
        while not holds():  # noqa: ASYNC110
            await trio.sleep(0.02)


def introduce(node: Mesh) -> None:
    """Whoever is connected to the node is asked who it is, as those are who stay."""
    introductions = Introductions(node._host)
    introductions.look()
    introductions.look()


async def reached_through(node: Mesh, count: int) -> tuple[str, ...]:
    """The addresses, once the node has so many relays."""
    with trio.fail_after(20):
        while len(node.reachability().relays) != count:
            await node.moved(node.addresses())
    return node.addresses()


async def test_a_node_behind_relays_is_found_and_reached_through_two_of_them(start_node, start_relay) -> None:
    first = await start_relay(1)
    second = await start_relay(2, first.addresses())
    third = await start_relay(3, first.addresses())
    home = await start_node(4, first.addresses(), reach=BEHIND)
    home.serve(ECHO, echo)
    addresses = await reached_through(home, 2)
    assert len(addresses) == 2
    relays = {relay.key for relay in (first, second, third)}
    assert set(home.reachability().relays) < relays
    for address in addresses:
        assert "/p2p-circuit/p2p/" in address

    stranger = await start_node(5, second.addresses(), mode="client", listen="")
    with trio.fail_after(10):
        assert await stranger.request(home.key, ECHO, b"hello", addresses[:1]) == b"hello"
        await home.provide("serve/x")
        (found,) = await stranger.find("serve/x")
    assert (found.peer, set(found.addresses)) == (home.key, set(addresses))


@pytest.mark.spec("D-31")
async def test_what_a_node_tells_of_itself_holds_no_address_of_its_own(start_node, start_relay) -> None:
    relay = await start_relay(1)
    home = await start_node(4, relay.addresses(), reach=BEHIND)
    own = {str(address) for address in home._host.get_transport_addrs()}
    stranger = await start_node(5, relay.addresses(), mode="client", listen="")

    def told() -> set[str]:
        """All that the peers know of its addresses, by identify, the table or otherwise."""
        return {each for node in (relay, stranger) for each in node.whereabouts(home.key)}

    (address,) = await reached_through(home, 1)
    with trio.fail_after(20):
        await home.provide("serve/x")
        home.serve(ECHO, echo)
        assert await stranger.request(home.key, ECHO, b"hello", [address]) == b"hello"
    introduce(relay)
    await until(lambda: f"{address.split('/p2p/12')[0]}" in str(told()))
    assert own.isdisjoint(told())
    assert all("/p2p-circuit" in each for each in told())


@pytest.mark.spec("D-31")
async def test_a_node_without_a_relay_tells_nothing(start_node) -> None:
    first = await start_node(1)
    home = await start_node(4, first.addresses(), reach=BEHIND)
    assert home.addresses() == ()
    store = first._host.get_peerstore()
    introduce(first)
    await until(
        lambda: id_of(home.key) in store.peer_ids() and store.get_protocols(id_of(home.key))
    )  # it has said who it is
    assert [str(each) for each in store.addrs(id_of(home.key))] in ([], [f"/p2p-circuit/p2p/{id_of(home.key)}"])


async def test_a_relay_that_dies_is_replaced(start_node, start_relay) -> None:
    first = await start_relay(1)
    second = await start_relay(2, first.addresses())
    home = await start_node(4, first.addresses(), reach=replace(BEHIND, relays_wanted=1))
    await reached_through(home, 1)
    dying, other = sorted((first, second), key=lambda relay: relay.key not in home.reachability().relays)
    with trio.fail_after(5):
        await dying._host.close()
    with trio.fail_after(20):
        while home.reachability().relays != (other.key,):
            await home.moved(home.addresses())


async def test_a_reservation_is_renewed_before_it_ends(start_node, start_relay) -> None:
    relay = await start_relay(1, reservation_s=2)
    home = await start_node(4, relay.addresses(), reach=BEHIND)
    await reached_through(home, 1)
    ledger = relay._ways._relay.ledger
    granted = ledger.expires_s(id_of(home.key))
    await until(lambda: ledger.expires_s(id_of(home.key)) > granted + 2)
    assert home.reachability().relays == (relay.key,)


@pytest.mark.spec("D-33")
async def test_a_full_relay_refuses_with_its_reason(start_node, start_relay) -> None:
    relay = await start_relay(1, reservations=1)
    home = await start_node(4, relay.addresses(), reach=BEHIND)
    await reached_through(home, 1)
    late = await start_node(5, relay.addresses(), reach=BEHIND)
    await until(lambda: late.reachability().why)
    assert late.addresses() == ()
    assert late.reachability().why.endswith("refuses: it has lent all its reservations.")
    with pytest.raises(NetworkError, match="the other end holds no reservation there") as refused:
        await home.open(late.key, ECHO, [f"{relay.addresses()[0]}/p2p-circuit"])
    assert refused.value.code is Code.PEER_UNREACHABLE


@pytest.mark.spec("D-33")
async def test_what_comes_over_another_relay_is_refused(start_node, start_relay) -> None:
    """Asked by somebody whom the first relay carries, a second one would not know for whom it lends what."""
    relay = await start_relay(1)
    home = await start_node(4, relay.addresses(), reach=BEHIND)
    second = Relay(home._host, home._tasks, Caps(), home._dialler.connected)
    addresses = await reached_through(home, 1)
    guest = await start_node(5, relay.addresses(), mode="client", listen="")
    home.serve(ECHO, echo)
    with trio.fail_after(20):
        assert await guest.request(home.key, ECHO, b"hello", addresses) == b"hello"
        for asked in (HopMessage.RESERVE, HopMessage.CONNECT):
            stream = await guest._host.new_stream(id_of(home.key), [HOP_ID])
            await tell(stream, HopMessage(type=asked, peer=PeerId(id=id_of(relay.key).to_bytes())))
            assert (await hear_untrusted(stream, HopMessage)).status == Status.PERMISSION_DENIED
    assert second.ledger.carrying == (0, 0)


async def test_a_relay_carries_no_more_circuits_than_it_lends(start_node, start_relay) -> None:
    relay = await start_relay(1, circuits=1)
    home = await start_node(4, relay.addresses(), reach=BEHIND)
    home.serve(ECHO, echo)
    addresses = await reached_through(home, 1)
    one, other = [await start_node(n, relay.addresses(), mode="client", listen="") for n in (5, 6)]
    with trio.fail_after(20):
        assert await one.request(home.key, ECHO, b"1", addresses) == b"1"
        with pytest.raises(NetworkError, match="it carries as much as its owner allows"):
            await other.request(home.key, ECHO, b"2", addresses)


async def test_a_circuit_ends_with_its_bytes(start_node, start_relay) -> None:
    relay = await start_relay(1, circuit_bytes=100_000)
    home = await start_node(4, relay.addresses(), reach=BEHIND)
    home.serve(ECHO, echo)
    addresses = await reached_through(home, 1)
    client = await start_node(5, relay.addresses(), mode="client", listen="")
    with trio.fail_after(20):
        assert await client.request(home.key, ECHO, bytes(20_000), addresses) == bytes(20_000)
        with pytest.raises(NetworkError) as cut:
            await client.request(home.key, ECHO, bytes(100_000), addresses)
        assert cut.value.code is Code.STREAM_CLOSED
        assert await client.request(home.key, ECHO, b"again", addresses) == b"again"  # over a circuit of its own
    assert relay.reachability().circuits <= 1


@pytest.mark.spec("D-32")
async def test_nobody_but_a_relay_of_its_own_choice_brings_connections(start_node, start_relay) -> None:
    relay = await start_relay(1)
    home = await start_node(4, relay.addresses(), reach=BEHIND)
    await reached_through(home, 1)
    stranger = await start_node(5, relay.addresses(), reach=Reach(relay=Caps()))
    with trio.fail_after(10):
        home.go_direct(stranger.key)  # not even connected: nothing happens
        await stranger.connect(home.addresses()[0])
        asked = await stranger._dialler.open(id_of(home.key), "/libp2p/circuit/relay/0.2.0/stop")
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever libp2p makes of a reset
            await asked.read(1)
