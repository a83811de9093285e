"""What is kept of the machine, on the machine alone: bounded, and nothing that goes wrong with it costs the node anything."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path

import pytest

from fallow.node import diary, whatif
from fallow.node.availability import Availability
from fallow.node.diary import Diary, Passed
from fallow.node.income import by_day, by_month, day_name, local_day, today
from fallow.node.lending import Lending
from fallow.node.log import EventLog, wall_ms
from fallow.node.power.account import Account
from fallow.node.recording import QUIET_MS, SLEPT_MS, Recorder
from fallow.node.rules.asked import Asked
from fallow.node.rules.hours import HOUR_MS, Now
from fallow.node.rules.policy import Rules, Wish
from fallow.node.rules.preferences import parse
from fallow.node.rules.readings import Bound
from fallow.node.rules.replay import Moment
from fallow.node.rules.signals import Signal
from fallow.node.rules.worth import Draw
from fallow.protocol.errors import ConfigError, StoreError

MINUTE = 60_000


def rules(**wants: object) -> Rules:
    return Rules("vehicle", parse({"preferences": wants}, "vehicle", sensed=True), 0, Draw(0.0, 100.0), sensed=True)


def moment(ms: int, soc: float, *, wall_ms: int, run: int = 1) -> Moment:
    known = (("car", Signal.SPEED_KMH, 0.0), ("car", Signal.SOC_PCT, soc), ("car", Signal.PLUGGED, True))
    return Moment(Now(ms, wall_ms), run, known, Wish(paused_until_ms=7), 1500.0, Draw(0.0, 100.0))


class Car:
    """A lending with one sensor, and its recorder."""

    def __init__(self, folder: Path, **wants: object) -> None:
        self.events: list[str] = []
        self.log = EventLog(folder, lambda event, fields: self.events.append(event))
        availability = Availability(4)
        self.lending = Lending(rules(battery_charge_min_pct=50, **wants), availability, folder, self.log)
        availability.start()
        self.feed = self.lending.feed("car", 10**9)
        self.feed.expect([Signal.SPEED_KMH, Signal.SOC_PCT, Signal.PLUGGED])
        self.read(60)
        opener = partial(Diary, folder, whatif.kept_rules(self.lending.rules))
        self.recorder = Recorder(self.lending, opener, self.log)
        self.clock = [0.0]
        self.recorder.account = Account([], Draw(0.0, 100.0), Draw(0.0, 100.0), lambda: self.clock[0])

    def read(self, soc: float, *, plugged: bool = True) -> None:
        self.feed.take([(Signal.SPEED_KMH, 0.0), (Signal.SOC_PCT, soc), (Signal.PLUGGED, plugged)])

    async def work(self, seconds: float) -> None:
        """At 100 W."""
        account = self.recorder.account
        assert account
        begun = await account.begin()
        for _ in range(round(seconds)):
            self.clock[0] += 1
            await account.look()
        await account.end(begun)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    kept = Diary(tmp_path, {"kind": None})
    assert (tmp_path / diary.DIARY).stat().st_mode & 0o777 == 0o600
    first, second = moment(0, 60.123, wall_ms=MINUTE), moment(MINUTE, 40, wall_ms=2 * MINUTE)
    kept.write(first, frozenset(), Passed())
    kept.write(second, frozenset({"soc_pct", "hours"}), Passed(MINUTE, True, 3600.0, 1.5, 0.25))
    found = diary.entries(tmp_path, 0)
    assert found[0].moment.known[1] == ("car", Signal.SOC_PCT, 60.12)
    assert found[1].moment == second and found[1].codes == {"soc_pct", "hours"}
    assert (found[1].joules, found[1].passed_ms) == (3600.0, MINUTE)
    assert diary.days(tmp_path)[0] == diary.Day(0, 3600.0, 1.5, 0.25, MINUTE, 0)
    assert [each.moment.now.wall_ms for each in diary.entries(tmp_path, 2 * MINUTE)] == [2 * MINUTE]
    asked = Asked(("stop",), ((5.0, "cap"),), ((0.5, "share"),), ((9.0, "import"),), 7.5)
    bounds = (("feeder", Bound(5.0, "its feeder", inf)), ("site", Bound(6.0, "the site", -inf, whole=True)))
    third = replace(second, now=Now(3, 3 * MINUTE), asked=asked, bounds=bounds, unread=(("site", "it is down"),))
    kept.write(third, frozenset(), Passed())
    assert diary.entries(tmp_path, 3 * MINUTE)[0].moment == third
    kept.close()
    again = Diary(tmp_path, {"kind": "site"})
    assert (again.run, diary.rules(tmp_path)) == (2, {"kind": "site"})
    again.close()


def test_the_diary_has_an_end_and_a_clock_that_jumps_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diary, "ROWS_MAX", 10)
    kept = Diary(tmp_path, {})
    for number in range(25):
        kept.write(moment(number, 60, wall_ms=number * MINUTE), frozenset(), Passed())
    kept.write(moment(26, 60, wall_ms=10**13), frozenset(), Passed())  # the year 2286
    kept.write(moment(27, 60, wall_ms=26 * MINUTE), frozenset(), Passed())
    kept.close()
    found = [each.moment.now.ms for each in diary.entries(tmp_path, 0)]
    assert found == [*range(17, 25), 26, 27]


def test_a_damaged_diary_is_kept_beside_a_new_one(tmp_path: Path) -> None:
    (tmp_path / diary.DIARY).write_bytes(b"no database" * 1000)
    kept = Diary(tmp_path, {})
    kept.write(moment(0, 60, wall_ms=0), frozenset(), Passed())
    kept.close()
    assert len(diary.entries(tmp_path, 0)) == 1
    assert (tmp_path / "diary.damaged").read_bytes().startswith(b"no database")


async def test_only_news_is_written_and_what_work_used_has_its_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    car = Car(tmp_path, tariff_ucr_per_kwh=1000, battery_wear_ucr_per_kwh=500)
    now_ms = [10**9]
    monkeypatch.setattr(car.lending, "now", lambda: Now(now_ms[0], now_ms[0]))

    async def after(ms: int) -> list[diary.Entry]:
        now_ms[0] += ms
        await car.recorder.note()
        return diary.entries(tmp_path, 0)

    assert len(await after(0)) == 1
    assert len(await after(MINUTE)) == 1, "nothing new"
    await car.work(36)  # 3600 J: a watt-hour
    assert (await after(MINUTE))[-1].joules == pytest.approx(3600)
    for _ in range(QUIET_MS // MINUTE - 1):
        assert len(await after(MINUTE)) == 2
    assert len(await after(MINUTE)) == 3, "that nothing was new is written, too"
    car.read(40, plugged=False)
    await car.work(36)
    found = await after(MINUTE)
    assert found[-1].codes == {"soc_pct"}
    (day,) = diary.days(tmp_path).values()
    assert day.lent_ms == (QUIET_MS // MINUTE + 3) * MINUTE and day.withheld_ms == 0
    assert day.energy_ucr == pytest.approx(1 + 1 / 0.9) and day.wear_ucr == pytest.approx(0.5)
    assert found[-1].moment.run == 1
    assert (await after(SLEPT_MS + MINUTE))[-1].moment.run == 2, "the machine slept"
    assert next(iter(diary.days(tmp_path).values())).withheld_ms == 0
    await car.work(36)
    now_ms[0] += 1000
    car.recorder.close()
    assert diary.entries(tmp_path, 0)[-1].joules == pytest.approx(3600), "also what was used since the last minute"


async def test_a_bound_that_changes_is_news_and_one_that_is_said_again_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    car = Car(tmp_path)
    now_ms = [10**9]
    monkeypatch.setattr(car.lending, "now", lambda: Now(now_ms[0], now_ms[0]))
    written = []
    for watts, lasts_ms in ((90.0, MINUTE), (90.0, 2 * MINUTE), (80.0, MINUTE), (80.0, -MINUTE)):
        now_ms[0] += 1000
        car.lending.board.bounds["feeder"] = Bound(watts, "its feeder", now_ms[0] + lasts_ms)
        await car.recorder.note()
        written.append(len(diary.entries(tmp_path, 0)))
    assert written == [1, 1, 2, 3]
    car.lending.feed("site", MINUTE)  # which has said nothing yet
    await car.recorder.note()
    assert len(diary.entries(tmp_path, 0)) == 4
    car.recorder.close()


async def test_a_disk_that_takes_nothing_costs_the_diary_only_and_what_was_used_is_counted_later(
    tmp_path: Path,
) -> None:
    car = Car(tmp_path)
    await car.recorder.note()
    with sqlite3.connect(tmp_path / diary.DIARY) as other:
        pages = other.execute("PRAGMA page_count").fetchone()[0]
    assert car.recorder._diary
    car.recorder._diary._db.execute(f"PRAGMA max_page_count = {pages}")  # as a full disk, to SQLite
    problems = 0
    for soc in range(51, 99):
        car.read(soc)
        await car.work(1)
        await car.recorder.note()
        problems += bool(car.recorder.problem)
    assert problems and "full" in car.recorder.problem and "Nothing that was earned" in car.recorder.problem
    assert car.events.count("diary_failed") == 1, "said once"
    assert car.lending.codes == frozenset(), "it is lent all the same"
    car.recorder._diary._db.execute(f"PRAGMA max_page_count = {diary.PAGES_MAX}")
    await car.recorder.note()
    assert car.recorder.problem == ""
    car.recorder.close()
    assert sum(each.joules for each in diary.entries(tmp_path, 0)) == pytest.approx(4800)


async def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    car = Car(tmp_path)
    car.recorder._open = partial(Diary, tmp_path / "gone", {})
    await car.recorder.note()
    assert "gone/diary.sqlite cannot be used" in car.recorder.problem
    car.recorder.close()


def test_what_other_preferences_would_have_brought(tmp_path: Path) -> None:
    """A day at 60 %, then a night at 45 %: with a floor of 40 % the night would have been lent, too."""
    kept = Diary(tmp_path, whatif.kept_rules(rules(battery_charge_min_pct=50)))
    begins_ms = (wall_ms() // HOUR_MS - 10) * HOUR_MS
    for minute in range(10 * 60 + 1):
        soc = 60 if minute < 5 * 60 else 45
        passed = Passed(MINUTE if minute else 0, lent=minute <= 5 * 60, joules=60.0)
        codes = frozenset() if soc == 60 else frozenset({"soc_pct"})
        kept.write(moment(10**6 + minute * MINUTE, soc, wall_ms=begins_ms + minute * MINUTE), codes, passed)
    kept.close()
    first = local_day(begins_ms)
    found = whatif.ask(tmp_path, whatif.parsed(["battery_charge_min_pct=40"]), first)
    assert found.total.lent_h == pytest.approx(5) and found.total.would_h == pytest.approx(10)
    assert found.against_h["soc_pct"] == pytest.approx(5)
    assert found.more_ucr is None and "not known" in str(found)
    assert str(found).startswith("With battery_charge_min_pct = 40 it would have been lent 5.0 h more than the 5.0 h")
    stricter = whatif.ask(tmp_path, whatif.parsed(["battery_charge_min_pct=70", "margin_pct=5"]), first)
    assert stricter.total.would_h == 0
    (*days,) = by_day(tmp_path, first)
    assert sum(day.lent_min or 0 for day in days) == 300 and by_month(days)[-1].withheld_min is not None
    assert {day.name for day in days} <= {day_name(first), day_name(first + 1)}
    assert today(tmp_path).receipts == 0


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["soc_floor=40"], "no such preference"),
        (["battery_charge_min_pct=140"], "from 0 to 100"),
        (["battery_charge_min_pct=lots"], "must be a number"),
        (["battery_charge_min_pct"], "no change such as"),
        (["=40"], "no change such as"),
        (["start_hour=3"], "two ends"),
        (["x=1\ny=2"], "no change such as"),
        ([f"w{n}=1" for n in range(9)], "one to 8"),
        ([], "one to 8"),
    ],
)
def test_a_question_that_is_none_is_told_why(tmp_path: Path, given: list[str], why: str) -> None:
    kept = Diary(tmp_path, whatif.kept_rules(rules()))
    kept.write(moment(0, 60, wall_ms=wall_ms()), frozenset(), Passed())
    kept.close()
    with pytest.raises(ConfigError, match=why):
        whatif.ask(tmp_path, whatif.parsed(given), 0)


def test_without_a_diary_there_is_no_answer_and_a_damaged_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No diary"):
        whatif.ask(tmp_path, {"margin_pct": 1}, 0)
    (tmp_path / diary.DIARY).write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="cannot be used"):
        whatif.ask(tmp_path, {"margin_pct": 1}, 0)
