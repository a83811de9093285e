"""However a worker ends, its owner is told what happened, what was kept and what comes next. Real processes.

The engine's clock stands still where a process may take its time to end.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from math import inf
from pathlib import Path

import psutil
import pytest
import trio
from trio.testing import MockClock

from fallow.node.engine.cgroup import Group
from fallow.node.engine.ended import Ended, status_in_words
from fallow.node.engine.engine import Engine
from fallow.node.engine.process import WorkerProcess
from fallow.node.engine.sandbox import Policy
from fallow.protocol.errors import Code, EngineError

from .scripted import BUNDLE, OTHER
from .test_keeper import job, outcome, scripted

AGAIN = "Another one is started at once."


@pytest.mark.parametrize(
    ("status", "boxed", "said"),
    [
        (0, False, "by itself, with exit status 0"),
        (3, True, "by itself, with exit status 3"),
        (200, False, "by itself, with exit status 200"),
        (-signal.SIGKILL, False, "by SIGKILL (signal 9: which the kernel sends when memory runs out"),
        (128 + signal.SIGKILL, True, "by SIGKILL (signal 9: "),
        (128 + signal.SIGSEGV, True, "by SIGSEGV (signal 11: a fault in native code)"),
        (-signal.SIGTERM, False, "by SIGTERM (signal 15)"),
        (-40, False, "by a signal (signal 40)"),
        (int(signal.SIGALRM), True, "at its own alarm clock"),
        (None, True, "how is not known"),
    ],
)
def test_an_exit_status_in_words(status: int | None, boxed: bool, said: str) -> None:
    assert said in status_in_words(status, boxed=boxed)


@pytest.mark.parametrize(("jobs", "kept"), [(0, "nothing is lost"), (1, "1 job ended"), (2, "2 jobs ended")])
def test_what_was_kept_in_words(jobs: int, kept: str) -> None:
    ended = Ended(Code.WORKER_DIED, "It ended.", jobs, AGAIN, 0.0)
    assert kept in ended.kept
    assert str(ended) == f"It ended. {ended.kept} {AGAIN}"


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("a fault", "by SIGSEGV (signal 11: a fault in native code)"),
        ("an error", "with exit status 1"),
        ("the end", "with exit status 0"),
        ("its alarm clock", "at its own alarm clock"),
        ("garbage", "broke the rules of its socket and was killed. Not msgpack"),
    ],
)
@pytest.mark.parametrize("policy", [Policy.PREFERRED, Policy.OFF])
async def test_the_end_of_a_worker_says_why(
    tmp_path: Path, behaviour: str, said: str, policy: Policy, mock_clock: MockClock
) -> None:
    async with scripted(tmp_path, behaviour, policy=policy) as engine:
        error = await outcome(engine)
        ended = engine.ended
        assert ended is not None
        assert (ended.code, ended.jobs, ended.next) == (Code.WORKER_DIED, 1, AGAIN)
        assert said in ended.what
        assert ended.what.startswith(str(getattr(error, "message", "an answer")))
        assert ('is "it broke \ufffd[31mbadly"' in ended.what) is (behaviour == "an error")
        await ready(engine)


async def test_a_worker_that_closes_its_socket_and_runs_on_says_so(tmp_path: Path, mock_clock: MockClock) -> None:
    async with scripted(tmp_path, "close and run on") as engine:
        mock_clock.autojump_threshold = 0.5
        error = await outcome(engine)
        mock_clock.autojump_threshold = inf
        assert isinstance(error, EngineError)
        assert error.message == "The worker closed its socket and ran on, and was killed."
        assert engine.ended is not None
        assert engine.ended.what.startswith(error.message)
        while not engine.hpke_key:
            await engine.changed(engine.generation)


@pytest.mark.parametrize("policy", [Policy.PREFERRED, Policy.OFF])
async def test_a_worker_that_is_killed_from_outside_says_so(
    tmp_path: Path, policy: Policy, mock_clock: MockClock
) -> None:
    before = workers()
    async with scripted(tmp_path, "wait", policy=policy) as engine:
        engine.submit(job())
        (worker,) = workers() - before
        seen = engine.generation
        os.kill(worker, signal.SIGKILL)
        with trio.fail_after(60):
            await engine.changed(seen)
        assert engine.ended is not None
        assert "was ended by SIGKILL (signal 9" in engine.ended.what
        assert f"wrote nothing to {tmp_path / 'worker.log'}" in engine.ended.what
        await ready(engine)


async def test_a_worker_that_does_not_read_says_so(tmp_path: Path) -> None:
    async with scripted(tmp_path, "wait") as engine:
        answer, seen = engine.submit(job()), engine.generation
        for _ in range(1000):  # with no turn for who would pass them on
            engine.pace(0.5)
        with trio.fail_after(60):
            await engine.changed(seen)
        assert engine.ended is not None
        assert "did not read what it was sent" in engine.ended.what
        assert answer.waiting == 1


async def test_a_worker_that_ends_over_a_program_says_how(tmp_path: Path, mock_clock: MockClock) -> None:
    async with scripted(tmp_path, "die of the other's late program", BUNDLE, OTHER) as engine:
        error = await outcome(engine, OTHER)
        assert engine.ended is not None
        assert "while it loaded or measured one of its programs" in str(error)
        assert "exit status 1" in engine.ended.what
        assert "exit status" not in str(error)  # which its client may be told in the end


async def test_a_worker_that_never_gets_ready_says_why_and_when_the_next_one_comes(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with scripted(tmp_path, "die of loading once") as engine:
        assert engine.ended is not None
        assert engine.ended.jobs == 0
        assert "was ended by SIGKILL" in engine.ended.what
        assert engine.ended.next == AGAIN
        engine.kill()
        assert engine.ended is None


async def test_a_worker_that_had_no_memory_left_says_so(tmp_path: Path, mock_clock: MockClock) -> None:
    (group := tmp_path / "group").mkdir()
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 1\n")
    process = WorkerProcess(["sh", "-c", "kill -9 $$"], tmp_path / "log", group=Group(group, ("memory",)))
    assert await anext(process, None) is None
    assert "had no more memory" in await process.how_it_ended()
    await process.kill_and_reap()


def test_a_group_in_which_nothing_was_killed_says_nothing(tmp_path: Path) -> None:
    group = Group(tmp_path, ("memory",))
    assert not group.out_of_memory
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 0\n")
    assert not group.out_of_memory


async def test_last_words_are_its_own(tmp_path: Path, mock_clock: MockClock) -> None:
    (log := tmp_path / "log").write_text("what another one wrote\n")
    process = WorkerProcess(["true"], log)
    assert "exit status 0" in await process.how_it_ended()
    assert process.log.last_words() == f"It wrote nothing to {log}."
    log.unlink()  # set aside by the next one
    assert process.log.last_words() == f"It wrote nothing to {log}."
    await process.kill_and_reap()


def workers() -> set[int]:
    """Scripted workers that descend from us."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if "scripted.py" in " ".join(process.cmdline()) and "bwrap" not in process.name():
                found.add(process.pid)
    return found


async def ready(engine: Engine) -> None:
    with trio.fail_after(60):
        while not engine.hpke_key:
            await engine.changed(engine.generation)
