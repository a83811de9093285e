"""A client that would spend one promise twice.

    python -m fallow.testnet.adversaries.double_spender --bootstrap ADDRESS --home DIR --bundle NAME

Three tricks: `again` answers a second receipt with what was promised for the first; `takes-back` holds what it had promised
as due; `elsewhere` brings another node the channel and the voucher that this one has. Caught: a voucher is cumulative and
covers every receipt that any voucher of its channel names, or it is refused and the job with it; of two that contradict both
are kept, and prove it to anybody; a channel names its payee.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import trio

from ...client.events import Broken, Delivered, Receipted
from ...client.execution import Execution
from ...client.nodes import Node
from ...client.ordering import order_of
from ...node.machine import chance
from ...protocol.envelope import Signed, sign
from ...protocol.errors import FallowError
from ...protocol.holding import Held
from ...protocol.identity import peer_id
from ...protocol.job import Event
from ...protocol.messages.codec import decode_message_untrusted, encode_message
from ...protocol.messages.jobs import OrderMessage, VoucherMessage
from ...protocol.messages.refusals import RefuseMessage
from ...protocol.payment import Voucher
from ...protocol.receipts import FINAL, Receipt
from ...protocol.streams import JOB_PROTOCOL
from ...protocol.work import Input
from .customer import Customer, Outcome, main

Forge = Callable[[Voucher, Signed[Receipt], int], Voucher]
"""(what paid the first receipt, the second one, the time) to what is to pay that."""
TOKENS = 100
ANSWER_S = 5.0
"""For a node's answer to an order: it has 2 s by the protocol."""
RELEASE_MS = 60_000


async def spend(customer: Customer, wanted: bytes | None) -> list[Outcome]:
    """Each trick, tried once."""
    node = await customer.node(wanted=wanted)
    again = await _on_the_job(customer, node, "again", _repeated)
    back = await _on_the_job(customer, node, "takes-back", _withdrawn)
    return [again, back, await elsewhere(customer, node)]


def _repeated(first: Voucher, receipt: Signed[Receipt], now_ms: int) -> Voucher:
    return replace(first, receipt=receipt.id)


def _withdrawn(first: Voucher, receipt: Signed[Receipt], now_ms: int) -> Voucher:
    held = (Held(first.due_ucr + receipt.record.amount_ucr, now_ms + RELEASE_MS),)
    return replace(first, receipt=receipt.id, due_ucr=0, held=held)


async def _on_the_job(customer: Customer, node: Node, trick: str, forge: Forge) -> Outcome:
    """The first receipt is paid, the second answered with what was forged of that payment."""
    tokens = owed = paid = 0
    stopped_by = ""
    try:
        async with customer.job(node, TOKENS) as execution:
            async for event in execution.events:
                match event:
                    case Delivered(piece):
                        tokens += len(piece.tokens)
                    case Receipted(receipt, added_ucr) if receipt.record.sequence == 0:
                        owed, paid = owed + added_ucr, paid + added_ucr
                        await execution.pay(event)
                        if receipt.record.end == FINAL:
                            break  # so short a text gives no chance
                    case Receipted(receipt, added_ucr):
                        owed += added_ucr
                        await _pay_with(execution, forge(_latest(execution), receipt, customer.desk.now_ms()))
                    case Broken(error):
                        stopped_by = str(error.code)
                        break
                    case _:
                        pass
    except FallowError as error:
        stopped_by = str(error.code)
    return Outcome("double-spender", trick, peer_id(node.key), tokens, owed, paid, stopped_by)


def _latest(execution: Execution) -> Voucher:
    assert execution.channel.latest is not None, "the first receipt was paid"
    return execution.channel.latest.record


async def _pay_with(execution: Execution, forged: Voucher) -> None:
    signed = sign(forged, execution.desk.key)
    await execution._send(Event.VOUCHER, VoucherMessage(signed.envelope))


async def elsewhere(customer: Customer, node: Node) -> Outcome:
    """Another node is offered, as pay, the channel that names this one."""
    desk, other = customer.desk, await customer.node(node)
    channel = await desk.wallet.channel(node.key, node.owner, 0, desk.now_ms())
    request = customer.request(TOKENS)
    plain = Input(chance().randbytes(32), chance().randbytes(32), request.work.encode())
    order = sign(order_of(desk, other, request, channel, plain.digest), desk.key)
    assert other.worker_key is not None, "whoever takes work has a worker"
    sealed = desk.seal(other.worker_key.record.hpke_key, order.id, plain.encode())
    voucher = channel.latest.envelope if channel.latest else None
    stream = await desk.network.open(other.key, JOB_PROTOCOL, other.addresses, watched=True)
    with trio.fail_after(ANSWER_S):
        await stream.send(encode_message(OrderMessage(order.envelope, channel.channel.envelope, voucher, sealed)))
        answer = decode_message_untrusted(await stream.receive())
    await stream.reset()
    stopped_by = answer.code if isinstance(answer, RefuseMessage) else ""
    return Outcome("double-spender", "elsewhere", peer_id(other.key), 0, 0, 0, stopped_by)


if __name__ == "__main__":
    main(spend)
