"""Bundles come from node to node by the real code: chunks, swarm, library and a new worker, over the simulated network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fallow.testnet.simnet.events import spreading
from fallow.testnet.simnet.events.spreading import serves_from
from fallow.testnet.simnet.events.timeline import Timeline
from fallow.testnet.simnet.population import populate
from fallow.testnet.simnet.scenario import Bundle, Crowd, Event, Faults, Load, Scenario
from fallow.testnet.simnet.tasks.simulation import simulate_tasks

MB = 12.0
NEWS = Scenario(
    name="news",
    fidelity="tasks",
    nodes=8,
    start="wed 12:00",
    duration_h=0.3,
    index_share=0.4,
    population=(Crowd("host"),),
    bundles=(Bundle("chat", demand=0.0), Bundle("news", demand=1.0, held=0.0, wanted=0.6, size_mb=MB)),
    load=Load(jobs_per_hour=120, clients=2, input_tokens=20, output_tokens=32),
    events=(Event("appear", at_h=0.02, share=0.0, bundle="news"),),
)


def _lines(scenario: Scenario, trace: Path, seed: int = 1) -> list[list[str]]:
    assert simulate_tasks(scenario, seed, trace).violations == ()
    return [line.split() for line in trace.read_text().splitlines()]


def test_whoever_wants_a_bundle_gets_it_and_serves_it(tmp_path: Path) -> None:
    lines = _lines(NEWS, tmp_path / "trace")
    fetched = {line[1]: dict(word.split("=") for word in line[3:]) for line in lines if line[2] == "fetched"}
    assert len(fetched) == 5  # one publishes it, and six in ten of the others want it
    assert sorted(int(each["bytes"]) for each in fetched.values())[0] == 0  # the publisher has it
    assert max(int(each["sources"]) for each in fetched.values()) > 1
    executed = {line[1] for line in lines if line[2] == "job_accepted"}
    assert executed & fetched.keys() == executed
    assert len(executed) > 1


FLASH = replace(
    NEWS,
    name="flash",
    nodes=10,
    duration_h=0.1,
    population=(Crowd("host"), Crowd("site")),
    bundles=(Bundle("chat", demand=0.0), Bundle("news", demand=0.0, held=0.0, wanted=0.9, size_mb=32.0)),
    faults=Faults(bandwidth_factor=0.02),
    load=Load(jobs_per_hour=0.0),
    events=(Event("appear", at_h=0.02, share=0.0, bundle="news"),),
)
"""One publisher, and within half a minute nine in ten others want what takes it a minute to send once."""


def test_a_bundle_spreads_as_fast_as_events_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "HEARD_S", 30.0)
    monkeypatch.setattr(spreading, "STEP_S", 1.0)
    population = populate(FLASH, 1)
    expected = np.sort(serves_from(FLASH, population, Timeline(FLASH, population, 1))[:, 1]) - spreading.START_S
    lines = [line for line in _lines(FLASH, tmp_path / "trace") if line[2] == "fetched"]
    came_s = np.sort([int(line[0]) / 1e6 for line in lines])
    assert len(came_s) == np.isfinite(expected).sum() > 7
    took, should = (each - FLASH.events[0].at_h * 3600 for each in (came_s, expected[np.isfinite(expected)]))
    assert np.median(took) == pytest.approx(
        np.median(should), rel=0.3
    )  # a swarm of dozens is a fifth quicker than the fluid
