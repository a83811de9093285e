"""When bulk may go, so that what is small has not to wait for it. Sans-I/O.

It is a question of three bounds: how much is on its way at once (`flight`), how much goes in one frame, and the moment that
is left to an answer. All bulk has a mark behind it, a ping, from whose return the first is known.
"""

from __future__ import annotations

import math
from typing import Final

from .flight import Flight
from .yamux import HEAD_BYTES, Flag, Kind, encode

SMALL_BYTES_MAX: Final = 4096
"""A frame of data up to this goes before larger ones: a question, a token, a heartbeat."""

FINE_BYTES: Final = 16 * 1024 - 2 * HEAD_BYTES
FINE_S: Final = 0.5
"""Data in one large frame, and little more on its way than the path holds (`flight`), for so long after something small was
sent: a job has its heartbeats. On one machine bulk then has a third of its rate, which is more than what most links have."""

HUSH_S: Final = 0.001
"""For so long after something small has passed, bulk waits for what that brings about, the answer or our own: a turn of the
event loop would else take two or three times as long, and a question with its answer takes a dozen. One large frame goes behind
each small one that is sent, and one at the latest so long after the last: it never stands still."""


class Pacing:
    """The bulk of one connection, in one direction. Times are in seconds of any steady clock."""

    def __init__(self) -> None:
        self.flight = Flight()
        self._marks = 0
        self._small_at = -FINE_S
        """When something small was last sent."""
        self._hush_until = self._bulk_at = -HUSH_S
        """Until when bulk waits, and when some was last sent."""
        self._behind = False
        """Whether one large frame may go all the same: something small went before it."""

    def small_goes(self, now: float) -> None:
        """Something small is sent."""
        self._small_at = now
        self._hush_until = now + HUSH_S
        self._behind = True

    def small_came(self, now: float) -> None:
        """Something small was received."""
        self._hush_until = now + HUSH_S

    def is_fine(self, now: float) -> bool:
        """Whether bulk goes in frames of `FINE_BYTES`: something small goes beside it."""
        return now - self._small_at < FINE_S

    @property
    def bulk_due(self) -> float:
        """When a large frame may be sent, if the path `has_room`."""
        return -math.inf if self._behind else min(self._hush_until, self._bulk_at + HUSH_S)

    def has_room(self, now: float) -> bool:
        """Whether the path takes a large frame more."""
        return self.flight.has_room(fine=now - self._small_at < FINE_S)  # `is_fine`, without a call for each frame

    def bulk_goes(self, length_bytes: int, now: float) -> bytes:
        """A large frame is sent. Returns the mark to send behind it."""
        self._behind, self._bulk_at = False, now
        return self.mark(length_bytes, now)

    def mark(self, length_bytes: int, now: float) -> bytes:
        """A frame that the other side returns once it has what was sent before, of which so much is bulk."""
        self._marks += 1
        self.flight.marked(self._marks, length_bytes, now)
        return encode(Kind.PING, Flag.SYN, 0, self._marks)
