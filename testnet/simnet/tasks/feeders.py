"""Feeders, and what is drawn from them: members are nodes' own `node.grid.sharing`, under loss, cuts, wrong clocks and liars.

What a member wants to draw is chance, but for hours in which all want much at once. It draws as much of that as its node has
told it that it may, and nothing while no node runs. A feeder's second roster takes over half-way, and reaches one member alone:
the others have it from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import trio
from nacl.signing import SigningKey

from ....node.grid.ledger import LEDGER, ROSTER, Ledger
from ....node.grid.member import Allowance
from ....node.grid.sharing import Sharing
from ....node.log import EventLog
from ....node.machine import HERE, wall_ms
from ....node.network.seam import Network
from ....protocol.envelope import Signed, sign
from ....protocol.feeders import portions_w
from ....protocol.grid import FeederMember, FeederRoster, ShedOrder, check_shed_order, zone_cap_w
from ....protocol.streams import FEEDER_PROTOCOL
from .chance import chance_for
from .feeder_bounds import most_lent_w
from .feeder_liars import LyingMember
from .medium import Medium
from .nodes import NodeSpec
from .world import World

MEMBERS_MAX: Final = 30
SHARE_W: Final = 4_000
"""Guaranteed to each: a house behind a small transformer."""
LOOK_S: Final = 20.0
"""What a member wants is looked at so often."""
DEMAND_S: Final = 1800.0
"""So long a member wants the same: a job, a car on its charger."""
SHED_S: Final = 3600.0
"""Between two words of the utility to one member, on average."""
ROSTERS_MS: Final = 6 * 24 * 3600 * 1000
"""Of a feeder's second roster: longer than any simulation."""
BEFORE_MS: Final = 2 * 3600 * 1000
"""So long before the beginning all members' records began: nobody has forgotten anything."""
ZONE: Final = "house"


@dataclass
class Feeder:
    """One cable, and what is drawn from it."""

    number: int
    grid: SigningKey
    rosters: tuple[Signed[FeederRoster], Signed[FeederRoster]]
    portions: tuple[Mapping[bytes, Mapping[bytes, int]], ...]
    """By each roster: how much each member may lend to whom."""
    half_s: float
    """When the second roster takes over."""
    medium: Medium
    members: list[Member]
    most_w: int = 0
    """The most that was ever drawn from it, by all honest members together."""
    time_s: float = 0.0
    used_ws: float = 0.0
    """Watt-seconds that they drew;"""
    alone_ws: float = 0.0
    """that they would have drawn without leases;"""
    ideal_ws: float = 0.0
    """if every watt of the cap could go to whoever wants it;"""
    portions_ws: float = 0.0
    """the same, within the portions that the protocol lets one lend;"""
    reached_ws: float = 0.0
    """and of these, between members that can talk."""
    _noted_s: float | None = None
    _now_w: tuple[int, ...] = (0, 0, 0, 0, 0)
    _bounds_w: tuple[object, int, int] = (None, 0, 0)
    """The last two of these, and of what they are."""

    @property
    def cap_w(self) -> int:
        return self.rosters[0].record.cap_w

    def note(self) -> None:
        """Somebody draws another amount, or wants one."""
        now_s = trio.current_time()
        passed_s = 0.0 if self._noted_s is None else now_s - self._noted_s
        drawn_w, alone_w, ideal_w, portions_w, reached_w = self._now_w
        self.time_s += passed_s
        self.used_ws += passed_s * drawn_w
        self.alone_ws += passed_s * alone_w
        self.ideal_ws += passed_s * ideal_w
        self.portions_ws += passed_s * portions_w
        self.reached_ws += passed_s * reached_w
        honest = [member for member in self.members if not member.lies]
        running = [member for member in honest if member.sharing is not None]
        drawn_w = sum(member.drawn_w for member in honest)
        alone_w = sum(min(member.wants_w, SHARE_W) for member in running)
        ideal_w = min(SHARE_W * len(honest), sum(member.wants_w for member in running))
        bounds_w = (alone_w + more_w for more_w in self._more_w(running))
        self._noted_s, self._now_w = now_s, (drawn_w, alone_w, ideal_w, *bounds_w)
        self.most_w = max(self.most_w, drawn_w)

    def _more_w(self, running: Sequence[Member]) -> tuple[int, int]:
        """What leases could add now, if they took no time: between all who run, and between those that can talk."""
        second = trio.current_time() >= self.half_s
        wants_w = {member.key: member.wants_w - SHARE_W for member in running}
        places = {member.key: member.spec.place for member in running}
        links = tuple((place.silent, place.island, place.half) for place in places.values())
        if self._bounds_w[0] != (state := (second, tuple(wants_w.items()), links)):

            def talk(one: bytes, other: bytes) -> bool:
                return self.medium.way_open(places[one], places[other])

            portions = self.portions[second]
            of_all = most_lent_w(portions, wants_w, lambda one, other: True)
            self._bounds_w = state, of_all, most_lent_w(portions, wants_w, talk)
        return self._bounds_w[1:]


@dataclass
class Member:
    """One connection."""

    spec: NodeSpec
    lies: bool = False
    demand_w: int = 0
    wants_w: int = 0
    """Of the demand, what no shed order forbids."""
    allowed_w: int = 0
    drawn_w: int = 0
    over_cap_w: int = 0
    """The most by which it drew more than a shed order that had reached it allows."""
    orders: list[Signed[ShedOrder]] = field(default_factory=list)
    sharing: Sharing | None = None
    """Of the node that runs there now."""

    @property
    def key(self) -> bytes:
        return self.spec.place.key


def make_feeders(world: World, nodes: Sequence[NodeSpec], duration_s: float, liars: float) -> list[Feeder]:
    """The nodes are members of feeders, region by region."""
    feeders: list[Feeder] = []
    for region in sorted({node.place.region for node in nodes}):
        near = [node for node in nodes if node.place.region == region]
        for start in range(0, len(near), MEMBERS_MAX):
            feeders.append(_feeder(world, len(feeders), near[start : start + MEMBERS_MAX], duration_s, liars))
    return feeders


def _feeder(world: World, number: int, nodes: Sequence[NodeSpec], duration_s: float, liars: float) -> Feeder:
    grid = SigningKey(chance_for(world.seed, "grid", number).randbytes(32))
    keys = sorted(node.place.key for node in nodes)
    begins_ms = world.begins_ms() - BEFORE_MS
    half_ms = world.begins_ms() + round(duration_s * 500)
    members = tuple(FeederMember(key, SHARE_W) for key in keys)
    name, cap_w = f"feeder-{number}", SHARE_W * len(keys)
    first = FeederRoster(name, 1, cap_w, members, begins_ms, half_ms)
    second = FeederRoster(name, 2, cap_w, members, half_ms, half_ms + ROSTERS_MS)
    lot = chance_for(world.seed, "feeder liars", number)
    seats = [Member(node, lot.random() < liars) for node in nodes]
    rosters = sign(first, grid), sign(second, grid)
    portions = tuple({key: portions_w(roster, key) for key in keys} for roster in rosters)
    feeder = Feeder(number, grid, rosters, portions, duration_s / 2, world.medium, seats)
    for seat in seats:
        seat.spec.joins = _joining(world, feeder, seat)
    return feeder


def _joining(
    world: World, feeder: Feeder, member: Member
) -> Callable[[Network, trio.Nursery, Path, EventLog], Callable[[], None]]:
    """What a node does, each time that it starts, to be a member; what that gives back ends it."""

    def joins(network: Network, nursery: trio.Nursery, state: Path, log: EventLog) -> Callable[[], None]:
        ledger = Ledger(state / LEDGER, world.begins_ms() - BEFORE_MS)
        grid_key, name = bytes(feeder.grid.verify_key), f"feeder-{feeder.number}"
        found = ledger.member(member.spec.key, grid_key, name, wall_ms())
        if member.lies:
            found = LyingMember(
                member.spec.key, grid_key, name, chance_for(world.seed, "liar", member.spec.place.number)
            )
        told = feeder.rosters if member is feeder.members[0] else feeder.rosters[:1]
        for roster in told:
            if wall_ms() < roster.record.expires_ms and found.take_roster_untrusted(roster.envelope, wall_ms()):
                ledger.keep(ROSTER, name, roster.id, roster.envelope, roster.record.expires_ms)

        def tell(allowance: Allowance) -> None:
            member.allowed_w = allowance.watts
            _draw(feeder, member)

        sharing = Sharing(network, found, ledger, lambda: member.wants_w, tell, log)
        member.sharing = sharing
        sharing.look()
        network.serve(FEEDER_PROTOCOL, sharing.answer)
        nursery.start_soon(sharing.run)

        def leave() -> None:
            ledger.close()
            member.sharing, member.allowed_w = None, 0
            _draw(feeder, member)

        return leave

    return joins


async def run_member(world: World, feeder: Feeder, member: Member) -> None:
    """The member wants more or less, and is told to shed, until cancelled."""
    random = chance_for(world.seed, "member", member.spec.place.number)
    HERE.set(world.machine(random, lambda: member.spec.skew_ms))
    sheds_at_s = random.expovariate(1 / SHED_S)
    while True:
        now_s = trio.current_time()
        member.demand_w = _demand(world, feeder, member)
        _draw(feeder, member)
        if now_s >= sheds_at_s:
            sheds_at_s = now_s + random.expovariate(1 / SHED_S)
            _shed(world, feeder, member, random)
        await trio.sleep(LOOK_S * random.uniform(0.5, 1.0))


async def cut_in_two(world: World, feeder: Feeder, per_day: float, lasts_s: float) -> None:
    """Now and then half of the feeder's members do not reach the others, until cancelled."""
    random = chance_for(world.seed, "feeder cuts", feeder.number)
    while per_day:
        await trio.sleep(random.expovariate(per_day / 86_400))
        half = random.sample(feeder.members, len(feeder.members) // 2)
        world.log.write(-1, "feeder_cut", feeder.number, len(half))
        for name in (f"feeder-{feeder.number}", ""):
            for member in half:
                member.spec.place.half = name
            world.medium.changed()
            if name:
                await trio.sleep(lasts_s)


def _demand(world: World, feeder: Feeder, member: Member) -> int:
    """Nothing much, or more than the share; every third time or so, all want more than they have."""
    slot = int((trio.current_time() + DEMAND_S * member.spec.place.number / MEMBERS_MAX) // DEMAND_S)
    peak = chance_for(world.seed, "peak", feeder.number, int(trio.current_time() // DEMAND_S)).random() < 0.3
    lot = chance_for(world.seed, "demand", member.spec.place.number, slot)
    busy = lot.random() < 0.45 or peak
    return round(SHARE_W * (lot.uniform(1.2, 2.5) if busy else lot.uniform(0.0, 0.3)))


def _draw(feeder: Feeder, member: Member) -> None:
    """It draws what it wants, as far as it may."""
    cap_w = zone_cap_w(member.orders, ZONE, wall_ms())
    member.wants_w = _heeding(cap_w, member.demand_w)
    member.drawn_w = min(member.wants_w, member.allowed_w)
    feeder.note()
    if cap_w is not None:
        member.over_cap_w = max(member.over_cap_w, member.drawn_w - cap_w)


def _heeding(cap_w: int | None, demand_w: int) -> int:
    """What the utility lets it want."""
    return demand_w if cap_w is None else min(demand_w, cap_w)


def _shed(world: World, feeder: Feeder, member: Member, random: Random) -> None:
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
