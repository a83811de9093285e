"""Small simulations with every task and message."""

import pytest

from fallow.testnet.simnet.scenario import Assurance, Crowd, Load, Scenario


@pytest.fixture
def calm() -> Scenario:
    """A dozen nodes in one region, two clients, and nothing in particular happening."""
    return Scenario(
        name="calm",
        fidelity="tasks",
        nodes=12,
        start="wed 12:00",
        duration_h=0.02,
        index_share=0.25,
        population=(Crowd("host", share=0.5), Crowd("site", share=0.5)),
        load=Load(jobs_per_hour=500, clients=2, input_tokens=20, output_tokens=40),
        assurance=Assurance("quorum:2/3"),
    )
