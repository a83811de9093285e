"""What a test network is to consist of, and each node's settings for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..node.config import KINDS
from ..protocol.errors import Code, ConfigError
from ..protocol.identity import CHECKER, EXECUTOR, RELAY
from .adversaries import ADVERSARIES, Seat, find
from .natlab import Nat

BUNDLES = ("smollm2-135m-instruct", "minilm-l6")
"""What nodes serve unless told otherwise."""
KIND_COUNTS: Mapping[str, int] = {"vehicle": 2, "robot": 2, "site": 1, "host": 1}
NODES_MAX = 32
"""A node and its worker hold about a quarter of a gigabyte beside the shared weights."""
PLACES_MAX = 99
"""Of a node among the others of one adversary, and of any count that is given as text."""
DAY_BEGINS = "05:00"
"""Of the days that owners live in a test network: most machines are left alone then."""
DAY_OUTSIDE_S = 24 * 3600.0
SLOW_COMMAND = [sys.executable, "-P", "-m", f"{__package__}.slow"]
SENSED: Mapping[str, str] = {"vehicle": "commuter", "robot": "humanoid", "site": "site"}
"""Scripted days of `node.sensors` by kind. A host is always lent."""
MOVES = ("vehicle", "robot")
"""Kinds that live behind a home's router, and are reached through relays."""
_ORDER = ("host", "site", "vehicle", "robot")
"""The first node is the one that all others join by, so those that stay come first."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node to be started."""

    name: str
    kind: str
    adversary: str = ""
    """What it does to others, by the name of the plug-in; empty if it is honest."""
    owner: str = ""
    """Nodes with the same word here have one owner; without one, a node has its own."""
    region: str = ""
    nat: str | None = None
    """What the router in front of it does with ports, where each node has a namespace: one of `natlab.Nat`; None: no router."""
    day: str = ""
    """The day script by which its owner takes the machine and leaves it; empty: the one of its kind."""
    sensors: str = ""
    """The scripted day of signals (`node.sensors`) that its own rules follow; empty: no sensors, its owner uses `drive`."""
    token_ms: int = 0
    """Its worker takes so much longer for each token, as one with a larger model would."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Further settings of its `node.toml`; they come before what the plan would set."""

    @property
    def liar(self) -> bool:
        """Whether what it delivers may be wrong."""
        return bool(self.adversary) and find(self.adversary).lies


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole network."""

    nodes: tuple[NodePlan, ...]
    bundles: tuple[str, ...] = BUNDLES
    namespaces: bool = False
    """Each node has a network namespace of its own, and homes have routers; needs root."""
    day_s: float = 0.0
    """A day of the day scripts is so long; 0: nobody drives."""
    seed: int = 0
    clients: tuple[str, ...] = ()
    """Adversaries that join as clients."""

    @property
    def honest(self) -> tuple[NodePlan, ...]:
        return tuple(node for node in self.nodes if not node.adversary)


def plan_nodes(
    nodes: int | None = None,
    liars: int = 0,
    kinds: Mapping[str, int] | None = None,
    adversaries: Mapping[str, int] | None = None,
) -> list[NodePlan]:
    """The nodes in the order of their start; the first is the bootstrap, adversaries come last.

    Without `kinds`, the usual mix, as often as needed. Raises `ConfigError(bad_config)`.
    """
    counts = KIND_COUNTS if kinds is None else kinds
    named = [kind for kind in _ORDER for _ in range(counts.get(kind, 0))]
    if kinds is None and nodes is not None:
        named = sorted((named * NODES_MAX)[: max(0, nodes)], key=_ORDER.index)
    if nodes is not None and nodes != len(named):
        raise bad(f"the kinds make {len(named)} nodes, not {nodes}")
    if not 1 <= len(named) <= NODES_MAX:
        raise bad(f"it has 1 to {NODES_MAX} nodes, not {len(named)}")
    wicked = {**(adversaries or {}), "liar": (adversaries or {}).get("liar", 0) + liars}
    parts = [(name, owner) for name, count in wicked.items() for owner in _owners(name, count)]
    if liars < 0 or not len(parts) < len(named):
        raise bad(f"{len(parts)} adversaries among {len(named)} nodes leave nobody to trust")
    parts = [("", "")] * (len(named) - len(parts)) + parts
    return [
        NodePlan(f"{i}-{kind}", kind, adversary, owner)
        for i, (kind, (adversary, owner)) in enumerate(zip(named, parts, strict=True))
    ]


def _owners(adversary: str, count: int) -> list[str]:
    """The owner of each of the nodes that so many of these adversaries have; empty: an owner of its own."""
    kind = find(adversary)
    if kind.seat is Seat.CLIENT:
        return []
    return [f"{adversary}-{each}" if kind.one_owner else "" for each in range(count) for _ in range(kind.nodes)]


def client_adversaries(adversaries: Mapping[str, int]) -> tuple[str, ...]:
    """Those that are no nodes but join as clients do, each as often as it is wanted."""
    return tuple(name for name, count in adversaries.items() if find(name).seat is Seat.CLIENT for _ in range(count))


def housed(nodes: Sequence[NodePlan]) -> tuple[NodePlan, ...]:
    """The nodes as they live in a world of networks: what moves is behind routers, of both kinds by turns.

    Raises `ConfigError(bad_config)` if there is nobody to relay for them.
    """
    if all(node.kind in MOVES for node in nodes):
        raise bad("vehicles and robots behind routers need a site or a host that relays for them")
    routers = iter(list(Nat) * NODES_MAX)
    return tuple(
        replace(node, nat=str(next(routers))) if node.kind in MOVES and node.nat is None else node for node in nodes
    )


def with_sensors(nodes: Sequence[NodePlan]) -> tuple[NodePlan, ...]:
    """The nodes, of which each follows the day of signals of its kind, if there is one and it has no script of its own."""
    return tuple(replace(node, sensors=SENSED.get(node.kind, "")) if not node.day else node for node in nodes)


def parse_kinds(text: str) -> dict[str, int]:
    """`vehicle=2,robot=1` as counts. Raises `ConfigError(bad_config)`."""
    return parse_counts(text, "KIND", KINDS)


def parse_adversaries(text: str) -> dict[str, int]:
    """`liar=1,quantiser=1` as counts. Raises `ConfigError(bad_config)`."""
    return parse_counts(text, "ADVERSARY", tuple(ADVERSARIES))


def parse_counts(text: str, what: str, known: Sequence[str]) -> dict[str, int]:
    """`NAME=COUNT,NAME=COUNT` with names that are known. Raises `ConfigError(bad_config)`."""
    counts: dict[str, int] = {}
    for part in text.split(","):
        name, _, count = part.strip().partition("=")
        if name not in known or not (count.isascii() and count.isdecimal()) or len(count) > len(str(PLACES_MAX)):
            raise bad(f"{part.strip()[:80]!r} is not {what}=COUNT with one of {', '.join(known)}")
        counts[name] = counts.get(name, 0) + int(count)
    return counts


def settings(
    plan: NodePlan,
    state: Path,
    home: Path,
    bundles: Sequence[str],
    bootstrap: Sequence[str],
    *,
    owner_key: Path | None = None,
    namespaces: bool = False,
    day_s: float = 0.0,
    more: Mapping[str, object] | None = None,
) -> str:
    """The node's configuration file, in TOML. `more` comes before all others."""
    values: dict[str, object] = {
        "state": str(state),
        "home": str(home.absolute()),
        "kind": plan.kind,
        "bundles": list(bundles),
        "bootstrap": list(bootstrap),
        "spare_worker": False,  # many nodes share this machine's memory
        "strangers_ppm": 1_000_000,  # nobody settles a test's debts
        "settle_s": 0,  # whoever parks in a test network wants to see it
        "lan": False,
    }
    if namespaces:
        values["listen"] = ["/ip4/0.0.0.0/tcp/0"]
        values["reach"] = "relayed" if plan.nat is not None else "direct"
        if plan.nat is None and plan.kind not in MOVES:
            values["roles"] = [EXECUTOR, CHECKER, RELAY]
    else:
        values["reach"] = "direct"  # all are on one machine: nobody is kept from anybody, nor has a place to hide
    if plan.region:
        values["region"] = plan.region
    if owner_key:
        values["owner_key"] = str(owner_key)
    if plan.sensors:
        values["sensors"] = [{"kind": "scripted", "day": plan.sensors, **_pace(day_s)}]
    if plan.token_ms:
        values["worker_command"] = [*SLOW_COMMAND, str(plan.token_ms)]
    if plan.adversary:
        values |= find(plan.adversary).settings()
    return toml(values | dict(plan.settings) | dict(more or {}))


def _pace(day_s: float) -> dict[str, object]:
    """How a scripted day goes by: beginning when all days of a plan do, or with the day outside."""
    return {"start": DAY_BEGINS, "speed": DAY_OUTSIDE_S / day_s} if day_s else {}


def command_of(plan: NodePlan) -> list[str]:
    """The program that is run in the node's place, with `--config FILE` after it; none: the node itself."""
    adversary = find(plan.adversary) if plan.adversary else None
    return adversary.command() if adversary and adversary.seat is Seat.DAEMON else []


def toml(values: Mapping[str, object]) -> str:
    """The settings as a TOML file."""
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    lines = [f"{name} = {_written(value)}\n" for name, value in plain.items()]
    for name, table in values.items():
        if isinstance(table, Mapping):
            lines += [f"{name}.{line}" for line in toml(table).splitlines(keepends=True)]
    return "".join(lines)


def _written(value: object) -> str:
    """JSON's strings, numbers and truths are TOML's too."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_written(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def bad(problem: str) -> ConfigError:
    return ConfigError(Code.BAD_CONFIG, f"This is no test network: {problem}.")
