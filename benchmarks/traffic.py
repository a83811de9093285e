"""What discovery costs at ten thousand, a million and a hundred million nodes: the table of spec/rationale.md, computed.

    python benchmarks/traffic.py

Bytes are measured: between two real nodes on the loopback of a network namespace, every header counted, and the encodings of
what the answers of a full table have more. How many peers one search asks is counted, among so many index nodes whose
tables are filled as Kademlia fills them: it ends when the `FANOUT` closest have answered. The rest is the arithmetic of
`Population`, which the page gives as formulas.
"""

from __future__ import annotations

import math
import random
import secrets
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from statistics import mean
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
from fallow.node.network.idle import IDLE_S
from fallow.node.network.mesh import open_network
from fallow.node.network.table_rules import profile_rules
from fallow.node.network.walk import FANOUT
from fallow.node.presence import ANNOUNCE_S
from fallow.node.probing import EVERY_S, PEERS_MAX
from fallow.protocol.messages import PROBE_PROTOCOL, PROFILE_PROTOCOL, Probe, ProfileRequest, encode_message
from fallow.protocol.names import profile_key, provider_key

NODES: Final = (10**4, 10**6, 10**8)
DAY_S: Final = 86_400.0
PARKED: Final = 0.95
"""Of its time a car stands: surveys say 92 to 96 %."""
TRIPS_DAY: Final = 3.0
"""Of a car; each is a leaving and a coming back."""
INDEX_SHARE: Final = 0.01
"""Sites and hosts that can be dialled, and keep the table. Cars and robots, behind relays, do not."""
KEYS: Final = 2
"""Provider records of a node: its bundle, for the world and for its region."""
POPULAR: Final = 0.1
"""Of all nodes serve the bundle that most serve."""
SEARCHES_DAY: Final = 50.0
"""Of a client; there are as many clients as nodes. One that knows live nodes does not search."""
RELAYS: Final = 2
"""Connections that a car keeps while nothing happens."""
SHARD_PROVIDERS: Final = 128
"""Under one key, at most: half of what an index node keeps of one, so that it may double before anybody looks again."""
LINGER_S: Final = IDLE_S
"""For so long a connection stays after its last use; it costs `idle_s` meanwhile."""
INDEX_ADDRESS: Final = "/ip4/198.51.100.1/tcp/40404"
RELAYED_ADDRESSES: Final = (f"{INDEX_ADDRESS}/p2p/{id_of(bytes(32))}/p2p-circuit",) * RELAYS
SPARING: Final = {"announce_s": 900.0, "linger_s": 60.0}
"""What would be, for comparison: a profile lives for 1800 s, and 60 s of silence cost as much as a new connection."""
STANDING_MAX: Final = 192
"""Connections that others began, of an index node."""
BEGUN_S: Final = 3.0
QUIET_S: Final = 30.0
ROUNDS: Final = 20
SEARCHES: Final = 20


@dataclass(frozen=True, slots=True)
class Bytes:
    """On the wire, both ways together, all headers included."""

    ask: float
    """One question of a search, and its answer of `FANOUT` peers."""
    provider: float
    """Further bytes of such an answer for each provider that it names."""
    put: float
    """A node's profile given to one index node, and its yes."""
    provide: float
    """The same of a provider record."""
    connect: float
    """A connection begun, with both sides identified, and ended."""
    profile: float
    """A question for a profile and its answer, on a fresh stream."""
    probe: float
    """A probe and its answer, on one that stands."""
    idle_s: float
    """A connection on which nothing happens, each second."""


@dataclass(frozen=True, slots=True)
class Population:
    """So many nodes, of which a few are the index, and what follows for each. Rates are in bytes per second."""

    nodes: int
    asked: float
    """Peers that one search asks."""
    wire: Bytes
    announce_s: float = ANNOUNCE_S
    linger_s: float = LINGER_S

    @property
    def index(self) -> float:
        return self.nodes * INDEX_SHARE

    @property
    def search(self) -> float:
        """Bytes of a search, on connections that stand."""
        return self.asked * self.wire.ask

    @property
    def announce(self) -> float:
        """Bytes: a search for each key, and a record for each of the `FANOUT` closest; on connections that still stand, or
        on new ones."""
        connect = self.wire.connect if self.linger_s < self.announce_s else 0.0
        searches = (1 + KEYS) * self.asked * (self.wire.ask + connect)
        return searches + FANOUT * (self.wire.put + KEYS * self.wire.provide)

    @property
    def announcing(self) -> float:
        return PARKED * self.announce / self.announce_s

    @property
    def returning(self) -> float:
        """Joining, a connection to each peer that is asked, and announcing at once."""
        contacts = (2 + KEYS if self.linger_s >= self.announce_s else 1) * self.asked
        return TRIPS_DAY / DAY_S * (contacts * self.wire.connect + self.search + self.announce)

    @property
    def measuring(self) -> float:
        return PARKED * PEERS_MAX * self.wire.probe / EVERY_S

    @property
    def standing(self) -> float:
        """Connections of a node: to its relays, and to whom it asked of late."""
        return RELAYS + min(1.0, self.linger_s / self.announce_s) * (1 + KEYS) * self.asked

    @property
    def idling(self) -> float:
        return PARKED * self.standing * self.wire.idle_s

    @property
    def node(self) -> float:
        return self.announcing + self.returning + self.measuring + self.idling

    @property
    def searching(self) -> float:
        """For clients, by all index nodes together and for each node that there is."""
        return SEARCHES_DAY / DAY_S * (self.search + self.asked * SHARD_PROVIDERS / 2 * self.wire.provider)

    @property
    def index_node(self) -> float:
        """What an index node has to do with others, its own announcements left out."""
        share = (self.announcing + self.returning + self.searching) / INDEX_SHARE
        return share + min(STANDING_MAX, self.standing / INDEX_SHARE) * self.wire.idle_s

    @property
    def popular(self) -> float:
        """Providers of the bundle that most serve."""
        return POPULAR * PARKED * self.nodes

    @property
    def depth(self) -> int:
        """Of shards: so many halvings leave at most `SHARD_PROVIDERS` under one key."""
        return max(0, math.ceil(math.log2(self.popular / SHARD_PROVIDERS)))

    def holder(self, depth: int) -> float:
        """Records of one popular key that reach each of the index nodes that hold it, a second."""
        return self.popular / float(2**depth) / self.announce_s


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
        ("profile", "a question for a profile, and the answer"),
        ("probe", "a probe, and the answer"),
        ("idle_s", "a connection on which nothing happens, each second"),
    ):
        table.cells(text, f"{getattr(wire, name):,.0f}")
    print()
    asked = {nodes: counted(int(nodes * INDEX_SHARE)) for nodes in NODES}
    for name, pace in (("nodes", {}), ("nodes, sparing", SPARING)):
        populations = [Population(nodes, asked[nodes], wire, **pace) for nodes in NODES]
        table.head(name, *(f"{each.nodes:,}" for each in populations))
        for what, of in ROWS:
            table.cells(what, *(of(each) for each in populations))
        print()


def rate(bytes_s: float) -> str:
    return f"{bytes_s / 1000:,.2f} KB/s"


ROWS: Final[tuple[tuple[str, Callable[[Population], str]], ...]] = (
    ("index nodes", lambda each: f"{each.index:,.0f}"),
    ("peers that a search asks", lambda each: f"{each.asked:.0f}"),
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


def records(each: Population) -> float:
    return PARKED * (1 + KEYS) * FANOUT / INDEX_SHARE


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
        value, profile = presence._profiles.encode(), encode_message(ProfileRequest())
        other, bundle = profile_key(bytes(32)), provider_key(bytes(32))
        await node.get(other)

        async def cost(call: Callable[[], Awaitable[object]]) -> float:
            """Bytes of one call, of several."""
            before, began = hosts.loopback_bytes(), trio.current_time()
            for _ in range(ROUNDS):
                await call()
            moved = hosts.loopback_bytes() - before
            return (moved - idle_s * (trio.current_time() - began)) / ROUNDS

        get, find = await cost(lambda: node.get(other)), await cost(lambda: node.find(bundle))
        provided = await cost(lambda: node.provide(bundle))
        kept = await cost(lambda: node.put(profile_key(node.key), value))
        asked = await cost(lambda: node.request(server.key, PROFILE_PROTOCOL, profile))
        stream = await node.open(server.key, PROBE_PROTOCOL)

        async def probe() -> None:
            await stream.send(encode_message(Probe(secrets.token_bytes(16), None)))
            await stream.receive()

        return Bytes(
            ask=get + FANOUT * len(entry(INDEX_ADDRESS)),
            provider=len(entry(*RELAYED_ADDRESSES)),
            put=kept - get,
            provide=provided - find,
            connect=connect,
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


def counted(index: int) -> float:
    """How many peers a search asks among so many index nodes; the mean of several."""
    crowd = Crowd(index)
    return mean(crowd.search() for _ in range(SEARCHES))


class Crowd:
    """Index nodes, as places in Kademlia's space, each with a table of up to `FANOUT` peers in each bucket."""

    def __init__(self, count: int) -> None:
        self._chance = random.Random(count)
        self._places = sorted(self._chance.getrandbits(256) for _ in range(count))

    def search(self) -> int:
        """By one of them, for a place that nobody has: so many others were asked until the closest had answered."""
        target = self._chance.getrandbits(256)
        known = set(self._closest(self._chance.choice(self._places), target))
        asked: set[int] = set()
        while ahead := [each for each in nsmallest(FANOUT, known, key=target.__xor__) if each not in asked]:
            asked.add(ahead[0])
            known.update(self._closest(ahead[0], target))
        return len(asked)

    def _closest(self, own: int, target: int) -> list[int]:
        """Of the table of `own`: bucket by bucket, from the target's outwards."""
        shared = 256 - (own ^ target).bit_length()
        found: list[int] = []
        for bits in (*range(shared, 256), *range(shared - 1, -1, -1)):
            found += self._bucket(own, bits)
            if len(found) >= FANOUT:
                break
        return nsmallest(FANOUT, found, key=target.__xor__)

    def _bucket(self, own: int, bits: int) -> list[int]:
        """Of those that share exactly so many bits with `own`, always the same."""
        width = 255 - bits
        low = (own >> width ^ 1) << width
        first, end = bisect_left(self._places, low), bisect_left(self._places, low + (1 << width))
        chosen = range(first, end)
        if end - first > FANOUT:
            return [self._places[each] for each in random.Random(own ^ bits).sample(chosen, FANOUT)]
        return [self._places[each] for each in chosen]


if __name__ == "__main__":
    main()
