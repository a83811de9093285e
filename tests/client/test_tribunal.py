"""A judge by itself: what it charges, and for which decision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from nacl.signing import SigningKey

from fallow.client.contesting import shown
from fallow.client.docket import Docket
from fallow.client.tribunal import Tribunal
from fallow.node.accounts import Accounts
from fallow.node.journal import Journal
from fallow.protocol.disputes import (
    ANSWERS,
    DISMISSED,
    UPHELD,
    Decision,
    Dispute,
    Hearing,
    Kind,
    Plea,
    judges,
    share_ucr,
)
from fallow.protocol.envelope import Signed, sign, verify_untrusted
from fallow.protocol.errors import Code, Refused, RemoteProtocolError
from fallow.protocol.identity import content_hash
from fallow.protocol.messages.assurance import DecisionReply, DisputeRequest, DisputesReply, DisputesRequest, PleaReply
from fallow.protocol.messages.codec import encode_message

from ..verifier.jobs import CLIENT, MANIFEST, NOW_MS
from ..verifier.test_disputes import FEE, OWNER, PAYEE, Scene, disputed
from ..verifier.test_grounds import verifier_of


class Bench:
    """One of the judges drawn for a commitment that nobody opens yet, with its docket and its books."""

    def __init__(self, folder: Path) -> None:
        self.scene = Scene(Kind.UNOPENED)
        self.proof = shown(self.scene.claimed)
        hash, order = content_hash(self.proof), self.scene.writer.order
        self.dispute: Signed[Dispute] = disputed(Kind.UNOPENED, self.scene.writer, self.scene.receipt, shown=hash)
        self.key, mandate = verifier_of(sorted(judges(order, OWNER))[0])
        self.docket, self.journal = Docket(folder / "docket.sqlite"), Journal(folder)
        self.owed: list[int] = []
        self.now_ms = NOW_MS

        async def owe(party: bytes, reference: str, ucr: int) -> None:
            self.owed.append(ucr)

        nothing = cast(Any, None)  # neither is anything run, nor anybody asked, for a commitment
        self.tribunal = Tribunal(
            self.key, mandate, nothing, frozenset({MANIFEST.id}), self.docket, nothing, lambda: self.now_ms,
            Accounts(self.journal, lambda: NOW_MS), owe, answer_ms=1_000,
        )  # fmt: skip

    async def says(
        self, plea: Signed[Plea] | None = None, hearing: Signed[Hearing] | None = None
    ) -> PleaReply | DecisionReply:
        """What the judge answers to the claimant, or to the accused who brings this plea."""
        proof = b"" if plea or hearing else self.proof
        request = DisputeRequest(self.dispute.envelope, plea and plea.envelope, proof, (), hearing and hearing.envelope)
        reply = await self.tribunal.answer_untrusted(encode_message(request))
        assert isinstance(reply, PleaReply | DecisionReply)
        return reply

    async def brings(self, *elsewhere: Signed[Plea], signer: SigningKey = PAYEE) -> Decision:
        """What the judge decides, shown what others have heard."""
        reply = await self.says()
        if isinstance(reply, PleaReply):
            hearing = Hearing(self.dispute.id, tuple(one.envelope for one in elsewhere))
            reply = await self.says(hearing=sign(hearing, signer))
        assert isinstance(reply, DecisionReply)
        return verify_untrusted(Decision, reply.decision, signer=bytes(self.key.verify_key)).record

    def opens(self) -> Signed[Plea]:
        job = self.scene.job
        return sign(Plea(self.dispute.id, ANSWERS, content_hash(b""), job.nonce, job.policy), CLIENT)

    @property
    def fees_ucr(self) -> int:
        return self.journal.fees_ucr(self.dispute.signer)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    with closing(made.docket), closing(made.journal):
        yield made


async def waits(bench: Bench) -> None:
    with pytest.raises(Refused) as caught:
        await bench.brings()
    assert caught.value.code is Code.TIMED_OUT


async def test_who_is_accused_finds_it_and_answers_and_the_claimant_owes_one_part(bench: Bench) -> None:
    await waits(bench)
    asked = encode_message(DisputesRequest(bytes(CLIENT.verify_key)))
    assert await bench.tribunal.answer_untrusted(asked) == DisputesReply((bench.dispute.envelope,))
    plea = bench.opens()
    for _ in range(2):
        assert await bench.says(plea) == PleaReply(plea.envelope)
    assert await bench.tribunal.answer_untrusted(asked) == DisputesReply(())
    assert bench.fees_ucr == 0  # nothing is decided before the claimant has heard the other judges
    for _ in range(2):
        assert (await bench.brings(plea)).outcome == DISMISSED
    assert bench.fees_ucr == share_ucr(FEE)
    assert isinstance(reply := await bench.says(plea), DecisionReply)
    assert reply.plea == plea.envelope


async def test_nobody_but_the_claimant_has_it_decided(bench: Bench) -> None:
    await waits(bench)
    await bench.says(bench.opens())
    for signer in (CLIENT, SigningKey(b"\x5a" * 32)):
        with pytest.raises(RemoteProtocolError):
            await bench.brings(signer=signer)
    assert bench.fees_ucr == 0


async def test_two_answers_that_differ_lose_wherever_they_were_given(bench: Bench) -> None:
    await waits(bench)
    opens, nothing = bench.opens(), sign(Plea(bench.dispute.id, ANSWERS, content_hash(b""), None, None), CLIENT)
    await bench.says(opens)
    assert await bench.says(nothing) == PleaReply(opens.envelope)  # its first answer stands here
    decision = await bench.brings(opens, nothing)
    assert (decision.outcome, decision.fee_ucr) == (UPHELD, FEE)


async def test_an_answer_that_comes_after_its_time_is_none(bench: Bench) -> None:
    await waits(bench)
    bench.now_ms += bench.dispute.record.answer_ms
    assert await bench.says() == PleaReply(None)
    with pytest.raises(Refused) as caught:
        await bench.says(bench.opens())
    assert caught.value.code is Code.EXPIRED
    assert (await bench.brings()).outcome == UPHELD


async def test_it_charges_for_the_decision_that_stands_also_after_a_crash(bench: Bench) -> None:
    """The docket holds one that costs nothing, or one that was not charged for: that is what counts, not what comes later."""
    await waits(bench)
    loser = bytes(CLIENT.verify_key)
    first = Decision(bench.dispute.id, UPHELD, loser, 0, 0, 0, "free")
    bench.docket.decide(sign(first, bench.key), None)
    bench.now_ms += 3_600_000
    assert (await bench.tribunal._decide(bench.dispute)).decision == sign(first, bench.key).envelope
    assert await bench.brings() == first
    assert (bench.fees_ucr, bench.owed) == (0, [])


async def test_a_decision_that_was_never_charged_for_is_when_it_is_asked_for(bench: Bench) -> None:
    await waits(bench)
    decision = Decision(bench.dispute.id, UPHELD, bytes(CLIENT.verify_key), 0, 0, FEE, "its process died then")
    bench.docket.decide(sign(decision, bench.key), None)
    assert await bench.brings() == decision
    assert (bench.fees_ucr, bench.owed) == (share_ucr(FEE), [share_ucr(FEE)])


async def test_an_answer_that_came_while_a_turn_was_waited_for_counts(bench: Bench) -> None:
    await waits(bench)
    hearing = sign(Hearing(bench.dispute.id, ()), PAYEE)
    replies = list[PleaReply | DecisionReply]()

    async def claimant() -> None:
        replies.append(await bench.says(hearing=hearing))

    turns = bench.tribunal._turns
    for holder in range(int(turns.total_tokens)):
        await turns.acquire_on_behalf_of(holder)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claimant)
        while not turns.statistics().tasks_waiting:
            await trio.lowlevel.checkpoint()
        await bench.says(bench.opens())
        bench.now_ms += bench.dispute.record.answer_ms
        for holder in range(int(turns.total_tokens)):
            turns.release_on_behalf_of(holder)
    assert isinstance(reply := replies[0], DecisionReply)
    assert reply.plea == bench.opens().envelope
    assert verify_untrusted(Decision, reply.decision, signer=bytes(bench.key.verify_key)).record.outcome == DISMISSED


async def test_an_answer_that_came_while_it_was_decided_counts(bench: Bench) -> None:
    """It is on disk before the decision, which rests on none: that one is not written."""
    await waits(bench)
    decide, plea = bench.docket.decide, bench.opens()

    def too_late(decision: Signed[Decision], heard: bytes | None) -> None:
        bench.docket.answer(plea, b"")
        decide(decision, heard)

    bench.docket.decide = too_late  # type: ignore[method-assign]
    bench.now_ms += bench.dispute.record.answer_ms
    reply = await bench.says(hearing=sign(Hearing(bench.dispute.id, ()), PAYEE))
    assert isinstance(reply, DecisionReply)
    assert reply.plea == plea.envelope
    assert verify_untrusted(Decision, reply.decision, signer=bytes(bench.key.verify_key)).record.outcome == DISMISSED


async def test_who_was_told_of_no_answer_was_told_so_for_good(bench: Bench) -> None:
    """The accused's request came in time, and waited at the desk until after its claimant had been told."""
    await waits(bench)
    in_time_ms = bench.now_ms
    bench.now_ms += bench.dispute.record.answer_ms
    assert await bench.says() == PleaReply(None)
    with pytest.raises(Refused) as caught:
        bench.tribunal._hear(bench.dispute, bench.opens().envelope, b"", in_time_ms)
    assert caught.value.code is Code.EXPIRED
    assert (await bench.brings()).outcome == UPHELD
