"""Where nodes are: latency between regions, and what their routers let through.

Latencies are about what the large clouds publish between their own regions, halved to one way, and a last mile for what is
not in a data centre. They are assumptions, stated here once for both fidelities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the world. `geohash` is as much of its place as a profile may tell; `zone_h` its clock's lead over UTC."""

    geohash: str
    zone_h: int


REGIONS: Final[Mapping[str, Region]] = {
    "us-east": Region("dqc", -5),
    "us-west": Region("9q9", -8),
    "sa-east": Region("6gy", -3),
    "eu-west": Region("gc7", 0),
    "eu-central": Region("u0y", 1),
    "ap-south": Region("te7", 5),
    "ap-east": Region("xn7", 9),
    "oceania": Region("r3g", 10),
}

_NAMES: Final = tuple(REGIONS)

RTT_MS: Final = (
    # us-east us-west sa-east eu-west eu-cen ap-south ap-east oceania
    (6, 65, 115, 70, 92, 190, 150, 200),
    (65, 6, 175, 130, 148, 220, 105, 140),
    (115, 175, 8, 180, 200, 300, 255, 310),
    (70, 130, 180, 6, 25, 120, 205, 255),
    (92, 148, 200, 25, 6, 110, 225, 250),
    (190, 220, 300, 120, 110, 10, 130, 150),
    (150, 105, 255, 205, 225, 130, 8, 105),
    (200, 140, 310, 255, 250, 150, 105, 8),
)
"""Round trips between data centres, in milliseconds; symmetric."""

LAST_MILE_MS: Final[Mapping[str, float]] = {"commuter": 12.0, "taxi": 20.0, "robot": 5.0, "site": 4.0, "host": 3.0}
"""One way, from the machine to its region's backbone: mobile links and home Wi-Fi for vehicles, cables for what stays."""


@dataclass(frozen=True, slots=True)
class Nat:
    """What a router lets through. `punched` is the chance that a hole through it works towards an open or a cone router."""

    dialable: bool
    punched: float


OPEN, CONE, SYMMETRIC, CARRIER = "open", "cone", "symmetric", "carrier"
NATS: Final[Mapping[str, Nat]] = {
    OPEN: Nat(dialable=True, punched=1.0),
    CONE: Nat(dialable=False, punched=0.9),
    SYMMETRIC: Nat(dialable=False, punched=0.1),
    CARRIER: Nat(dialable=False, punched=0.5),
}

NAT_SHARES: Final[Mapping[str, Mapping[str, float]]] = {
    "commuter": {OPEN: 0.02, CONE: 0.58, SYMMETRIC: 0.1, CARRIER: 0.3},
    "taxi": {OPEN: 0.0, CONE: 0.2, SYMMETRIC: 0.1, CARRIER: 0.7},
    "robot": {OPEN: 0.05, CONE: 0.75, SYMMETRIC: 0.15, CARRIER: 0.05},
    "site": {OPEN: 0.6, CONE: 0.35, SYMMETRIC: 0.05, CARRIER: 0.0},
    "host": {OPEN: 0.7, CONE: 0.25, SYMMETRIC: 0.05, CARRIER: 0.0},
}
"""Of each day's machines, so many are behind each kind of router: assumptions."""


def one_way_ms(region: str, model: str, other_region: str, other_model: str) -> float:
    """From a machine to another, with nothing in between."""
    backbone = RTT_MS[_NAMES.index(region)][_NAMES.index(other_region)] / 2
    return LAST_MILE_MS[model] + backbone + LAST_MILE_MS[other_model]


def nat_of(model: str, lot: float) -> str:
    """The router of a machine whose lot, from 0 to 1, is this."""
    below = 0.0
    for nat, share in NAT_SHARES[model].items():
        below += share
        if lot < below:
            return nat
    return [*NAT_SHARES[model]][-1]


def can_dial(nat: str) -> bool:
    """Whether others reach a machine behind such a router without its help."""
    return NATS[nat].dialable


def punch_chance(nat: str, other: str) -> float:
    """How likely a direct way between two machines is that met over a relay. Two symmetric routers never let one through."""
    one, two = NATS[nat].punched, NATS[other].punched
    return 0.0 if nat == other == SYMMETRIC else min(one, two)


LINK_MBIT: Final[Mapping[str, tuple[float, float]]] = {
    "commuter": (20.0, 100.0),
    "taxi": (10.0, 50.0),
    "robot": (20.0, 100.0),
    "site": (100.0, 500.0),
    "host": (200.0, 500.0),
}
"""Up and down, of a day's machines where they stand: assumptions."""
