"""How much bulk may be on its way at once, so that nothing small has to wait long behind it. Sans-I/O.

After some bulk a mark is sent, which the other side returns when it gets there. What is between two marks is on its way;
there is never more of it than the path itself holds twice over, as in BBR (https://queue.acm.org/detail.cfm?id=3022184):
the least round trip seen lately times the best rate. More would only wait in buffers, and what is small behind it.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

FLIGHT_BYTES_MIN: Final = 128 * 1024
"""Two of our frames: the sender fills one while the other side takes the other. At 100 MB/s a millisecond's wait."""

FLIGHT_BYTES_FINE: Final = 32 * 1024
"""The same of smaller frames, while something small goes beside them."""

FLIGHT_BYTES_MAX: Final = 16 * 1024 * 1024
"""500 Mbit/s at 250 ms."""

GAIN: Final = 2.0
"""Room to find out that the path holds more."""

GAIN_FINE: Final = 1.25
"""The same while something small goes beside, as BBR probes. With none, late marks would make the path look slower for good."""

RATES: Final = 10
"""Marks of which the best rate counts."""

ROUND_TRIP_S: Final = 10.0
"""For so long the least round trip counts; then it is taken anew, since peers move."""


class _Mark(NamedTuple):
    sent_at: float
    bytes_to_here: int
    delivered_then: int


class Flight:
    """The bulk of one connection, in one direction. Times are in seconds of any steady clock."""

    def __init__(self) -> None:
        self._sent = self._delivered = 0
        self._marks: dict[int, _Mark] = {}
        self._rates: deque[float] = deque(maxlen=RATES)
        self._round_trips: list[tuple[float, float]] = []
        """Began, least: of this span and of the one before."""

    def has_room(self, *, fine: bool = False) -> bool:
        """Whether more bulk may be sent now."""
        most = max(int(self._held * GAIN_FINE / GAIN), FLIGHT_BYTES_FINE) if fine else self.bytes_max
        return self._sent - self._delivered < most

    @property
    def bytes_max(self) -> int:
        """On their way, where nothing small goes beside them."""
        return max(self._held, FLIGHT_BYTES_MIN)

    @property
    def _held(self) -> int:
        """By the path, twice over."""
        return min(int(GAIN * max(self._rates, default=0.0) * self.round_trip_s), FLIGHT_BYTES_MAX)

    @property
    def round_trip_s(self) -> float:
        """The least of late; 0 before there is one."""
        return min((least for _, least in self._round_trips), default=0.0)

    def marked(self, mark: int, length_bytes: int, now: float) -> None:
        """So many bytes and then the mark were sent."""
        self._sent += length_bytes
        self._marks[mark] = _Mark(now, self._sent, self._delivered)

    def returned(self, mark: int, now: float) -> None:
        """The mark came back: what was sent before it has arrived. One that was never sent is left alone."""
        if (sent := self._marks.pop(mark, None)) is None:
            return
        taken_s = max(now - sent.sent_at, 1e-6)
        self._delivered = max(self._delivered, sent.bytes_to_here)
        if sent.bytes_to_here > sent.delivered_then:
            self._rates.append((self._delivered - sent.delivered_then) / taken_s)
        if not self._round_trips or now - self._round_trips[-1][0] > ROUND_TRIP_S:
            self._round_trips = [*self._round_trips[-1:], (now, taken_s)]
        elif taken_s < self._round_trips[-1][1]:
            self._round_trips[-1] = (self._round_trips[-1][0], taken_s)
