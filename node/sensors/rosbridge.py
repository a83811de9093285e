"""A robot's battery and dock by rosbridge: ROS 2's topics as JSON over WebSocket.

    -> {"op":"subscribe","topic":"/battery_state","type":"sensor_msgs/msg/BatteryState","throttle_rate":200,"queue_length":1}
    <- {"op":"publish","topic":"/battery_state","msg":{"percentage":0.81,"temperature":31.0,"power_supply_status":1,...}}

BatteryState: `percentage` is 0 to 1, `temperature` degrees Celsius, `power_supply_status` 0 unknown, 1 charging, 2 discharging,
3 not charging, 4 full; what is not measured is NaN, which rosbridge writes as null. A robot without a dock topic is at its dock
while it charges or is full there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import trio

from ..rules.signals import Signal, Value
from .config import Rosbridge
from .feed import Feed, SensorError
from .websocket import connected, receive_untrusted, send

CHARGING, DISCHARGING, NOT_CHARGING, FULL = 1, 2, 3, 4
TYPE: Final = "sensor_msgs/msg/BatteryState"
THROTTLE_MS: Final = 200
"""We need no more of a battery; of the dock, every message."""
SILENT_S: Final = 30.0
"""A topic on which nothing comes for so long has no publisher: rosbridge itself says nothing of that."""


async def read_rosbridge(config: Rosbridge, feed: Feed) -> None:
    """The robot's signals reach the feed until the connection ends. Raises `SensorError`, perhaps in a group."""
    feed.expect({*feed.board.expects[feed.source], Signal.DOCKED, Signal.SOC_PCT})
    async with connected(config.url) as socket:
        await send(socket, _subscribe(config.battery_topic, TYPE, THROTTLE_MS))
        if config.dock_topic:
            await send(socket, _subscribe(config.dock_topic, config.dock_type, 0))
        while True:
            with trio.move_on_after(SILENT_S) as limit:
                _take_untrusted(await receive_untrusted(socket, feed), config, feed)
            if limit.cancelled_caught:
                raise SensorError(f"nothing has come for {SILENT_S:g} s: nobody publishes {config.battery_topic}")


def _subscribe(topic: str, kind: str, throttle_ms: int) -> dict[str, Any]:
    return {"op": "subscribe", "topic": topic, "type": kind, "throttle_rate": throttle_ms, "queue_length": 1}


def _take_untrusted(message: Mapping[str, Any], config: Rosbridge, feed: Feed) -> None:
    """Raises `SensorError` for what is no message of ours."""
    found = message.get("msg")
    if message.get("op") == "status" and message.get("level") == "error":
        raise SensorError(f"rosbridge says: {str(message.get('msg'))[:120]}")
    if message.get("op") != "publish" or not isinstance(found, dict):
        return
    if message.get("topic") == config.battery_topic:
        readings = dict(_battery(found))
        if not config.dock_topic:
            status = found.get("power_supply_status")
            if status in (CHARGING, DISCHARGING, NOT_CHARGING, FULL):
                readings[Signal.DOCKED] = status in (CHARGING, FULL)
            else:
                feed.miss(Signal.DOCKED, "the battery does not say whether it charges; set `dock_topic`")
        if Signal.SOC_PCT not in readings:
            feed.miss(Signal.SOC_PCT, "the battery does not know it (NaN)")
        feed.expect({*feed.board.expects[feed.source], *readings})
        feed.take(readings.items())
    elif message.get("topic") == config.dock_topic:
        docked = found.get("data")
        if not isinstance(docked, bool):
            raise SensorError(f"{config.dock_topic} has no `data` that is true or false")
        feed.take([(Signal.DOCKED, docked)])


def _battery(found: Mapping[str, Any]) -> Iterator[tuple[Signal, Value]]:
    """What the battery knows of itself."""
    if (share := _number(found.get("percentage"))) is not None:
        yield Signal.SOC_PCT, 100 * share
    if (celsius := _number(found.get("temperature"))) is not None:
        yield Signal.BATTERY_C, celsius
    volts, amperes = _number(found.get("voltage")), _number(found.get("current"))
    if volts is not None and amperes is not None:
        yield Signal.BATTERY_W, volts * amperes
    status = found.get("power_supply_status")
    if status in (CHARGING, DISCHARGING, NOT_CHARGING, FULL):
        yield Signal.CHARGING, status == CHARGING
        yield Signal.PLUGGED, status in (CHARGING, FULL)


def _number(value: object) -> float | None:
    """None for what is not measured: null and NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf
    return None if math.isnan(number) else number
