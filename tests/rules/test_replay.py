"""Recorded moments, through the policy again: what was comes out as it was, and other preferences change it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.node.rules.asked import Asked
from fallow.node.rules.hours import HOUR_MS, Now
from fallow.node.rules.policy import Memory, Rules, Wish, decide
from fallow.node.rules.preferences import WORDS, Preferences, as_table, parse
from fallow.node.rules.readings import Board, Bound, Reading
from fallow.node.rules.replay import Moment, lent_ms, replay, seen
from fallow.node.rules.signals import Signal, Value
from fallow.node.rules.worth import Draw

MINUTE = 60_000
DRAW = Draw(0.0, 100.0)


def rules(settle_ms: int = 0, **wants: object) -> Rules:
    return Rules("vehicle", parse({"preferences": wants}, "vehicle", sensed=True), settle_ms, DRAW, sensed=True)


def car(at_min: int, soc: float, *, plugged: bool = True, run: int = 1, **more: Value | str) -> Moment:
    known: list[tuple[str, Signal, Value | str]] = [
        ("car", Signal.SPEED_KMH, 0.0), ("car", Signal.SOC_PCT, soc), ("car", Signal.PLUGGED, plugged),
    ]  # fmt: skip
    known += [("car", Signal(name), value) for name, value in more.items()]
    return Moment(Now(at_min * MINUTE, at_min * MINUTE), run, tuple(known), draw=DRAW)


def test_a_lower_floor_lends_while_the_charge_was_between_the_two() -> None:
    moments = [car(0, 60), car(60, 45), car(120, 35), car(180, 35)]
    assert lent_ms(replay(rules(battery_charge_min_pct=50), moments)) == HOUR_MS
    assert lent_ms(replay(rules(battery_charge_min_pct=40), moments)) == 2 * HOUR_MS
    (first, second, third) = replay(rules(battery_charge_min_pct=50), moments)
    assert (first.codes, second.codes, third.codes) == (set(), {"soc_pct"}, {"soc_pct"})


def test_the_margin_and_the_wait_count_as_they_do_in_life() -> None:
    moments = [car(0, 49), car(60, 51), car(120, 53), car(180, 53)]
    assert lent_ms(replay(rules(battery_charge_min_pct=50), moments)) == HOUR_MS, "51 % is within the margin"
    waits = rules(10 * MINUTE, battery_charge_min_pct=50)
    assert lent_ms(replay(waits, moments)) == HOUR_MS - 10 * MINUTE


def test_hours_begin_and_end_between_two_moments() -> None:
    night = rules(battery_charge_min_pct=0, start_hour=1, end_hour=2.5)
    assert lent_ms(replay(night, [car(0, 60), car(4 * 60, 60)])) == 1.5 * HOUR_MS


def test_no_time_passes_between_two_runs_and_what_was_not_known_is_not() -> None:
    moments = [car(0, 60), car(60, 60), car(600, 60, run=2), car(630, 60, run=2)]
    assert lent_ms(replay(rules(), moments)) == 1.5 * HOUR_MS
    dead = [replace(car(0, 60), known=(("car", Signal.SPEED_KMH, "it died"),)), car(60, 60)]
    (stretch,) = replay(rules(), dead)
    assert {"speed_kmh", "soc_pct"} <= stretch.codes


def test_what_held_last_holds_until_now_but_not_for_longer_than_is_known() -> None:
    for now_min, lent_min in ((0, 0), (7, 7), (10, 10), (11, 10), (60 * 24 * 365, 10), (-5, 0)):
        now = Now(now_min * MINUTE, now_min * MINUTE)
        assert lent_ms(replay(rules(), [car(0, 60)], now)) == lent_min * MINUTE


def test_what_the_grid_asked_is_asked_again() -> None:
    asked = replace(car(0, 60), asked=Asked(stops=("the grid asks for nothing",), changes_in_ms=5.0))
    assert lent_ms(replay(rules(), [asked, car(60, 60), car(90, 60)])) == HOUR_MS / 2
    capped = replace(car(0, 60), asked=Asked(caps=((1.0, "the grid"),)))
    assert lent_ms(replay(rules(), [capped, car(60, 60)])) == 0
    bound = Bound(50.0, "its feeder", 1.0)
    assert lent_ms(replay(rules(), [replace(car(0, 60), bounds=(("feeder", bound),)), car(60, 60)])) == HOUR_MS
    over = replace(bound, until_ms=0.0)
    assert lent_ms(replay(rules(), [replace(car(0, 60), bounds=(("feeder", over),)), car(60, 60)])) == 0


def test_a_sensor_that_had_said_nothing_keeps_it() -> None:
    silent = replace(car(0, 60), unread=(("site", "it is down"),))
    (first, second) = replay(rules(), [silent, car(60, 60), car(90, 60)])
    assert (first.codes, second.codes) == ({"sensor"}, set())


def test_the_owners_word_and_what_work_brings_are_as_they_were() -> None:
    paused = replace(car(0, 60), wish=Wish(paused_until_ms=20 * MINUTE))
    assert lent_ms(replay(rules(), [paused, car(60, 60)])) == 40 * MINUTE
    poor = replace(car(0, 60), earns_ucr=5.0)
    dear = rules(tariff_ucr_per_kwh=100_000)
    assert lent_ms(replay(dear, [poor, car(60, 60)])) == 0
    assert lent_ms(replay(rules(), [poor, car(60, 60)])) == HOUR_MS


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.floats(0, 100), st.floats(0, 80), st.booleans(), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_each_moment_is_decided_as_it_was(steps: list[tuple[int, float, float, bool, bool]]) -> None:
    """Sensors that say something new each time, read at the moment: the replay's first decision of each is the one of then."""
    same = rules(2 * MINUTE, battery_charge_min_pct=50, battery_max_temperature=45)
    board, memory, at_ms = Board(), Memory(), 0
    signals = (Signal.SPEED_KMH, Signal.SOC_PCT, Signal.BATTERY_C, Signal.PLUGGED)
    board.expect("car", signals)
    moments, was = [], []
    for minutes, soc, celsius, plugged, drives in steps:
        at_ms += minutes * MINUTE
        values: tuple[Value, ...] = (30.0 if drives else 0.0, soc, celsius, plugged)
        board.take("car", [Reading(s, v, at_ms, 1000) for s, v in zip(signals, values, strict=True)])
        now = Now(at_ms, at_ms)
        moments.append(Moment(now, 1, seen(board, at_ms), draw=DRAW))
        # Between two moments only the clock counts: the wait ends.
        settled_ms = memory.clear_since_ms + same.settle_ms
        if was and moments[-2].now.ms < settled_ms < at_ms:
            then = Now(int(settled_ms), int(settled_ms))
            memory = decide(same, moments[-2].board, Wish(), memory, then).memory
        decision = decide(same, board, Wish(), memory, now)
        memory = decision.memory
        was.append(decision.lends)
    found = list(replay(same, moments, Now(at_ms + 1000, at_ms + 1000)))
    begun = {stretch.wall_ms: stretch.lends for stretch in found}
    assert [begun[moment.now.wall_ms] for moment in moments] == was


@pytest.mark.parametrize("kind", ["vehicle", "robot", "site", "host", None])
@pytest.mark.parametrize("sensed", [True, False])
def test_what_the_owner_said_is_what_comes_back(kind: str | None, sensed: bool) -> None:
    table: dict[str, object] = {
        "battery_charge_min_pct": 40, "plugged_in": "demanded", "start_hour": 22.0, "end_hour": 6.5, "margin_pct": 10,
        "tariff_ucr_per_kwh": 5, "tariff": [{"from": "07:00", "to": "19:30", "ucr_per_kwh": 9}],
        "departures": [{"days": ["mon", "tue"], "at": "07:40"}], "learn_departures": False,
    }  # fmt: skip
    for said in ({}, table):
        wants = parse({"preferences": said}, kind, sensed=sensed)
        assert as_table(wants).keys() == said.keys()
        assert parse({"preferences": as_table(wants)}, kind, sensed=sensed) == wants
    everything = as_table(replace(Preferences(), said=frozenset(WORDS)))
    assert everything.keys() == set(WORDS)
