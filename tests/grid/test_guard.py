"""The guard of a site: the limit is never crossed, chargers are never slowed, and work's ramp is bounded."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow.node.grid.guard import REST, Orders, Seen, battery_most_w, orders, room_w
from fallow.node.grid.site_config import Battery, SiteConfig

BATTERY = Battery(200.0, 60_000.0, setpoint=Path("setpoint"))
SITE = SiteConfig(150_000, 40_000, 140_000, 2_000, 500, battery=BATTERY)
ALONE = replace(SITE, battery=None)

sites = st.builds(
    lambda limit, compute, chargers, rise, ramp, reaction: SiteConfig(limit, compute, chargers, rise, ramp, reaction),
    st.floats(1_000, 300_000), st.floats(100, 200_000), st.floats(0, 250_000), st.floats(1, 50_000),
    st.floats(1, 50_000), st.floats(1, 10),
)  # fmt: skip
batteries = st.builds(
    lambda kwh, watts, least: Battery(kwh, watts, least, setpoint=Path("setpoint")),
    st.floats(0.5, 500), st.floats(100, 100_000), st.floats(0, 50),
)  # fmt: skip


def _walk(site: SiteConfig, seed: int, seconds: int, soc_pct: float | None) -> list[tuple[float, Orders, float | None]]:
    """What others draw at the end of each second, as fast as they can or slower, and the orders that held in it."""
    random, others_w, last, found = Random(seed), 0.0, REST, []
    turn, plan = 0.0, (0.0, 0.0)
    for _ in range(seconds):
        if random.random() < 0.1:
            turn = random.choice((-1.0, 0.0, 1.0, random.uniform(-1, 1)))
            plan = (
                random.uniform(0, 1.2 * site.compute_w),
                random.uniform(-1.2, 1.2) * (site.battery.max_w if site.battery else 0),
            )
        last = orders(site, Seen(site.limit_w, others_w, soc_pct), *plan, last, 1.0)
        others_w = min(site.chargers_w, max(0.0, others_w + turn * site.charger_ramp_w_s))
        if soc_pct is not None and site.battery:
            soc_pct = min(100.0, max(0.0, soc_pct + 100 * last.battery_w / 3_600_000 / site.battery.kwh))
        found.append((others_w, last, soc_pct))
    return found


@settings(max_examples=300, deadline=None)
@given(sites, st.integers(0, 2**32))
def test_the_limit_holds_and_the_ramp_is_bounded_whatever_chargers_and_plans_do(site: SiteConfig, seed: int) -> None:
    before = 0.0
    for others_w, order, _ in _walk(site, seed, 200, None):
        assert order.work_w == 0 or others_w + order.work_w <= site.limit_w + 1e-6
        assert abs(order.work_w - before) <= site.ramp_w_s + 1e-6
        assert not order.forced
        before = order.work_w


@settings(max_examples=300, deadline=None)
@given(sites, batteries, st.integers(0, 2**32), st.floats(0, 100))
def test_so_they_do_with_a_battery_that_runs_low(site: SiteConfig, battery: Battery, seed: int, soc_pct: float) -> None:
    site, before = replace(site, battery=battery), 0.0
    for others_w, order, _ in _walk(site, seed, 200, soc_pct):
        assert order.work_w == 0 or others_w + order.work_w + order.battery_w <= site.limit_w + 1e-6
        assert -battery.max_w <= order.battery_w <= battery.max_w
        assert abs(order.work_w - before) <= site.ramp_w_s + 1e-6
        before = order.work_w


@given(sites, st.floats(0, 250_000), st.floats(0, 100_000))
def test_what_the_battery_may_take_leaves_the_room_that_work_needs(
    site: SiteConfig, others_w: float, work_w: float
) -> None:
    site = replace(site, battery=BATTERY)
    seen = Seen(site.limit_w, others_w)
    assert room_w(site, seen, battery_most_w(site, seen, work_w)) == pytest.approx(work_w, rel=1e-6, abs=1e-3)


def test_chargers_beyond_the_limit_are_served_by_the_battery() -> None:
    found = orders(replace(SITE, chargers_w=190_000), Seen(150_000, 170_000, 50.0), 40_000, 20_000, REST, 1.0)
    assert (found.work_w, found.battery_w) == (0.0, 150_000 - 170_000 - 3 * 2_000)


def test_storing_gives_way_to_work_and_work_to_chargers() -> None:
    last = Orders(20_000)
    assert orders(SITE, Seen(150_000, 20_000, 50.0), 40_000, 60_000, last, 1.0) == Orders(20_500, 60_000)
    crowded = orders(SITE, Seen(150_000, 133_000, 50.0), 40_000, 60_000, last, 1.0)
    assert crowded.work_w == 19_500
    assert crowded.battery_w < 0


def test_a_limit_that_is_lowered_at_once_comes_before_the_ramp() -> None:
    found = orders(ALONE, Seen(60_000, 50_000), 40_000, 0, Orders(20_000), 1.0)
    assert found.forced
    assert found.work_w == 1_000


def test_the_grid_may_cap_work_alone() -> None:
    assert orders(ALONE, Seen(150_000, 0, cap_w=5_000), 40_000, 0, Orders(4_900), 1.0).work_w == 5_000
