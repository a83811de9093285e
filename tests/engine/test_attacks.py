"""The engine under attack: its processes killed and stopped at random, jobs cancelled by the hundred, and its daemon gone.

Chance is seeded; when a signal arrives is the machine's to say. What has to hold does so whenever it arrives.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fallow.node.engine.answers import Answer
from fallow.node.engine.areas import LEAST_BYTES
from fallow.node.engine.confinement import SEALED
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.keeper import SPARE_S
from fallow.node.engine.messages import EnginePiece
from fallow.node.engine.sandbox import Policy
from fallow.node.engine.startup import IMPORT_S_MAX, START_S_MAX
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.work import Parameters, Work

from ..moments import look_again
from .conftest import Asked, Tiny
from .test_spawning import children, descendants, until

LONG = Parameters(max_tokens=150, temperature_milli=900, top_p_ppm=900_000, seed=7)
"""Longer than what is read of it and what a worker may be ahead: whatever happens to the worker happens to the job."""

PLANS: dict[str, tuple[tuple[str, signal.Signals], ...]] = {
    "the worker is killed": (("worker", signal.SIGKILL),),
    "the worker is stopped": (("worker", signal.SIGSTOP),),
    "both are killed": (("worker", signal.SIGKILL), ("spare", signal.SIGKILL)),
    "the spare is killed": (("spare", signal.SIGKILL),),
    "the spare is stopped, then the worker": (("spare", signal.SIGSTOP), ("worker", signal.SIGSTOP)),
    "the spare is stopped, and the worker killed": (("spare", signal.SIGSTOP), ("worker", signal.SIGKILL)),
}


@pytest.fixture
def older() -> set[int]:
    """Workers of other tests, which may still be ending."""
    return descendants()


def prompts(random: Random, count: int) -> list[tuple[int, ...]]:
    return [tuple(random.randrange(4, 90) for _ in range(random.randrange(1, 60))) for _ in range(count)]


class Attacked:
    """An engine and a spare, and the clock that moves only where it is told to."""

    def __init__(self, engine: Engine, tiny: Tiny, clock: MockClock, older: set[int]) -> None:
        self._engine, self._tiny, self._clock, self._older = engine, tiny, clock, older
        self._unreaped = children() - older
        self._read = 0
        self.ends: list[list[int] | Code] = []
        """How each job ended: its tokens, or the code of its error."""

    async def attack(self, jobs: list[Asked], plan: tuple[tuple[str, signal.Signals], ...], after_pieces: int) -> None:
        """Every job has ended, though so many pieces on, the processes were done to what the plan says; a worker serves."""
        (worker,) = await until(1, self._older)
        await wait_all_tasks_blocked()
        self._clock.jump(SPARE_S)
        (spare,) = await until(2, self._older) - {worker}
        while ("worker", signal.SIGSTOP) in plan and SEALED not in self._engine.measures:
            await look_again()  # else it may seem to hang over a program, which its bundle is blamed for
        self.ends, self._read, stopped = [], 0, set[int]()
        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(self._follow, job)
            while self._read < after_pieces:
                await trio.lowlevel.checkpoint()
            for victim, number in plan:
                pid = {"worker": worker, "spare": spare}[victim]
                os.kill(pid, number)
                if number == signal.SIGSTOP:
                    stopped.add(pid)
            if worker in stopped:  # until it says nothing, nothing is wrong with it
                await wait_all_tasks_blocked()
                self._clock.jump(START_S_MAX)
        if spare in stopped:  # the next worker is frozen, and found out by its silence
            while len(descendants() - self._older) > 1 or len(children() - self._unreaped) > 1:
                await look_again()
            await wait_all_tasks_blocked()
            self._clock.jump(IMPORT_S_MAX)
        if plan == PLANS["the spare is killed"]:  # which nobody notices before it is needed
            await self._engine.restart()
        while not self._engine.served:
            await self._engine.changed(self._engine.generation)

    async def _follow(self, job: Asked) -> None:
        pieces: list[EnginePiece] = []
        try:
            async for piece in self._engine.submit(job.job(self._engine.hpke_key)):
                pieces.append(piece)
                self._read += 1
        except EngineError as error:
            job.open(pieces)  # what came before is whole, and in order
            self.ends.append(error.code)
            return
        self.ends.append([token for piece in job.open(pieces) for token in piece.tokens])


async def test_no_job_is_lost_when_processes_are_killed_and_stopped_at_random(
    tiny: Tiny, tmp_path: Path, mock_clock: MockClock, older: set[int]
) -> None:
    random = Random(1)
    asked = [Asked(Work((prompt,)), tiny.chat, parameters=LONG) for prompt in prompts(random, 4)]
    async with open_engine(tiny.store, [tiny.chat], log_path=tmp_path / "log", spare=True) as engine:
        texts = [(await each.text(engine))[0] for each in asked]
        attacked = Attacked(engine, tiny, mock_clock, older)
        for name in random.sample(sorted(PLANS), len(PLANS)):
            plan = PLANS[name]
            jobs = [Asked(each.work, tiny.chat, parameters=LONG) for each in asked]
            await attacked.attack(jobs, plan, random.randrange(1, 60))
            assert len(attacked.ends) == 4
            if any(victim == "worker" for victim, _ in plan):
                assert attacked.ends == [Code.WORKER_DIED] * 4, name
            else:
                assert sorted(map(str, attacked.ends)) == sorted(map(str, texts)), name
            assert engine.free_slots == 4
        assert [(await each.text(engine))[0] for each in asked] == texts
    await until(0, older)


async def test_a_storm_of_cancels_frees_every_slot_and_changes_nobodys_text(engine: Engine, tiny: Tiny) -> None:
    random = Random(5)
    neighbour = Asked(Work((tuple(range(40, 85)),)), tiny.chat, parameters=LONG)
    text, values = await neighbour.text(engine)
    tolerance = tiny.store.open(tiny.chat).manifest.tolerance
    storm = trio.CancelScope()
    calm: list[bool] = []

    async def cancel(count: int) -> None:
        for prompt in prompts(random, count):
            entry, cid, work = random.choice(
                [
                    ("generate", tiny.chat, Work((prompt,))),
                    ("score", tiny.chat, Work(((*prompt, 5, 6, 7),), claimed=3)),
                    ("call", tiny.embed, Work((prompt[:30],) * 9)),
                ]
            )
            job = Asked(work, cid, entry, LONG if entry == "generate" else Parameters())
            while engine.free_slots < 2:  # one is the neighbour's, between two of its jobs
                await trio.lowlevel.checkpoint()
            answer = engine.submit(job.job(engine.hpke_key))
            for _ in range(random.randrange(3)):
                with suppress(StopAsyncIteration):
                    await anext(answer)
            engine.cancel(job.id)
            async for _ in answer:
                pass
        calm.append(True)
        if len(calm) == 3:
            storm.cancel()

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            for count in (100, 100, 100):
                nursery.start_soon(cancel, count)
            with storm:
                while True:
                    job = Asked(neighbour.work, tiny.chat, parameters=LONG)
                    said, worth = await job.text(engine)
                    assert said == text
                    assert np.abs(np.subtract(worth, values)).max() <= tolerance.value_micro
            engine.cancel(job.id)
        while engine.free_slots < 4:
            await trio.lowlevel.checkpoint()
    assert await neighbour.text(engine) == (text, values)  # alone again: to the bit
    assert engine.failure is None


DAEMON = """
import sys, trio
from pathlib import Path
from fallow.node.engine import keeper
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import open_engine
from fallow.node.engine.sandbox import Policy

async def main(store, cid, log, policy):
    async with open_engine(BundleStore(Path(store)), [cid], log_path=Path(log), spare=True, policy=lambda: Policy(policy)):
        print("ready", flush=True)
        await trio.sleep_forever()

keeper.SPARE_S = 0.0
trio.run(main, *sys.argv[1:])
"""


@pytest.mark.parametrize("policy", [Policy.REQUIRED, Policy.OFF])
async def test_a_daemon_killed_outright_leaves_no_process_behind_not_even_stopped_ones(
    bwrap: str, tiny: Tiny, tmp_path: Path, policy: Policy
) -> None:
    command = [sys.executable, "-c", DAEMON, str(tiny.store.root), tiny.embed, str(tmp_path / "log"), policy]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:  # noqa: ASYNC220  # nothing else runs
        assert daemon.stdout is not None
        assert await trio.to_thread.run_sync(daemon.stdout.readline) == "ready\n"
        with trio.fail_after(60):
            while sum(map(runs_worker, family := offspring(daemon.pid))) < 2:
                await look_again()
            assert len(family) == (4 if policy is Policy.REQUIRED else 2)
            handles = [os.pidfd_open(pid) for pid in family]
            for pid in family:
                os.kill(pid, signal.SIGSTOP)
            daemon.send_signal(signal.SIGKILL)
            for handle in handles:
                await trio.lowlevel.wait_readable(handle)
                os.close(handle)


def runs_worker(pid: int) -> bool:
    """Whether the process executes a worker's own code: once it has bound itself to its parent, it ignores SIGINT."""
    (ignored,) = re.findall(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(ignored, 16) >> (signal.SIGINT - 1) & 1)


def offspring(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has just ended
            for child in map(int, task.read_text().split()):
                found += [child, *offspring(child)]
    return found


async def test_an_input_that_is_sealed_under_another_order_is_refused_wherever_it_lies(
    engine: Engine, tiny: Tiny
) -> None:
    """Also where the daemon gives a worker one client's bytes as another's, while both have a job."""
    for work, own_end in ((Work(((7, 8, 9),)), None), (Work(((999,) * 30_000,)), Code.INPUT_TOO_LONG)):
        victim, thief = (Asked(work, tiny.chat, client=bytes([n]) * 32) for n in (1, 2))
        given = victim.job(engine.hpke_key)
        assert (len(given.sealed) > LEAST_BYTES) == bool(own_end)  # that one goes by shared memory
        honest = engine.submit(given)
        for digest in (given.input_digest, thief.job(engine.hpke_key).input_digest):
            assert await ended(engine.submit(thief.job(engine.hpke_key, sealed=given.sealed, input_digest=digest))) == (
                Code.INPUT_MISMATCH
            )
        assert await ended(honest) == own_end
    assert engine.failure is None


async def ended(answer: Answer) -> Code | None:
    """How it ends: with this error, or whole."""
    try:
        async for _ in answer:
            pass
    except EngineError as error:
        return error.code
    return None
