"""One scenario and one seed in, what came of it out, at whichever fidelity the scenario names."""

from __future__ import annotations

from pathlib import Path

from ...protocol.errors import Code, ConfigError
from .figures import Outcome
from .scenario import EVENTS, Scenario


def simulate(scenario: Scenario, seed: int, trace: Path | None = None) -> Outcome:
    """The same for the same scenario and seed, in every process. With every task, each line of the trace is kept if a file
    is named for it."""
    if scenario.fidelity == EVENTS:
        if trace is not None:
            raise ConfigError(
                Code.BAD_CONFIG, "Only `--fidelity tasks` has a trace in lines; events are hashed as arrays."
            )
        from .events.simulation import simulate_events

        return simulate_events(scenario, seed)
    from .tasks.simulation import simulate_tasks

    return simulate_tasks(scenario, seed, trace_file=trace)
