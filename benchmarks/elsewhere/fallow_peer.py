"""One peer of this network, told what to do on standard input; answers are lines of JSON. See `benchmarks/networks.py`."""

from __future__ import annotations

import json
import os
import sys
import time

import trio

from fallow.node.network.mesh import open_network
from fallow.node.network.seam import Stream, Validator

MIB = 1024 * 1024
VALIDATOR = Validator(lambda key, value: None, lambda key, values: len(values) - 1)
"""The others' tables take whatever they are given."""


async def echo(stream: Stream) -> None:
    """Each frame is returned, unless it is bulk."""
    while True:
        frame = await stream.receive()
        if len(frame) < MIB:
            await stream.send(frame)


async def main(*bootstrap: str) -> None:
    began = time.perf_counter()
    async with open_network(os.urandom(32), ["/ip4/127.0.0.1/tcp/0"], bootstrap, VALIDATOR) as network:
        joined_s = time.perf_counter() - began
        network.serve("/bench/echo", echo)
        say({"name": network.key.hex(), "addresses": network.addresses(), "joined_s": joined_s, "pids": []})
        streams: dict[str, Stream] = {}

        async def exchange(name: str, frame: bytes, answered: bool) -> None:
            if name not in streams:
                streams[name] = await network.open(bytes.fromhex(name), "/bench/echo")
            await streams[name].send(frame)
            if answered:
                await streams[name].receive()

        async def obey(order: list[object]) -> object:
            match order:
                case ["store", str(key), int(size)]:
                    return await network.put(key, b"x" * size)
                case ["get", str(key)]:
                    return len(await network.get(key) or b"")
                case ["echo", str(name)]:
                    await exchange(name, b"x" * 256, True)
                case ["bulk", str(name), int(mib)]:
                    for _ in range(mib):
                        await exchange(name, bytes(MIB), False)
                    await exchange(name, b"x", True)
            return True

        async for line in trio.wrap_file(sys.stdin):
            began = time.perf_counter()
            answer = await obey(json.loads(line))
            say({"answer": answer, "took_s": time.perf_counter() - began})


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


trio.run(main, *sys.argv[1:])
