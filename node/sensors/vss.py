"""Where the vehicle's signals stand in COVESA's VSS, by its version, and what their values mean.

The tables name what is asked, and nothing else is: not `Vehicle.CurrentLocation`, not where it charges, not the VIN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ..rules.signals import KINDS, Signal, Value
from .feed import SensorError

VERSION: Final = "Vehicle.VersionVSS.Major"
VERSIONS: Final = (4, 5, 6)
_BATTERY: Final = "Vehicle.Powertrain.TractionBattery"


@dataclass(frozen=True, slots=True)
class Alias:
    """One path, and how its value is read. Raises `SensorError` for a value that means nothing."""

    path: str
    mean: Callable[[str], Value]


def _number(written: str) -> float:
    try:
        value = float(written)
    except ValueError:
        raise SensorError(f"{written[:40]!r} is no number") from None
    if not math.isfinite(value):
        raise SensorError(f"{written[:40]} is not a number")
    return value


def _boolean(written: str) -> bool:
    known = {"true": True, "false": False, "1": True, "0": False}
    if (value := known.get(written.lower())) is None:
        raise SensorError(f"{written[:40]!r} is neither true nor false")
    return value


def _word(*true: str, among: tuple[str, ...]) -> Callable[[str], bool]:
    def mean(written: str) -> bool:
        if written not in among:
            raise SensorError(f"{written[:40]!r} is none of {', '.join(among)}")
        return written in true

    return mean


def _in_gear(written: str) -> bool:
    """VSS: 0 is neutral, 126 park, 127 drive, negative is reverse."""
    return _number(written) not in (0, 126)


_STATES: Final = ("UNDEFINED", "LOCK", "OFF", "ACC", "ON", "START")
"""Who is about to drive passes ACC on the way to ON."""

_ALL: Final[Mapping[Signal, Alias]] = {
    Signal.SPEED_KMH: Alias("Vehicle.Speed", _number),
    Signal.MOVING: Alias("Vehicle.IsMoving", _boolean),
    Signal.PARK_BRAKE: Alias("Vehicle.Chassis.ParkingBrake.IsEngaged", _boolean),
    Signal.PARK_LOCK: Alias("Vehicle.Powertrain.Transmission.IsParkLockEngaged", _boolean),
    Signal.IN_GEAR: Alias("Vehicle.Powertrain.Transmission.CurrentGear", _in_gear),
    Signal.IGNITION: Alias("Vehicle.LowVoltageSystemState", _word("ON", "START", among=_STATES)),
    Signal.CHARGING: Alias(f"{_BATTERY}.Charging.IsCharging", _boolean),
    Signal.BATTERY_W: Alias(f"{_BATTERY}.CurrentPower", _number),
    Signal.SOC_PCT: Alias(f"{_BATTERY}.StateOfCharge.Current", _number),
    Signal.BATTERY_C: Alias(f"{_BATTERY}.Temperature.Average", _number),
    Signal.CABIN_C: Alias("Vehicle.Cabin.HVAC.AmbientAirTemperature", _number),
    Signal.LOW_VOLTAGE_V: Alias("Vehicle.LowVoltageBattery.CurrentVoltage", _number),
    Signal.OPTIMIZE_LEVEL: Alias("Vehicle.PowerOptimizeLevel", _number),
}
_OCCUPIED: Final = "Vehicle.Cabin.Seat.Row1.DriverSide"
_CABLE: Final = Alias(f"{_BATTERY}.Charging.ChargingPort.AnyPosition.IsChargingCableConnected", _boolean)
_SEAT: Final = Alias(f"{_OCCUPIED}.IsOccupied", _boolean)

TABLES: Final[Mapping[int, Mapping[Signal, Alias]]] = {
    4: {
        **_ALL,
        Signal.PLUGGED: Alias(f"{_BATTERY}.Charging.IsChargingCableConnected", _boolean),
        Signal.OCCUPIED: _SEAT,
    },
    5: {**_ALL, Signal.PLUGGED: _CABLE, Signal.OCCUPIED: _SEAT},
    6: {
        **_ALL,
        Signal.PLUGGED: _CABLE,
        Signal.OCCUPIED: Alias(
            f"{_OCCUPIED}.OccupancyStatus", _word("OCCUPIED", among=("UNKNOWN", "OCCUPIED", "EMPTY"))
        ),
    },
}

CRITICAL: Final = (
    Signal.SPEED_KMH,
    Signal.MOVING,
    Signal.IGNITION,
    Signal.IN_GEAR,
    Signal.OCCUPIED,
    Signal.PARK_BRAKE,
    Signal.PARK_LOCK,
)
"""Asked for first: whether somebody is about to drive."""


def table(major: int, paths: Mapping[str, str]) -> dict[Signal, Alias]:
    """The aliases for a vehicle of this version of VSS, with the owner's own paths instead where there are some.

    Raises `SensorError` for a version that came before the ones that are known. A later one is taken for the latest.
    """
    known = max((version for version in VERSIONS if version <= major), default=None)
    if known is None:
        raise SensorError(f"its signals are those of VSS {major}; known are {', '.join(map(str, VERSIONS))}")
    found = dict(TABLES[known])
    for name, path in paths.items():
        signal = Signal(name)
        mean = found[signal].mean if signal in found else _boolean if KINDS[signal].flag else _number
        found[signal] = Alias(path, mean)
    return dict(sorted(found.items(), key=lambda each: each[0] not in CRITICAL))
