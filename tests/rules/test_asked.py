"""What the grid asks, in the rules: stop orders, caps, shares and prices, and what holds over any history of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.node.grid.openadr_events import event_of
from fallow.node.grid.openadr_force import Heeded, in_force
from fallow.node.grid.openadr_schedule import Schedule
from fallow.node.rules.asked import NOTHING, Asked, together, until
from fallow.node.rules.hours import DAY_MS, Now, Tariff
from fallow.node.rules.policy import Memory, Rules, Wish, decide
from fallow.node.rules.preferences import Preferences
from fallow.node.rules.readings import Board, Reading
from fallow.node.rules.signals import Signal
from fallow.node.rules.worth import Draw
from fallow.protocol.envelope import sign
from fallow.protocol.grid import ShedOrder, zone_cap_w

RULES = Rules("site", Preferences(), 0, Draw(0, 100))
STEADY = Memory(clear_since_ms=-inf)


def decided(asked: Asked, rules: Rules = RULES, board: Board | None = None, earns_ucr: float | None = None) -> Any:
    return decide(rules, board or Board(), Wish(), STEADY, Now(0, 0), earns_ucr, asked)


def test_a_stop_order_stops_in_its_own_words_and_is_looked_at_again_when_it_ends() -> None:
    found = decided(Asked(stops=("the grid asks to stop until 18:00",), changes_in_ms=5000))
    assert ([reason.why for reason in found.reasons], found.look_ms) == (["the grid asks to stop until 18:00"], 5000)
    assert decided(NOTHING).lends


@pytest.mark.parametrize(
    ("asked", "budget_w", "why"),
    [
        (Asked(caps=((70.0, "A"), (40.0, "B"), (50.0, "C"))), 40, "B"),
        (Asked(shares=((0.3, "a third"),)), 30, "a third"),
        (Asked(caps=((70.0, "A"),), imports=((60.0, "B"),)), 60, "B"),
        (Asked(caps=((3.0, "A"),)), 3, "A"),
    ],
)
def test_the_strictest_bound_is_the_budget_and_says_whose_it_is(asked: Asked, budget_w: float, why: str) -> None:
    found = decided(asked)
    assert (found.budget_w, found.limits[-1]) == (budget_w, why)
    assert found.lends is (budget_w >= 5)  # a twentieth of what computing draws


def test_what_the_connection_may_take_is_less_what_others_take_there() -> None:
    board = Board()
    board.expect("meter", [Signal.CHARGERS_W, Signal.SITE_LOAD_W])
    board.take("meter", [Reading(Signal.CHARGERS_W, 7_000, 0, 5000), Reading(Signal.SITE_LOAD_W, 950, 0, 5000)])
    assert decided(Asked(imports=((8_000.0, "the utility"),)), board=board).budget_w == 50
    found = decided(Asked(imports=((7_000.0, "the utility"),)), board=board)
    assert found.reasons[0].why == "it may draw 0 W, and needs 5 W (the utility)"


def test_the_grids_price_takes_the_place_of_the_tariff_but_not_of_what_a_battery_was_charged_for() -> None:
    rules = replace(RULES, preferences=Preferences(tariff=Tariff(100_000), margin_pct=10))
    assert decided(NOTHING, rules, earns_ucr=11_000).lends
    dear = decided(Asked(kwh_ucr=300_000), rules, earns_ucr=11_000)
    assert "energy costs 30000" in dear.reasons[0].why
    assert decided(Asked(kwh_ucr=-300_000), rules, earns_ucr=0).lends
    board = Board()
    board.expect("host", [Signal.ON_BATTERY])
    board.take("host", [Reading(Signal.ON_BATTERY, True, 0, 5000)])
    assert decided(Asked(kwh_ucr=300_000), rules, board, earns_ucr=13_000).lends


def test_all_that_several_ask_holds() -> None:
    one, other = Asked(stops=("A",), kwh_ucr=1, changes_in_ms=9), Asked(caps=((5.0, "B"),), kwh_ucr=3, changes_in_ms=7)
    assert together([one, NOTHING, other]) == Asked(("A",), ((5.0, "B"),), kwh_ucr=3, changes_in_ms=7)
    assert together([]) == NOTHING


def test_ends_are_said_as_people_say_them() -> None:
    now = Now(0, 16 * 3_600_000, 3_600_000)
    assert until(now.wall_ms + 90 * 60_000, now) == "until 18:30"
    assert until(now.wall_ms + 1.5 * DAY_MS, now) == "for more than a day"
    assert until(now.wall_ms + 3 * DAY_MS, now) == "for 3 days more"
    assert until(inf, now) == "until it is taken back"


GRID = SigningKey(b"\x07" * 32)
EVENTS = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 1_000_000)),
    st.tuples(st.just("back"), st.integers(1, 200_000)),
    st.tuples(
        st.just("openadr"), st.integers(0, 3), st.integers(0, 3), st.integers(-500, 500), st.integers(1, 2000),
        st.integers(0, 2),
    ),
    st.tuples(st.just("gone"), st.integers(0, 3)),
    st.tuples(
        st.just("shed"), st.integers(0, 2), st.integers(1, 4), st.integers(0, 2) , st.integers(-500, 500), st.integers(1, 2000)
    ),
    st.tuples(st.just("wish"), st.booleans()),
    st.tuples(st.just("charge"), st.floats(0, 100)),
)  # fmt: skip


class History:
    """A machine over time, with a VTN and a grid key that ask for anything at all; and the same in other words."""

    def __init__(self) -> None:
        self.ms, self.wall_ms = 0, 1_790_000_000_000
        self.events: dict[int, tuple[int, float, float, int]] = {}
        """Level, start, end and priority, by number."""
        self.orders: list[ShedOrder] = []
        self.wish, self.soc = Wish(), 90.0
        self.memory = STEADY

    def decide(self) -> None:
        now = Now(self.ms, self.wall_ms)
        board = Board()
        board.expect("car", [Signal.SOC_PCT])
        board.take("car", [Reading(Signal.SOC_PCT, self.soc, self.ms, 5000)])
        rules = replace(RULES, settle_ms=60_000, preferences=Preferences(battery_charge_min_pct=50))
        found = decide(rules, board, self.wish, self.memory, now, None, together([self._openadr(now), self._shed(now)]))
        self.memory = found.memory
        if self._stopped():
            assert not found.lends and any(reason.code == "grid" for reason in found.reasons)
        if found.lends:
            assert not self.wish.opted_out and self.soc >= 50
            assert found.budget_w <= min(self._caps_w(), default=inf)

    def _openadr(self, now: Now) -> Asked:
        known = []
        for number, (level, start, end, priority) in self.events.items():
            period = {"start": _written(start), "duration": f"PT{round((end - start) / 1000)}S"}
            row = {"id": 0, "payloads": [{"type": "SIMPLE", "values": [level]}]}
            raw = {
                "id": f"e{number}",
                "programID": "p",
                "priority": priority,
                "intervalPeriod": period,
                "intervals": [row],
            }
            known.append(Schedule.of(event_of(raw), 0, b""))
        return in_force(known, now, Heeded()).asked

    def _shed(self, now: Now) -> Asked:
        cap_w = zone_cap_w([sign(order, GRID) for order in self.orders], "home", now.wall_ms)
        if cap_w is None:
            return NOTHING
        return Asked(caps=((float(cap_w), "a shed order"),)) if cap_w else Asked(stops=("a shed order",))

    def _standing(self) -> list[ShedOrder]:
        last = {order.event: order.sequence for order in sorted(self.orders, key=lambda order: order.sequence)}
        return [
            order
            for order in self.orders
            if order.sequence == last[order.event] and order.start_ms <= self.wall_ms < order.end_ms
        ]

    def _caps_w(self) -> list[int]:
        return [order.cap_w for order in self._standing()]

    def _stopped(self) -> bool:
        held = [(p, -level) for level, start, end, p in self.events.values() if start <= self.wall_ms < end]
        return bool(held and -min(held)[1] >= 2) or 0 in self._caps_w()


def _written(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, max_size=40))
def test_never_serving_under_a_stop_order_whatever_came_before(events: list[Any]) -> None:
    history = History()
    for what, *values in events:
        match what, values:
            case "wait", [ms]:
                history.ms, history.wall_ms = history.ms + ms, history.wall_ms + ms
            case "back", [ms]:  # somebody sets the clock
                history.wall_ms -= ms
            case "openadr", [number, level, start_s, length_s, priority]:
                start_ms = history.wall_ms // 1000 * 1000 + start_s * 1000
                history.events[number] = (level, start_ms, start_ms + length_s * 1000, priority)
            case "gone", [number]:
                history.events.pop(number, None)
            case "shed", [event, sequence, cap, start_s, length_s]:
                start_ms = history.wall_ms + start_s * 1000
                order = ShedOrder(
                    "home",
                    f"e{event}",
                    sequence,
                    False,
                    0,
                    cap * 30,
                    start_ms,
                    start_ms + length_s * 1000,
                    start_ms,
                    "",
                )
                history.orders.append(order)
            case "wish", [out]:
                history.wish = Wish(opted_out=out)
            case "charge", [soc]:
                history.soc = soc
        history.decide()
