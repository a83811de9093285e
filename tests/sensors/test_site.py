"""A site's figures: by a page over real HTTP, by a file, by OCPP 2.0.1 over a real WebSocket."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import HandshakeError, open_websocket_url

from fallow.node.rules.signals import Signal
from fallow.node.sensors import feed as feed_module
from fallow.node.sensors.config import Site
from fallow.node.sensors.feed import boot_ms, keep
from fallow.node.sensors.ocpp import Station
from fallow.node.sensors.site import read_site

from .servers import Watched


class Page:
    """A page of JSON, served over HTTP; what it says may be changed at any time."""

    def __init__(self) -> None:
        self.body, self.status = b"{}", b"200 OK"

    async def serve(self, stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        await stream.send_all(head % (self.status, len(self.body)) + self.body)
        await stream.aclose()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "RETRY_S", 0.02)
    monkeypatch.setattr(feed_module, "RETRY_S_MAX", 0.02)


async def test_a_page_is_read_again_and_again_and_its_mistakes_are_said(nursery: trio.Nursery) -> None:
    page, watched = Page(), Watched("site")
    page.body = b'{"grid_limit_w": 100000, "chargers_w": 42000.5, "owner": "somebody"}'
    (listener,) = await nursery.start(partial(trio.serve_tcp, page.serve, 0, host="127.0.0.1"))
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/meter?now"
    nursery.start_soon(keep, watched.feed, partial(read_site, Site("site", url, interval_s=0.02)))
    await watched.until(lambda board: watched.values() == {"grid_limit_w": 100000, "chargers_w": 42000.5})
    page.body = b'{"grid_limit_w": "much", "chargers_w": -5}'
    await watched.until(lambda board: "'much' is no number" in board.known(Signal.GRID_LIMIT_W, boot_ms()).why)
    assert "-5 W is not between" in watched.board.known(Signal.CHARGERS_W, boot_ms()).why
    for body, said in (
        (b"<html>", "no JSON"), (b"[1]", "no object"), (b"{}", "says nothing of the site"),
        (b"x" * 70_000, "more than 65536 bytes"), (b'{"chargers_w": 1, "time_ms": "now"}', "`time_ms` is no whole number"),
    ):  # fmt: skip
        page.body = body
        await watched.until(lambda board, said=said: "site" in board.broken and said in board.broken["site"].why)
    page.status = b"503 Busy"
    await watched.until(lambda board: "status 503" in board.broken["site"].why)
    page.status, page.body = b"200 OK", b'{"grid_limit_w": 90000, "chargers_w": 0, "time_ms": 1000}'
    await watched.until(lambda board: "last read" in board.known(Signal.CHARGERS_W, boot_ms()).why)


async def test_a_file_is_read_and_a_typo_in_it_is_said(nursery: trio.Nursery, tmp_path: Path) -> None:
    path, watched = tmp_path / "site.toml", Watched("site")
    path.write_text("chargers_w = 11000\nsoc_pct = 55\n")
    nursery.start_soon(
        keep, watched.feed, partial(read_site, Site("site", file=path, interval_s=0.02, grid_limit_w=50_000))
    )
    await watched.until(lambda board: len(watched.values()) == 3)
    assert watched.values() == {"grid_limit_w": 50_000, "chargers_w": 11_000, "soc_pct": 55}
    path.write_text("chargers_w = 11000 W\n")
    await watched.until(lambda board: "site" in board.broken and "is not TOML" in board.broken["site"].why)
    for hostile in ("a = " + "[" * 20_000, "chargers_w = " + "9" * 5_000):
        path.write_text(hostile)  # what Python's own reader breaks of
        await watched.until(lambda board: len(board.broken) == 1 and "is not TOML" in board.broken["site"].why)
        path.write_text("chargers_w = 1\n")
        await watched.until(lambda board: not board.broken)
    path.unlink()
    await watched.until(lambda board: "site" in board.broken and "cannot be read" in board.broken["site"].why)


async def test_a_file_that_hangs_costs_its_readings_and_one_thread(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that nobody writes into: opening it waits for ever, as a dead device does."""
    monkeypatch.setattr(feed_module, "READ_S", 0.05)
    path, watched = tmp_path / "site.toml", Watched("site")
    os.mkfifo(path)
    nursery.start_soon(keep, watched.feed, partial(read_site, Site("site", file=path, interval_s=0.02)))
    try:
        for _ in range(3):  # tried again, and said again
            watched.board.broken.clear()
            await watched.until(lambda board: "site" in board.broken)
            assert "has not answered" in watched.board.broken["site"].why
        assert watched.feed._reader.borrowed_tokens == 1
    finally:
        with suppress(OSError):  # lets go of the thread that hangs
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


async def test_a_page_that_stalls_drips_or_is_ahead_of_its_time_is_said(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fallow.node.sensors.site.PAGE_S", 0.1)

    async def drip(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
            while True:
                await stream.send_all(b" ")
                await trio.sleep(0.01)

    page, watched = Page(), Watched("site")
    (slow,) = await nursery.start(partial(trio.serve_tcp, drip, 0, host="127.0.0.1"))
    nursery.start_soon(keep, watched.feed, partial(read_site, Site("site", f"http://127.0.0.1:{port(slow)}/")))
    await watched.until(lambda board: "site" in board.broken and "does not answer" in board.broken["site"].why)
    (listener,) = await nursery.start(partial(trio.serve_tcp, page.serve, 0, host="127.0.0.1"))
    ahead = Watched("site")
    page.body = json.dumps({"chargers_w": 1, "time_ms": time.time_ns() // 10**6 + 3_600_000}).encode()
    url = f"http://127.0.0.1:{port(listener)}/"
    monkeypatch.setattr("fallow.node.sensors.site.PAGE_S", 5.0)
    nursery.start_soon(keep, ahead.feed, partial(read_site, Site("site", url, interval_s=0.02)))
    await ahead.until(lambda board: "site" in board.broken and "or this one is wrong" in board.broken["site"].why)
    now_ms = time.time_ns() // 10**6
    page.body = json.dumps({"chargers_w": 1, "time_ms": now_ms + 60_000}).encode()
    await ahead.until(lambda board: "chargers_w" in ahead.values())
    page.body = json.dumps({"chargers_w": 1, "time_ms": now_ms}).encode()
    await ahead.until(lambda board: "its time went back by" in board.known(Signal.CHARGERS_W, boot_ms()).why)


def port(listener: trio.SocketListener) -> int:
    return int(listener.socket.getsockname()[1])


def profile(number: int, limit_w: float, level: int = 0, **schedule: Any) -> dict[str, Any]:
    """As a station management system sends it (OCPP 2.0.1, K12)."""
    return {
        "evseId": 0,
        "chargingProfile": {
            "id": number, "stackLevel": level, "chargingProfilePurpose": "ChargingStationExternalConstraints",
            "chargingProfileKind": "Absolute",
            "chargingSchedule": [
                {"id": 1, "chargingRateUnit": "W", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit_w}], **schedule}
            ],
        },
    }  # fmt: skip


def meter(outlet: int, kilowatts: float) -> dict[str, Any]:
    sample = {"value": kilowatts, "measurand": "Power.Active.Import", "unitOfMeasure": {"unit": "kW"}}
    return {"evseId": outlet, "meterValue": [{"timestamp": "2026-11-28T01:00:00Z", "sampledValue": [sample]}]}


def said(station: Station, action: str, payload: object, now_s: float = 0.0) -> Any:
    answer = station.answer_untrusted(json.dumps([2, "7", action, payload]), now_s)
    assert answer is not None
    return json.loads(answer)


def test_limits_hold_in_their_time_and_the_higher_level_wins() -> None:
    station = Station()
    periods = [{"startPeriod": 0, "limit": 50_000.0}, {"startPeriod": 600, "limit": 20_000.0}]
    accepted = [3, "7", {"status": "Accepted"}]
    assert said(station, "SetChargingProfile", profile(1, 0, duration=3600, chargingSchedulePeriod=periods)) == accepted
    limits = [station.signals(now).get(Signal.GRID_LIMIT_W) for now in (0, 599, 600, 3599, 3600)]
    assert limits == [50_000, 50_000, 20_000, 20_000, None]
    said(station, "SetChargingProfile", profile(2, 80_000.0, level=3))
    said(station, "SetChargingProfile", profile(3, 70_000.0, level=3))
    assert station.signals(1)[Signal.GRID_LIMIT_W] == 70_000
    said(station, "SetChargingProfile", profile(4, 9_000.0, 4, startSchedule="1970-01-01T00:10:00Z"))
    assert [station.signals(now)[Signal.GRID_LIMIT_W] for now in (599, 600)] == [70_000, 9_000]
    assert said(station, "ClearChargingProfile", {"chargingProfileId": 9}) == [3, "7", {"status": "Unknown"}]
    said(station, "ClearChargingProfile", {})
    assert station.signals(1) == {}


@pytest.mark.parametrize(
    "payload",
    [
        {}, {"chargingProfile": 5}, profile(1, 1.0, chargingRateUnit="A"), profile(1, 1.0, chargingSchedulePeriod=[]),
        profile(1, float("nan")), profile(1, 1.0, startSchedule="soon"),
        {"chargingProfile": profile(1, 1.0)["chargingProfile"] | {"id": "x"}},
    ],
)  # fmt: skip
def test_what_is_no_limit_in_watts_is_refused_and_counts_for_nothing(payload: object) -> None:
    station = Station()
    assert said(station, "SetChargingProfile", payload)[:3] == [4, "7", "FormationViolation"]
    assert station.signals(0) == {}
    for value, unit in ((1, {"multiplier": 10**9}), ("much", {}), (float("inf"), {}), (10**400, {})):
        sample = {"value": value, "measurand": "Power.Active.Import", "unitOfMeasure": unit}
        answer = said(station, "MeterValues", {"evseId": 1, "meterValue": [{"sampledValue": [sample]}]})
        assert answer[:3] == [4, "7", "FormationViolation"]
    assert said(station, "MeterValues", {"evseId": 1, "meterValue": [{"sampledValue": [5]}]})[0] == 4
    assert said(station, "Reset", {})[2] == "NotSupported"
    assert station.answer_untrusted('[3, "7", {}]', 0.0) is None


async def test_a_station_connects_and_what_it_draws_counts(nursery: trio.Nursery) -> None:
    with trio.socket.socket() as free:
        await free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    watched = Watched("site", good_ms=60_000)
    nursery.start_soon(keep, watched.feed, partial(read_site, Site("site", ocpp=address, grid_limit_w=150_000)))
    with trio.fail_after(20):
        while True:
            try:
                context = open_websocket_url(f"ws://{address}/station", subprotocols=["ocpp2.0.1"])
                async with context as socket:
                    assert socket.subprotocol == "ocpp2.0.1"
                    for number, (action, payload) in enumerate(
                        [
                            ("BootNotification", {"reason": "PowerUp"}), ("MeterValues", meter(1, 22.0)),
                            ("MeterValues", meter(2, 7.4)), ("SetChargingProfile", profile(1, 100_000.0)),
                        ]
                    ):  # fmt: skip
                        await socket.send_message(json.dumps([2, str(number), action, payload]))
                        assert json.loads(await socket.get_message())[0] == 3
                    assert watched.values() == {"chargers_w": 29_400.0, "grid_limit_w": 100_000.0}
                    ended = {"eventType": "Ended", "evse": {"id": 1}}
                    await socket.send_message(json.dumps([2, "9", "TransactionEvent", ended]))
                    await socket.get_message()
                    assert watched.values()["chargers_w"] == 7_400.0
                break
            except HandshakeError:
                await trio.sleep(0.02)  # it does not listen yet
    await watched.until(lambda board: "site" in board.broken)
    assert watched.board.broken["site"].why == "the charging station has gone"
