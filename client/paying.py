"""Paying a node: where its owner is paid is asked, the rail is told to pay, and what came of it is handed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from ..node.machine import beside
from ..node.network.seam import Network
from ..node.rails.ledger import Ledger
from ..node.rails.rail import Invoice, Rail
from ..protocol.errors import Code, NetworkError, Refused, RemoteProtocolError
from ..protocol.means import decode_means_untrusted
from ..protocol.messages.codec import Message, decode_message_untrusted, encode_message
from ..protocol.messages.payment import MeansReply, MeansRequest, RailsReply, RailsRequest
from ..protocol.messages.refusals import RefuseMessage, refused
from ..protocol.streams import MEANS_PROTOCOL

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
    ledger: Ledger | None = None,
) -> MeansReply:
    """The node's owner has been paid, and the node counts it. The same reference is paid once: again, the same means are
    handed over again. `address`: where the owner is paid, if the node tells nobody. `ledger`: the payer's own, which is told of
    what was paid on another rail.

    Raises `Refused`: `bad_terms` if the owner is not paid so, `credit_exhausted` if there is not so much to pay with, and what
    the node says of means that it does not take; `NetworkError`.
    """
    where = await paid_at(network, node, addresses, rail.name, address)
    means = await trio.to_thread.run_sync(rail.pay, Invoice(payer, node, where, ucr, reference))
    reply = await hand_over(network, node, addresses, means)
    if ledger is not None and rail is not ledger and payer.hex() == ledger.address:
        paid_ucr = decode_means_untrusted(means).ucr
        await beside(lambda: ledger.post(node, reply.payment.hex(), theirs_ucr=-paid_ucr))
    return reply


async def paid_at(network: Network, node: bytes, addresses: Sequence[str], rail: str, address: str = "") -> str:
    """Where the owner is paid on the rail: at `address`, or as the node says. Raises `Refused(bad_terms)` if it is not."""
    told = await _asked(network, node, addresses, RailsRequest())
    if not isinstance(told, RailsReply):
        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A node answers with its rails.")
    where = dict(zip(told.rails, told.addresses, strict=True))
    if rail not in where:
        raise Refused(Code.BAD_TERMS, f"The node is not paid by {rail}, but by {', '.join(told.rails) or 'nothing'}.")
    if not (address or where[rail]):
        raise Refused(Code.BAD_TERMS, f"Where the node is paid by {rail} has to be said (`--address`): ask its owner.")
    return address or where[rail]


async def hand_over(network: Network, node: bytes, addresses: Sequence[str], means: bytes) -> MeansReply:
    """The node has the means, and counts them. Raises `Refused` as the node does, `NetworkError`."""
    reply = await _asked(network, node, addresses, MeansRequest(means))
    if not isinstance(reply, MeansReply):
        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A node answers means with the payment.")
    return reply


async def _asked(network: Network, node: bytes, addresses: Sequence[str], request: Message) -> Message:
    try:
        with trio.fail_after(ASK_S):
            frame = await network.request(node, MEANS_PROTOCOL, encode_message(request), addresses)
    except trio.TooSlowError:
        message = f"The node has not answered within {ASK_S:.0f} s. The same reference again pays nothing twice."
        raise NetworkError(Code.PEER_UNREACHABLE, message) from None
    reply = decode_message_untrusted(frame)
    if isinstance(reply, RefuseMessage):
        raise refused(reply)
    return reply
