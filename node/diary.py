"""What was known of the machine from minute to minute, and what its work drew: for its owner, and never off the machine.

An SQLite file of the last `ROWS_MAX` moments and of ten years of days. It is an aid: a node whose diary cannot be written earns
and yields as ever, says so, and counts what was not written when it can be again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

from ..protocol.errors import Code, StoreError
from .private import database
from .rules.asked import NOTHING, Asked
from .rules.hours import DAY_MS, Now
from .rules.policy import Wish
from .rules.readings import Bound
from .rules.replay import Moment
from .rules.signals import Signal
from .rules.worth import Draw
from .transaction import is_full, read_only, transaction

DIARY: Final = "diary.sqlite"
VERSION: Final = 1
ROWS_MAX: Final = 35 * 24 * 60
"""Five weeks of minutes. Counted in rows: a clock that jumps a year ahead takes nothing with it."""
DAYS_MAX: Final = 3660
PAGES_MAX: Final = 32 * 1024
"""Of 4 KiB: no machine's moments need so much, and none gets more."""
BUSY_S: Final = 2.0

_SCHEMA: Final = f"""
CREATE TABLE moments (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, ms INTEGER NOT NULL, wall_ms INTEGER NOT NULL, offset_ms INTEGER NOT NULL,
    codes TEXT NOT NULL, joules REAL NOT NULL, passed_ms INTEGER NOT NULL, content TEXT NOT NULL
) STRICT;
CREATE INDEX moments_wall ON moments (wall_ms);
CREATE TABLE days (
    day INTEGER PRIMARY KEY, joules REAL NOT NULL, energy_ucr REAL NOT NULL, wear_ucr REAL NOT NULL, lent_ms INTEGER NOT NULL,
    withheld_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE rules (one INTEGER PRIMARY KEY CHECK (one = 1), content TEXT NOT NULL) STRICT;
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True, slots=True)
class Passed:
    """What came of the time since the moment before."""

    ms: int = 0
    lent: bool = False
    joules: float = 0.0
    energy_ucr: float = 0.0
    wear_ucr: float = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One moment as it was written down."""

    moment: Moment
    codes: frozenset[str]
    """Of the reasons against lending."""
    joules: float
    """Used by jobs since the entry before, in `passed_ms`."""
    passed_ms: int


@dataclass(frozen=True, slots=True)
class Day:
    """Sums of a day of the owner's clock."""

    day: int
    """Since 1970."""
    joules: float
    energy_ucr: float
    wear_ucr: float
    lent_ms: int
    withheld_ms: int


class Diary:
    """The diary of one state directory, for the one node that writes it. Methods block for the disk."""

    def __init__(self, state: Path, rules: Mapping[str, Any]) -> None:
        """Opened, or begun anew; one that is damaged is kept beside it. Raises `StoreError` if there can be none."""
        self.path = state / DIARY
        with _explained(self.path):
            try:
                self._db = self._opened()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self.path.replace(self.path.with_suffix(".damaged"))
                self._db = self._opened()
            (last,) = self._db.execute("SELECT coalesce(max(run), 0) FROM moments").fetchone()
            self._db.execute("INSERT OR REPLACE INTO rules VALUES (1, ?)", (json.dumps(rules),))
        self.run = int(last) + 1

    def _opened(self) -> sqlite3.Connection:
        db = database(self.path, BUSY_S)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA max_page_count = {PAGES_MAX}")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            elif version != VERSION:
                raise sqlite3.DatabaseError(f"it is of version {version}")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def close(self) -> None:
        self._db.close()

    def write(self, moment: Moment, codes: frozenset[str], passed: Passed) -> None:
        """The moment, and what has passed before it, is in the file, or nothing of it is: raises `StoreError`."""
        now = moment.now
        day = (now.wall_ms + now.offset_ms) // DAY_MS
        row = (
            moment.run, now.ms, now.wall_ms, now.offset_ms, " ".join(sorted(codes)), passed.joules, passed.ms, _content(moment),
        )  # fmt: skip
        sums = (
            day, passed.joules, passed.energy_ucr, passed.wear_ucr, passed.ms if passed.lent else 0,
            0 if passed.lent else passed.ms,
        )  # fmt: skip
        with _explained(self.path), transaction(self._db):
            new = self._db.execute(
                """INSERT INTO moments (run, ms, wall_ms, offset_ms, codes, joules, passed_ms, content)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
                row,
            ).lastrowid
            self._db.execute("DELETE FROM moments WHERE id <= ?", ((new or 0) - ROWS_MAX,))
            self._db.execute(
                """INSERT INTO days VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (day) DO UPDATE SET
                   joules = joules + excluded.joules, energy_ucr = energy_ucr + excluded.energy_ucr,
                   wear_ucr = wear_ucr + excluded.wear_ucr, lent_ms = lent_ms + excluded.lent_ms,
                   withheld_ms = withheld_ms + excluded.withheld_ms""",
                sums,
            )
            self._db.execute(
                "DELETE FROM days WHERE day NOT IN (SELECT day FROM days ORDER BY day DESC LIMIT ?)", (DAYS_MAX,)
            )


def entries(state: Path, begins_ms: int, ends_ms: int = 2**62) -> list[Entry]:
    """Those of a time, in the order in which they were written. Reads only, also while the node runs. Raises `StoreError`."""
    asked = """SELECT run, ms, wall_ms, offset_ms, codes, joules, passed_ms, content FROM moments
               WHERE wall_ms >= ? AND wall_ms < ? ORDER BY id"""
    with _reading(state) as db:
        rows = db.execute(asked, (begins_ms, ends_ms)).fetchall() if db else []
    found = []
    for run, ms, wall_ms, offset_ms, codes, joules, passed_ms, content in rows:
        moment = _moment(Now(ms, wall_ms, offset_ms), run, json.loads(content))
        found.append(Entry(moment, frozenset(codes.split()), joules, passed_ms))
    return found


def days(state: Path, first: int = 0) -> dict[int, Day]:
    """The sums of each day from the first on. Raises `StoreError`."""
    with _reading(state) as db:
        rows = db.execute("SELECT * FROM days WHERE day >= ? ORDER BY day", (first,)).fetchall() if db else []
    return {row[0]: Day(*row) for row in rows}


def rules(state: Path) -> dict[str, Any]:
    """What the node last started with; nothing if it kept no diary. Raises `StoreError`."""
    with _reading(state) as db:
        row = db.execute("SELECT content FROM rules").fetchone() if db else None
    found = json.loads(row[0]) if row else {}
    return found if isinstance(found, dict) else {}


def _content(moment: Moment) -> str:
    wish, draw = moment.wish, moment.draw
    paused_ms = None if wish.paused_until_ms == -inf else int(wish.paused_until_ms)
    known = [
        (source, signal, told if isinstance(told, bool | str) else round(told, 2))
        for source, signal, told in moment.known
    ]
    return json.dumps(
        {
            "known": known, "wish": [wish.driving, paused_ms, wish.opted_out], "earns_ucr": moment.earns_ucr,
            "draw": [draw.idle_w, draw.full_w], "unmetered_only": moment.unmetered_only, **_seldom(moment),
        },
        separators=(",", ":"),
    )  # fmt: skip


def _seldom(moment: Moment) -> dict[str, Any]:
    """What was asked in the grid's name, and sensors that had said nothing; most moments have nothing of it."""
    found: dict[str, Any] = {}
    if moment.asked != NOTHING:
        asked = moment.asked
        found["asked"] = [asked.stops, asked.caps, asked.shares, asked.imports, asked.kwh_ucr]
    if moment.unread:
        found["unread"] = moment.unread
    if moment.bounds:
        held = [(code, bound, bound.until_ms > moment.now.ms) for code, bound in moment.bounds]
        found["bounds"] = [[code, bound.watts, bound.why, holds, bound.whole] for code, bound, holds in held]
    return found


def _asked(kept: list[Any]) -> Asked:
    stops, caps, shares, imports, kwh_ucr = kept

    def pairs(each: list[Any]) -> tuple[tuple[float, str], ...]:
        return tuple((float(most), str(why)) for most, why in each)

    return Asked(tuple(stops), pairs(caps), pairs(shares), pairs(imports), kwh_ucr)


def _bounds(kept: list[Any]) -> tuple[tuple[str, Bound], ...]:
    return tuple((code, Bound(watts, why, inf if holds else -inf, whole)) for code, watts, why, holds, whole in kept)


def _moment(now: Now, run: int, content: dict[str, Any]) -> Moment:
    driving, paused_ms, opted_out = content["wish"]
    return Moment(
        now,
        run,
        tuple((source, Signal(signal), told) for source, signal, told in content["known"]),
        Wish(driving, -inf if paused_ms is None else paused_ms, opted_out),
        content["earns_ucr"],
        Draw(*content["draw"]),
        content["unmetered_only"],
        _asked(content["asked"]) if "asked" in content else NOTHING,
        _bounds(content.get("bounds", [])),
        tuple((source, why) for source, why in content.get("unread", [])),
    )


@contextmanager
def _reading(state: Path) -> Iterator[sqlite3.Connection | None]:
    path = state / DIARY
    if not path.exists():
        yield None
        return
    with _explained(path), read_only(path, BUSY_S) as db:
        yield db


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _error(path, error) from None


def _error(path: Path, error: Exception) -> StoreError:
    what = "Nothing that was earned is in it, and nothing else was touched."
    return StoreError(
        Code.STORE_FULL if is_full(error) else Code.CORRUPT_STORE, f"The diary {path} cannot be used: {error}. {what}"
    )
