"""One simulated client of the real parts, with a clock and chance of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Final

import trio
from nacl.signing import SigningKey

from ....client.auditing import Auditor
from ....client.desk import Desk
from ....client.discovery import Discovery
from ....client.history import HISTORY, History, Subject, precision_of
from ....client.late import Late
from ....client.scheduler import Experience
from ....client.settling import Settler
from ....client.spotting import Spots
from ....client.team import Team
from ....client.wallet import Wallet
from ....node.book import BOOK, Book
from ....node.machine import HERE, wall_ms
from ....node.network.table_rules import profile_rules
from ....protocol.identity import EXECUTOR
from ....protocol.streams import EVIDENCE_PROTOCOL
from .bundles import KnownBundles
from .chance import chance_for
from .cheats import MISOPENERS, NON_PAYERS
from .engine import NUMERICS
from .gossiping import NotedFaults
from .medium import Place
from .nodes import NodeSpec
from .pleading import open_another, plead
from .sealing import seal_openly
from .table import TableNetwork
from .world import World

WALLET: Final = "wallet.db"


@dataclass
class ClientSpec:
    """One client."""

    place: Place
    key: SigningKey
    attack: str = ""
    """What it does to nodes (`cheats.ATTACKS`); empty: it is honest."""
    skew_ms: float = 0.0
    team: Team | None = None
    done: trio.Event = field(default_factory=trio.Event)
    """Everything that it asked for has ended."""


def met_before(nodes: Sequence[NodeSpec]) -> list[Subject]:
    """Of whom every client has a record: each node that is no newcomer, for each bundle that it serves."""
    return [
        Subject(node.place.key, bytes(node.owner.verify_key), bundle.signed.id, precision_of(NUMERICS))
        for node in nodes
        if not node.newcomer
        for bundle in node.bundles
    ]


async def run_client(world: World, spec: ClientSpec, ask: Callable[[Team], Awaitable[None]]) -> None:
    """The client has asked for all that `ask` asks for, and runs on until cancelled."""
    chance = chance_for(world.seed, "client", spec.place.number)
    HERE.set(world.machine(chance, lambda: spec.skew_ms))
    state = world.folder / f"client-{spec.place.number}"
    state.mkdir(exist_ok=True)
    with (
        closing(Wallet(state / WALLET, spec.key)) as wallet,
        closing(Book(state / BOOK)) as book,
        closing(History(state / HISTORY)) as history,
    ):
        async with trio.open_nursery() as nursery:
            network = TableNetwork(world.medium, spec.place, copy_context(), nursery)
            try:
                network.begin(profile_rules(wall_ms), chance, serves=False, lasting=True)
                await network.join(world.contacts)
                judges, late = frozenset(world.judges), Late(history)
                desk = Desk(network, wallet, Settler(network), spec.key, wall_ms, book, judges, seal_openly, judges)
                if world.gossip and not spec.attack:
                    faults = NotedFaults(world, network, spec.place, state, wallet, history, late, book)
                    network.serve(EVIDENCE_PROTOCOL, faults.gossip.serve)
                    nursery.start_soon(faults.gossip.run)
                    desk = replace(desk, accuse=faults.accuse)
                if world.courts and spec.attack != NON_PAYERS:
                    answers = open_another if spec.attack == MISOPENERS else plead
                    nursery.start_soon(answers, desk, world.judges)
                discovery = Discovery(network, wall_ms, nursery, book, desk.accuse)
                for subject in world.met if world.history else ():
                    history.passed(subject, EXECUTOR, wall_ms(), world.history)
                auditor = Auditor(desk, history)
                spots = Spots(auditor, chance)
                spec.team = Team(desk, discovery, Experience(), chance, auditor, spots, late)
                nursery.start_soon(spots.run, spec.team)
                nursery.start_soon(late.run, spec.team, KnownBundles(world.bundles), world.judges)
                nursery.start_soon(discovery.keep_fresh)
                nursery.start_soon(desk.settler.run)
                nursery.start_soon(book.keep, network)
                nursery.start_soon(network.table.maintain)
                await ask(spec.team)
                spec.done.set()
                await late.idle()
                world.log.write(spec.place.number, "late", late.looked_at, len(late.wrong))
                for each in late.forfeited:
                    taken = world.medium.by_key[each.node].number
                    world.log.write(spec.place.number, "forfeited", taken, each.ucr, each.judges, int(each.told))
                world.log.write(spec.place.number, "spots", spots.tried, spots.caught)
                await trio.sleep_forever()
            finally:
                network.close()
