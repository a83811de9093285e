"""Scenarios as they are written: what reads, what does not and what is then said."""

import pytest

from fallow.protocol.errors import ConfigError
from fallow.testnet.simnet.scenario import Scenario
from fallow.testnet.simnet.scenario_file import changed, dumps, load, parse, shipped, sweep


@pytest.mark.parametrize("name", shipped())
def test_each_shipped_scenario_reads_as_it_is_written(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.about
    assert parse(dumps(scenario)) == scenario
    smaller = scenario.scaled(scenario.nodes // 2)
    assert parse(dumps(smaller)) == smaller
    assert smaller.load.jobs_per_hour == pytest.approx(scenario.load.jobs_per_hour / 2, rel=0.01)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "nodes = 10\n\n[faults]\nchrun = 0.1",
            "line 4: setting `faults.chrun`: there is no such setting; did you mean churn",
        ),
        ('fidelity = "evnts"', "line 1: setting `fidelity`: 'evnts' is none of events, tasks; did you mean events?"),
        ('start = "monday"', "line 1: setting `start`: 'monday' is no time of the week"),
        ('start = "mon 24:00"', "is no time of the week"),
        ("[faults]\nloss = 2", "line 2: setting `faults.loss`: must be from 0 to 1, not 2"),
        ("[faults]\nloss = true", "line 2: setting `faults.loss`: must be a number, not True"),
        ("[faults]\nloss = nan", "must be from 0 to 1"),
        ("faults = 3", "line 1: setting `faults`: must be a table"),
        ("[[population]]\nmodel = 'taxy'", "'taxy' is none of commuter, taxi, robot, site, host; did you mean taxi?"),
        ("population = []", "line 1: setting `population`: there must be one at least"),
        ("nodes = 0", "must be from 1 to 2e+06"),
        ('[assurance]\npolicy = "quorum:1/3"', "line 2: setting `assurance.policy`"),
        ('[[bundles]]\nname = "a"\n[[bundles]]\nname = "a"', "each has a name of its own"),
        ('[[events]]\nwhat = "appear"\nbundle = "cat"', "line 3: setting `events.bundle`: 'cat' is no bundle here"),
        ('fidelity = "tasks"\nnodes = 5000', "line 2: setting `nodes`: with every task at most 2000"),
        ("nodes = ", "is not TOML"),
        ('name = "A b"', "small letters"),
    ],
)
def test_what_does_not_read_says_where_and_why(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert said in refused.value.message
    assert refused.value.code == "bad_config"


def test_a_name_that_is_none_is_told_what_was_meant() -> None:
    with pytest.raises(ConfigError, match="did you mean steady"):
        load("stedy")


def test_a_setting_is_found_by_its_last_name_if_that_says_enough() -> None:
    scenario = Scenario()
    assert changed(scenario, "churn", 0.25).faults.churn == 0.25
    assert changed(scenario, "bundles.chat.held", 0.5).bundles[0].held == 0.5
    assert changed(scenario, "population.0.model", "taxi").population[0].model == "taxi"
    assert changed(scenario, "nodes", 20.0).nodes == 20
    for name, said in (
        ("chrun", "did you mean churn"),
        ("lasts", "there is no setting"),
        ("loss.x", "there is no setting"),
    ):
        with pytest.raises(ConfigError, match=said):
            changed(scenario, name, 1.0)
    with pytest.raises(ConfigError, match="must be from 0 to 60"):
        changed(scenario, "churn", 1000.0)


def test_sweeps_are_from_to_or_one_by_one() -> None:
    assert sweep("churn=0.1:0.5:5") == ("churn", (0.1, 0.2, 0.3, 0.4, 0.5))
    assert sweep("nodes=10,100") == ("nodes", (10.0, 100.0))
    for text in ("churn", "churn=", "churn=a:b:c", "churn=0:1:1", "churn=1:2", "=1,2", "churn=0:inf:3", "churn=nan"):
        with pytest.raises(ConfigError, match="is no sweep"):
            sweep(text)
