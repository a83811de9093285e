"""Whether the machine may work now: the owner's signal, the worker and the load, as one state. Time is an argument.

The way out is immediate, the way in is slow: an owner who takes the machine back waits for nothing, and one who only
moves it a little does not cost a start of the worker each time.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.profiles import State


@dataclass(slots=True)
class Availability:
    """The node's state follows from these alone. `settle_ms` is the time from parking to being eligible again."""

    settle_ms: int
    jobs_max: int
    off: bool = True
    """Not started yet, or told to end."""
    parked: bool = True
    yielding: bool = False
    """Jobs are being handed back; not before that is done can the worker start again."""
    worker_ready: bool = False
    worker_problem: str = ""
    """Why there is no worker, where it is not only starting."""
    jobs: int = 0
    owner_reason: str = ""
    withheld: str = ""
    """Which of the owner's rules keeps the machine from being lent, in words for the owner; empty: none does."""
    settled_ms: int = 0
    """From then on the machine counts as parked for long enough."""

    def start(self) -> None:
        """The owner switched the node on."""
        self.off = False

    def stop(self) -> None:
        """The node is to end: as urgent as the owner's return."""
        self.off = self.yielding = True
        self.worker_ready = False

    def drive(self, reason: str) -> None:
        """The owner needs the machine: nothing is accepted from now on."""
        self.yielding = self.yielding or self.parked
        self.parked = self.worker_ready = False
        self.owner_reason = reason

    def withhold(self, reason: str) -> None:
        """A rule of the owner's says no, or with no reason: none does any more. As urgent as the owner's return."""
        self.yielding = self.yielding or bool(reason and not self.withheld and self.worker_ready)
        self.withheld = reason
        if reason:
            self.worker_ready = False

    def yielded(self) -> None:
        """Every job was handed back."""
        self.yielding = False

    def park(self, now_ms: int) -> None:
        """The owner left the machine. Saying it again does not start the wait again."""
        if not self.parked:
            self.parked = True
            self.settled_ms = now_ms + self.settle_ms

    def worker(self, ready: bool, problem: str = "") -> None:
        """A worker answers, or none does."""
        self.worker_ready, self.worker_problem = ready, problem

    def wants_worker(self, now_ms: int) -> bool:
        """Whether a worker should be running."""
        return not self._owner_reasons(now_ms) and not self.withheld

    def state(self, now_ms: int) -> State:
        """What the node is doing."""
        if self.yielding:
            return State.YIELDING
        if self.off:
            return State.OFF
        if self.reasons(now_ms):
            return State.NOT_ELIGIBLE
        return State.BUSY if self.jobs >= self.jobs_max else State.READY

    def reasons(self, now_ms: int) -> tuple[str, ...]:
        """Everything that keeps the node from working, for its owner."""
        return self._reasons(now_ms, self.worker_problem or "the worker is starting", self.withheld)

    def reasons_public(self, now_ms: int) -> tuple[str, ...]:
        """As `reasons`, for whoever asks: why a worker failed names files of this machine, and a metered link is not the
        one at home."""
        return self._reasons(now_ms, "no worker is ready", "the owner's rules do not allow it now")

    def _reasons(self, now_ms: int, without_worker: str, withheld: str) -> tuple[str, ...]:
        reasons = self._owner_reasons(now_ms)
        if self.withheld:
            reasons.append(withheld)
        if not reasons and not self.worker_ready:
            reasons.append(without_worker)
        return tuple(reasons)

    def _owner_reasons(self, now_ms: int) -> list[str]:
        reasons = []
        if self.off:
            reasons.append("the node is off")
        if not self.parked:
            reasons.append(self.owner_reason or "the owner uses the machine")
        elif now_ms < self.settled_ms:
            reasons.append("parked only a short while ago")
        if self.yielding:
            reasons.append("jobs are being handed back")
        return reasons
