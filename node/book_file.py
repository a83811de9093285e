"""A peer book on disk: SQLite, so that several processes may read and write it at once, and a crash leaves it whole.

What stands in it are hints, so it is not synced at every write: after a power cut, the last seconds may be missing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .private import database, folder

VERSION: Final = 1
BUSY_S: Final = 5.0
"""Another process's write takes milliseconds."""
BYTES_MAX: Final = 32 * 1024 * 1024
"""Of all peers together: twice what 4096 usual ones take, so that fat ones cost the book itself and not the disk."""
EPOCHS_MAX: Final = 65_536
"""Nodes and owners whose latest epoch is remembered, in a few megabytes; who was not met for longest gives way."""
SET_ASIDE: Final = ".damaged"
"""At the end of the name that a book gets which cannot be read; the one before it goes."""

Peer = tuple[bytes, str, bytes, int, int, int | None, int, int, int, int]
"""As the columns are: key, addresses, bundles, met_ms, tried_ms, rtt_us, tries, answers, jobs_done, jobs_failed. Written, the
last four count what is new."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be written."""

    peers: Sequence[Peer]
    profiles: Mapping[bytes, Sequence[bytes]]
    """Mandate, capability and connectivity by the peer's key."""
    epochs: Mapping[bytes, int]
    """By subject."""


_SCHEMA = """
CREATE TABLE peers (
    key BLOB PRIMARY KEY, addresses TEXT NOT NULL, bundles BLOB NOT NULL, met_ms INTEGER NOT NULL,
    tried_ms INTEGER NOT NULL, rtt_us INTEGER, tries INTEGER NOT NULL, answers INTEGER NOT NULL,
    jobs_done INTEGER NOT NULL, jobs_failed INTEGER NOT NULL, mandate BLOB, capability BLOB, connectivity BLOB
) STRICT;
CREATE INDEX peers_met ON peers (met_ms);
CREATE TABLE epochs (subject BLOB PRIMARY KEY, epoch INTEGER NOT NULL, seen_ms INTEGER NOT NULL) STRICT;
CREATE INDEX epochs_seen ON epochs (seen_ms);
"""

# Whoever met the peer last knows best where it is; counts of several processes add up.
_PEER = """
INSERT INTO peers (key, addresses, bundles, met_ms, tried_ms, rtt_us, tries, answers, jobs_done, jobs_failed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    addresses = iif(excluded.met_ms >= met_ms, excluded.addresses, addresses),
    bundles = iif(excluded.met_ms >= met_ms, excluded.bundles, bundles),
    rtt_us = iif(excluded.met_ms >= met_ms, excluded.rtt_us, rtt_us),
    met_ms = max(met_ms, excluded.met_ms), tried_ms = max(tried_ms, excluded.tried_ms),
    tries = tries + excluded.tries, answers = answers + excluded.answers,
    jobs_done = jobs_done + excluded.jobs_done, jobs_failed = jobs_failed + excluded.jobs_failed
"""
_PROFILE = "UPDATE peers SET mandate = ?, capability = ?, connectivity = ? WHERE key = ?"
_EPOCH = """
INSERT INTO epochs VALUES (?, ?, ?)
ON CONFLICT (subject) DO UPDATE SET epoch = max(epoch, excluded.epoch), seen_ms = max(seen_ms, excluded.seen_ms)
"""
_GIVE_WAY = """
DELETE FROM peers WHERE key IN (
    SELECT key FROM (
        SELECT key, row_number() OVER recent AS place,
            sum(length(CAST(addresses AS BLOB)) + length(bundles) + coalesce(length(mandate), 0)
                + coalesce(length(capability), 0) + coalesce(length(connectivity), 0)) OVER recent AS bytes
        FROM peers WINDOW recent AS (ORDER BY met_ms DESC, key)
    ) WHERE place > ? OR bytes > ?
)
"""
# A clock that was ahead once does not keep anybody's place for ever.
_NOT_AHEAD = """
UPDATE peers SET met_ms = :now_ms - (tried_ms > met_ms), tried_ms = :now_ms WHERE max(met_ms, tried_ms) > :now_ms
"""
_FORGET_EPOCHS = (
    "DELETE FROM epochs WHERE subject IN (SELECT subject FROM epochs ORDER BY seen_ms DESC LIMIT -1 OFFSET ?)"
)


class BookFile:
    """One open book. Every method may raise `sqlite3.Error`."""

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            folder(path.parent)
        self._db = database(path, BUSY_S)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._check()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """What was written stays."""
        self._db.close()

    def peers(self, most: int) -> list[Peer]:
        """Those met last, whoever was met longest ago first."""
        columns = "key, addresses, bundles, met_ms, tried_ms, rtt_us, tries, answers, jobs_done, jobs_failed"
        rows = self._db.execute(f"SELECT {columns} FROM peers ORDER BY met_ms DESC, key LIMIT ?", (most,)).fetchall()
        return rows[::-1]

    def profile(self, key: bytes) -> Sequence[bytes] | None:
        """Mandate, capability and connectivity, as they were written."""
        row = self._db.execute("SELECT mandate, capability, connectivity FROM peers WHERE key = ?", (key,)).fetchone()
        return row if row and None not in row else None

    def epoch(self, subject: bytes) -> int:
        """0 if it is not known."""
        row = self._db.execute("SELECT epoch FROM epochs WHERE subject = ?", (subject,)).fetchone()
        return int(row[0]) if row else 0

    def write(self, note: Note, now_ms: int, most: int) -> None:
        """All of it is in the book, or nothing; who was not met for longest has given way to it."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(_NOT_AHEAD, {"now_ms": now_ms})
            self._db.executemany(_PEER, note.peers)
            self._db.executemany(_PROFILE, [(*parts, key) for key, parts in note.profiles.items()])
            self._db.executemany(_EPOCH, [(subject, epoch, now_ms) for subject, epoch in note.epochs.items()])
            self._db.execute(_GIVE_WAY, (most, BYTES_MAX))
            self._db.execute(_FORGET_EPOCHS, (EPOCHS_MAX,))

    def _check(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0 and not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone():
            self._begin()
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, not {VERSION}")
        if self._db.execute("SELECT count(*) FROM sqlite_schema WHERE name IN ('peers', 'epochs')").fetchone() != (2,):
            raise sqlite3.DatabaseError("it lacks a table")
        problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)

    def _begin(self) -> None:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone():  # else another process was quicker
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")


def opened(path: Path | None) -> tuple[BookFile, str]:
    """The book at the path, and what was wrong, in a sentence; without a path, one that lasts as long as it is open.

    A damaged one, or one of another version, is set aside and begun anew; where nothing can be kept, nothing is.
    """
    if path is None:
        return BookFile(None), ""
    try:
        try:
            return BookFile(path), ""
        except sqlite3.OperationalError:
            raise  # locked, a full disk, no right: nothing is wrong with what is in it
        except sqlite3.DatabaseError as error:
            _set_aside(path)
            kept = f"It was set aside as {path.name}{SET_ASIDE}, and begun anew"
            return BookFile(path), f"The peer book {path} could not be read ({error}). {kept}."
    except (sqlite3.Error, OSError) as error:
        return BookFile(None), f"The peer book {path} cannot be used ({error}); what is learned now is not kept."


def _set_aside(path: Path) -> None:
    path.rename(f"{path}{SET_ASIDE}")
    for suffix in ("-wal", "-shm"):  # of the old book; beside the new one they would damage it
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{path}{SET_ASIDE}{suffix}")


def split(hashes: bytes) -> tuple[Any, ...]:
    """The 32-byte hashes that stand one behind the other."""
    return tuple(hashes[start : start + 32] for start in range(0, len(hashes), 32))
