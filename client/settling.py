"""Vouchers whose job's stream was lost: brought to their node again, so that what was signed is also held.

Vouchers are cumulative, so the latest of a channel is enough. It is on disk here in any case, and goes along with the
next order to that node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from ..node.network.seam import Network
from ..protocol.channel import ChannelState
from ..protocol.envelope import Signed
from ..protocol.errors import NetworkError, RemoteProtocolError
from ..protocol.messages.codec import decode_message_untrusted, encode_message
from ..protocol.messages.payment import VoucherReply, VoucherRequest
from ..protocol.payment import Channel, Voucher
from ..protocol.streams import VOUCHER_PROTOCOL

TRY_S = 2.0
"""For one try: a dial and a round trip on a bad link."""
AGAIN_S = 5.0
LEAVING_AGAIN_S = 0.2
"""Between two tries, for most of the time and for a client that is about to leave."""
TRIES_MAX = 24
"""For two minutes: a node that restarts is back by then."""
PENDING_MAX = 256
"""Channels waiting at once; the oldest gives way, and stays on disk."""


class Settler:
    """What is still to be brought, by channel."""

    def __init__(
        self, network: Network, confirmed: Callable[[bytes, bytes], None] = lambda channel, voucher: None
    ) -> None:
        """`confirmed` is told of each voucher that its node said to have, and of its channel."""
        self._network = network
        self._confirmed = confirmed
        self._pending: dict[bytes, tuple[Sequence[str], Signed[Channel], Signed[Voucher], int]] = {}
        self._added = trio.Event()

    def add(self, addresses: Sequence[str], channel: ChannelState) -> None:
        """The channel's latest voucher may not have arrived at its node, which was last at these addresses."""
        assert channel.latest is not None, "a channel without a voucher owes nothing"
        while len(self._pending) >= PENDING_MAX:
            del self._pending[next(iter(self._pending))]
        self._pending[channel.channel.id] = (addresses, channel.channel, channel.latest, TRIES_MAX)
        self._added.set()

    async def run(self) -> None:
        """Brings what is pending, until cancelled."""
        while True:
            await self._added.wait()
            self._added = trio.Event()
            while self._pending:
                await self.flush()
                if self._pending:
                    await trio.sleep(AGAIN_S)

    async def drain(self) -> None:
        """Nothing is pending any more; without a pause, for somebody who is about to leave."""
        while self._pending:
            await self.flush()
            await trio.sleep(LEAVING_AGAIN_S)

    async def flush(self) -> None:
        """Everything pending was tried once."""
        async with trio.open_nursery() as nursery:
            for channel in list(self._pending):
                nursery.start_soon(self._bring, channel)

    async def _bring(self, key: bytes) -> None:
        if key not in self._pending:
            return  # another round was quicker
        addresses, channel, voucher, tries = self._pending[key]
        request = encode_message(VoucherRequest(channel.envelope, voucher.envelope))
        arrived = False
        try:
            with trio.move_on_after(TRY_S):
                frame = await self._network.request(channel.record.payee, VOUCHER_PROTOCOL, request, addresses)
                arrived = decode_message_untrusted(frame) == VoucherReply(voucher.id)
        except (NetworkError, RemoteProtocolError):
            pass  # tried again below
        if arrived:
            self._confirmed(key, voucher.id)
        waiting = self._pending.get(key)
        if waiting is None or waiting[2] is not voucher:
            return  # a later one has taken its place
        if arrived or tries <= 1:
            del self._pending[key]
        else:
            self._pending[key] = (addresses, channel, voucher, tries - 1)
