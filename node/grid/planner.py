"""A site's next day: how much work and the battery should draw in each quarter of an hour, as a linear program.

    what work earns  -  what energy costs  -  what the battery wears        is to be most, within
    chargers + rest + work + into the battery - out of it  <=  limit        in each interval
    the battery's charge between its bounds, and at the end no less than now

Chargers are not part of it: they draw what they draw. If what they are expected to draw does not fit in, even with the battery,
the plan has no work then, and says how much is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from .site_config import SiteConfig

INTERVAL_S: Final = 900
"""Tariffs and meters of utilities know quarters of an hour."""
INTERVALS: Final = 96
CALM_UCR_KW: Final = 500.0
"""Of plans that are as good, the one in which the battery changes least: so little that no price is outweighed."""
MISSING_UCR_KWH: Final = 1e9
"""A connection that is too small for its chargers costs more than anything else: the battery is for them first."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One interval, in watts and micro-credits."""

    limit_w: float
    others_w: float
    """Chargers and the site's other load."""
    kwh_ucr: float
    cap_w: float
    """Of work alone: what its accelerators draw, or less by an order of the grid."""


@dataclass(frozen=True, slots=True)
class Plan:
    """From `begins_s` on, one entry for each interval."""

    begins_s: float
    work_w: tuple[float, ...]
    battery_w: tuple[float, ...]
    """What goes into it; below 0, out of it."""
    missing_w: tuple[float, ...]
    """So much would be drawn above the limit though no work is done."""

    def at(self, now_s: float) -> tuple[float, float]:
        """Work and battery at that time; nothing where the plan does not reach."""
        index = int((now_s - self.begins_s) // INTERVAL_S)
        return (self.work_w[index], self.battery_w[index]) if 0 <= index < len(self.work_w) else (0.0, 0.0)


def made_plan(
    site: SiteConfig, expected: Sequence[Expected], begins_s: float, soc_pct: float | None, earns_ucr_kwh: float,
    wear_ucr_kwh: float = 0.0, battery_now_w: float = 0.0,
) -> Plan:  # fmt: skip
    """The best plan by what is expected. `earns_ucr_kwh`: what work brings for a kilowatt-hour that it draws.

    Where there is no battery to be told anything, `soc_pct` is None. Raises `ArithmeticError` if the solver finds none.
    """
    import numpy as np
    from scipy.optimize import linprog
    from scipy.sparse import diags_array, eye_array, hstack, vstack

    n, hours = len(expected), INTERVAL_S / 3600
    one, none = eye_array(n), diags_array(np.zeros(n))
    price = np.array([each.kwh_ucr for each in expected], dtype=float)
    room = np.array([each.limit_w - max(0.0, each.others_w) for each in expected], dtype=float)
    room -= site.charger_ramp_w_s * site.reaction_s  # the guard keeps as much free
    # Work, into the battery, out of it, its charge at the interval's end, what is missing, the battery's change: n of each.
    kwh = hours / 1000
    missing_ucr = np.full(n, MISSING_UCR_KWH)
    cost = kwh * np.concatenate(
        [price - earns_ucr_kwh, price, wear_ucr_kwh - price, np.zeros(n), missing_ucr, np.zeros(n)]
    )
    cost[-n:] = CALM_UCR_KW / 1000
    within = hstack([one, one, -one, none, -one, none])
    no_export = hstack([-one, -one, one, none, none, none])
    most = np.concatenate([room, np.array([max(0.0, each.others_w) for each in expected])])
    battery = site.battery
    has = battery is not None and battery.setpoint is not None and soc_pct is not None
    goes_in = 1 - battery.loss_pct / 100 if battery is not None else 1.0
    change = one - diags_array(np.ones(n - 1), offsets=-1)
    charge = hstack([none, -hours * goes_in * one, hours * one, change, none, none])
    rises = hstack([none, change, -change, none, none, -one])
    falls = hstack([none, -change, change, none, none, -one])
    now_w = np.zeros(n)
    now_w[0] = battery_now_w if has else 0.0
    start_wh = soc_pct / 100 * battery.kwh * 1000 if has and battery is not None and soc_pct is not None else 0.0
    first = np.zeros(n)
    first[0] = start_wh
    power_w = battery.max_w if has and battery is not None else 0.0
    least_wh, full_wh = _charge_bounds(site, start_wh) if has else (0.0, 0.0)
    bounds = [(0.0, max(0.0, min(site.compute_w, each.cap_w))) for each in expected]
    bounds += [(0.0, power_w)] * (2 * n)
    bounds += [(least_wh, full_wh)] * (n - 1) + [(min(start_wh, full_wh), full_wh)] + [(0.0, inf)] * (2 * n)
    rows = vstack([within, no_export, rises, falls]).tocsr()
    found = linprog(
        cost,
        rows,
        np.concatenate([most, now_w, -now_w]),
        charge.tocsr(),
        first,
        np.array(bounds, dtype=float),
        method="highs",
    )
    if found.x is None:
        raise ArithmeticError(f"no plan was found: {found.message}")
    work, into, out, _, missing, _ = (part.tolist() for part in np.split(np.maximum(found.x, 0.0), 6))
    net = tuple(a - b for a, b in zip(into, out, strict=True))
    return Plan(begins_s, tuple(work), net, tuple(missing))


def _charge_bounds(site: SiteConfig, start_wh: float) -> tuple[float, float]:
    """A battery that is outside of its bounds now need not be within them at once."""
    assert site.battery is not None
    wh = site.battery.kwh * 10
    return min(start_wh, site.battery.min_pct * wh), max(start_wh, site.battery.max_pct * wh)
