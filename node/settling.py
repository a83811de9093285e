"""`/fallow/voucher/1`: vouchers whose job's stream was lost on the way; `/fallow/ground/1`: why held pay is forfeited."""

from __future__ import annotations

from typing import Final

from ..protocol.channel import Ground
from ..protocol.checks import Verdict
from ..protocol.envelope import claimed_signer_untrusted, verify_untrusted
from ..protocol.grounds import Judged, check_judged
from ..protocol.identity import Mandate
from ..protocol.limits import GROUNDS_MAX
from ..protocol.messages import GroundReply, GroundRequest, VoucherReply, VoucherRequest
from ..protocol.orders import JobOrder
from ..protocol.payment import Channel, Voucher, check_claim
from ..protocol.receipts import Receipt
from .accounts import Accounts
from .log import wall_ms
from .network.seam import Stream
from .questions import answer_each

VOUCHERS_MAX: Final = 64
"""On one stream: as many as jobs that one peer can have had open."""


class Settling:
    """Takes what is owed, whenever it comes."""

    def __init__(self, node: bytes, owner: bytes, accounts: Accounts) -> None:
        self._node = node
        self._owner = owner
        self._accounts = accounts

    async def answer(self, stream: Stream) -> None:
        """What each voucher promises is on disk. Raises `RemoteProtocolError` for one that does not hold, answers nothing
        of ours, or comes after its channel's grace."""
        await answer_each(stream, VoucherRequest, self._take_untrusted, VOUCHERS_MAX)

    async def _take_untrusted(self, request: VoucherRequest) -> VoucherReply:
        channel = verify_untrusted(Channel, request.channel, signer=claimed_signer_untrusted(request.channel))
        check_claim(channel, self._node, self._owner, wall_ms())
        voucher = verify_untrusted(Voucher, request.voucher, signer=channel.record.payer)
        await self._accounts.honour(await self._accounts.open(channel), voucher)
        return VoucherReply(voucher.id)

    async def answer_grounds(self, stream: Stream) -> None:
        """What each committee took from us is on disk. Raises `FallowError` for a ground that does not hold."""
        await answer_each(stream, GroundRequest, self._lose_untrusted, GROUNDS_MAX)

    async def _lose_untrusted(self, request: GroundRequest) -> GroundReply:
        channel = verify_untrusted(Channel, request.channel, signer=claimed_signer_untrusted(request.channel))
        check_claim(channel, self._node, self._owner, wall_ms())
        verdicts = [verify_untrusted(Verdict, one, signer=claimed_signer_untrusted(one)) for one in request.verdicts]
        mandates = [verify_untrusted(Mandate, one, signer=claimed_signer_untrusted(one)) for one in request.mandates]
        order = verify_untrusted(JobOrder, request.order, signer=channel.record.payer)
        receipt = verify_untrusted(Receipt, request.receipt, signer=self._node)
        ground = check_judged(Judged(channel, order, receipt, tuple(verdicts), tuple(mandates)), wall_ms())
        account = await self._accounts.open(channel)
        with account.in_use():
            await self._accounts.forfeit(account, Ground("verdict", ground), request.ucr)
        return GroundReply(ground)
