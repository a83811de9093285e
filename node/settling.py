"""`/fallow/voucher/1`: vouchers whose job's stream was lost on the way."""

from __future__ import annotations

from typing import Final

from ..protocol.envelope import claimed_signer_untrusted, verify_untrusted
from ..protocol.messages import VoucherReply, VoucherRequest
from ..protocol.payment import Channel, Voucher, check_claim
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
