"""A judge by itself: what it charges, and for which decision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from fallow.client.contesting import shown
from fallow.client.docket import Docket
from fallow.client.tribunal import Tribunal
from fallow.node.accounts import Accounts
from fallow.node.store import Journal
from fallow.protocol.disputes import ANSWERS, DISMISSED, UPHELD, Decision, Dispute, Kind, Plea, judges, share_ucr
from fallow.protocol.envelope import Signed, sign, verify_untrusted
from fallow.protocol.errors import Code, Refused
from fallow.protocol.identity import content_hash
from fallow.protocol.messages import DecisionReply, DisputeRequest, DisputesReply, DisputesRequest, encode_message

from ..verifier.jobs import CLIENT, MANIFEST, NOW_MS
from ..verifier.test_disputes import FEE, OWNER, Scene, disputed
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

    async def brings(self, plea: Signed[Plea] | None = None) -> Decision:
        """What the judge decides when it is asked by the claimant, or shown this plea."""
        request = DisputeRequest(self.dispute.envelope, plea and plea.envelope, b"" if plea else self.proof, ())
        reply = await self.tribunal.answer_untrusted(encode_message(request))
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
    for _ in range(2):
        assert (await bench.brings(bench.opens())).outcome == DISMISSED
    assert bench.fees_ucr == share_ucr(FEE)


async def test_it_charges_for_the_decision_that_stands_also_after_a_crash(bench: Bench) -> None:
    """The docket holds one that costs nothing, or one that was not charged for: that is what counts, not what comes later."""
    await waits(bench)
    loser = bytes(CLIENT.verify_key)
    first = Decision(bench.dispute.id, UPHELD, loser, 0, 0, 0, "free")
    entry = bench.docket.entry(bench.dispute.id)
    assert entry is not None
    bench.docket.decide(sign(first, bench.key))
    bench.now_ms += 3_600_000
    assert (await bench.tribunal._decide(bench.dispute, entry, ())).decision == sign(first, bench.key).envelope
    assert await bench.brings() == first
    assert (bench.fees_ucr, bench.owed) == (0, [])


async def test_a_decision_that_was_never_charged_for_is_when_it_is_asked_for(bench: Bench) -> None:
    await waits(bench)
    decision = Decision(bench.dispute.id, UPHELD, bytes(CLIENT.verify_key), 0, 0, FEE, "its process died then")
    bench.docket.decide(sign(decision, bench.key))
    assert await bench.brings() == decision
    assert (bench.fees_ucr, bench.owed) == (share_ucr(FEE), [share_ucr(FEE)])
