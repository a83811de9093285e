"""`/fallow/means/1`: a payer asks where it can pay, hands over what settles or secures its debt, and is told that it counts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

import trio

from ..protocol.errors import Code, FallowError, Refused, RemoteProtocolError
from ..protocol.limits import TEXT_BYTES_MAX
from ..protocol.means import decode_means_untrusted
from ..protocol.messages.codec import Message
from ..protocol.messages.payment import MeansReply, MeansRequest, RailsReply, RailsRequest
from ..protocol.messages.refusals import refusal
from .accounts import Accounts
from .deposits import Deposits
from .log import wall_ms
from .machine import beside
from .network.seam import Stream
from .questions import answer_each
from .rails.ledger import Ledger
from .rails.opening import BANK, CASHU, LEDGER
from .rails.rail import Rail

QUESTIONS_MAX: Final = 16
"""On one stream: a payer asks where, and pays on each rail at most."""


class Paying:
    """Takes what is paid, on whatever rail this owner has, and holds what is deposited."""

    def __init__(self, rails: Mapping[str, Rail], accounts: Accounts, deposits: Deposits | None = None) -> None:
        self._rails = rails
        self._accounts = accounts
        self._deposits = deposits
        self._turn = trio.CapacityLimiter(1)
        """A rail's state is one file, and a stranger may not have this node ask a mint many things at once."""

    async def answer(self, stream: Stream) -> None:
        """Each question has its answer: what was taken is the owner's, and on disk."""
        await answer_each(stream, object, self._answer_untrusted, QUESTIONS_MAX)

    async def run(self) -> None:
        """Deposits are taken or let go in time, until cancelled."""
        if self._deposits is not None:
            await self._deposits.run(self._turn)

    async def _answer_untrusted(self, request: object) -> Message:
        match request:
            case RailsRequest():
                told = {name: _told(name, rail) for name, rail in self._rails.items()}
                return RailsReply(tuple(told), tuple(told.values()))
            case MeansRequest():
                try:
                    return await self._take_untrusted(request.means)
                except FallowError as error:  # the payer is to know why it still owes
                    return refusal(error)
            case _:
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That cannot be asked on this stream.")

    async def owe(self, party: bytes, reference: str, ucr: int) -> None:
        """The party owes us so much more, or, less than nothing, we owe it: it can be set off. Again is no change."""
        ledger = self._rails.get(LEDGER)
        if isinstance(ledger, Ledger):
            post = partial(ledger.post, party, reference, ours_ucr=max(0, ucr), theirs_ucr=max(0, -ucr))
            await beside(post, self._turn)

    async def _take_untrusted(self, means: bytes) -> MeansReply:
        """Raises `Refused(bad_terms)` for a rail that is not this owner's, and what the rail raises."""
        rail = self._rails.get(decode_means_untrusted(means).rail)
        if rail is None:
            raise Refused(Code.BAD_TERMS, f"This node is paid by {', '.join(self._rails)}.")
        deposits = self._deposits
        if deposits is not None and rail.name == CASHU and await beside(lambda: deposits.is_one(means), self._turn):
            held = await deposits.hold(means, self._turn)
            return MeansReply(held.id, held.ucr)
        # Begun, it is finished, even if the payer has gone: what was swapped at a mint is the owner's, and must be counted.
        # A rail has its own bounds of time; the same means, handed over again, are taken again.
        with trio.CancelScope(shield=True):
            taken = await trio.to_thread.run_sync(rail.take, means, limiter=self._turn)
            await self._accounts.take(taken.payment(rail.name, wall_ms()))
        return MeansReply(taken.id, taken.ucr)


def _told(name: str, rail: Rail) -> str:
    """Where its owner is paid. Whose account it is at a bank is nothing for strangers: the payer has it from the owner."""
    if name == BANK:
        return ""
    terms = getattr(rail, "terms", rail.address)  # of ecash, which mint's, and what for
    return terms if len(terms.encode()) <= TEXT_BYTES_MAX else rail.address
