"""Paying a node: where its owner is paid is asked, the rail is told to pay, and what came of it is handed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from ..node.network.seam import Network
from ..node.rails.rail import Invoice, Rail
from ..protocol.errors import Code, Refused, RemoteProtocolError
from ..protocol.messages import (
    MEANS_PROTOCOL,
    MeansReply,
    MeansRequest,
    Message,
    RailsReply,
    RailsRequest,
    RefuseMessage,
    decode_message_untrusted,
    encode_message,
)

ASK_S: Final = 90.0
"""For a node that asks its mint."""


async def pay(
    network: Network,
    node: bytes,
    addresses: Sequence[str],
    rail: Rail,
    payer: bytes,
    ucr: int,
    reference: str,
    *,
    address: str = "",
) -> MeansReply:
    """The node's owner has been paid, and the node counts it. The same reference is paid once: again, the same means are
    handed over again. `address`: where the owner is paid, if the node tells nobody.

    Raises `Refused`: `bad_terms` if the owner is not paid so, `credit_exhausted` if there is not so much to pay with, and what
    the node says of means that it does not take; `NetworkError`.
    """
    told = await _asked(network, node, addresses, RailsRequest())
    if not isinstance(told, RailsReply):
        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A node answers with its rails.")
    where = address or dict(zip(told.rails, told.addresses, strict=True)).get(rail.name, "")
    if rail.name not in told.rails or not where:
        known = ", ".join(told.rails) or "nothing"
        message = f"The node takes {known}; where it is paid by {rail.name} has to be said (`--address`)."
        raise Refused(Code.BAD_TERMS, message)
    means = await trio.to_thread.run_sync(rail.pay, Invoice(payer, node, where, ucr, reference))
    reply = await _asked(network, node, addresses, MeansRequest(means))
    if not isinstance(reply, MeansReply):
        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A node answers means with the payment.")
    return reply


async def _asked(network: Network, node: bytes, addresses: Sequence[str], request: Message) -> Message:
    with trio.fail_after(ASK_S):
        reply = decode_message_untrusted(
            await network.request(node, MEANS_PROTOCOL, encode_message(request), addresses)
        )
    if isinstance(reply, RefuseMessage):
        code = Code(reply.code) if reply.code in Code.__members__.values() else Code.BAD_RECORD
        raise Refused(code, reply.detail, reply.retry_after_ms)
    return reply
