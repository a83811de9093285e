"""Servers on the wire, in the test's own process: a vehicle with VISSv2 as KUKSA databroker has it, and a robot's rosbridge.

They stand in for the real ones, which are not to be had here: what they prove is our side, and the shapes of KUKSA's JSON.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from fallow.node.rules.readings import Board
from fallow.node.sensors.feed import Feed, boot_ms

PATHS_6 = {
    "Vehicle.VersionVSS.Major": "6",
    "Vehicle.Speed": "0.0",
    "Vehicle.IsMoving": "false",
    "Vehicle.Chassis.ParkingBrake.IsEngaged": "true",
    "Vehicle.LowVoltageSystemState": "OFF",
    "Vehicle.Powertrain.Transmission.CurrentGear": "126",
    "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current": "81.5",
    "Vehicle.Powertrain.TractionBattery.Temperature.Average": "22.5",
    "Vehicle.Powertrain.TractionBattery.Charging.ChargingPort.AnyPosition.IsChargingCableConnected": "true",
    "Vehicle.Cabin.Seat.Row1.DriverSide.OccupancyStatus": "EMPTY",
    "Vehicle.Cabin.HVAC.AmbientAirTemperature": None,
}
"""As a databroker has them: the tree's place for the cabin's temperature is there, and nothing fills it."""


@dataclass
class Databroker:
    """A vehicle's signals, and whoever has subscribed. `asked` are all paths that were ever named to it."""

    values: dict[str, str | None]
    port: int = 0
    token: str = ""
    age_s: float = 0.0
    answers: bool = True
    junk: str = ""
    asked: set[str] = field(default_factory=set)
    connections: list[WebSocketConnection] = field(default_factory=list)
    _subscribed: list[tuple[WebSocketConnection, str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def data(self, path: str) -> dict[str, Any]:
        at = datetime.now(UTC) - timedelta(seconds=self.age_s)
        return {"path": path, "dp": {"value": self.values[path], "ts": at.isoformat().replace("+00:00", "Z")}}

    async def set(self, path: str, value: str | None) -> None:
        """The value has changed, and each subscriber has been told."""
        self.values[path] = value
        for socket, named, subscription in list(self._subscribed):
            if named == path:
                event = {"action": "subscription", "subscriptionId": subscription, "data": self.data(path), "ts": "..."}
                with suppress(ConnectionClosed):
                    await socket.send_message(json.dumps(event))

    async def serve(self, request: WebSocketRequest) -> None:
        protocols = request.proposed_subprotocols
        socket = await request.accept(subprotocol="VISSv2" if "VISSv2" in protocols else None)
        self.connections.append(socket)
        try:
            while True:
                question = json.loads(await socket.get_message())
                self.asked.add(question["path"])
                if self.answers:
                    await socket.send_message(self.junk or json.dumps(self._answer(question, socket)))
        except ConnectionClosed:
            self._subscribed = [each for each in self._subscribed if each[0] is not socket]

    def _answer(self, question: dict[str, Any], socket: WebSocketConnection) -> dict[str, Any]:
        action, path = question["action"], question["path"]
        head = {"action": action, "requestId": question["requestId"]}
        if self.token and question.get("authorization") != self.token:
            return head | {"error": {"number": 401, "reason": "token_missing", "message": "..."}, "ts": "..."}
        if path not in self.values:
            return head | {"error": {"number": 404, "reason": "invalid_path", "message": "..."}, "ts": "..."}
        if action == "subscribe":
            self._subscribed.append((socket, path, f"s{len(self._subscribed)}"))
            return head | {"subscriptionId": self._subscribed[-1][2], "ts": "..."}
        return head | {"data": self.data(path)}


@dataclass
class Bridge:
    """A robot's rosbridge: topics, and whoever has subscribed."""

    port: int = 0
    subscribed: dict[str, str] = field(default_factory=dict)
    arrived: trio.Event = field(default_factory=trio.Event)
    _sockets: list[WebSocketConnection] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def publish(self, topic: str, message: dict[str, Any]) -> None:
        for socket in self._sockets:
            await socket.send_message(json.dumps({"op": "publish", "topic": topic, "msg": message}))

    async def serve(self, request: WebSocketRequest) -> None:
        socket = await request.accept()
        self._sockets.append(socket)
        try:
            while True:
                message = json.loads(await socket.get_message())
                assert message["op"] == "subscribe"
                self.subscribed[message["topic"]] = message["type"]
                self.arrived.set()
        except ConnectionClosed:
            self._sockets.remove(socket)


@asynccontextmanager
async def serving(server: Any) -> AsyncIterator[Any]:
    """The server listens on its port of loopback, a fresh one unless it has one, until the block ends."""
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(
            partial(serve_websocket, server.serve, "127.0.0.1", server.port, None, disconnect_timeout=0.2)
        )
        server.port = listening.port
        yield server
        nursery.cancel_scope.cancel()


class Watched:
    """A board with one source, and somebody who waits for what happens on it."""

    def __init__(self, source: str, good_ms: int = 5_000) -> None:
        self.board = Board()
        self.board.expect(source, ())
        self._news = trio.Event()
        self.feed = Feed(source, self.board, self._changed, good_ms)

    def _changed(self) -> None:
        self._news.set()

    async def until(self, holds: Callable[[Board], bool]) -> Board:
        """The board, once this holds of it; within ten seconds."""
        with trio.fail_after(10):
            while not holds(self.board):
                self._news = trio.Event()
                await self._news.wait()
        return self.board

    def values(self) -> dict[str, float | bool]:
        """What is known now."""
        said = {signal: self.board.known(signal, boot_ms()) for signal in self.board.expects[self.feed.source]}
        return {signal.value: known.values[0] for signal, known in said.items() if not known.why}
