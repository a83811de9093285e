"""What sensors can say of a machine: each signal with its meaning, its unit and the values that it can have.

Where the machine is, and which one it is (its VIN), are no signals: nothing here could carry them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

Value: TypeAlias = float | bool


class Signal(StrEnum):
    """One thing that can be known of the machine; numbers have their unit in the name."""

    # Whether somebody uses it.
    SPEED_KMH = "speed_kmh"
    MOVING = "moving"
    PARK_BRAKE = "park_brake"
    PARK_LOCK = "park_lock"
    IN_GEAR = "in_gear"
    IGNITION = "ignition"
    OCCUPIED = "occupied"
    IN_USE = "in_use"
    DOCKED = "docked"
    USER_IDLE_S = "user_idle_s"
    # Its energy.
    SOC_PCT = "soc_pct"
    PLUGGED = "plugged"
    CHARGING = "charging"
    ON_BATTERY = "on_battery"
    BATTERY_W = "battery_w"
    LOW_VOLTAGE_V = "low_voltage_v"
    OPTIMIZE_LEVEL = "optimize_level"
    # Temperatures.
    BATTERY_C = "battery_c"
    CABIN_C = "cabin_c"
    MACHINE_C = "machine_c"
    ACCELERATOR_C = "accelerator_c"
    # What it draws, and may draw.
    ACCELERATOR_W = "accelerator_w"
    GRID_LIMIT_W = "grid_limit_w"
    CHARGERS_W = "chargers_w"
    SITE_LOAD_W = "site_load_w"
    SHED_CAP_W = "shed_cap_w"
    # Its link.
    METERED = "metered"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a signal's value is; numbers lie from `least` to `most`, which are what physics and the standards allow."""

    name: str
    """In words, for the owner."""
    least: float = 0.0
    most: float = 1.0
    flag: bool = False
    unit: str = ""

    def refuse(self, value: object) -> str:
        """Why this cannot be the signal's value; empty if it can."""
        if self.flag:
            return "" if isinstance(value, bool) else f"{value!r} is neither true nor false"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{value!r} is no number"
        if not self.least <= value <= self.most:
            if value != value:  # NaN
                return "it is not a number"
            if abs(value) > HUGE:
                return "it is beyond all bounds"
            return f"{value:g} {self.unit} is not between {self.least:g} and {self.most:g}".replace("  ", " ")
        return ""


def _flag(name: str) -> Kind:
    return Kind(name, flag=True)


HUGE: Final = 1e15
"""What is longer is not written out: JSON allows integers of thousands of digits."""
WATTS: Final = 1e9
"""More than any one connection to the grid carries (the protocol's own bound for watts)."""

KINDS: Final[dict[Signal, Kind]] = {
    Signal.SPEED_KMH: Kind("speed", -400, 600, unit="km/h"),
    Signal.MOVING: _flag("moving"),
    Signal.PARK_BRAKE: _flag("parking brake"),
    Signal.PARK_LOCK: _flag("park lock"),
    Signal.IN_GEAR: _flag("gear"),
    Signal.IGNITION: _flag("ignition"),
    Signal.OCCUPIED: _flag("driver's seat"),
    Signal.IN_USE: _flag("use"),
    Signal.DOCKED: _flag("dock"),
    Signal.USER_IDLE_S: Kind("idle time", 0, 10 * 366 * 86400, unit="s"),
    Signal.SOC_PCT: Kind("state of charge", 0, 100, unit="%"),
    Signal.PLUGGED: _flag("charging cable"),
    Signal.CHARGING: _flag("charging"),
    Signal.ON_BATTERY: _flag("running on battery"),
    Signal.BATTERY_W: Kind("battery power", -WATTS, WATTS, unit="W"),
    Signal.LOW_VOLTAGE_V: Kind("12 V battery", 0, 60, unit="V"),
    Signal.OPTIMIZE_LEVEL: Kind("power optimisation level", 0, 10),
    Signal.BATTERY_C: Kind("battery temperature", -60, 150, unit="°C"),
    Signal.CABIN_C: Kind("cabin temperature", -60, 120, unit="°C"),
    Signal.MACHINE_C: Kind("machine temperature", -60, 150, unit="°C"),
    Signal.ACCELERATOR_C: Kind("accelerator temperature", -60, 150, unit="°C"),
    Signal.ACCELERATOR_W: Kind("accelerator power", 0, 1e5, unit="W"),
    Signal.GRID_LIMIT_W: Kind("grid connection limit", 0, WATTS, unit="W"),
    Signal.CHARGERS_W: Kind("chargers' load", 0, WATTS, unit="W"),
    Signal.SITE_LOAD_W: Kind("site's other load", -WATTS, WATTS, unit="W"),
    Signal.SHED_CAP_W: Kind("cap by the grid", 0, WATTS, unit="W"),
    Signal.METERED: _flag("metered link"),
}
