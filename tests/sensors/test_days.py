"""The shipped days, and what the rules make of them; a day's file with a mistake."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fallow.node.rules import preferences
from fallow.node.rules.hours import Now
from fallow.node.rules.policy import Memory, Rules, Wish, decide
from fallow.node.rules.readings import Board, Reading
from fallow.node.rules.signals import Signal
from fallow.node.rules.worth import Draw
from fallow.node.sensors.config import SHIPPED, Scripted
from fallow.node.sensors.feed import Feed
from fallow.node.sensors.scripted import load_day, read_day
from fallow.node.settings import SettingError

KIND = {"commuter": "vehicle", "taxi": "vehicle", "warehouse": "robot", "humanoid": "robot", "site": "site"}
MINUTE_MS = 60_000
SETTLE_MS = {"robot": MINUTE_MS}
LENT = {
    "commuter": "00:05-07:37 18:00-19:29 20:20-23:59",
    "taxi": "02:24-05:19",
    "warehouse": "00:01-05:54 09:31-09:49 22:38-23:59",
    "humanoid": "00:01-06:29 08:16-16:44 18:21-18:59 22:27-23:59",
    "site": "00:05-23:59",
}
"""From and until which minute each is lent, with the preferences of its kind."""


def minutes(name: str) -> str:
    """Of the day, when it is lent, decided each minute."""
    day, kind = load_day(name), KIND[name]
    rules = Rules(
        kind, preferences.parse({}, kind, sensed=True), SETTLE_MS.get(kind, 300_000), Draw(30, 3000), sensed=True
    )
    board, memory, spans = Board(), Memory(), []
    board.expect("day", day.signals)
    for minute in range(24 * 60):
        at_ms = minute * MINUTE_MS
        board.take("day", [Reading(signal, value, at_ms, MINUTE_MS) for signal, value in day.at(at_ms).items()])
        found = decide(rules, board, Wish(), memory, Now(at_ms, at_ms))
        memory = found.memory
        clock = f"{minute // 60:02}:{minute % 60:02}"
        if found.lends and spans and spans[-1][2] == minute - 1:
            spans[-1] = (spans[-1][0], clock, minute)
        elif found.lends:
            spans.append((clock, clock, minute))
    return " ".join(f"{start}-{end}" for start, end, _ in spans)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_day_is_lent_when_its_owner_would(name: str) -> None:
    assert minutes(name) == LENT[name]


def test_a_site_at_six_in_the_evening_has_what_the_grid_leaves_it() -> None:
    day = load_day("site")
    rules = Rules("site", preferences.parse({}, "site", sensed=True), 0, Draw(30, 3000), sensed=True)
    board, at_ms = Board(), 18 * 3_600_000
    board.expect("day", day.signals)
    board.take("day", [Reading(signal, value, at_ms, MINUTE_MS) for signal, value in day.at(at_ms).items()])
    found = decide(rules, board, Wish(), Memory(), Now(at_ms, at_ms))
    assert (found.lends, found.budget_w, found.limits[-1]) == (True, 2000, "the grid asks for less")


async def test_a_day_goes_by_at_its_speed(autojump_clock: MockClock) -> None:
    board = Board()
    board.expect("day", ())
    seen: list[tuple[int, bool]] = []

    def changed() -> None:
        ignition = board.readings.get(("day", Signal.IGNITION))
        if ignition and (not seen or seen[-1][1] is not ignition.value):
            seen.append((round(7.5 * 3600 + trio.current_time() * 60) // 60, bool(ignition.value)))

    feed = Feed("day", board, changed, 5000, now_ms=lambda: round(trio.current_time() * 1000))
    with trio.move_on_after(14 * 60):  # at 60 times the speed, from half past seven until half past nine in the evening
        began = trio.current_time()
        assert began == 0
        await read_day(Scripted("day", "commuter", 7.5, 60.0), feed)
    times = [(f"{minute // 60:02}:{minute % 60:02}", on) for minute, on in seen]
    came_and_went = ("07:30", "07:40", "08:23", "17:08", "17:55", "19:30", "20:15")
    assert times == [(clock, bool(index % 2)) for index, clock in enumerate(came_and_went)]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('[[at]]\ntime = "07:61"\n', "line 2: Setting `at[0].time`: must be a time of day"),
        ('[[at]]\ntime = "07:40"\nsoc_pct = 250\n', "line 3: Setting `at[0].soc_pct`: 250 % is not between 0 and 100"),
        ('[[at]]\ntime = "07:40"\nsoc = 50\n', "line 3: Setting `at[0].soc`: there is no such signal"),
        ('[[at]]\ntime = "07:40"\n\n[[at]]\ntime = "07:40"\n', "line 5: Setting `at[1].time`"),
        ("", "a day has at least one entry"),
        ("at = 5\n", "line 1: Setting `at`"),
        ("]", "is not TOML"),
    ],
)
def test_a_mistake_in_a_day_is_said_with_its_line(tmp_path: Path, written: str, said: str) -> None:
    path = tmp_path / "day.toml"
    path.write_text(written)
    with pytest.raises(SettingError) as error:
        load_day(str(path))
    assert said in error.value.message


def test_a_day_that_cannot_be_read_is_a_sensor_that_does_not_work() -> None:
    board = Board()
    board.expect("day", ())
    feed = Feed("day", board, lambda: None, 5000)
    with pytest.raises(Exception, match="cannot be read"):
        trio.run(partial(read_day, Scripted("day", "/nowhere.toml"), feed))
    assert board.known(Signal.SPEED_KMH, 0).why
