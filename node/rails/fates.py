"""What has become of the deposits that a party has made: the mint is asked, and what it says is written down, here alone.

    begun -> locked -> taken by its payee: of a node, a payment in the party's ledger
                    -> over -> taken back

Whoever shows deposits, or a balance, looks here first. What is decided is on disk, and is not asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ...protocol.errors import NetworkError, RemoteProtocolError
from ...protocol.means import decode_means_untrusted
from .deposits import DepositBook, Made
from .ledger import Ledger
from .rail import Invoice


class Fate(StrEnum):
    """Where a deposit stands."""

    BEGUN = "begun"
    """Its terms are on disk. The mint may have been asked for it, and its answer is not here."""
    LOCKED = "locked"
    OVER = "over"
    """Its time is over, and nobody has taken it."""
    TAKEN = "taken"
    """By its payee."""
    BACK = "back"
    """It is in the purse again."""
    UNKNOWN = "unknown"
    """There is no mint to ask, or it does not say."""


class Purse(Protocol):
    """What deposits are made of, as `rails.cashu.Cashu`."""

    def means_of(self, invoice: Invoice) -> bytes | None: ...
    def payment_of(self, means: bytes) -> bytes: ...
    def is_taken(self, means: bytes) -> bool: ...
    def is_back(self, means: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class Deposit:
    """One that was made, and what has become of it."""

    made: Made
    fate: Fate
    means: bytes | None = None

    @property
    def ucr(self) -> int:
        """What is locked: what was asked for, rounded up to whole units of the mint."""
        return decode_means_untrusted(self.means).ucr if self.means else self.made.ucr


@dataclass(frozen=True, slots=True)
class Fates:
    """Of the deposits in `book`, all of them `payer`'s. `purse`: None where no mint is set."""

    payer: bytes
    book: DepositBook
    ledger: Ledger
    purse: Purse | None

    def look(self, now_s: int) -> list[Deposit]:
        """Every deposit that was begun, oldest first; what the mint has decided is on disk. A mint that does not answer is
        asked once, and not for each of them. Blocks."""
        found, asks = [], True
        for made in self.book.all_made():
            deposit, heard = self._look_at(made, now_s, asks=asks)
            asks = asks and heard
            found.append(deposit)
        return found

    def look_at(self, made: Made, now_s: int) -> Deposit:
        """As `look`, at one of them."""
        return self._look_at(made, now_s, asks=True)[0]

    def invoice(self, made: Made) -> Invoice:
        """By which the purse knows it."""
        return Invoice(self.payer, made.payee, made.address, made.ucr, made.reference)

    def note_taken(self, made: Made, means: bytes) -> None:
        """The payee has taken it: that is on disk and, of a node, a payment to it."""
        assert self.purse is not None, "it is made of ecash"
        if made.for_node:
            paid_ucr = decode_means_untrusted(means).ucr
            self.ledger.post(made.payee, self.purse.payment_of(means).hex(), theirs_ucr=-paid_ucr)
        self.book.note_taken(made.reference)

    def _look_at(self, made: Made, now_s: int, *, asks: bool) -> tuple[Deposit, bool]:
        """The deposit, and whether the mint answers, as far as that is known."""
        if self.purse is None:
            return Deposit(made, _decided(made) or Fate.UNKNOWN), True
        means = self.purse.means_of(self.invoice(made))
        if fate := _decided(made) or (Fate.BEGUN if means is None else None):
            return Deposit(made, fate, means), True
        assert means is not None
        fate, heard = Fate.UNKNOWN, True
        if asks:
            try:
                fate = self._asked(self.purse, made, means, now_s)
            except RemoteProtocolError:
                pass  # it says nothing of these tokens
            except NetworkError:
                heard = False
        return Deposit(made, fate, means), heard

    def _asked(self, purse: Purse, made: Made, means: bytes, now_s: int) -> Fate:
        if purse.is_taken(means):
            self.note_taken(made, means)
            return Fate.TAKEN
        if purse.is_back(means):  # the process that took it back has ended before it wrote so
            self.book.note_back(made.reference)
            return Fate.BACK
        return Fate.OVER if now_s >= made.until_s else Fate.LOCKED


def _decided(made: Made) -> Fate | None:
    if made.back:
        return Fate.BACK
    return Fate.TAKEN if made.taken else None
