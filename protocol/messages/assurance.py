"""What judges sign and decide, and faults that prove themselves (page 04)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..limits import ADDRESSES_MAX, DISPUTES_MAX, PLEA_BYTES_MAX, QUORUM_MAX
from ..prices import Ucr
from ..schema import Hash, Key, Size, Text
from .fields import Bulk, Envelope

PleaEnvelope = Annotated[bytes, Size(1, PLEA_BYTES_MAX)]


@dataclass(frozen=True, slots=True)
class VerdictRequest:
    """Party to a verdict: do you come to the same?"""

    KIND: ClassVar[str] = "verdict-request"
    verdict: Hash
    """Id of the verdict, which is among the records."""
    proof: Bulk
    """A `ProofFile`: all that the verdict rests on, opened."""


@dataclass(frozen=True, slots=True)
class VerdictReply:
    """Verifier: I have run it again, and so I say."""

    KIND: ClassVar[str] = "verdict"
    verdict: Envelope
    """A `verdict` that says the same, signed by the verifier."""
    mandate: Envelope
    """A `mandate`: whose verifier it is."""


@dataclass(frozen=True, slots=True)
class DisputeRequest:
    """Claimant or accused to a judge: decide this. Judge to the accused: what do you say?"""

    KIND: ClassVar[str] = "dispute-request"
    dispute: Envelope
    """A `dispute`."""
    plea: PleaEnvelope | None
    """A `plea`: then the accused brings this."""
    proof: Bulk
    """A `ProofFile`, whose hash the dispute, or the plea, names. Empty where a judge asks."""
    addresses: Annotated[tuple[Text, ...], Size(0, ADDRESSES_MAX)]
    """Where the accused was last, as the claimant knows."""
    hearing: Envelope | None
    """A `hearing`: then the claimant asks for the decision."""


@dataclass(frozen=True, slots=True)
class PleaReply:
    """Accused: so I say. Judge to either side: so I have heard it."""

    KIND: ClassVar[str] = "plea"
    plea: PleaEnvelope | None
    """A `plea`; absent where a judge has heard none, and takes none any more."""


@dataclass(frozen=True, slots=True)
class DecisionReply:
    """Judge: so I decide."""

    KIND: ClassVar[str] = "decision"
    decision: Envelope
    """A `decision`."""
    mandate: Envelope
    """A `mandate`: whose verifier it is."""
    plea: PleaEnvelope | None
    """A `plea`: what it has heard of the accused, if anything."""


@dataclass(frozen=True, slots=True)
class DisputesRequest:
    """To a judge: what is there to answer?"""

    KIND: ClassVar[str] = "disputes-request"
    accused: Key
    """Anybody may ask: a dispute names keys and hashes."""


@dataclass(frozen=True, slots=True)
class DisputesReply:
    """Judge: this, until it is decided."""

    KIND: ClassVar[str] = "disputes"
    disputes: Annotated[tuple[Envelope, ...], Size(0, DISPUTES_MAX)]
    """Each a `dispute`, the oldest first."""


@dataclass(frozen=True, slots=True)
class DecidedRequest:
    """Either side to the payee: judges have decided."""

    KIND: ClassVar[str] = "decided-request"
    channel: Envelope
    """A `channel`: the one on which the order was."""
    order: Envelope
    """A `job-order`: the one in dispute."""
    receipt: Envelope
    """A `receipt`: the one in dispute."""
    dispute: Envelope
    """A `dispute`."""
    ucr: Ucr
    """What is forfeited of what is held; 0 if nothing is."""
    decisions: Annotated[tuple[Envelope, ...], Size(1, QUORUM_MAX)]
    """The same `decision` by each of its signers."""
    mandates: Annotated[tuple[Envelope, ...], Size(1, QUORUM_MAX)]
    """A `mandate` for each of them."""


@dataclass(frozen=True, slots=True)
class DecidedReply:
    """Node: it is on disk."""

    KIND: ClassVar[str] = "decided"
    decision: Hash
    """The decision's id."""
    ucr: Ucr
    """What is forfeited: as was said, or less where the rest had been released before."""


@dataclass(frozen=True, slots=True)
class EvidenceMessage:
    """Somebody has proven a fault of its own: see for yourself."""

    KIND: ClassVar[str] = "evidence"
    evidence: Envelope
    """An `evidence`."""


@dataclass(frozen=True, slots=True)
class NotedMessage:
    """It was looked at."""

    KIND: ClassVar[str] = "noted"
    evidence: Hash
    """Id of the evidence."""
