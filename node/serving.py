"""`/fallow/job/1`: an order is read, checked, accepted or refused, and delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from math import inf

import trio
from nacl.signing import SigningKey

from ..protocol.bundle import CALL, GENERATE, SCORE, Manifest
from ..protocol.envelope import Signed, sign, verify_any_signer_untrusted, verify_untrusted
from ..protocol.errors import Code, FallowError, Refused, RemoteProtocolError
from ..protocol.identity import short
from ..protocol.job import Event, Job, Role
from ..protocol.limits import JOB_MS_MAX, TEXT_BYTES_MAX, YIELD_MS_MAX
from ..protocol.messages.codec import decode_message_untrusted, encode_message
from ..protocol.messages.jobs import AcceptMessage, OrderMessage
from ..protocol.messages.refusals import RefuseMessage
from ..protocol.orders import Accept, JobOrder, check_order
from ..protocol.payment import Channel, Voucher, check_channel
from ..protocol.prices import Price, amount_ucr_max
from ..protocol.profiles import State
from ..protocol.receipts import YIELDED, Delivery
from .accounts import Account, Accounts
from .availability import Availability
from .delivery import Session, now_ms
from .engine.engine import Engine
from .engine.messages import EngineJob
from .log import EventLog, wall_ms
from .network.seam import Stream
from .power.account import Account as EnergyAccount
from .profiles import Offer
from .rules.policy import DUTY_MIN

ORDER_S = 10.0
"""For the order to arrive: 4 MiB of sealed input over a bad mobile link."""
HOUR_MS = 3_600_000
RETRY_MS = 1_000
"""After a refusal for lack of a slot; the shortest jobs take about so long."""

UNABLE = "The node cannot take the order now; its owner finds the reason in its log."


class Executor:
    """Runs jobs on the engine, on the terms of the `offer` that now stands."""

    def __init__(
        self,
        key: SigningKey,
        owner: bytes,
        accounts: Accounts,
        engine: Engine,
        availability: Availability,
        mandate: Callable[[], bytes],
        log: EventLog,
        accepted: Callable[[bytes], None] = lambda peer: None,
        energy: EnergyAccount | None = None,
        stays_ms: Callable[[], float] = lambda: inf,
        hour_ucr: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`accepted` is told of each peer whose order runs; `energy` counts what jobs use. `stays_ms` is the time until the
        owner is likely to need the machine."""
        self.offer: Offer | None = None
        self._key = key
        self._node = bytes(key.verify_key)
        self._owner = owner
        self._accounts = accounts
        self._engine = engine
        self._availability = availability
        self._mandate = mandate
        """Id of the mandate that stands now."""
        self._log = log
        self._accepted = accepted
        self._energy = energy
        self._stays_ms = stays_ms
        self._hour_ucr = hour_ucr
        self._sessions: dict[Session, trio.CancelScope] = {}
        self._idle = trio.Event()

    async def serve(self, stream: Stream) -> None:
        """One job, from order to settlement. Raises `FallowError` if the client broke the protocol or left."""
        message = await _read_order_untrusted(stream)
        job = Job(Role.EXECUTOR, first_chunk_ms_max=0, gap_ms_max=0, now_ms=now_ms())
        job.receive(Event.ORDER, now_ms())
        async with AsyncExitStack() as held:
            try:
                order, offer, account = await self._check_untrusted(message, held)
                answer = self._engine.submit(
                    _engine_job(order, account.state.channel.record.payer, message.sealed_input)
                )
            except FallowError as error:
                return await self._refuse(stream, job, error)
            delivery = _delivery(order, offer)
            session = self._session(stream, job, delivery, account)
            held.callback(self._engine.cancel, order.id)
            held.enter_context(self._open(session))
            begun = await self._energy.begin() if self._energy else 0.0
            self._log.write("job_accepted", order=order.id.hex()[:16], entry=order.record.entry)
            accept = sign(Accept(order.id, self._mandate(), wall_ms(), delivery.numerics_class), self._key)
            try:
                await session.send(Event.ACCEPT, AcceptMessage(accept.envelope))
                self._accepted(stream.peer)
                await session.run(answer, lambda: self._engine.cancel(order.id))
            finally:
                used = await self._used(begun, order.id)
                self._log.write(
                    "job_ended",
                    order=order.id.hex()[:16],
                    state=str(job.state) if job.ended else "broken",
                    tokens=delivery.tokens,
                    amount_ucr=delivery.amount_ucr,
                    unsettled_ucr=session.unpaid_ucr,
                    **used,
                )

    def _session(self, stream: Stream, job: Job, delivery: Delivery, account: Account) -> Session:
        """What delivers the job."""
        return Session(stream, job, delivery, account, self._accounts, self._key)

    def tell(self, reason: str) -> None:
        """Every open job ends now, and its client is told why; that is on its way when others have had their turn."""
        for session in self._sessions:
            session.stop(YIELDED, reason)

    async def hand_back(self, reason: str) -> None:
        """No job is open: each has got its notice and its last receipt, or its time to take them has passed.

        Every session is told before this function first waits.
        """
        self.tell(reason)
        with trio.move_on_after(2 * YIELD_MS_MAX / 1000):
            await self.until_idle()
        for scope in self._sessions.values():
            scope.cancel()
        await self.until_idle()

    async def until_idle(self) -> None:
        """No job is open."""
        while self._sessions:
            self._idle = trio.Event()
            await self._idle.wait()

    async def _check_untrusted(
        self, message: OrderMessage, held: AsyncExitStack
    ) -> tuple[Signed[JobOrder], Offer, Account]:
        """The order may run: a slot and its credit are `held`, it can never be accepted again, and the voucher that came
        with it counts.

        Raises `FallowError` with the reason. An order that is refused for itself, its terms or its credit writes nothing,
        nor does a replay; one that fails only by its voucher, or by a worker just replaced, is used up.
        """
        channel = verify_any_signer_untrusted(Channel, message.channel)
        check_channel(channel, self._node, self._owner, wall_ms())
        order = verify_untrusted(JobOrder, message.order, signer=channel.record.payer)
        record = order.record
        if record.channel != channel.id:
            raise RemoteProtocolError(Code.BAD_RECORD, "The order names another channel than the one beside it.")
        offer = self._standing_offer()
        check_order(record, offer.terms, wall_ms())
        _check_work(record, offer.manifests[record.bundle])
        amount = _check_price(record, record.price)
        self._check_time(record, offer)
        self._check_worth(record, offer, amount)
        account = await self._accounts.open(channel)
        await held.enter_async_context(self._accounts.lent(account, amount, offer.strangers_ucr, offer.unanswered_ucr))
        held.enter_context(self._slot())
        latest = None
        if message.voucher is not None:
            latest = verify_untrusted(Voucher, message.voucher, signer=channel.record.payer)
        await self._accounts.accept(account, order)
        if latest is not None:
            await self._accounts.honour(account, latest)
        if self._standing_offer() is not offer:
            raise Refused(Code.STALE_WORKER_KEY, "The worker was replaced while the order was checked.")
        return order, offer, account

    async def _used(self, begun: float, order: bytes) -> dict[str, int | str]:
        """The job's energy, and whether it was measured."""
        if self._energy is None:
            return {}
        used = await self._energy.end(begun, order)
        return {"energy_mj": round(1000 * used.joules), "energy_source": used.source}

    def _check_time(self, order: JobOrder, offer: Offer) -> None:
        """Raises `Refused` for work that would not be done before the owner is likely to come: it would only be handed back;
        and for work whose bounds it would break by the pauses that it makes to draw less.

        Of the owner, it tells what it tells whenever there is no room: when they come is the household's own business.
        """
        duty = max(self._energy.duty if self._energy else 1.0, DUTY_MIN)
        share = duty / (1 + self._availability.jobs)
        if (stays_ms := self._stays_ms()) < inf and takes_ms(order, offer) > stays_ms * share:
            raise Refused(Code.BUSY, "Every slot is taken.", RETRY_MS)
        if duty < 1 and (why := _late(order, offer, duty)):
            raise Refused(Code.BUSY, why, RETRY_MS)

    def _check_worth(self, order: JobOrder, offer: Offer, amount_ucr: int) -> None:
        """Raises `Refused` for work that brings less, at the most, than it costs this owner at the rates measured.

        The node's best-paid work is held against its costs before it lends at all (`worth`); this is about each order's own.
        """
        if amount_ucr < takes_ms(order, offer) * self._hour_ucr() / HOUR_MS:
            raise Refused(Code.BUSY, "This work is not worth what it costs here now.", RETRY_MS)

    def _standing_offer(self) -> Offer:
        """What can be ordered now. Raises `Refused` while the machine is not for lending."""
        state = self._availability.state
        if state in (State.READY, State.BUSY) and self.offer is not None:
            return self.offer
        why = ", ".join(self._availability.reasons_public)[:TEXT_BYTES_MAX]
        if self._availability.wants_worker:
            raise Refused(Code.BUSY, f"The node cannot take orders: {why}.", RETRY_MS)
        raise Refused(Code.OWNER_NEEDS_MACHINE, f"The node does not take orders: {why}.")

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if self._availability.jobs >= self._availability.jobs_max or self._engine.free_slots <= 0:
            raise Refused(Code.BUSY, "Every slot is taken.", RETRY_MS)
        self._availability.jobs += 1
        try:
            yield
        finally:
            self._availability.jobs -= 1

    @contextmanager
    def _open(self, session: Session) -> Iterator[trio.CancelScope]:
        with trio.CancelScope() as scope:
            self._sessions[session] = scope
            try:
                yield scope
            finally:
                del self._sessions[session]
                self._idle.set()

    async def _refuse(self, stream: Stream, job: Job, error: FallowError) -> None:
        self._log.write("job_refused", peer=short(stream.peer), code=error.code, why=error.message)
        retry_ms = error.retry_after_ms if isinstance(error, Refused) else 0
        # What was said of the order is for the client. What is wrong here is for the owner: it names this machine's files.
        detail = error.message if isinstance(error, Refused | RemoteProtocolError) else UNABLE
        job.send(Event.REFUSE, now_ms())
        await stream.send(encode_message(RefuseMessage(str(error.code), detail[:TEXT_BYTES_MAX], retry_ms)))


async def _read_order_untrusted(stream: Stream) -> OrderMessage:
    frame = b""
    with trio.move_on_after(ORDER_S) as limit:
        frame = await stream.receive()
    if limit.cancelled_caught:
        raise RemoteProtocolError(Code.TIMED_OUT, "The order did not come in time.")
    message = decode_message_untrusted(frame)
    if not isinstance(message, OrderMessage):
        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A job begins with an order.")
    return message


def _check_work(order: JobOrder, manifest: Manifest) -> None:
    """Raises `Refused` for counts that do not fit one another or the bundle. The rest only the worker can see."""
    if order.entry == GENERATE and not 0 < order.planned_tokens == order.parameters.max_tokens:
        raise Refused(Code.BAD_RECORD, "The order plans other than the tokens that it asks for.")
    if order.entry == SCORE and (order.planned_tokens == 0 or order.checks is None):
        raise Refused(Code.BAD_RECORD, "The order does not say which receipt and how many tokens are to be checked.")
    if order.entry == CALL and order.planned_tokens:
        raise Refused(Code.BAD_RECORD, "A function's order plans no tokens.")
    if order.entry != CALL and order.calls != 1:
        raise Refused(Code.BAD_RECORD, "Only functions take more than one input.")
    length = order.input_tokens + order.planned_tokens
    if order.entry != CALL and length > manifest.context_tokens_max:
        message = f"Input and output together have {length} tokens; the model takes {manifest.context_tokens_max}."
        raise Refused(Code.INPUT_TOO_LONG, message)


def takes_ms(order: JobOrder, offer: Offer) -> float:
    """How long the work takes at the worker's measured rates, alone; 0 where those are not known."""
    served = next(each for each in offer.served if each.bundle == order.bundle)
    work = (
        (order.input_tokens, served.input_tokens_per_s_milli),
        (order.planned_tokens, served.output_tokens_per_s_milli if order.entry == GENERATE else 0),
        (order.calls, served.calls_per_s_milli if order.entry == CALL else 0),
    )
    return sum(1e6 * count / milli for count, milli in work if milli)


def _late(order: JobOrder, offer: Offer, duty: float) -> str:
    """Which of the order's bounds, or of the protocol's, does not hold at this share of the measured rates; empty if all do."""
    served = next(each for each in offer.served if each.bundle == order.bundle)
    whole_ms = takes_ms(order, offer) / duty
    reading, writing = served.input_tokens_per_s_milli, served.output_tokens_per_s_milli
    first_ms, gap_ms = whole_ms, 0.0
    if order.entry == GENERATE:
        first_ms = 1e6 * order.input_tokens / reading / duty if reading else 0.0
        gap_ms = 1e6 / writing / duty if writing else 0.0
    if first_ms > order.first_chunk_ms_max or gap_ms > order.gap_ms_max or whole_ms > JOB_MS_MAX:
        return "The node works slowly now, and could not keep to the times of the order."
    return ""


def _check_price(order: JobOrder, price: Price) -> int:
    """The most that the job can come to, in micro-credits. Raises `Refused(price_too_high)` if that is over its cap."""
    amount = amount_ucr_max(price, order.calls, order.input_tokens, order.planned_tokens)
    if amount > order.amount_ucr_max:
        message = f"The job may cost {amount} ucr; the order's cap is {order.amount_ucr_max}."
        raise Refused(Code.PRICE_TOO_HIGH, message)
    return amount


def _engine_job(order: Signed[JobOrder], payer: bytes, sealed: bytes) -> EngineJob:
    record = order.record
    return EngineJob(
        id=order.id,
        bundle=record.bundle,
        client=payer,
        entry=record.entry,
        parameters=record.parameters,
        input_digest=record.input_digest,
        input_tokens=record.input_tokens,
        sealed=sealed,
        calls=record.calls,
    )


def _delivery(order: Signed[JobOrder], offer: Offer) -> Delivery:
    record = order.record
    return Delivery(order, record.price, offer.numerics_class(record.bundle), transcript=order.id)
