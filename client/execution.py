"""One order on one node: sent, followed to its end, paid. What comes is verified by `reception`, before anyone sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

from ..node.engine.sealing import PieceSealer
from ..node.machine import chance
from ..node.network.seam import Stream
from ..protocol.channel import ChannelState
from ..protocol.claims import Claim, claim_of
from ..protocol.envelope import Signed, sign
from ..protocol.errors import Code, FallowError, NetworkError, Refused, RemoteProtocolError
from ..protocol.job import Event, Job, JobState, Role
from ..protocol.limits import SILENCE_MS_MAX, YIELD_MS_MAX
from ..protocol.messages.codec import Message, decode_message_untrusted, encode_message
from ..protocol.messages.jobs import (
    AcceptMessage,
    AttestationMessage,
    CancelMessage,
    ChunkMessage,
    DeclineMessage,
    FailedMessage,
    HeartbeatMessage,
    OrderMessage,
    ReceiptMessage,
    VoucherMessage,
    YieldMessage,
)
from ..protocol.messages.refusals import RefuseMessage, code_of
from ..protocol.opening import Opening
from ..protocol.orders import Accept, JobOrder
from ..protocol.payment import Voucher
from ..protocol.prices import amount_ucr_max, find_price
from ..protocol.receipts import OPEN, Delivery, Receipt
from ..protocol.streams import JOB_PROTOCOL
from ..protocol.work import (
    Input,
    transcript_start,
)
from .desk import Desk
from .events import Attested, Broken, Delivered, ExecutionEvent, Receipted
from .nodes import Node
from .ordering import Request, order_of
from .reception import Reception, now_ms
from .wallet_answers import Accepted

CONNECT_S = 4.0
"""To a job stream on a node: a dial and a round trip on a bad link."""
GRACE_S = 0.05
"""After a deadline, time for what has already arrived: a loop that was held up hears late, and that is not silence."""
ORDER_S = 10.0
"""For an order to go out, as long as a node waits for it: 4 MiB at 3.5 Mbit/s."""
LEAVE_S = 1.0
"""For a node to say, by ending the stream, that it has the last voucher: a round trip and a commit."""
EVENTS_SPARE = 64
"""Room for everything but pieces in one execution's events: receipts, a yield, the end."""


@dataclass
class Execution:
    """An order under way. Read `events` to the end; answer each `Receipted` by `pay`, or `stop`."""

    desk: Desk
    node: Node
    request: Request
    channel: ChannelState
    stream: Stream
    reception: Reception
    job: Job
    events: trio.MemoryReceiveChannel[ExecutionEvent]
    _out: trio.MemorySendChannel[ExecutionEvent]
    paid_on_stream: Signed[Voucher] | None = None
    """The last voucher that went out on it."""
    _lock: trio.Lock = field(default_factory=trio.Lock)
    _leaving: str = ""
    _unpaid: list[Signed[Receipt]] = field(default_factory=list)
    """Kept, and not answered."""
    _keeping: bool = False
    """A receipt has come, and is told once it is on disk."""

    @property
    def order(self) -> Signed[JobOrder]:
        return self.reception.order

    @property
    def accept(self) -> Signed[Accept] | None:
        return self.reception.accept

    @property
    def delivery(self) -> Delivery:
        return self.reception.delivery

    def opening(self) -> Opening:
        """What was asked and answered, in plain: it fits the order's digest and the receipts' transcripts."""
        return self.reception.opening()

    async def pay(self, receipted: Receipted) -> None:
        """The voucher is on disk and sent; if the stream was lost, it is brought to the node on another one."""
        receipt, claim = receipted.receipt, self._claim(receipted)
        voucher = await self.desk.wallet.pay(self.channel, receipt, claim, self.desk.now_ms())
        self._unpaid.remove(receipt)
        event = Event.VOUCHER if receipt.record.end == OPEN else Event.SETTLE
        if await self._send(event, VoucherMessage(voucher.envelope)):
            self.paid_on_stream = voucher
        else:
            self.desk.settler.add(self.node.addresses, self.channel)

    async def stop(self, reason: str) -> None:
        """The executor is asked to stop, or, after its final receipt, told that it is not paid; `reason` says why."""
        if self.job.state is JobState.CLOSING:
            await self._send(Event.DECLINE, DeclineMessage(reason[:200]))
        else:
            await self.cancel(reason)

    async def cancel(self, reason: str) -> None:
        """The executor is asked to stop, for no fault of its own: of a final receipt that is here nothing is said yet."""
        if self.job.state is not JobState.CLOSING:
            await self._send(Event.CANCEL, CancelMessage(reason[:200]))

    async def _pay_the_rest(self) -> None:
        """What was delivered until the executor heard that the client has enough is paid: it was nobody's fault.

        Unless our caller had a receipt and left it unpaid: then that was why it left.
        """
        deadline = trio.current_time() + YIELD_MS_MAX / 1000
        while not self.job.ended:
            event = None
            with trio.move_on_at(deadline):
                event = await self.events.receive()
            if event is None and self._keeping:  # it came in time
                event = await self.events.receive()
            if event is None:
                return
            if isinstance(event, Receipted):
                if self._unpaid[0] is not event.receipt:
                    return
                await self.pay(event)

    async def _begin(self, order: OrderMessage) -> None:
        """The order has gone out, and the job's time counts from here. If the stream is lost, `events` tell why."""
        try:
            with trio.fail_after(ORDER_S):
                await self.stream.send(encode_message(order))
        except trio.TooSlowError:
            self._break(
                NetworkError(Code.TIMED_OUT, f"The order did not reach node {self.node.key.hex()[:8]} in time.")
            )
        except NetworkError as error:
            self._break(error)
        else:
            self.job = Job(Role.CLIENT, *self.request.bounds_ms, now_ms())
            self.job.send(Event.ORDER, now_ms())

    async def _send(self, event: Event, message: Message) -> bool:
        """Whether the message is on its way. If it is no longer in place, or the stream is lost, `events` tell why."""
        try:
            async with self._lock:
                if not self.job.may_send(event):
                    return False
                self.job.send(event, now_ms())
                with trio.fail_after(SILENCE_MS_MAX / 1000):
                    await self.stream.send(encode_message(message))
        except (NetworkError, trio.TooSlowError):
            return False
        return True

    async def _read(self) -> None:
        try:
            while not self.job.ended:
                await self._on_message(decode_message_untrusted(await self.stream.receive()))
        except FallowError as error:
            self._break(error)

    async def _beat(self) -> None:
        while not self.job.ended:
            await trio.sleep_until(self.job.heartbeat_due_ms() / 1000)
            if not self.job.ended and self.job.heartbeat_due_ms() <= now_ms():
                await self._send(Event.HEARTBEAT, HeartbeatMessage())

    async def _watch(self) -> None:
        while not self.job.ended:
            await trio.sleep_until(self.job.deadline_ms() / 1000)
            if self.job.deadline_ms() > now_ms():
                continue
            busy = self._keeping
            await trio.sleep(GRACE_S)
            if busy or self._keeping:
                continue  # we have not listened: a disk that is slow is not the node's silence
            try:
                self.job.expire(now_ms())
            except RemoteProtocolError as error:
                silent = self.job.quiet_ms(now_ms()) >= SILENCE_MS_MAX
                # It may be the way there that fell silent: nobody has broken a rule.
                self._break(NetworkError(error.code, error.message) if silent else error)

    def _break(self, error: FallowError) -> None:
        if self.job.state not in (JobState.SETTLED, JobState.UNSETTLED):
            self.job.state = JobState.BROKEN
            self._tell(Broken(error))

    def _tell(self, event: ExecutionEvent) -> None:
        try:
            self._out.send_nowait(event)
        except trio.BrokenResourceError:
            pass  # nobody listens any more
        except trio.WouldBlock:
            raise RemoteProtocolError(Code.TOO_LARGE, "The node sent more than its order can bring.") from None

    async def _on_message(self, message: Message) -> None:
        match message:
            case HeartbeatMessage():
                self.job.receive(Event.HEARTBEAT, now_ms())
            case ChunkMessage(index, sealed):
                self.job.receive(Event.CHUNK, now_ms())
                self._tell(Delivered(self.reception.take_piece(index, sealed)))
            case ReceiptMessage(envelope):
                await self._on_receipt(envelope)
            case AttestationMessage(envelope):
                self._tell(Attested(self.reception.take_attestation(envelope, self.job)))
            case AcceptMessage(envelope):
                self.reception.take_accept(envelope, self.job)
            case YieldMessage(reason):
                self.job.receive(Event.YIELD, now_ms())
                self._leaving = reason or "the owner needs the machine"
            case RefuseMessage(code, detail, retry_after_ms):
                self.job.receive(Event.REFUSE, now_ms())
                if code_of(code) is Code.CREDIT_EXHAUSTED:
                    await self.desk.wallet.leave(self.channel)
                raise Refused(code_of(code), f"Node {self.node.key.hex()[:8]} refused: {detail}", retry_after_ms)
            case FailedMessage(code, detail):
                self.job.receive(Event.FAILED, now_ms())
                raise Refused(code_of(code), f"Node {self.node.key.hex()[:8]} gave up: {detail}")
            case _:
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, f"An executor does not send a {message.KIND}.")

    async def _on_receipt(self, envelope: bytes) -> None:
        before = self.delivery.amount_ucr
        receipt = self.reception.take_receipt(envelope, self.job)
        told = Receipted(receipt, receipt.record.amount_ucr - before, self._leaving, self.desk.now_ms())
        self._keeping = True
        try:
            await self.desk.wallet.keep_receipt(receipt, self.node.owner, self.channel, self._claim(told))
        finally:
            self._keeping = False
        self._unpaid.append(receipt)
        self._tell(told)

    def _claim(self, receipted: Receipted) -> Claim:
        order = self.order.record
        return claim_of(receipted.added_ucr, order.held_ppm, order.hold_ms, receipted.arrived_ms)


@asynccontextmanager
async def execute(desk: Desk, node: Node, request: Request) -> AsyncIterator[Execution]:
    """The order is on its way; its events follow. Leaving the block ends it: cancelled at the node if it still runs.

    Raises `Refused` if the channel's credit does not cover it, `NetworkError` if the node cannot be reached.
    """
    price = find_price(node.capability.prices, request.bundle, request.entry)
    needed = amount_ucr_max(price, request.calls, request.work.input_tokens, request.planned_tokens)
    channel = await desk.wallet.channel(node.key, node.owner, needed, desk.now_ms())
    work = Input(chance().randbytes(32), chance().randbytes(32), request.work.encode())
    order = sign(order_of(desk, node, request, channel, work.digest), desk.key)
    assert node.worker_key is not None
    sealed = desk.seal(node.worker_key.record.hpke_key, order.id, work.encode())
    stream = await _open(desk, node)
    out, events = trio.open_memory_channel[ExecutionEvent](request.planned_tokens + EVENTS_SPARE)
    delivery = Delivery(order, price, "", transcript_start(work.salt, order.id))
    reception = Reception(node, request, order, work, PieceSealer(work.reply_secret, order.id), delivery, desk.accuse)
    execution = Execution(
        desk,
        node,
        request,
        channel,
        stream,
        reception,
        Job(Role.CLIENT, *request.bounds_ms, now_ms()),
        events,
        out,
    )
    latest = channel.latest.envelope if channel.latest else None
    first = OrderMessage(order.envelope, channel.channel.envelope, latest, sealed)
    failure: FallowError | None = None
    desk.under_way.add(order.id)
    try:
        async with trio.open_nursery() as nursery:
            await execution._begin(first)
            nursery.start_soon(execution._read)
            nursery.start_soon(execution._beat)
            nursery.start_soon(execution._watch)
            try:
                yield execution
            except FallowError as error:
                failure = error  # raised below, so that the nursery does not wrap it
            if not execution.job.ended:
                leave = execution.cancel if execution._keeping and failure is None else execution.stop
                await leave("the client has left")
                if failure is None:
                    await execution._pay_the_rest()
            # A heartbeat cut off half-way would reset the stream, and a voucher under way with it.
            # Free again afterwards: a window may be judged, and paid, when we have left.
            with trio.move_on_after(SILENCE_MS_MAX / 1000):
                async with execution._lock:
                    nursery.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
        # Whoever is cut off has decided nothing: what is unpaid then, the next process pays.
        await desk.wallet.refuse(execution._unpaid)
        if failure:
            raise failure
    finally:
        if execution._lock.statistics().owner is trio.lowlevel.current_task():
            execution._lock.release()  # a receipt that is judged later is paid later
        confirmed = False
        with trio.CancelScope(shield=True), trio.move_on_after(LEAVE_S):
            confirmed = await _leave(execution)
        # Whoever cannot answer before them has lost, and that its caller has gone is no answer.
        try:
            if order.record.candidates:
                with trio.CancelScope(shield=True):  # as long as a commit takes
                    accepted = Accepted(execution.accept, node.mandate) if execution.accept else None
                    await desk.wallet.keep_answer(order, execution.opening(), request.opens, desk.now_ms(), accepted)
        finally:
            desk.under_way.discard(order.id)
        if (voucher := execution.paid_on_stream) and confirmed:
            desk.wallet.confirmed(channel.channel.id, voucher.id)
        elif voucher:
            desk.settler.add(node.addresses, channel)
        if execution.job.state is JobState.SETTLED:
            desk.book.worked(node.key, well=True)


async def _leave(execution: Execution) -> bool:
    """The stream has ended; true if the node has every voucher that was sent on it.

    A node that was paid to the end closes the stream once the last voucher is on its disk. What was sent on a stream
    that broke, or to a node whose connection is gone, may have got lost in any buffer between.
    """
    settled = execution.job.state is JobState.SETTLED
    with suppress(NetworkError):
        while settled:
            execution.reception.hear_out_untrusted(await execution.stream.receive())
    with suppress(NetworkError):
        await (execution.stream.close() if settled else execution.stream.reset())
    return settled and execution.node.key in execution.desk.network.peers()


async def _open(desk: Desk, node: Node) -> Stream:
    try:
        with trio.fail_after(CONNECT_S):
            return await desk.network.open(node.key, JOB_PROTOCOL, node.addresses, watched=True)
    except trio.TooSlowError:
        raise NetworkError(Code.PEER_UNREACHABLE, f"Node {node.key.hex()[:8]} did not answer in time.") from None


def way_broke(error: FallowError) -> bool:
    """Whether the way to the node may be what failed, a relay on it say: the node may be reached by another one."""
    return isinstance(error, NetworkError) and error.code in _OF_THE_WAY


_OF_THE_WAY = frozenset({Code.STREAM_CLOSED, Code.PEER_UNREACHABLE, Code.TIMED_OUT, Code.RELAY_REFUSED})
