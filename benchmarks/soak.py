"""A day of hosts that come and go, in minutes: whether what stays grows in memory, descriptors or tasks.

    python benchmarks/soak.py [--hosts 8] [--hours 24] [--minutes 20]

Everything that happens every so often (`PERIODS`) happens so much oftener, and what is kept for so long is kept so much
shorter; what answers to the speed of real links stays as it is. Meanwhile clients that nobody has seen before join, search
and leave, and hosts are killed and replaced. Watched are the hosts by which the others join, and the searching process. It
ends with status 1 if anything grew. `--objects` says which Python objects there are more of than after a third.

A loaded machine does less: the table says how many of the day's rounds were done.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import mean
from typing import Final

import discovery
import hosts
import table
import trio
from hosts import Hosts, State

from fallow.node import announcing, link, presence, probing, profiles, rates, vantage
from fallow.node.network import dht, entries, index

PERIODS: Final = (
    (presence, "ANNOUNCE_S"),
    (probing, "EVERY_S"),
    (probing, "AGAIN_S"),
    (probing, "WITNESS_EVERY_S"),
    (probing, "WITNESS_MS_MAX"),
    (vantage, "WINDOW_S"),
    (rates, "FRESH_S"),
    (link, "POLL_S"),
    (profiles, "PROFILE_MS_MAX"),
    (presence, "SPREAD_S"),
    (announcing, "GAP_S"),
    (dht, "REFRESH_S"),
    (dht, "SOUGHT_S"),
    (dht, "SWEEP_S"),
    (index, "VALUE_S"),
    (entries, "PROVIDED_S"),
)
"""Where each is read: a name that is imported elsewhere has to be changed there."""
A_MINUTE: Final = ((probing, "PROBES_MIN"), (probing, "ALL_MIN"), (probing, "SENT_MIN"))
"""What may happen so often in a minute, and so much oftener in a shorter one."""
SAMPLE_S: Final = 5.0
VISIT_S: Final = 1.0
"""Between two new clients."""
CHURN_S: Final = 15.0
"""Between two hosts that go and come."""
WARM: Final = 1 / 3
"""Of the run, in which caches fill: not looked at."""
WINDOWS: Final = 12
SIGMAS: Final = 3.0
"""A slope that noise alone would give less often than once in a hundred runs."""


@dataclass
class Watched:
    """One process over the run."""

    name: str
    samples: list[tuple[float, State]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Kind:
    """What must not grow, and by how much it may over the looked-at part of the run before it counts."""

    name: str
    of: Callable[[State], float]
    slack: float


KINDS: Final = (
    Kind("memory, MiB", lambda state: state.private_bytes / 2**20, 2.0),
    Kind("descriptors", lambda state: state.descriptors, 8.0),
    Kind("tasks", lambda state: state.tasks, 24.0),
)
"""The slack: two connections' worth of tasks and descriptors come and go; memory is taken in arenas of a MiB."""


def compress(factor: float) -> None:
    """In this process, every period is so many times shorter from now on."""
    for module, name in PERIODS:
        before = vars(module)[name]
        vars(module)[name] = type(before)(before / factor)
    for module, name in A_MINUTE:
        vars(module)[name] = round(vars(module)[name] * factor)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--objects", action="store_true")
    options = parser.parse_args()
    hosts.in_own_network()
    hosts.raise_descriptors()
    return trio.run(soak, options.hosts, options.hours, options.minutes, options.objects)


async def soak(count: int, hours: float, minutes: float, objects: bool) -> int:
    seconds, factor = 60 * minutes, 60 * hours / minutes
    compress(factor)
    async with hosts.running(count, partial(compress, factor)) as mesh, trio.open_nursery() as nursery:
        watched = [Watched(f"host {number}") for number in range(1, hosts.BOOTSTRAPS + 1)]
        here = Watched("where clients come and go")
        visits, churn = [0], [0]
        nursery.start_soon(come_and_go, mesh, churn)
        nursery.start_soon(visit, mesh, visits)
        began, early = trio.current_time(), None
        while (passed := trio.current_time() - began) < seconds:
            for each, host in zip(watched, mesh.live[: len(watched)], strict=True):
                each.samples.append((passed, await host.state()))
            here.samples.append((passed, own_state()))
            if objects and early is None and passed > seconds * WARM:
                early = [await host.objects() for host in mesh.live[: len(watched)]]
            await trio.sleep(SAMPLE_S)
        late = [await host.objects() for host in mesh.live[: len(watched)]] if objects else []
        nursery.cancel_scope.cancel()
    report(watched, factor, minutes, visits[0], churn[0])
    grew = [slope(each, kind) for each in [*watched, here] for kind in KINDS]
    for before, after in zip(early or [], late, strict=False):
        print(", ".join(f"{name} +{number}" for name, number in (after - before).most_common(25)), file=sys.stderr)
    return int(any(grew))


async def come_and_go(mesh: Hosts, done: list[int]) -> None:
    """One after another the hosts that nobody joins by are killed, each replaced by one with a new key."""
    chance = random.Random(0)
    while True:
        await trio.sleep(CHURN_S)
        await mesh.kill([chance.choice(mesh.live[hosts.BOOTSTRAPS :])])
        await mesh.start()
        done[0] += 1


async def visit(mesh: Hosts, done: list[int]) -> None:
    """One new client after another has searched."""
    while True:
        async with discovery.client(mesh) as looking:
            await discovery.search(looking)
        done[0] += 1
        await trio.sleep(VISIT_S)


def own_state() -> State:
    """Of this process. Its tasks are the bench's own and those of one visit: the most that a sample can see."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    return State(0.0, hosts.private_bytes(os.getpid()), hosts.descriptors(), tasks, 0, {})


def report(watched: Sequence[Watched], factor: float, minutes: float, visits: int, churn: int) -> None:
    """What happened, beside what a day has."""
    table.head()
    table.row("periods shortened", f"{factor:.0f} times, for {minutes:.0f} minutes")
    done = mean(each.samples[-1][1].rounds["announced"] for each in watched)
    hours = done * presence.ANNOUNCE_S * factor / 3600
    table.row("rounds announced by each watched host", f"{done:.0f}: {hours:.1f} h of them")
    table.row("clients that joined, searched and left", str(visits))
    table.row("hosts killed and replaced", str(churn))


def slope(watched: Watched, kind: Kind) -> bool:
    """Whether it grew: the line through its samples rises, by more than noise and by more than the slack."""
    end = watched.samples[-1][0]
    points = floors([(at, kind.of(state)) for at, state in watched.samples if at >= end * WARM])
    rise, error = fitted(points)
    span = points[-1][0] - points[0][0]
    grew = rise > SIGMAS * error and rise * span > kind.slack
    first, last = points[0][1], points[-1][1]
    table.row(
        f"{watched.name}: {kind.name}",
        f"{first:.1f} to {last:.1f}, line {rise * span:+.2f} (± {error * span:.2f}) over {span / 60:.0f} minutes",
        f"<= +{kind.slack:g}",
        not grew,
    )
    return grew


def floors(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The least of each of `WINDOWS` spans: what is under way comes and goes with the load, and what leaks stays."""
    size = max(1, len(points) // WINDOWS)
    return [min(points[index : index + size], key=lambda point: point[1]) for index in range(0, len(points), size)]


def fitted(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope of the least squares' line, and its standard error."""
    middle, level = mean(x for x, _ in points), mean(y for _, y in points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    rise = sum((x - middle) * (y - level) for x, y in points) / spread
    rest = sum((y - level - rise * (x - middle)) ** 2 for x, y in points)
    return rise, (rest / max(1, len(points) - 2) / spread) ** 0.5


if __name__ == "__main__":
    sys.exit(main())
