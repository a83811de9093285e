"""What peers and addresses have done to this node, and who is not let in for a while. Pure: time is an argument.

A fault adds points, which halve every `HALF_LIFE_S`. Whoever comes to `POINTS_BANNED` is banned, each time for twice as
long as the time before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

POINTS_BANNED: Final = 100

HALF_LIFE_S: Final = 60.0
"""Faults of one evil minute add up; a bug's now and then does not."""

BAN_S: Final = 60.0
BAN_S_MAX: Final = 3600.0
"""A ban ends by itself: keys are free, so a long one keeps out nobody but those who have mended their ways."""

FORGIVEN_S: Final = 24 * 3600.0
"""After so long without a ban the next one is short again."""

KNOWN_MAX: Final = 4096
"""Names that are remembered; each takes some 200 bytes. The least guilty are forgotten first."""


class Fault(IntEnum):
    """What can be held against a peer, and how many points it counts. What happens to honest peers too (a connection
    that breaks, an answer that comes late) is no fault."""

    REFUSED_STREAM = 1
    """It opened a stream beyond its bounds."""
    STALE_RECORD = 2
    """A value older than the one that stands. A clock that was set back does that; one who keeps at it wants it back."""
    SILENT_HANDSHAKE = 5
    """It connected, and did not say who it is in time. Sixteen in a minute are no bad link."""
    BAD_RECORD = 10
    """A value or a question for the table that breaks its rules. Bugs and old versions do that too."""
    UNREAD = 25
    """It sent more than a stream may hold unread."""
    BAD_FRAME = 34
    """Bytes that are no frame of ours, or too long for one."""
    GARBAGE = 20
    """Instead of a handshake, bytes of another protocol: a scanner, or a person with a browser."""
    OVERRUN = 100
    """It broke the rules that every implementation of the protocol keeps."""


@dataclass
class _Record:
    points: float = 0.0
    as_of: float = 0.0
    banned_until: float = -float("inf")
    bans: int = 0

    def points_at(self, now: float) -> float:
        return self.points * math.exp2(-max(0.0, now - self.as_of) / HALF_LIFE_S)


class Standings:
    """The standing of names of one kind: of peers, or of addresses."""

    def __init__(self, known_max: int = KNOWN_MAX) -> None:
        self._known_max = known_max
        self._records: dict[str, _Record] = {}

    def __len__(self) -> int:
        return len(self._records)

    def blame(self, name: str, fault: Fault, now: float) -> bool:
        """The fault counts from now on. True if this is what the name is banned for."""
        record = self._records.get(name)
        if record is None:
            self._make_room(now)
            record = self._records[name] = _Record(as_of=now)
        record.points, record.as_of = record.points_at(now) + fault, now
        if record.points < POINTS_BANNED or record.banned_until > now:
            return False
        if now - record.banned_until > FORGIVEN_S:
            record.bans = 0
        record.banned_until = now + min(BAN_S * 2.0**record.bans, BAN_S_MAX)
        record.bans = min(record.bans + 1, 16)
        record.points = 0.0
        return True

    def banned_s(self, name: str, now: float) -> float:
        """For how much longer the name is banned; 0 if it is not."""
        record = self._records.get(name)
        return max(0.0, record.banned_until - now) if record else 0.0

    def points(self, name: str, now: float) -> float:
        """0 for a name of which nothing is known."""
        record = self._records.get(name)
        return record.points_at(now) if record else 0.0

    def _make_room(self, now: float) -> None:
        """A sixteenth of the table is forgotten when it is full: rarely, so that it costs little for each name."""
        if len(self._records) < self._known_max:
            return

        def guilt(name: str) -> tuple[float, float]:
            record = self._records[name]
            return max(record.banned_until, now), record.points_at(now)

        for name in sorted(self._records, key=guilt)[: max(1, self._known_max // 16)]:
            del self._records[name]
