"""Payment channels: one payer process, one node, and vouchers that only grow.

A voucher is a signed cumulative promise, so the latest one is always enough; it names the receipt that it answers, so
that every credit can be explained.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from .envelope import Signed
from .errors import Code, LocalProtocolError, RemoteProtocolError
from .identity import check_current
from .prices import Ucr
from .schema import Hash, Key, Nonce, Uint, Word

LEDGER = "ledger"
"""The rail of mutual credit: provable debt between payer and owner, kept by both in SQLite."""


@dataclass(frozen=True, slots=True)
class Channel:
    """The payer opens a channel to one node; what the node earns on it belongs to `payout_owner`."""

    RECORD: ClassVar[str] = "channel"

    payer: Key
    payee: Key
    payout_owner: Key
    rail: Word
    credit_limit_ucr: Ucr
    nonce: Nonce
    """One per payer process: two processes with one key never share a counter."""
    opened_ms: Uint
    expires_ms: Uint
    close_grace_ms: Uint
    """After `expires_ms`, the payee may still claim its latest voucher for so long."""


@dataclass(frozen=True, slots=True)
class Voucher:
    """The payer owes the channel's payee, in all, `due_ucr` now and `held_ucr` from `release_at_ms` unless forfeited.

    Nothing agrees to held pay yet, so a payee takes no voucher that holds any.
    """

    RECORD: ClassVar[str] = "voucher"

    channel: Hash
    receipt: Hash
    """The receipt that this voucher answers."""
    due_ucr: Ucr
    held_ucr: Ucr
    release_at_ms: Uint


@dataclass(slots=True)
class ChannelState:
    """One side's view of a channel. The payer grows it by `pay`, the payee by `receive`; both are monotonic."""

    channel: Signed[Channel]
    latest: Signed[Voucher] | None = None
    named: dict[bytes, int] = field(default_factory=dict)
    """Receipt id -> micro-credits that its voucher added."""
    _named_ucr: int = field(init=False)
    """Sum of `named`, kept: a channel's vouchers are many, and each is held against all before it."""

    def __post_init__(self) -> None:
        self._named_ucr = sum(self.named.values())

    @property
    def promised_ucr(self) -> int:
        """Due and held together."""
        return _total_ucr(self.latest.record) if self.latest else 0

    @property
    def room_ucr(self) -> int:
        """What the channel's limit still covers."""
        return self.channel.record.credit_limit_ucr - self.promised_ucr

    def pay(self, receipt: bytes, added_ucr: int) -> Voucher:
        """The voucher that answers `receipt` with `added_ucr` more, due at once. Raises if the limit does not cover it."""
        if receipt in self.named:
            raise LocalProtocolError(Code.ILLEGAL_MOVE, "This receipt has its voucher already.")
        if not 0 <= added_ucr <= self.room_ucr:
            raise LocalProtocolError(Code.CREDIT_EXHAUSTED, f"{added_ucr} ucr more exceed the channel's limit.")
        due, held = (self.latest.record.due_ucr, self.latest.record.held_ucr) if self.latest else (0, 0)
        release_at_ms = self.latest.record.release_at_ms if self.latest else 0
        return Voucher(self.channel.id, receipt, due + added_ucr, held, release_at_ms)

    def paid(self, voucher: Signed[Voucher], added_ucr: int) -> None:
        """The payer signed and stored what `pay` gave."""
        self._name(voucher.record.receipt, added_ucr)
        self.latest = voucher

    def check(self, voucher: Signed[Voucher], owed_ucr: int) -> None:
        """Raises `RemoteProtocolError` unless the payee may take the voucher as `receive` does. Nothing changes."""
        record = voucher.record
        if record.channel != self.channel.id or voucher.signer != self.channel.record.payer:
            raise RemoteProtocolError(Code.BAD_SIGNATURE, "The voucher is for another channel or by another payer.")
        if record.held_ucr:
            # [REJECT] With a release of its payer's choosing, it would count as paid and never fall due.
            raise RemoteProtocolError(Code.BAD_RECORD, "The voucher holds pay back; nothing agrees to held pay.")
        if _total_ucr(record) > self.channel.record.credit_limit_ucr:
            raise RemoteProtocolError(Code.CREDIT_EXHAUSTED, "The voucher promises more than the channel's limit.")
        named_ucr = self._named_ucr - self.named.get(record.receipt, 0) + owed_ucr
        if max(_total_ucr(record), self.promised_ucr) < named_ucr:
            raise RemoteProtocolError(Code.UNPAID, "The voucher does not cover the receipt that it names.")

    def adds(self, voucher: Signed[Voucher]) -> bool:
        """Whether the voucher promises more than those so far, or names a receipt that none of them names."""
        return _total_ucr(voucher.record) > self.promised_ucr or voucher.record.receipt not in self.named

    def receive(self, voucher: Signed[Voucher], owed_ucr: int) -> None:
        """The payee takes a voucher for a receipt that raised the debt by `owed_ucr`.

        Vouchers of jobs side by side may overtake one another; a repeated one changes nothing. Raises
        `RemoteProtocolError` if, with all vouchers so far, the receipts that they name are not covered.
        """
        self.check(voucher, owed_ucr)
        self._name(voucher.record.receipt, owed_ucr)
        if self.latest is None or _total_ucr(voucher.record) >= self.promised_ucr:
            self.latest = voucher

    def _name(self, receipt: bytes, ucr: int) -> None:
        self._named_ucr += ucr - self.named.get(receipt, 0)
        self.named[receipt] = ucr


def _total_ucr(voucher: Voucher) -> int:
    return voucher.due_ucr + voucher.held_ucr


def check_channel(channel: Signed[Channel], node: bytes, owner: bytes, now_ms: int) -> None:
    """Raises `RemoteProtocolError` unless the payer itself opened the channel to this node and its owner, for now."""
    _check_parties(channel, node, owner)
    check_current(channel.record.opened_ms, channel.record.expires_ms, now_ms, "channel")


def check_claim(channel: Signed[Channel], node: bytes, owner: bytes, now_ms: int) -> None:
    """As `check_channel`, for what is already owed: the channel may have ended up to `close_grace_ms` ago."""
    _check_parties(channel, node, owner)
    record = channel.record
    check_current(record.opened_ms, record.expires_ms + record.close_grace_ms, now_ms, "channel")


def _check_parties(channel: Signed[Channel], node: bytes, owner: bytes) -> None:
    record = channel.record
    if channel.signer != record.payer:
        raise RemoteProtocolError(Code.BAD_SIGNATURE, "The channel is not signed by its payer.")
    if record.payee != node or record.payout_owner != owner:
        raise RemoteProtocolError(Code.WRONG_EXECUTOR, "The channel is to another node or owner.")
    if record.rail != LEDGER:
        raise RemoteProtocolError(Code.BAD_RECORD, f"The rail {record.rail!r} is not supported.")
