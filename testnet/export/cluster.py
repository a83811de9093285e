"""What a network for many machines consists of, before it is put into anybody's format."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from nacl.signing import SigningKey

from ...node.config import GEOHASH, KINDS
from ...protocol.errors import Code, ConfigError
from ...protocol.identity import peer_id
from ..adversaries import Seat, find
from ..plan import KIND_COUNTS

NODES_MAX: Final = 10_000
"""Twice what one Kubernetes cluster is tested with in nodes, and some of ours share one."""
PORT: Final = 4001
BUNDLES: Final = ("tiny-chat", "tiny-embed")
"""What the image brings along: built there once, so that all nodes have the same."""
IMAGE: Final = "fallow-testnet:latest"
STATE, HOME = "/var/lib/fallow", "/opt/fallow/home"
KEYS: Final = "/run/fallow/bootstrap.key"
"""Where the first node finds the seed of its key, in hex: the others know its peer id beforehand."""
USER: Final = 10_001
CPU_MILLI, MEMORY_MIB = 250, 640
"""Asked for: a node and its worker rest at some 500 MiB with tiny bundles."""
CPU_MILLI_MAX, MEMORY_MIB_MAX = 1000, 1536
"""Allowed: a compile takes a core and another half gigabyte."""
LOAD_CPU_MILLI, LOAD_MEMORY_MIB = 500, 512
MINUTES_MAX: Final = 24 * 60
CLIENTS_MAX: Final = 256
"""Side by side in one process: each holds a text and its checks."""
DISK_MIB_MAX: Final = 2048
"""Journal, logs and what is compiled."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that are alike."""

    name: str
    kind: str
    count: int
    adversary: str = ""


@dataclass(frozen=True)
class Cluster:
    """The whole network."""

    groups: tuple[Group, ...]
    bundles: tuple[str, ...] = BUNDLES
    regions: tuple[str, ...] = ()
    image: str = IMAGE
    minutes: int = 10
    """Of load."""
    clients: int = 8
    """That ask side by side."""
    key: SigningKey = field(default_factory=SigningKey.generate)
    """Of the first node."""

    @property
    def peer(self) -> str:
        """Peer id of the first node."""
        return peer_id(bytes(self.key.verify_key))

    @property
    def seed_hex(self) -> str:
        """Of the first node's key: whoever has it can be that node."""
        return bytes(self.key).hex()

    def environment(self, group: Group | None, bootstrap: str) -> dict[str, str]:
        """What a container of the group is told; `bootstrap` is the first node's host name. No group: the load."""
        told = {"FALLOW_HOME": HOME, "FALLOW_BOOTSTRAP_HOST": bootstrap, "FALLOW_BOOTSTRAP_PEER": self.peer}
        if group is None:
            return {
                **told, "FALLOW_BUNDLE": self.bundles[0], "FALLOW_LOAD_S": str(60 * self.minutes),
                "FALLOW_LOAD_CLIENTS": str(self.clients),
            }  # fmt: skip
        told |= {"FALLOW_KIND": group.kind, "FALLOW_BUNDLES": ",".join(self.bundles), "FALLOW_PORT": str(PORT)}
        told |= {"FALLOW_REGIONS": ",".join(self.regions)} if self.regions else {}
        return told | ({"FALLOW_ADVERSARY": group.adversary} if group.adversary else {})


def plan_groups(
    nodes: int, kinds: Mapping[str, int] | None = None, adversaries: Mapping[str, int] | None = None
) -> tuple[Group, ...]:
    """So many nodes in groups: one of each kind, in the usual proportions unless `kinds` says others, and one of each
    adversary, whose number is not taken from the others'. The first node of all is in none: it is always there.

    Raises `ConfigError(bad_config)`.
    """
    shares = dict(KIND_COUNTS if kinds is None else kinds)
    weight = sum(shares.values())
    if not 2 <= nodes <= NODES_MAX or weight < 1:
        raise bad(f"it has 2 to {NODES_MAX} nodes, of at least one kind")
    counts = {kind: (nodes - 1) * share // weight for kind, share in shares.items()}
    first = next(kind for kind in KINDS if shares.get(kind))
    counts[first] += nodes - 1 - sum(counts.values())
    groups = [Group(kind, kind, count) for kind, count in counts.items() if count]
    for name, count in (adversaries or {}).items():
        adversary = find(name)
        if adversary.seat is Seat.CLIENT or adversary.one_owner:
            raise bad(f"{name} is no node that stands by itself")
        if not 0 < count <= nodes:
            raise bad(f"{count} x {name} is not from one to as many as there are nodes")
        groups.append(Group(name, "host", count, name))
    return tuple(groups)


def parse_counts(text: str, what: str) -> dict[str, int]:
    """`liar=2,quantiser=1` as counts. Raises `ConfigError(bad_config)`."""
    counts: dict[str, int] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, count = part.partition("=")
        if not count.isdecimal() or len(count) > 5:
            raise bad(f"{part[:80]!r} is not {what}=COUNT")
        counts[name] = counts.get(name, 0) + int(count)
    return counts


def parse_regions(text: str) -> tuple[str, ...]:
    """`u33,9q8` as regions. Raises `ConfigError(bad_config)`."""
    regions = tuple(filter(None, map(str.strip, text.split(","))))
    for region in regions:
        if not 1 <= len(region) <= 3 or not GEOHASH.issuperset(region):
            raise bad(f"{region[:80]!r} is no geohash of one to three characters")
    return regions


def check_names(namespace: str, image: str, bundles: Sequence[str]) -> None:
    """Raises `ConfigError(bad_config)` for what no cluster would take."""
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", namespace):
        raise bad(f"{namespace[:80]!r} is no namespace: small letters, digits and dashes")
    if not re.fullmatch(r"[a-z0-9][a-zA-Z0-9._/:@-]{0,254}", image):
        raise bad(f"{image[:80]!r} is no name of an image")
    if not bundles or not all(re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,63}", name) for name in bundles):
        raise bad("bundles are names with commas between")


def check_load(minutes: int, clients: int) -> None:
    """Raises `ConfigError(bad_config)` for a load that nobody would wait for, or that one pod cannot make."""
    if not (1 <= minutes <= MINUTES_MAX and 1 <= clients <= CLIENTS_MAX):
        raise bad(f"its load takes 1 to {MINUTES_MAX} minutes, with 1 to {CLIENTS_MAX} clients")


def bad(problem: str) -> ConfigError:
    """The error that says so."""
    return ConfigError(Code.BAD_CONFIG, f"This is no test network for a cluster: {problem}.")
