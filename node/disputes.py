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
    Decided,
    Dispute,
    Kind,
    Plea,
    check_decided,
    decision_id,
    due_of,
    dues_of,
    forfeited_ucr_max,
    matter_id,
    read_decided_untrusted,
    reference_of,
)
from ..protocol.envelope import sign, verify_any_signer_untrusted
from ..protocol.errors import Code, Refused, RemoteProtocolError
from ..protocol.identity import content_hash
from ..protocol.messages.assurance import DecidedReply, DecidedRequest, DisputeRequest, PleaReply
from ..protocol.messages.codec import Message
from ..protocol.messages.refusals import refusal
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
        dispute = verify_any_signer_untrusted(Dispute, request.dispute)
        if dispute.record.accused != self._node:
            raise RemoteProtocolError(Code.WRONG_EXECUTOR, "The dispute is about somebody else.")
        says = ANSWERS
        if dispute.record.kind == Kind.DISOWNED:
            says = OWNS if await self._accounts.issued(dispute.record.receipt) else DENIES
        return PleaReply(sign(Plea(dispute.id, says, content_hash(b""), None, None), self._key).envelope)

    async def _take_untrusted(self, request: DecidedRequest) -> Message:
        """The decision counts, and that is on disk: what is held is forfeited, and who owes a fee to whom is in the books.
        What was released before this arrived is not taken: so much more of the fee is owed. Or who tells it knows why not."""
        decided = read_decided_untrusted(request)
        check_claim(decided.channel, self._node, self._owner, wall_ms())
        try:
            return await self._taken(decided, request.ucr)
        except (RemoteProtocolError, Refused) as error:
            return refusal(error)

    async def _taken(self, decided: Decided, ucr: int) -> DecidedReply:
        decision, dispute = decided.decisions[0].record, decided.dispute.record
        matter, ground, payer = matter_id(dispute), Ground("decision", decided.order.id), decided.channel.record.payer
        account = await self._accounts.open(decided.channel)
        with account.in_use():
            async with self._turn:
                taken_ucr, said = self._accounts.takes(account, ground, ucr), await self._accounts.booked(matter)
                stands = taken_ucr == account.state.grounds.get(ground, 0)
                if not stands or said.get(payer) != due_of(decided, self._node, taken_ucr):
                    # What was taken and is told again stands, whatever has lapsed since; all else is looked at.
                    self._check(decided, ucr)
                    dues = dues_of(decided, self._node, taken_ucr, wall_ms())
                    if said and said[payer] != dues[payer]:
                        raise RemoteProtocolError(Code.UNPAID, "Another part of the fee was taken off before.")
                    said = await self._accounts.decided(account, ground, taken_ucr, matter, dues)
                for party, owed_ucr in said.items():
                    if owed_ucr:
                        await self._owe(party, reference_of(matter), owed_ucr)
        return DecidedReply(decision_id(decision), taken_ucr)

    @staticmethod
    def _check(decided: Decided, ucr: int) -> None:
        check_decided(decided, wall_ms())
        if ucr > forfeited_ucr_max(decided.dispute.record, decided.decisions[0].record):
            raise RemoteProtocolError(Code.UNPAID, "The decision lets the payer take off less than that.")
