"""What keeps a site's connection within its limit each second, whatever the plan: chargers first, then work, then storing.

Nothing here slows a charger down. Work leaves so much room that it can get out of their way in time: chargers and the rest may
draw `charger_ramp_w_s` more each second, up to all that they have; work answers `reaction_s` later, and falls by `ramp_w_s` a
second. Where the chargers rise faster than work falls, the room is what is still missing when they stop:

    watts ^            ______ limit, less what the battery takes
          |        .--'  most that chargers draw, or the limit if that is less
          |      .'  \\
          |    .'     `-. work, falling
          |  .'           `
          +----------------> seconds

Because that room shrinks no faster than work falls, the limit holds and work's ramp is bounded, both at once. A limit that is
lowered without notice comes before the ramp.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from .site_config import Battery, SiteConfig

EMPTY_PCT: Final = 1.0
"""A battery that has less gives nothing."""
LASTS_FACTOR: Final = 2.0
"""Work leans on the battery's discharge only so far that this takes so many times as long to fade as work to fall: half of
work's ramp is for chargers, half for a battery that runs low."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the meters say now, in watts. The battery's: what goes into it; below 0, out of it."""

    limit_w: float
    others_w: float
    """Chargers and the site's other load."""
    soc_pct: float | None = None
    """None: there is no battery to be told anything."""
    cap_w: float = inf
    """Of work alone, by the grid's order."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What work and battery are to draw until the next second."""

    work_w: float
    battery_w: float = 0.0
    forced: bool = False
    """Work fell faster than its ramp: the limit was lowered, or somebody drew more than they could."""


REST: Final = Orders(0.0)


def orders(
    site: SiteConfig, seen: Seen, plan_work_w: float, plan_battery_w: float, last: Orders, passed_s: float
) -> Orders:
    """What follows the last orders, `passed_s` later: as near to the plan as what is seen allows."""
    ramp_w = site.ramp_w_s * passed_s
    floor_w = max(0.0, last.work_w - ramp_w)
    most_out_w, leaned_w, most_in_w = _battery_bounds(site, seen.soc_pct)
    leaning_w = max(min(last.battery_w, 0.0), leaned_w)
    goal_w = min(plan_work_w, seen.cap_w, site.compute_w, room_w(site, seen, max(min(plan_battery_w, 0.0), leaned_w)))
    work_w = min(max(goal_w, floor_w), last.work_w + ramp_w)
    hard_w = room_w(site, seen, leaning_w)
    if hard_w < work_w:  # the battery helps out, if that keeps to the ramp
        rescue_w = min(leaning_w, max(most_out_w, battery_most_w(site, seen, floor_w)))
        work_w = min(work_w, max(hard_w, min(floor_w, room_w(site, seen, rescue_w))))
    work_w = min(work_w, seen.cap_w)
    free_w = battery_most_w(site, seen, work_w)
    if free_w >= 0:  # it stops storing at once: for that, nobody has to keep room but until the next look
        soon_w = min(_top_w(site, seen.others_w), max(0.0, seen.others_w) + site.charger_ramp_w_s * site.reaction_s)
        free_w = max(free_w, seen.limit_w - soon_w - work_w)
    battery_w = min(plan_battery_w, most_in_w, free_w)
    return Orders(work_w, max(battery_w, most_out_w), work_w < floor_w - 1e-6)


def room_w(site: SiteConfig, seen: Seen, battery_w: float) -> float:
    """The most that work may draw now, so that it can fall in time whatever chargers do, if the battery takes so much."""
    left_w = seen.limit_w - battery_w
    others_w, rise_w_s = max(0.0, seen.others_w), site.charger_ramp_w_s
    top_w = min(_top_w(site, others_w), max(others_w, left_w))
    return max(0.0, left_w - top_w + _fall_w_s(site) * max(0.0, (top_w - others_w) / rise_w_s - site.reaction_s))


def battery_most_w(site: SiteConfig, seen: Seen, work_w: float) -> float:
    """The most that the battery may take (below 0: the least that it has to give) beside so much work; `room_w` turned."""
    others_w, rise_w_s = max(0.0, seen.others_w), site.charger_ramp_w_s
    top_w, fall_w_s = _top_w(site, others_w), _fall_w_s(site)
    falls_w = fall_w_s * max(0.0, (top_w - others_w) / rise_w_s - site.reaction_s)
    if falls_w > 0 and work_w <= falls_w:
        return seen.limit_w - others_w - rise_w_s * (work_w / fall_w_s + site.reaction_s)
    return seen.limit_w - top_w + falls_w - work_w


def _top_w(site: SiteConfig, others_w: float) -> float:
    """What chargers and the rest may come to; they may be more than was said."""
    return max(others_w, site.chargers_w)


def _fall_w_s(site: SiteConfig) -> float:
    own = site.ramp_w_s / LASTS_FACTOR if site.battery else site.ramp_w_s
    return min(own, site.charger_ramp_w_s)


def _battery_bounds(site: SiteConfig, soc_pct: float | None) -> tuple[float, float, float]:
    """The most that it gives for chargers, and for work (both below 0), and the most that it takes."""
    battery = site.battery
    if battery is None or battery.setpoint is None or soc_pct is None:
        return 0.0, 0.0, 0.0
    most_out_w = -battery.max_w if soc_pct > EMPTY_PCT else 0.0
    return most_out_w, -_leans_w(site, battery, soc_pct), battery.max_w if soc_pct < battery.max_pct else 0.0


def _leans_w(site: SiteConfig, battery: Battery, soc_pct: float) -> float:
    """What work may rely on of the battery's discharge: fading as it runs low, no faster than half of work's ramp."""
    left_j = max(0.0, soc_pct - max(EMPTY_PCT, battery.min_pct)) / 100 * battery.kwh * 3_600_000
    return min(battery.max_w, left_j * site.ramp_w_s / (LASTS_FACTOR * battery.max_w))
