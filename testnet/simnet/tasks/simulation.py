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

from ....node.network.index import Message
from ....protocol.errors import Code
from ....protocol.identity import peer_id
from ...adversaries.customer import Outcome as Attacked
from ..days import MODELS
from ..events.spreading import appearance, demand
from ..figures import FeederUse, Figures, Outcome, Spread, spread
from ..population import CHARACTERS as NAMES
from ..population import NAT_NAMES, REGION_NAMES, Population, populate
from ..regions import CONE, OPEN
from ..scenario import Scenario
from .bundles import SimBundle, make_bundle
from .chance import chance_for
from .characters import CHARACTERS, HONEST
from .cheats import attacks_by_client
from .checkers import check
from .contents import Shelf, spreads, weights_of
from .feeders import Feeder, cut_in_two, make_feeders, run_member
from .happenings import Mesh, happen
from .judges import JUDGES, JudgeSpec, run_judge
from .load import Job, Load
from .log import Log
from .machines import ClientSpec, Coming, NodeSpec, World, met_before, run_client
from .medium import Medium, Place
from .remembering import remembered
from .table import contact_of
from .virtual import run_virtual

WARM_S: Final = 20.0
"""Clients come when nodes have had so long to start, and ask from then on."""
SETTLE_S: Final = 30.0
"""After the last job, for vouchers that are still on their way."""
LOOK_S: Final = 30.0
START_MINUTES: Final = 2
"""In which everybody starts: what index nodes are asked meanwhile is no measure of anything."""
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
        return Outcome(_figures(run), log.trace.hexdigest(), check(run))


async def _simulate(scenario: Scenario, seed: int, log: Log, folder: Path) -> Run:
    population = populate(scenario, seed)
    medium = Medium(scenario.faults, chance_for(seed, "medium"), log)
    world = World(medium, log, seed, scenario.start_s, folder)
    spreading = [spreads(scenario, each) for each in scenario.bundles]
    bundles = [
        make_bundle(each, seed, weights_of(each, seed)[0]) if spread_ else make_bundle(each, seed)
        for each, spread_ in zip(scenario.bundles, spreading, strict=True)
    ]
    coming = _coming(scenario, population, bundles, spreading)
    if any(spreading):
        world.shelf = Shelf(folder, seed)
        world.shelf.put([each for each, spread_ in zip(bundles, spreading, strict=True) if spread_])
    nodes = [
        _node(scenario, population, number, bundles, coming.get(number, ()), seed, medium)
        for number in range(len(population))
    ]
    attacks = attacks_by_client(scenario.faults, scenario.load.clients, chance_for(seed, "attacks"))
    clients = [_client(scenario, population, n, attack, seed, medium) for n, attack in enumerate(attacks)]
    index = [each for each in nodes if each.index]
    world.contacts = [_address(each.place) for each in index if not each.hostile][:CONTACTS]
    world.hostile = [contact_of(e.place, [_address(e.place)], proven=True) for e in index if e.hostile]
    corrupt = round(scenario.faults.corrupt_judges * JUDGES)
    judges = [_judge(scenario, population, number, seed, medium, corrupt=number < corrupt) for number in range(JUDGES)]
    world.judges = {bytes(each.owner.verify_key): _address(each.place) for each in judges}
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
        await trio.sleep_until(max(trio.current_time(), scenario.duration_s) + SETTLE_S)
        ended_s = trio.current_time()
        everything.cancel_scope.cancel()
    return Run(scenario, world, nodes, clients, load.jobs, load.attacks, feeders, up, ended_s)


async def _look(nodes: Sequence[NodeSpec], up: list[float], until_s: float) -> None:
    """Now and then, how many would take work."""
    while trio.current_time() < until_s:
        up.append(sum(node.up for node in nodes) / len(nodes))
        await trio.sleep(LOOK_S)


def _busiest(by_minute: Counter[int]) -> float:
    """In its busiest minute, but for those in which everybody starts: so often a second."""
    return max((count / 60 for minute, count in by_minute.items() if minute >= START_MINUTES), default=0.0)


def _coming(
    scenario: Scenario, population: Population, bundles: Sequence[SimBundle], spreading: Sequence[bool]
) -> dict[int, list[Coming]]:
    """Of each node by number, the bundles that it publishes, and those that it is to fetch, in their order."""
    coming: dict[int, list[Coming]] = {}
    for number, bundle in enumerate(bundles):
        if spreading[number]:
            asked = demand(scenario, population, number)
            for node in asked.holders.tolist():
                coming.setdefault(node, []).append(Coming(asked.begins_s, bundle, published=True))
            for node, heard_s in zip(asked.wanting.tolist(), asked.heard_s.tolist(), strict=True):
                coming.setdefault(node, []).append(Coming(heard_s, bundle))
    return {node: sorted(each, key=lambda one: one.from_s) for node, each in coming.items()}


def _mean_load(run: Run) -> float | None:
    """Without those first two minutes, over whole minutes of the scenario."""
    minutes = range(START_MINUTES, int(run.scenario.duration_s // 60))
    index = [node.place for node in run.nodes if node.index]
    asked = sum(place.asked[minute] for place in index for minute in minutes)
    return asked / (60 * len(minutes) * len(index)) if minutes and index else None


def _node(
    scenario: Scenario,
    population: Population,
    number: int,
    bundles: Sequence[SimBundle],
    coming: Sequence[Coming],
    seed: int,
    medium: Medium,
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
    later = {each.bundle.given.name for each in coming}
    holds = zip(bundles, population.holds[number].tolist(), strict=True)
    held = [each for each, has in holds if has and each.given.name not in later and not _appears(scenario, each)]
    return NodeSpec(
        place, key, owner, held or bundles[:1], float(population.speed[number]), crowd.jobs_max, index,
        CHARACTERS[NAMES[int(population.character[number])]], scenario.faults.lies, scenario.faults.lies_after_jobs,
        float(population.skew_ms[number]), bool(population.hostile[number]), bool(population.newcomer[number]), coming,
    )  # fmt: skip


def _client(
    scenario: Scenario, population: Population, number: int, attack: str, seed: int, medium: Medium
) -> ClientSpec:
    """Clients are where the nodes are."""
    near = number * len(population) // scenario.load.clients
    key = SigningKey(chance_for(seed, "client key", number).randbytes(32))
    own = SigningKey(chance_for(seed, "client network key", number).randbytes(32))
    number = len(population) + number
    region = REGION_NAMES[int(population.region[near])]
    place = Place(number, bytes(own.verify_key), region, "host", CONE, _ip(number))
    medium.add(place)
    return ClientSpec(place, key, attack)


def _judge(
    scenario: Scenario, population: Population, number: int, seed: int, medium: Medium, *, corrupt: bool
) -> JudgeSpec:
    """Judges are where the nodes are, and can be dialled. A corrupt one finds whatever it runs again to be wrong."""
    key = SigningKey(chance_for(seed, "judge key", number).randbytes(32))
    owner = SigningKey(chance_for(seed, "judge", number).randbytes(32))
    region = REGION_NAMES[int(population.region[number * len(population) // JUDGES])]
    number = len(population) + scenario.load.clients + number
    place = Place(number, bytes(key.verify_key), region, "host", OPEN, _ip(number))
    medium.add(place)
    return JudgeSpec(place, key, owner, CHARACTERS["liars"] if corrupt else HONEST)


def _appears(scenario: Scenario, bundle: SimBundle) -> bool:
    return appearance(scenario, bundle.given)[1] is not None


def _address(place: Place) -> str:
    return f"/ip4/{place.ip}/tcp/4001/p2p/{peer_id(place.key)}"


def _ip(number: int) -> str:
    """Each has a network of its own."""
    return f"20.{number >> 8}.{number & 255}.7"


def _figures(run: Run) -> Figures:
    jobs = run.jobs
    completed = [job for job in jobs if job.completed]
    unserved = [job for job in jobs if not job.completed and not job.lost]
    firsts = sorted(job.first_token_s * 1000 for job in completed if job.first_token_s is not None)
    handovers = sorted(float(gap) for job in completed for gap in job.handovers_ms)
    checks_s = sum(node.busy_s.get("score", 0.0) for node in run.nodes)
    work_s = sum(node.busy_s.get("generate", 0.0) + node.busy_s.get("call", 0.0) for node in run.nodes)
    medium = run.medium
    named = medium.named_there + len(medium.named)
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
        unserved=len(unserved),
        unserved_nobody=sum(job.why == Code.NO_EXECUTOR for job in unserved),
        lost=sum(job.lost for job in jobs),
        in_class=in_class / len(completed) if completed else None,
        first_token_ms=spread(firsts) if firsts else Spread(),
        handover_ms=spread(handovers) if handovers else Spread(),
        verification_overhead=checks_s / work_s if work_s else None,
        nodes_up=sum(run.up) / len(run.up) if run.up else None,
        lookup_peers=medium.exchanged[Message.GET_PROVIDERS] / medium.finds if medium.finds else None,
        lookup_found=None,
        ghosts=len(medium.named) / named if named else None,
        index_records_s=max((_busiest(node.place.asked) for node in run.nodes if node.index), default=None),
        index_load_s=_mean_load(run),
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
        sum(feeder.portions_ws for feeder in feeders) / whole_ws,
        sum(feeder.reached_ws for feeder in feeders) / whole_ws,
    )
