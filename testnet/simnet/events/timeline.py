"""When each node is not there, and why: from days, faults, storms and what the scenario has happen, all before it begins.

A node's times down are intervals in order that do not overlap. How it goes matters more than why: it yields its jobs with a
word, it is gone without one, or it is frozen, and its connections stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..days import DAY_S, MODELS, absences, storm_outages, storms
from ..lots import Floats, lots
from ..population import REGION_NAMES, Bools, Population
from ..scenario import BLACKHOLE, DEPART, FREEZE, KILL, OUTAGE, PARTITION, SHED, Event, Scenario

YIELDS, GONE, FROZEN = 0, 1, 2
"""How a node goes."""
HOW: Final = {
    DEPART: YIELDS,
    SHED: YIELDS,
    OUTAGE: GONE,
    PARTITION: GONE,
    KILL: GONE,
    BLACKHOLE: FROZEN,
    FREEZE: FROZEN,
}
FAULTS_EACH_MAX: Final = 4096
"""Of one kind, on one node."""

Ids = NDArray[np.int64]
Spans = tuple[Ids, Floats, Floats, int]
"""Nodes, when each goes and is back, and how it goes."""


class Timeline:
    """The times down of all nodes. Times are seconds since the simulation's beginning."""

    def __init__(self, scenario: Scenario, population: Population, seed: int) -> None:
        spans = [each for each in _spans(scenario, population, seed) if len(each[0])]
        n = len(population)
        nodes = np.concatenate([each[0] for each in spans] or [np.zeros(0, dtype=np.int64)])
        begins = np.concatenate([each[1] for each in spans] or [np.zeros(0)])
        ends = np.concatenate([each[2] for each in spans] or [np.zeros(0)])
        how = np.concatenate(
            [np.full(len(each[0]), each[3], dtype=np.int8) for each in spans] or [np.zeros(0, np.int8)]
        )
        inside = (ends > 0) & (begins < scenario.duration_s)
        nodes, begins, ends, how = nodes[inside], begins[inside], ends[inside], how[inside]
        order = np.lexsort((begins, nodes))
        nodes, begins, ends, how = _merged(nodes[order], begins[order], ends[order], how[order])
        self.nodes: Ids = nodes
        self.begins: Floats = begins
        self.ends: Floats = ends
        self.how: NDArray[np.int8] = how
        self._first: Ids = np.searchsorted(nodes, np.arange(n + 1))
        self._at: Ids = self._first[:-1].copy()
        """Of each node, its interval that ends next, as of the last time it was asked for."""

    def down(self, nodes: Ids, at_s: Floats) -> Bools:
        """Whether each of these nodes is down then."""
        return self._within(nodes, self._seek(nodes, at_s), at_s)

    def silent(self, nodes: Ids, at_s: Floats) -> Bools:
        """Whether each is down then and says nothing at all. One that yielded still answers that it takes no work."""
        here = self._seek(nodes, at_s)
        now = self._within(nodes, here, at_s)
        now[now] = self.how[here[now]] != YIELDS
        return now

    def next_down(self, nodes: Ids, at_s: Floats) -> tuple[Floats, NDArray[np.int8]]:
        """When each, which is up then, goes next (infinite: not before the end), and how."""
        here = self._seek(nodes, at_s)
        there = here < self._first[nodes + 1]
        safe = np.where(there, here, 0)
        if not len(self.begins):
            return np.full(len(nodes), np.inf), np.zeros(len(nodes), dtype=np.int8)
        return np.where(there, self.begins[safe], np.inf), np.where(there, self.how[safe], 0).astype(np.int8)

    def up_share(self, steps_s: Floats, chosen: Bools | None = None) -> Floats:
        """The share of the (chosen) nodes that is up at each of those times."""
        mine = slice(None) if chosen is None else chosen[self.nodes]
        count = len(self._at) if chosen is None else int(chosen.sum())
        gone = np.searchsorted(np.sort(self.begins[mine]), steps_s, side="right")
        back = np.searchsorted(np.sort(self.ends[mine]), steps_s, side="right")
        return 1.0 - (gone - back) / max(count, 1)

    def up_mean(self, duration_s: float) -> float:
        """The share of nodes that is up, over time."""
        down_s = np.minimum(self.ends, duration_s) - np.maximum(self.begins, 0.0)
        return 1.0 - float(down_s.sum()) / duration_s / len(self._at)

    def speaking_mean(self, duration_s: float) -> float:
        """The share of nodes that says something if asked, over time: all but those gone or frozen."""
        mute = self.how != YIELDS
        down_s = np.minimum(self.ends[mute], duration_s) - np.maximum(self.begins[mute], 0.0)
        return 1.0 - float(down_s.sum()) / duration_s / len(self._at)

    def _seek(self, nodes: Ids, at_s: Floats) -> Ids:
        """Of each, the interval that ends next after that time; the last one's successor, if none does."""
        here = self._at[nodes]
        first, last = self._first[nodes], self._first[nodes + 1]
        while True:
            over = here < last
            over[over] = self.ends[here[over]] <= at_s[over]
            if not over.any():
                break
            here[over] += 1
        while True:
            early = here > first
            early[early] = self.ends[here[early] - 1] > at_s[early]
            if not early.any():
                break
            here[early] -= 1
        self._at[nodes] = here
        return here

    def _within(self, nodes: Ids, here: Ids, at_s: Floats) -> Bools:
        there = here < self._first[nodes + 1]
        there[there] = self.begins[here[there]] <= at_s[there]
        return there


def _merged(
    nodes: Ids, begins: Floats, ends: Floats, how: NDArray[np.int8]
) -> tuple[Ids, Floats, Floats, NDArray[np.int8]]:
    """Of intervals in order, those that touch made one; it goes as the first of them did."""
    if not len(nodes):
        return nodes, begins, ends, how
    # A running maximum of ends within each node: nodes are set apart by more than any time.
    apart = nodes * 1e9
    reach = np.maximum.accumulate(ends + apart)
    fresh = np.ones(len(nodes), dtype=np.bool_)
    fresh[1:] = begins[1:] + apart[1:] > reach[:-1]
    starts = np.flatnonzero(fresh)
    lasts = np.append(starts[1:], len(nodes)) - 1
    return nodes[starts], begins[starts], reach[lasts] - apart[starts], how[starts]


def _spans(scenario: Scenario, population: Population, seed: int) -> Iterator[Spans]:
    yield from _days(scenario, population)
    faults, duration_s = scenario.faults, scenario.duration_s
    yield from _faults(population, faults.churn * 24, faults.churn_s, duration_s, 200, YIELDS)
    yield from _faults(population, faults.kills_per_day, faults.restart_s, duration_s, 201, GONE)
    yield from _faults(population, faults.freezes_per_day, faults.freeze_s, duration_s, 202, FROZEN)
    yield from _weather(scenario, population, seed)
    for number, event in enumerate(scenario.events):
        if event.what in HOW:
            yield from _event(event, number, population)


def _days(scenario: Scenario, population: Population) -> Iterator[Spans]:
    for crowd_number, crowd in enumerate(scenario.population):
        nodes = np.flatnonzero(population.crowd == crowd_number)
        if not len(nodes):
            continue
        local_s = scenario.start_s + float(population.zone_s[nodes[0]])
        for day in range(int(local_s // DAY_S) - 1, int((local_s + scenario.duration_s) // DAY_S) + 1):
            begins, ends = absences(MODELS[int(population.model[nodes[0]])], population.seeds[nodes], day)
            row, _ = there = np.nonzero(np.isfinite(begins))
            yield nodes[row], begins[there] - local_s, ends[there] - local_s + crowd.settle_s, YIELDS


def _faults(
    population: Population, per_day: float, lasts_s: float, duration_s: float, salt: int, how: int
) -> Iterator[Spans]:
    """At a constant rate, each as long: gaps are exponential."""
    if per_day <= 0:
        return
    nodes = np.arange(len(population))
    at_s = np.zeros(len(population))
    for number in range(FAULTS_EACH_MAX):
        at_s = at_s - np.log1p(-lots(population.seeds[nodes], salt, number)) * DAY_S / per_day
        inside = at_s < duration_s
        nodes, at_s = nodes[inside], at_s[inside]
        if not len(nodes):
            return
        yield nodes, at_s, at_s + lasts_s, how
        at_s = at_s + lasts_s


def _weather(scenario: Scenario, population: Population, seed: int) -> Iterator[Spans]:
    if scenario.faults.storms_per_week <= 0:
        return
    first, last = int(scenario.start_s // (7 * DAY_S)), int((scenario.start_s + scenario.duration_s) // (7 * DAY_S))
    for region in np.unique(population.region):
        nodes = np.flatnonzero(population.region == region)
        for week in range(first, last + 1):
            for storm in storms(seed, int(region), week, scenario.faults.storms_per_week):
                begins, ends = storm_outages(storm, population.seeds[nodes], scenario.faults.storm_share)
                hit = np.isfinite(begins)
                yield nodes[hit], begins[hit] - scenario.start_s, ends[hit] - scenario.start_s, GONE


def chosen_by(event: Event, number: int, population: Population) -> Ids:
    """The nodes to whom the scenario's event of that number happens."""
    chosen = np.ones(len(population), dtype=np.bool_)
    if event.region:
        chosen &= population.region == REGION_NAMES.index(event.region)
    if event.model:
        chosen &= population.model == MODELS.index(event.model)
    if event.district >= 0:
        chosen &= population.district == event.district
    nodes = np.flatnonzero(chosen)
    order = np.argsort(lots(population.seeds[nodes], 210, number), kind="stable")
    return np.sort(nodes[order[: round(event.share * len(nodes))]])


def _event(event: Event, number: int, population: Population) -> Iterator[Spans]:
    nodes = chosen_by(event, number, population)
    begins = event.at_h * 3600.0 + event.over_s * lots(population.seeds[nodes], 211, number)
    yield nodes, begins, begins + event.lasts_s, HOW[event.what]
