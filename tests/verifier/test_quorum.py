"""Verdicts: who is believed, who is named, and what is left open."""

from __future__ import annotations

from array import array
from dataclasses import replace
from math import sin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.protocol.bundle import Tolerance
from fallow.protocol.checks import TEACHER_FORCED, Attestation, Outcome
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.policy import Policy
from fallow.protocol.receipts import Receipt
from fallow.protocol.work import Piece
from fallow.verifier.quorum import (
    Check,
    FunctionJudgement,
    Member,
    Result,
    Standings,
    Window,
    judge_results,
    judge_window,
)

TOLERANCE = Tolerance(100, 1_000, 500, 0, 0, (), "for this test")
KEYS = [SigningKey(bytes([n]) * 32) for n in range(1, 9)]
H = b"\x05" * 32
POLICY = Policy.parse("quorum:2/3")


def member(n: int, owner: int | None = None) -> Member:
    return Member(bytes(KEYS[n].verify_key), bytes([owner if owner is not None else n]) * 32)


def receipt(values: tuple[int, ...]) -> Signed[Receipt]:
    return sign(Receipt(H, 0, None, 0, len(values), H, values, "c", 9, "final"), KEYS[0])


HONEST = (-100_000, -2_000_000, -50_000)
RECEIPT = receipt(HONEST)


def finding(
    n: int,
    values: tuple[int, ...] = HONEST,
    gap: int = 0,
    mass: int = 0,
    subject: bytes = RECEIPT.id,
    at: int = -1,
) -> Signed[Attestation]:
    """A checker's finding, in which the token `at` has this gap and mass."""
    gaps, masses = [0] * len(values), [0] * len(values)
    if values:
        gaps[at], masses[at] = gap, mass
    return sign(Attestation(subject, H, TEACHER_FORCED, values, tuple(gaps), tuple(masses), "c"), KEYS[n])


def window(
    *findings: Signed[Attestation] | None, carried: tuple[int, ...] = (), owners: tuple[int, ...] = (1, 2, 3, 4)
) -> Window:
    claimed = len(carried) + len(HONEST)
    checks = tuple(Check(member(n, owners[n - 1]), claimed, found) for n, found in enumerate(findings, 1))
    return Window(RECEIPT, member(0), checks, 1_000_000, carried)


@pytest.mark.spec("A-14")
def test_all_agree() -> None:
    judged = judge_window(window(finding(1), finding(2)), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.ACCEPTED and not judged.reasons and judged.carried_good


@pytest.mark.spec("A-14")
def test_a_lying_checker_is_named() -> None:
    lie = finding(2, (-100_000, -2_500_000, -50_000))
    judged = judge_window(window(finding(1), lie), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.ACCEPTED
    assert set(judged.reasons) == {member(2).node} and "500000 micro-nats" in judged.reasons[member(2).node]


@pytest.mark.spec("A-14")
def test_a_lying_executor_is_outvoted_by_two_that_agree() -> None:
    truth = (-7_000_000, -9_000_000, -1_000_000)
    judged = judge_window(window(finding(1, truth), finding(2, truth)), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.REJECTED and set(judged.reasons) == {member(0).node}


@pytest.mark.spec("A-14")
def test_tokens_that_the_sampling_does_not_give_are_rejected_although_scored_well() -> None:
    judged = judge_window(window(finding(1, gap=5_000), finding(2, gap=5_000)), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.REJECTED and "below the best" in judged.reasons[member(0).node]


@pytest.mark.spec("A-14")
def test_a_token_outside_the_nucleus_is_rejected() -> None:
    checks = window(finding(1, mass=901_000), finding(2, mass=901_000)).checks
    evidence = Window(RECEIPT, member(0), checks, 900_000)
    assert judge_window(evidence, POLICY, TOLERANCE).outcome is Outcome.REJECTED


@pytest.mark.spec("A-14")
def test_three_different_stories_leave_it_open() -> None:
    judged = judge_window(window(finding(1, (0, 0, 0)), finding(2, (-9_000_000, 0, 0))), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.INCONCLUSIVE and not judged.reasons


@pytest.mark.spec("A-13")
@pytest.mark.parametrize("second", [None, finding(2, HONEST[:2]), finding(2, ()), finding(2, subject=b"\x00" * 32)])
def test_a_checker_without_a_finding_has_not_agreed(second: Signed[Attestation] | None) -> None:
    judged = judge_window(window(None, second), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.INCONCLUSIVE
    judged = judge_window(window(finding(1), second), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.ACCEPTED and set(judged.reasons) == {member(2).node}


@pytest.mark.spec("A-12")
def test_an_owner_counts_once() -> None:
    """Checkers of the executor's own owner do not make a quorum, and two of one owner do not outvote anybody."""
    judged = judge_window(window(finding(1), finding(2), owners=(0, 0)), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.INCONCLUSIVE
    judged = judge_window(window(finding(1, (0, 0, 0)), finding(2, (0, 0, 0)), owners=(1, 1)), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.INCONCLUSIVE


@pytest.mark.spec("A-15")
def test_carried_tokens_are_judged_apart_from_the_window() -> None:
    both = (-1, -2, *HONEST)
    judged = judge_window(window(finding(1, both), finding(2, both), carried=(-1, -2)), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.ACCEPTED and judged.carried_good
    judged = judge_window(window(finding(1, both), finding(2, both), carried=(-1, -99_999)), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.ACCEPTED and not judged.carried_good


@pytest.mark.spec("A-15")
def test_who_goes_on_from_a_dead_liars_tokens_is_not_blamed_for_them() -> None:
    both = (-1, -2, *HONEST)
    judged = judge_window(
        window(finding(1, both, gap=9**9, at=0), finding(2, both, gap=9**9, at=1), carried=(-1, -2)), POLICY, TOLERANCE
    )
    assert judged.outcome is Outcome.ACCEPTED
    assert not judged.reasons
    assert not judged.carried_good
    judged = judge_window(
        window(finding(1, both, gap=9**9), finding(2, both, gap=9**9), carried=(-1, -2)), POLICY, TOLERANCE
    )
    assert judged.outcome is Outcome.REJECTED


@pytest.mark.spec("A-14")
def test_agreement_need_not_be_transitive() -> None:
    """Who confirms the executor is no ally of those who object, however close its values are to theirs."""
    near = tuple(value - 90 for value in HONEST)
    far = tuple(value - 180 for value in HONEST)
    evidence = window(finding(1, near), finding(2, far), finding(3, far), finding(4, far))
    judged = judge_window(evidence, Policy.parse("quorum:3/5"), TOLERANCE)
    assert judged.outcome is Outcome.REJECTED
    assert set(judged.reasons) == {member(0).node, member(1).node}


@pytest.mark.spec("A-11")
@given(st.permutations(range(1, 5)))
def test_the_order_of_evidence_does_not_matter(order: list[int]) -> None:
    evidence = {1: finding(1), 2: finding(2, (0, 0, 0)), 3: None, 4: finding(4, (0, 0, 0))}
    shuffled = Window(RECEIPT, member(0), tuple(Check(member(n), 3, evidence[n]) for n in order), 1_000_000)
    expected = Window(RECEIPT, member(0), tuple(Check(member(n), 3, evidence[n]) for n in (1, 2, 3, 4)), 1_000_000)
    assert judge_window(shuffled, Policy.parse("quorum:3/5"), TOLERANCE) == judge_window(
        expected, Policy.parse("quorum:3/5"), TOLERANCE
    )


def vector(shift: float = 0.0, stretch: float = 1.0, width: int = 16) -> Piece:
    return Piece(tensor=array("f", [stretch * sin(n + shift) for n in range(width)]).tobytes(), shape=(1, width))


def result(n: int, piece: Piece | None, owner: int | None = None) -> Result:
    return Result(member(n, owner), RECEIPT if piece else None, piece)


def classed(n: int, piece: Piece, numerics_class: str) -> Result:
    return Result(member(n), sign(replace(RECEIPT.record, numerics_class=numerics_class), KEYS[0]), piece)


@pytest.mark.spec("A-18")
def faults(judged: FunctionJudgement) -> list[int]:
    """Places of the results that do not belong to the majority."""
    return [place for place, objection in enumerate(judged.objections) if objection]


def test_the_majoritys_medoid_is_returned_and_the_liar_named() -> None:
    judged = judge_results([result(0, vector(1.0)), result(1, vector()), result(2, vector(1e-5))], POLICY, TOLERANCE)
    assert judged.outcome is Outcome.ACCEPTED and faults(judged) == [0]
    assert judged.medoid in (vector(), vector(1e-5))


@pytest.mark.spec("A-17")
def test_a_stretched_vector_is_another_vector() -> None:
    judged = judge_results([result(0, vector(stretch=2)), result(1, vector()), result(2, vector())], POLICY, TOLERANCE)
    assert faults(judged) == [0]


@pytest.mark.spec("A-13", "A-18")
@pytest.mark.parametrize(
    "broken",
    [
        None,
        Piece(),
        Piece(tensor=b"\x00" * 64, shape=(1, 16)),
        Piece(tensor=b"\xff" * 64, shape=(1, 16)),
        Piece(tensor=b"\x00" * 63, shape=(1, 16)),
        Piece(tensor=vector().tensor, shape=(16,)),
        vector(width=8),
    ],
)
def test_what_is_no_result_does_not_count(broken: Piece | None) -> None:
    judged = judge_results([result(0, broken), result(1, vector()), result(2, vector())], POLICY, TOLERANCE)
    assert judged.outcome is Outcome.ACCEPTED and faults(judged) == [0]


@pytest.mark.spec("B-27")
def test_a_class_changes_the_words_of_a_judgement_and_nothing_else() -> None:
    one, other = "float32/jaxlib-1/cpu/avx2/4x32", "float32/jaxlib-1/cpu/avx2/1x32+4x32"
    for classes in ((one, one, one), (one, other, other), (other, one, other), (other, other, other)):
        near = [classed(n, vector(1e-5 * n), each) for n, each in enumerate(classes)]
        assert not faults(judge_results(near, POLICY, TOLERANCE))
        far = [classed(0, vector(1.0), classes[0]), *near[1:]]
        judged = judge_results(far, POLICY, TOLERANCE)
        assert faults(judged) == [0]
        assert judged.objections[0].endswith("though of the same class") is (set(classes) == {one})


@pytest.mark.spec("A-13", "A-18")
def test_broken_results_do_not_make_a_majority() -> None:
    broken = Piece(tensor=b"\xff" * 64, shape=(1, 16))
    judged = judge_results([result(0, broken), result(1, broken), result(2, vector())], POLICY, TOLERANCE)
    assert judged.outcome is Outcome.INCONCLUSIVE and judged.medoid is None and not faults(judged)


@pytest.mark.spec("A-17", "A-18")
def test_nothing_but_zeros_is_a_result_like_any_other() -> None:
    zeros = Piece(tensor=b"\x00" * 64, shape=(1, 16))
    judged = judge_results([result(0, vector()), result(1, zeros), result(2, zeros)], POLICY, TOLERANCE)
    assert judged.outcome is Outcome.ACCEPTED and judged.medoid == zeros and faults(judged) == [0]


@pytest.mark.spec("A-12")
def test_two_results_of_one_node_are_judged_one_by_one() -> None:
    results = [result(0, vector(1.0)), result(0, vector()), result(1, vector())]
    for order in (results, results[::-1]):
        judged = judge_results(order, POLICY, TOLERANCE)
        assert judged.outcome is Outcome.ACCEPTED and judged.medoid == vector()
        assert [order[place].piece for place in faults(judged)] == [vector(1.0)]


def test_two_nodes_of_one_owner_are_one_voice() -> None:
    results = [result(0, vector(), 7), result(1, vector(), 7), result(2, vector(2.0))]
    assert judge_results(results, POLICY, TOLERANCE).outcome is Outcome.INCONCLUSIVE


@pytest.mark.spec("A-11")
@given(st.permutations([0, 1, 2, 3]))
def test_results_in_any_order_are_judged_the_same(order: list[int]) -> None:
    results = [result(0, vector(1.0)), result(1, vector()), result(2, vector(1e-5)), result(3, None)]
    policy = Policy.parse("quorum:2/3")
    judged = judge_results([results[n] for n in order], policy, TOLERANCE)
    expected = judge_results(results, policy, TOLERANCE)
    assert (judged.outcome, judged.medoid) == (expected.outcome, expected.medoid)
    assert [judged.objections[order.index(n)] for n in range(4)] == list(expected.objections)


@pytest.mark.spec("A-12")
def test_a_party_to_the_job_does_not_judge_it() -> None:
    client = member(2).owner
    judged = judge_window(
        window(finding(1), finding(2)), Policy.parse("quorum:3/3"), TOLERANCE, Standings(frozenset({client}))
    )
    assert judged.outcome is Outcome.INCONCLUSIVE
    judged = judge_window(window(finding(1), finding(2)), POLICY, TOLERANCE, Standings(frozenset({client})))
    assert judged.outcome is Outcome.ACCEPTED and judged.reasons == {member(2).node: "is a party to the job"}
    results = [result(n, vector()) for n in range(3)]
    assert faults(judge_results(results, POLICY, TOLERANCE, Standings(frozenset({client})))) == [2]


@pytest.mark.spec("A-14", "A-18")
@pytest.mark.spec("A-12")
def test_the_executors_own_owner_does_not_help_to_outvote_it() -> None:
    truth = (-7_000_000, -9_000_000, -1_000_000)
    judged = judge_window(window(finding(1, truth), finding(2, truth), owners=(0, 2)), POLICY, TOLERANCE)
    assert judged.outcome is Outcome.INCONCLUSIVE


def test_strangers_alone_do_not_do_where_an_anchor_is_asked_for() -> None:
    policy, evidence = Policy.parse("quorum:2/3+anchor"), window(finding(1), finding(2))
    assert judge_window(evidence, policy, TOLERANCE).outcome is Outcome.INCONCLUSIVE
    known = Standings(anchors=frozenset({member(2).owner}))
    assert judge_window(evidence, policy, TOLERANCE, known).outcome is Outcome.ACCEPTED
    results = [result(0, vector()), result(1, vector()), result(2, vector(1.0))]
    assert judge_results(results, policy, TOLERANCE, known).outcome is Outcome.INCONCLUSIVE
    known = Standings(anchors=frozenset({member(1).owner}))
    assert judge_results(results, policy, TOLERANCE, known).outcome is Outcome.ACCEPTED
