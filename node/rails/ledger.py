"""The embedded ledger: mutual credit in SQLite. Whom we owe may owe us, and what both owe is set off: nothing else moves.

An entry says that a party owes us more, or we it, and what that rests on: a channel's vouchers, a decision, a payment, a
set-off. Other books say them (`Books`: a node's journal, a client's wallet), and whatever they say is brought in before the
ledger is looked at: so each entry is there once, however often a process ended between its book and this one. A party pays by
waiving, signed, what the other owes it: both debts shrink by as much, in both books, under the same reference; what one owes
the other in the end stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import SigningKey, VerifyKey

from ...protocol.codec import decode_untrusted, encode
from ...protocol.errors import Code, Refused, RemoteProtocolError
from ...protocol.limits import MEANS_BYTES_MAX
from ...protocol.means import Means
from ..private import database
from ..transaction import transaction
from .rail import Invoice, Taken, check_paid, invoice_id, payment_id, read_means

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    party BLOB NOT NULL, reference TEXT NOT NULL, ours_ucr INTEGER NOT NULL, theirs_ucr INTEGER NOT NULL,
    PRIMARY KEY (party, reference)) STRICT;
CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, means BLOB NOT NULL) STRICT;
"""
_CONTEXT = b"fallow/1/set-off"
_ONCE = "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?)"
_AS_NOW = """INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT (party, reference) DO UPDATE
    SET ours_ucr = excluded.ours_ucr, theirs_ucr = excluded.theirs_ucr
    WHERE (ours_ucr, theirs_ucr) != (excluded.ours_ucr, excluded.theirs_ucr)"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A party owes us, or we owe it, so much more."""

    party: bytes
    reference: str
    ours_ucr: int = 0
    """What the party owes us; less than nothing: of its debt, so much is gone."""
    theirs_ucr: int = 0
    """What we owe the party."""
    grows: bool = False
    """It is as the book has it now, as of a channel that goes on; else it is what was said first."""


Books: TypeAlias = Callable[[bytes | None], Iterable[Entry]]
"""What another book says of a party, or of everybody (None), all that it ever said."""


def no_books(party: bytes | None) -> Iterable[Entry]:
    """There is nothing but what was posted."""
    return ()


def channel_reference(channel: bytes) -> str:
    """By which both sides know what a channel's vouchers have made due."""
    return f"channel {channel.hex()}"


class Ledger:
    """One party's book of mutual debts. `key` is who owes and is owed here."""

    name = "ledger"

    def __init__(self, path: Path, key: SigningKey, books: Books = no_books) -> None:
        self._key = key
        self._party = bytes(key.verify_key)
        self._books = books
        self._db = database(path)
        for setting in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
            self._db.execute(setting)
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Everything is on disk."""
        self._db.close()

    @property
    def address(self) -> str:
        return self._party.hex()

    def post(self, party: bytes, reference: str, *, ours_ucr: int = 0, theirs_ucr: int = 0) -> bool:
        """The party owes us, or we owe it, so much more; False if this reference was posted before."""
        return self._db.execute(_ONCE, (party, reference, ours_ucr, theirs_ucr)).rowcount > 0

    def owed_ucr(self, party: bytes) -> tuple[int, int]:
        """What the party owes us, and what we owe it, as of now."""
        with transaction(self._db):
            return self._owed_ucr(party)

    def balance_ucr(self, party: bytes) -> int:
        """What the party owes us in the end; less than nothing: we owe it. No set-off changes it."""
        ours, theirs = self.owed_ucr(party)
        return ours - theirs

    def balances(self) -> dict[bytes, tuple[int, int]]:
        """As `owed_ucr`, of every party that was ever in these books."""
        with transaction(self._db):
            self._bring_in(None)
            rows = self._db.execute(
                """SELECT party, sum(ours_ucr), sum(theirs_ucr) FROM entries GROUP BY party
                   ORDER BY sum(ours_ucr) - sum(theirs_ucr) DESC, party"""
            ).fetchall()
        return {party: (int(ours), int(theirs)) for party, ours, theirs in rows}

    def entries(self, party: bytes) -> list[Entry]:
        """What the party's balance is made of, as of now."""
        with transaction(self._db):
            self._bring_in(party)
            query = "SELECT reference, ours_ucr, theirs_ucr FROM entries WHERE party = ? ORDER BY rowid"
            return [Entry(party, *row) for row in self._db.execute(query, (party,)).fetchall()]

    def pay(self, invoice: Invoice) -> bytes:
        """By waiving what the payee owes us."""
        payee, name = _party(invoice.address), invoice_id(self.name, invoice)
        with transaction(self._db):
            if row := self._db.execute("SELECT means FROM payments WHERE id = ?", (name,)).fetchone():
                check_paid(row[0], invoice, invoice.ucr)
                return bytes(row[0])
            if (owed_ucr := self._owed_ucr(payee)[0]) < invoice.ucr:
                message = f"The payee owes us {owed_ucr} ucr, and {invoice.ucr} are to be set off."
                raise Refused(Code.CREDIT_EXHAUSTED, message)
            signed = _signed(self._party, payee, invoice.payer, invoice.ucr, invoice.reference)
            body = encode([self._party, payee, self._key.sign(signed).signature])
            means = Means(self.name, invoice.payer, invoice.reference, invoice.ucr, body).encode()
            # A debt of somebody else's, which was paid for them, stands in their own books.
            theirs_ucr = -invoice.ucr if invoice.payer == self._party else 0
            self.post(payee, payment_id(self.name, signed).hex(), ours_ucr=-invoice.ucr, theirs_ucr=theirs_ucr)
            self._db.execute("INSERT INTO payments VALUES (?, ?)", (name, means))
        return means

    def take(self, means: bytes) -> Taken:
        """If we owe the one who waives it so much."""
        found = read_means(means, self.name)
        waiver, payee, signature = _body(found.body)
        signed = _signed(waiver, payee, found.payer, found.ucr, found.reference)
        try:
            VerifyKey(waiver).verify(signed, signature)
        except (BadSignatureError, CryptoError, ValueError):
            raise RemoteProtocolError(Code.BAD_SIGNATURE, "The set-off is not signed by the one who waives.") from None
        if payee != self._party:
            raise RemoteProtocolError(Code.BAD_RECORD, "The set-off is against somebody else's debt.")
        id = payment_id(self.name, signed)
        with transaction(self._db):
            known = self._db.execute(
                "SELECT 1 FROM entries WHERE party = ? AND reference = ?", (waiver, id.hex())
            ).fetchone()
            if not known:
                if self._owed_ucr(waiver)[1] < found.ucr:
                    raise RemoteProtocolError(Code.BAD_RECORD, "The set-off waives more than we owe.")
                self._set_off(waiver, found.payer, id.hex(), found.ucr)
        return Taken(id, found.payer, found.ucr, 0, found.reference)

    def _set_off(self, waiver: bytes, payer: bytes, reference: str, ucr: int) -> None:
        """What we owe the one, and what the other owes us, is smaller by as much: they may be one."""
        if waiver == payer:
            self.post(waiver, reference, ours_ucr=-ucr, theirs_ucr=-ucr)
        else:
            self.post(waiver, reference, theirs_ucr=-ucr)
            self.post(payer, reference, ours_ucr=-ucr)

    def _owed_ucr(self, party: bytes) -> tuple[int, int]:
        self._bring_in(party)
        ours, theirs = self._db.execute(
            "SELECT coalesce(sum(ours_ucr), 0), coalesce(sum(theirs_ucr), 0) FROM entries WHERE party = ?", (party,)
        ).fetchone()
        return int(ours), int(theirs)

    def _bring_in(self, party: bytes | None) -> None:
        """What the other books say is here, too. They are read while nobody else writes to this one: what is written last was
        read last."""
        for entry in self._books(party):
            row = (entry.party, entry.reference, entry.ours_ucr, entry.theirs_ucr)
            self._db.execute(_AS_NOW if entry.grows else _ONCE, row)


def _signed(waiver: bytes, payee: bytes, payer: bytes, ucr: int, reference: str) -> bytes:
    return _CONTEXT + encode([waiver, payee, payer, ucr, reference])


def _body(body: bytes) -> tuple[bytes, bytes, bytes]:
    match decode_untrusted(body, bytes_max=MEANS_BYTES_MAX):
        case [bytes(waiver), bytes(payee), bytes(signature)] if len(signature) == 64:
            return waiver, payee, signature
        case _:
            raise RemoteProtocolError(Code.BAD_RECORD, "A set-off has two parties and a signature.")


def _party(address: str) -> bytes:
    try:
        return bytes.fromhex(address)
    except ValueError:
        raise Refused(Code.BAD_CONFIG, f"{address[:80]!r} is no party's key in hex.") from None
