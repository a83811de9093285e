"""What happens to machines and the network between them, as the scenario's timeline has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Final

import numpy as np
import trio

from ..events.timeline import GONE, YIELDS, Timeline, chosen_by
from ..lots import lots
from ..population import Population
from ..scenario import LOSSY, PARTITION, SKEW, SLOW, Scenario
from .chance import chance_for
from .log import Log
from .medium import Medium
from .nodes import NodeLife, NodeSpec
from .world import World

INDEX_S: Final = 1.0
START_S: Final = 5.0
"""Index nodes start within so long, and after them all others: whoever finds nobody to join by gives up, as a daemon does."""


@dataclass
class Mesh:
    """The nodes of one simulation, and where their lives run."""

    world: World
    nodes: Sequence[NodeSpec]
    nursery: trio.Nursery

    @property
    def medium(self) -> Medium:
        return self.world.medium

    @property
    def log(self) -> Log:
        return self.world.log

    def start(self, number: int) -> None:
        """The node's process begins."""
        spec = self.nodes[number]
        spec.life = NodeLife(self.world, spec)
        spec.place.gone_since_s = None
        self.log.write(number, "starts")
        self.nursery.start_soon(spec.life.run)

    def away(self, number: int) -> None:
        """The owner takes the machine."""
        spec = self.nodes[number]
        spec.wants_since_s = trio.current_time()
        self.log.write(number, "owner_takes")
        if spec.life is not None:
            spec.life.drive()

    def back(self, number: int) -> None:
        """The owner leaves the machine."""
        spec = self.nodes[number]
        spec.wants_since_s = None
        self.log.write(number, "owner_leaves")
        if spec.life is not None:
            spec.life.park()

    def gone(self, number: int) -> None:
        """Nobody is there any more, without a word."""
        self.silence(number, silent=True)
        spec = self.nodes[number]
        spec.place.gone_since_s = trio.current_time()
        if spec.life is not None:
            spec.life.scope.cancel()
            spec.life = None

    def here(self, number: int) -> None:
        """The machine has power again, and its node begins anew."""
        self.silence(number, silent=False)
        self.start(number)

    def silence(self, number: int, *, silent: bool) -> None:
        """Nothing comes in or goes out any more, or does again."""
        self.log.write(number, "silent", int(silent))
        self.nodes[number].place.silent = silent
        self.medium.changed()

    def island(self, region: str, name: str) -> None:
        """The region is on its own, or with all others again."""
        self.log.write(-1, "island", region, name or "-")
        for place in self.medium.places:
            if place.region == region:
                place.island = name
        self.medium.changed()


async def happen(mesh: Mesh, scenario: Scenario, population: Population, seed: int) -> None:
    """All that the scenario has happen did, until its end."""
    agenda: list[tuple[float, int, Callable[[], None]]] = []

    def at(when_s: float, what: Callable[[], None]) -> None:
        heappush(agenda, (max(0.0, when_s), len(agenda), what))

    drawn = lots(population.seeds, 300)
    starts_s = np.where(population.index, INDEX_S * drawn, INDEX_S + (START_S - INDEX_S) * drawn)
    for number, node_starts_s in enumerate(starts_s.tolist()):
        at(node_starts_s, lambda number=number: mesh.start(number))  # type: ignore[misc]  # a default binds it
    for number, begin_s, end_s, how in _times_down(scenario, population, seed):
        first, last = _turns(mesh, number, how)
        at(begin_s + START_S if begin_s <= 0 else begin_s, first)
        at(end_s, last)
    for region, begin_s, end_s in _partitions(scenario, seed):
        at(begin_s, lambda region=region: mesh.island(region, region))  # type: ignore[misc]
        at(end_s, lambda region=region: mesh.island(region, ""))  # type: ignore[misc]
    for begin_s, task in _links(mesh, scenario, population):
        at(begin_s, task)
    while agenda and agenda[0][0] < scenario.duration_s:
        when_s, _, task = heappop(agenda)
        await trio.sleep_until(when_s)
        task()


def _turns(mesh: Mesh, number: int, how: int) -> tuple[Callable[[], None], Callable[[], None]]:
    if how == YIELDS:
        return lambda: mesh.away(number), lambda: mesh.back(number)
    if how == GONE:
        return lambda: mesh.gone(number), lambda: mesh.here(number)
    return lambda: mesh.silence(number, silent=True), lambda: mesh.silence(number, silent=False)


def _times_down(scenario: Scenario, population: Population, seed: int) -> list[tuple[int, float, float, int]]:
    """Each node's times down: as the other fidelity has them, but for partitions, in which nodes go on."""
    others = tuple(replace(each, share=0.0) if each.what == PARTITION else each for each in scenario.events)
    timeline = Timeline(replace(scenario, events=others), population, seed)
    parts = (timeline.nodes, timeline.begins, timeline.ends, timeline.how)
    return [(int(n), float(b), float(e), int(h)) for n, b, e, h in zip(*(each.tolist() for each in parts), strict=True)]


def _partitions(scenario: Scenario, seed: int) -> list[tuple[str, float, float]]:
    """Regions cut off from all others, from when to when."""
    found = []
    for event in scenario.events:
        if event.what == PARTITION and event.region:
            found.append((event.region, event.at_h * 3600, event.at_h * 3600 + event.lasts_s))
    faults = scenario.faults
    for region in sorted({each.region for each in scenario.population} if faults.partitions_per_day else ()):
        random, at_s = chance_for(seed, "partitions", region), 0.0
        while (at_s := at_s + random.expovariate(faults.partitions_per_day / 86_400)) < scenario.duration_s:
            found.append((region, at_s, at_s := at_s + faults.partition_s))
    return found


def _links(mesh: Mesh, scenario: Scenario, population: Population) -> list[tuple[float, Callable[[], None]]]:
    """Links that get slow or lossy, and clocks that go wrong."""
    found: list[tuple[float, Callable[[], None]]] = []
    for number, event in enumerate(scenario.events):
        if event.what not in (SLOW, LOSSY, SKEW):
            continue
        for node in chosen_by(event, number, population).tolist():
            spec, begin_s = mesh.nodes[node], event.at_h * 3600
            name = {SLOW: "slow", LOSSY: "loss", SKEW: "skew_ms"}[event.what]
            target = spec if event.what == SKEW else spec.place
            before = getattr(target, name)
            found.append((begin_s, lambda t=target, n=name, v=event.amount: setattr(t, n, v)))  # type: ignore[misc]
            found.append((begin_s + event.lasts_s, lambda t=target, n=name, v=before: setattr(t, n, v)))  # type: ignore[misc]
    return found
