"""What each client knows: the nodes of its last search, where they are from its place, and how it chooses among them.

The choice is `client.scheduler`'s: two of those that can take the work, the one that is expected to finish sooner, and one
time in twenty whoever comes. A test holds `expected_s` to its twin.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ....client.scheduler import BATCH_COST_S, EXPLORE, FAILURE_COST_S, NEWCOMER_FAILURES, NEWCOMER_JOBS
from ..days import MODELS
from ..lots import Floats, lots
from ..population import NAT_NAMES, REGION_NAMES, Bools, Population
from ..regions import LAST_MILE_MS, NATS, REGIONS, RTT_MS
from ..scenario import Scenario
from .discovery import NOBODY, VIEW_MAX

Ints = NDArray[np.int64]
RELAY_MS: Final = 20.0
"""What the way through a relay in the node's own region adds to a round trip."""
INTERACTIVE_MS: Final = 150.0
"""A round trip: `protocol.profiles.ConnectivityProfile.interactive`."""
VIEWS_MAX: Final = 2**26
"""Places in all clients' views together: half a gigabyte."""


class Clients:
    """The clients by number: where each is, and what it knows of each bundle's nodes (a row for client and bundle)."""

    def __init__(self, scenario: Scenario, population: Population) -> None:
        count, bundles = scenario.load.clients, len(scenario.bundles)
        home = np.arange(count) * len(population) // count
        self._bundles = bundles
        self.region = population.region[home].astype(np.int64)
        self._node_region = population.region.astype(np.int64)
        last_mile = np.array([LAST_MILE_MS[model] for model in MODELS])
        self._client_ms = last_mile[population.model[home]]
        punched = np.array([1.0 if NATS[nat].dialable else NATS[nat].punched for nat in NAT_NAMES])[population.nat]
        relayed = lots(population.seeds, 400) >= punched
        self._node_ms = last_mile[population.model] + np.where(relayed, RELAY_MS / 2, 0.0)
        self._rtt_ms = np.array(RTT_MS, dtype=np.float64)
        self._factor = scenario.faults.latency_factor
        self._jitter = scenario.faults.jitter
        self._steady = scenario.faults.jitter <= 1 / 3 and scenario.faults.loss <= 0.02
        width = max(4, min(VIEW_MAX, VIEWS_MAX // (count * bundles)))
        self.view: NDArray[np.int32] = np.full((count * bundles, width), NOBODY, dtype=np.int32)
        self.depth: NDArray[np.int8] = np.zeros(count * bundles, dtype=np.int8)
        self.used_at: Floats = np.full(count * bundles, -np.inf)
        order = np.argsort(self.region, kind="stable")
        self._by_region = [order[self.region[order] == each] for each in range(len(REGION_NAMES))]
        self._zone_h = np.array([region.zone_h for region in REGIONS.values()], dtype=np.float64)
        self._daily = scenario.load.daily

    def rows(self, clients: Ints, bundles: Ints) -> Ints:
        return clients * self._bundles + bundles

    def rtt_s(self, clients: Ints, nodes: Ints) -> Floats:
        """Between each client and node, of the same shape."""
        backbone = self._rtt_ms[self.region[clients], self._node_region[nodes]]
        rtt_ms = backbone + 2 * (self._client_ms[clients] + self._node_ms[nodes])
        return np.asarray(rtt_ms * self._factor / 1000, dtype=np.float64)

    def index_rtt_s(self, clients: Ints, index_regions: Floats) -> Floats:
        """On average to index nodes, of whom such shares are in each region."""
        rtt_ms = self._rtt_ms[self.region[clients]] @ index_regions + 2 * self._client_ms[clients] + 8
        return np.asarray(rtt_ms * self._factor / 1000, dtype=np.float64)

    def interactive(self, rtt_s: Floats) -> Bools:
        """By the client's own measurement."""
        return (rtt_s * 1000 * (1 + self._jitter) <= INTERACTIVE_MS) & self._steady

    def forget(self, clients: Ints, nodes: Ints) -> None:
        """The nodes are in none of those clients' views."""
        for bundle in range(self._bundles):
            rows = self.rows(clients, np.full(len(clients), bundle))
            view = self.view[rows]
            hit, column = np.nonzero(view == nodes[:, None])
            self.view[rows[hit], column] = NOBODY

    def demand(self, utc_s: float) -> tuple[float, Floats]:
        """How much is asked now, relative to the average, and each region's share of it."""
        counts = np.array([len(each) for each in self._by_region], dtype=np.float64)
        if self._daily:
            hour = (utc_s / 3600 + self._zone_h) % 24
            counts = counts * (1 + 0.8 * np.cos((hour - 15) / 12 * np.pi))
        total = counts.sum()
        return float(total / len(self.region)), counts / total

    def drawn(self, count: int, shares: Floats, chance: np.random.Generator) -> Ints:
        """So many clients, by chance, of those regions."""
        regions = np.searchsorted(np.cumsum(shares), chance.random(count), side="right").clip(
            0, np.flatnonzero(shares)[-1]
        )
        lot = chance.random(count)
        clients = np.zeros(count, dtype=np.int64)
        for each in np.unique(regions):
            mine = regions == each
            pool = self._by_region[each]
            clients[mine] = pool[(lot[mine] * len(pool)).astype(np.int64)]
        return clients


def expected_s(rtt_s: Floats, load: Floats, reading_s: Floats, writing_s: Floats, interactive: Bools) -> Floats:
    """Seconds until the work would be done there: `client.scheduler.expected_s`, for nodes of whom nothing is known."""
    stranger_s = FAILURE_COST_S * NEWCOMER_FAILURES / NEWCOMER_JOBS
    return stranger_s + rtt_s + load * (reading_s + writing_s) + np.where(interactive, 0.0, BATCH_COST_S)


def two_of(eligible: Bools, chance: np.random.Generator) -> tuple[Ints, Ints, Bools]:
    """Of each row, two columns that are eligible, the same twice if there is one only; and whether to explore."""
    order = chance.random(eligible.shape)
    order[~eligible] = 2.0
    first = np.argmin(order, axis=1)
    row = np.arange(len(first))
    order[row, first] = 1.5
    second = np.argmin(order, axis=1)
    second = np.where(eligible[row, second], second, first)
    return first, second, chance.random(len(first)) < EXPLORE
