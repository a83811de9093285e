"""Every signed record by its name, and what an envelope found lying about turns out to be.

A stream always knows which record comes next and whose it must be. This is for what has left its stream: a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from .bundle import Manifest
from .checks import Attestation, Verdict
from .disputes import Decision, Dispute, Hearing, Plea
from .envelope import Signed, claimed_signer_untrusted, verify_untrusted
from .errors import Code, RemoteProtocolError
from .evidence import Evidence, Proven, prove
from .grid import FeederLease, FeederRoster, ShedOrder
from .identity import Issuer, Mandate, WorkerKey
from .limits import MANIFEST_BYTES_MAX, RECORD_BYTES_MAX
from .orders import Accept, JobOrder
from .payment import Channel, Voucher
from .profiles import CapabilityProfile, ConnectivityProfile
from .receipts import Receipt
from .witness import Witness

AnyRecord: TypeAlias = (
    Issuer | Mandate | CapabilityProfile | ConnectivityProfile | WorkerKey | Manifest | Channel | JobOrder | Accept | Receipt
    | Voucher | Attestation | Verdict | Evidence | ShedOrder | FeederRoster | FeederLease | Witness
    | Dispute | Plea | Hearing | Decision
)  # fmt: skip

RECORDS: Final[dict[str, type[AnyRecord]]] = {
    kind.RECORD: kind
    for kind in (
        Issuer, Mandate, CapabilityProfile, ConnectivityProfile, WorkerKey, Manifest, Channel, JobOrder, Accept,
        Receipt, Voucher, Attestation, Verdict, Evidence, ShedOrder, FeederRoster, FeederLease, Witness, Dispute, Plea,
        Hearing, Decision,
    )
}  # fmt: skip
"""In the order of the specification's table."""


def identify_untrusted(envelope: bytes) -> Signed[AnyRecord]:
    """The record in `envelope`, whichever it is, signed by the key that it names: whose key that is, is for the caller.

    Each kind is signed under a domain of its own, so at most one signature can hold. A record that says whose it is
    (a mandate its owner, a profile its node) must be signed by that one. Raises `RemoteProtocolError` for all else.
    """
    if len(envelope) > MANIFEST_BYTES_MAX:
        raise RemoteProtocolError(Code.TOO_LARGE, f"No record is larger than {MANIFEST_BYTES_MAX} bytes.")
    signer = claimed_signer_untrusted(envelope, bytes_max=MANIFEST_BYTES_MAX)
    for kind in RECORDS.values():
        bound = MANIFEST_BYTES_MAX if kind is Manifest else RECORD_BYTES_MAX
        if len(envelope) > bound:
            continue
        try:
            signed: Signed[AnyRecord] = verify_untrusted(kind, envelope, signer=signer, bytes_max=bound)
        except RemoteProtocolError as error:
            if error.code is not Code.BAD_SIGNATURE:
                raise  # signed as this kind, and yet not one
            continue
        if _author(signed.record) not in (None, signer):
            raise RemoteProtocolError(Code.BAD_SIGNATURE, f"The {kind.RECORD} is not signed by the one who says it.")
        return signed
    raise RemoteProtocolError(
        Code.BAD_SIGNATURE, "The signature does not hold for any record: it was altered, or is not Fallow's."
    )


def check_evidence_untrusted(evidence: Evidence) -> Proven:
    """What the enclosed records prove, which is what the evidence says. Raises `RemoteProtocolError` if it is not."""
    proven = prove([identify_untrusted(envelope) for envelope in evidence.records])
    if proven is None or (str(proven.fault), proven.accused) != (evidence.fault, evidence.accused):
        raise RemoteProtocolError(Code.BAD_RECORD, "The records do not prove the fault that the evidence names.")
    return proven


def contradiction(signed: Signed[AnyRecord], known: Mapping[bytes, Signed[AnyRecord]]) -> str | None:
    """Why `signed` cannot be what it says, given other records by their ids; None if none speaks against it."""
    record = signed.record
    match record:
        case Accept() | Receipt() | Attestation():
            order = known.get(record.order)
            if order and isinstance(order.record, JobOrder) and order.record.executor != signed.signer:
                return "its order is for another node than the one that signed it"
        case Voucher():
            channel = known.get(record.channel)
            if channel and isinstance(channel.record, Channel) and channel.record.payer != signed.signer:
                return "its channel belongs to another payer than the one who signed it"
        case _:
            pass
    return None


def _author(record: AnyRecord) -> bytes | None:
    """The one who must have signed, where the record itself says so."""
    match record:
        case Mandate(issuer=None) | Issuer():
            return record.owner
        case CapabilityProfile() | ConnectivityProfile() | WorkerKey():
            return record.node
        case Channel():
            return record.payer
        case FeederLease():
            return record.lender
        case Witness():
            return record.witness
        case _:
            return None
