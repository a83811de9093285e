"""Shed orders over real libp2p nodes: they reach all who trust their key, however they are connected, and nobody else."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from nacl.signing import SigningKey

from fallow.node.availability import Availability
from fallow.node.grid import gossip
from fallow.node.grid.config import GridConfig
from fallow.node.grid.follower import Follower
from fallow.node.grid.gossip import publish
from fallow.node.grid.shed import Orders
from fallow.node.lending import Lending
from fallow.node.log import EventLog, wall_ms
from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.table_rules import profile_rules
from fallow.node.rules.policy import Rules
from fallow.node.rules.preferences import Preferences
from fallow.node.rules.worth import Draw
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import NetworkError
from fallow.protocol.grid import ShedOrder
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.messages.discovery import BlobRequest
from fallow.protocol.messages.grid import ShedExchange
from fallow.protocol.streams import SHED_PROTOCOL

GRID, STRANGER = SigningKey(b"\x07" * 32), SigningKey(b"\x08" * 32)
KEY, OTHER_KEY = bytes(GRID.verify_key), bytes(STRANGER.verify_key)
HOUR = 3_600_000


def order(key: SigningKey = GRID, **changes: Any) -> Signed[ShedOrder]:
    now_ms = wall_ms()
    plain = ShedOrder("home", "peak", 1, False, 0, 0, now_ms, now_ms + HOUR, now_ms, "the feeder is full")
    return sign(replace(plain, **changes), key)


@dataclass
class Machine:
    """A node without an engine: its place in the mesh, its owner's rules, and whom it heeds."""

    mesh: Mesh
    lending: Lending
    orders: Orders | None
    turned: trio.Event = field(default_factory=trio.Event)

    @property
    def lends(self) -> bool:
        return self.lending.decision.lends

    async def until(self, lends: bool) -> None:
        with trio.fail_after(60):
            while self.lends is not lends:
                await self.turned.wait()
                self.turned = trio.Event()


Start = Callable[..., Awaitable[Machine]]


async def _hold(context: Any, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    async with context as entered:
        task_status.started(entered)
        await trio.sleep_forever()


@pytest.fixture
def start(nursery: trio.Nursery, tmp_path: Path) -> Start:
    """`await start(1, bootstrap, keys=[KEY])`: a machine that trusts the keys."""

    async def start(number: int, bootstrap: Sequence[str] = (), keys: Sequence[bytes] = (KEY,)) -> Machine:
        folder = tmp_path / str(number)
        folder.mkdir(exist_ok=True)
        seed = hashlib.sha256(b"machine %d" % number).digest()
        network = open_network(seed, ["/ip4/127.0.0.1/tcp/0"], bootstrap, profile_rules(wall_ms))
        with trio.fail_after(30):
            mesh: Mesh = await nursery.start(_hold, network)
        availability = Availability(4)
        lending = Lending(Rules("site", Preferences(), 0, Draw(0, 100)), availability, folder, EventLog(folder))
        availability.start()
        config = GridConfig(("home",) if keys else (), tuple(keys))
        follower = Follower(config, lending, folder, EventLog(folder))
        machine = Machine(mesh, lending, follower.orders)

        def leave() -> None:
            availability.yielded()
            machine.turned.set()

        lending.on_leave, lending.on_lend = leave, lambda: machine.turned.set()
        nursery.start_soon(follower.run, mesh)
        return machine

    return start


@pytest.mark.spec("G-20", "G-21", "G-22")
async def test_an_order_reaches_all_who_trust_its_key_and_nobody_else(
    start: Start, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr(gossip, "ALONE_S", 0.3)
    first = await start(0)
    where = first.mesh.addresses()
    trusting = [first, *[await start(number, where) for number in range(1, 5)]]
    others = [await start(number, where, keys) for number, keys in ((5, ()), (6, (OTHER_KEY,)))]
    assert all(machine.lends for machine in trusting + others)

    utility: Mesh = await nursery.start(
        _hold, open_network(bytes(32), [], where, profile_rules(wall_ms), mode="client")
    )
    stop = order()
    with trio.fail_after(60):
        while True:  # told to one alone, who has to be found first
            took, _ = await publish(utility, stop, 1)
            if took:
                break
        for machine in trusting:
            await machine.until(lends=False)
    assert "the feeder is full" in trusting[-1].lending.decision.reasons[0].why
    assert all(machine.lends for machine in others)

    late = await start(7, where)
    await late.until(lends=False)

    await publish(utility, order(sequence=2, cancelled=True), 1)
    for machine in [*trusting, late]:
        await machine.until(lends=True)

    async def told(machine: Machine, frame: bytes) -> object:
        reply = await utility.request(machine.mesh.key, SHED_PROTOCOL, frame, machine.mesh.addresses())
        return decode_message_untrusted(reply)

    again = order(sequence=3)
    sent = ShedExchange(OTHER_KEY, (), (order(STRANGER).envelope,))
    assert await told(first, encode_message(sent)) == ShedExchange(OTHER_KEY, (), ())
    forged = ShedExchange(KEY, (), (order(STRANGER).envelope,))
    altered = ShedExchange(KEY, (), (again.envelope[:-1] + bytes([again.envelope[-1] ^ 1]),))
    for bad in (encode_message(forged), encode_message(altered), encode_message(BlobRequest(KEY)), b"junk"):
        with pytest.raises(NetworkError):
            await told(first, bad)
    assert all(machine.lends for machine in [*trusting, *others, late])
    await told(first, encode_message(ShedExchange(KEY, (), (again.envelope,))))
    await late.until(lends=False)


async def test_an_exchange_brings_either_side_all_that_it_lacks(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one message holds, both ways."""
    monkeypatch.setattr(gossip, "ALONE_S", 0.3)
    held = {number: Orders([KEY], ["home"], tmp_path / str(number), EventLog(tmp_path)) for number in (1, 2)}
    for number, orders in held.items():
        (tmp_path / str(number)).mkdir()
        for event in range(70):
            orders.take_untrusted(order(event=f"{number}-{event}", zone="street").envelope, KEY, wall_ms())
        orders.save()
    one = await start(1)
    two = await start(2, one.mesh.addresses())
    with trio.fail_after(60):
        while True:
            if all(machine.orders and len(machine.orders.of(KEY)) == 140 for machine in (one, two)):
                break
            await trio.sleep(0.05)


@dataclass
class Alone:
    """A network in which nobody is asked anything: answering needs none."""

    key: bytes = bytes(32)


class Question:
    """A peer's one frame, and what it is answered."""

    def __init__(self, frame: bytes) -> None:
        self.peer, self.sent_bytes, self.answer, self._frame = b"\x01" * 32, 0, b"", frame

    async def receive(self) -> bytes:
        return self._frame

    async def send(self, frame: bytes) -> None:
        self.answer = frame

    async def close(self) -> None: ...

    async def reset(self) -> None: ...


async def test_whoever_brings_what_is_over_again_and_again_waits_for_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    orders = Orders([KEY], ["home"], tmp_path, EventLog(tmp_path))
    orders.take_untrusted(order(sequence=9).envelope, KEY, wall_ms())
    answering = gossip.Gossip(cast(Any, Alone()), orders, lambda: None, EventLog(tmp_path))
    old = ShedExchange(KEY, (), tuple(order(sequence=number).envelope for number in range(1, 9)))
    questions = [Question(encode_message(old)) for _ in range(3)]
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for question in questions:
            nursery.start_soon(answering.answer, question)
    assert trio.current_time() - began == pytest.approx(3 * 8 * gossip.USELESS_S)
    assert all(decode_message_untrusted(each.answer).orders for each in questions)  # type: ignore[union-attr]
    began = trio.current_time()
    await answering.answer(Question(encode_message(ShedExchange(KEY, (), (order(sequence=10).envelope,)))))
    assert trio.current_time() == began


async def test_an_order_is_acted_upon_before_it_is_written_down(tmp_path: Path) -> None:
    done: list[str] = []
    log = EventLog(tmp_path, lambda event, fields: done.append(event))
    orders = Orders([KEY], ["home"], tmp_path, log)
    answering = gossip.Gossip(cast(Any, Alone()), orders, lambda: done.append("acted upon"), log)
    await answering.answer(cast(Any, Question(encode_message(ShedExchange(KEY, (), (order().envelope,))))))
    assert done == ["acted upon", "shed_order"]
