"""Round trips over standing streams, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node import probing as module
from fallow.node.log import wall_ms
from fallow.node.network.mesh import Mesh
from fallow.node.network.seam import Network, Stream
from fallow.node.network.standing import Fault
from fallow.node.probing import Probing
from fallow.node.questions import IDLE_S
from fallow.node.vantage import WINDOW_PROBES, WINDOW_S, Measured, Window, has_changed
from fallow.node.witnesses import AGAIN_S, OWNERS_MAX, Witnesses
from fallow.protocol.envelope import sign
from fallow.protocol.errors import Code, NetworkError, RemoteProtocolError
from fallow.protocol.identity import EXECUTOR, Mandate
from fallow.protocol.limits import WITNESSES_MAX
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.messages.discovery import Probe, ProbeReply
from fallow.protocol.streams import PROBE_PROTOCOL
from fallow.protocol.witness import Witness, check_witness_untrusted, heard_untrusted
from tests.connection.conftest import Join, key_of

OWNERS = [SigningKey(bytes([number]) * 32) for number in range(1, 10)]


def mandate(node: SigningKey, owner: SigningKey) -> bytes:
    now = wall_ms()
    record = Mandate(bytes(node.verify_key), bytes(owner.verify_key), (EXECUTOR,), 1, now, now + 3_600_000, None)
    return sign(record, owner).envelope


class Prober:
    """A node that probes and answers."""

    def __init__(self, mesh: Mesh, number: int) -> None:
        key, owner = key_of(number), OWNERS[number]
        self.mesh = mesh
        self.owner = bytes(owner.verify_key)
        self.news = trio.Event()
        self.witnesses = Witnesses(mesh.key, self.owner, wall_ms)
        self.probing = Probing(mesh, key, lambda: mandate(key, owner), self.witnesses, self._changed)
        mesh.serve(PROBE_PROTOCOL, self.probing.answer)

    def _changed(self) -> None:
        self.news.set()
        self.news = trio.Event()

    async def until(self, true: Any) -> None:
        with trio.fail_after(20):
            while not true():
                await self.news.wait()


@pytest.mark.spec("D-19", "D-20", "D-24")
async def test_nodes_measure_each_other_and_show_what_they_were_told(
    join: Join, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.1)
    first = Prober(await join(1), 1)
    second = Prober(await join(2, first.mesh.addresses()), 2)
    client = await join(3, first.mesh.addresses())  # it serves no probes
    nursery.start_soon(first.probing.run)
    nursery.start_soon(second.probing.run)
    await first.until(lambda: first.witnesses.shown())
    measured = first.probing.measured()
    assert measured is not None and measured.peers == 1 and measured.loss_ppm == 0
    assert 0 < measured.rtt_p50_us <= measured.rtt_p95_us < 2_000_000
    assert first.probing.peers == [second.mesh.key]
    (statement,) = first.witnesses.shown()
    found = check_witness_untrusted(statement, first.mesh.key, wall_ms())
    assert (found.owner, found.statement.witness) == (second.owner, second.mesh.key)
    assert client.key not in first.probing.peers


async def _first_stream(mesh: Mesh, nursery: trio.Nursery, answer: Any) -> None:
    async def serve(stream: Stream) -> None:
        await answer(stream)

    mesh.serve(PROBE_PROTOCOL, serve)


@pytest.mark.spec("D-20")
async def test_only_a_probes_own_nonce_answers_it(
    join: Join, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that answers ahead of time is no vantage point; one that is late once loses that probe alone."""
    monkeypatch.setattr(module, "ANSWER_S", 1.0)
    monkeypatch.setattr(module, "EVERY_S", 0.1)
    asked, lost = trio.Event(), 4

    async def hasty(stream: Stream) -> None:
        await stream.send(encode_message(ProbeReply(bytes(16))))
        await stream.receive()
        asked.set()

    async def late(stream: Stream) -> None:
        held = b""
        for index in range(20):
            probe = decode_message_untrusted(await stream.receive())
            assert isinstance(probe, Probe)
            if index == lost:
                held = probe.nonce
                continue
            if held:
                await stream.send(encode_message(ProbeReply(held)))
                held = b""
            await stream.send(encode_message(ProbeReply(probe.nonce)))
        await trio.sleep_forever()

    first = Prober(await join(1), 1)
    liar, slow = await join(2, first.mesh.addresses()), await join(3, first.mesh.addresses())
    await _first_stream(liar, nursery, hasty)
    await _first_stream(slow, nursery, late)
    nursery.start_soon(first.probing.run)
    with trio.fail_after(20):
        await asked.wait()
    await first.until(lambda: (found := first.probing.measured()) and found.loss_ppm)
    measured = first.probing.measured()
    assert measured is not None and measured.peers == 1
    answered_before = measured
    await first.until(lambda: (found := first.probing.measured()) and found.loss_ppm < answered_before.loss_ppm)
    assert first.probing.peers == [slow.key]


async def test_streams_of_probers_are_bounded(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Prober(await join(1), 1)
    other = await join(2, first.mesh.addresses())
    standing = [await other.open(first.mesh.key, PROBE_PROTOCOL) for _ in range(module.PROBER_STREAMS_MAX)]
    for stream in standing:
        await stream.send(encode_message(Probe(bytes(16), None)))
        assert decode_message_untrusted(await stream.receive()) == ProbeReply(bytes(16))
    one_more = await other.open(first.mesh.key, PROBE_PROTOCOL)
    with trio.fail_after(10), pytest.raises(Exception, match="stream_closed"):
        await one_more.receive()


class Full:
    """A network with more peers than are probed, and each answers until it is silenced."""

    def __init__(self) -> None:
        self.looked = 0
        self.opened: list[bytes] = []
        self.silent: set[bytes] = set()

    def peers(self) -> list[bytes]:
        self.looked += 1
        return [bytes([number]) * 32 for number in range(module.PEERS_MAX + 1)]

    async def open(self, peer: bytes, protocol: str) -> Stream:
        await trio.lowlevel.checkpoint()
        self.opened.append(peer)
        return cast(Stream, Echo(self, peer))


class Echo:
    def __init__(self, network: Full, peer: bytes) -> None:
        self._network, self._peer = network, peer
        self._answer = b""

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        probe = decode_message_untrusted(frame)
        assert isinstance(probe, Probe)
        self._answer = encode_message(ProbeReply(probe.nonce))

    async def receive(self) -> bytes:
        if self._peer in self._network.silent:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return self._answer

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_who_probes_as_many_as_it_may_looks_for_nobody_until_one_of_them_is_gone(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    network, told = Full(), 0

    def changed() -> None:
        nonlocal told
        told += 1

    probing = alone(network, changed)
    nursery.start_soon(probing.run)
    await trio.sleep(600)
    assert (network.looked, len(network.opened)) == (1, module.PEERS_MAX)
    first, rounds = module.FIRST * module.PEERS_MAX, 600 / module.EVERY_S * module.PEERS_MAX
    assert told - first == pytest.approx(rounds / module.TOLD_EVERY, rel=0.2)
    network.silent.add(network.opened[0])
    await trio.sleep(module.LOST_MAX * (1.2 * module.EVERY_S + module.ANSWER_S) + module.LOOK_S)
    assert network.looked == 2
    assert len(probing.peers) == module.PEERS_MAX and network.opened[0] not in probing.peers


def alone(network: Any, changed: Any = lambda: None, metered: Any = lambda: False) -> Probing:
    key, owner = key_of(1), OWNERS[1]
    witnesses = Witnesses(bytes(key.verify_key), bytes(owner.verify_key), wall_ms)
    return Probing(cast(Network, network), key, lambda: mandate(key, owner), witnesses, changed, metered)


async def test_a_metered_probe_finds_its_stream_open(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Whoever answers leaves a stream on which nothing is asked: also when the answer before was lost."""
    assert module.METERED_EVERY_S * (1 + module.JITTER) + module.ANSWER_S < IDLE_S

    class Lossy(Full):
        async def open(self, peer: bytes, protocol: str) -> Stream:
            await super().open(peer, protocol)
            return cast(Stream, Timed(self, peer))

    class Timed(Echo):
        async def send(self, frame: bytes) -> None:
            await super().send(frame)
            asked_at.setdefault(self._peer, []).append(trio.current_time())

        async def receive(self) -> bytes:
            if len(asked_at[self._peer]) % 3 == 0:
                await trio.sleep_forever()
            return await super().receive()

    asked_at: dict[bytes, list[float]] = {}
    nursery.start_soon(alone(Lossy(), metered=lambda: True).run)
    await trio.sleep(3600)
    gaps = [later - earlier for times in asked_at.values() for earlier, later in pairwise(times)]
    assert len(gaps) > 500
    assert max(gaps) < IDLE_S


class Flood:
    """A prober's end that asks as fast as it is answered."""

    def __init__(self, peer: bytes, probes: int) -> None:
        self.peer, self.answers, self._left = peer, 0, probes

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._left:
            raise NetworkError(Code.STREAM_CLOSED, "that was all")
        self._left -= 1
        return encode_message(Probe(bytes(16), None))

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.answers += 1


class Blaming(Full):
    def __init__(self) -> None:
        super().__init__()
        self.blamed: list[bytes] = []

    def blame(self, peer: bytes, fault: Fault) -> None:
        self.blamed.append(peer)


@pytest.mark.spec("D-40")
async def test_whoever_probes_too_often_is_left_and_keeps_nobody_from_an_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Blaming()
    probing = alone(network)
    greedy = [Flood(b"g" * 32, 1000) for _ in range(3)]  # one after another: a new stream is no new peer
    for stream in greedy:
        await probing.answer(cast(Stream, stream))
    assert sum(stream.answers for stream in greedy) == module.PROBES_MIN
    assert network.blamed == 3 * [b"g" * 32]
    modest = Flood(b"m" * 32, 1 + module.FIRST)
    await probing.answer(cast(Stream, modest))
    assert modest.answers == 1 + module.FIRST
    await trio.sleep(30)
    await probing.answer(cast(Stream, again := Flood(b"g" * 32, 1000)))
    assert again.answers == module.PROBES_MIN // 2


@pytest.mark.spec("D-40")
async def test_all_probers_together_are_answered_so_often_and_none_of_them_is_blamed_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Blaming()
    probing = alone(network)
    crowd = [
        Flood(number.to_bytes(32), module.PROBES_MIN) for number in range(module.ALL_MIN // module.PROBES_MIN + 10)
    ]
    for stream in crowd:
        await probing.answer(cast(Stream, stream))
    assert sum(stream.answers for stream in crowd) == module.ALL_MIN
    assert not network.blamed


async def test_peers_that_leave_at_once_make_a_node_send_no_more_than_so_many_probes(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    class Restless(Full):
        """Always somebody new, who answers the first probes and goes."""

        sent = 0

        def peers(self) -> list[bytes]:
            self.looked += 1
            return [(module.PEERS_MAX * self.looked + number).to_bytes(32) for number in range(module.PEERS_MAX)]

        async def open(self, peer: bytes, protocol: str) -> Stream:
            await super().open(peer, protocol)
            return cast(Stream, Leaving(self, peer))

    class Leaving(Echo):
        left = module.FIRST

        async def send(self, frame: bytes) -> None:
            if not self.left:
                raise NetworkError(Code.STREAM_CLOSED, "it has left")
            self.left -= 1
            network.sent += 1
            await super().send(frame)

    network = Restless()
    nursery.start_soon(alone(network).run)
    await trio.sleep(600)
    assert 10 * module.SENT_MIN / 2 < network.sent <= 11 * module.SENT_MIN


def test_a_window_holds_so_many_and_nothing_old() -> None:
    window = Window()
    for second in range(2 * WINDOW_PROBES):
        window.add(second, 0.001 * second)
    assert len(window.times(2 * WINDOW_PROBES)) == WINDOW_PROBES
    assert window.times(2 * WINDOW_PROBES + WINDOW_S) == []


@pytest.mark.parametrize(
    ("changes", "news"),
    [
        ({}, False), ({"rtt_p95_us": 44_000}, False), ({"rtt_p95_us": 60_000}, True), ({"rtt_p50_us": 10_000}, True),
        ({"jitter_us": 2_000}, False), ({"jitter_us": 9_000}, True), ({"loss_ppm": 9_999}, False),
        ({"loss_ppm": 10_000}, True), ({"peers": 3}, False),
    ],
)  # fmt: skip
def test_noise_is_no_news(changes: dict[str, int], news: bool) -> None:
    before = Measured(5, 20_000, 40_000, 1_000, 0)
    assert has_changed(before, replace(before, **changes)) is news
    assert has_changed(None, before) and has_changed(before, None) and not has_changed(None, None)


def statement(by: SigningKey, owner: SigningKey, subject: bytes, rtt_us: int = 1000, **changes: Any) -> bytes:
    now = wall_ms()
    record = Witness(
        bytes(by.verify_key), subject, mandate(by, owner), now, now + 600_000, 20, rtt_us, rtt_us, rtt_us, 0
    )
    return sign(replace(record, **changes), by).envelope


NODE, OWNER = bytes(key_of(0).verify_key), OWNERS[0]


async def test_statements_are_kept_one_of_each_owner_and_the_newest_are_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    witnesses = Witnesses(NODE, bytes(OWNER.verify_key), wall_ms)
    first, second = key_of(1), key_of(2)
    witnesses.take_untrusted(one := statement(first, OWNERS[1], NODE), bytes(first.verify_key))
    witnesses.take_untrusted(statement(second, OWNER, NODE), bytes(second.verify_key))
    assert witnesses.shown() == (one,)  # an owner is no witness of itself
    again = statement(first, OWNERS[1], NODE, 2000)
    witnesses.take_untrusted(again, bytes(first.verify_key))
    assert witnesses.shown() == (one,)  # too soon
    await trio.sleep(AGAIN_S)
    witnesses.take_untrusted(again, bytes(first.verify_key))
    assert witnesses.shown() == (again,)
    for number in range(10, 10 + OWNERS_MAX + 3):
        key = key_of(number)
        witnesses.take_untrusted(statement(key, key, NODE), bytes(key.verify_key))
    assert len(witnesses.shown()) == WITNESSES_MAX and again not in witnesses.shown()
    assert len(heard_untrusted(witnesses.shown(), NODE, bytes(OWNER.verify_key), wall_ms())) == WITNESSES_MAX


@pytest.mark.spec("D-24", "D-26")
async def test_nothing_forged_or_passed_on_is_shown() -> None:
    first, second, third = key_of(1), key_of(2), key_of(3)
    key = bytes(first.verify_key)
    for wrong in (
        statement(second, OWNERS[2], NODE),  # another's, passed on
        statement(first, OWNERS[1], bytes(third.verify_key)),  # about another
        statement(first, OWNERS[1], NODE, witness=bytes(second.verify_key)),  # in another's name
        statement(first, OWNERS[1], NODE, mandate=mandate(second, OWNERS[2])),  # with another's owner
        statement(first, OWNERS[1], NODE)[:-32] + bytes(32),
        b"noise",
    ):
        witnesses = Witnesses(NODE, bytes(OWNER.verify_key), wall_ms)
        with pytest.raises(RemoteProtocolError):
            witnesses.take_untrusted(wrong, key)
        assert witnesses.shown() == ()
    witnesses = Witnesses(NODE, bytes(OWNER.verify_key), wall_ms)
    witnesses.take_untrusted(statement(first, OWNERS[1], NODE, issued_ms=1, expires_ms=2), key)
    assert witnesses.shown() == ()  # of long ago: a clock that is off is no offence
