"""The machine taken back while it works: from the kill until nothing of it runs, and its memory is free.

    python benchmarks/owner.py [NAME] [--kills N] [--seed N]        a text bundle built on this machine

200 kills of a worker that writes four texts, at random moments of a fixed seed. Each is started again before the next, which
is most of the time that this takes: with three seconds a kill, ten minutes. What counts is the worker that was killed and
its sandbox: reaped, so that nothing of them holds a processor. What the engine goes on running is measured after each kill.
Memory given back is what was the worker's own: mapped weights belong to the page cache and stay there for the next.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import jobs
import psutil
import table
import trio

from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.engine import Engine, open_engine

KILLS = 200
STREAMS, CLIENTS = 4, 2
AIM_MS = 250
WORKS_S = (0.2, 1.5)
"""So long after four texts are asked for the kill comes, drawn anew each time: while they are read, and while written."""
AFTER_S = 0.1
"""So long after a kill what is left is watched."""
GONE_S_MAX = 10.0
TICK_S = 0.0005
START_S_MAX = 600.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One of them."""

    gone_s: float
    own_bytes: int
    """Private and written: what no other process and no file holds."""
    pss_bytes: int
    """Its share of all that it had mapped, the weights as well."""
    left_cpu: float
    """Processors that were busy for what the engine goes on running, on average."""


def main() -> None:
    parser = argparse.ArgumentParser()
    jobs.text_bundle(parser)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args()
    kills = trio.run(measure, *jobs.installed(options.name), options.kills, random.Random(options.seed))
    table.head()
    yielded(kills)
    memory(kills)


async def measure(store: BundleStore, bundle: Bundle, count: int, chance: random.Random) -> list[Kill]:
    kills = []
    with tempfile.TemporaryDirectory() as scratch:
        async with open_engine(
            store, [bundle.cid], log_path=Path(scratch, "worker.log"), max_jobs=STREAMS, spare=True
        ) as engine:
            for number in range(1, count + 1):
                kills.append(await one_kill(engine, bundle, chance.uniform(*WORKS_S)))
                print(f"kill {number} of {count}: {1e3 * kills[-1].gone_s:.0f} ms", file=sys.stderr, flush=True)
                with trio.fail_after(START_S_MAX):
                    await engine.restart()
    return kills


async def one_kill(engine: Engine, bundle: Bundle, works_s: float) -> Kill:
    """Four texts are asked for, again and again, and the worker is killed so many seconds after."""
    clients = [os.urandom(32) for _ in range(CLIENTS)]
    before = {each.pid: busy_s(each) for each in below()}
    async with trio.open_nursery() as nursery:
        for index in range(STREAMS):
            nursery.start_soon(jobs.write_until_killed, engine, bundle, clients[index % CLIENTS])
        await trio.sleep(works_s)
        worker = max(below(), key=lambda each: busy_s(each) - before.get(each.pid, 0.0))
        ours = [worker, *(each for each in worker.parents() if each in below())]
        own_bytes, pss_bytes = memory_of(worker)
        began = time.perf_counter()
        engine.kill()
        with trio.fail_after(GONE_S_MAX):
            await reaped(ours)
        gone_s = time.perf_counter() - began
    left = {each: busy_s(each) for each in below()}
    await trio.sleep(AFTER_S)
    left_cpu = sum(busy_s(each) - earlier for each, earlier in left.items()) / AFTER_S
    return Kill(gone_s, own_bytes, pss_bytes, left_cpu)


async def reaped(processes: list[psutil.Process]) -> None:
    """None of them is there, not even as a zombie; seen within `TICK_S`."""
    while True:
        if not any(each.is_running() for each in processes):
            return
        await trio.sleep(TICK_S)


def below() -> list[psutil.Process]:
    """The processes that this one has started, and theirs."""
    return list(psutil.Process().children(recursive=True))


def busy_s(process: psutil.Process) -> float:
    """Processor time that it has used; 0 once it has gone."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def memory_of(process: psutil.Process) -> tuple[int, int]:
    """(private and written, proportional share) in bytes, by the kernel's own sum over all mappings."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(size.split()[0]) * 1024 for name, _, size in (line.partition(":") for line in lines)}
    return sizes["Private_Dirty"], sizes["Pss"]


def yielded(kills: list[Kill]) -> None:
    samples = [1e3 * kill.gone_s for kill in kills]
    p99 = quantiles(samples, n=100, method="inclusive")[98]
    name = f"kill to reaped, {len(kills)} kills of {STREAMS} texts"
    table.row(f"{name}: p50", f"{median(samples):.0f} ms")
    table.row(f"{name}: p99", f"{p99:.0f} ms", f"<= {AIM_MS} ms", p99 <= AIM_MS)
    table.row(f"{name}: longest", f"{max(samples):.0f} ms")
    left = [kill.left_cpu for kill in kills]
    table.row(
        f"processors busy in the {1e3 * AFTER_S:.0f} ms after, for what the engine goes on running",
        f"{median(left):.2f} (at most {max(left):.2f})",
    )


def memory(kills: list[Kill]) -> None:
    own, pss = (
        [each / 2**20 for each in column] for column in zip(*((k.own_bytes, k.pss_bytes) for k in kills), strict=True)
    )
    per_gib = [1e3 * kill.gone_s / (kill.own_bytes / 2**30) for kill in kills]
    table.row("memory given back: the worker's own", f"{median(own):.0f} MiB (at most {max(own):.0f})")
    table.row("beside it, mapped weights and libraries (the rest of its PSS)", f"{median(pss) - median(own):.0f} MiB")
    table.row("given back, by the time to reaped", f"{median(per_gib):.0f} ms per GiB")


if __name__ == "__main__":
    main()
