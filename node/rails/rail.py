"""What every rail does: pay an invoice once, and take what was paid once.

    payer                                payee
      |-- pay(invoice) -> means             |
      |-- means ------- by any way -------->|
      |                  take(means) -> Taken: final, and the same again if it is taken again

A rail keeps its own state on disk, so that neither a crash nor a repetition pays or counts anything twice. An EVM channel would
be one more: `pay` gives the payer's signature on the channel's new balance, `take` checks it and redeems it when it likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from blake3 import blake3

from ...protocol.codec import encode
from ...protocol.errors import Code, Refused, RemoteProtocolError
from ...protocol.means import Means, decode_means_untrusted
from ..paid import Payment


@dataclass(frozen=True, slots=True)
class Invoice:
    """Who is to pay how much to whom, and for what."""

    payer: bytes
    """Whose debt it settles: the key that signs vouchers."""
    payee: bytes
    """The node's key: an owner may have many nodes, and each counts what was paid to it."""
    address: str
    """The payee's on this rail, as its own `address` has it."""
    ucr: int
    reference: str
    """The payer's name for the payment: with payer and payee it is what a payment is known by."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What has come in for good."""

    id: bytes
    payer: bytes
    ucr: int
    fee_ucr: int
    reference: str

    def payment(self, rail: str, now_ms: int) -> Payment:
        """For the journal, where the same id counts once."""
        return Payment(self.id, self.payer, rail, self.ucr, self.fee_ucr, self.reference, now_ms)


class Rail(Protocol):
    """One way to pay."""

    name: str

    @property
    def address(self) -> str:
        """Where this party is paid."""

    def pay(self, invoice: Invoice) -> bytes:
        """The means that settle it; the same ones if it was paid before.

        Raises `Refused`: `credit_exhausted` if there is not so much to pay with, `bad_config` if the same payer has paid the
        same payee another amount under this reference; `NetworkError` if the rail cannot be reached:
        then nothing was paid, or the next try finds that it was.
        """

    def take(self, means: bytes) -> Taken:
        """The payment is this party's for good. Raises `RemoteProtocolError` for means that are altered, for somebody else, or
        were taken by another, `NetworkError` as `pay` does."""


def read_means(means: bytes, rail: str) -> Means:
    """Raises `RemoteProtocolError` unless these are means of this rail."""
    found = decode_means_untrusted(means)
    if found.rail != rail:
        raise RemoteProtocolError(Code.BAD_RECORD, f"These are means of {found.rail!r}, not of {rail!r}.")
    return found


def invoice_id(rail: str, invoice: Invoice) -> str:
    """What its payer knows the payment by. The same reference, to another node, is another payment."""
    return payment_id(rail, encode([invoice.payer, invoice.payee, invoice.reference])).hex()


def check_paid(means: bytes, invoice: Invoice, ucr: int) -> None:
    """Raises `Refused(bad_config)` unless these means of its id settle so much: then it is another payment that was meant."""
    if (paid_ucr := decode_means_untrusted(means).ucr) != ucr:
        message = (
            f"{invoice.reference!r} has paid this node {paid_ucr} ucr before, not {ucr}. Nothing was paid now;"
            " give another payment another reference."
        )
        raise Refused(Code.BAD_CONFIG, message)


def in_utc(time_s: int) -> str:
    """A time for people."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def payment_id(rail: str, body: bytes) -> bytes:
    """The same payment has the same."""
    return blake3(f"fallow/1/payment/{rail}/".encode() + body).digest()
