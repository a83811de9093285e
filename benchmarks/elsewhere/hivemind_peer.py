"""One peer of hivemind's, told what to do on standard input; answers are lines of JSON. See `benchmarks/networks.py`.

hivemind's networking is go-libp2p in a process beside (`p2pd`), which every call goes through. Its own DHT, `DHTNode`, is
Python in this process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P, PeerID

LIFETIME_S = 3600
MIB = 1024 * 1024


async def echo(info: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each frame, behind its length in four bytes, is returned, unless it is bulk."""
    while len(head := await reader.read(4)) == 4:
        length = int.from_bytes(head, "big")
        frame = await reader.readexactly(length)
        if length <= 65536:
            writer.write(head + frame)
            await writer.drain()


async def main(bootstrap: list[str]) -> None:
    began = time.perf_counter()
    p2p = await P2P.create(initial_peers=bootstrap, host_maddrs=["/ip4/127.0.0.1/tcp/0"], nat_port_map=False)
    node = await DHTNode.create(p2p=p2p, initial_peers=bootstrap)
    await p2p.add_binary_stream_handler("echo", echo)
    joined_s = time.perf_counter() - began
    addresses = [str(address) for address in await p2p.get_visible_maddrs()]
    # The daemon that this peer consists of has to end with it: whoever kills one kills both.
    say({"name": p2p.peer_id.to_base58(), "addresses": addresses, "joined_s": joined_s, "pids": [p2p._child.pid]})
    streams: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def exchange(name: str, frame: bytes, answered: bool) -> None:
        if name not in streams:
            _, *ends = await p2p.call_binary_stream_handler(PeerID.from_base58(name), "echo")
            streams[name] = ends[0], ends[1]
        reader, writer = streams[name]
        writer.write(len(frame).to_bytes(4, "big") + frame)
        await writer.drain()
        if answered:
            await reader.readexactly(4 + len(frame))

    async def obey(order: list[Any]) -> object:
        match order:
            case ["store", key, size]:
                return await node.store(key, b"x" * size, time.time() + LIFETIME_S)
            case ["get", key]:
                found = await node.get(key, latest=True)
                return found is not None and len(found.value)
            case ["echo", name]:
                await exchange(name, b"x" * 256, True)
            case ["bulk", name, mib]:
                for _ in range(mib):
                    await exchange(name, bytes(MIB), False)
                await exchange(name, b"x", True)
        return True

    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        began = time.perf_counter()
        answer = await obey(json.loads(line))
        say({"answer": answer, "took_s": time.perf_counter() - began})
    await p2p.shutdown()


def say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


asyncio.run(main(sys.argv[1:]))
