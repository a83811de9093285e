"""A site: what its grid connection allows, what its chargers and the rest draw, how full its battery is.

From a page or a file with the signals by their names (`grid_limit_w`, `chargers_w`, `site_load_w`, `soc_pct`, `shed_cap_w`,
`battery_w`), read again and again; or by OCPP 2.0.1, over a WebSocket on which a station, or a proxy between it and its
management system, repeats what passes. A page or file that is out of date says so itself, with `time_ms`.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import h11
import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from ..causes import leaves
from ..rules.readings import Reading
from ..rules.signals import KINDS, Signal
from .config import Site
from .feed import Feed, SensorError
from .ocpp import SUBPROTOCOL, Station
from .websocket import MESSAGE_BYTES_MAX, parsed_untrusted

SKEW_MS: Final = 120_000
"""The clock of whoever writes the page may be so far ahead of ours: beyond that, what it says would never get old."""
PAGE_S: Final = 5.0
PAGE_BYTES_MAX: Final = 64 * 1024
"""Six numbers, and whatever else a meter's page has."""
SIGNALS: Final = (
    Signal.GRID_LIMIT_W,
    Signal.CHARGERS_W,
    Signal.SITE_LOAD_W,
    Signal.SOC_PCT,
    Signal.BATTERY_W,
    Signal.BATTERY_C,
    Signal.SHED_CAP_W,
)


async def read_site(config: Site, feed: Feed) -> None:
    """The site's signals reach the feed, until they cannot be had. Raises `SensorError`, perhaps in a group."""
    if config.ocpp:
        await _listen(config, feed)
    while True:
        found = await _page(config) if config.url else await feed.ask(lambda: _file(config))
        _take_untrusted(found, config, feed)
        await trio.sleep(config.interval_s)


def _take_untrusted(found: Mapping[str, object], config: Site, feed: Feed) -> None:
    """What is known counts; what has a wrong type is a fault. Raises `SensorError` where there is nothing at all."""
    given = {signal: found[signal.value] for signal in SIGNALS if signal.value in found}
    if config.grid_limit_w:
        given.setdefault(Signal.GRID_LIMIT_W, config.grid_limit_w)
    if not given:
        raise SensorError("it says nothing of the site: none of " + ", ".join(signal.value for signal in SIGNALS))
    stamp = found.get("time_ms")
    if stamp is not None and type(stamp) is not int:
        raise SensorError("its `time_ms` is no whole number")
    age_ms = time.time_ns() // 10**6 - stamp if isinstance(stamp, int) else 0
    if age_ms < -SKEW_MS:
        raise SensorError(f"it says so of {min(-age_ms // 1000, 10**9)} s from now: its clock or this one is wrong")
    age_ms = max(0, age_ms)
    feed.expect({*feed.board.expects[feed.source], *given})
    now_ms = feed.now_ms()
    readings = []
    for signal, value in given.items():
        if why := KINDS[signal].refuse(value):
            feed.miss(signal, why)
        else:
            assert isinstance(value, bool | int | float)
            readings.append(
                Reading(signal, value, now_ms - age_ms, feed.good_ms, stamp if isinstance(stamp, int) else None)
            )
    feed.give(readings)


def _file(config: Site) -> Mapping[str, object]:
    """Raises `SensorError`. Whoever writes the file renames it into place: half of one is no TOML."""
    assert config.file is not None
    try:
        with config.file.open("rb") as stream:
            return _table_untrusted(stream.read(PAGE_BYTES_MAX))
    except OSError as error:
        raise SensorError(f"{config.file} cannot be read: {error.strerror}") from None


def _table_untrusted(written: bytes) -> Mapping[str, object]:
    """Raises `SensorError` for what is no TOML, and for what its reader breaks of: nesting, endless numbers."""
    try:
        return tomllib.loads(written.decode())
    except RecursionError:
        raise SensorError("it is not TOML: it is nested too deeply") from None
    except ValueError as error:
        raise SensorError(f"it is not TOML: {str(error)[:120]}") from None


async def _page(config: Site) -> Mapping[str, Any]:
    """The page's JSON object. Raises `SensorError`."""
    parts = urlsplit(config.url)
    try:
        with trio.fail_after(PAGE_S):
            async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 80) as stream:
                answer, page = _Answer(), None
                await stream.send_all(answer.asked(parts.netloc, parts.path or "/", parts.query))
                while page is None:
                    page = answer.feed_untrusted(await stream.receive_some(16384))
                return parsed_untrusted(page)
    except trio.TooSlowError:
        raise SensorError(f"{config.url} does not answer") from None
    except (OSError, trio.BrokenResourceError) as error:
        raise SensorError(
            f"{config.url} cannot be reached: {getattr(error, 'strerror', None) or 'it broke off'}"
        ) from None


class _Answer:
    """A page, as its server sends it."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.CLIENT)
        self._body = b""

    def asked(self, host: str, path: str, query: str) -> bytes:
        """What is sent for it."""
        headers = [("Host", host), ("Accept", "application/json"), ("Connection", "close")]
        target = f"{path}?{query}" if query else path
        request = self._connection.send(h11.Request(method="GET", target=target, headers=headers)) or b""
        return request + (self._connection.send(h11.EndOfMessage()) or b"")

    def feed_untrusted(self, received: bytes) -> bytes | None:
        """The whole page, once it is there; nothing more comes after b"". Raises `SensorError` for any status but 200, for a
        page that is too long, and for what is no HTTP."""
        try:
            self._connection.receive_data(received)
            while (event := self._connection.next_event()) is not h11.NEED_DATA:
                match event:
                    case h11.Response(status_code=status) if status != 200:
                        raise SensorError(f"it answers with status {status}")
                    case h11.Data(data=part):
                        self._body += part
                        if len(self._body) > PAGE_BYTES_MAX:
                            raise SensorError(f"its page has more than {PAGE_BYTES_MAX} bytes")
                    case h11.EndOfMessage():
                        return self._body
                    case h11.ConnectionClosed() | h11.PAUSED:
                        raise SensorError("it broke off")
        except (h11.RemoteProtocolError, RuntimeError) as error:
            raise SensorError(f"it does not speak HTTP: {error}") from None
        return None


async def _listen(config: Site, feed: Feed) -> None:
    """OCPP as it comes has its effect, until cancelled."""
    host, _, port = config.ocpp.rpartition(":")
    station = Station()
    feed.expect({*feed.board.expects[feed.source], Signal.CHARGERS_W, Signal.GRID_LIMIT_W})

    heard_ms: list[int] = []

    def take() -> None:
        """As of the last message; a limit that begins or ends meanwhile counts all the same."""
        if not heard_ms:
            return
        found = station.signals(time.time())
        if config.grid_limit_w:
            limit = found.get(Signal.GRID_LIMIT_W, config.grid_limit_w)
            found[Signal.GRID_LIMIT_W] = min(float(limit), config.grid_limit_w)
        feed.give(Reading(signal, value, heard_ms[-1], feed.good_ms) for signal, value in found.items())

    async def tick() -> None:
        while True:
            await trio.sleep(config.interval_s)
            take()

    async def serve(request: WebSocketRequest) -> None:
        socket = await request.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in request.proposed_subprotocols else None)
        try:
            while True:
                message = await socket.get_message()
                feed.hear()
                heard_ms[:] = [feed.now_ms()]
                answer = station.answer_untrusted(message, time.time())
                take()
                if answer is not None:
                    await socket.send_message(answer)
        except ConnectionClosed:
            feed.lose("the charging station has gone")
        except SensorError as error:
            feed.lose(str(error))  # its connection ends; another may come

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await serve_websocket(
                serve, host.strip("[]"), int(port), None, max_message_size=MESSAGE_BYTES_MAX, disconnect_timeout=1.0
            )
    except* OSError as group:
        raise SensorError(f"{config.ocpp} cannot be listened at: {next(leaves(group))}") from None
