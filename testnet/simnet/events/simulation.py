"""One scenario and one seed, without tasks: everything put together, and the figures that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from ..days import MODELS
from ..figures import Figures, Outcome, Trace, spread
from ..lots import Floats
from ..population import Population, populate
from ..scenario import Scenario
from ..traffic import RELAYS, STANDING_MAX, WIRE, Expected
from .audits import Audits
from .checking import violations
from .discovery import STEP_S, Discovery
from .jobs import Jobs
from .searching import sampled
from .spreading import serves_from
from .timeline import YIELDS, Timeline

POINTS: Final = 144
"""Of a series, about: ten minutes of a day. Each is of whole steps of discovery, by which jobs arrive."""


def simulate_events(scenario: Scenario, seed: int) -> Outcome:
    """The same for the same scenario and seed, in every process."""
    trace = Trace()
    chance = np.random.Generator(np.random.PCG64(seed))
    population = populate(scenario, seed)
    timeline = Timeline(scenario, population, seed)
    trace.add_bytes("down", timeline.nodes.astype("<i8").tobytes(), len(timeline.nodes))
    serves = serves_from(scenario, population, timeline)
    index = int(population.index.sum())
    searching = sampled(index, float(population.hostile.sum()) / index, 0.0, seed)
    discovery = Discovery(scenario, population, timeline, serves, searching, chance, trace)
    audits = Audits(scenario, population, chance)
    jobs = Jobs(scenario, population, timeline, discovery, audits, chance, trace)
    at_s = 0.0
    while at_s < scenario.duration_s:
        discovery.step(at_s)
        until_s = min(at_s + STEP_S, scenario.duration_s)
        jobs.run(at_s, until_s)
        at_s = until_s
    while jobs.run(at_s, at_s + STEP_S, arriving=False):
        at_s += STEP_S  # nobody asks any more; what was asked comes to its end
    figures = _figures(scenario, population, timeline, discovery, jobs)
    found = violations(scenario, timeline, jobs, figures)
    trace.add("ended", jobs.count.asked, jobs.count.completed, jobs.count.unserved, jobs.count.wrongly_accepted)
    return Outcome(figures, trace.hexdigest(), found, _series(scenario, population, timeline, discovery, jobs, serves))


def _figures(
    scenario: Scenario, population: Population, timeline: Timeline, discovery: Discovery, jobs: Jobs
) -> Figures:
    count, tally = jobs.count, discovery.tally
    first = np.sort(np.concatenate(count.first or [np.zeros(0)]))
    handover = np.sort(np.concatenate(count.handover or [np.zeros(0)]))
    node_bytes, index_bytes = _traffic(scenario, population, timeline, discovery)
    in_class = float(np.searchsorted(first, scenario.load.first_token_ms_max, side="right")) / max(len(first), 1)
    return Figures(
        nodes=len(population),
        duration_s=scenario.duration_s,
        asked=count.asked,
        completed=count.completed,
        verified=count.verified,
        wrongly_accepted=count.wrongly_accepted,
        lies_caught=count.caught,
        interrupted=count.interrupted,
        resumed=count.resumed,
        unserved=count.unserved,
        unserved_nobody=count.unserved_nobody,
        lost=count.asked - count.completed - count.unserved,
        in_class=in_class if len(first) else None,
        first_token_ms=spread(first.tolist()),
        handover_ms=spread(handover.tolist()),
        verification_overhead=count.check_s / count.work_s if count.work_s else None,
        nodes_up=timeline.up_mean(scenario.duration_s),
        lookup_peers=float(discovery.searching.asked),
        lookup_found=tally.successes / tally.lookups if tally.lookups else None,
        ghosts=tally.ghosts / tally.providers if tally.providers else None,
        index_records_s=max(tally.busiest),
        index_load_s=sum(tally.mean) / len(tally.mean),
        index_bytes_s=index_bytes,
        node_bytes_s=node_bytes,
    )


def _traffic(
    scenario: Scenario, population: Population, timeline: Timeline, discovery: Discovery
) -> tuple[float, float]:
    """Bytes a second of a node, and of an index node for others: what was counted, times what each costs on the wire."""
    tally, n, duration_s = discovery.tally, len(population), scenario.duration_s
    share = float(population.index.mean())
    searching = discovery.searching
    costs = Expected(n, searching.asked, searching.told, WIRE, index_share=share)
    keys = tally.records / max(tally.announcements, 1)
    announcing = (costs.announcements(tally.announcements, tally.records) + tally.looks * costs.look) / duration_s / n
    # Whoever was gone joins anew. Whoever only worked for its owner has gone on announcing; it may have moved, and comes back
    # to the relays that it had.
    back = (timeline.ends > 0) & (timeline.ends < duration_s)
    moved, began = int((back & (timeline.how == YIELDS)).sum()), int((back & (timeline.how != YIELDS)).sum())
    returning = began * (costs.join + costs.announcements(1, keys)) + moved * RELAYS * WIRE.connect
    returning /= duration_s * n
    speaking = timeline.speaking_mean(duration_s)
    always = costs.measuring / costs.parked + costs.refreshing + costs.standing * WIRE.idle_s
    node = announcing + returning + speaking * always
    finding = (tally.searches * costs.search + tally.named * WIRE.provider) / duration_s / n
    index = (announcing + returning + speaking * costs.refreshing + finding) / share + min(
        STANDING_MAX, costs.standing / share
    ) * WIRE.idle_s
    return node, index


def _series(
    scenario: Scenario,
    population: Population,
    timeline: Timeline,
    discovery: Discovery,
    jobs: Jobs,
    serves: Floats,
) -> dict[str, Sequence[float]]:
    """Over time, for plots: shares, and rates an hour."""
    width_s = STEP_S * np.ceil(scenario.duration_s / POINTS / STEP_S)
    edges = np.append(np.arange(0.0, scenario.duration_s - width_s / 2, width_s), scenario.duration_s)
    points = len(edges) - 1
    middles = (edges[:-1] + edges[1:]) / 2
    width_h = np.diff(edges) / 3600
    series: dict[str, Sequence[float]] = {"t_h": (middles / 3600).tolist(), "up": timeline.up_share(middles).tolist()}
    for model in np.unique(population.model):
        series[f"up_{MODELS[model]}"] = timeline.up_share(middles, population.model == model).tolist()
    sums: dict[str, Floats] = {}
    for what in ("asked", "completed", "interrupted", "caught", "unserved", "wrong", "check_s", "work_s"):
        pairs = np.array(jobs.count.events.get(what, [(0.0, 0.0)]))
        sums[what] = np.histogram(np.minimum(pairs[:, 0], edges[-1]), edges, weights=pairs[:, 1])[0]
        if not what.endswith("_s"):
            series[what] = (sums[what] / width_h).tolist()
    series["overhead"] = (sums["check_s"] / np.maximum(sums["work_s"], 1e-9)).tolist()
    asked_at = np.concatenate(jobs.count.first_at or [np.zeros(0)])
    first_ms = np.concatenate(jobs.count.first or [np.zeros(0)])
    place = np.minimum(np.searchsorted(edges, asked_at, side="right") - 1, points - 1)
    order = np.lexsort((first_ms, place))
    ends = np.searchsorted(place[order], np.arange(points + 1))
    for quantile in (50, 95):
        series[f"first_token_ms_p{quantile}"] = [
            float(first_ms[order[begin + (end - begin) * quantile // 100]]) if end > begin else float("nan")
            for begin, end in pairwise(ends.tolist())
        ]
    steps = np.minimum((middles / STEP_S).astype(np.int64), len(discovery.tally.busiest) - 1)
    series["index_busiest"] = np.array(discovery.tally.busiest)[steps].tolist()
    series["index_mean"] = np.array(discovery.tally.mean)[steps].tolist()
    for number, bundle in enumerate(scenario.bundles):
        serving = np.searchsorted(np.sort(serves[:, number]), middles, side="right") / len(population)
        series[f"serving_{bundle.name}"] = serving.tolist()
    return series
