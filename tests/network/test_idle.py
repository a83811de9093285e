"""Which connections end because nobody uses them, and which stay."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from libp2p.kad_dht.pb.kademlia_pb2 import Message

from fallow.node.network import idle
from fallow.node.network.identity import bare_addresses, id_of
from fallow.node.network.idle import IDLE_S, PASSING_S, Trimmer
from fallow.node.network.mesh import Mesh
from fallow.node.network.reach import Caps, Reach
from fallow.protocol.names import relay_key

TURNS = 12
"""Of the event loop: by then, a connection that was told to end has ended for both."""


async def echo(stream) -> None:
    while True:
        await stream.send(await stream.receive())


def unused(node: Mesh, after_s: float, spared=frozenset) -> set[bytes]:
    """The peers whose connections to the node would end if so long passed from now on."""
    trimmer = Trimmer(node._host, node._tasks, spared)
    ids = {muxed.peer_id for muxed in trimmer.unused(trio.current_time() + after_s)}
    return {peer for peer in node.peers() if id_of(peer) in ids}


async def settled(*nodes: Mesh) -> None:
    """What follows a connection (identify, for one) is over."""
    with trio.fail_after(20):
        while any(muxed.streams.busy for node in nodes for _, muxed in node._door._standing()):
            await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.fixture
async def client_and_node(start_node) -> tuple[Mesh, Mesh]:
    node = await start_node(1)
    node.serve("/test/echo", echo)
    client = await start_node(2, node.addresses(), mode="client", listen="")
    with trio.fail_after(20):
        await client.request(node.key, "/test/echo", b"the control stream stays open")
    await settled(client, node)
    return client, node


async def test_a_connection_that_nobody_uses_ends_after_a_while(client_and_node) -> None:
    client, node = client_and_node
    for one, other in ((client, node), (node, client)):
        assert unused(one, IDLE_S - 20) == set()
        assert unused(one, IDLE_S + 1) == {other.key}


async def test_a_connection_with_something_under_way_stays(client_and_node) -> None:
    client, node = client_and_node
    with trio.fail_after(20):
        stream = await client.open(node.key, "/test/echo", watched=True)
        await stream.send(b"under way")
        await stream.receive()
        assert unused(node, 10 * IDLE_S) == unused(client, 10 * IDLE_S) == set()
        await stream.close()
        await settled(client, node)
        assert unused(node, IDLE_S - 20) == set()
        assert unused(node, IDLE_S + 1) == {client.key}
        asked = trio.Event()

        async def wait(stream) -> None:
            asked.set()
            await trio.sleep_forever()

        node.serve("/test/wait", wait)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.request, node.key, "/test/wait", b"")
            await asked.wait()
            assert unused(node, 10 * IDLE_S) == unused(client, 10 * IDLE_S) == set()
            nursery.cancel_scope.cancel()


async def test_a_connection_that_was_begun_for_the_table_ends_soon(start_node, monkeypatch) -> None:
    monkeypatch.setattr(idle, "LOOK_S", 3600.0)  # nobody but the test trims
    first = await start_node(1)
    second = await start_node(2, first.addresses())
    second.serve("/test/echo", echo)
    with trio.fail_after(20):
        await second.provide("serve/x")
        node = await start_node(3, first.addresses())
        client = await start_node(4, first.addresses(), mode="client", listen="")
        for one in (node, client):
            assert [found.peer for found in await one.find("serve/x")] == [second.key]
        await settled(first, second, node, client)
        assert unused(node, PASSING_S + 1) == {second.key}  # and not the one that it joined by
        assert unused(client, PASSING_S + 1) == set()
        await node.request(second.key, "/test/echo", b"in passing", passing=True)
        await settled(first, second, node, client)
        assert unused(node, PASSING_S + 1) == {second.key}
        await node.request(second.key, "/test/echo", b"something else")
        assert unused(node, PASSING_S + 1) == set()
        assert unused(node, IDLE_S + 1) >= {first.key, second.key}


async def test_who_said_a_record_and_left_is_found(start_node) -> None:
    first = await start_node(1)
    node = await start_node(2, first.addresses())
    with trio.fail_after(20):
        node._trimmer.trim(trio.current_time() + IDLE_S + 1)
        while node.peers():
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await node.provide("serve/x") == 1
        node._trimmer.trim(trio.current_time() + PASSING_S + 1)
        while node.peers() or first.peers():
            await trio.testing.wait_all_tasks_blocked(0.01)
        client = await start_node(3, first.addresses(), mode="client", listen="")
        assert [found.peer for found in await client.find("serve/x")] == [node.key]


async def test_what_was_trimmed_is_there_again_when_it_is_needed(client_and_node) -> None:
    client, node = client_and_node
    with trio.fail_after(20):
        node._trimmer.trim(trio.current_time() + IDLE_S + 1)
        while client.peers() or node.peers():
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await client.request(node.key, "/test/echo", b"back") == b"back"


async def test_relays_and_those_who_reserved_are_spared(start_node) -> None:
    relay = await start_node(1, reach=Reach(relay=Caps()))
    await relay.provide(relay_key())
    home = await start_node(2, relay.addresses(), reach=Reach("relayed", relay_keys=(relay_key(),)))
    with trio.fail_after(20):
        while home.reachability().relays != (relay.key,):
            await home.moved(home.addresses())
    await settled(relay, home)
    for node, other in ((relay, home), (home, relay)):
        assert unused(node, 10 * IDLE_S) == {other.key}
        assert unused(node, 10 * IDLE_S, node._ways.kept) == set()


@pytest.mark.parametrize("trims", [0, 1])
async def test_what_begins_just_as_its_connection_ends_comes_to_its_end(start_node, monkeypatch, trims: int) -> None:
    monkeypatch.setattr(idle, "LOOK_S", 3600.0)  # nobody but the test trims
    one = await start_node(1)
    other = await start_node(2, one.addresses())
    other.serve("/test/echo", echo)
    table, known = one._table._kad, other._table._kad.index.buckets

    async def told() -> bool:
        """The question is answered, and whoever answers knows where the asker is."""
        known.remove(table.own)
        await table.exchange(id_of(other.key), table.message(Message.FIND_NODE, b"x"))
        return known.get(table.own) is not None

    async def asked() -> bool:
        return await one.request(other.key, "/test/echo", b"x", other.addresses()) == b"x"

    async def opened() -> bool:
        stream = await one.open(other.key, "/test/echo", other.addresses())
        await stream.send(b"x")
        came = await stream.receive()
        await stream.close()
        return came == b"x"

    with trio.fail_after(60):
        for begun in (told, asked, opened):
            for turns in range(TURNS):
                assert await told()
                await settled(one, other)
                (one, other)[trims]._trimmer.trim(trio.current_time() + IDLE_S + 1)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                assert await begun(), (begun.__name__, turns)


async def test_of_two_connections_one_that_ends_fails_no_stream(start_node, monkeypatch) -> None:
    monkeypatch.setattr(idle, "LOOK_S", 3600.0)
    one = await start_node(1)
    other = await start_node(2)
    other.serve("/test/echo", echo)
    peer, [address] = id_of(other.key), bare_addresses(id_of(other.key), other.addresses())
    with trio.fail_after(60):
        for ends in range(2):
            for turns in range(TURNS):
                await one.connect(other.addresses()[0])
                while len(standing := one._dialler.standing(peer)) < 2:
                    await one._dialler._dial(peer, address)
                one._tasks.spawn(standing[ends].close)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                stream = await one.open(other.key, "/test/echo", other.addresses())
                await stream.send(b"x")
                assert await stream.receive() == b"x"
                await stream.close()
                await settled(one, other)
