"""The two fidelities on the same seeds: the same population, and the same figures within a stated band."""

from dataclasses import replace

import pytest

from fallow.testnet.simnet.run import simulate
from fallow.testnet.simnet.scenario import EVENTS, TASKS, Assurance, Crowd, Faults, Load, Scenario

BAND = 0.15
"""Of a first token's time."""
CROSS = Scenario(
    nodes=16,
    start="wed 10:00",
    duration_h=0.08,
    index_share=0.3,
    population=(Crowd("host", "eu-central"),),
    faults=Faults(churn=10.0, churn_s=60.0),
    assurance=Assurance("none"),
    load=Load(jobs_per_hour=900.0, clients=3),
)


@pytest.mark.parametrize("seed", [1, 2])
def test_both_fidelities_come_to_the_same(seed: int) -> None:
    events = simulate(replace(CROSS, fidelity=EVENTS), seed)
    tasks = simulate(replace(CROSS, fidelity=TASKS), seed)
    assert events.violations == tasks.violations == ()
    one, other = events.figures, tasks.figures
    for figures in (one, other):
        assert figures.asked == pytest.approx(72, abs=3 * 72**0.5)
        assert figures.completed == figures.asked
        assert figures.unserved == figures.lost == figures.wrongly_accepted == 0
        assert figures.in_class == 1.0
    assert one.first_token_ms.p50 is not None
    assert other.first_token_ms.p50 == pytest.approx(one.first_token_ms.p50, rel=BAND)


def test_index_nodes_are_asked_as_much_at_both() -> None:
    """On average: with every task all nodes start at once, and so their rounds of announcing come together at first."""
    half_an_hour = replace(CROSS, nodes=10, duration_h=0.6, faults=Faults(), load=Load(jobs_per_hour=20.0, clients=1))
    one, other = (simulate(replace(half_an_hour, fidelity=each), 1).figures for each in (EVENTS, TASKS))
    assert one.index_load_s is not None
    assert one.lookup_peers is not None
    assert other.index_load_s == pytest.approx(one.index_load_s, rel=0.25)
    assert other.lookup_peers == pytest.approx(one.lookup_peers, rel=0.1)
