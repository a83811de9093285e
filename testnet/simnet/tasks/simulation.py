"""One scenario and one seed, with every task and message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio
from nacl.signing import SigningKey

from ....protocol.identity import peer_id
from ..days import MODELS
from ..figures import FeederUse, Figures, Outcome, Spread, spread
from ..population import CHARACTERS as NAMES
from ..population import NAT_NAMES, REGION_NAMES, Population, populate
from ..regions import CONE, OPEN
from ..scenario import Scenario
from .bundles import SimBundle, make_bundle
from .chance import chance_for
from .characters import CHARACTERS
from .checkers import check
from .feeders import Feeder, cut_in_two, make_feeders, run_member
from .happenings import Mesh, happen
from .load import Job, Load
from .log import Log
from .machines import ClientSpec, NodeSpec, World, run_client
from .medium import Medium, Place
from .remembering import remembered
from .table import contact_of
from .virtual import run_virtual

WARM_S: Final = 20.0
"""Clients come when nodes have had so long to start, and ask from then on."""
SETTLE_S: Final = 30.0
"""After the last job, for vouchers that are still on their way."""
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
    jobs: Sequence[Job]
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
        return Outcome(_figures(run), log.trace.hexdigest(), check(run))


async def _simulate(scenario: Scenario, seed: int, log: Log, folder: Path) -> Run:
    population = populate(scenario, seed)
    medium = Medium(scenario.faults, chance_for(seed, "medium"), log)
    world = World(medium, log, seed, scenario.start_s, folder)
    bundles = [make_bundle(each, seed) for each in scenario.bundles]
    nodes = [_node(scenario, population, number, bundles, seed, medium) for number in range(len(population))]
    clients = [_client(scenario, population, number, seed, medium) for number in range(scenario.load.clients)]
    index = [each for each in nodes if each.index]
    world.contacts = [_address(each.place) for each in index if not each.hostile][:CONTACTS]
    world.hostile = [contact_of(e.place, [_address(e.place)], proven=True) for e in index if e.hostile]
    load, up = Load(scenario, bundles, log), list[float]()
    async with trio.open_nursery() as everything:
        mesh, faults = Mesh(world, nodes, everything), scenario.faults
        feeders = make_feeders(world, nodes, scenario.duration_s, faults.feeder_liars) if scenario.feeders else []
        everything.start_soon(happen, mesh, scenario, population, seed)
        for feeder in feeders:
            everything.start_soon(cut_in_two, world, feeder, faults.partitions_per_day, faults.partition_s)
            for member in feeder.members:
                everything.start_soon(run_member, world, feeder, member)
        await trio.sleep(WARM_S)
        everything.start_soon(_look, nodes, up, scenario.duration_s)
        for client in clients:
            number = client.place.number
            everything.start_soon(run_client, world, client, load.asker(number, chance_for(seed, "load", number)))
        for client in clients:
            await client.done.wait()
        await trio.sleep_until(max(trio.current_time(), scenario.duration_s) + SETTLE_S)
        ended_s = trio.current_time()
        everything.cancel_scope.cancel()
    return Run(scenario, world, nodes, clients, load.jobs, feeders, up, ended_s)


async def _look(nodes: Sequence[NodeSpec], up: list[float], until_s: float) -> None:
    """Now and then, how many would take work."""
    while trio.current_time() < until_s:
        up.append(sum(node.up for node in nodes) / len(nodes))
        await trio.sleep(LOOK_S)


def _busiest(by_minute: Counter[int]) -> float:
    """In its busiest minute, but for the first two, in which everybody starts: so often a second."""
    return max((count / 60 for minute, count in by_minute.items() if minute > 1), default=0.0)


def _node(
    scenario: Scenario, population: Population, number: int, bundles: Sequence[SimBundle], seed: int, medium: Medium
) -> NodeSpec:
    key = SigningKey(chance_for(seed, "node key", number).randbytes(32))
    owner = SigningKey(chance_for(seed, "owner key", int(population.owner[number])).randbytes(32))
    index, model = bool(population.index[number]), MODELS[int(population.model[number])]
    # Who keeps the table, or carries others' connections, has seen to it that it can be dialled.
    nat = OPEN if index else NAT_NAMES[int(population.nat[number])]
    place = Place(
        number, bytes(key.verify_key), REGION_NAMES[int(population.region[number])], model, nat, _ip(number),
        relay=index,
    )  # fmt: skip
    medium.add(place)
    crowd = scenario.population[int(population.crowd[number])]
    held = [each for each, holds in zip(bundles, population.holds[number].tolist(), strict=True) if holds]
    return NodeSpec(
        place, key, owner, held or bundles[:1], float(population.speed[number]), crowd.jobs_max, index,
        CHARACTERS[NAMES[int(population.character[number])]], scenario.faults.lies, scenario.faults.lies_after_jobs,
        float(population.skew_ms[number]), bool(population.hostile[number]),
    )  # fmt: skip


def _client(scenario: Scenario, population: Population, number: int, seed: int, medium: Medium) -> ClientSpec:
    """Clients are where the nodes are."""
    near = number * len(population) // scenario.load.clients
    key = SigningKey(chance_for(seed, "client key", number).randbytes(32))
    own = SigningKey(chance_for(seed, "client network key", number).randbytes(32))
    number = len(population) + number
    region = REGION_NAMES[int(population.region[near])]
    place = Place(number, bytes(own.verify_key), region, "host", CONE, _ip(number))
    medium.add(place)
    return ClientSpec(place, key)


def _address(place: Place) -> str:
    return f"/ip4/{place.ip}/tcp/4001/p2p/{peer_id(place.key)}"


def _ip(number: int) -> str:
    """Each has a network of its own."""
    return f"20.{number >> 8}.{number & 255}.7"


def _figures(run: Run) -> Figures:
    jobs = run.jobs
    completed = [job for job in jobs if job.completed]
    firsts = sorted(job.first_token_s * 1000 for job in completed if job.first_token_s is not None)
    handovers = sorted(float(gap) for job in completed for gap in job.handovers_ms)
    checks_s = sum(node.busy_s.get("score", 0.0) for node in run.nodes)
    work_s = sum(node.busy_s.get("generate", 0.0) + node.busy_s.get("call", 0.0) for node in run.nodes)
    named = run.medium.named_there + len(run.medium.named)
    in_class = sum(first <= run.scenario.load.first_token_ms_max for first in firsts)
    return Figures(
        nodes=len(run.nodes),
        duration_s=run.scenario.duration_s,
        asked=len(jobs),
        completed=len(completed),
        verified=sum(job.verified for job in completed),
        wrongly_accepted=sum(job.wrong for job in completed),
        lies_caught=sum(len(client.team.desk.wallet.distrusted) for client in run.clients if client.team),
        interrupted=sum(bool(job.handovers_ms) for job in completed),
        resumed=sum(bool(job.handovers_ms) for job in completed),
        lost=sum(not job.completed for job in jobs),
        in_class=in_class / len(completed) if completed else None,
        first_token_ms=spread(firsts) if firsts else Spread(),
        handover_ms=spread(handovers) if handovers else Spread(),
        verification_overhead=checks_s / work_s if work_s else None,
        nodes_up=sum(run.up) / len(run.up) if run.up else None,
        lookup_peers=None,
        lookup_found=None,
        ghosts=len(run.medium.named) / named if named else None,
        index_records_s=max((_busiest(node.place.told) for node in run.nodes if node.index), default=None),
        index_bytes_s=None,
        node_bytes_s=None,
        feeder=_feeders(run.feeders),
    )


def _feeders(feeders: Sequence[Feeder]) -> FeederUse | None:
    whole_ws = sum(feeder.time_s * feeder.cap_w for feeder in feeders)
    if not whole_ws:
        return None
    return FeederUse(
        max(feeder.most_w / feeder.cap_w for feeder in feeders),
        sum(feeder.used_ws for feeder in feeders) / whole_ws,
        sum(feeder.alone_ws for feeder in feeders) / whole_ws,
        sum(feeder.ideal_ws for feeder in feeders) / whole_ws,
    )
