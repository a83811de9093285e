"""Whether the machine is lent: over random histories against rules written down a second time, and rule by rule."""

from __future__ import annotations

import math
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow.node.rules.hours import DAY_MS, HOUR_MS, Now, Tariff, Window
from fallow.node.rules.policy import Decision, Memory, Rules, Wish, decide
from fallow.node.rules.preferences import DEMANDED, PREFERRED, Preferences
from fallow.node.rules.readings import Board, Reading
from fallow.node.rules.signals import KINDS, Signal
from fallow.node.rules.worth import Draw

GOOD_MS, SETTLE_MS = 5_000, 300_000
NONE = Wish()
WANTS = Preferences(battery_charge_min_pct=50, plugged_in=DEMANDED, battery_max_temperature=45, max_power_w=1000)
RULES = Rules("vehicle", WANTS, SETTLE_MS, Draw(20, 320), sensed=True)
SIGNALS = (Signal.SPEED_KMH, Signal.SOC_PCT, Signal.BATTERY_C, Signal.SHED_CAP_W, Signal.PLUGGED)
PARKED = {
    Signal.SPEED_KMH: 0.0, Signal.SOC_PCT: 90.0, Signal.BATTERY_C: 20.0, Signal.SHED_CAP_W: 5000.0, Signal.PLUGGED: True,
}  # fmt: skip

VALUES = {
    Signal.SPEED_KMH: st.sampled_from([0.0, 0.0, 0.0, 0.3, 5.0, -7.0, 130.0, math.nan, 9e9]),
    Signal.SOC_PCT: st.sampled_from([90.0, 90.0, 51.0, 50.0, 49.9, 12.0, 250.0, -1.0, math.nan]),
    Signal.BATTERY_C: st.sampled_from([20.0, 20.0, 44.0, 45.0, 45.1, 60.0, math.inf, -500.0]),
    Signal.SHED_CAP_W: st.sampled_from([5000.0, 5000.0, 200.0, 30.0, 0.0, -5.0]),
    Signal.PLUGGED: st.sampled_from([True, True, False, 1.0]),
}
"""Often good, sometimes beyond a limit, sometimes what cannot be."""
EVENTS = st.one_of(
    st.tuples(st.just("wait"), st.integers(0, 200_000)),
    st.tuples(st.just("all"), st.none()),
    st.sampled_from(SIGNALS).flatmap(lambda signal: st.tuples(st.just(signal), VALUES[signal])),
    st.tuples(st.just("steady"), st.integers(1, 100)),
)


class History:
    """A machine's signals, decided upon after each, and the same rules in other words."""

    def __init__(self) -> None:
        self.now_ms, self.board, self.memory = 1_000_000, Board(), Memory()
        self.board.expect("car", SIGNALS)
        self.latest: dict[Signal, tuple[int, float]] = {}
        self.bad_until_ms = self.now_ms
        self.lent, self.changes = False, [self.now_ms - SETTLE_MS]

    def read(self, **values: float) -> None:
        for name, value in values.items():
            self.latest[Signal(name)] = self.now_ms, value
        self.board.take("car", [Reading(Signal(n), v, self.now_ms, GOOD_MS) for n, v in values.items()])
        self.decide()

    def decide(self) -> Decision:
        now = Now(self.now_ms, self.now_ms)
        found = decide(RULES, self.board, Wish(), self.memory, now)
        self.memory = found.memory
        assert found.look_ms > self.now_ms
        if self.unsafe():
            self.bad_until_ms = self.now_ms
            assert not found.lends
        if found.lends:
            assert self.now_ms >= self.bad_until_ms + SETTLE_MS
            assert 20 < found.budget_w <= min(1000, self.latest[Signal.SHED_CAP_W][1])
        if found.lends != self.lent:
            self.lent = found.lends
            if found.lends:
                assert self.now_ms - self.changes[-1] >= SETTLE_MS, "it flaps"
            self.changes.append(self.now_ms)
        return found

    def unsafe(self) -> bool:
        """By what was last read, as an owner would say it."""
        for signal in SIGNALS:
            at_ms, value = self.latest.get(signal, (-inf, 0.0))
            if self.now_ms - at_ms > GOOD_MS or KINDS[signal].refuse(value):
                return True
        value = {signal: self.latest[signal][1] for signal in SIGNALS}
        return (
            abs(value[Signal.SPEED_KMH]) > 0.5
            or value[Signal.SOC_PCT] < 50
            or not value[Signal.PLUGGED]
            or value[Signal.BATTERY_C] > 45
            or value[Signal.SHED_CAP_W] < 35  # 20 W and a twentieth of what computing takes more
        )


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=60))
def test_never_while_driving_below_the_floor_too_hot_or_under_a_stop_order_and_never_to_and_fro(events: list) -> None:
    history = History()
    for what, value in events:
        if what == "wait":
            history.now_ms += value
            history.decide()
        elif what == "all":
            history.read(**{signal.value: good for signal, good in PARKED.items()})
        elif what == "steady":
            for _ in range(value):
                history.now_ms += 4_000
                history.read(**{signal.value: good for signal, good in PARKED.items()})
        else:
            history.read(**{what.value: value})


def test_a_parked_car_is_lent_after_five_minutes_and_taken_back_at_once() -> None:
    history = History()
    while not history.lent:
        history.read(**{signal.value: value for signal, value in PARKED.items()})
        history.now_ms += 1_000
    assert history.now_ms - 1_000 - 1_000_000 == SETTLE_MS
    history.read(speed_kmh=3.0)
    assert not history.lent


def board(**values: float) -> Board:
    made = Board()
    made.expect("car", [Signal(name) for name in values])
    made.take("car", [Reading(Signal(name), value, 0, GOOD_MS) for name, value in values.items()])
    return made


def reasons(rules: Rules, made: Board, wish: Wish = NONE, at_ms: int = 0, earns_ucr: float | None = None) -> list[str]:
    memory = Memory(clear_since_ms=-inf)
    return [r.why for r in decide(rules, made, wish, memory, Now(at_ms, at_ms), earns_ucr).reasons]


GOOD = {"speed_kmh": 0.0, "soc_pct": 90.0}


def rules(kind: str = "vehicle", **wants: object) -> Rules:
    return Rules(kind, replace(Preferences(), **wants), 0, Draw(0, 100), sensed=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wants", "read", "why"),
    [
        ({}, GOOD | {"ignition": True}, "the ignition is on"),
        ({}, GOOD | {"occupied": True}, "somebody sits in the driver's seat"),
        ({"yield_when_occupied": False}, GOOD | {"occupied": True}, ""),
        ({}, GOOD | {"in_gear": True}, "a gear is in"),
        ({}, GOOD | {"park_brake": False, "park_lock": False}, "neither parking brake nor park lock holds it"),
        ({}, GOOD | {"park_brake": False, "park_lock": True}, ""),
        ({}, {"soc_pct": 90.0}, "it is not known whether it moves: no sensor gives that"),
        ({"battery_charge_min_pct": 50.0}, {"speed_kmh": 0.0}, "its state of charge is not known: no sensor gives it"),
        ({"plugged_in": DEMANDED}, GOOD, "its charging cable is not known: no sensor gives it"),
        ({"plugged_in": DEMANDED}, GOOD | {"plugged": False}, "it is not plugged in"),
        (
            {"plugged_in": PREFERRED, "battery_charge_min_pct": 50.0, "unplugged_charge_min_pct": 95.0},
            GOOD | {"plugged": False},
            "its charge is 90 %, below 95 %",
        ),
        ({"plugged_in": PREFERRED, "battery_charge_min_pct": 50.0}, GOOD | {"plugged": True}, ""),
        ({"cabin_max_temperature": 60.0}, GOOD | {"cabin_c": 61.0}, "its cabin temperature is 61 °C, above 60 °C"),
        ({"cabin_max_temperature": 60.0}, GOOD, ""),
        ({"low_voltage_min": 11.8}, GOOD | {"low_voltage_v": 11.2}, "its 12 V battery has 11.2 V, less than 11.8 V"),
        ({}, GOOD | {"optimize_level": 10.0}, "it may draw 0 W, and needs 5 W (the vehicle saves power)"),
        (
            {},
            GOOD | {"grid_limit_w": 9000.0, "chargers_w": 8999.0},
            "it may draw 1 W, and needs 5 W (the grid connection, less chargers and the site's other load)",
        ),
        ({"hours": Window(22, 6)}, GOOD, ""),
        ({"hours": Window(6, 22)}, GOOD, "it is lent from 06:00 to 22:00 only"),
        ({"net_hours": Window(1, 2)}, GOOD, "it is lent from 01:00 to 02:00 only"),
    ],
)
def test_each_rule_says_why(wants: dict[str, object], read: dict[str, float], why: str) -> None:
    assert reasons(rules(**wants), board(**read)) == ([why] if why else [])


def test_robots_lend_on_their_dock_and_hosts_while_nobody_uses_them() -> None:
    assert reasons(rules("robot"), board(docked=False)) == ["it is not at its dock"]
    assert reasons(rules("robot"), board(docked=True)) == []
    assert reasons(rules("robot"), board(soc_pct=50)) == [
        "it is not known whether it is at its dock: no sensor gives that"
    ]
    host = rules("host", run_if_user_active=False, idle_time_to_run=3.0, run_on_batteries=False)
    assert reasons(host, board(user_idle_s=200.0, on_battery=False)) == []
    assert reasons(host, board(user_idle_s=20.0, on_battery=True)) == [
        "its user was active 20 s ago (`idle_time_to_run` is 3 min)", "it runs on its battery",
    ]  # fmt: skip


def test_what_the_owner_asked_for_has_to_be_known() -> None:
    wants = rules(cabin_max_temperature=60.0, said=frozenset({"cabin_max_temperature"}))
    assert reasons(wants, board(**GOOD)) == ["its cabin temperature is not known: no sensor gives it"]


def test_the_owners_word_beats_all() -> None:
    good = board(**GOOD)
    assert reasons(rules(), good, Wish(driving=True)) == ["the owner needs the machine"]
    assert reasons(rules(), good, Wish(paused_until_ms=7_200_000)) == ["the owner has paused it, for 2 h 00 min more"]
    assert reasons(rules(), good, Wish(opted_out=True)) == [
        "the owner has opted out (`fallow node opt-in` lends again)"
    ]
    assert not reasons(rules(), good, Wish(paused_until_ms=0))


def test_stale_is_not_known_and_the_moment_is_foretold() -> None:
    made = decide(rules(), board(**GOOD), Wish(), Memory(clear_since_ms=-inf), Now(0, 0))
    assert (made.lends, made.look_ms) == (True, GOOD_MS + 1)
    assert "last read 5 s ago" in reasons(rules(), board(**GOOD), at_ms=GOOD_MS + 1)[0]


def test_what_was_crossed_has_to_be_left_behind_by_its_margin() -> None:
    wants, memory = rules(battery_charge_min_pct=50.0), Memory(clear_since_ms=-inf)
    lends = []
    for soc in (50.0, 49.0, 50.0, 51.9, 52.0, 50.0, 49.9):
        found = decide(wants, board(speed_kmh=0.0, soc_pct=soc), Wish(), memory, Now(0, 0))
        memory = found.memory
        lends.append(found.lends)
    assert lends == [True, False, False, False, True, True, False]


def test_work_has_to_be_worth_its_energy() -> None:
    day = Tariff(300_000, ((Window(0, 6), 100_000),))
    wants = rules(tariff=day, margin_pct=20.0, battery_wear_ucr_per_kwh=50_000)
    plugged = board(speed_kmh=0.0, plugged=True)
    assert reasons(wants, plugged, earns_ucr=12_000) == []  # 100 W at 100,000 ucr/kWh, and a fifth
    assert reasons(wants, plugged, earns_ucr=11_000) == [
        "it is not worth it now: an hour's work brings 11000 ucr, one job after another; energy costs 10000, "
        "and 2000 more are wanted"
    ]
    made = board(speed_kmh=0.0, plugged=True)
    made.take(
        "car", [Reading(s, v, 6 * HOUR_MS, GOOD_MS) for s, v in ((Signal.SPEED_KMH, 0.0), (Signal.PLUGGED, True))]
    )
    assert "energy costs 30000" in reasons(wants, made, at_ms=6 * HOUR_MS, earns_ucr=12_000)[0]
    unplugged = board(speed_kmh=0.0, plugged=False)
    assert "the battery's wear 5000" in reasons(wants, unplugged, earns_ucr=12_000)[0]
    assert decide(wants, plugged, Wish(), Memory(), Now(0, 5 * HOUR_MS), 1e9).look_ms == GOOD_MS + 1
    assert day.mean == (6 * 100_000 + 18 * 300_000) / 24


def test_a_source_that_lies_or_goes_back_in_time_is_not_believed() -> None:
    made = board(**GOOD)
    made.take("car", [Reading(Signal.SOC_PCT, 250.0, 1, GOOD_MS)])
    assert made.known(Signal.SOC_PCT, 1).why == "car: 250 % is not between 0 and 100"
    made.take("car", [Reading(Signal.SOC_PCT, 10**400, 1, GOOD_MS)])
    assert made.known(Signal.SOC_PCT, 1).why == "car: it is beyond all bounds"
    made.take("car", [Reading(Signal.SOC_PCT, 80.0, 2, GOOD_MS, stamped_ms=100_000)])
    assert made.known(Signal.SOC_PCT, 2).values == (80.0,)
    made.take("car", [Reading(Signal.SOC_PCT, 80.0, 3, GOOD_MS, stamped_ms=40_000)])
    assert made.known(Signal.SOC_PCT, 3).why == "car: its time went back by 60 s"
    made.take("car", [Reading(Signal.SOC_PCT, 80.0, 4, GOOD_MS, stamped_ms=41_000)])
    assert made.known(Signal.SOC_PCT, 4).values == (80.0,)


def test_of_two_sources_the_worse_counts_and_one_that_is_silent_spoils_both() -> None:
    made = board(**GOOD)
    made.expect("second", [Signal.SPEED_KMH])
    assert reasons(rules(), made) == ["its speed is not known: second: it has not been read yet"]
    made.take("second", [Reading(Signal.SPEED_KMH, 30.0, 0, GOOD_MS)])
    assert reasons(rules(), made) == ["it moves"]
    made.take("second", [Reading(Signal.SPEED_KMH, 0.0, 0, GOOD_MS)])
    made.lose("second", "it cannot be reached", 0)
    assert reasons(rules(), made) == []
    made.take("car", [Reading(Signal.SPEED_KMH, 0.0, GOOD_MS + 1, GOOD_MS)])
    assert "cannot be reached" in reasons(rules(), made, at_ms=GOOD_MS + 1)[0]


@given(st.integers(0, DAY_MS - 1), st.floats(0, 24), st.floats(0, 24))
def test_a_window_changes_when_it_says(of_day_ms: int, start: float, end: float) -> None:
    window = Window(start, end)
    wait = window.changes_in_ms(of_day_ms)
    if wait < inf:
        held = window.holds(of_day_ms)
        assert window.holds(int(of_day_ms + wait - 1) % DAY_MS) == held
        assert 0 < wait <= DAY_MS


def test_a_sensor_that_was_never_reached_keeps_it_and_one_that_has_nothing_to_give_does_not() -> None:
    board, now = Board(), Now(1_000_000, 1_000_000)
    board.expect("site", ())
    wants = Rules("site", Preferences(), 0, Draw(0, 100), sensed=True)

    def reasons() -> list[tuple[str, str, bool]]:
        return [(each.code, each.why, each.unknown) for each in decide(wants, board, NONE, Memory(), now).reasons]

    assert reasons() == [("sensor", "what site knows is not known: it has not been read yet", True)]
    board.lose("site", "it cannot be reached", now.ms)
    assert reasons() == [("sensor", "what site knows is not known: it cannot be reached", True)]
    board.take("site", ())
    assert reasons() == []
