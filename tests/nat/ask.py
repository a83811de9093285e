"""A client in one of the lab's places: each line on standard input is a request, what comes of it is said line by line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from fallow.client import Mesh, connect
from fallow.node.log import wall_ms
from fallow.node.network.identity import id_of
from fallow.protocol.errors import FallowError
from fallow.protocol.identity import peer_key_untrusted
from fallow.protocol.names import profile_key
from fallow.protocol.published import decode_profiles_untrusted


async def say(answer: object) -> None:
    await trio.to_thread.run_sync(lambda: print(json.dumps(answer), flush=True))


async def where(mesh: Mesh, name: str) -> list[str]:
    """Every address in what the node has signed: in the table, and when it is asked itself."""
    value = await mesh._team.desk.network.get(profile_key(peer_key_untrusted(name)))
    assert value is not None, "the table has no profile of it"
    published = decode_profiles_untrusted(value, wall_ms()).connectivity.record.addresses
    (asked,) = (node.connectivity.addresses for node in await mesh.nodes("tiny-chat") if node.peer_id == name)
    assert published and asked
    return [*published, *asked]


def relays_to(mesh: Mesh, peer: bytes) -> list[str]:
    """The relays that carry the connections to the peer, by their peer ids; one that runs directly is `direct`."""
    swarm = mesh._team.desk.network._host.get_network()
    ways = [str(way) for each in swarm.get_connections(id_of(peer)) for way in each.get_transport_addresses()]
    return [way.split("/")[2] if "/p2p-circuit" in way else "direct" for way in ways]


async def main(home: str, *bootstrap: str) -> None:
    async with connect(list(bootstrap), home=Path(home)) as mesh:
        await say({"joined": True})
        async for line in trio.wrap_file(sys.stdin):
            request = json.loads(line)
            if "where" in request:
                await say(await where(mesh, request["where"]))
                continue
            stream = mesh.stream("tiny-chat", request["prompt"], max_tokens=request["tokens"], assurance="none",
                                 executors=request["executors"])  # fmt: skip
            begun = not request.get("tell")
            try:
                async for chunk in stream:
                    if not begun:
                        begun = True
                        await say({"relays": relays_to(mesh, peer_key_untrusted(chunk.executor))})
                answer = stream.answer
                executors = [each.signed.signer.hex() for each in answer.receipts]
                await say(
                    {
                        "text": answer.text,
                        "tokens": len(answer.tokens),
                        "prompt": answer.usage.prompt_tokens,
                        "executors": list(dict.fromkeys(executors)),
                        "handovers": [each.position for each in answer.handovers],
                        "paid": sum(each.paid_ucr for each in answer.receipts),
                        "owed": sum(mesh.owed_by_owner().values()),
                    }
                )
            except FallowError as error:
                await say({"error": str(error)})


trio.run(main, *sys.argv[1:])
