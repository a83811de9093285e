"""What is owed: vouchers after their stream, grounds, and what settles a debt (page 05)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..limits import MEANS_BYTES_MAX, QUORUM_MAX, RAILS_MAX
from ..prices import Ucr
from ..schema import Hash, Size, Text, Word
from .fields import Envelope


@dataclass(frozen=True, slots=True)
class VoucherRequest:
    """Client: this is owed to you; the job's stream that it belongs to was lost."""

    KIND: ClassVar[str] = "voucher-request"
    channel: Envelope
    """A `channel`: the one that the voucher names."""
    voucher: Envelope
    """A `voucher`."""


@dataclass(frozen=True, slots=True)
class VoucherReply:
    """Node: it is on disk."""

    KIND: ClassVar[str] = "voucher-reply"
    voucher: Hash
    """Id of the voucher."""


@dataclass(frozen=True, slots=True)
class GroundRequest:
    """Payer: so much of what I hold is forfeited, by this committee."""

    KIND: ClassVar[str] = "ground-request"
    channel: Envelope
    """A `channel`: the one on which it is held."""
    order: Envelope
    """A `job-order`: one that the payee accepted on it."""
    receipt: Envelope
    """A `receipt` of the order: the committee was drawn for it."""
    ucr: Ucr
    """What is forfeited."""
    verdicts: Annotated[tuple[Envelope, ...], Size(1, QUORUM_MAX)]
    """The same `verdict` by each of its signers."""
    mandates: Annotated[tuple[Envelope, ...], Size(1, QUORUM_MAX)]
    """A `mandate` for each of them."""


@dataclass(frozen=True, slots=True)
class GroundReply:
    """Node: it is on disk."""

    KIND: ClassVar[str] = "ground"
    ground: Hash
    """Id of the ground."""
    ucr: Ucr
    """What is forfeited: as was said, or less where the rest had been released before."""


@dataclass(frozen=True, slots=True)
class RailsRequest:
    """Payer: where can you be paid?"""

    KIND: ClassVar[str] = "rails-request"


@dataclass(frozen=True, slots=True)
class RailsReply:
    """Node: here."""

    KIND: ClassVar[str] = "rails"
    rails: Annotated[tuple[Word, ...], Size(0, RAILS_MAX)]
    """Names of rails."""
    addresses: Annotated[tuple[Text, ...], Size(0, RAILS_MAX)]
    """Where its owner is paid on each of them, in the same order."""

    def __post_init__(self) -> None:
        if len(self.rails) != len(self.addresses):
            raise ValueError("not one address for each rail")


@dataclass(frozen=True, slots=True)
class MeansRequest:
    """Payer: this settles what is owed."""

    KIND: ClassVar[str] = "means-request"
    means: Annotated[bytes, Size(1, MEANS_BYTES_MAX)]
    """`Means`, encoded."""


@dataclass(frozen=True, slots=True)
class MeansReply:
    """Node: they are its owner's, and counted; or, of a deposit, held."""

    KIND: ClassVar[str] = "means"
    payment: Hash
    """The payment's id on its rail."""
    ucr: Ucr
    """What it settles, or secures."""
