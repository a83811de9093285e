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

from fallow.node.engine.answers import Answer
from fallow.node.engine.blame import RESTARTS_MAX, TERM_S, TERM_S_MAX
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.hearing import SILENCE_S_MAX
from fallow.node.engine.messages import AHEAD_PIECES_MAX, PAUSE_S_MAX, EngineJob
from fallow.node.engine.sandbox import Policy
from fallow.node.engine.startup import START_S_MAX
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.identity import cid
from fallow.protocol.work import Parameters

from ..moments import look_again
from .scripted import BREACHES, BUNDLE, OTHER


@asynccontextmanager
async def scripted(
    tmp_path: Path, behaviour: str, *bundles: bytes, spare: bool = False, policy: Policy = Policy.PREFERRED
) -> AsyncIterator[Engine]:
    command = [sys.executable, str(Path(__file__).with_name("scripted.py")), behaviour]
    cids = [cid(bundle) for bundle in bundles or (BUNDLE,)]
    boxed = Policy.OFF if behaviour.endswith(" once") else policy  # that one has to leave a mark
    async with open_engine(
        BundleStore(tmp_path),
        cids,
        log_path=tmp_path / "worker.log",
        command=command,
        policy=lambda: boxed,
        spare=spare,
    ) as engine:
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
        steps = behaviour == "more steps than the job can need"
        assert error.code == (Code.TOO_MANY_STEPS if steps else Code.WORKER_DIED)
        assert "was killed" in error.message
        assert engine.ended is not None
        assert (engine.ended.code, engine.ended.jobs) == (error.code, 1)
        assert engine.ended.what.startswith(error.message)
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


async def test_what_waits_of_one_answer_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    async with scripted(tmp_path, "more than may wait") as engine:
        answer, seen = engine.submit(job()), engine.generation
        with trio.fail_after(60):
            await engine.changed(seen)
            with pytest.raises(EngineError, match="wait to be taken") as caught:
                [piece async for piece in answer]
        assert caught.value.code == Code.WORKER_DIED


@pytest.mark.parametrize("behaviour", ["a piece after the end", "a beat after the end"])
async def test_what_follows_an_answer_does_not_reach_it(tmp_path: Path, behaviour: str) -> None:
    async with scripted(tmp_path, behaviour) as engine:
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
        assert engine.ended is not None
        assert engine.ended.what.endswith(engine.failure.message)
        assert "is started in 10 minutes" in engine.ended.next
        await engine.restart()
        assert engine.ended is None
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


async def test_a_worker_that_pauses_may_be_silent_for_its_pause_as_well(tmp_path: Path, mock_clock: MockClock) -> None:
    async with scripted(tmp_path, "silence") as engine:
        engine.pace(0.05)
        answer = engine.submit(job())
        await wait_all_tasks_blocked()
        mock_clock.jump(SILENCE_S_MAX + PAUSE_S_MAX - 1)
        await wait_all_tasks_blocked()
        assert engine.served
        mock_clock.jump(1)
        with pytest.raises(EngineError, match="said nothing"):
            await anext(answer)


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
    with pytest.raises(EngineError, match="did not start") as caught:
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


async def test_a_bundle_over_which_two_workers_hang_is_left_out(tmp_path: Path, mock_clock: MockClock) -> None:
    log = tmp_path / "worker.log"

    async def use() -> None:
        async with scripted(tmp_path, "hang in loading the other", BUNDLE, OTHER) as engine:
            assert set(engine.served) == {BUNDLE}
            assert "not ready within" in engine.refused[OTHER].message

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        for times in (1, 2):
            while not log.exists() or log.read_bytes().count(b"hanging") < times:
                await look_again()
            await wait_all_tasks_blocked()
            mock_clock.jump(START_S_MAX)


async def codes(*answers: Answer) -> list[Code | None]:
    """How each of these ends: with an error's code, or None."""
    ends: list[Code | None] = []
    for answer in answers:
        try:
            async for _ in answer:
                pass
            ends.append(None)
        except EngineError as error:
            ends.append(error.code)
    return ends


@pytest.mark.parametrize("behaviour", ["overrun of the other", "die of the other's late program"])
async def test_a_bundle_over_which_a_worker_ends_is_left_out_when_a_fresh_one_ends_over_it_too(
    tmp_path: Path, behaviour: str
) -> None:
    async with scripted(tmp_path, behaviour, BUNDLE, OTHER) as engine:
        for over in (Code.WORKER_DIED, Code.BUNDLE_REFUSED):
            assert set(engine.served) == {BUNDLE, OTHER}
            key, seen = engine.hpke_key, engine.generation
            with trio.fail_after(60):
                assert await codes(engine.submit(job()), engine.submit(job(OTHER))) == [Code.WORKER_DIED, over]
            await replaced(engine, key, seen)
        assert (set(engine.served), set(engine.refused)) == ({BUNDLE}, {OTHER})


async def test_what_is_left_out_for_its_time_comes_back_after_a_term_that_grows(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with scripted(tmp_path, "overrun of the other", BUNDLE, OTHER) as engine:
        for ends, term in ((2, TERM_S), (1, 2 * TERM_S)):
            for _ in range(ends):  # when it comes back it is suspected
                key, seen = engine.hpke_key, engine.generation
                await codes(engine.submit(job(OTHER)))
                await replaced(engine, key, seen)
            for passed, served in ((term - 1, {BUNDLE}), (1, {BUNDLE, OTHER})):
                mock_clock.jump(passed)
                await engine.restart()
                assert set(engine.served) == served
        assert not engine.refused


async def test_what_breaks_the_rules_does_not_come_back(tmp_path: Path, mock_clock: MockClock) -> None:
    async with scripted(tmp_path, "refuse the other", BUNDLE, OTHER) as engine:
        for _ in range(3):  # the second time it is loaded before anything else: nobody else can have said so
            assert (set(engine.served), set(engine.refused)) == ({BUNDLE}, {OTHER})
            mock_clock.jump(100 * TERM_S_MAX)
            await engine.restart()


async def test_a_worker_that_lies_once_of_another_bundle_costs_that_one_nothing(tmp_path: Path) -> None:
    async with scripted(tmp_path, "overrun of the other once", BUNDLE, OTHER) as engine:
        key, seen = engine.hpke_key, engine.generation
        with trio.fail_after(60):
            assert await codes(engine.submit(job()), engine.submit(job(OTHER))) == [Code.WORKER_DIED] * 2
        await replaced(engine, key, seen)
        assert set(engine.served) == {BUNDLE, OTHER}
        assert not engine.refused
        assert await codes(engine.submit(job()), engine.submit(job(OTHER))) == [None, None]


async def test_a_worker_that_is_killed_from_outside_while_it_loads_is_no_fault_of_its_bundle(tmp_path: Path) -> None:
    async with scripted(tmp_path, "die of loading once", BUNDLE) as engine:
        assert set(engine.served) == {BUNDLE}
        assert not engine.refused


async def test_workers_that_died_too_often_are_started_again_after_a_rest_but_not_under_the_owner(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async def fail(engine: Engine) -> None:
        while engine.failure is None:
            if engine.hpke_key:
                await codes(engine.submit(job()))
            else:
                await engine.changed(engine.generation)
        await wait_all_tasks_blocked()

    async with scripted(tmp_path, "crash at a job") as engine:
        await fail(engine)
        mock_clock.jump(TERM_S - 1)
        await wait_all_tasks_blocked()
        assert engine.failure is not None
        mock_clock.jump(1)
        while not engine.hpke_key:
            await engine.changed(engine.generation)
        await fail(engine)
        engine.kill()
        mock_clock.jump(TERM_S_MAX)
        await wait_all_tasks_blocked()
        assert (engine.hpke_key, engine.failure is None) == (b"", False)


async def test_a_serving_worker_may_load_a_program_for_longer_than_a_step_takes(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with scripted(tmp_path, "hang over the other's late program", BUNDLE, OTHER) as engine:
        key, seen = engine.hpke_key, engine.generation
        answer = engine.submit(job(OTHER))
        mock_clock.autojump_threshold = 0.5
        began = trio.current_time()
        with pytest.raises(EngineError, match="said nothing for"):
            await anext(answer)
        assert trio.current_time() - began >= START_S_MAX
        mock_clock.autojump_threshold = inf
        await replaced(engine, key, seen)


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
