"""Events in arrays: the same as the code that they stand for, and the same in every process."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow.client import scheduler
from fallow.testnet.simnet.events.audits import audit_shares
from fallow.testnet.simnet.events.clients import expected_s, two_of
from fallow.testnet.simnet.events.counters import Counters
from fallow.testnet.simnet.events.discovery import Discovery
from fallow.testnet.simnet.events.searching import holders, sampled
from fallow.testnet.simnet.events.timeline import Timeline
from fallow.testnet.simnet.figures import Trace
from fallow.testnet.simnet.lots import seeds_of
from fallow.testnet.simnet.population import populate
from fallow.testnet.simnet.run import simulate
from fallow.testnet.simnet.scenario import EVENTS, Assurance, Bounds, Scenario
from fallow.testnet.simnet.scenario_file import load, shipped
from fallow.testnet.simnet.traffic import WIRE, Expected

QUICK = Scenario(nodes=300, start="mon 05:30", duration_h=0.25, index_share=0.1)


@pytest.mark.parametrize("name", [name for name in shipped() if load(name).fidelity == EVENTS])
def test_every_shipped_scenario_holds_when_it_is_small(name: str) -> None:
    scenario = replace(load(name).scaled(400), duration_h=0.25, index_share=0.1)
    events = tuple(replace(event, at_h=event.at_h / 40, over_s=event.over_s / 40) for event in scenario.events)
    load_ = replace(scenario.load, jobs_per_hour=800.0, clients=20)
    scenario = replace(scenario, events=events, load=load_, bounds=replace(scenario.bounds, wrong_share=1.0))
    outcome = simulate(scenario, 3)
    assert outcome.violations == ()
    assert outcome.figures.asked == outcome.figures.completed + outcome.figures.unserved > 50
    assert outcome.figures.lost == 0
    assert len(outcome.series["t_h"]) == len(outcome.series["up"]) == len(outcome.series["index_busiest"])


def test_a_seed_replays_to_the_same_hash_in_every_process() -> None:
    def run(seed: int, hash_seed: str) -> list[str]:
        words = [
            "simulate",
            "steady",
            "--nodes",
            "200",
            "--set",
            "duration_h=0.2",
            "--set",
            "churn=1",
            "--seed",
            str(seed),
        ]
        ran = subprocess.run(
            [sys.executable, "-m", "fallow.cli", *words, "--json", "--trace-hash"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.splitlines()

    first, again = run(5, "1"), run(5, "2")
    assert first == again
    assert len(first[-1]) == 64
    assert first[-1] in first[0]
    other = replace(load("steady").scaled(200), duration_h=0.2)
    assert simulate(replace(other, faults=replace(other.faults, churn=1.0)), 6).trace_hash != first[-1]
    assert simulate(replace(other, faults=replace(other.faults, churn=1.0)), 5).trace_hash == first[-1]


def test_departures_interrupt_jobs_and_none_is_lost() -> None:
    busy = replace(QUICK.load, jobs_per_hour=6000.0, clients=50)
    figures = simulate(replace(QUICK, load=busy, faults=replace(QUICK.faults, churn=6.0, churn_s=60.0)), 2).figures
    assert figures.interrupted > 10
    # One that is interrupted twice before its next token is resumed once.
    assert 0.9 * figures.interrupted <= figures.resumed <= figures.interrupted
    assert (figures.unserved, figures.lost) == (0, 0)
    assert figures.handover_ms.p99 is not None
    assert figures.handover_ms.p99 < 3000


def test_where_nobody_is_up_jobs_end_with_a_reason() -> None:
    scenario = replace(
        QUICK, faults=replace(QUICK.faults, churn=60.0, churn_s=86_400.0), bounds=Bounds(unserved_share=0.1)
    )
    outcome = simulate(scenario, 2)
    figures = outcome.figures
    assert figures.unserved == figures.unserved_nobody == figures.asked - figures.completed > 0
    assert figures.lost == 0
    assert any("had no result" in sentence for sentence in outcome.violations)


@pytest.mark.parametrize(
    ("policy", "least", "most", "accepted"),
    [
        ("none", 0, 0, True),
        ("audit:1000000", 0.1, 0.3, False),
        ("quorum:2/3", 0.2, 0.6, False),
        ("adaptive", 0.1, 0.3, False),
    ],
)
def test_what_is_always_checked_lets_no_lie_through(policy: str, least: float, most: float, accepted: bool) -> None:
    assurance = Assurance(policy=policy)
    busy = replace(QUICK.load, jobs_per_hour=1500.0, clients=200)
    faults = replace(QUICK.faults, newcomer_liars=0.1)
    figures = simulate(replace(QUICK, newcomers=1.0, assurance=assurance, load=busy, faults=faults), 2).figures
    assert figures.verification_overhead is not None
    assert least <= figures.verification_overhead <= most
    # A tenth of the checkers agrees with every lie.
    assert (figures.wrongly_accepted > 0.08 * figures.completed) is accepted
    assert (figures.lies_caught > 0) is not accepted


def test_traffic_is_what_the_formulas_say() -> None:
    scenario = Scenario(nodes=3000, start="mon 00:00", duration_h=1, index_share=0.05)
    scenario = replace(scenario, load=replace(scenario.load, jobs_per_hour=100.0))
    figures = simulate(scenario, 1).figures
    assert figures.lookup_peers is not None
    assert figures.node_bytes_s is not None
    told = sampled(150, 0.0, 0.0, 1).told
    costs = Expected(3000, figures.lookup_peers, told, WIRE, index_share=0.05, parked=1.0, trips_day=0.0)
    # In the first hour some still look for their shard, oftener than later.
    assert figures.node_bytes_s == pytest.approx(costs.node, rel=0.08)


@given(
    st.floats(0.001, 1),
    st.integers(0, 8),
    st.integers(1, 3000),
    st.integers(1, 500),
    st.floats(1, 900),
    st.floats(1, 90),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_a_node_is_scored_as_the_scheduler_does(
    rtt_s: float, running: int, given_tokens: int, planned: int, reads: float, writes: float, interactive: bool
) -> None:
    served = SimpleNamespace(
        output_tokens_per_s_milli=round(writes * 1000),
        input_tokens_per_s_milli=round(reads * 1000),
        calls_per_s_milli=0,
    )
    capability = SimpleNamespace(served_bundle=lambda _: served)
    node = SimpleNamespace(
        key=b"n", capability=capability, jobs_running=running, rtt_ms=rtt_s * 1000, interactive=interactive
    )
    need = scheduler.Need(b"b", "generate", 0, given_tokens, planned, 10**9)
    theirs = scheduler.expected_s(cast(Any, node), need, scheduler.Experience(), 0.0)
    reading = np.array([given_tokens * 1000 / served.input_tokens_per_s_milli])
    writing = np.array([planned * 1000 / served.output_tokens_per_s_milli])
    ours = expected_s(np.array([rtt_s]), np.array([1.0 + running]), reading, writing, np.array([interactive]))
    assert ours[0] == pytest.approx(theirs)


def test_two_are_drawn_of_those_that_can() -> None:
    chance = np.random.default_rng(1)
    eligible = chance.random((2000, 6)) < 0.4
    eligible[:, 3] |= ~eligible.any(axis=1)
    first, second, _ = two_of(eligible, chance)
    row = np.arange(2000)
    assert eligible[row, first].all()
    assert eligible[row, second].all()
    several = eligible.sum(axis=1) > 1
    assert (first != second)[several].all()
    assert (first == second)[~several].all()


@pytest.mark.parametrize("count", [5, 20, 21, 3000])
def test_the_holders_of_a_key_are_the_twenty_closest(count: int) -> None:
    places, keys = np.sort(seeds_of(1, count)), seeds_of(2, 200)
    for key, found in zip(keys, holders(places, keys), strict=True):
        assert set(found.tolist()) == set(np.argsort(places ^ key)[:20].tolist())


def test_searches_find_among_liars_and_dead() -> None:
    quiet = sampled(500, 0.0, 0.0, 1, samples=10)
    assert quiet.found == quiet.kept == 1.0
    among = sampled(500, 0.3, 0.1, 1, samples=10)
    assert among == sampled(500, 0.3, 0.1, 1, samples=10)
    assert among.found == 1.0
    assert among.kept < 1.0


@given(st.lists(st.tuples(st.lists(st.integers(0, 300), max_size=40, unique=True), st.integers(-1, 99)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_counters_are_a_dictionary(puts: list[tuple[list[int], int]]) -> None:
    counters, twin = Counters(), dict[int, int]()
    for keys, count in puts:
        counters.put(np.array(keys, dtype=np.int64) * 7_919_000_000, np.full(len(keys), count, dtype=np.int32))
        twin |= dict.fromkeys(keys, count)
    every = np.arange(301)
    found = counters.get(every * 7_919_000_000, np.full(301, -5, dtype=np.int32))
    assert found.tolist() == [twin.get(key, -5) for key in range(301)]
    assert len(counters) == len(twin)


def test_newcomers_are_always_checked_and_nobody_never() -> None:
    shares = audit_shares(np.array([0, 9, 10, 25, 100, 10_000], dtype=np.int32), Assurance())
    assert shares.tolist() == [1.0, 1.0, 0.1, 0.04, 0.02, 0.02]
    dear = audit_shares(np.array([100], dtype=np.int32), Assurance(price_ucr=800, held_ucr=2000, colluding=0.2))
    assert dear.tolist() == [0.5]


def test_who_looks_too_deep_looks_a_level_higher_and_not_where_everybody_meets() -> None:
    """As `client.sampling.Sampler` does: a crowd that met at the root would know those alone whom the root names."""
    scenario = Scenario(nodes=3000, start="wed 00:00", duration_h=0.1, index_share=0.02)
    population = populate(scenario, 1)
    timeline, serves = Timeline(scenario, population, 1), np.zeros((3000, 1))
    trace, chance = Trace(), np.random.Generator(np.random.PCG64(1))
    discovery = Discovery(scenario, population, timeline, serves, sampled(60, 0.0, 0.0, 1), chance, trace)
    discovery.step(0.0)
    stand = int(np.median(discovery._trees[0].depth))
    found, _, lookups = discovery.find(0, np.full(300, stand + 1, dtype=np.int8), 1.0)
    assert (lookups == 2).mean() > 0.9
    assert len(np.unique(found)) > 500
    _, _, lookups = discovery.find(0, np.full(300, stand + 2, dtype=np.int8), 1.0)
    assert (lookups == 3).mean() > 0.9
