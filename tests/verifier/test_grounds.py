"""A committee's word against an executor: who has to have signed, and what; and what running the work again shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from nacl.signing import SigningKey

from fallow.protocol.checks import Outcome, Verdict
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, FallowError
from fallow.protocol.grounds import Judged, check_judged, committee, could_judge, ground_id
from fallow.protocol.identity import VERIFIER, Issuer, Mandate
from fallow.protocol.limits import HOLD_MS_MAX, SKEW_MS
from fallow.protocol.payment import LEDGER, Channel
from fallow.protocol.policy import draw
from fallow.protocol.proofs import ProofFile, decode_proof_untrusted
from fallow.protocol.receipts import FINAL
from fallow.protocol.work import Piece
from fallow.verifier.case import gather
from fallow.verifier.rerun import disowned, run_of
from fallow.verifier.verdict import judge

from .jobs import CLIENT, MANIFEST, NOW_MS, PROMPT, Job, Ordered, node_key, owner_key, value

JUDGES = {bytes(owner_key(number).verify_key): number for number in range(20, 25)}
CHANNEL = sign(
    Channel(
        bytes(CLIENT.verify_key), bytes(node_key(10).verify_key), bytes(owner_key(10).verify_key), LEDGER, 10**6,
        bytes(16), NOW_MS - 1000, NOW_MS + 10**6, 10**6,
    ),
    CLIENT,
)  # fmt: skip


@dataclass
class Dispute:
    """A window that two checkers refute, under an order that names five judges."""

    job: Job
    writer: Ordered
    verdict: Verdict
    judged: Judged


def verifier_of(owner: bytes, role: str = VERIFIER) -> tuple[SigningKey, Signed[Mandate]]:
    number = JUDGES[owner]
    key = node_key(100 + number)
    record = Mandate(bytes(key.verify_key), owner, (role,), 1, NOW_MS - 1000, NOW_MS + 10**6, None)
    return key, sign(record, owner_key(number))


def dispute(shift: int = 5_000, *, signers: int = 2, role: str = VERIFIER, **changes: Any) -> Dispute:
    job = Job("adaptive:1", candidates=tuple(sorted(JUDGES)))
    writer = job.text(10, channel=CHANNEL.id)
    writer.write(0, 16, shift)
    receipt = writer.receipt(FINAL)
    for checker in (11, 12):
        job.check(checker, receipt, 16)
    for ordered in job.ordered:
        ordered.open()
    found = replace(judge(gather(job.question, job.records, job.openings)), **changes)
    drawn = draw(job.nonce, receipt.id, JUDGES, (), 3)
    keys = [verifier_of(owner, role) for owner in drawn[:signers]]
    verdicts = tuple(sign(found, key) for key, _ in keys)
    judged = Judged(CHANNEL, writer.order, receipt, verdicts, tuple(mandate for _, mandate in keys))
    return Dispute(job, writer, found, judged)


@pytest.mark.spec("P-28")
def test_two_of_the_three_judges_who_were_drawn_are_a_ground() -> None:
    made = dispute()
    assert made.verdict.outcome == Outcome.REJECTED
    assert check_judged(made.judged, NOW_MS) == ground_id(made.verdict)
    drawn = committee(made.verdict, made.writer.order, made.judged.receipt.id, bytes(owner_key(10).verify_key))
    assert len(drawn) == 3
    worded = replace(made.verdict, findings=tuple(replace(f, reason="otherwise") for f in made.verdict.findings))
    assert ground_id(worded) == ground_id(made.verdict)


def refused(judged: Judged) -> Code:
    with pytest.raises(FallowError) as caught:
        check_judged(judged, NOW_MS)
    return caught.value.code


@pytest.mark.spec("P-28")
def test_what_is_no_ground() -> None:
    good = dispute().judged
    assert refused(dispute(signers=1).judged) is Code.UNSATISFIABLE_ASSURANCE
    assert refused(dispute(role="checker").judged) is Code.UNSATISFIABLE_ASSURANCE
    beside = [owner for owner in JUDGES if owner not in {mandate.record.owner for mandate in good.mandates}]
    drawn = draw(b"\x09" * 32, good.receipt.id, JUDGES, (), 3)
    stranger, paper = verifier_of(next(owner for owner in beside if owner not in drawn))
    by_stranger = (good.verdicts[0], sign(good.verdicts[0].record, stranger))
    assert refused(replace(good, verdicts=by_stranger, mandates=(good.mandates[0], paper))) is (
        Code.UNSATISFIABLE_ASSURANCE
    )
    twice = (good.verdicts[0], good.verdicts[0])
    assert refused(replace(good, verdicts=twice)) is Code.UNSATISFIABLE_ASSURANCE
    assert refused(dispute(shift=0).judged) is Code.BAD_RECORD  # it refutes nobody
    assert refused(dispute(commitment_nonce=bytes(32)).judged) is Code.BAD_RECORD
    other = sign(replace(good.verdicts[1].record, outcome="inconclusive"), verifier_of(drawn[1])[0])
    assert refused(replace(good, verdicts=(good.verdicts[0], other))) is Code.BAD_RECORD
    elsewhere = sign(replace(CHANNEL.record, nonce=b"\x01" * 16), CLIENT)
    assert refused(replace(good, channel=elsewhere)) is Code.BAD_RECORD
    checked = dispute().job.ordered[1]
    assert refused(replace(good, receipt=checked.delivery.receipts[0])) is Code.BAD_RECORD


@pytest.mark.spec("P-28", "P-29")
def test_a_judge_was_its_owners_verifier_since_the_order_and_not_long_ago() -> None:
    owner = next(iter(JUDGES))
    key, paper = verifier_of(owner)
    node, record, issuer = bytes(key.verify_key), paper.record, SigningKey(b"\x5c" * 32)
    ends_ms = record.expires_ms + SKEW_MS

    def issued(expires_ms: int) -> Signed[Mandate]:
        named = sign(Issuer(owner, bytes(issuer.verify_key), 1, NOW_MS - 1000, expires_ms), owner_key(JUDGES[owner]))
        return sign(replace(record, issuer=named.envelope), issuer)

    for mandate, since_ms, now_ms, holds in (
        (paper, NOW_MS, NOW_MS, True),
        (paper, NOW_MS, record.not_before_ms - SKEW_MS - 1, False),  # it does not hold yet
        (paper, NOW_MS, ends_ms + HOLD_MS_MAX, True),
        (paper, NOW_MS, ends_ms + HOLD_MS_MAX + 1, False),  # nothing is held any more
        (paper, ends_ms + SKEW_MS, ends_ms + HOLD_MS_MAX, True),
        (paper, ends_ms + SKEW_MS + 1, ends_ms + HOLD_MS_MAX, False),  # it had ended before the order was made
        (issued(NOW_MS + 1), NOW_MS, NOW_MS + 1 + SKEW_MS + HOLD_MS_MAX, True),
        (issued(NOW_MS + 1), NOW_MS, NOW_MS + 2 + SKEW_MS + HOLD_MS_MAX, False),  # its issuer's end is its own
        (sign(record, issuer), NOW_MS, NOW_MS, False),
        (verifier_of(owner, "checker")[1], NOW_MS, NOW_MS, False),
    ):
        assert could_judge(mandate, node, since_ms, now_ms) is holds, (since_ms - NOW_MS, now_ms - NOW_MS)
    assert not could_judge(paper, bytes(issuer.verify_key), NOW_MS, NOW_MS)


def honest(count: int, claimed: int) -> Piece:
    """What a run of the model comes to."""
    values = tuple(value(count - claimed + n) for n in range(claimed))
    return Piece(values_micro=values, gaps_micro=(0,) * claimed, masses_ppm=(0,) * claimed)


def test_running_it_again_tells_the_liar_from_those_who_said_so() -> None:
    for shift, wrong in ((5_000, {10}), (0, set())):
        made = dispute(shift)
        case = gather(made.job.question, made.job.records, made.job.openings)
        found = set()
        for part in case.parts:
            run = run_of(part)
            assert run is not None
            assert run.entry == "score"
            assert run.work.sequences[0] == tuple(range(PROMPT + 16))
            assert run.work.claimed == 16
            if disowned(part, honest(16, 16), case.tolerance):
                found.add(part.member.node)
        assert found == {bytes(node_key(number).verify_key) for number in wrong}


def test_what_is_not_opened_cannot_be_run() -> None:
    made = dispute()
    case = gather(made.job.question, made.job.records, ())
    assert [run_of(part) for part in case.parts] == [None, None, None]


def test_a_proof_is_one_file() -> None:
    made = dispute()
    openings = tuple(opening.encode() for opening in made.job.openings)
    whole = ProofFile(tuple(signed.envelope for signed in made.job.records), openings)
    assert decode_proof_untrusted(whole.encode()) == whole
    assert MANIFEST.envelope in whole.records
