"""Who of several nodes is not waited for any more: it is stopped in good order, paid for what it did, and has not failed."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from fallow.client import panel as panels
from fallow.client.nodes import Node
from fallow.client.panel import Panel, Place, open_panel
from fallow.client.scheduler import Need
from fallow.protocol.errors import Code, FallowError, Refused
from fallow.protocol.messages.codec import decode_message_untrusted
from fallow.protocol.messages.jobs import CancelMessage
from fallow.protocol.receipts import CANCELLED, FINAL
from fallow.protocol.work import Piece

from .test_hostile_executor import BUNDLE, Crime, Executor, ordered, request

NEED = Need(BUNDLE, "call", 1, 5, 0, 10**6)
LEAST_UCR = 10 + 5
"""One call, and the five tokens that it was given: less than a window."""


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers is heard, however busy the machine is."""
    monkeypatch.setattr(panels, "LET_GO_S", 30.0)


def result(*values: float) -> Piece:
    return Piece(tensor=struct.pack(f"<{len(values)}f", *values), shape=(1, len(values)))


async def until_cancelled(executor: Executor) -> None:
    await executor.accept()
    while not isinstance(decode_message_untrusted(await executor.stream.receive()), CancelMessage):
        pass


async def stops(executor: Executor) -> None:
    await until_cancelled(executor)
    await executor.receipt(CANCELLED)


async def crosses(executor: Executor) -> None:
    """Its result comes once it has been told to stop, as if it had been on its way."""
    await until_cancelled(executor)
    await executor.deliver(result(1.0, 0.0), 0)
    await executor.receipt(FINAL)


async def breaks_off(executor: Executor) -> None:
    await until_cancelled(executor)
    await executor.stream.reset()


@dataclass
class LetGo:
    """A panel whose only member was let go before it had delivered."""

    place: Place
    failed: list[FallowError]
    owed_ucr: int
    """So far; after the block, in the end."""


@asynccontextmanager
async def let_go(tmp_path: Path, crime: Crime, *others: Piece) -> AsyncIterator[LetGo]:
    """After the block it is decided that those are believed who came to `others`."""
    async with ordered(tmp_path, crime) as (desk, node):
        failed: list[FallowError] = []
        team = SimpleNamespace(desk=desk, failed=lambda _, error: failed.append(error))
        async with trio.open_nursery() as nursery:
            panel = Panel(cast(Any, team), request("call"), cast(Any, None), 1.0, nursery)
            place = Place(node)
            await nursery.start(panel._work, place)
            while place.execution is None or place.execution.accept is None:
                await trio.lowlevel.checkpoint()
            place.waiting.cancel()
            await place.over.wait()
            panel.places = [Place(replace(node, key=bytes([n]) * 32), piece) for n, piece in enumerate(others)]
            yield (left := LetGo(place, failed, sum(desk.wallet.owed_by_owner().values())))
            panel.decide({other.node.key for other in panel.places})
        assert panel.outrun == [place]
        left.owed_ucr = sum(desk.wallet.owed_by_owner().values())


@pytest.mark.usefixtures("patient")
async def test_a_late_member_is_let_go_once_the_others_have_decided_and_is_not_asked_again(tmp_path: Path) -> None:
    async with ordered(tmp_path, stops) as (desk, node):
        failed: list[FallowError] = []
        there = [node]

        async def pick(*asked: Any) -> Node:
            if there:
                return there.pop()
            raise Refused(Code.NO_EXECUTOR, "Nobody else is there.")

        async def enough() -> bool:
            return True

        team = SimpleNamespace(desk=desk, failed=lambda _, error: failed.append(error), pick=pick)
        async with open_panel(cast(Any, team), request("call"), NEED, 1.0) as panel:
            await panel.ask(2, (), enough)
            assert panel.places == []
            there.append(node)
            await panel.ask(1, (), enough)
            assert [execution.node for execution in panel.executions] == [node], "it has its order already"
        (place,) = panel.outrun
        assert (place.asked_ucr, place.paid_ucr) == (LEAST_UCR, LEAST_UCR)
        assert sum(desk.wallet.owed_by_owner().values()) == LEAST_UCR
    assert failed == []


@pytest.mark.usefixtures("patient")
@pytest.mark.spec("J-35", "J-5")
async def test_who_stops_is_paid_one_call_and_a_window_of_input_at_least(tmp_path: Path) -> None:
    async with let_go(tmp_path, stops, result(1.0, 0.0)) as left:
        assert left.owed_ucr == LEAST_UCR, "it does not wait for what the others are found to be"
    assert (left.place.asked_ucr, left.place.paid_ucr) == (LEAST_UCR, LEAST_UCR)
    assert left.failed == []


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("others", "paid"),
    [
        ((result(1.0, 0.0),), True),
        ((result(0.0, 1.0), result(1.0, 0.0)), True),
        ((result(0.0, 1.0),), False),
        ((), False),
    ],
)
async def test_a_result_that_crosses_is_paid_if_it_is_as_that_of_somebody_believed(
    tmp_path: Path, others: tuple[Piece, ...], paid: bool
) -> None:
    """To deliver anything at all once one is told to stop is no way to be paid in full and never looked at."""
    async with let_go(tmp_path, crosses, *others) as left:
        assert left.owed_ucr == 0
    assert (left.owed_ucr, left.place.paid_ucr) == ((LEAST_UCR, LEAST_UCR) if paid else (0, 0))
    assert left.place.asked_ucr == LEAST_UCR
    assert left.failed == []


@pytest.mark.usefixtures("patient")
async def test_who_breaks_off_when_it_is_told_to_stop_has_failed(tmp_path: Path) -> None:
    async with let_go(tmp_path, breaks_off, result(1.0, 0.0)) as left:
        pass
    assert [error.code for error in left.failed] == [Code.STREAM_CLOSED]
    assert left.owed_ucr == 0


async def test_who_does_not_answer_that_it_is_told_to_stop_has_failed(tmp_path: Path) -> None:
    async with let_go(tmp_path, until_cancelled, result(1.0, 0.0)) as left:
        pass
    assert [error.code for error in left.failed] == [Code.TIMED_OUT]
    assert left.owed_ucr == 0
