"""A node that is away when judges have found against it loses what is still held, though their mandates have lapsed; what it
never heard of is given up when their word counts no more, and what it took is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from fallow.client.contesting import take_off
from fallow.client.desk import Desk
from fallow.client.disputing import forfeit
from fallow.client.settling import Settler
from fallow.client.telling import Told, tell_again
from fallow.client.wallet import Wallet
from fallow.node.accounts import Account, Accounts
from fallow.node.disputes import Disputes
from fallow.node.journal import Journal
from fallow.node.machine import HERE, Machine
from fallow.node.network.seam import Network
from fallow.node.rails.ledger import Ledger
from fallow.node.settling import Settling
from fallow.protocol.channel import ChannelState
from fallow.protocol.claims import claim_of
from fallow.protocol.disputes import Decided, Kind
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, FallowError, NetworkError
from fallow.protocol.grounds import Judged
from fallow.protocol.limits import HOLD_MS_MAX, SKEW_MS
from fallow.protocol.messages.codec import encode_message
from fallow.protocol.messages.refusals import RefuseMessage
from fallow.protocol.policy import draw
from fallow.protocol.receipts import FINAL, Receipt
from fallow.protocol.streams import DISPUTE_PROTOCOL, GROUND_PROTOCOL, VOUCHER_PROTOCOL
from fallow.verifier.case import gather
from fallow.verifier.verdict import judge

from ..verifier.jobs import CLIENT, NOW_MS, Job, Ordered
from ..verifier.test_disputes import FEE, OWNER, PAYEE, Scene, bound, decided
from ..verifier.test_grounds import JUDGES, verifier_of

HOLD_MS = 100_000_000
MANDATE_MS = 1_000_000
"""So long each judge's holds (`verifier_of`)."""
MINUTE_MS = 60_000
Way = Literal["verdict", "decision"]


@dataclass
class Wire:
    """From the client to its node: one question, and its answer."""

    services: dict[str, Any]
    state: Literal["cut", "answers lost", "whole"] = "cut"
    instead: bytes | None = None
    """What is answered to whatever judges have found, by a node that does not look at it."""

    async def request(self, peer: bytes, protocol: str, frame: bytes, addresses: Sequence[str] = ()) -> bytes:
        if self.state == "cut":
            raise NetworkError(Code.PEER_UNREACHABLE, "it is away")
        if self.instead and protocol != VOUCHER_PROTOCOL:
            return self.instead
        stream = Question(frame)
        try:
            await self.services[protocol](stream)
        except FallowError as error:
            raise NetworkError(Code.STREAM_CLOSED, "the peer did not answer") from error
        if self.state == "answers lost":
            raise NetworkError(Code.STREAM_CLOSED, "the connection broke")
        (answer,) = stream.answers
        return answer

    async def get(self, key: str) -> None:
        return None


@dataclass
class Question:
    """The stream that a node has of it."""

    frame: bytes | None
    answers: list[bytes] = field(default_factory=list)
    peer: bytes = b""

    async def receive(self) -> bytes:
        frame, self.frame = self.frame, None
        if frame is None:
            raise NetworkError(Code.STREAM_CLOSED, "that was all")
        return frame

    async def send(self, frame: bytes) -> None:
        self.answers.append(frame)


@dataclass
class Away:
    """A client and its node, of whose pay for a wrong answer all is held."""

    desk: Desk
    wire: Wire
    clock: list[int]
    channel: ChannelState
    account: Account
    accounts: Accounts

    async def works(self, writer: Ordered, receipt: Signed[Receipt]) -> int:
        """Delivered, and paid by a voucher that the node has; gives what was paid."""
        amount, now_ms = receipt.record.amount_ucr, self.clock[0]
        await self.accounts.accept(self.account, writer.order)
        await self.accounts.claim(self.account, writer.order.record, receipt, amount)
        claim = claim_of(amount, 10**6, HOLD_MS, now_ms)
        await self.accounts.honour(self.account, await self.desk.wallet.pay(self.channel, receipt, claim, now_ms))
        return amount

    async def told(self, way: Way) -> Told:
        """Two of the judges drawn have found against the node, which is told, or will be."""
        if way == "decision":
            return await take_off(self.desk, (), await self._decided())
        found = await forfeit(self.desk, (), self.channel, await self._judged())
        return Told(found.ucr, found.told)

    async def _judged(self) -> Judged:
        job, writer, receipt = lie(self.channel)
        await self.works(writer, receipt)
        verdict = judge(gather(job.question, job.records, job.openings))
        keys = [verifier_of(owner) for owner in draw(job.nonce, receipt.id, JUDGES, (), 3)[:2]]
        signed = tuple(sign(verdict, key) for key, _ in keys)
        return Judged(self.channel.channel, writer.order, receipt, signed, tuple(paper for _, paper in keys))

    async def _decided(self) -> Decided:
        scene = Scene(Kind.WRONG)
        for _ in range(2):  # of the second as much is held as is due to the judges
            writer = scene.job.text(10, channel=self.channel.channel.id, held_ppm=10**6, hold_ms=HOLD_MS)
            writer.write(0, 16)
            receipt = writer.receipt(FINAL)
            await self.works(writer, receipt)
        scene.writer, scene.receipt = writer, receipt
        scene.claimed = [*scene.job.records, self.channel.channel]
        scene.with_openings(writer)
        decision = decided(scene, "its figures differ")
        return bound(scene, [decision, decision], channel=self.channel.channel)

    def agree(self, forfeited_ucr: int) -> None:
        """Both sides' books say the same."""
        for side in (self.channel, self.account.state):
            assert side.forfeited_ucr == forfeited_ucr
            assert side.balance_ucr == self.account.claimed_ucr - forfeited_ucr

    async def goes_on(self) -> None:
        """What is worked from now on is paid, and the node takes it."""
        await self.desk.settler.flush()
        assert self.account.state.latest == self.channel.latest
        job = Job("none", nonce=b"\x0b" * 32, clock=40)
        writer = job.text(10, channel=self.channel.channel.id, held_ppm=10**6, hold_ms=HOLD_MS)
        writer.write(0, 16)
        await self.works(writer, writer.receipt(FINAL))


def lie(channel: ChannelState) -> tuple[Job, Ordered, Signed[Receipt]]:
    """Work on the channel, all of whose pay may be held, and of which two checkers come to something else."""
    job = Job("adaptive:1", candidates=tuple(sorted(JUDGES)))
    writer = job.text(10, channel=channel.channel.id, held_ppm=10**6, hold_ms=HOLD_MS)
    writer.write(0, 16, 5_000)
    receipt = writer.receipt(FINAL)
    for checker in (11, 12):
        job.check(checker, receipt, 16)
    for ordered in job.ordered:
        ordered.open()
    return job, writer, receipt


@asynccontextmanager
async def away(folder: Path) -> AsyncIterator[Away]:
    clock = [NOW_MS]
    HERE.set(Machine(wall_ns=lambda: clock[0] * 1_000_000))
    with (
        closing(Wallet(folder / "wallet.db", CLIENT)) as wallet,
        closing(Ledger(folder / "ledger.db", CLIENT)) as ledger,
        closing(Journal(folder)) as journal,
    ):
        accounts = Accounts(journal, lambda: clock[0])

        async def owe(party: bytes, reference: str, ucr: int) -> None:
            pass

        settling = Settling(bytes(PAYEE.verify_key), OWNER, accounts)
        wire = Wire({
            GROUND_PROTOCOL: settling.answer_grounds,
            VOUCHER_PROTOCOL: settling.answer,
            DISPUTE_PROTOCOL: Disputes(PAYEE, OWNER, accounts, owe).answer,
        })  # fmt: skip
        network = cast(Network, wire)
        desk = Desk(network, wallet, Settler(network), CLIENT, lambda: clock[0], ledger=ledger)
        channel = await wallet.channel(bytes(PAYEE.verify_key), OWNER, 0, NOW_MS)
        account = await accounts.open(channel.channel)
        yield Away(desk, wire, clock, channel, account, accounts)


EACH_WAY = pytest.mark.parametrize("way", ["verdict", "decision"])


@EACH_WAY
@pytest.mark.spec("P-37", "P-38")
async def test_what_a_node_hears_of_too_late_is_given_up_and_it_is_paid_on(tmp_path: Path, way: Way) -> None:
    async with away(tmp_path) as at:
        told = await at.told(way)
        assert told.ucr and not told.arrived
        at.clock[0] += MANDATE_MS + HOLD_MS_MAX + SKEW_MS + 1
        at.wire.state = "whole"
        assert await tell_again(at.desk) == [Told(0, True)]
        assert at.channel.held_ucr(at.clock[0]) == 0
        at.agree(0)
        await at.goes_on()
        at.agree(0)
        assert await tell_again(at.desk) == []
        ledger = at.desk.ledger
        assert ledger is not None and ledger.balance_ucr(bytes(PAYEE.verify_key)) == 0
        judges = [bytes(verifier_of(owner)[0].verify_key) for owner in JUDGES]
        # Who has decided is owed its part; the node owes nothing of what it has never taken.
        assert sum(map(ledger.balance_ucr, judges)) == (-FEE // 3 * 2 if way == "decision" else 0)


@EACH_WAY
@pytest.mark.spec("P-28", "P-29")
async def test_nobody_escapes_by_staying_away_until_the_judges_mandates_have_lapsed(tmp_path: Path, way: Way) -> None:
    async with away(tmp_path) as at:
        told = await at.told(way)
        at.clock[0] += HOLD_MS - MINUTE_MS  # it is held still
        assert HOLD_MS > 50 * MANDATE_MS
        at.wire.state = "whole"
        assert await tell_again(at.desk) == [Told(told.ucr, True)]
        at.agree(told.ucr)
        await at.goes_on()
        at.agree(told.ucr)


@EACH_WAY
@pytest.mark.spec("P-35")
async def test_what_a_node_has_taken_stands_whatever_lapses_before_it_can_say_so(tmp_path: Path, way: Way) -> None:
    async with away(tmp_path) as at:
        at.wire.state = "answers lost"
        told = await at.told(way)
        assert told.ucr and not told.arrived
        at.clock[0] += MANDATE_MS + HOLD_MS_MAX + SKEW_MS + 1
        at.wire.state = "whole"
        assert await tell_again(at.desk) == [Told(told.ucr, True)]
        at.agree(told.ucr)
        await at.goes_on()
        at.agree(told.ucr)


@EACH_WAY
@pytest.mark.spec("P-38")
async def test_who_refuses_what_holds_is_not_believed(tmp_path: Path, way: Way) -> None:
    async with away(tmp_path) as at:
        at.wire.state, at.wire.instead = "whole", encode_message(RefuseMessage("unsatisfiable_assurance", "no", 0))
        told = await at.told(way)
        at.clock[0] += MINUTE_MS
        assert await tell_again(at.desk) == [Told(told.ucr, False)]
        assert at.channel.forfeited_ucr == told.ucr > 0
        at.wire.instead = None
        at.clock[0] += MINUTE_MS
        assert await tell_again(at.desk) == [Told(told.ucr, True)]
        at.agree(told.ucr)


@EACH_WAY
@pytest.mark.parametrize("code", ["busy", "later"])
@pytest.mark.spec("P-38")
async def test_nothing_is_given_up_for_a_refusal_that_is_not_of_the_ground(tmp_path: Path, way: Way, code: str) -> None:
    """Nor for a code of a later version: the node may have taken it before."""
    async with away(tmp_path) as at:
        at.wire.state = "answers lost"
        told = await at.told(way)
        assert told.ucr and not told.arrived
        at.clock[0] += HOLD_MS // 50
        at.wire.state, at.wire.instead = "whole", encode_message(RefuseMessage(code, "not now", 0))
        assert await tell_again(at.desk) == [Told(told.ucr, False)]
        at.clock[0] += 2 * MINUTE_MS
        at.wire.instead = None
        assert await tell_again(at.desk) == [Told(told.ucr, True)]
        at.agree(told.ucr)


@pytest.mark.spec("P-30")
async def test_the_judges_are_owed_their_part_though_the_node_never_answers(tmp_path: Path) -> None:
    async with away(tmp_path) as at:
        assert not (await at.told("decision")).arrived
        ledger = at.desk.ledger
        assert ledger is not None and ledger.balance_ucr(bytes(PAYEE.verify_key)) == 0
        judges = [bytes(verifier_of(owner)[0].verify_key) for owner in JUDGES]
        assert sum(map(ledger.balance_ucr, judges)) == -FEE // 3 * 2


@EACH_WAY
@pytest.mark.spec("P-37")
async def test_what_overtakes_the_voucher_that_holds_it_is_refused_for_now(tmp_path: Path, way: Way) -> None:
    async with away(tmp_path) as at:
        honour = at.accounts.honour
        at.accounts.honour = lambda account, voucher: _nothing()  # type: ignore[method-assign]
        at.wire.state = "whole"
        told = await at.told(way)
        assert told.ucr and not told.arrived
        at.accounts.honour = honour  # type: ignore[method-assign]
        at.clock[0] += MINUTE_MS
        assert await tell_again(at.desk) == [Told(told.ucr, True)]
        at.agree(told.ucr)


async def _nothing() -> None:
    """The voucher was lost on the way."""
