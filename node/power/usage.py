"""The energy of every job, kept beside the journal for the owner's statement; nobody else learns of it.

Each figure says whether it was measured, and by what, or which model stood in for that. What it cost is reckoned at the price
of the moment. These are no evidence: a crash may cost the last seconds, and a disk that is full costs figures, not the node.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from ..log import wall_ms
from ..machine import beside
from ..private import database
from ..rules.worth import J_PER_KWH
from ..transaction import read_only, transaction
from .account import ESTIMATES, Used

USAGE: Final = "energy.sqlite"
KEPT_MS: Final = 3 * 366 * 86_400_000
"""A statement is asked for a year that has ended, by then two years may have passed."""
NOTE_S: Final = 5.0
NOTES_MAX: Final = 4096
"""Jobs whose figures wait while the disk hangs; some 80 bytes each."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS used (
    order_id BLOB PRIMARY KEY, ended_ms INTEGER NOT NULL, millijoules INTEGER NOT NULL, source TEXT NOT NULL, ucr REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS used_ended ON used (ended_ms);
"""


@dataclass(frozen=True, slots=True)
class UsedBy:
    """What some jobs used, whose figures come from one source."""

    source: str
    jobs: int
    millijoules: int
    ucr: float

    @property
    def measured(self) -> bool:
        """Whether a meter counted it; else a model did."""
        return self.source not in ESTIMATES

    def __str__(self) -> str:
        how = f"measured by {self.source}" if self.measured else f"estimated ({self.source})"
        return f"{self.millijoules / 3.6e6:.3f} Wh of {self.jobs} jobs {how}"


class UsageBook:
    """What the jobs of one state directory have used."""

    def __init__(self, state: Path, kwh_ucr: Callable[[], float]) -> None:
        """`kwh_ucr` is what a kilowatt-hour costs at the moment."""
        self._path = state / USAGE
        self._kwh_ucr = kwh_ucr
        self._notes: deque[tuple[bytes, int, int, str, float]] = deque(maxlen=NOTES_MAX)

    def note(self, order: bytes, used: Used) -> None:
        """The order's job has ended, and used this; on disk some seconds later."""
        ucr = used.joules * self._kwh_ucr() / J_PER_KWH
        self._notes.append((order, wall_ms(), round(1000 * used.joules), used.source, ucr))

    async def keep(self) -> None:
        """What is noted comes to the disk, until cancelled."""
        while True:
            await trio.sleep(NOTE_S)
            await beside(self.write)

    def write(self) -> None:
        """What was noted is on the disk, if it takes it."""
        if not self._notes:
            return
        notes = [self._notes.popleft() for _ in range(len(self._notes))]
        with suppress(sqlite3.Error, OSError), closing(database(self._path)) as db:
            db.executescript(_SCHEMA)
            with transaction(db):
                db.executemany("INSERT OR REPLACE INTO used VALUES (?, ?, ?, ?, ?)", notes)
                db.execute("DELETE FROM used WHERE ended_ms < ?", (wall_ms() - KEPT_MS,))


def used_between(state: Path, begins_ms: int, ends_ms: int) -> tuple[UsedBy, ...]:
    """By source, what most came from first. Reads only, also while the node runs; nothing where nothing was kept."""
    path = state / USAGE
    if not path.exists():
        return ()
    with suppress(sqlite3.Error), read_only(path) as db:
        rows = db.execute(
            "SELECT source, count(*), sum(millijoules), sum(ucr) FROM used WHERE ended_ms >= ? AND ended_ms < ?"
            " GROUP BY source ORDER BY sum(millijoules) DESC, source",
            (begins_ms, ends_ms),
        ).fetchall()
        return tuple(UsedBy(*row) for row in rows)
    return ()
