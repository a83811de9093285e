"""What of a VTN's events is in force at a moment, and until when: events and the time in, what the rules take out.

Payloads of one type stand against each other: the events with the lowest priority number decide, among equals the strictest
value does. Payloads of different types all hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from ..rules.asked import Asked, Cap, until
from ..rules.hours import Now
from .openadr_events import ALERTS, GHG, IMPORT_LIMIT, PRICE, SETPOINT, SIMPLE, Event, Payload
from .openadr_schedule import Schedule

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


def in_force(schedules: Iterable[Schedule], now: Now, heeded: Heeded) -> Force:
    """At `now.wall_ms`, which is the VTN's time."""
    held: list[Held] = []
    changes_ms = inf
    for schedule in schedules:
        found, edge_ms = schedule.at(now.wall_ms)
        changes_ms = min(changes_ms, edge_ms)
        if found:
            held += [Held(schedule.event, payload, found.end_ms) for payload in found.payloads]
    return Force(_asked(held, now, heeded, changes_ms), tuple(_told(held, now)), changes_ms)


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
