"""The keeper against workers that misbehave: real processes, each ended, counted and replaced as it should be."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.keeper import RESTARTS_MAX, SILENCE_S_MAX, START_S_MAX
from fallow.node.engine.messages import AHEAD_PIECES_MAX, EngineJob
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.identity import cid
from fallow.protocol.work import Parameters

from .scripted import BREACHES, BUNDLE, OTHER


@asynccontextmanager
async def scripted(tmp_path: Path, behaviour: str, *bundles: bytes) -> AsyncIterator[Engine]:
    command = [sys.executable, str(Path(__file__).with_name("scripted.py")), behaviour]
    cids = [cid(bundle) for bundle in bundles or (BUNDLE,)]
    async with open_engine(BundleStore(tmp_path), cids, log_path=tmp_path / "worker.log", command=command) as engine:
        yield engine


def job(bundle: bytes = BUNDLE) -> EngineJob:
    return EngineJob(os.urandom(32), bundle, bytes(32), "generate", Parameters(), bytes(32), 1, b"sealed")


async def outcome(engine: Engine, bundle: bytes = BUNDLE) -> EngineError | int:
    """How a job ends: with so many pieces, or an error."""
    pieces = 0
    with trio.fail_after(60):
        try:
            async for _ in engine.submit(job(bundle)):
                pieces += 1
        except EngineError as error:
            return error
    return pieces


async def test_a_sound_answer(tmp_path: Path) -> None:
    async with scripted(tmp_path, "answer") as engine:
        assert await outcome(engine) == 2
        assert engine.free_slots == 4


@pytest.mark.parametrize(
    ("behaviour", "says"), [("crash at start", "something is missing"), ("babble at start", "nonsense")]
)
async def test_a_worker_that_does_not_come_up(tmp_path: Path, behaviour: str, says: str) -> None:
    with trio.fail_after(60), pytest.raises(EngineError, match=says) as caught:
        await scripted(tmp_path, behaviour).__aenter__()
    assert caught.value.code == Code.WORKER_FAILED


@pytest.mark.parametrize("behaviour", sorted(BREACHES))
async def test_a_worker_that_breaks_the_rules_is_replaced(tmp_path: Path, behaviour: str) -> None:
    async with scripted(tmp_path, behaviour) as engine:
        key, seen = engine.hpke_key, engine.generation
        error = await outcome(engine)
        assert isinstance(error, EngineError)
        assert error.code == Code.WORKER_DIED
        assert "was killed" in error.message
        await replaced(engine, key, seen)


async def test_a_flood_is_cut_off_at_the_credit(tmp_path: Path) -> None:
    async with scripted(tmp_path, "flood") as engine:
        answer, seen = engine.submit(job()), engine.generation
        with trio.fail_after(60):
            await engine.changed(seen)
            for _ in range(AHEAD_PIECES_MAX):
                await anext(answer)
            for _ in range(2):  # and it stays so
                with pytest.raises(EngineError) as caught:
                    await anext(answer)
        assert caught.value.code == Code.WORKER_DIED


async def test_what_follows_an_answer_does_not_reach_it(tmp_path: Path) -> None:
    async with scripted(tmp_path, "a piece after the end") as engine:
        key, seen = engine.hpke_key, engine.generation
        assert await outcome(engine) == 1
        await replaced(engine, key, seen)


async def replaced(engine: Engine, key: bytes, seen: int) -> None:
    with trio.fail_after(60):
        while engine.hpke_key in (b"", key):
            seen = await engine.changed(seen)
    assert engine.failure is None


async def test_a_worker_that_keeps_dying_is_given_up_until_restart(tmp_path: Path) -> None:
    async with scripted(tmp_path, "crash at a job") as engine:
        keys = set()
        for _ in range(RESTARTS_MAX + 1):
            seen = engine.generation
            while not engine.hpke_key:
                seen = await engine.changed(seen)
            keys.add(engine.hpke_key)
            error = await outcome(engine)
            assert isinstance(error, EngineError)
            assert error.code == Code.WORKER_DIED
        assert len(keys) == RESTARTS_MAX + 1
        with trio.fail_after(60):
            while engine.failure is None:
                await engine.changed(engine.generation)
        assert engine.failure.code == Code.WORKER_FAILED
        await engine.restart()
        assert engine.failure is None
        assert engine.hpke_key not in keys


async def test_a_bundle_whose_jobs_keep_killing_workers_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    async with scripted(tmp_path, "crash at a job of the other", BUNDLE, OTHER) as engine:
        with trio.fail_after(60):
            while OTHER not in engine.refused:
                while not engine.hpke_key:
                    await engine.changed(engine.generation)
                if OTHER not in engine.refused:
                    assert isinstance(await outcome(engine, OTHER), EngineError)
            assert engine.refused[OTHER].code == Code.BUNDLE_REFUSED
            while not engine.hpke_key:
                await engine.changed(engine.generation)
            assert await outcome(engine) == 2
            assert engine.failure is None


async def test_a_worker_that_never_lives_long_is_given_up(tmp_path: Path) -> None:
    async with scripted(tmp_path, "crash when ready") as engine:
        with trio.fail_after(60):
            while engine.failure is None:
                await engine.changed(engine.generation)
        assert engine.failure.code == Code.WORKER_FAILED
        with pytest.raises(EngineError) as caught:
            engine.submit(job())
        assert caught.value.code == Code.WORKER_FAILED


async def test_a_worker_that_falls_silent_over_a_job_is_replaced(tmp_path: Path, mock_clock: MockClock) -> None:
    async with scripted(tmp_path, "silence") as engine:
        await wait_all_tasks_blocked()
        mock_clock.jump(10 * SILENCE_S_MAX)  # without a job it may be silent
        await wait_all_tasks_blocked()
        key, seen = engine.hpke_key, engine.generation
        answer = engine.submit(job())
        await wait_all_tasks_blocked()
        mock_clock.jump(SILENCE_S_MAX)
        with pytest.raises(EngineError, match="said nothing"):
            await anext(answer)
        await replaced(engine, key, seen)


async def test_a_worker_that_has_to_wait_for_credit_may_be_silent(tmp_path: Path, mock_clock: MockClock) -> None:
    async with scripted(tmp_path, "silence when it has to wait") as engine:
        answer = engine.submit(job())
        while answer.waiting < AHEAD_PIECES_MAX:
            await trio.lowlevel.checkpoint()
        mock_clock.jump(10 * SILENCE_S_MAX)
        await wait_all_tasks_blocked()
        for _ in range(AHEAD_PIECES_MAX):  # which gives credit
            await anext(answer)
        mock_clock.jump(SILENCE_S_MAX)
        with pytest.raises(EngineError, match="said nothing"):
            await anext(answer)


async def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot be started|No such file") as caught:
        await open_engine(BundleStore(tmp_path), [], log_path=tmp_path / "log", command=["/none"]).__aenter__()
    assert caught.value.code == Code.WORKER_FAILED


async def test_a_worker_that_is_never_ready_is_not_waited_for(tmp_path: Path, mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0.1
    with pytest.raises(EngineError, match="not ready within") as caught:
        async with scripted(tmp_path, "never ready"):
            pytest.fail("it must not come up")
    assert caught.value.code == Code.WORKER_FAILED


async def test_killed_while_it_starts(tmp_path: Path) -> None:
    async with scripted(tmp_path, "answer") as engine:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                engine.kill()

                async def restart() -> None:
                    with pytest.raises(EngineError) as caught:
                        await engine.restart()
                    assert caught.value.code == Code.WORKER_DIED

                nursery.start_soon(restart)
                await wait_all_tasks_blocked()
                engine.kill()
            await engine.restart()
            assert await outcome(engine) == 2


async def test_the_blocks_own_error_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with scripted(tmp_path, "answer"):
            raise KeyError("mine")


@pytest.mark.parametrize("behaviour", ["die of loading the other", "overrun in loading the other", "refuse the other"])
async def test_a_bundle_that_is_refused_leaves_the_others_served(tmp_path: Path, behaviour: str) -> None:
    async with scripted(tmp_path, behaviour, BUNDLE, OTHER) as engine:
        for _ in range(2):
            assert set(engine.served) == {BUNDLE}
            assert [(bundle, error.code) for bundle, error in engine.refused.items()] == [(OTHER, Code.BUNDLE_REFUSED)]
            with pytest.raises(EngineError) as caught:
                engine.submit(job(OTHER))
            assert caught.value.code == Code.BUNDLE_REFUSED
            assert engine.failure is None
            await engine.restart()  # which forgets nothing


async def test_a_bundle_over_which_a_worker_hangs_is_refused(tmp_path: Path, mock_clock: MockClock) -> None:
    log = tmp_path / "worker.log"

    async def use() -> None:
        async with scripted(tmp_path, "hang in loading the other", BUNDLE, OTHER) as engine:
            assert set(engine.served) == {BUNDLE}
            assert "not ready within" in engine.refused[OTHER].message

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        while not log.exists() or b"hanging" not in log.read_bytes():
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        mock_clock.jump(START_S_MAX)


async def test_a_program_that_runs_too_long_ends_its_own_jobs_by_name(tmp_path: Path) -> None:
    async with scripted(tmp_path, "overrun of the other", BUNDLE, OTHER) as engine:
        key, seen = engine.hpke_key, engine.generation
        honest, hostile = engine.submit(job()), engine.submit(job(OTHER))
        with trio.fail_after(60):
            assert (await anext(honest)).index == 0
            for answer, code in ((hostile, Code.BUNDLE_REFUSED), (honest, Code.WORKER_DIED)):
                with pytest.raises(EngineError) as caught:
                    [piece async for piece in answer]
                assert caught.value.code == code
        await replaced(engine, key, seen)
        assert (set(engine.served), set(engine.refused)) == ({BUNDLE}, {OTHER})


async def test_a_program_over_which_a_serving_worker_dies_takes_its_bundle_with_it(tmp_path: Path) -> None:
    async with scripted(tmp_path, "die of the other's late program", BUNDLE, OTHER) as engine:
        key, seen = engine.hpke_key, engine.generation
        honest, hostile = engine.submit(job()), engine.submit(job(OTHER))
        with trio.fail_after(60):
            assert (await anext(honest)).index == 0
            for answer, code in ((hostile, Code.BUNDLE_REFUSED), (honest, Code.WORKER_DIED)):
                with pytest.raises(EngineError) as caught:
                    [piece async for piece in answer]
                assert caught.value.code == code
        await replaced(engine, key, seen)
        assert (set(engine.served), set(engine.refused)) == ({BUNDLE}, {OTHER})


async def test_a_serving_worker_may_load_a_program_for_longer_than_a_step_takes(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with scripted(tmp_path, "hang over the other's late program", BUNDLE, OTHER) as engine:
        key, seen = engine.hpke_key, engine.generation
        answer = engine.submit(job(OTHER))
        mock_clock.autojump_threshold = 0.5
        began = trio.current_time()
        with pytest.raises(EngineError, match="hung or ended") as caught:
            await anext(answer)
        assert caught.value.code == Code.BUNDLE_REFUSED
        assert trio.current_time() - began >= START_S_MAX
        mock_clock.autojump_threshold = inf
        await replaced(engine, key, seen)
        assert (set(engine.served), set(engine.refused)) == ({BUNDLE}, {OTHER})


@pytest.mark.parametrize(
    ("behaviour", "bundles", "says"),
    [
        ("die of loading the other", [OTHER], "something broke"),
        ("overrun in loading the other", [OTHER], "took longer"),
        ("refuse all", [BUNDLE, OTHER], "all break the rules"),
    ],
)
async def test_with_no_bundle_left_the_failure_says_why(
    tmp_path: Path, behaviour: str, bundles: list[bytes], says: str
) -> None:
    with trio.fail_after(60), pytest.raises(EngineError, match=says) as caught:
        await scripted(tmp_path, behaviour, *bundles).__aenter__()
    assert caught.value.code == Code.BUNDLE_REFUSED


@pytest.mark.parametrize("behaviour", ["refuse a stranger", "serve a stranger"])
async def test_a_worker_answers_for_no_bundle_that_it_was_not_given(tmp_path: Path, behaviour: str) -> None:
    with trio.fail_after(60), pytest.raises(EngineError, match="nobody had asked for") as caught:
        await scripted(tmp_path, behaviour, BUNDLE).__aenter__()
    assert caught.value.code == Code.WORKER_FAILED
