"""Messages on streams, each one deterministic CBOR map with its kind under `t`; signed records travel as their envelopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from .codec import decode_untrusted, encode
from .errors import Code, RemoteProtocolError
from .grid import Watts
from .limits import (
    ADDRESSES_MAX,
    DISPUTES_MAX,
    LEASES_MAX,
    MEANS_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    MESSAGE_ENTRIES_MAX,
    QUORUM_MAX,
    RAILS_MAX,
    RATE_BYTES_MAX,
    RECORD_BYTES_MAX,
    ROSTERS_MAX,
    SHED_ORDERS_MAX,
    SHED_SENT_MAX,
    WITNESSES_MAX,
)
from .prices import Ucr
from .schema import Between, Hash, Key, Nonce, Size, Text, Uint, Word, from_map_untrusted, to_map
from .versions import protocol_id

JOB_PROTOCOL = protocol_id("job", 1)
"""Jobs: one order, and all that follows it."""
PROFILE_PROTOCOL = protocol_id("profile", 1)
"""Who a node is, and what it can do now ([page 02](02-discovery.md))."""
BLOB_PROTOCOL = protocol_id("blob", 1)
"""Content by its hash ([page 02](02-discovery.md))."""
VOUCHER_PROTOCOL = protocol_id("voucher", 1)
"""What is still owed for a stream that was lost ([page 05](05-payment.md))."""
CONTROL_PROTOCOL = protocol_id("control", 1)
"""Questions under the other protocols, each with one answer, many side by side ([page 11](11-network.md))."""
PROBE_PROTOCOL = protocol_id("probe", 1)
"""How long it takes there and back, and what one node has measured of the other ([page 02](02-discovery.md))."""
RATE_PROTOCOL = protocol_id("rate", 1)
"""How much gets through between two nodes ([page 02](02-discovery.md))."""
VERDICT_PROTOCOL = protocol_id("verdict", 1)
"""A verifier's word on a verdict ([page 04](04-assurance.md))."""
GROUND_PROTOCOL = protocol_id("ground", 1)
"""Why something that is held is not owed any more ([page 05](05-payment.md))."""
SHED_PROTOCOL = protocol_id("shed", 1)
"""Shed orders, from one who trusts a grid key to the next ([page 06](06-grid.md))."""
FEEDER_PROTOCOL = protocol_id("feeder", 1)
"""Rosters of one feeder, and leases between its members ([page 06](06-grid.md))."""
DISPUTE_PROTOCOL = protocol_id("dispute", 1)
"""Claims between the two sides of an order, and what judges decided ([page 04](04-assurance.md))."""
EVIDENCE_PROTOCOL = protocol_id("evidence", 1)
"""Faults that prove themselves, passed on ([page 04](04-assurance.md))."""
MEANS_PROTOCOL = protocol_id("means", 1)
"""What settles a debt on a rail ([page 05](05-payment.md))."""
PROTOCOLS = (
    JOB_PROTOCOL, PROFILE_PROTOCOL, BLOB_PROTOCOL, VOUCHER_PROTOCOL, CONTROL_PROTOCOL, PROBE_PROTOCOL, RATE_PROTOCOL,
    VERDICT_PROTOCOL, GROUND_PROTOCOL, SHED_PROTOCOL, FEEDER_PROTOCOL, DISPUTE_PROTOCOL, EVIDENCE_PROTOCOL, MEANS_PROTOCOL,
)  # fmt: skip
"""All that this implementation speaks."""

Envelope = Annotated[bytes, Size(1, RECORD_BYTES_MAX)]
Bulk = Annotated[bytes, Size(0, MESSAGE_BYTES_MAX)]
Load = Annotated[bytes, Size(0, RATE_BYTES_MAX)]
"""Bytes that mean nothing, to see how fast they get through."""


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
class RefuseMessage:
    """Executor: no, and why."""

    KIND: ClassVar[str] = "refuse"
    code: Word
    """From the registry of errors."""
    detail: Text
    """For a person; nothing is decided by it."""
    retry_after_ms: Uint
    """When the same order may be accepted; 0 if that cannot be said."""


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


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """Client: who are you, and what can you do now?"""

    KIND: ClassVar[str] = "profile-request"


@dataclass(frozen=True, slots=True)
class ProfileReply:
    """Node: all that a client needs to order, fresh. The state is vouched for by the authenticated connection alone."""

    KIND: ClassVar[str] = "profile"
    mandate: Envelope
    """A `mandate`: the one that the capability profile names."""
    capability: Envelope
    """A `capability-profile`."""
    connectivity: Envelope
    """A `connectivity-profile`."""
    worker_key: Envelope | None
    """Absent while no worker runs."""
    state: Word
    """`off`, `not-eligible`, `ready`, `busy` or `yielding`."""
    reasons: Annotated[tuple[Text, ...], Size(0, 16)]
    """Why it takes no orders, if it takes none; nothing that tells where the owner is."""
    jobs_running: Uint
    """Of the `jobs_max` that it has room for."""
    witnesses: Annotated[tuple[Envelope, ...], Size(0, WITNESSES_MAX)] = ()
    """Each a `witness`: what others have measured of this node."""


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
class BlobRequest:
    """Client: send the content with this hash: a manifest or a chunk of a bundle's file."""

    KIND: ClassVar[str] = "blob-request"
    hash: Hash
    """BLAKE3 of the content."""


@dataclass(frozen=True, slots=True)
class BlobReply:
    """Node: the content, or nothing if it is not here."""

    KIND: ClassVar[str] = "blob"
    content: Bulk | None
    """Absent if the node does not have it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Prober: are you there?"""

    KIND: ClassVar[str] = "probe"
    nonce: Nonce
    """Random: nobody can answer before it has come."""
    witness: Envelope | None
    """A `witness`: what the prober has measured until now, for the probed to show; absent if there is nothing new."""


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """Probed: here."""

    KIND: ClassVar[str] = "probed"
    nonce: Nonce
    """That of the probe."""


@dataclass(frozen=True, slots=True)
class RateRequest:
    """Asker: take this, and send me so much, to see how fast it goes."""

    KIND: ClassVar[str] = "rate-request"
    nonce: Nonce
    """Random: no answer can be under way before it has come."""
    content: Load
    """What goes up, random too; empty if that is not being measured."""
    wanted_bytes: Annotated[int, Between(0, RATE_BYTES_MAX)]
    """What is to come down; 0 if that is not being measured."""


@dataclass(frozen=True, slots=True)
class RateReply:
    """Asked: it has come, and here is yours."""

    KIND: ClassVar[str] = "rate"
    received: Hash
    """BLAKE3 of nonce and content, one after the other: both have come."""
    content: Load | None
    """The first `wanted_bytes` of BLAKE3's output over the nonce; absent if the owner allows no more now."""


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


@dataclass(frozen=True, slots=True)
class ShedExchange:
    """Either: these shed orders of one grid key do I keep, and these may be news to you."""

    KIND: ClassVar[str] = "shed-exchange"
    grid: Key
    """The grid key that signed them."""
    known: Annotated[tuple[Hash, ...], Size(0, SHED_ORDERS_MAX)]
    """Ids of all that the sender keeps; none if its owner does not trust the key."""
    orders: Annotated[tuple[Envelope, ...], Size(0, SHED_SENT_MAX)]
    """Each a `shed-order`."""


@dataclass(frozen=True, slots=True)
class FeederRequest:
    """Member: which rosters do you know that I do not, and what do you lend me?"""

    KIND: ClassVar[str] = "feeder-request"
    known: Annotated[tuple[Hash, ...], Size(0, ROSTERS_MAX)]
    """Ids of the rosters that the asker has."""
    roster: Hash
    """Under which it would borrow: the one that holds, or the next."""
    wanted_w: Watts
    """How much in all it would have of the asked member's share; 0: nothing is asked for."""


@dataclass(frozen=True, slots=True)
class FeederReply:
    """Member: these."""

    KIND: ClassVar[str] = "feeder"
    rosters: Annotated[tuple[Envelope, ...], Size(0, ROSTERS_MAX)]
    """Each a `feeder-roster`."""
    leases: Annotated[tuple[Envelope, ...], Size(0, LEASES_MAX)]
    """Each a `feeder-lease` to the asker, all that are not over: an answer may have been lost."""


@dataclass(frozen=True, slots=True)
class DisputeRequest:
    """Claimant or accused to a judge: decide this. Judge to the accused: what do you say?"""

    KIND: ClassVar[str] = "dispute-request"
    dispute: Envelope
    """A `dispute`."""
    plea: Envelope | None
    """A `plea`: then the accused brings this."""
    proof: Bulk
    """A `ProofFile`, whose hash the dispute, or the plea, names. Empty where a judge asks."""
    addresses: Annotated[tuple[Text, ...], Size(0, ADDRESSES_MAX)]
    """Where the accused was last, as the claimant knows."""


@dataclass(frozen=True, slots=True)
class PleaReply:
    """Accused: so I say."""

    KIND: ClassVar[str] = "plea"
    plea: Envelope
    """A `plea`."""


@dataclass(frozen=True, slots=True)
class DecisionReply:
    """Judge: so I decide."""

    KIND: ClassVar[str] = "decision"
    decision: Envelope
    """A `decision`."""
    mandate: Envelope
    """A `mandate`: whose verifier it is."""


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
    """What is forfeited: as was said, or 0 if that had been released before."""


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
    """Node: they are its owner's, and counted."""

    KIND: ClassVar[str] = "means"
    payment: Hash
    """The payment's id on its rail."""
    ucr: Ucr
    """What it settles."""


JobMessage: TypeAlias = (
    OrderMessage | AcceptMessage | RefuseMessage | ChunkMessage | ReceiptMessage | AttestationMessage | VoucherMessage
    | HeartbeatMessage | CancelMessage | DeclineMessage | YieldMessage | FailedMessage
)  # fmt: skip
Message: TypeAlias = (
    JobMessage | ProfileRequest | ProfileReply | VoucherRequest | VoucherReply | BlobRequest | BlobReply
    | Probe | ProbeReply | RateRequest | RateReply | VerdictRequest | VerdictReply | GroundRequest | GroundReply
    | ShedExchange | FeederRequest | FeederReply
    | DisputeRequest | PleaReply | DecisionReply | DisputesRequest | DisputesReply | DecidedRequest | DecidedReply
    | EvidenceMessage | NotedMessage | RailsRequest | RailsReply | MeansRequest | MeansReply
)  # fmt: skip

_KINDS: dict[str, type[Message]] = {
    kind.KIND: kind
    for kind in (
        OrderMessage, AcceptMessage, RefuseMessage, ChunkMessage, ReceiptMessage, AttestationMessage, VoucherMessage,
        HeartbeatMessage, CancelMessage, DeclineMessage, YieldMessage, FailedMessage,
        ProfileRequest, ProfileReply, VoucherRequest, VoucherReply, BlobRequest, BlobReply, Probe, ProbeReply,
        RateRequest, RateReply, VerdictRequest, VerdictReply, GroundRequest, GroundReply,
        ShedExchange, FeederRequest, FeederReply,
        DisputeRequest, PleaReply, DecisionReply, DisputesRequest, DisputesReply, DecidedRequest, DecidedReply,
        EvidenceMessage, NotedMessage, RailsRequest, RailsReply, MeansRequest, MeansReply,
    )
}  # fmt: skip


def encode_message(message: Message) -> bytes:
    """One frame."""
    return encode({"t": message.KIND, **to_map(message)})


def decode_message_untrusted(frame: bytes) -> Message:
    """The message in a frame. Raises `RemoteProtocolError` for anything that is not one."""
    value = decode_untrusted(frame, bytes_max=MESSAGE_BYTES_MAX, entries_max=MESSAGE_ENTRIES_MAX)
    if not isinstance(value, dict) or not isinstance(tag := value.pop("t", None), str) or tag not in _KINDS:
        raise RemoteProtocolError(Code.BAD_ENCODING, "The frame is not a message of this protocol.")
    return from_map_untrusted(_KINDS[tag], value)
