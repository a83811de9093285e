"""`/fallow/voucher/1`: vouchers whose job's stream was lost on the way; `/fallow/ground/1`: why held pay is forfeited."""

from __future__ import annotations

from typing import Final

import trio

from ..protocol.channel import Ground
from ..protocol.envelope import verify_any_signer_untrusted, verify_untrusted
from ..protocol.errors import Refused, RemoteProtocolError
from ..protocol.grounds import Judged, check_judged, ground_id, read_judged_untrusted
from ..protocol.limits import GROUNDS_MAX
from ..protocol.messages.codec import Message
from ..protocol.messages.payment import GroundReply, GroundRequest, VoucherReply, VoucherRequest
from ..protocol.messages.refusals import refusal
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
        self._turn = trio.Lock()
        """Each ground is taken by what was taken before it."""

    async def answer(self, stream: Stream) -> None:
        """What each voucher promises is on disk. Raises `RemoteProtocolError` for one that does not hold, answers nothing
        of ours, or comes after its channel's grace."""
        await answer_each(stream, VoucherRequest, self._take_untrusted, VOUCHERS_MAX)

    async def _take_untrusted(self, request: VoucherRequest) -> VoucherReply:
        channel = verify_any_signer_untrusted(Channel, request.channel)
        check_claim(channel, self._node, self._owner, wall_ms())
        voucher = verify_untrusted(Voucher, request.voucher, signer=channel.record.payer)
        await self._accounts.honour(await self._accounts.open(channel), voucher)
        return VoucherReply(voucher.id)

    async def answer_grounds(self, stream: Stream) -> None:
        """What each committee took from us is on disk, but for what had fallen due before; or the payer knows why not. Raises
        `RemoteProtocolError` for what nobody has signed."""
        await answer_each(stream, GroundRequest, self._lose_untrusted, GROUNDS_MAX)

    async def _lose_untrusted(self, request: GroundRequest) -> Message:
        judged = read_judged_untrusted(request)
        check_claim(judged.channel, self._node, self._owner, wall_ms())
        try:
            return await self._lost(judged, request.ucr)
        except (RemoteProtocolError, Refused) as error:  # the payer is to know whether it can be told again
            return refusal(error)

    async def _lost(self, judged: Judged, ucr: int) -> GroundReply:
        ground = Ground("verdict", ground_id(judged.verdicts[0].record))
        account = await self._accounts.open(judged.channel)
        with account.in_use():
            async with self._turn:
                if ground not in account.state.grounds:  # told again it stands, whatever has lapsed since
                    check_judged(judged, wall_ms())
                taken_ucr = self._accounts.takes(account, ground, ucr)
                if taken_ucr or not ucr:
                    await self._accounts.forfeit(account, ground, taken_ucr)
        return GroundReply(ground.id, taken_ucr)
