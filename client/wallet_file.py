"""The wallet's file: its tables, how an older one is carried over, and which process a channel's counters belong to.

A channel belongs to one process at a time. Each process holds a lock on a file of its own for as long as it lives; the
kernel lets go of it however the process ends, and from then on another may take its channels over.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..node import private
from ..node.machine import chance
from ..node.transaction import read_only, transaction
from ..protocol.channel import forfeited_of, held_of
from ..protocol.envelope import verify_any_signer_untrusted, verify_untrusted
from ..protocol.errors import Code, FallowError, StoreError
from ..protocol.holding import total_ucr
from ..protocol.payment import Channel, Voucher

VERSION: Final = 7
BUSY_S: Final = 5.0
"""Another process of the same client holds the file for the milliseconds of a commit."""

_SCHEMA = """
CREATE TABLE channels (
    id BLOB PRIMARY KEY, payer BLOB NOT NULL, payee BLOB NOT NULL, owner BLOB NOT NULL, expires_ms INTEGER NOT NULL,
    ends_ms INTEGER NOT NULL, process BLOB NOT NULL, confirmed BLOB, envelope BLOB NOT NULL) STRICT;
CREATE INDEX channels_process ON channels (process, payee);
CREATE TABLE receipts (
    id BLOB PRIMARY KEY, node BLOB NOT NULL, owner BLOB NOT NULL, channel BLOB REFERENCES channels(id),
    owed_ucr INTEGER NOT NULL, held_ucr_max INTEGER NOT NULL, hold_until_ms INTEGER NOT NULL,
    refused INTEGER NOT NULL DEFAULT 0, envelope BLOB NOT NULL) STRICT;
CREATE INDEX receipts_channel ON receipts (channel);
CREATE TABLE vouchers (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, channel BLOB NOT NULL REFERENCES channels(id),
    receipt BLOB NOT NULL, restated INTEGER NOT NULL, added_ucr INTEGER NOT NULL, held_ucr_max INTEGER NOT NULL,
    hold_until_ms INTEGER NOT NULL, envelope BLOB NOT NULL) STRICT;
CREATE INDEX vouchers_channel ON vouchers (channel, number);
CREATE UNIQUE INDEX vouchers_receipt ON vouchers (receipt) WHERE restated = 0;
CREATE TABLE forfeits (
    ground BLOB NOT NULL, kind TEXT NOT NULL, channel BLOB NOT NULL REFERENCES channels(id), ucr INTEGER NOT NULL,
    PRIMARY KEY (channel, kind, ground)) STRICT;
CREATE TABLE IF NOT EXISTS verdicts (id BLOB PRIMARY KEY, envelope BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS faults (
    node BLOB PRIMARY KEY, owner BLOB NOT NULL, reason TEXT NOT NULL, verdict BLOB, at_ms INTEGER NOT NULL) STRICT;
"""

_ANSWERS = """
CREATE TABLE answers (
    order_id BLOB PRIMARY KEY, nonce BLOB NOT NULL, policy TEXT NOT NULL, opening BLOB NOT NULL, at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX answers_at ON answers (at_ms);
"""
"""Version 2 has this beside what version 1 had: what opens the orders whose executors may take this client before judges."""

_TELLING = """
CREATE TABLE telling (
    matter BLOB PRIMARY KEY, kind TEXT NOT NULL, ground BLOB NOT NULL, channel BLOB NOT NULL REFERENCES channels(id),
    most_ucr INTEGER NOT NULL, request BLOB NOT NULL, addresses TEXT NOT NULL, ucr INTEGER, voucher BLOB,
    tries INTEGER NOT NULL DEFAULT 0, told INTEGER NOT NULL DEFAULT 0, next_ms INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX telling_next ON telling (next_ms) WHERE NOT told;
"""
"""Version 3 has this beside what version 2 had: what judges have found, and whether its node knows."""

_LAPSED = "UPDATE channels SET expires_ms = 0, ends_ms = 0;"
"""Until version 3 all that a voucher held had one release. Nobody reads such vouchers any more: their channels are over."""

_PLEAS = """
CREATE TABLE pleas (dispute BLOB PRIMARY KEY, plea BLOB NOT NULL, proof BLOB NOT NULL, at_ms INTEGER NOT NULL) STRICT;
CREATE INDEX pleas_at ON pleas (at_ms);
"""
"""Version 4 has this beside what version 3 had: what this client has answered, so that every judge is given the same."""

_JOBS = "ALTER TABLE answers ADD COLUMN job BLOB;"
"""Version 5 has this beside what version 4 had: the order itself, which says who may take this client before whom."""

_ACCEPTED = "ALTER TABLE answers ADD COLUMN accept BLOB; ALTER TABLE answers ADD COLUMN mandate BLOB;"
"""Version 6 has this beside what version 5 had: what the order's node agreed to, and under whose mandate."""

_CASES = """
CREATE TABLE cases (
    verdict BLOB PRIMARY KEY REFERENCES verdicts(id), channel BLOB NOT NULL REFERENCES channels(id),
    at_ms INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0, next_ms INTEGER NOT NULL DEFAULT 0, proof BLOB NOT NULL) STRICT;
CREATE INDEX cases_at ON cases (at_ms);
CREATE INDEX cases_next ON cases (tries, next_ms);
"""
"""Version 7 has this beside what version 6 had: verdicts that wait for their judges."""

_SINCE_1 = (_ANSWERS, _TELLING, _PLEAS, _JOBS, _ACCEPTED, _CASES)
"""What each version has added, from the second on."""

_SETTINGS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON")

_FROM_0 = """
INSERT INTO receipts SELECT id, node, owner, NULL, 0, 0, 0, 1, envelope FROM old_receipts;
INSERT INTO vouchers (id, channel, receipt, restated, added_ucr, held_ucr_max, hold_until_ms, envelope)
    SELECT id, channel, receipt, 0, added_ucr, 0, 0, envelope FROM old_vouchers ORDER BY rowid;
INSERT INTO forfeits SELECT ground, kind, channel, ucr FROM old_forfeits;
DROP TABLE old_forfeits; DROP TABLE old_vouchers; DROP TABLE old_receipts; DROP TABLE old_channels;
"""


def open_file(path: Path) -> sqlite3.Connection:
    """The wallet, made or carried over if need be. Raises `StoreError(corrupt_store)`, the file left as it is."""
    try:
        private.folder(path.parent)
        database = private.database(path, BUSY_S)
        try:
            for setting in _SETTINGS:
                database.execute(setting)
            _carry_over(database)
        except BaseException:
            database.close()
            raise
    except (sqlite3.DatabaseError, OSError, FallowError) as error:
        raise StoreError(
            Code.CORRUPT_STORE, f"The wallet {path} cannot be read ({error}); it was left as it is."
        ) from None
    return database


def channel_and_vouchers(path: Path, channel: bytes) -> list[bytes]:
    """Envelopes of a channel of the wallet and of its latest voucher, read beside whoever uses the wallet; none if it is not
    there."""
    try:
        with read_only(path, BUSY_S) as database:
            rows = database.execute(
                """SELECT envelope FROM channels WHERE id = ? UNION ALL SELECT * FROM (
                       SELECT envelope FROM vouchers WHERE channel = ? ORDER BY number DESC LIMIT 1)""",
                (channel, channel),
            ).fetchall()
    except sqlite3.Error as error:
        raise StoreError(Code.CORRUPT_STORE, f"The wallet {path} cannot be read ({error}).") from None
    return [bytes(row[0]) for row in rows]


def dues(path: Path, payer: bytes, payee: bytes | None, now_ms: int) -> list[tuple[bytes, bytes, int]]:
    """(channel, payee, micro-credits) of the payer's channels, or of those to one payee: what their vouchers have made due by
    now. Read beside whoever uses the wallet. Raises `StoreError`."""
    if not path.exists():
        return []
    query = """SELECT c.id, c.payee, v.envelope,
                      (SELECT coalesce(sum(ucr), 0) FROM forfeits WHERE channel = c.id),
                      iif(c.ends_ms, NULL, (SELECT sum(added_ucr) FROM vouchers WHERE channel = c.id))
               FROM channels c JOIN vouchers v ON v.channel = c.id
               WHERE v.number = (SELECT max(number) FROM vouchers WHERE channel = c.id)
                   AND c.payer = ? AND coalesce(?, c.payee) = c.payee ORDER BY c.rowid"""
    try:
        with read_only(path, BUSY_S) as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version < VERSION:
                message = f"The wallet {path} is of an older version: ask something once, which carries it over, and try again."
                raise StoreError(Code.CORRUPT_STORE, message)
            rows = database.execute(query, (payer, payee)).fetchall()
    except sqlite3.Error as error:
        raise StoreError(Code.CORRUPT_STORE, f"The wallet {path} cannot be read ({error}).") from None
    found = []
    for channel, to, envelope, grounds_ucr, lapsed_ucr in rows:
        if lapsed_ucr is not None:
            found.append((channel, to, lapsed_ucr - grounds_ucr))
            continue
        voucher = verify_untrusted(Voucher, envelope, signer=payer).record
        not_due_ucr = total_ucr(held_of(voucher, grounds_ucr, now_ms)) + forfeited_of(voucher, grounds_ucr)
        found.append((channel, to, voucher.promised_ucr - not_due_ucr))
    return found


def _carry_over(database: sqlite3.Connection) -> None:
    """The tables are of this version; two processes that start side by side make them once."""
    with transaction(database):
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == VERSION:
            return
        if 0 < version < VERSION:
            _run(database, "".join(_SINCE_1[version - 1 :]))
            _run(database, _LAPSED if version < 4 else "")
            database.execute(f"PRAGMA user_version = {VERSION}")
            return
        if version:
            raise sqlite3.DatabaseError(f"it is of version {version}, not {VERSION}")
        known = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        _run(database, _renamed() if "channels" in known else "")
        _run(database, _SCHEMA)
        _run(database, "".join(_SINCE_1))
        if "channels" in known:
            _carry_channels(database)
            _run(database, _FROM_0 + _LAPSED)
        database.execute(f"PRAGMA user_version = {VERSION}")


def _renamed() -> str:
    return "".join(
        f"ALTER TABLE {name} RENAME TO old_{name};" for name in ("channels", "receipts", "vouchers", "forfeits")
    )


def _carry_channels(database: sqlite3.Connection) -> None:
    for id, payee, owner, envelope in database.execute(
        "SELECT id, payee, owner, envelope FROM old_channels"
    ).fetchall():
        record = verify_any_signer_untrusted(Channel, envelope).record
        ends_ms = record.expires_ms + record.close_grace_ms
        row = (id, record.payer, payee, owner, record.expires_ms, ends_ms, b"", None, envelope)
        database.execute("INSERT INTO channels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def _run(database: sqlite3.Connection, script: str) -> None:
    """Each statement by itself: `executescript` would end the transaction."""
    for statement in script.split(";"):
        if statement.strip():
            database.execute(statement)


class Tenure:
    """This process's hold on its channels, from when it is made until `end` or the end of the process."""

    def __init__(self, wallet: Path) -> None:
        self._folder = wallet.with_name(wallet.name + ".processes")
        private.folder(self._folder)
        self.process = chance().randbytes(16)
        making = self._folder / f".{self.process.hex()}"
        self._lock = private.stream(making, "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        making.rename(self._path(self.process))  # under its name it is never seen without its lock

    def others_alive(self, process: bytes) -> bool:
        """Whether another process holds these channels."""
        path = self._path(process)
        try:
            stream = path.open("r+")
        except OSError:
            return False
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            path.unlink(missing_ok=True)
        return False

    def end(self) -> None:
        """The channels may be taken over."""
        with suppress(OSError):
            os.unlink(self._path(self.process))  # noqa: PTH108
        self._lock.close()

    def _path(self, process: bytes) -> Path:
        return self._folder / process.hex()
