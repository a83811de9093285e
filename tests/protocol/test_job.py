"""The job's sequence: two real machines with a fake wire between them, and every illegal move."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fallow.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from fallow.protocol.job import ENDS, TABLE, UNPAID_RECEIPTS_MAX, Event, Job, JobState, Role
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


@pytest.mark.spec("J-28")
@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("event", [event for event in Event if event is not Event.HEARTBEAT])
@pytest.mark.parametrize("sender", Role)
def test_what_the_table_does_not_list_is_refused(state: JobState, event: Event, sender: Role) -> None:
    if (state, sender, event) in TABLE:
        return
    theirs = Job(Role.CLIENT if sender is Role.EXECUTOR else Role.EXECUTOR, 1, 1, 0, state=state, unpaid=1)
    with pytest.raises(RemoteProtocolError) as caught:
        theirs.receive(event, 0)
    assert caught.value.code is Code.ILLEGAL_MOVE and theirs.state is JobState.BROKEN
    with pytest.raises(LocalProtocolError):
        Job(sender, 1, 1, 0, state=state, unpaid=1).send(event, 0)


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


class AnyHistory(RuleBasedStateMachine):
    """Whatever both sides try, they stay in step, and what is unpaid stays bounded."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.now_ms = 0

    @rule(role=st.sampled_from(Role), event=st.sampled_from(Event), passed_ms=st.integers(0, 100))
    def attempt(self, role: Role, event: Event, passed_ms: int) -> None:
        self.now_ms += passed_ms
        with suppress(LocalProtocolError):  # the sender's own machine knew better
            self.pair.say(role, event, now_ms=self.now_ms)

    @invariant()
    def in_step(self) -> None:
        assert self.pair.client.state is self.pair.executor.state
        assert 0 <= self.pair.client.unpaid <= UNPAID_RECEIPTS_MAX + 2
        if self.pair.client.state in ENDS:
            assert self.pair.client.ended and self.pair.executor.ended


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
