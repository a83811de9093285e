"""A vehicle's signals over a real WebSocket: as they are, as they change, and whatever can be wrong with them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
import trio

from fallow.node.rules.readings import Board
from fallow.node.rules.signals import Signal
from fallow.node.sensors import feed as feed_module
from fallow.node.sensors.config import Viss
from fallow.node.sensors.feed import boot_ms, keep
from fallow.node.sensors.viss import read_viss
from fallow.node.sensors.vss import TABLES

from .servers import PATHS_6, Databroker, Watched, serving

SPEED = "Vehicle.Speed"
SOC = "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"
CABLE_4 = "Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected"
CABLE_5 = "Vehicle.Powertrain.TractionBattery.Charging.ChargingPort.AnyPosition.IsChargingCableConnected"
SEAT = "Vehicle.Cabin.Seat.Row1.DriverSide"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who failed tries again soon."""
    monkeypatch.setattr(feed_module, "RETRY_S", 0.02)


def why(signal: Signal, board: Board) -> str:
    return board.known(signal, boot_ms()).why


async def test_signals_come_as_they_are_and_at_once_as_they_change(nursery: trio.Nursery) -> None:
    async with serving(Databroker(dict(PATHS_6))) as car:
        watched = Watched("car")
        nursery.start_soon(keep, watched.feed, partial(read_viss, Viss("car", car.url, stale_s=0.5)))
        await watched.until(lambda board: len(board.expects["car"]) == 9 and len(watched.values()) == 9)
        assert watched.values() == {
            "speed_kmh": 0.0, "moving": False, "park_brake": True, "ignition": False, "in_gear": False, "soc_pct": 81.5,
            "battery_c": 22.5, "plugged": True, "occupied": False,
        }  # fmt: skip
        await watched.until(lambda board: len(car._subscribed) == 10)
        await car.set(SPEED, "12.5")
        await car.set(f"{SEAT}.OccupancyStatus", "OCCUPIED")
        await watched.until(lambda board: watched.values().get("occupied") is True)
        assert watched.values()["speed_kmh"] == 12.5
        assert not any(word in path for path in car.asked for word in ("Location", "VIN", "VehicleIdentification"))


@pytest.mark.parametrize(
    ("version", "cable", "seat"),
    [
        ("4", CABLE_4, "IsOccupied"),
        ("5", CABLE_5, "IsOccupied"),
        ("6", CABLE_5, "OccupancyStatus"),
        ("7", CABLE_5, "OccupancyStatus"),
    ],
)
async def test_the_vehicles_version_says_which_paths_are_asked(
    nursery: trio.Nursery, version: str, cable: str, seat: str
) -> None:
    seat = f"{SEAT}.{seat}"
    values = {"Vehicle.VersionVSS.Major": version, SPEED: "0", SOC: "50", cable: "false"}
    values[seat] = "EMPTY" if seat.endswith("Status") else "false"
    async with serving(Databroker(dict(values))) as car:
        watched = Watched("car")
        nursery.start_soon(keep, watched.feed, partial(read_viss, Viss("car", car.url, stale_s=0.5)))
        await watched.until(lambda board: len(watched.values()) == 4)
        assert watched.values() == {"speed_kmh": 0.0, "soc_pct": 50.0, "plugged": False, "occupied": False}
        assert {cable, seat} <= car.asked and not ({CABLE_4, CABLE_5} - {cable}) & car.asked


@pytest.mark.parametrize(
    ("path", "value", "signal", "said"),
    [
        (SOC, "250", Signal.SOC_PCT, "250 % is not between 0 and 100"),
        (SOC, "NaN", Signal.SOC_PCT, "NaN is not a number"),
        (SPEED, "fast", Signal.SPEED_KMH, "'fast' is no number"),
        (SPEED, None, Signal.SPEED_KMH, "the vehicle has no value for it"),
        ("Vehicle.IsMoving", "perhaps", Signal.MOVING, "'perhaps' is neither true nor false"),
        ("Vehicle.LowVoltageSystemState", "BROKEN", Signal.IGNITION, "'BROKEN' is none of"),
    ],
)
async def test_a_value_that_cannot_be_is_a_fault_until_a_good_one_comes(
    nursery: trio.Nursery, path: str, value: str | None, signal: Signal, said: str
) -> None:
    async with serving(Databroker(dict(PATHS_6))) as car:
        watched, good = Watched("car"), car.values[path]
        nursery.start_soon(keep, watched.feed, partial(read_viss, Viss("car", car.url, stale_s=0.5)))
        await watched.until(lambda board: len(car._subscribed) == 10)
        await car.set(path, value)
        await watched.until(lambda board: said in why(signal, board))
        await car.set(path, good)
        await watched.until(lambda board: not why(signal, board))


async def test_an_old_value_and_a_clock_that_goes_back_are_no_readings(nursery: trio.Nursery) -> None:
    async with serving(Databroker(dict(PATHS_6), age_s=10)) as car:
        watched = Watched("car")
        nursery.start_soon(keep, watched.feed, partial(read_viss, Viss("car", car.url, stale_s=0.5, signal_age_s=60)))
        await watched.until(lambda board: len(car._subscribed) == 10)
        car.age_s = 50
        await car.set(SPEED, "0")
        await watched.until(lambda board: "its time went back by" in why(Signal.SPEED_KMH, board))
        car.age_s = 61
        await car.set(SOC, "80")
        await watched.until(lambda board: "last said so 61 s ago" in why(Signal.SOC_PCT, board))
        car.age_s = -600
        await car.set(SOC, "80")
        await watched.until(lambda board: "its clock or this one is wrong" in why(Signal.SOC_PCT, board))


async def test_a_server_that_is_away_dies_or_talks_nonsense_is_said_and_found_again(nursery: trio.Nursery) -> None:
    car = Databroker(dict(PATHS_6))
    async with serving(car):
        pass
    watched = Watched("car", good_ms=300)
    nursery.start_soon(keep, watched.feed, partial(read_viss, Viss("car", car.url, stale_s=0.5)))
    await watched.until(lambda board: "cannot be reached" in why(Signal.SPEED_KMH, board) or "car" in board.broken)
    assert "cannot be reached" in watched.board.broken["car"].why
    async with serving(car):
        await watched.until(lambda board: "speed_kmh" in watched.values())
        await car.connections[-1].aclose()
        await watched.until(lambda board: "car" in board.broken)
        assert "has closed the connection" in watched.board.broken["car"].why
        await watched.until(lambda board: "car" not in board.broken and "speed_kmh" in watched.values())
        car.junk = "<html>"
        await watched.until(lambda board: "car" in board.broken)
        assert watched.board.broken["car"].why == "it sends what is no JSON"
        car.junk = ""
        await watched.until(lambda board: "car" not in board.broken and "speed_kmh" in watched.values())
    await watched.until(lambda board: "car" in board.broken)
    await trio.sleep(0.31)  # what was read is stale by then: nothing else tells the time
    assert "last read 0 s ago" in why(Signal.SPEED_KMH, watched.board)


async def test_a_server_that_does_not_answer_is_given_up(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fallow.node.sensors.viss.ANSWER_S", 0.1)
    async with serving(Databroker(dict(PATHS_6), answers=False)) as car:
        watched = Watched("car")
        nursery.start_soon(keep, watched.feed, partial(read_viss, Viss("car", car.url, stale_s=0.5)))
        await watched.until(lambda board: "car" in board.broken)
        assert watched.board.broken["car"].why == "it does not answer for Vehicle.VersionVSS.Major"


async def test_a_server_that_floods_is_cut_off(nursery: trio.Nursery) -> None:
    async with serving(Databroker(dict(PATHS_6))) as car:
        watched = Watched("car")
        nursery.start_soon(keep, watched.feed, partial(read_viss, Viss("car", car.url, stale_s=0.5)))
        await watched.until(lambda board: len(car._subscribed) == 10)
        second = boot_ms()  # which lasts until the test ends: how fast this machine is decides nothing
        watched.feed.now_ms = lambda: second
        nursery.start_soon(flood, car)
        await watched.until(lambda board: "car" in board.broken and "500 messages a second" in board.broken["car"].why)


async def flood(car: Databroker) -> NoReturn:
    while True:
        await car.set(SPEED, "0")
        await trio.lowlevel.checkpoint()  # once it has been cut off nobody is subscribed, and nothing is sent


async def test_a_token_is_shown_where_one_is_wanted(nursery: trio.Nursery, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    async with serving(Databroker(dict(PATHS_6), token="secret")) as car:
        watched, stranger = Watched("car"), Watched("car")
        nursery.start_soon(keep, watched.feed, partial(read_viss, Viss("car", car.url, token=token)))
        await watched.until(lambda board: "speed_kmh" in watched.values())
        nursery.start_soon(keep, stranger.feed, partial(read_viss, Viss("car", car.url, stale_s=0.5)))
        await stranger.until(lambda board: "car" in board.broken)
        assert "token_missing" in stranger.board.broken["car"].why


def test_no_table_names_a_place_or_an_identity() -> None:
    for table in TABLES.values():
        for alias in table.values():
            assert not any(word in alias.path for word in ("Location", "VIN", "Identification", "*"))
