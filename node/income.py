"""What each day of the owner's clock brought and cost: receipts from the journal, energy and hours from the diary."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from . import diary
from .diary import Day
from .earnings import Earning, earnings
from .log import wall_ms
from .rules.hours import DAY_MS


@dataclass(frozen=True, slots=True)
class Income:
    """A day's or a month's sums, in micro-credits. `net = due - energy - wear`: what is held is not earned yet."""

    name: str
    """`2026-11-28` or `2026-11`, by the owner's clock."""
    receipts: int = 0
    due_ucr: int = 0
    """Promised by vouchers and fallen due."""
    held_ucr: int = 0
    """Promised, and held until it falls due."""
    unpaid_ucr: int = 0
    """Claimed by receipts, and covered by no voucher."""
    energy_ucr: int | None = None
    """Of the work, at the hour's price. None: no diary was kept."""
    wear_ucr: int | None = None
    """Of the battery, for what came out of it."""
    energy_wh: int | None = None
    lent_min: int | None = None
    withheld_min: int | None = None

    @property
    def net_ucr(self) -> int:
        return self.due_ucr - (self.energy_ucr or 0) - (self.wear_ucr or 0)

    @property
    def promised_ucr(self) -> int:
        return self.due_ucr + self.held_ucr


def local_day(at_ms: int) -> int:
    """The day of the owner's clock, since 1970."""
    return (at_ms + offset_ms(at_ms)) // DAY_MS


def offset_ms(at_ms: int) -> int:
    """By how much the owner's clock is ahead of UTC at that time."""
    return (time.localtime(at_ms / 1000).tm_gmtoff or 0) * 1000


def day_name(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).strftime("%Y-%m-%d")


def begin_ms(day: int) -> int:
    """When the day begins by the owner's clock, give or take the hour of a change of summer time."""
    return day * DAY_MS - offset_ms(day * DAY_MS)


def by_day(state: Path, first: int, now_ms: int | None = None) -> list[Income]:
    """Each day from the first on on which anything was earned or used, oldest first.

    Reads only, also while the node runs. Raises `StoreError` if the journal or the diary cannot be read.
    """
    now_ms = wall_ms() if now_ms is None else now_ms
    rows: dict[int, list[Earning]] = {}
    for row in earnings(state, now_ms, begin_ms(first)):
        rows.setdefault(local_day(row.issued_ms), []).append(row)
    kept = diary.days(state, first)
    return [_income(day_name(day), rows.get(day, ()), kept.get(day)) for day in sorted(rows.keys() | kept.keys())]


def today(state: Path, now_ms: int | None = None) -> Income:
    """As `by_day`, of this day so far."""
    now_ms = wall_ms() if now_ms is None else now_ms
    day = local_day(now_ms)
    name = day_name(day)
    return next((each for each in by_day(state, day, now_ms) if each.name == name), Income(name))


def by_month(found: Iterable[Income]) -> list[Income]:
    """The sums of days, month by month."""
    months: dict[str, list[Income]] = {}
    for each in found:
        months.setdefault(each.name[:7], []).append(each)
    return [total(month, found) for month, found in months.items()]


def total(name: str, found: Iterable[Income]) -> Income:
    """The sums; what was not known of any is not known."""
    found = list(found)

    def known(values: Iterable[int | None]) -> int | None:
        there = [value for value in values if value is not None]
        return sum(there) if there else None

    return Income(
        name,
        sum(each.receipts for each in found),
        sum(each.due_ucr for each in found),
        sum(each.held_ucr for each in found),
        sum(each.unpaid_ucr for each in found),
        known(each.energy_ucr for each in found),
        known(each.wear_ucr for each in found),
        known(each.energy_wh for each in found),
        known(each.lent_min for each in found),
        known(each.withheld_min for each in found),
    )


def _income(name: str, rows: Iterable[Earning], day: Day | None) -> Income:
    rows = list(rows)
    return Income(
        name,
        len(rows),
        sum(row.paid_ucr - row.held_ucr for row in rows),
        sum(row.held_ucr for row in rows),
        sum(row.owed_ucr - row.paid_ucr - row.forfeited_ucr for row in rows),
        *(
            (None,) * 5
            if day is None
            else (
                # Rounded up: costs are never made smaller than they are.
                -int(-day.energy_ucr // 1),
                -int(-day.wear_ucr // 1),
                round(day.joules / 3600),
                day.lent_ms // 60_000,
                day.withheld_ms // 60_000,
            )
        ),
    )
