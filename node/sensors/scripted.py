"""A day from a file: what the signals of a machine are from hour to hour, run at any speed.

    kind = "vehicle"
    [[at]]
    time = "07:40"
    speed_kmh = 0
    soc_pct = 82
    [[at]]
    time = "09:00"
    ramp = true            # numbers go straight from where they were to here; without it they jump at this time
    soc_pct = 90

Each entry sets the signals that it names; the others stay as they were. The day goes round: at its begin holds what its end
left.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Final

import trio

from ..rules.hours import DAY_MS, HOUR_MS, hour_of
from ..rules.signals import KINDS, Signal, Value
from ..settings import SettingError, bad, flag, located, only, tables_of, text
from .config import SHIPPED, Scripted
from .feed import Feed, SensorError

ENTRIES_MAX: Final = 24 * 60
"""One for each minute."""
REFRESH_S: Final = 0.5
"""Between two readings while nothing ramps: well within what makes them stale."""


@dataclass(frozen=True, slots=True)
class Day:
    """What holds from when on; in the order of the times, which are milliseconds since midnight."""

    entries: tuple[tuple[int, Mapping[Signal, Value], bool], ...]

    @property
    def signals(self) -> frozenset[Signal]:
        return frozenset(signal for _, values, _ in self.entries for signal in values)

    def at(self, of_day_ms: int) -> dict[Signal, Value]:
        """Every signal's value at this time of the day."""
        return {signal: self._value(signal, of_day_ms) for signal in self.signals}

    def changes_in_ms(self, of_day_ms: int) -> int:
        """Until the next entry."""
        return min((at_ms - of_day_ms - 1) % DAY_MS + 1 for at_ms, _, _ in self.entries)

    def _value(self, signal: Signal, of_day_ms: int) -> Value:
        points = [(at_ms, values[signal], ramps) for at_ms, values, ramps in self.entries if signal in values]
        round_ = [(points[-1][0] - DAY_MS, *points[-1][1:]), *points, (points[0][0] + DAY_MS, *points[0][1:])]
        for (from_ms, value, _), (to_ms, following, ramps) in pairwise(round_):
            if from_ms <= of_day_ms < to_ms:
                if KINDS[signal].flag or not ramps:
                    return value
                return value + (following - value) * (of_day_ms - from_ms) / (to_ms - from_ms)
        raise AssertionError("the points go round the day")


def load_day(name: str) -> Day:
    """The shipped day of this name, or the one in the file. Raises `SettingError`."""
    path = Path(name)
    try:
        source = (
            (files(__package__) / "days" / f"{name}.toml").read_text("utf-8")
            if name in SHIPPED
            else path.read_text("utf-8")
        )
    except OSError as error:
        raise SettingError("day", f"{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingError("day", f"{name} is not TOML: {error}") from None
    try:
        return day_untrusted(source)
    except SettingError as error:
        if error.named == "day":  # in no TOML nothing has a line
            raise SettingError("day", f"{name}: {error.problem}") from None
        raise located(error, path, source) from None


def day_untrusted(source: str) -> Day:
    """The day in the text, whoever wrote it. Raises `SettingError`."""
    try:
        table = tomllib.loads(source)
    except (ValueError, RecursionError) as error:
        raise SettingError("day", f"it is not TOML: {str(error)[:120]}") from None
    return parse_day(table)


def parse_day(table: Mapping[str, object]) -> Day:
    """Raises `SettingError`."""
    only(table, ("kind", "about", "at"))
    found: dict[int, tuple[Mapping[Signal, Value], bool]] = {}
    for index, entry in enumerate(tables_of(table, "at", ENTRIES_MAX)):
        at = f"at[{index}]."
        only(entry, ("time", "ramp", *(signal.value for signal in Signal)), at, "signal")
        written = text(entry, "time", "", at)
        if (hour := hour_of(written)) is None or round(hour * HOUR_MS) % DAY_MS in found:
            raise bad(at + "time", f'must be a time of day of its own such as "07:40", not {written!r}')
        values: dict[Signal, Value] = {}
        for name, value in entry.items():
            if name not in ("time", "ramp"):
                if why := KINDS[Signal(name)].refuse(value):
                    raise bad(at + name, why)
                assert isinstance(value, bool | int | float)
                values[Signal(name)] = value if isinstance(value, bool) else float(value)
        found[round(hour * HOUR_MS) % DAY_MS] = values, flag(entry, "ramp", at)
    if not found:
        raise bad("at", "a day has at least one entry, under [[at]]")
    return Day(tuple((at_ms, *found[at_ms]) for at_ms in sorted(found)))


async def read_day(config: Scripted, feed: Feed) -> None:
    """The day's signals reach the feed as it goes by. Raises `SensorError` for a file that is none, and at the end."""
    try:
        day = load_day(config.day)
    except SettingError as error:
        raise SensorError(error.message) from None
    feed.expect(day.signals)
    began, first_ms = trio.current_time(), _start_ms(config)
    while True:
        passed_ms = int((trio.current_time() - began) * 1000 * config.speed)
        if passed_ms >= DAY_MS and not config.repeat:
            await (
                trio.sleep_forever()
            )  # nothing is known any more: the readings get stale, and the machine is its owner's
        of_day_ms = (first_ms + passed_ms) % DAY_MS
        feed.take(day.at(of_day_ms).items())
        await trio.sleep(min(REFRESH_S, day.changes_in_ms(of_day_ms) / 1000 / config.speed + 0.001))


def _start_ms(config: Scripted) -> int:
    if config.start_hour is not None:
        return round(config.start_hour * HOUR_MS)
    now = time.localtime()
    return (now.tm_hour * 3600 + now.tm_min * 60 + now.tm_sec) * 1000
