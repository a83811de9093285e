"""`fallow testnet`: a network of real nodes on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import trio
from cyclopts import Parameter

from ..protocol.errors import Code, ConfigError
from ..testnet import days, faults, injecting, logs, record
from ..testnet.local import Testnet
from ..testnet.plan import (
    BUNDLES,
    Plan,
    client_adversaries,
    housed,
    parse_adversaries,
    parse_kinds,
    plan_nodes,
    with_sensors,
)
from ..testnet.planfile import load
from ..testnet.record import LocalNode
from .environment import AsJson, cancel_when_terminated, usable
from .output import Json, line, print_json, progress, remark, table

Dir = Annotated[Path, Parameter(name="--dir", help="Where the network's state and testnet.json are.")]
Nodes = Annotated[int | None, Parameter(help="How many; with --kinds, their sum.")]
Liars = Annotated[int, Parameter(help="So many of them give wrong results.")]
Kinds = Annotated[str | None, Parameter(help="Such as vehicle=2,robot=2,site=1,host=1.")]
Adversaries = Annotated[str | None, Parameter(help="Who attacks, such as liar=1,quantiser=1,non-payer=1.")]
Bundles = Annotated[str, Parameter(help="What every node serves, comma-separated.")]
Owners = Annotated[int, Parameter(help="So many owners share the honest nodes; 0: each has its own.")]
Regions = Annotated[str, Parameter(help="Geohashes of at most 3 characters, given to the nodes by turns.")]
Namespaces = Annotated[
    bool, Parameter(help="Each node in a network namespace of its own, vehicles and robots behind routers; needs root.")
]
DayS = Annotated[float, Parameter(help="Owners live scripted days of so many seconds; 0: nobody drives.")]
Sensed = Annotated[
    bool, Parameter(help="Vehicles, robots and sites follow days of signals by their own rules, not scripts.")
]
TokenMs = Annotated[int, Parameter(help="Workers take so much longer for each token, as larger models would.")]
PlanFile = Annotated[Path | None, Parameter(name="--plan", help="All of this from a TOML file instead.")]

MIB = 1024 * 1024
SERVED = ",".join(BUNDLES)
HEAL_S = 200.0
"""A node that was killed starts again within `starting.READY_S`, or never."""


async def up(
    *,
    directory: Dir,
    nodes: Nodes = None,
    liars: Liars = 0,
    kinds: Kinds = None,
    adversaries: Adversaries = None,
    bundles: Bundles = SERVED,
    owners: Owners = 0,
    regions: Regions = "",
    namespaces: Namespaces = False,
    day_s: DayS = 0.0,
    sensed: Sensed = False,
    token_ms: TokenMs = 0,
    plan: PlanFile = None,
    faults: Annotated[str, Parameter(help="At the start, such as 2-vehicle=freeze,3-vehicle=slow:64.")] = "",
    detach: Annotated[bool, Parameter(help="Return when all are ready, and leave them running.")] = False,
    json: AsJson = False,
) -> None:
    """The nodes run until Ctrl-C or SIGTERM, or with --detach until `fallow testnet down`."""
    chosen = planned(nodes, liars, kinds, adversaries, bundles, owners, regions, namespaces, day_s, token_ms, plan)
    if sensed:
        chosen = replace(chosen, nodes=with_sensors(chosen.nodes))
    early = _at_start(faults)
    if detach and chosen.day_s and days.moments(chosen):
        raise ConfigError(Code.BAD_CONFIG, "Somebody has to stay and drive: --day-s goes without --detach.")
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        nursery.start_soon(cancel_when_terminated, nursery.cancel_scope)
        with progress("starting nodes") as show, usable("--dir", directory):
            starting = Testnet.start(directory, plan=chosen, detached=detach, on_progress=show)
            testnet = await stack.enter_async_context(starting)
        for fault in early:
            await testnet.begin(fault)
        _announce(testnet, json)
        if not detach:
            remark("Ctrl-C stops them all")
            nursery.start_soon(days.live, testnet.directory, chosen)
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()


async def status(*, directory: Dir, json: AsJson = False) -> None:
    """Every node as it is now, each asked itself."""
    found = await record.status(directory)
    befallen = injecting.active(directory)
    names = {s.node.name: [fault.name for fault in befallen if s.node.name in fault.nodes] for s in found}
    if json:
        rows: list[Json] = [
            {
                **_as_json(s.node),
                "state": s.state,
                "reasons": list(s.reasons),
                "faults": names[s.node.name],
                "memory_bytes": s.memory_bytes,
            }
            for s in found
        ]
        print_json({"nodes": rows})
        return
    table(
        ("name", "node", "kind", "state", "why", "fault", "pid ", "MiB "),
        [
            (
                s.node.name,
                s.node.peer_id[-8:],
                s.node.kind,
                s.state,
                "; ".join(s.reasons),
                ", ".join(names[s.node.name]),
                str(s.node.pid),
                f"{s.memory_bytes / MIB:.0f}",
            )
            for s in found
        ],
    )


async def down(*, directory: Dir, json: AsJson = False) -> None:
    """No process of the network is left. Its state folders stay."""
    with progress("stopping nodes"), usable("--dir", directory):
        stopped = await record.down(directory)
    if json:
        print_json({"stopped": [node.peer_id for node in stopped]})
    else:
        remark(f"{len(stopped)} nodes stopped; their state is in {directory}")


async def fault(
    nodes: Annotated[str, Parameter(help="Names from `status`, or ends of peer ids; several with commas between.")],
    name: Annotated[str, Parameter(name="FAULT", help=f"One of {', '.join(faults.FAULTS)}.")],
    /,
    *,
    directory: Dir,
    amount: Annotated[
        int | None, Parameter(help="Of a fault that has one: ms, kbit/s, or packets of a thousand.")
    ] = None,
    seconds: Annotated[float, Parameter(help="It is mended after so long; 0: with `fallow testnet heal`.")] = 0.0,
    json: AsJson = False,
) -> None:
    """The fault is there; with --seconds, it has been there and is mended."""
    network = record.read_network(directory)
    made = faults.made(name, [network.find(node.strip()).name for node in nodes.split(",")], amount)
    with usable("--dir", directory):
        await injecting.begin(directory, made)
        if seconds > 0:
            try:
                await trio.sleep(seconds)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + HEAL_S):
                    await injecting.end(directory, made)
    _say_faults("mended" if seconds > 0 else "begun", [made], json)


async def heal(
    node: Annotated[str, Parameter(help="A node's name, or the end of its peer id; empty: all of them.")] = "",
    /,
    *,
    directory: Dir,
    json: AsJson = False,
) -> None:
    """What befell the node is mended: it runs as before."""
    wanted = record.read_network(directory).find(node).name if node else ""
    found = [each for each in injecting.active(directory) if not wanted or wanted in each.nodes]
    with usable("--dir", directory):
        for each in found:
            await injecting.end(directory, each)
    _say_faults("mended", found, json)


async def log(
    nodes: Annotated[
        str, Parameter(help="Of these nodes alone, by name, with commas between; `network`: what was done.")
    ] = "",
    /,
    *,
    directory: Dir,
    kind: Annotated[str, Parameter(help="Of nodes of this kind alone.")] = "",
    event: Annotated[str, Parameter(help="These events alone, with commas between.")] = "",
    follow: Annotated[bool, Parameter(help="Go on with what is written from now on, until Ctrl-C.")] = False,
    json: AsJson = False,
) -> None:
    """What the nodes wrote down, in one order of time."""
    names = {name for name in map(str.strip, nodes.split(",")) if name}
    if kind:
        of_kind = {path.name for path in directory.glob(f"*-{kind}")} | _of_kind(directory, kind)
        names = names & of_kind if names else of_kind
        if not names:
            raise ConfigError(Code.BAD_CONFIG, f"No node of the kind {kind!r} is in {directory}.")
    events = {name for name in map(str.strip, event.split(",")) if name}

    def show(found: logs.Event) -> None:
        if events and found.event not in events:
            return
        if json:
            print_json({"time_ms": found.time_ms, "node": found.node, "event": found.event, **found.fields})
        else:
            words = " ".join(f"{name}={value}" for name, value in found.fields.items())
            line(f"{_clock(found.time_ms)} {found.node:<12} {found.event:<20} {words}")

    for found in await trio.to_thread.run_sync(logs.merged, directory, names):
        show(found)
    if follow:
        async with aclosing(logs.follow(directory, names)) as coming:
            async for found in coming:
                show(found)


def planned(
    nodes: int | None,
    liars: int,
    kinds: str | None,
    adversaries: str | None,
    bundles: str,
    owners: int,
    regions: str,
    namespaces: bool,
    day_s: float,
    token_ms: int,
    file: Path | None,
) -> Plan:
    """The network that a command's options ask for. Raises `ConfigError(bad_config)`."""
    if file:
        return load(file)
    counts = parse_kinds(kinds) if kinds is not None else None
    wicked: Mapping[str, int] = parse_adversaries(adversaries) if adversaries else {}
    places = [region.strip() for region in regions.split(",")]
    found = [
        replace(
            node,
            owner=node.owner or (f"owner-{index % owners}" if owners > 0 and not node.adversary else ""),
            region=places[index % len(places)],
            token_ms=0 if node.adversary else token_ms,
        )
        for index, node in enumerate(plan_nodes(nodes, liars, counts, wicked))
    ]
    return Plan(
        housed(found) if namespaces else tuple(found),
        tuple(name for name in map(str.strip, bundles.split(",")) if name),
        namespaces,
        day_s,
        clients=client_adversaries(wicked),
    )


def _at_start(text: str) -> tuple[faults.Fault, ...]:
    return faults.parse(text)


def _of_kind(directory: Path, kind: str) -> set[str]:
    """Names by the record, which a network that has ended does not have any more."""
    try:
        return {node.name for node in record.read(directory) if node.kind == kind}
    except ConfigError:
        return set()


def _clock(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000).strftime("%H:%M:%S.%f")[:-3]


def _say_faults(done: str, found: list[faults.Fault], as_json: bool) -> None:
    if as_json:
        print_json({done: [{"fault": each.name, "nodes": list(each.nodes), "amount": each.amount} for each in found]})
    for each in found if not as_json else ():
        remark(f"{done}: {each.name} of {', '.join(each.nodes)}" + (f" ({each.amount})" if each.amount else ""))


def _announce(testnet: Testnet, as_json: bool) -> None:
    if as_json:
        print_json({"bootstrap": list(testnet.bootstrap), "nodes": [_as_json(node) for node in testnet.nodes]})
        return
    rows = [
        (node.name, node.peer_id[-8:], node.adversary, node.owner[:8], str(node.pid), node.state)
        for node in testnet.nodes
    ]
    table(("name", "node", "", "owner", "pid ", "state folder"), rows)
    if client := record.read_network(testnet.directory).ground.client:
        line(f"ip netns exec {client.namespace} sh    # a client reaches them from there")
    line(f"export FALLOW_BOOTSTRAP={testnet.bootstrap[0]}")


def _as_json(node: LocalNode) -> dict[str, Json]:
    return {
        "name": node.name,
        "peer_id": node.peer_id,
        "owner": node.owner,
        "kind": node.kind,
        "region": node.region,
        "pid": node.pid,
        "folder": node.state,
        "addresses": list(node.addresses),
        "liar": node.liar,
        "adversary": node.adversary,
        "namespace": node.place.namespace if node.place else "",
    }
