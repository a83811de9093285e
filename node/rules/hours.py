"""The owner's clock: local time, windows of hours, and which price of energy holds when.

Hours are as BOINC has them: 7.5 is 07:30.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Final

DAY_MS: Final = 24 * 3_600_000
HOUR_MS: Final = 3_600_000
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EPOCH_WEEKDAY: Final = 3
"""The first of January 1970 was a Thursday."""


@dataclass(frozen=True, slots=True)
class Now:
    """One moment, on both clocks of a machine."""

    ms: int
    """Since some start, and never back; it counts on while the machine sleeps."""
    wall_ms: int
    """Since 1970; people set it."""
    offset_ms: int = 0
    """Local time is so much later than UTC."""

    @property
    def of_day_ms(self) -> int:
        """Local time since midnight."""
        return (self.wall_ms + self.offset_ms) % DAY_MS

    @property
    def weekday(self) -> int:
        """0 is Monday, in local time."""
        return ((self.wall_ms + self.offset_ms) // DAY_MS + _EPOCH_WEEKDAY) % 7


@dataclass(frozen=True, slots=True)
class Window:
    """From one hour of the day to another; over midnight if the end comes first; the whole day if they are one."""

    start_hour: float
    end_hour: float

    @property
    def whole(self) -> bool:
        return self.start_hour % 24 == self.end_hour % 24

    def holds(self, of_day_ms: int) -> bool:
        start, end = (round(hour * HOUR_MS) % DAY_MS for hour in (self.start_hour, self.end_hour))
        if start == end:
            return True
        return start <= of_day_ms < end if start < end else of_day_ms >= start or of_day_ms < end

    def changes_in_ms(self, of_day_ms: int) -> float:
        """Until it begins or ends."""
        if self.whole:
            return inf
        return min((round(hour * HOUR_MS) - of_day_ms - 1) % DAY_MS + 1 for hour in (self.start_hour, self.end_hour))

    def __str__(self) -> str:
        return f"{clock(self.start_hour)} to {clock(self.end_hour)}"


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a kilowatt-hour costs, in micro-credits, by the hour of the day."""

    ucr_per_kwh: int = 0
    """Where no window holds."""
    windows: tuple[tuple[Window, int], ...] = ()
    """The first that holds decides."""

    def at(self, of_day_ms: int) -> int:
        return next((price for window, price in self.windows if window.holds(of_day_ms)), self.ucr_per_kwh)

    def changes_in_ms(self, of_day_ms: int) -> float:
        return min((window.changes_in_ms(of_day_ms) for window, _ in self.windows), default=inf)

    @property
    def mean(self) -> float:
        """Over a day."""
        edges = sorted(
            {0, 24, *(edge % 24 for window, _ in self.windows for edge in (window.start_hour, window.end_hour))}
        )
        return sum(self.at(round(a * HOUR_MS)) * (b - a) for a, b in pairwise(edges)) / 24


ALWAYS: Final = Window(0, 0)
FREE: Final = Tariff()


def clock(hour: float) -> str:
    """As people write it."""
    minutes = round(hour * 60) % (24 * 60)
    return f"{minutes // 60:02}:{minutes % 60:02}"


def span(seconds: float) -> str:
    """A time as people say it."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def hour_of(written: str) -> float | None:
    """The hour that `07:40` means; None if it means none."""
    found = re.fullmatch(r"([01]?\d|2[0-4]):([0-5]\d)", written)
    hour = int(found[1]) + int(found[2]) / 60 if found else 25.0
    return hour if hour <= 24 else None


def next_ms(hours: Sequence[tuple[int, float]], now: Now) -> float:
    """Until the first of these (weekday, hour) comes round again; infinity if there are none."""
    week = 7 * DAY_MS
    at = now.weekday * DAY_MS + now.of_day_ms
    return min((((day * DAY_MS + round(hour * HOUR_MS) - at - 1) % week + 1 for day, hour in hours)), default=inf)
