"""A bundle spreads: whoever wants it fetches it from whoever has it, chunk by chunk, and shares on what has come.

A swarm as a fluid: in each step, what all that have some of it can send is divided among those that fetch, in proportion to
what they can take (Qiu and Srikant, 2004, with a partial holder as useful as the part that it holds).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..days import MODELS
from ..lots import Floats, lots
from ..population import Population
from ..regions import LINK_MBIT
from ..scenario import APPEAR, Event, Scenario
from .timeline import Timeline, chosen_by

STEP_S: Final = 5.0
HEARD_S: Final = 600.0
"""Within so long, at its next announcing round, everybody who wants the bundle has heard that it is asked for."""
START_S: Final = 30.0
"""From the last chunk until the node serves: its worker compiles and loads the programs."""
BYTES: Final = 1e6


def serves_from(scenario: Scenario, population: Population, timeline: Timeline) -> Floats:
    """When each node begins to serve each bundle (node, bundle), in seconds; infinite: not before the end."""
    served = np.where(population.holds, 0.0, np.inf)
    for number, bundle in enumerate(scenario.bundles):
        event_number, event = next(
            ((n, e) for n, e in enumerate(scenario.events) if e.what == APPEAR and e.bundle == bundle.name), (-1, None)
        )
        if event is not None:
            served[:, number] = np.inf
            served[_publishers(event, event_number, population), number] = event.at_h * 3600.0
        if bundle.wanted:
            begins_s = event.at_h * 3600.0 if event is not None else 0.0
            _spread(scenario, population, timeline, served[:, number], number, begins_s)
    return served


def _publishers(event: Event, number: int, population: Population) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """One at least."""
    nodes = chosen_by(event, number, population)
    if len(nodes):
        return nodes
    likely = np.flatnonzero(population.index) if population.index.any() else np.arange(len(population))
    return likely[np.argsort(lots(population.seeds[likely], 500, number))[:1]]


def _spread(
    scenario: Scenario, population: Population, timeline: Timeline, served: Floats, number: int, begins_s: float
) -> None:
    """`served` is completed."""
    bundle = scenario.bundles[number]
    up, down = (np.array([LINK_MBIT[model][way] for model in MODELS])[population.model] / 8 for way in (0, 1))
    up, down = up * scenario.faults.bandwidth_factor, down * scenario.faults.bandwidth_factor
    lacking = np.flatnonzero(~np.isfinite(served))
    order = np.argsort(lots(population.seeds[lacking], 501, number), kind="stable")
    wanting = np.sort(lacking[order[: round(bundle.wanted * len(lacking))]])
    heard_s = begins_s + HEARD_S * lots(population.seeds[wanting], 502, number)
    left_mb = np.full(len(wanting), bundle.size_mb)
    holders = np.flatnonzero(np.isfinite(served))
    at_s = begins_s
    while at_s < scenario.duration_s and len(wanting):
        there = ~timeline.silent(holders, np.full(len(holders), at_s))
        sends = float(up[holders[there]].sum())
        fetches = np.flatnonzero(heard_s <= at_s)
        # A machine that its owner uses fetches nothing and gives nothing.
        fetches = fetches[~timeline.down(wanting[fetches], np.full(len(fetches), at_s))]
        sends += float((up[wanting[fetches]] * (1 - left_mb[fetches] / bundle.size_mb)).sum())
        takes = float(down[wanting[fetches]].sum())
        left_mb[fetches] -= down[wanting[fetches]] * STEP_S * min(1.0, sends / max(takes, 1e-9))
        at_s += STEP_S
        ready = left_mb <= 0
        if ready.any():
            served[wanting[ready]] = at_s + START_S
            holders = np.concatenate([holders, wanting[ready]])
            wanting, left_mb, heard_s = wanting[~ready], left_mb[~ready], heard_s[~ready]
