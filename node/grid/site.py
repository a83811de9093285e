"""A site's plan and guard, run: what the meters say goes in each second, what work may draw comes out, and the battery's order.

The battery's controller finds in the file `setpoint` what it should take (`battery_w`; below 0, give), written anew each second
and renamed into place, and until when that holds (`until_ms`): a file that is out of date asks for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

import trio

from ..log import EventLog, wall_ms
from ..machine import beside
from ..rules.asked import Cap
from ..rules.hours import DAY_MS, Now
from ..rules.preferences import Preferences
from ..rules.readings import Board
from ..rules.signals import Signal
from ..sensors.scripted import Day, load_day
from .guard import REST, Orders, Seen, orders
from .planner import INTERVAL_S, INTERVALS, Expected, Plan, made_plan
from .site_config import SiteConfig

STEP_S: Final = 1.0
PLAN_S: Final = 300.0
"""What is expected changes slowly; the guard sees to the rest."""
GOOD_S: Final = 3.0
"""So long orders count, if nobody gives them anew: as long as work has to answer to what meters say."""
UNKNOWN_UCR_KWH: Final = 1e8
"""Until it is known what work earns, it is worth whatever energy costs; the owner's rules decide whether it begins."""


class Site:
    """Runs one site's plan and guard. `tell` is called each second with what this node's work may draw, and why."""

    def __init__(
        self, config: SiteConfig, board: Board, wants: Preferences, now: Callable[[], Now],
        earns_ucr_kwh: Callable[[], float | None], tell: Callable[[float, str], None], log: EventLog,
        imports: Callable[[], Sequence[Cap]] = tuple,
    ) -> None:  # fmt: skip
        """`imports`: what is asked of the whole connection. Raises `SettingError` if the expected day cannot be read."""
        self.plan: Plan | None = None
        self.last: Orders = REST
        self._config = config
        self._board = board
        self._wants = wants
        self._now = now
        self._earns_ucr_kwh = earns_ucr_kwh
        self._tell = tell
        self._log = log
        self._imports = imports
        self._day: Day | None = load_day(config.expected) if config.expected else None

    async def run(self) -> None:
        """Plans, and keeps within the limit, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_planning)
            at_s = trio.current_time()
            while True:
                self.step(max(0.0, trio.current_time() - at_s))
                at_s = trio.current_time()
                await self._write_setpoint()
                await trio.sleep(STEP_S)

    def step(self, passed_s: float) -> None:
        """One look at the meters, and what follows from it."""
        seen, why = self._seen()
        if seen is None:
            self.last = REST
            self._tell(0.0, f"the site's guard does not know what else is drawn: {why}")
            return
        now_s = self._now().ms / 1000
        # Without a plan, whatever is free: the guard alone keeps the limit.
        work_w, battery_w = (self._config.compute_w, 0.0) if self.plan is None else self.plan.at(now_s)
        before, self.last = self.last, orders(self._config, seen, work_w, battery_w, self.last, min(passed_s, GOOD_S))
        if self.last.forced and not before.forced:
            self._log.write("site_forced", work_w=round(self.last.work_w), limit_w=round(seen.limit_w))
        planned = f"{work_w:,.0f} W by the site's plan" if self.plan else "no plan yet"
        said = f"{self.last.work_w:,.0f} W are left for work beside chargers; {planned}"
        self._tell(self.last.work_w * self._config.share_pct / 100, said)

    def outlook(self) -> Callable[[], Plan] | None:
        """What makes a plan by what is known and expected now, in any thread; None if what is drawn is not known."""
        now = self._now()
        seen, _ = self._seen()
        if seen is None:
            return None
        expected = [self._expected(seen, now, index) for index in range(INTERVALS)]
        earns = self._earns_ucr_kwh()
        earns_ucr_kwh = UNKNOWN_UCR_KWH if earns is None else earns
        wear, battery_w = float(self._wants.battery_wear_ucr_per_kwh), self.last.battery_w
        return partial(made_plan, self._config, expected, now.ms / 1000, seen.soc_pct, earns_ucr_kwh, wear, battery_w)

    async def _keep_planning(self) -> None:
        while True:
            outlook = self.outlook()
            try:
                self.plan = await beside(outlook) if outlook else self.plan
            except ArithmeticError as error:
                self._log.write("site_plan", why=str(error))
            await trio.sleep(PLAN_S if self.plan else STEP_S)

    def _expected(self, seen: Seen, now: Now, index: int) -> Expected:
        """The interval by the expected day and the owner's tariff; without a day, as it is now."""
        of_day_ms = (now.of_day_ms + index * INTERVAL_S * 1000) % DAY_MS
        limit_w, others_w, cap_w = seen.limit_w, seen.others_w, inf
        if self._day is not None:
            day = self._day.at(of_day_ms)
            others_w = float(day.get(Signal.CHARGERS_W, 0.0)) + float(day.get(Signal.SITE_LOAD_W, 0.0))
            cap_w = float(day.get(Signal.SHED_CAP_W, inf))
        return Expected(limit_w, others_w, self._wants.tariff.at(of_day_ms), min(cap_w, self._config.compute_w))

    def _seen(self) -> tuple[Seen | None, str]:
        """What the meters say, or why that is not known."""
        now_ms = self._now().ms
        chargers, load = (self._board.known(each, now_ms) for each in (Signal.CHARGERS_W, Signal.SITE_LOAD_W))
        limit, soc, cap, battery = (
            self._board.known(each, now_ms)
            for each in (Signal.GRID_LIMIT_W, Signal.SOC_PCT, Signal.SHED_CAP_W, Signal.BATTERY_W)
        )
        if chargers.why:
            return None, chargers.why
        if load.why and self._expects(Signal.SITE_LOAD_W):
            return None, load.why
        others_w = max(0.0, *chargers.values) + max((0.0, *load.values))
        told = self._config.battery is not None and self._config.battery.setpoint is not None and bool(soc.values)
        if not told:
            others_w += max((0.0, *battery.values))  # what it takes by itself; what it gives is not relied on
        soc_pct = min(float(each) for each in soc.values) if told else None
        limit_w = min((self._config.limit_w, *limit.values, *(watts for watts, _ in self._imports())))
        if limit.why and self._expects(Signal.GRID_LIMIT_W):
            return None, limit.why
        return Seen(limit_w, others_w, soc_pct, min((inf, *cap.values))), ""

    def _expects(self, signal: Signal) -> bool:
        return any(signal in given for given in self._board.expects.values())

    async def _write_setpoint(self) -> None:
        battery = self._config.battery
        if battery is None or battery.setpoint is None:
            return
        said = {"battery_w": round(self.last.battery_w), "until_ms": wall_ms() + round(GOOD_S * 1000)}
        try:
            await beside(partial(_replace, battery.setpoint, json.dumps(said) + "\n"))
        except OSError as error:
            self._log.write("site_setpoint", why=str(error.strerror))


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text)
    scratch.replace(path)
