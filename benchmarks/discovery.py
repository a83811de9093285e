"""Discovery among many hosts: joining, finding ten live providers, a quarter of them dead, and what an idle host costs.

    python benchmarks/discovery.py [--hosts 20 50] [--finds 40] [--idle 660]

Each host is a process (`hosts.py`); each search is by a client that has just joined and knows nobody, except where it says
otherwise. In a network namespace of its own, where that can be made.
"""

from __future__ import annotations

import argparse
import random
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from statistics import median
from typing import Final

import hosts
import table
import trio
from hosts import Host, Hosts

from fallow.client.discovery import Discovery
from fallow.node.log import wall_ms
from fallow.node.network.mesh import open_network
from fallow.node.network.table_rules import profile_rules

WANTED: Final = 10
SETTLED_S: Final = 5.0
"""After the last host has joined, before anything is measured."""
FIND_S_MAX: Final = 20.0
"""A search that takes longer is counted as so long, and as failed."""
JOIN_S, FIND_P50_S, FIND_P99_S, IDLE_PPM, IDLE_BYTES_S = 1.0, 0.150, 1.0, 5_000, 1024.0
"""The aims."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--finds", type=int, default=40)
    parser.add_argument("--idle", type=float, default=660.0, help="seconds; a host announces itself every 600")
    options = parser.parse_args()
    hosts.in_own_network()
    hosts.raise_descriptors()
    table.head()
    for count in options.hosts:
        trio.run(measure, count, options.finds, options.idle)


async def measure(count: int, finds: int, idle_s: float) -> None:
    async with hosts.running(count) as mesh:
        await trio.sleep(SETTLED_S)
        joined(mesh, count)
        await idle(mesh, count, idle_s)
        await searches(mesh, f"{count} hosts", finds, ())
        await known(mesh, f"{count} hosts", finds)
        victims = quarter(mesh)
        for host in victims:
            host.freeze()
        await searches(mesh, f"{count} hosts, {len(victims)} of them just frozen", finds, victims)
        for host in victims:
            host.thaw()
        await trio.sleep(SETTLED_S)
        await mesh.kill(victims)
        await searches(mesh, f"{count} hosts, {len(victims)} of them just killed", finds, victims)


def quarter(mesh: Hosts) -> list[Host]:
    """Hosts of which none is one that others join by."""
    return random.Random(len(mesh.live)).sample(mesh.live[hosts.BOOTSTRAPS :], len(mesh.live) // 4)


def joined(mesh: Hosts, count: int) -> None:
    """The hosts' own joining: several at once, most of them while others started."""
    said = [host.joined for host in mesh.live[hosts.BOOTSTRAPS :]]
    table.row(f"{count} hosts: a host joins, four at a time", table.ms([each.joined_s for each in said]))
    table.row("  of it, its own processor time", table.ms([each.joined_cpu_s for each in said]))
    table.row("  and announces itself", table.ms([each.announced_s for each in said]))


async def idle(mesh: Hosts, count: int, seconds: float) -> None:
    before = [await host.state() for host in mesh.live]
    began, sent = time.perf_counter(), hosts.loopback_bytes()
    await trio.sleep(seconds)
    took, moved = time.perf_counter() - began, hosts.loopback_bytes() - sent
    after = [await host.state() for host in mesh.live]
    shares = [(new.cpu_s - old.cpu_s) / took for old, new in zip(before, after, strict=True)]
    peers = median(state.peers for state in after)
    each_s = 2 * moved / took / count  # every byte is sent by one host and received by another
    per_mille = f"{100 * median(shares):.2f} % of a core (median of {count}: {_span(shares, 100, 2)})"
    table.row(f"{count} hosts, idle for {seconds:.0f} s", per_mille, "<= 0.5 %", median(shares) * 1e6 <= IDLE_PPM)
    table.row(
        "  sent and received by each, all headers included", f"{each_s:.0f} B/s", "<= 1024", each_s <= IDLE_BYTES_S
    )
    table.row("  connections of each", f"{peers:.0f} (median)")
    private = [state.private_bytes / 2**20 for state in after]
    table.row(
        "  memory of each that is its own", f"{median(private):.1f} MiB (median of {count}: {_span(private, 1, 1)})"
    )


def _span(samples: Sequence[float], scale: float, digits: int) -> str:
    return f"{scale * min(samples):.{digits}f} to {scale * max(samples):.{digits}f}"


async def searches(mesh: Hosts, name: str, finds: int, dead: Sequence[Host]) -> None:
    """By a new client each, one after the other."""
    gone = {host.key for host in dead}
    joins, own, took, ghosts, short = [], [], [], 0, 0
    for _ in range(finds):
        began, cpu = time.perf_counter(), time.process_time()
        async with client(mesh) as discovery:
            joins.append(time.perf_counter() - began)
            own.append(time.process_time() - cpu)
            seconds, found = await search(discovery)
            took.append(seconds)
            short += len(found) < WANTED
            ghosts += len(found & gone)
    if not dead:
        middle = median(joins)
        table.row(f"{name}: a client joins", percentiles(joins), "p50 <= 1 s", middle <= JOIN_S)
        table.row("  of it, its own processor time", table.ms(own))
    verdict(f"{name}: a new client finds {WANTED} live providers", took)
    table.row("  searches that found fewer", f"{short} of {finds}", "0", not short)
    if dead:
        table.row("  dead ones that it was given", str(ghosts), "0", not ghosts)


async def known(mesh: Hosts, name: str, finds: int) -> None:
    """By one client that has found them before; every time it asks each anew."""
    took = []
    async with client(mesh) as discovery:
        await search(discovery)
        for _ in range(finds):
            took.append((await search(discovery))[0])
    verdict(f"{name}: a client that knows them finds {WANTED} live providers", took)


def verdict(name: str, took: list[float]) -> None:
    ordered = sorted(took)
    met = median(took) <= FIND_P50_S and ordered[len(took) * 99 // 100] <= FIND_P99_S
    table.row(name, percentiles(took), "p50 <= 150 ms, p99 <= 1 s", met)


def percentiles(samples: Sequence[float]) -> str:
    ordered = [1e3 * sample for sample in sorted(samples)]
    return f"p50 {median(ordered):.0f} ms, p99 {ordered[len(ordered) * 99 // 100]:.0f} ms ({len(ordered)} times)"


@asynccontextmanager
async def client(mesh: Hosts) -> AsyncIterator[Discovery]:
    """A client that nobody has seen before has joined."""
    network = open_network(secrets.token_bytes(32), [], mesh.bootstrap, profile_rules(wall_ms), mode="client")
    async with network as joined, trio.open_nursery() as nursery:
        yield Discovery(joined, wall_ms, nursery)
        nursery.cancel_scope.cancel()


async def search(discovery: Discovery) -> tuple[float, set[bytes]]:
    """How long it took, and the keys of those who were given as present."""
    began = time.perf_counter()
    found: set[bytes] = set()
    with trio.move_on_after(FIND_S_MAX):
        found = {node.key for node in await discovery.find(hosts.BUNDLE, lambda nodes: len(nodes) >= WANTED)}
    return time.perf_counter() - began, found


if __name__ == "__main__":
    main()
