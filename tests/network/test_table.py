"""The table over a handful of nodes: what it finds, and what it does not believe."""

from __future__ import annotations

import pytest
import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message

from fallow.node.network.identity import id_of
from fallow.node.network.kad import KAD_ID
from fallow.node.network.seam import Validator
from fallow.protocol.errors import Code, FallowError, NetworkError
from fallow.protocol.streams import CONTROL_PROTOCOL

KEY = "/fallow/" + "k" * 43


async def _mesh(start_node, count: int) -> list:
    first = await start_node(0)
    return [first] + [await start_node(number, first.addresses()) for number in range(1, count)]


async def test_the_newest_value_is_what_everybody_gets(start_node) -> None:
    nodes = await _mesh(start_node, 5)
    with trio.fail_after(30):
        assert await nodes[1].get(KEY) is None
        for version in (b"ok 1", b"ok 2", b"ok 3"):
            assert await nodes[1].put(KEY, version) == 4
            for node in nodes:
                assert await node.get(KEY) == version


@pytest.mark.spec("D-37")
async def test_a_question_has_the_same_answer_on_either_kind_of_stream(start_node) -> None:
    first, *_, node = await _mesh(start_node, 4)
    table, peer = node._table._kad, id_of(first.key)
    with trio.fail_after(30):
        await node.put(KEY, b"ok")
        await node.provide("serve/x")
        for kind, key in ((Message.FIND_NODE, b"x"), (Message.GET_VALUE, KEY), (Message.GET_PROVIDERS, "serve/x")):
            question = table.message(kind, key if isinstance(key, bytes) else key.encode())
            raw = question.SerializeToString()
            answers = [
                Message.FromString((await ask(peer, *words, raw, ()))[0])
                for ask, words in ((table._over_its_own_stream, ()), (table._asking.over_control, (KAD_ID,)))
            ]
            assert answers[0].senderRecord and not answers[1].senderRecord  # it has said so before
            answers[0].ClearField("senderRecord")
            assert answers[0] == answers[1]
            assert answers[0].closerPeers


async def test_a_record_is_said_again_to_those_who_took_it_until_some_are_gone(start_node) -> None:
    nodes = await _mesh(start_node, 5)
    table = nodes[1]._table
    searches: list[bytes] = []
    closest = table._closest

    async def counted(target: bytes, start=()) -> list:
        searches.append(target)
        return await closest(target, start)

    table._closest = counted
    with trio.fail_after(30):
        assert [await nodes[1].provide("serve/x") for _ in range(3)] == [4] * 3
        assert len(searches) == 1
        await start_node(9, nodes[0].addresses())  # somebody came: the table knows of more than took it
        while await nodes[1].provide("serve/x") < 5:
            pass
        before = len(searches)
        assert await nodes[1].provide("serve/x") == 5
        assert len(searches) == before
        for node in nodes[3:]:
            await node._host.close()
        assert await nodes[1].provide("serve/x") == 3
        assert len(searches) == before + 1


async def test_who_was_late_is_told_the_next_time(start_node, monkeypatch) -> None:
    nodes = await _mesh(start_node, 6)
    table, late = nodes[1]._table._kad, {id_of(node.key) for node in nodes[3:]}
    in_time, exchange = trio.Event(), table.exchange

    async def held_up(peer, *words):
        if peer in late:
            await in_time.wait()
        return await exchange(peer, *words)

    monkeypatch.setattr(table, "exchange", held_up)
    with trio.fail_after(30):
        while await nodes[1].provide("serve/x") != 2:  # the search ended without them
            pass
        in_time.set()
        while await nodes[1].provide("serve/x") < 5:
            pass


async def test_who_knows_no_control_streams_is_asked_all_the_same(start_node) -> None:
    nodes = await _mesh(start_node, 4)
    for node in nodes:
        node._host.get_mux().handlers.pop(CONTROL_PROTOCOL)
    with trio.fail_after(30):
        assert await nodes[1].put(KEY, b"ok") == 3
        assert await nodes[2].get(KEY) == b"ok"


@pytest.mark.spec("D-3")
async def test_a_value_against_the_rules_is_kept_by_nobody(start_node) -> None:
    nodes = await _mesh(start_node, 4)
    with trio.fail_after(30):
        with pytest.raises(FallowError) as caught:
            await nodes[1].put(KEY, b"forged")
        assert caught.value.code is Code.BAD_RECORD
        nodes[1]._table._validator = Validator(lambda key, value: None, lambda key, values: 0)
        assert await nodes[1].put(KEY, b"forged") == 0
        assert await nodes[2].get(KEY) is None
        with pytest.raises(NetworkError) as too_large:
            await nodes[1].put(KEY, b"ok" * 10_000)
        assert too_large.value.code is Code.TOO_LARGE


async def test_every_provider_is_found_once_also_by_those_who_provide(start_node) -> None:
    nodes = await _mesh(start_node, 6)
    key = "serve/" + "b" * 59 + "/u09/3"  # longer than libp2p's lookups allow
    with trio.fail_after(30):
        for node in nodes[1:5]:
            while await node.provide(key) < 5:
                pass  # on a busy machine somebody may be late
            assert await node.provide(key) == 5
        for node in nodes:
            found = await node.find(key)
            assert sorted(provider.peer for provider in found) == sorted(n.key for n in nodes[1:5] if n is not node)
        provider = found[0]
        assert provider.addresses in [node.addresses() for node in nodes]


async def test_the_mesh_outlives_its_bootstrap(start_peer, start_node) -> None:
    bootstrap = await start_peer(0)
    nodes = [await start_node(number, bootstrap.addresses) for number in range(1, 7)]
    client = await start_node(7, bootstrap.addresses, listen="", mode="client")

    async def hello(stream) -> None:
        await stream.send(b"hello")

    for node in nodes:
        node.serve("/test/hello", hello)
    with trio.fail_after(40):
        await nodes[0].provide("serve/before")
        await bootstrap.kill()
        await nodes[1].provide("serve/after")
        for key, expected in (("serve/before", nodes[0]), ("serve/after", nodes[1])):
            [provider] = await client.find(key)
            assert provider.peer == expected.key
            stream = await client.open(provider.peer, "/test/hello", provider.addresses)
            assert await stream.receive() == b"hello"
        for node in nodes:
            await node.put(KEY, b"ok " + node.key.hex().encode())
        assert await client.get(KEY) == max(b"ok " + node.key.hex().encode() for node in nodes)


async def test_frozen_peers_do_not_hold_up_a_search(start_peer, start_node) -> None:
    first = await start_node(0)
    frozen = [await start_peer(number, first.addresses()) for number in (1, 2)]
    nodes = [first] + [await start_node(number, first.addresses()) for number in range(3, 7)]
    with trio.fail_after(30):
        await nodes[1].provide("serve/x")
        await nodes[1].put(KEY, b"ok")
    for peer in frozen:
        peer.freeze()
    with trio.fail_after(10):
        assert [provider.peer for provider in await nodes[2].find("serve/x")] == [nodes[1].key]
        assert await nodes[3].get(KEY) == b"ok"


async def test_a_client_is_found_by_nobody_and_finds_everything(start_peer, start_node) -> None:
    peer = await start_peer(1)
    client = await start_node(2, peer.addresses, listen="", mode="client")
    with trio.fail_after(20):
        assert client.addresses() == ()
        assert await peer.call("provide", "serve/y") == 0  # nobody else keeps a part of the table
        assert [provider.peer for provider in await client.find("serve/y")] == [peer.key]
        assert await client.put(KEY, b"ok client") == 1
        assert await peer.call("get", KEY) == "ok client"


async def test_unreachable_bootstraps_are_named(start_node) -> None:
    gone = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
    with pytest.raises(NetworkError) as caught:
        await start_node(1, [gone])
    assert caught.value.code is Code.BOOTSTRAP_UNREACHABLE
    assert gone in caught.value.message


async def test_one_live_bootstrap_is_enough(start_node) -> None:
    gone = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
    first = await start_node(1)
    second = await start_node(2, [gone, *first.addresses()])
    assert second.peers() == [first.key]


async def test_who_was_known_before_is_joined_by_if_nobody_else_answers(start_node) -> None:
    gone = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
    first = await start_node(1)
    other = await start_node(2)
    assert (await start_node(3, other.addresses(), known=first.addresses())).peers() == [other.key]
    for number, bootstrap in ((4, []), (5, [gone])):
        assert (await start_node(number, bootstrap, known=[gone, *first.addresses()])).peers()[0] == first.key
    assert (await start_node(6, known=[gone])).peers() == []
    for bootstrap in ([], [gone]):
        with pytest.raises(NetworkError, match="known from before") as caught:
            await start_node(7, bootstrap, listen="", mode="client", known=[gone])
        assert caught.value.code is Code.BOOTSTRAP_UNREACHABLE


async def test_a_peer_is_where_it_was_dialled_and_a_client_is_nowhere(start_node) -> None:
    server = await start_node(1)
    client = await start_node(2, server.addresses(), listen="", mode="client")
    assert server.addresses()[0] in client.whereabouts(server.key)
    assert server.whereabouts(client.key) == ()
    assert client.whereabouts(bytes(32)) == ()
    assert not client.relayed(server.key) and not client.relayed(bytes(32))


async def test_listening_anywhere_announces_an_address_that_can_be_dialled(start_node) -> None:
    first = await start_node(1, listen="/ip4/0.0.0.0/tcp/0")
    [address] = first.addresses()
    assert "/0.0.0.0/" not in address
    second = await start_node(2, [address])
    assert second.peers() == [first.key]


async def test_a_busy_port_is_named(start_node) -> None:
    first = await start_node(1)
    [address] = first.addresses()
    taken = address.partition("/p2p/")[0]
    with pytest.raises(NetworkError) as caught:
        await start_node(2, listen=taken)
    assert caught.value.code is Code.PORT_BUSY
    assert taken.rpartition("/")[2] in caught.value.message
