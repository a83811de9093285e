"""Discovery of a million nodes: who announces what and when, where that stands, what it costs whom, and whom a client finds.

Each node says its profile and its provider records again every ten minutes, whether it works or not, and moves with the
population of its shard as `node.announcing` has it. What stands is looked at once in ten minutes as a whole, which is how old
a hint may be anyway. An index node that is down keeps nothing; its keys' other holders do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ....client.discovery import ASKED_AT_ONCE
from ....client.sampling import PLENTY
from ....node.announcing import LOOK_ROUNDS
from ....node.network.dht import REFRESH_S, SOUGHT_S, TURNS
from ....node.network.entries import NAMED_MAX, PROVIDED_S
from ....node.network.walk import FANOUT
from ....node.presence import ANNOUNCE_S, JITTER
from ....protocol.shards import LOT_MS
from ..figures import Trace
from ..lots import Floats, mixed
from ..population import Population
from ..scenario import Scenario
from .searching import Searching, holders
from .standing import Ints, Shards, next_depths, safe_depths, shards_of, stands
from .timeline import Timeline

STEP_S: Final = 60.0
"""What is said within it is counted together."""
TABLE_S: Final = 600.0
VIEW_MAX: Final = ASKED_AT_ONCE
"""Nodes that a client keeps of a search."""
NOBODY: Final = -1
_REGION: Final = 26
"""Bits of a shard's number, with room: the region stands above them."""


@dataclass(slots=True)
class Tally:
    """What discovery cost so far."""

    announcements: int = 0
    records: int = 0
    """Provider records, each put to `FANOUT` index nodes."""
    searches: int = 0
    named: int = 0
    """Providers in answers to clients, each by up to `FANOUT` index nodes."""
    providers: int = 0
    """Of all searches, different ones that were asked themselves."""
    ghosts: int = 0
    """Of these, so many said nothing."""
    looks: int = 0
    """Of nodes, at how crowded their shards are."""
    lookups: int = 0
    """Clients that looked for providers, in one search or two."""
    successes: int = 0
    """Of these, so many that found `PLENTY`, or all that there were."""
    busiest: list[float] = field(default_factory=list)
    """In each step, records and questions a second at the index node that had the most."""
    mean: list[float] = field(default_factory=list)
    """The same, of all index nodes."""


class _Tree:
    """The shards of one bundle: of the whole world, or of each region by itself."""

    def __init__(self, bundle: int, regional: bool, nodes: int) -> None:
        self.bundle = bundle
        self.regional = regional
        self.depth: NDArray[np.int8] = np.full(nodes, -1, dtype=np.int8)
        """-1: it has not stood anywhere yet."""
        self.look_in: NDArray[np.int8] = np.zeros(nodes, dtype=np.int8)
        self.table = Shards(*(np.zeros(0, dtype=np.int64),) * 3)
        self.keys = np.zeros(0, dtype=np.int64)
        self.holders: NDArray[np.int32] = np.zeros((0, FANOUT), dtype=np.int32)


class Discovery:
    """The table and everybody's hints in it."""

    def __init__(
        self,
        scenario: Scenario,
        population: Population,
        timeline: Timeline,
        serves_from: Floats,
        searching: Searching,
        chance: np.random.Generator,
        trace: Trace,
    ) -> None:
        """`serves_from`, by node and bundle: when each begins to serve it."""
        n = len(population)
        self.tally = Tally()
        self.searching = searching
        self._population = population
        self._timeline = timeline
        self._serves_from = serves_from
        self._chance = chance
        self._trace = trace
        self._start_ms = scenario.start_s * 1000
        self._heads = (mixed(population.seeds, 301) >> np.uint64(32)).astype(np.int64)
        self._index = population.index
        index = np.flatnonzero(population.index)
        self._places = np.sort(mixed(population.seeds[index], 302))
        self._profile_holders = holders(self._places, mixed(population.seeds, 303))
        self._regions = population.region.astype(np.int64)
        self._next_at = chance.random(n) * ANNOUNCE_S
        self._said_at = self._next_at - ANNOUNCE_S
        """All have been there for a while."""
        self._lots = np.zeros(n, dtype=np.int64)
        self._hour = -1
        self._table_at = -np.inf
        self._trees = [
            _Tree(bundle, regional, n) for bundle in range(serves_from.shape[1]) for regional in (False, True)
        ]
        self._records = np.zeros(len(index))
        self._sought = 1 / (1 + SOUGHT_S // ANNOUNCE_S)
        self._asks = np.zeros(len(index))
        self._settle()

    def step(self, at_s: float) -> None:
        """Everything that is said within the step that begins then has been said."""
        self._draw(at_s)
        if at_s >= self._table_at + TABLE_S:
            self._look(at_s)
        due = np.flatnonzero(self._next_at < at_s + STEP_S)
        when = np.maximum(self._next_at[due], at_s)
        speaks = ~self._timeline.silent(due, when)
        self._next_at[due] = when + ANNOUNCE_S * (1 + JITTER * (2 * self._chance.random(len(due)) - 1))
        due, when = due[speaks], when[speaks]
        self._said_at[due] = when
        self._put(np.bincount(self._profile_holders[due].ravel(), minlength=len(self._places)), len(due))
        self.tally.announcements += len(due)
        # Index nodes look for their own neighbours, anywhere.
        self._asks += int(self._index[due].sum()) * ANNOUNCE_S / REFRESH_S * self.searching.asked / len(self._places)
        before = self.tally.records
        for tree in self._trees:
            self._say(tree, due[self._serves_from[due, tree.bundle] <= at_s])
        self._count()
        self._trace.add("announced", round(at_s), len(due), self.tally.records - before)

    def find(
        self, bundle: int, depths: NDArray[np.int8], at_s: float
    ) -> tuple[Ints, NDArray[np.int8], NDArray[np.int8]]:
        """For clients whose samplers are at these depths: the nodes that they found and that answered, a row for each and
        `NOBODY` for the rest; how deep their samplers are now; and how many lookups each made."""
        tree = self._trees[2 * bundle]
        shards = self._any_of(depths.astype(np.int64))
        lookups = np.ones(len(depths), dtype=np.int8)
        first, counts = tree.table.slices(shards)
        self._ask(tree, shards, counts)
        for higher in (True, False):  # as `client.sampling`: a level higher first, and then where everybody meets
            again = (counts < PLENTY) & (shards > 0)
            lookups += again
            shards[again] = self._any_of(_depth_of(shards[again]) - 1) if higher else 0
            first[again], counts[again] = tree.table.slices(shards[again])
            self._ask(tree, shards[again], counts[again])
        found = self._met(tree, first, counts, at_s)
        safe = safe_depths(_depth_of(shards), tree.table.populations(shards)).astype(np.int8)
        return found, safe, lookups

    def _any_of(self, depths: Ints) -> Ints:
        """A shard of each depth, by chance."""
        width = np.int64(1) << depths
        return width - 1 + (self._chance.random(len(depths)) * width).astype(np.int64)

    def _met(self, tree: _Tree, first: Ints, counts: Ints, at_s: float) -> Ints:
        """Of each shard's members, as many as are asked, from anywhere on; those that do not answer are nobody."""
        begin = (self._chance.random(len(first)) * np.maximum(counts, 1)).astype(np.int64)
        column = np.arange(VIEW_MAX)
        asked = column < counts[:, None]
        place = first[:, None] + (begin[:, None] + column) % np.maximum(counts, 1)[:, None]
        found = np.full(asked.shape, NOBODY, dtype=np.int64)
        found[asked] = tree.table.listed[place[asked]]
        nodes = found[asked]
        named = (self._said_at[nodes] > at_s - PROVIDED_S) & (self._chance.random(len(nodes)) < self.searching.found)
        answers = named & ~self._timeline.silent(nodes, np.full(len(nodes), at_s))
        self.tally.providers += int(named.sum())
        self.tally.ghosts += int(named.sum() - answers.sum())
        nodes[~answers] = NOBODY
        found[asked] = nodes
        enough = np.sum(found != NOBODY, axis=1) >= np.minimum(PLENTY, np.maximum(counts, 1))
        self.tally.lookups += len(first)
        self.tally.successes += int(enough.sum())
        return found

    def _ask(self, tree: _Tree, shards: Ints, counts: Ints) -> None:
        self.tally.searches += len(shards)
        self.tally.named += int(np.minimum(counts, NAMED_MAX).sum()) * FANOUT
        self._question(self._spread(tree, shards), len(shards))

    def _put(self, held: Floats | Ints, count: int) -> None:
        """So many records came to each index node, and before some of them the question who keeps them."""
        self._records += np.asarray(held, dtype=np.float64) * (self._sought + (1 - self._sought) / TURNS)
        self._question(np.asarray(held, dtype=np.float64) * self._sought, count * self._sought)

    def _question(self, held: Floats | Ints, count: float) -> None:
        """A search asks those who hold the key, and some others on its way."""
        self._asks += held + count * max(0.0, self.searching.asked - FANOUT) / len(self._places)

    def _say(self, tree: _Tree, nodes: Ints) -> None:
        """The nodes' provider records stand."""
        if not len(nodes):
            return
        self._move(tree, nodes)
        who, shards = stands(self._heads[nodes], tree.depth[nodes].astype(np.int64), self._lots[nodes])
        if tree.regional:
            shards = shards | self._regions[nodes[who]] << _REGION
        self.tally.records += len(shards)
        self._put(self._spread(tree, shards), len(shards))

    def _spread(self, tree: _Tree, shards: Ints) -> Floats | Ints:
        """How many of the shards' records, or questions, each index node gets."""
        if not len(shards):
            return np.zeros(len(self._places))
        keys, counts = np.unique(shards, return_counts=True)
        fresh = np.setdiff1d(keys, tree.keys, assume_unique=True)
        if len(fresh):
            where = mixed(fresh.astype(np.uint64), 304, tree.bundle, int(tree.regional))
            every = np.concatenate([tree.keys, fresh])
            order = np.argsort(every)
            tree.holders = np.concatenate(
                [tree.holders[:, : min(FANOUT, len(self._places))], holders(self._places, where)]
            )[order]
            tree.keys = every[order]
        held = tree.holders[np.searchsorted(tree.keys, keys)]
        return np.bincount(held.ravel(), weights=np.repeat(counts, held.shape[1]), minlength=len(self._places))

    def _move(self, tree: _Tree, nodes: Ints) -> None:
        """As `node.announcing` has it: at first to a depth that is safe, and every hour a level on if the shard is crowded."""
        depth, look = tree.depth, tree.look_in
        new = nodes[depth[nodes] < 0]
        if len(new):
            root = self._regions[new] << _REGION if tree.regional else np.zeros(len(new), dtype=np.int64)
            depth[new] = safe_depths(np.zeros(len(new), dtype=np.int64), np.maximum(1, tree.table.populations(root)))
            look[new] = np.where(depth[new] > 0, 1, LOOK_ROUNDS)
            self._look_at(tree, root)
        old = np.setdiff1d(nodes, new, assume_unique=True) if len(new) else nodes
        waits = old[look[old] > 0]
        looks = old[look[old] == 0]
        look[waits] -= 1
        if len(looks):
            before = depth[looks].astype(np.int64)
            own = shards_of(self._heads[looks], before)
            if tree.regional:
                own = own | self._regions[looks] << _REGION
            self._look_at(tree, own)
            after = next_depths(before, np.maximum(1, tree.table.populations(own)))
            depth[looks] = after
            look[looks] = np.where(after != before, 0, LOOK_ROUNDS)

    def _look_at(self, tree: _Tree, shards: Ints) -> None:
        """Nodes have asked who stands there."""
        self.tally.looks += len(shards)
        self._question(self._spread(tree, shards), len(shards))

    def _look(self, at_s: float) -> None:
        """What stands in the table now."""
        self._table_at = at_s
        for tree in self._trees:
            stand = tree.depth >= 0
            stand &= (self._serves_from[:, tree.bundle] <= at_s) & (self._said_at > at_s - PROVIDED_S)
            nodes = np.flatnonzero(stand)
            who, shards = stands(self._heads[nodes], tree.depth[nodes].astype(np.int64), self._lots[nodes])
            nodes = nodes[who]
            if tree.regional:
                shards = shards | self._regions[nodes] << _REGION
            tree.table = Shards(nodes, shards, self._lots[nodes])
            self._trace.add_bytes("stand", tree.depth.tobytes(), len(nodes))

    def _draw(self, at_s: float) -> None:
        hour = int((self._start_ms + at_s * 1000) // LOT_MS)
        if hour != self._hour:
            self._hour = hour
            self._lots = (mixed(self._population.seeds, 300, hour) >> np.uint64(32)).astype(np.int64)

    def _settle(self) -> None:
        """Those that serve from the beginning stand as deep as is right for so many."""
        self._draw(0.0)
        for tree in self._trees:
            nodes = np.flatnonzero(self._serves_from[:, tree.bundle] <= 0)
            counted = np.bincount(self._regions[nodes], minlength=64) if tree.regional else None
            about = counted[self._regions[nodes]] if counted is not None else np.full(len(nodes), len(nodes))
            tree.depth[nodes] = safe_depths(np.zeros(len(nodes), dtype=np.int64), about)
            tree.look_in[nodes] = (self._chance.random(len(nodes)) * (LOOK_ROUNDS + 1)).astype(np.int8)
        self._look(0.0)

    def _count(self) -> None:
        load = (self._records + self._asks) / STEP_S
        self.tally.busiest.append(float(load.max()))
        self.tally.mean.append(float(load.mean()))
        self._records[:] = 0
        self._asks[:] = 0


def _depth_of(shards: Ints) -> Ints:
    return np.frexp((shards + 1).astype(np.float64))[1].astype(np.int64) - 1
