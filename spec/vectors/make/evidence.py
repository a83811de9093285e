"""Kind `evidence`: faults that prove themselves, and records that prove nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .cbor import encode
from .cose import Envelope, Signer
from .notation import Case, refused
from .world import CLIENT, DAY_MS, GRID, HASH, HOUR_MS, ISSUER, NODE, NOW_MS, OTHER, OWNER, SKEW_MS, Fields, name

_EQUIVOCATION, _TWO_OWNERS, _RETRACTION, _OVER_LENT = "equivocation", "two-owners", "retraction", "over-lent"


def evidence() -> Iterator[Case]:
    for words, about, fault, accused, records in _proofs():
        given = _given(fault, accused, *records)
        yield Case(words, about, given, {"fault": fault, "accused": accused.key})
        if len(records) == 2:
            about = "The same, in the other order."
            yield Case(f"{words}-turned", about, _given(fault, accused, *records[::-1]), {
                "fault": fault, "accused": accused.key
            })  # fmt: skip
    for words, about, fault, accused, records in _no_proofs():
        yield refused(words, about, _given(fault, accused, *records), "bad_record")
    yield from _not_even_records()


def _given(fault: str, accused: Signer, *records: Envelope | bytes) -> Fields:
    envelopes = [record if isinstance(record, bytes) else record.whole for record in records]
    fields = {"fault": fault, "accused": accused.key, "records": envelopes, "note": ""}
    return {"evidence": CLIENT.sign("evidence", fields).whole}


_Proof = tuple[str, str, str, Signer, list[Envelope]]


def _receipt(**changes: Any) -> Envelope:
    return NODE.sign("receipt", world.receipt(**changes))


def _voucher(due: int, held: int = 0, release_ms: int = 0, forfeited: int = 0, **changes: Any) -> Envelope:
    parts = world.held((held, release_ms)) if held else []
    return CLIENT.sign("voucher", world.voucher(due_ucr=due, held=parts, forfeited_ucr=forfeited, **changes))


def _roster(**changes: Any) -> Envelope:
    return GRID.sign("feeder-roster", world.roster(**changes))


_LATER = {"not_before_ms": NOW_MS + DAY_MS, "expires_ms": NOW_MS + 2 * DAY_MS}
_RELEASE = NOW_MS + HOUR_MS


def _issued(key: Signer, **changes: Any) -> Envelope:
    """A mandate by an issuer of the owner's."""
    issuer = OWNER.sign("issuer", world.issuer(issuer=key.key)).whole
    return key.sign("mandate", world.mandate(issuer=issuer, **changes))


def _proofs() -> Iterator[_Proof]:
    one = _receipt()
    pairs: list[tuple[str, Signer, Fields, Fields]] = [
        ("accept", NODE, world.accept(), world.accept(clock_ms=NOW_MS + 1)),
        ("attestation", NODE, world.attestation(), world.attestation(masses_ppm=[1, 2, 4])),
        ("mandate", OWNER, world.mandate(), world.mandate(roles=["relay"])),
        ("issuer", OWNER, world.issuer(), world.issuer(issuer=OTHER.key)),
        ("capability-profile", NODE, world.capability(), world.capability(jobs_max=5)),
        ("connectivity-profile", NODE, world.connectivity(), world.connectivity(loss_ppm=1)),
        ("shed-order", GRID, world.shed_order(), world.shed_order(cap_w=4_999)),
        ("channel", CLIENT, world.channel(), world.channel(credit_limit_ucr=1_001)),
    ]
    yield "receipt", "Two receipts for one window.", _EQUIVOCATION, NODE, [one, _receipt(amount_ucr=63)]
    for record, signer, fields, other in pairs:
        both = [signer.sign(record, fields), signer.sign(record, other)]
        yield record, f"Two of the record {record} where one may be.", _EQUIVOCATION, signer, both
    both = [_issued(ISSUER), _issued(ISSUER, roles=["relay"])]
    yield "mandate-by-issuer", "What an issuer signs twice accuses the issuer.", _EQUIVOCATION, ISSUER, both
    last = NOW_MS + 30 * DAY_MS + SKEW_MS
    both = [_issued(ISSUER, roles=roles, not_before_ms=last, expires_ms=last + 1) for roles in (["relay"], ["checker"])]
    yield "mandate-at-its-issuers-end", "In the last millisecond of its issuer.", _EQUIVOCATION, ISSUER, both
    both = [_voucher(100), _voucher(60, 50, _RELEASE)]
    yield "voucher", "Each takes back what the other promised.", _RETRACTION, CLIENT, both
    both = [_voucher(10, 50, _RELEASE), _voucher(20, 50, _RELEASE + 1)]
    yield "voucher-release-moved", "What is held is released later.", _RETRACTION, CLIENT, both
    both = [_voucher(10, 40, _RELEASE, 10), _voucher(50)]
    yield "voucher-forfeit-taken-back", "Forfeited in one, due in the other.", _RETRACTION, CLIENT, both
    both = [_roster(), _roster(epoch=4)]
    yield "rosters-at-one-time", "Two rosters hold at one time.", _RETRACTION, GRID, both
    both = [_roster(), _roster(**_LATER)]
    yield "roster-epoch-stays", "The later roster has no higher epoch.", _RETRACTION, GRID, both
    about = "They meet for a millisecond."
    both = [_roster(expires_ms=NOW_MS + DAY_MS + 1), _roster(epoch=4, **_LATER)]
    yield "rosters-meet", about, _RETRACTION, GRID, both
    yield "two-owners", "Profiles of one node name mandates of two owners.", _TWO_OWNERS, NODE, _owners()
    shuffled = [_owners()[index] for index in (3, 0, 2, 1)]
    yield "two-owners-shuffled", "In which order they stand makes no difference.", _TWO_OWNERS, NODE, shuffled
    roster, *leases = _leases(3_000, 1_001)
    yield "over-lent", "3000 and 1001 of 4000 W.", _OVER_LENT, NODE, [roster, *leases]
    yield "over-lent-any-order", "The roster stands last.", _OVER_LENT, NODE, [*leases, roster]
    yield "over-lent-alone", "One lease is too much.", _OVER_LENT, NODE, _leases(4_001)[::-1]


def _owners(epoch: int = 3, named: int = 2, owners: tuple[Signer, Signer] = (OWNER, OTHER)) -> list[Envelope]:
    one = owners[0].sign("mandate", world.mandate(owner=owners[0].key))
    other = owners[1].sign("mandate", world.mandate(owner=owners[1].key, epoch=epoch, roles=["executor"]))
    mandates = [one, other if named == 2 else one]
    profiles = [
        NODE.sign("capability-profile", world.capability(sequence=5 + number, mandate=mandate.id))
        for number, mandate in enumerate(mandates)
    ]
    return [*profiles, one, other]


def _leases(*watts: int) -> list[Envelope]:
    """The roster, and leases of it."""
    roster = _roster()
    leases = [
        NODE.sign("feeder-lease", world.lease(roster=roster.id, lent_w=lent, nonce=bytes([number]) * 16))
        for number, lent in enumerate(watts)
    ]
    return [roster, *leases]


def _no_proofs() -> Iterator[_Proof]:
    one, two = _receipt(), _receipt(amount_ucr=63)
    yield "same-twice", "The same record twice.", _EQUIVOCATION, NODE, [one, one]
    yield "another-window", "Receipts for two windows.", _EQUIVOCATION, NODE, [one, _receipt(sequence=1)]
    both = [one, _receipt(order=name("another order"), amount_ucr=63)]
    yield "another-order", "Receipts under two orders.", _EQUIVOCATION, NODE, both
    both = [one, OTHER.sign("receipt", world.receipt(amount_ucr=63))]
    yield "two-signers", "Two nodes.", _EQUIVOCATION, NODE, both
    yield "one-too-many", "A third record beside them.", _EQUIVOCATION, NODE, [one, two, _receipt(sequence=1)]
    yield "another-accused", "They prove it of somebody else.", _EQUIVOCATION, OTHER, [one, two]
    yield "another-fault", "They prove another fault.", _RETRACTION, NODE, [one, two]
    yield "unknown-fault", "A fault that there is not.", "theft", NODE, [one, two]
    accept = NODE.sign("accept", world.accept())
    yield "two-kinds", "Records of two kinds.", _EQUIVOCATION, NODE, [one, accept]
    orders = [CLIENT.sign("job-order", world.order(input_tokens=count)) for count in (1, 2)]
    yield "orders", "A client may sign any orders.", _EQUIVOCATION, CLIENT, orders
    both = [OWNER.sign("mandate", world.mandate()), _issued(ISSUER, roles=["relay"])]
    yield "mandate-by-owner-and-issuer", "One by the owner, one by its issuer.", _EQUIVOCATION, OWNER, both
    both = [_issued(ISSUER), _issued(OTHER, roles=["relay"])]
    yield "mandate-by-two-issuers", "Two issuers of one owner.", _EQUIVOCATION, OWNER, both
    both = [OWNER.sign("mandate", world.mandate(epoch=epoch)) for epoch in (3, 4)]
    yield "two-epochs", "Mandates of two epochs.", _EQUIVOCATION, OWNER, both
    both = [CLIENT.sign("channel", world.channel(nonce=nonce)) for nonce in (b"a" * 16, b"b" * 16)]
    yield "two-nonces", "Channels of two processes.", _EQUIVOCATION, CLIENT, both
    both = [CLIENT.sign("channel", world.channel(payee=payee)) for payee in (NODE.key, OTHER.key)]
    yield "two-payees", "Channels to two nodes.", _EQUIVOCATION, CLIENT, both
    yield "voucher-follows", "One follows the other.", _RETRACTION, CLIENT, [_voucher(100), _voucher(150)]
    both = [_voucher(60, 50, _RELEASE), _voucher(110)]
    yield "voucher-released", "What was held is due.", _RETRACTION, CLIENT, both
    both = [_voucher(60, 50, _RELEASE), _voucher(60, 0, 0, 50)]
    yield "voucher-forfeited", "What was held is forfeited.", _RETRACTION, CLIENT, both
    both = [_voucher(100), _voucher(60, 50, _RELEASE, channel=name("another channel"))]
    yield "two-channels", "Vouchers on two channels.", _RETRACTION, CLIENT, both
    yield "roster-follows", "One follows the other.", _RETRACTION, GRID, [_roster(), _roster(epoch=4, **_LATER)]
    both = [_roster(), _roster(feeder="t-18")]
    yield "two-feeders", "Rosters of two feeders.", _RETRACTION, GRID, both
    yield "owners-in-two-epochs", "The node changed its owner.", _TWO_OWNERS, NODE, _owners(epoch=4)
    yield "owner-named-once", "One of the mandates is not named.", _TWO_OWNERS, NODE, _owners(named=1)
    yield "one-owner", "Both mandates are of one owner.", _TWO_OWNERS, NODE, _owners(owners=(OWNER, OWNER))
    first, second, one_mandate, _ = _owners()
    about = "One mandate twice, the other one missing."
    yield "owner-missing", about, _TWO_OWNERS, NODE, [first, second, one_mandate, one_mandate]
    yield "owner-beside-another", "A record of another kind.", _TWO_OWNERS, NODE, [first, second, one_mandate, one]
    yield "lent-within-share", "3000 and 1000 of 4000 W.", _OVER_LENT, NODE, _leases(3_000, 1_000)
    yield "leases-alone", "Without the roster.", _OVER_LENT, NODE, _leases(3_000, 1_001)[1:]
    yield "lent-and-more", "Something beside them.", _OVER_LENT, NODE, [*_leases(3_000, 1_001), one]


def _not_even_records() -> Iterator[Case]:
    one, two = _receipt().whole, _receipt(amount_ucr=63).whole
    changed = two[:-1] + bytes([two[-1] ^ 1])
    stolen = NODE.sign("mandate", world.mandate(roles=["relay"])).whole
    posing = OTHER.sign("capability-profile", world.capability(jobs_max=5)).whole
    own = OWNER.sign("mandate", world.mandate()).whole
    for_issuer = OWNER.sign("issuer", world.issuer(issuer=OTHER.key)).whole
    wrongly = ISSUER.sign("mandate", world.mandate(issuer=for_issuer)).whole
    nothing = NODE.sign_payload("greeting", one[:40]).whole
    for words, about, code, records in (
        ("changed", "One of the records was changed.", "bad_signature", (one, changed)),
        ("garbled", "Bytes that are no envelope.", "bad_encoding", (one, b"receipt")),
        ("no-record", "An envelope of no known record.", "bad_signature", (one, nothing)),
        ("mandate-by-the-node", "A mandate that its owner did not sign.", "bad_signature", (own, stolen)),
        ("profile-by-another", "A profile that its node did not sign.", "bad_signature", (posing, posing)),
        ("mandate-unauthorised", "A mandate whose issuer is another key.", "bad_mandate", (own, wrongly)),
    ):
        yield refused(words, about, _given(_EQUIVOCATION, NODE, *records), code)
    late = NOW_MS + 30 * DAY_MS + SKEW_MS + 1
    for words, about, not_before_ms in (
        ("mandate-after-its-issuer", "Issued when its issuer's time was over.", late),
        ("mandate-before-its-issuer", "Issued before its issuer's time.", NOW_MS - SKEW_MS - 1),
    ):
        time = {"not_before_ms": not_before_ms, "expires_ms": not_before_ms + DAY_MS}
        both = [_issued(ISSUER, **time), _issued(ISSUER, **time, roles=["relay"])]
        yield refused(words, about, _given(_EQUIVOCATION, ISSUER, *both), "expired")
    bad = NODE.sign_payload("receipt", encode({"order": HASH})).whole
    yield refused(
        "not-as-its-kind-is", "Signed as a receipt, and is none.", _given(_EQUIVOCATION, NODE, one, bad), "bad_record"
    )
