"""What a node remembers of those it has met is bounded, and never at the cost of itself or of those who are there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256

import trio
from nacl.signing import SigningKey

from fallow.node.network.acquaintances import PEERS_MAX
from fallow.node.network.host import swarm_of
from fallow.node.network.identity import Multiaddr, id_of
from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.seam import Validator

VALIDATOR = Validator(lambda key, value: None, lambda key, values: 0)
StartNode = Callable[..., Awaitable[Mesh]]


async def test_a_node_that_met_thousands_can_still_sign_and_knows_who_is_there(start_node: StartNode) -> None:
    first = await start_node(1)
    other = await start_node(2, first.addresses())
    store = swarm_of(first._host).peerstore
    somewhere = Multiaddr("/ip4/192.0.2.1/tcp/1")
    for number in range(3 * PEERS_MAX):  # half of them with an address, as identify tells of clients and of servers
        stranger = id_of(sha256(b"stranger %d" % number).digest())
        store.add_addrs(stranger, [somewhere] if number % 2 else [], 3600)
    assert len(store.peer_ids()) <= PEERS_MAX
    assert other.key in first.peers()
    assert store.has_peer(id_of(sha256(b"stranger %d" % (3 * PEERS_MAX - 1)).digest()))
    with trio.fail_after(10):
        await first.put("/test/x", b"ok")  # signed, whoever takes it


async def test_of_those_who_left_nothing_is_kept_that_nobody_bounds(start_node: StartNode) -> None:
    first = await start_node(1)
    connector = swarm_of(first._host).auto_connector
    async with open_network(bytes(32), [], first.addresses(), VALIDATOR, mode="client"):
        peer = id_of(bytes(SigningKey(bytes(32)).verify_key))
        assert peer in swarm_of(first._host).get_connections_map()
    connector.record_disconnect(peer)  # as the swarm says of each
    assert not connector._recent_disconnects
