"""Deposits that payers have locked to this node: each secures what its payer may owe, and is taken only if that is not paid.

A payer whom nobody knows is lent so much more as its deposit is worth, and not as much again, as for what it has paid: it gets
the deposit back. `TAKE_S` before its time, a deposit whose payer owes anything is taken, all of it, and is a payment like any
other; one whose payer owes nothing is let go. (A node that is off in all that time has lost its security, not its claim.)

There is room for `HELD_MAX`, and keys are free: where all places are taken, the smallest deposit ends for a larger one, as it
would on its last day. So whoever wants to shut others out has to lock as much as they do, in each of the places.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import trio

from ..protocol.errors import Code, NetworkError, Refused, RemoteProtocolError
from .accounts import Accounts
from .machine import beside
from .rails.deposits import HELD_MAX, DepositBook, Held
from .rails.rail import Taken, in_utc, read_means

DAY_S: Final = 24 * 3600
TAKE_S: Final = DAY_S
"""Before its time is over, a deposit is taken or let go: for a night in which the node, its network or the mint is away."""
LEAST_S: Final = 3 * DAY_S
"""A deposit lasts for so long at least when it is handed over: else there is nothing that it secures."""
LATEST_S: Final = 400 * DAY_S
"""Nor longer than so: a year and a month. There is room for few, and each has its place until its time."""
KEPT_S: Final = 30 * DAY_S
"""After its time, a mint that does not answer, or says no, is asked for a deposit for so long: it may be there still."""
LOOK_S: Final = 600.0
"""Between two looks at what is due."""
TRIED_MAX: Final = 4
"""Of the smallest deposits, for one that is larger: a mint that says no to so many says no to all."""


class Purse(Protocol):
    """What deposits are made of: `rails.cashu.Cashu`."""

    name: str

    def payment_of(self, means: bytes) -> bytes: ...
    def until_s_of(self, means: bytes) -> int: ...
    def locked_until_s(self, means: bytes) -> int: ...
    def has_taken(self, means: bytes) -> bool: ...
    def is_lost(self, means: bytes) -> bool: ...
    def worth_ucr(self, means: bytes) -> int: ...
    def take(self, means: bytes) -> Taken: ...


class Deposits:
    """What this node holds, in its book, and what that is worth to whom, in its accounts."""

    def __init__(self, book: DepositBook, purse: Purse, accounts: Accounts, now_ms: Callable[[], int]) -> None:
        self._book = book
        self._purse = purse
        self._accounts = accounts
        self._now_ms = now_ms
        self._holding = trio.Lock()
        """Held from seeing that there is a place to having taken it."""
        self._ending = b""
        """The one that ends for another: it secures nothing more."""
        self.count()

    def is_one(self, means: bytes) -> bool:
        """Whether these tokens go back to who paid them, some day, unless they are taken. Raises `RemoteProtocolError`."""
        return bool(self._purse.until_s_of(means)) and not self._purse.has_taken(means)

    async def hold(self, means: bytes, turn: trio.CapacityLimiter) -> Taken:
        """The deposit is on disk, and counts. Again is no change, and asks no mint. `turn`: what uses the purse goes by it.
        Cut off before, nothing has happened that is not done again.

        Raises as the purse does for tokens that are not locked to us, spent, or signed by no mint, and `Refused`: `bad_terms`
        for a time that is too near or too far, or for no more than the mint's fee; `busy` where there is no place for it.
        """
        async with self._holding:
            held = await beside(partial(self._checked, means), turn)
            if await beside(partial(self._book.lacks_room, held), turn):
                await self._make_room(held, turn)
            await beside(partial(self._book.hold, held), turn)
        self.count()
        return Taken(held.id, held.payer, held.ucr, 0, held.reference)

    def count(self) -> None:
        """What is held counts, for as long as it can still be taken in time. In the thread of the accounts."""
        self._count(self._now_ms() // 1000 + TAKE_S)

    async def run(self, turn: trio.CapacityLimiter) -> None:
        """Takes, or lets go, what is due, until cancelled."""
        while True:
            await self.look(turn)
            await trio.sleep(LOOK_S)

    async def look(self, turn: trio.CapacityLimiter) -> None:
        """What is due now was taken or let go; without an answer, or refused unspent, it is due the next time, too."""
        before_s = self._now_ms() // 1000 + TAKE_S
        self._count(before_s)  # nobody is lent anything on what is due, by the same clock
        for held in await beside(lambda: self._book.held(before_s), turn):
            if await self._is_settled(held, turn) or held.until_s + KEPT_S <= self._now_ms() // 1000:
                await beside(partial(self._book.let_go, held.id), turn)

    def _count(self, after_s: int) -> None:
        self._accounts.secure(self._book.worth(after_s, self._ending))

    def _checked(self, means: bytes) -> Held:
        """The deposit, as it may be held; whoever has handed over one that is held is not asked for anything."""
        found, id, until_s = read_means(means, self._purse.name), self._purse.payment_of(means), 0
        if not self._book.holds(id):
            until_s, now_s = self._purse.locked_until_s(means), self._now_ms() // 1000
            if until_s < now_s + LEAST_S:
                least = f"{LEAST_S // DAY_S} days at least, and this one ends on {in_utc(until_s)}"
                raise Refused(Code.BAD_TERMS, f"A deposit lasts for {least}. It was not taken.")
            if until_s > now_s + LATEST_S:
                most = f"{LATEST_S // DAY_S} days at most, and this one ends on {in_utc(until_s)}"
                raise Refused(Code.BAD_TERMS, f"A deposit lasts for {most}. It was not taken.")
            if self._purse.worth_ucr(means) <= 0:
                raise Refused(Code.BAD_TERMS, "The mint's fee would eat the deposit. It was not taken.")
        return Held(id, found.payer, found.reference, found.ucr, until_s, means)

    async def _make_room(self, wanted: Held, turn: trio.CapacityLimiter) -> None:
        """The smallest deposit has ended, if it is smaller than the one wanted. Raises `Refused(busy)`."""
        for held in await beside(lambda: self._book.smallest(wanted.ucr, TRIED_MAX), turn):
            self._ending = held.id
            try:
                self.count()  # before it is looked at: what its payer orders from here on rests on the others
                if await self._is_settled(held, turn):
                    with trio.CancelScope(shield=True):  # as long as a commit takes: what was taken secures nothing
                        return await beside(partial(self._book.let_go, held.id), turn)
            finally:
                self._ending = b""
                self.count()
        message = f"This node holds {HELD_MAX} deposits, and none of less than {wanted.ucr} ucr could make room"
        raise Refused(Code.BUSY, f"{message}: deposit more, or pay it instead. It was not taken.")

    async def _is_settled(self, held: Held, turn: trio.CapacityLimiter) -> bool:
        """Whether the deposit need not be held any more: it is taken, and counted, if its payer owes anything or a job of its
        runs. False if the mint cannot be asked, or says no to what is unspent: it may allow it later."""
        may_owe = self._accounts.is_lent_to(held.payer)
        taken_before = await beside(partial(self._purse.has_taken, held.means), turn)
        if not (taken_before or may_owe or await self._accounts.open_ucr(held.payer) > 0):
            return True
        try:
            with trio.CancelScope(shield=True):  # as in `Paying`: what is swapped is counted
                taken = await beside(partial(self._purse.take, held.means), turn)
                await self._accounts.take(taken.payment(self._purse.name, self._now_ms()))
        except NetworkError:
            return False
        except RemoteProtocolError:
            return await beside(partial(self._is_lost, held.means), turn)
        return True

    def _is_lost(self, means: bytes) -> bool:
        """Whether somebody else has spent it, by the mint's word. What it refuses otherwise, it may allow later."""
        try:
            return self._purse.is_lost(means)
        except (NetworkError, RemoteProtocolError):
            return False
