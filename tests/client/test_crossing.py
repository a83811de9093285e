"""A last receipt that comes as its place is let go: who was in time is paid, is told nothing else, and has not failed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from fallow.client.desk import Desk
from fallow.client.events import ExecutionEvent, Receipted
from fallow.client.execution import Execution, execute
from fallow.client.panel import LET_GO_S, Panel, Place
from fallow.client.wallet import Wallet
from fallow.protocol.errors import FallowError
from fallow.protocol.job import JobState
from fallow.protocol.receipts import FINAL

from .test_hostile_executor import Crime, Executor, ordered, request
from .test_panel import LEAST_UCR, result, stops


@dataclass
class Delivers:
    """An executor that delivers once it may."""

    may: trio.Event = field(default_factory=trio.Event)

    async def __call__(self, executor: Executor) -> None:
        await executor.accept()
        await self.may.wait()
        await executor.deliver(result(1.0, 0.0), 0)
        await executor.receipt(FINAL)


@dataclass
class Asked:
    """A panel of one, who has accepted its order."""

    desk: Desk
    panel: Panel
    place: Place
    execution: Execution
    failed: list[FallowError]
    owed_ucr: int = 0
    """In the end, after the block."""

    def others_came_to(self, value: float) -> None:
        other = replace(self.place.node, key=bytes(32))
        self.panel.places.append(Place(other, result(value, 1.0 - value)))


@asynccontextmanager
async def asked(tmp_path: Path, crime: Crime) -> AsyncIterator[Asked]:
    """After the block it is decided that those are believed who have a place."""
    async with ordered(tmp_path, crime) as (desk, node):
        failed: list[FallowError] = []
        team = SimpleNamespace(desk=desk, failed=lambda _, error: failed.append(error))
        async with trio.open_nursery() as nursery:
            panel, place = Panel(cast(Any, team), request("call"), cast(Any, None), 1.0, nursery), Place(node)
            await nursery.start(panel._work, place)
            assert place.execution is not None
            await until_accepted(place.execution)
            yield (made := Asked(desk, panel, place, place.execution, failed))
            panel.decide({other.node.key for other in panel.places})
        made.owed_ucr = sum(desk.wallet.owed_by_owner().values())


@asynccontextmanager
async def nothing_written(wallet: Wallet) -> AsyncIterator[None]:
    await wallet._disk.writer.acquire_on_behalf_of(wallet)
    try:
        yield
    finally:
        wallet._disk.writer.release_on_behalf_of(wallet)


async def until_accepted(execution: Execution) -> None:
    while execution.accept is None:
        await trio.lowlevel.checkpoint()


async def until_closing(execution: Execution) -> None:
    """The last receipt is here, and not on disk."""
    while execution.job.state is not JobState.CLOSING:
        await trio.lowlevel.checkpoint()


@pytest.mark.spec("J-35")
@pytest.mark.parametrize("slow", ["receipt", "voucher"])
async def test_who_stops_in_time_is_paid_however_long_our_own_disk_takes(tmp_path: Path, slow: str) -> None:
    async with asked(tmp_path, stops) as at:
        wallet = at.desk.wallet
        busy: AbstractAsyncContextManager[None] = nothing_written(wallet) if slow == "receipt" else wallet._money
        async with busy:
            at.place.waiting.cancel()
            await until_closing(at.execution)
            await trio.sleep(LET_GO_S)  # its time is over before we have written it
            assert at.place.paid_ucr == 0, "what is not on disk is promised to nobody"
        await at.place.over.wait()
    assert at.owed_ucr == at.place.asked_ucr == at.place.paid_ucr == LEAST_UCR
    assert at.execution.job.state is JobState.SETTLED
    assert at.failed == []


@pytest.mark.spec("J-35")
@pytest.mark.parametrize(("others", "paid"), [(1.0, True), (0.0, False)])
async def test_who_is_second_by_a_hair_hears_nothing_before_it_is_decided(
    tmp_path: Path, others: float, paid: bool
) -> None:
    node = Delivers()
    async with asked(tmp_path, node) as at:
        async with nothing_written(at.desk.wallet):
            node.may.set()
            await until_closing(at.execution)
            at.place.waiting.cancel()
            await trio.testing.wait_all_tasks_blocked()
        await at.place.over.wait()
        assert at.execution.job.state is JobState.CLOSING
        at.others_came_to(others)
    assert at.execution.job.state is (JobState.SETTLED if paid else JobState.UNSETTLED)
    assert at.place.asked_ucr == LEAST_UCR
    assert at.place.paid_ucr == at.owed_ucr == (LEAST_UCR if paid else 0)
    assert at.failed == []


async def test_what_comes_in_the_moment_in_which_its_place_is_let_go_is_not_judged_with_the_others(
    tmp_path: Path,
) -> None:
    """Nothing that waits can be cancelled once what it waits for is there: the others have been judged when it goes on."""
    node = Delivers()
    async with asked(tmp_path, node) as at:
        tell = at.execution._tell

        def told(event: ExecutionEvent) -> None:
            tell(event)
            if isinstance(event, Receipted):
                at.place.waiting.cancel()

        at.execution._tell = told  # type: ignore[method-assign]
        node.may.set()
        await at.place.over.wait()
        assert (at.panel.places, at.panel.outrun) == ([], [at.place])
        at.others_came_to(1.0)
    assert at.execution.job.state is JobState.SETTLED
    assert at.place.paid_ucr == at.owed_ucr == LEAST_UCR
    assert at.failed == []


async def test_who_leaves_while_the_last_receipt_is_written_pays_it(tmp_path: Path) -> None:
    node = Delivers()
    async with ordered(tmp_path, node) as (desk, there), trio.open_nursery() as nursery:
        written = trio.Event()

        async def hold(task_status: trio.TaskStatus[None]) -> None:
            async with nothing_written(desk.wallet):
                task_status.started()
                await written.wait()

        async def later() -> None:
            await trio.sleep(LET_GO_S)
            written.set()

        async with execute(desk, there, request("call")) as execution:
            await until_accepted(execution)
            await nursery.start(hold)
            node.may.set()
            await until_closing(execution)
            nursery.start_soon(later)
        assert sum(desk.wallet.owed_by_owner().values()) == LEAST_UCR
        assert execution.job.state is JobState.SETTLED
