"""From a vehicle's signal on the wire to an idle accelerator: a whole node, a databroker, texts, drive-aways at random.

    python benchmarks/yielding.py [NAME] [--count N] [--seed N]        a text bundle built on this machine

This process is the vehicle and the client: it serves VISSv2 over a real WebSocket, and orders texts over libp2p; node and
worker are processes of their own. Each time, at a random moment while texts are written, the ignition goes on. What counts is
the time from the moment at which the signal is handed to the socket

- until the notice of it, verified, is in the client's hands on each of the job streams;
- until every process of the worker and its sandbox has ended: nothing of them holds a processor or the accelerator;
- until they are reaped as well.

Then the ignition goes off, and the next begins when the node is ready. A text that had ended by itself before the signal has no
notice, and is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import jobs
import psutil
import table
import trio
from nacl.signing import SigningKey

from fallow.client.tokenizer import Tokenizer
from fallow.node import control
from fallow.node.engine.bundles import Bundle
from fallow.node.log import wall_ms
from fallow.node.network.mesh import open_network
from fallow.node.network.table_rules import profile_rules
from fallow.protocol.errors import FallowError
from fallow.protocol.messages.jobs import YieldMessage
from fallow.protocol.work import Work

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.node.raw_client import Ask, Conversation, Payer, profile_of
from tests.sensors.servers import PATHS_6, Databroker, serving

COUNT, TEXTS, TOKENS = 100, 3, 400
IDLE_AIM_MS, NOTICE_AIM_MS = 250, 50
WORKS_S = (0.3, 1.5)
TICK_S = 0.0005
IGNITION = "Vehicle.LowVoltageSystemState"


@dataclass
class Times:
    """Seconds from each signal on."""

    notice: list[float] = field(default_factory=list)
    """One for each text that was being written."""
    idle: list[float] = field(default_factory=list)
    reaped: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser()
    jobs.text_bundle(parser)
    parser.add_argument("--count", type=int, default=COUNT, help="drive-aways")
    parser.add_argument("--seed", type=int, default=8)
    options = parser.parse_args()
    _, bundle = jobs.installed(options.name)
    before = os.getloadavg()[0]
    times = trio.run(measure, bundle, options.count, random.Random(options.seed))
    table.head()
    what = f"{options.count} drive-aways of {TEXTS} texts, load {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    rows(f"signal to notice on each job stream ({what})", times.notice, NOTICE_AIM_MS)
    rows("signal to worker ended: accelerator and processors idle", times.idle, IDLE_AIM_MS)
    rows("signal to worker and sandbox reaped", times.reaped, IDLE_AIM_MS)


async def measure(bundle: Bundle, count: int, chance: random.Random) -> Times:
    asks = [(SigningKey.generate(), prompt) for prompt in prompts(bundle)]
    times = Times()
    with tempfile.TemporaryDirectory() as scratch:
        async with serving(Databroker(dict(PATHS_6))) as car:
            state, process = start(Path(scratch), bundle, car.url, [key for key, _ in asks])
            try:
                assert process.stdout is not None
                ready = json.loads(await trio.to_thread.run_sync(process.stdout.readline))
                rules = profile_rules(wall_ms)
                async with open_network(os.urandom(32), [], ready["addresses"], rules, mode="client") as network:
                    for _ in range(count):
                        await one(network, bundle, car, state, process.pid, asks, chance, times)
            finally:
                process.terminate()
                await trio.to_thread.run_sync(process.wait)
    return times


def start(folder: Path, bundle: Bundle, url: str, keys: Sequence[SigningKey]) -> tuple[Path, subprocess.Popen[str]]:
    friends = json.dumps([bytes(key.verify_key).hex() for key in keys])
    settings = (
        f'state = "{folder / "state"}"\nkind = "vehicle"\nreach = "direct"\nsettle_s = 0\nbundles = ["{bundle.cid}"]\n'
        f'bootstrap = []\nfriends = {friends}\n[[sensors]]\nkind = "viss"\nurl = "{url}"\nstale_s = 10\n'
    )
    (folder / "node.toml").write_text(settings)
    words = [sys.executable, "-m", "fallow.node", "--config", str(folder / "node.toml")]
    return folder / "state", subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)


async def one(
    network: Any, bundle: Bundle, car: Databroker, state: Path, pid: int, asks: Sequence[tuple[SigningKey, Work]],
    chance: random.Random, times: Times,
) -> None:  # fmt: skip
    """One drive-away is in the times."""
    await until(state, "ready")
    profile = await profile_of(network, network.peers()[0])
    notices: list[float] = []
    async with trio.open_nursery() as nursery:
        for key, prompt in asks:
            ask = Ask(Payer(profile, key=key), bundle.cid, prompt, max_tokens=TOKENS)
            nursery.start_soon(write, network, ask, notices)
        await trio.sleep(chance.uniform(*WORKS_S))
        workers = busiest(pid)
        began = time.perf_counter()
        await car.set(IGNITION, "ON")
        async with trio.open_nursery() as watching:
            watching.start_soon(partial(ended, workers, began, times.idle))
            watching.start_soon(partial(reaped, workers, began, times.reaped))
        with trio.move_on_after(2):
            await until(state, "not-eligible")
        nursery.cancel_scope.deadline = trio.current_time() + 2
    times.notice += [at - began for at in notices]
    await until(state, "not-eligible")
    await car.set(IGNITION, "OFF")
    shown = ", ".join(f"{1e3 * (at - began):.0f}" for at in notices)
    print(
        f"idle {1e3 * times.idle[-1]:.0f} ms, reaped {1e3 * times.reaped[-1]:.0f}, notices {shown}",
        file=sys.stderr,
        flush=True,
    )


def prompts(bundle: Bundle) -> list[Work]:
    """Texts that the model goes on with for longer than anybody waits here. Made before: this process is the vehicle, too."""
    tokenizer = Tokenizer(bundle.manifest, (bundle.path / "tokenizer.json").read_bytes())
    texts = [f"Write a long story about {number} ships that sail around the world." for number in range(3, 3 + TEXTS)]
    return [Work((tokenizer.prompt(text),)) for text in texts]


async def write(network: Any, ask: Ask, notices: list[float]) -> None:
    """A text, paid for to its end; when the notice comes, it is noted."""
    try:
        talk = await Noting.begin(network, ask)
        assert isinstance(talk, Noting)
        try:
            await talk.run()
        finally:
            notices += talk.noticed
    except* FallowError as group:  # the text has no notice, then, or had it before
        print(f"a stream broke: {group.exceptions[0]}", file=sys.stderr)


class Noting(Conversation):
    """One that notes when it was told that the owner is back."""

    noticed: tuple[float, ...] = ()

    async def next(self) -> Any:
        message = await super().next()
        if isinstance(message, YieldMessage):
            self.noticed = (*self.noticed, time.perf_counter())
        return message


def busiest(pid: int) -> list[int]:
    """The worker that computes, and its sandbox."""
    below = psutil.Process(pid).children(recursive=True)
    worker = max(below, key=lambda each: each.cpu_times().user)
    return [each.pid for each in (worker, *(each for each in worker.parents() if each in below))]


async def ended(pids: Sequence[int], began: float, into: list[float]) -> None:
    """When the last of them had ended, by the kernel's word."""
    with suppress(ProcessLookupError):
        for pid in pids:
            handle = os.pidfd_open(pid)
            try:
                await trio.lowlevel.wait_readable(handle)
            finally:
                os.close(handle)
    into.append(time.perf_counter() - began)


async def reaped(pids: Sequence[int], began: float, into: list[float]) -> None:
    """When none of their numbers is taken any more: the kernel tells that to nobody but a parent."""
    left = list(pids)
    while left := [pid for pid in left if there(pid)]:  # noqa: ASYNC110
        await trio.sleep(TICK_S)
    into.append(time.perf_counter() - began)


def there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(state: Path, wanted: str) -> None:
    with trio.fail_after(120):
        while (await trio.to_thread.run_sync(control.request, state, control.STATUS))["state"] != wanted:  # noqa: ASYNC110
            await trio.sleep(0.05)


def rows(name: str, samples_s: Sequence[float], aim_ms: int) -> None:
    samples = [1e3 * each for each in samples_s]
    p99 = quantiles(samples, n=100, method="inclusive")[98]
    table.row(f"{name}: p50", f"{median(samples):.0f} ms")
    table.row(f"{name}: p99", f"{p99:.0f} ms", f"<= {aim_ms} ms", p99 <= aim_ms)
    table.row(f"{name}: longest of {len(samples)}", f"{max(samples):.0f} ms")


if __name__ == "__main__":
    main()
