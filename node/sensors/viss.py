"""A vehicle's signals by COVESA's VISSv2 over WebSocket, as KUKSA databroker serves it (`--enable-viss`).

    -> {"action":"get","path":"Vehicle.Speed","requestId":"1"}
    <- {"action":"get","requestId":"1","data":{"path":"Vehicle.Speed","dp":{"value":"0.0","ts":"2026-11-28T01:02:03.004Z"}}}
    -> {"action":"subscribe","path":"Vehicle.Speed","requestId":"2"}
    <- {"action":"subscribe","subscriptionId":"6e5e...","requestId":"2","ts":...}, and with each change
    <- {"action":"subscription","subscriptionId":"6e5e...","data":{...},"ts":...}

Values are strings, or null. Changes come as they happen; and since KUKSA drops what its queue of ten has no room for, every
signal is also asked for anew, one question at a time, so that each answer finds room and none is older than `stale_s`. What
the vehicle itself last said too long ago (`signal_age_s`) counts for nothing, however often it is repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import trio
from trio_websocket import WebSocketConnection

from ..log import wall_ms
from ..rules.readings import Reading
from ..rules.signals import Signal
from .config import Viss
from .feed import Feed, SensorError
from .vss import VERSION, Alias, table
from .websocket import connected, receive_untrusted, send

ANSWER_S: Final = 2.0
"""A server that takes longer for one value is no use to somebody who wants to drive."""
ROUNDS: Final = 3
"""Rounds of questions within `stale_s`: one may be lost."""
MISSING: Final = ("invalid_path", "private_path")
"""What VISS says of a path that the vehicle does not have."""
SKEW_MS: Final = 120_000
"""The vehicle's clock may be so far ahead of ours."""


class _Vehicle:
    """One connection, on which one question at a time is asked while changes come in between."""

    def __init__(self, socket: WebSocketConnection, config: Viss, feed: Feed) -> None:
        self._socket, self._config, self._feed = socket, config, feed
        self._token = _token(config)
        self._last = 0
        self._waiting: dict[str, trio.MemorySendChannel[dict[str, Any]]] = {}
        self.aliases: dict[str, tuple[Signal, Alias]] = {}
        """By path."""

    async def listen(self) -> None:
        """Whatever comes has its effect, until the connection ends. Raises `SensorError` then, and for what is no VISS."""
        while True:
            message = await receive_untrusted(self._socket, self._feed)
            if message.get("action") == "subscription":
                self._take_untrusted(message)
            elif (channel := self._waiting.pop(str(message.get("requestId")), None)) is not None:
                channel.send_nowait(message)

    async def ask(self, action: str, path: str) -> dict[str, Any]:
        """The answer. Raises `SensorError` if none comes."""
        self._last += 1
        number = str(self._last)
        sender, receiver = trio.open_memory_channel[dict[str, Any]](1)
        self._waiting[number] = sender
        question = {"action": action, "path": path, "requestId": number}
        try:
            with trio.fail_after(ANSWER_S):
                await send(self._socket, question | ({"authorization": self._token} if self._token else {}))
                return await receiver.receive()
        except trio.TooSlowError:
            raise SensorError(f"it does not answer for {path}") from None
        finally:
            self._waiting.pop(number, None)

    async def read(self, path: str) -> bool:
        """The signal's value has been taken, if there is one. Whether the vehicle has such a path at all."""
        message = await self.ask("get", path)
        if _missing(message):
            return False
        self._take_untrusted(message)
        return True

    def _take_untrusted(self, message: Mapping[str, Any]) -> None:
        """What the message says of a signal counts; if it is no value, that."""
        found = message.get("data")
        items = found if isinstance(found, list) else [found]
        for item in items:
            path, value, stamp = _data_point(item)
            if path not in self.aliases:
                continue  # of something else that the connection was asked for, or an error: the next answer says which
            signal, alias = self.aliases[path]
            given = self._feed.board.expects[self._feed.source]
            if value is None and signal not in given:
                continue  # the tree has a place for it, and nothing in the vehicle fills that
            if signal not in given:
                self._feed.expect([*given, signal])
            try:
                self._feed.give([self._reading(signal, alias, value, stamp)])
            except SensorError as error:
                self._feed.miss(signal, str(error))
        if why := _refusal(message):
            raise SensorError(why)

    def _reading(self, signal: Signal, alias: Alias, value: object, stamp: object) -> Reading:
        if not isinstance(value, str):
            raise SensorError("the vehicle has no value for it" if value is None else "its value is no text")
        stamped_ms = _milliseconds(stamp)
        age_ms, most_ms = wall_ms() - stamped_ms, self._config.signal_age_s * 1000
        if most_ms and age_ms > most_ms:
            raise SensorError(f"the vehicle last said so {age_ms // 1000} s ago (`signal_age_s`: {most_ms // 1000:g})")
        if age_ms < -SKEW_MS:
            raise SensorError(f"the vehicle says so of {-age_ms // 1000} s from now: its clock or this one is wrong")
        good_ms = min(self._feed.good_ms, most_ms - age_ms) if most_ms else self._feed.good_ms
        return Reading(signal, alias.mean(value), self._feed.now_ms(), round(good_ms), stamped_ms)


async def read_viss(config: Viss, feed: Feed) -> None:
    """The vehicle's signals reach the feed until the connection ends. Raises `SensorError`, perhaps in a group."""
    async with connected(config.url, "VISSv2") as socket:
        vehicle = _Vehicle(socket, config, feed)
        async with _listening(vehicle):
            major = config.version or await _version(vehicle)
            wanted = table(major, config.paths)
            vehicle.aliases = {alias.path: (signal, alias) for signal, alias in wanted.items()}
            feed.expect({*feed.board.expects[feed.source] & wanted.keys(), *CORE})
            there = []
            for signal, alias in wanted.items():  # each is followed from when it is known: the critical ones come first
                if await vehicle.read(alias.path):
                    there.append(signal)
                    if error := _refusal(await vehicle.ask("subscribe", alias.path)):
                        raise SensorError(error)
            for signal in feed.board.expects[feed.source] - set(there):
                feed.miss(signal, f"the vehicle has no {wanted[signal].path}")
            while True:  # the first round has just been: the next is due when a third of the time has passed
                await trio.sleep(config.stale_s / ROUNDS)
                for signal in there:
                    if not await vehicle.read(wanted[signal].path):
                        feed.miss(signal, "the vehicle has it no more")


CORE: Final = (Signal.SPEED_KMH,)
"""Expected of every vehicle, until it is known what this one has."""


@asynccontextmanager
async def _listening(vehicle: _Vehicle) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vehicle.listen)
        yield
        nursery.cancel_scope.cancel()


async def _version(vehicle: _Vehicle) -> int:
    message = await vehicle.ask("get", VERSION)
    if error := _refusal(message):
        raise SensorError(f"it does not say which version of VSS it has ({error}); set `version`")
    _, value, _ = _data_point(message.get("data"))
    if not isinstance(value, str) or not value.isdecimal() or len(value) > 2:
        raise SensorError("it does not say which version of VSS it has; set `version`")
    return int(value)


def _data_point(item: object) -> tuple[str, object, object]:
    """(path, value, time); empty and None where it has none."""
    found = item if isinstance(item, dict) else {}
    point = found.get("dp")
    point = point if isinstance(point, dict) else {}
    return str(found.get("path", "")), point.get("value"), point.get("ts")


def _missing(message: Mapping[str, Any]) -> bool:
    error = message.get("error")
    return isinstance(error, dict) and (error.get("reason") in MISSING or error.get("number") in (404, "404"))


def _refusal(message: Mapping[str, Any]) -> str:
    """Why the server does not do what it was asked; empty if it does."""
    error = message.get("error")
    if error is None:
        return ""
    reason = error.get("reason", error.get("number", "")) if isinstance(error, dict) else error
    return f"it refuses: {str(reason)[:80]}"


def _milliseconds(stamp: object) -> int:
    """Since 1970. Raises `SensorError` for what is no time."""
    try:
        return int(datetime.fromisoformat(str(stamp)).astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise SensorError("it gives no time") from None


def _token(config: Viss) -> str:
    if config.token is None:
        return ""
    try:
        return config.token.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SensorError(f"the token in {config.token} cannot be read: {getattr(error, 'strerror', error)}") from None
