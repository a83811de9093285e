"""A simulated node that finds nobody when it begins joins once it can, as a daemon that its service manager starts again."""

from dataclasses import replace
from pathlib import Path

from fallow.testnet.simnet.scenario import PARTITION, TASKS, Crowd, Event, Load, Scenario
from fallow.testnet.simnet.tasks.simulation import simulate_tasks

SCENARIO = Scenario(
    fidelity=TASKS, nodes=8, duration_h=0.015, index_share=0.125,
    population=(Crowd("host", "eu-west", 0.5), Crowd("host", "us-east", 0.5)),
    load=replace(Load(), clients=1, jobs_per_hour=60.0, output_tokens=8),
    events=(Event(PARTITION, 0.0, lasts_s=15.0, region="us-east"),),
)  # fmt: skip


def test_who_was_cut_off_when_it_began_joins_afterwards(tmp_path: Path) -> None:
    simulate_tasks(SCENARIO, 1, tmp_path / "trace")
    lines = [line.split()[1:] for line in (tmp_path / "trace").read_text().splitlines()]
    connected = {int(each) for line in lines if line[1] == "connected" for each in (line[0], line[2])}
    assert connected >= set(range(SCENARIO.nodes))
