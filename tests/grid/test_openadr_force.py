"""OpenADR events and a time in; what the grid asks then out. Events hold against the official schema."""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow.node.grid.openadr_events import Event, OddError, duration_ms, event_of, moment_ms
from fallow.node.grid.openadr_force import Force, Heeded, in_force
from fallow.node.grid.openadr_schedule import Schedule
from fallow.node.rules.hours import Now

from .schema import check
from .vtn import Vtn, interval

START = "2026-11-28T17:00:00Z"
START_MS = 1_795_885_200_000
HOUR = 3_600_000
SEEN_MS = START_MS - HOUR
ONE = {"start": START, "duration": "PT1H"}


class Seen(NamedTuple):
    event: Event
    at_ms: float


def known(*events: dict[str, Any], seen_ms: float = SEEN_MS) -> list[Seen]:
    return [Seen(event_of(event), seen_ms) for event in events]


def event(*intervals: dict[str, Any], id_: str = "e1", **more: Any) -> dict[str, Any]:
    vtn = Vtn()
    vtn.put(id_, list(intervals), **more)
    return vtn.events[id_]


PLAINLY = Heeded()


def at(events: list[Seen], ms: float, heeded: Heeded = PLAINLY, seed: bytes = b"seed") -> Force:
    return in_force([Schedule.of(each.event, each.at_ms, seed) for each in events], Now(0, int(ms)), heeded)


def test_a_stop_holds_from_its_start_to_its_end_and_says_until_when() -> None:
    events = known(event(interval(("SIMPLE", 2)), intervalPeriod=ONE, eventName="peak"))
    before = at(events, START_MS - 1)
    assert (before.asked.less, before.asked.changes_in_ms, before.told) == (False, 1, ())
    during = at(events, START_MS)
    assert during.asked.stops == ("the grid asks to stop until 18:00 (OpenADR event peak: level 2, high)",)
    assert during.asked.changes_in_ms == HOUR
    after = at(events, START_MS + HOUR)
    assert (after.asked.less, after.asked.changes_in_ms) == (False, inf)


def test_intervals_follow_one_another_and_an_own_period_overrides_the_events() -> None:
    rows = [
        interval(("SIMPLE", 1)), interval(("SIMPLE", 2), number=1),
        interval(("SIMPLE", 0), number=2, start="2026-11-28T20:00:00Z", duration="PT30M"),
        interval(("SIMPLE", 3), number=3),
    ]  # fmt: skip
    events = known(event(*rows, intervalPeriod=ONE))
    assert at(events, START_MS).asked.shares == (
        (0.5, "the grid asks for less until 18:00 (OpenADR event e1: level 1, moderate)"),
    )
    assert "level 2" in at(events, START_MS + HOUR).asked.stops[0]
    gap = at(events, START_MS + 2 * HOUR)
    assert (gap.asked.less, gap.asked.changes_in_ms) == (False, HOUR)
    assert not at(events, START_MS + 3 * HOUR).asked.less
    assert "until 21:30" in at(events, START_MS + 3.5 * HOUR).asked.stops[0]


def test_intervals_begin_anew_until_the_events_own_end() -> None:
    rows = [interval(("SIMPLE", 2), duration="PT10M"), interval(("SIMPLE", 0), number=1, duration="PT50M")]
    events = known(event(*rows, intervalPeriod={"start": START}, duration="PT150M"))
    stopped = [bool(at(events, START_MS + minute * 60_000).asked.stops) for minute in range(0, 180, 5)]
    assert stopped == [minute < 150 and minute % 60 < 10 for minute in range(0, 180, 5)]
    assert at(events, START_MS + 55 * 60_000).asked.changes_in_ms == 5 * 60_000


def test_now_is_when_it_was_seen_and_for_ever_has_no_end() -> None:
    now = {"start": "0001-01-01T00:00:00Z", "duration": "P9999Y"}
    for period in (now, {"start": "0001-01-01", "duration": "PT0S"}, None):
        body = event(interval(("SIMPLE", 3)), **({"intervalPeriod": period} if period else {}))
        events = known(body)
        assert not at(events, SEEN_MS - 1).asked.less
        assert "until it is taken back" in at(events, SEEN_MS + 50 * 365 * 24 * HOUR).asked.stops[0]


def test_starts_are_spread_by_a_lot_of_ones_own_that_stays_as_it_is() -> None:
    period = {"start": START, "duration": "PT1H", "randomizeStart": "PT10M"}
    events = known(event(interval(("SIMPLE", 2)), intervalPeriod=period))

    def starts_ms(seed: bytes) -> float:
        return at(events, START_MS - 1, seed=seed).asked.changes_in_ms - 1

    found = [starts_ms(bytes([number])) for number in range(100)]
    assert all(0 <= each <= 10 * 60_000 for each in found)
    assert max(found) - min(found) > 8 * 60_000 and sum(found) / len(found) == pytest.approx(300_000, rel=0.2)
    assert found == [starts_ms(bytes([number])) for number in range(100)]
    late = at(events, START_MS + HOUR + found[7] - 1, seed=bytes([7]))
    assert late.asked.stops and late.asked.changes_in_ms == pytest.approx(1, abs=1)


@pytest.mark.parametrize(
    ("first", "second", "level"),
    [((0, 1), (1, 3), 1), ((1, 3), (0, 1), 1), ((2, 1), (2, 2), 2), ((None, 3), (9, 0), 0), ((None, 3), (None, 1), 3)],
)
def test_the_lowest_priority_number_decides_and_among_equals_the_strictest(
    first: tuple[Any, int], second: tuple[Any, int], level: int
) -> None:
    events = known(
        event(interval(("SIMPLE", first[1])), priority=first[0], intervalPeriod=ONE),
        event(interval(("SIMPLE", second[1])), id_="e2", priority=second[0], intervalPeriod=ONE),
    )
    asked = at(events, START_MS).asked
    said = " ".join([*asked.stops, *(why for _, why in asked.shares)])
    assert (f"level {level}," in said) if level else not asked.less


def test_payloads_of_different_types_all_hold() -> None:
    events = known(
        event(interval(("SIMPLE", 0), ("PRICE", 0.3)), priority=0, intervalPeriod=ONE),
        event(
            interval(("IMPORT_CAPACITY_LIMIT", 40.0), ("DISPATCH_SETPOINT", 2.5)),
            id_="e2",
            priority=5,
            intervalPeriod=ONE,
        ),
    )
    asked = at(events, START_MS, Heeded(price_ucr={"EUR": 1_000_000})).asked
    assert asked.imports == ((40_000.0, "the grid asks for less until 18:00 (OpenADR event e2: 40 kW)"),)
    assert [watts for watts, _ in asked.caps] == [2500.0] and not asked.stops
    assert asked.kwh_ucr == 300_000


@pytest.mark.parametrize(
    ("kind", "value", "units", "stops", "imports"),
    [
        ("IMPORT_CAPACITY_LIMIT", 40, "KW", 0, [40_000]),
        ("IMPORT_CAPACITY_LIMIT", 40, "W", 0, [40]),
        ("IMPORT_CAPACITY_LIMIT", 40, None, 0, [40_000]),
        ("IMPORT_CAPACITY_LIMIT", 0, "KW", 1, []),
        ("IMPORT_CAPACITY_LIMIT", 16, "A", 1, []),
        ("IMPORT_CAPACITY_LIMIT", "much", "KW", 1, []),
        ("IMPORT_CAPACITY_LIMIT", 10**30, "KW", 1, []),
        ("DISPATCH_SETPOINT", -3, "KW", 1, []),
        ("SIMPLE", "high", None, 1, []),
        ("SIMPLE", 7, None, 1, []),
        ("SIMPLE", -1, None, 0, []),
        ("CHARGE_STATE_SETPOINT", 3, None, 0, []),
    ],
)
def test_an_order_to_draw_less_that_cannot_be_read_is_one_to_draw_nothing(
    kind: str, value: Any, units: str | None, stops: int, imports: list[float]
) -> None:
    descriptor = {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": kind, "units": units}
    asked = at(
        known(event(interval((kind, value)), payloadDescriptors=[descriptor], intervalPeriod=ONE)), START_MS
    ).asked
    assert (len(asked.stops), [watts for watts, _ in asked.imports]) == (stops, imports)


def test_prices_count_in_currencies_whose_worth_the_owner_has_said() -> None:
    def price(currency: str | None, units: str | None, **heeded: int) -> float | None:
        row = {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": "PRICE", "currency": currency, "units": units}
        events = known(event(interval(("PRICE", -0.25)), payloadDescriptors=[row], intervalPeriod=ONE))
        return at(events, START_MS, Heeded(price_ucr=heeded)).asked.kwh_ucr

    assert price("EUR", "KWH", EUR=1_000_000) == -250_000
    assert price("EUR", "MWH", EUR=1_000_000) == -250
    assert price(None, None, EUR=1_000_000) == -250_000
    assert price("USD", "KWH", EUR=1_000_000) is None
    assert price(None, None) is None


def test_dirty_energy_and_alerts_stop_it_as_the_owner_wants() -> None:
    events = known(
        event(interval(("GHG", 520), ("ALERT_GRID_EMERGENCY", "lines\x1b[31m are down")), intervalPeriod=ONE),
        event(interval(("ALERT_WIND", "storm")), id_="e2", intervalPeriod=ONE),
    )
    force = at(events, START_MS, Heeded(ghg_max_g_per_kwh=400))
    assert force.asked.stops == (
        "the grid asks to stop until 18:00 (OpenADR event e1: grid emergency: lines [31m are down)",
        "a kilowatt-hour costs 520 g of CO2, more than 400 g, until 18:00 (OpenADR event e1)",
    )
    assert "OpenADR event e2: wind: storm, until 18:00" in force.told
    assert not at(events, START_MS, Heeded(stop_on=())).asked.stops


@pytest.mark.parametrize(
    "change",
    [
        {"id": None}, {"id": 7}, {"programID": "a b"}, {"intervals": "none"}, {"intervals": [{"payloads": 1}]},
        {"priority": -1},
        {"priority": "high"}, {"intervalPeriod": {"start": "tomorrow"}}, {"intervalPeriod": {"duration": "-PT1H"}},
        {"intervalPeriod": []}, {"duration": "P"}, {"payloadDescriptors": 3}, {"intervals": [{"payloads": [{"type": 3}]}]},
        {"intervals": [{"payloads": [{"type": "SIMPLE", "values": [1]}] * 17}]},
        {"intervals": [{"payloads": []}] * 3000}, {"intervalPeriod": {"start": "2026-11-28T17:00:00+99:00"}},
    ],
)  # fmt: skip
def test_nonsense_is_said_to_be_nonsense(change: dict[str, Any]) -> None:
    with pytest.raises(OddError):
        event_of(event(interval(("SIMPLE", 2)), intervalPeriod=ONE) | change)


WORDS = (
    "id", "programID", "intervals", "payloads", "type", "values", "intervalPeriod", "start", "duration", "priority",
    "payloadDescriptors", "randomizeStart", "reportDescriptors",
)  # fmt: skip
PLAIN = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(WORDS), inner))


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_whatever_comes_is_an_event_or_is_odd(raw: Any) -> None:
    with suppress(OddError):
        at([Seen(event_of(raw), 0)], 0)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(("id", "intervals", "intervalPeriod", "priority", "duration", "payloadDescriptors")), JSON)
def test_an_event_with_one_odd_part_is_an_event_or_is_odd(name: str, value: Any) -> None:
    with suppress(OddError):
        at([Seen(event_of(event(interval(("SIMPLE", 2)), intervalPeriod=ONE) | {name: value}), 0)], START_MS)


def test_times_and_durations_are_read_as_the_standard_writes_them() -> None:
    assert (
        moment_ms(START) == START_MS == moment_ms("2026-11-28T18:00:00.000+01:00") == moment_ms("2026-11-28T17:00:00")
    )
    assert moment_ms("0001-01-01") == -inf
    assert duration_ms("PT1H30M") == 1.5 * HOUR and duration_ms("P1DT0.5S") == 24 * HOUR + 500
    assert duration_ms("P2W") == 14 * 24 * HOUR and duration_ms("P9999Y") == inf and duration_ms("PT0S") is None


@pytest.mark.parametrize("seconds", ["0.0000001", "0.003", "0"])
def test_intervals_of_next_to_nothing_neither_break_it_nor_have_it_look_without_end(seconds: str) -> None:
    rows = [interval(("SIMPLE", 2), duration=f"PT{seconds}S")]
    events = known(event(*rows, intervalPeriod={"start": START}, duration="PT1H"))
    found = at(events, START_MS)
    assert found.asked.stops
    assert found.changes_ms >= START_MS + 1000


def test_a_number_that_its_unit_makes_endless_is_not_understood() -> None:
    units = {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": "PRICE", "units": "WH"}
    (one,) = event_of(event(interval(("PRICE", 1e307)), payloadDescriptors=[units])).intervals
    assert "is not understood" in one.payloads[0].odd


def test_the_official_schema_finds_what_is_wrong_with_a_message() -> None:
    from jsonschema import ValidationError

    good = event(interval(("SIMPLE", 2)), intervalPeriod=ONE)
    for wrong in ({"priority": -1}, {"intervals": [{"id": 0}]}, {"objectType": "SHED"}, {"duration": "an hour"}):
        with pytest.raises(ValidationError):
            check("event", good | wrong)
