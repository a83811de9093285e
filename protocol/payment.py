"""What a payer signs: a channel to one node, and on it vouchers that only grow.

A voucher is a signed cumulative promise, so the latest one is always enough; it names the receipt that it answers, so
that every credit can be explained. What the two sides do with them is in `channel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .envelope import Signed
from .errors import Code, RemoteProtocolError
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
    """Who signs this, the orders and the vouchers; any key: a libp2p peer may have another."""
    payee: Key
    """The node's key."""
    payout_owner: Key
    """The node's owner, to whom what is due belongs."""
    rail: Word
    """How it is settled in the end: `ledger`, mutual credit."""
    credit_limit_ucr: Ucr
    """What may be due and held together."""
    nonce: Nonce
    """One per payer process: two processes with one key never share a counter."""
    opened_ms: Uint
    """In milliseconds since 1970."""
    expires_ms: Uint
    """No order is taken on the channel after it, and its closing begins."""
    close_grace_ms: Uint
    """From the beginning of its closing, either side may still bring the latest voucher that it has for so long."""


@dataclass(frozen=True, slots=True)
class Voucher:
    """The payer has promised the channel's payee in all `due_ucr` + `held_ucr` + `forfeited_ucr`."""

    RECORD: ClassVar[str] = "voucher"

    channel: Hash
    """Id of the channel."""
    receipt: Hash
    """The receipt that this voucher answers. One that only moves what is held names any receipt that was answered."""
    due_ucr: Ucr
    """Owed now, for all receipts of the channel together. Never decreases."""
    held_ucr: Ucr
    """Falls due by itself at `release_at_ms`, unless it is forfeited before."""
    forfeited_ucr: Ucr
    """Was held, and is not owed any more, by committees' verdicts or self-proving evidence. Never decreases."""
    release_at_ms: Uint
    """For all that is held: pay is held in periods. 0 exactly if nothing is held."""

    def __post_init__(self) -> None:
        if (self.held_ucr == 0) != (self.release_at_ms == 0):
            raise ValueError("a voucher has a time of release exactly if it holds something")

    @property
    def promised_ucr(self) -> int:
        """Whatever has become of it. Never decreases."""
        return self.due_ucr + self.held_ucr + self.forfeited_ucr


def follows(later: Voucher, earlier: Voucher) -> bool:
    """Whether `later` takes back nothing that `earlier` promised.

    Neither what is due nor what is forfeited shrinks; and at every time, at least as much is due, released or forfeited.
    So a release comes later only once everything that was held until then is due or forfeited. This orders all vouchers of
    an honest payer, in whatever order they arrive.
    """
    if later.due_ucr < earlier.due_ucr or later.forfeited_ucr < earlier.forfeited_ucr:
        return False
    if later.release_at_ms > earlier.release_at_ms:
        return later.due_ucr + later.forfeited_ucr >= earlier.promised_ucr
    return later.promised_ucr >= earlier.promised_ucr


def contradiction_of(one: Signed[Voucher], other: Signed[Voucher]) -> str | None:
    """How two vouchers of one channel prove that their payer equivocates; None if they prove nothing.

    A payer signs the vouchers of a channel one after the other, so of any two, one follows the other.
    """
    if one.signer != other.signer or one.record.channel != other.record.channel:
        return None
    if follows(one.record, other.record) or follows(other.record, one.record):
        return None
    return "each of the two vouchers takes back something that the other one promised"


def channel_contradiction_of(one: Signed[Channel], other: Signed[Channel]) -> str | None:
    """How two channels prove that their payer equivocates; None if they prove nothing. Both are signed by their payers."""
    a, b = one.record, other.record
    if (one.signer, a.payee, a.nonce) != (other.signer, b.payee, b.nonce) or a == b:
        return None
    return "two channels to one payee have the same nonce and differ"


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
