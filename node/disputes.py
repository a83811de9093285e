"""`/fallow/dispute/1` at a node: whether it stands by its receipt, and what judges have decided between it and a payer."""

from __future__ import annotations

from typing import Final

from nacl.signing import SigningKey

from ..protocol.channel import Ground
from ..protocol.disputes import (
    ANSWERS,
    DENIES,
    OWNS,
    Decided,
    Decision,
    Dispute,
    Kind,
    Plea,
    check_decided,
    forfeited_ucr_max,
)
from ..protocol.envelope import claimed_signer_untrusted, sign, verify_untrusted
from ..protocol.errors import Code, RemoteProtocolError
from ..protocol.identity import Mandate, content_hash
from ..protocol.messages import DecidedReply, DecidedRequest, DisputeRequest, Message, PleaReply
from ..protocol.orders import JobOrder
from ..protocol.payment import Channel, check_claim
from ..protocol.receipts import Receipt
from .accounts import Accounts
from .log import wall_ms
from .network.seam import Stream
from .questions import answer_each

QUESTIONS_MAX: Final = 16
"""On one stream: a judge asks once, a party tells of its few disputes."""


class Disputes:
    """What this node says in disputes, and what it takes from their judges."""

    def __init__(self, key: SigningKey, owner: bytes, accounts: Accounts) -> None:
        self._key = key
        self._node = bytes(key.verify_key)
        self._owner = owner
        self._accounts = accounts

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
        """The decision counts, and that is on disk: as a forfeit of what is held, or as a fee that the payer owes."""
        channel = verify_untrusted(Channel, request.channel, signer=claimed_signer_untrusted(request.channel))
        check_claim(channel, self._node, self._owner, wall_ms())
        order = verify_untrusted(JobOrder, request.order, signer=channel.record.payer)
        receipt = verify_untrusted(Receipt, request.receipt, signer=self._node)
        dispute = verify_untrusted(Dispute, request.dispute, signer=claimed_signer_untrusted(request.dispute))
        decisions = tuple(
            verify_untrusted(Decision, one, signer=claimed_signer_untrusted(one)) for one in request.decisions
        )
        mandates = tuple(
            verify_untrusted(Mandate, one, signer=claimed_signer_untrusted(one)) for one in request.mandates
        )
        id = check_decided(Decided(channel, order, receipt, dispute, decisions, mandates), wall_ms())
        decision = decisions[0].record
        if request.ucr > forfeited_ucr_max(decision, self._node):
            raise RemoteProtocolError(Code.UNPAID, "The decision lets the payer take off less than that.")
        account = await self._accounts.open(channel)
        with account.in_use():
            if request.ucr:
                await self._accounts.forfeit(account, Ground("decision", id), request.ucr)
            if decision.loser == channel.record.payer and decision.fee_ucr:
                await self._accounts.charge(account.payer, id, decision.fee_ucr)
        return DecidedReply(id)
