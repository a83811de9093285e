"""What the node is doing: the owner's rules, the worker and the load, as one state.

Whether the machine is lent is decided elsewhere (`rules.policy`), and only there; this follows at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.profiles import State

NOT_NOW = "it takes no work now"
"""All that a stranger learns: who asks day and night should not learn when a household is on the road."""


@dataclass(slots=True)
class Availability:
    """The node's state follows from these alone."""

    jobs_max: int
    off: bool = True
    """Not started yet, or told to end."""
    withheld: tuple[str, ...] = ()
    """Every reason of the owner's for which the machine is not lent, in words; none: it is."""
    yielding: bool = False
    """Jobs are being handed back; not before that is done can the worker start again."""
    worker_ready: bool = False
    worker_problem: str = ""
    """Why there is no worker, where it is not only starting."""
    jobs: int = 0

    def start(self) -> None:
        """The owner switched the node on."""
        self.off = False

    def stop(self) -> None:
        """The node is to end: as urgent as the owner's return."""
        self.off = self.yielding = True
        self.worker_ready = False

    def obey(self, reasons: tuple[str, ...]) -> bool:
        """The machine is withheld for these reasons, or lent if there are none. Whether it has to be handed back now."""
        leaves = bool(reasons) and not self.withheld and not self.off
        self.withheld = reasons
        if reasons:
            self.worker_ready = False
        self.yielding = self.yielding or leaves
        return leaves

    def yielded(self) -> None:
        """Every job was handed back."""
        self.yielding = False

    def worker(self, ready: bool, problem: str = "") -> None:
        """A worker answers, or none does."""
        self.worker_ready, self.worker_problem = ready, problem

    @property
    def lends(self) -> bool:
        """Whether the owner lets anything be done for others."""
        return not self.withheld

    @property
    def wants_worker(self) -> bool:
        """Whether a worker should be running."""
        return not (self.off or self.withheld or self.yielding)

    @property
    def state(self) -> State:
        """What the node is doing."""
        if self.yielding:
            return State.YIELDING
        if self.off:
            return State.OFF
        if self.reasons:
            return State.NOT_ELIGIBLE
        return State.BUSY if self.jobs >= self.jobs_max else State.READY

    @property
    def reasons(self) -> tuple[str, ...]:
        """Everything that keeps the node from working, for its owner."""
        reasons = ["the node is off"] if self.off else []
        reasons += self.withheld
        if self.yielding:
            reasons.append("jobs are being handed back")
        if not reasons and not self.worker_ready:
            reasons.append(self.worker_problem or "the worker is starting")
        return tuple(reasons)

    @property
    def state_public(self) -> State:
        """As `state`, for whoever asks: whether it takes work, and nothing of why it does not."""
        state = self.state
        return state if state in (State.READY, State.BUSY) else State.NOT_ELIGIBLE

    @property
    def reasons_public(self) -> tuple[str, ...]:
        """As `reasons`, for whoever asks: the same whether its owner drives, a rule forbids, or a worker failed."""
        return (NOT_NOW,) if self.reasons else ()
