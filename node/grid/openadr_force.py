"""What of a VTN's events is in force at a moment, and until when: events and the time in, what the rules take out.

Payloads of one type stand against each other: the events with the lowest priority number decide, among equals the strictest
value does. Payloads of different types all hold.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from blake3 import blake3

from ..rules.asked import Asked, Cap, until
from ..rules.hours import Now
from .openadr_events import ALERTS, GHG, IMPORT_LIMIT, PRICE, SETPOINT, SIMPLE, Event, Payload, Period

LEVELS: Final = ("normal", "moderate", "high", "emergency")
"""What SIMPLE's 0 to 3 mean; whatever lies above is an emergency, too."""
STOPPING_ALERTS: Final = ("ALERT_GRID_EMERGENCY", "ALERT_BLACK_START", "ALERT_FLEX_ALERT")
"""Alerts that ask consumers to draw less; the others warn them of something."""
SIMPLE_PCT: Final = (50, 0, 0)
"""Of its draw, at the levels 1 to 3: a machine that works for others is among the first that a grid can do without."""


@dataclass(frozen=True, slots=True)
class Heeded:
    """What the owner makes of a VTN's words."""

    simple_pct: tuple[int, ...] = SIMPLE_PCT
    stop_on: tuple[str, ...] = STOPPING_ALERTS
    price_ucr: Mapping[str, int] = field(default_factory=dict)
    """Micro-credits for one unit of a currency; prices in others are shown, and count nothing."""
    ghg_max_g_per_kwh: float = 0.0
    """Above it no work is done; 0: no bound."""


@dataclass(frozen=True, slots=True)
class Known:
    """An event, and when it was first seen as it is now: where it says "now", that is meant."""

    event: Event
    seen_ms: float


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in which payloads hold."""

    start_ms: float
    end_ms: float
    payloads: tuple[Payload, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A payload that is in force."""

    event: Event
    payload: Payload
    end_ms: float


@dataclass(frozen=True, slots=True)
class Force:
    """What is in force."""

    asked: Asked
    told: tuple[str, ...]
    """All of it in words, what counts nothing here too."""
    changes_ms: float
    """When something else will be; infinity: never."""


def in_force(known: Iterable[Known], now: Now, seed: bytes, heeded: Heeded) -> Force:
    """At `now.wall_ms`, which is the VTN's time. `seed` is this machine's own: its lots for starts that are spread follow
    from it, and stay as they are."""
    held: list[Held] = []
    changes_ms = inf
    for each in known:
        found, edge_ms = span_at(each, float(now.wall_ms), seed)
        changes_ms = min(changes_ms, edge_ms)
        if found:
            held += [Held(each.event, payload, found.end_ms) for payload in found.payloads]
    return Force(_asked(held, now, heeded, changes_ms), tuple(_told(held, now)), changes_ms)


def spans(known: Known, seed: bytes) -> list[Span]:
    """The event's intervals, once, in the order of their starts."""
    whole = known.event.period or Period(None, True, None, 0.0)
    lot = _lot(known.event, seed)
    at_ms = _start_ms(whole, known, lot)
    marked: list[tuple[float, float, tuple[Payload, ...]]] = []
    for interval in known.event.intervals:
        own = interval.period
        if own and (own.now or own.start_ms is not None):
            at_ms = _start_ms(own if own.randomize_ms else _spread(own, whole.randomize_ms), known, lot)
        duration_ms = own.duration_ms if own and own.duration_ms is not None else whole.duration_ms
        end_ms = inf if duration_ms is None else at_ms + duration_ms
        marked.append((at_ms, end_ms, interval.payloads))
        at_ms = end_ms
    marked = sorted((row for row in marked if row[0] < inf), key=lambda row: row[0])
    starts = [row[0] for row in marked[1:]] + [inf]
    # One without an end goes on until another begins.
    return [
        Span(start, next_start if end == inf else end, payloads)
        for (start, end, payloads), next_start in zip(marked, starts, strict=False)
    ]


def span_at(known: Known, now_ms: float, seed: bytes) -> tuple[Span | None, float]:
    """What holds at the time, and when that changes."""
    once = spans(known, seed)
    if not once:
        return None, inf
    first_ms, last_ms = once[0].start_ms, max(span.end_ms for span in once)
    loops_ms = known.event.loops_ms
    stop_ms = inf if loops_ms is None else first_ms + loops_ms
    shift_ms = 0.0
    if loops_ms is not None and first_ms <= now_ms < stop_ms and last_ms < stop_ms:
        shift_ms = (now_ms - first_ms) // (last_ms - first_ms) * (last_ms - first_ms)
    index = bisect_right(once, now_ms - shift_ms, key=lambda span: span.start_ms)
    edges = [once[index].start_ms + shift_ms] if index < len(once) else []
    if shift_ms or last_ms < stop_ms < inf:
        edges.append(last_ms + shift_ms)  # they begin anew
    for span in reversed(once[:index]):
        end_ms = min(span.end_ms + shift_ms, stop_ms)
        if now_ms < end_ms:
            return Span(span.start_ms + shift_ms, end_ms, span.payloads), min([end_ms, *edges])
    return None, min((edge for edge in edges if now_ms < edge < stop_ms), default=inf)


def _start_ms(period: Period, known: Known, lot: float) -> float:
    start_ms = known.seen_ms if period.start_ms is None else period.start_ms
    return start_ms + lot * period.randomize_ms


def _spread(period: Period, randomize_ms: float) -> Period:
    """An interval's own period, spread as the event is."""
    return Period(period.start_ms, period.now, period.duration_ms, randomize_ms)


def _lot(event: Event, seed: bytes) -> float:
    """From 0 to 1, this machine's own for this event, the same whenever it is asked for."""
    return int.from_bytes(blake3(seed + event.id.encode()).digest()[:8]) / 2**64


def _asked(held: Sequence[Held], now: Now, heeded: Heeded, changes_ms: float) -> Asked:
    stops: list[str] = []
    shares: list[Cap] = []
    caps: list[Cap] = []
    imports: list[Cap] = []
    if (simple := _strictest(held, SIMPLE, highest=True)) and (level := min(3, int(simple.payload.value))) > 0:
        share = 0.0 if simple.payload.odd else heeded.simple_pct[level - 1] / 100
        if share > 0:
            shares.append((share, _why(simple, now, f"level {level}, {LEVELS[level]}")))
        else:
            stops.append(_stop(simple, now, f"level {level}, {LEVELS[level]}"))
    elif simple and simple.payload.odd:
        stops.append(_stop(simple, now, simple.payload.odd))
    for kind, bounds in ((IMPORT_LIMIT, imports), (SETPOINT, caps)):
        if limit := _strictest(held, kind, highest=False):
            watts = 0.0 if limit.payload.odd else max(0.0, limit.payload.value)
            said = limit.payload.odd or f"{watts / 1000:g} kW"
            if watts <= 0:
                stops.append(_stop(limit, now, said))
            else:
                bounds.append((watts, _why(limit, now, said)))
    for each in held:
        if each.payload.kind in heeded.stop_on:
            stops.append(_stop(each, now, _alert(each.payload)))
    ghg = _strictest(held, GHG, highest=True)
    if ghg and heeded.ghg_max_g_per_kwh and not ghg.payload.odd and ghg.payload.value > heeded.ghg_max_g_per_kwh:
        grams = f"{ghg.payload.value:.0f} g of CO2, more than {heeded.ghg_max_g_per_kwh:.0f} g"
        stops.append(f"a kilowatt-hour costs {grams}, {until(ghg.end_ms, now)} ({ghg.event.title})")
    price = _price(held, heeded)
    left_ms = changes_ms - now.wall_ms
    return Asked(tuple(stops), tuple(caps), tuple(shares), tuple(imports), price, left_ms)


def _strictest(held: Iterable[Held], kind: str, *, highest: bool) -> Held | None:
    """Of the payloads of a kind, the one that decides. One that is not understood is the strictest."""
    rows = [each for each in held if each.payload.kind == kind]
    if not rows:
        return None
    first = min(each.event.priority for each in rows)
    sign = -1 if highest else 1
    equals = [each for each in rows if each.event.priority == first]
    return min(equals, key=lambda each: -inf if each.payload.odd else sign * each.payload.value)


def _price(held: Sequence[Held], heeded: Heeded) -> float | None:
    """In micro-credits a kilowatt-hour, if it is in a currency that the owner knows the worth of."""
    rates = heeded.price_ucr
    only = next(iter(rates)) if len(rates) == 1 else ""
    known = [
        each
        for each in held
        if each.payload.kind == PRICE and not each.payload.odd and (each.payload.currency or only) in rates
    ]
    price = _strictest(known, PRICE, highest=True)
    return price.payload.value * rates[price.payload.currency or only] if price else None


def _told(held: Iterable[Held], now: Now) -> Iterator[str]:
    for each in held:
        payload = each.payload
        match payload.kind:
            case _ if payload.odd:
                said = payload.odd
            case "SIMPLE":
                said = f"level {payload.value:g}"
            case "PRICE":
                said = f"a kilowatt-hour costs {payload.value:g} {payload.currency}".rstrip()
            case "GHG":
                said = f"a kilowatt-hour costs {payload.value:g} g of CO2"
            case "IMPORT_CAPACITY_LIMIT":
                said = f"the connection may take {payload.value / 1000:g} kW"
            case "DISPATCH_SETPOINT":
                said = f"draw {payload.value / 1000:g} kW"
            case _:
                said = _alert(payload)
        yield f"{each.event.title}: {said}, {until(each.end_ms, now)}"


def _alert(payload: Payload) -> str:
    assert payload.kind in ALERTS
    kind = payload.kind.removeprefix("ALERT_").lower().replace("_", " ")
    return f"{kind}: {payload.text}" if payload.text else kind


def _stop(held: Held, now: Now, said: str) -> str:
    return f"the grid asks to stop {until(held.end_ms, now)} ({held.event.title}: {said})"


def _why(held: Held, now: Now, said: str) -> str:
    return f"the grid asks for less {until(held.end_ms, now)} ({held.event.title}: {said})"
