"""From nothing to the first token: programs compiled and loaded, workers started, and an owner who gives the machine back.

    python benchmarks/start.py [NAME]        a text bundle built on this machine (smollm2-135m-instruct)

Cold: a copy of the bundle (by links, so that its weights are in memory) in a store with no compiled program. Warm: the same
store afterwards. Nothing else runs meanwhile, but what the engine itself does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jobs
import table
import trio

from fallow.node.engine import device
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.kept import Kept
from fallow.node.engine.loading import own_grant
from fallow.node.engine.programs import Model

ROUNDS = 5
RESTART_AIM_S = 1.5
QUIET_S = 5.0
"""Between two restarts: the worker, and whatever the engine keeps ready beside it, has got that far by then."""


def main() -> None:
    parser = argparse.ArgumentParser()
    jobs.text_bundle(parser)
    store, bundle = jobs.installed(parser.parse_args().name)
    table.head()
    with cold_copy(store, bundle) as empty:
        trio.run(workers, empty, bundle)
    with cold_copy(store, bundle) as empty:
        loading(empty, bundle)


@contextmanager
def cold_copy(store: BundleStore, bundle: Bundle) -> Iterator[BundleStore]:
    """A store with this bundle and nothing compiled, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=store.root, prefix="cold-") as scratch:
        shutil.copytree(bundle.path, Path(scratch, "bundles", bundle.cid), copy_function=os.link)
        yield BundleStore(Path(scratch))


def loading(store: BundleStore, bundle: Bundle) -> None:
    """Prints, for each program, the time from its file to something that runs, with none kept and all of them."""
    device.configure(store.compile_cache)
    params, grant = device.Weights(bundle), own_grant(Kept(store.compile_cache))
    cold, warm = (dict(load_each(Model(bundle, params, grant))) for _ in range(2))
    for name in cold:
        table.row(f"{name}: admitted and compiled / kept from before", f"{cold[name]:.2f} / {warm[name]:.2f} s")
    table.row(f"all {len(cold)} programs", f"{sum(cold.values()):.1f} / {sum(warm.values()):.1f} s")


def load_each(model: Model) -> Iterator[tuple[str, float]]:
    for role in ("prefill", "decode", "score"):
        for each in model.programs(role):
            began = time.perf_counter()
            each.load()
            yield each.program.name, time.perf_counter() - began


async def workers(store: BundleStore, bundle: Bundle) -> None:
    """Prints how long workers take to be ready, and an engine to write again after the machine was taken back."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "worker.log")
        table.row("a worker started, nothing compiled: ready", table.s([await opened(store, bundle, log)]))
        warm = [await opened(store, bundle, log) for _ in range(ROUNDS)]
        table.row("a worker started, compile cache full: ready", table.s(warm))
        async with open_engine(store, [bundle.cid], log_path=log, spare=True) as engine:
            at_once = [await taken_and_given_back(engine, bundle, 0.0) for _ in range(ROUNDS)]
            rested = [await taken_and_given_back(engine, bundle, QUIET_S) for _ in range(ROUNDS)]
    what = "killed while it writes, restarted: first token"
    aim = f"<= {RESTART_AIM_S} s"
    table.row(f"{what}, {QUIET_S:.0f} s after the last time", table.s(rested), aim, max(rested) <= RESTART_AIM_S)
    table.row(f"{what}, straight after the last time", table.s(at_once))


async def opened(store: BundleStore, bundle: Bundle, log: Path) -> float:
    """Seconds until an engine of its own is there; it is closed when every program has been loaded, and compiled at need."""
    began = time.perf_counter()
    await trio.Path(log).unlink(missing_ok=True)
    async with open_engine(store, [bundle.cid], log_path=log):
        took = time.perf_counter() - began
        await jobs.all_loaded(bundle, log)
    return took


async def taken_and_given_back(engine: Engine, bundle: Bundle, quiet_s: float) -> float:
    """Seconds from `restart` to the first token of a new job; the kill before it hit a job that was being written."""
    await trio.sleep(quiet_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.write_until_killed, engine, bundle)
        await trio.sleep(0.5)
        engine.kill()
    began = time.perf_counter()
    await engine.restart()
    text = await jobs.write(engine, bundle, jobs.PROMPT, 2)
    return text.arrivals[0] - began


if __name__ == "__main__":
    main()
