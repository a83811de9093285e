"""The job's sequence: two real machines with a slow wire between them, a model made of facts, and every illegal move."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fallow.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from fallow.protocol.job import ENDS, Event, Job, JobState, Role
from fallow.protocol.limits import ACCEPT_MS_MAX, HEARTBEAT_MS, JOB_MS_MAX, SILENCE_MS_MAX, VOUCHER_MS_MAX


def job(role: Role, now_ms: int = 0) -> Job:
    return Job(role, 20_000, 5_000, now_ms)


class Pair:
    """A client and an executor; what one sends, the other receives at once."""

    def __init__(self) -> None:
        self.client, self.executor = job(Role.CLIENT), job(Role.EXECUTOR)

    def say(self, role: Role, *events: Event, now_ms: int = 0) -> None:
        sender, receiver = (self.client, self.executor) if role is Role.CLIENT else (self.executor, self.client)
        for event in events:
            sender.send(event, now_ms)
            receiver.receive(event, now_ms)
            assert self.client.state is self.executor.state and self.client.unpaid == self.executor.unpaid


def test_a_text_of_three_windows_settles() -> None:
    pair = Pair()
    pair.say(Role.CLIENT, Event.ORDER)
    pair.say(Role.EXECUTOR, Event.ACCEPT, Event.CHUNK, Event.RECEIPT, Event.CHUNK, Event.RECEIPT)
    assert not pair.executor.may_deliver()
    pair.say(Role.CLIENT, Event.VOUCHER)
    assert pair.executor.may_deliver()
    pair.say(Role.EXECUTOR, Event.CHUNK, Event.FINAL)
    pair.say(Role.CLIENT, Event.VOUCHER, Event.SETTLE)
    assert pair.client.state is JobState.SETTLED and pair.client.unpaid == 0


def test_a_yield_ends_with_a_receipt_that_is_paid() -> None:
    pair = Pair()
    pair.say(Role.CLIENT, Event.ORDER)
    pair.say(Role.EXECUTOR, Event.ACCEPT, Event.CHUNK, Event.YIELD, Event.FINAL)
    pair.say(Role.CLIENT, Event.SETTLE)
    assert pair.executor.state is JobState.SETTLED


def test_a_refused_payment_is_said() -> None:
    pair = Pair()
    pair.say(Role.CLIENT, Event.ORDER)
    pair.say(Role.EXECUTOR, Event.ACCEPT, Event.CHUNK, Event.FINAL)
    pair.say(Role.CLIENT, Event.DECLINE)
    assert pair.executor.state is JobState.UNSETTLED


def test_messages_that_cross_a_cancel_are_legal() -> None:
    client, executor = job(Role.CLIENT), job(Role.EXECUTOR)
    for machine, event in ((client, Event.ORDER), (client, Event.CANCEL)):
        machine.send(event, 0)
    executor.receive(Event.ORDER, 0)
    executor.send(Event.ACCEPT, 0)
    executor.send(Event.CHUNK, 0)
    executor.receive(Event.CANCEL, 0)
    executor.send(Event.FINAL, 0)
    for event in (Event.ACCEPT, Event.CHUNK, Event.FINAL):
        client.receive(event, 0)
    assert client.state is executor.state is JobState.CLOSING


def test_a_cancel_that_crosses_the_final_receipt_costs_no_voucher() -> None:
    client, executor = job(Role.CLIENT), job(Role.EXECUTOR)
    client.send(Event.ORDER, 0)
    executor.receive(Event.ORDER, 0)
    for event in (Event.ACCEPT, Event.CHUNK):
        executor.send(event, 0)
        client.receive(event, 0)
    executor.send(Event.FINAL, 0)
    client.send(Event.CANCEL, 0)
    executor.receive(Event.CANCEL, 0)
    client.receive(Event.FINAL, 0)
    client.send(Event.SETTLE, 0)
    executor.receive(Event.SETTLE, 0)
    assert client.state is executor.state is JobState.SETTLED


def test_a_client_that_cancels_before_the_answer_waits_for_it_as_long_as_before() -> None:
    client = job(Role.CLIENT)
    client.send(Event.ORDER, 0)
    client.send(Event.CANCEL, SILENCE_MS_MAX)
    client.expire(SILENCE_MS_MAX + 1)
    assert client.deadline_ms() == ACCEPT_MS_MAX
    with pytest.raises(RemoteProtocolError, match="not answered"):
        client.expire(ACCEPT_MS_MAX)


LEGAL = """
idle       client    order                                ordered
ordered    executor  accept                               running
ordered    executor  refuse                               refused
ordered    client    cancel                               withdrawn
withdrawn  executor  accept                               stopping
withdrawn  executor  refuse                               refused
running    executor  chunk receipt attestation            running
running    executor  yield                                yielding
running    executor  final                                closing
running    executor  failed                               broken
running    client    voucher                              running
running    client    cancel                               stopping
stopping   executor  chunk receipt attestation yield      stopping
stopping   executor  final                                closing
stopping   executor  failed                               broken
stopping   client    voucher                              stopping
yielding   executor  receipt                              yielding
yielding   executor  final                                closing
yielding   executor  failed                               broken
yielding   client    voucher cancel                       yielding
closing    client    voucher cancel                       closing
closing    client    settle                               settled
closing    client    decline                              unsettled
"""
"""State, sender, events, next state: page 03's table, written once more."""

NEXT = {
    (JobState(state), Role(sender), Event(event)): JobState(after)
    for state, sender, *events, after in (line.split() for line in LEGAL.strip().splitlines())
    for event in events
}
MOVES = [move for move in product(JobState, Role, Event) if move[2] is not Event.HEARTBEAT]


def other(role: Role) -> Role:
    return Role.EXECUTOR if role is Role.CLIENT else Role.CLIENT


def at(role: Role, state: JobState) -> Job:
    """One side's view of a job that got so far, with a receipt to pay."""
    return Job(role, 1, 1, 0, state=state, unpaid=1)


@pytest.mark.spec("J-28")
@pytest.mark.parametrize(("state", "sender", "event"), [move for move in MOVES if move in NEXT])
def test_what_the_page_lists_is_legal_and_goes_where_it_says(state: JobState, sender: Role, event: Event) -> None:
    ours, theirs = at(sender, state), at(other(sender), state)
    assert ours.may_send(event)
    ours.send(event, 0)
    theirs.receive(event, 0)
    assert ours.state is theirs.state is NEXT[state, sender, event]


@pytest.mark.spec("J-28")
@pytest.mark.parametrize(("state", "sender", "event"), [move for move in MOVES if move not in NEXT])
def test_what_the_page_does_not_list_is_refused(state: JobState, sender: Role, event: Event) -> None:
    ours, theirs = at(sender, state), at(other(sender), state)
    assert not ours.may_send(event)
    with pytest.raises(LocalProtocolError) as caught:
        ours.send(event, 0)
    assert caught.value.code is Code.ILLEGAL_MOVE and (ours.state, ours.unpaid) == (state, 1)
    if state in ENDS:
        theirs.receive(event, 0)  # sent before the other side knew: it changes nothing
        assert (theirs.state, theirs.unpaid) == (state, 1)
        return
    with pytest.raises(RemoteProtocolError) as broken:
        theirs.receive(event, 0)
    assert broken.value.code is Code.ILLEGAL_MOVE and theirs.state is JobState.BROKEN


@pytest.mark.spec("J-28", "J-33")
@pytest.mark.parametrize("state", JobState)
def test_a_heartbeat_is_legal_until_the_end_and_changes_nothing(state: JobState) -> None:
    for role in Role:
        ours, theirs = at(role, state), at(other(role), state)
        assert ours.may_send(Event.HEARTBEAT) is (state not in ENDS)
        if state in ENDS:
            with pytest.raises(LocalProtocolError):
                ours.send(Event.HEARTBEAT, 0)
        else:
            ours.send(Event.HEARTBEAT, 0)
        theirs.receive(Event.HEARTBEAT, 0)
        assert ours.state is theirs.state is state


@pytest.mark.parametrize("receipts", [0, 1, 2])
def test_the_last_voucher_settles_only_once_those_before_it_are_out(receipts: int) -> None:
    pair = Pair()
    pair.say(Role.CLIENT, Event.ORDER)
    pair.say(Role.EXECUTOR, Event.ACCEPT, *[Event.RECEIPT] * receipts, Event.FINAL)
    for _ in range(receipts):
        eager = copy(pair.executor)
        assert not pair.client.may_send(Event.SETTLE)
        with pytest.raises(RemoteProtocolError) as caught:
            eager.receive(Event.SETTLE, 0)
        assert caught.value.code is Code.ILLEGAL_MOVE
        pair.say(Role.CLIENT, Event.VOUCHER)
    pair.say(Role.CLIENT, Event.SETTLE)
    assert pair.client.state is JobState.SETTLED and pair.client.unpaid == 0


@pytest.mark.spec("J-29")
def test_a_chunk_beyond_the_unpaid_window_is_refused() -> None:
    client = job(Role.CLIENT)
    client.send(Event.ORDER, 0)
    for event in (Event.ACCEPT, Event.CHUNK, Event.RECEIPT, Event.CHUNK, Event.RECEIPT):
        client.receive(event, 0)
    with pytest.raises(RemoteProtocolError, match="unpaid"):
        client.receive(Event.CHUNK, 0)


@pytest.mark.spec("J-29")
def test_receipts_do_not_pile_up_without_vouchers() -> None:
    client = job(Role.CLIENT)
    client.send(Event.ORDER, 0)
    for event in (Event.ACCEPT, Event.RECEIPT, Event.RECEIPT):
        client.receive(event, 0)
    with pytest.raises(RemoteProtocolError, match="unpaid"):
        client.receive(Event.RECEIPT, 0)


@pytest.mark.spec("J-30")
def test_a_voucher_for_nothing_is_refused() -> None:
    executor = job(Role.EXECUTOR)
    executor.receive(Event.ORDER, 0)
    executor.send(Event.ACCEPT, 0)
    with pytest.raises(RemoteProtocolError, match="without a receipt"):
        executor.receive(Event.VOUCHER, 0)


@pytest.mark.spec("J-32")
@pytest.mark.parametrize(
    ("events", "after_ms", "what"),
    [
        ([], ACCEPT_MS_MAX, "not answered"),
        ([Event.ACCEPT], SILENCE_MS_MAX, "silent"),
        ([Event.ACCEPT, Event.HEARTBEAT], 20_000, "first chunk"),
        ([Event.ACCEPT, Event.CHUNK], 5_000, "next chunk"),
        ([Event.ACCEPT, Event.CHUNK], JOB_MS_MAX, "longer than any job"),
    ],
)
def test_a_client_does_not_wait_beyond_its_bounds(events: list[Event], after_ms: int, what: str) -> None:
    client = job(Role.CLIENT)
    client.send(Event.ORDER, 0)
    for event in events:
        client.receive(event, 0)
    if what == "longer than any job":
        client._progress_ms = JOB_MS_MAX
    if what != "silent":
        client._heard_ms = after_ms  # heartbeats kept coming
    client.expire(after_ms - 1)
    assert not client.ended
    with pytest.raises(RemoteProtocolError, match=f"(?i){what}") as caught:
        client.expire(after_ms)
    assert caught.value.code is Code.TIMED_OUT and client.ended


@pytest.mark.spec("J-32")
def test_an_executor_waits_for_a_voucher_only_so_long() -> None:
    executor = job(Role.EXECUTOR)
    executor.receive(Event.ORDER, 0)
    for event in (Event.ACCEPT, Event.CHUNK, Event.FINAL):
        executor.send(event, 0)
    executor.receive(Event.HEARTBEAT, VOUCHER_MS_MAX)
    with pytest.raises(RemoteProtocolError, match="voucher"):
        executor.expire(VOUCHER_MS_MAX)


@pytest.mark.spec("J-33")
def test_a_heartbeat_is_due_after_silence_of_our_own() -> None:
    client = job(Role.CLIENT)
    client.send(Event.ORDER, 1_000)
    assert client.heartbeat_due_ms() == 1_000 + HEARTBEAT_MS


@dataclass
class View:
    """The model: what one side has seen, in the order in which it saw it, and what follows from these facts."""

    seen: list[Event] = field(default_factory=list)

    def __contains__(self, event: Event) -> bool:
        return event in self.seen

    @property
    def unpaid(self) -> int:
        count = self.seen.count
        return count(Event.RECEIPT) + count(Event.FINAL) - count(Event.VOUCHER) - count(Event.SETTLE)

    @property
    def leaving(self) -> bool:
        """The owner's notice came before the client had enough."""
        return Event.YIELD in self and Event.CANCEL not in self.seen[: self.seen.index(Event.YIELD)]

    @property
    def end(self) -> JobState | None:
        ends = {
            Event.REFUSE: JobState.REFUSED,
            Event.FAILED: JobState.BROKEN,
            Event.SETTLE: JobState.SETTLED,
            Event.DECLINE: JobState.UNSETTLED,
        }
        return next((state for event, state in ends.items() if event in self), None)

    @property
    def state(self) -> JobState:
        accepted, cancelled = Event.ACCEPT in self, Event.CANCEL in self
        if self.end:
            return self.end
        if Event.FINAL in self:
            return JobState.CLOSING
        if self.leaving:
            return JobState.YIELDING
        if accepted:
            return JobState.STOPPING if cancelled else JobState.RUNNING
        if Event.ORDER in self:
            return JobState.WITHDRAWN if cancelled else JobState.ORDERED
        return JobState.IDLE

    def legal(self, by: Role, event: Event) -> bool:
        """Whether this side, or the other as this one sees it, may say it now."""
        if self.end:
            return False
        working = Event.ACCEPT in self and Event.FINAL not in self
        match by, event:
            case _, Event.HEARTBEAT:
                return True
            case Role.CLIENT, Event.ORDER:
                return Event.ORDER not in self
            case Role.CLIENT, Event.CANCEL:  # said once while work goes on; beside the last receipt it asks for nothing
                return Event.ORDER in self and (Event.CANCEL not in self or self.leaving or Event.FINAL in self)
            case Role.CLIENT, Event.VOUCHER:
                return self.unpaid > 0
            case Role.CLIENT, Event.SETTLE:
                return Event.FINAL in self and self.unpaid == 1
            case Role.CLIENT, Event.DECLINE:
                return Event.FINAL in self
            case Role.EXECUTOR, Event.ACCEPT | Event.REFUSE:
                return Event.ORDER in self and Event.ACCEPT not in self
            case Role.EXECUTOR, Event.CHUNK:
                return working and not self.leaving and self.unpaid < 2
            case Role.EXECUTOR, Event.RECEIPT:  # while it leaves, too: one may have been on its way to the disk
                return working and self.unpaid < 2
            case Role.EXECUTOR, Event.ATTESTATION | Event.YIELD:
                return working and not self.leaving
            case Role.EXECUTOR, Event.FINAL | Event.FAILED:
                return working
            case _:
                return False


class SlowWire(RuleBasedStateMachine):
    """Each side does whatever it may, and hears of the other's doings as late as can be: nobody is ever at fault."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = {role: job(role) for role in Role}
        self.views = {role: View() for role in Role}
        self.wires = {role: deque[Event]() for role in Role}
        """What is under way to each side."""

    @rule(role=st.sampled_from(Role), event=st.sampled_from(Event))
    def attempt(self, role: Role, event: Event) -> None:
        if not self.views[role].legal(role, event):
            with pytest.raises(LocalProtocolError):
                self.jobs[role].send(event, 0)
            return
        assert self.jobs[role].may_send(event)
        self._send(role, event)

    @rule(role=st.sampled_from(Role), choice=st.integers(0, 100))
    def go_on(self, role: Role, choice: int) -> None:
        """Something that is legal: by `attempt` alone few jobs would get far."""
        legal = [event for event in Event if self.views[role].legal(role, event)]
        if legal:
            self._send(role, legal[choice % len(legal)])

    @precondition(lambda self: any(self.wires.values()))
    @rule(role=st.sampled_from(Role), count=st.integers(1, 4))
    def arrive(self, role: Role, count: int) -> None:
        self._hear(role, min(count, len(self.wires[role])))

    def _hear(self, role: Role, count: int) -> None:
        for _ in range(count):
            event = self.wires[role].popleft()
            if not self.views[role].end:
                assert self.views[role].legal(other(role), event)
                self.views[role].seen.append(event)
            self.jobs[role].receive(event, 0)

    def _send(self, role: Role, event: Event) -> None:
        self.jobs[role].send(event, 0)
        self.views[role].seen.append(event)
        self.wires[other(role)].append(event)

    @invariant()
    def each_machine_is_where_the_facts_say(self) -> None:
        for role in Role:
            assert (self.jobs[role].state, self.jobs[role].unpaid) == (self.views[role].state, self.views[role].unpaid)

    def teardown(self) -> None:
        """Once everything has arrived, both know the same; but which of cancel and yield was first, each may see its way."""
        for role in Role:
            self._hear(role, len(self.wires[role]))
        states = {job.state for job in self.jobs.values()}
        assert len(states) == 1 or states == {JobState.STOPPING, JobState.YIELDING}
        if not states & ENDS:  # what comes after the end is not counted
            assert len({job.unpaid for job in self.jobs.values()}) == 1


TestSlowWire = SlowWire.TestCase
TestSlowWire.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)

CROSSING = {
    Event.VOUCHER: "chunk receipt attestation yield final failed",
    Event.CANCEL: "accept refuse chunk receipt attestation yield final failed",
}
"""What the client sends while it may be under way from the executor. All else is an answer to what was there before."""

Wires = tuple[tuple[Event, ...], tuple[Event, ...]]


def said(sender: Job, event: Event) -> Job | None:
    """The sender after it has said so; None if it may not."""
    sender = copy(sender)
    try:
        sender.send(event, 0)
    except LocalProtocolError:
        return None
    return sender


def steps(client: Job, executor: Job, wires: Wires) -> Iterator[tuple[Job, Job, Wires]]:
    """Everything that can happen next, with at most two messages under way each way."""
    to_executor, to_client = wires
    for event in (event for event in Event if event is not Event.HEARTBEAT):
        if len(to_executor) < 2 and (sender := said(client, event)):
            yield sender, executor, ((*to_executor, event), to_client)
        if len(to_client) < 2 and (sender := said(executor, event)):
            yield client, sender, (to_executor, (*to_client, event))
    if to_executor:
        hearer = copy(executor)
        hearer.receive(to_executor[0], 0)
        yield client, hearer, (to_executor[1:], to_client)
    if to_client:
        hearer = copy(client)
        hearer.receive(to_client[0], 0)
        yield hearer, executor, (to_executor, to_client[1:])


@pytest.mark.spec("J-28", "J-29")
def test_whatever_crosses_is_legal_at_the_other_side() -> None:
    """Every history of two honest sides, as far as machines can tell them apart: `receive` raises in none."""
    found, crossed = set[object](), set[tuple[Event, Event]]()
    open_ends: list[tuple[Job, Job, Wires]] = [(job(Role.CLIENT), job(Role.EXECUTOR), ((), ()))]
    while open_ends:
        client, executor, wires = open_ends.pop()
        where = (client.state, client.unpaid, executor.state, executor.unpaid, wires)
        if where not in found:
            found.add(where)
            crossed |= set(product(*wires))
            assert max(client.unpaid, executor.unpaid) <= 3  # two windows, and the final receipt
            open_ends += steps(client, executor, wires)
    expected = {(ours, Event(theirs)) for ours, many in CROSSING.items() for theirs in many.split()}
    assert crossed == expected
