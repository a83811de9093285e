"""When owners drive and park: a pure function of the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fallow.protocol.errors import ConfigError
from fallow.testnet.days import BY_KIND, DRIVE, JITTER_MIN, PARK, SCRIPTS, moments, script
from fallow.testnet.plan import NodePlan, Plan, plan_nodes

PLAN = Plan(tuple(plan_nodes(12)), day_s=1440.0, seed=1)
"""A minute of the day takes a second."""


def test_the_same_plan_gives_the_same_day_and_another_seed_another() -> None:
    assert moments(PLAN, 3) == moments(PLAN, 3)
    assert moments(PLAN) != moments(replace(PLAN, seed=2))


@pytest.mark.parametrize("text", SCRIPTS)
def test_whoever_drives_parks_again(text: str) -> None:
    whats = [what for _, what in script(text, "host")]
    assert whats == [DRIVE, PARK] * (len(whats) // 2)


def test_each_kind_has_its_day_and_each_node_its_minutes() -> None:
    assert set(BY_KIND) == {"vehicle", "robot", "site", "host"}
    first = [moment for moment in moments(PLAN) if moment.what == DRIVE and moment.node.endswith("vehicle")]
    mornings = [moment.at_s for moment in first if moment.at_s < 6 * 60]
    assert len(set(mornings)) == 4
    assert all(abs(at_s - 160) <= JITTER_MIN for at_s in mornings)  # 07:40, a day beginning at five
    assert not any(moment.node.endswith("host") for moment in moments(PLAN))


def test_moments_come_in_their_order_within_the_days() -> None:
    found = moments(PLAN, 2)
    assert [moment.at_s for moment in found] == sorted(moment.at_s for moment in found)
    assert all(0 <= moment.at_s < 2 * PLAN.day_s for moment in found)


@pytest.mark.parametrize(
    "text", ["25:00 drive", "08:00 fly", "8:00 park", "10:00 drive, 09:00 park", "10:00 park, 10:00 park"]
)
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        script(text, "host")


def test_a_script_of_one_s_own_is_lived() -> None:
    plan = Plan((NodePlan("a", "host", day="12:00 drive, 12:30 park"),), day_s=24.0)
    drive, park = moments(plan)
    assert (drive.what, park.what) == (DRIVE, PARK)
    assert park.at_s - drive.at_s == pytest.approx(0.5)
