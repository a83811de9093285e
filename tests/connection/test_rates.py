"""Rates by bounded transfers: what was proven to get through, within what everybody's owner allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from blake3 import blake3

from fallow.node import rates as module
from fallow.node.network.mesh import Mesh
from fallow.node.network.seam import Stream
from fallow.node.rates import AGAIN_S, FETCHED_BYTES_MIN, PEER_BYTES_MAX, STEPS, Rates
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.messages.discovery import RateReply, RateRequest
from fallow.protocol.streams import RATE_PROTOCOL
from tests.connection.conftest import Join


class Meter:
    """A node that measures its rates with one peer."""

    def __init__(self, mesh: Mesh, peer: bytes | None = None) -> None:
        self.mesh = mesh
        self.may = True
        self.rates = Rates(mesh, lambda: [peer] if peer else [], lambda: self.may)
        mesh.serve(RATE_PROTOCOL, self.rates.answer)


async def test_both_directions_are_measured(join: Join) -> None:
    other = Meter(await join(1))
    meter = Meter(await join(2, other.mesh.addresses()), other.mesh.key)
    with trio.fail_after(30):
        assert await meter.rates.measure()
    assert (meter.rates.up_kbit_per_s or 0) > 0 and (meter.rates.down_kbit_per_s or 0) > 0
    assert other.rates.up_kbit_per_s is None


@pytest.mark.spec("D-22", "D-23")
async def test_nothing_is_moved_where_one_of_the_owners_does_not_let_it(join: Join) -> None:
    other = Meter(await join(1))
    meter = Meter(await join(2, other.mesh.addresses()), other.mesh.key)
    other.may = False
    with trio.fail_after(30):
        await meter.rates.measure()
        assert meter.rates.down_kbit_per_s is None  # that something came up could not be helped
        meter.may, other.may = False, True
        assert not await meter.rates.measure()


Answer = Callable[[RateRequest], RateReply | None]


def honest(request: RateRequest) -> RateReply:
    proof = blake3(request.nonce + request.content).digest()
    return RateReply(proof, blake3(request.nonce).digest(length=request.wanted_bytes) if request.wanted_bytes else b"")


@pytest.mark.spec("D-21")
@pytest.mark.parametrize(
    ("lie", "counts"),
    [
        (honest, True),
        (lambda request: RateReply(bytes(32), honest(request).content), False),
        (lambda request: RateReply(honest(request).received, b"short"), False),
        (lambda request: RateReply(honest(request).received, bytes(request.wanted_bytes or 1)), False),
    ],
    ids=["the truth", "an acknowledgement of what it has not read", "less than was asked for", "zeros"],
)
async def test_what_is_not_proven_to_have_come_does_not_count(join: Join, lie: Answer, counts: bool) -> None:
    async def serve(stream: Stream) -> None:
        while True:
            request = decode_message_untrusted(await stream.receive())
            assert isinstance(request, RateRequest)
            reply = lie(request)
            assert reply is not None
            await stream.send(encode_message(reply))

    other = await join(1)
    other.serve(RATE_PROTOCOL, serve)
    meter = Meter(await join(2, other.addresses()), other.key)
    with trio.fail_after(30):
        assert await meter.rates.measure() is counts
    assert (meter.rates.up_kbit_per_s is not None) is counts


class Ends:
    """Both ends of one stream of questions, in memory."""

    def __init__(self, peer: bytes, requests: list[RateRequest]) -> None:
        self.peer = peer
        self._requests = requests
        self.replies: list[Any] = []

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return encode_message(self._requests.pop(0)) if self._requests else await trio.sleep_forever()

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.replies.append(decode_message_untrusted(frame))


@pytest.mark.spec("D-23")
async def test_a_peer_is_served_only_so_much_and_only_so_often(autojump_clock: trio.testing.MockClock) -> None:
    network: Any = None
    rates = Rates(network, list, lambda: True)
    largest = RateRequest(bytes(16), b"", STEPS[-1])

    async def given(peer: bytes, requests: int) -> int:
        stream: Any = Ends(peer, [largest] * requests)
        with trio.move_on_after(1):
            await rates.answer(stream)
        return sum(len(reply.content) for reply in stream.replies if reply.content is not None)

    assert await given(b"one", 6) == PEER_BYTES_MAX // STEPS[-1] * STEPS[-1]
    assert await given(b"one", 1) == 0
    assert await given(b"other", 1) == STEPS[-1]
    assert [await given(b"coming and going", 0) for _ in range(module.STREAMS_MAX)] == [0] * module.STREAMS_MAX
    assert await given(b"coming and going", 1) == 0
    total = sum([await given(b"%d" % number, 6) for number in range(40)])
    assert total <= module.SERVED_BYTES_MAX
    await trio.sleep(AGAIN_S)
    assert await given(b"one", 1) == STEPS[-1]


async def test_a_fetch_tells_the_rate_and_a_new_link_makes_it_forgotten() -> None:
    network: Any = None
    rates = Rates(network, list, lambda: True)
    rates.fetched(FETCHED_BYTES_MIN - 1, 0.001)
    assert rates.down_kbit_per_s is None
    rates.fetched(10_000_000, 2.0)
    assert rates.down_kbit_per_s == 40_000
    rates.link_changed()
    assert rates.down_kbit_per_s is None
