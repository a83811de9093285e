"""Page 04: policies and commitments, openings, what a check must be about, and faults that prove themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from blake3 import blake3
from nacl.signing import SigningKey

from fallow.protocol.bundle import File, Manifest, Program, Tolerance
from fallow.protocol.checks import TEACHER_FORCED, Attestation, Outcome, Verdict
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, Refused, RemoteProtocolError
from fallow.protocol.evidence import Evidence
from fallow.protocol.grid import ShedOrder
from fallow.protocol.identity import Mandate, salted_digest
from fallow.protocol.limits import EVIDENCE_MAX, FINDINGS_MAX, MANDATE_MS_MAX
from fallow.protocol.opening import Opening, decode_opening_untrusted, open_untrusted
from fallow.protocol.orders import Accept, JobOrder
from fallow.protocol.policy import Policy, check_commitment
from fallow.protocol.prices import Price
from fallow.protocol.receipts import FINAL, OPEN, YIELDED, Receipt, owed_ucr
from fallow.protocol.records import check_evidence_untrusted
from fallow.protocol.schema import from_map_untrusted, to_map
from fallow.protocol.work import Parameters, Piece, Work, transcript_next, transcript_start
from fallow.verifier.case import ORDERS_MAX, Question, gather
from fallow.verifier.verdict import judge, recompute, same

KEY = SigningKey(b"\x01" * 32)
SALT, H = b"\x02" * 32, b"\x03" * 32
WORK = Work(((1, 2, 3),))
PIECES = tuple(Piece(tokens=(n,), values_micro=(-n,)).encode() for n in (7, 8, 9))
ORDER = sign(
    JobOrder(
        H, "generate", Parameters(8), 1, 3, 8, salted_digest(SALT, WORK.encode()), H, H,
        Price(H, "generate", 0, 1, 1, 0), H, 9, 0, b"n" * 16, 100, 100, H, 0, 0, (), None, None,
    ),
    KEY,
)  # fmt: skip
OPENING = Opening(ORDER.id, SALT, WORK.encode(), PIECES)


def receipts(*pieces: int, end: str = FINAL) -> list[Signed[Receipt]]:
    """A chain of receipts after so many pieces in all; after none, the transcript is the order's id."""
    chain: list[Signed[Receipt]] = []
    for sequence, count in enumerate(pieces):
        transcript = transcript_start(SALT, ORDER.id)
        for piece in PIECES[:count]:
            transcript = transcript_next(transcript, piece)
        previous = chain[-1].id if chain else None
        last = sequence == len(pieces) - 1
        record = Receipt(ORDER.id, sequence, previous, 0, 0, transcript if count else ORDER.id, (), "c", 0, OPEN)
        chain.append(sign(replace(record, end=end if last else OPEN), KEY))
    return chain


@pytest.mark.spec("A-7")
def test_an_opening_shows_what_was_asked_and_answered() -> None:
    opened = open_untrusted(decode_opening_untrusted(OPENING.encode()), ORDER, receipts(2, 3))
    assert opened.work == WORK and opened.tokens == (7, 8, 9)


@pytest.mark.spec("A-8")
def test_pieces_that_no_receipt_vouches_for_do_not_count() -> None:
    assert open_untrusted(OPENING, ORDER, receipts(2, end=YIELDED)).tokens == (7, 8)
    assert open_untrusted(OPENING, ORDER, receipts(0, end=YIELDED)).tokens == ()
    assert open_untrusted(OPENING, ORDER, []).tokens == ()


@pytest.mark.spec("A-7")
@pytest.mark.parametrize(
    "false",
    [
        replace(OPENING, order=H),
        replace(OPENING, salt=H),
        replace(OPENING, work=Work(((1, 2, 4),)).encode()),
        replace(OPENING, pieces=PIECES[:2]),
        replace(OPENING, pieces=PIECES[1:]),
        replace(OPENING, pieces=(*PIECES[:2], PIECES[0])),
    ],
)
def test_an_opening_of_anything_else_is_refused(false: Opening) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        open_untrusted(false, ORDER, receipts(2, 3))
    assert caught.value.code is Code.INPUT_MISMATCH


# --- Policies


@pytest.mark.spec("A-1")
@pytest.mark.parametrize(
    "text",
    ["none", "quorum:2/2", "quorum:2/3", "quorum:16/16+anchor", "audit:1", "audit:1000000+anchor", "committee:9/16"],
)
def test_a_policy_has_one_text(text: str) -> None:
    assert str(Policy.parse(text)) == text


@pytest.mark.spec("A-1")
@pytest.mark.parametrize(
    "text",
    [
        "", "None", " none", "none+anchor", "quorum", "quorum:1/1", "quorum:1/2", "quorum:2/4", "quorum:4/3", "quorum:9/17",
        "quorum:02/3", "quorum:2/3 ", "quorum:2/3+anchor+anchor", "quorum:-2/3", "audit:0", "audit:1000001", "audit:01",
        "audit:0.5", "committee:1/2", "adaptive", "quorum:\u0662/3",
    ],
)  # fmt: skip
def test_what_is_no_policy_or_cannot_be_held_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        Policy.parse(text)
    assert caught.value.code is Code.UNSATISFIABLE_ASSURANCE


# --- What a check must be about

CHECKED = (-100, -200, -300)
NODES = [SigningKey(bytes([n]) * 32) for n in range(10, 13)]
OWNERS = [SigningKey(bytes([n]) * 32) for n in range(20, 23)]
MANIFEST = sign(
    Manifest(
        "m", "none", "", "", ("generate", "score"), File(3, (H,)), (), (), (), (),
        (Program("p", "decode", 1, 1, 8, File(3, (H,)), 0, 0),),
        File(3, (H,)), None, 64, (), Tolerance(10, 10, 10, 0, 0, (), ""),
    ),
    KEY,
)  # fmt: skip


def order_to(node: int, **changes: Any) -> Signed[JobOrder]:
    commitment = blake3(b"fallow/1/policy" + H + b"quorum:2/3").digest()
    of = {"bundle": MANIFEST.id, "executor": bytes(NODES[node].verify_key), "check_commitment": commitment}
    return sign(replace(ORDER.record, **(of | changes)), KEY)


def receipt_for(node: int, order: Signed[JobOrder]) -> Signed[Receipt]:
    found = Receipt(order.id, 0, None, 0, 3, H, CHECKED, "c", 0, FINAL)
    return sign(replace(found, amount_ucr=owed_ucr(order.record, found)), NODES[node])


def accepted_by(node: int, order: Signed[JobOrder], owner: SigningKey | None = None) -> list[Signed[Any]]:
    """The node's acceptance, and the mandate that it names: of an owner of its own, unless said."""
    owner = owner or OWNERS[node]
    paper = Mandate(
        bytes(NODES[node].verify_key), bytes(owner.verify_key), ("executor", "checker"), 1, 0, MANDATE_MS_MAX, None
    )
    mandate = sign(paper, owner)
    return [mandate, sign(Accept(order.id, mandate.id, 0, "c"), NODES[node])]


EXECUTED = order_to(0)
DELIVERED = receipt_for(0, EXECUTED)
WORKED: list[Signed[Any]] = [EXECUTED, *accepted_by(0, EXECUTED), DELIVERED]


def check_by(node: int, owner: SigningKey | None = None, **changes: Any) -> list[Signed[Any]]:
    """A checker's order, accepted, figures that confirm the window, and its receipt."""
    asked = {"entry": "score", "checks": DELIVERED.id, "input_tokens": 3, "planned_tokens": 3}
    order = order_to(node, **(asked | changes))
    found = Attestation(DELIVERED.id, order.id, TEACHER_FORCED, CHECKED, (0, 0, 0), (0, 0, 0), "c")
    return [order, *accepted_by(node, order, owner), sign(found, NODES[node]), receipt_for(node, order)]


def judged(*records: Signed[Any], openings: tuple[Opening, ...] = ()) -> Verdict:
    question = Question(bytes(KEY.verify_key), MANIFEST.id, Policy.parse("quorum:2/3"), H)
    return judge(gather(question, [MANIFEST, *records], openings))


@pytest.mark.spec("A-2", "A-5")
def test_a_check_that_was_ordered_as_it_must_be_counts() -> None:
    assert judged(*WORKED, *check_by(1)).outcome == Outcome.ACCEPTED
    other_length = check_by(1, parameters=replace(EXECUTED.record.parameters, max_tokens=3))
    assert judged(*WORKED, *other_length).outcome == Outcome.ACCEPTED
    assert check_commitment(H, "quorum:2/3") == EXECUTED.record.check_commitment


@pytest.mark.spec("A-2", "A-5", "A-9")
@pytest.mark.parametrize(
    "changes",
    [
        {"entry": "generate"},
        {"checks": H},
        {"parameters": replace(ORDER.record.parameters, seed=1)},
        {"parameters": replace(ORDER.record.parameters, temperature_milli=1)},
        {"parameters": replace(ORDER.record.parameters, top_p_ppm=1)},
        {"check_commitment": check_commitment(H, "quorum:2/2")},
        {"bundle": H},
    ],
)
def test_a_check_that_was_ordered_otherwise_counts_for_nothing(changes: dict[str, Any]) -> None:
    assert judged(*WORKED, *check_by(1, **changes)).outcome == Outcome.INCONCLUSIVE


@pytest.mark.spec("A-12")
def test_no_party_to_a_job_is_counted_among_those_who_check_it() -> None:
    """The executor's node under another owner's mandate, the executor's key as an owner, and the client as one."""
    assert judged(*WORKED, *check_by(0, OWNERS[1])).outcome == Outcome.INCONCLUSIVE
    for party in (NODES[0], KEY):
        assert judged(*WORKED, *check_by(1, party)).outcome == Outcome.INCONCLUSIVE
    assert judged(*WORKED, *check_by(1, OWNERS[0])).outcome == Outcome.INCONCLUSIVE  # of the executor's owner
    assert judged(*WORKED, *check_by(1, OWNERS[1])).outcome == Outcome.ACCEPTED


@pytest.mark.spec("A-6")
def test_an_attestation_has_a_figure_of_each_kind_for_each_token() -> None:
    fields = to_map(check_by(1)[1].record)
    for name in ("values_micro", "gaps_micro", "masses_ppm"):
        with pytest.raises(RemoteProtocolError) as caught:
            from_map_untrusted(Attestation, {**fields, name: [1, 2]})
        assert caught.value.code is Code.BAD_RECORD


@pytest.mark.spec("A-21")
def test_evidence_without_the_work_itself_is_refused() -> None:
    for records in (check_by(1), [DELIVERED], [order_to(0, bundle=H), DELIVERED]):
        with pytest.raises(RemoteProtocolError) as caught:
            judged(*records)
        assert caught.value.code is Code.BAD_RECORD


def answered(order: Signed[JobOrder]) -> list[Signed[Any]]:
    """The order, and a receipt for nothing."""
    return [order, sign(Receipt(order.id, 0, None, 0, 0, order.id, (), "c", 0, YIELDED), NODES[0])]


def orders_by_nonce(count: int) -> list[Signed[JobOrder]]:
    return [order_to(0, nonce=number.to_bytes(16, "big")) for number in range(count)]


@pytest.mark.spec("A-21")
def test_a_verdict_that_would_name_too_much_is_refused() -> None:
    strangers = [order_to(0, executor=number.to_bytes(32, "big")) for number in range(1, FINDINGS_MAX + 1)]
    same_node = orders_by_nonce(ORDERS_MAX)
    full = [record for order in orders_by_nonce(EVIDENCE_MAX) for record in answered(order)]
    another = order_to(0, nonce=b"\xff" * 16)
    for most in (strangers, same_node, full):
        judged(*most)
    for more in (
        [*strangers, another],
        [*same_node, another],
        [*full, *answered(another)],
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            judged(*more)
        assert caught.value.code is Code.TOO_LARGE


@pytest.mark.spec("A-20")
def test_a_verdict_is_not_recomputed_without_what_it_names() -> None:
    """Of an order that brought nothing: there is no receipt whose opening could be missing instead."""
    records = [MANIFEST, EXECUTED, *accepted_by(0, EXECUTED)]
    verdict = judged(*records[1:])
    assert same(recompute(verdict, records), verdict)
    (finding,) = verdict.findings
    for false in (
        replace(verdict, findings=(replace(finding, evidence=(H,)),)),
        replace(verdict, subject=H),
        replace(verdict, subject=MANIFEST.id),  # the client's own record, and no order
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            recompute(false, records)
        assert caught.value.code is Code.BAD_RECORD


# --- Evidence


def evidence(fault: str, accused: SigningKey, *records: Signed[Any]) -> Evidence:
    return Evidence(fault, bytes(accused.verify_key), tuple(signed.envelope for signed in records), "")


TWIN = sign(replace(DELIVERED.record, amount_ucr=8), NODES[0])
SHED = ShedOrder("depot", "heat", 1, False, 2, 5_000, 10, 20, 5, "")


@pytest.mark.spec("A-24", "G-5")
def test_faults_that_prove_themselves() -> None:
    check_evidence_untrusted(evidence("equivocation", NODES[0], DELIVERED, TWIN))
    check_evidence_untrusted(evidence("equivocation", KEY, sign(SHED, KEY), sign(replace(SHED, cap_w=1), KEY)))


@pytest.mark.spec("A-24", "G-5")
@pytest.mark.parametrize(
    "false",
    [
        evidence("retraction", NODES[0], DELIVERED, TWIN),
        evidence("equivocation", NODES[1], DELIVERED, TWIN),
        evidence("equivocation", NODES[0], DELIVERED, DELIVERED),
        evidence("equivocation", NODES[0], DELIVERED, TWIN, TWIN),
        evidence("equivocation", NODES[0], DELIVERED, sign(TWIN.record, NODES[1])),
        evidence("equivocation", NODES[0], DELIVERED, sign(replace(TWIN.record, sequence=1), NODES[0])),
        evidence("equivocation", KEY, sign(SHED, KEY), sign(replace(SHED, sequence=2), KEY)),
        evidence("equivocation", KEY, sign(SHED, KEY), sign(replace(SHED, zone="home"), KEY)),
    ],
)
def test_evidence_of_anything_else_is_refused(false: Evidence) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check_evidence_untrusted(false)
    assert caught.value.code is Code.BAD_RECORD


@pytest.mark.spec("A-25")
def test_evidence_with_a_record_that_does_not_verify_is_refused_with_its_code() -> None:
    for damaged, code in (
        (TWIN.envelope[:-1] + bytes([TWIN.envelope[-1] ^ 1]), Code.BAD_SIGNATURE),
        (TWIN.envelope + b"\0", Code.BAD_ENCODING),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            check_evidence_untrusted(Evidence("equivocation", DELIVERED.signer, (DELIVERED.envelope, damaged), ""))
        assert caught.value.code is code
