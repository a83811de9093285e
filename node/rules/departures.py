"""When the machine is likely to be needed: the owner's word, and what past days have shown. Kept on the machine only.

A day is told by the first times at which somebody came: quarters of hours, by the day of the week, over the last weeks. What
came at about one time on most of the days of its kind will come again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from .hours import DAY_MS, HOUR_MS, Now, next_ms

WEEKS_MAX: Final = 8
"""Habits change with the seasons; eight of one day are enough to see one."""
DAYS_KEPT: Final = 7 * WEEKS_MAX
PER_DAY_MAX: Final = 12
"""Departures kept of one day: a taxi has more, and no habit among them."""
NEAR_MS: Final = 30 * 60_000
"""Somebody who leaves at eight leaves between half past seven and half past eight."""
OFTEN: Final = 0.5
SEEN_MIN: Final = 2
"""Days, at least: what happened once is no habit."""


@dataclass(frozen=True, slots=True)
class Departure:
    """One time at which the machine was taken."""

    day: int
    """Since 1970, in local time."""
    of_day_ms: int

    @property
    def weekday(self) -> int:
        return (self.day + 3) % 7


def departure(now: Now) -> Departure:
    """That of this moment."""
    return Departure((now.wall_ms + now.offset_ms) // DAY_MS, now.of_day_ms)


def kept(past: Iterable[Departure], latest: Departure) -> tuple[Departure, ...]:
    """`past` and the latest, as far as they still tell something; those that lie in the future (a clock was wrong) do not."""
    days: dict[int, list[Departure]] = {}
    for each in sorted({*past, latest}, key=lambda each: (each.day, each.of_day_ms)):
        if latest.day - DAYS_KEPT < each.day <= latest.day:
            days.setdefault(each.day, []).append(each)
    return tuple(each for day in days.values() for each in day[:PER_DAY_MAX])


def habits(past: Sequence[Departure], today: int) -> tuple[tuple[int, float], ...]:
    """The (weekday, hour) at which it is likely to be taken, from `past`: the earliest of each that agree."""
    found: list[tuple[int, float]] = []
    if not past:
        return ()
    began = min(each.day for each in past)
    for weekday in range(7):
        known = [day for day in range(max(began, today - DAYS_KEPT + 1), today) if (day + 3) % 7 == weekday]
        taken = sorted((each for each in past if each.weekday == weekday), key=lambda each: each.of_day_ms)
        at = -inf
        for each in taken:
            near = {other.day for other in taken if 0 <= other.of_day_ms - each.of_day_ms <= NEAR_MS}
            if each.of_day_ms > at and len(near) >= max(SEEN_MIN, OFTEN * len(known)):
                found.append((weekday, each.of_day_ms / HOUR_MS))
                at = each.of_day_ms + NEAR_MS
    return tuple(found)


def leaves_in_ms(said: Sequence[tuple[int, float]], past: Sequence[Departure], now: Now, *, learns: bool) -> float:
    """Until the machine is next likely to be needed; infinity if nothing is known of that."""
    learned = habits(past, departure(now).day) if learns else ()
    return next_ms([*said, *learned], now)
