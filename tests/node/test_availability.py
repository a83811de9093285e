"""The way out is immediate, and nothing runs before what ran was handed back: for every sequence of signals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fallow.node.availability import Availability
from fallow.node.vantage import part_of, summary
from fallow.protocol.profiles import State

JOBS_MAX = 2


class Signals(RuleBasedStateMachine):
    """Any order of what owner, worker, jobs and time can do, against what must hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.availability = Availability(JOBS_MAX)
        self.availability.start()
        self.lent = True

    @rule(reasons=st.lists(st.sampled_from(["it moves", "it is hot"]), min_size=1, max_size=2))
    def withhold(self, reasons: list[str]) -> None:
        leaves = self.availability.obey(tuple(reasons))
        assert leaves is self.lent
        self.lent = False
        # Jobs are handed back from the moment on, whatever the node was doing.
        if leaves:
            assert self.availability.state is State.YIELDING

    @rule()
    def lend(self) -> None:
        assert not self.availability.obey(())
        self.lent = True

    @precondition(lambda self: self.availability.yielding)
    @rule()
    def yielded(self) -> None:
        self.availability.jobs = 0
        self.availability.yielded()

    @precondition(lambda self: self.availability.wants_worker)
    @rule(ready=st.booleans())
    def worker(self, ready: bool) -> None:
        self.availability.worker(ready, "" if ready else "the worker died")

    @precondition(lambda self: self.availability.state is State.READY)
    @rule()
    def job(self) -> None:
        self.availability.jobs += 1

    @precondition(lambda self: self.availability.jobs)
    @rule()
    def job_ended(self) -> None:
        self.availability.jobs -= 1

    @invariant()
    def the_owner_comes_first(self) -> None:
        state = self.availability.state
        if state in (State.READY, State.BUSY):
            assert self.lent and self.availability.worker_ready
            assert self.availability.reasons == ()
        else:
            assert self.availability.reasons
        assert (state is State.BUSY) <= (self.availability.jobs >= JOBS_MAX)


TestSignals = Signals.TestCase


@pytest.mark.spec("G-3")
def test_why_there_is_no_worker_is_the_owners_business() -> None:
    availability = Availability(JOBS_MAX)
    availability.start()
    availability.worker(False, "The last line of /srv/node/worker.log: ...")
    assert availability.reasons == ("The last line of /srv/node/worker.log: ...",)
    told = availability.state_public, availability.reasons_public
    availability.obey(("the owner needs the machine",))
    assert availability.reasons[0] == "the owner needs the machine"
    assert (availability.state, availability.state_public) == (State.YIELDING, State.NOT_ELIGIBLE)
    assert (availability.state_public, availability.reasons_public) == told
    availability.stop()
    assert (availability.state_public, availability.reasons_public) == told


def test_a_node_that_ends_is_off_after_handing_back_its_jobs() -> None:
    availability = Availability(JOBS_MAX)
    assert availability.state is State.OFF
    availability.start()
    availability.worker(True)
    assert availability.state is State.READY
    availability.stop()
    assert availability.state is State.YIELDING
    availability.yielded()
    assert availability.state is State.OFF


TIMES = st.lists(st.one_of(st.none(), st.floats(0.0001, 2)), min_size=1, max_size=5)


@given(st.lists(TIMES, max_size=5))
def test_measured_figures_are_of_the_round_trips(rounds: list[list[float | None]]) -> None:
    kept = [time for times in rounds for time in times if time is not None]
    measured = summary(map(part_of, rounds))
    if not kept:
        assert measured is None
        return
    assert measured is not None
    assert min(kept) * 1e6 - 1 <= measured.rtt_p50_us <= measured.rtt_p95_us <= max(kept) * 1e6 + 1
    assert measured.jitter_us <= (max(kept) - min(kept)) * 1e6 + 1
    assert measured.loss_ppm == 1_000_000 * (sum(map(len, rounds)) - len(kept)) // sum(map(len, rounds))
    assert 0 < measured.peers <= len(rounds)
