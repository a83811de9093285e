"""`fallow testnet`: a network of real nodes on this machine."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import trio
from cyclopts import Parameter

from ..testnet import record
from ..testnet.local import Testnet
from ..testnet.plan import BUNDLES, parse_kinds
from ..testnet.record import LocalNode
from .environment import AsJson, cancel_when_terminated, usable
from .output import Json, line, print_json, progress, remark, table

Dir = Annotated[Path, Parameter(name="--dir", help="Where the network's state and testnet.json are.")]

MIB = 1024 * 1024


async def up(
    *,
    directory: Dir,
    nodes: Annotated[int | None, Parameter(help="How many; with --kinds, their sum.")] = None,
    liars: Annotated[int, Parameter(help="So many of them give wrong results.")] = 0,
    kinds: Annotated[str | None, Parameter(help="Such as vehicle=2,robot=2,site=1,host=1.")] = None,
    bundles: Annotated[str, Parameter(help="What every node serves, comma-separated.")] = ",".join(BUNDLES),
    detach: Annotated[bool, Parameter(help="Return when all are ready, and leave them running.")] = False,
    json: AsJson = False,
) -> None:
    """The nodes run until Ctrl-C or SIGTERM, or with --detach until `fallow testnet down`."""
    names = [name for name in map(str.strip, bundles.split(",")) if name]
    counts = parse_kinds(kinds) if kinds is not None else None
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        nursery.start_soon(cancel_when_terminated, nursery.cancel_scope)
        with progress("starting nodes") as show, usable("--dir", directory):
            starting = Testnet.start(
                directory, nodes=nodes, liars=liars, kinds=counts, bundles=names, detached=detach, on_progress=show
            )
            testnet = await stack.enter_async_context(starting)
        _announce(testnet, json)
        if not detach:
            remark("Ctrl-C stops them all")
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()


async def status(*, directory: Dir, json: AsJson = False) -> None:
    """Every node as it is now, each asked itself."""
    found = await record.status(directory)
    if json:
        print_json({"nodes": [{**_as_json(s.node), "state": s.state, "reasons": list(s.reasons)} for s in found]})
        return
    rows = [
        (
            s.node.peer_id[-8:],
            s.node.kind,
            s.state,
            "; ".join(s.reasons),
            str(s.node.pid),
            f"{s.memory_bytes / MIB:.0f}",
        )
        for s in found
    ]
    table(("node", "kind", "state", "why", "pid ", "MiB "), rows)


async def down(*, directory: Dir, json: AsJson = False) -> None:
    """No process of the network is left. Its state folders stay."""
    with progress("stopping nodes"), usable("--dir", directory):
        stopped = await record.down(directory)
    if json:
        print_json({"stopped": [node.peer_id for node in stopped]})
    else:
        remark(f"{len(stopped)} nodes stopped; their state is in {directory}")


def _announce(testnet: Testnet, as_json: bool) -> None:
    if as_json:
        print_json({"bootstrap": list(testnet.bootstrap), "nodes": [_as_json(node) for node in testnet.nodes]})
        return
    rows = [
        (node.peer_id[-8:], node.kind, "liar" if node.liar else "", node.owner[:8], str(node.pid), node.state)
        for node in testnet.nodes
    ]
    table(("node", "kind", "", "owner", "pid ", "state folder"), rows)
    line(f"export FALLOW_BOOTSTRAP={testnet.bootstrap[0]}")


def _as_json(node: LocalNode) -> dict[str, Json]:
    return {
        "peer_id": node.peer_id,
        "owner": node.owner,
        "kind": node.kind,
        "pid": node.pid,
        "folder": node.state,
        "addresses": list(node.addresses),
        "liar": node.liar,
    }
