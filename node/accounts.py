"""What each payer owes this node: channel states in memory, the journal on disk, and never the first before the second.

A receipt is on disk before it is sent, a voucher before it is honoured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from ..protocol.channel import ChannelState, Ground, Party, held_of
from ..protocol.claims import Claims, claim_of
from ..protocol.envelope import Signed, verify_untrusted
from ..protocol.errors import Code, Refused, RemoteProtocolError
from ..protocol.holding import total_ucr
from ..protocol.orders import JobOrder
from ..protocol.payment import Channel, Voucher
from ..protocol.receipts import Receipt
from .credit import Credit, Debtor, credit_of
from .journal import Journal
from .machine import beside
from .paid import Payment

T = TypeVar("T")

CHANNELS_MAX = 1024
"""Channels kept in memory; the others are read from disk when they come back."""
CLAIMS_MAX = 300_000
"""Of all of them together, receipts that vouchers name: some 100 MB. A channel lasts for months, and each has thousands."""


@dataclass(slots=True)
class Account:
    """One channel as the payee sees it."""

    state: ChannelState
    claimed_ucr: int
    """Of all receipts issued on it, paid or not: who takes windows without paying uses up the limit."""
    users: int = 0
    """Jobs and vouchers that have it at hand: there must not be another one of the same channel meanwhile."""
    reserved_ucr: int = 0
    """What the jobs that now run may come to."""

    @property
    def payer(self) -> bytes:
        return self.state.channel.record.payer

    @property
    def room_ucr(self) -> int:
        """What the channel's limit still covers."""
        used = max(self.claimed_ucr - self.state.forfeited_ucr, self.state.balance_ucr)
        return self.state.channel.record.credit_limit_ucr - used - self.reserved_ucr

    @contextmanager
    def reserved(self, amount_ucr: int) -> Iterator[None]:
        """A job that may come to so much has its credit inside. Raises `Refused(credit_exhausted)`."""
        if amount_ucr > self.room_ucr:
            message = f"The job may cost {amount_ucr} ucr; the channel covers {self.room_ucr}."
            raise Refused(Code.CREDIT_EXHAUSTED, message)
        self.reserved_ucr += amount_ucr
        try:
            with self.in_use():
                yield
        finally:
            self.reserved_ucr -= amount_ucr

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """It is not forgotten inside."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1


class Accounts:
    """All channels of this node. Disk work runs in one thread at a time, and is never half done when cancelled."""

    def __init__(self, journal: Journal, clock: Callable[[], int], friends: Iterable[bytes] = ()) -> None:
        """`friends` are payers whom the owner vouches for: what strangers may owe does not bind them."""
        self._journal = journal
        self._clock = clock
        self._credit: Credit = credit_of(journal.debtors(clock()), friends, clock())
        self._accounts: dict[bytes, Account] = {}
        self._writer = trio.CapacityLimiter(1)
        self._honouring = trio.Lock()
        """Each voucher is judged by all that came before it."""
        self.at_fault: Callable[[bytes], bool] = lambda payer: False
        """Payers who were proven to contradict themselves: they are lent nothing, and may pay ahead."""
        self.contradicted: Callable[[Signed[Voucher], Signed[Voucher]], None] = lambda one, other: None
        """Told of two vouchers of one channel of which neither follows the other."""

    async def open(self, channel: Signed[Channel]) -> Account:
        """The channel's account, as the disk has it; nothing is written for a stranger. The channel has been checked."""
        if account := self._accounts.get(channel.id):
            return account
        state, claimed_ucr, debtor = await self._write(lambda: self._load(channel))
        # Another job on the same channel may have been as quick: there must be one account for both.
        if account := self._accounts.get(channel.id):
            return account
        self._forget_idle()
        account = self._accounts[channel.id] = Account(state, claimed_ucr)
        self._credit.debtors.setdefault(account.payer, debtor)
        return account

    @asynccontextmanager
    async def lent(
        self, account: Account, amount_ucr: int, strangers_ucr: int, unanswered_ucr: int
    ) -> AsyncIterator[None]:
        """A job that may come to so much has its credit inside: on its channel, and with the node, which lends all strangers
        together `strangers_ucr` a day, and nothing to whoever has left more than `unanswered_ucr` of receipts without vouchers.

        Raises `Refused`: `unpaid`, `credit_exhausted`, `prepay`.
        """
        self._credit.answers(account.payer, unanswered_ucr)
        if self.at_fault(account.payer):
            strangers_ucr = 0
        with account.reserved(amount_ucr):
            try:
                self._credit.lend(account.payer, amount_ucr, strangers_ucr, self._clock())
            except Refused:  # it may have paid meanwhile
                settled_ucr = await self._write(lambda: self._journal.settled_ucr(account.payer))
                self._credit.settled(account.payer, settled_ucr, self._clock())
                self._credit.lend(account.payer, amount_ucr, strangers_ucr, self._clock())
            try:
                yield
            finally:
                self._credit.release(account.payer, amount_ucr, self._clock())

    async def take(self, payment: Payment) -> bool:
        """The payment is on disk, and counts; False if it did already."""
        is_new = await self._write(lambda: self._journal.add_payment(payment))
        settled_ucr = await self._write(lambda: self._journal.settled_ucr(payment.payer))
        if (
            payment.payer in self._credit.debtors
        ):  # else `open` reads the whole line: one begun here would have no debts
            self._credit.settled(payment.payer, settled_ucr, self._clock())
        return is_new

    async def accept(self, account: Account, order: Signed[JobOrder]) -> None:
        """The order cannot be run again, and its channel is on disk. Raises `Refused(replayed)`."""
        await self._write(lambda: self._journal.add_order(account.state.channel, order, self._clock()))

    async def claim(self, account: Account, order: JobOrder, receipt: Signed[Receipt], owed_ucr: int) -> None:
        """The receipt may be sent: it is on disk, with what its order lets the payer hold of its pay."""
        channel, now_ms = account.state.channel.id, self._clock()
        claim = claim_of(owed_ucr, order.held_ppm, order.hold_ms, now_ms)
        await self._write(lambda: self._journal.add_receipt(receipt, channel, claim, now_ms))
        account.claimed_ucr += owed_ucr
        self._credit.claimed(account.payer, owed_ucr, now_ms)

    async def honour(self, account: Account, voucher: Signed[Voucher]) -> None:
        """The voucher counts, and what it adds is on disk.

        Raises `RemoteProtocolError`, with nothing written, if it does not hold or names no receipt of ours on this channel;
        one that contradicts another is kept, as proof.
        """
        state = account.state
        with account.in_use():
            await self._honour(state, voucher)

    async def _honour(self, state: ChannelState, voucher: Signed[Voucher]) -> None:
        async with self._honouring:
            claim = await self._write(lambda: self._journal.claim(voucher.record.receipt, state.channel.id))
            if claim is None:
                # [REJECT] Whoever ordered nothing could fill the disk with vouchers for nothing.
                raise RemoteProtocolError(Code.UNPAID, "The voucher names no receipt of ours on its channel.")
            now_ms = self._clock()
            try:
                state.check(voucher, claim, now_ms)
            except RemoteProtocolError as error:
                if error.code is Code.CONTRADICTION:  # the proof is kept: this voucher, and the one that it contradicts
                    await self._write(lambda: self._journal.add_contradiction(voucher))
                    if state.latest is not None:
                        self.contradicted(state.latest, voucher)
                raise
            if state.adds(voucher):
                await self._write(lambda: self._journal.add_voucher(voucher, now_ms))
                before_ucr = state.promised_ucr
                state.receive(voucher, claim, now_ms)
                self._credit.promised(state.channel.record.payer, state.promised_ucr - before_ucr)

    async def forfeit(self, account: Account, ground: Ground, ucr: int) -> None:
        """So much of what is held is not owed to us any more, and that is on disk. Our caller has judged the ground.

        Raises `RemoteProtocolError`, with nothing written, for more than is held or after its release.
        """
        state = account.state
        async with self._honouring:
            now_ms = self._clock()
            state.check_forfeit(ground, ucr, now_ms)
            await self._write(lambda: self._journal.add_ground(state.channel.id, ground, ucr, now_ms))
            known = ground in state.grounds
            state.forfeit(ground, ucr, now_ms)
            self._credit.claimed(account.payer, 0 if known else -ucr, now_ms)
            self._credit.promised(account.payer, 0 if known else -ucr)

    def takes(self, account: Account, ground: Ground, ucr: int) -> int:
        """What the ground can forfeit of so much: the rest was held once, as far as we have heard, and has fallen due. Once it
        is known, what it has forfeited. All of it, if so much was never held: then its voucher has not come yet."""
        state = account.state
        if ground in state.grounds:
            return min(ucr, state.grounds[ground])
        if state.latest is None or ucr > total_ucr(held_of(state.latest.record, sum(state.grounds.values()), 0)):
            return ucr
        return min(ucr, state.held_ucr(self._clock()))

    async def decided(
        self, account: Account, ground: Ground, ucr: int, matter: bytes, dues: Mapping[bytes, int]
    ) -> dict[bytes, int]:
        """What judges have decided is on disk in one piece: what is forfeited, as by `forfeit`, and what each party owes us, or
        we owe it. Gives what is said of that: what was said first stands. Raises as `forfeit` does, with nothing written."""
        state = account.state
        async with self._honouring:
            now_ms = self._clock()
            if ucr:
                state.check_forfeit(ground, ucr, now_ms)
            new, said = await self._write(
                lambda: self._journal.add_decided(state.channel.id, ground, ucr, matter, dues, now_ms)
            )
            if ucr and ground not in state.grounds:
                state.forfeit(ground, ucr, now_ms)
                self._credit.claimed(account.payer, -ucr, now_ms)
                self._credit.promised(account.payer, -ucr)
            self._count(new)
        return said

    def deals_with(self, key: bytes) -> bool:
        """Whether the key is a payer of an account at hand."""
        return any(account.payer == key for account in self._accounts.values())

    async def issued(self, receipt: bytes) -> bool:
        """Whether this node has issued the receipt of this id."""
        return await self._write(lambda: self._journal.issued(receipt))

    async def book(self, matter: bytes, dues: Mapping[bytes, int]) -> None:
        """What judges say that each party owes us, or we owe it, is on disk, and counts as promised; again is no change."""
        self._count(await self._write(lambda: self._journal.add_fees(matter, dues, self._clock())))

    def _count(self, fees: Mapping[bytes, int]) -> None:
        for party, ucr in fees.items():
            if ucr > 0 and party in self._credit.debtors:
                self._credit.claimed(party, ucr, self._clock())
                self._credit.promised(party, ucr)

    async def fees_open_ucr(self, party: bytes) -> int:
        """What the party owes in fees beyond all that it has paid."""
        return await self._write(lambda: self._journal.fees_ucr(party) - self._journal.settled_ucr(party))

    async def open_ucr(self, payer: bytes) -> int:
        """What the payer owes, promised or not, beyond all that it has paid; less than nothing if it has paid ahead."""
        debtor = await self._write(lambda: self._journal.debtor(payer, self._clock()))
        return debtor.owed_ucr - debtor.settled_ucr

    def is_lent_to(self, payer: bytes) -> bool:
        """Whether a job of the payer's runs, which may come to something."""
        debtor = self._credit.debtors.get(payer)
        return debtor is not None and debtor.reserved_ucr > 0

    def secure(self, deposited: Mapping[bytes, int]) -> None:
        """So much, and no more, is deposited by each payer: it may owe so much without having settled anything."""
        self._credit.secure(deposited, self._clock())

    async def settled_ucr(self, party: bytes) -> int:
        """What the party has paid in all."""
        return await self._write(lambda: self._journal.settled_ucr(party))

    async def booked(self, matter: bytes) -> dict[bytes, int]:
        """What was booked of each party for the matter."""
        return await self._write(lambda: self._journal.fees_of(matter))

    async def _write(self, task: Callable[[], T]) -> T:
        return await beside(task, self._writer)

    def _load(self, channel: Signed[Channel]) -> tuple[ChannelState, int, Debtor]:
        row, payer = self._journal.channel(channel.id), channel.record.payer
        latest = verify_untrusted(Voucher, row.voucher, signer=payer) if row.voucher else None
        state = ChannelState(Party.PAYEE, channel, latest, Claims(row.named), row.grounds)
        return state, row.claimed_ucr, self._journal.debtor(payer, self._clock())

    def _forget_idle(self) -> None:
        claims = sum(len(account.state.named) for account in self._accounts.values())
        if len(self._accounts) >= CHANNELS_MAX or claims >= CLAIMS_MAX:
            for channel in [key for key, account in self._accounts.items() if not account.users]:
                del self._accounts[channel]
            self._credit.forget_all_but({account.payer for account in self._accounts.values()})
