"""What discovery costs at ten thousand, a million and a hundred million nodes: the table of spec/rationale.md, computed.

    python benchmarks/traffic.py

Bytes are measured: between two real nodes on the loopback of a network namespace, every header counted, and the encodings of
what the answers of a full table have more. How many peers one search asks is counted: the network's own `Walk`,
among so many index nodes whose tables are filled as Kademlia fills them. The rest is the arithmetic of
`Expected` in `testnet/simnet/traffic.py`, which the page gives as formulas.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import hosts
import table
import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from multiaddr import Multiaddr
from nacl.signing import SigningKey

from fallow.node.log import wall_ms
from fallow.node.network.identity import id_of
from fallow.node.network.idle import IDLE_S, PASSING_S
from fallow.node.network.mesh import open_network
from fallow.node.network.table_rules import profile_rules
from fallow.node.network.walk import FANOUT
from fallow.protocol.messages.codec import encode_message
from fallow.protocol.messages.discovery import Probe, ProfileRequest
from fallow.protocol.names import profile_key, provider_key
from fallow.protocol.streams import PROBE_PROTOCOL, PROFILE_PROTOCOL
from fallow.testnet.simnet.events.searching import sampled
from fallow.testnet.simnet.traffic import INDEX_SHARE, KEYS, PARKED, RELAYS, Bytes, Expected

NODES: Final = (10**4, 10**6, 10**8)
INDEX_ADDRESS: Final = "/ip4/198.51.100.1/tcp/40404"
RELAYED_ADDRESSES: Final = (f"{INDEX_ADDRESS}/p2p/{id_of(bytes(32))}/p2p-circuit",) * RELAYS
BEGUN_S: Final = 15.0
QUIET_S: Final = 66.0
ROUNDS: Final = 20
SEED: Final = 1


def main() -> None:
    hosts.in_own_network()
    hosts.raise_descriptors()
    wire = trio.run(measured)
    table.head("on the wire", "bytes")
    for name, text in (
        ("ask", f"a question of a search, answered with {FANOUT} peers"),
        ("provider", "  each provider in such an answer"),
        ("put", "a profile, to one index node"),
        ("provide", "a provider record, to one index node"),
        ("connect", "a connection, with both sides identified"),
        ("passing", "a connection for one question of the table, without it"),
        ("profile", "a question for a profile, and the answer"),
        ("probe", "a probe, and the answer"),
        ("idle_s", "a connection on which nothing happens, each second"),
    ):
        table.cells(text, f"{getattr(wire, name):,.0f}")
    print()
    populations = []
    for nodes in NODES:
        searching = sampled(int(nodes * INDEX_SHARE), 0.0, 0.0, SEED)
        populations.append(Expected(nodes, searching.asked, searching.told, wire))
    table.head("nodes", *(f"{each.nodes:,}" for each in populations))
    for what, of in ROWS:
        table.cells(what, *(of(each) for each in populations))


def rate(bytes_s: float) -> str:
    return f"{bytes_s / 1000:,.2f} KB/s"


ROWS: Final[tuple[tuple[str, Callable[[Expected], str]], ...]] = (
    ("index nodes", lambda each: f"{each.index:,.0f}"),
    ("peers that a search asks", lambda each: f"{each.asked:.0f}"),
    ("peers that keep a record", lambda each: f"{each.told:.0f}"),
    ("a node: announcing", lambda each: rate(each.announcing)),
    ("  coming back", lambda each: rate(each.returning)),
    ("  measuring itself", lambda each: rate(each.measuring)),
    ("  connections that stand", lambda each: f"{each.standing:.0f}: {rate(each.idling)}"),
    ("  together (aim 1 KB/s)", lambda each: rate(each.node)),
    ("an index node, for others", lambda each: rate(each.index_node)),
    ("  provider records and profiles that it keeps", lambda each: f"{records(each):,.0f}"),
    ("providers of the most popular bundle", lambda each: f"{each.popular:,.0f}"),
    ("  records a second at each holder of its key, one shard", lambda each: f"{each.holder(0):,.1f}"),
    ("  depth of its shards", lambda each: str(each.depth)),
    ("  records a second at each holder then", lambda each: f"{each.holder(each.depth):.2f}"),
)


def records(each: Expected) -> float:
    return PARKED * (1 + KEYS) * each.told / INDEX_SHARE


async def measured() -> Bytes:
    """By two nodes of this process over its own loopback."""
    rules = profile_rules(wall_ms)
    connect, idle_s = await connection()
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        server = await stack.enter_async_context(open_network(secrets.token_bytes(32), [hosts.LOOPBACK], [], rules))
        key = SigningKey.generate()
        node = await stack.enter_async_context(open_network(bytes(key), [hosts.LOOPBACK], server.addresses(), rules))
        presence, survey = hosts.make_presence(scratch, key, node, {"announced": 0})
        server.serve(PROBE_PROTOCOL, survey.probing.answer)
        server.serve(PROFILE_PROTOCOL, presence.answer)
        value, profile = presence._published().encode(), encode_message(ProfileRequest())
        other, bundle = profile_key(bytes(32)), provider_key(bytes(32))
        await node.get(other)

        async def cost(call: Callable[[], Awaitable[object]]) -> float:
            """Bytes of one call, of several."""
            before, began = hosts.loopback_bytes(), trio.current_time()
            for _ in range(ROUNDS):
                await call()
            moved = hosts.loopback_bytes() - before
            return (moved - idle_s * (trio.current_time() - began)) / ROUNDS

        get = await cost(lambda: node.get(other))
        # A record is said again to those who took it, without another search: the first time is left out.
        await node.provide(bundle)
        await node.put(profile_key(node.key), value)
        provided = await cost(lambda: node.provide(bundle))
        kept = await cost(lambda: node.put(profile_key(node.key), value))
        asked = await cost(lambda: node.request(server.key, PROFILE_PROTOCOL, profile))

        async def ended(unused_s: float) -> None:
            node._trimmer.trim(trio.current_time() + unused_s + 1)
            while node.peers() or server.peers():  # noqa: ASYNC110 - nobody is told
                await trio.sleep(0.01)

        async def passing() -> None:
            await node.get(other)
            await ended(PASSING_S)

        await ended(IDLE_S)
        node._table._kad.serves = False  # like most nodes, it does not say with each question where it is
        passed = await cost(passing)
        stream = await node.open(server.key, PROBE_PROTOCOL)

        async def probe() -> None:
            await stream.send(encode_message(Probe(secrets.token_bytes(16), None)))
            await stream.receive()

        return Bytes(
            ask=get + FANOUT * len(entry(INDEX_ADDRESS)),
            provider=len(entry(*RELAYED_ADDRESSES)),
            put=kept,
            provide=provided,
            connect=connect,
            passing=passed - get,
            profile=asked,
            probe=await cost(probe),
            idle_s=idle_s,
        )


async def connection() -> tuple[float, float]:
    """Bytes of a connection's beginning, and of one on which nothing happens, a second."""
    rules = profile_rules(wall_ms)
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(open_network(secrets.token_bytes(32), [hosts.LOOPBACK], [], rules))
            for _ in range(2)
        ]
        before = hosts.loopback_bytes()
        await one.connect(other.addresses()[0])
        await trio.sleep(BEGUN_S)
        begun = hosts.loopback_bytes()
        await trio.sleep(QUIET_S)
        idle_s = (hosts.loopback_bytes() - begun) / QUIET_S
        return begun - before - BEGUN_S * idle_s, idle_s


def entry(*addresses: str) -> bytes:
    """One peer in an answer."""
    listed = [Multiaddr(address).to_bytes() for address in addresses]
    message = Message(closerPeers=[Message.Peer(id=id_of(bytes(32)).to_bytes(), addrs=listed)])
    return bytes(message.SerializeToString())


if __name__ == "__main__":
    main()
