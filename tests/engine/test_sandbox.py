"""What holds a worker that has been taken over: each layer alone and all together, on this machine, by trying."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import psutil
import pytest
import trio

from fallow.node.engine import sandbox
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.cgroup import CGROUP
from fallow.node.engine.confinement import LANDLOCK, LIMITS, MEASURES, MEMORY, SEALED, SECCOMP, memory_bytes
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.kept import RATES, SPEED
from fallow.node.engine.process import WorkerProcess
from fallow.node.engine.sandbox import BUBBLEWRAP, Box, Policy, bubblewrap
from fallow.node.engine.trial import ATTEMPTS, try_out
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.identity import cid
from fallow.protocol.work import Parameters, Work

from ..moments import look_again
from .conftest import Asked, Tiny
from .scripted import BUNDLE
from .test_keeper import outcome, replaced, scripted

ALL = {BUBBLEWRAP, *MEASURES}


def test_without_any_protection_every_attempt_succeeds() -> None:
    """Else the others would prove nothing. (Not all of the last three can be made by everybody, so they may fail.)"""
    assert set(try_out("", confined=False).attempts) == set(ATTEMPTS)
    assert set(ATTEMPTS) - set(try_out("", confined=False).holes) <= {
        "mount",
        "setuid",
        "ptrace",
        "read memory",
        "core",
    }


def test_nothing_gets_out_of_the_whole_sandbox(bwrap: str) -> None:
    trial = try_out(bwrap)
    assert set(trial.measures) == ALL
    assert trial.holes == ()
    assert (trial.attempts["passwd"], trial.attempts["secret"]) == ("ENOENT", "ENOENT")  # not even their names


def test_what_a_worker_does_to_itself_holds_without_bubblewrap() -> None:
    trial = try_out("")
    assert set(trial.measures) == {LIMITS, LANDLOCK, MEMORY, SECCOMP, SEALED}
    assert trial.holes == ()


def test_bubblewrap_alone_hides_network_files_and_processes(bwrap: str) -> None:
    trial = try_out(bwrap, confined=False)
    assert trial.measures == (BUBBLEWRAP,)
    for attempt in (
        "network",
        "passwd",
        "secret",
        "write",
        "processes",
        "ptrace",
        "read memory",
        "signal",
        "mount",
        "setuid",
    ):
        assert trial.attempts[attempt], attempt


async def sealed(engine: Engine) -> None:
    """Every program is loaded, and nothing is written any more."""
    with trio.fail_after(120):
        while SEALED not in engine.measures:
            await look_again()


async def test_the_real_worker_answers_inside_and_says_what_holds(bwrap: str, engine: Engine, tiny: Tiny) -> None:
    await sealed(engine)
    assert set(engine.measures) - {CGROUP} == ALL
    tokens, _ = await Asked(Work((tuple(range(40, 85)),)), tiny.chat).text(engine)
    assert len(tokens) == 16


async def test_a_sandbox_changes_no_bit_of_an_answer(engine: Engine, tiny: Tiny, tmp_path: Path) -> None:
    asked = Asked(Work(((7, 8, 9),)), tiny.chat, parameters=Parameters(max_tokens=24))
    async with open_engine(tiny.store, [tiny.chat], log_path=tmp_path / "log", policy=lambda: Policy.OFF) as bare:
        assert bare.measures == ()
        assert await asked.text(bare) == await asked.text(engine)


async def test_what_was_compiled_outside_is_used_and_not_written(bwrap: str, tiny: Tiny, tmp_path: Path) -> None:
    async with open_engine(tiny.store, [tiny.chat], log_path=tmp_path / "log") as engine:
        await sealed(engine)
        measured = {SPEED, RATES + tiny.store.open(tiny.chat).hash.hex()}
        assert {path.name for path in tiny.store.worker_cache([tiny.chat]).iterdir()} == measured


async def test_a_worker_that_is_never_idle_is_sealed_too_and_tries_no_write_from_then_on(
    engine: Engine, tiny: Tiny, tmp_path: Path
) -> None:
    """Its jobs do to the states whatever can be done to them: they share batches, leave, come back, and get longer."""

    async def keep_busy() -> None:
        for length in cycle((85, 20, 45, 130)):
            asked = Asked(Work((tuple(range(4, 4 + length)),)), tiny.chat, parameters=Parameters(max_tokens=40))
            await asked.text(engine)

    with trio.fail_after(150):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(keep_busy)
            await sealed(engine)
            for _ in range(8):
                await Asked(Work((tuple(range(60)),)), tiny.chat, parameters=Parameters(max_tokens=90)).text(engine)
            nursery.cancel_scope.cancel()
    assert "Error writing" not in (tmp_path / "worker.log").read_text()


async def test_workers_of_other_bundles_do_not_read_what_one_compiled(bwrap: str, tiny: Tiny, tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "store")
    (store.root / "bundles").mkdir(parents=True)
    for name in (tiny.chat, tiny.embed):
        (store.root / "bundles" / name).symlink_to(tiny.store.root / "bundles" / name)
    async with open_engine(store, [tiny.embed], log_path=tmp_path / "log") as engine:
        await sealed(engine)
        own = store.worker_cache([tiny.embed])
        assert list(own.glob("*-cache"))
        assert list((own / "programs").iterdir())
    assert store.worker_cache([tiny.embed, tiny.embed]) == own
    assert store.worker_cache([tiny.embed, tiny.chat]) != own
    assert list(store.compile_cache.iterdir()) == []


async def test_required_means_no_worker_without_a_sandbox(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bubblewrap.cache_clear()
    try:
        with pytest.raises(EngineError, match="bubblewrap is not installed") as caught:
            await open_engine(
                tiny.store, [tiny.embed], log_path=tmp_path / "log", policy=lambda: Policy.REQUIRED
            ).__aenter__()
        assert caught.value.code == Code.SANDBOX_MISSING
        assert "apt-get install bubblewrap" in caught.value.advice
        async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log") as engine:
            await sealed(engine)
            assert set(engine.measures) - {CGROUP} == ALL - {BUBBLEWRAP}
    finally:
        bubblewrap.cache_clear()


def test_a_bubblewrap_that_cannot_make_a_sandbox_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    bubblewrap.cache_clear()
    try:
        assert not bubblewrap()
        assert "No permissions to create new namespace" in bubblewrap().why_not
    finally:
        bubblewrap.cache_clear()


@pytest.mark.parametrize("behaviour", ["garbage", "a frame of 4 GiB"])
async def test_a_worker_that_breaks_the_rules_is_killed_through_its_box(
    bwrap: str, tmp_path: Path, behaviour: str
) -> None:
    async with scripted(tmp_path, behaviour) as engine:
        assert set(engine.measures) - {CGROUP} == {BUBBLEWRAP}
        key, seen = engine.hpke_key, engine.generation
        error = await outcome(engine)
        assert isinstance(error, EngineError)
        assert error.code == Code.WORKER_DIED
        await replaced(engine, key, seen)


@pytest.fixture
def adopting() -> Iterator[None]:
    """Orphans below become this process's children, as elsewhere they become init's."""
    set_child_subreaper = 36
    libc = ctypes.CDLL(None)
    assert libc.prctl(set_child_subreaper, 1) == 0
    yield
    assert libc.prctl(set_child_subreaper, 0) == 0


@pytest.mark.usefixtures("adopting")
async def test_a_killed_worker_is_reaped_by_its_box_and_leaves_no_zombie(bwrap: str, tmp_path: Path) -> None:
    box = Box(bwrap, (), (tmp_path,))
    for _ in range(10):
        worker = WorkerProcess([sys.executable, "-c", "input()"], tmp_path / "log", box)
        pid = worker.pid
        await worker.kill_and_reap()
        assert not psutil.pid_exists(pid)


async def test_a_worker_whose_log_is_flooded_costs_no_disk(bwrap: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(bytes(5 * 2**20))
    async with open_engine(
        BundleStore(tmp_path),
        [cid(BUNDLE)],
        log_path=log,
        command=[sys.executable, str(Path(__file__).with_name("scripted.py")), "x"],
    ):
        assert log.stat().st_size < 2**20
        assert log.with_name("log.1").stat().st_size == 5 * 2**20


DAEMON = """
import sys, trio
from pathlib import Path
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import open_engine

async def main(store, cid, log):
    async with open_engine(BundleStore(Path(store)), [cid], log_path=Path(log)) as engine:
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


async def test_a_daemon_killed_outright_leaves_no_worker_behind(tiny: Tiny, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DAEMON, str(tiny.store.root), tiny.embed, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:  # noqa: ASYNC220  # nothing else runs
        assert daemon.stdout is not None
        assert await trio.to_thread.run_sync(daemon.stdout.readline) == "ready\n"
        family = descendants(daemon.pid)
        assert len(family) in (1, 2)  # the worker, and a sandbox around it
        handles = [os.pidfd_open(pid) for pid in family]
        daemon.send_signal(signal.SIGKILL)
        with trio.fail_after(20):
            for handle in handles:
                await trio.lowlevel.wait_readable(handle)
                os.close(handle)


def descendants(pid: int) -> list[int]:
    children = [int(word) for task in Path(f"/proc/{pid}/task").glob("*/children") for word in task.read_text().split()]
    return [each for child in children for each in (child, *descendants(child))]


def test_the_environment_holds_nothing_that_was_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    found = sandbox.environment()
    assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # as NVML counts, which caps them
    assert "AWS_SECRET_ACCESS_KEY" not in found
    assert (found["JAX_PLATFORMS"], found["HOME"]) == ("cpu", "/tmp")


def test_the_memory_bound_grows_with_the_bundle_and_ends_at_the_machines(tiny: Tiny) -> None:
    manifest = tiny.store.open(tiny.chat).manifest
    none, one = memory_bytes([], 4), memory_bytes([manifest], 4)
    assert 2 * 2**30 <= none < one
    assert memory_bytes([manifest] * 10**6, 4) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
