"""Page 05, "Griefing": each way to waste another's time has its price, and is seen when that one is to be chosen again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fallow.client.auditing import Auditor
from fallow.client.discovery import Discovery
from fallow.client.events import Broken, Receipted
from fallow.client.execution import execute
from fallow.client.history import History
from fallow.client.late import Late
from fallow.client.nodes import Node
from fallow.client.scheduler import Experience, Need, expected_s
from fallow.client.spotting import Spots
from fallow.client.team import Team
from fallow.node.earnings import earnings
from fallow.node.log import wall_ms
from fallow.protocol.claims import Claim
from fallow.protocol.errors import Code, FallowError
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.receipts import CANCELLED

from .conftest import Town
from .pair import OWNER_KEY, PRICE, SEEN, SERVED, House, request_of

PATIENCE_S = 20
"""In real time, for a disk."""
TOKENS = 40
INPUT_UCR = 3 * PRICE.input_token_ucr
"""Three tokens: less than a window."""
WINDOW_UCR = INPUT_UCR * WINDOW_TOKENS // TOKENS + WINDOW_TOKENS * PRICE.output_token_ucr
NEED = Need(SERVED.bundle, "generate", 1, 3, TOKENS, 10**6)


async def seen(true: Callable[[], bool]) -> None:
    """Returns once it is so, while the clock stands still: disks take real time."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        await trio.lowlevel.checkpoint()


async def pass_time(clock: MockClock, until: Callable[[], bool]) -> None:
    """Virtual time goes on, and everybody does what there is to do, until something has come to be."""
    for _ in range(2_000):
        if until():
            return
        await wait_all_tasks_blocked()
        clock.jump(0.05)
    raise AssertionError("nothing has come of it in 100 s")


def stalls_at(house: House, token: int) -> None:
    """The node delivers so many tokens, and then says no more than that it is there."""

    async def pace(index: int) -> None:
        await trio.lowlevel.checkpoint()
        if index == token:
            await trio.sleep_forever()

    house.engine.pace = pace


async def ended(town: Town, mock_clock: MockClock, paid: int) -> FallowError:
    """What a job's client heard in the end, after it had paid so much."""
    heard: list[FallowError] = []

    async def order() -> None:
        try:
            await town.job(TOKENS)
        except FallowError as error:
            heard.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(order)
        await seen(lambda: [row.paid_ucr for row in earnings(town.house.state)] == ([paid] if paid else []))
        await seen(lambda: town.house.availability.jobs == 1)
        await pass_time(mock_clock, lambda: bool(heard))
    return heard[0]


def team_of(town: Town, nursery: trio.Nursery) -> Team:
    discovery, history = Discovery(town.desk.network, wall_ms, nursery, town.desk.book), History()
    auditor = Auditor(town.desk, history)
    return Team(town.desk, discovery, Experience(), Random(1), auditor, Spots(auditor, Random(2)), Late(history))


def dearer(team: Team, than: Node = SEEN) -> bool:
    """Whether the node is behind one that is like it in everything, and of which nothing is known."""
    other = replace(than, key=b"\x42" * 32)
    now_s = trio.current_time()
    return expected_s(than, NEED, team.experience, now_s) > expected_s(other, NEED, team.experience, now_s)


@pytest.mark.spec("J-32")
@pytest.mark.parametrize(("token", "paid"), [(0, 0), (WINDOW_TOKENS + 1, WINDOW_UCR)], ids=["first chunk", "gap"])
async def test_a_node_that_keeps_its_client_waiting(
    town: Town, nursery: trio.Nursery, mock_clock: MockClock, token: int, paid: int
) -> None:
    """Nothing for the window that is open; what was receipted before stays paid. It counts as a failure."""
    stalls_at(town.house, token)
    error = await ended(town, mock_clock, paid)
    assert error.code is Code.TIMED_OUT
    assert sum(town.wallet.owed_by_owner().values()) == paid
    team = team_of(town, nursery)
    assert not dearer(team)
    team.failed(SEEN, error)
    assert dearer(team)


@pytest.mark.spec("J-34", "J-5")
@pytest.mark.parametrize("token", [0, 10])
async def test_a_node_that_accepts_and_yields(town: Town, nursery: trio.Nursery, token: int) -> None:
    """Its input in proportion to what it delivered: for nothing, nothing. What it left undone counts as a failure."""
    stalls_at(town.house, token)
    async with execute(town.desk, SEEN, request_of(TOKENS)) as execution:
        while execution.delivery.tokens < token or execution.accept is None:
            await execution.events.receive() if token else await trio.lowlevel.checkpoint()
        nursery.start_soon(town.house.executor.hand_back, "the owner is back")
        while not isinstance(event := await execution.events.receive(), Receipted):
            pass
        await execution.pay(event)
    expected = INPUT_UCR * token // TOKENS + token * PRICE.output_token_ucr
    assert town.wallet.owed_by_owner().get(OWNER_KEY, 0) == expected
    team = team_of(town, nursery)
    team.experience.left(SEEN.key, token, TOKENS, trio.current_time())
    assert dearer(team)
    undone = team.experience.recent_failures(SEEN.key, trio.current_time())
    assert undone == pytest.approx(1 - token / TOKENS, abs=0.01)


async def test_a_node_that_walks_slowly(town: Town, nursery: trio.Nursery) -> None:
    """It is paid for tokens, as ordered, and not for its time; by its measured rate others come first."""
    team = team_of(town, nursery)
    team.experience.measured(SEEN.key, SERVED.bundle, SERVED.output_tokens_per_s_milli / 1000 / 2)
    assert dearer(team)


@pytest.mark.spec("J-38")
async def test_a_node_that_calls_cancelled_what_was_not(town: Town, nursery: trio.Nursery) -> None:
    """A broken rule: nothing is paid, and it counts as a failure."""
    stalls_at(town.house, 0)
    async with execute(town.desk, SEEN, request_of(TOKENS)) as execution:
        await seen(lambda: execution.accept is not None)
        (session,) = town.house.executor._sessions
        session.stop(CANCELLED)
        event = await execution.events.receive()
    assert isinstance(event, Broken)
    assert event.error.code is Code.ILLEGAL_MOVE
    assert town.wallet.owed_by_owner() == {}
    team = team_of(town, nursery)
    team.failed(SEEN, event.error)
    assert dearer(team)


@pytest.mark.spec("J-35", "J-5")
@pytest.mark.parametrize("token", [0, 10, WINDOW_TOKENS + 1])
async def test_a_client_that_cancels(town: Town, token: int) -> None:
    """One call and one window of input at least, and every token: paid by the client itself, the loser of a hedge too."""
    stalls_at(town.house, token)
    async with execute(town.desk, SEEN, request_of(TOKENS)) as execution:
        while execution.accept is None or execution.delivery.tokens < token:
            if isinstance(event := await execution.events.receive() if token else None, Receipted):
                await execution.pay(event)
            await trio.lowlevel.checkpoint()
    assert town.wallet.owed_by_owner() == {OWNER_KEY: INPUT_UCR + token * PRICE.output_token_ucr}
    assert sum(row.paid_ucr for row in earnings(town.house.state)) == INPUT_UCR + token * PRICE.output_token_ucr


@pytest.mark.spec("J-5")
async def test_a_client_that_has_enough_before_it_is_answered(town: Town) -> None:
    """The place was taken all the same."""
    stalls_at(town.house, 0)
    async with execute(town.desk, SEEN, request_of(TOKENS)):
        pass
    assert town.wallet.owed_by_owner() == {OWNER_KEY: INPUT_UCR}


async def test_who_is_told_to_stop_after_its_end_hears_nothing_and_nobody_waits(town: Town) -> None:
    """The winner of a hedge stops the others, one of which may just have broken off."""
    async with execute(town.desk, SEEN, request_of(TOKENS)) as execution:
        pass
    await execution.stop("another executor was quicker")
    assert execution.job.ended


@pytest.mark.spec("J-29", "J-32", "P-27")
async def test_a_client_that_does_not_pay(town: Town, mock_clock: MockClock) -> None:
    """Two windows, then nothing more comes; after sixteen windows no order of it is taken, until its vouchers come."""
    receipts: list[Receipted] = []
    broken: list[Broken] = []

    async def take(done: trio.Event) -> None:
        async with execute(town.desk, SEEN, request_of(3 * WINDOW_TOKENS)) as execution:
            async for event in execution.events:
                if isinstance(event, Broken):
                    broken.append(event)
                    break
                if isinstance(event, Receipted):
                    receipts.append(event)
        done.set()

    async with trio.open_nursery() as nursery:
        for number in range(8):
            done = trio.Event()
            nursery.start_soon(take, done)
            await seen(lambda number=number: len(receipts) == 2 * number + 2)  # type: ignore[misc]
            await pass_time(mock_clock, lambda number=number: len(broken) > number)  # type: ignore[misc]
            await seen(lambda: not town.house.availability.jobs)
            await done.wait()
            assert len(receipts) == 2 * number + 2
    refused = await town.refusal()
    assert refused.code is Code.UNPAID
    channel = await town.wallet.channel(SEEN.key, OWNER_KEY, 0, wall_ms())
    for told in receipts[:2]:
        await town.wallet.pay(channel, told.receipt, Claim(told.added_ucr), wall_ms())
    town.desk.settler.add((), channel)
    await town.desk.settler.flush()
    assert await town.job(TOKENS)


@pytest.mark.spec("J-12")
async def test_who_probes_with_orders_that_cannot_run(town: Town) -> None:
    """Refused before anything is written, and nothing is owed; a place is taken for as long as the answer takes."""
    assert town.house.executor.offer is not None
    town.house.executor.offer = replace(town.house.executor.offer, prices=(replace(PRICE, output_token_ucr=5),))
    refused = await town.refusal(TOKENS)
    assert refused.code is Code.STALE_PRICES
    assert town.house.availability.jobs == 0
    assert earnings(town.house.state) == []
