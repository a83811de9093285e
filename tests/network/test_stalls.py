"""A peer whose packets get lost, or come a byte a second, costs nobody else anything."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from fallow.node.network.identity import id_of
from fallow.protocol.errors import Code, NetworkError

MIB = 1024 * 1024


class Wire:
    """A way to a port: whole, until it is told to lose everything, or to let through a byte a second either way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.port = 0
        self.trickles = False
        self.broken = trio.Event()

    async def run(self, task_status=trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._carry, listeners, task_status=task_status)

    async def _carry(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(self._move, near, far)
            nursery.start_soon(self._move, far, near)

    async def _move(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while received := await source.receive_some():
                while self.broken.is_set() and received:
                    await trio.sleep(1 if self.trickles else float("inf"))
                    await target.send_all(received[:1])
                    received = received[1:]
                await target.send_all(received)


@pytest.fixture
async def wire(start_peer, nursery) -> tuple[Wire, bytes, str]:
    """The wire, the key of the peer behind it, and the address at which it is dialled."""
    peer = await start_peer(1)
    wire = Wire(int(peer.addresses[0].split("/")[4]))
    await nursery.start(wire.run)
    return wire, peer.key, peer.addresses[0].replace(f"/tcp/{peer.addresses[0].split('/')[4]}", f"/tcp/{wire.port}")


@pytest.mark.parametrize("trickles", [False, True])
async def test_a_stalled_peer_ends_by_itself_and_delays_nobody(wire, start_peer, start_node, trickles) -> None:
    way, stalled, address = wire
    live, node = await start_peer(2), await start_node(3)
    way.trickles = trickles
    ends: list[Code] = []

    async def ends_with(call) -> None:
        with pytest.raises(NetworkError) as caught:
            await call()
        ends.append(caught.value.code)

    with trio.fail_after(30):
        await node.connect(address)
        job = await node.open(stalled, "/test/echo", watched=True)
        await job.send(b"through the wire")
        assert await job.receive() == b"through the wire"
        bulk = await node.open(stalled, "/test/echo")
        bystander = await node.open(live.key, "/test/echo", live.addresses, watched=True)
        way.broken.set()

        async def send_bulk() -> None:
            while True:
                await bulk.send(bytes(MIB))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends_with, lambda: node.request(stalled, "/test/echo", b"anybody?"))
            nursery.start_soon(ends_with, job.receive)
            nursery.start_soon(ends_with, send_bulk)
            exchanges = 0
            while len(ends) < 2:  # before the connection itself has ended
                await bystander.send(b"on time")
                assert await bystander.receive() == b"on time"
                assert await node.request(live.key, "/test/echo", b"too") == b"too"
                exchanges += 1
            assert exchanges > 2
            assert stalled in node.peers()
            if trickles:  # the rest is as if nothing came at all
                return nursery.cancel_scope.cancel()
            while len(ends) < 3:
                await bystander.send(bytes(MIB))
                assert len(await bystander.receive()) == MIB
        assert ends == [Code.STREAM_CLOSED] * 3
        assert node.peers() == [live.key]


async def test_questions_that_come_a_byte_at_a_time_keep_no_others_waiting(start_node, nursery) -> None:
    """Whole packets of a hostile peer this time, so that its connection counts as alive."""
    node, hostile, other = await start_node(1), await start_node(2), await start_node(3)

    async def echo(stream) -> None:
        await stream.send(await stream.receive())

    node.serve("/test/echo", echo)

    async def trickle() -> None:
        stream = await hostile._host.new_stream(id_of(node.key), ["/test/echo"])
        for byte in b"\0\0\xff\xff" + bytes(65_534):  # never the whole of it
            await stream.write(bytes([byte]))
            await trio.sleep(0.05)

    with trio.fail_after(20):
        await hostile.connect(node.addresses()[0])
        for _ in range(20):
            nursery.start_soon(trickle)
        for index in range(50):
            answer = await other.request(node.key, "/test/echo", b"%d" % index, node.addresses())
            assert answer == b"%d" % index
