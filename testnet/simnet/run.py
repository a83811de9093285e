"""One scenario and one seed in, what came of it out, at whichever fidelity the scenario names."""

from __future__ import annotations

from .figures import Outcome
from .scenario import EVENTS, Scenario


def simulate(scenario: Scenario, seed: int) -> Outcome:
    """The same for the same scenario and seed, in every process."""
    if scenario.fidelity == EVENTS:
        from .events.simulation import simulate_events

        return simulate_events(scenario, seed)
    from .tasks.simulation import simulate_tasks

    return simulate_tasks(scenario, seed)
