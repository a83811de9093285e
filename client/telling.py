"""What judges have found, told to the node that it is about: what is held is forfeited, and what the node owes is set off.

It is on disk before it is tried, and tried again until the node has it on disk, too, by whichever process has the channel then.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import trio

from ..node.machine import beside
from ..protocol.channel import ChannelState
from ..protocol.disputes import (
    Decided,
    decision_id,
    dues_of,
    matter_id,
    read_decided_untrusted,
    reference_of,
    still_counted,
)
from ..protocol.errors import FallowError, LocalProtocolError, StoreError
from ..protocol.messages import (
    DISPUTE_PROTOCOL,
    GROUND_PROTOCOL,
    VOUCHER_PROTOCOL,
    DecidedReply,
    DecidedRequest,
    GroundReply,
    GroundRequest,
    VoucherRequest,
    decode_message_untrusted,
    encode_message,
)
from .discovery import published_addresses
from .execution import Desk
from .paying import pay
from .wallet import Telling

ASK_S: Final = 10.0
LOOK_S: Final = 30.0
"""Between two looks at what is due."""
FIRST_MS: Final = 30_000
MOST_MS: Final = 3_600_000
"""Between two tries: twice as long each time, up to an hour."""
TRIES_MAX: Final = 175
"""A week, for which pay may be held at most; a node that nobody has seen for so long has lost nothing by it."""
NEVER_MS: Final = 2**60


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it so far."""

    ucr: int
    """Forfeited, on disk."""
    arrived: bool
    """The node has it on disk, too, and what it owes beyond that is set off."""


async def tell(desk: Desk, telling: Telling) -> Told:
    """Up to so much of what is held on the channel is forfeited, on disk, and the node was told, or will be.

    Raises `StoreError` if the wallet cannot be written.
    """
    await desk.wallet.keep_telling(telling)
    return await _carry_out(desk, telling.matter)


async def keep_telling(desk: Desk) -> None:
    """Tells again what is due, until cancelled."""
    while True:
        try:
            await tell_again(desk)
        except StoreError as error:  # another process has the file, or the disk is full: it is all there the next time
            logging.getLogger(__name__).warning("nobody is told for now: %s", error)
        await trio.sleep(LOOK_S)


async def tell_again(desk: Desk) -> list[Told]:
    """Everything that is due was tried once. Raises `StoreError` if the wallet cannot be written."""
    return [await _carry_out(desk, telling.matter) for telling in await desk.wallet.tellings(desk.now_ms())]


async def _carry_out(desk: Desk, matter: bytes) -> Told:
    """One try at a time, each at what the one before has left on disk."""
    async with desk.wallet.telling:
        telling = await desk.wallet.telling_of(matter)
        if telling is None:
            return Told(0, False)  # its channel is over
        if telling.told:
            return Told(telling.ucr or 0, True)
        channel = await desk.wallet.state_of(telling.channel, desk.now_ms())
        if channel is None:
            return Told(0, False)  # its grace is over, or another process of this client has it, and does it
        return await _try(desk, channel, telling)


async def _try(desk: Desk, channel: ChannelState, telling: Telling) -> Told:
    telling = await _forfeited(desk, channel, telling)
    ucr, where = telling.ucr or 0, telling.addresses
    if telling.tries:  # there it was not to be had
        where += await published_addresses(desk.network, channel.channel.record.payee, desk.now_ms())
    try:
        if telling.tries and telling.voucher is not None:
            await _bring(desk, channel, telling.voucher, where)
        told = await _told(desk, channel, telling, where)
    except (FallowError, trio.TooSlowError, sqlite3.Error) as error:  # SQLite's: of the ledger, which others hold, too
        logging.getLogger(__name__).info("node %s was not told: %s", channel.channel.record.payee.hex()[:8], error)
        told = False
    wait_ms = NEVER_MS if telling.tries >= TRIES_MAX else min(MOST_MS, FIRST_MS << min(telling.tries, 16))
    await desk.wallet.note_telling(replace(telling, tries=telling.tries + 1, told=told), desk.now_ms() + wait_ms)
    if ucr:
        desk.settler.add(where, channel)
    return Told(ucr, told)


async def _forfeited(desk: Desk, channel: ChannelState, telling: Telling) -> Telling:
    """What is forfeited on the ground is on disk: decided once, whatever is held later, and whatever else rests on it."""
    if telling.ucr is None:
        ucr = 0 if telling.ground in channel.grounds else min(channel.held_ucr(desk.now_ms()), telling.most_ucr)
        before = channel.latest.envelope if ucr and channel.latest else None
        telling = replace(telling, ucr=ucr, voucher=before)
        await desk.wallet.note_telling(telling, desk.now_ms())
    if telling.ucr and telling.ground not in channel.grounds:
        try:
            await desk.wallet.forfeit(channel, telling.ground, telling.ucr, desk.now_ms())
        except LocalProtocolError:  # a process that died had decided it, and meanwhile it was released
            telling = replace(telling, ucr=0, voucher=None)
            await desk.wallet.note_telling(telling, desk.now_ms())
    return telling


async def _bring(desk: Desk, channel: ChannelState, voucher: bytes, where: Sequence[str]) -> None:
    """The node has the voucher that holds what is forfeited, or will be told again."""
    with suppress(FallowError, trio.TooSlowError):
        request = VoucherRequest(channel.channel.envelope, voucher)
        await _ask(desk, channel, VOUCHER_PROTOCOL, encode_message(request), where)


async def _told(desk: Desk, channel: ChannelState, telling: Telling, where: Sequence[str]) -> bool:
    """Whether the node says that it has it, and what it owes beyond it is set off."""
    match decode_message_untrusted(telling.request):
        case GroundRequest() as request:
            if not telling.ucr:
                return True  # nothing is held any more: there is nothing to tell
            frame = encode_message(replace(request, ucr=telling.ucr))
            reply = await _ask(desk, channel, GROUND_PROTOCOL, frame, where)
            return decode_message_untrusted(reply) == GroundReply(telling.ground.id)
        case DecidedRequest() as request:
            decided = still_counted(read_decided_untrusted(request), desk.now_ms())
            request = replace(
                request,
                ucr=telling.ucr or 0,
                decisions=tuple(one.envelope for one in decided.decisions),
                mandates=tuple(one.envelope for one in decided.mandates),
            )
            reply = await _ask(desk, channel, DISPUTE_PROTOCOL, encode_message(request), where)
            answer, id = decode_message_untrusted(reply), decision_id(decided.decisions[0].record)
            if answer not in (DecidedReply(id, request.ucr), DecidedReply(id, 0)):
                return False
            assert isinstance(answer, DecidedReply)
            await _settle(desk, channel, decided, answer.ucr, where)
            return True
        case _:
            raise AssertionError("nothing else is kept")


async def _settle(desk: Desk, channel: ChannelState, decided: Decided, taken_ucr: int, where: Sequence[str]) -> None:
    """What the sides and the judges owe each other is in the ledger; what the node owes is set off against what it is owed."""
    if desk.ledger is None:
        return
    dues, name = (
        dues_of(decided, desk.wallet.payer, taken_ucr, desk.now_ms()),
        reference_of(matter_id(decided.dispute.record)),
    )
    for party, ucr in dues.items():
        if ucr:
            post = partial(desk.ledger.post, party, name, ours_ucr=max(0, ucr), theirs_ucr=max(0, -ucr))
            await beside(post)
    payee = channel.channel.record.payee
    if (owed_ucr := dues.get(payee, 0)) > 0:
        await pay(desk.network, payee, where, desk.ledger, desk.wallet.payer, owed_ucr, name)


async def _ask(desk: Desk, channel: ChannelState, protocol: str, frame: bytes, where: Sequence[str]) -> bytes:
    with trio.fail_after(ASK_S):
        return await desk.network.request(channel.channel.record.payee, protocol, frame, where)
