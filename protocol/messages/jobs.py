"""Jobs: one order, and all that follows it (page 03)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from ..schema import Text, Uint, Word
from .fields import Bulk, Envelope
from .refusals import RefuseMessage


@dataclass(frozen=True, slots=True)
class OrderMessage:
    """Client: please run this. `voucher` is the channel's latest, so that both sides start from the same count."""

    KIND: ClassVar[str] = "order"
    order: Envelope
    """A `job-order`."""
    channel: Envelope
    """A `channel`: the one that the order names."""
    voucher: Envelope | None
    """A `voucher` of the channel; absent if there is none yet."""
    sealed_input: Bulk
    """An `Input`, by HPKE to the worker's key."""


@dataclass(frozen=True, slots=True)
class AcceptMessage:
    """Executor: agreed."""

    KIND: ClassVar[str] = "accept"
    accept: Envelope
    """An `accept`."""


@dataclass(frozen=True, slots=True)
class ChunkMessage:
    """Executor: the next piece, sealed for the client."""

    KIND: ClassVar[str] = "chunk"
    index: Uint
    """0 for the first: the nonce of its sealing."""
    sealed: Bulk
    """A `Piece` under the reply secret."""


@dataclass(frozen=True, slots=True)
class ReceiptMessage:
    """Executor: the window's receipt."""

    KIND: ClassVar[str] = "receipt"
    receipt: Envelope
    """A `receipt`."""


@dataclass(frozen=True, slots=True)
class AttestationMessage:
    """Checker: its finding."""

    KIND: ClassVar[str] = "attestation"
    attestation: Envelope
    """An `attestation`."""


@dataclass(frozen=True, slots=True)
class VoucherMessage:
    """Client: payment for a receipt."""

    KIND: ClassVar[str] = "voucher"
    voucher: Envelope
    """A `voucher`."""


@dataclass(frozen=True, slots=True)
class HeartbeatMessage:
    """Either: still here."""

    KIND: ClassVar[str] = "heartbeat"


@dataclass(frozen=True, slots=True)
class CancelMessage:
    """Client: enough. It asks for the final receipt; one that is under way already needs no other."""

    KIND: ClassVar[str] = "cancel"
    reason: Text
    """For a person; nothing is decided by it."""


@dataclass(frozen=True, slots=True)
class DeclineMessage:
    """Client: the final receipt gets no voucher, and why."""

    KIND: ClassVar[str] = "decline"
    reason: Text
    """For a person; nothing is decided by it."""


@dataclass(frozen=True, slots=True)
class YieldMessage:
    """Executor: the owner wants the machine; a receipt for the part done follows."""

    KIND: ClassVar[str] = "yield"
    reason: Text
    """For a person; nothing that tells where the owner is."""


@dataclass(frozen=True, slots=True)
class FailedMessage:
    """Executor: it cannot go on; nothing more follows and nothing more is owed."""

    KIND: ClassVar[str] = "failed"
    code: Word
    """From the registry of errors."""
    detail: Text
    """For a person; nothing is decided by it."""


JobMessage: TypeAlias = (
    OrderMessage | AcceptMessage | RefuseMessage | ChunkMessage | ReceiptMessage | AttestationMessage | VoucherMessage
    | HeartbeatMessage | CancelMessage | DeclineMessage | YieldMessage | FailedMessage
)  # fmt: skip
