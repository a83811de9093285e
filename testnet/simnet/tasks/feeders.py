"""Members of feeders draw, lend and borrow by the rules of `protocol.feeders` and `protocol.grid`, under loss and wrong clocks.

Nodes have no code yet that moves power, so a member here is a loop around those rules: it looks often what it may draw, draws
no more, stores what it lends before it sends it, and takes what reaches it. Its demand is chance, but for hours in which all
want much at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

import trio
from nacl.signing import SigningKey

from ....node.machine import HERE, wall_ms
from ....protocol.envelope import Signed, sign
from ....protocol.errors import LocalProtocolError, RemoteProtocolError
from ....protocol.feeders import allowance_w, check_lease, lend
from ....protocol.grid import FeederLease, FeederMember, FeederRoster, ShedOrder, check_shed_order, zone_cap_w
from .chance import chance_for
from .machines import NodeSpec, World

MEMBERS_MAX: Final = 20
SHARE_W: Final = 4_000
"""Guaranteed to each: a house behind a small transformer."""
LOOK_S: Final = 20.0
"""A member looks so often what it may draw: well within what clocks may be off."""
LEND_S: Final = 90.0
DEMAND_S: Final = 240.0
LEASE_MS: Final = 15 * 60 * 1000
SPARE_W: Final = 500
"""Less is not worth a lease."""
SHED_S: Final = 3600.0
"""Between two words of the utility to one member, on average."""
ROSTER_MS: Final = 6 * 24 * 3600 * 1000
ZONE: Final = "house"


@dataclass
class Feeder:
    """One cable, and what is drawn from it."""

    number: int
    grid: SigningKey
    roster: Signed[FeederRoster]
    members: list[Member]
    most_w: int = 0
    """The most that was ever drawn from it, by all members together."""

    @property
    def cap_w(self) -> int:
        return self.roster.record.cap_w

    def note(self) -> None:
        """Somebody draws another amount."""
        self.most_w = max(self.most_w, sum(member.drawn_w for member in self.members))


@dataclass
class Member:
    """One connection."""

    spec: NodeSpec
    drawn_w: int = 0
    over_cap_w: int = 0
    """The most by which it drew more than a shed order that had reached it allows."""
    lent: list[Signed[FeederLease]] = field(default_factory=list)
    held: list[Signed[FeederLease]] = field(default_factory=list)
    orders: list[Signed[ShedOrder]] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        return self.spec.place.key


def make_feeders(world: World, nodes: Sequence[NodeSpec]) -> list[Feeder]:
    """The nodes are members of feeders, region by region."""
    feeders: list[Feeder] = []
    for region in sorted({node.place.region for node in nodes}):
        near = [node for node in nodes if node.place.region == region]
        for start in range(0, len(near), MEMBERS_MAX):
            feeders.append(_feeder(world, len(feeders), near[start : start + MEMBERS_MAX]))
    return feeders


def _feeder(world: World, number: int, nodes: Sequence[NodeSpec]) -> Feeder:
    grid = SigningKey(chance_for(world.seed, "grid", number).randbytes(32))
    keys = sorted(node.place.key for node in nodes)
    begins_ms = world.begins_ms() - 1000
    members = tuple(FeederMember(key, SHARE_W) for key in keys)
    roster = FeederRoster(f"feeder-{number}", 1, SHARE_W * len(keys), members, begins_ms, begins_ms + ROSTER_MS)
    return Feeder(number, grid, sign(roster, grid), [Member(node) for node in nodes])


async def run_member(world: World, feeder: Feeder, member: Member) -> None:
    """The member draws, lends and borrows, until cancelled."""
    random = chance_for(world.seed, "member", member.spec.place.number)
    HERE.set(world.machine(random, lambda: member.spec.skew_ms))
    lends_at_s, sheds_at_s = random.uniform(0, LEND_S), random.expovariate(1 / SHED_S)
    while True:
        now_s = trio.current_time()
        demand_w = _demand(world, feeder, member)
        _look(feeder, member, demand_w)
        if now_s >= sheds_at_s:
            sheds_at_s = now_s + random.expovariate(1 / SHED_S)
            _shed(world, feeder, member, random, demand_w)
        if now_s >= lends_at_s:
            lends_at_s = now_s + LEND_S
            _lend(world, feeder, member, random, demand_w)
            _look(feeder, member, demand_w)
        await trio.sleep(LOOK_S * random.uniform(0.5, 1.0))


def _demand(world: World, feeder: Feeder, member: Member) -> int:
    """The same for some minutes; every third time or so, all want more than they have."""
    slot = int(trio.current_time() // DEMAND_S)
    peak = chance_for(world.seed, "peak", feeder.number, slot).random() < 0.35
    lot = chance_for(world.seed, "demand", member.spec.place.number, slot).random()
    return round(SHARE_W * (2.0 + lot if peak else 1.2 * lot))


def _look(feeder: Feeder, member: Member, demand_w: int) -> None:
    """It draws what it wants, as far as it may."""
    now_ms = wall_ms()
    most_w = allowance_w([feeder.roster], [*member.lent, *member.held], member.key, now_ms)
    cap_w = zone_cap_w(member.orders, ZONE, now_ms)
    member.drawn_w = min(demand_w, most_w, most_w if cap_w is None else cap_w)
    feeder.note()
    if cap_w is not None:
        member.over_cap_w = max(member.over_cap_w, member.drawn_w - cap_w)


def _lend(world: World, feeder: Feeder, member: Member, random: Random, demand_w: int) -> None:
    now_ms = wall_ms()
    spare_w = allowance_w([feeder.roster], member.lent, member.key, now_ms) - demand_w
    others = [other for other in feeder.members if other is not member]
    if spare_w < SPARE_W or not others:
        return
    other = random.choice(others)
    lease = FeederLease(
        feeder.roster.id, member.key, other.key, spare_w, now_ms, now_ms + LEASE_MS, random.randbytes(16)
    )
    try:
        signed = sign(lend(lease, feeder.roster, member.lent, now_ms), member.spec.key)
    except LocalProtocolError:
        return  # it has lent as much as it may
    member.lent.append(signed)  # stored, and drawn less, before anybody sees it
    world.log.write(member.spec.place.number, "lends", other.spec.place.number, spare_w)
    _send(world, member.spec, other.spec, random, partial(_take_lease, world, feeder, other, signed))


def _take_lease(world: World, feeder: Feeder, member: Member, lease: Signed[FeederLease]) -> None:
    now_ms = world.begins_ms() + round(trio.current_time() * 1000 + member.spec.skew_ms)
    try:
        check_lease(lease, feeder.roster, member.held, now_ms)
    except RemoteProtocolError:
        return
    member.held.append(lease)


def _shed(world: World, feeder: Feeder, member: Member, random: Random, demand_w: int) -> None:
    """The utility wants the member to draw less for a while; its words may overtake one another."""
    now_ms = world.begins_ms() + round(trio.current_time() * 1000)
    order = ShedOrder(
        zone=ZONE, event=f"peak-{len(member.orders)}", sequence=1, priority=random.randrange(3), cancelled=False,
        cap_w=random.randrange(500, SHARE_W), start_ms=now_ms, end_ms=now_ms + 600_000, issued_ms=now_ms, reason="peak",
    )  # fmt: skip
    signed = sign(order, feeder.grid)

    def arrive() -> None:
        check_shed_order(signed, [bytes(feeder.grid.verify_key)], now_ms)
        member.orders.append(signed)

    world.medium.post(trio.current_time() + random.expovariate(0.1), arrive)


def _send(world: World, sender: NodeSpec, receiver: NodeSpec, random: Random, arrived: partial[None]) -> None:
    """As a datagram: it may be lost, and may come twice or late."""
    medium, faults = world.medium, world.medium.faults
    if not medium.way_open(sender.place, receiver.place) or random.random() < faults.loss:
        return
    for _ in range(2 if random.random() < faults.duplication else 1):
        late_s = random.expovariate(1.0) if random.random() < faults.reordering else 0.0
        medium.post(trio.current_time() + medium.one_way_s(sender.place, receiver.place) + late_s, arrived)
