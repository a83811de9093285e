"""Cashu: ecash of a mint, paid in tokens that only the payee's key can spend.

Here is what is paid, taken, and locked as a deposit; what the mint is asked for it goes by the `Outbox`, which a crash does not
empty. Amounts are in the mint's unit; `ucr_per_unit` is what both sides agreed one is worth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from coincurve import PrivateKey

from ...protocol.errors import Code, NetworkError, Refused, RemoteProtocolError
from ...protocol.means import Means
from .cashu_crypto import amounts_of, blinded, lock_of, locked, witness
from .cashu_file import adopt, open_file
from .cashu_means import NAME, id_of, locked_tokens, payment_of, point_of, tokens_of, until_s_of
from .cashu_mint import Mint
from .cashu_outbox import Outbox, Output
from .cashu_quotes import Quotes
from .cashu_selection import balance, choose
from .rail import Invoice, Taken, check_paid, in_utc, invoice_id, read_means

_REFUSED_TO_ANOTHER: Final = "The mint refused it to another process of ours just now: try again."
_KEY: Final = re.compile(r"0[23][0-9a-f]{64}")


class Cashu:
    """One party's purse at one mint. `key` spends what is locked to this party."""

    name = NAME

    def __init__(self, path: Path, mint: str, key: bytes, ucr_per_unit: int) -> None:
        self._key = PrivateKey(key)
        self._ucr_per_unit = ucr_per_unit
        self._db = open_file(path)
        self._mint = Mint(mint)
        self._outbox = Outbox(self._db, self._mint, ucr_per_unit)
        self.quotes = Quotes(self._db, self._mint, self._outbox)
        """How ecash gets into it."""

    def close(self) -> None:
        """Everything is on disk."""
        self._db.close()

    @property
    def address(self) -> str:
        """The key to which payments are locked."""
        return self._key.public_key.format().hex()

    @property
    def terms(self) -> str:
        """The address, the mint and what its unit is worth: who pays at another mint, or counts otherwise, pays nothing."""
        return f"{self.address} {self._mint.address} {self._ucr_per_unit}"

    @property
    def ucr_per_unit(self) -> int:
        return self._ucr_per_unit

    @property
    def balance(self) -> int:
        """In the mint's unit."""
        return balance(self._db)

    def pay(self, invoice: Invoice, *, until_s: int = 0) -> bytes:
        """In tokens locked to the payee's key. With `until_s` they are a deposit: from then on they are ours again if the payee
        has not taken them (`take_back`). An address with terms has to have ours."""
        address, *terms = invoice.address.split(" ")
        if terms and terms != self.terms.split(" ")[1:]:
            ours = f"this purse is of {self._mint.address} at {self._ucr_per_unit}"
            message = f"The payee takes ecash of {' at '.join(terms)} ucr a unit, and {ours}: nothing was paid."
            raise Refused(Code.BAD_TERMS, message)
        invoice = replace(invoice, address=address)
        amount, id = -(-invoice.ucr // self._ucr_per_unit), invoice_id(NAME, invoice)
        adopt(self._db, id, invoice)
        means = self._outbox.means_of(id) or self._pay(id, invoice, amount, until_s)
        check_paid(means, invoice, amount * self._ucr_per_unit)
        locks = {lock_of(each["secret"]) for each in json.loads(read_means(means, NAME).body)["proofs"]}
        if locks != {(invoice.address, until_s)}:
            message = (
                f"{invoice.reference!r} was paid before, and locked otherwise: give another payment another reference."
            )
            raise Refused(Code.BAD_CONFIG, message)
        return means

    def take(self, means: bytes) -> Taken:
        """Swapped at the mint for tokens of our own: from then on nobody else can spend them."""
        found = read_means(means, NAME)
        proofs = self._locked_to_us(found)
        id, amount = id_of(proofs), sum(each["amount"] for each in proofs)
        if (kept := self._outbox.fee_of(id.hex())) is None:
            fee = self._mint.fee(len(proofs))
            if fee >= amount:
                raise RemoteProtocolError(Code.BAD_RECORD, f"The mint would keep all of it: its fee is {fee}.")
            kept = self._swap(id.hex(), proofs, amount - fee, fee)
        return Taken(id, found.payer, found.ucr, kept * self._ucr_per_unit, found.reference)

    def locked_until_s(self, means: bytes) -> int:
        """Of a deposit to us, until when nobody but us can take it; 0: for ever. Raises as `take` does, and for one that is
        spent already, or of which the mint's proof (DLEQ) is missing: a mint says of tokens that it never signed, too, that
        nobody has spent them."""
        found = read_means(means, NAME)
        proofs = self._locked_to_us(found)
        self._mint.check_signed(json.loads(found.body)["proofs"])
        if any(state != "UNSPENT" for state in self._mint.states([point_of(each) for each in proofs])):
            raise RemoteProtocolError(Code.BAD_RECORD, "The deposit is spent.")
        return until_s_of(means)

    def tokens(self, means: bytes) -> frozenset[str]:
        """What their mint knows the tokens of a deposit by. Raises as `take` does."""
        return frozenset(point_of(each) for each in self._locked_to_us(read_means(means, NAME)))

    def means_of(self, invoice: Invoice) -> bytes | None:
        """What was paid for it; None if nothing is yet."""
        return self._outbox.means_of(invoice_id(NAME, invoice))

    def is_asked(self, invoice: Invoice) -> bool:
        """Whether the mint was asked for it, and its answer is not here yet."""
        return self._outbox.is_asked(invoice_id(NAME, invoice))

    def worth_ucr(self, means: bytes) -> int:
        """What is left of the tokens once the mint has kept its fee of a swap. Raises `RemoteProtocolError`, `NetworkError`."""
        proofs = tokens_of(means)
        left = sum(int(each["amount"]) for each in proofs) - self._mint.fee(len(proofs))
        return left * self._ucr_per_unit

    def payment_of(self, means: bytes) -> bytes:
        """The payment that these means are once their payee has taken them. Raises `RemoteProtocolError` for no tokens."""
        return payment_of(means)

    def until_s_of(self, means: bytes) -> int:
        """When the first of the tokens may go back to who paid; 0: never. Nobody is asked whether they are any. Raises
        `RemoteProtocolError` for no tokens."""
        return until_s_of(means)

    def has_taken(self, means: bytes) -> bool:
        """Whether these means are ours already."""
        return self._outbox.fee_of(payment_of(means).hex()) is not None

    def take_back(self, means: bytes, now_s: int) -> int:
        """A deposit of ours whose time is over is in the purse again, so many micro-credits of it, without the mint's fee.
        Again is no change. Raises `Refused`: `locked` before its time, `spent` if its payee has taken it; `NetworkError`."""
        proofs, id = tokens_of(means), _back(means)
        until_s, amount = (
            max(lock_of(each["secret"])[1] for each in proofs),
            sum(int(each["amount"]) for each in proofs),
        )
        if (kept := self._outbox.fee_of(id)) is None:
            if now_s < until_s:
                raise Refused(Code.LOCKED, f"It is locked until {in_utc(until_s)}. Nothing was done.")
            fee = self._mint.fee(len(proofs))
            if fee >= amount:
                raise Refused(Code.BAD_TERMS, f"The mint would keep all of it: its fee is {fee}.")
            try:
                kept = self._swap(id, proofs, amount - fee, fee)
            except RemoteProtocolError:
                if self.is_taken(means):
                    raise Refused(Code.SPENT, "Its payee has taken it.") from None
                raise
        return (amount - kept) * self._ucr_per_unit

    def is_spent(self, means: bytes) -> bool:
        """Whether the mint says that any of its tokens was spent, by whomever."""
        return any(state == "SPENT" for state in self._mint.states([point_of(each) for each in tokens_of(means)]))

    def is_taken(self, means: bytes) -> bool:
        """Whether a deposit of ours was spent, and not by `take_back`, which is finished if begun. Raises `NetworkError`,
        and `RemoteProtocolError` if the mint does not say."""
        return self._is_others(means, _back(means))

    def is_lost(self, means: bytes) -> bool:
        """Whether tokens to us were spent, and not by `take`, which is finished if it was begun. Raises as `is_taken` does."""
        return self._is_others(means, payment_of(means).hex())

    def is_back(self, means: bytes) -> bool:
        """Whether `take_back` has put it into the purse."""
        return self._outbox.fee_of(_back(means)) is not None

    def _locked_to_us(self, means: Means) -> list[dict[str, Any]]:
        return locked_tokens(means, self.address, self._mint.address, self._ucr_per_unit)

    def _is_others(self, means: bytes, id: str) -> bool:
        if not self.is_spent(means):
            return False
        if self._outbox.is_asked(id):
            try:
                self._outbox.finish(id)
            except RemoteProtocolError:
                if self._outbox.is_asked(id):
                    raise
        return self._outbox.fee_of(id) is None

    def _swap(self, id: str, proofs: Sequence[dict[str, Any]], amount: int, fee: int) -> int:
        """Tokens that our key spends are ours alone, less the mint's fee, which is returned: by this request, or by one before
        it. Raises `RemoteProtocolError` for the mint's no."""
        inputs = [{**each, "witness": witness(each["secret"], self._key)} for each in proofs]
        outputs = [Output(each, blinded(), True) for each in amounts_of(amount)]
        self._outbox.ask_once(id, "/v1/swap", {"inputs": inputs}, outputs, fee=fee)
        if (kept := self._outbox.fee_of(id)) is None:
            raise NetworkError(Code.PEER_UNREACHABLE, _REFUSED_TO_ANOTHER)
        return kept

    def _pay(self, id: str, invoice: Invoice, amount: int, until_s: int) -> bytes:
        """The means are on disk. What a process before this one asked for goes out as it asked for it."""
        if not _KEY.fullmatch(invoice.address):
            raise Refused(Code.BAD_CONFIG, f"{invoice.address[:80]!r} is no key that tokens could be locked to.")
        if not self._outbox.is_asked(id):
            inputs = choose(self._db, amount, self._mint.fee)
            change = sum(each["amount"] for each in inputs) - amount - self._mint.fee(len(inputs))
            lock = (invoice.address, until_s, self.address)
            outputs = [Output(each, blinded(locked(*lock)), False) for each in amounts_of(amount)]
            outputs += [Output(each, blinded(), True) for each in amounts_of(change)]
            self._outbox.keep(id, "/v1/swap", {"inputs": inputs}, outputs, invoice, [each["secret"] for each in inputs])
        self._outbox.finish(id)
        if (means := self._outbox.means_of(id)) is None:
            raise Refused(Code.BUSY, _REFUSED_TO_ANOTHER)
        return means


def _back(means: bytes) -> str:
    """By which the outbox knows that a deposit is taken back. Raises `RemoteProtocolError`."""
    return f"back {payment_of(means).hex()}"
