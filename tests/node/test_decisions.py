"""What judges have decided, told to a node: taken once, in one piece, by whichever stream and at whatever time."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from fallow.node.accounts import Account, Accounts
from fallow.node.disputes import Disputes
from fallow.node.journal import Journal
from fallow.node.journal_file import JOURNAL
from fallow.node.machine import HERE, Machine
from fallow.node.paid import fees
from fallow.protocol.channel import ChannelState, Party
from fallow.protocol.claims import claim_of
from fallow.protocol.disputes import Decided, Kind, decision_id, judges
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, FallowError, Refused
from fallow.protocol.limits import SKEW_MS
from fallow.protocol.messages.assurance import DecidedReply, DecidedRequest
from fallow.protocol.messages.refusals import RefuseMessage, refused
from fallow.protocol.payment import Voucher
from fallow.protocol.receipts import FINAL

from ..verifier.jobs import CLIENT, NOW_MS
from ..verifier.test_disputes import FEE, OWNER, PAYEE, Scene, bound, decided
from ..verifier.test_grounds import CHANNEL

PAYER, HOLD_MS = bytes(CLIENT.verify_key), 60_000


class Books:
    """A node that has given a wrong answer, of which all is held, and some more."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now_ms = folder, NOW_MS
        HERE.set(Machine(wall_ns=lambda: self.now_ms * 1_000_000))
        self.scene = Scene(Kind.WRONG)
        self.journal = Journal(folder)
        self.accounts = Accounts(self.journal, lambda: self.now_ms)
        self.payer = ChannelState(Party.PAYER, CHANNEL)
        self.owed: list[int] = []
        self.vouchers: list[Signed[Voucher]] = []

        async def owe(party: bytes, reference: str, ucr: int) -> None:
            self.owed.append(ucr)

        self.disputes = Disputes(PAYEE, OWNER, self.accounts, owe)

    async def works(self, *, honoured: bool = True, apart_ms: int = 0) -> Account:
        """Two orders, of which the first is disputed: delivered, and paid by vouchers that hold all of it."""
        account = await self.accounts.open(CHANNEL)
        job = self.scene.job
        for _ in range(2):
            writer = job.text(10, channel=CHANNEL.id, held_ppm=1_000_000, hold_ms=HOLD_MS)
            writer.write(0, 16)
            receipt = writer.receipt(FINAL)
            if self.scene.writer.order.record.hold_ms == 0:
                self.scene.writer, self.scene.receipt = writer, receipt
            amount = receipt.record.amount_ucr
            await self.accounts.accept(account, writer.order)
            await self.accounts.claim(account, writer.order.record, receipt, amount)
            claim = claim_of(amount, 1_000_000, HOLD_MS, self.now_ms)
            voucher = sign(self.payer.pay(receipt.id, claim, self.now_ms), CLIENT)
            self.payer.paid(voucher, claim)
            self.vouchers.append(voucher)
            if honoured:
                await self.accounts.honour(account, voucher)
            self.now_ms += apart_ms
        self.scene.claimed = [*job.records, CHANNEL]
        self.scene.with_openings(self.scene.writer)
        return account

    @property
    def ruled(self) -> Decided:
        decision = decided(self.scene, "its figures differ")
        return bound(self.scene, [decision, decision])

    @property
    def withheld_ucr(self) -> int:
        return self.ruled.decisions[0].record.withheld_ucr

    async def told(self, ucr: int, ruled: Decided | None = None) -> int:
        """What the node says is forfeited. Raises `Refused` with its reason."""
        given = ruled or self.ruled
        reply = await self.disputes._take_untrusted(
            DecidedRequest(
                given.channel.envelope, given.order.envelope, given.receipt.envelope, given.dispute.envelope, ucr,
                tuple(one.envelope for one in given.decisions), tuple(one.envelope for one in given.mandates),
            )
        )  # fmt: skip
        if isinstance(reply, RefuseMessage):
            raise refused(reply)
        assert isinstance(reply, DecidedReply) and reply.decision == decision_id(given.decisions[0].record)
        return reply.ucr

    @property
    def fees(self) -> list[tuple[bytes, int]]:
        return [(fee.party, fee.ucr) for fee in fees(self.folder)]

    def taken_ucr(self) -> int:
        with closing(sqlite3.connect(self.folder / JOURNAL)) as database:
            (ucr,) = database.execute("SELECT coalesce(sum(ucr), 0) FROM grounds").fetchone()
        return int(ucr)


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    made = Books(tmp_path)
    with closing(made.journal):
        yield made


@pytest.mark.spec("P-30")
async def test_two_streams_at_once_take_the_fee_once(books: Books) -> None:
    await books.works()
    codes: list[Code] = []

    async def tells(ucr: int) -> None:
        try:
            await books.told(ucr)
        except FallowError as error:
            codes.append(error.code)

    async with trio.open_nursery() as nursery:
        for ucr in (books.withheld_ucr + FEE, 0):
            nursery.start_soon(tells, ucr)
    assert codes == [Code.UNPAID]
    ((party, owed_ucr),) = books.fees
    assert party == PAYER
    assert (books.taken_ucr(), owed_ucr) in {(books.withheld_ucr + FEE, 0), (0, -FEE)}


@pytest.mark.spec("P-30")
async def test_forfeit_and_fee_are_on_disk_together(books: Books) -> None:
    """A process that dies between the two has taken neither."""
    await books.works()
    with closing(sqlite3.connect(books.folder / JOURNAL, isolation_level=None)) as database:
        database.execute("CREATE TRIGGER torn BEFORE INSERT ON fees BEGIN SELECT RAISE(ABORT, 'torn'); END")
        with pytest.raises((FallowError, sqlite3.Error)):
            await books.told(books.withheld_ucr + FEE)
        assert (books.taken_ucr(), books.fees) == (0, [])
        database.execute("DROP TRIGGER torn")
    assert await books.told(0) == 0
    assert (books.taken_ucr(), books.fees, books.owed) == (0, [(PAYER, -FEE)], [-FEE])


@pytest.mark.spec("P-30")
async def test_other_judges_of_the_same_matter_are_told_once(books: Books) -> None:
    await books.works()
    books.scene.kind = Kind.UNPAID  # the node's claim, so that it owes the judges
    books.scene.says = "answers"
    ruled = books.ruled
    drawn = sorted(judges(ruled.order, OWNER))
    assert len(drawn) == 3
    await books.told(books.withheld_ucr, ruled)
    before, owed = books.fees, list(books.owed)
    everyone = bound(books.scene, [ruled.decisions[0].record] * 3)
    await books.told(books.withheld_ucr, everyone)
    assert (books.fees, books.owed[len(owed) :]) == (before, owed)


@pytest.mark.spec("P-30")
async def test_what_was_released_before_the_decision_came_is_owed_as_a_fee(books: Books) -> None:
    await books.works()
    books.now_ms += HOLD_MS + SKEW_MS + 1
    for ucr in (books.withheld_ucr + FEE, books.withheld_ucr + FEE, 0):
        assert await books.told(ucr) == 0
    assert (books.taken_ucr(), books.fees) == (0, [(PAYER, -FEE)])


@pytest.mark.spec("P-30", "P-35")
async def test_what_is_still_held_when_the_decision_comes_is_forfeited_and_it_is_said_again(books: Books) -> None:
    account = await books.works(apart_ms=HOLD_MS // 2)
    once = books.vouchers[1].record.held
    assert len(once) == 2
    books.now_ms = once[0].release_at_ms + SKEW_MS
    for _ in range(2):
        assert await books.told(books.withheld_ucr + FEE) == once[1].ucr
        assert account.state.forfeited_ucr == books.taken_ucr() == once[1].ucr
    assert books.fees == [(PAYER, -(FEE - max(0, once[1].ucr - books.withheld_ucr)))]
    books.now_ms = once[1].release_at_ms + SKEW_MS
    assert await books.told(books.withheld_ucr + FEE) == once[1].ucr


@pytest.mark.spec("P-30")
async def test_what_was_never_held_here_is_refused_until_its_voucher_comes(books: Books) -> None:
    account = await books.works(honoured=False)
    with pytest.raises(Refused) as caught:
        await books.told(books.withheld_ucr)
    assert caught.value.code is Code.EXPIRED
    assert books.fees == []
    for voucher in books.vouchers:
        await books.accounts.honour(account, voucher)
    assert await books.told(books.withheld_ucr) == books.withheld_ucr
