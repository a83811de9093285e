"""What the network costs on this machine, over loopback: `python benchmarks/network.py`.

Three nodes in this process and one in another; the machine's load shows in every number, so compare within one run.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import trio

from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.seam import Stream, Validator

MIB = 1024 * 1024
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
VALIDATOR = Validator(lambda key, value: None, lambda key, values: len(values) - 1)


async def echo(stream: Stream) -> None:
    while True:
        await stream.send(await stream.receive())


async def sink(stream: Stream) -> None:
    """Takes frames, and answers one that is empty."""
    while True:
        if not await stream.receive():
            await stream.send(b"")


async def source(stream: Stream) -> None:
    """Gives MiB upon MiB, until the other side goes."""
    while True:
        await stream.send(bytes(MIB))


def seed(number: int) -> bytes:
    return hashlib.sha256(b"a benchmark's node %d" % number).digest()


async def child() -> None:
    """The other process: serves an echo until its input ends."""
    async with open_network(seed(0), [LOOPBACK], [], VALIDATOR) as network:
        network.serve("/bench/echo", echo)
        network.serve("/bench/sink", sink)
        network.serve("/bench/source", source)
        print(json.dumps([network.key.hex(), *network.addresses()]), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


async def timed(name: str, count: int, call: Callable[[int], Awaitable[object]]) -> float:
    """Prints the median and the 99th percentile in milliseconds; the median."""
    samples = []
    for index in range(count):
        start = time.perf_counter()
        await call(index)
        samples.append((time.perf_counter() - start) * 1000)
    samples.sort()
    print(f"{name:42} p50 {samples[count // 2]:7.1f} ms   p99 {samples[count * 99 // 100]:7.1f} ms   n={count}")
    return samples[count // 2]


async def bulk(node: Mesh, key: bytes, stream: Stream) -> None:
    """A small request alone, beside all that the node can send, and beside all that it can take in."""

    moved = 0

    async def exchange(_: int) -> None:
        await stream.send(b"x" * 256)
        await stream.receive()

    async def push() -> None:
        nonlocal moved
        up = await node.open(key, "/bench/sink")
        while True:
            await up.send(bytes(MIB))
            moved += 1

    async def pull() -> None:
        nonlocal moved
        down = await node.open(key, "/bench/source")
        while True:
            await down.receive()
            moved += 1

    quiet = await timed("256 B alone", 500, exchange)
    for name, transfer in (("sending", push), ("receiving", pull)):
        moved = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transfer)
            await trio.sleep(0.5)
            moved, began = 0, time.perf_counter()
            await trio.sleep(2)
            alone = moved / (time.perf_counter() - began)
            beside = await timed(f"256 B beside {name} at full speed", 500, exchange)
            print(f"{'  as a ratio to alone':42}     {beside / quiet:7.2f}      {name} alone {alone:7.1f} MiB/s")
            nursery.cancel_scope.cancel()


async def measure(key: bytes, address: str) -> None:
    async with AsyncExitStack() as stack:
        nodes: list[Mesh] = []

        async def join(index: int) -> None:
            network = open_network(seed(index + 1), [LOOPBACK], [address], VALIDATOR)
            nodes.append(await stack.enter_async_context(network))

        async def connect(index: int) -> None:
            async with open_network(seed(100 + index), [], [], VALIDATOR, mode="client") as network:
                start = time.perf_counter()
                await network.connect(address)
                connects.append((time.perf_counter() - start) * 1000)

        connects: list[float] = []
        for index in range(20):
            await connect(index)
        connects.sort()
        print(f"{'connect':42} p50 {connects[10]:7.1f} ms   p99 {connects[-1]:7.1f} ms   n=20")
        await timed("open a network and join", 9, join)
        node = nodes[0]

        async def fresh(_: int) -> None:
            once = await node.open(key, "/bench/echo")
            await once.send(b"x" * 256)
            await once.receive()
            await once.close()

        async def side_by_side(_: int) -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(64):
                    nursery.start_soon(node.request, key, "/bench/echo", b"x" * 256)

        over_fresh = await timed("request over a fresh stream", 500, fresh)
        over_standing = await timed("request", 500, lambda index: node.request(key, "/bench/echo", b"x" * 256))
        print(f"{'  as a ratio to a fresh stream':42}     {over_standing / over_fresh:7.2f}")
        together = await timed("64 requests at once", 20, side_by_side)
        print(f"{'  requests a second':42}     {64_000 / together:7.0f}")
        stream = await node.open(key, "/bench/echo")

        async def exchange(frame: bytes) -> None:
            await stream.send(frame)
            await stream.receive()

        await timed("exchange on a standing stream, 256 B", 1000, lambda index: exchange(b"x" * 256))
        await timed("exchange on a standing stream, 64 KiB", 200, lambda index: exchange(bytes(65536)))
        await timed("exchange on a standing stream, 4 MiB", 10, lambda index: exchange(bytes(4 * 1024 * 1024)))
        await bulk(node, key, stream)
        await timed("provide (10 nodes)", 20, lambda index: nodes[index % 9].provide("serve/x"))
        await timed("find (9 providers)", 50, lambda index: nodes[index % 9].find("serve/x"))
        await timed("put 2 KB (10 nodes)", 20, lambda index: nodes[0].put("/fallow/x", b"%2000d" % index))
        await timed("get 2 KB", 50, lambda index: nodes[index % 9].get("/fallow/x"))


async def main() -> None:
    if sys.argv[1:] == ["child"]:
        return await child()
    command = [sys.executable, __file__, "child"]
    process = await trio.lowlevel.open_process(command, stdin=-1, stdout=-1)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        key, address = json.loads(await process.stdout.receive_some())
        await measure(bytes.fromhex(key), address)
    finally:
        with trio.CancelScope(shield=True), trio.fail_after(10):
            await process.stdin.aclose()
            await process.wait()
            await process.stdout.aclose()


if __name__ == "__main__":
    trio.run(main)
