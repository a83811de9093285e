"""One scenario and one seed, with every task and message."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from ...adversaries.customer import Outcome as Attacked
from ..figures import Outcome
from ..population import populate
from ..scenario import Scenario
from .bundles import make_bundle
from .chance import chance_for
from .cheats import attacks_by_client
from .checkers import check
from .clients import ClientSpec, met_before, run_client
from .contents import Shelf, spreads, weights_of
from .feeders import Feeder, cut_in_two, make_feeders, run_member
from .happenings import Mesh, happen
from .judges import JUDGES, JudgeSpec, run_judge
from .load import Job, Load
from .log import Log
from .medium import Medium
from .nodes import NodeSpec
from .remembering import remembered
from .specs import address_of, client_spec, coming_of, judge_spec, node_spec
from .summary import figures_of
from .table import contact_of
from .virtual import run_virtual
from .world import World

WARM_S: Final = 20.0
"""Clients come when nodes have had so long to start, and ask from then on."""
SETTLE_S: Final = 30.0
"""After the last job, for vouchers that are still on their way."""
COURT_S: Final = 240.0
"""The same, and for disputes over what was left unpaid."""
LOOK_S: Final = 30.0
CONTACTS: Final = 3
"""Index nodes that every machine knows from the start."""
MEMORY: Final = Path("/dev/shm")
"""Where machines keep their files, if it is there: every commit waits for the disk."""


@dataclass
class Run:
    """What came of one simulation, before anybody judges it. The machines' folders are there as long as the checkers."""

    scenario: Scenario
    world: World
    nodes: Sequence[NodeSpec]
    clients: Sequence[ClientSpec]
    judges: Sequence[JudgeSpec]
    jobs: Sequence[Job]
    attacks: Sequence[Attacked]
    feeders: Sequence[Feeder]
    up: Sequence[float]
    """The share of nodes that would have taken work, each time that it was looked."""
    ended_s: float

    @property
    def medium(self) -> Medium:
        return self.world.medium


def simulate_tasks(scenario: Scenario, seed: int, trace_file: Path | None = None) -> Outcome:
    """The same for the same scenario and seed, in every process. With `trace_file`, everything that happened is in it."""
    with ExitStack() as stack:
        lines = stack.enter_context(trace_file.open("w", encoding="utf-8")) if trace_file else None
        memory = MEMORY if MEMORY.is_dir() else None
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="fallow-simnet-", dir=memory)))
        stack.enter_context(remembered())
        log = Log(lines)
        run = run_virtual(lambda: _simulate(scenario, seed, log, folder), seed)
        return Outcome(figures_of(run), log.trace.hexdigest(), check(run))


async def _simulate(scenario: Scenario, seed: int, log: Log, folder: Path) -> Run:
    population = populate(scenario, seed)
    medium = Medium(scenario.faults, chance_for(seed, "medium"), log)
    medium.bans = scenario.gossip
    world = World(medium, log, seed, scenario.start_s, folder, gossip=scenario.gossip, courts=scenario.courts)
    spreading = [spreads(scenario, each) for each in scenario.bundles]
    bundles = [
        make_bundle(each, seed, weights_of(each, seed)[0]) if spread_ else make_bundle(each, seed)
        for each, spread_ in zip(scenario.bundles, spreading, strict=True)
    ]
    coming = coming_of(scenario, population, bundles, spreading)
    if any(spreading):
        world.shelf = Shelf(folder, seed)
        world.shelf.put([each for each, spread_ in zip(bundles, spreading, strict=True) if spread_])
    nodes = [
        node_spec(scenario, population, number, bundles, coming.get(number, ()), seed, medium)
        for number in range(len(population))
    ]
    attacks = attacks_by_client(scenario.faults, scenario.load.clients, chance_for(seed, "attacks"))
    clients = [client_spec(scenario, population, n, attack, seed, medium) for n, attack in enumerate(attacks)]
    index = [each for each in nodes if each.index]
    world.contacts = [address_of(each.place) for each in index if not each.hostile][:CONTACTS]
    world.hostile = [contact_of(e.place, [address_of(e.place)], proven=True) for e in index if e.hostile]
    corrupt = round(scenario.faults.corrupt_judges * JUDGES)
    judges = [judge_spec(scenario, population, n, seed, medium, corrupt=n < corrupt) for n in range(JUDGES)]
    world.judges = {bytes(each.owner.verify_key): address_of(each.place) for each in judges}
    world.bundles, world.met, world.history = bundles, met_before(nodes), scenario.history
    load, up = Load(scenario, bundles, log, world.judges), list[float]()
    async with trio.open_nursery() as everything:
        mesh, faults = Mesh(world, nodes, everything), scenario.faults
        feeders = make_feeders(world, nodes, scenario.duration_s, faults.feeder_liars) if scenario.feeders else []
        everything.start_soon(happen, mesh, scenario, population, seed)
        for judge in judges:
            everything.start_soon(run_judge, world, judge)
        for feeder in feeders:
            everything.start_soon(cut_in_two, world, feeder, faults.partitions_per_day, faults.partition_s)
            for member in feeder.members:
                everything.start_soon(run_member, world, feeder, member)
        await trio.sleep(WARM_S)
        everything.start_soon(_look, nodes, up, scenario.duration_s)
        for client in clients:
            number, chance = client.place.number, chance_for(seed, "load", client.place.number)
            ask = load.attacker(number, client.attack, chance) if client.attack else load.asker(number, chance)
            everything.start_soon(run_client, world, client, ask)
        for client in clients:
            await client.done.wait()
        await trio.sleep_until(
            max(trio.current_time(), scenario.duration_s) + (COURT_S if scenario.courts else SETTLE_S)
        )
        ended_s = trio.current_time()
        everything.cancel_scope.cancel()
    return Run(scenario, world, nodes, clients, judges, load.jobs, load.attacks, feeders, up, ended_s)


async def _look(nodes: Sequence[NodeSpec], up: list[float], until_s: float) -> None:
    """Now and then, how many would take work."""
    while trio.current_time() < until_s:
        up.append(sum(node.up for node in nodes) / len(nodes))
        await trio.sleep(LOOK_S)
