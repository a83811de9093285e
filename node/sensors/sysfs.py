"""What Linux shows of this computer in files: battery, temperatures, last use. The root of each is an argument."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..rules.signals import Signal, Value

FILES_MAX: Final = 256
"""Supplies, zones, input devices and terminals that are looked at; a machine has some twenty."""


def batteries(root: Path) -> Iterator[tuple[Signal, Value]]:
    """Of all batteries of the machine itself together (a mouse has one, too); nothing without one but that it runs on mains.

    https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-power: microwatts, microampere-hours, tenths of degrees.
    """
    supplies = [path for path in _children(root / "class" / "power_supply") if _text(path / "scope") != "Device"]
    cells = [path for path in supplies if _text(path / "type") == "Battery"]
    online = [_text(path / "online") == "1" for path in supplies if _text(path / "type") in ("Mains", "USB")]
    states = [_text(path / "status") for path in cells]
    if cells:
        yield Signal.ON_BATTERY, "Discharging" in states if not online else not any(online)
        yield Signal.PLUGGED, any(online) if online else "Discharging" not in states
        yield Signal.CHARGING, "Charging" in states
    else:
        yield Signal.ON_BATTERY, False
    charges = [charge for path in cells if (charge := _number(path / "capacity")) is not None]
    if charges:
        yield Signal.SOC_PCT, min(charges)
    degrees = [tenths / 10 for path in cells if (tenths := _number(path / "temp")) is not None]
    if degrees:
        yield Signal.BATTERY_C, max(degrees)
    watts = [w for path in cells if (w := _watts(path)) is not None]
    if watts and len(watts) == len(cells):
        yield Signal.BATTERY_W, sum(watts)


def temperatures(root: Path) -> Iterator[tuple[Signal, Value]]:
    """The hottest of the machine's thermal zones that tells."""
    zones = [path for path in _children(root / "class" / "thermal") if path.name.startswith("thermal_zone")]
    found = [milli / 1000 for path in zones if (milli := _number(path / "temp")) is not None]
    if plausible := [celsius for celsius in found if -40 < celsius < 150]:  # a zone that is off says -274 or 0x7fff
        yield Signal.MACHINE_C, max(plausible)


def user_idle(root: Path) -> Iterator[tuple[Signal, Value]]:
    """Since when no input device and no terminal has been used: what the kernel keeps of its own, never what was typed."""
    terminals = [path for path in _children(root / "pts") if path.name.isdecimal()]
    consoles = [path for path in _children(root) if path.name.startswith("tty") and path.name[3:].isdecimal()]
    inputs = [path for path in _children(root / "input") if path.name.startswith("event")]
    used = []
    for path in [*inputs, *terminals, *consoles]:
        try:
            found = path.stat()
        except OSError:
            continue
        if stat.S_ISCHR(found.st_mode) or not path.is_absolute() or root != Path("/dev"):
            used.append(found.st_atime)
    if used:
        yield Signal.USER_IDLE_S, max(0.0, time.time() - max(used))


def _watts(path: Path) -> float | None:
    """Out of the battery; negative while it is charged."""
    if (micro := _number(path / "power_now")) is not None:
        watts = abs(micro) / 1e6
    else:
        amperes, volts = _number(path / "current_now"), _number(path / "voltage_now")
        if amperes is None or volts is None:
            return None
        watts = abs(amperes) * volts / 1e12
    return -watts if _text(path / "status") == "Charging" else watts


def _children(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder))[:FILES_MAX]]  # noqa: PTH208 - a list, bounded
    except OSError:
        return []


def _text(path: Path) -> str:
    """Empty if there is none: a device may go at any moment."""
    try:
        with path.open("rb") as stream:
            return stream.read(256).decode(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
