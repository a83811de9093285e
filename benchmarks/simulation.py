"""How long a simulated hour of a hundred nodes takes with every task and message: `python benchmarks/simulation.py`.

One process on one core; what is said of time is its processor time, and beside it the clock's.
"""

from __future__ import annotations

import time
from dataclasses import replace

from fallow.testnet.simnet.scenario import Assurance, Crowd, Load, Scenario
from fallow.testnet.simnet.tasks.simulation import simulate_tasks

HOUR = Scenario(
    name="hundred",
    fidelity="tasks",
    nodes=100,
    start="wed 12:00",
    duration_h=1.0,
    index_share=0.1,
    population=(
        Crowd("commuter", share=0.5),
        Crowd("robot", share=0.2),
        Crowd("site", share=0.15),
        Crowd("host", share=0.15),
    ),
    load=Load(jobs_per_hour=120, clients=2, input_tokens=40, output_tokens=64),
    assurance=Assurance("quorum:2/3"),
)
SEED = 3


def main() -> None:
    for minutes in (6, 60):
        scenario = replace(HOUR, duration_h=minutes / 60)
        clock, processor = time.perf_counter(), time.process_time()
        outcome = simulate_tasks(scenario, SEED)
        took = f"{time.process_time() - processor:.1f} s of processor time, {time.perf_counter() - clock:.1f} s"
        print(f"{scenario.nodes} nodes, {minutes} min, {outcome.figures.asked} jobs: {took}; {outcome.trace_hash[:16]}")
        print("  ", *outcome.violations or ("no checker objects",))


if __name__ == "__main__":
    main()
