"""The spare worker: there before it is needed, without any work, and gone with its engine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from fallow.node.engine.engine import open_engine
from fallow.protocol.work import Parameters, Work

from .conftest import Asked, Tiny

PROMPT = tuple(range(40, 85))


def workers_of_this_process() -> set[int]:
    """Process ids of all that descend from us and wait for `Begin` or serve."""
    found: set[int] = set()
    left = [Path("/proc/self")]
    while left:
        for tasks in left.pop().glob("task/*/children"):
            for pid in tasks.read_text().split():
                left.append(Path(f"/proc/{pid}"))
                if (
                    b"engine.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
                    and b"bwrap" not in Path(f"/proc/{pid}/comm").read_bytes()
                ):
                    found.add(int(pid))
    return found


async def until(count: int) -> set[int]:
    with trio.fail_after(60):
        while len(pids := workers_of_this_process()) != count:
            await trio.lowlevel.checkpoint()
    return pids


async def test_the_next_worker_is_there_before_it_is_needed_and_takes_over(tiny: Tiny, tmp_path: Path) -> None:
    async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log", spare=True) as engine:
        first = await until(2)
        key = engine.hpke_key
        engine.kill()
        (spare,) = await until(1)
        assert spare in first
        await engine.restart()
        assert engine.hpke_key != key
        second = await until(2)
        assert spare in second
        await Asked(Work((PROMPT[:3],)), tiny.embed, "call", Parameters()).answer(engine)
    await until(0)


async def test_a_spare_that_died_is_replaced_however_late_that_is_noticed(tiny: Tiny, tmp_path: Path) -> None:
    async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log", spare=True) as engine:
        await until(2)
        engine.kill()
        (spare,) = await until(1)
        os.kill(spare, signal.SIGKILL)
        await engine.restart()
        assert spare not in await until(2)
        await Asked(Work((PROMPT[:3],)), tiny.embed, "call", Parameters()).answer(engine)


async def test_a_spare_that_serves_other_bundles_is_not_used(tiny: Tiny, tmp_path: Path) -> None:
    cids = [tiny.embed]
    async with open_engine(tiny.store, cids, log_path=tmp_path / "log", spare=True) as engine:
        before = await until(2)
        cids.append(tiny.chat)
        await engine.restart()
        assert len(engine.served) == 2
        after = await until(2)
        assert not before & after
        tokens, _ = await Asked(Work((PROMPT,)), tiny.chat).text(engine)
        assert len(tokens) == 16


async def test_rates_are_measured_once(tiny: Tiny, tmp_path: Path) -> None:
    async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log") as engine:
        (before,) = engine.served.values()
        await engine.restart()
        (after,) = engine.served.values()
        assert after.rates == before.rates


@pytest.mark.parametrize("spare", [False, True])
async def test_an_engine_without_use_for_a_spare_starts_none(tiny: Tiny, tmp_path: Path, spare: bool) -> None:
    async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log", spare=spare):
        await until(2 if spare else 1)
    await until(0)
