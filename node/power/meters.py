"""What the machine has used, by what counts it here: RAPL for processors, NVML for accelerators, else the battery."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import trio

from ..log import EventLog
from ..rules.signals import Signal
from ..sensors.nvml import Nvml, NvmlError
from ..sensors.sysfs import batteries

DOMAINS_MAX: Final = 16
"""Packages of one machine."""
READ_S: Final = 0.5
"""Counters answer within milliseconds, an accelerator that slept within some hundred; a yield waits for two of these."""


START_S: Final = 10.0
"""At the start, once: an accelerator that wakes, on a machine that boots. Without its meters a node guesses all its life."""


class Meter(Protocol):
    """One counter. What it counts since some start is in joules."""

    name: str

    def joules(self) -> float | None:
        """Used until now; None if it does not tell."""
        ...


class Rapl:
    """Every processor package's energy, as the kernel's powercap tree has it (root may read it, or whom root lets)."""

    name = "rapl"

    def __init__(self, root: Path) -> None:
        folder = root / "class" / "powercap"
        packages = sorted(folder.glob("intel-rapl:*")) if folder.is_dir() else []
        self._paths = [path for path in packages if path.name.count(":") == 1][:DOMAINS_MAX]
        self._before: dict[Path, int] = {}
        self._total_uj = 0

    def joules(self) -> float | None:
        if not self._paths:
            return None
        for path in self._paths:
            try:
                now_uj = int((path / "energy_uj").read_text())
                before_uj = self._before.get(path, now_uj)
                if now_uj < before_uj:  # it went round
                    before_uj -= int((path / "max_energy_range_uj").read_text())
            except (OSError, ValueError):
                return None
            self._before[path] = now_uj
            self._total_uj += now_uj - before_uj
        return self._total_uj / 1e6


class NvmlMeter:
    """Every accelerator's energy, as its driver counts it; of one that only says what it draws now (before Volta), that, summed
    up from look to look."""

    name = "nvml"

    def __init__(self, library: Nvml, clock: Callable[[], float] = time.monotonic) -> None:
        self._library = library
        self._clock = clock
        self._at_s = clock()
        self._summed_j: dict[int, float] = {}

    def joules(self) -> float | None:
        now_s = self._clock()
        passed_s, self._at_s = now_s - self._at_s, now_s
        total = 0.0
        try:
            found = self._library.read()
        except NvmlError:
            return None
        for each in found:
            if each.used_mj is None:
                if each.watts is None:
                    return None
                self._summed_j[each.index] = self._summed_j.get(each.index, 0.0) + each.watts * passed_s
            total += self._summed_j[each.index] if each.used_mj is None else each.used_mj / 1000
        return total if found else None


class BatteryMeter:
    """What came out of the battery, by its power now and then; only while it is not charged."""

    name = "battery"

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._at_s, self._joules = clock(), 0.0

    def joules(self) -> float | None:
        found = dict(batteries(self._root))
        now_s = self._clock()
        passed_s, self._at_s = now_s - self._at_s, now_s
        watts = found.get(Signal.BATTERY_W)
        if watts is None or watts < 0 or found.get(Signal.ON_BATTERY) is not True:
            return None
        self._joules += watts * passed_s
        return self._joules


def found_meters(root: Path, nvml: Nvml | None) -> list[Meter]:
    """Those that tell something now: RAPL and NVML count different things, the battery gives both and all else."""
    counting: list[Meter] = [Rapl(root)]
    if nvml:
        counting.append(NvmlMeter(nvml))
    told = [meter for meter in counting if meter.joules() is not None]
    battery = BatteryMeter(root)
    return told or ([battery] if battery.joules() is not None else [])


class Meters:
    """All of a machine's meters, read together, in a thread, one reading at a time."""

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = tuple(meters)
        self._thread = trio.CapacityLimiter(1)

    async def joules(self) -> dict[str, float | None]:
        """What each has counted until now, by its name. To be awaited by one task at a time.

        One that hangs keeps its thread, and not the node: until that comes back, none of them tells.
        """
        if self._meters and self._thread.available_tokens:
            with trio.move_on_after(READ_S):
                return await trio.to_thread.run_sync(self._read, limiter=self._thread, abandon_on_cancel=True)
        return {meter.name: None for meter in self._meters}

    def _read(self) -> dict[str, float | None]:
        return {meter.name: meter.joules() for meter in self._meters}


async def working_meters(root: Path, nvml: Nvml | None, log: EventLog) -> list[Meter]:
    """Those that tell something now; none if one of them hangs, and the log says so."""
    with trio.move_on_after(START_S):
        return await trio.to_thread.run_sync(found_meters, root, nvml, abandon_on_cancel=True)
    log.write("meters_missing", why=f"One did not answer within {START_S:.0f} s. What jobs use is not measured.")
    return []
