"""Traps for checkers: an honest one never falls into them, one that confirms everything always does."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, cast

import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from fallow.client.auditing import Auditor
from fallow.client.checking import Claim
from fallow.client.nodes import Node
from fallow.client.panel import Place
from fallow.client.spotting import Sample, Spots, Trap, changed, doubt, judge_again
from fallow.client.team import Team
from fallow.protocol.bundle import Tolerance
from fallow.protocol.checks import TEACHER_FORCED, Attestation, Outcome
from fallow.protocol.envelope import Signed
from fallow.protocol.errors import Code, Refused
from fallow.protocol.policy import Policy, check_commitment
from fallow.protocol.receipts import OPEN, Receipt
from fallow.protocol.work import Parameters
from fallow.verifier.quorum import Check, Member

from .test_hostile_executor import MANIFEST

H = bytes(32)
TOLERANCE = Tolerance(1_000, 1_000, 500, 0, 0, (), "-")
EXECUTOR, CHECKER = Member(b"e" * 32, b"E" * 32), Member(b"c" * 32, b"C" * 32)
TRUE, MADE_UP = (-100, -200, -300, -400), (-5_000, -6_000, -7_000, -8_000)


def found(values: tuple[int, ...], gaps: tuple[int, ...]) -> Attestation:
    return Attestation(H, H, TEACHER_FORCED, values, gaps, (0,) * len(gaps), "class")


def sample(tokens: tuple[int, ...], values: tuple[int, ...], policy: str = "adaptive:20000") -> Sample:
    """A window of the last tokens, confirmed by one checker."""
    record = Receipt(H, 0, None, 0, len(values), H, values, "class", 1, OPEN)
    receipt = Signed(record, EXECUTOR.node, b"receipt")
    claim = Claim(
        H, replace(MANIFEST, tolerance=TOLERANCE), Parameters(8), tokens, len(values), receipt, EXECUTOR, "", (),
        Policy.parse(policy), H, H, 100,
    )  # fmt: skip
    return Sample(claim, (Check(CHECKER, len(values), attested(claim, CHECKER, values)),))


def attested(claim: Claim, member: Member, values: tuple[int, ...]) -> Signed[Attestation]:
    record = replace(found(values, (0,) * len(values)), subject=claim.receipt.id)
    return Signed(record, member.node, b"of " + member.node)


def place(of: Sample, letter: bytes, values: tuple[int, ...]) -> Place:
    node = cast(Node, type("Checker", (), {"key": letter * 32, "owner": letter.upper() * 32})())
    return Place(node, attestation=attested(of.claim, Member(node.key, node.owner), values))


@given(st.lists(st.integers(0, 50), min_size=2, max_size=60).map(tuple), st.integers(1, 59), st.integers())
def test_one_claimed_token_is_changed_for_another_of_the_text(tokens: tuple[int, ...], claimed: int, seed: int) -> None:
    claimed = min(claimed, len(tokens) - 1)
    trap = changed(sample(tokens, (-100,) * claimed), Random(seed))
    if trap is None:
        assert len(set(tokens)) == 1
        return
    differ = [place for place, (a, b) in enumerate(zip(tokens, trap.tokens, strict=True)) if a != b]
    assert differ == [len(tokens) - claimed + trap.changed]
    assert set(trap.tokens) <= set(tokens)
    assert trap.changed <= (claimed - 1) // 2
    request = trap.request
    assert (request.work.claimed, request.entry, request.planned_tokens) == (claimed, "score", claimed)
    assert request.work.sequences == (trap.tokens,)
    assert request.checks not in (trap.request.checks, trap.sample.claim.receipt.id)
    assert request.check_commitment != trap.sample.claim.check_commitment
    assert request.opens is not None
    assert check_commitment(*request.opens) == request.check_commitment  # else the order is lost before judges


def test_who_falls_into_it() -> None:
    trap = Trap(sample((5, 6, 7, 8, 9), TRUE), (5, 6, 9, 8, 9), 1)
    honest = found((TRUE[0], -9_000_000, -7_000_000, -100), (0, 8_000_000, 0, 3_000_000))
    assert doubt(trap, honest) is None
    assert "confirmed" in str(doubt(trap, found(TRUE, (0, 0, 0, 0))))
    assert "confirmed" in str(doubt(trap, found(honest.values_micro, (0, 0, 0, 0))))
    assert "other figures" in str(doubt(trap, found((-5_000, -9_000_000, -7_000_000, -100), (0, 8_000_000, 0, 0))))
    outside = Attestation(H, H, TEACHER_FORCED, honest.values_micro, (0, 0, 0, 0), (0, 1_000_501, 0, 0), "class")
    assert doubt(trap, outside) is None  # it objects by the nucleus


@pytest.mark.parametrize("policy", ["adaptive:20000", "audit:500000", "quorum:2/2"])
@pytest.mark.parametrize(
    ("says", "outcome", "at_fault"),
    [
        ((TRUE, TRUE), Outcome.ACCEPTED, set()),
        ((MADE_UP, MADE_UP), Outcome.REJECTED, {EXECUTOR.node, CHECKER.node}),
        ((TRUE, MADE_UP), Outcome.ACCEPTED, {b"b" * 32}),  # one against three: then nobody is convicted by it
        ((MADE_UP, (-50_000,) * 4), Outcome.INCONCLUSIVE, set()),
        ((MADE_UP,), Outcome.INCONCLUSIVE, set()),
        ((), Outcome.ACCEPTED, set()),
    ],
)
def test_two_more_owners_say_whether_a_sample_in_doubt_stands(
    policy: str, says: tuple[tuple[int, ...], ...], outcome: Outcome, at_fault: set[bytes]
) -> None:
    """Its executor and one checker alone might be of one mind."""
    doubted = sample((5, 6, 7, 8, 9), TRUE, policy)
    places = [place(doubted, letter, values) for letter, values in zip((b"a", b"b"), says, strict=False)]
    judgement = judge_again(doubted, places, b"p" * 32)
    assert judgement.outcome is outcome
    assert set(judgement.reasons) == at_fault


class _Waiting(Spots):
    """Each trial waits until it is let go: so two of them can be begun at once."""

    def __init__(self) -> None:
        super().__init__(cast(Auditor, None), Random(0))
        self.begun: list[bytes] = []
        self.go = trio.Event()

    async def _try(self, team: Team, node: Node, sample: Sample) -> None:
        self.begun.append(node.key)
        await self.go.wait()


async def test_who_is_due_is_tried_once_though_two_ask_for_it() -> None:
    """A client that leaves drains while its own task does so, too."""
    spots, owner, team = _Waiting(), H, cast(Team, None)
    nodes = [cast(Any, type("Checker", (), {"key": bytes([n]) * 32, "owner": owner})()) for n in range(3)]
    spots._samples.append(sample((1, 2, 3), (-100, -200)))
    spots._due.extend((node, H) for node in nodes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spots.drain, team)
        nursery.start_soon(spots.drain, team)
        await trio.testing.wait_all_tasks_blocked()
        spots.go.set()
    assert spots.begun == [node.key for node in nodes]


class _Alone(Spots):
    """Nobody can be had to check a window again."""

    async def _borne_out(self, team: Team, sample: Sample, tried: Node) -> bool:
        raise Refused(Code.NO_EXECUTOR, "Nobody is there.")


async def test_who_is_tried_by_a_sample_that_nobody_can_check_again_is_not_at_fault_by_it() -> None:
    """And is paid: what its trial was left to ends with no, not with an error."""
    spots, doubted = _Alone(cast(Auditor, None), Random(0)), sample((1, 2, 3), (-100, -200))
    spots._samples.append(doubted)
    assert not await spots._stands(cast(Team, None), doubted, cast(Node, None))
    assert not spots._samples
