"""What a node says to its owner: why it serves or does not, what comes next, how warm it is; also when a sensor has died."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fallow.node.availability import Availability
from fallow.node.income import Income
from fallow.node.lending import Lending
from fallow.node.log import EventLog
from fallow.node.purse import in_words
from fallow.node.rules.hours import Now
from fallow.node.rules.policy import Rules
from fallow.node.rules.preferences import parse
from fallow.node.rules.signals import Signal
from fallow.node.rules.worth import Draw
from fallow.node.words import budget_in_words, next_in_words, now_in_words, temperature_in_words, value_in_words

NOON = 12 * 3_600_000


class Car:
    """A vehicle at noon, parked, at 60 %, and warm."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, settle_s: int = 0, **wants: Any) -> None:
        self.availability = Availability(4)
        table = {"preferences": {"learn_departures": False, **wants}}
        rules = Rules("vehicle", parse(table, "vehicle", sensed=True), settle_s * 1000, Draw(0, 100), sensed=True)
        self.at_ms = 10**9
        monkeypatch.setattr("fallow.node.lending.local_now", lambda: Now(self.at_ms, NOON))
        self.lending = Lending(rules, self.availability, folder, EventLog(folder))
        self.availability.start()
        self.feed = self.lending.feed("car", 60_000)
        self.feed.now_ms = lambda: self.at_ms
        self.feed.expect([Signal.SPEED_KMH, Signal.SOC_PCT, Signal.BATTERY_C])
        self.read()
        self.availability.worker(True)

    def read(self, soc: float = 80, celsius: float = 21.4) -> None:
        self.feed.take([(Signal.SPEED_KMH, 0.0), (Signal.SOC_PCT, soc), (Signal.BATTERY_C, celsius)])

    @property
    def said(self) -> tuple[str, str]:
        self.lending.look()
        return now_in_words(self.availability), next_in_words(self.lending)


def test_it_says_why_it_is_lent_or_not_and_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    car = Car(tmp_path, monkeypatch)
    assert car.said == (
        "It is lent, and waits for orders.",
        "Nothing by the clock: it is lent until a reading, or you, say otherwise.",
    )
    car.availability.jobs = 2
    assert car.said[0] == "It is lent, and works on 2 of at most 4 jobs."
    car.availability.jobs = 0
    car.availability.worker(False, "loading tiny-chat")
    assert car.said[0] == "It is lent, and cannot serve yet: loading tiny-chat."
    car.read(soc=40)
    car.availability.yielded()
    assert car.said == (
        "It is not lent: its charge is 40 %, below 72 %.",
        "It is lent again when the last of these reasons is gone.",
    )
    car.lending.wish = type(car.lending.wish)(driving=True)
    assert car.said[1] == "It may be lent again after `fallow node park`."
    car.lending.wish = type(car.lending.wish)(opted_out=True)
    assert car.said[1] == "It is lent again after `fallow node opt-in`."


def test_pauses_waits_and_hours_have_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    car = Car(tmp_path, monkeypatch, settle_s=300)
    assert car.said[1] == "It is lent in 5 min, if nothing comes up until then."
    car.lending.wish = type(car.lending.wish)(paused_until_ms=car.at_ms + 7_200_000)
    assert car.said[1] == "The pause ends in 2 h 00 min."
    night = Car(tmp_path, monkeypatch, start_hour=22, end_hour=6.5)
    assert night.said == ("It is not lent: it is lent from 22:00 to 06:30 only.", "Its hours begin at 22:00.")
    day = Car(tmp_path, monkeypatch, start_hour=8, end_hour=18.25)
    assert day.said[1] == "Its hours end at 18:15."


def test_a_dead_sensor_and_a_bound_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    car = Car(tmp_path, monkeypatch)
    assert temperature_in_words(car.lending) == ["battery: 21 °C"]
    assert budget_in_words(car.lending) == "1000 W (`max_power_w`)"
    car.feed.lose("it died")
    car.at_ms += 61_000
    now, _ = car.said
    assert "its speed is not known: car: last read 61 s ago (it died)" in now
    assert temperature_in_words(car.lending) == ["battery: last read 61 s ago (it died)"]


def test_todays_earnings_in_a_line() -> None:
    assert in_words(Income("2026-11-28"), "") == "0 ucr net: 0 due; energy is not counted: there is no diary"
    day = Income("2026-11-28", 3, 150, 20, 7, 10, 3, 1, 120, 0)
    assert in_words(day, "") == "137 ucr net: 150 due, 20 more are held; energy costs 10, wear 3"
    assert in_words(None, "The journal cannot be used.") == "not known: The journal cannot be used."


def test_a_reading_is_said_with_its_unit() -> None:
    said = [
        value_in_words(value, unit) for value, unit in ((True, ""), (21.44, "°C"), (1_500_000.0, "W"), (756_022.0, "s"))
    ]
    assert said == ["yes", "21.4 °C", "1500000 W", "210 h 00 min"]
