"""The sequence of one job, the same table for both sides, with time as an argument.

    client                                        executor
      |-- order ------------------------------------>|
      |<------------------------- accept | refuse ---|
      |<-- chunk, chunk, ... receipt ----------------|     one receipt per window
      |-- voucher ---------------------------------->|     by then the next window may be half delivered
      |<-- chunk, ... (yield) final receipt ---------|
      |-- settle (its voucher) | decline ----------->|

The executor delivers the window after an unpaid one, and no further: what it can lose is bounded by two windows, and
the client has the time of one window to have the other checked. Heartbeats go both ways; silence ends the job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from .errors import Code, LocalProtocolError, RemoteProtocolError
from .limits import ACCEPT_MS_MAX, HEARTBEAT_MS, JOB_MS_MAX, SILENCE_MS_MAX, VOUCHER_MS_MAX, YIELD_MS_MAX


class Role(StrEnum):
    """The two ends of a job."""

    CLIENT = "client"
    EXECUTOR = "executor"


class Event(StrEnum):
    """What is sent. `final` is a receipt that is not `open`; `settle` is the voucher that answers it, `decline` says that
    none will."""

    ORDER = "order"
    ACCEPT = "accept"
    REFUSE = "refuse"
    CHUNK = "chunk"
    RECEIPT = "receipt"
    VOUCHER = "voucher"
    ATTESTATION = "attestation"
    YIELD = "yield"
    FINAL = "final"
    SETTLE = "settle"
    CANCEL = "cancel"
    DECLINE = "decline"
    FAILED = "failed"
    HEARTBEAT = "heartbeat"


class JobState(StrEnum):
    """Where a job is."""

    IDLE = "idle"
    """The stream is open, and nothing was sent."""
    ORDERED = "ordered"
    """The order is out, and not answered."""
    WITHDRAWN = "withdrawn"
    """The client has had enough before the order was answered."""
    RUNNING = "running"
    """Accepted: chunks and receipts come, vouchers go."""
    STOPPING = "stopping"
    """The client has had enough; the executor's messages still under way are legal."""
    YIELDING = "yielding"
    """The owner has taken the machine; a receipt for the part done follows."""
    CLOSING = "closing"
    """The final receipt is out."""
    SETTLED = "settled"
    """The final receipt has its voucher."""
    UNSETTLED = "unsettled"
    """The client refused to pay for the last receipt: it says why, and deals no more with this executor."""
    REFUSED = "refused"
    """The executor did not take the order, and says why."""
    BROKEN = "broken"
    """The executor failed, or either side fell silent or broke the protocol."""


_C, _X = Role.CLIENT, Role.EXECUTOR
_S, _E = JobState, Event

TABLE: dict[tuple[JobState, Role, Event], JobState] = {
    (_S.IDLE, _C, _E.ORDER): _S.ORDERED,
    #
    (_S.ORDERED, _X, _E.ACCEPT): _S.RUNNING,
    (_S.ORDERED, _X, _E.REFUSE): _S.REFUSED,
    (_S.ORDERED, _C, _E.CANCEL): _S.WITHDRAWN,
    #
    (_S.WITHDRAWN, _X, _E.ACCEPT): _S.STOPPING,
    (_S.WITHDRAWN, _X, _E.REFUSE): _S.REFUSED,
    #
    (_S.RUNNING, _X, _E.CHUNK): _S.RUNNING,
    (_S.RUNNING, _X, _E.RECEIPT): _S.RUNNING,
    (_S.RUNNING, _X, _E.ATTESTATION): _S.RUNNING,
    (_S.RUNNING, _C, _E.VOUCHER): _S.RUNNING,
    (_S.RUNNING, _X, _E.FINAL): _S.CLOSING,
    (_S.RUNNING, _X, _E.YIELD): _S.YIELDING,
    (_S.RUNNING, _X, _E.FAILED): _S.BROKEN,
    (_S.RUNNING, _C, _E.CANCEL): _S.STOPPING,
    #
    (_S.STOPPING, _X, _E.CHUNK): _S.STOPPING,
    (_S.STOPPING, _X, _E.RECEIPT): _S.STOPPING,
    (_S.STOPPING, _X, _E.ATTESTATION): _S.STOPPING,
    (_S.STOPPING, _C, _E.VOUCHER): _S.STOPPING,
    (_S.STOPPING, _X, _E.YIELD): _S.STOPPING,
    (_S.STOPPING, _X, _E.FINAL): _S.CLOSING,
    (_S.STOPPING, _X, _E.FAILED): _S.BROKEN,
    #
    (_S.YIELDING, _C, _E.VOUCHER): _S.YIELDING,
    (_S.YIELDING, _C, _E.CANCEL): _S.YIELDING,
    (_S.YIELDING, _X, _E.RECEIPT): _S.YIELDING,  # it was on its way to the disk, for which the owner did not wait
    (_S.YIELDING, _X, _E.FINAL): _S.CLOSING,
    (_S.YIELDING, _X, _E.FAILED): _S.BROKEN,
    #
    (_S.CLOSING, _C, _E.VOUCHER): _S.CLOSING,
    (_S.CLOSING, _C, _E.SETTLE): _S.SETTLED,
    (_S.CLOSING, _C, _E.DECLINE): _S.UNSETTLED,
    (_S.CLOSING, _C, _E.CANCEL): _S.CLOSING,  # it crossed the final receipt, and asks for nothing more
}
"""(state, sender, event) -> next state. Heartbeats change nothing in any state that is not an end. All else is illegal."""

ENDS = frozenset({_S.SETTLED, _S.UNSETTLED, _S.REFUSED, _S.BROKEN})

_PROGRESS = frozenset({_E.ACCEPT, _E.CHUNK, _E.VOUCHER, _E.YIELD, _E.FINAL})
"""What the time bounds of a running job are counted from, beside a `cancel` that changes something."""

UNPAID_RECEIPTS_MAX = 1
"""Receipts without voucher beyond which nothing may follow but the final one."""


@dataclass(slots=True)
class Job:
    """One side's view of one job. `send` and `receive` make the moves; `deadline_ms` says when to call `expire`."""

    role: Role
    first_chunk_ms_max: int
    gap_ms_max: int
    now_ms: int
    state: JobState = JobState.IDLE
    unpaid: int = 0
    _began_ms: int = field(init=False)
    _heard_ms: int = field(init=False)
    _sent_ms: int = field(init=False)
    _progress_ms: int = field(init=False)
    _first_chunk: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._began_ms = self._heard_ms = self._sent_ms = self._progress_ms = self.now_ms

    @property
    def ended(self) -> bool:
        """Nothing more may be sent or received."""
        return self.state in ENDS

    def may_send(self, event: Event) -> bool:
        """Whether `send` would be a legal move now; after what came meanwhile it may no longer be."""
        if event is Event.HEARTBEAT:
            return not self.ended
        return (self.state, self.role, event) in TABLE and self._out_of_turn(event) is None

    def send(self, event: Event, now_ms: int) -> None:
        """We send `event`. Raises `LocalProtocolError` if that is not a legal move."""
        if problem := self._move(self.role, event, now_ms):
            raise LocalProtocolError(Code.ILLEGAL_MOVE, problem)
        self._sent_ms = now_ms

    def receive(self, event: Event, now_ms: int) -> None:
        """They sent `event`; after the job's end it changes nothing. Raises `RemoteProtocolError`, and the job is broken, if
        that is not a legal move."""
        if self.ended:
            return  # sent before the other side knew: nobody is at fault
        other = _X if self.role is _C else _C
        self._heard_ms = now_ms
        if problem := self._move(other, event, now_ms):
            self.state = JobState.BROKEN
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, problem)

    def may_deliver(self) -> bool:
        """Whether the executor may send the next chunk, or has to wait for a voucher first."""
        return self.state is JobState.RUNNING and self.unpaid <= UNPAID_RECEIPTS_MAX

    def quiet_ms(self, now_ms: int) -> int:
        """How long nothing has been heard from the other side."""
        return now_ms - self._heard_ms

    def heartbeat_due_ms(self) -> int:
        """When we have to say something, if only that we are here."""
        return self._sent_ms + HEARTBEAT_MS

    def deadline_ms(self) -> int:
        """When `expire` breaks the job, unless something happens before."""
        return min(limit for limit, _ in self._limits())

    def expire(self, now_ms: int) -> None:
        """Raises `RemoteProtocolError(timed_out)`, and the job is broken, if a bound has passed."""
        passed = [(limit, what) for limit, what in self._limits() if now_ms >= limit]
        if passed and not self.ended:
            self.state = JobState.BROKEN
            raise RemoteProtocolError(Code.TIMED_OUT, f"{min(passed)[1]}.")

    def _limits(self) -> list[tuple[int, str]]:
        limits = [
            (self._began_ms + JOB_MS_MAX, "The job took longer than any job may"),
            (self._heard_ms + SILENCE_MS_MAX, "The other side fell silent"),
        ]
        if self.state in (JobState.IDLE, JobState.ORDERED, JobState.WITHDRAWN):
            limits[1] = (self._began_ms + ACCEPT_MS_MAX, "The order was not answered in time")
        elif self.role is _X and self.state is JobState.RUNNING and self.unpaid > UNPAID_RECEIPTS_MAX:
            limits.append((self._progress_ms + VOUCHER_MS_MAX, "The voucher for a receipt did not come in time"))
        elif self.role is _X and self.state is JobState.CLOSING:
            limits.append((self._progress_ms + VOUCHER_MS_MAX, "The voucher for the last receipt did not come in time"))
        elif self.role is _C and self.state is JobState.RUNNING and self.unpaid <= UNPAID_RECEIPTS_MAX:
            bound = self.gap_ms_max if self._first_chunk else self.first_chunk_ms_max
            what = "The next chunk" if self._first_chunk else "The first chunk"
            limits.append((self._progress_ms + bound, f"{what} did not come within the order's bound"))
        elif self.role is _C and self.state in (JobState.STOPPING, JobState.YIELDING):
            limits.append((self._progress_ms + YIELD_MS_MAX, "The last receipt did not come in time"))
        return limits

    def _move(self, sender: Role, event: Event, now_ms: int) -> str | None:
        if event is Event.HEARTBEAT:
            return "a heartbeat after the end" if self.ended else None
        target = TABLE.get((self.state, sender, event))
        if target is None:
            return f"The {sender} may not send {event} while the job is {self.state}."
        if problem := self._out_of_turn(event):
            return problem
        if event in (Event.RECEIPT, Event.FINAL):
            self.unpaid += 1
        elif event in (Event.VOUCHER, Event.SETTLE):
            self.unpaid -= 1
        if event in _PROGRESS or (event is Event.CANCEL and self.state is not target):
            self._progress_ms = now_ms
        self._first_chunk = self._first_chunk or event is Event.CHUNK
        self.state = target
        return None

    def _out_of_turn(self, event: Event) -> str | None:
        """Why the receipts that are unpaid do not let the event come now."""
        if event in (Event.CHUNK, Event.RECEIPT) and self.unpaid > UNPAID_RECEIPTS_MAX:
            return f"A {event} beyond the window that may be unpaid."
        if event in (Event.VOUCHER, Event.SETTLE) and self.unpaid == 0:
            return "A voucher without a receipt that it could answer."
        if event is Event.SETTLE and self.unpaid > 1:
            return "A voucher for the last receipt before that for the one before."
        return None
