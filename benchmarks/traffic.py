"""What discovery costs at ten thousand, a million and a hundred million nodes: the table of spec/rationale.md, computed.

    python benchmarks/traffic.py

Bytes are measured: real nodes on the loopback of a network namespace, real messages, every header counted. How many peers
one search asks is counted: by the search of `node/network/walk.py` itself, over so many index nodes, each of whose tables
is filled as Kademlia would fill it. The rest is the arithmetic of `Population`, which the page gives as formulas.
"""

from __future__ import annotations

import math
import random
import secrets
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Final

import hosts
import table
import trio
from libp2p.peer.id import ID
from nacl.signing import SigningKey

from fallow.node.log import wall_ms
from fallow.node.network.entries import place_of
from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.table_rules import profile_rules
from fallow.node.network.walk import FANOUT, WITNESSES, Named, Walk
from fallow.node.presence import ANNOUNCE_S, MEASURE_S
from fallow.node.vantage import PEERS_MAX, PROBES, measure
from fallow.protocol.messages import PROFILE_PROTOCOL
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
SERVERS: Final = 24
"""For measuring: with so many every answer names as many peers as it may."""
LINGER_S: Final = 600.0
"""For so long a connection stays after its last use; it costs `idle_s` meanwhile."""
SPARING: Final = {"announce_s": 900.0, "measure_s": 600.0, "linger_s": 60.0}
"""What would be, for comparison: a profile lives for 1800 s, and 60 s of silence cost as much as a new connection."""
STANDING_MAX: Final = 192
"""Connections that others began, of an index node."""
QUIET_S: Final = 10.0
ROUNDS: Final = 20
WALKS: Final = 12


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
    probe: float
    """A question for a profile and its answer."""
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
    measure_s: float = MEASURE_S
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
        return PARKED * PEERS_MAX * PROBES * self.wire.probe / self.measure_s

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
        return self.popular / 2**depth / self.announce_s


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
        ("probe", "a question for a profile, and the answer"),
        ("idle_s", "a connection on which nothing happens, each second"),
    ):
        table.cells(text, f"{getattr(wire, name):,.0f}")
    print()
    asked = {nodes: trio.run(counted, int(nodes * INDEX_SHARE)) for nodes in NODES}
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
    """By nodes of this process over its own loopback."""
    rules = profile_rules(wall_ms)
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        one, another = [
            await stack.enter_async_context(open_network(secrets.token_bytes(32), [hosts.LOOPBACK], [], rules))
            for _ in range(2)
        ]
        idle_s, connect = await connection(one, another)
        servers: list[Mesh] = []
        for _ in range(SERVERS):
            bootstrap = servers[0].addresses() if servers else []
            network = open_network(secrets.token_bytes(32), [hosts.LOOPBACK], bootstrap, rules)
            servers.append(await stack.enter_async_context(network))
        key = SigningKey.generate()
        node = await stack.enter_async_context(
            open_network(bytes(key), [], servers[0].addresses(), rules, mode="client")
        )
        state = scratch / "node"
        state.mkdir()
        presence = hosts.make_presence(state, key, node, {"measured": 0, "announced": 0})
        value = presence._profiles.encode()
        other, empty, full = profile_key(bytes(32)), provider_key(bytes(32)), provider_key(bytes([1]) * 32)
        for server in servers:
            await server.provide(full)
        servers[0].serve(PROFILE_PROTOCOL, presence.answer)
        for _ in range(2):
            await node.get(other)  # every connection stands now, and every table is full
        before = hosts.loopback_bytes()
        await trio.sleep(QUIET_S)
        noise_s = (hosts.loopback_bytes() - before) / QUIET_S

        async def cost(call: Callable[[], Awaitable[object]]) -> float:
            """Bytes of one call, of several; what crosses the wire without them is left out."""
            began, before = trio.current_time(), hosts.loopback_bytes()
            for _ in range(ROUNDS):
                await call()
            moved = hosts.loopback_bytes() - before
            return (moved - noise_s * (trio.current_time() - began)) / ROUNDS

        get, bare = await cost(lambda: node.get(other)), await cost(lambda: node.find(empty))
        named, provided = await cost(lambda: node.find(full)), await cost(lambda: node.provide(empty))
        kept = await cost(lambda: node.put(profile_key(node.key), value))
        return Bytes(
            ask=get / SERVERS,
            provider=(named - bare) / SERVERS / SERVERS,
            put=(kept - get) / FANOUT,
            provide=(provided - bare) / FANOUT,
            connect=connect,
            probe=await cost(lambda: measure(node, [servers[0].key])) / PROBES,
            idle_s=idle_s,
        )


async def connection(one: Mesh, other: Mesh) -> tuple[float, float]:
    """Bytes a second of an idle connection, and of its beginning."""
    before = hosts.loopback_bytes()
    await one.connect(other.addresses()[0])
    await trio.sleep(2)
    begun = hosts.loopback_bytes()
    await trio.sleep(30)
    idle_s = (hosts.loopback_bytes() - begun) / 30
    return idle_s, begun - before - 2 * idle_s


async def counted(index: int) -> float:
    """How many peers a search asks among so many index nodes; the mean of several."""
    chance = random.Random(index)
    crowd = Crowd(index, chance)
    return mean([await crowd.search(chance.randbytes(32)) for _ in range(WALKS)])


class Crowd:
    """Index nodes that answer as honest ones do: with the closest of a table of `FANOUT` in each bucket."""

    def __init__(self, count: int, chance: random.Random) -> None:
        peers = [ID(chance.randbytes(34)) for _ in range(count)]
        self._places, self._peers = zip(*sorted((place_of(peer.to_bytes()), peer) for peer in peers), strict=True)
        self._chance = chance
        self._own = b"who searches"
        self._asked = 0
        self._nursery: trio.Nursery

    async def search(self, target: bytes) -> int:
        """So many peers were asked."""
        self._asked = 0
        async with trio.open_nursery() as self._nursery:
            await Walk(self._own, target, self, self._ask(target)).run()
            self._nursery.cancel_scope.cancel()
        return self._asked

    def _ask(self, target: bytes) -> Callable[[ID, Sequence[bytes]], Awaitable[Sequence[Named]]]:
        async def ask(peer: ID, _: Sequence[bytes]) -> Sequence[Named]:
            await trio.lowlevel.checkpoint()
            self._asked += 1
            return [(named, ()) for named in self._closest(peer.to_bytes(), target)]

        return ask

    def start(self, target: bytes) -> Sequence[ID]:
        return [*self._closest(self._own, target), *self._chance.sample(self._peers, WITNESSES)]

    def late(self, peer: ID) -> None:
        raise AssertionError("everybody answers")

    lost = late

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(task)

    def _closest(self, whose: bytes, target: bytes) -> list[ID]:
        """Of the table of `whose`: bucket by bucket, from the target outwards."""
        own, place = place_of(whose), place_of(target)
        shared = 256 - (own ^ place).bit_length()
        found = self._bucket(whose, own, shared)
        for deeper in range(shared + 1, 256):
            if len(found) >= FANOUT or self._span(own, deeper)[0] == self._span(own, deeper)[1]:
                break
            found += self._bucket(whose, own, deeper)
        for shallower in range(shared - 1, -1, -1):
            if len(found) >= FANOUT:
                break
            found += self._bucket(whose, own, shallower)
        return sorted(found, key=lambda peer: place_of(peer.to_bytes()) ^ place)[:FANOUT]

    def _bucket(self, whose: bytes, own: int, shared: int) -> list[ID]:
        """Up to `FANOUT` of those that share exactly so many bits, always the same."""
        low, high = self._span(own ^ (1 << (255 - shared)), shared + 1)
        chosen = range(low, high)
        if high - low > FANOUT:
            chosen = random.Random(whose + bytes([shared])).sample(chosen, FANOUT)  # type: ignore[assignment]
        return [self._peers[index] for index in chosen if self._places[index] != own]

    def _span(self, place: int, bits: int) -> tuple[int, int]:
        """Where the peers stand that share so many bits with the place."""
        low = place >> (256 - bits) << (256 - bits)
        return bisect_left(self._places, low), bisect_left(self._places, low + (1 << (256 - bits)))


if __name__ == "__main__":
    main()
