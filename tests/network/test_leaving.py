"""What a network leaves behind when it ends: nothing, and peers that know."""

from __future__ import annotations

import hashlib

from fallow.node.network.host import CLOSE_S
from fallow.node.network.mesh import open_network

from .conftest import LOOPBACK, VALIDATOR

MANY = 60
"""With libp2p's rest of 0.1 s after each, more than fit into `CLOSE_S`."""


async def test_a_node_with_many_connections_ends_each_of_them(start_node, monkeypatch) -> None:
    assert MANY * 0.1 > CLOSE_S
    ended = []
    async with open_network(hashlib.sha256(b"who leaves").digest(), [LOOPBACK], (), VALIDATOR) as leaving:
        for number in range(MANY):
            await start_node(number, leaving.addresses(), "", "client")
        connections = leaving._host.get_network().get_connections()
        assert len(connections) == MANY
        for connection in connections:
            monkeypatch.setattr(connection, "_notify_disconnected", _then(connection._notify_disconnected, ended))
    assert len(ended) == MANY  # the last thing that libp2p does at the end of each


def _then(call, called: list[bool]):
    async def both() -> None:
        await call()
        called.append(True)

    return both
