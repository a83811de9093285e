"""What a payer signs: a channel to one node, and on it vouchers that only grow.

A voucher is a signed cumulative promise, so the latest one is always enough; it names the receipt that it answers, so
that every credit can be explained. What the two sides do with them is in `channel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

from .envelope import Signed
from .errors import Code, RemoteProtocolError
from .holding import Held, total_ucr, unreleased
from .identity import check_current
from .limits import HELD_MAX
from .prices import Ucr
from .schema import Hash, Key, Nonce, Size, Uint, Word

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
    """The payer has promised the channel's payee in all what is due, held and forfeited together."""

    RECORD: ClassVar[str] = "voucher"

    channel: Hash
    """Id of the channel."""
    receipt: Hash
    """The receipt that this voucher answers. One that only moves what is held names any receipt that was answered."""
    due_ucr: Ucr
    """Owed now, for all receipts of the channel together. Never decreases."""
    held: Annotated[tuple[Held, ...], Size(0, HELD_MAX)]
    """What is held, in parts: in the order in which they fall due."""
    forfeited_ucr: Ucr
    """Was held, and is not owed any more, by committees' verdicts or self-proving evidence. What is given up of it is due."""

    def __post_init__(self) -> None:
        if any(later.release_at_ms <= part.release_at_ms for part, later in pairwise(self.held)):
            raise ValueError("the parts of what a voucher holds stand in the order in which they fall due")

    @property
    def held_ucr(self) -> int:
        """All parts together, as signed: whatever has fallen due since."""
        return total_ucr(self.held)

    @property
    def promised_ucr(self) -> int:
        """Whatever has become of it. Never decreases."""
        return self.due_ucr + self.held_ucr + self.forfeited_ucr

    def gone_ucr(self, at_ms: int) -> int:
        """What is due, released or forfeited by then, if nothing more is signed."""
        return self.promised_ucr - total_ucr(unreleased(self.held, at_ms))


def follows(later: Voucher, earlier: Voucher) -> bool:
    """Whether `later` takes back nothing that `earlier` promised.

    What is due does not shrink; and at every time, at least as much is due, released or forfeited. So nothing is released later
    than it was to be. This orders all vouchers of an honest payer, in whatever order they arrive.
    """
    if later.due_ucr < earlier.due_ucr or later.gone_ucr(0) < earlier.gone_ucr(0):
        return False
    return all(later.gone_ucr(part.release_at_ms) >= earlier.gone_ucr(part.release_at_ms) for part in earlier.held)


def rank_of(voucher: Voucher) -> tuple[int, int, int]:
    """Of two vouchers one of which follows the other, the later one has the greater.

    It promises more; or else as much, and on average sooner; or else what was forfeited is due.
    """
    waiting = sum(part.ucr * part.release_at_ms for part in voucher.held)
    return voucher.promised_ucr, -waiting, voucher.due_ucr


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
