"""One day of a charging site, second by second: `python -m fallow.testnet.site_day --seed 5 --out FOLDER`.

The site's own `node.grid.site` decides; what is simulated is the world around it. Chargers follow the shipped day `site`, with
cars that come and go as chance has it, faster than anybody plans; the battery does what it is told. Beside the plan stand the
same day run flat out, at night only, and by the guard alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from ..node.grid.guard import Orders
from ..node.grid.site import PLAN_S, Site
from ..node.grid.site_config import Battery, SiteConfig
from ..node.log import EventLog
from ..node.rules.hours import Now, Tariff, Window
from ..node.rules.preferences import Preferences
from ..node.rules.readings import Board, Reading
from ..node.rules.signals import Signal
from ..node.sensors.scripted import Day, load_day

DAY_S: Final = 86_400
EVERY_S: Final = 60
"""Of what happened, so many seconds make one point of the picture."""
BATTERY: Final = Battery(200.0, 60_000.0, min_pct=30.0, setpoint=Path("setpoint"))
SITE: Final = SiteConfig(
    limit_w=150_000, compute_w=40_000, chargers_w=180_000, charger_ramp_w_s=2_000, ramp_w_s=2_000, expected="site",
    battery=BATTERY,
)  # fmt: skip
TARIFF: Final = Tariff(260_000, ((Window(22, 6), 150_000), (Window(16, 21), 450_000)))
EARNS_UCR_KWH: Final = 330_000
"""What a kilowatt-hour of work brings: more than energy costs by day, less than in the evening. An assumption."""
WEAR_UCR_KWH: Final = 40_000
NIGHT: Final = Window(22, 6)
PLANNED, GUARDED, FLAT, NIGHTLY, STORED = "plan and guard", "guard alone", "flat out", "night only", "battery alone"


@dataclass
class Strategy:
    """What one way of running the accelerators came to."""

    name: str
    work_kwh: float = 0.0
    earned_ucr: float = 0.0
    paid_ucr: float = 0.0
    """For energy and wear, beyond what chargers and the rest cost anyway; what the battery has gained or lost counts."""
    over_limit_s: int = 0
    most_w: float = 0.0
    """Of the connection, at any second."""
    slowed_kwh: float = 0.0
    """That chargers did not get, if the connection's limit had to be kept by them."""
    ramp_w_s: float = 0.0
    """The fastest that work's draw changed."""
    forced_s: int = 0
    series: dict[str, list[float]] = field(default_factory=dict)

    @property
    def net_ucr(self) -> float:
        return self.earned_ucr - self.paid_ucr


class Clock:
    """The day's time, as the site's code reads it."""

    def __init__(self) -> None:
        self.s = 0

    def now(self) -> Now:
        return Now(self.s * 1000, self.s * 1000)


class World:
    """The day as it comes: cars draw what is expected, give or take, and some come to a fast charger as fast as they can."""

    def __init__(self, day: Day, seed: int) -> None:
        random, drift, fast = Random(f"chargers {seed}"), 0.0, list[tuple[int, float]]()
        expected = _each_second(day, Signal.CHARGERS_W)
        self.load_w = _each_second(day, Signal.SITE_LOAD_W)
        self.cap_w = _each_second(day, Signal.SHED_CAP_W)
        """Of work, by the grid's orders. They are known ahead: it begins to fall so early that it has fallen when they hold."""
        for second in reversed(range(DAY_S - 1)):
            self.cap_w[second] = min(self.cap_w[second], self.cap_w[second + 1] + SITE.ramp_w_s)
        self.chargers_w = [expected[0]]
        for second in range(DAY_S):
            drift += -drift / 1200 + random.gauss(0, 0.006)
            if random.random() < 1 / 2400:
                fast.append((second + random.randrange(240, 1200), random.uniform(20_000, 50_000)))
            fast = [each for each in fast if second < each[0]]
            wanted = expected[second] * (0.92 + drift) + sum(watts for _, watts in fast)
            wanted = min(SITE.chargers_w - 4_000, max(0.0, wanted))
            before, ramp = self.chargers_w[-1], SITE.charger_ramp_w_s
            self.chargers_w.append(before + min(ramp, max(-ramp, wanted - before)))
        self.others_w = [a + b for a, b in zip(self.chargers_w, (*self.load_w, self.load_w[0]), strict=True)]
        """At the beginning of each second."""


def _each_second(day: Day, signal: Signal) -> list[float]:
    """Values of each minute, which go straight from one to the next, or jump as the day does."""
    found: list[float] = []
    for minute in range(DAY_S // 60):
        first, last = (float(day.at(minute * 60_000 + off)[signal]) for off in (0, 59_999))
        found += [first + (last - first) * second / 60 for second in range(60)]
    return found


Decide = Callable[[int, float, Orders], Orders]
"""Second, the battery's charge and the last orders: what is to be drawn."""


def run(
    strategy: Strategy, decide: Decide, world: World, seconds: range = range(DAY_S), begun_pct: float = 40.0
) -> Strategy:
    """The strategy has had its day, or the part of it that is asked for."""
    soc_pct, last = begun_pct, Orders(0.0)
    for second in seconds:
        order = decide(second, soc_pct, last)
        others_w = max(world.others_w[second : second + 2])
        total_w, price = others_w + order.work_w + order.battery_w, TARIFF.at(second * 1000)
        kwh = 1 / 3_600_000
        strategy.work_kwh += order.work_w * kwh
        strategy.earned_ucr += order.work_w * kwh * EARNS_UCR_KWH
        strategy.paid_ucr += (order.work_w + order.battery_w) * kwh * price
        strategy.paid_ucr -= min(0.0, order.battery_w) * kwh * WEAR_UCR_KWH
        strategy.over_limit_s += total_w > SITE.limit_w + 1e-6
        strategy.slowed_kwh += max(0.0, min(order.work_w, total_w - SITE.limit_w)) * kwh
        strategy.most_w = max(strategy.most_w, total_w)
        strategy.ramp_w_s = max(strategy.ramp_w_s, abs(order.work_w - last.work_w))
        strategy.forced_s += order.forced
        goes_in = 1 - BATTERY.loss_pct / 100 if order.battery_w > 0 else 1.0
        soc_pct = min(100.0, max(0.0, soc_pct + 100 * order.battery_w * goes_in * kwh / BATTERY.kwh))
        last = order
        if second % EVERY_S == 0:
            point = {
                "t_h": second / 3600, "others_w": others_w, "work_w": order.work_w, "battery_w": order.battery_w,
                "total_w": total_w, "soc_pct": soc_pct, "net_ucr": strategy.net_ucr,
            }  # fmt: skip
            for name, value in point.items():
                strategy.series.setdefault(name, []).append(value)
    strategy.paid_ucr += (begun_pct - soc_pct) / 100 * BATTERY.kwh * TARIFF.mean
    return strategy


def sited(world: World, *, plans: bool, earns_ucr_kwh: float = EARNS_UCR_KWH) -> Decide:
    """As a site's node decides; without plans, by its guard alone."""
    clock, board = Clock(), Board()
    board.expect("meter", [Signal.CHARGERS_W, Signal.SITE_LOAD_W, Signal.SOC_PCT, Signal.SHED_CAP_W])
    wants = Preferences(tariff=TARIFF, battery_wear_ucr_per_kwh=WEAR_UCR_KWH)
    site = Site(
        SITE, board, wants, clock.now, lambda: earns_ucr_kwh, lambda watts, why: None, EventLog(Path("/nonexistent"))
    )

    def decide(second: int, soc_pct: float, last: Orders) -> Orders:
        clock.s = second
        seen = {
            Signal.CHARGERS_W: world.chargers_w[second], Signal.SITE_LOAD_W: world.load_w[second],
            Signal.SOC_PCT: soc_pct, Signal.SHED_CAP_W: world.cap_w[second],
        }  # fmt: skip
        board.take("meter", [Reading(signal, value, second * 1000, 5000) for signal, value in seen.items()])
        if plans and (site.plan is None or second % round(PLAN_S) == 0):
            outlook = site.outlook()
            site.plan = outlook() if outlook else None
        site.step(1.0)
        return site.last

    return decide


def compared(seed: int) -> list[Strategy]:
    """The same day, five times; the last without any work."""
    world = World(load_day("site"), seed)
    full, nothing = Orders(SITE.compute_w), Orders(0.0)
    return [
        run(Strategy(PLANNED), sited(world, plans=True), world),
        run(Strategy(GUARDED), sited(world, plans=False), world),
        run(Strategy(FLAT), lambda second, soc, last: full, world),
        run(Strategy(NIGHTLY), lambda s, soc, last: full if NIGHT.holds(s * 1000) else nothing, world),
        run(Strategy(STORED), sited(world, plans=True, earns_ucr_kwh=0.0), world),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures. 1 if the plan and its guard crossed the limit, slowed a charger or went beyond the ramp."""
    parser = argparse.ArgumentParser(prog="fallow.testnet.site_day", description="One day of a charging site.")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is left to chance")
    parser.add_argument("--out", type=Path, help="a folder for the picture, site-day.png")
    parser.add_argument("--json", action="store_true", help="the figures for machines")
    options = parser.parse_args(arguments)
    found = compared(options.seed)
    if options.json:
        print(
            json.dumps(
                [{k: v for k, v in asdict(each).items() if k != "series"} | {"net_ucr": each.net_ucr} for each in found]
            )
        )
    else:
        print(
            f"{'':15} {'work':>8} {'earned':>8} {'paid':>8} {'net':>8} {'over limit':>11} {'most':>9} {'slowed':>8} {'ramp':>9}"
        )
        for each in found:
            print(
                f"{each.name:15} {each.work_kwh:4.0f} kWh {each.earned_ucr / 1e6:8.1f} {each.paid_ucr / 1e6:8.1f} "
                f"{each.net_ucr / 1e6:8.1f} {each.over_limit_s:9} s {each.most_w / 1000:6.1f} kW {each.slowed_kwh:4.1f} kWh "
                f"{each.ramp_w_s / 1000:4.1f} kW/s"
            )
        print("earned, paid and net in credits (10^6 ucr)")
    if options.out:
        from .site_plot import draw

        options.out.mkdir(parents=True, exist_ok=True)
        draw(found[:4], SITE, TARIFF, options.seed, options.out / "site-day.png")
    for each in found[:2]:
        if each.over_limit_s or each.slowed_kwh or each.ramp_w_s > SITE.ramp_w_s + 1e-6:
            print(f"{each.name}: the limit, the chargers or the ramp were not kept", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
