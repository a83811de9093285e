"""A charging site's evening, second by second: chargers all at once, and an order to shed, with the site's own code."""

import pytest

from fallow.node.grid.guard import Orders
from fallow.node.sensors.scripted import load_day
from fallow.testnet.site_day import FLAT, GUARDED, PLANNED, SITE, Strategy, World, run, sited

EVENING = range(int(17.5 * 3600), int(18.75 * 3600))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", [PLANNED, GUARDED])
def test_the_limit_holds_chargers_are_not_slowed_and_the_ramp_is_bounded(seed: int, name: str) -> None:
    world = World(load_day("site"), seed)
    found = run(Strategy(name), sited(world, plans=name == PLANNED), world, EVENING, 80.0)
    assert (found.over_limit_s, found.slowed_kwh, found.forced_s) == (0, 0, 0)
    assert found.most_w <= SITE.limit_w + 1e-6
    assert found.ramp_w_s <= SITE.ramp_w_s + 1e-6


def test_the_evening_is_one_in_which_that_is_not_easy() -> None:
    world = World(load_day("site"), 1)
    flat = run(Strategy(FLAT), lambda second, soc_pct, last: Orders(SITE.compute_w), world, EVENING, 80.0)
    assert flat.over_limit_s > 600
    assert flat.slowed_kwh > 5
    assert max(world.others_w[EVENING.start : EVENING.stop]) > SITE.limit_w
