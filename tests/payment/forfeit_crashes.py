"""Run as a program: between two jobs, judges find what a client has paid for wrong, and what it holds of its node's pay is
forfeited; one of the two is killed at one write of its disk, for each of its writes.

    python -m ... FOLDER [late|decided]      late: a client's successor works on first, so that vouchers come before the ground
                                             decided: it is a dispute's decision, with a fee that is set off

Like `crashes`. Otherwise it is a verdict, and the successor tells the node at once, so that the ground comes before vouchers
that were lost.
"""

from __future__ import annotations

import socket
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from nacl.signing import SigningKey

sys.path.insert(0, str(Path(__file__).parent))

from crashes import EITHER, TOKENS, kill_each, node, serve, sitting, work
from ledger_crashes import client_ledger, node_ledger
from pair import (
    BUNDLE,
    CLIENT,
    CLIENT_KEY,
    HOLDING,
    JUDGES,
    NODE,
    NODE_KEY,
    NOW_MS,
    OWNER_KEY,
    House,
    request_of,
)

from fallow.client.contesting import take_off
from fallow.client.desk import Desk
from fallow.client.disputing import forfeit as forfeit_held
from fallow.node.disputes import Disputes
from fallow.node.journal import of_receipt
from fallow.node.log import wall_ms
from fallow.node.paying import Paying
from fallow.node.transaction import read_only
from fallow.protocol.checks import Finding, Outcome, Standing, Verdict
from fallow.protocol.disputes import UPHELD, Decided, Decision, Dispute, Kind
from fallow.protocol.envelope import sign, verify_untrusted
from fallow.protocol.grounds import Judged
from fallow.protocol.identity import EXECUTOR, VERIFIER, Mandate, content_hash
from fallow.protocol.orders import JobOrder
from fallow.protocol.payment import Channel
from fallow.protocol.policy import check_commitment
from fallow.protocol.receipts import Receipt
from fallow.protocol.streams import DISPUTE_PROTOCOL, MEANS_PROTOCOL
from fallow.protocol.work import Parameters

OWNERS = [
    key for key in (SigningKey(bytes([number]) * 32) for number in (11, 12, 13)) if bytes(key.verify_key) in JUDGES
]
SEATS = [SigningKey(bytes([number]) * 32) for number in (111, 112, 113)]
"""The judges' own keys, by their owners."""
MANDATES = tuple(
    sign(
        Mandate(bytes(seat.verify_key), bytes(owner.verify_key), (VERIFIER,), 1, NOW_MS, NOW_MS + 3_600_000, None),
        owner,
    )
    for seat, owner in zip(SEATS, OWNERS, strict=True)
)
NONCE, POLICY = b"\x05" * 32, "adaptive:20000"
ASKED = replace(request_of(TOKENS), check_commitment=check_commitment(NONCE, POLICY), opens=(NONCE, POLICY))
FEE_UCR = 9
TRIES = 8


def judged(state: Path, receipt: bytes) -> Judged:
    """What all three judges sign of the receipt, which is in this journal: the same whenever they are asked."""
    channel, order, *others = of_receipt(state, receipt)
    ordered = verify_untrusted(JobOrder, order, signer=CLIENT_KEY)
    refuted = verify_untrusted(Receipt, next(one for one in others if content_hash(one) == receipt), signer=NODE_KEY)
    why = Finding(
        NODE_KEY, OWNER_KEY, EXECUTOR, Standing.REFUTED.value, "", (receipt,), (), 0, refuted.record.amount_ucr
    )
    verdict = Verdict(ordered.id, BUNDLE, POLICY, NONCE, (), Outcome.REJECTED.value, (why,))
    signed = tuple(sign(verdict, seat) for seat in SEATS)
    return Judged(verify_untrusted(Channel, channel, signer=CLIENT_KEY), ordered, refuted, signed, MANDATES)


def decided(made: Judged) -> Decided:
    """What they decide where the client has taken the node before them for it."""
    order, amount_ucr = made.order, made.receipt.record.amount_ucr
    record = Dispute(
        str(Kind.WRONG), NODE_KEY, order.id, made.receipt.id, FEE_UCR, 60_000, order.record.created_ms, bytes(32)
    )
    dispute = sign(record, CLIENT)
    decision = Decision(dispute.id, UPHELD, NODE_KEY, 0, amount_ucr, FEE_UCR, "")
    signed = [sign(decision, seat) for seat in SEATS]
    return Decided(made.channel, order, made.receipt, dispute, signed, made.mandates)


async def forfeit(desk: Desk, folder: Path) -> None:
    """All that was held was forfeited, for the first receipt that ever had a voucher; nothing, if there is none yet."""
    with (
        read_only(folder / "wallet.db") as database,
        closing(database.execute("SELECT channel, receipt FROM vouchers ORDER BY number LIMIT 1")) as found,
    ):
        row = found.fetchone()
    if row is None:
        return
    channel = await desk.wallet.state_of(row[0], wall_ms())
    assert channel is not None, "it is this process's"
    made = judged(folder / "node", row[1])
    for _ in range(TRIES):
        if desk.ledger is not None and (await take_off(desk, (), decided(made))).arrived:
            return
        if desk.ledger is None and (await forfeit_held(desk, HOLDING.addresses, channel, made)).told:
            return
    raise AssertionError("the node does not take it")


async def client(folder: Path, door: socket.socket, *, late: bool = False) -> None:
    async with sitting(folder, door) as desk:
        await ask(desk, folder, late=late)


async def client_in_dispute(folder: Path, door: socket.socket) -> None:
    with closing(client_ledger(folder)) as ledger:
        async with sitting(folder, door) as desk:
            await ask(replace(desk, ledger=ledger), folder, late=False)


async def ask(desk: Desk, folder: Path, *, late: bool) -> None:
    if late:
        await desk.settler.flush()
    else:
        await forfeit(desk, folder)
    for tokens in (TOKENS, 1):
        await work(desk, HOLDING, replace(ASKED, parameters=Parameters(max_tokens=tokens), planned_tokens=tokens))
        await forfeit(desk, folder)


async def node_in_dispute(folder: Path, door: socket.socket) -> None:
    house = House(folder / "node", holds=True)
    with closing(node_ledger(folder)) as ledger:
        paying = Paying({ledger.name: ledger}, house.accounts)
        disputes = Disputes(NODE, OWNER_KEY, house.accounts, paying.owe)
        house.handlers |= {MEANS_PROTOCOL: paying.answer, DISPUTE_PROTOCOL: disputes.answer}
        await serve(house, door)


if __name__ == "__main__":
    place, how, holding = Path(sys.argv[1]), sys.argv[2:], partial(node, held=True)
    told = {"client": "INTO telling", "node": "INTO grounds"}
    if how == ["late"]:
        kill_each(place, holding, partial(client, late=True), {"client": told["client"]}, whole=True)
    elif how == ["decided"]:
        kill_each(place, node_in_dispute, client_in_dispute, told, whole=True)
    else:
        kill_each(place, holding, client, EITHER, whole=True)
