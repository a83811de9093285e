"""What judges have found, told to the node that it is about: what is held is forfeited, and what the node owes is set off.

It is on disk before it is tried, and tried again until the node has it on disk, too, by whichever process has the channel then.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import trio

from ..node.machine import beside
from ..node.rails.ledger import Ledger
from ..protocol.channel import ChannelState, held_of
from ..protocol.disputes import (
    Decided,
    check_decided,
    decision_id,
    dues_of,
    matter_id,
    read_decided_untrusted,
    reference_of,
    still_counted,
)
from ..protocol.envelope import verify_untrusted
from ..protocol.errors import Code, FallowError, LocalProtocolError, ProtocolError, RemoteProtocolError, StoreError
from ..protocol.grounds import check_judged, read_judged_untrusted
from ..protocol.holding import total_ucr
from ..protocol.messages.assurance import DecidedReply, DecidedRequest
from ..protocol.messages.codec import decode_message_untrusted, encode_message
from ..protocol.messages.payment import GroundReply, GroundRequest, VoucherRequest
from ..protocol.messages.refusals import RefuseMessage, refused
from ..protocol.payment import Voucher
from ..protocol.streams import DISPUTE_PROTOCOL, GROUND_PROTOCOL, VOUCHER_PROTOCOL
from .addresses import published_addresses
from .desk import Desk
from .paying import pay
from .wallet_tellings import Telling

ASK_S: Final = 10.0
LOOK_S: Final = 30.0
"""Between two looks at what is due."""
FIRST_MS: Final = 30_000
MOST_MS: Final = 3_600_000
"""Between two tries: twice as long each time, up to an hour."""
TRIES_MAX: Final = 175
"""A week, for which pay may be held at most: what was to be forfeited has fallen due, and is given up."""
_NOT_TAKEN: Final = frozenset({
    Code.BAD_RECORD, Code.UNSATISFIABLE_ASSURANCE, Code.EXPIRED, Code.UNPAID, Code.ILLEGAL_MOVE, Code.TOO_LARGE,
})  # fmt: skip
"""What a node says that takes no ground or decision (P-37). Whatever else it says, it may have it, or take it yet."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it so far."""

    ucr: int
    """Forfeited, on disk."""
    arrived: bool
    """The node has it on disk, too, and what it owes beyond that is set off; or it was given up."""


async def tell(desk: Desk, telling: Telling) -> Told:
    """Up to so much of what is held on the channel is forfeited, on disk, and the node was told, or will be.

    Raises `StoreError` if the wallet cannot be written.
    """
    await desk.wallet.keep_telling(telling)
    return await _carry_out(desk, telling.matter)


async def owe_judges(desk: Desk, decided: Decided) -> None:
    """What each judge is owed by this side is in the ledger: they have done their part, whatever becomes of it. Raises
    `StoreError`."""
    if desk.ledger is None:
        return
    dues = dues_of(decided, desk.wallet.payer, 0, None)
    dues.pop(decided.channel.record.payee)
    try:
        await _post(desk.ledger, decided, dues)
    except sqlite3.Error as error:
        message = f"The ledger cannot be written ({error}). What was decided is kept: bring it again."
        raise StoreError(Code.STORE_FULL, message) from error


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
    try:
        telling = await _forfeited(desk, channel, telling)
    except LocalProtocolError as error:  # as many forfeits as a channel may have, or some of it fell due meanwhile
        logging.getLogger(__name__).warning("nothing is forfeited for now: %s", error)
        await desk.wallet.note_telling(telling, desk.now_ms() + FIRST_MS)
        return Told(0, False)
    where = telling.addresses
    if telling.tries:  # there it was not to be had
        where += await published_addresses(desk.network, channel.channel.record.payee, desk.now_ms())
    try:
        if telling.tries and telling.voucher is not None:
            await _bring(desk, channel, telling.voucher, where)
        taken_ucr = await _told(desk, channel, telling, where)
        if taken_ucr == telling.ucr:
            telling = replace(telling, told=True)
        else:
            telling = await desk.wallet.give_up(channel, telling, taken_ucr, desk.now_ms())
    except (FallowError, trio.TooSlowError, sqlite3.Error) as error:  # SQLite's: of the ledger, which others hold, too
        logging.getLogger(__name__).info("node %s was not told: %s", channel.channel.record.payee.hex()[:8], error)
        if telling.tries >= TRIES_MAX:
            with suppress(ProtocolError):  # some of it is held still, or the channel's grace is over
                telling = await _given_up(desk, channel, telling)
    wait_ms = min(MOST_MS, FIRST_MS << min(telling.tries, 16))
    await desk.wallet.note_telling(replace(telling, tries=telling.tries + 1), desk.now_ms() + wait_ms)
    if telling.voucher is not None:
        desk.settler.add(where, channel)
    return Told(telling.ucr or 0, telling.told)


async def _forfeited(desk: Desk, channel: ChannelState, telling: Telling) -> Telling:
    """What is forfeited on the ground is on disk: decided once, whatever is held later, and whatever else rests on it. What a
    process that died had decided, and not forfeited, is decided anew, by what is held now.

    Raises `LocalProtocolError` if it cannot be forfeited now: it stays to be decided.
    """
    known = telling.ground in channel.grounds
    if telling.ucr is None or (telling.ucr and not known):
        ucr = 0 if known else min(channel.held_ucr(desk.now_ms()), telling.most_ucr)
        before = channel.latest.envelope if ucr and channel.latest else None
        telling = replace(telling, ucr=ucr, voucher=before)
        await desk.wallet.note_telling(telling, desk.now_ms())
    if telling.ucr and not known:
        await desk.wallet.forfeit(channel, telling.ground, telling.ucr, desk.now_ms())
    return telling


async def _given_up(desk: Desk, channel: ChannelState, telling: Telling) -> Telling:
    """The ground forfeits nothing: its node refuses it, or was not to be had, and takes no voucher that forfeits by it. Raises
    `ProtocolError` while any of it is held still."""
    if not telling.ucr:
        return replace(telling, told=True)
    return await desk.wallet.give_up(channel, telling, _credible(desk, telling, 0), desk.now_ms())


async def _bring(desk: Desk, channel: ChannelState, voucher: bytes, where: Sequence[str]) -> None:
    """The node has the voucher that holds what is forfeited, or will be told again."""
    with suppress(FallowError, trio.TooSlowError):
        request = VoucherRequest(channel.channel.envelope, voucher)
        await _ask(desk, channel, VOUCHER_PROTOCOL, encode_message(request), where)


async def _told(desk: Desk, channel: ChannelState, telling: Telling, where: Sequence[str]) -> int:
    """The node says that it has it, and what it owes beyond it is set off; or that it takes none of it, and rightly so. Gives
    what is forfeited by what it says.

    Raises `RemoteProtocolError` for another answer, `Refused` where what it refuses still holds."""
    match decode_message_untrusted(telling.request):
        case GroundRequest() as request:
            if not telling.ucr:
                return 0  # nothing is held any more: there is nothing to tell
            frame = encode_message(replace(request, ucr=telling.ucr))
            match decode_message_untrusted(await _ask(desk, channel, GROUND_PROTOCOL, frame, where)):
                case GroundReply(telling.ground.id, ucr):
                    return _credible(desk, telling, ucr)
                case RefuseMessage() as refusal:
                    judged = read_judged_untrusted(request)
                    return _refused_for_good(refusal, lambda: check_judged(judged, desk.now_ms()))
        case DecidedRequest() as request:
            decided = read_decided_untrusted(request)
            left = still_counted(decided, desk.now_ms())
            request = replace(
                request,
                ucr=telling.ucr or 0,
                decisions=tuple(one.envelope for one in left.decisions),
                mandates=tuple(one.envelope for one in left.mandates),
            )
            reply = await _ask(desk, channel, DISPUTE_PROTOCOL, encode_message(request), where)
            match decode_message_untrusted(reply), decision_id(decided.decisions[0].record):
                case DecidedReply(said, ucr), id if said == id:
                    ucr = _credible(desk, telling, ucr)
                    await _settle(desk, channel, decided, ucr, where)
                    return ucr
                case RefuseMessage() as refusal, _:
                    return _refused_for_good(refusal, lambda: check_decided(left, desk.now_ms()))
        case _:
            raise AssertionError("nothing else is kept")
    raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The node gave another answer than what it was told.")


def _refused_for_good(refusal: RefuseMessage, check: Callable[[], object]) -> int:
    """What the node refuses does not hold here either: the judges' mandates lapsed too long ago, nothing is forfeited. Raises
    `Refused` if it holds, or was not what the node has refused."""
    if refusal.code not in _NOT_TAKEN:
        raise refused(refusal)
    try:
        check()
    except FallowError as error:
        logging.getLogger(__name__).warning("what judges have found came too late for its node: %s", error.message)
        return 0
    raise refused(refusal)


def _credible(desk: Desk, telling: Telling, ucr: int) -> int:
    """What the node says is forfeited. Raises `RemoteProtocolError` if more of it is held still: by our clock, which is the
    stricter, and what the node has of us, which is no more than the voucher before the forfeit."""
    held_ucr, most_ucr = 0, telling.ucr or 0
    if telling.voucher is not None:
        before = verify_untrusted(Voucher, telling.voucher, signer=desk.wallet.payer).record
        held_ucr = total_ucr(held_of(before, 0, desk.now_ms()))
    if not min(most_ucr, held_ucr) <= ucr <= most_ucr:
        raise RemoteProtocolError(Code.UNPAID, f"The node says that {ucr} ucr are forfeited, of {most_ucr}.")
    return ucr


async def _settle(desk: Desk, channel: ChannelState, decided: Decided, taken_ucr: int, where: Sequence[str]) -> None:
    """What the sides and the judges owe each other is in the ledger; what the node owes is set off against what it is owed."""
    if desk.ledger is None:
        return
    dues, payee = dues_of(decided, desk.wallet.payer, taken_ucr, None), channel.channel.record.payee
    await _post(desk.ledger, decided, dues)
    if (owed_ucr := dues.get(payee, 0)) > 0:
        name = reference_of(matter_id(decided.dispute.record))
        await pay(desk.network, payee, where, desk.ledger, desk.wallet.payer, owed_ucr, name)


async def _post(ledger: Ledger, decided: Decided, dues: Mapping[bytes, int]) -> None:
    name = reference_of(matter_id(decided.dispute.record))
    for party, ucr in dues.items():
        if ucr:
            await beside(partial(ledger.post, party, name, ours_ucr=max(0, ucr), theirs_ucr=max(0, -ucr)))


async def _ask(desk: Desk, channel: ChannelState, protocol: str, frame: bytes, where: Sequence[str]) -> bytes:
    with trio.fail_after(ASK_S):
        return await desk.network.request(channel.channel.record.payee, protocol, frame, where)
