"""OpenADR 3.1 events as they come from a VTN: JSON in, what is understood of it out, or why nothing is.

What is not known to the standard's definitions is passed over; what is known and says what cannot be read is an order to
draw nothing, if it is one to draw less.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf, isfinite
from typing import Any, Final

from ..rules.asked import words

INTERVALS_MAX: Final = 2304
"""Of one event: prices of eight days, in steps of five minutes."""
PAYLOADS_MAX: Final = 16
"""Of one interval; the standard has some ten that a consumer may be sent at a time."""
_DURATION: Final = re.compile(
    r"P(?=\d|T\d)(?:(\d{1,6})Y)?(?:(\d{1,6})M)?(?:(\d{1,6})([DW]))?"
    r"(?:T(?:(\d{1,8})H)?(?:(\d{1,8})M)?(?:(\d{1,9}(?:\.\d{1,9})?)S)?)?"
)
"""The schema's own, less negative ones, which end before they begin."""
_DAY_S: Final = 86_400
FOREVER_S: Final = 1000 * 366 * _DAY_S
"""`P9999Y` is the standard's word for a time without end."""
LEAST_S: Final = 1.0
"""Nothing that draws power follows faster, and each change of an interval is looked at."""

SIMPLE, IMPORT_LIMIT, SETPOINT = "SIMPLE", "IMPORT_CAPACITY_LIMIT", "DISPATCH_SETPOINT"
PRICE, GHG = "PRICE", "GHG"
ALERTS: Final = (
    "ALERT_GRID_EMERGENCY", "ALERT_BLACK_START", "ALERT_POSSIBLE_OUTAGE", "ALERT_FLEX_ALERT", "ALERT_FIRE", "ALERT_FREEZING",
    "ALERT_WIND", "ALERT_TSUNAMI", "ALERT_AIR_QUALITY", "ALERT_OTHER",
)  # fmt: skip
"""Definitions 3.1, event payloads; their value is a text for people."""
_WATTS: Final[Mapping[str, float]] = {"W": 1.0, "KW": 1e3, "MW": 1e6}
_PER_KWH: Final[Mapping[str, float]] = {"WH": 1e3, "KWH": 1.0, "MWH": 1e-3}
_G_PER_KWH: Final[Mapping[str, float]] = {"G/KWH": 1.0, "KG/MWH": 1.0, "KG/KWH": 1e3, "LB/MWH": 0.45359237}
"""The standard leaves the unit of GHG to the descriptor."""


class OddError(Exception):
    """Why an object of the VTN is not understood, in words."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One thing that an interval says. Watts, currency units a kilowatt-hour, or grams a kilowatt-hour."""

    kind: str
    value: float
    text: str = ""
    currency: str = ""
    odd: str = ""
    """Why its value is not understood; empty if it is."""


@dataclass(frozen=True, slots=True)
class Period:
    """When something begins, and how long it goes on."""

    start_ms: float | None
    """Since 1970; None: not said."""
    now: bool
    """It begins when it is first seen."""
    duration_ms: float | None
    """None: not said, or 0, as the schema has it where nothing is said: until something follows."""
    randomize_ms: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of an event, and what holds in it."""

    period: Period | None
    payloads: tuple[Payload, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a program."""

    id: str
    modified: str
    program: str
    name: str
    priority: float
    """0 is the highest; infinity where none is given."""
    period: Period | None
    loops_ms: float | None
    """The intervals begin anew until then, counted from the start; None: they come once."""
    intervals: tuple[Interval, ...]
    reports: tuple[str, ...]
    """Payload types that are to be reported."""

    @property
    def title(self) -> str:
        return f"OpenADR event {self.name or self.id}"


def event_of(raw: object, program: Mapping[str, Any] | None = None) -> Event:
    """The event; descriptors that it lacks are its program's. Raises `OddError`."""
    if not isinstance(raw, Mapping):
        raise OddError("an event is no object")
    id_, program_id = _id(raw, "id"), _id(raw, "programID")
    units = _descriptors(program or {}) | _descriptors(raw)
    rows = raw.get("intervals") or []
    if not isinstance(rows, list) or len(rows) > INTERVALS_MAX:
        raise OddError(f"event {id_} has not at most {INTERVALS_MAX} intervals")
    priority = raw.get("priority")
    if priority is not None and (type(priority) is not int or priority < 0):
        raise OddError(f"event {id_} has a priority that is none")
    loops = raw.get("duration")
    return Event(
        id_,
        str(raw.get("modificationDateTime"))[:64],
        program_id,
        words(raw.get("eventName") or ""),
        inf if priority is None else float(min(priority, 10**9)),
        _period(raw.get("intervalPeriod")),
        duration_ms(loops) if loops is not None else None,
        tuple(_interval(row, id_, units) for row in rows),
        _reports(raw.get("reportDescriptors")),
    )


def parsed(body: bytes) -> Any:
    """The JSON value. Raises `OddError` for what is none; NaN and infinities are none."""
    try:
        return json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise OddError("it sends what is no JSON") from None


def duration_ms(written: object) -> float | None:
    """Milliseconds of an ISO 8601 duration, a second at least; months have 30 days, years 365. None for none.

    Raises `OddError`.
    """
    found = _DURATION.fullmatch(written) if isinstance(written, str) and len(written) <= 64 else None
    if not found:
        raise OddError(f"{words(written)!r} is no duration")
    years, months, days, unit, hours, minutes, seconds = found.groups()
    total_s = int(years or 0) * 365 * _DAY_S + int(months or 0) * 30 * _DAY_S
    total_s += int(days or 0) * _DAY_S * (7 if unit == "W" else 1) + int(hours or 0) * 3600 + int(minutes or 0) * 60
    exact_s = total_s + float(seconds or 0)
    return inf if exact_s >= FOREVER_S else max(LEAST_S, exact_s) * 1000 if exact_s else None


def moment_ms(written: object) -> float:
    """Milliseconds since 1970; -infinity for the standard's "now". Raises `OddError`."""
    if not isinstance(written, str) or len(written) > 64:
        raise OddError(f"{words(written)!r} is no time")
    if written.startswith("0001-01-01"):
        return -inf
    try:
        at = datetime.fromisoformat(written)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000
    except (ValueError, OverflowError):
        raise OddError(f"{words(written)!r} is no time") from None


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _id(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", value):
        raise OddError(f"an event has no {name}")
    return value


def _period(raw: object) -> Period | None:
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        raise OddError("a period is no object")
    start = moment_ms(raw["start"]) if raw.get("start") is not None else None
    duration = duration_ms(raw["duration"]) if raw.get("duration") is not None else None
    randomize = duration_ms(raw["randomizeStart"]) if raw.get("randomizeStart") is not None else None
    return Period(None if start == -inf else start, start == -inf, duration, min(randomize or 0.0, _DAY_S * 1000.0))


def _interval(raw: object, event: str, units: Mapping[str, tuple[str, str]]) -> Interval:
    payloads = raw.get("payloads") if isinstance(raw, Mapping) else None
    if not isinstance(raw, Mapping) or not isinstance(payloads, list) or len(payloads) > PAYLOADS_MAX:
        raise OddError(f"event {event} has an interval without payloads, or with more than {PAYLOADS_MAX}")
    read = tuple(payload for each in payloads if (payload := _payload(each, event, units)))
    return Interval(_period(raw.get("intervalPeriod")), read)


def _payload(raw: object, event: str, units: Mapping[str, tuple[str, str]]) -> Payload | None:
    """None for a kind that means nothing to us."""
    if not isinstance(raw, Mapping) or not isinstance(kind := raw.get("type"), str):
        raise OddError(f"event {event} has a payload without a type")
    values = raw.get("values")
    first = values[0] if isinstance(values, list) and values else None
    unit, currency = units.get(kind, ("", ""))
    if kind in ALERTS:
        return Payload(kind, 1.0, words(first or ""))
    scale = _scale(kind, unit)
    if scale is None:
        return None
    number = first if isinstance(first, int | float) and not isinstance(first, bool) else None
    if isinstance(first, int) and abs(first) > 1e15:
        number = None  # JSON allows integers that no float holds
    if number is None or not isfinite(number * scale) or scale == 0:
        why = f"unit {words(unit)!r}" if scale == 0 else f"value {words(first)!r}"
        return Payload(kind, 0.0, odd=f"its {kind} has a {why} that is not understood")
    return Payload(kind, float(number) * scale, currency=currency)


def _scale(kind: str, unit: str) -> float | None:
    """What a value is multiplied by; 0 for a unit that is not understood; None for a kind that is not."""
    spelled = re.sub(r"[\s_]|CO2E?(?=/)", "", unit.upper())
    match kind:
        case "SIMPLE":
            return 1.0
        case "IMPORT_CAPACITY_LIMIT" | "DISPATCH_SETPOINT":
            return _WATTS.get(spelled or "KW", 0.0)
        case "PRICE":
            return _PER_KWH.get(spelled or "KWH", 0.0)
        case "GHG":
            return _G_PER_KWH.get(spelled or "G/KWH", 0.0)
    return None


def _descriptors(raw: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """(units, currency) by payload type."""
    rows = raw.get("payloadDescriptors") or []
    if not isinstance(rows, list):
        raise OddError("payload descriptors are no list")
    return {
        str(row.get("payloadType"))[:128]: (str(row.get("units") or "")[:128], str(row.get("currency") or "")[:16])
        for row in rows[: 4 * PAYLOADS_MAX]
        if isinstance(row, Mapping)
    }


def _reports(raw: object) -> tuple[str, ...]:
    rows = raw if isinstance(raw, list) else []
    return tuple(str(row.get("payloadType"))[:128] for row in rows[:PAYLOADS_MAX] if isinstance(row, Mapping))
