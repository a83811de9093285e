"""A bundle spreads: whoever wants it fetches it from whoever has it, chunk by chunk, and shares on what has come.

A swarm as a fluid: in each step, what all that have some of it can send is divided among those that fetch, in proportion to
what they can take (Qiu and Srikant, 2004, with a partial holder as useful as the part that it holds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..days import MODELS
from ..lots import Floats, lots
from ..population import Population
from ..regions import LINK_MBIT
from ..scenario import APPEAR, Bundle, Event, Scenario
from .timeline import Ids, Timeline, chosen_by

STEP_S: Final = 5.0
HEARD_S: Final = 600.0
"""Within so long, at its next announcing round, everybody who wants the bundle has heard that it is asked for."""
START_S: Final = 30.0
"""From the last chunk until the node serves: its worker compiles and loads the programs."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Of one bundle: since when it is there, who has it then, and who is to have it."""

    begins_s: float
    holders: Ids
    wanting: Ids
    heard_s: Floats
    """When each of these has heard of it."""


def demand(scenario: Scenario, population: Population, number: int) -> Demand:
    """Of the bundle of that number; the same at both fidelities."""
    bundle = scenario.bundles[number]
    event_number, event = appearance(scenario, bundle)
    begins_s = event.at_h * 3600.0 if event is not None else 0.0
    holders = np.flatnonzero(population.holds[:, number])
    if event is not None:
        holders = _publishers(event, event_number, population)
    lacking = np.setdiff1d(np.arange(len(population)), holders)
    order = np.argsort(lots(population.seeds[lacking], 501, number), kind="stable")
    wanting = np.sort(lacking[order[: round(bundle.wanted * len(lacking))]])
    return Demand(begins_s, holders, wanting, begins_s + HEARD_S * lots(population.seeds[wanting], 502, number))


def appearance(scenario: Scenario, bundle: Bundle) -> tuple[int, Event | None]:
    """The event by which the bundle is published, and its number, if it was not there from the beginning."""
    events = enumerate(scenario.events)
    return next(((n, e) for n, e in events if e.what == APPEAR and e.bundle == bundle.name), (-1, None))


def serves_from(scenario: Scenario, population: Population, timeline: Timeline) -> Floats:
    """When each node begins to serve each bundle (node, bundle), in seconds; infinite: not before the end."""
    served = np.full((len(population), len(scenario.bundles)), np.inf)
    for number, bundle in enumerate(scenario.bundles):
        asked = demand(scenario, population, number)
        served[asked.holders, number] = asked.begins_s
        _spread(scenario, population, timeline, served[:, number], bundle, asked)
    return served


def _publishers(event: Event, number: int, population: Population) -> Ids:
    """One at least."""
    nodes = chosen_by(event, number, population)
    if len(nodes):
        return nodes
    likely = np.flatnonzero(population.index) if population.index.any() else np.arange(len(population))
    return likely[np.argsort(lots(population.seeds[likely], 500, number))[:1]]


def _spread(
    scenario: Scenario, population: Population, timeline: Timeline, served: Floats, bundle: Bundle, asked: Demand
) -> None:
    """`served` is completed."""
    up, down = (np.array([LINK_MBIT[model][way] for model in MODELS])[population.model] / 8 for way in (0, 1))
    up, down = up * scenario.faults.bandwidth_factor, down * scenario.faults.bandwidth_factor
    wanting, heard_s, holders, at_s = asked.wanting, asked.heard_s, asked.holders, asked.begins_s
    left_mb = np.full(len(wanting), bundle.size_mb)
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
