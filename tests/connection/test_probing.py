"""Round trips over standing streams, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node import probing as module
from fallow.node.log import wall_ms
from fallow.node.network.mesh import Mesh
from fallow.node.network.seam import Stream
from fallow.node.probing import Probing
from fallow.node.vantage import WINDOW_PROBES, WINDOW_S, Measured, Window, has_changed
from fallow.node.witnesses import AGAIN_S, OWNERS_MAX, Witnesses
from fallow.protocol.envelope import sign
from fallow.protocol.errors import RemoteProtocolError
from fallow.protocol.identity import EXECUTOR, Mandate
from fallow.protocol.limits import WITNESSES_MAX
from fallow.protocol.messages import PROBE_PROTOCOL, Probe, ProbeReply, decode_message_untrusted, encode_message
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
