"""What has happened since the node started, counted as it is logged: for the owner's page and for monitoring."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .log import Field, wall_ms

RECENT_MAX: Final = 20
"""Jobs that are shown."""
BEGUN_MAX: Final = 256
"""Jobs whose end has not come; a node runs 16 at once."""


@dataclass(frozen=True, slots=True)
class JobDone:
    """A job that has ended: whose, and what about, is not in it."""

    ended_ms: int
    entry: str
    state: str
    """`settled`, or how else it ended."""
    tokens: int
    amount_ucr: int
    energy_mj: int
    """Millijoules."""


class Tally:
    """Hears every event of the log."""

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        """Jobs by entry."""
        self.ended: Counter[str] = Counter()
        """Jobs by how they ended."""
        self.refused: Counter[str] = Counter()
        """Orders by code."""
        self.tokens = 0
        self.amount_ucr = 0
        """Claimed by the receipts of jobs that have ended."""
        self.yields = 0
        self.yields_ms = 0
        """All together."""
        self.worker_starts = 0
        self.recent: deque[JobDone] = deque(maxlen=RECENT_MAX)
        self._entries: dict[str, str] = {}

    def hear(self, event: str, fields: Mapping[str, Field]) -> None:
        """The event is counted."""
        match event:
            case "job_accepted":
                entry = str(fields.get("entry", ""))
                self.accepted[entry] += 1
                if len(self._entries) < BEGUN_MAX:
                    self._entries[str(fields.get("order", ""))] = entry
            case "job_ended":
                self._end(fields)
            case "job_refused":
                self.refused[str(fields.get("code", ""))] += 1
            case "yielded":
                self.yields += 1
                self.yields_ms += _number(fields, "took_ms")
            case "worker_ready":
                self.worker_starts += 1

    def _end(self, fields: Mapping[str, Field]) -> None:
        done = JobDone(
            wall_ms(),
            self._entries.pop(str(fields.get("order", "")), ""),
            str(fields.get("state", "")),
            _number(fields, "tokens"),
            _number(fields, "amount_ucr"),
            _number(fields, "energy_mj"),
        )
        self.ended[done.state] += 1
        self.tokens += done.tokens
        self.amount_ucr += done.amount_ucr
        self.recent.appendleft(done)


def _number(fields: Mapping[str, Field], name: str) -> int:
    value = fields.get(name, 0)
    return value if isinstance(value, int) else 0
