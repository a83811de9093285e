"""From a vehicle's signal on the wire to an idle accelerator: a whole node, a databroker, texts, drive-aways at random.

    python benchmarks/yielding.py [NAME] [--drives N] [--seed N]        a text bundle built on this machine

This process is the vehicle, and serves VISSv2 over a real WebSocket; the node and its worker are processes of their own. Each
time, at a random moment while texts are written, the ignition goes on. What counts is the time from the moment at which the
signal is handed to the socket until the worker and its sandbox are reaped, so that nothing of them holds a processor. Then the
ignition goes off, and the next begins when the node is ready.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import jobs
import psutil
import table
import trio

from fallow.client import connect
from fallow.node import control
from fallow.node.engine.bundles import Bundle
from fallow.protocol.errors import FallowError

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.sensors.servers import PATHS_6, Databroker, serving

DRIVES, TEXTS = 100, 3
IDLE_AIM_MS = 250
WORKS_S = (0.3, 1.5)
TICK_S = 0.0005
IGNITION = "Vehicle.LowVoltageSystemState"


def main() -> None:
    parser = argparse.ArgumentParser()
    jobs.text_bundle(parser)
    parser.add_argument("--drives", type=int, default=DRIVES)
    parser.add_argument("--seed", type=int, default=8)
    options = parser.parse_args()
    _, bundle = jobs.installed(options.name)
    idle = trio.run(measure, bundle, options.drives, random.Random(options.seed))
    table.head()
    row(f"signal to worker reaped, {len(idle)} drive-aways of {TEXTS} texts", idle, IDLE_AIM_MS)


async def measure(bundle: Bundle, drives: int, chance: random.Random) -> list[float]:
    with tempfile.TemporaryDirectory() as scratch:
        async with serving(Databroker(dict(PATHS_6))) as car:
            state, process = start(Path(scratch), bundle, car.url)
            try:
                assert process.stdout is not None
                ready = json.loads(await trio.to_thread.run_sync(process.stdout.readline))
                async with connect(bootstrap=ready["addresses"]) as mesh:
                    return [await one(mesh, bundle, car, state, process.pid, chance) for _ in range(drives)]
            finally:
                process.terminate()
                await trio.to_thread.run_sync(process.wait)


def start(folder: Path, bundle: Bundle, url: str) -> tuple[Path, subprocess.Popen[str]]:
    settings = (
        f'state = "{folder / "state"}"\nkind = "vehicle"\nreach = "direct"\nsettle_s = 0\nbundles = ["{bundle.cid}"]\n'
        f'bootstrap = []\n[[sensors]]\nkind = "viss"\nurl = "{url}"\nstale_s = 10\n'
    )
    (folder / "node.toml").write_text(settings)
    words = [sys.executable, "-m", "fallow.node", "--config", str(folder / "node.toml")]
    return folder / "state", subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


async def one(mesh: Any, bundle: Bundle, car: Databroker, state: Path, pid: int, chance: random.Random) -> float:
    """Seconds from the signal until the worker was reaped."""
    await until(state, "ready")
    async with trio.open_nursery() as nursery:
        for number in range(TEXTS):
            nursery.start_soon(write, mesh, bundle.manifest.name, number)
        await trio.sleep(chance.uniform(*WORKS_S))
        workers = busiest(pid)
        began = time.perf_counter()
        await car.set(IGNITION, "ON")
        while any(each.is_running() for each in workers):  # noqa: ASYNC110 - the kernel tells nobody but its parent
            await trio.sleep(TICK_S)
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    await until(state, "not-eligible")
    await car.set(IGNITION, "OFF")
    print(f"{1e3 * took:.0f} ms", file=sys.stderr, flush=True)
    return took


def busiest(pid: int) -> list[psutil.Process]:
    """The worker that computes, and its sandbox."""
    below = psutil.Process(pid).children(recursive=True)
    worker = max(below, key=lambda each: each.cpu_times().user)
    return [worker, *(each for each in worker.parents() if each in below)]


async def write(mesh: Any, name: str, number: int) -> None:
    """A text that is cut off: there is nobody else here to go on with it."""
    with suppress(FallowError):
        async for _ in mesh.stream(name, f"Count to {number} thousand.", max_tokens=400, assurance="none"):
            pass


async def until(state: Path, wanted: str) -> None:
    with trio.fail_after(120):
        while (await trio.to_thread.run_sync(control.request, state, control.STATUS))["state"] != wanted:  # noqa: ASYNC110
            await trio.sleep(0.05)


def row(name: str, samples_s: list[float], aim_ms: int) -> None:
    samples = [1e3 * each for each in samples_s]
    p99 = quantiles(samples, n=100, method="inclusive")[98]
    table.row(f"{name}: p50", f"{median(samples):.0f} ms")
    table.row(f"{name}: p99", f"{p99:.0f} ms", f"<= {aim_ms} ms", p99 <= aim_ms)
    table.row(f"{name}: longest", f"{max(samples):.0f} ms")


if __name__ == "__main__":
    main()
