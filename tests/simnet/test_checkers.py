"""Each checker objects to the fault that it is for: the faults are planted into the real code."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fallow.client import discovery, execution, text
from fallow.node import presence
from fallow.node.grid import member as grid_member
from fallow.protocol.claims import Claim, claim_of
from fallow.protocol.feeders import allowance_w
from fallow.testnet.simnet.scenario import Assurance, Bounds, Event, Faults, Load, Scenario
from fallow.testnet.simnet.tasks import feeders
from fallow.testnet.simnet.tasks.checkers import quantile, wrong_share
from fallow.testnet.simnet.tasks.engine import SimEngine
from fallow.testnet.simnet.tasks.shrinking import NODES_MIN, shrink
from fallow.testnet.simnet.tasks.simulation import simulate_tasks
from fallow.verifier import quorum

CHURN = Faults(churn=40, churn_s=60)


def _objections(scenario: Scenario, seed: int = 1) -> set[str]:
    return {each.partition(":")[0] for each in simulate_tasks(scenario, seed).violations}


def test_an_honest_mesh_is_not_objected_to(calm: Scenario) -> None:
    assert _objections(replace(calm, faults=CHURN)) == set()


def test_a_node_that_works_on_when_its_owner_is_back(calm: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimEngine, "kill", lambda engine: None)
    monkeypatch.setattr(SimEngine, "cancel", lambda engine, job: None)
    long = replace(calm.load, jobs_per_hour=900, output_tokens=200)
    assert "owner_first" in _objections(replace(calm, load=long, events=(Event("depart", at_h=0.015),)))


def test_a_payer_who_promises_more_than_was_done(calm: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    def double(owed_ucr: int, *terms: int) -> Claim:
        return claim_of(2 * owed_ucr, *terms)

    monkeypatch.setattr(execution, "claim_of", double)
    assert "credits_conserved" in _objections(calm)


def test_a_verifier_that_believes_everything(calm: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quorum, "values_disagreement", lambda *evidence: None)
    monkeypatch.setattr(quorum, "choice_disagreement", lambda *evidence: None)
    assert "wrong_results_bounded" in _objections(replace(calm, faults=Faults(liars=0.4)))


def test_a_job_that_ends_with_no_reason(calm: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(job: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(text.TextJob, "run", breaks)
    outcome = simulate_tasks(calm, 1)
    assert {each.partition(":")[0] for each in outcome.violations} == {"every_job_ends"}
    assert outcome.figures.lost == outcome.figures.asked > 0
    assert outcome.figures.unserved == 0


def test_more_jobs_without_a_result_than_the_scenario_allows(calm: Scenario) -> None:
    everybody = Event("kill", at_h=0.006, lasts_s=600)
    alone = replace(calm, events=(everybody,), bounds=Bounds(unserved_share=0.1))
    assert "every_job_ends" in _objections(alone)


def test_somebody_who_is_named_long_after_having_gone(calm: Scenario) -> None:
    most = Event("kill", at_h=0.008, lasts_s=600, share=0.7)
    assert "ghosts_vanish" in _objections(replace(calm, duration_h=0.03, events=(most,), bounds=Bounds(ghost_s=5)), 3)


def test_orders_that_go_to_the_dead(calm: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery.Discovery, "known", lambda found, bundle: list(found.nodes.values()))
    monkeypatch.setattr(discovery.Discovery, "forget", lambda found, key: None)
    most = Event("kill", at_h=0.008, lasts_s=600, share=0.5)
    long = replace(calm, duration_h=0.04, events=(most,))
    assert any("an order was to go" in each for each in simulate_tasks(long, 1).violations)


def test_nodes_that_announce_themselves_all_the_time(calm: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "ANNOUNCE_S", 1.0)
    monkeypatch.setattr(presence, "SPREAD_S", 0.1)
    assert "index_load_bounded" in _objections(replace(calm, bounds=Bounds(index_records_s=4)))


def test_members_of_a_feeder_lend_and_the_cap_holds(calm: Scenario, tmp_path: Path) -> None:
    faults = Faults(loss=0.2, duplication=0.2, reordering=0.3, clock_skew_ms=60_000, freezes_per_day=50)
    members = replace(calm, nodes=6, duration_h=0.4, feeders=True, load=Load(0.0), faults=faults)
    outcome = simulate_tasks(members, 1, tmp_path / "trace")
    assert (tmp_path / "trace").read_text().count(" feeder_lends ") > 10
    assert outcome.violations == ()


def test_a_member_who_draws_what_it_has_lent(calm: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(rosters: Any, leases: Any, member: bytes, now_ms: int) -> int:
        return allowance_w(rosters, [each for each in leases if each.signer != member], member, now_ms)

    monkeypatch.setattr(grid_member, "allowance_w", forgetful)
    assert "caps_hold" in _objections(replace(calm, nodes=4, duration_h=1.2, feeders=True, load=Load(0.0)))


def test_a_site_that_does_not_shed(calm: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeders, "_heeding", lambda cap_w, demand_w: demand_w)
    assert any(
        "than it was told" in each
        for each in simulate_tasks(replace(calm, nodes=4, duration_h=0.6, feeders=True, load=Load(0.0)), 1).violations
    )


def test_a_failure_is_made_smaller(calm: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(scenario: Scenario) -> tuple[str, ...]:
        return ("owner_first: somebody",) if scenario.nodes > 5 and scenario.faults.churn else ()

    small = shrink(replace(calm, faults=replace(CHURN, loss=0.1), events=(Event(),)), 1, breaks)
    assert small.nodes == 6
    assert (small.faults.churn, small.faults.loss, small.events) == (40, 0.0, ())
    assert small.load.clients == 1


def test_what_is_shrunk_still_fails_when_it_is_run(calm: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quorum, "values_disagreement", lambda *evidence: None)
    monkeypatch.setattr(quorum, "choice_disagreement", lambda *evidence: None)
    small = shrink(replace(calm, faults=Faults(liars=0.4, loss=0.01)), 1)
    assert NODES_MIN <= small.nodes < calm.nodes
    assert small.faults.loss == 0.0
    assert "wrong_results_bounded" in _objections(small)


def test_colluders_are_allowed_for_and_others_are_not(calm: Scenario) -> None:
    assert wrong_share(replace(calm, faults=Faults(liars=0.9))) == 0.0
    assert wrong_share(replace(calm, assurance=Assurance("none"))) == 1.0
    # One in ten colludes: an executor, and one of two checkers, in either of two windows.
    share = wrong_share(replace(calm, faults=Faults(colluders=0.1)))
    assert share == pytest.approx(1 - (1 - 0.1 * (2 * 0.1 * 0.9 + 0.01)) ** 2)


def test_the_bound_is_where_one_run_in_a_thousand_is_beyond() -> None:
    assert quantile(1000, 0.0, 0.999) == 0
    assert quantile(10, 1.0, 0.999) == 10
    assert quantile(1000, 0.01, 0.999) == 21
