"""When what befalls whom in a run: a pure function of seed and plan, and never more than the mesh promises to bear."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.protocol.errors import ConfigError
from fallow.testnet.faults import CALM_MS, FAULTS, HEALTHY_MIN, RECOVERY_MS, Fault, made, parse, schedule
from fallow.testnet.plan import Plan, housed, plan_nodes

plans = st.builds(
    lambda nodes, liars, namespaces: Plan(housed(plan_nodes(nodes + liars, liars)), namespaces=namespaces),
    st.integers(4, 12),
    st.integers(0, 3),
    st.booleans(),
)
seeds = st.integers(0, 2**32)
RUN_MS = 120_000


@given(seeds, plans)
def test_the_same_seed_and_plan_give_the_same_faults(seed: int, plan: Plan) -> None:
    assert schedule(seed, plan, RUN_MS) == schedule(seed, plan, RUN_MS)


def test_another_seed_gives_others_and_this_one_gives_these_on_every_machine() -> None:
    plan = Plan(tuple(plan_nodes(6)))
    assert schedule(7, plan, 600_000) != schedule(8, plan, 600_000)
    assert schedule(7, plan, 60_000) == (
        Fault("restart", ("4-robot",), 0, 8616, 0),
        Fault("drive-away", ("1-site",), 0, 12682, 2907),
        Fault("freeze", ("4-robot",), 0, 50384, 4616),
    )


@given(seeds, plans, st.floats(1.0, 60.0))
def test_at_every_moment_enough_honest_nodes_are_whole(seed: int, plan: Plan, rate: float) -> None:
    faults = schedule(seed, plan, RUN_MS, rate)
    honest = {node.name for node in plan.honest}
    for moment in [fault.at_ms for fault in faults]:
        now = [fault for fault in faults if fault.at_ms <= moment <= fault.end_ms]
        befallen = [name for fault in now for name in fault.nodes]
        assert len(befallen) == len(set(befallen))  # one fault at a time for each
        assert len(honest - set(befallen)) >= HEALTHY_MIN


@given(seeds, plans)
def test_faults_are_in_order_known_and_over_before_the_end(seed: int, plan: Plan) -> None:
    faults = schedule(seed, plan, RUN_MS)
    assert [fault.at_ms for fault in faults] == sorted(fault.at_ms for fault in faults)
    adversaries = {node.name for node in plan.nodes if node.adversary}
    for fault in faults:
        kind = FAULTS[fault.name]
        assert fault.at_ms >= CALM_MS and fault.end_ms <= RUN_MS - RECOVERY_MS
        assert 0 <= fault.for_ms <= kind.most_ms
        assert fault.amount in (kind.amounts or (0,))
        assert plan.namespaces or not kind.network
        assert not (kind.honest and adversaries & set(fault.nodes))


def test_every_kind_comes_in_the_long_run() -> None:
    plan = Plan(housed(plan_nodes(8)), namespaces=True)
    assert {fault.name for fault in schedule(1, plan, 3_600_000)} == set(FAULTS)


def test_without_a_rate_nothing_happens() -> None:
    assert schedule(1, Plan(tuple(plan_nodes(6))), RUN_MS, 0.0) == ()


def test_a_network_that_can_spare_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match="4 honest nodes"):
        schedule(1, Plan(tuple(plan_nodes(5, liars=2))), RUN_MS)


def test_faults_are_read_as_they_are_written() -> None:
    assert parse("2-vehicle=freeze, 3-robot=slow:64,") == (
        Fault("freeze", ("2-vehicle",)), Fault("slow", ("3-robot",), 64)
    )  # fmt: skip
    (skewed,) = parse("0-host=clock-skew:-5000")
    assert skewed.amount == -5000
    assert replace(made("lossy", ["a"]), amount=0) == Fault("lossy", ("a",))


@pytest.mark.parametrize(
    "text", ["x", "x=", "x=doze", "x=freeze:3", "x=slow:0", "x=lossy:-4", "x=clock-skew:999999999999"]
)
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)
