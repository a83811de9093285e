"""A side that says something else to each judge: the real judges and claimant, three of them, over a wire that is made up.

Whoever is accused and splits its answers has lost; who accuses and splits its claims binds nobody, and nobody owes it anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Annotated, Any, cast

import pytest
import trio

from fallow.client.contesting import Contested, bring, shown
from fallow.client.docket import Docket
from fallow.client.tribunal import Tribunal
from fallow.node.accounts import Accounts
from fallow.node.journal import Journal
from fallow.node.network.seam import Network, Stream
from fallow.protocol.codec import decode_untrusted, encode
from fallow.protocol.disputes import (
    ANSWERS,
    BY_PAYER,
    DENIES,
    DISMISSED,
    OWNS,
    UPHELD,
    Decided,
    Dispute,
    Kind,
    Plea,
    dues_of,
    judges,
    share_ucr,
)
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, NetworkError, Refused, RemoteProtocolError
from fallow.protocol.identity import content_hash, peer_id
from fallow.protocol.limits import PLEA_BYTES_MAX
from fallow.protocol.messages.assurance import DisputeRequest, PleaReply
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.payment import Voucher
from fallow.protocol.schema import Size
from fallow.verifier.disputes import TWO_ANSWERS

from ..verifier.jobs import CLIENT, MANIFEST, NOW_MS
from ..verifier.test_disputes import FEE, OWNER, PAYEE, Scene, disputed
from ..verifier.test_grounds import CHANNEL, verifier_of

ANSWER_MS = 60_000
NO_ANSWER = None


class Frames:
    """Both ends of one exchange with a judge."""

    def __init__(self, serve: Callable[[Stream], Awaitable[None]]) -> None:
        self._serve = serve
        self._asked, self._said = b"", b""

    async def send(self, frame: bytes) -> None:
        asked = _Asked(frame)
        await self._serve(cast(Stream, asked))
        self._said = asked.said

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._said

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()


class _Asked:
    """A judge's end of it."""

    def __init__(self, frame: bytes) -> None:
        self._frame, self.said = frame, b""

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._frame

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.said = frame


@dataclass
class Courthouse:
    """Three judges with dockets and books of their own; what they charge, by judge; and who cannot be had."""

    scene: Scene
    benches: list[Tribunal] = field(default_factory=list)
    books: list[Journal] = field(default_factory=list)
    away: set[bytes] = field(default_factory=set)
    now_ms: int = NOW_MS
    says: Callable[[int, Signed[Dispute]], Signed[Plea] | None] = lambda judge, dispute: None
    """What an accused node answers to this judge."""

    @property
    def verifiers(self) -> dict[bytes, str]:
        return {
            bench.mandate.record.owner: f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(bytes(bench.key.verify_key))}"
            for bench in self.benches
        }

    async def open(self, peer: bytes, protocol: str, addresses: Sequence[str] = ()) -> Frames:
        await trio.lowlevel.checkpoint()
        if peer in self.away:
            raise NetworkError(Code.PEER_UNREACHABLE, "It cannot be had.")
        return Frames(next(bench for bench in self.benches if bytes(bench.key.verify_key) == peer).serve)

    def asks(self, judge: int) -> Network:
        """The network as this judge has it: the accused node can tell who asks."""

        class Asking:  # `self` is the courthouse
            async def request(here, peer: bytes, protocol: str, frame: bytes, where: Sequence[str]) -> bytes:  # noqa: N805
                await trio.lowlevel.checkpoint()
                request = decode_message_untrusted(frame)
                assert isinstance(request, DisputeRequest)
                plea = self.says(judge, self.dispute_of(request))
                if plea is None:
                    raise NetworkError(Code.PEER_UNREACHABLE, "It cannot be had.")
                return encode_message(PleaReply(plea.envelope))

            async def get(here, key: str) -> bytes | None:  # noqa: N805
                await trio.lowlevel.checkpoint()
                return None

        return cast(Network, Asking())

    def dispute_of(self, request: DisputeRequest) -> Signed[Dispute]:
        return next(one for one in self.brought if one.envelope == request.dispute)

    brought: list[Signed[Dispute]] = field(default_factory=list)

    async def bring(self, dispute: Signed[Dispute], proof: bytes, only: Sequence[int] = (0, 1, 2)) -> Decided:
        """By the claimant, before these judges."""
        self.brought.append(dispute)
        at = Contested(CHANNEL, self.scene.writer.order, self.scene.receipt)
        who = {owner: where for n, (owner, where) in enumerate(self.verifiers.items()) if n in only}
        key = CLIENT if dispute.record.kind in BY_PAYER else PAYEE
        return await bring(cast(Network, self), who, at, dispute, proof, key, self.now_ms)

    async def plead(self, judge: int, dispute: Signed[Dispute], plea: Signed[Plea], proof: bytes) -> None:
        """By an accused payer, before one judge."""
        request = encode_message(DisputeRequest(dispute.envelope, plea.envelope, proof, (), None))
        reply = await self.benches[judge].answer_untrusted(request)
        assert reply == PleaReply(plea.envelope)

    @property
    def owed(self) -> list[int]:
        """By the claimant of the first dispute, to each judge."""
        return [book.fees_ucr(self.brought[0].signer) for book in self.books]

    def claim(self, kind: Kind, **changes: Any) -> tuple[Signed[Dispute], bytes]:
        proof = shown(self.scene.claimed)
        given = {"shown": content_hash(proof), "answer_ms": ANSWER_MS, **changes}
        return disputed(kind, self.scene.writer, self.scene.receipt, **given), proof


@asynccontextmanager
async def courthouse(folder: Path, kind: Kind) -> AsyncIterator[Courthouse]:
    made = Courthouse(Scene(kind).opened())
    with ExitStack() as stack:
        for number, owner in enumerate(sorted(judges(made.scene.writer.order, OWNER))):
            state = folder / str(number)
            state.mkdir(parents=True)
            key, mandate = verifier_of(owner)
            docket, journal = Docket(state / "docket.sqlite"), Journal(state)
            stack.enter_context(closing(docket))
            stack.enter_context(closing(journal))
            made.books.append(journal)

            async def owe(party: bytes, reference: str, ucr: int) -> None:
                await trio.lowlevel.checkpoint()

            made.benches.append(Tribunal(
                key, mandate, cast(Any, None), frozenset({MANIFEST.id}), docket, made.asks(number), lambda: made.now_ms,
                Accounts(journal, lambda: made.now_ms), owe, answer_ms=1_000,
            ))  # fmt: skip
        yield made


def lost(decided: Decided, at: Courthouse, why: str = TWO_ANSWERS) -> None:
    """The accused bears all of the fee that the claimant owes."""
    decision, dispute = decided.decisions[0].record, decided.dispute.record
    assert (decision.outcome, decision.loser, decision.reason) == (UPHELD, dispute.accused, why)
    assert sum(at.owed) <= dues_of(decided, decided.dispute.signer, 0, NOW_MS)[dispute.accused] == FEE


@pytest.mark.spec("A-28", "A-32", "A-36")
async def test_a_payer_that_answers_each_judge_otherwise_has_lost_and_its_payee_pays_nothing(tmp_path: Path) -> None:
    """Each way to split a voucher, half of what came, and nothing: alone, they come to three decisions that bind nobody."""
    amount = Scene(Kind.UNPAID).receipt.record.amount_ucr
    for number, answers in enumerate(combinations_with_replacement(("voucher", "half", NO_ANSWER), 3)):
        async with courthouse(tmp_path / str(number), Kind.UNPAID) as at:
            half = [replace(opening, pieces=opening.pieces[:-1]) for opening in at.scene.openings]
            voucher = sign(Voucher(CHANNEL.id, at.scene.receipt.id, amount, (), 0), CLIENT)
            proofs = {"voucher": shown([*at.scene.claimed, voucher]), "half": shown(at.scene.claimed, half)}
            dispute, proof = at.claim(Kind.UNPAID)
            with pytest.raises(Refused) as caught:
                await at.bring(dispute, proof)
            assert caught.value.code is Code.TIMED_OUT
            for judge, answer in enumerate(answers):
                if answer is not NO_ANSWER:
                    plea = sign(Plea(dispute.id, ANSWERS, content_hash(proofs[answer]), None, None), CLIENT)
                    await at.plead(judge, dispute, plea, proofs[answer])
            at.now_ms += ANSWER_MS
            decided = await at.bring(dispute, proof)
            said, decision = set(answers) - {NO_ANSWER}, decided.decisions[0].record
            if len(said) == 2:
                lost(decided, at)
                assert at.owed == [share_ucr(FEE)] * 3
            elif answers.count(NO_ANSWER) >= 2:
                lost(decided, at, "the accused has not answered in time")
            else:
                assert (decision.outcome, decision.fee_ucr) == (DISMISSED, 0)


@pytest.mark.spec("A-28", "A-32")
async def test_a_node_that_owns_its_receipt_to_one_judge_alone_has_lost(tmp_path: Path) -> None:
    for number, answers in enumerate(combinations_with_replacement((OWNS, DENIES, NO_ANSWER), 3)):
        async with courthouse(tmp_path / str(number), Kind.DISOWNED) as at:
            dispute, proof = at.claim(Kind.DISOWNED)

            def says(judge: int, dispute: Signed[Dispute], answers: Any = answers) -> Signed[Plea] | None:
                word = answers[judge]
                return word and sign(Plea(dispute.id, word, content_hash(b""), None, None), PAYEE)

            at.says = says
            heard = [word for word in answers if word]
            if len(set(heard)) < 2 and len(heard) < 2:
                with pytest.raises(Refused):
                    await at.bring(dispute, proof)
                assert at.owed == [0, 0, 0]
                at.now_ms += ANSWER_MS
            decided = await at.bring(dispute, proof)
            if len(set(heard)) == 2:
                lost(decided, at)
            elif answers.count(NO_ANSWER) >= 2:
                assert (decided.decisions[0].record.fee_ucr, sum(at.owed)) == (0, 0)
            else:
                assert decided.decisions[0].record.outcome == (DISMISSED if OWNS in heard else UPHELD)


@pytest.mark.spec("A-32")
async def test_nobody_is_asked_to_decide_before_enough_will_decide_alike(tmp_path: Path) -> None:
    """One judge has heard the accused, the next has not, and the third is away: the claimant owes nothing, and waits for it."""
    async with courthouse(tmp_path, Kind.UNOPENED) as at:
        dispute, proof = at.claim(Kind.UNOPENED)
        with pytest.raises(Refused):
            await at.bring(dispute, proof)
        job = at.scene.job
        await at.plead(
            0, dispute, sign(Plea(dispute.id, ANSWERS, content_hash(b""), job.nonce, job.policy), CLIENT), b""
        )
        at.now_ms += ANSWER_MS
        for _ in range(2):
            with pytest.raises(Refused) as caught:
                await at.bring(dispute, proof, (0, 1))
            assert caught.value.code is Code.UNSATISFIABLE_ASSURANCE
            assert at.owed == [0, 0, 0]
        lost(await at.bring(dispute, proof), at, "the accused has not answered in time")


@pytest.mark.spec("A-28", "A-32")
async def test_a_claimant_that_was_cut_off_half_way_learns_from_who_has_decided_what_it_had_heard(
    tmp_path: Path,
) -> None:
    async with courthouse(tmp_path, Kind.UNOPENED) as at:
        dispute, proof = at.claim(Kind.UNOPENED)
        with pytest.raises(Refused):
            await at.bring(dispute, proof)
        job = at.scene.job
        opens = Plea(dispute.id, ANSWERS, content_hash(b""), job.nonce, job.policy)
        await at.plead(0, dispute, sign(opens, CLIENT), b"")
        await at.plead(1, dispute, sign(replace(opens, policy="none"), CLIENT), b"")
        first = at.benches[0]
        decide = at.benches[1]._decide

        async def gone(*given: Any) -> Any:
            raise Refused(Code.BUSY, "It was cut off.", 1)

        at.benches[1]._decide = gone  # type: ignore[method-assign]
        with pytest.raises(Refused):
            await at.bring(dispute, proof)
        assert first.docket.entry(dispute.id).decision is not None  # type: ignore[union-attr]
        at.benches[1]._decide = decide  # type: ignore[method-assign]
        lost(await at.bring(dispute, proof, (0, 1)), at)


@pytest.mark.spec("A-30")
async def test_who_brings_each_judge_another_claim_binds_nobody_and_pays_each(tmp_path: Path) -> None:
    async with courthouse(tmp_path, Kind.MISMATCHED) as at:
        given = list[Signed[Dispute]]()
        for judge in range(3):
            dispute, proof = at.claim(Kind.MISMATCHED, opened_ms=NOW_MS + judge)
            given.append(dispute)
            with pytest.raises(Refused):
                await at.bring(dispute, proof, (judge,))
        at.now_ms += ANSWER_MS
        for dispute in given:
            with pytest.raises(Refused):  # one judge's word, and the others have another claim of the same
                await at.bring(dispute, proof)
        # Without two that hear alike nobody is asked to decide: it owes nothing, and has nothing.
        assert at.owed == [0, 0, 0]
        fresh, proof = at.claim(Kind.MISMATCHED, fee_ucr=0)
        with pytest.raises(Refused) as caught:
            await at.bring(fresh, proof)
        assert caught.value.code is Code.REPLAYED


@dataclass(frozen=True, slots=True)
class Roomy(Plea):
    """A plea of a later version, as anybody may write one: its field is passed over, and takes room."""

    opt_x: Annotated[bytes, Size(0, 1024)] = bytes(PLEA_BYTES_MAX)


@pytest.mark.spec("A-32")
async def test_an_answer_that_no_hearing_has_room_for_is_silence(tmp_path: Path) -> None:
    async with courthouse(tmp_path, Kind.UNOPENED) as at:
        dispute, proof = at.claim(Kind.UNOPENED)
        with pytest.raises(Refused):
            await at.bring(dispute, proof)
        job = at.scene.job
        large = sign(Roomy(dispute.id, ANSWERS, content_hash(b""), job.nonce, job.policy), CLIENT)
        asked = encode_message(DisputeRequest(dispute.envelope, None, b"", (), None))
        fields = decode_untrusted(asked, bytes_max=len(asked))
        assert isinstance(fields, dict)
        for judge in at.benches:
            with pytest.raises(RemoteProtocolError):
                await judge.answer_untrusted(encode({**fields, "plea": large.envelope}))
            with pytest.raises(RemoteProtocolError) as caught:
                judge._hear(dispute, large.envelope, b"", at.now_ms)
            assert caught.value.code is Code.TOO_LARGE
        at.now_ms += ANSWER_MS
        lost(await at.bring(dispute, proof), at, "the accused has not answered in time")


async def test_a_judge_that_cannot_help_any_more_is_not_paid(tmp_path: Path) -> None:
    """Two have decided the same, and the claimant was told of it: bringing it again costs nothing more."""
    async with courthouse(tmp_path, Kind.UNOPENED) as at:
        dispute, proof = at.claim(Kind.UNOPENED)
        with pytest.raises(Refused):
            await at.bring(dispute, proof)
        at.now_ms += ANSWER_MS
        lost(await at.bring(dispute, proof, (0, 1)), at, "the accused has not answered in time")
        for _ in range(2):
            await at.bring(dispute, proof)
            assert at.owed == [share_ucr(FEE), share_ucr(FEE), 0]


async def test_it_does_not_say_that_judges_heard_otherwise_where_they_only_did_not_answer(tmp_path: Path) -> None:
    async with courthouse(tmp_path, Kind.UNOPENED) as at:
        dispute, proof = at.claim(Kind.UNOPENED)
        with pytest.raises(Refused):
            await at.bring(dispute, proof)
        at.now_ms += ANSWER_MS
        serve = at.open

        async def open(peer: bytes, protocol: str, addresses: Sequence[str] = ()) -> Frames:
            frames = await serve(peer, protocol, addresses)
            send = frames.send

            async def sent(frame: bytes) -> None:
                request = decode_message_untrusted(frame)
                assert isinstance(request, DisputeRequest)
                if request.hearing is not None:
                    raise NetworkError(Code.PEER_UNREACHABLE, "It cannot be had.")
                await send(frame)

            frames.send = sent  # type: ignore[method-assign]
            return frames

        at.open = open  # type: ignore[method-assign]
        with pytest.raises(Refused, match="0 of the judges drawn decided"):
            await at.bring(dispute, proof)
