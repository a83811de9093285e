"""When the intervals of an OpenADR event hold: its own times, the lot that spreads its start, and how often they come."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import inf

from blake3 import blake3

from .openadr_events import Event, Payload, Period


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in which payloads hold, from its first millisecond to its last one excluded."""

    start_ms: float
    end_ms: float
    payloads: tuple[Payload, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """An event, laid out in time."""

    event: Event
    seen_ms: float
    """When it was first seen as it is now: where it says "now", that is meant."""
    spans: tuple[Span, ...]
    """Its intervals, once, in the order of their starts."""
    last_ms: float
    """When the last of them ends."""

    @classmethod
    def of(cls, event: Event, seen_ms: float, seed: bytes) -> Schedule:
        """`seed` is this machine's own: its lots follow from it, and stay as they are."""
        spans = _spans(event, seen_ms, int.from_bytes(blake3(seed + event.id.encode()).digest()[:8]) / 2**64)
        return cls(event, seen_ms, spans, max((span.end_ms for span in spans), default=-inf))

    def at(self, now_ms: float) -> tuple[Span | None, float]:
        """What holds at the time, and when that changes; infinity: never."""
        if not self.spans:
            return None, inf
        first_ms, loops_ms = self.spans[0].start_ms, self.event.loops_ms
        stop_ms = inf if loops_ms is None else first_ms + loops_ms
        shift_ms = 0.0
        if loops_ms is not None and first_ms <= now_ms < stop_ms and self.last_ms < stop_ms:
            shift_ms = (now_ms - first_ms) // (self.last_ms - first_ms) * (self.last_ms - first_ms)
        index = bisect_right(self.spans, now_ms - shift_ms, key=lambda span: span.start_ms)
        edges = [self.spans[index].start_ms + shift_ms] if index < len(self.spans) else []
        if shift_ms or self.last_ms < stop_ms < inf:
            edges.append(self.last_ms + shift_ms)  # they begin anew
        for span in reversed(self.spans[:index]):
            end_ms = min(span.end_ms + shift_ms, stop_ms)
            if now_ms < end_ms:
                return Span(span.start_ms + shift_ms, end_ms, span.payloads), min([end_ms, *edges])
        return None, min((edge for edge in edges if now_ms < edge < stop_ms), default=inf)


def _spans(event: Event, seen_ms: float, lot: float) -> tuple[Span, ...]:
    """`lot` is from 0 to 1."""
    whole = event.period or Period(None, True, None, 0.0)
    at_ms = _start_ms(whole, seen_ms, lot * whole.randomize_ms)
    marked: list[tuple[float, float, tuple[Payload, ...]]] = []
    for interval in event.intervals:
        own = interval.period
        if own and (own.now or own.start_ms is not None):
            at_ms = _start_ms(own, seen_ms, lot * (own.randomize_ms or whole.randomize_ms))
        duration_ms = own.duration_ms if own and own.duration_ms is not None else whole.duration_ms
        end_ms = inf if duration_ms is None else at_ms + duration_ms
        marked.append((at_ms, end_ms, interval.payloads))
        at_ms = end_ms
    marked = sorted((row for row in marked if row[0] < inf), key=lambda row: row[0])
    nexts = [row[0] for row in marked[1:]] + [inf]
    # One without an end goes on until another begins.
    return tuple(
        Span(start, following if end == inf else end, payloads)
        for (start, end, payloads), following in zip(marked, nexts, strict=False)
    )


def _start_ms(period: Period, seen_ms: float, late_ms: float) -> float:
    return (seen_ms if period.start_ms is None else period.start_ms) + late_ms
