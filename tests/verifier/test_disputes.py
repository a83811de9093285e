"""What each kind of dispute comes to: by what was shown, and by running the work again; and who bears the fee."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.protocol.disputes import (
    ANSWERS,
    BY_PAYER,
    DENIES,
    DISMISSED,
    OWNS,
    UPHELD,
    Decided,
    Decision,
    Dispute,
    Kind,
    Plea,
    check_decided,
    check_dispute,
    decision_id,
    dues_of,
    forfeited_ucr_max,
    judges,
    reimbursed_ucr,
    still_counted,
)
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, FallowError, RemoteProtocolError
from fallow.protocol.grounds import DRAWN
from fallow.protocol.identity import Issuer
from fallow.protocol.limits import HOLD_MS_MAX, SKEW_MS
from fallow.protocol.opening import Opening
from fallow.protocol.payment import Voucher
from fallow.protocol.receipts import FINAL, Receipt
from fallow.protocol.work import Parameters, Piece
from fallow.verifier.case import gather
from fallow.verifier.disputes import RULES, TWO_ANSWERS, Matter, Shown, decide, matter_of, run_wanted
from fallow.verifier.rerun import disowned
from fallow.verifier.verdict import judge

from .jobs import CLIENT, MANIFEST, NOW_MS, Job, Ordered, node_key, owner_key
from .test_grounds import CHANNEL, JUDGES, verifier_of

PAYEE, OWNER = node_key(10), bytes(owner_key(10).verify_key)
FEE, HASH = 9, b"\x07" * 32


@dataclass
class Scene:
    """A text under an order that names five judges, its receipt, and what either side shows of it."""

    kind: Kind
    job: Job = field(default_factory=lambda: Job("adaptive:1", candidates=tuple(sorted(JUDGES))))
    claimed: list[Signed[Any]] = field(default_factory=list)
    answered: list[Signed[Any]] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    says: str | None = None
    opens: tuple[bytes | None, str | None] = (None, None)

    def __post_init__(self) -> None:
        self.writer: Ordered = self.job.text(10, channel=CHANNEL.id)
        self.writer.write(0, 16)
        self.receipt: Signed[Receipt] = self.writer.receipt(FINAL)
        self.claimed += [*self.job.records, CHANNEL]

    @property
    def dispute(self) -> Signed[Dispute]:
        return disputed(self.kind, self.writer, self.receipt)

    @property
    def matter(self) -> Matter:
        dispute, accused = self.dispute, CLIENT if self.kind not in BY_PAYER else PAYEE
        plea = sign(Plea(dispute.id, self.says, HASH, *self.opens), accused) if self.says else None
        claimed, answered = Shown(self.claimed, self.openings), Shown(self.answered, self.openings)
        return matter_of(dispute, claimed, plea, answered)

    def opened(self) -> Scene:
        """The payer opens what it has ordered."""
        return self.with_openings(self.writer)

    def with_openings(self, *orders: Ordered) -> Scene:
        before = len(self.job.openings)
        for ordered in orders:
            ordered.open()
        self.openings += self.job.openings[before:]
        return self


def disputed(kind: Kind, ordered: Ordered, receipt: Signed[Receipt], **changes: Any) -> Signed[Dispute]:
    payer, payee = bytes(CLIENT.verify_key), ordered.order.record.executor
    by_payer = kind in BY_PAYER
    accused, key = (payee, CLIENT) if by_payer else (payer, node_key(ordered.node))
    record = Dispute(str(kind), accused, ordered.order.id, receipt.id, FEE, 60_000, NOW_MS, HASH)
    return sign(replace(record, **changes), key)


def decided(scene: Scene, objection: str | None = None, *, late: bool = False) -> Decision:
    decision = decide(scene.matter, objection, late=late)
    assert decision is not None
    return decision


def came_to(decision: Decision, scene: Scene, outcome: str, *, due: bool = False, withheld: bool = False) -> None:
    amount = scene.receipt.record.amount_ucr
    assert amount > 0
    assert (decision.outcome, decision.due_ucr, decision.withheld_ucr) == (outcome, amount * due, amount * withheld)
    sides = {scene.dispute.record.accused, scene.dispute.signer}
    assert decision.loser in sides
    assert (decision.loser == scene.dispute.record.accused) is (outcome == UPHELD)


@pytest.mark.spec("A-28")
def test_an_answer_that_is_not_the_models_is_withheld_and_its_executor_bears_the_fee() -> None:
    scene = Scene(Kind.WRONG).opened()
    run = run_wanted(scene.matter)
    assert run is not None and run.work.claimed == 16
    came_to(decided(scene, "its figures differ"), scene, UPHELD, withheld=True)
    came_to(decided(scene, ""), scene, DISMISSED, due=True)


@pytest.mark.spec("A-28", "A-29")
def test_who_opens_another_prompt_than_it_ordered_has_lost_before_anything_is_run() -> None:
    scene = Scene(Kind.WRONG).opened()
    scene.openings = [replace(opening, salt=bytes(32)) for opening in scene.openings]
    assert run_wanted(scene.matter) is None
    came_to(decided(scene), scene, DISMISSED, due=True)
    for kind in (Kind.MISMATCHED, Kind.UNPAID):
        scene = Scene(kind, says=ANSWERS).opened()
        scene.openings = [replace(opening, salt=bytes(32)) for opening in scene.openings]
        assert run_wanted(scene.matter) is None
        came_to(decided(scene), scene, UPHELD, due=True)
    complied = Scene(Kind.MISMATCHED, says=ANSWERS).opened()
    came_to(decided(complied), complied, DISMISSED)


@pytest.mark.spec("A-28")
def test_a_payer_that_does_not_pay_for_what_is_good() -> None:
    silent = Scene(Kind.UNPAID)
    assert decide(silent.matter, None, late=False) is None
    came_to(decided(silent, late=True), silent, UPHELD, due=True)
    good = Scene(Kind.UNPAID, says=ANSWERS).opened()
    assert run_wanted(good.matter) is not None
    came_to(decided(good, ""), good, UPHELD, due=True)
    came_to(decided(good, "its figures differ"), good, DISMISSED, withheld=True)


@pytest.mark.spec("A-28", "A-29")
def test_receipts_for_what_was_never_sent_win_nothing() -> None:
    for kind, fee in ((Kind.UNPAID, 0), (Kind.MISMATCHED, FEE), (Kind.WRONG, FEE)):
        scene = Scene(kind, says=None if kind is Kind.WRONG else ANSWERS).opened()
        scene.openings = [replace(opening, pieces=opening.pieces[:-1]) for opening in scene.openings]
        assert run_wanted(scene.matter) is None
        decision = decided(scene)
        came_to(decision, scene, DISMISSED)
        assert decision.fee_ucr == fee
    empty = Scene(Kind.UNPAID, says=ANSWERS)  # a receipt for no piece at all, and for pay
    empty.writer = empty.job.text(10, channel=CHANNEL.id)
    empty.receipt = empty.writer.receipt(FINAL)
    empty.claimed = [*empty.job.records, CHANNEL]
    empty.opened()
    came_to(decided(empty), empty, DISMISSED)


@pytest.mark.spec("A-28")
def test_what_the_payer_has_signed_that_it_came_is_due_though_it_does_not_open_it() -> None:
    scene = Scene(Kind.UNPAID, says=ANSWERS).opened()
    scene.openings = [replace(opening, pieces=()) for opening in scene.openings]
    scene.answered.append(sign(Voucher(CHANNEL.id, scene.receipt.id, 1, (), 0), CLIENT))
    came_to(decided(scene), scene, UPHELD, due=True)
    for names in ("checks", "continues"):
        scene = Scene(Kind.UNPAID, says=ANSWERS).opened()
        scene.openings = [replace(opening, pieces=()) for opening in scene.openings]
        scene.claimed += [
            (
                scene.job.check(11, scene.receipt, 16)
                if names == "checks"
                else scene.job.text(11, start=16, after=scene.receipt)
            ).order
        ]
        came_to(decided(scene), scene, UPHELD, due=True)


@pytest.mark.spec("A-28")
def test_what_the_payer_has_paid_or_borne_out_itself_is_not_run_again() -> None:
    paid = Scene(Kind.UNPAID, says=ANSWERS)
    amount = paid.receipt.record.amount_ucr
    paid.answered.append(sign(Voucher(CHANNEL.id, paid.receipt.id, amount, (), 0), CLIENT))
    assert run_wanted(paid.matter) is None
    decision = decided(paid)
    came_to(decision, paid, DISMISSED, due=True)
    assert decision.fee_ucr == 0
    less = Scene(Kind.UNPAID, says=ANSWERS)
    less.answered.append(sign(Voucher(CHANNEL.id, less.receipt.id, amount - 1, (), 0), CLIENT))
    came_to(decided(less), less, UPHELD, due=True)
    elsewhere = Scene(Kind.UNPAID, says=ANSWERS)
    elsewhere.answered.append(sign(Voucher(HASH, elsewhere.receipt.id, amount, (), 0), CLIENT))
    came_to(decided(elsewhere), elsewhere, UPHELD, due=True)

    own = Scene(Kind.UNPAID, says=ANSWERS)
    quorum = replace(own.job.question, policy=own.job.question.policy)
    own.claimed.append(sign(judge(gather(quorum, own.job.records)), CLIENT))
    assert decided(own).reason == "the payer's own verdict bears it out"
    came_to(decided(own), own, UPHELD, due=True)


@pytest.mark.spec("A-28")
def test_who_does_not_stand_by_its_receipt() -> None:
    for says, outcome in ((OWNS, DISMISSED), (DENIES, UPHELD), (ANSWERS, UPHELD)):
        scene = Scene(Kind.DISOWNED, says=says)
        came_to(decided(scene), scene, outcome, due=True)
    absent = Scene(Kind.DISOWNED)
    assert decide(absent.matter, None, late=False) is None
    decision = decided(absent, late=True)
    came_to(decision, absent, DISMISSED)
    assert decision.fee_ucr == 0


@pytest.mark.spec("A-28")
def test_a_commitment_that_is_never_opened() -> None:
    silent = Scene(Kind.UNOPENED)
    assert decide(silent.matter, None, late=False) is None
    came_to(decided(silent, late=True), silent, UPHELD, due=True)
    empty = Scene(Kind.UNOPENED, says=ANSWERS)
    came_to(decided(empty), empty, UPHELD, due=True)
    opened = Scene(Kind.UNOPENED, says=ANSWERS)
    verdict = judge(gather(opened.job.question, opened.job.records))
    opened.answered.append(sign(verdict, CLIENT))
    came_to(decided(opened), opened, DISMISSED)
    by_plea = Scene(Kind.UNOPENED, says=ANSWERS, opens=(opened.job.nonce, opened.job.policy))
    came_to(decided(by_plea), by_plea, DISMISSED)
    other_policy = Scene(Kind.UNOPENED, says=ANSWERS, opens=(opened.job.nonce, "none"))
    came_to(decided(other_policy), other_policy, UPHELD, due=True)
    another = Scene(Kind.UNOPENED, says=ANSWERS)
    another.answered.append(sign(replace(verdict, commitment_nonce=bytes(32)), CLIENT))
    came_to(decided(another), another, UPHELD, due=True)
    forged = Scene(Kind.UNOPENED, says=ANSWERS)
    forged.answered.append(sign(verdict, PAYEE))
    came_to(decided(forged), forged, UPHELD, due=True)


def both_ways(
    shift: int, *, tokens: tuple[int, ...] | None = None, masses: tuple[int, int] = (0, 0), top_p_ppm: int = 1_000_000
) -> Scene:
    """A checker that was asked twice about one window, and whose second finding is off by so much."""
    scene = Scene(Kind.TWO_FACED)
    check_channel = sign(replace(CHANNEL.record, payee=bytes(node_key(11).verify_key)), CLIENT)
    changes: dict[str, Any] = {"sequence": tokens} if tokens else {}
    asked: dict[str, Any] = {"channel": check_channel.id, "parameters": Parameters(80, top_p_ppm=top_p_ppm)}
    first = scene.job.check(11, scene.receipt, 16, mass=masses[0], **asked)
    second = scene.job.check(11, scene.receipt, 16, shift=shift, mass=masses[1], **asked, **changes)
    scene.claimed = [*scene.job.records, check_channel]
    scene.with_openings(first, second)
    scene.writer, scene.receipt = first, first.delivery.receipts[0]
    return scene


@pytest.mark.spec("A-28")
def test_a_checker_that_signs_both_ways() -> None:
    for shift, outcome in ((5_000, UPHELD), (101, UPHELD), (100, DISMISSED), (0, DISMISSED)):
        scene = both_ways(shift)
        dispute = scene.dispute
        decision = decide(matter_of(dispute, Shown(scene.claimed, scene.openings), None, Shown()), None, late=False)
        assert decision is not None
        came_to(decision, scene, outcome, due=outcome == DISMISSED, withheld=outcome == UPHELD)
    # What was given for the second check was changed, as in a spot check: then it may find something else.
    other = both_ways(5_000, tokens=(*range(20), 3))
    came_to(decided(other), other, DISMISSED, due=True)
    closed = both_ways(5_000)
    closed.openings = []
    came_to(decided(closed), closed, DISMISSED, due=True)


@pytest.mark.spec("A-28")
def test_honest_checkers_that_rank_equals_otherwise_are_not_two_faced() -> None:
    """Within the nucleus a mass may jump by a whole token: what counts is what lies beyond top-p."""
    top_p = 900_000
    for masses, outcome in (((0, top_p), DISMISSED), ((0, top_p + 500), DISMISSED), ((0, top_p + 501), UPHELD)):
        scene = both_ways(0, masses=masses, top_p_ppm=top_p)
        came_to(decided(scene), scene, outcome, due=outcome == DISMISSED, withheld=outcome == UPHELD)
    asked = both_ways(0, masses=(0, 0), top_p_ppm=top_p).matter.part
    for mass, wrong in ((top_p, False), (top_p + 501, True)):
        found = Piece(values_micro=asked.attestation.record.values_micro, gaps_micro=(0,) * 16, masses_ppm=(mass,) * 16)
        assert (disowned(asked, found, MANIFEST.record.tolerance) is not None) is wrong


@pytest.mark.spec("A-28")
def test_two_findings_under_one_order_need_no_plaintext() -> None:
    scene = both_ways(0)
    finding = next(one for one in scene.claimed if one.record.RECORD == "attestation")
    assert finding.record.order == scene.writer.order.id
    scene.claimed.append(sign(replace(finding.record, numerics_class="another"), node_key(11)))
    scene.openings = []
    came_to(decided(scene), scene, UPHELD, withheld=True)


@pytest.mark.spec("A-30")
@pytest.mark.parametrize("missing", ["channel", "job-order", "receipt", "manifest"])
def test_what_is_missing_is_decided_by_nobody(missing: str) -> None:
    scene = Scene(Kind.WRONG).opened()
    scene.claimed = [one for one in scene.claimed if missing != one.record.RECORD]
    with pytest.raises(RemoteProtocolError):
        _ = scene.matter


@pytest.mark.spec("A-30")
def test_a_plea_of_somebody_else_is_none() -> None:
    scene = Scene(Kind.DISOWNED)
    plea = sign(Plea(scene.dispute.id, DENIES, HASH, None, None), CLIENT)
    with pytest.raises(RemoteProtocolError):
        matter_of(scene.dispute, Shown(scene.claimed), plea, Shown())


@pytest.mark.spec("A-30")
def test_a_receipt_for_another_amount_than_its_orders_price_gives_is_decided_by_nobody() -> None:
    """Whoever shows what: the price is in the order, which both have agreed to."""
    scene = Scene(Kind.UNPAID, says=ANSWERS).opened()
    came_to(decided(scene, ""), scene, UPHELD, due=True)
    honest = scene.receipt
    for off in (-1, 1):
        scene.receipt = sign(replace(honest.record, amount_ucr=honest.record.amount_ucr + off), PAYEE)
        scene.claimed = [scene.receipt if one.id == honest.id or one.record == scene.receipt.record else one for one in
                         [*scene.job.records, CHANNEL]]  # fmt: skip
        with pytest.raises(RemoteProtocolError) as caught:
            decided(scene, "")
        assert caught.value.code is Code.BAD_RECORD


@pytest.mark.spec("A-28", "A-32")
@pytest.mark.parametrize("kind", [Kind.DISOWNED, Kind.UNPAID, Kind.MISMATCHED, Kind.UNOPENED])
def test_who_answers_one_judge_otherwise_than_another_has_lost(kind: Kind) -> None:
    accused = CLIENT if kind not in BY_PAYER else PAYEE
    scene = Scene(kind, says=OWNS).opened()

    def came(*elsewhere: Plea, says: str | None = OWNS, late: bool = False) -> Decision | None:
        scene.says = says
        matter, dispute = scene.matter, scene.dispute
        pleas = [sign(replace(one, dispute=dispute.id), accused) for one in elsewhere]
        shown = Shown(scene.claimed, scene.openings), Shown(scene.answered, scene.openings)
        matter = matter_of(dispute, shown[0], matter.plea, shown[1], pleas)
        assert run_wanted(matter) is None or not matter.two_answers
        return decide(matter, None, late=late)

    same, other = Plea(HASH, OWNS, HASH, None, None), Plea(HASH, OWNS, bytes(32), None, None)
    for twice in (came(other), came(same, other), came(same, other, says=None)):
        assert twice is not None
        came_to(twice, scene, UPHELD, due=True)
        assert (twice.fee_ucr, twice.reason) == (FEE, TWO_ANSWERS)
    alone, again = came(), came(same, same)
    assert alone == again and alone is not None and alone.reason != TWO_ANSWERS
    assert came(same, says=None) is None  # it may still answer here
    silent = came(same, says=None, late=True)
    assert silent is not None and silent.reason != TWO_ANSWERS
    strange = sign(replace(other, dispute=bytes(32)), accused)
    for plea in (strange, sign(replace(other, dispute=scene.dispute.id), node_key(12))):
        with pytest.raises(RemoteProtocolError):
            matter_of(scene.dispute, Shown(scene.claimed), None, Shown(), [plea])


@pytest.mark.spec("A-28")
def test_what_the_accused_shows_does_not_break_what_the_claimant_has_shown() -> None:
    """A second receipt, or a second finding, of the accused's own would leave nothing to judge."""
    for kind in (Kind.WRONG, Kind.UNPAID):
        scene = Scene(kind, says=ANSWERS).opened()
        before = decided(scene, "it differs")
        scene.answered.append(sign(replace(scene.receipt.record, transcript=bytes(32)), PAYEE))
        assert decided(scene, "it differs") == before
    scene = both_ways(5_000)
    finding = next(one for one in scene.claimed if one.record.RECORD == "attestation")
    scene.answered = [sign(replace(finding.record, numerics_class="another"), node_key(11))]
    came_to(decided(scene), scene, UPHELD, withheld=True)


SAYS = st.sampled_from([None, OWNS, DENIES, ANSWERS])


@pytest.mark.spec("A-28", "A-31")
@given(
    kind=st.sampled_from(list(Kind)), says=SAYS, objection=st.sampled_from([None, "", "it differs"]), late=st.booleans(),
    opened=st.booleans(), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_whatever_is_shown_one_side_loses_and_every_credit_is_due_or_withheld_once(
    kind: Kind, says: str | None, objection: str | None, late: bool, opened: bool, seed: int
) -> None:
    scene = Scene(kind, says=says)
    if opened:
        scene.opened()
    decision = decide(scene.matter, objection, late=late)
    if decision is None:
        assert RULES[kind].hears and says is None and not late
        return
    amount, dispute = scene.receipt.record.amount_ucr, scene.dispute
    assert (decision.due_ucr, decision.withheld_ucr) in {(amount, 0), (0, amount), (0, 0)}
    assert decision.loser == (dispute.record.accused if decision.outcome == UPHELD else dispute.signer)
    assert decision.fee_ucr in (0, FEE)
    assert forfeited_ucr_max(dispute.record, decision) <= amount + FEE
    random.Random(seed).shuffle(scene.claimed)
    assert decide(scene.matter, objection, late=late) == decision


def bound(scene: Scene, decisions: Sequence[Decision], **changes: Any) -> Decided:
    """What so many of the judges drawn have signed."""
    drawn = sorted(judges(scene.writer.order, OWNER))
    keys = [verifier_of(owner) for owner in drawn]
    signed = tuple(sign(one, keys[number][0]) for number, one in enumerate(decisions))
    given_ = Decided(CHANNEL, scene.writer.order, scene.receipt, scene.dispute, signed, [paper for _, paper in keys])
    return replace(given_, **changes)


@pytest.mark.spec("A-31", "P-29")
def test_two_of_the_three_judges_bind_both_sides() -> None:
    scene = Scene(Kind.WRONG).opened()
    decision = decided(scene, "its figures differ")
    assert check_decided(bound(scene, [decision, replace(decision, reason="otherwise")]), NOW_MS) == decision_id(
        decision
    )
    assert forfeited_ucr_max(scene.dispute.record, decision) == decision.withheld_ucr + FEE
    lost = Scene(Kind.UNPAID, says=ANSWERS).opened()
    for objection, owed in (("", FEE), ("its figures differ", 0)):  # a claimant that has lost owes the judges alone
        decision = decided(lost, objection)
        assert reimbursed_ucr(lost.dispute.record, decision) == owed
        assert forfeited_ucr_max(lost.dispute.record, decision) == decision.withheld_ucr


@pytest.mark.spec("P-29", "P-30")
def test_each_judge_drawn_is_owed_its_part_and_nobody_else_may_sign() -> None:
    scene = Scene(Kind.UNPAID, says=ANSWERS).opened()
    decision = decided(scene, "")
    honest = bound(scene, [decision, decision])
    payer, payee = bytes(CLIENT.verify_key), bytes(PAYEE.verify_key)
    assert check_decided(honest, NOW_MS) == decision_id(decision)
    parts = {signed.signer: -FEE // DRAWN for signed in honest.decisions}
    assert dues_of(honest, payee, 0, NOW_MS) == {payer: FEE, **parts}
    assert dues_of(honest, payer, 0, NOW_MS) == {payee: -FEE}

    owner = sorted(judges(scene.writer.order, OWNER))[0]
    key, paper = verifier_of(owner)
    stranger = SigningKey(b"\x5a" * 32)
    another = sign(replace(paper.record, node=bytes(stranger.verify_key)), owner_key(JUDGES[owner]))
    twice = sign(replace(decision, reason="again"), key)
    for more, papers in ((sign(decision, stranger), ()), (sign(decision, stranger), (another,)), (twice, ())):
        given_ = replace(honest, decisions=(*honest.decisions, more), mandates=(*honest.mandates, *papers))
        with pytest.raises(RemoteProtocolError) as caught:
            check_decided(given_, NOW_MS)
        assert caught.value.code is Code.BAD_RECORD


def test_a_judge_whose_mandate_was_dated_before_its_issuer_is_owed_once_both_have_lapsed() -> None:
    """What counted when it was decided must count when it is settled, or a judge could choose that it does not."""
    scene = Scene(Kind.UNPAID, says=ANSWERS).opened()
    decision = decided(scene, "")
    honest = bound(scene, [decision, decision])
    odd, issuer = honest.mandates[0].record, SigningKey(b"\x5b" * 32)
    record = Issuer(odd.owner, bytes(issuer.verify_key), 1, NOW_MS + SKEW_MS, NOW_MS + 2 * SKEW_MS)
    named = sign(record, owner_key(JUDGES[odd.owner])).envelope
    dated = replace(odd, not_before_ms=NOW_MS - 2 * SKEW_MS, expires_ms=NOW_MS - SKEW_MS, issuer=named)
    again = replace(honest, mandates=(sign(dated, issuer), *honest.mandates[1:]))
    assert check_decided(again, NOW_MS) == decision_id(decision)
    payee = bytes(PAYEE.verify_key)
    assert dues_of(again, payee, 0, None) == dues_of(again, payee, 0, NOW_MS)
    never = replace(dated, expires_ms=NOW_MS - SKEW_MS - 1)
    with pytest.raises(RemoteProtocolError):
        dues_of(replace(again, mandates=(sign(never, issuer), *honest.mandates[1:])), payee, 0, None)


@pytest.mark.spec("P-29")
def test_one_verifier_of_two_owners_is_one_judge() -> None:
    scene = Scene(Kind.WRONG).opened()
    decision = decided(scene, "its figures differ")
    one, other = sorted(judges(scene.writer.order, OWNER))[:2]
    _, paper = verifier_of(one)
    lent = sign(replace(paper.record, owner=other), owner_key(JUDGES[other]))
    given_ = replace(bound(scene, [decision]), mandates=(paper, lent))
    with pytest.raises(RemoteProtocolError) as caught:
        check_decided(given_, NOW_MS)
    assert caught.value.code is Code.UNSATISFIABLE_ASSURANCE


def test_a_mandate_that_has_lapsed_too_long_ago_does_not_spoil_what_the_others_have_signed() -> None:
    scene = Scene(Kind.WRONG).opened()
    three = bound(scene, [decided(scene, "its figures differ")] * 3)
    lapsed, now_ms = three.mandates[2], NOW_MS + 1 + SKEW_MS + HOLD_MS_MAX
    short = sign(replace(lapsed.record, expires_ms=NOW_MS + 1), owner_key(JUDGES[lapsed.record.owner]))
    later = replace(three, mandates=(*three.mandates[:2], short))
    for at_ms in (NOW_MS, now_ms):
        assert still_counted(later, at_ms).decisions == three.decisions
        check_decided(later, at_ms)
    with pytest.raises(RemoteProtocolError):
        check_decided(later, now_ms + 1)
    left = still_counted(later, now_ms + 1)
    assert left.decisions == three.decisions[:2]
    check_decided(left, now_ms + 1)


@pytest.mark.spec("P-29")
def test_what_binds_nobody() -> None:
    scene = Scene(Kind.WRONG).opened()
    decision = decided(scene, "its figures differ")

    def refused(given_: Decided) -> Code:
        with pytest.raises(FallowError) as caught:
            check_decided(given_, NOW_MS)
        return caught.value.code

    assert refused(bound(scene, [decision])) is Code.UNSATISFIABLE_ASSURANCE
    assert refused(bound(scene, [decision, replace(decision, fee_ucr=0)])) is Code.BAD_RECORD
    for changes in (
        {"fee_ucr": FEE + 1}, {"withheld_ucr": decision.withheld_ucr - 1}, {"loser": bytes(CLIENT.verify_key)},
        {"dispute": HASH}, {"outcome": DISMISSED},
    ):  # fmt: skip
        assert refused(bound(scene, [replace(decision, **changes)] * 2)) is Code.BAD_RECORD
    elsewhere = sign(replace(CHANNEL.record, nonce=b"\x01" * 16), CLIENT)
    assert refused(bound(scene, [decision] * 2, channel=elsewhere)) is Code.BAD_RECORD
    other = Scene(Kind.WRONG)
    assert refused(bound(scene, [decision] * 2, receipt=sign(replace(other.receipt.record, sequence=1), PAYEE))) is (
        Code.BAD_RECORD
    )


@pytest.mark.spec("A-30")
def test_whose_claim_it_may_be() -> None:
    scene = Scene(Kind.WRONG)
    order, receipt = scene.writer.order, scene.receipt.record
    check_dispute(scene.dispute, order, receipt, NOW_MS)
    turned = {"accused": bytes(CLIENT.verify_key)}
    dear = {"fee_ucr": receipt.amount_ucr // DRAWN * DRAWN + DRAWN}
    for changes, key in (({}, PAYEE), (turned, CLIENT), (dear, CLIENT), ({"order": HASH}, CLIENT), ({}, node_key(12))):
        record = replace(scene.dispute.record, **changes)
        with pytest.raises(RemoteProtocolError):
            check_dispute(sign(record, SigningKey(bytes(key))), order, receipt, NOW_MS)
    check_dispute(scene.dispute, order, receipt, NOW_MS + HOLD_MS_MAX)  # a judge that was away gets it later
    for opened_ms in (order.record.created_ms - SKEW_MS - 1, NOW_MS + SKEW_MS + 1):
        with pytest.raises(RemoteProtocolError):
            check_dispute(sign(replace(scene.dispute.record, opened_ms=opened_ms), CLIENT), order, receipt, NOW_MS)
    late_ms = order.record.created_ms + HOLD_MS_MAX + SKEW_MS
    late = sign(replace(scene.dispute.record, opened_ms=late_ms), CLIENT)
    check_dispute(late, order, receipt, late_ms)
    with pytest.raises(RemoteProtocolError):
        check_dispute(late, order, receipt, late_ms + 1)


def test_the_manifest_is_what_the_order_names() -> None:
    assert Scene(Kind.WRONG).matter.tolerance == MANIFEST.record.tolerance
