"""Simulations of the real code: they replay, and hold under everything that can go wrong."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fallow.testnet.simnet.scenario import Event, Faults, Load, Scenario
from fallow.testnet.simnet.scenario_file import changed, load
from fallow.testnet.simnet.tasks.simulation import simulate_tasks

SEEDS = range(1, 17)
"""A second of one core each; `fallow simulate rough --seeds 1000` is for whoever wants more."""

SMALL = changed(changed(load("rough"), "nodes", 12), "duration_h", 0.02)
ONE = """
import sys
from fallow.testnet.simnet.scenario_file import changed, load
from fallow.testnet.simnet.tasks.simulation import simulate_tasks
print(simulate_tasks(changed(changed(load("rough"), "nodes", 12), "duration_h", 0.02), 5).trace_hash)
"""


def _hash_in_a_process(hash_seed: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-c", ONE]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_simulation_is_the_same_in_every_process() -> None:
    here = simulate_tasks(SMALL, 5)
    assert _hash_in_a_process(1) == _hash_in_a_process(2) == here.trace_hash + "\n"
    assert simulate_tasks(SMALL, 6).trace_hash != here.trace_hash


@pytest.mark.parametrize("seed", SEEDS)
def test_no_checker_objects_whatever_happens(seed: int) -> None:
    violations = simulate_tasks(SMALL, seed).violations
    replay = f"replay: fallow simulate rough --seed {seed} --fidelity tasks, with nodes = 12 and duration_h = 0.02"
    assert not violations, f"{violations}\n{replay}"


def test_calm_nodes_do_every_job_and_it_is_verified(calm: Scenario) -> None:
    figures = simulate_tasks(calm, 1).figures
    assert figures.asked > 3
    assert figures.completed == figures.verified == figures.asked
    assert (figures.wrongly_accepted, figures.unserved, figures.lost) == (0, 0, 0)


def test_liars_are_caught_and_nobody_gets_their_results(calm: Scenario) -> None:
    figures = simulate_tasks(replace(calm, faults=Faults(liars=0.25, quantisers=0.17)), 3).figures
    assert figures.lies_caught > 0
    assert figures.wrongly_accepted == 0


def test_readers_go_on_elsewhere_when_owners_come_back(calm: Scenario) -> None:
    texts = Load(900, clients=2, input_tokens=20, output_tokens=200)
    half = Event("depart", at_h=0.015, share=0.5)
    outcome = simulate_tasks(replace(calm, events=(half,), load=texts), 4)
    assert outcome.figures.resumed > 0
    assert (outcome.figures.unserved, outcome.figures.lost) == (0, 0)
    assert outcome.violations == ()


def test_functions_are_called_too(calm: Scenario) -> None:
    calls = replace(calm, load=Load(1000, workload="functions", clients=2), faults=Faults(liars=0.2))
    figures = simulate_tasks(calls, 1).figures
    assert figures.completed == figures.asked > 5
    assert figures.wrongly_accepted == 0


def test_everything_that_happened_can_be_read(calm: Scenario, tmp_path: Path) -> None:
    simulate_tasks(calm, 1, tmp_path / "trace")
    words = {line.split()[2] for line in (tmp_path / "trace").read_text().splitlines()}
    assert {"starts", "connected", "frame", "job_accepted", "job_ended", "ended"} <= words
