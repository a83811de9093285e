"""One who watches the DHT, day and night, and cannot tell when a household comes or goes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node import config, machine
from fallow.node.announcing import AT_ONCE
from fallow.node.availability import Availability
from fallow.node.log import EventLog
from fallow.node.machine import Machine
from fallow.node.mandates import Authority
from fallow.node.network.mesh import open_network
from fallow.node.network.seam import Network, Provider, Reachability
from fallow.node.network.table_rules import profile_rules
from fallow.node.presence import ANNOUNCE_S, JITTER, Presence
from fallow.node.profiles import Offer
from fallow.protocol.envelope import sign
from fallow.protocol.identity import WorkerKey
from fallow.protocol.names import profile_key, provider_key
from fallow.protocol.profiles import ServedBundle
from fallow.protocol.published import decode_profiles_untrusted
from fallow.protocol.shards import CROWD_MAX, shard_of

OWNER, NODE = SigningKey(b"o" * 32), SigningKey(b"n" * 32)
OWNER_KEY, NODE_KEY = bytes(OWNER.verify_key), bytes(NODE.verify_key)
BUNDLES = [bytes([number]) * 32 for number in range(1, 4)]
NOW_MS = 1_790_000_000_000
HOME = (
    "/ip4/198.51.100.1/tcp/1/p2p/relay/p2p-circuit/p2p/node",
    "/ip4/203.0.113.1/tcp/1/p2p/relay/p2p-circuit/p2p/node",
)
ROAD = (*HOME[:1], "/ip4/192.0.2.9/tcp/1/p2p/other/p2p-circuit/p2p/node")


def _offer(rate: int, bundles: Sequence[bytes] = BUNDLES) -> Offer:
    """A worker's: its rates are measured when it starts."""
    served = tuple(ServedBundle(bundle, ("call",), "class", rate, rate, rate) for bundle in bundles)
    worker = WorkerKey(NODE_KEY, rate.to_bytes(32), NOW_MS, NOW_MS + 1000)
    return Offer(NODE_KEY, {}, served, (), sign(worker, NODE))


class Seen:
    """A network in which the machine's way out is what the test says, and everything put into the table is noted."""

    key = NODE_KEY

    def __init__(self, crowd: Sequence[bytes] = ()) -> None:
        self.where = HOME
        self.crowd = list(crowd)
        self.seen: list[tuple[float, str, Any]] = []
        self._news = trio.Event()

    def addresses(self) -> tuple[str, ...]:
        return self.where

    def move(self, where: tuple[str, ...]) -> None:
        self.where = where
        self._news.set()
        self._news = trio.Event()

    async def moved(self, known: Sequence[str]) -> None:
        while tuple(known) == self.where:
            await self._news.wait()

    def reachability(self) -> Reachability:
        return Reachability(True, None, (), "", 0, 0)

    def peers(self) -> list[bytes]:
        return []

    async def put(self, key: str, value: bytes) -> int:
        await trio.sleep(0.2)
        told = decode_profiles_untrusted(value, wall_ms())
        self.seen.append((trio.current_time(), key, told))
        return 20

    async def provide(self, key: str) -> int:
        await trio.sleep(0.2)
        self.seen.append((trio.current_time(), key, None))
        return 20

    async def find(self, key: str, tell: Callable[[Provider], None] | None = None) -> list[Provider]:
        await trio.sleep(0.2)
        self.seen.append((trio.current_time(), f"find {key}", None))
        shard = int(key.rpartition("/")[2])
        return [Provider(peer, ()) for peer in self.crowd if shard == 0 or peer[0] % 2 == shard % 2]


def wall_ms() -> int:
    """The wall clock follows the test's, which jumps."""
    return NOW_MS + round(trio.current_time() * 1000)


@pytest.fixture
def jumping(monkeypatch) -> None:
    """The clock jumps, not while a thread works; and the wall's goes with it."""

    _lives_on(monkeypatch, random.Random(5))


def _lives_on(monkeypatch: Any, chance: random.Random) -> None:
    """The node lives on a machine of this chance, on which nothing takes time."""

    async def at_once(work: Callable[[], Any], _limiter: trio.CapacityLimiter | None) -> Any:
        await trio.lowlevel.checkpoint()
        return work()

    made = Machine(lambda: wall_ms() * 1_000_000, chance, at_once)
    monkeypatch.setattr(machine, "HERE", ContextVar("HERE", default=made))


def _presence(folder: Path, network: Any) -> tuple[Presence, Availability]:
    settings = config.parse({"state": str(folder), "kind": "vehicle"}, folder)
    availability = Availability(jobs_max=4)
    made = Presence(settings, NODE, Authority(OWNER_KEY, OWNER), cast(Network, network), availability, _offer(100))
    return made, availability


async def _day(folder: Path, monkeypatch: Any, trips: Sequence[tuple[float, float]]) -> list[tuple[float, str, Any]]:
    """What was put into the table in six hours, in which the owner was on the road from and until those times."""
    _lives_on(monkeypatch, random.Random(5))
    began = trio.current_time()
    network = Seen()
    presence, availability = _presence(folder, network)
    await presence.announce()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(presence.keep, EventLog(folder))
        for number, (leaves, returns) in enumerate(trips):
            await trio.sleep(began + leaves - trio.current_time())
            availability.obey(("the owner",))
            presence.renew(None)
            network.move(ROAD)
            await trio.sleep(began + leaves + 30 - trio.current_time())
            network.move(HOME)  # the relays that it had before took it again
            await trio.sleep(began + returns - trio.current_time())
            availability.obey(())
            presence.renew(_offer(200 + number))
        await trio.sleep(began + 6 * 3600 - trio.current_time())
        nursery.cancel_scope.cancel()
    return [(round(at - began, 6), key, _timeless(told)) for at, key, told in network.seen]


def _timeless(told: Any) -> Any:
    """A profile without what every profile has of its own: its time, and its number, which is the time."""
    if told is None:
        return None
    changes = {"sequence": 1, "issued_ms": 1, "expires_ms": 2}
    return [replace(each.record, mandate=bytes(32), **changes) if "mandate" in each.record.__slots__
            else replace(each.record, **changes) for each in (told.capability, told.connectivity)]  # fmt: skip


@pytest.mark.spec("D-36")
async def test_the_table_is_told_the_same_at_the_same_time_whoever_drives_off(
    autojump_clock, jumping, tmp_path, monkeypatch
):
    at_home = await _day(tmp_path, monkeypatch, [])
    # Away before, in and between rounds, for minutes and for hours.
    on_the_road = await _day(tmp_path, monkeypatch, [(100, 400), (1450, 1500), (3700, 13_000), (15_000, 20_000)])
    assert on_the_road == at_home
    profiles = [at for at, key, told in at_home if told is not None]
    gaps = [later - earlier for earlier, later in pairwise(profiles[1:])]
    assert len(profiles) > 20 and all(gap >= ANNOUNCE_S * (1 - JITTER) for gap in gaps)


async def test_many_keys_are_spread_over_the_round_and_within_the_rate(autojump_clock, jumping, tmp_path):
    network = Seen()
    presence, _ = _presence(tmp_path, network)
    presence.renew(_offer(1, [bytes([number]) * 32 for number in range(64)]))
    await presence.announce()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(presence.keep, EventLog(tmp_path))
        await trio.sleep(3 * ANNOUNCE_S)
        nursery.cancel_scope.cancel()
    provided = [(at, key) for at, key, _ in network.seen if key.startswith("serve/")]
    assert provided[AT_ONCE - 1][0] < 2 < provided[AT_ONCE][0]
    for at, _ in provided:
        assert sum(at - 10 < other <= at for other, _ in provided) <= 10
    later = {key for at, key in provided if at > ANNOUNCE_S}
    assert later == {provider_key(bytes([number]) * 32) for number in range(64)}


async def test_a_node_in_a_crowd_goes_down_and_looks_again(autojump_clock, jumping, tmp_path):
    chance = random.Random(1)
    network = Seen([chance.randbytes(32) for _ in range(2 * CROWD_MAX)])
    presence, _ = _presence(tmp_path, network)
    await presence.announce()
    own = provider_key(BUNDLES[0], shard=shard_of(NODE_KEY, 2))
    assert own in [key for _, key, _ in network.seen]
    network.crowd = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(presence.keep, EventLog(tmp_path))
        await trio.sleep(12 * ANNOUNCE_S)
        nursery.cancel_scope.cancel()
    assert [key for _, key, _ in network.seen if key.startswith("serve/")][-1] in [provider_key(b) for b in BUNDLES]


@pytest.mark.spec("D-36")
async def test_a_stranger_reads_the_same_from_a_real_table_before_and_after(tmp_path, monkeypatch):
    rules = profile_rules(machine.wall_ms)
    listen = ["/ip4/127.0.0.1/tcp/0"]
    async with (
        open_network(b"1" * 32, listen, [], rules) as index,
        open_network(bytes(NODE), listen, index.addresses(), rules) as vehicle,
        open_network(b"3" * 32, [], index.addresses(), rules, mode="client") as watcher,
    ):
        presence, availability = _presence(tmp_path, vehicle)

        async def read() -> tuple[Any, list[Provider]]:
            value = await watcher.get(profile_key(NODE_KEY))
            assert value is not None
            found = await watcher.find(provider_key(BUNDLES[0]))
            return _timeless(decode_profiles_untrusted(value, machine.wall_ms())), found

        with trio.fail_after(30):
            await presence.announce()
            parked = await read()
            availability.obey(("the owner",))
            presence.renew(None)
            assert await read() == parked
            await presence.announce()
            assert await read() == parked
            availability.obey(())
            presence.renew(_offer(300))
            await presence.announce()
            assert await read() == parked
            assert [provider.peer for provider in parked[1]] == [NODE_KEY]
