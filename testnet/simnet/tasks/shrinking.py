"""A scenario that fails made smaller: fewer nodes, less time and fewer faults, as long as the same checker still objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, Final

from ..scenario import Faults, Scenario
from .simulation import simulate_tasks

RUNS_MAX: Final = 60
"""Simulations that one shrinking takes at most: a few minutes of the small ones that fail in CI."""
NODES_MIN: Final = 4
"""A quorum of three, and one to spare."""
HOURS_MIN: Final = 0.005


def shrink(scenario: Scenario, seed: int, violations: Callable[[Scenario], tuple[str, ...]] | None = None) -> Scenario:
    """The smallest scenario found in which, with this seed, one of the same checkers objects; the same if none is smaller.

    `violations` is what is looked for, if it is not what `simulate_tasks` says.
    """
    look = violations or (lambda each: simulate_tasks(each, seed).violations)
    wanted = _checkers(look(scenario))
    runs = 1
    smaller = True
    while smaller and wanted:
        smaller = False
        for candidate in _smaller(scenario):
            if runs >= RUNS_MAX:
                return scenario
            runs += 1
            if wanted & _checkers(look(candidate)):
                scenario, smaller = candidate, True
                break
    return scenario


def _checkers(violations: tuple[str, ...]) -> set[str]:
    return {each.partition(":")[0] for each in violations}


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Scenarios a step smaller, the largest steps first."""
    if scenario.nodes > NODES_MIN:
        yield replace(scenario, nodes=max(NODES_MIN, scenario.nodes // 2))
    if scenario.duration_h > HOURS_MIN:
        yield replace(scenario, duration_h=max(HOURS_MIN, scenario.duration_h / 2))
    for number in range(len(scenario.events)):
        yield replace(scenario, events=scenario.events[:number] + scenario.events[number + 1 :])
    if len(scenario.population) > 1:
        for number in range(len(scenario.population)):
            others = scenario.population[:number] + scenario.population[number + 1 :]
            yield replace(scenario, population=others)
    plain: Any = Faults()
    for each in fields(Faults):
        if getattr(scenario.faults, each.name) != getattr(plain, each.name):
            without: dict[str, Any] = {each.name: getattr(plain, each.name)}
            yield replace(scenario, faults=replace(scenario.faults, **without))
    load = scenario.load
    if load.clients > 1:
        yield replace(scenario, load=replace(load, clients=load.clients // 2, jobs_per_hour=load.jobs_per_hour / 2))
    if load.jobs_per_hour * scenario.duration_h > 2:
        yield replace(scenario, load=replace(load, jobs_per_hour=load.jobs_per_hour / 2))
    if scenario.nodes > NODES_MIN:
        yield replace(scenario, nodes=scenario.nodes - 1)
