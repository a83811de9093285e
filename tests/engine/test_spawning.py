"""The spare worker: there before it is needed, without any work, and gone with its engine."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fallow.node.engine.engine import open_engine
from fallow.node.engine.keeper import SPARE_S
from fallow.node.engine.startup import BEGIN_S_MAX, IMPORT_S_MAX
from fallow.protocol.errors import EngineError
from fallow.protocol.work import Parameters, Work

from ..moments import look_again
from .conftest import Asked, Tiny

PROMPT = tuple(range(40, 85))


def descendants() -> set[int]:
    """Process ids of all workers that descend from us.

    By their parents: the kernel's lists of children leave some out while others end.
    """
    found: set[int] = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if "engine.worker" in " ".join(process.cmdline()) and "bwrap" not in process.name():
                found.add(process.pid)
    return found


@pytest.fixture
def older() -> set[int]:
    """Workers of other tests, which may still be ending."""
    return descendants()


def children() -> set[int]:
    """Process ids of our own children that have not been reaped."""
    return {process.pid for process in psutil.Process().children()}


async def until(count: int, older: set[int]) -> set[int]:
    """There are so many workers beside the older ones: returns them."""
    with trio.fail_after(60):
        while len(pids := descendants() - older) != count:
            await look_again()
    return pids


async def test_the_next_worker_is_there_before_it_is_needed_and_takes_over(
    tiny: Tiny, tmp_path: Path, older: set[int]
) -> None:
    async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log", spare=True) as engine:
        first = await until(2, older)
        key = engine.hpke_key
        engine.kill()
        (spare,) = await until(1, older)
        assert spare in first
        await engine.restart()
        assert engine.hpke_key != key
        second = await until(2, older)
        assert spare in second
        await Asked(Work((PROMPT[:3],)), tiny.embed, "call", Parameters()).answer(engine)
    await until(0, older)


async def test_a_spare_that_died_is_replaced_however_late_that_is_noticed(
    tiny: Tiny, tmp_path: Path, older: set[int]
) -> None:
    async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log", spare=True) as engine:
        await until(2, older)
        engine.kill()
        (spare,) = await until(1, older)
        os.kill(spare, signal.SIGKILL)
        await engine.restart()
        assert spare not in await until(2, older)
        await Asked(Work((PROMPT[:3],)), tiny.embed, "call", Parameters()).answer(engine)


async def test_a_spare_that_serves_other_bundles_is_not_used(tiny: Tiny, tmp_path: Path, older: set[int]) -> None:
    cids = [tiny.embed]
    async with open_engine(tiny.store, cids, log_path=tmp_path / "log", spare=True) as engine:
        before = await until(2, older)
        cids.append(tiny.chat)
        await engine.restart()
        assert len(engine.served) == 2
        after = await until(2, older)
        assert not before & after
        tokens, _ = await Asked(Work((PROMPT,)), tiny.chat).text(engine)
        assert len(tokens) == 16


async def test_rates_are_measured_once(tiny: Tiny, tmp_path: Path, older: set[int]) -> None:
    async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log") as engine:
        (before,) = engine.served.values()
        await engine.restart()
        (after,) = engine.served.values()
        assert after.rates == before.rates


@pytest.mark.parametrize("spare", [False, True])
async def test_an_engine_without_use_for_a_spare_starts_none(
    tiny: Tiny, tmp_path: Path, older: set[int], spare: bool
) -> None:
    async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log", spare=spare):
        await until(2 if spare else 1, older)
    await until(0, older)


async def test_a_spare_that_is_frozen_is_found_out_in_seconds(
    tiny: Tiny, tmp_path: Path, older: set[int], mock_clock: MockClock
) -> None:
    before = children()
    async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log", spare=True) as engine:
        await wait_all_tasks_blocked()
        mock_clock.jump(SPARE_S)
        await until(2, older)
        engine.kill()
        (spare,) = await until(1, older)
        while len(children() - before) > 1:
            await look_again()
        mock_clock.jump(IMPORT_S_MAX)
        os.kill(spare, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.restart)
            await wait_all_tasks_blocked()
            mock_clock.jump(BEGIN_S_MAX)
        assert spare not in descendants()
        await Asked(Work((PROMPT[:3],)), tiny.embed, "call", Parameters()).answer(engine)


async def test_kills_that_come_faster_than_a_spare_is_ready(tiny: Tiny, tmp_path: Path, older: set[int]) -> None:
    async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log", spare=True) as engine:
        await until(2, older)
        with trio.fail_after(120):
            for _ in range(3):
                engine.kill()
                await engine.restart()
                engine.kill()
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    engine.kill()

                    async def restart() -> None:
                        with suppress(EngineError):
                            await engine.restart()

                    nursery.start_soon(restart)
                    await wait_all_tasks_blocked()
            await Asked(Work((PROMPT[:3],)), tiny.embed, "call", Parameters()).answer(engine)
    await until(0, older)
