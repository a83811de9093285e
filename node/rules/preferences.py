"""What the owner wants: the table `preferences` of `node.toml`, with BOINC's words where it has one.

    [preferences]
    battery_charge_min_pct = 50    # lend nothing below
    start_hour = 22.0
    end_hour = 6.5

Beside each word's value stands whether the owner has said it: what was asked for has to be known of the machine at every
moment, what was not is kept to where a sensor tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from ..settings import bad, flag, integer, number, only, table_of, tables_of, text, texts, word
from .hours import ALWAYS, DAYS, FREE, Tariff, Window, clock, hour_of

DEMANDED, PREFERRED, ANY = "demanded", "preferred", "any"
PREFERRED_PCT: Final = 20.0
"""Where a cable is preferred, the floor without one lies so much higher: enough left for the day that nobody planned."""
UCR_MAX: Final = 10**12
WINDOWS_MAX: Final = 24
"""A price for each hour."""
DEPARTURES_MAX: Final = 28
"""Four a day."""
VEHICLE_W: Final = 1000.0
"""What a parked car's cooling and 12 V supply bear without a thought (its owner may know better)."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """The owner's wishes. A temperature or price of 0, or hours that are equal, ask for nothing."""

    battery_charge_min_pct: float = 0.0
    plugged_in: str = ANY
    """`demanded`; `preferred`: without a cable the floor is `unplugged_charge_min_pct`; `any`."""
    unplugged_charge_min_pct: float = 0.0
    run_on_batteries: bool = True
    """A host's word: whether it lends while it runs on its battery."""
    run_if_user_active: bool = True
    idle_time_to_run: float = 3.0
    """Minutes for which nobody has used it, where somebody's use counts."""
    yield_when_occupied: bool = True
    """Whether somebody in the driver's seat is about to drive."""
    hours: Window = ALWAYS
    net_hours: Window = ALWAYS
    battery_max_temperature: float = 0.0
    cabin_max_temperature: float = 0.0
    machine_max_temperature: float = 0.0
    accelerator_max_temperature: float = 0.0
    low_voltage_min: float = 0.0
    max_power_w: float = 0.0
    """0: no bound of the owner's."""
    ram_max_used_frac: float = 0.0
    """Of the machine's memory, for the worker. 0: as much as its bundles may take."""
    tariff: Tariff = FREE
    battery_wear_ucr_per_kwh: int = 0
    margin_pct: float = 0.0
    min_ucr_per_hour: int = 0
    """The price floor: what it has to bring beyond its costs, when it works without a pause."""
    departures: tuple[tuple[int, float], ...] = ()
    """(weekday, hour) at which the machine is needed."""
    learn_departures: bool = False
    said: frozenset[str] = frozenset()
    """The words that the owner has used."""


_SENSED: Final[Mapping[str, Mapping[str, object]]] = {
    "vehicle": {
        "battery_charge_min_pct": 50.0, "plugged_in": PREFERRED, "battery_max_temperature": 45.0, "cabin_max_temperature": 60.0,
        "accelerator_max_temperature": 90.0, "low_voltage_min": 11.8, "learn_departures": True,
    },
    "robot": {
        "battery_charge_min_pct": 50.0, "battery_max_temperature": 45.0, "accelerator_max_temperature": 90.0,
        "learn_departures": True,
    },
    "site": {"battery_charge_min_pct": 0.0, "accelerator_max_temperature": 90.0},
    "host": {
        "run_on_batteries": False, "run_if_user_active": False, "machine_max_temperature": 95.0,
        "accelerator_max_temperature": 90.0,
    },
}  # fmt: skip
"""What holds for each kind of machine from the moment on that it has sensors. At 45 degrees lithium cells begin to age fast; at
11.8 V a lead battery is a third full."""
_OURS: Final = {field.name for field in fields(Preferences)} - {"hours", "net_hours", "tariff", "departures", "said"}
WORDS: Final = (
    *sorted(_OURS), "departures", "end_hour", "net_end_hour", "net_start_hour", "start_hour", "tariff", "tariff_ucr_per_kwh",
)  # fmt: skip


def parse(table: Mapping[str, object], kind: str | None, *, sensed: bool) -> Preferences:
    """The preferences in the table of that name. `sensed`: the machine has sensors. Raises `SettingError`."""
    given, at = table_of(table, "preferences"), "preferences."
    only(given, WORDS, at, "preference")
    defaults: Mapping[str, object] = _SENSED[kind or "host"] if sensed else {}
    merged = {**({"max_power_w": VEHICLE_W} if kind == "vehicle" else {}), **defaults, **given}
    floor = number(merged, "battery_charge_min_pct", 0, 0, 100, at)
    higher = min(100.0, floor + PREFERRED_PCT)
    return Preferences(
        battery_charge_min_pct=floor,
        plugged_in=word(merged, "plugged_in", (DEMANDED, PREFERRED, ANY), at) or ANY,
        unplugged_charge_min_pct=number(merged, "unplugged_charge_min_pct", higher, floor, 100, at),
        run_on_batteries=flag(merged, "run_on_batteries", at, default=True),
        run_if_user_active=flag(merged, "run_if_user_active", at, default=True),
        idle_time_to_run=number(merged, "idle_time_to_run", 3, 0, 24 * 60, at),
        yield_when_occupied=flag(merged, "yield_when_occupied", at, default=True),
        hours=_window(merged, "start_hour", "end_hour", at),
        net_hours=_window(merged, "net_start_hour", "net_end_hour", at),
        **{name: number(merged, name, 0, 0, 150, at) for name in _TEMPERATURES},
        low_voltage_min=number(merged, "low_voltage_min", 0, 0, 60, at),
        max_power_w=number(merged, "max_power_w", 0, 0, 1e9, at),
        ram_max_used_frac=number(merged, "ram_max_used_frac", 0, 0, 1, at),
        tariff=_tariff(merged, at),
        battery_wear_ucr_per_kwh=integer(merged, "battery_wear_ucr_per_kwh", 0, 0, UCR_MAX, at),
        margin_pct=number(merged, "margin_pct", 0, 0, 1000, at),
        min_ucr_per_hour=integer(merged, "min_ucr_per_hour", 0, 0, UCR_MAX, at),
        departures=_departures(merged, at),
        learn_departures=flag(merged, "learn_departures", at),
        said=frozenset(given),
    )


_TEMPERATURES: Final = (
    "battery_max_temperature",
    "cabin_max_temperature",
    "machine_max_temperature",
    "accelerator_max_temperature",
)


def as_table(wants: Preferences) -> dict[str, object]:
    """What the owner has said of them: `parse` of this, for the same machine, gives the same again."""
    windows = {"start_hour": wants.hours.start_hour, "end_hour": wants.hours.end_hour}
    windows |= {"net_start_hour": wants.net_hours.start_hour, "net_end_hour": wants.net_hours.end_hour}
    tariff = [
        {"from": clock(window.start_hour), "to": clock(window.end_hour), "ucr_per_kwh": price}
        for window, price in wants.tariff.windows
    ]
    departures = [{"days": [DAYS[day]], "at": clock(hour)} for day, hour in wants.departures]
    table: dict[str, object] = {
        **{name: getattr(wants, name) for name in _OURS},
        **windows,
        "tariff": tariff,
        "tariff_ucr_per_kwh": wants.tariff.ucr_per_kwh,
        "departures": departures,
    }
    return {word: table[word] for word in sorted(wants.said)}


def _window(table: Mapping[str, object], start: str, end: str, at: str) -> Window:
    if (start in table) != (end in table):
        missing, there = (end, start) if start in table else (start, end)
        raise bad(at + missing, f"must be set beside `{there}`: a window of hours has two ends")
    return Window(number(table, start, 0, 0, 24, at), number(table, end, 0, 0, 24, at))


def _tariff(table: Mapping[str, object], at: str) -> Tariff:
    windows = []
    for index, each in enumerate(tables_of(table, "tariff", WINDOWS_MAX, at)):
        here = f"{at}tariff[{index}]."
        only(each, ("from", "to", "ucr_per_kwh"), here)
        window = Window(_time(each, "from", here), _time(each, "to", here))
        windows.append((window, integer(each, "ucr_per_kwh", 0, 0, UCR_MAX, here)))
    return Tariff(integer(table, "tariff_ucr_per_kwh", 0, 0, UCR_MAX, at), tuple(windows))


def _departures(table: Mapping[str, object], at: str) -> tuple[tuple[int, float], ...]:
    found = []
    for index, each in enumerate(tables_of(table, "departures", DEPARTURES_MAX, at)):
        here = f"{at}departures[{index}]."
        only(each, ("days", "at"), here)
        hour = _time(each, "at", here)
        for day in texts(each, "days", DAYS, 7, here):
            if day not in DAYS:
                raise bad(here + "days", f"{day!r} is none of {', '.join(DAYS)}")
            found.append((DAYS.index(day), hour % 24))
    return tuple(found)


def _time(table: Mapping[str, object], name: str, at: str) -> float:
    written = text(table, name, "", at)
    if (hour := hour_of(written)) is None:
        raise bad(at + name, f'must be a time of day such as "07:40", not {written!r}')
    return hour
