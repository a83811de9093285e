"""Deposits of one party: those that it has made, and those of others that it holds.

    made:  terms on disk -> tokens locked at the mint -> handed over -> taken by their payee, or, after their time, taken back
           (`fates` asks which)
    held:  looked at -> on disk, and counted -> taken before their time, or let go

A deposit is tokens locked to its payee until a time, and to who made it from then on. Until somebody takes it, it is nobody's
payment. What is here is written before each step and is no more than what the next try needs: each step may be done again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from ...protocol.errors import Code, Refused
from ..durable import alone
from ..private import database
from ..transaction import transaction

FILE: Final = "deposits.sqlite"
HELD_MAX: Final = 256
"""Deposits of others at one time: each takes a quarter of a megabyte at most."""
HELD_BY_ONE_MAX: Final = 16
"""Of those, one payer's: renewed each month, it has two or three."""
TIME_S_MAX: Final = 2**53
"""As for tokens."""
REFERENCE_MAX: Final = 128
"""Characters: it is typed again to take the deposit back."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS made (
    reference TEXT PRIMARY KEY, payee BLOB NOT NULL, address TEXT NOT NULL, place TEXT NOT NULL, ucr INTEGER NOT NULL,
    until_s INTEGER NOT NULL, handed INTEGER NOT NULL DEFAULT 0, back INTEGER NOT NULL DEFAULT 0,
    taken INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS held (
    id BLOB PRIMARY KEY, payer BLOB NOT NULL, reference TEXT NOT NULL, ucr INTEGER NOT NULL, until_s INTEGER NOT NULL,
    means BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Made:
    """One that this party has made."""

    reference: str
    """This party's name for it, by which it is known."""
    payee: bytes
    """The node's key, or 32 bytes of the key to which it is locked."""
    address: str
    """The key to which it is locked, with the terms."""
    place: str
    """Where the node is, or the file."""
    ucr: int
    until_s: int
    """Seconds since 1970: from then on it may be taken back."""
    handed: bool = False
    """The node holds it, or the file is there."""
    back: bool = False
    """It is in the purse again."""
    taken: bool = False
    """Its payee has taken it: of a node's, that stands in the ledger as paid."""

    @property
    def for_node(self) -> bool:
        """Whether it secures debts at a node. A client's is known by the key alone to which it is locked."""
        return self.payee.hex() != self.address.split(" ")[0][2:]


@dataclass(frozen=True, slots=True)
class Held:
    """One of somebody else's."""

    id: bytes
    """The payment's that it will be if it is taken."""
    payer: bytes
    """Whose debts it secures."""
    reference: str
    ucr: int
    until_s: int
    means: bytes


_MADE: Final = ", ".join(each.name for each in fields(Made))
_HELD: Final = ", ".join(each.name for each in fields(Held))


class DepositBook:
    """What a party's folder of rails has of deposits. Other processes of the party may have it open, too."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._db = database(self._path)
        for setting in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
            self._db.execute(setting)
        self._db.executescript(_SCHEMA)
        _carry_over(self._db)

    def close(self) -> None:
        """Everything is on disk."""
        self._db.close()

    @contextmanager
    def making(self) -> Iterator[None]:
        """No other process makes a deposit inside: what is begun is finished, or forgotten, before the next. Raises
        `Refused(busy)`."""
        with ExitStack() as stack:
            try:
                stack.enter_context(alone(self._path, wait=False))
            except BlockingIOError:
                message = "Another process makes a deposit just now. Nothing was done: try again when it has ended."
                raise Refused(Code.BUSY, message) from None
            yield

    def begin(self, wanted: Made) -> Made:
        """The deposit of this reference, on disk: as it was begun, if it was before, with the time that it got then. Raises
        `Refused(bad_config)` if that is for somebody else, or of another amount."""
        row = (wanted.reference, wanted.payee, wanted.address, wanted.place, wanted.ucr, wanted.until_s)
        columns = "reference, payee, address, place, ucr, until_s"
        with transaction(self._db):
            self._db.execute(f"INSERT OR IGNORE INTO made ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)
            found = self.made(wanted.reference)
        assert found is not None, "it was just begun"
        if (found.payee, found.ucr) != (wanted.payee, wanted.ucr):
            message = (
                f"{wanted.reference!r} is a deposit of {found.ucr} ucr at {found.place} already: nothing was done."
            )
            raise Refused(Code.BAD_CONFIG, f"{message} Give another deposit another reference.")
        return found

    def made(self, reference: str) -> Made | None:
        """The deposit that this party knows by the reference."""
        row = self._db.execute(f"SELECT {_MADE} FROM made WHERE reference = ?", (reference,)).fetchone()
        return _made(row) if row else None

    def all_made(self) -> list[Made]:
        """Every deposit that was begun, oldest first."""
        return [_made(row) for row in self._db.execute(f"SELECT {_MADE} FROM made ORDER BY rowid").fetchall()]

    def forget(self, reference: str) -> None:
        """Nothing came of it: its reference may be another deposit's."""
        self._db.execute("DELETE FROM made WHERE reference = ? AND NOT handed AND NOT back AND NOT taken", (reference,))

    def note_handed(self, reference: str, place: str) -> None:
        """Its payee has it: it was handed over there."""
        self._db.execute("UPDATE made SET handed = 1, place = ? WHERE reference = ?", (place, reference))

    def note_taken(self, reference: str) -> None:
        """Its payee has taken it, and what that makes of it is on disk."""
        self._db.execute("UPDATE made SET taken = 1 WHERE reference = ?", (reference,))

    def note_back(self, reference: str) -> None:
        """It is in the purse again."""
        self._db.execute("UPDATE made SET back = 1 WHERE reference = ?", (reference,))

    def lacks_room(self, deposit: Held) -> bool:
        """Whether another one has to go before it can be held. Raises `Refused(busy)` for one payer's too many."""
        if self.holds(deposit.id):
            return False
        by_one = "SELECT count(*) FROM held WHERE payer = ?"
        if self._db.execute(by_one, (deposit.payer,)).fetchone()[0] >= HELD_BY_ONE_MAX:
            raise Refused(Code.BUSY, f"This node holds {HELD_BY_ONE_MAX} deposits of one payer, and no more.")
        return int(self._db.execute("SELECT count(*) FROM held").fetchone()[0]) >= HELD_MAX

    def hold(self, deposit: Held) -> bool:
        """It is on disk; False if it was before. Raises `Refused(busy)` for one too many."""
        with transaction(self._db):
            if self.lacks_room(deposit):
                raise Refused(Code.BUSY, f"This node holds {HELD_MAX} deposits, and no more: pay it instead.")
            row = tuple(getattr(deposit, each.name) for each in fields(Held))
            return self._db.execute(f"INSERT OR IGNORE INTO held ({_HELD}) VALUES (?, ?, ?, ?, ?, ?)", row).rowcount > 0

    def smallest(self, below_ucr: int, most: int) -> list[Held]:
        """So many of the smallest that are worth less than that, and of these the first to end first."""
        query = f"SELECT {_HELD} FROM held WHERE ucr < ? ORDER BY ucr, until_s, id LIMIT ?"
        return [Held(*row) for row in self._db.execute(query, (below_ucr, most)).fetchall()]

    def holds(self, id: bytes) -> bool:
        """Whether it is one of those."""
        return self._db.execute("SELECT 1 FROM held WHERE id = ?", (id,)).fetchone() is not None

    def worth(self, after_s: int, but: bytes = b"") -> dict[bytes, int]:
        """Micro-credits of all that is held and ends later, by payer; without the one of the id `but`."""
        query = "SELECT payer, sum(ucr) FROM held WHERE until_s > ? AND id != ? GROUP BY payer"
        return dict(self._db.execute(query, (after_s, but)).fetchall())

    def held(self, before_s: int = TIME_S_MAX) -> list[Held]:
        """Those of others that end before then, the first to end first."""
        query = f"SELECT {_HELD} FROM held WHERE until_s <= ? ORDER BY until_s, id"
        rows = self._db.execute(query, (before_s,)).fetchall()
        return [Held(*row) for row in rows]

    def let_go(self, id: bytes) -> None:
        """It is not held any more: taken, or its maker's again."""
        self._db.execute("DELETE FROM held WHERE id = ?", (id,))


def _carry_over(db: sqlite3.Connection) -> None:
    """The first form of the file did not say what was taken."""
    lacks = "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM pragma_table_info('made') WHERE name = 'taken')"
    if db.execute(lacks).fetchone():
        with transaction(db):
            if db.execute(lacks).fetchone():  # no other process has done it meanwhile
                db.execute("ALTER TABLE made ADD COLUMN taken INTEGER NOT NULL DEFAULT 0")


def _made(row: tuple[str, bytes, str, str, int, int, int, int, int]) -> Made:
    return Made(*row[:6], handed=bool(row[6]), back=bool(row[7]), taken=bool(row[8]))
