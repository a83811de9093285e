"""Verdicts recomputed from signed records alone, and the credits that follow from them."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow.protocol.checks import Attestation, Finding, Outcome, Standing, Verdict
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import RemoteProtocolError
from fallow.protocol.identity import Mandate
from fallow.protocol.orders import Accept
from fallow.protocol.policy import draw
from fallow.protocol.receipts import FINAL, OPEN, YIELDED, Receipt
from fallow.verifier.case import gather
from fallow.verifier.settlement import settle
from fallow.verifier.verdict import judge, recompute

from .jobs import CLIENT, PROMPT, Job, call, mandate, node_key, owner_key

QUORUM = "quorum:2/3"


def verdict(job: Job, **changes: Any) -> Verdict:
    return judge(gather(replace(job.question, **changes), job.records, job.openings))


def opened(job: Job) -> Job:
    """With everything that was asked and answered shown."""
    for ordered in job.ordered:
        ordered.open()
    return job


def of(found: Verdict, node: int) -> Finding:
    (finding,) = (f for f in found.findings if f.node == bytes(node_key(node).verify_key))
    return finding


def receipts(job: Job) -> list[Signed[Receipt]]:
    return [signed for signed in job.records if isinstance(signed.record, Receipt)]


def settled(job: Job, found: Verdict) -> None:
    """Every micro-credit that was claimed is due or withheld."""
    settlement = settle(found, receipts(job))
    claimed: dict[bytes, int] = {}
    for receipt in receipts(job):
        claimed[receipt.record.order] = max(claimed.get(receipt.record.order, 0), receipt.record.amount_ucr)
    assert settlement.due_ucr + settlement.withheld_ucr == sum(claimed.values())


def honest_text(policy: str = QUORUM) -> Job:
    """Two windows and a bit, each confirmed by two checkers."""
    job = Job(policy)
    writer = job.text(10)
    for start, count, end in ((0, 32, OPEN), (32, 32, OPEN), (64, 16, FINAL)):
        writer.write(start, count)
        receipt = writer.receipt(end)
        for checker in (11, 12):
            job.check(checker, receipt, start + count)
    return job


@pytest.mark.spec("A-16", "A-19", "A-23")
def test_a_text_that_all_confirm_is_accepted_and_paid() -> None:
    job = honest_text()
    found = verdict(job)
    assert found.outcome == Outcome.ACCEPTED
    assert {finding.standing for finding in found.findings} == {Standing.UPHELD}
    assert not any(finding.withheld_ucr for finding in found.findings)
    settled(job, found)


@pytest.mark.spec("A-16")
@pytest.mark.parametrize("more", [0, 3])
def test_the_client_may_end_a_text_after_any_token_that_is_borne_out(more: int) -> None:
    job = Job(QUORUM)
    writer = job.text(10)
    writer.write(0, 32)
    first = writer.receipt(OPEN)
    writer.write(32, more)
    last = writer.receipt("cancelled")
    for checker in (11, 12):
        job.check(checker, first, 32)
        if more:
            job.check(checker, last, 35)
    assert verdict(job).outcome == Outcome.ACCEPTED
    nothing = Job(QUORUM)
    nothing.text(10).receipt("cancelled")
    assert verdict(nothing).outcome == Outcome.INCONCLUSIVE


def test_a_text_without_its_end_is_left_open() -> None:
    job = Job(QUORUM)
    writer = job.text(10)
    writer.write(0, 32)
    job.check(11, writer.receipt(OPEN), 32)
    found = verdict(job)
    assert found.outcome == Outcome.INCONCLUSIVE
    assert of(found, 10).standing == Standing.UPHELD


def least_price(shift: int) -> tuple[Verdict, Signed[Receipt]]:
    """A node writes a window, and is cancelled under another order of the work before it has written anything."""
    job = Job(QUORUM)
    writer = job.text(10)
    writer.write(0, 32, shift)
    first = writer.receipt(OPEN)
    for checker in (11, 12):
        job.check(checker, first, 32)
    nothing = job.text(10).receipt("cancelled")
    for ordered in job.ordered:
        ordered.open()
    return verdict(job), nothing


@pytest.mark.spec("A-16", "A-19")
def test_who_is_refuted_is_not_due_the_least_price_of_what_was_cancelled() -> None:
    found, nothing = least_price(0)
    assert nothing.id in of(found, 10).due_for
    found, nothing = least_price(5_000)
    assert of(found, 10).standing == Standing.REFUTED
    assert (of(found, 10).due_for, of(found, 10).due_ucr) == ((), 0)
    assert of(found, 10).withheld_ucr > nothing.record.amount_ucr > 0


def lied_and_replaced() -> Job:
    """The second window is false; another node writes it anew, and the text ends well."""
    job = Job(QUORUM)
    liar = job.text(10)
    liar.write(0, 32)
    first = liar.receipt(OPEN)
    liar.write(32, 32, shift=5_000)
    false = liar.receipt(OPEN)
    liar.write(64, 2)
    liar.receipt("cancelled")
    for checker in (11, 12):
        job.check(checker, first, 32)
        job.check(checker, false, 64)
    writer = job.text(13, start=32, after=first)
    writer.write(32, 32)
    second = writer.receipt(OPEN)
    writer.write(64, 16)
    last = writer.receipt(FINAL)
    for checker in (11, 12):
        job.check(checker, second, 64)
        job.check(checker, last, 80)
    return job


@pytest.mark.spec("A-14", "A-16", "A-19", "A-23")
def test_a_liar_is_refuted_and_paid_only_for_what_was_true() -> None:
    job = opened(lied_and_replaced())
    found = verdict(job)
    assert found.outcome == Outcome.ACCEPTED
    liar = of(found, 10)
    assert liar.standing == Standing.REFUTED
    assert "micro-nats" in liar.reason
    assert len(liar.due_for) == 1
    assert len(liar.evidence) == 3
    assert liar.withheld_ucr > 0
    assert all(of(found, node).standing == Standing.UPHELD for node in (11, 12, 13))
    settled(job, found)


@pytest.mark.spec("A-16")
def test_a_text_that_only_ever_was_false_is_rejected() -> None:
    job = Job(QUORUM)
    liar = job.text(10)
    liar.write(0, 32, shift=5_000)
    false = liar.receipt(OPEN)
    for checker in (11, 12):
        job.check(checker, false, 32)
    found = verdict(opened(job))
    assert found.outcome == Outcome.REJECTED
    assert of(found, 10).due_ucr == 0


def test_nobody_is_refuted_by_checks_of_something_else() -> None:
    """Honest checkers who were shown other tokens object to an honest executor: it takes the plaintext to see why."""
    job = Job(QUORUM)
    writer = job.text(10)
    writer.write(0, 9)
    end = writer.receipt(FINAL)
    for checker in (11, 12):
        job.check(checker, end, 9, shift=70_000, sequence=tuple(range(100, 100 + PROMPT + 9)))
    assert verdict(job).outcome == Outcome.INCONCLUSIVE
    found = verdict(opened(job))
    assert found.outcome == Outcome.INCONCLUSIVE
    assert [of(found, node).standing for node in (10, 11, 12)] == ["undecided"] * 3


def carried(gap: int = 0) -> Job:
    """The first node dies after 40 tokens and one receipt; the second goes on, and its check covers what nobody signed."""
    job = Job(QUORUM)
    gone = job.text(10)
    gone.write(0, 32)
    first = gone.receipt(OPEN)
    gone.write(32, 8)
    for checker in (11, 12):
        job.check(checker, first, 32)
    writer = job.text(13, start=40, after=first)
    writer.write(40, 32)
    second = writer.receipt(OPEN)
    writer.write(72, 8)
    last = writer.receipt(FINAL)
    for checker in (11, 12):
        job.check(checker, second, 72, carried=8, gap=gap)
        job.check(checker, last, 80)
    return job


@pytest.mark.spec("A-15", "A-16")
def test_tokens_that_nobody_signed_are_covered_by_the_next_ones_check() -> None:
    found = verdict(carried())
    assert found.outcome == Outcome.ACCEPTED
    uncovered = carried()
    uncovered.records = [signed for signed in uncovered.records if getattr(signed.record, "planned_tokens", 0) != 40]
    assert verdict(uncovered).outcome == Outcome.INCONCLUSIVE


def relayed(policy: str, carried: int) -> Job:
    """Between the two, a third was asked to go on, and left without a token."""
    job = Job(policy)
    gone = job.text(10)
    gone.write(0, 32)
    first = gone.receipt(OPEN)
    nothing = job.text(14, start=40, after=first).receipt(YIELDED)
    writer = job.text(13, start=40, after=nothing)
    writer.write(40, 8)
    last = writer.receipt(FINAL)
    for checker in (11, 12):
        job.check(checker, first, 32)
        job.check(checker, last, 48, carried=carried)
    return job


@pytest.mark.spec("A-16")
@pytest.mark.parametrize("policy", [QUORUM, "adaptive:1"])
def test_who_leaves_without_a_token_is_passed_over(policy: str) -> None:
    assert verdict(relayed(policy, carried=8)).outcome == Outcome.ACCEPTED
    assert verdict(relayed(policy, carried=0)).outcome == Outcome.INCONCLUSIVE


@pytest.mark.spec("A-16", "A-23")
def test_a_yielded_part_is_due_and_the_text_goes_on() -> None:
    job = Job(QUORUM)
    first = job.text(10)
    first.write(0, 20)
    part = first.receipt(YIELDED)
    second = job.text(13, start=20, after=part)
    second.write(20, 10)
    end = second.receipt(FINAL)
    for checker in (11, 12):
        job.check(checker, part, 20)
        job.check(checker, end, 30)
    found = verdict(job)
    assert found.outcome == Outcome.ACCEPTED
    assert of(found, 10).due_ucr == part.record.amount_ucr
    settled(job, found)


@pytest.mark.spec("A-13")
def test_a_checker_that_gave_nothing_is_silent_and_not_blamed() -> None:
    job = Job(QUORUM)
    writer = job.text(10)
    writer.write(0, 9)
    end = writer.receipt(FINAL)
    job.check(11, end, 9)
    job.check(12, end, 9, silent=True)
    found = verdict(job)
    assert found.outcome == Outcome.ACCEPTED
    assert of(found, 12).standing == Standing.SILENT


@pytest.mark.spec("A-12")
def test_nodes_of_one_owner_and_the_client_itself_do_not_make_a_quorum() -> None:
    job = Job(QUORUM)
    writer = job.text(10)
    writer.write(0, 9)
    end = writer.receipt(FINAL)
    job.check(11, end, 9, owner=10)
    assert verdict(job).outcome == Outcome.INCONCLUSIVE
    job.check(12, end, 9)
    assert verdict(job).outcome == Outcome.ACCEPTED


@pytest.mark.spec("A-10")
def test_without_a_mandate_that_it_named_a_node_counts_for_nobody() -> None:
    """Else two nodes of one owner would make a quorum by leaving the mandate of one out."""
    job = Job(QUORUM)
    writer = job.text(10)
    writer.write(0, 9)
    end = writer.receipt(FINAL)
    job.check(11, end, 9, owner=10)
    own = [signed for signed in job.records if isinstance(signed.record, Mandate) and signed.record.node == node(11)]
    job.records = [signed for signed in job.records if signed not in own]
    found = verdict(job)
    assert found.outcome == Outcome.INCONCLUSIVE
    assert of(found, 11).owner == node(11)
    whole = honest_text()
    whole.records = [signed for signed in whole.records if not isinstance(signed.record, Mandate)]
    assert verdict(whole).outcome == Outcome.INCONCLUSIVE
    functions = vectors(QUORUM, (1.0, 0.0), (1.0, 0.0), (1.0, 0.0))
    functions.records = [signed for signed in functions.records if not isinstance(signed.record, Mandate)]
    assert verdict(functions).outcome == Outcome.INCONCLUSIVE


def test_who_accepts_under_two_mandates_counts_for_nobody() -> None:
    job = honest_text("quorum:3/3")
    assert verdict(job).outcome == Outcome.ACCEPTED
    other = mandate(11, 13)
    accepts = [signed for signed in job.records if isinstance(signed.record, Accept) and signed.signer == node(11)]
    job.records += [other, *(sign(replace(signed.record, mandate=other.id), node_key(11)) for signed in accepts)]
    assert verdict(job).outcome == Outcome.INCONCLUSIVE


def node(number: int) -> bytes:
    return bytes(node_key(number).verify_key)


def test_an_anchor_is_asked_for_and_named() -> None:
    job = honest_text("quorum:2/3+anchor")
    assert verdict(job).outcome == Outcome.INCONCLUSIVE
    anchor = bytes(owner_key(12).verify_key)
    found = verdict(job, anchors=frozenset({anchor, b"\x00" * 32}))
    assert found.outcome == Outcome.ACCEPTED
    assert found.anchors == (anchor,)


@pytest.mark.spec("A-3")
@pytest.mark.parametrize("ppm", [1, 300_000, 700_000, 1_000_000])
def test_an_audit_asks_for_the_windows_that_chance_draws_and_no_others(ppm: int) -> None:
    job = Job(f"audit:{ppm}")
    writer = job.text(10)
    windows = []
    for start, count, end in ((0, 32, OPEN), (32, 32, OPEN), (64, 16, FINAL)):
        writer.write(start, count)
        windows.append((writer.receipt(end), start + count))
    drawn = [(receipt, end) for receipt, end in windows if job.question.policy.draws(job.nonce, receipt.id)]
    assert (verdict(job).outcome == Outcome.ACCEPTED) is (not drawn)
    for receipt, end in drawn:
        job.check(11, receipt, end)
    found = verdict(job)
    assert found.outcome == Outcome.ACCEPTED
    settled(job, found)


def last_of(job: Job, number: int) -> Signed[Receipt]:
    return next(r for r in receipts(job) if r.record.end == FINAL and r.signer == node(number))


def test_who_signs_two_receipts_for_one_window_is_refuted() -> None:
    job = honest_text()
    twin = last_of(job, 10)
    job.records.append(sign(replace(twin.record, amount_ucr=twin.record.amount_ucr - 1), node_key(10)))
    found = verdict(job)
    assert found.outcome == Outcome.INCONCLUSIVE
    assert of(found, 10).standing == Standing.REFUTED
    settled_without(job, found, twin)


def settled_without(job: Job, found: Verdict, twin: Signed[Receipt]) -> None:
    """Receipts that contradict one another claim nothing."""
    kept = [
        r for r in receipts(job) if (r.record.order, r.record.sequence) != (twin.record.order, twin.record.sequence)
    ]
    assert settle(found, receipts(job)).due_ucr == settle(found, kept).due_ucr


def test_who_signs_two_different_attestations_is_refuted_and_cannot_clear_itself() -> None:
    job = Job(QUORUM)
    writer = job.text(10)
    writer.write(0, 9)
    end = writer.receipt(FINAL)
    job.check(11, end, 9)
    job.check(12, end, 9, shift=9_000)
    found = verdict(opened(job))
    assert of(found, 12).standing == Standing.REFUTED
    said = next(r for r in job.records if isinstance(r.record, Attestation) and r.signer == node(12))
    again = sign(replace(said.record, gaps_micro=(1,) * 9), node_key(12))
    both = verdict(replace_records(job, [*job.records, again]))
    assert of(both, 12).standing == Standing.REFUTED
    assert {said.id, again.id} <= set(of(both, 12).evidence)
    assert recompute(found, [*job.records, again], job.openings) == found


def replace_records(job: Job, records: list[Signed[Any]]) -> Job:
    return replace(job, records=records)


def test_a_record_signed_twice_is_one_record() -> None:
    """Which of the two it is follows from the orders of the client, who had one of them."""
    job = honest_text()
    expected = verdict(job)
    for signed in [r for r in job.records if isinstance(r.record, Receipt | Attestation)]:
        twin = Signed(signed.record, signed.signer, b"another envelope of it" + signed.id)
        assert verdict(replace_records(job, [*job.records, twin])).outcome == expected.outcome
        assert of(verdict(replace_records(job, [*job.records, twin])), 10).standing == Standing.UPHELD


@pytest.mark.spec("A-9")
@pytest.mark.parametrize("off", [-1, 1])
def test_a_receipt_for_another_amount_than_its_orders_price_gives_claims_nothing(off: int) -> None:
    job = Job("none")
    writer = job.text(10)
    writer.write(0, 32)
    first = writer.receipt(OPEN)
    writer.write(32, 9)
    honest = writer.receipt(FINAL)
    assert of(verdict(job), 10).due_ucr == honest.record.amount_ucr
    other = sign(replace(honest.record, amount_ucr=honest.record.amount_ucr + off), node_key(10))
    found = verdict(replace_records(job, [other if one is honest else one for one in job.records]))
    assert (found.outcome, of(found, 10).evidence) == (Outcome.INCONCLUSIVE, (first.id,))
    assert (of(found, 10).due_ucr, of(found, 10).withheld_ucr) == (first.record.amount_ucr, 0)


def test_nothing_comes_after_the_end_and_nothing_beyond_the_order() -> None:
    job = honest_text()
    expected = verdict(job)
    last = last_of(job, 10)
    after = replace(
        last.record, sequence=3, previous=last.id, first_token=80, tokens=0, values_micro=(), end="cancelled"
    )
    job.records.append(sign(replace(after, amount_ucr=2**53 - 1), node_key(10)))
    assert verdict(job) == expected
    for change in ({"amount_ucr": 10_001}, {"tokens": 81, "values_micro": (-1,) * 81}):
        greedy = Job(QUORUM)
        writer = greedy.text(10)
        record = replace(writer.delivery.next_receipt("cancelled"), **change)
        greedy.records.append(sign(record, node_key(10)))
        found = verdict(greedy)
        assert found.outcome == Outcome.INCONCLUSIVE
        assert (of(found, 10).due_ucr, of(found, 10).standing) == (0, Standing.SILENT)


def test_a_check_of_fewer_tokens_or_of_another_end_is_about_something_else() -> None:
    for claimed, end in ((4, 9), (9, 8)):
        job = Job(QUORUM)
        writer = job.text(10)
        writer.write(0, 9)
        receipt = writer.receipt(FINAL)
        job.check(11, receipt, 9)
        job.check(12, receipt, end, carried=claimed - 9)
        found = verdict(job)
        assert found.outcome == Outcome.ACCEPTED
        assert of(found, 12).standing == Standing.UNDECIDED


def test_a_strangers_opening_stops_nothing() -> None:
    job = vectors(QUORUM, (1.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    expected = verdict(job)
    junk = [replace(opening, salt=bytes(32)) for opening in job.openings]
    assert judge(gather(job.question, job.records, [*junk, *job.openings])) == expected
    assert judge(gather(job.question, job.records, junk)).outcome == Outcome.INCONCLUSIVE


COMMITTEE = "committee:2/3"


def committee(shift: int = 0, lied: int = 0) -> tuple[Job, list[bytes]]:
    """A text of one window, judged by whom chance called from six candidates; the client and the executor are among them."""
    owners = {bytes(owner_key(number).verify_key): number for number in (10, 11, 12, 13, 14)}
    job = Job(COMMITTEE, candidates=(*owners, bytes(CLIENT.verify_key)))
    writer = job.text(10)
    writer.write(0, 9, shift=lied)
    end = writer.receipt(FINAL)
    parties = {bytes(CLIENT.verify_key), bytes(owner_key(10).verify_key), bytes(node_key(10).verify_key)}
    drawn = draw(job.nonce, end.id, job.candidates, parties, 3)
    for owner in drawn:
        job.check(owners[owner], end, 9, shift=shift)
    left = next(number for owner, number in owners.items() if owner not in drawn and number != 10)
    job.check(left, end, 9, shift=shift)
    return job, drawn


@pytest.mark.spec("A-4", "A-14")
def test_a_committee_that_confirms_leaves_the_fee_with_the_payer() -> None:
    job, _ = committee()
    found = verdict(job)
    assert found.outcome == Outcome.ACCEPTED
    settlement = settle(found, receipts(job))
    assert settlement.fee_ucr > 0
    assert settlement.fee_bearer is None


@pytest.mark.spec("A-4")
def test_a_committee_that_rejects_costs_the_executor_the_fee() -> None:
    job, drawn = committee(lied=5_000)
    assert verdict(job).outcome == Outcome.INCONCLUSIVE
    found = verdict(opened(job))
    assert found.outcome == Outcome.REJECTED
    settlement = settle(found, receipts(job))
    executor = bytes(owner_key(10).verify_key)
    assert settlement.fee_bearer == executor
    assert settlement.owners()[executor] == -settlement.fee_ucr
    assert sum(settlement.owners().values()) == settlement.due_ucr - settlement.fee_ucr
    assert {f.owner for f in found.findings if f.role == "checker" and f.due_ucr} == set(drawn)


def vectors(policy: str, *results: tuple[float, ...]) -> Job:
    job = Job(policy)
    for number, result in enumerate(results, 10):
        call(job, number, result)
    return job


@pytest.mark.spec("A-18", "A-20")
def test_a_functions_verdict_rests_on_opened_outputs() -> None:
    job = vectors(QUORUM, (1.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    found = verdict(job)
    assert found.outcome == Outcome.ACCEPTED
    assert [of(found, n).standing for n in (10, 11, 12)] == ["upheld", "upheld", "refuted"]
    settled(job, found)
    assert recompute(found, job.records, job.openings) == found
    with pytest.raises(RemoteProtocolError, match="not opened"):
        recompute(found, job.records, job.openings[:2])
    assert verdict(vectors(QUORUM, (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))).outcome == Outcome.INCONCLUSIVE


@pytest.mark.spec("A-18")
@pytest.mark.parametrize(("own", "outcome"), [((1.0, 0.0), Outcome.ACCEPTED), ((0.0, 1.0), Outcome.REJECTED)])
def test_a_committee_re_executes_a_function(own: tuple[float, ...], outcome: Outcome) -> None:
    owners = {bytes(owner_key(number).verify_key): number for number in (11, 12, 13, 14, 15)}
    job = Job(COMMITTEE, candidates=tuple(owners))
    executor = call(job, 10, own)
    final = executor.delivery.receipts[-1]
    parties = {bytes(CLIENT.verify_key), bytes(owner_key(10).verify_key), bytes(node_key(10).verify_key)}
    drawn = draw(job.nonce, final.id, job.candidates, parties, 3)
    assert verdict(job).outcome == Outcome.INCONCLUSIVE
    for owner in owners:  # all are asked; only those whom chance called count
        call(job, owners[owner], (1.0, 0.0) if owner in drawn else (0.0, 1.0), checks=final.id)
    found = verdict(job)
    assert found.outcome == outcome
    assert {f.owner for f in found.findings if f.role == "checker" and f.due_ucr} == set(drawn)
    settled(job, found)


def test_who_was_asked_about_something_else_is_not_counted() -> None:
    job = Job(QUORUM)
    call(job, 10, (1.0, 0.0))
    call(job, 11, (1.0, 0.0), sequence=(9, 9, 9))
    call(job, 12, (0.0, 1.0))
    assert verdict(job).outcome == Outcome.INCONCLUSIVE


@pytest.mark.spec("A-11")
@given(st.integers(0, 2**32), st.sampled_from([honest_text, lied_and_replaced, carried]))
@settings(deadline=None, max_examples=40)
def test_evidence_in_any_order_and_twice_gives_the_same_verdict(seed: int, make: Any) -> None:
    job, random = opened(make()), Random(seed)
    expected = verdict(job)
    shuffled = job.records * 2
    random.shuffle(shuffled)
    assert judge(gather(job.question, shuffled, job.openings)) == expected
    assert recompute(expected, shuffled, job.openings) == expected


@pytest.mark.spec("A-16")
@given(st.data())
@settings(deadline=None, max_examples=150)
def test_without_some_of_the_evidence_less_is_accepted_and_less_is_due(data: st.DataObject) -> None:
    """Whoever leaves records out clears and pays nobody."""
    make = data.draw(st.sampled_from([honest_text, lied_and_replaced, carried]))
    job = opened(make())
    full = verdict(job)
    lost = data.draw(st.sets(st.sampled_from([signed.id for signed in job.records[1:]]), max_size=8))
    try:
        less = verdict(replace_records(job, [signed for signed in job.records if signed.id not in lost]))
    except RemoteProtocolError:
        return  # nothing left to judge
    due = {(finding.role, finding.node): finding.due_ucr for finding in full.findings}
    refuted = {(f.role, f.node) for f in full.findings if f.standing == Standing.REFUTED}
    assert less.outcome != Outcome.ACCEPTED or full.outcome == Outcome.ACCEPTED
    for finding in less.findings:
        assert finding.due_ucr <= due[finding.role, finding.node]
        assert finding.standing != Standing.REFUTED or (finding.role, finding.node) in refuted


@st.composite
def histories(draw: st.DrawFn) -> Job:
    """Nodes that write, lie, leave and equivocate; checkers that confirm, lie and say nothing."""
    job = Job(draw(st.sampled_from([QUORUM, "quorum:2/2", "audit:500000", "audit:1000000"])))
    position, last = 0, None
    for writer_number in range(20, 20 + draw(st.integers(1, 3))):
        writer = job.text(writer_number, draw(st.integers(20, 22)), start=position, after=last)
        for _ in range(draw(st.integers(0, 2))):
            shift = draw(st.sampled_from([0, 0, 5_000]))
            writer.write(position, 4, shift)
            position += 4
            last = writer.receipt(draw(st.sampled_from([OPEN, OPEN, FINAL, YIELDED, "cancelled"])))
            for checker in draw(st.lists(st.integers(30, 34), unique=True, max_size=3)):
                mood = draw(st.sampled_from(["true", "true", "true", "false", "silent"]))
                job.check(checker, last, position, shift=9_000 * (mood == "false"), silent=mood == "silent")
            if last.record.end != OPEN:
                break
            if draw(st.booleans()) and draw(st.booleans()):
                job.records.append(
                    sign(replace(last.record, amount_ucr=last.record.amount_ucr + 1), node_key(writer_number))
                )
    return job


@pytest.mark.spec("A-9", "A-23")
@given(histories())
@settings(deadline=None, max_examples=150)
def test_over_any_history_every_credit_is_due_or_withheld_and_only_the_refuted_are_blamed(job: Job) -> None:
    found = verdict(opened(job))
    chains = [part for part in gather(job.question, job.records).parts if part.receipts]
    claimed = sum(part.receipts[-1].record.amount_ucr for part in chains)
    assert sum(finding.due_ucr + finding.withheld_ucr for finding in found.findings) == claimed
    honest = {bytes(node_key(number).verify_key) for number in range(30, 35)}
    for finding in found.findings:
        assert (finding.standing == Standing.UPHELD) is (finding.reason == "")
        assert set(finding.due_for) <= set(finding.evidence)
        assert finding.node not in honest or finding.role == "checker"
    assert recompute(found, job.records, job.openings) == found


def test_strangers_orders_under_the_same_commitment_change_nothing() -> None:
    job = honest_text()
    expected = verdict(job)
    stranger = node_key(200)
    forged = [sign(signed.record, stranger) for signed in job.records if hasattr(signed.record, "check_commitment")]
    assert judge(gather(job.question, [*job.records, *forged])) == expected


@pytest.mark.spec("A-22")
def test_a_verdict_with_other_sums_is_not_settled() -> None:
    job = honest_text()
    found = verdict(job)
    first = found.findings[0]
    for change in ({"due_ucr": first.due_ucr + 1}, {"due_for": ()}, {"evidence": first.evidence[:1]}):
        tampered = replace(found, findings=(replace(first, **change), *found.findings[1:]))
        with pytest.raises(RemoteProtocolError):
            settle(tampered, receipts(job))
    with pytest.raises(RemoteProtocolError):
        settle(replace(found, findings=(*found.findings, first)), receipts(job))
