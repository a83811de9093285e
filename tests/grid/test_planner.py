"""A site's plan: the best of a day within the limit and the battery, and no work where chargers need all there is."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow.node.grid.planner import INTERVAL_S, Expected, Plan, made_plan
from fallow.node.grid.site_config import Battery, SiteConfig

BATTERY = Battery(100.0, 50_000.0, min_pct=10, max_pct=90, setpoint=Path("setpoint"))
SITE = SiteConfig(100_000, 40_000, 100_000, 1_000, 1_000, battery=BATTERY)
KWH = INTERVAL_S / 3_600_000


def hours(*each: tuple[float, float], cap_w: float = 40_000) -> list[Expected]:
    """(what others draw, price in milli-credits) of each hour."""
    return [Expected(100_000, others_w, 1_000 * price, cap_w) for others_w, price in each for _ in range(4)]


def test_work_is_done_where_it_earns_more_than_energy_costs() -> None:
    plan = made_plan(replace(SITE, battery=None), hours((0, 100), (0, 300)), 0.0, None, 200_000.0)
    assert plan.work_w == pytest.approx([40_000] * 4 + [0] * 4)
    assert plan.battery_w == pytest.approx([0] * 8)
    assert plan.at(0) == (40_000, 0)
    assert plan.at(3 * 3600) == (0, 0)
    assert plan.at(-1) == (0, 0)


def test_cheap_hours_are_stored_for_dear_ones() -> None:
    dear = [Expected(100_000, 50_000, 500_000, 0)] * 4
    plan = made_plan(SITE, [*hours((50_000, 100), cap_w=0), *dear], 0.0, 10.0, 0.0)
    assert sum(plan.battery_w[:4]) > 0
    assert all(watts < 1 for watts in plan.battery_w[4:])
    assert -sum(plan.battery_w[4:]) == pytest.approx(0.9 * sum(plan.battery_w[:4]))


def test_a_battery_whose_wear_costs_more_than_it_saves_rests() -> None:
    plan = made_plan(SITE, hours((50_000, 100), (50_000, 500), cap_w=0), 0.0, 50.0, 0.0, 450_000.0)
    assert plan.battery_w == pytest.approx([0] * 8, abs=1)


def test_peaks_beyond_the_limit_take_all_that_the_battery_has() -> None:
    weak = replace(SITE, battery=replace(BATTERY, max_w=23_000))
    plan = made_plan(weak, hours((20_000, 100), (120_000, 100), (20_000, 100)), 0.0, 50.0, 1_000_000.0)
    assert plan.work_w[4:8] == pytest.approx([0] * 4)
    assert plan.battery_w[4:8] == pytest.approx([-23_000] * 4)
    assert plan.missing_w == pytest.approx([0] * 12, abs=1e-3)


def test_what_does_not_fit_is_said() -> None:
    plan = made_plan(replace(SITE, battery=None), hours((110_000, 100)), 0.0, None, 1_000_000.0)
    assert plan.work_w == pytest.approx([0] * 4)
    assert plan.missing_w == pytest.approx([13_000] * 4)


def test_a_battery_that_nobody_can_tell_anything_is_left_alone() -> None:
    deaf = replace(SITE, battery=replace(BATTERY, setpoint=None))
    assert made_plan(deaf, hours((0, 100), (0, 500)), 0.0, 50.0, 0.0).battery_w == pytest.approx([0] * 8)


def test_of_plans_that_are_as_good_the_calmest_is_taken() -> None:
    plan = made_plan(SITE, [*hours((0, 100), (0, 100), cap_w=0), *hours((90_000, 900), cap_w=0)], 0.0, 10.0, 0.0)
    assert max(plan.battery_w[:8]) - min(plan.battery_w[:8]) < 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 99_000), st.floats(0, 1e6), st.floats(0, 50_000)), min_size=2, max_size=24),
    st.floats(0, 100), st.floats(0, 1e6), st.floats(-50_000, 50_000),
)  # fmt: skip
def test_every_plan_keeps_to_the_limit_and_to_the_battery(
    day: list[tuple[float, float, float]], soc_pct: float, earns: float, now_w: float
) -> None:
    expected = [Expected(100_000, others_w, price, cap_w) for others_w, price, cap_w in day]
    plan: Plan = made_plan(SITE, expected, 0.0, soc_pct, earns, 1_000.0, now_w)
    charge = soc_pct / 100 * 100.0
    for one, work_w, battery_w, missing_w in zip(expected, plan.work_w, plan.battery_w, plan.missing_w, strict=True):
        assert one.others_w + work_w + battery_w <= 100_000 + missing_w + 1
        assert 0 <= work_w <= min(one.cap_w, SITE.compute_w) + 1
        assert abs(battery_w) <= BATTERY.max_w + 1
        charge += battery_w * KWH * (0.9 if battery_w > 0 else 1)
        assert min(soc_pct, 10) - 0.1 <= charge <= max(soc_pct, 90) + 0.1
    assert charge >= min(soc_pct, 100) - 0.1
