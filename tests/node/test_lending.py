"""A whole node that reads its machine: a vehicle's databroker on the wire, the owner's words, and mistakes in its settings."""

from __future__ import annotations

import json
import os
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio

from fallow.node import control
from fallow.node.availability import Availability
from fallow.node.lending import Lending
from fallow.node.log import EventLog
from fallow.node.machine import boot_ms
from fallow.node.rules.asked import Asked
from fallow.node.rules.hours import Now, Tariff
from fallow.node.rules.policy import Rules, Wish
from fallow.node.rules.preferences import Preferences
from fallow.node.rules.readings import Bound
from fallow.node.rules.signals import Signal
from fallow.node.rules.worth import Draw
from fallow.node.wish import load, save
from fallow.protocol.errors import StoreError
from fallow.protocol.job import JobState
from fallow.protocol.receipts import YIELDED
from fallow.protocol.work import Work
from tests.sensors.servers import PATHS_6, Databroker, serving

from ..moments import look_again
from .conftest import Daemon, Home, Start, client_network
from .raw_client import Ask, Conversation, Payer, profile_of

PROMPT = Work(((1, 40, 41, 42, 43),))
SOC = "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"


async def until(daemon: Daemon, state: str, reason: str = "") -> dict[str, Any]:
    """The node's own words, once it is in the state, for this reason among others."""
    with trio.fail_after(90):
        while True:
            said = await trio.to_thread.run_sync(daemon.command, "why")
            if said["state"] == state and reason in said["reasons"] + [""]:
                return said
            await look_again()


async def test_a_car_that_is_driven_off_yields_and_whatever_is_wrong_with_its_sensors_keeps_it(
    start: Start, home: Home
) -> None:
    async with serving(Databroker(dict(PATHS_6))) as car:
        sensor = [{"kind": "viss", "url": car.url, "stale_s": 4.0}]
        node = await trio.to_thread.run_sync(
            partial(start, bundles=["tiny-chat"], kind="vehicle", reach="direct", settle_s=0, sensors=sensor)
        )
        said = await until(node, "ready")
        assert said["budget"] == "1000 W (`max_power_w`)"
        assert said["sensors"][0].startswith("viss: good")
        assert any(line.startswith("state of charge: 81.5 % (viss") for line in said["known"])
        async with client_network([node.address]) as network:
            payer = Payer(await profile_of(network, network.peers()[0]))
            talk = await Conversation.begin(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
            while not talk.pieces:
                await talk.next()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk.run)
                await car.set("Vehicle.LowVoltageSystemState", "ON")
            assert talk.yielded is not None and talk.yielded.reason == "the owner needs the machine"
            assert (talk.delivery.receipts[-1].record.end, talk.job.state) == (YIELDED, JobState.SETTLED)
        assert (await until(node, "not-eligible"))["reasons"] == ["the ignition is on"]
        await car.set("Vehicle.LowVoltageSystemState", "OFF")
        await until(node, "ready")

        await car.set(SOC, "250")
        said = await until(node, "not-eligible")
        assert said["reasons"] == ["its state of charge is not known: viss: 250 % is not between 0 and 100"]
        await car.set(SOC, "49")
        await until(node, "not-eligible", "its charge is 49 %, below 52 %")
        await car.set(SOC, "80")
        await until(node, "ready")
        car.answers = False
        said = await until(node, "not-eligible")
        assert any("viss: last read 4 s ago" in reason for reason in said["reasons"])
    events = [event for event in node.events("job_ended") if event["event"] in ("job_ended", "pace")]
    assert events[0]["energy_source"] in ("guess", "rapl") and events[0]["energy_mj"] >= 0


async def test_the_owners_words_are_kept_over_a_restart(start: Start, tmp_path: Path) -> None:
    node = await trio.to_thread.run_sync(partial(start, tmp_path, bundles=["tiny-embed"]))
    command = partial(control.request, node.state)
    paused = await trio.to_thread.run_sync(command, control.PAUSE, 7200)
    assert (paused["state"], paused["reasons"]) == ("not-eligible", ["the owner has paused it, for 2 h 00 min more"])
    out = await trio.to_thread.run_sync(command, control.OPT_OUT)
    assert out["reasons"][0] == "the owner has opted out (`fallow node opt-in` lends again)"
    assert await trio.to_thread.run_sync(node.stop) == 0
    held = json.loads((tmp_path / "state" / "wish.json").read_text())
    assert held["opted_out"] and 0 < held["lasts_ms"] <= 7_200_000


def lending(folder: Path, **wants: Any) -> tuple[Lending, Availability]:
    availability = Availability(4)
    rules = Rules("vehicle", Preferences(**wants), 0, Draw(0, 100), sensed=True)
    made = Lending(rules, availability, folder, EventLog(folder))
    availability.start()
    return made, availability


async def test_a_departure_is_learned_on_the_machine_alone(tmp_path: Path) -> None:
    made, availability = lending(tmp_path, learn_departures=True)
    feed = made.feed("car", 60_000)
    feed.expect([Signal.SPEED_KMH])
    feed.take([(Signal.SPEED_KMH, 0.0)])
    assert availability.lends
    left: list[str] = []
    made.on_leave = lambda: left.append("left")
    feed.take([(Signal.SPEED_KMH, 20.0)])
    feed.take([(Signal.SPEED_KMH, 21.0)])
    assert left == ["left"] and not availability.lends
    kept = tmp_path / "departures.json"
    assert not kept.exists()  # who leaves does not wait for a disk
    await made.noted()
    assert len(json.loads(kept.read_text())) == 1 and kept.stat().st_mode & 0o777 == 0o600
    feed.take([(Signal.SPEED_KMH, 0.0)])
    availability.yielded()
    feed.lose("it died")
    await made.noted()
    assert len(json.loads(kept.read_text())) == 1
    assert len(lending(tmp_path, learn_departures=True)[0]._past) == 1
    kept.write_text("[{]")
    assert lending(tmp_path, learn_departures=True)[0].stays_ms() > 0


def test_a_sensor_that_has_not_been_read_keeps_the_machine_from_when_it_is_set_up(tmp_path: Path) -> None:
    availability = Availability(4)
    rules = Rules("site", Preferences(), 0, Draw(0, 100), sensed=True)
    made = Lending(rules, availability, tmp_path, EventLog(tmp_path))
    availability.start()
    link = made.feed("link", 60_000, [Signal.METERED])
    assert made.decision.lends and link.source == "link"
    feed = made.feed("site", 60_000)
    assert made.codes == {"sensor"} and not availability.lends
    feed.expect([Signal.CHARGERS_W])
    feed.take([(Signal.CHARGERS_W, 0.0)])
    assert availability.lends


async def test_a_disk_that_hangs_keeps_nobody_from_looking_by_time(tmp_path: Path) -> None:
    availability, log = Availability(4), EventLog(tmp_path)
    made = Lending(Rules("host", Preferences(), 0, Draw(0, 100)), availability, tmp_path, log)
    availability.start()
    os.mkfifo(log.path)  # whoever opens it to write hangs until somebody reads
    reader = -1
    with log.in_background():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run)
            try:
                made.pause(0.5)
                assert not availability.lends
                with trio.fail_after(10):
                    await made.changed.wait()
                assert availability.lends
            finally:
                reader = os.open(log.path, os.O_RDONLY | os.O_NONBLOCK)
                nursery.cancel_scope.cancel()
    os.close(reader)


def test_what_the_grid_says_that_energy_costs_is_what_it_costs(tmp_path: Path) -> None:
    made, _ = lending(tmp_path, tariff=Tariff(300))
    assert made.kwh_ucr() == 300
    made.grid.append(lambda now: Asked(kwh_ucr=-20.0))
    made.look()
    assert made.kwh_ucr() == -20


def test_what_others_draw_is_not_known_while_a_meter_that_should_tell_does_not(tmp_path: Path) -> None:
    rules = Rules("site", Preferences(), 0, Draw(0, 100), sensed=True)
    made = Lending(rules, Availability(4), tmp_path, EventLog(tmp_path))
    assert made.wants_w() == 100, "nobody is there to tell"
    feed = made.feed("site", 60_000)
    assert made.wants_w() == inf
    feed.expect([Signal.CHARGERS_W])
    assert made.wants_w() == inf
    feed.take([(Signal.CHARGERS_W, 7_000.0)])
    assert made.wants_w() == 7_100
    feed.miss(Signal.CHARGERS_W, "it is dead")
    assert made.wants_w() == inf


def test_what_the_grid_forbids_is_not_wanted_of_a_feeder_either(tmp_path: Path) -> None:
    made = Lending(Rules("site", Preferences(), 0, Draw(0, 100)), Availability(4), tmp_path, EventLog(tmp_path))
    made.bind("feeder", Bound(60.0, "its share", boot_ms() + 60_000))
    assert made.wants_w() == 100, "of a larger share it would make use"
    made.grid.append(lambda now: Asked(caps=((30.0, "the grid asks for less"),)))
    made.look()
    assert made.wants_w() == 30


def test_a_pause_is_no_longer_for_a_clock_that_was_set_back_and_a_damaged_word_lends_nothing(tmp_path: Path) -> None:
    now = Now(1_000, 1_000_000_000)
    save(tmp_path, Wish(paused_until_ms=61_000), now.ms, now.wall_ms)
    assert load(tmp_path, 5_000, now.wall_ms + 30_000).paused_until_ms == 35_000
    assert load(tmp_path, 5_000, now.wall_ms - 10**9).paused_until_ms == 65_000
    assert load(tmp_path, 5_000, now.wall_ms + 60_000).paused_until_ms < 0
    (tmp_path / "wish.json").write_text("{")
    assert load(tmp_path, 0, 0).opted_out
    assert load(tmp_path / "nowhere", 0, 0) == Wish()


async def test_a_word_that_cannot_be_written_counts_for_now(tmp_path: Path) -> None:
    made, availability = lending(tmp_path / "gone")
    with pytest.raises(StoreError, match="holds until the node ends"):
        made.pause(60)
    assert "the owner has paused it, for 60 s more" in availability.withheld


async def test_whoever_keeps_the_power_hears_of_the_owners_return_though_the_budget_stays(tmp_path: Path) -> None:
    made, _ = lending(tmp_path, max_power_w=60.0)
    feed = made.feed("car", 60_000)
    feed.expect([Signal.SPEED_KMH])
    told: list[tuple[float, bool]] = []
    made.on_leave = lambda: told.append((0.0, False))
    made.on_power = lambda decision: told.append((decision.budget_w, decision.lends))
    for speed in (0.0, 20.0, 20.0):
        feed.take([(Signal.SPEED_KMH, speed)])
    assert told == [(60.0, True), (0.0, False), (60.0, False)]
