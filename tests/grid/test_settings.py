"""The table `grid` of a node's settings, and what its bounds do to the budget."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fallow.node.config import load
from fallow.node.grid.site import Site
from fallow.node.grid.site_config import Battery, SiteConfig
from fallow.node.log import EventLog
from fallow.node.rules.asked import Cap
from fallow.node.rules.hours import Now
from fallow.node.rules.policy import Memory, Rules, Wish, decide
from fallow.node.rules.preferences import Preferences
from fallow.node.rules.readings import Board, Bound, Reading
from fallow.node.rules.signals import Signal
from fallow.node.rules.worth import Draw
from fallow.protocol.errors import ConfigError

FEEDER = '[grid.feeder]\nname = "t-17"\ngrid_key = "' + "ab" * 32 + '"\n'
SITE = (
    "[grid.site]\nlimit_w = 150000\ncompute_w = 40000\nchargers_w = 140000\ncharger_ramp_w_s = 2000\nramp_w_s = 1000\n"
)
BATTERY = "[grid.site.battery]\nkwh = 200\nmax_w = 60000\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(f'state = "state"\nhome = "home"\n{text}')
    return path


def test_what_is_set_is_read_and_paths_count_from_the_file(tmp_path: Path) -> None:
    text = (
        FEEDER
        + 'roster = "roster"\nreserve_w = 1500\n'
        + SITE
        + 'expected = "site"\n'
        + BATTERY
        + 'setpoint = "set.json"\n'
    )
    grid = load(written(tmp_path, text)).grid
    assert grid.feeder is not None and grid.site is not None
    assert (grid.feeder.name, grid.feeder.grid_key, grid.feeder.roster) == ("t-17", b"\xab" * 32, tmp_path / "roster")
    assert grid.site == SiteConfig(
        150_000, 40_000, 140_000, 2_000, 1_000, expected="site",
        battery=Battery(200, 60_000, setpoint=tmp_path / "set.json"),
    )  # fmt: skip
    plain = load(written(tmp_path, "")).grid
    assert (plain.feeder, plain.site) == (None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[grid]\nfeedr = 1", "line 4: Setting `grid.feedr`: there is no such setting; did you mean"),
        (
            FEEDER + "roste = 1",
            "line 6: Setting `grid.feeder.roste`: there is no such setting; did you mean `grid.feeder.roster`?",
        ),
        ('[grid.feeder]\nname = "T 17"', "line 4: Setting `grid.feeder.name`: must be the feeder's name"),
        (
            '[grid.feeder]\nname = "t-17"\ngrid_key = "x"',
            "line 5: Setting `grid.feeder.grid_key`: must be the public key",
        ),
        (FEEDER + "reserve_w = -1", "line 6: Setting `grid.feeder.reserve_w`"),
        ("[grid.site]\nlimit_w = 1", "line 3: Setting `grid.site.compute_w`: must be set"),
        (
            SITE.replace("ramp_w_s = 1000", "ramp_w_s = 0"),
            "line 8: Setting `grid.site.ramp_w_s`: must be a number from 1",
        ),
        (SITE + 'expected = "sight"', "line 9: Setting `grid.site.expected`: must be one of"),
        (SITE + "[grid.site.battery]\nkwh = 5", "line 9: Setting `grid.site.battery.max_w`: must be set"),
        (SITE + BATTERY + "max_pct = 5", "line 12: Setting `grid.site.battery.max_pct`: must be above"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text))
    assert said in caught.value.message


RULES = Rules(None, Preferences(), 0, Draw(100.0, 1_000.0))
LENT = Memory(clear_since_ms=float("-inf"))


def test_a_bound_is_the_budget_with_its_reason_in_words() -> None:
    board = Board(bounds={"feeder": Bound(600.0, "its share of t-17, 600 W", 1_000)})
    found = decide(RULES, board, Wish(), LENT, Now(0, 0))
    assert (found.budget_w, found.limits, found.look_ms) == (600.0, ("its share of t-17, 600 W",), 1_000)
    assert found.lends
    board.bounds["feeder"] = Bound(90.0, "its share of t-17, 90 W", 1_000)
    refused = decide(RULES, board, Wish(), LENT, Now(0, 0))
    assert [reason.why for reason in refused.reasons] == ["it may draw 90 W, and needs 145 W (its share of t-17, 90 W)"]


def test_a_bound_of_the_whole_connection_leaves_what_others_do_not_draw() -> None:
    board = Board(bounds={"feeder": Bound(4_000.0, "its share", 1_000, whole=True)})
    board.expect("meter", [Signal.CHARGERS_W, Signal.SITE_LOAD_W])
    board.take("meter", [Reading(Signal.CHARGERS_W, 2_000, 0, 500), Reading(Signal.SITE_LOAD_W, 1_500, 0, 500)])
    assert decide(RULES, board, Wish(), LENT, Now(0, 0)).budget_w == 500


def test_a_bound_that_nobody_renews_lets_nothing_be_drawn() -> None:
    found = decide(RULES, Board(bounds={"site": Bound(5_000.0, "the plan", 1_000)}), Wish(), LENT, Now(1_000, 0))
    assert found.budget_w == 0
    assert [reason.code for reason in found.reasons] == ["site", "power"]
    assert found.reasons[0].unknown


def site(
    board: Board, tmp_path: Path, told: Callable[[float, str], None], now_ms: int = 0, imports: tuple[Cap, ...] = ()
) -> Site:
    battery = Battery(200, 60_000, setpoint=tmp_path / "setpoint")
    config = SiteConfig(150_000, 40_000, 140_000, 2_000, 1_000, share_pct=50, battery=battery)
    log = EventLog(tmp_path)
    return Site(config, board, Preferences(), lambda: Now(now_ms, now_ms), lambda: None, told, log, lambda: imports)


def test_a_site_whose_meters_are_silent_lets_nothing_be_drawn(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    board = Board()
    board.expect("meter", [Signal.CHARGERS_W])
    guarded = site(board, tmp_path, lambda *each: told.append(each))
    guarded.step(1.0)
    board.take("meter", [Reading(Signal.CHARGERS_W, 10_000, 0, 500)])
    guarded.step(1.0)
    assert told[0] == (0.0, "the site's guard does not know what else is drawn: meter: it has not been read yet")
    assert told[1][0] == 500.0  # half of the first second's ramp
    assert "no plan yet" in told[1][1]


def test_the_guard_keeps_to_what_the_grid_asks_of_the_whole_connection(tmp_path: Path) -> None:
    board = Board()
    board.expect("meter", [Signal.CHARGERS_W, Signal.SOC_PCT])
    board.take("meter", [Reading(Signal.CHARGERS_W, 10_000, 0, 500), Reading(Signal.SOC_PCT, 50, 0, 500)])
    asked: tuple[Cap, ...] = ((4_000.0, "the grid"), (90_000.0, "another"))
    guarded = site(board, tmp_path, lambda *each: None, imports=asked)
    guarded.step(1.0)
    assert guarded.last.work_w == 0
    assert guarded.last.battery_w <= -6_000, "chargers draw more than may come: the battery gives the rest"


async def test_a_site_plans_and_tells_its_battery(tmp_path: Path) -> None:
    planned = trio.Event()

    def tell(watts: float, why: str) -> None:
        if "by the site's plan" in why:
            planned.set()

    board = Board()
    board.expect("meter", [Signal.CHARGERS_W, Signal.SOC_PCT])
    board.take("meter", [Reading(Signal.CHARGERS_W, 10_000, 0, 500), Reading(Signal.SOC_PCT, 50, 0, 500)])
    guarded = site(board, tmp_path, tell)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guarded.run)
        with trio.fail_after(60):
            await planned.wait()
        nursery.cancel_scope.cancel()
    assert set(json.loads((tmp_path / "setpoint").read_text())) == {"battery_w", "until_ms"}
    assert guarded.plan is not None
    assert max(guarded.plan.work_w) == 40_000


def test_a_plan_is_made_of_what_was_known_when_it_was_asked_for(tmp_path: Path) -> None:
    board = Board()
    board.expect("meter", [Signal.CHARGERS_W, Signal.SOC_PCT])
    board.take("meter", [Reading(Signal.CHARGERS_W, 10_000, 0, 500), Reading(Signal.SOC_PCT, 50, 0, 500)])
    guarded = site(board, tmp_path, lambda *each: None)
    outlook = guarded.outlook()
    assert outlook is not None
    board.take("meter", [Reading(Signal.CHARGERS_W, 150_000, 0, 500)])
    plan = outlook()  # beside the loop that reads meters
    assert max(plan.work_w) == 40_000
    board.miss("meter", Signal.CHARGERS_W, "it is gone", 0)
    assert guarded.outlook() is None
