"""What discovery costs a node and an index node, as formulas over what is measured on the wire.

`benchmarks/traffic.py` measures `Bytes` and prints the table of spec/rationale.md with them; the simulator counts what
happens and multiplies by the same. How many peers one search asks is counted by the network's own `Walk` (`events.searching`).
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Final

from ...node.announcing import LOOK_ROUNDS
from ...node.network.dht import REFRESH_S, SOUGHT_S, TURNS
from ...node.network.walk import FANOUT
from ...node.presence import ANNOUNCE_S
from ...node.probing import EVERY_S, PEERS_MAX

DAY_S: Final = 86_400.0
PARKED: Final = 0.95
"""Of its time a car stands: surveys say 92 to 96 %."""
TRIPS_DAY: Final = 3.0
"""Of a car; each is a leaving and a coming back."""
INDEX_SHARE: Final = 0.01
"""Sites and hosts that can be dialled, and keep the table. Cars and robots, behind relays, do not."""
KEYS: Final = 4
"""Provider records of a node: its bundle, for the world and for its region, under two shards each on average: its own, and
those above it that its lot gives it."""
LOOKED: Final = 1 / (1 + LOOK_ROUNDS)
"""Of the rounds, in so many a node looks how crowded its shard is, once for its bundle in the world and once in its region."""
POPULAR: Final = 0.1
"""Of all nodes serve the bundle that most serve."""
SEARCHES_DAY: Final = 50.0
"""Of a client; there are as many clients as nodes. One that knows live nodes does not search."""
RELAYS: Final = 2
"""Connections that a car keeps while nothing happens."""
SHARD_PROVIDERS: Final = 128
"""Under one key, at most: half of what an index node keeps of one, so that it may double before anybody looks again."""
STANDING_MAX: Final = 192
"""Connections that others began, of an index node."""


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
    passing: float
    """One begun for a question of the table, and ended with it; without that question."""
    profile: float
    """A question for a profile and its answer, on a fresh stream."""
    probe: float
    """A probe and its answer, on one that stands."""
    idle_s: float
    """A connection on which nothing happens, each second."""


@dataclass(frozen=True, slots=True)
class Expected:
    """So many nodes, of which a few are the index, and what follows for each. Rates are in bytes per second."""

    nodes: int
    asked: float
    """Peers that one search asks."""
    told: float
    """Peers that keep what is said to those whom a search came to."""
    wire: Bytes
    announce_s: float = ANNOUNCE_S
    index_share: float = INDEX_SHARE
    parked: float = PARKED
    trips_day: float = TRIPS_DAY
    searches_day: float = SEARCHES_DAY
    """Of each node's client."""

    @property
    def index(self) -> float:
        return self.nodes * self.index_share

    @property
    def search(self) -> float:
        """Bytes of a search, on connections that stand."""
        return self.asked * self.wire.ask

    @property
    def sought(self) -> float:
        """Of the rounds of a key, in so many it is searched who keeps it; in the others, those are told who took it the last
        time."""
        return 1 / (1 + SOUGHT_S // self.announce_s)

    @property
    def contacts(self) -> float:
        """Peers whom a key is said to in a round, those asked on the way to them among them."""
        return self.sought * self.asked + (1 - self.sought) * self.told / TURNS

    @property
    def records(self) -> float:
        """Of one key, given to others in a round."""
        return self.sought * self.told + (1 - self.sought) * self.told / TURNS

    @property
    def announce(self) -> float:
        """Bytes of a round: each key said to those who keep it, some sought first, each on a connection of its own; and a look
        at the shards now and then."""
        return self.announcements(1, KEYS) + 2 * LOOKED * self.look

    def announcements(self, profiles: float, records: float) -> float:
        """Bytes of so many profiles and provider records, each put where it belongs."""
        said = (profiles + records) * (self.sought * self.search + self.contacts * self.wire.passing)
        return said + self.records * (profiles * self.wire.put + records * self.wire.provide)

    @property
    def look(self) -> float:
        """Bytes of one look at a shard."""
        return self.finding + self.asked * self.wire.passing

    @property
    def refreshing(self) -> float:
        """Index nodes' searches for their own neighbours, by each node that there is. Others search often enough."""
        return self.index_share * self.asked * (self.wire.ask + self.wire.passing) / REFRESH_S

    @property
    def announcing(self) -> float:
        return self.parked * (self.announce / self.announce_s + self.refreshing)

    @property
    def returning(self) -> float:
        """Joining, and announcing at once."""
        return self.trips_day / DAY_S * (self.join + self.announce)

    @property
    def join(self) -> float:
        """Bytes of coming back, but for announcing."""
        return self.search + self.asked * self.wire.passing + RELAYS * self.wire.connect

    @property
    def measuring(self) -> float:
        return self.parked * PEERS_MAX * self.wire.probe / EVERY_S

    @property
    def standing(self) -> float:
        """Connections of a node: to its relays, and to those that it probes. Those to whom it says its keys end at once."""
        return RELAYS + PEERS_MAX

    @property
    def idling(self) -> float:
        return self.parked * self.standing * self.wire.idle_s

    @property
    def node(self) -> float:
        return self.announcing + self.returning + self.measuring + self.idling

    @property
    def searching(self) -> float:
        """For clients, by all index nodes together and for each node that there is."""
        return self.searches_day / DAY_S * self.finding

    @property
    def finding(self) -> float:
        """Bytes of one client's search for providers, half of a shard's named by each."""
        return self.search + self.asked * SHARD_PROVIDERS / 2 * self.wire.provider

    @property
    def index_node(self) -> float:
        """What an index node has to do with others, its own announcements left out."""
        share = (self.announcing + self.returning + self.searching) / self.index_share
        return share + min(STANDING_MAX, self.standing / self.index_share) * self.wire.idle_s

    @property
    def popular(self) -> float:
        """Providers of the bundle that most serve."""
        return POPULAR * self.parked * self.nodes

    @property
    def depth(self) -> int:
        """Of shards: so many halvings leave at most `SHARD_PROVIDERS` under one key."""
        return max(0, math.ceil(math.log2(self.popular / SHARD_PROVIDERS)))

    def holder(self, depth: int) -> float:
        """Records of one popular key that reach each of the index nodes that hold it, a second."""
        return self.popular / float(2**depth) * self.records / self.told / self.announce_s


WIRE: Final = Bytes(
    ask=1350, provider=149, put=1507, provide=439, connect=2153, passing=2078, profile=1975, probe=237, idle_s=39
)
"""As measured by `python benchmarks/traffic.py` on 2026-11-28."""


class Crowd:
    """Index nodes, as places in Kademlia's space, each with a table of up to `FANOUT` peers in each bucket."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = sorted(places)

    def closest(self, own: int, target: int) -> list[int]:
        """Of the table of `own`, those closest to the target: bucket by bucket, from the target's outwards."""
        shared = 256 - (own ^ target).bit_length()
        found: list[int] = []
        at = bisect_left(self._places, own)
        beside = [place for place in self._places[max(0, at - 1) : at + 2] if place != own]
        # Nobody shares more bits with `own` than a neighbour does.
        deepest = max((256 - (own ^ place).bit_length() for place in beside), default=0)
        for bits in (*range(shared, deepest + 1), *range(min(shared - 1, deepest), -1, -1)):
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
