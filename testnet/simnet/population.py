"""Who is there: each node's crowd, day, place, router and character, as the scenario and the seed have it.

Shares are counted, not thrown: of 50 nodes with 20 % liars ten lie, whatever the seed; it decides which. Both fidelities
have the same population.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .days import MODELS, districts
from .lots import Floats, Seeds, lots, seeds_of
from .regions import NATS, REGIONS, nat_of
from .scenario import Scenario

Bools = NDArray[np.bool_]
Small = NDArray[np.int8]
Ints = NDArray[np.int32]

HONEST: Final = "honest"
CHARACTERS: Final = (
    HONEST,
    "liars",
    "free_riders",
    "equivocators",
    "quantisers",
    "deniers",
    "stallers",
    "colluders",
    "sybils",
)
"""As `Faults` names their shares; a node has one. Those in `FALSE` give wrong results."""
FALSE: Final = ("liars", "free_riders", "quantisers")
NAT_NAMES: Final = tuple(NATS)
REGION_NAMES: Final = tuple(REGIONS)


@dataclass(frozen=True, slots=True)
class Population:
    """The nodes by number. Small numbers stand for names: `MODELS`, `REGION_NAMES`, `NAT_NAMES`, `CHARACTERS`."""

    seeds: Seeds
    crowd: Small
    """Which of the scenario's."""
    model: Small
    region: Small
    nat: Small
    zone_s: Floats
    """The local clock's lead over UTC."""
    speed: Floats
    district: Small
    character: Small
    newcomer: Bools
    index: Bools
    """Keeps the table."""
    hostile: Bools
    """Keeps it, and lies."""
    owner: Ints
    holds: Bools
    """By node and bundle: at the start."""
    skew_ms: Floats

    def __len__(self) -> int:
        return len(self.seeds)

    def is_a(self, *characters: str) -> Bools:
        """Which nodes are one of these."""
        return np.isin(self.character, [CHARACTERS.index(each) for each in characters])


def populate(scenario: Scenario, seed: int) -> Population:
    """The nodes of that seed."""
    n = scenario.nodes
    seeds = seeds_of(seed, n, 100)
    crowd = _crowds(scenario)
    models = np.array([MODELS.index(each.model) for each in scenario.population], dtype=np.int8)
    regions = np.array([REGION_NAMES.index(each.region) for each in scenario.population], dtype=np.int8)
    zones_s = np.array([REGIONS[each.region].zone_h * 3600.0 for each in scenario.population])
    speeds = np.array([each.speed for each in scenario.population])
    model = models[crowd]
    nat = _nats(seeds, model)
    newcomer = _counted(seeds, scenario.newcomers, 101)
    index = _index(scenario, seeds, model, nat)
    return Population(
        seeds=seeds,
        crowd=crowd,
        model=model,
        region=regions[crowd],
        nat=nat,
        zone_s=zones_s[crowd],
        speed=speeds[crowd],
        district=districts(seeds).astype(np.int8),
        character=_characters(scenario, seeds, newcomer),
        newcomer=newcomer,
        index=index,
        hostile=_counted(seeds, scenario.faults.hostile_index, 103, index),
        owner=_owners(scenario, seeds),
        holds=np.stack([_counted(seeds, b.held, 110, number) for number, b in enumerate(scenario.bundles)], axis=1),
        skew_ms=(2 * lots(seeds, 104) - 1) * scenario.faults.clock_skew_ms,
    )


def _crowds(scenario: Scenario) -> Small:
    """Each node's crowd: blocks, in the scenario's order."""
    shares = np.cumsum([each.share for each in scenario.population])
    ends = np.rint(shares / shares[-1] * scenario.nodes)
    return np.searchsorted(ends, np.arange(scenario.nodes), side="right").astype(np.int8)


def _nats(seeds: Seeds, model: Small) -> Small:
    drawn = lots(seeds, 105)
    nat = np.zeros(len(seeds), dtype=np.int8)
    for number, name in enumerate(MODELS):
        # As `regions.nat_of`, whose steps are read off once for all nodes of the model.
        steps = np.arange(0, 1, 0.01)
        table = np.array([NAT_NAMES.index(nat_of(name, step + 1e-9)) for step in steps], dtype=np.int8)
        mine = model == number
        nat[mine] = table[(drawn[mine] * 100).astype(np.int64)]
    return nat


def _index(scenario: Scenario, seeds: Seeds, model: Small, nat: Small) -> Bools:
    """Those that can be dialled first, of these what stays at its place, then whoever drew the smallest lots."""
    dialable = np.array([NATS[each].dialable for each in NAT_NAMES])[nat]
    stays = np.isin(model, [MODELS.index("site"), MODELS.index("host")])
    rank = lots(seeds, 102) + 2.0 * ~stays + 4.0 * ~dialable
    index = np.zeros(len(seeds), dtype=np.bool_)
    index[np.argsort(rank, kind="stable")[: max(1, round(scenario.index_share * len(seeds)))]] = True
    return index


def _characters(scenario: Scenario, seeds: Seeds, newcomer: Bools) -> Small:
    character = np.zeros(len(seeds), dtype=np.int8)
    order = np.argsort(lots(seeds, 106), kind="stable")
    taken = 0
    for number, name in enumerate(CHARACTERS[1:], 1):
        count = round(getattr(scenario.faults, name) * len(seeds))
        character[order[taken : taken + count]] = number
        taken += count
    character[_counted(seeds, scenario.faults.newcomer_liars, 107, newcomer)] = CHARACTERS.index("liars")
    return character


def _owners(scenario: Scenario, seeds: Seeds) -> Ints:
    """Each node's owner: its own, or that of the node before, for those that share one."""
    own = np.arange(len(seeds), dtype=np.int32)
    shared = ~_counted(seeds, scenario.vouched, 108)
    own[shared] = np.maximum(own[shared] - 1, 0)
    sybils = np.flatnonzero(_characters(scenario, seeds, np.zeros(len(seeds), dtype=np.bool_)) == len(CHARACTERS) - 1)
    own[sybils] = sybils[:1]
    return own


def _counted(seeds: Seeds, share: float, salt: int, among: Bools | int | None = None) -> Bools:
    """Exactly such a share of the nodes (of those `among`): those with the smallest lots."""
    drawn = lots(seeds, salt, among) if isinstance(among, int) else lots(seeds, salt)
    chosen = np.zeros(len(seeds), dtype=np.bool_)
    eligible = np.flatnonzero(among) if isinstance(among, np.ndarray) else np.arange(len(seeds))
    order = eligible[np.argsort(drawn[eligible], kind="stable")]
    chosen[order[: round(share * len(eligible))]] = True
    return chosen
