"""What a node does all the time, whether it works or not: it reads sensors, decides, heeds the grid, and writes its books."""

from __future__ import annotations

import trio

from .availability import Availability
from .grid.parts import start_grid
from .holdings import Holdings
from .network.seam import Network
from .notifying import watchdog
from .sensors.reading import read


def start_background(held: Holdings, network: Network, nursery: trio.Nursery) -> None:
    """All of it runs until the nursery is cancelled. Raises `StoreError`, `SettingError`."""
    config, lending = held.config, held.lending
    for sensor in config.sensors:
        nursery.start_soon(read, sensor, lending.feed(sensor.name, round(sensor.stale_s * 1000)))
    held.closing.enter_context(start_grid(config, held.key, network, lending, nursery, held.log))
    nursery.start_soon(lending.run)
    nursery.start_soon(held.grid.run, network)
    if config.diary:
        nursery.start_soon(held.recorder.run)
    nursery.start_soon(held.usage.keep)
    nursery.start_soon(watchdog, lambda: _stands(held.availability))


def _stands(availability: Availability) -> str:
    """In one line, for `systemctl status`."""
    why = "; ".join(availability.reasons)
    return f"{availability.state}: {why}" if why else str(availability.state)
