"""The way out is immediate, the way in is slow: for every sequence of signals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fallow.node.availability import Availability
from fallow.node.vantage import summary
from fallow.protocol.profiles import State

SETTLE_MS, JOBS_MAX = 1000, 2


class Signals(RuleBasedStateMachine):
    """Any order of what owner, worker, jobs and time can do, against what must hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.driven_until_ms: int | None = None
        self.availability = Availability(SETTLE_MS, JOBS_MAX)
        self.availability.start()

    @rule(step_ms=st.integers(0, 3000))
    def wait(self, step_ms: int) -> None:
        self.now_ms += step_ms

    @rule()
    def drive(self) -> None:
        was = self.availability.state(self.now_ms), self.availability.parked
        self.availability.drive("the owner needs the machine")
        self.driven_until_ms = None
        # Jobs are handed back from the moment on, whatever the node was doing.
        if was[1]:
            assert self.availability.state(self.now_ms) is State.YIELDING

    @rule()
    def park(self) -> None:
        if not self.availability.parked:
            self.driven_until_ms = self.now_ms
        self.availability.park(self.now_ms)

    @precondition(lambda self: self.availability.yielding)
    @rule()
    def yielded(self) -> None:
        self.availability.jobs = 0
        self.availability.yielded()

    @precondition(lambda self: self.availability.wants_worker(self.now_ms))
    @rule(ready=st.booleans())
    def worker(self, ready: bool) -> None:
        self.availability.worker(ready, "" if ready else "the worker died")

    @precondition(lambda self: self.availability.state(self.now_ms) is State.READY)
    @rule()
    def job(self) -> None:
        self.availability.jobs += 1

    @precondition(lambda self: self.availability.jobs)
    @rule()
    def job_ended(self) -> None:
        self.availability.jobs -= 1

    @invariant()
    def the_owner_comes_first(self) -> None:
        state = self.availability.state(self.now_ms)
        if state in (State.READY, State.BUSY):
            assert self.availability.parked
            assert self.availability.worker_ready
            assert self.driven_until_ms is None or self.now_ms >= self.driven_until_ms + SETTLE_MS
            assert self.availability.reasons(self.now_ms) == ()
        else:
            assert self.availability.reasons(self.now_ms)
        assert (state is State.BUSY) <= (self.availability.jobs >= JOBS_MAX)


TestSignals = Signals.TestCase


def test_saying_again_that_it_is_parked_does_not_start_the_wait_again() -> None:
    availability = Availability(SETTLE_MS, JOBS_MAX)
    availability.start()
    availability.drive("")
    availability.yielded()
    availability.park(0)
    availability.park(900)
    assert availability.wants_worker(1000)
    assert not availability.wants_worker(999)


@pytest.mark.spec("G-3")
def test_why_there_is_no_worker_is_the_owners_business() -> None:
    availability = Availability(SETTLE_MS, JOBS_MAX)
    availability.start()
    availability.worker(False, "The last line of /srv/node/worker.log: ...")
    assert availability.reasons(0) == ("The last line of /srv/node/worker.log: ...",)
    told = availability.state_public(0), availability.reasons_public(0)
    availability.drive("the owner needs the machine")
    assert availability.reasons(0)[0] == "the owner needs the machine"
    assert (availability.state(0), availability.state_public(0)) == (State.YIELDING, State.NOT_ELIGIBLE)
    assert (availability.state_public(0), availability.reasons_public(0)) == told
    availability.stop()
    assert (availability.state_public(0), availability.reasons_public(0)) == told


def test_a_node_that_ends_is_off_after_handing_back_its_jobs() -> None:
    availability = Availability(SETTLE_MS, JOBS_MAX)
    assert availability.state(0) is State.OFF
    availability.start()
    availability.worker(True)
    assert availability.state(0) is State.READY
    availability.stop()
    assert availability.state(0) is State.YIELDING
    availability.yielded()
    assert availability.state(0) is State.OFF


TIMES = st.lists(st.one_of(st.none(), st.floats(0.0001, 2)), min_size=1, max_size=5)


@given(st.lists(TIMES, max_size=5))
def test_measured_figures_are_of_the_round_trips(rounds: list[list[float | None]]) -> None:
    kept = [time for times in rounds for time in times if time is not None]
    measured = summary(rounds)
    if not kept:
        assert measured is None
        return
    assert measured is not None
    assert min(kept) * 1e6 - 1 <= measured.rtt_p50_us <= measured.rtt_p95_us <= max(kept) * 1e6 + 1
    assert measured.jitter_us <= (max(kept) - min(kept)) * 1e6 + 1
    assert measured.loss_ppm == 1_000_000 * (sum(map(len, rounds)) - len(kept)) // sum(map(len, rounds))
    assert 0 < measured.peers <= len(rounds)
