"""`/fallow/dispute/1` at a node: whether it stands by its receipt, and what judges have decided between it and a payer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio
from nacl.signing import SigningKey

from ..protocol.channel import Ground
from ..protocol.disputes import (
    ANSWERS,
    DENIES,
    OWNS,
    Dispute,
    Kind,
    Plea,
    check_decided,
    dues_of,
    forfeited_ucr_max,
    matter_id,
    read_decided_untrusted,
    reference_of,
)
from ..protocol.envelope import claimed_signer_untrusted, sign, verify_untrusted
from ..protocol.errors import Code, RemoteProtocolError
from ..protocol.identity import content_hash
from ..protocol.messages import DecidedReply, DecidedRequest, DisputeRequest, Message, PleaReply
from ..protocol.payment import check_claim
from .accounts import Accounts
from .log import wall_ms
from .network.seam import Stream
from .questions import answer_each

QUESTIONS_MAX: Final = 16
"""On one stream: a judge asks once, a party tells of its few disputes."""


class Disputes:
    """What this node says in disputes, and what it takes from their judges."""

    def __init__(
        self, key: SigningKey, owner: bytes, accounts: Accounts, owe: Callable[[bytes, str, int], Awaitable[None]]
    ) -> None:
        """`owe` is told of what a party owes us, or, less than nothing, we owe it: for the ledger of mutual debts."""
        self._key = key
        self._node = bytes(key.verify_key)
        self._owner = owner
        self._accounts = accounts
        self._owe = owe
        self._turn = trio.Lock()
        """Each decision is taken by what was taken before it."""

    async def answer(self, stream: Stream) -> None:
        """Each question has its answer. Raises `FallowError` for a dispute that is not this node's, or a decision that does not
        hold."""
        await answer_each(stream, object, self._answer_untrusted, QUESTIONS_MAX)

    async def _answer_untrusted(self, request: object) -> Message:
        match request:
            case DisputeRequest():
                return await self._plead_untrusted(request)
            case DecidedRequest():
                return await self._take_untrusted(request)
            case _:
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That cannot be asked on this stream.")

    async def _plead_untrusted(self, request: DisputeRequest) -> PleaReply:
        """The truth: a receipt of this node's is in its journal before it is sent."""
        dispute = verify_untrusted(Dispute, request.dispute, signer=claimed_signer_untrusted(request.dispute))
        if dispute.record.accused != self._node:
            raise RemoteProtocolError(Code.WRONG_EXECUTOR, "The dispute is about somebody else.")
        says = ANSWERS
        if dispute.record.kind == Kind.DISOWNED:
            says = OWNS if await self._accounts.issued(dispute.record.receipt) else DENIES
        return PleaReply(sign(Plea(dispute.id, says, content_hash(b""), None, None), self._key).envelope)

    async def _take_untrusted(self, request: DecidedRequest) -> DecidedReply:
        """The decision counts, and that is on disk: what is held is forfeited, and who owes a fee to whom is in the books.
        What was released before this arrived is not taken: then all of the fee is owed."""
        decided = read_decided_untrusted(request)
        channel, order, dispute = decided.channel, decided.order, decided.dispute
        check_claim(channel, self._node, self._owner, wall_ms())
        id, decision = check_decided(decided, wall_ms()), decided.decisions[0].record
        if request.ucr > forfeited_ucr_max(dispute.record, decision):
            raise RemoteProtocolError(Code.UNPAID, "The decision lets the payer take off less than that.")
        matter, ground, payer = matter_id(dispute.record), Ground("decision", order.id), channel.record.payer
        account = await self._accounts.open(channel)
        with account.in_use():
            async with self._turn:
                taken_ucr = 0 if self._accounts.released(account, ground, request.ucr) else request.ucr
                dues = dues_of(decided, self._node, taken_ucr, wall_ms())
                booked = await self._accounts.booked(matter)
                if booked and booked[payer] != dues[payer]:
                    raise RemoteProtocolError(Code.UNPAID, "Another part of the fee was taken off before.")
                said = await self._accounts.decided(account, ground, taken_ucr, matter, dues)
                for party, ucr in said.items():
                    if ucr:
                        await self._owe(party, reference_of(matter), ucr)
        return DecidedReply(id, taken_ucr)
