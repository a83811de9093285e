"""A node in a process of its own: told what to do on standard input, it answers on standard output, a line each."""

from __future__ import annotations

import json
import sys

import trio

from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.seam import Stream, Validator
from fallow.protocol.errors import Code, RemoteProtocolError


def validate(key: str, value: bytes) -> None:
    if not value.startswith(b"ok"):
        raise RemoteProtocolError(Code.BAD_RECORD, f"{key}: not ok")


validator = Validator(validate, lambda key, values: max(range(len(values)), key=lambda index: values[index]))


async def echo(stream: Stream) -> None:
    while True:
        await stream.send(await stream.receive())


async def fail(stream: Stream) -> None:
    await stream.receive()
    raise ZeroDivisionError("a bug in a handler")


async def flood(stream: Stream) -> None:
    while True:
        await stream.send(bytes(1024 * 1024))


async def say(answer: object) -> None:
    await trio.to_thread.run_sync(lambda: print(json.dumps(answer), flush=True))


async def obey(network: Mesh, order: list[str]) -> object:
    match order:
        case ["put", key, value]:
            return await network.put(key, value.encode())
        case ["get", key]:
            value = await network.get(key)
            return None if value is None else value.decode()
        case ["provide", key]:
            return await network.provide(key)
        case ["find", key]:
            return sorted(provider.peer.hex() for provider in await network.find(key))
    raise ValueError(order)


async def main(seed: str, listen: str, *bootstrap: str) -> None:
    async with open_network(bytes.fromhex(seed), [listen], bootstrap, validator) as network:
        network.serve("/test/echo", echo)
        network.serve("/test/fail", fail)
        network.serve("/test/flood", flood)
        await say({"key": network.key.hex(), "addresses": network.addresses()})
        orders = trio.wrap_file(sys.stdin)
        async for line in orders:
            await say(await obey(network, json.loads(line)))


trio.run(main, *sys.argv[1:])
