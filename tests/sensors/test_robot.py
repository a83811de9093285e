"""A robot's battery and dock over a real WebSocket, as rosbridge has them."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from fallow.node.rules.signals import Signal
from fallow.node.sensors import feed as feed_module
from fallow.node.sensors.config import Rosbridge
from fallow.node.sensors.feed import boot_ms, keep
from fallow.node.sensors.rosbridge import read_rosbridge

from .servers import Bridge, Watched, serving

BATTERY = {
    "percentage": 0.81, "temperature": 31.5, "voltage": 48.0, "current": -2.0, "power_supply_status": 1, "present": True,
}  # fmt: skip


async def test_a_battery_and_a_dock_are_read(nursery: trio.Nursery) -> None:
    async with serving(Bridge()) as robot:
        watched = Watched("robot")
        config = Rosbridge("robot", robot.url, dock_topic="/is_docked")
        nursery.start_soon(keep, watched.feed, partial(read_rosbridge, config))
        await _subscribed(robot, 2)
        assert robot.subscribed == {"/battery_state": "sensor_msgs/msg/BatteryState", "/is_docked": "std_msgs/msg/Bool"}
        await robot.publish("/battery_state", BATTERY)
        await robot.publish("/is_docked", {"data": True})
        await watched.until(lambda board: len(watched.values()) == 6)
        assert watched.values() == {
            "soc_pct": 81.0, "battery_c": 31.5, "battery_w": -96.0, "charging": True, "plugged": True, "docked": True,
        }  # fmt: skip
        await robot.publish("/is_docked", {"data": False})
        await watched.until(lambda board: watched.values().get("docked") is False)


async def test_without_a_dock_topic_charging_means_docked_and_nan_means_unknown(nursery: trio.Nursery) -> None:
    async with serving(Bridge()) as robot:
        watched = Watched("robot")
        nursery.start_soon(keep, watched.feed, partial(read_rosbridge, Rosbridge("robot", robot.url)))
        await _subscribed(robot, 1)
        await robot.publish("/battery_state", BATTERY)
        await watched.until(lambda board: watched.values().get("docked") is True)
        await robot.publish("/battery_state", BATTERY | {"power_supply_status": 2})
        await watched.until(lambda board: watched.values().get("docked") is False)
        await robot.publish("/battery_state", BATTERY | {"percentage": None, "power_supply_status": 0})
        await watched.until(lambda board: "NaN" in board.known(Signal.SOC_PCT, boot_ms()).why)
        assert "set `dock_topic`" in watched.board.known(Signal.DOCKED, boot_ms()).why
        await robot.publish("/battery_state", BATTERY | {"percentage": 2.5})
        await watched.until(lambda board: "250 % is not" in board.known(Signal.SOC_PCT, boot_ms()).why)


async def test_a_topic_that_nobody_publishes_is_said(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fallow.node.sensors.rosbridge.SILENT_S", 0.1)
    monkeypatch.setattr(feed_module, "RETRY_S", 60.0)
    async with serving(Bridge()) as robot:
        watched = Watched("robot")
        nursery.start_soon(keep, watched.feed, partial(read_rosbridge, Rosbridge("robot", robot.url)))
        await watched.until(lambda board: "robot" in board.broken)
        assert "nobody publishes /battery_state" in watched.board.broken["robot"].why


async def _subscribed(robot: Bridge, topics: int) -> None:
    with trio.fail_after(10):
        while len(robot.subscribed) < topics:
            robot.arrived = trio.Event()
            await robot.arrived.wait()
