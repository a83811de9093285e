"""The two fidelities on the same seeds: where both know a figure, they say the same within what they leave out."""

from dataclasses import replace

import pytest

from fallow.testnet.simnet.figures import Figures
from fallow.testnet.simnet.run import simulate
from fallow.testnet.simnet.scenario import Assurance, Crowd, Faults, Load, Scenario

BOTH = Scenario(
    name="both",
    nodes=20,
    start="wed 07:30",
    duration_h=0.08,
    index_share=0.2,
    population=(Crowd("commuter", share=0.5), Crowd("robot", share=0.2), Crowd("host", share=0.3)),
    load=Load(jobs_per_hour=300, clients=2, input_tokens=40, output_tokens=96),
    assurance=Assurance("quorum:2/3"),
    faults=Faults(churn=2, churn_s=300, kills_per_day=10, liars=0.1),
)


@pytest.fixture(scope="module", params=[1])
def both(request: pytest.FixtureRequest) -> tuple[Figures, Figures]:
    """What events alone say, and what every task and message does."""
    events, tasks = (simulate(replace(BOTH, fidelity=each), request.param) for each in ("events", "tasks"))
    assert tasks.violations == ()
    return events.figures, tasks.figures


def test_as_many_nodes_would_take_work(both: tuple[Figures, Figures]) -> None:
    events, tasks = both
    assert events.nodes_up == pytest.approx(tasks.nodes_up, abs=0.05)


def test_as_many_jobs_are_done_and_none_wrongly(both: tuple[Figures, Figures]) -> None:
    events, tasks = both
    assert 10 < events.asked < 45  # two draws of one rate: 24 on average
    assert 10 < tasks.asked < 45
    assert (events.unserved, tasks.unserved) == (events.lost, tasks.lost) == (0, 0)
    assert (events.wrongly_accepted, tasks.wrongly_accepted) == (0, 0)
    assert events.verified == events.completed
    assert tasks.verified == tasks.completed


def test_the_first_token_comes_as_soon(both: tuple[Figures, Figures]) -> None:
    events, tasks = both
    assert events.first_token_ms.p50 is not None
    assert tasks.first_token_ms.p50 == pytest.approx(events.first_token_ms.p50, rel=0.5)


def test_checks_cost_as_much(both: tuple[Figures, Figures]) -> None:
    """Events know no text that is read twice by checkers who have not kept it."""
    events, tasks = both
    assert events.verification_overhead is not None
    assert tasks.verification_overhead is not None
    assert 0.5 < tasks.verification_overhead / events.verification_overhead < 2.5
