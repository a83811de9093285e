"""What work costs its owner, and whether it is worth it: energy at the hour's price, the battery's wear, a margin on both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .preferences import Preferences

CHARGING_LOSS: Final = 0.1
"""Of what is taken from the grid, on its way through charger and cells: what a battery gives back has cost so much more."""
J_PER_KWH: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Draw:
    """What the machine draws for its work, in watts: `idle_w` while it only waits for some, `full_w` while it computes."""

    idle_w: float
    full_w: float

    def watts(self, duty: float) -> float:
        """At a share of computing, from 0 to 1."""
        return self.idle_w + duty * (self.full_w - self.idle_w)

    def duty(self, budget_w: float) -> float:
        """The largest share of computing that stays within the budget, from 0 to 1."""
        if self.full_w <= self.idle_w:
            return 1.0 if budget_w >= self.full_w else 0.0
        return min(1.0, max(0.0, (budget_w - self.idle_w) / (self.full_w - self.idle_w)))


@dataclass(frozen=True, slots=True)
class Worth:
    """An hour's work without a pause, in micro-credits."""

    earns_ucr: float
    energy_ucr: float
    wear_ucr: float
    wanted_ucr: float
    """Beyond both: the owner's margin and floor."""

    @property
    def enough(self) -> bool:
        return self.earns_ucr >= self.energy_ucr + self.wear_ucr + self.wanted_ucr

    def __str__(self) -> str:
        costs = f"energy costs {self.energy_ucr:.0f}"
        costs += f", the battery's wear {self.wear_ucr:.0f}" if self.wear_ucr else ""
        costs += f", and {self.wanted_ucr:.0f} more are wanted" if self.wanted_ucr else ""
        return f"an hour's work brings {self.earns_ucr:.0f} ucr, one job after another; {costs}"


def kwh_ucr(
    preferences: Preferences, of_day_ms: int, *, on_battery: bool, now_ucr: float | None = None
) -> tuple[float, float]:
    """(energy, wear) of one kilowatt-hour. What a battery gives was charged at the day's mean price, with its losses.

    `now_ucr` is the grid's own price of this moment, in place of the tariff's; it may be negative.
    """
    if not on_battery:
        return float(preferences.tariff.at(of_day_ms)) if now_ucr is None else now_ucr, 0.0
    return preferences.tariff.mean / (1 - CHARGING_LOSS), float(preferences.battery_wear_ucr_per_kwh)


def worth(
    preferences: Preferences,
    watts: float,
    earns_ucr: float,
    of_day_ms: int,
    *,
    on_battery: bool,
    now_ucr: float | None = None,
) -> Worth:
    """Of an hour at so many watts that brings so much; `now_ucr` as in `kwh_ucr`."""
    energy, wear = (
        each * watts / 1000 for each in kwh_ucr(preferences, of_day_ms, on_battery=on_battery, now_ucr=now_ucr)
    )
    margin = max(0.0, energy + wear) * preferences.margin_pct / 100
    return Worth(earns_ucr, energy, wear, margin + preferences.min_ucr_per_hour)
