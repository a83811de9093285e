"""Who takes part in a simulation with every task: nodes, clients and judges, as the scenario and the seed have them."""

from __future__ import annotations

from collections.abc import Sequence

from nacl.signing import SigningKey

from ....protocol.identity import peer_id
from ..days import MODELS
from ..events.spreading import appearance, demand
from ..population import CHARACTERS as NAMES
from ..population import NAT_NAMES, REGION_NAMES, Population
from ..regions import CONE, OPEN
from ..scenario import Scenario
from .bundles import SimBundle
from .chance import chance_for
from .characters import CHARACTERS, HONEST
from .clients import ClientSpec
from .judges import JUDGES, JudgeSpec
from .medium import Medium, Place
from .nodes import Coming, NodeSpec


def coming_of(
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


def node_spec(
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


def client_spec(
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


def judge_spec(
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


def address_of(place: Place) -> str:
    return f"/ip4/{place.ip}/tcp/4001/p2p/{peer_id(place.key)}"


def _ip(number: int) -> str:
    """Each has a network of its own."""
    return f"20.{number >> 8}.{number & 255}.7"
