"""Faults that prove themselves, and records that prove nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from nacl.signing import SigningKey

from fallow.protocol.checks import Attestation
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.evidence import Evidence, Fault, Proven, prove
from fallow.protocol.grid import FeederLease, FeederMember, FeederRoster, ShedOrder
from fallow.protocol.holding import Held
from fallow.protocol.identity import Issuer, Mandate, WorkerKey
from fallow.protocol.orders import Accept
from fallow.protocol.payment import Channel, Voucher
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile
from fallow.protocol.receipts import Receipt
from fallow.protocol.records import check_evidence_untrusted

NODE, OWNER, SECOND, ISSUER, FINDER = (SigningKey(bytes([n]) * 32) for n in range(1, 6))
H, NOW_MS = b"\x07" * 32, 1_790_000_000_000


def key(signing: SigningKey) -> bytes:
    return bytes(signing.verify_key)


def mandate(owner: SigningKey = OWNER, signer: SigningKey | None = None, **changes: Any) -> Signed[Mandate]:
    record = Mandate(key(NODE), key(owner), ("executor",), 4, NOW_MS, NOW_MS + 1000, None)
    return sign(replace(record, **changes), signer or owner)


def profile(mandate: Signed[Mandate], sequence: int = 1) -> Signed[CapabilityProfile]:
    return sign(
        CapabilityProfile(
            key(NODE), mandate.id, sequence, NOW_MS, NOW_MS + 9, None, "", ("executor",), (), (), (), 1, 0, 0, ()
        ),
        NODE,
    )


def lease(watts: int, nonce: int) -> Signed[FeederLease]:
    members = sorted((key(NODE), key(OWNER)))
    record = FeederLease(
        ROSTER.id, key(NODE), next(m for m in members if m != key(NODE)), watts, 1000, 2000, bytes([nonce]) * 16
    )
    return sign(record, NODE)


def pair(record: Any, signer: SigningKey, **change: Any) -> tuple[Signed[Any], Signed[Any]]:
    return sign(record, signer), sign(replace(record, **change), signer)


MEMBERS = tuple(FeederMember(member, 500) for member in sorted((key(NODE), key(OWNER))))
ROSTER = sign(FeederRoster("t-17", 1, 1000, MEMBERS, 0, 10_000), FINDER)
RECEIPT = Receipt(H, 0, None, 0, 1, H, (-5,), "class", 9, "open")
CHANNEL = Channel(key(OWNER), key(NODE), H, "ledger", 1000, bytes(16), 0, 10, 10)
ISSUED = sign(Issuer(key(OWNER), key(ISSUER), 1, NOW_MS - 1, NOW_MS + 10**6), OWNER).envelope

EQUIVOCATIONS = {
    "receipts": (pair(RECEIPT, NODE, amount_ucr=10), NODE),
    "accepts": (pair(Accept(H, H, 1, "class"), NODE, mandate=bytes(32)), NODE),
    "attestations": (pair(Attestation(H, H, "teacher-forced", (-1,), (0,), (0,), "class"), NODE, values_micro=(-9,)), NODE),
    "mandates": ((mandate(), mandate(roles=("checker",))), OWNER),
    "mandates by an issuer": (
        (mandate(signer=ISSUER, issuer=ISSUED), mandate(signer=ISSUER, issuer=ISSUED, roles=("checker",))), ISSUER
    ),
    "issuers": (pair(Issuer(key(OWNER), key(ISSUER), 1, 0, 9), OWNER, issuer=H), OWNER),
    "channels": (pair(CHANNEL, OWNER, credit_limit_ucr=2000), OWNER),
    "profiles": ((profile(mandate()), profile(mandate(SECOND))), NODE),
    "connectivity": (
        pair(ConnectivityProfile(key(NODE), 1, 0, 9, (), (), None, 0, *(None,) * 6), NODE, addresses=("/ip4/1.2.3.4",)),
        NODE,
    ),
    "shed orders": (pair(ShedOrder("yard", "heat", 1, False, 0, 500, 10, 20, 5, ""), FINDER, cap_w=9), FINDER),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUIVOCATIONS)
def test_two_different_records_in_one_place_are_equivocation(name: str) -> None:
    records, accused = EQUIVOCATIONS[name]
    assert prove(records) == prove(records[::-1]) == Proven(Fault.EQUIVOCATION, key(accused))
    assert prove([records[0], records[0]]) is None
    assert prove(records[:1]) is None
    evidence = Evidence("equivocation", key(accused), tuple(signed.envelope for signed in records), "found")
    assert check_evidence_untrusted(evidence) == Proven(Fault.EQUIVOCATION, key(accused))


OTHERS = {
    Fault.TWO_OWNERS: (
        (profile(mandate()), profile(mandate(SECOND), 2), mandate(), mandate(SECOND)), NODE
    ),
    Fault.RETRACTION: (
        (sign(Voucher(H, H, 5, (), 0), OWNER), sign(Voucher(H, H, 4, (Held(9, NOW_MS),), 0), OWNER)), OWNER
    ),
    Fault.OVER_LENT: ((ROSTER, lease(300, 1), lease(300, 2)), NODE),
}  # fmt: skip


@pytest.mark.parametrize("fault", OTHERS)
def test_the_other_faults_prove_themselves_too(fault: Fault) -> None:
    records, accused = OTHERS[fault]
    assert prove(records) == Proven(fault, key(accused))
    evidence = Evidence(str(fault), key(accused), tuple(signed.envelope for signed in records), "")
    assert check_evidence_untrusted(evidence).fault is fault
    for less in range(len(records)):
        assert prove([*records[:less], *records[less + 1 :]]) is None


def test_two_overlapping_rosters_take_each_other_back() -> None:
    assert prove((ROSTER, sign(replace(ROSTER.record, cap_w=2000), FINDER))) == Proven(Fault.RETRACTION, key(FINDER))


INNOCENT = {
    "an owner whose issuer signs what the owner does not": (mandate(), mandate(signer=ISSUER, issuer=ISSUED)),
    "windows of one order": (sign(RECEIPT, NODE), sign(replace(RECEIPT, sequence=1, previous=H), NODE)),
    "two nodes": (sign(RECEIPT, NODE), sign(replace(RECEIPT, amount_ucr=10), OWNER)),
    "a stranger's mandate": (mandate(), mandate(SECOND)),
    "renewed": (mandate(), mandate(epoch=5)),
    "two kinds": (sign(RECEIPT, NODE), sign(CHANNEL, NODE)),
    "kinds of which there may be many": pair(WorkerKey(key(NODE), H, 0, 9), NODE, expires_ms=8),
    "vouchers that grow": (sign(Voucher(H, H, 5, (), 0), OWNER), sign(Voucher(H, H, 6, (), 0), OWNER)),
    "leases within the share": (ROSTER, lease(200, 1), lease(300, 2)),
    "owners of two epochs": (
        profile(mandate()),
        profile(mandate(SECOND, epoch=5), 2),
        mandate(),
        mandate(SECOND, epoch=5),
    ),
    "a mandate that the node never named": (profile(mandate()), profile(mandate(), 2), mandate(), mandate(SECOND)),
}


@pytest.mark.parametrize("name", INNOCENT)
def test_what_an_honest_signer_may_sign_proves_nothing(name: str) -> None:
    assert prove(INNOCENT[name]) is None


def test_one_record_signed_twice_is_no_fault() -> None:
    """A signature may be made anew; what was said is the same."""
    one = sign(RECEIPT, NODE)
    assert prove((one, replace(one, envelope=b"another envelope of it"))) is None


@pytest.mark.parametrize(
    "change",
    [{"fault": "two-owners"}, {"accused": key(OWNER)}, {"records": (b"\xd2", b"\xd2")}, {"fault": "unheard-of"}],
)
def test_evidence_that_says_something_else_is_refused(change: dict[str, Any]) -> None:
    records, accused = EQUIVOCATIONS["receipts"]
    evidence = Evidence("equivocation", key(accused), tuple(signed.envelope for signed in records), "")
    with pytest.raises(RemoteProtocolError):
        check_evidence_untrusted(replace(evidence, **change))


def test_a_mandate_that_its_owner_never_authorised_accuses_nobody() -> None:
    forged = mandate(signer=SECOND, roles=("checker",))
    with pytest.raises(RemoteProtocolError) as caught:
        check_evidence_untrusted(Evidence("equivocation", key(OWNER), (mandate().envelope, forged.envelope), ""))
    assert caught.value.code in (Code.BAD_SIGNATURE, Code.BAD_MANDATE)
