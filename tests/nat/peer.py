"""A host in one of the lab's places: told what to do on standard input, it answers on standard output, a line each."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from fallow.node.log import wall_ms
from fallow.node.network.identity import id_of
from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.reach import Caps, Reach
from fallow.node.network.seam import Stream
from fallow.node.network.table_rules import profile_rules
from fallow.node.rates import Rates
from fallow.protocol.errors import NetworkError
from fallow.protocol.messages import RATE_PROTOCOL
from fallow.protocol.names import relay_key

ECHO, SINK = "/test/echo", "/test/sink"
SETTINGS = json.loads(sys.argv[1])
"""seed, listen, bootstrap, mode, way, relay, lan"""


async def echo(stream: Stream) -> None:
    while True:
        await stream.send(await stream.receive())


async def sink(stream: Stream) -> None:
    while True:
        await stream.receive()


def kinds(network: Mesh, peer: bytes) -> list[str]:
    """How the connections to the peer run."""
    return sorted(each.get_connection_type().value for each in network._host.get_network().get_connections(id_of(peer)))


async def obey(network: Mesh, order: list[str]) -> object:
    match order:
        case ["addresses", count]:
            while len(network.addresses()) < int(count):
                await network.moved(network.addresses())
            return network.addresses()
        case ["relays"]:
            return [relay.hex() for relay in network.reachability().relays]
        case ["reachability"]:
            return [network.reachability().relayed, network.reachability().dialled]
        case ["echo", peer, *addresses]:
            try:
                return (await network.request(bytes.fromhex(peer), ECHO, b"hello", addresses)).decode()
            except NetworkError as error:
                return error.message
        case ["kinds", peer]:
            return kinds(network, bytes.fromhex(peer))
        case ["go direct", peer]:
            network.go_direct(bytes.fromhex(peer))
            return None
        case ["direct", peer, wait_s]:
            with trio.move_on_after(float(wait_s)):
                while "direct" not in kinds(network, bytes.fromhex(peer)):  # noqa: ASYNC110 - libp2p tells nobody
                    await trio.sleep(0.05)
            return kinds(network, bytes.fromhex(peer))
        case ["told of", peer]:
            return network.whereabouts(bytes.fromhex(peer))
        case ["met", peer]:
            while bytes.fromhex(peer) not in network.peers():  # noqa: ASYNC110 - libp2p tells nobody
                await trio.sleep(0.05)
            return True
        case ["provide", key]:
            while not await network.provide(key):  # noqa: ASYNC110 - until the neighbour is part of the table
                await trio.sleep(0.05)
            return True
        case ["find", key]:
            return [provider.peer.hex() for provider in await network.find(key)]
        case ["outlives", gone, here]:
            return await outlives(network, bytes.fromhex(gone), bytes.fromhex(here))
        case ["rates", peer]:
            rates = Rates(network, lambda: [bytes.fromhex(peer)], lambda: True)
            return [await rates.measure(), rates.up_kbit_per_s, rates.down_kbit_per_s]
        case ["own"]:
            return [str(each) for each in network._host.get_transport_addrs()]
    raise ValueError(order)


async def outlives(network: Mesh, gone: bytes, here: bytes) -> dict[str, object]:
    """What becomes of the streams with a peer whose packets are lost, and of the exchanges with another meanwhile."""
    job = await network.open(gone, ECHO, watched=True)
    bulk = await network.open(gone, SINK)
    bystander = await network.open(here, ECHO, watched=True)
    ends: list[str] = []

    async def fails(name: str, call: Callable[[], Awaitable[object]]) -> None:
        try:
            while True:
                await call()
        except NetworkError:
            ends.append(name)

    await say("lose it")
    exchanges = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, "question", partial(network.request, gone, ECHO, b"anybody?"))
        nursery.start_soon(fails, "job", job.receive)
        nursery.start_soon(fails, "bulk", partial(bulk.send, bytes(100_000)))
        while len(ends) < 3 or gone in network.peers():
            await bystander.send(b"on time")
            await bystander.receive()
            await network.request(here, ECHO, b"too")
            exchanges += 1
    return {"ends": ends, "exchanges": exchanges}


async def say(answer: object) -> None:
    await trio.to_thread.run_sync(lambda: print(json.dumps(answer), flush=True))


async def main() -> None:
    reach = Reach(SETTINGS["way"], relay_keys=(relay_key(),), relay=Caps() if SETTINGS["relay"] else None)
    rules = profile_rules(wall_ms)
    listen, bootstrap, mode = SETTINGS["listen"], SETTINGS["bootstrap"], SETTINGS["mode"]
    async with open_network(
        bytes.fromhex(SETTINGS["seed"]), listen, bootstrap, rules, mode=mode, reach=reach, lan=SETTINGS["lan"]
    ) as network:
        network.serve(ECHO, echo)
        network.serve(SINK, sink)
        network.serve(RATE_PROTOCOL, Rates(network, list, lambda: True).answer)
        if SETTINGS["relay"]:
            await network.provide(relay_key())
        await say({"key": network.key.hex(), "addresses": network.addresses()})
        async for line in trio.wrap_file(sys.stdin):
            await say(await obey(network, json.loads(line)))


trio.run(main)
